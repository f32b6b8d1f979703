"""A live segmenter on a project: all of it is there again, and nothing that fails costs paint."""

from __future__ import annotations

import errno
import shutil
import threading
import time
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from livekit import (
    BACKGROUND_BOX,
    OBJECT_BOX,
    PATIENCE,
    QUICK,
    SHAPE,
    SMALL,
    paint_background,
    paint_both,
    paint_object,
    rest,
    view_of,
)

from napari_sparseseg import SparseSegmenter
from napari_sparseseg._types import Box, Plane, Region
from napari_sparseseg.config import PaintConfig
from napari_sparseseg.engine.checkpoint import encode_model, load_model
from napari_sparseseg.engine.model import FittedModel, ModelSpec
from napari_sparseseg.engine.normalise import IntensityRange
from napari_sparseseg.errors import InputError, ModelFileError, ProjectError
from napari_sparseseg.live import kept, live_segmenter, saving
from napari_sparseseg.live.events import LiveState, TileUpdate
from napari_sparseseg.live.image import LiveImage
from napari_sparseseg.live.keeper import Keeper
from napari_sparseseg.live.learner import table_of
from napari_sparseseg.live.loop import LiveLoop
from napari_sparseseg.storage.durable import RealDisk
from napari_sparseseg.storage.project import image as image_module
from napari_sparseseg.storage.project.elsewhere import write_elsewhere
from napari_sparseseg.storage.project.image import ProjectImage
from napari_sparseseg.storage.project.manifest import MANIFEST, ProjectClass, ProjectSettings
from napari_sparseseg.storage.project.project import Project


class FailingDisk(RealDisk):
    """A disk that is full as long as it is told to."""

    error: OSError | None = None

    def write(self, path, content):
        self._fail()
        super().write(path, content)

    def sync(self, path):
        self._fail()
        super().sync(path)

    def open(self, path):
        self._fail()
        return FailingFile(super().open(path), self)

    def _fail(self):
        if self.error is not None:
            raise self.error


class FailingFile:
    def __init__(self, file, disk):
        self._file, self._disk = file, disk

    def write_at(self, offset, content):
        if self._disk.error is not None:
            self._file.write_at(offset, content[: len(content) // 2])
        self._disk._fail()
        self._file.write_at(offset, content)

    def sync(self):
        self._disk._fail()
        self._file.sync()

    def close(self):
        self._file.close()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cells.sparseseg"


@pytest.fixture
def opened(make_live, image, path):
    """Open the image in a live segmenter on the project, which is made the first time."""
    projects = []

    def do(disk=None, **options):
        is_new = not path.exists()
        project = Project.create(path, disk=disk) if is_new else Project.open(path, disk=disk)
        projects.append(project)
        if is_new:
            project.add_image(image, shape=(1, *SHAPE))
        live = make_live(**options)
        live.notices, live.savings = [], []
        live.events.noticed.connect(live.notices.append)
        live.events.saving_changed.connect(live.savings.append)
        live.open(image, project=project.images[0])
        return live, project

    yield do
    for project in projects:
        project.close()


def wait_for(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def learn_a_little(live):
    """Paint and train, so that there is a model and a prediction; then rest, which saves them."""
    live.look_at(view_of())
    paint_both(live)
    live.heard.wait_for_step(3)
    rest(live)


def close(live, project):
    live.close()
    project.close()


def test_no_address_of_a_cluster_is_kept_in_or_taken_from_a_project(monkeypatch, opened, path):
    # asked for first, it lasts until the thread that looks for the cluster has ended
    monkeypatch.setattr("napari_sparseseg.distributed.cluster._PATIENCE", 0.5)
    live, project = opened()
    live.configure(device="tcp://127.0.0.1:9")
    paint_both(live)
    close(live, project)
    assert project.settings.device == "auto"
    assert kept.settings_of(ProjectSettings(device="tcp://127.0.0.1:9")).device == "auto"


class TestComingBack:
    def test_all_of_it_is_there_again(self, opened, path):
        live, project = opened()
        live.rename_class(2, "cell")
        third = live.add_class("membrane")
        live.set_background(1)
        live.configure(training=QUICK.with_changes(batch_size=3), paint=PaintConfig(label_smoothing=0.1))
        live.look_at(view_of())
        paint_both(live)
        live.heard.wait_for_step(8)
        rest(live)
        before = live.status
        codes, labels, classes = live.codes.copy(), live.labels(0), live.classes
        points = [point.step for point in live.heard.points]
        close(live, project)
        assert third.class_id == 3

        live, project = opened()
        assert np.array_equal(live.codes, codes)
        assert live.classes == classes
        assert live.settings.training.batch_size == 3
        assert live.settings.paint.label_smoothing == 0.1
        live.heard.wait_until(lambda: live.status.has_model and live.status.step > 0, "for the model")
        assert live.status.step == before.step
        assert np.mean(live.labels(0) == labels) > 0.95
        assert live.heard.points[-1].step == points[-1]
        assert live.notices == []
        live.start()
        live.heard.wait_for_step(3)
        assert live.status.step > before.step
        assert live.undo()
        close(live, project)

    def test_the_model_of_a_project_is_loaded_by_the_segmenter(self, opened, path, image, truth):
        live, project = opened()
        with pytest.raises(ModelFileError, match="no model"):
            SparseSegmenter.load(path)
        live.look_at(view_of())
        paint_both(live)
        live.heard.wait_for_step(20)
        rest(live)
        close(live, project)
        segmenter = SparseSegmenter.load(path, device="cpu")
        assert segmenter.n_steps_ >= 20
        assert np.mean(segmenter.predict(image) == truth) > 0.8
        newest = sorted((path / "checkpoints").glob("*.safetensors"))
        if len(newest) > 1:
            newest[-1].write_bytes(b"damaged")
            assert SparseSegmenter.load(path, device="cpu").n_steps_ > 0

    def test_strokes_are_there_without_closing(self, opened, path):
        live, project = opened()
        paint_background(live)
        assert project.images[0].journal.sync(timeout=30)
        with Project.open(path, read_only=True) as reader:
            assert np.array_equal(reader.images[0].annotation(), live.codes)

    def test_a_model_that_was_dropped_does_not_come_back(self, opened):
        live, project = opened()
        learn_a_little(live)
        wait_for(lambda: project.manifest.checkpoints)
        live.reset_model()
        wait_for(lambda: not project.manifest.checkpoints)
        close(live, project)

    def test_a_prediction_of_a_model_that_was_dropped_does_not_come_back(self, opened):
        live, project = opened()
        learn_a_little(live)
        live.keeping.save()
        wait_for(lambda: project.images[0].prediction() is not None)
        wait_for(lambda: not live.keeping._keeper._has_new_tiles)
        live.reset_model()
        wait_for(lambda: not project.manifest.checkpoints)
        assert project.images[0].prediction() is None
        assert not live.keeping._keeper._parts()
        assert not list((project.images[0].folder / "prediction").iterdir())
        close(live, project)

    def test_a_tile_that_a_dropped_model_predicted_last_is_not_saved(self, opened):
        live, project = opened()
        wait_for(lambda: live._worker.loop is not None)
        may_end = threading.Event()
        live._worker.compute(lambda: may_end.wait(30))  # as if the old model were predicting
        live.reset_model()
        box = Box((0, 0, 0), (1, 5, 5))
        live._work.labels[(0, *box.slices)] = 2
        tile = TileUpdate(0, box, np.full(box.shape, 2, np.uint8), generation=1)
        live._work.switch.tell(live.events.tile_predicted, tile)
        assert live.keeping._keeper.hold()  # all is saved
        assert project.images[0].prediction() is None
        live.keeping._keeper.go_on()
        may_end.set()
        live._worker.compute(lambda: None).result(30)
        assert not live._work.labels.any()
        live._work.labels[(0, *box.slices)] = 2
        live._work.switch.tell(live.events.tile_predicted, tile)  # of the new one
        assert live.keeping._keeper.hold()
        assert project.images[0].prediction() is not None
        live.keeping._keeper.go_on()
        close(live, project)

    def test_a_model_that_a_class_was_removed_from_does_not_take_a_newer_one_for_it(self, opened):
        live, project = opened()
        learn_a_little(live)
        wait_for(lambda: project.manifest.checkpoints)
        live.add_class("third")
        live.remove_class(2)
        live.heard.wait_until(lambda: not live.status.has_model, "for the model to go")
        assert live.add_class("fourth").class_id == 4
        close(live, project)
        live, project = opened()
        live.auto_start = False
        wait_for(lambda: live._worker.loop)
        assert live._worker.compute(lambda: live._worker.loop.learner.fitted).result(PATIENCE) is None
        assert live.add_class("fifth").class_id == 5

    def test_a_damaged_model_is_told_and_the_one_before_used(self, opened, path):
        live, project = opened()
        learn_a_little(live)
        wait_for(lambda: len(project.manifest.checkpoints) == 1)
        live.start()
        live.heard.wait_for_step(3)
        close(live, project)
        _older, newer = sorted((path / "checkpoints").glob("*.safetensors"))
        newer.write_bytes(newer.read_bytes()[:-9])
        live, project = opened()
        live.heard.wait_until(lambda: live.status.has_model, "for the model")
        assert "model before is used" in live.notices[0]

    def test_another_shape_is_refused(self, opened, image):
        live, project = opened()
        with pytest.raises(InputError, match="has shape"):
            live.open(image[1:], project=project.images[0])

    @pytest.mark.parametrize("failure", [ProjectError("it is damaged"), OSError(errno.EIO, "the disk says no")])
    def test_what_is_open_is_saved_on_if_another_project_cannot_be_opened(
        self, monkeypatch, opened, image, path, failure
    ):
        live, project = opened()
        third = live.add_class("membrane")
        with monkeypatch.context() as patch, Project.create(path.with_name("other.sparseseg")) as other:
            other.add_image(image, shape=(1, *SHAPE))
            patch.setattr(ProjectImage, "open", Mock(side_effect=failure))
            with pytest.raises(type(failure)):
                live.open(image, project=other.images[0])
        self.check_saved(live, project, path, third.class_id)

    def test_what_is_open_is_saved_on_if_there_is_no_memory_for_another_image(self, monkeypatch, opened, image, path):
        live, project = opened()
        third = live.add_class("membrane")
        with monkeypatch.context() as patch:
            patch.setattr(live_segmenter, "zeros", Mock(side_effect=MemoryError))
            with pytest.raises(InputError, match="not enough memory"):
                live.open(image[1:])
        self.check_saved(live, project, path, third.class_id)

    @pytest.mark.parametrize("number", [0, 1])
    def test_what_is_open_is_saved_on_if_an_image_of_the_same_project_cannot_be_opened(
        self, monkeypatch, opened, image, path, number
    ):
        live, project = opened()
        project.add_image(image, shape=(1, *SHAPE))
        third = live.add_class("membrane")
        paint_background(live)
        with monkeypatch.context() as patch:
            patch.setattr(image_module, "load_annotation", Mock(side_effect=ProjectError("it is damaged")))
            with pytest.raises(ProjectError):
                live.open(image, project=project.images[number])
        assert live.keeping.status.reason == ""
        paint_object(live)
        live.keeping.save()
        wait_for(lambda: live.keeping.history() and live.keeping.history()[-1].n_strokes == 2)
        self.check_saved(live, project, path, third.class_id)

    def test_an_image_is_opened_again_with_all_its_paint(self, opened, image, path):
        live, project = opened()
        third = live.add_class("membrane")
        paint_background(live)
        codes = live.codes.copy()
        live.open(image, project=project.images[0])
        assert np.array_equal(live.codes, codes)
        self.check_saved(live, project, path, third.class_id)

    def test_nothing_is_opened_again_before_all_is_written(self, opened, image, path):
        disk = FailingDisk()
        live, project = opened(disk)
        paint_background(live)
        disk.error = OSError(errno.ENOSPC, "No space left on device")
        paint_object(live)
        codes = live.codes.copy()
        with pytest.raises(ProjectError, match="No space left"):
            live.open(image, project=project.images[0])
        disk.error = None
        assert np.array_equal(live.codes, codes)
        wait_for(lambda: project.images[0].journal.sync(timeout=1))
        self.check_saved(live, project, path, 2)

    def test_nothing_is_opened_while_the_image_before_is_still_being_saved(self, monkeypatch, opened, image, path):
        live, project = opened()
        paint_background(live)
        project.add_image(image, shape=(1, *SHAPE))
        monkeypatch.setattr(saving, "HOLD_SECONDS", 0.0)
        with pytest.raises(InputError, match="still being saved"):
            live.open(image, project=project.images[1])
        assert live.project is project.images[0]
        self.check_saved(live, project, path, 2)

    def test_what_was_left_and_not_opened_again_is_saved_on(self, opened, image, path):
        live, project = opened()
        paint_background(live)
        assert live.keeping.leave() is None
        with pytest.raises(InputError, match="has shape"):
            live.open(image[1:], project=project.images[0])
        live.keeping.go_on()
        assert live.keeping.status.reason == live.savings[-1].reason == ""
        third = live.add_class("membrane")
        live.keeping.save()
        wait_for(lambda: len(project.classes) == 3)
        self.check_saved(live, project, path, third.class_id)

    def test_classes_that_only_the_journal_of_another_image_knows_are_kept(self, opened, image, path):
        live, project = opened()
        close(live, project)
        vessel = ProjectClass(class_id=3, name="vessel", color=(0.0, 0.0, 1.0))
        with Project.open(path) as crashed:  # before the commit point knows of the class
            other = crashed.add_image(image, shape=(1, *SHAPE))
            store = other.open().store
            other.note_classes((*crashed.classes, vessel), crashed.manifest.classes_number + 1)
            store.annotate(Region(0, OBJECT_BOX), 3)
        live, project = opened()
        live.open(image, project=project.images[1])
        assert [info.name for info in live.classes] == ["background", "object", "vessel"]
        close(live, project)
        assert project.classes[2] == vessel

    def check_saved(self, live, project, path, class_id):
        live.annotate(Region(0, OBJECT_BOX), class_id)
        codes, classes = live.codes.copy(), live.classes
        close(live, project)
        with Project.open(path) as again:
            assert np.array_equal(again.images[0].annotation(), codes)
            assert kept.class_infos(again.classes) == classes

    def test_a_project_keeps_its_own_classes_and_settings_when_another_is_opened(self, opened, image, path):
        live, project = opened()
        live.rename_class(2, "cell")
        with Project.create(path.with_name("other.sparseseg")) as other:
            other.add_image(image, shape=(1, *SHAPE))
            background, _ = kept.project_classes(live._classes)
            other.update(
                classes=(background, ProjectClass(class_id=7, name="other", color=(1, 0, 0))),
                settings=ProjectSettings(paint=PaintConfig(label_smoothing=0.1)),
            )
            live.open(image, project=other.images[0])
            assert [info.name for info in project.classes] == ["background", "cell"]
            assert project.settings.paint == PaintConfig()
            assert [info.name for info in live.classes] == ["background", "other"]
            live.close()

    def test_a_second_window_may_look(self, opened, image, path, make_live):
        live, project = opened()
        paint_both(live)
        project.images[0].journal.sync(timeout=30)
        with Project.open(path) as second:
            other = make_live()
            other.open(image, project=second.images[0])
            assert "another window" in other.keeping.status.reason
            assert np.array_equal(other.codes, live.codes)
            paint_object(other)
            other.close()

    def test_an_earlier_state_can_be_brought_back(self, opened):
        live, _project = opened()
        paint_background(live)
        live.keeping.save()
        wait_for(lambda: len(live.keeping.history()) == 1)
        then = live.codes.copy()
        paint_object(live)
        n_told = len(live.heard.paint)
        live.keeping.restore(live.keeping.history()[0])
        assert np.array_equal(live.codes, then)
        assert [(change.frame, change.box) for change in live.heard.paint[n_told:]] == [(0, OBJECT_BOX)]
        assert live.undo()
        assert (live.codes[(0, *OBJECT_BOX.slices)] == 2).all()


class TestHistory:
    @pytest.fixture
    def saved(self, opened):
        """A live segmenter on a project with one saved state, of a third class that is called membrane."""
        live, project = opened()
        membrane = live.add_class("membrane", (0.0, 0.5, 1.0))
        live.annotate(Region(0, OBJECT_BOX), membrane.class_id)
        live.keeping.save()
        wait_for(lambda: len(live.keeping.history()) == 1)
        return live, project, membrane

    def test_what_is_damaged_of_a_state_is_told(self, saved):
        live, project, _ = saved
        image = project.images[0]
        (journal,) = (image.folder / "journal").iterdir()
        content = bytearray(journal.read_bytes())
        content[content.index(b"membrane")] ^= 1
        journal.write_bytes(content)
        live.keeping.restore(live.keeping.history()[0])
        assert "could not be read" in live.notices[-1]

    def test_a_class_that_was_removed_comes_back_with_its_paint(self, saved, path):
        live, project, membrane = saved
        live.remove_class(3)
        live.keeping.restore(live.keeping.history()[0])
        assert live.classes[2] == membrane
        assert live.heard.classes[-1] == live.classes
        assert (live.codes[(0, *OBJECT_BOX.slices)] == 3).all()
        live.annotate(Region(0, BACKGROUND_BOX), 3)
        codes = live.codes.copy()
        close(live, project)
        with Project.open(path) as again:
            assert kept.class_infos(again.classes)[2] == membrane
            assert np.array_equal(again.images[0].annotation(), codes)

    def test_a_class_that_only_sets_name_comes_back(self, opened):
        live, _project = opened(paint=PaintConfig(overlapping=True))
        third = live.add_class("nucleus")
        for class_id in (2, third.class_id):
            live.annotate(Region(0, OBJECT_BOX), class_id)
        live.keeping.save()
        wait_for(lambda: len(live.keeping.history()) == 1)
        live.remove_class(third.class_id)
        live.keeping.restore(live.keeping.history()[0])
        assert live.classes[2] == third
        assert live.presence(3, 0, OBJECT_BOX).all()

    @pytest.mark.parametrize("reopens", [False, True])
    def test_a_class_that_was_removed_does_not_come_back_as_a_newer_one(self, saved, opened, reopens):
        live, project, membrane = saved
        live.remove_class(3)
        if reopens:
            close(live, project)
            live, project = opened()
        other = live.add_class("mitochondrion")
        live.keeping.restore(live.keeping.history()[0])
        assert [info.name for info in live.classes] == ["background", "object", "membrane", "mitochondrion"]
        assert (live.codes[(0, *OBJECT_BOX.slices)] == membrane.class_id).all()
        assert other.class_id == 4

    def test_no_id_is_given_again_after_a_crash(self, saved, tmp_path):
        live, project, _membrane = saved
        live.remove_class(3)
        crashed = tmp_path / "crashed.sparseseg"
        project.copy_to(crashed)
        stale = project.manifest.changed(classes=(), classes_number=0, highest_class=0)
        (crashed / MANIFEST).write_bytes(stale.encoded())
        with Project.open(crashed) as again:
            again.images[0].open()
            assert again.highest_class == 3

    def test_a_name_that_another_class_has_by_now_is_not_taken_from_it(self, saved):
        live, _project, membrane = saved
        live.remove_class(3)
        live.rename_class(2, "membrane")
        live.keeping.restore(live.keeping.history()[0])
        assert [info.name for info in live.classes] == ["background", "membrane", "class 3"]
        assert live.classes[2].color == membrane.color

    def test_the_background_comes_back_in_its_role(self, saved):
        live, _project, _ = saved
        paint_background(live)
        live.keeping.save()
        wait_for(lambda: len(live.keeping.history()) == 2)
        live.remove_class(1)
        live.keeping.restore(live.keeping.history()[1])
        assert live.classes[0].name == "background"
        assert live.classes[0].is_background

    def test_what_was_there_before_can_be_brought_back_too(self, saved):
        live, project, _ = saved
        paint_background(live)
        paint_object(live)
        live.set_complete(Plane(0, 0, 3), True)
        codes, slices = live.codes.copy(), live.painted_slices()
        live.keeping.restore(live.keeping.history()[0])
        assert live.painted_slices() != slices
        assert project.images[0].journal.sync(timeout=30)
        live.keeping.restore(live.keeping.history()[-1])
        assert np.array_equal(live.codes, codes)
        assert [found.plane for found in live.painted_slices() if found.is_complete] == [Plane(0, 0, 3)]


class TestModelsWithoutSteps:
    """A model that changes though nothing is learnt is saved all the same."""

    @pytest.fixture
    def model_file(self, image, tmp_path):
        """``model_file(*classes, seed=0)``: a file with a model that has learnt nothing."""

        def make(*class_ids, seed=0):
            taken = LiveImage.of(image, None, None, None)
            spec = ModelSpec(SMALL, taken.spacing, 1, taken.flat)
            fitted = FittedModel.fresh(spec, table_of(class_ids, 1), torch.device("cpu"), seed)
            fitted.intensity = (IntensityRange.of(taken.volume(0)),)
            path = tmp_path / f"{seed}.safetensors"
            path.write_bytes(encode_model(fitted, settings={}, history=[]))
            return path

        return make

    @pytest.fixture
    def paused(self, opened, model_file):
        """A live segmenter on a project, paused; its model, of three classes, is saved."""
        live, project = opened()
        live.load_model(model_file(1, 2, 3))
        live.heard.wait_for_state(LiveState.UP_TO_DATE)
        live.pause()
        wait_for(lambda: project.checkpoints())
        return live, project

    def newest(self, path):
        with Project.open(path, read_only=True) as project:
            return load_model(project.checkpoints()[0][1])[0]

    def test_one_that_forgot_a_class(self, paused, path):
        live, project = paused
        live.remove_class(3)
        close(live, project)
        assert self.newest(path).classes.ids == (1, 2)

    def test_one_that_was_loaded_in_place_of_another(self, paused, path, model_file):
        live, project = paused
        other = model_file(1, 2, 3, seed=1)
        live.load_model(other)
        close(live, project)
        weights = [model.network.unet.stem.weight for model in (self.newest(path), load_model(other)[0])]
        assert torch.equal(*weights)

    def test_one_that_did_not_is_saved_once(self, paused):
        live, project = paused
        n_saved = len(project.manifest.checkpoints)
        live.keeping.save()
        live.remove_class(3)
        live.keeping.save()
        wait_for(lambda: len(project.manifest.checkpoints) > n_saved)
        numbers = [entry.number for entry in project.manifest.checkpoints]
        close(live, project)
        assert [entry.number for entry in project.manifest.checkpoints] == numbers

    def test_classes_that_were_removed_do_not_come_back_with_it(self, paused, opened, path):
        live, project = paused
        close(live, project)
        with Project.open(path) as project:
            project.update(classes=[info for info in project.classes if info.class_id != 3])
        live, _project = opened()
        live.heard.wait_until(lambda: live.status.has_model, "for the model")
        assert live._worker._wait_for(lambda: live._worker.loop.learner.fitted.classes.ids) == (1, 2)
        assert not (live.labels(0) == 3).any()


class TestBeginningInVain:
    """What keeps learning from being begun, and is over then: all that was learnt before comes back all the same."""

    @pytest.fixture
    def learnt(self, opened):
        """The step at which the model of a project was left, and the points of its curve."""
        live, project = opened()
        learn_a_little(live)
        close(live, project)
        return live.status.step, [point.step for point in live.heard.points]

    def check_goes_on(self, live, learnt):
        step, points = learnt
        live.start()
        live.heard.wait_until(lambda: live.status.has_model and live.status.step > step, "for the model")
        assert min(status.step for status in live.heard.statuses if status.has_model) == step
        assert [point.step for point in live.heard.points[: len(points)]] == points
        assert live.heard.tiles[0].generation == 0  # as it was saved

    def test_with_a_device_that_is_not_there(self, opened, learnt, path):
        with Project.open(path) as project:
            project.update(settings=project.settings.model_copy(update={"device": "cuda:99"}))
        live, _project = opened()
        live.heard.wait_for_state(LiveState.FAILED)
        live.configure(device="cpu")
        self.check_goes_on(live, learnt)

    @pytest.mark.parametrize("name", ["prepare", "adopt"])
    def test_with_too_little_memory(self, opened, learnt, monkeypatch, name):
        real = getattr(LiveLoop, name)

        def fail_once(*args):
            monkeypatch.setattr(LiveLoop, name, real)
            raise MemoryError

        monkeypatch.setattr(LiveLoop, name, fail_once)
        live, _project = opened()
        live.heard.wait_for_state(LiveState.FAILED)
        self.check_goes_on(live, learnt)

    def test_whoever_begins_anew_gets_nothing_back(self, opened, learnt, monkeypatch):
        monkeypatch.setattr(LiveLoop, "adopt", Mock(side_effect=MemoryError))
        live, project = opened()
        live.heard.wait_for_state(LiveState.FAILED)
        n_tiles = len(live.heard.tiles)
        live.reset_model()
        wait_for(lambda: not project.manifest.checkpoints)
        live.start()
        live.heard.wait_for_step(3)
        assert all(tile.generation > 0 for tile in live.heard.tiles[n_tiles:])
        LiveLoop.adopt.assert_called_once()


class TestFaults:
    @pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO])
    def test_painting_goes_on_and_is_saved_as_soon_as_can_be(self, opened, path, code):
        disk = FailingDisk()
        live, project = opened(disk)
        paint_background(live)
        assert project.images[0].journal.sync(timeout=30)
        disk.error = OSError(code, "the disk says no")
        paint_object(live)
        wait_for(lambda: "the disk says no" in live.keeping.status.error)
        live.annotate(Region(0, Box((0, 0, 0), (1, 5, 5))), 2)
        live.keeping.save()
        disk.error = None
        wait_for(lambda: not live.keeping.status.error and project.images[0].journal.sync(timeout=1))
        assert any("the disk says no" in status.error for status in live.savings)
        codes = live.codes.copy()
        close(live, project)
        with Project.open(path) as again:
            assert np.array_equal(again.images[0].annotation(), codes)

    def test_a_folder_that_is_deleted_under_way_is_written_anew(self, opened, path):
        live, project = opened()
        paint_background(live)
        assert project.images[0].journal.sync(timeout=30)
        shutil.rmtree(path)
        paint_object(live)
        wait_for(lambda: (path / "images/0/annotation").is_dir() and not live.keeping.status.error)
        live.annotate(Region(0, Box((0, 0, 0), (1, 5, 5))), 2)
        codes = live.codes.copy()
        close(live, project)
        with Project.open(path) as again:
            assert np.array_equal(again.images[0].annotation(), codes)

    def test_many_strokes_are_folded(self, opened, path, monkeypatch):
        monkeypatch.setattr(saving, "FOLD_RECORDS", 10)
        live, project = opened()
        for number in range(30):
            live.annotate(Region(0, Box((number % 12, 0, 0), (number % 12 + 1, 1 + number, 5))), 1 + number % 2)
        wait_for(lambda: project.images[0].entry.folds)
        codes = live.codes.copy()
        close(live, project)
        with Project.open(path) as again:
            assert again.images[0].load().n_replayed < 30
            assert np.array_equal(again.images[0].annotation(), codes)


class FullBelow(FailingDisk):
    """A disk that is full below one folder only, as that of a project that is to be saved elsewhere."""

    folder = None

    def write(self, path, content):
        self._check(path)
        RealDisk.write(self, path, content)

    def sync(self, path):
        self._check(path)
        RealDisk.sync(self, path)

    def open(self, path):
        self._check(path)
        return FailingFile(RealDisk.open(self, path), self)

    def _check(self, path):
        if path.is_relative_to(self.folder):
            self._fail()


class TestLeaving:
    """What cannot be saved is known before anything is closed, and can be written elsewhere."""

    @pytest.fixture
    def full(self, opened, path):
        """A live segmenter on a project whose disk is full, with a stroke and a class that are in memory only."""
        disk = FullBelow()
        disk.folder = path
        live, project = opened(disk)
        live.auto_start = False
        paint_background(live)
        assert project.images[0].journal.sync(timeout=30)
        disk.error = OSError(errno.ENOSPC, "No space left on device")
        third = live.add_class("membrane")
        live.annotate(Region(0, OBJECT_BOX), third.class_id)
        yield live, project
        disk.error = None

    def test_nothing_is_in_memory_only_where_all_is_saved(self, opened):
        live, project = opened()
        learn_a_little(live)
        assert live.keeping.hold() == ""
        assert project.manifest.checkpoints[-1].step == live.status.step
        assert live.keeping.leave() is None

    def test_what_a_full_disk_does_not_take_is_told_and_written_elsewhere(self, full, image, tmp_path):
        live, project = full
        assert "No space left" in live.keeping.hold()
        codes, classes = live.codes.copy(), live.classes
        target = tmp_path / "other.sparseseg"
        assert write_elsewhere(project, target, live.keeping.leave()) == (0, "")
        with Project.open(target) as other:
            live.open(image, project=other.images[0])
            assert not any("could be saved" in notice for notice in live.notices)
            assert np.array_equal(live.codes, codes)
            assert live.classes == classes
            live.close()

    def test_it_is_saved_on_where_that_was_in_vain(self, full, path):
        live, project = full
        live.keeping.leave()
        live.keeping.go_on()
        project.disk.error = None
        wait_for(lambda: not live.keeping.status.error and len(project.classes) == 3)
        codes = live.codes.copy()
        close(live, project)
        with Project.open(path) as again:
            assert np.array_equal(again.images[0].annotation(), codes)

    def test_what_was_lost_with_another_image_is_told(self, full, image):
        live, _project = full
        live.open(image)
        assert "not all of cells could be saved" in live.notices[-1]

    def test_a_model_that_cannot_be_had_is_told_and_nothing_left_without(self, opened, monkeypatch):
        live, _project = opened()
        learn_a_little(live)
        live.keeping.hold()
        live.keeping.go_on()
        may_end = threading.Event()
        live.keeping.note_model()
        live._worker.compute(lambda: may_end.wait(PATIENCE))
        with monkeypatch.context() as patch:
            patch.setattr(kept, "_PATIENCE", 0.1)
            assert "model as it is now" in live.keeping.hold()
            with pytest.raises(InputError, match="try again in a minute"):
                live.keeping.leave()
        may_end.set()
        assert live.keeping.leave() is None

    def test_what_is_held_again_is_saved_again(self, opened):
        live, project = opened()
        paint_background(live)
        live.keeping.hold()
        with live.keeping._keeper._changed:  # before its thread has noticed anything
            live.keeping.go_on()
            paint_object(live)
            live.add_class("membrane")
            assert live.keeping.hold() == ""
        assert len(project.classes) == 3
        assert live.keeping.history()[-1].n_strokes == 2

    def test_nobody_waits_any_longer_for_all_to_be_saved_when_it_is_closed_meanwhile(self, opened, monkeypatch):
        live, _project = opened()
        saver, held, is_saving, may_end = live.keeping._keeper, [], threading.Event(), threading.Event()
        monkeypatch.setattr(saving, "HOLD_SECONDS", 10 * PATIENCE)
        saves = saver._try_saving
        monkeypatch.setattr(saver, "_try_saving", lambda _: (is_saving.set(), may_end.wait(PATIENCE), saves(True)))
        waiting = threading.Thread(target=lambda: held.append(saver.hold()), daemon=True)
        waiting.start()
        assert is_saving.wait(PATIENCE)
        closing = threading.Thread(target=saver.close)
        closing.start()
        wait_for(lambda: saver._is_closing)
        may_end.set()
        closing.join(PATIENCE)
        waiting.join(PATIENCE)
        assert held == [False]

    def test_a_saver_that_was_not_waited_for_tells_and_writes_nothing_more(self, opened, image, monkeypatch):
        live, project = opened()
        learn_a_little(live)
        live.keeping.hold()
        live.keeping.go_on()
        n_saved, saver, may_end = len(project.manifest.checkpoints), live.keeping._keeper, threading.Event()
        live.keeping.note_model()
        live._worker.compute(lambda: may_end.wait(PATIENCE))
        saver.save()
        time.sleep(0.2)
        assert not saver.close(timeout=0.1)
        live.keeping._keeper = Keeper()
        live.open(image)
        project.close()
        n_told = len(live.savings)
        may_end.set()
        saver._thread.join(PATIENCE)
        assert not saver._thread.is_alive()
        assert len(live.savings) == n_told
        assert len(project.manifest.checkpoints) == n_saved

    def test_classes_that_change_while_they_are_written_are_noted_as_newer(self, opened, monkeypatch):
        live, project = opened()
        real, began, may_end = Project.update, threading.Event(), threading.Event()

        def update(self, **changes):
            if len(changes["classes"]) == 3:
                began.set()
                may_end.wait(PATIENCE)
            return real(self, **changes)

        monkeypatch.setattr(Project, "update", update)
        noted = Mock(wraps=project.images[0].note_classes)
        monkeypatch.setattr(project.images[0], "note_classes", noted)
        live.add_class("membrane")
        live.keeping.save()
        assert began.wait(PATIENCE)
        live.rename_class(2, "cell")
        may_end.set()
        written = project.manifest.classes_number + 1
        assert [call.args[1] for call in noted.call_args_list] == [written, written + 1]

    def test_what_was_changed_for_reading_only_is_told_and_written_elsewhere(
        self, opened, image, path, make_live, tmp_path
    ):
        live, project = opened()
        paint_background(live)
        close(live, project)
        with Project.open(path, read_only=True) as reader:
            other = make_live()
            other.auto_start = False
            other.open(image, project=reader.images[0])
            assert other.keeping.leave() is None
            paint_object(other)
            other.rename_class(2, "cell")
            other.look_at(view_of())
            other.start()
            other.heard.wait_for_step(3)
            rest(other)
            codes, step = other.codes.copy(), other.status.step
            assert "reading only" in other.keeping.hold()
            target = tmp_path / "other.sparseseg"
            write_elsewhere(reader, target, other.keeping.leave())
            other.close()
        with Project.open(target) as copy:
            assert np.array_equal(copy.images[0].annotation(), codes)
            assert copy.checkpoints()[0][0].step == step
            assert copy.classes[1].name == "cell"


class TestGoingWrong:
    def break_weights(self, live):
        loop = live._worker.loop
        live._worker.change(lambda loop: next(loop.learner._trainer.network.unet.parameters()).data.fill_(np.nan))
        assert loop is not None

    def test_training_goes_back_by_itself_and_says_so(self, opened):
        live, _project = opened()
        live.look_at(view_of())
        paint_both(live)
        live.heard.wait_for_step(3)
        live._worker.change(lambda loop: loop.learner.keep())
        self.break_weights(live)
        wait_for(lambda: live.notices)
        assert "goes on from the last good model" in live.notices[0]
        live.heard.wait_for_step(3)
        assert live.status.state in (LiveState.TRAINING, LiveState.PREDICTING)
        assert live.heard.failures == []
        assert np.isfinite(live.status.loss)

    def test_it_ends_with_the_last_good_model_where_that_does_not_help(self, opened):
        live, _project = opened()
        live.look_at(view_of())
        paint_both(live)
        live.heard.wait_for_step(3)
        live._worker.change(lambda loop: loop.learner.keep())
        for _ in range(4):
            n_told = len(live.notices) + len(live.heard.failures)
            self.break_weights(live)
            wait_for(lambda n_told=n_told: len(live.notices) + len(live.heard.failures) > n_told)
        assert len(live.notices) == 3
        assert "smaller step size" in live.heard.failures[0]
        assert live.status.has_model

    def test_a_broken_model_is_never_saved(self, opened):
        live, _project = opened()
        live.look_at(view_of())
        paint_both(live)
        live.heard.wait_for_step(3)
        live._worker.change(lambda loop: loop.learner.fitted.network.unet.classify.weight.data.fill_(np.inf))
        assert live._worker._wait_for(lambda: live._worker.loop.checkpoint()) is None
