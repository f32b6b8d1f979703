"""Objects that were found are in the journal, with what was done to them by hand, and come back with the project."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from paintkit import SHAPE, do_something, random_box

from napari_sparseseg._types import Box, Region
from napari_sparseseg.errors import InputError, ProjectError
from napari_sparseseg.storage._object_records import HIGHEST_ID
from napari_sparseseg.storage.durable import RealDisk
from napari_sparseseg.storage.journal import JournalRecord
from napari_sparseseg.storage.object_ids import Change, ObjectIds
from napari_sparseseg.storage.power_loss import Medium, RecordingDisk
from napari_sparseseg.storage.project.objects import read_objects, write_objects
from napari_sparseseg.storage.project.project import Project

WHOLE = Box.whole(SHAPE[1:])


def contents(objects):
    """What two sets of objects must have in common to be the same, with what can be undone."""
    frames = range(SHAPE[0])
    known = range(1, objects.next_id)
    return {
        "ids": [objects.read(frame, WHOLE).tolist() for frame in frames],
        "counts": [objects.count(frame) for frame in frames],
        "boxes": [objects.box_of(frame, [number]) for frame in frames for number in known],
        "next": objects.next_id,
        "is_empty": objects.is_empty,
        "classes": objects.classes,
    }


def correct(objects, store, rng):
    """Give what is in a part of one object's box another id."""
    frame = int(rng.integers(SHAPE[0]))
    ids = objects.read(frame, WHOLE)
    present = np.unique(ids)
    before = int(rng.choice(present))
    after = int(rng.choice([0, *present, objects.next_id]))
    mask = (ids == before) & (rng.random(ids.shape) < 0.7)
    if mask.any() and before != after:
        is_painted = bool(rng.integers(2)) and store.latest_stroke is not None
        objects.put(Change(frame, WHOLE, np.packbits(mask), before, after, store.latest_stroke, is_painted))


def act(objects, store, rng):
    """One random act: a search, a correction, taking one back, or paint."""
    kind = rng.integers(8)
    if kind == 0:
        frame, box = int(rng.integers(SHAPE[0])), random_box(rng)
        ids, classes = rng.integers(0, 4, box.shape).astype(np.uint32), (int(rng.integers(1, 4)), 9)
        objects.take(SHAPE, frame, box, ids, classes)
    elif kind < 4 and not objects.is_empty:
        correct(objects, store, rng)
    elif kind == 4 and objects.to_undo(store.latest_stroke) is not None:
        objects.undo()
    elif kind == 5 and objects.to_redo() is not None:
        objects.redo()
    else:
        do_something(store, rng)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cells.sparseseg"


def new_project(path, disk=None):
    project = Project.create(path, disk=disk)
    project.add_image(np.zeros(SHAPE, np.uint8), shape=SHAPE)
    return project


def undo_all(objects):
    while objects._done:
        objects.undo()
    return contents(objects)


@pytest.mark.parametrize("seed", range(8))
def test_they_are_there_again_with_folds_anywhere(path, seed):
    rng = np.random.default_rng(seed)
    new_project(path).close()
    before = contents(ObjectIds())
    for _ in range(3):
        with Project.open(path) as project:
            image = project.images[0]
            loaded = image.open()
            assert loaded.problems == []
            assert contents(loaded.objects) == before
            for _ in range(int(rng.integers(5, 25))):
                act(loaded.objects, loaded.store, rng)
                if rng.random() < 0.15:
                    assert image.fold(loaded.store)
            before = contents(loaded.objects)
    kept = {fold.objects for fold in project.images[0].entry.folds} - {None}
    assert {int(folder.name) for folder in (path / "images/0/objects").glob("0*")} == kept


def test_without_a_fold_in_between_all_can_be_undone_as_before(path):
    rng = np.random.default_rng(3)
    with new_project(path) as project:
        loaded = project.images[0].open()
        loaded.objects.take(SHAPE, 0, WHOLE, rng.integers(0, 5, WHOLE.shape).astype(np.uint32))
        for _ in range(6):
            correct(loaded.objects, loaded.store, rng)
        loaded.objects.undo()
    with Project.open(path) as project:
        again = project.images[0].open().objects
        assert contents(again) == contents(loaded.objects)
        assert (again.to_undo(None), again.to_redo()) != (None, None)
        again.redo()
        loaded.objects.journal = None
        loaded.objects.redo()
        assert undo_all(again) == undo_all(loaded.objects)


def test_what_was_taken_back_after_a_fold_is_right_and_can_be_made_again(path):
    with new_project(path) as project:
        image = project.images[0]
        loaded = image.open()
        loaded.objects.take(SHAPE, 0, WHOLE, np.ones(WHOLE.shape, np.uint32))
        mask = np.zeros(WHOLE.shape, bool)
        mask[:2] = True
        loaded.objects.put(Change(0, WHOLE, np.packbits(mask), 1, 2, None, is_painted=False))
        changed = contents(loaded.objects)
        image.fold(loaded.store)
        loaded.objects.undo()
    with Project.open(path) as project:
        again = project.images[0].open().objects
        assert contents(again) == contents(loaded.objects)
        again.redo()
        assert contents(again) == changed


def test_what_was_taken_back_is_not_made_again_after_a_new_stroke(path):
    with new_project(path) as project:
        loaded = project.images[0].open()
        loaded.objects.take(SHAPE, 0, WHOLE, np.ones(WHOLE.shape, np.uint32))
        mask = np.ones(WHOLE.shape, bool)
        loaded.objects.put(Change(0, WHOLE, np.packbits(mask), 1, 2, None, is_painted=False))
        loaded.objects.undo()
        assert loaded.objects.to_redo() is not None
        loaded.store.annotate(Region(0, WHOLE), 1)
        loaded.store.undo()
        assert loaded.objects.to_redo() is None
    with Project.open(path) as project:
        again = project.images[0].open()
        assert again.store.can_redo
        assert again.objects.to_redo() is None


def test_damaged_objects_cost_nothing(path):
    rng = np.random.default_rng(5)
    with new_project(path) as project:
        image = project.images[0]
        loaded = image.open()
        for _ in range(3):
            loaded.objects.take(SHAPE, 1, WHOLE, rng.integers(0, 9, WHOLE.shape).astype(np.uint32))
            image.fold(loaded.store)
        correct(loaded.objects, loaded.store, rng)
    for file in (path / "images/0/objects/000003").rglob("c/**/*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[:-9])
    with Project.open(path) as project:
        again = project.images[0].open()
        assert contents(again.objects) == contents(loaded.objects)
        assert "damaged" in again.problems[0]
    shutil.rmtree(path / "images/0/objects")
    with Project.open(path) as project:
        assert contents(project.images[0].open().objects) == contents(loaded.objects)


def test_they_are_written_again_only_if_they_have_changed(path):
    with new_project(path) as project:
        image = project.images[0]
        loaded = image.open()
        rng = np.random.default_rng(0)
        image.fold(loaded.store)
        assert image.entry.folds[-1].objects is None
        loaded.objects.take(SHAPE, 1, WHOLE, rng.integers(0, 9, WHOLE.shape).astype(np.uint32))
        for _ in range(3):
            image.fold(loaded.store)
            do_something(loaded.store, rng)
        assert [fold.objects for fold in image.entry.folds] == [1, 1]
        correct(loaded.objects, loaded.store, rng)
        image.fold(loaded.store)
        assert [fold.objects for fold in image.entry.folds] == [1, 2]


def test_after_the_folder_was_removed_they_are_written_anew(path):
    with new_project(path) as project:
        image = project.images[0]
        loaded = image.open()
        loaded.objects.take(SHAPE, 1, WHOLE, np.ones(WHOLE.shape, np.uint32))
        image.fold(loaded.store)
        shutil.rmtree(path)
        loaded.objects.take(SHAPE, 0, WHOLE, np.ones(WHOLE.shape, np.uint32))
        assert not image.journal.sync(timeout=10)
        image.rescue(loaded.store)
        assert image.journal.sync(timeout=10)
    with Project.open(path) as project:
        assert contents(project.images[0].open().objects) == contents(loaded.objects)


def test_what_was_acknowledged_is_there_whenever_the_power_fails(tmp_path):
    written, rng = tmp_path / "written", np.random.default_rng(2)
    written.mkdir()
    disk = RecordingDisk(written)
    with new_project(written / "cells.sparseseg", disk) as project:
        image = project.images[0]
        loaded = image.open()
        for number in range(30):
            act(loaded.objects, loaded.store, rng)
            assert image.journal.sync(timeout=30)
            disk.mark(contents(loaded.objects)["ids"])
            if number % 7 == 6:
                image.fold(loaded.store)
    marks = [event.mark for event in disk.events if event.op == "mark"]
    for number, end in enumerate(rng.integers(1, len(disk.events) + 1, 20).tolist()):
        n_acknowledged = sum(event.op == "mark" for event in disk.events[:end])
        if n_acknowledged:
            left = tmp_path / str(number)
            left.mkdir()
            medium = Medium()
            medium.play(disk.events[:end])
            medium.leave(left, rng)
            with Project.open(left / "cells.sparseseg") as project:
                found = contents(project.images[0].open().objects)["ids"]
                assert found in marks[n_acknowledged - 1 : n_acknowledged + 1]


PLACE = {"frame": 0, "start": [0, 0, 0], "stop": [1, 2, 4]}
CHANGE = {**PLACE, "before": 1, "after": 2, "stroke": None, "is_painted": False}
BITS = np.array([255], np.uint8)


@pytest.mark.parametrize(
    "record",
    [
        JournalRecord("found", PLACE, (np.zeros(31, np.uint8),)),
        JournalRecord("found", PLACE, (np.full(32, 255, np.uint8),)),
        JournalRecord("found", PLACE),
        JournalRecord("found", {**PLACE, "classes": [2, 128]}, (np.zeros(32, np.uint8),)),
        JournalRecord("found", {**PLACE, "classes": 2}, (np.zeros(32, np.uint8),)),
        JournalRecord("found", {**PLACE, "frame": 2}, (np.zeros(32, np.uint8),)),
        JournalRecord("found", {**PLACE, "start": [0, 0]}, (np.zeros(32, np.uint8),)),
        JournalRecord("found", {**PLACE, "stop": [0, 2, 4]}, (np.zeros(0, np.uint8),)),
        JournalRecord("found", {**PLACE, "stop": [1, 2, 400]}, (np.zeros(3200, np.uint8),)),
        JournalRecord("found_changed", {**CHANGE, "after": HIGHEST_ID + 1}, (BITS,)),
        JournalRecord("found_changed", {**CHANGE, "before": -1}, (BITS,)),
        JournalRecord("found_changed", {**CHANGE, "before": True}, (BITS,)),
        JournalRecord("found_changed", {**CHANGE, "stroke": [1]}, (BITS,)),
        JournalRecord("found_changed", CHANGE, (np.zeros(1, np.uint8),)),
        JournalRecord("found_undone", CHANGE, (np.zeros(2, np.uint8),)),
        JournalRecord("found_redone", {}, (BITS,)),
    ],
)
def test_records_that_make_no_sense_are_refused_and_change_nothing(record):
    objects = ObjectIds()
    with pytest.raises(InputError):
        objects.replay(record, SHAPE)
    assert objects.is_empty
    assert not objects.replay(JournalRecord("edit"), SHAPE)


def test_ids_that_were_not_given_are_refused(tmp_path):
    objects = ObjectIds()
    objects.take(SHAPE, 1, WHOLE, np.ones(WHOLE.shape, np.uint32))
    write_objects(RealDisk(), tmp_path / "a", SHAPE, objects)
    ids, highest, parts, _ = read_objects(tmp_path / "a", SHAPE)
    assert parts == [(1, WHOLE)]
    assert (highest, np.unique(ids[1]).tolist(), ids[0].any()) == (1, [1], False)
    about = tmp_path / "a" / "zarr.json"
    about.write_text(about.read_text().replace('"highest": 1', '"highest": 0'))
    with pytest.raises(ProjectError, match="not given"):
        read_objects(tmp_path / "a", SHAPE)


def test_of_which_classes_they_are_is_not_known_where_an_older_version_has_written(tmp_path):
    objects = ObjectIds()
    objects.take(SHAPE, 1, WHOLE, np.ones(WHOLE.shape, np.uint32), (3, 5))
    write_objects(RealDisk(), tmp_path / "a", SHAPE, objects)
    assert read_objects(tmp_path / "a", SHAPE).classes == (3, 5)
    about = tmp_path / "a" / "zarr.json"
    written = json.loads(about.read_text())
    written["attributes"]["sparseseg"]["classes"] = [3, 128]
    about.write_text(json.dumps(written))
    with pytest.raises(ProjectError, match="classes that cannot be"):
        read_objects(tmp_path / "a", SHAPE)
    del written["attributes"]["sparseseg"]["classes"]
    about.write_text(json.dumps(written))
    stored = read_objects(tmp_path / "a", SHAPE)
    assert stored.classes == ()
    assert stored.ids[1].all()
    assert objects.replay(JournalRecord("found", PLACE, (np.zeros(32, np.uint8),)), SHAPE)
    assert objects.classes == ()
