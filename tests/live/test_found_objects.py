"""Objects are found in pieces, corrected by hand, undone; and each correction is said in the annotation."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from napari_sparseseg._types import Box, Plane, Region, Statement
from napari_sparseseg.config import PaintConfig
from napari_sparseseg.engine.classes import ClassTable
from napari_sparseseg.engine.objects.measure import measure
from napari_sparseseg.errors import InputError, NotFittedError
from napari_sparseseg.live.classes import ClassList
from napari_sparseseg.live.events import LiveEvents, ObjectTable
from napari_sparseseg.live.found_objects import FoundObjects
from napari_sparseseg.live.image import LiveImage
from napari_sparseseg.live.object_table import ObjectFilter, ObjectTables
from napari_sparseseg.live.opened import Opened
from napari_sparseseg.live.shown import labels_left_possible, with_paint
from napari_sparseseg.live.switchboard import Switchboard
from napari_sparseseg.storage import sparse
from napari_sparseseg.storage.object_ids import Change, ObjectIds
from napari_sparseseg.storage.project.project import Project
from napari_sparseseg.storage.strokes import AnnotationStore, StrokeKind
from napari_sparseseg.storage.volume import ArrayVolume

SHAPE = (6, 16, 20)
WHOLE = Box.whole(SHAPE)
SLICE = Plane(0, 0, 3)


class Desk:
    """Two objects of class 2 that touch at x 10, found by nobody."""

    def __init__(self):
        self.ids = np.zeros(SHAPE, np.uint32)
        self.ids[1:5, 3:12, 3:10], self.ids[1:5, 3:12, 10:17] = 1, 2
        self.labels = np.where(self.ids > 0, 2, 1).astype(np.uint8)
        self.store = AnnotationStore((1, *SHAPE), clock=lambda: 5.0)
        self.events = LiveEvents()
        self.switch = Switchboard(self.events)
        image = LiveImage.of(np.zeros(SHAPE, np.float32), None, None, None)
        self.opened = Opened(image, self.store, self.labels[None], self.switch)
        self.opened.objects.take((1, *SHAPE), 0, WHOLE, self.ids)
        self.boxes, self.asked = [], []
        self.events.objects_changed.connect(lambda change: self.boxes.append(change.box))
        self.classes, self.painting = ClassList(), PaintConfig()
        self.found = FoundObjects(
            lambda: self.opened,
            self.classes,
            lambda: self.painting,
            self.shown,
            bool,
            self.switch.wish,
            self.compute,
        )

    def shown(self, frame, box):
        """The labels, with the paint."""
        possible = labels_left_possible(self.store, self.classes, is_overlapping=self.painting.overlapping)
        return with_paint(self.labels[box.slices].copy(), self.store.codes[(frame, *box.slices)], possible)

    def compute(self, function):
        """As the compute thread would, when the test lets it."""
        future = Future()
        self.asked.append(lambda: future.set_result(function()))
        return future

    @property
    def now(self):
        return self.found.ids(0, WHOLE), self.store.codes[0].copy(), self.store.objects(0, WHOLE)


@pytest.fixture
def desk():
    return Desk()


def act(desk, name):
    if name == "fill":
        desk.ids[3, 6, 6] = 0
        desk.opened.objects.take((1, *SHAPE), 0, WHOLE, desk.ids)
    act_once(desk, name)


def act_once(desk, name):
    actions = {
        "merge": lambda: desk.found.merge(SLICE, (3, 6, 6), (3, 6, 14)),
        "split": lambda: desk.found.split(SLICE, (3, 6, 4), (3, 6, 8)),
        "delete": lambda: desk.found.delete(SLICE, (3, 6, 6)),
        "fill": lambda: desk.found.fill(SLICE, (3, 6, 5)),
    }
    actions[name]()


def test_merged_they_are_one_and_painted_as_one_on_the_slice(desk):
    act(desk, "merge")
    ids, codes, painted = desk.now
    np.testing.assert_array_equal(ids, np.where(desk.ids > 0, 1, 0))
    assert desk.found.count(0) == 1
    assert (codes[3][ids[3] > 0] == 2).all()
    assert np.unique(painted[3][ids[3] > 0]).tolist() == [1]
    assert np.count_nonzero(codes) == np.count_nonzero(ids[3])


def test_merged_they_are_one_where_the_background_has_the_highest_id(desk):
    desk.classes.add()
    desk.classes.set_background(desk.classes.add().class_id)
    act(desk, "merge")
    ids, codes, _ = desk.now
    assert desk.found.count(0) == 1
    assert (codes[3][ids[3] > 0] == 2).all()


def test_split_they_are_two_and_painted_as_two_on_the_slice(desk):
    act(desk, "split")
    ids, codes, painted = desk.now
    assert desk.found.count(0) == 3
    assert {int(ids[3, 6, 4]), int(ids[3, 6, 8])} == {1, 3}
    inside = desk.ids[3] == 1
    assert (codes[3][inside] == 2).all()
    assert (painted[3][inside] == np.where(ids[3][inside] == 1, 1, 2)).all()
    np.testing.assert_array_equal(ids > 0, desk.ids > 0)


def test_deleted_it_is_background_on_the_slice(desk):
    act(desk, "delete")
    ids, codes, _ = desk.now
    np.testing.assert_array_equal(ids, np.where(desk.ids == 2, 2, 0))
    assert (codes[3][desk.ids[3] == 1] == 1).all()
    assert np.count_nonzero(codes) == np.count_nonzero(desk.ids[3] == 1)


def test_without_background_a_deleted_one_is_not_what_it_was(desk):
    desk.classes.add()
    desk.classes.remove(1)
    act(desk, "delete")
    assert not desk.now[0][desk.ids == 1].any()
    assert desk.now[1][3, 6, 6] == 3  # the only one that is left


def test_filled_it_has_no_holes_and_the_hole_is_of_its_class(desk):
    desk.labels[3, 6, 6] = 1
    act(desk, "fill")
    ids, codes, _ = desk.now
    assert ids[3, 6, 6] == ids[3, 6, 5]
    assert (codes[3, 6, 6], np.count_nonzero(codes)) == (2, 1)
    with pytest.raises(InputError, match="no holes"):
        desk.found.fill(SLICE, (3, 6, 5))


@pytest.mark.parametrize("name", ["merge", "split", "delete", "fill"])
def test_each_is_undone_and_made_again_with_its_paint(desk, name):
    if name == "fill":
        desk.ids[3, 6, 6] = 0
        desk.opened.objects.take((1, *SHAPE), 0, WHOLE, desk.ids)
    desk.store.annotate(Region(0, Box((0, 0, 0), (1, 4, 4))), 1)
    before = desk.now
    act(desk, name)
    after = desk.now
    desk.store.annotate(Region(0, Box((5, 0, 0), (6, 4, 4))), 1)
    assert desk.found.undo()
    np.testing.assert_equal(desk.now, after)
    assert desk.found.undo()
    np.testing.assert_equal(desk.now, before)
    assert desk.found.redo()
    np.testing.assert_equal(desk.now, after)
    assert desk.found.redo()
    assert not desk.found.can_redo
    assert [desk.found.undo() for _ in range(4)] == [True, True, True, False]
    assert not desk.found.can_undo


def test_a_cut_that_is_found_later_is_undone_in_its_turn(desk, monkeypatch):
    monkeypatch.setattr("napari_sparseseg.live.found_objects._AT_ONCE", 0)
    future = desk.found.begin_split(SLICE, (3, 6, 4), (3, 6, 8))
    desk.store.annotate(Region(0, Box((0, 0, 0), (1, 4, 4))), 1)
    before = desk.now
    desk.asked.pop()()
    np.testing.assert_equal(desk.now, before)
    desk.found.finish(future.result())
    after = desk.now
    assert {int(after[0][3, 6, 4]), int(after[0][3, 6, 8])} == {1, 3}
    assert desk.found.undo()
    np.testing.assert_equal(desk.now, before)
    assert desk.found.undo()
    assert not desk.now[1].any()
    assert desk.found.redo()
    assert desk.found.redo()
    np.testing.assert_equal(desk.now, after)


def test_holes_that_are_found_later_are_filled_in_their_turn(desk, monkeypatch):
    monkeypatch.setattr("napari_sparseseg.live.found_objects._AT_ONCE", 0)
    desk.ids[3, 6, 6] = 0
    desk.opened.objects.take((1, *SHAPE), 0, WHOLE, desk.ids)
    future = desk.found.begin_fill(SLICE, (3, 6, 5))
    assert desk.now[0][3, 6, 6] == 0
    desk.asked.pop()()
    desk.found.finish(future.result())
    assert desk.now[0][3, 6, 6] == 1
    desk.found.begin_fill(SLICE, (3, 6, 5))
    with pytest.raises(InputError, match="no holes"):
        desk.asked.pop()()
    with pytest.raises(InputError, match="does not reach this slice"):
        desk.found.fill(replace(SLICE, index=0), (3, 6, 5))


def test_a_hole_that_another_object_was_found_in_is_not_filled(desk, monkeypatch):
    monkeypatch.setattr("napari_sparseseg.live.found_objects._AT_ONCE", 0)
    desk.ids[3, 6, 6] = 0
    desk.opened.objects.take((1, *SHAPE), 0, WHOLE, desk.ids)
    future = desk.found.begin_fill(SLICE, (3, 6, 5))
    desk.asked.pop()()
    desk.ids[3, 6, 6] = 7
    desk.opened.objects.take((1, *SHAPE), 0, WHOLE, desk.ids)
    with pytest.raises(InputError, match="changed meanwhile"):
        desk.found.finish(future.result())


@pytest.mark.parametrize("name", ["merge", "split", "delete", "another image"])
def test_a_cut_of_what_has_changed_meanwhile_is_none(desk, name, monkeypatch):
    monkeypatch.setattr("napari_sparseseg.live.found_objects._AT_ONCE", 0)
    future = desk.found.begin_split(SLICE, (3, 6, 4), (3, 6, 8))
    desk.asked.pop()()
    if name == "another image":
        desk.opened = Opened(desk.opened.image, desk.store, desk.opened.labels, desk.switch)
    else:
        act_once(desk, name)
    before = desk.now
    with pytest.raises(InputError, match="changed meanwhile"):
        desk.found.finish(future.result())
    np.testing.assert_equal(desk.now, before)


def test_a_piece_that_is_not_connected_stays_with_the_first_part(desk):
    desk.ids[1:3, 13:16, 3:6] = 1
    desk.opened.objects.take((1, *SHAPE), 0, WHOLE, desk.ids)
    future = desk.found.begin_split(SLICE, (3, 6, 4), (3, 6, 8))
    assert not desk.asked  # it is small
    desk.found.finish(future.result())
    assert {int(desk.now[0][place]) for place in ((3, 6, 4), (3, 6, 8))} == {1, 3}
    assert desk.now[0][2, 14, 4] == 1


def test_a_cut_is_looked_for_in_what_is_there_by_then(desk, monkeypatch):
    monkeypatch.setattr("napari_sparseseg.live.found_objects._AT_ONCE", 0)
    desk.found.begin_split(SLICE, (3, 6, 4), (3, 6, 8))
    act_once(desk, "split")
    with pytest.raises(InputError, match="changed meanwhile"):
        desk.asked.pop()()


def test_a_correction_that_needs_no_paint_is_undone_as_well(desk):
    desk.store.annotate(Region(0, WHOLE), 1)
    before = desk.now
    act(desk, "delete")
    after = desk.now
    assert not (after[0] == 1).any()
    np.testing.assert_equal(after[1:], before[1:])
    assert desk.found.undo()
    np.testing.assert_equal(desk.now, before)
    assert desk.found.can_redo
    assert desk.found.redo()
    np.testing.assert_equal(desk.now, after)


def test_paint_after_an_undone_correction_forgets_it(desk):
    act(desk, "merge")
    desk.found.undo()
    desk.store.annotate(Region(0, Box((5, 0, 0), (6, 4, 4))), 1)
    desk.found.undo()
    desk.found.redo()
    np.testing.assert_array_equal(desk.now[0], desk.ids)


def test_a_stroke_after_an_undone_correction_is_made_again_in_its_place(desk):
    box = Box((3, 0, 0), (4, 16, 20))
    desk.store.annotate(Region(0, box), 1)
    act(desk, "delete")  # which needs no paint there
    desk.found.undo()
    desk.store.annotate(Region(0, Box((5, 0, 0), (6, 4, 4))), 1)
    desk.found.undo()
    assert desk.found.redo()
    np.testing.assert_array_equal(desk.now[0], desk.ids)
    assert (desk.now[1][5] > 0).sum() == 16
    assert not desk.found.can_redo


def test_a_correction_that_was_undone_before_its_stroke_is_made_again_after_it(desk):
    strokes = [Region(0, Box((3, 0, 0), (4, 16, 20))), Region(0, Box((5, 0, 0), (6, 4, 4)))]
    desk.store.annotate(strokes[0], 1)
    act(desk, "delete")
    desk.store.annotate(strokes[1], 1)
    after = desk.now
    while desk.found.undo():
        pass
    while desk.found.redo():
        pass
    np.testing.assert_equal(desk.now, after)


def test_paint_of_another_class_stays_and_painted_ids_follow(desk):
    desk.store.annotate(Region(0, Box((3, 5, 5), (4, 7, 7))), 1)
    desk.store.annotate(Region(0, Box((2, 5, 11), (3, 7, 14))), 2, object_id=40)
    act(desk, "merge")
    _, codes, painted = desk.now
    assert (codes[3, 5:7, 5:7] == 1).all()
    assert not painted[3, 5:7, 5:7].any()
    assert np.unique(painted[painted > 0]).tolist() == [41]
    assert (painted[2, 5:7, 11:14] == 41).all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda found: found.merge(SLICE, (3, 6, 4), (3, 6, 8)), "both points lie in one object"),
        (lambda found: found.split(SLICE, (3, 6, 4), (3, 6, 14)), "in two objects"),
        (lambda found: found.split(SLICE, (3, 6, 4), (3, 6, 4)), "two different points"),
        (lambda found: found.delete(SLICE, (0, 0, 0)), "no object at this point"),
        (lambda found: found.find_all(), "no model"),
    ],
)
def test_what_cannot_be_is_said_and_changes_nothing(desk, wrong, message):
    before = desk.now
    with pytest.raises((InputError, NotFittedError), match=message):
        wrong(desk.found)
    np.testing.assert_equal(desk.now, before)
    assert not desk.boxes


CELL, NUCLEUS = 2, 3
AROUND = Box((3, 1, 1), (4, 14, 18))


class TestWhereClassesOverlap:
    """A correction speaks of the class of the objects, here nuclei, which lie in painted cells; of no other."""

    @pytest.fixture
    def desk(self, desk):
        desk.painting = PaintConfig(overlapping=True)
        desk.classes.add("nucleus")
        desk.labels[desk.labels == 2] = NUCLEUS
        say(desk, AROUND, CELL)
        return desk

    @pytest.mark.parametrize(("name", "is_present"), [("merge", 1), ("split", 1), ("delete", 0), ("fill", 1)])
    def test_what_was_painted_of_others_stays(self, desk, name, is_present):
        act(desk, name)
        changed = {(3, 6, 6)} if name == "fill" else {(3, 4, 4), (3, 6, 6), (3, 11, 9)}
        for place in changed:
            present, absent = ({CELL, NUCLEUS}, {1}) if is_present else ({CELL}, {NUCLEUS, 1})
            assert said_at(desk, place) == Statement(frozenset(present), frozenset(absent))
        assert said_at(desk, (3, 2, 2)) == Statement(frozenset({CELL}), frozenset({1}))
        codes = desk.now[1]
        assert not codes[[0, 1, 2, 4, 5]].any(), "other slices"
        assert (codes > 0).sum() == AROUND.n_voxels
        if name in ("delete", "fill"):
            kind = StrokeKind.CORRECTION if is_present else StrokeKind.REJECTION
            assert desk.store.strokes[-1].kind is kind

    @pytest.mark.parametrize("name", ["merge", "split", "delete", "fill"])
    def test_it_is_undone_and_made_again_in_one_step(self, desk, name):
        if name == "fill":
            desk.ids[3, 6, 6] = 0
            desk.opened.objects.take((1, *SHAPE), 0, WHOLE, desk.ids)
        before = desk.now
        act_once(desk, name)
        after = desk.now
        assert (after[1] != before[1]).any()
        assert desk.found.undo()
        np.testing.assert_equal(desk.now, before)
        assert desk.found.redo()
        np.testing.assert_equal(desk.now, after)
        assert not desk.found.can_redo

    @pytest.mark.parametrize(("name", "n_objects"), [("merge", 1), ("split", 2)])
    def test_it_is_learnt_which_voxels_are_one_object(self, desk, name, n_objects):
        desk.labels[:] = NUCLEUS
        say(desk, Box((3, 3, 3), (4, 5, 17)), CELL, is_present=False)
        act(desk, name)
        ids = desk.now[0]
        learnt = desk.store.snapshot(0, classes=desk.classes.ids, background=1, overlapping=True)
        found = ids[tuple(learnt.coordinates.T)]
        own = (found == 1) if name == "merge" else (found == 1) | (found == 3)
        assert len(np.unique(learnt.objects[own])) == n_objects
        assert (learnt.objects > 0).tolist() == own.tolist()
        pairs = np.unique(np.stack([found[own], learnt.objects[own]]), axis=1)
        assert pairs.shape[1] == n_objects, "an id for each object"
        table = ClassTable(desk.classes.ids, 1, overlapping=True)
        assert table.with_objects_of([learnt]).objects == (NUCLEUS,)
        present, absent = table.stated_by(learnt)
        assert present[:, NUCLEUS - 1].tolist() == own.tolist()
        assert not absent[:, NUCLEUS - 1].any()

    def test_a_deleted_one_is_learnt_as_absent_of_its_class_only(self, desk):
        act(desk, "delete")
        learnt = desk.store.snapshot(0, classes=desk.classes.ids, background=1, overlapping=True)
        present, absent = ClassTable(desk.classes.ids, 1, overlapping=True).stated_by(learnt)
        gone = desk.ids[tuple(learnt.coordinates.T)] == 1
        assert absent[:, NUCLEUS - 1].tolist() == gone.tolist()
        assert present[:, CELL - 1].all()

    def test_where_it_was_said_that_the_class_is_not_that_stays(self, desk):
        box = Box((3, 5, 5), (4, 7, 7))
        say(desk, box, NUCLEUS, is_present=False)
        act(desk, "merge")
        assert said_at(desk, (3, 6, 6)) == Statement(frozenset({CELL}), frozenset({NUCLEUS, 1}))
        assert not desk.store.objects(0, box).any()
        assert NUCLEUS in said_at(desk, (3, 7, 7)).present

    def test_painted_objects_of_another_class_keep_their_voxels(self, desk):
        store, classes = desk.store, {"class_ids": desk.classes.ids, "background": 1}
        store.say(Region(0, Box((2, 1, 1), (4, 14, 18))), CELL, is_present=True, object_id=40, **classes)
        desk.opened.objects.classes = (CELL, NUCLEUS)
        act(desk, "merge")
        assert np.unique(desk.now[2]).tolist() == [0, 40]
        assert said_at(desk, (3, 6, 6)).present == {CELL, NUCLEUS}
        assert said_at(desk, (2, 6, 6)).present == {CELL}
        store.say(Region(0, Box((2, 5, 11), (3, 7, 14))), NUCLEUS, is_present=True, object_id=50, **classes)
        act_once(desk, "split")
        painted = desk.now[2]
        assert (painted[2, 5:7, 11:14] > 50).all(), "it was painted as one of these"
        assert (painted[2:4, 1, 1] == 40).all()

    def test_the_class_is_one_of_those_that_were_looked_for(self, desk):
        desk.labels[desk.labels == NUCLEUS] = CELL  # which is the likelier one, though both are there
        desk.opened.objects.classes = (NUCLEUS,)
        act(desk, "delete")
        assert said_at(desk, (3, 6, 6)) == Statement(frozenset({CELL}), frozenset({NUCLEUS, 1}))

    def test_if_it_is_not_known_what_was_looked_for_it_is_one_of_those_painted_as_objects(self, desk):
        desk.labels[desk.labels == NUCLEUS] = CELL
        classes = {"class_ids": desk.classes.ids, "background": 1}
        desk.store.say(Region(0, Box((0, 0, 0), (1, 3, 3))), NUCLEUS, is_present=True, object_id=4, **classes)
        act(desk, "delete")
        assert said_at(desk, (3, 6, 6)) == Statement(frozenset({CELL}), frozenset({NUCLEUS, 1}))

    def test_where_nothing_tells_the_class_it_goes_and_nothing_is_painted(self, desk):
        desk.store.undo()
        desk.labels[:] = 0
        before = desk.now
        with pytest.raises(InputError, match="no class is predicted"):
            act(desk, "merge")
        act(desk, "delete")
        assert not (desk.now[0] == 1).any()
        np.testing.assert_equal(desk.now[1:], before[1:])
        assert desk.found.undo()
        np.testing.assert_equal(desk.now, before)

    def test_objects_of_what_is_painted_only_are_of_that_class(self, desk):
        desk.store.undo()
        desk.labels[:] = 1
        say(desk, Box((3, 3, 3), (4, 12, 10)), NUCLEUS)
        act(desk, "merge")
        assert said_at(desk, (3, 6, 14)) == Statement(frozenset({NUCLEUS}), frozenset({1}))


def say(desk, box, class_id, *, is_present=True):
    desk.store.say(Region(0, box), class_id, is_present=is_present, class_ids=desk.classes.ids, background=1)


def said_at(desk, place):
    code = int(desk.store.codes[(0, *place)])
    return desk.store.meanings([code], desk.classes.ids, 1)[code]


ids_arrays = npst.arrays(np.uint32, (2, 4, 5), elements=st.integers(0, 4))


@given(st.lists(ids_arrays, min_size=1, max_size=3))
def test_found_anew_objects_are_the_same_sets_of_voxels_and_are_counted(searches):
    kept = ObjectIds()
    for found in searches:
        kept.take((1, 2, 4, 5), 0, Box.whole((2, 4, 5)), found)
        now = kept.read(0, Box.whole((2, 4, 5)))
        pairs = np.unique(np.stack([found.ravel(), now.ravel()]), axis=1)
        assert len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]
        assert kept.count(0) == len(np.unique(now[now > 0]))
        assert kept.next_id > now.max()


def test_what_is_found_again_keeps_its_id():
    kept, ids = ObjectIds(), np.zeros((1, 8, 8), np.uint32)
    ids[0, :4, :4], ids[0, 5:, 5:] = 1, 2
    kept.take((1, 1, 8, 8), 0, Box.whole(ids.shape), ids)
    box = Box((0, 0, 0), (1, 8, 5))
    again = np.zeros(box.shape, np.uint32)
    again[0, :4, :3], again[0, 6:, :3] = 2, 1
    kept.take((1, 1, 8, 8), 0, box, again)
    now = kept.read(0, Box.whole(ids.shape))
    assert (now[0, 0, 0], now[0, 7, 0], now[0, 7, 7]) == (1, 3, 2)


@given(st.lists(st.tuples(ids_arrays, st.booleans()), min_size=1, max_size=4))
def test_the_box_of_objects_holds_all_of_them_and_no_more(searches):
    whole = Box.whole((2, 4, 5))
    kept = ObjectIds()
    kept.take((1, 2, 4, 5), 0, whole, searches[0][0])
    for found, by_hand in searches[1:]:
        if by_hand:
            mask = found == 2
            before = int(kept.read(0, whole)[mask].max(initial=0))
            mask &= kept.read(0, whole) == before
            kept.put(Change(0, whole, np.packbits(mask), before, 9, None, is_painted=False))
        else:
            kept.take((1, 2, 4, 5), 0, Box((0, 1, 1), (2, 4, 4)), found[:, 1:4, 1:4])
    for _ in range(2):
        now = kept.read(0, whole)
        for some in ([1], [2, 3], [9], [9999]):
            places = np.argwhere(np.isin(now, some))
            box = kept.box_of(0, some)
            if len(places):
                assert (box.start, box.stop) == (tuple(places.min(0)), tuple(places.max(0) + 1))
            else:
                assert box is None
        if kept.to_undo(None) is not None:
            kept.undo()


class Tables:
    """The table of a desk's objects, measured as the compute thread would."""

    def __init__(self, desk):
        self.tables = ObjectTables(desk.opened, lambda _, box: desk.labels[box.slices])
        self.n_pieces = 0

    def now(self):
        while self.tables.work(0) is not None:
            self.n_pieces += 1
        return self.tables.table(0).rows


def test_the_table_follows_corrections_and_only_they_are_measured_again(desk):
    tables = Tables(desk)
    assert tables.now()["id"].tolist() == [1, 2]
    assert tables.n_pieces == 1
    desk.found.split(SLICE, (3, 5, 5), (3, 10, 5))
    desk.found.merge(SLICE, (3, 5, 5), (3, 5, 12))
    measured = tables.now()
    assert tables.n_pieces == 2
    expected = measure(
        ArrayVolume(desk.found.ids(0, WHOLE)),
        (1.0, 1.0, 1.0),
        ArrayVolume(np.zeros(SHAPE, np.float32)),
        ArrayVolume(desk.labels),
    )
    pd.testing.assert_frame_equal(measured, expected)
    desk.found.undo()
    desk.found.undo()
    assert tables.now()["n_voxels"].tolist() == [252, 252]
    desk.opened.objects.take((1, *SHAPE), 0, WHOLE, np.zeros(SHAPE, np.uint32))
    assert not len(tables.now())


@pytest.mark.parametrize("is_huge", [True, False])
def test_objects_keep_their_class_where_what_was_predicted_is_forgotten(desk, monkeypatch, is_huge):
    if is_huge:
        monkeypatch.setattr(sparse, "LARGEST_RESERVED", 1000)
    tables = Tables(desk)
    assert tables.now()["class"].tolist() == [2, 2]
    desk.labels[:, :, :10] = 0
    desk.ids[1, 14:16, 1:4], desk.ids[1, 14:16, 12:14] = 3, 4
    desk.opened.objects.take((1, *SHAPE), 0, WHOLE, desk.ids)
    assert tables.now()["class"].tolist() == [2 if is_huge else 0, 2, 0, 1]


def test_a_measurement_that_fails_is_made_anew(desk, monkeypatch):
    tables = Tables(desk)
    assert tables.now()["n_voxels"].tolist() == [252, 252]
    desk.found.merge(SLICE, (3, 5, 5), (3, 5, 12))
    with monkeypatch.context() as patch:
        patch.setattr(ObjectIds, "read", Mock(side_effect=MemoryError))
        with pytest.raises(MemoryError):
            tables.now()
    assert tables.now()["n_voxels"].tolist() == [504]


def test_a_table_that_was_given_up_for_another_frame_is_made_anew(monkeypatch):
    monkeypatch.setattr("napari_sparseseg.live.object_table._VOXELS_AT_ONCE", 1)
    opened = Opened(
        LiveImage.of(np.zeros((2, *SHAPE), np.uint8), None, 0, None),
        AnnotationStore((2, *SHAPE)),
        np.zeros((2, *SHAPE), np.uint8),
        Switchboard(LiveEvents()),
    )
    ids = np.zeros(SHAPE, np.uint32)
    ids[2:4, 2:4, 2:4] = 1
    for frame in range(2):
        opened.objects.take((2, *SHAPE), frame, WHOLE, ids)
    tables = ObjectTables(opened, lambda _, box: np.ones(box.shape, np.uint8))
    assert 0 < tables.work(0) < 1
    for frame in (1, 0):
        while tables.work(frame) is not None:
            pass
        assert tables.table(frame).rows["n_voxels"].tolist() == [8]


def test_filters_keep_what_lies_between_their_bounds(desk):
    table = ObjectTable(0, Tables(desk).now())
    assert ObjectFilter().passes(table).tolist() == [True, True]
    assert ObjectFilter(min_size=252, max_size=252).passes(table).tolist() == [True, True]
    assert not ObjectFilter(min_size=253).passes(table).any()


def test_the_place_of_an_object_is_one_of_its_voxels_near_its_centre(desk):
    assert desk.found.place_of(0, 1) in {(z, y, x) for z in (2, 3) for y in (7,) for x in (6,)}
    ids = np.zeros(SHAPE, np.uint32)
    ids[2, 2:14, 2:14] = 1
    ids[2, 3:13, 3:13] = 0
    desk.opened.objects.take((1, *SHAPE), 0, WHOLE, ids)
    number = int(desk.found.ids(0, WHOLE).max())
    place = desk.found.place_of(0, number)
    assert desk.found.ids(0, WHOLE)[place] == number
    with pytest.raises(InputError, match="not there any more"):
        desk.found.place_of(0, 77)


class TestComingBack:
    """What was found and corrected is there when the project is opened again, and is undone in the right order."""

    @pytest.fixture
    def reopen(self, tmp_path):
        path = tmp_path / "cells.sparseseg"
        with Project.create(path) as project:
            project.add_image(np.zeros(SHAPE, np.uint8), shape=(1, *SHAPE))
        opened = []

        def do():
            for project in opened:
                project.close()
            opened.append(Project.open(path))
            loaded = opened[-1].images[0].open()
            assert not loaded.problems
            desk = Desk()
            objects, store = loaded.objects, loaded.store
            desk.opened = Opened(desk.opened.image, store, desk.opened.labels, desk.switch, objects=objects)
            desk.store, desk.image = store, opened[-1].images[0]
            return desk

        yield do
        for project in opened:
            project.close()

    @pytest.mark.parametrize("is_folded", [False, True])
    @pytest.mark.parametrize("name", ["merge", "split", "delete", "fill"])
    def test_corrections_come_back_and_can_be_undone(self, reopen, name, is_folded):
        desk = reopen()
        assert desk.found.is_empty
        desk.opened.objects.take((1, *SHAPE), 0, WHOLE, desk.ids)
        desk.store.annotate(Region(0, Box((0, 0, 0), (1, 4, 4))), 1)
        if name == "fill":
            desk.ids[3, 6, 6] = 0
            desk.opened.objects.take((1, *SHAPE), 0, WHOLE, desk.ids)
        if is_folded:
            assert desk.image.fold(desk.store)
        before = desk.now
        act_once(desk, name)
        after = desk.now
        again = reopen()
        np.testing.assert_equal(again.now, after)
        assert again.found.undo()
        np.testing.assert_equal(again.now, before)
        third = reopen()
        np.testing.assert_equal(third.now, before)
        assert third.found.redo()
        np.testing.assert_equal(third.now, after)

    def test_corrections_from_before_a_fold_stay(self, reopen):
        desk = reopen()
        desk.opened.objects.take((1, *SHAPE), 0, WHOLE, desk.ids)
        act_once(desk, "merge")
        after = desk.now
        desk.image.fold(desk.store)
        again = reopen()
        assert not again.found.can_undo
        assert not again.found.undo()
        np.testing.assert_equal(again.now, after)

    def test_what_is_painted_later_leaves_them_and_a_new_search_names_them_as_before(self, reopen):
        desk = reopen()
        desk.opened.objects.take((1, *SHAPE), 0, WHOLE, desk.ids)
        act_once(desk, "delete")
        desk.store.annotate(Region(0, Box((2, 0, 0), (3, 16, 20))), 1)
        ids = desk.now[0]
        again = reopen()
        np.testing.assert_array_equal(again.now[0], ids)
        assert Tables(again).now()["id"].tolist() == [2]
        again.opened.objects.take((1, *SHAPE), 0, WHOLE, np.where(desk.ids == 2, 1, 0).astype(np.uint32))
        np.testing.assert_array_equal(again.now[0], ids)
        assert again.opened.objects.next_id == 3

    @pytest.mark.parametrize("is_folded", [False, True])
    def test_where_classes_overlap_the_class_is_still_one_of_those_that_were_looked_for(self, reopen, is_folded):
        desk = reopen()
        desk.opened.objects.take((1, *SHAPE), 0, WHOLE, desk.ids, (NUCLEUS,))
        if is_folded:
            assert desk.image.fold(desk.store)
        again = reopen()
        again.painting = PaintConfig(overlapping=True)
        again.classes.add("nucleus")
        act_once(again, "delete")  # where the cell around it is the likelier one
        assert said_at(again, (3, 6, 6)) == Statement(frozenset(), frozenset({NUCLEUS}))

    def test_before_anything_is_predicted_again_the_only_class_is_meant(self, reopen):
        desk = reopen()
        desk.opened.objects.take((1, *SHAPE), 0, WHOLE, desk.ids)
        again = reopen()
        again.labels[:] = 0
        act_once(again, "merge")
        assert (again.now[1][3][desk.ids[3] > 0] == 2).all()
        again.found.undo()
        again.classes.add()
        with pytest.raises(InputError, match="no class is predicted"):
            act_once(again, "merge")
