"""What is brought back from an earlier state: classes, objects and authors, and where that changed anything."""

from __future__ import annotations

import numpy as np
import pytest
from paintkit import CLASSES, SHAPE, do_something

from napari_sparseseg._types import Box, Plane, Region
from napari_sparseseg.errors import InputError
from napari_sparseseg.storage.project import image as image_module
from napari_sparseseg.storage.project.image import restore_annotation
from napari_sparseseg.storage.strokes import AnnotationStore, StrokeAuthor


def whole(store):
    return Box.whole(store.shape[1:])


def said(store, frame):
    """What is said of each voxel of a frame: its classes, its object, and whether the program suggested that."""
    sets = store.sets
    codes = [sets.get(code, code) for code in store.codes[frame].ravel().tolist()]
    suggested = np.broadcast_to(store.is_suggested(frame, whole(store)), store.shape[1:])
    return codes, store.objects(frame, whole(store)).tolist(), suggested.tolist()


def all_said(store):
    complete = {found.plane for found in store.painted_slices() if found.is_complete}
    return [said(store, frame) for frame in range(store.shape[0])], complete


def painted(seed, n=15, shape=SHAPE):
    rng, store = np.random.default_rng(seed), AnnotationStore(shape)
    for _ in range(n):
        do_something(store, rng)
    frame = int(rng.integers(shape[0]))
    store.annotate(Region(frame, Box((0, 3, 3), (2, 9, 9))), 2, by=StrokeAuthor.SUGGESTION, object_id=4)
    region = Region(frame, Box((0, 9, 9), (2, 12, 12)))
    store.say(region, 2, is_present=True, class_ids=CLASSES, background=1, object_id=5)
    store.say(region, 3, is_present=True, class_ids=CLASSES, background=1, object_id=5)
    return store


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("at_once", [2**25, 1])
def test_classes_objects_and_authors_are_as_they_were_and_all_of_it_can_be_undone(monkeypatch, seed, at_once):
    monkeypatch.setattr(image_module, "_VOXELS_AT_ONCE", at_once)
    store, old = painted(seed, shape=(2, 4, 20, 70)), painted(seed + 100, shape=(2, 4, 20, 70))
    before, complete = all_said(store)
    changed = restore_annotation(store, old)
    assert all_said(store) == all_said(old)
    n_edits = len(changed) - len(complete ^ all_said(old)[1])
    for _ in range(n_edits):
        store.undo()
    assert all_said(store)[0] == before


def test_no_set_takes_the_code_of_another_and_those_that_nothing_is_painted_with_need_none():
    store, old = AnnotationStore((1, 1, 1, 200)), AnnotationStore((1, 1, 1, 200))
    erased = np.arange(1, 101, dtype=np.uint8).reshape(1, 1, 100)
    store.correct(Region(0, Box((0, 0, 0), (1, 1, 100))), 0, erased, class_ids=range(1, 128), background=None)
    for x in range(27):
        old.code_for(none_of=[x + 1, 127])
        old.annotate(Region(0, Box((0, 0, x), (1, 1, x + 1))), old.code_for(any_of=[x + 1, x + 2]))
    restore_annotation(store, old)
    assert all_said(store) == all_said(old)
    while store.undo():
        pass
    store.redo()
    for x in range(27, 54):
        old.annotate(Region(0, Box((0, 0, x), (1, 1, x + 1))), old.code_for(any_of=[x + 1, x + 2]))
    before = all_said(store)
    with pytest.raises(InputError, match="more than 127 different sets"):
        restore_annotation(store, old)
    assert all_said(store) == before


def test_what_changed_is_told_and_nothing_else():
    store, old = AnnotationStore((3, 2, 40, 300)), AnnotationStore((3, 2, 40, 300))
    same, more = Box((0, 5, 5), (1, 9, 9)), Box((1, 30, 290), (2, 40, 300))
    for each in (store, old):
        each.annotate(Region(0, same), 2, object_id=1)
    old.annotate(Region(0, more), 3)
    store.annotate(Region(2, more), 2, object_id=7)
    old.set_complete(Plane(1, 0, 1), complete=True)
    assert restore_annotation(store, old) == [(0, more), (2, more), (1, Plane(1, 0, 1).box((2, 40, 300)))]
    assert restore_annotation(store, old) == []


def test_an_object_alone_is_brought_back_and_taken_away():
    store, old = AnnotationStore(SHAPE), AnnotationStore(SHAPE)
    region, other = Region(1, Box((1, 2, 3), (2, 8, 9))), Region(1, Box((2, 2, 3), (3, 8, 9)))
    store.annotate(region, 2)
    store.annotate(other, 2, object_id=3)
    old.annotate(region, 2, object_id=3)
    old.annotate(other, 2)
    restore_annotation(store, old)
    assert (store.objects(1, region.box) == 3).all()
    assert not store.objects(1, other.box).any()


def test_more_objects_than_one_edit_may_have_are_brought_back():
    shape = (1, 1, 20, 30)
    ids = np.arange(600, dtype=np.int32).reshape(shape[1:])
    store, old = AnnotationStore(shape), AnnotationStore(shape)
    for row in range(20):
        part = Box((0, row, 0), (1, row + 1, 30))
        old.annotate_objects(Region(0, part), np.full(part.shape, 2), ids[part.slices])
    assert len(restore_annotation(store, old)) == 3
    np.testing.assert_array_equal(store.objects(0, whole(store)), ids)


def test_the_state_of_another_image_is_refused():
    with pytest.raises(InputError, match="other images"):
        restore_annotation(AnnotationStore(SHAPE), AnnotationStore((1, 2, 3, 4)))
