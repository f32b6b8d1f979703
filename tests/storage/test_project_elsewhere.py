"""A project is written elsewhere with what is in memory, whatever its own disk has of it."""

from __future__ import annotations

import errno
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from paintkit import SHAPE, contents, do_something

from napari_sparseseg._types import Box
from napari_sparseseg.config import PaintConfig
from napari_sparseseg.errors import ProjectError
from napari_sparseseg.storage.durable import RealDisk
from napari_sparseseg.storage.project.elsewhere import Present, write_elsewhere
from napari_sparseseg.storage.project.manifest import ProjectClass, ProjectSettings
from napari_sparseseg.storage.project.project import Project

CLASSES = (
    ProjectClass(class_id=1, name="background", color=(0.5, 0.5, 0.5), is_background=True),
    ProjectClass(class_id=2, name="nucleus", color=(1.0, 0.5, 0.0)),
)
SETTINGS = ProjectSettings(paint=PaintConfig(label_smoothing=0.1))


class PartlyFullDisk(RealDisk):
    """A disk that takes nothing more below a folder."""

    full = None

    def write(self, path, content):
        if self.full is not None and path.is_relative_to(self.full):
            raise OSError(errno.ENOSPC, "No space left on device")
        super().write(path, content)

    def open(self, path):
        if self.full is not None and path.is_relative_to(self.full):
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().open(path)


@pytest.fixture
def array():
    return np.random.default_rng(0).integers(0, 1000, SHAPE, np.uint16)


@pytest.fixture
def disk():
    return PartlyFullDisk()


@pytest.fixture
def project(tmp_path, array, disk):
    """A project of two images on a disk of its own; both were painted on."""
    (tmp_path / "disk").mkdir()
    with Project.create(tmp_path / "disk" / "cells.sparseseg", disk=disk) as project:
        for title in ("first", "second"):
            image = project.add_image(array, shape=SHAPE, title=title, time_axis=0)
            paint(image.open().store, 0, 5)
            assert image.journal.sync(timeout=30)
        project.add_checkpoint(b"older", step=1)
        yield project


@pytest.fixture
def target(tmp_path):
    (tmp_path / "other").mkdir()
    return tmp_path / "other" / "cells.sparseseg"


def paint(store, seed, n):
    rng = np.random.default_rng(seed)
    for _ in range(n):
        do_something(store, rng)


def paint_on_a_full_disk(project, disk, number=1):
    """Painting that never reaches the disk: the store, and what there is to be written elsewhere."""
    loaded = project.images[number].open()
    disk.full = project.path
    paint(loaded.store, 1, 20)
    ids = np.zeros(SHAPE[1:], np.uint32)
    ids[:2] = 7
    loaded.objects.take(SHAPE, 0, Box.whole(SHAPE[1:]), ids)
    model = {"model": b"newer", "about_model": {"step": 5}}
    return loaded, Present(number, loaded.store.state(), loaded.objects, CLASSES, 4, SETTINGS, **model)


def check(image, loaded):
    again = image.open()
    assert not again.problems
    assert contents(again.store) == contents(loaded.store)
    whole = Box.whole(SHAPE[1:])
    assert np.array_equal(again.objects.read(0, whole), loaded.objects.read(0, whole))
    paint(again.store, 2, 3)
    then = contents(again.store)
    image.close()
    assert contents(image.open().store) == then
    project = image.project
    assert (project.classes, project.highest_class, project.settings) == (CLASSES, 4, SETTINGS)
    assert project.checkpoints()[0][1].read_bytes() == b"newer"


def test_what_a_full_disk_has_not_taken_is_in_the_copy(project, disk, target):
    older = contents(project.images[0].load().store)
    loaded, present = paint_on_a_full_disk(project, disk)
    with pytest.raises(ProjectError, match="No space left"):
        project.copy_to(target)
    assert write_elsewhere(project, target, present) == (1, "")
    disk.full = None
    with Project.open(target) as copy:
        check(copy.images[1], loaded)
        assert contents(copy.images[0].open().store) == older
        assert len(copy.checkpoints()) == 2


def test_what_is_in_memory_is_written_though_the_folder_is_gone(project, disk, target):
    loaded, present = paint_on_a_full_disk(project, disk)
    shutil.rmtree(project.path.parent)
    number, missing = write_elsewhere(project, target, present)
    assert number == 0
    assert "cannot be read" in missing
    with Project.open(target) as copy:
        (image,) = copy.images
        assert image.entry.title == "second"
        check(image, loaded)


def change_while_read(monkeypatch, part, change):
    """Do something once, just before a file is read whose path has this part."""
    read, done = Path.read_bytes, []

    def change_first(path):
        if part in path.as_posix() and not done:
            done.append(path)
            change(path)
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", change_first)
    return done


@pytest.mark.parametrize("saves", ["prediction", "annotation"])
@pytest.mark.parametrize("has_changes", [True, False])
def test_a_copy_holds_all_though_another_window_saves_meanwhile(project, target, monkeypatch, saves, has_changes):
    image = project.images[1]
    store = image.open().store

    def save(*_):
        image.write_prediction(np.full(SHAPE, 2, np.uint8))
        for _ in range(3):
            paint(store, 3, 1)
            assert image.fold(store)

    save()
    with Project.open(project.path, read_only=True) as reader:
        loaded = reader.images[0].open()
        saved = change_while_read(monkeypatch, f"images/1/{saves}/", save)
        if has_changes:
            paint(loaded.store, 1, 5)
            present = Present(0, loaded.store.state(), loaded.objects, CLASSES, 4, SETTINGS)
            assert write_elsewhere(reader, target, present) == (0, "")
        else:
            reader.copy_to(target)
    assert saved
    with Project.open(target) as copy:
        again = copy.images[1].open()
        assert not again.problems
        assert contents(again.store) == contents(store)
        assert (copy.images[1].prediction()[:] == 2).all()
        assert contents(copy.images[0].open().store) == contents(loaded.store)


@pytest.mark.parametrize("has_changes", [True, False])
def test_a_copy_by_a_window_that_only_reads_keeps_the_classes_that_another_one_has_written(
    project, target, has_changes
):
    changed, added, removed = (
        ProjectClass(class_id=class_id, name=name, color=(0.0, 0.5, 1.0))
        for class_id, name in ((2, "cell"), (4, "membrane"), (3, "vessel"))
    )
    project.update(classes=(*CLASSES, removed), settings=SETTINGS)
    with Project.open(project.path, read_only=True) as reader:
        loaded = reader.images[0].open()
        classes, settings = reader.classes, reader.settings
        project.update(classes=(CLASSES[0], changed, removed, added), highest_class=5, settings=ProjectSettings())
        project.add_checkpoint(b"newer", step=5)
        reader.images[1].load()
        if has_changes:
            classes = (CLASSES[0].model_copy(update={"name": "empty"}), *classes[1:2])
            settings = ProjectSettings(device="cpu")
        write_elsewhere(reader, target, Present(0, loaded.store.state(), loaded.objects, classes, 3, settings))
    with Project.open(target) as copy:
        expected = (classes[0], changed, *(() if has_changes else (removed,)), added)
        assert copy.classes == expected
        assert copy.highest_class == 5
        assert copy.settings == (settings if has_changes else ProjectSettings())


def test_classes_of_the_paint_of_a_copy_are_there_though_another_window_has_removed_them(project, target):
    project.update(classes=CLASSES)
    with Project.open(project.path, read_only=True) as reader:
        loaded = reader.images[0].open()
        project.update(classes=CLASSES[:1])
        write_elsewhere(reader, target, Present(0, loaded.store.state(), loaded.objects, CLASSES, 2, reader.settings))
    with Project.open(target) as copy:
        assert copy.classes == CLASSES


def test_a_copy_by_a_window_that_only_reads_keeps_classes_that_the_journal_alone_tells_of(project, target):
    project.update(classes=CLASSES)
    image = project.images[0]
    image.open()
    renamed = (CLASSES[0], CLASSES[1].model_copy(update={"name": "cell"}))
    image.note_classes(renamed, project.manifest.classes_number + 1)
    assert image.journal.sync(timeout=30)
    with Project.open(project.path, read_only=True) as reader:
        loaded = reader.images[0].open()
        assert reader.classes == renamed
        write_elsewhere(reader, target, Present(0, loaded.store.state(), loaded.objects, renamed, 2, reader.settings))
    with Project.open(target) as copy:
        copy.images[0].open()
        assert copy.classes == renamed


@pytest.mark.parametrize("part", ["images/0/prediction/000001/zarr.json", "images/1/journal", "images/1"])
def test_only_what_cannot_be_read_is_missing_from_a_copy(project, disk, target, monkeypatch, part):
    project.images[0].write_prediction(np.ones(SHAPE, np.uint8))
    older = contents(project.images[0].load().store)
    refused, read, listed = project.path / part, Path.read_bytes, Path.iterdir

    def refuse(path, do):
        if path == refused:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return do(path)

    monkeypatch.setattr(Path, "read_bytes", lambda path: refuse(path, read))
    monkeypatch.setattr(Path, "iterdir", lambda path: refuse(path, listed))
    with pytest.raises(ProjectError, match="Permission denied"):
        project.copy_to(target)
    loaded, present = paint_on_a_full_disk(project, disk)
    assert write_elsewhere(project, target, present) == (1, f"{part} cannot be read and is not there")
    disk.full = None
    with Project.open(target) as copy:
        check(copy.images[1], loaded)
        assert contents(copy.images[0].open().store) == older


@pytest.mark.parametrize("part", ["journal", "journal/000001.journal"])
def test_states_of_an_image_without_journal_come_back_however_often_it_is_saved_in_the_copy(
    project, disk, target, monkeypatch, part
):
    first = project.images[0]
    assert first.fold(first.open().store)
    refused, read, listed = first.folder / part, Path.read_bytes, Path.iterdir

    def refuse(path, do):
        if path == refused:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return do(path)

    monkeypatch.setattr(Path, "read_bytes", lambda path: refuse(path, read))
    monkeypatch.setattr(Path, "iterdir", lambda path: refuse(path, listed))
    _, present = paint_on_a_full_disk(project, disk)
    assert write_elsewhere(project, target, present).missing
    disk.full = None
    with Project.open(target) as copy:
        image = copy.images[0]
        store = image.open().store
        paint(store, 2, 3)
        image.note_save(len(store.strokes))
        then = contents(store)
        for seed in range(3, 6):
            paint(store, seed, 3)
            assert image.fold(store)
        loaded = image.load_at(image.history()[-1])
        assert contents(loaded.store) == then
        assert not loaded.problems


def test_a_model_that_was_dropped_is_not_in_the_copy(project, disk, target):
    loaded = project.images[0].open()
    present = Present(0, loaded.store.state(), loaded.objects, CLASSES, 2, SETTINGS, is_begun_anew=True)
    write_elsewhere(project, target, present)
    with Project.open(target) as copy:
        assert not copy.checkpoints()
    assert project.checkpoints()


@pytest.mark.parametrize("is_gone", [False, True])
def test_a_copy_appears_whole_or_not_at_all(project, disk, target, is_gone, monkeypatch):
    _, present = paint_on_a_full_disk(project, disk)
    disk.full = None
    if is_gone:
        shutil.rmtree(project.path.parent)

    def fail(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Project, "add_checkpoint", fail)
    with pytest.raises(OSError, match="No space left"):
        write_elsewhere(project, target, present)
    assert not list(target.parent.iterdir())


def test_nothing_is_put_where_something_lies(project, disk, target):
    _, present = paint_on_a_full_disk(project, disk)
    target.mkdir()
    with pytest.raises(ProjectError, match="exists"):
        write_elsewhere(project, target, present)
    assert target.is_dir()
    shutil.rmtree(project.path.parent)
    with pytest.raises(ProjectError, match="exists"):
        write_elsewhere(project, target, present)
    assert target.is_dir()


@pytest.mark.parametrize("way", ["cells.sparseseg", "cells.sparseseg/images/..", "link"])
def test_a_project_is_not_copied_into_itself(project, way):
    (project.path.parent / "link").symlink_to(project.path, target_is_directory=True)
    with pytest.raises(ProjectError, match="in the project itself"):
        project.copy_to(project.path.parent / way / "copy.sparseseg")
    assert not (project.path / "copy.sparseseg").exists()


def test_a_project_is_copied_to_a_place_that_is_named_by_way_of_itself(project):
    target = project.path / ".." / "copy.sparseseg"
    project.copy_to(target)
    with Project.open(target) as copy:
        shutil.rmtree(project.path)
        assert copy.path == project.path.with_name("copy.sparseseg")
        paint(copy.images[0].open().store, 1, 3)
        assert copy.images[0].journal.sync(timeout=30)


def test_a_project_that_was_let_go_removes_nothing_that_another_one_has_written(tmp_path, array):
    with Project.create(tmp_path / "cells.sparseseg") as project:
        image = project.add_image(array, shape=SHAPE, time_axis=0)
        image.open()
    with Project.open(tmp_path / "cells.sparseseg") as other:
        store = other.images[0].open().store
        paint(store, 0, 5)
        assert other.images[0].fold(store)
        image.clean()
        assert len(list((image.folder / "annotation").glob("0*"))) == 1


def test_a_project_is_saved_while_its_image_is_being_stored(tmp_path, array):
    with Project.create(tmp_path / "cells.sparseseg") as project:
        image = project.add_image(array, shape=SHAPE, time_axis=0)

        class Saving:
            shape, dtype = array.shape, array.dtype

            def __getitem__(self, index):
                saving = threading.Thread(target=lambda: project.add_checkpoint(b"model", step=1), daemon=True)
                saving.start()
                saving.join(20)
                assert project.checkpoints()
                with pytest.raises(ProjectError, match="already"):
                    image.store_pixels(array)
                return array[index]

        image.store_pixels(Saving())
        assert np.array_equal(image.read()[...], array)
