"""The one object that the widgets talk to, with its real thread and real learning."""

from __future__ import annotations

import math
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from livekit import (
    PATIENCE,
    QUICK,
    SHAPE,
    SMALL,
    make_image,
    make_truth,
    paint_background,
    paint_both,
    paint_object,
    rest,
    view_of,
)

from napari_sparseseg import SparseSegmenter
from napari_sparseseg._types import Box, Plane, Region
from napari_sparseseg.engine.predictor import Predictor
from napari_sparseseg.engine.trainer import Trainer
from napari_sparseseg.errors import InputError, InputTypeError, NotFittedError
from napari_sparseseg.live.events import LiveState, View
from napari_sparseseg.live.live_segmenter import LiveSegmenter
from napari_sparseseg.storage.journal import FileJournal, read_journal

PLANE = Plane(0, 0, 6)


class Torn:
    """An image on a disk that is gone."""

    def __init__(self, image):
        self.shape, self.dtype = image.shape, image.dtype

    def __getitem__(self, index):
        raise InputError("the disk is unplugged")


def open_and_look(live, image, view=None, **axes):
    live.open(image, **axes)
    live.look_at(view or view_of())


def train(live, image, n_steps=2, **axes):
    open_and_look(live, image, **axes)
    paint_both(live)
    live.heard.wait_for_step(n_steps)


class TestStartingUp:
    def test_making_one_loads_no_torch_and_opening_loads_it_on_the_compute_thread(self):
        code = (
            "import sys, threading, builtins\n"
            "from napari_sparseseg.live.live_segmenter import LiveSegmenter\n"
            "import numpy as np\n"
            "loaders = set()\n"
            "class Watch:\n"
            "    def find_spec(self, name, path=None, target=None):\n"
            "        if name == 'torch': loaders.add(threading.current_thread().name)\n"
            "sys.meta_path.insert(0, Watch())\n"
            "live = LiveSegmenter(device='cpu')\n"
            "assert 'torch' not in sys.modules\n"
            "ready = threading.Event()\n"
            "live.events.status_changed.connect(lambda s: s.state.name == 'WAITING' and ready.set())\n"
            "live.open(np.zeros((4, 20, 20)))\n"
            "assert ready.wait(200), live.status\n"
            "assert loaders == {'sparseseg compute'}, loaders\n"
            "assert live.close()\n"
        )
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=False)
        assert ended.returncode == 0, ended.stderr

    def test_a_torch_that_cannot_be_loaded_is_told(self):
        code = (
            "import sys, threading\n"
            "from napari_sparseseg.live.live_segmenter import LiveSegmenter\n"
            "import numpy as np\n"
            "class Broken:\n"
            "    def find_spec(self, name, path=None, target=None):\n"
            "        if name == 'torch': raise OSError('c10.dll not found')\n"
            "sys.meta_path.insert(0, Broken())\n"
            "live = LiveSegmenter()\n"
            "told = threading.Event()\n"
            "live.events.failed.connect(lambda text: told.set())\n"
            "live.open(np.zeros((4, 20, 20)))\n"
            "assert told.wait(60)\n"
            "print(live.status.state, live.status.error)\n"
            "told.clear(); live.start(); assert told.wait(60)\n"
            "assert live.close()\n"
        )
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=False)
        assert ended.returncode == 0, ended.stderr
        assert "failed torch cannot be loaded (OSError: c10.dll not found). Install it anew" in ended.stdout

    def test_closing_while_it_prepares_ends_it_and_nothing_is_told_afterwards(self, make_live, image):
        live = make_live()
        is_reading, may_go_on = threading.Event(), threading.Event()

        class Slow:
            shape, dtype = image.shape, image.dtype

            def __getitem__(self, index):
                is_reading.set()
                may_go_on.wait(PATIENCE)
                return image[index]

        live.open(Slow())
        assert is_reading.wait(PATIENCE)
        live._worker._runner.close(0.01)
        live.close()
        n = len(live.heard.log)
        may_go_on.set()
        live._worker._runner.close(PATIENCE)
        assert len(live.heard.log) == n
        assert live.status.state is LiveState.PAUSED

    def test_without_an_image_everything_says_so(self, live):
        region = Region(0, Box((0, 0, 0), (1, 1, 1)))
        for act in (live.start, live.update_once, live.reset_model, live.undo, live.redo):
            with pytest.raises(InputError, match="open one first"):
                act()
        with pytest.raises(InputError, match="open one first"):
            live.annotate(region, 1)
        with pytest.raises(InputError, match="open one first"):
            live.labels(0)
        with pytest.raises(NotFittedError, match="paint two classes and train first"):
            live.save_model("model")
        assert (live.shape, live.image_shape, live.codes, live.tile_shape) == (None, None, None, None)
        assert live.painted_slices() == ()
        assert live.freshness(0).shape == (1, 1, 1)
        assert live.close()

    def test_an_image_that_cannot_be_used_leaves_the_one_before(self, live, image):
        live.open(image)
        with pytest.raises(InputTypeError):
            live.open("image.tif")
        assert live.shape == (1, *SHAPE)
        live.heard.wait_for_state(LiveState.WAITING)

    def test_sizes_are_known_as_soon_as_it_is_open(self, live):
        live.open(np.zeros((3, 20, 100, 2, 130)), channel_axis=3, time_axis=0)
        assert live.shape == (3, 20, 100, 130)
        assert live.image_shape == (3, 20, 100, 130)
        assert live.tile_shape == (16, 64, 64)
        assert live.freshness(2).shape == (2, 2, 3)


class TestTraining:
    def test_it_starts_by_itself_with_the_second_class_and_learns(self, live, image, truth):
        open_and_look(live, image)
        paint_background(live)
        live.heard.wait_for_state(LiveState.WAITING)
        assert not live.status.is_training
        paint_object(live)
        assert live.status.is_training
        live.heard.wait_for_step(40)
        rest(live)
        assert live.status.has_model
        assert (live.labels(0) == truth).mean() > 0.85
        assert (live.freshness(0) == 2).all()

    def test_it_can_be_told_not_to_start_by_itself(self, live, image):
        live.auto_start = False
        open_and_look(live, image)
        paint_both(live)
        live.heard.wait_until(lambda: live.status.activity == "Press Train")
        assert live.heard.points == []
        live.start()
        live.heard.wait_for_step()

    def test_after_a_pause_it_does_not_start_by_itself(self, live, image):
        train(live, image)
        rest(live)
        live.annotate(Region(0, Box((6, 30, 30), (7, 33, 33))), 1)
        live.heard.wait_until(lambda: "latest paint" in live.status.activity)
        assert not live.status.is_training
        live.start()
        live.heard.wait_for_step()

    def test_the_status_is_a_consistent_snapshot(self, live, image):
        train(live, image, 10)
        rest(live)
        steps = [status.step for status in live.heard.statuses]
        assert steps == sorted(steps)
        for status in live.heard.statuses:
            assert 0 <= status.n_fresh <= status.n_tiles
            assert (status.state is LiveState.FAILED) == bool(status.error)
            assert status.seconds_left is None or 0 <= status.seconds_left < 1000
            assert status.is_live
            if status.state is LiveState.UP_TO_DATE:
                assert status.n_fresh == status.n_tiles
                assert not status.is_training
        assert live.heard.statuses[-1] is live.status
        assert live.status.device == "cpu"
        revisions = [status.revision for status in live.heard.statuses]
        assert revisions == sorted(revisions)
        assert live.status.revision == 2

    def test_tiles_are_told_on_the_compute_thread_and_paint_on_the_caller_s(self, live, image):
        train(live, image)
        threads = {name: thread for name, _, thread in live.heard.log}
        assert threads["tile_predicted"] == threads["curve_extended"] == "sparseseg compute"
        assert threads["paint_changed"] == threading.current_thread().name

    def test_update_once_ends_by_itself(self, live, image, monkeypatch):
        monkeypatch.setattr("napari_sparseseg.live.loop._ONCE_SECONDS", 0.3)
        live.auto_start = False
        live.set_live(False)
        open_and_look(live, image)
        paint_both(live)
        live.update_once()
        live.heard.wait_for_state(LiveState.UP_TO_DATE)
        assert not live.status.is_training
        assert not live.status.is_live
        assert (live.freshness(0) == 2).all()

    def test_other_settings_take_hold_while_it_trains(self, live, image):
        train(live, image)
        live.configure(training=QUICK.with_changes(batch_size=1), model=SMALL.with_changes(width=8))
        live.heard.wait_for_step(2)
        assert live.settings.training.batch_size == 1
        assert live._worker.loop.learner.fitted.spec.config == SMALL
        live.reset_model()
        live.heard.wait_until(lambda: live._worker.loop and live._worker.loop.learner.spec.config.width == 8)
        live.heard.wait_for_tiles(2)

    def test_resetting_while_training_goes_on_training_anew(self, live, image):
        train(live, image, 20)
        n = len(live.heard.log)
        live.reset_model()
        live.heard.wait_until(lambda: any(name == "predictions_cleared" for name, *_ in live.heard.log[n:]))
        live.heard.wait_until(lambda: 0 < live.status.step < 20)
        assert live.status.is_training
        rest(live)

    def test_a_time_series_with_channels_learns_from_painted_frames(self, make_live, truth):
        live = make_live()
        series = np.stack([np.stack([make_image(truth, s), make_image(truth, s + 5)]) for s in range(2)])
        open_and_look(live, series, view_of(frame=1), time_axis=0, channel_axis=1)
        paint_both(live, frame=0)
        live.heard.wait_for_step(5)
        rest(live)
        assert {tile.frame for tile in live.heard.tiles} == {1}
        assert (live.labels(1) == truth).mean() > 0.8

    def test_a_plane_is_learnt(self, live):
        truth = make_truth((1, 40, 50))
        open_and_look(live, make_image(truth)[0], view_of((1, 40, 50)), spacing=(0.5, 0.5))
        live.annotate(Region(0, Box((0, 2, 2), (1, 6, 38))), 1)
        live.annotate(Region(0, Box((0, 14, 16), (1, 26, 26))), 2)
        live.heard.wait_for_step(3)
        rest(live)
        assert live.image_shape == (40, 50)
        assert (live.labels(0) == truth).mean() > 0.8

    def test_two_live_segmenters_at_once(self, make_live, image):
        first, second = make_live(), make_live()
        for live in (first, second):
            open_and_look(live, image)
            paint_both(live)
        for live in (first, second):
            live.heard.wait_for_step(2)
        first.close()
        second.heard.wait_for_step(2)

    def test_a_view_outside_the_image_is_refused_and_a_window_is_clipped(self, live, image):
        live.open(image)
        with pytest.raises(InputError, match="not a slice"):
            live.look_at(view_of(index=12))
        with pytest.raises(InputError, match="not a slice"):
            live.look_at(view_of(frame=1))
        plane = Plane(0, 0, 3)
        live.look_at(View(plane, Box((3, -5, -5), (4, 80, 20)), (3, 0, 0)))
        assert live._switch.wishes.view.box == Box((3, 0, 0), (4, 40, 20))


class TestPaint:
    def test_unknown_classes_are_named(self, live, image):
        live.open(image)
        region = Region(0, Box((0, 0, 0), (1, 2, 2)))
        for paint in (
            lambda: live.annotate(region, 9),
            lambda: live.annotate_values(region, np.full((1, 2, 2), 9, np.uint8)),
            lambda: live.correct(region, 9, shown=np.ones((1, 2, 2), np.uint8)),
            lambda: live.code_for_any_of([1, 9]),
        ):
            with pytest.raises(InputError, match="no class 9; add it first"):
                paint()
        assert live.status.revision == 0

    def test_each_stroke_goes_into_the_journal(self, make_live, image, tmp_path):
        journal = FileJournal(tmp_path / "journal")
        live = make_live(journal=journal)
        live.open(image)
        paint_both(live)
        live.undo()
        live.redo()
        live.set_complete(PLANE, True)
        live.close()
        journal.close()
        assert [record.op for record in read_journal(tmp_path / "journal")] == [
            "begin",
            "edit",
            "edit",
            "undo",
            "redo",
            "complete",
        ]

    def test_another_image_may_bring_its_own_journal(self, make_live, image, tmp_path):
        first, second = FileJournal(tmp_path / "first"), FileJournal(tmp_path / "second")
        live = make_live(journal=first)
        live.open(image)
        live.open(image, journal=second)
        paint_background(live)
        for journal in (first, second):
            journal.close()
        assert len(list(read_journal(tmp_path / "first"))) == 1
        assert len(list(read_journal(tmp_path / "second"))) == 2

    def test_paint_shows_over_the_prediction_and_sets_do_not(self, live, image):
        train(live, image)
        rest(live)
        predicted = live.labels(0)
        box = Box((8, 30, 30), (9, 36, 36))
        live.annotate(Region(0, box), 2)
        assert (live.labels(0, box) == 2).all()
        live.undo()
        np.testing.assert_array_equal(live.labels(0), predicted)
        live.annotate(Region(0, box), live.code_for_any_of([1, 2]))
        np.testing.assert_array_equal(live.labels(0, box), predicted[box.slices])

    def test_not_this_class_narrows_the_next_prediction(self, live, image):
        live.add_class("other")
        open_and_look(live, image)
        paint_both(live)
        live.annotate(Region(0, Box((6, 36, 2), (7, 39, 38))), 3)
        live.heard.wait_for_step(5)
        rest(live)
        box = Box((6, 10, 10), (7, 14, 14))
        shown = np.full(box.shape, 2, np.uint8)
        live.correct(Region(0, box), 0, shown=shown, plane=PLANE)
        assert live.allowed(int(live.codes[0, 6, 10, 10])) == {1, 3}
        live.start()
        live.heard.wait_for_step(2)
        rest(live)
        assert not (live.labels(0, box) == 2).any()

    def test_strokes_are_scored_before_they_are_learnt_and_bad_ones_are_not(self, live, image):
        train(live, image, 20)
        rest(live)
        for x in (12, 18, 24):
            live.annotate(Region(0, Box((4, 14, x), (5, 20, x + 4))), 2)
        with pytest.raises(InputError):
            live.annotate(Region(0, Box((4, 14, 38), (5, 20, 44))), 2)
        assert len(live._opened().score) == 3
        live.start()
        live.heard.wait_until(lambda: "your last 3 strokes" in live.status.dice_source)
        assert 0.5 < live.status.dice <= 1
        assert live.status.is_dice_of_strokes

    def test_strokes_of_a_class_that_is_new_are_not_scored_until_it_is_predicted(self, live, image):
        train(live, image, 20)
        rest(live)
        new = live.add_class("new").class_id
        for x in (12, 18, 24):
            live.annotate(Region(0, Box((4, 14, x), (5, 20, x + 4))), new)
        assert len(live._opened().score) == 0
        live.start()
        live.heard.wait_until(lambda: new in live._opened().score.class_ids)
        rest(live)
        live.annotate(Region(0, Box((4, 24, 12), (5, 28, 16))), new)
        assert len(live._opened().score) == 1

    def test_an_image_of_equal_voxels_is_told(self, live, image):
        notices = []
        live.events.noticed.connect(notices.append)
        live.open(np.full_like(image, 7))
        live.heard.wait_until(lambda: notices)
        assert notices[0].startswith("channel 0 of the image is constant (7 everywhere")
        assert not live.status.error

    def test_a_mask_of_another_shape_is_refused_and_scores_nothing(self, live, image):
        live.open(image)
        with pytest.raises(InputError, match="mask"):
            live.annotate(Region(0, Box((4, 0, 0), (5, 3, 3)), np.ones((1, 2, 2), bool)), 2)
        assert (len(live._opened().score), live.status.revision) == (0, 0)

    def test_objects_are_painted_corrected_and_undone(self, live, image):
        one, row = Box((6, 4, 4), (7, 5, 5)), Box((6, 4, 4), (7, 5, 7))
        assert live.next_object_id == 1
        assert not live.objects(0, row).any()
        open_and_look(live, image)
        live.annotate(Region(0, row), 2, plane=PLANE, object_id=1)
        live.correct(Region(0, one), 2, shown=np.full(one.shape, 2, np.uint8), object_id=live.next_object_id)
        assert live.objects(0, row).ravel().tolist() == [2, 1, 1]
        live.undo()
        assert live.objects(0, row).ravel().tolist() == [1, 1, 1]
        assert live.next_object_id == 2

    def test_painted_slices_are_listed(self, live, image):
        live.open(image)
        paint_both(live)
        live.set_complete(PLANE, True)
        (only,) = live.painted_slices()
        assert (only.plane, only.is_complete) == (PLANE, True)
        assert only.n_voxels == 4 * 36 + 12 * 12

    def test_a_complete_slice_needs_a_background(self, live, image):
        live.open(image)
        live.add_class()
        live.remove_class(1)
        with pytest.raises(InputError, match="give it to one first"):
            live.set_complete(PLANE, True)
        live.set_background(2)
        live.set_complete(PLANE, True)


class TestClasses:
    def test_names_and_colours_can_be_changed_without_an_image(self, live):
        live.rename_class(2, "nucleus")
        live.recolor_class(2, (1.0, 0.0, 0.0))
        assert (live.classes[1].name, live.classes[1].color) == ("nucleus", (1.0, 0.0, 0.0))
        assert [classes[1].name for classes in live.heard.classes] == ["nucleus", "nucleus"]
        with pytest.raises(InputError, match="two classes are needed"):
            live.remove_class(2)

    def test_a_class_added_while_training_grows_the_head_and_removed_shrinks_it(self, live, image):
        train(live, image)
        info = live.add_class("third")
        live.annotate(Region(0, Box((6, 36, 2), (7, 39, 38))), info.class_id)
        live.heard.wait_until(lambda: live._worker.loop.learner.fitted.classes.ids == (1, 2, 3))
        live.heard.wait_for_step(2)
        live.remove_class(3)
        live.heard.wait_until(lambda: live._worker.loop.learner.fitted.classes.ids == (1, 2))
        live.heard.wait_for_step(2)
        assert not (live.codes == 3).any()
        assert [len(classes) for classes in live.heard.classes] == [3, 2]
        rest(live)

    def test_removed_while_paused_it_is_predicted_anew_without(self, live, image):
        open_and_look(live, image)
        live.add_class()
        paint_both(live)
        live.annotate(Region(0, Box((6, 36, 2), (7, 39, 38))), 3)
        live.heard.wait_for_step(7)  # not a step at which the mix is checked
        rest(live)
        live.remove_class(2)
        live.heard.wait_until(lambda: (live.freshness(0) == 2).all() and not (live.labels(0) == 2).any())
        assert live.heard.failures == []

    def test_removed_to_one_painted_class_the_model_goes(self, live, image):
        train(live, image)
        live.add_class()
        live.remove_class(2)
        live.heard.wait_for_state(LiveState.WAITING)
        assert not live.status.has_model
        assert set(np.unique(live.labels(0))) == {0, 1}

    def test_the_background_changes_while_training(self, live, image):
        train(live, image)
        live.set_background(2)
        live.heard.wait_until(lambda: live._worker.loop.learner.fitted.classes.background == 2)
        live.heard.wait_for_step(2)
        assert live.heard.failures == []


def out_of_memory(*_, **__):
    raise torch.OutOfMemoryError("CUDA out of memory")


class TestFailures:
    def check(self, live, undo, text):
        live.heard.wait_for_state(LiveState.FAILED)
        live.heard.wait_until(lambda: live.heard.failures)
        assert not live.status.is_training
        assert text in live.status.error
        assert live.heard.failures == [live.status.error]
        assert live.codes.any()
        undo()
        live.start()
        live.heard.wait_for_step(2)
        assert live.status.error == ""

    def test_out_of_memory_in_training(self, live, image, monkeypatch):
        train(live, image)
        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "_unet_step", out_of_memory)
            self.check(live, patch.undo, "Choose a smaller patch size")

    def test_out_of_memory_in_prediction(self, live, image, monkeypatch):
        train(live, image)
        with monkeypatch.context() as patch:
            patch.setattr(Predictor, "tile", out_of_memory)
            self.check(live, patch.undo, "Memory ran out")

    def test_a_loss_that_is_no_number(self, live, image, monkeypatch):
        train(live, image)
        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "_unet_step", lambda *_: math.nan)
            live.heard.wait_for_state(LiveState.FAILED)
            assert live.status.has_model  # the last good one
            self.check(live, patch.undo, "Press Train to try again")

    def test_something_unexpected(self, live, image, monkeypatch):
        train(live, image)
        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "_unet_step", lambda *_: 1 / 0)
            self.check(live, patch.undo, "Something unexpected went wrong (ZeroDivisionError")

    def test_voxels_that_are_missing_stay_empty(self, live, image):
        padded = image.astype(np.float32)
        padded[:, :, 38:] = np.nan
        notices = []
        live.events.noticed.connect(notices.append)
        train(live, padded)
        live.heard.wait_until(lambda: live.labels(0)[..., :38].all())
        assert not live.labels(0)[..., 38:].any()
        assert any("are not finite" in text for text in notices)

    def test_an_image_that_cannot_be_read(self, live, image):
        live.open(Torn(image))
        live.heard.wait_for_state(LiveState.FAILED)
        assert "unplugged" in live.status.error
        paint_both(live)
        assert not live.status.is_training
        train(live, image)
        assert live.status.error == ""

    def test_a_device_that_is_not_there_can_be_exchanged(self, make_live, image):
        live = make_live(device="cuda:99")
        live.open(image)
        live.heard.wait_for_state(LiveState.FAILED)
        assert "cuda:99" in live.status.error
        live.configure(device="cpu")
        paint_both(live)
        live.start()
        live.heard.wait_for_step()

    def test_while_halted_paint_starts_nothing(self, live, image, monkeypatch):
        train(live, image)
        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "_unet_step", out_of_memory)
            live.heard.wait_for_state(LiveState.FAILED)
        live.annotate(Region(0, Box((8, 2, 2), (9, 6, 6))), 1)
        assert live.status.state is LiveState.FAILED
        assert not live.status.is_training

    def test_an_error_in_somebody_s_slot_is_not_ours(self, live, image, caplog):
        def fail(_):
            raise ValueError("their mistake")

        for signal in ("tile_predicted", "curve_extended", "status_changed", "paint_changed", "classes_changed"):
            getattr(live.events, signal).connect(fail)
        train(live, image, 3)
        live.add_class()
        assert live.heard.failures == []
        assert live.status.state is LiveState.TRAINING
        assert "their mistake" in caplog.text
        assert "a slot of tile_predicted failed" in caplog.text


class TestAnotherImage:
    def test_it_takes_the_place_of_the_one_before_while_that_trains(self, live, image):
        train(live, image)
        other = make_image(make_truth((6, 30, 34)))
        open_and_look(live, other, view_of((6, 30, 34)))
        n = len(live.heard.log)
        assert live.status.state is LiveState.PREPARING
        assert not live.codes.any()
        live.annotate(Region(0, Box((3, 0, 0), (4, 4, 30))), 1)
        live.annotate(Region(0, Box((3, 12, 12), (4, 20, 20))), 2)
        live.heard.wait_for_step(3)
        rest(live)
        whole = Box.whole((6, 30, 34))
        tiles = [value for name, value, _ in live.heard.log[n:] if name == "tile_predicted"]
        assert tiles
        assert all(tile.box.clipped(whole) == tile.box for tile in tiles)
        assert live.heard.failures == []

    def test_the_one_before_cannot_halt_it(self, live, image, monkeypatch):
        train(live, image)
        is_failing, may_fail = threading.Event(), threading.Event()

        def fail(*_):
            is_failing.set()
            may_fail.wait(PATIENCE)
            raise MemoryError

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "_unet_step", fail)
            assert is_failing.wait(PATIENCE)
            open_and_look(live, image)
            may_fail.set()
            live.heard.wait_for_state(LiveState.WAITING)
        assert live.heard.failures == []
        paint_both(live)
        live.heard.wait_for_step(2)


class TestModelFiles:
    def test_a_segmenter_predicts_the_same_from_the_saved_model(self, live, image, tmp_path):
        train(live, image, 12)
        rest(live)
        live.save_model(tmp_path / "model")
        segmenter = SparseSegmenter.load(tmp_path / "model", device="cpu")
        probabilities = np.sort(segmenter.predict_proba(image), axis=0)
        is_clear = (probabilities[-1] - probabilities[-2] > 1e-4) & (live.codes[0] == 0)
        np.testing.assert_array_equal(live.labels(0)[is_clear], segmenter.predict(image)[is_clear])
        assert segmenter.n_steps_ == live.status.step

    def test_a_loaded_model_predicts_and_brings_its_classes(self, live, image, truth, tmp_path):
        codes = np.zeros_like(truth)
        codes[6] = np.where(truth[6] == 2, 5, 1)
        segmenter = SparseSegmenter(device="cpu", model=SMALL, training=QUICK, random_state=0, progress=False)
        segmenter.fit(image, codes, max_steps=20).save(tmp_path / "model")
        open_and_look(live, image)
        live.load_model(tmp_path / "model")
        assert [info.class_id for info in live.classes] == [1, 2, 5]
        live.heard.wait_for_state(LiveState.UP_TO_DATE)
        assert (live.status.step, live.status.has_model) == (20, True)
        expected = segmenter.predict(image)
        assert (live.labels(0) == expected).mean() > 0.99

    def test_training_goes_on_from_a_loaded_model(self, live, image, tmp_path):
        train(live, image, 10)
        live.pause()
        live.save_model(tmp_path / "model")
        steps = live.status.step
        live.reset_model()
        live.load_model(tmp_path / "model")
        live.start()
        live.heard.wait_until(lambda: live.status.step > steps)
        rest(live)

    def test_what_cannot_be_loaded_or_written_is_told_and_changes_nothing(self, live, image, tmp_path):
        train(live, image)
        (tmp_path / "text").write_text("no model")
        for path in (tmp_path / "text", tmp_path / "missing"):
            with pytest.raises(InputError):
                live.load_model(path)
        with pytest.raises(InputError, match="make it first"):
            live.save_model(tmp_path / "nowhere" / "model")
        live.heard.wait_for_step()
        assert live.heard.failures == []

    def test_a_model_of_other_channels_is_refused(self, make_live, image, tmp_path):
        live = make_live()
        train(live, image)
        live.save_model(tmp_path / "model")
        live.open(np.stack([image, image]), channel_axis=0)
        with pytest.raises(InputError, match="1 channels, but the image has 2"):
            live.load_model(tmp_path / "model")

    def test_closed_it_says_so(self, live, image, tmp_path):
        train(live, image)
        live.close()
        with pytest.raises(InputError, match="was closed"):
            live.save_model(tmp_path / "model")


class TestExtras:
    def test_probability_and_uncertainty_come_with_the_tiles(self, live, image):
        train(live, image, 5)
        rest(live)
        n = len(live.heard.tiles)
        live.show_probability(2)
        live.show_uncertainty(True)
        live.heard.wait_until(
            lambda: any(t.probability is not None and t.uncertainty is not None for t in live.heard.tiles[n:])
        )
        live.show_probability(None)
        live.show_uncertainty(False)
        live.heard.wait_until(lambda: live.heard.tiles[-1].probability is live.heard.tiles[-1].uncertainty is None)

    def test_candidates_and_novelty_are_learnt_when_they_are_wanted(self, live, image):
        live.configure(training=QUICK)
        train(live, image, 5)
        n = len(live.heard.tiles)
        live.configure(paint=live.settings.paint.with_changes(candidates=1.5, novelty="features"))
        live.show_candidates(True)
        live.show_novelty(True)
        live.heard.wait_until(
            lambda: any(
                t.second is not None and t.second.any() and t.novelty is not None and t.novelty.any()
                for t in live.heard.tiles[n:]
            )
        )
        live.show_candidates(False)
        live.show_novelty(False)
        live.heard.wait_until(lambda: live.heard.tiles[-1].second is live.heard.tiles[-1].novelty is None)

    def test_the_time_to_predict_is_estimated_from_what_was_measured(self, live, image):
        guess = live.estimate_seconds(10**6)
        assert guess > 0
        train(live, image)
        rest(live)
        measured = live._worker.loop.reporter.pace.seconds_per_voxel
        assert live.estimate_seconds(1000) == pytest.approx(1000 * measured)

    def test_painting_while_everything_goes_on_breaks_nothing(self, live, image):
        train(live, image)
        rng = np.random.default_rng(0)
        third = live.add_class().class_id
        for number in range(60):
            low = rng.integers(0, (10, 34, 34))
            box = Box(tuple(low.tolist()), tuple((low + np.array([1, 5, 5])).tolist()))
            shown, ids = live.labels(0, box), (0, 1, 2, third)
            actions = (
                lambda box=box, ids=ids: live.annotate(Region(0, box), int(rng.choice(ids))),
                lambda box=box, ids=ids, shown=shown: live.correct(Region(0, box), int(rng.choice(ids)), shown=shown),
                live.undo,
                live.redo,
                lambda: live.look_at(view_of(axis=int(rng.integers(0, 3)))),
                lambda: live.set_complete(Plane(0, 0, int(rng.integers(0, 12))), bool(rng.integers(0, 2))),
                lambda: live.freshness(0),
                lambda: live.show_probability(int(rng.integers(0, 3)) or None),
            )
            actions[rng.integers(len(actions))]()
            if number % 20 == 19:
                live.heard.wait_for_tiles()
                live.remove_class(third)
                third = live.add_class().class_id
        assert live.heard.failures == []


def test_the_example_of_the_docstring_works(make_live, image):
    live = make_live()
    live.open(image, spacing=(0.5, 0.2, 0.2))
    live.annotate(Region(0, Box((6, 14, 14), (7, 26, 26))), class_id=2)
    live.heard.wait_until(lambda: live.status.activity == "Paint some background as well")
    assert LiveSegmenter.__doc__.count(">>>") == 3
