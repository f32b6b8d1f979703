"""Folds that hold what no journal does: written elsewhere from memory, or after the folder was removed."""

from __future__ import annotations

import json
import shutil
import zlib

import numpy as np
import pytest
from paintkit import SHAPE, contents, do_something

from napari_sparseseg._types import Box, Region
from napari_sparseseg.errors import ProjectError
from napari_sparseseg.storage.object_ids import ObjectIds
from napari_sparseseg.storage.project import image as image_module
from napari_sparseseg.storage.project.elsewhere import Present, write_elsewhere
from napari_sparseseg.storage.project.manifest import MANIFEST, ProjectClass, ProjectSettings
from napari_sparseseg.storage.project.project import Project
from napari_sparseseg.storage.strokes import AnnotationStore

CLASSES = (ProjectClass(class_id=1, name="background", color=(0.5, 0.5, 0.5), is_background=True),)
FIRST, SECOND = Region(0, Box((0, 0, 0), (1, 2, 2))), Region(0, Box((3, 5, 5), (4, 8, 8)))


def painted(seed=1, n=8):
    store, rng = AnnotationStore(SHAPE), np.random.default_rng(seed)
    for _ in range(n):
        do_something(store, rng)
    return store


def write_from_memory(folder):
    """A project that another one was written to whose disk had taken nothing."""
    (folder / "full").mkdir()
    with Project.create(folder / "full" / "cells.sparseseg") as full:
        full.add_image(np.zeros(SHAPE, np.uint8), shape=SHAPE, time_axis=0)
        present = Present(0, painted().state(), ObjectIds(), CLASSES, 1, ProjectSettings())
        write_elsewhere(full, folder / "cells.sparseseg", present)
    return Project.open(folder / "cells.sparseseg")


def rescue(folder):
    """A project whose journal somebody removed while it was open."""
    project = Project.create(folder / "cells.sparseseg", classes=CLASSES)
    image = project.add_image(np.zeros(SHAPE, np.uint8), shape=SHAPE, time_axis=0)
    store, rng = image.open().store, np.random.default_rng(1)
    for _ in range(8):
        do_something(store, rng)
    assert image.journal.sync(timeout=10)
    shutil.rmtree(image.folder / "journal")
    store.annotate(FIRST, 1)
    assert not image.journal.sync(timeout=10)
    assert image.needs_rescue
    image.rescue(store)
    image.close()
    return project


@pytest.fixture(params=[write_from_memory, rescue])
def project(request, tmp_path):
    with request.param(tmp_path) as made:
        yield made


def paint_and_fold(image, store, n):
    for i in range(n):
        store.annotate(Region(1, Box((1, 0, 0), (2, 2 + i, 2))), 3)
        assert image.fold(store)


def note_save(image, store):
    image.note_save(len(store.strokes))
    assert image.journal.sync(timeout=10)


def numbers(image):
    return [fold.number for fold in image.entry.folds]


def damage(image, number):
    (image.folder / "annotation" / f"{number:06}" / "zarr.json").write_bytes(b"nothing")


def change_folds(path, change):
    """Change what the commit point says of the folds, as another version would have written it."""
    envelope = json.loads((path / MANIFEST).read_text())
    entry = envelope["project"]["images"][0]
    entry["folds"] = change(entry["folds"])
    envelope["crc32"] = zlib.crc32(json.dumps(envelope["project"], sort_keys=True, separators=(",", ":")).encode())
    (path / MANIFEST).write_text(json.dumps(envelope))


def forget_bases(path):
    """Leave the project as the version wrote it that did not mark them."""
    change_folds(path, lambda folds: [{k: v for k, v in fold.items() if k != "is_base"} for fold in folds])


@pytest.mark.parametrize("is_marked", [True, False])
def test_saved_states_come_back_however_often_it_was_saved_since(project, is_marked):
    image = project.images[0]
    if not is_marked:
        project.close()
        forget_bases(project.path)
        project = Project.open(project.path)
        image = project.images[0]
    store = image.open().store
    store.annotate(SECOND, 2)
    note_save(image, store)
    then = contents(store)
    paint_and_fold(image, store, 2)
    (state,) = image.history()
    loaded = image.load_at(state)
    assert contents(loaded.store) == then
    assert not loaded.problems
    assert len(numbers(image)) == 3
    project.close()


def test_all_is_there_though_the_newest_two_folds_are_damaged(project):
    image = project.images[0]
    store = image.open().store
    paint_and_fold(image, store, 2)
    for number in numbers(image)[-2:]:
        damage(image, number)
    loaded = image.open()
    assert contents(loaded.store) == contents(store)
    assert len(loaded.problems) == 2


def test_a_window_that_only_reads_shows_what_another_one_has_saved_since(project):
    image = project.images[0]
    store = image.open().store
    with Project.open(project.path) as reader:
        assert reader.is_read_only
        paint_and_fold(image, store, 2)
        assert np.array_equal(reader.images[0].annotation(), store.codes)
    project.close()


def test_a_copy_by_a_window_that_only_reads_holds_what_another_one_has_saved_since(project, tmp_path):
    image = project.images[0]
    store = image.open().store
    with Project.open(project.path, read_only=True) as reader:
        paint_and_fold(image, store, 2)
        project.update(classes=(*CLASSES, CLASSES[0].model_copy(update={"class_id": 2})))
        reader.copy_to(tmp_path / "copy.sparseseg")
    with Project.open(tmp_path / "copy.sparseseg") as copy:
        loaded = copy.images[0].open()
        assert contents(loaded.store) == contents(store)
        assert not loaded.problems
        assert copy.classes == project.classes


def test_a_window_that_has_read_before_the_folder_was_removed_reads_what_was_rescued(tmp_path):
    project = Project.create(tmp_path / "cells.sparseseg")
    image = project.add_image(np.zeros(SHAPE, np.uint8), shape=SHAPE, time_axis=0)
    store = image.open().store
    store.annotate(FIRST, 1)
    assert image.journal.sync(timeout=10)
    with project, Project.open(project.path, read_only=True) as reader:
        shutil.rmtree(image.folder / "journal")
        store.annotate(SECOND, 1)
        assert not image.journal.sync(timeout=10)
        image.rescue(store)
        assert np.array_equal(reader.images[0].annotation(), store.codes)


def test_a_damaged_base_is_told_and_no_wrong_state_is_brought_back(project):
    image = project.images[0]
    store = image.open().store
    store.annotate(SECOND, 2)
    note_save(image, store)
    damage(image, numbers(image)[0])
    (state,) = image.history()
    with pytest.raises(ProjectError, match=r"cannot be brought back.*choose another"):
        image.load_at(state)
    assert "may be missing; use a backup" in " ".join(image.open().problems)


def test_a_state_is_not_brought_back_of_which_an_older_version_has_dropped_the_base(project):
    image = project.images[0]
    store = image.open().store
    store.annotate(SECOND, 2)
    note_save(image, store)
    paint_and_fold(image, store, 2)
    project.close()
    change_folds(project.path, lambda folds: folds[-2:])
    with Project.open(project.path) as project:
        (state,) = project.images[0].history()
        with pytest.raises(ProjectError, match=r"cannot be brought back.*choose another"):
            project.images[0].load_at(state)
        assert contents(project.images[0].open().store) == contents(store)


def test_the_commit_point_before_knows_of_a_base_too(project):
    known = contents(project.images[0].load().store)
    project.close()
    (project.path / MANIFEST).write_bytes(b"{")
    with Project.open(project.path) as again:
        assert contents(again.images[0].open().store) == known


def test_an_ordinary_fold_of_an_older_version_is_dropped(tmp_path):
    with Project.create(tmp_path / "cells.sparseseg") as project:
        image = project.add_image(np.zeros(SHAPE, np.uint8), shape=SHAPE, time_axis=0)
        image.open().store.annotate(FIRST, 1)
        store = image.open().store
        assert image.fold(store)  # where the second file of the journal begins
        store.annotate(SECOND, 1)
    forget_bases(project.path)
    with Project.open(project.path) as project:
        image = project.images[0]
        store = image.open().store
        paint_and_fold(image, store, 2)
        assert numbers(image) == [2, 3]


def test_bases_are_never_more_than_a_project_may_have(tmp_path, monkeypatch):
    monkeypatch.setattr(image_module, "MAX_FOLDS", 4)
    with write_from_memory(tmp_path) as project:
        image = project.images[0]
        for seed in range(5):
            image.put(painted(seed).state(), ObjectIds())
        assert numbers(image) == [3, 4, 5, 6]


def test_objects_are_written_again_after_the_image_was_removed(tmp_path):
    with Project.create(tmp_path / "cells.sparseseg") as project:
        image = project.add_image(np.zeros(SHAPE, np.uint8), shape=SHAPE, time_axis=0)
        loaded = image.open()
        box = Box((0, 0, 0), (1, 2, 2))
        loaded.objects.take(SHAPE, 0, box, np.ones(box.shape, np.uint32))
        assert image.fold(loaded.store)
        shutil.rmtree(image.folder)
        loaded.store.annotate(FIRST, 1)
        assert not image.journal.sync(timeout=10)
        image.rescue(loaded.store)
        image.close()
        again = image.open()
        assert again.objects.count(0) == 1
        assert not again.problems
