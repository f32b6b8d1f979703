"""Projects: what was painted is there again, whatever became of the folder."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
import zlib
from unittest.mock import Mock

import numpy as np
import pytest
from paintkit import SHAPE, contents, do_something

from napari_sparseseg._types import Box, Region
from napari_sparseseg.config import ModelConfig, PaintConfig, TrainingConfig
from napari_sparseseg.errors import InputError, ProjectError, ProjectReadOnlyError, ProjectVersionError
from napari_sparseseg.storage import object_ids
from napari_sparseseg.storage.durable import RealDisk
from napari_sparseseg.storage.journal import FileJournal
from napari_sparseseg.storage.object_ids import ObjectIds
from napari_sparseseg.storage.project import loading, migrations
from napari_sparseseg.storage.project.image import ProjectImage, restore_annotation
from napari_sparseseg.storage.project.manifest import MANIFEST, PREVIOUS, ProjectClass, ProjectSettings
from napari_sparseseg.storage.project.migrations import import_journal
from napari_sparseseg.storage.project.project import Project, is_project
from napari_sparseseg.storage.project.reference import ImageState
from napari_sparseseg.storage.sparse import NoRoomError
from napari_sparseseg.storage.strokes import AnnotationStore

CLASSES = (
    ProjectClass(class_id=1, name="background", color=(0.5, 0.5, 0.5), is_background=True),
    ProjectClass(class_id=2, name="nucleus", color=(1.0, 0.5, 0.0)),
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "nuclei.sparseseg"


@pytest.fixture
def array():
    return np.random.default_rng(0).integers(0, 1000, SHAPE, np.uint16)


def new_project(path, array, **options):
    project = Project.create(path, classes=CLASSES, **options)
    project.add_image(array, shape=SHAPE, title="first", time_axis=0, spacing=(2.0, 1.0, 1.0))
    return project


def paint(store, seed=0, n=20):
    rng = np.random.default_rng(seed)
    for _ in range(n):
        do_something(store, rng)


def find_object(objects, frame):
    box = Box((0, 0, 0), (1, 2, 2))
    objects.take(SHAPE, frame, box, np.ones(box.shape, np.uint32))


def envelope_of(path):
    return json.loads((path / MANIFEST).read_text())


def change_project(path, change):
    """Change what the commit point says, as another version would have written it."""
    envelope = envelope_of(path)
    change(envelope["project"])
    envelope["crc32"] = zlib.crc32(json.dumps(envelope["project"], sort_keys=True, separators=(",", ":")).encode())
    (path / MANIFEST).write_text(json.dumps(envelope))


def change_settings(path, settings):
    def change(project):
        for group, name, value in settings:
            project["settings"][group][name] = value

    change_project(path, change)


class TestLife:
    def test_a_new_project_is_opened_again(self, path, array):
        with new_project(path, array) as made:
            assert not made.is_read_only
            assert made.reason == ""
        assert is_project(path)
        with Project.open(path) as project:
            assert project.classes == CLASSES
            assert project.name == "nuclei"
            assert project.problems == ()
            entry = project.images[0].entry
            assert (entry.title, entry.shape, entry.time_axis, entry.spacing) == ("first", SHAPE, 0, (2.0, 1.0, 1.0))

    def test_it_is_a_group_of_zarr(self, path, array):
        import zarr

        with new_project(path, array) as project:
            store = project.images[0].open().store
            paint(store)
            project.images[0].fold(store)
        group = zarr.open_group(path, mode="r")
        codes = group["images/0/annotation/000001/annotation"]
        assert np.array_equal(codes[:], store.codes)

    def test_something_that_exists_is_not_replaced(self, path, array):
        new_project(path, array).close()
        with pytest.raises(ProjectError, match="exists"):
            Project.create(path)

    def test_another_ending_is_refused(self, tmp_path):
        with pytest.raises(ProjectError, match=r"\.sparseseg"):
            Project.create(tmp_path / "nuclei.zarr")
        with pytest.raises(ProjectError, match="no project"):
            Project.open(tmp_path / "nothing.sparseseg")

    def test_a_place_that_cannot_be_written_is_refused(self, tmp_path):
        with pytest.raises(ProjectError, match="choose another place"):
            Project.create(tmp_path / "missing" / "nuclei.sparseseg")
        assert list(tmp_path.iterdir()) == []

    def test_settings_and_classes_are_kept(self, path, array):
        settings = ProjectSettings(device="cpu")
        with new_project(path, array) as project:
            assert project.update(settings=settings)
            assert not project.update(settings=settings, classes=CLASSES)
            assert project.update(classes=CLASSES[::-1])
        with Project.open(path) as project:
            assert project.settings == settings
            assert project.classes == CLASSES[::-1]

    def test_several_images_have_one_model(self, path, array):
        with new_project(path, array) as project:
            second = project.add_image(array[0], shape=(1, *SHAPE[1:]), title="second")
            for number, image in enumerate((project.images[0], second)):
                store = image.open().store
                store.annotate(Region(0, Box((0, 0, 0), (1, 5, 5))), number + 1)
        with Project.open(path) as project:
            assert [image.entry.title for image in project.images] == ["first", "second"]
            assert [image.annotation().max() for image in project.images] == [1, 2]


class TestAnnotation:
    @pytest.mark.parametrize("seed", range(6))
    def test_paint_is_there_again_with_folds_anywhere(self, path, array, seed):
        rng = np.random.default_rng(seed)
        new_project(path, array).close()
        before = contents(AnnotationStore(SHAPE))
        for _ in range(3):
            with Project.open(path) as project:
                image = project.images[0]
                loaded = image.open()
                assert loaded.problems == []
                assert contents(loaded.store) == before
                for _ in range(int(rng.integers(1, 15))):
                    do_something(loaded.store, rng)
                    if rng.random() < 0.2:
                        assert image.fold(loaded.store)
                before = contents(loaded.store)
        assert len(list((path / "images/0/annotation").glob("0*"))) <= 2

    def test_after_a_fold_little_is_replayed(self, path, array):
        with new_project(path, array) as project:
            store = project.images[0].open().store
            paint(store)
            project.images[0].fold(store)
            store.annotate(Region(0, Box((0, 0, 0), (1, 1, 1))), 3)
        with Project.open(path) as project:
            assert project.images[0].load().n_replayed <= 1

    def test_classes_in_the_journal_are_newer_than_the_commit_point(self, path, array):
        third = ProjectClass(class_id=3, name="membrane", color=(0.0, 0.0, 1.0))
        with new_project(path, array) as project:
            image = project.images[0]
            image.open()
            image.note_classes((*CLASSES, third), project.manifest.classes_number + 1)
        with Project.open(path) as project:
            assert project.classes == CLASSES
            project.images[0].open()
            assert project.classes == (*CLASSES, third)

    def test_a_damaged_fold_is_replaced_by_an_older_one_and_the_journal(self, path, array):
        with new_project(path, array) as project:
            image = project.images[0]
            store = image.open().store
            for seed in range(3):
                paint(store, seed, 8)
                image.fold(store)
            paint(store, 4, 5)
        for file in (path / "images/0/annotation/000003/annotation/c").rglob("*"):
            if file.is_file():
                file.write_bytes(file.read_bytes()[:-20])
        with Project.open(path) as project:
            loaded = project.images[0].open()
            assert contents(loaded.store) == contents(store)
            assert "damaged" in loaded.problems[0]

    def test_without_any_fold_the_journal_is_enough(self, path, array):
        import shutil

        with new_project(path, array) as project:
            image = project.images[0]
            store = image.open().store
            paint(store)
            image.fold(store)
        shutil.rmtree(path / "images/0/annotation")
        with Project.open(path) as project:
            loaded = project.images[0].open()
            assert contents(loaded.store) == contents(store)
            assert project.images[0].fold(loaded.store)

    def test_a_torn_journal_is_opened(self, path, array):
        with new_project(path, array) as project:
            store = project.images[0].open().store
            paint(store)
        journal = path / "images/0/journal/000001.journal"
        content = journal.read_bytes()
        for length in range(0, len(content), max(1, len(content) // 60)):
            journal.write_bytes(content[:length])
            with Project.open(path, read_only=True) as project:
                assert project.images[0].load().problems == []

    @pytest.mark.parametrize(
        ("where", "name", "error"),
        [
            (AnnotationStore, "_replay_edit", MemoryError),
            (AnnotationStore, "remove_class", MemoryError),
            (ObjectIds, "replay", MemoryError),
            (object_ids, "zeros", NoRoomError),
            (loading, "read_objects", NoRoomError),
        ],
    )
    def test_without_memory_for_a_change_nothing_is_opened_and_nothing_lost(
        self, path, array, monkeypatch, where, name, error
    ):
        with new_project(path, array) as project:
            image = project.images[0]
            opened = image.open()
            store, objects = opened.store, opened.objects
            if name == "read_objects":
                find_object(objects, 1)
                assert image.fold(store)
            store.annotate(Region(0, Box((0, 0, 0), (1, 5, 5))), 2)
            store.remove_class(2)
            store.annotate(Region(0, Box((1, 0, 0), (2, 5, 5))), 1)
            find_object(objects, 0)

        with monkeypatch.context() as patch, Project.open(path) as project:
            patch.setattr(where, name, Mock(side_effect=error))
            with pytest.raises(ProjectError, match=r"not enough memory.*close other programs"):
                project.images[0].open()
        with Project.open(path) as project:
            loaded = project.images[0].open()
            assert loaded.problems == []
            assert contents(loaded.store) == contents(store)
            assert [loaded.objects.count(frame) for frame in (0, 1)] == [1, int(name == "read_objects")]

    def test_a_removed_folder_is_made_again(self, path, array):
        import shutil

        with new_project(path, array) as project:
            image = project.images[0]
            store = image.open().store
            paint(store)
            image.fold(store)
            shutil.rmtree(path)
            store.annotate(Region(0, Box((0, 0, 0), (1, 3, 3))), 2)
            assert not image.journal.sync(timeout=10)
            assert image.journal.is_gone()
            image.rescue(store)
            store.annotate(Region(0, Box((0, 3, 0), (1, 6, 3))), 1)
            assert image.journal.sync(timeout=10), image.journal.error
        with Project.open(path) as project:
            assert contents(project.images[0].open().store) == contents(store)

    def test_nothing_is_acknowledged_before_the_rescue_is_on_disk(self, path, array):
        import shutil

        disk = HalfFullDisk()
        with new_project(path, array, disk=disk) as project:
            image = project.images[0]
            store = image.open().store
            paint(store)
            assert image.journal.sync(timeout=30)
            shutil.rmtree(path)
            store.annotate(Region(0, Box((0, 0, 0), (1, 3, 3))), 2)
            assert not image.journal.sync(timeout=10)
            for n_left in range(11):  # of the writes that it takes
                disk.n_left = n_left
                assert image.needs_rescue
                with pytest.raises(OSError, match="No space"):
                    image.rescue(store)
                assert not image.journal.sync(timeout=10)
            disk.n_left = 10**9
            image.rescue(store)
            assert not image.needs_rescue
            assert image.journal.sync(timeout=10)
        with Project.open(path) as project:
            assert contents(project.images[0].open().store) == contents(store)


class TestHistory:
    def test_saved_states_can_be_brought_back_and_that_be_undone(self, path, array):
        then = []
        with new_project(path, array) as project:
            image = project.images[0]
            store = image.open().store
            for seed in range(4):
                paint(store, seed, 6)
                image.note_save(len(store.strokes))
                then.append(contents(store))
                if seed == 1:
                    image.fold(store)
        with Project.open(path) as project:
            image = project.images[0]
            states = image.history()
            assert len(states) == 4
            assert states[0].time <= time.time()
            assert image.history(since=time.time() + 10) == ()
            store = image.open().store
            for state, known in zip(states, then, strict=True):
                assert contents(image.load_at(state).store) == known
            restore_annotation(store, image.load_at(states[1]).store)
            again = contents(store)
            meant = AnnotationStore(SHAPE)
            restore_annotation(meant, image.load_at(states[1]).store)
            assert again["complete"] == then[1]["complete"]
            assert [np.unique(store.codes[f] > 0).tolist() for f in (0, 1)] == [
                np.unique(image.load_at(states[1]).store.codes[f] > 0).tolist() for f in (0, 1)
            ]
        with Project.open(path) as project:
            assert contents(project.images[0].open().store) == again


class TestCheckpoints:
    def test_the_last_two_are_kept_newest_first(self, path, array):
        with new_project(path, array) as project:
            for step in range(4):
                project.add_checkpoint(b"model %d" % step, step=step, dice=0.5)
        with Project.open(path) as project:
            assert [(entry.step, file.read_bytes()) for entry, file in project.checkpoints()] == [
                (3, b"model 3"),
                (2, b"model 2"),
            ]
            assert len(list((path / "checkpoints").glob("*.safetensors"))) == 2
            project.drop_checkpoints()
            assert project.checkpoints() == ()

    def test_the_prediction_is_kept(self, path, array):
        labels = np.random.default_rng(0).integers(0, 3, SHAPE, np.uint8)
        with new_project(path, array) as project:
            assert project.images[0].prediction() is None
            project.images[0].write_prediction(labels[::-1].copy())
            project.images[0].write_prediction(labels)
        with Project.open(path) as project:
            assert np.array_equal(project.images[0].prediction()[:], labels)
            assert len(list((path / "images/0/prediction").glob("0*"))) == 1


class TestOneWriter:
    def test_the_second_may_only_read(self, path, array):
        with new_project(path, array) as first:
            store = first.images[0].open().store
            paint(store)
            first.images[0].journal.sync(timeout=30)
            with Project.open(path) as second:
                assert second.is_read_only
                assert f"process {os.getpid()}" in second.reason
                assert contents(second.images[0].open().store) == contents(store)
                assert second.images[0].journal is None
                with pytest.raises(ProjectReadOnlyError, match="another window"):
                    second.update(classes=())
        with Project.open(path) as third:
            assert not third.is_read_only

    def test_a_reader_knows_the_classes_and_settings_of_the_paint_that_it_reads(self, path, array):
        third = ProjectClass(class_id=3, name="membrane", color=(0.0, 0.5, 1.0))
        settings = ProjectSettings(paint=PaintConfig(overlapping=True))
        with new_project(path, array) as writer, Project.open(path) as reader:
            image = writer.images[0]
            store = image.open().store
            image.note_classes((*CLASSES, third), writer.manifest.classes_number + 1)
            store.annotate(Region(0, Box((0, 0, 0), (1, 2, 2))), 3)
            writer.update(classes=(*CLASSES, third), highest_class=5, settings=settings)
            assert image.fold(store)
            assert contents(reader.images[0].open().store) == contents(store)
            assert (reader.classes, reader.highest_class, reader.settings) == ((*CLASSES, third), 5, settings)

    def test_a_reader_tells_of_the_classes_of_the_paint_that_it_tells_of(self, path, array):
        with new_project(path, array) as writer, Project.open(path) as reader:
            image = writer.images[0]
            store = image.open().store
            writer.update(classes=(CLASSES[0].model_copy(update={"name": "empty"}), CLASSES[1]))
            paint(store)
            assert image.fold(store)
            assert reader.provenance()["classes"][0]["name"] == "empty"
            assert "“empty”" in reader.methods()

    def test_a_reader_keeps_classes_that_the_journal_alone_tells_of(self, path, array):
        with new_project(path, array) as writer, Project.open(path) as reader:
            image = writer.images[0]
            image.open()
            image.note_classes(CLASSES[:1], writer.manifest.classes_number + 1)
            assert image.journal.sync(timeout=30)
            reader.images[0].open()
            reader.images[0].load()
            assert reader.classes == CLASSES[:1]
            renamed = (CLASSES[0].model_copy(update={"name": "empty"}),)
            writer.update(classes=renamed)
            reader.images[0].open()
            assert reader.classes == renamed

    def test_a_reader_finds_the_models_that_were_written_since(self, path, array):
        with new_project(path, array) as writer:
            writer.add_checkpoint(b"first", step=1)
            with Project.open(path) as reader:
                for content in (b"second", b"third"):
                    writer.add_checkpoint(content, step=2)
                assert [path.read_bytes() for _, path in reader.checkpoints()] == [b"third", b"second"]

    def test_the_lock_of_a_dead_process_is_taken_over(self, path, array):
        new_project(path, array).close()
        code = (
            "import os, sys; from napari_sparseseg.storage.project.project import Project;"
            "assert not Project.open(sys.argv[1]).is_read_only; os._exit(1)"
        )
        subprocess.run([sys.executable, "-c", code, str(path)], check=False, timeout=60)
        with Project.open(path) as project:
            assert not project.is_read_only

    def test_reading_only_leaves_no_lock(self, path, array):
        new_project(path, array).close()
        with Project.open(path, read_only=True) as reader, Project.open(path) as writer:
            assert reader.is_read_only
            assert not writer.is_read_only
            with pytest.raises(ProjectReadOnlyError, match="reading only"):
                reader.update(classes=())


class TestImage:
    def test_an_image_is_found_moved_changed_or_missed(self, tmp_path, array):
        folder = tmp_path / "data"
        folder.mkdir()
        file = folder / "image.npy"
        np.save(file, array)
        path = folder / "nuclei.sparseseg"
        with Project.create(path) as project:
            image = project.add_image(array, shape=SHAPE, path=file, axes="TZYX")
            assert image.entry.title == "image.npy"
            assert image.check().state is ImageState.SAME
            assert image.check(array).state is ImageState.SAME
            assert np.array_equal(np.asarray(image.read()[:]), array)
            assert image.check(array + 1).state is ImageState.CHANGED
            assert "shape" in image.check(array[:, 1:]).message
        folder = folder.rename(tmp_path / "elsewhere")
        with Project.open(folder / "nuclei.sparseseg") as project:
            found = project.images[0].check(array)
            assert found.state is ImageState.MOVED
            assert found.path == str(folder / "image.npy")
            np.save(folder / "image.npy", array[:, :, 1:])
            assert project.images[0].check().state is ImageState.CHANGED
            (folder / "image.npy").unlink()
            found = project.images[0].check()
            assert found.state is ImageState.MISSING
            assert "paint is safe" in found.message
            with pytest.raises(ProjectError, match="no image"):
                project.images[0].read()

    @pytest.mark.parametrize("dtype", ["uint8", "float32", "bool"])
    def test_an_image_in_memory_can_be_stored(self, path, dtype):
        plane = (np.random.default_rng(0).random((70, 530)) * 3).astype(dtype)
        with Project.create(path) as project:
            image = project.add_image(plane, shape=(1, 1, 70, 530))
            assert image.check().state is ImageState.IN_MEMORY
            image.store_pixels(plane)
        with Project.open(path) as project:
            assert project.images[0].check().state is ImageState.STORED
            assert np.array_equal(project.images[0].read()[:], plane)


class TestVersions:
    def test_a_newer_version_is_refused(self, path, array):
        new_project(path, array).close()
        envelope = envelope_of(path) | {"version": 2}
        (path / MANIFEST).write_text(json.dumps(envelope))
        with pytest.raises(ProjectVersionError, match=r"version 2.*update napari-sparseseg"):
            Project.open(path)

    def test_an_older_one_is_migrated_on_a_copy(self, path, array, monkeypatch):
        with new_project(path, array) as project:
            store = project.images[0].open().store
            paint(store)
        older = envelope_of(path) | {"version": 0}
        older["project"]["names"] = [entry.pop("name") for entry in older["project"]["classes"]]
        (path / MANIFEST).write_text(json.dumps(older))

        def name_classes(content, folder, disk):
            for entry, name in zip(content["classes"], content.pop("names"), strict=True):
                entry["name"] = name
            return content

        with pytest.raises(ProjectError, match="version 0"):
            Project.open(path)
        monkeypatch.setitem(migrations.MIGRATIONS, 0, name_classes)
        for _ in range(2):
            with Project.open(path) as project:
                assert project.path.name == "nuclei (format 1).sparseseg"
                assert [info.name for info in project.classes] == ["background", "nucleus"]
                assert contents(project.images[0].open().store) == contents(store)
        assert envelope_of(path) == older

    def test_a_bare_journal_becomes_a_project(self, tmp_path, path):
        journal = FileJournal(tmp_path / "cells-2026.journal")
        store = AnnotationStore(SHAPE, journal=journal)
        paint(store)
        journal.close()
        import_journal(journal.path, path).close()
        with Project.open(path) as project:
            assert project.images[0].entry.title == "cells-2026"
            assert contents(project.images[0].open().store) == contents(store)
            assert {info.class_id for info in project.classes} >= {1, 2}
            assert project.images[0].check().state is ImageState.IN_MEMORY

    def test_what_is_no_journal_becomes_none(self, tmp_path, path):
        (tmp_path / "text").write_text("hello")
        with pytest.raises(InputError, match="not a journal"):
            import_journal(tmp_path / "text", path)


class TestDamage:
    def test_a_damaged_commit_point_is_replaced_by_the_one_before(self, path, array):
        with new_project(path, array) as project:
            store = project.images[0].open().store
            paint(store)
            project.images[0].fold(store)
            project.update(settings=ProjectSettings(device="cpu"))
        content = bytearray((path / MANIFEST).read_bytes())
        content[len(content) // 2] ^= 1
        (path / MANIFEST).write_bytes(content)
        with Project.open(path) as project:
            assert "no stroke is missing" in project.problems[0]
            assert contents(project.images[0].open().store) == contents(store)

    def test_settings_that_are_not_taken_are_told_and_kept_until_others_are_saved(self, path, array):
        with new_project(path, array) as project:
            store = project.images[0].open().store
            paint(store)
        of_file = [("model", "scales", [0.0, 1.0]), ("training", "of_the_next_version", 1), ("paint", "prior", 7)]
        change_settings(path, [*of_file, ("training", "batch_size", 5)])
        with Project.open(path) as project:
            (problem,) = project.problems
            assert all(f"{group}.{name}" in problem for group, name, _ in of_file)
            assert project.settings.model == ModelConfig()
            assert project.settings.training == TrainingConfig(batch_size=5)
            image = project.images[0].open()
            assert contents(image.store) == contents(store)
            assert project.images[0].fold(image.store)
            project.commit(project.manifest.changed(classes_number=9))
        for name in (MANIFEST, PREVIOUS):
            written = json.loads((path / name).read_text())["project"]["settings"]
            assert [written[group][name] for group, name, _ in of_file] == [value for *_, value in of_file]
        with Project.open(path) as project:
            assert len(project.problems) == 1
            project.update(settings=ProjectSettings(device="cpu"))
        with Project.open(path) as project:
            assert project.problems == ()
            assert project.settings == ProjectSettings(device="cpu")

    def test_settings_of_another_kind_are_told(self, path, array):
        new_project(path, array).close()
        settings = {"model": 3, "device": ["cpu"], "training": {"patience": 5}}
        change_project(path, lambda project: project.update(settings=settings))
        with Project.open(path) as project:
            assert len(project.problems) == 1
            assert project.settings == ProjectSettings(training=TrainingConfig(patience=5))
            project.commit(project.manifest.changed(classes_number=9))
        written = envelope_of(path)["project"]["settings"]
        assert (written["model"], written["device"]) == (3, ["cpu"])

    @pytest.mark.parametrize("group", [{"max_gap": 3}, {}, [1], None])
    def test_a_group_of_settings_of_the_next_version_is_told_and_kept(self, path, array, group):
        new_project(path, array).close()
        change_project(path, lambda project: project["settings"].update(tracking=group))
        for number in range(2):
            with Project.open(path) as project:
                (problem,) = project.problems
                assert "tracking" in problem
                assert project.settings == ProjectSettings()
                project.commit(project.manifest.changed(classes_number=9 + number))
            assert envelope_of(path)["project"]["settings"]["tracking"] == group

    @pytest.mark.parametrize("settings", [[], None, "text", 3])
    def test_settings_that_are_none_are_told_and_replaced(self, path, array, settings):
        new_project(path, array).close()
        change_project(path, lambda project: project.update(settings=settings))
        with Project.open(path) as project:
            (problem,) = project.problems
            assert problem.startswith(f"{path} has no settings that can be read")
            assert project.settings == ProjectSettings()
            project.commit(project.manifest.changed(classes_number=9))
        assert set(envelope_of(path)["project"]["settings"]) == set(ProjectSettings.model_fields)
        with Project.open(path) as project:
            assert project.problems == ()

    @pytest.mark.parametrize("name", ["images/0", "images/0/annotation", "checkpoints"])
    def test_links_are_refused(self, path, array, tmp_path, name):
        new_project(path, array).close()
        (path / name).rename(tmp_path / "outside")
        (path / name).symlink_to(tmp_path / "outside")
        with pytest.raises(ProjectError, match="is a link"):
            Project.open(path)

    @pytest.mark.parametrize("name", [MANIFEST, PREVIOUS, f"{MANIFEST}.partial", "lock", "writer.json"])
    def test_folders_in_the_place_of_files_are_refused(self, path, array, name):
        new_project(path, array).close()
        (path / name).unlink(missing_ok=True)
        (path / name).mkdir()
        with pytest.raises(ProjectError, match=rf"{name} is a folder in the place of a file; take it away"):
            Project.open(path)

    @pytest.mark.parametrize(
        ("change", "what"),
        [
            (lambda p: p["images"][0].update(shape=[1, 2**20, 2**20, 2**20]), "cannot be annotated"),
            (lambda p: p["images"][0].update(shape=[1, -2, 3, 4]), "cannot be annotated"),
            (lambda p: p["images"][0].update(spacing=[0, 1, 1]), "positive"),
            (lambda p: p["images"][0].update(prediction="../../x"), "valid integer"),
            (lambda p: p.update(classes="all"), "valid tuple"),
        ],
    )
    def test_absurd_values_are_refused(self, path, array, change, what):
        new_project(path, array).close()
        from napari_sparseseg.storage.project.manifest import _checksum

        envelope = envelope_of(path)
        change(envelope["project"])
        envelope["crc32"] = _checksum(envelope["project"])
        (path / MANIFEST).write_text(json.dumps(envelope))
        (path / PREVIOUS).unlink()
        with pytest.raises(ProjectError, match=what):
            Project.open(path)


class HalfFullDisk(RealDisk):
    """Takes so many writes, then is full."""

    n_left = 10**9

    def write(self, path, content):
        self.n_left -= 1
        if self.n_left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        super().write(path, content)


class TestFullDisk:
    def test_what_could_not_be_finished_takes_no_room(self, path, array):
        disk = HalfFullDisk()
        with new_project(path, array, disk=disk) as project:
            image = project.images[0]
            store = image.open().store
            paint(store)
            image.fold(store)
            image.write_prediction(store.codes.copy())
            project.add_checkpoint(b"first", step=1)
            image.journal.sync(timeout=30)
            before = sorted(p for p in path.rglob("*") if p.is_file())
            for n_left in range(5):
                for write in (
                    lambda: image.fold(store),
                    lambda: image.write_prediction(store.codes.copy()),
                    lambda: project.add_checkpoint(b"second", step=2),
                ):
                    disk.n_left = min(n_left, 1)
                    with pytest.raises(OSError, match="No space"):
                        write()
            disk.n_left = 10**9
            left = {p for p in path.rglob("*") if p.is_file() and not p.name.endswith(".partial")}
            assert left == set(before)
        with Project.open(path) as project:
            assert contents(project.images[0].open().store) == contents(store)
            assert project.checkpoints()[0][1].read_bytes() == b"first"


class TestCopying:
    def test_a_copy_holds_all_and_still_finds_the_image(self, tmp_path, array):
        (tmp_path / "data").mkdir()
        np.save(tmp_path / "image.npy", array)
        path, target = tmp_path / "cells.sparseseg", tmp_path / "data" / "cells.sparseseg"
        with Project.create(path, classes=CLASSES) as project:
            image = project.add_image(array, shape=SHAPE, path=tmp_path / "image.npy")
            store = image.open().store
            paint(store, 0)
            image.fold(store)
            paint(store, 1)
            project.copy_to(target)
            then = contents(store)
            paint(store, 2)
            with pytest.raises(ProjectError, match="exists"):
                project.copy_to(target)
            with pytest.raises(ProjectError, match="another place"):
                project.copy_to(tmp_path / "nowhere" / "cells.sparseseg")
        with Project.open(target) as copy:
            assert contents(copy.images[0].open().store) == then
            assert copy.images[0].entry.reference.relative == "../../image.npy"
            assert copy.classes == CLASSES
        assert {p.name for p in tmp_path.iterdir()} == {"data", "image.npy", "cells.sparseseg"}


class TestProvenance:
    def test_it_tells_who_painted_what(self, path, array):
        with new_project(path, array) as project:
            image = project.images[0]
            assert project.methods().startswith("Nothing")
            store = image.open().store
            store.annotate(Region(0, Box((0, 0, 0), (1, 5, 5))), 1)
            store.annotate(Region(0, Box((0, 5, 0), (1, 9, 5))), 2, by="suggestion")
            store.annotate(Region(0, Box((1, 5, 0), (2, 9, 5))), 2)
            store.undo()
            project.add_checkpoint(b"", step=12, dice=0.75)
            image.note("model", step=12)
            image.journal.sync(timeout=30)
            found = json.loads(json.dumps(project.provenance()))
            told = project.methods()
        assert [s["by"] for s in found["images"][0]["strokes"]] == ["human", "suggestion"]
        events = [event["event"] for event in found["images"][0]["events"]]
        assert events == ["session", "stroke", "stroke", "stroke", "undo", "model"]
        assert found["settings"]["training"]["batch_size"] == 2
        for part in ("2 strokes", "“nucleus”", "1 of them were suggested", "12 training steps", "0.750"):
            assert part in told

    def test_each_annotation_is_loaded_once(self, path, array, monkeypatch):
        loaded, load = [], ProjectImage.load
        monkeypatch.setattr(ProjectImage, "load", lambda image: loaded.append(image.number) or load(image))
        with new_project(path, array) as project:
            second = project.add_image(array, shape=SHAPE, title="second", time_axis=0)
            for image in (project.images[0], second):
                store = image.open().store
                for frame in range(SHAPE[0]):
                    store.annotate(Region(frame, Box((0, 0, 0), (1, 5, 5))), 1)
                image.journal.sync(timeout=30)
            assert "4 strokes" in (told := project.methods())
        assert "label 100 of 7680 voxels" in told
        assert loaded == [0, 1]
