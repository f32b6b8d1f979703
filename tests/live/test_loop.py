"""What the compute thread does next. Here it is driven by hand, piece by piece, with a learner that only counts."""

from __future__ import annotations

import time
from itertools import pairwise
from mmap import PAGESIZE
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from livekit import BACKGROUND_BOX, OBJECT_BOX, SHAPE, SMALL, make_image, make_truth, view_of

from napari_sparseseg._types import Box, Plane, Region
from napari_sparseseg.config import PaintConfig
from napari_sparseseg.engine.device import DeviceChoice
from napari_sparseseg.engine.features import FeatureMap
from napari_sparseseg.engine.heads import Heads
from napari_sparseseg.engine.model import FittedModel, ModelSpec
from napari_sparseseg.engine.normalise import IntensityRange
from napari_sparseseg.engine.trainer import TrainingStep
from napari_sparseseg.errors import TrainingError
from napari_sparseseg.live import loop as module
from napari_sparseseg.live.classes import ClassList
from napari_sparseseg.live.events import LiveEvents, LiveState, ObjectsChange, View
from napari_sparseseg.live.image import AbandonedError, LiveImage
from napari_sparseseg.live.loop import LiveLoop
from napari_sparseseg.live.opened import Opened
from napari_sparseseg.live.predictor import LivePredictor
from napari_sparseseg.live.switchboard import Find, Switchboard
from napari_sparseseg.storage import sparse
from napari_sparseseg.storage.strokes import AnnotationStore

TILE = (4, 20, 20)
N_TILES = 12


class FakeLearner:
    """Counts steps and remembers what it was asked to learn; predicts with the network that it began with."""

    is_overlapping = False

    def __init__(self, image):
        self.image = image
        self.choice = DeviceChoice(torch.device("cpu"), "for a test")
        self.spec = ModelSpec(SMALL, image.spacing, image.n_channels, image.flat)
        self.fitted = None
        self.step = 0
        self.paint = PaintConfig()
        self.dice = None
        self.learnt = []
        self.n_settled = 0
        self.changes_mix = False
        self.on_train = lambda: None
        self.has_good = False
        self.keeps_failing = False
        self.heads = None
        self._maps = {}

    def map(self, frame):
        if frame not in self._maps:
            volume = self.image.volume(frame)
            self._maps[frame] = FeatureMap(volume, self.spec.bank, IntensityRange.of(volume))
        return self._maps[frame]

    def learn(self, annotations, classes):
        self.learnt.append((annotations, classes))
        self.fitted = FittedModel(self.spec, classes, self.spec.build(len(classes), heads=self.heads))
        yield TrainingStep(self.step, "pixel", 0.5)
        yield TrainingStep(self.step, "pixel", 0.4)

    trains_elsewhere = has_news = False

    def train(self, seconds):
        started = time.perf_counter()
        while True:
            self.on_train()
            self.step += 1
            yield TrainingStep(self.step, "unet", 0.3)
            if time.perf_counter() - started >= seconds:
                return

    def settle(self):
        self.n_settled += 1
        changes, self.changes_mix = self.changes_mix, False
        return changes

    def weights(self):
        return self.fitted.network

    def drop_class(self, class_id, background):
        if self.fitted is None:
            return
        remaining = tuple(i for i in self.fitted.classes.ids if i != class_id)
        if len(remaining) < 2:
            self.forget()
        else:
            classes = type(self.fitted.classes)(remaining, remaining[0])
            self.fitted = FittedModel(self.spec, classes, self.spec.build(len(classes)))

    def keep(self):
        return True

    def roll_back(self):
        return self.has_good

    def adopt(self, fitted, last, training=None):
        self.fitted, self.step = fitted, last.step if last else 0

    def forget(self):
        self.fitted, self.step = None, 0


class Clock:
    """Moves on a little each time somebody looks at it."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 0.01
        return self.now


class Bench:
    """A loop and all that belongs to it."""

    def __init__(self, image, **axes):
        taken = LiveImage.of(image, axes.get("channel_axis"), axes.get("time_axis"), None)
        self.store = AnnotationStore(taken.shape)
        self.events = LiveEvents()
        self.switch = Switchboard(self.events)
        self.opened = Opened(taken, self.store, np.zeros(taken.shape, np.uint8), self.switch)
        self.classes = ClassList()
        self.learner = FakeLearner(taken)
        self.predictor = LivePredictor(self.opened.labels, self.store)
        self.tiles, self.statuses, self.log = [], [], []
        self.events.tile_predicted.connect(self.tiles.append)
        self.events.status_changed.connect(self.statuses.append)
        self.events.curve_extended.connect(lambda point: self.log.append(point.step))
        self.events.tile_predicted.connect(lambda tile: self.log.append(tile.box))
        self.n_cleared = 0
        self.events.predictions_cleared.connect(self._count_cleared)
        self.loop = LiveLoop(self.opened, self.classes, self.learner, self.predictor)

    def _count_cleared(self):
        self.n_cleared += 1

    @property
    def status(self):
        return self.switch.status

    @property
    def states(self):
        return [status.state for status in self.statuses]

    def paint(self, class_id, box=None, frame=0):
        self.store.annotate(Region(frame, box or (BACKGROUND_BOX if class_id == 1 else OBJECT_BOX)), class_id)

    def paint_both(self, frame=0):
        self.paint(1, frame=frame)
        self.paint(2, frame=frame)

    def run_until(self, condition, at_most=500):
        for _ in range(at_most):
            if condition():
                return
            assert self.loop.work(), f"it rests: {self.status}"
        raise AssertionError(f"in vain; {self.status}")

    def run_until_rest(self, at_most=500):
        """The number of pieces that it took."""
        for n in range(at_most):
            if not self.loop.work():
                return n
        raise AssertionError(f"it does not rest; {self.status}")

    def train_and_rest(self, n_steps=2):
        """Learn what is painted, then pause and let everything become fresh."""
        self.switch.wish(is_training=True)
        first = self.learner.step
        self.run_until(lambda: self.learner.step >= first + n_steps)
        self.switch.wish(is_training=False)
        self.run_until_rest()


@pytest.fixture(autouse=True)
def small_and_quick(monkeypatch):
    """Tiles so small that a small volume has many, and a clock that does not depend on the machine."""
    monkeypatch.setattr("napari_sparseseg.live.predictor.live_tile_shape", lambda shape: TILE)
    monkeypatch.setattr("napari_sparseseg.live.predictor._GLANCE", 20)
    clock = Clock()
    for name in ("loop", "reporter"):
        monkeypatch.setattr(f"napari_sparseseg.live.{name}.time", SimpleNamespace(perf_counter=clock))
    return clock


@pytest.fixture
def bench():
    bench = Bench(make_image(make_truth()))
    bench.switch.wish(view=view_of(index=6))
    bench.loop.prepare()
    return bench


def on_screen(tile, view):
    return tile.box.clipped(view.box).n_voxels > 0


class TestWaiting:
    def test_it_says_what_is_missing(self, bench):
        assert not bench.loop.work()
        assert (bench.status.state, bench.status.activity) == (LiveState.WAITING, "Paint a little of two classes")
        bench.paint(2)
        bench.switch.wish(is_training=True)
        assert not bench.loop.work()
        assert bench.status.activity == "Paint some background as well"
        bench.classes.add()
        assert not bench.loop.work()
        assert bench.status.activity == "Paint a second class as well"

    def test_with_enough_paint_it_waits_for_train(self, bench):
        bench.paint_both()
        assert not bench.loop.work()
        assert (bench.status.state, bench.status.activity) == (LiveState.WAITING, "Press Train")

    def test_while_it_rests_nothing_is_told_again(self, bench):
        bench.loop.work()
        n = len(bench.statuses)
        for _ in range(5):
            assert not bench.loop.work()
        assert len(bench.statuses) == n

    def test_once_all_is_fresh_nothing_is_predicted_again(self, bench):
        bench.paint_both()
        bench.train_and_rest()
        n = len(bench.tiles)
        assert bench.run_until_rest() == 0
        assert len(bench.tiles) == n


class TestLittleMemory:
    def test_what_is_on_screen_makes_room_for_what_comes_on_screen(self, image, monkeypatch):
        monkeypatch.setattr(sparse, "LARGEST_RESERVED", 1000)
        monkeypatch.setattr("napari_sparseseg.live.predictor.free_memory", lambda: 0)
        monkeypatch.setattr("napari_sparseseg.live.predictor._LEAST_KEPT", 4 * 3 * PAGESIZE)  # a row of tiles
        bench = Bench(image)
        bench.paint_both()
        bench.switch.wish(view=view_of(axis=2, index=0))
        bench.train_and_rest()
        assert bench.status.activity.startswith("Zoom in")
        assert not bench.opened.labels[0][:, 20:, 0].any()
        bench.switch.wish(view=view_of(axis=0, index=11))
        bench.run_until_rest()
        assert bench.opened.labels[0, 11].all()
        assert not bench.opened.labels[0, :4].any()
        assert any(tile.is_forgotten for tile in bench.tiles)


class TestOrder:
    def test_paint_is_learnt_before_anything_else(self, bench):
        bench.paint_both()
        bench.switch.wish(is_training=True)
        assert bench.loop.work()
        assert len(bench.learner.learnt) == 1
        assert bench.tiles == []
        assert bench.status.has_model is False
        bench.loop.work()
        assert len(bench.tiles) == 1

    def test_what_is_on_screen_comes_before_the_rest(self, bench):
        bench.paint_both()
        bench.switch.wish(is_training=True)
        bench.loop.work()
        bench.switch.wish(is_training=False)
        bench.run_until_rest()
        view = bench.switch.wishes.view
        kinds = [on_screen(tile, view) for tile in bench.tiles]
        assert kinds == sorted(kinds, reverse=True)
        shapes = [tile.box.shape for tile in bench.tiles]
        assert shapes[:8] == [(1, 20, 20)] * 4 + [TILE] * 4
        assert len({tile.box for tile in bench.tiles}) == 4 + N_TILES

    def test_another_view_comes_with_the_next_piece(self, bench):
        bench.paint_both()
        bench.switch.wish(is_training=True)
        bench.run_until(lambda: len(bench.tiles) == 5)
        bench.switch.wish(is_training=False, view=view_of(axis=2, index=35))
        bench.loop.work()
        assert on_screen(bench.tiles[-1], bench.switch.wishes.view)
        assert bench.tiles[-1].box.shape == (12, 20, 1)

    def test_the_tile_of_the_latest_stroke_comes_first(self, bench):
        bench.paint_both()
        bench.train_and_rest()
        bench.switch.wish(is_training=True, hot=(0, (6, 35, 3)))
        bench.store.annotate(Region(0, Box((6, 33, 1), (7, 38, 6))), 1)
        n = len(bench.tiles)
        bench.run_until(lambda: len(bench.tiles) > n)
        assert bench.tiles[n].box == Box((4, 20, 0), (8, 40, 20))

    def test_training_and_predicting_take_turns(self, bench):
        bench.paint_both()
        bench.switch.wish(is_training=True)
        bench.run_until(lambda: len(bench.tiles) >= 24)
        kinds = ["tile" if isinstance(entry, Box) else "step" for entry in bench.log]
        n_turns = sum(a != b for a, b in pairwise(kinds))
        assert n_turns > 8

    def test_each_stroke_makes_a_new_generation(self, bench):
        bench.paint_both()
        bench.train_and_rest()
        before = bench.tiles[-1].generation
        bench.switch.wish(is_training=True)
        bench.paint(2, Box((6, 30, 30), (7, 33, 33)))
        n = len(bench.tiles)
        bench.loop.work()
        assert len(bench.learner.learnt) == 2
        bench.run_until(lambda: len(bench.tiles) > n)
        assert bench.tiles[-1].generation > before

    def test_what_is_learnt_of_a_stroke_shows_soon_however_long_learning_went_on(self, bench):
        def one_step(seconds):
            bench.learner.step += 1
            yield TrainingStep(bench.learner.step, "unet", 0.3)

        bench.learner.train, bench.learner.step = one_step, 1000
        bench.paint_both()
        bench.train_and_rest()
        bench.paint(2, Box((6, 30, 30), (7, 33, 33)))
        bench.switch.wish(is_training=True)
        bench.run_until(lambda: len(bench.learner.learnt) == 2)
        painted_at, steps = bench.learner.step, set()
        bench.run_until(lambda: bench.learner.step > painted_at + 60 or steps.add(bench.predictor.generation.step))
        assert painted_at in steps
        assert 2 <= len(steps - {painted_at}) < 15

    def test_a_correction_weighs_as_much_as_the_settings_say(self, bench):
        bench.paint_both()
        shown = np.full(OBJECT_BOX.shape, 1, np.uint8)
        bench.store.undo()
        bench.store.correct(Region(0, OBJECT_BOX), 2, shown, class_ids=(1, 2), background=1)
        bench.learner.paint = PaintConfig(correction_weight=5.0, correction_halving=1.0)
        bench.switch.wish(is_training=True)
        bench.run_until(lambda: bench.learner.learnt)
        annotation = bench.learner.learnt[-1][0][0]
        assert set(annotation.weights[annotation.codes == 2].tolist()) == {5.0}
        assert set(annotation.weights[annotation.codes == 1].tolist()) == {1.0}
        bench.paint(1, Box((0, 0, 0), (1, 2, 2)))
        bench.run_until(lambda: len(bench.learner.learnt) > 1)
        annotation = bench.learner.learnt[-1][0][0]
        assert set(annotation.weights[annotation.codes == 2].tolist()) == {3.0}

    def test_undo_and_redo_are_learnt(self, bench):
        bench.paint_both()
        bench.paint(2, Box((8, 5, 5), (9, 8, 8)))
        bench.switch.wish(is_training=True)
        for change in (lambda: None, bench.store.undo, bench.store.redo):
            change()
            bench.loop.work()
        sizes = [len(annotations[0]) for annotations, _ in bench.learner.learnt]
        assert sizes == [sizes[0], sizes[0] - 9, sizes[0]]

    def test_corrections_weigh_no_more_unless_one_wishes_it(self, bench):
        bench.paint_both()
        region = Region(0, Box((6, 30, 30), (7, 33, 33)))
        bench.store.correct(region, 2, np.ones((1, 3, 3), np.uint8), class_ids=(1, 2), background=1)
        bench.switch.wish(is_training=True)
        bench.loop.work()
        annotation = bench.learner.learnt[0][0][0]
        is_corrected = (annotation.coordinates[:, 1:] >= 30).all(1) & (annotation.coordinates[:, 1:] < 33).all(1)
        assert is_corrected.sum() == 9
        assert (annotation.weights == 1).all()


class TestStates:
    def test_while_it_trains_the_state_stays(self, bench):
        bench.paint_both()
        bench.switch.wish(is_training=True)
        bench.run_until(lambda: len(bench.tiles) >= 24)
        states = bench.states
        first = states.index(LiveState.TRAINING)
        assert set(states[first:]) == {LiveState.TRAINING}

    def test_paused_it_finishes_the_tiles_then_is_up_to_date(self, bench):
        bench.paint_both()
        bench.switch.wish(is_training=True)
        bench.run_until(lambda: bench.learner.step >= 2)
        bench.switch.wish(is_training=False)
        steps = bench.learner.step
        bench.run_until_rest()
        assert bench.learner.step == steps
        assert bench.states[-2:] == [LiveState.PREDICTING, LiveState.UP_TO_DATE]
        assert (bench.status.n_tiles, bench.status.n_fresh) == (N_TILES, N_TILES)
        assert bench.status.steps_per_second == 0
        assert bench.status.seconds_left is None

    def test_paint_that_is_not_learnt_yet_is_told_while_paused(self, bench):
        bench.paint_both()
        bench.train_and_rest()
        bench.paint(2, Box((6, 30, 30), (7, 33, 33)))
        bench.run_until_rest()
        assert bench.status.state is LiveState.PAUSED
        assert "latest paint" in bench.status.activity

    def test_not_live_it_trains_and_predicts_nothing(self, bench):
        bench.paint_both()
        bench.switch.wish(is_training=True, is_live=False)
        for _ in range(20):
            assert bench.loop.work()
        assert bench.learner.step > 10
        assert bench.tiles == []
        bench.switch.wish(is_training=False)
        bench.run_until_rest()
        assert bench.status.state is LiveState.PAUSED
        assert bench.tiles == []

    def test_seconds_left_follow_the_tiles(self, bench):
        bench.paint_both()
        bench.train_and_rest()
        left = [status.seconds_left for status in bench.statuses if status.state is LiveState.PREDICTING]
        known = [seconds for seconds in left if seconds is not None]
        assert known
        assert all(seconds >= 0 for seconds in known)
        assert known[-1] < 1

    def test_freshness_is_told_when_it_changes_only(self, bench):
        told = []
        bench.events.freshness_changed.connect(told.append)
        bench.paint_both()
        bench.train_and_rest()
        assert set(told) == {0}
        assert len(told) <= len(bench.tiles) + bench.predictor.generation.number + 2

    def test_the_mix_is_settled_when_training_ends_not_with_each_generation(self, bench):
        bench.paint_both()
        bench.switch.wish(is_training=True)
        bench.run_until(lambda: len(bench.tiles) >= 24)
        assert bench.learner.n_settled == 0
        bench.learner.changes_mix = True
        bench.switch.wish(is_training=False)
        generation = bench.predictor.generation.number
        bench.run_until_rest()
        assert bench.learner.n_settled > 0
        assert bench.predictor.generation.number > generation


class TestUpdateOnce:
    def test_it_ends_by_itself(self, bench, small_and_quick):
        bench.paint_both()
        bench.switch.wish(once=1)
        bench.run_until_rest(5000)
        assert bench.status.state is LiveState.UP_TO_DATE
        assert bench.learner.step > 0
        assert bench.switch.wishes.once == 0
        n = len(bench.learner.learnt)
        bench.paint(2, Box((6, 30, 30), (7, 33, 33)))
        bench.run_until_rest()
        assert len(bench.learner.learnt) == n

    def test_it_predicts_even_if_predictions_are_not_live(self, bench):
        bench.paint_both()
        bench.switch.wish(once=1, is_live=False)
        bench.run_until_rest(5000)
        assert bench.status.n_fresh == N_TILES

    def test_asked_again_it_learns_again(self, bench):
        bench.paint_both()
        bench.switch.wish(once=1)
        bench.run_until_rest(5000)
        steps = bench.learner.step
        bench.switch.wish(once=2)
        bench.run_until_rest(5000)
        assert bench.learner.step > steps

    def test_a_wish_that_was_made_anew_is_not_taken_back(self, bench):
        bench.switch.wish(once=2)
        bench.switch.finish_once(1)
        assert bench.switch.wishes.once == 2
        bench.switch.finish_once(2)
        assert bench.switch.wishes.once == 0

    def test_without_enough_paint_it_ends_and_says_what_is_missing(self, bench):
        bench.switch.wish(once=1)
        bench.run_until_rest()
        assert bench.switch.wishes.once == 0
        assert bench.status.state is LiveState.WAITING


class TestClasses:
    def test_a_new_class_is_learnt_with_the_others(self, bench):
        bench.paint_both()
        bench.switch.wish(is_training=True)
        bench.loop.work()
        bench.classes.add()
        bench.paint(3, Box((6, 30, 30), (7, 35, 35)))
        bench.loop.work()
        assert [classes.ids for _, classes in bench.learner.learnt] == [(1, 2), (1, 2, 3)]

    def test_the_background_role_is_handed_on(self, bench):
        bench.paint_both()
        bench.switch.wish(is_training=True)
        bench.loop.work()
        bench.classes.set_background(2)
        bench.loop.relearn()
        bench.loop.work()
        assert [classes.background for _, classes in bench.learner.learnt] == [1, 2]

    def test_complete_slices_are_learnt_as_background(self, bench):
        bench.paint(2)
        bench.store.set_complete(Plane(0, 0, 6), True)
        bench.switch.wish(is_training=True)
        bench.loop.work()
        assert len(bench.learner.learnt[0][0][0]) == 40 * 40

    def remove(self, bench, class_id):
        bench.classes.remove(class_id)
        bench.store.remove_class(class_id, class_ids=bench.classes.ids)
        bench.loop.drop_class(class_id)

    def test_a_removed_class_disappears_from_the_prediction_at_once(self, bench):
        bench.classes.add()
        bench.paint_both()
        bench.paint(3, Box((6, 30, 30), (7, 35, 35)))
        bench.train_and_rest()
        shown = int(np.bincount(bench.opened.labels.ravel()).argmax())
        self.remove(bench, shown)
        assert not (bench.opened.labels == shown).any()
        assert bench.status.has_model

    def test_without_two_classes_the_model_goes_and_it_waits(self, bench):
        bench.classes.add()
        bench.paint_both()
        bench.train_and_rest()
        bench.switch.wish(is_training=True)
        n_cleared = bench.n_cleared
        self.remove(bench, 2)
        assert bench.n_cleared == n_cleared + 1
        assert not bench.opened.labels.any()
        bench.run_until_rest()
        assert (bench.status.has_model, bench.status.state) == (False, LiveState.WAITING)

    def test_erasing_all_paint_while_training_makes_it_wait_and_keeps_the_model(self, bench):
        bench.paint_both()
        bench.switch.wish(is_training=True)
        bench.run_until(lambda: bench.learner.step >= 2)
        bench.store.annotate(Region(0, Box.whole(SHAPE)), 0)
        bench.run_until_rest()
        assert (bench.status.state, bench.status.has_model) == (LiveState.WAITING, True)
        assert bench.status.activity == "Paint a little of two classes"
        bench.paint_both()
        bench.loop.work()
        assert len(bench.learner.learnt) == 2


class TestFrames:
    @pytest.fixture
    def series(self):
        bench = Bench(np.stack([make_image(make_truth(), seed) for seed in range(3)]), time_axis=0)
        bench.switch.wish(view=view_of(frame=2))
        bench.loop.prepare()
        return bench

    def test_frames_with_paint_train_and_the_one_on_screen_is_predicted(self, series):
        series.paint_both(frame=1)
        series.train_and_rest()
        assert set(series.learner.learnt[0][0]) == {1}
        assert {tile.frame for tile in series.tiles} == {2}
        assert series.status.n_fresh == N_TILES

    def test_another_frame_is_predicted_when_it_comes_on_screen(self, series):
        series.paint_both(frame=1)
        series.train_and_rest()
        series.switch.wish(view=view_of(frame=0))
        n = len(series.tiles)
        series.run_until_rest()
        assert {tile.frame for tile in series.tiles[n:]} == {0}


class TestRecovering:
    def test_a_model_that_went_wrong_is_dropped_and_begun_anew(self, bench):
        bench.paint_both()
        bench.train_and_rest()
        bench.loop.recover(TrainingError("the loss became nan"))
        assert bench.learner.fitted is None
        assert not bench.status.has_model
        assert bench.opened.labels.any()
        bench.train_and_rest()
        assert bench.status.n_fresh == N_TILES

    def test_where_there_is_a_good_model_training_goes_on_from_it_by_itself(self, bench):
        told = []
        bench.events.noticed.connect(told.append)
        bench.paint_both()
        bench.train_and_rest()
        bench.learner.has_good = True

        def fail():
            bench.learner.on_train = lambda: None
            raise TrainingError("the loss became nan at step 7, so the model is of no use any more")

        bench.learner.on_train = fail
        bench.switch.wish(is_training=True)
        while not told:
            assert bench.loop.work()
        assert "the loss became nan at step 7); it goes on from the last good model" in told[0]
        assert bench.loop.work()
        assert len(bench.learner.learnt) == 2

    def test_where_going_back_does_not_help_it_is_a_failure_that_keeps_the_model(self, bench):
        bench.paint_both()
        bench.train_and_rest()
        bench.learner.has_good = bench.learner.keeps_failing = True
        bench.loop.recover(TrainingError("the loss became nan"))
        assert bench.learner.fitted is not None
        assert bench.status.has_model

    def test_after_other_errors_the_model_stays_and_the_paint_is_learnt_again(self, bench):
        bench.paint_both()
        bench.train_and_rest()
        bench.loop.recover(MemoryError())
        assert bench.learner.fitted is not None
        bench.train_and_rest()
        assert len(bench.learner.learnt) == 2

    def test_halted_it_does_nothing(self, bench):
        bench.paint_both()
        bench.switch.wish(is_training=True, is_halted=True)
        assert not bench.loop.work()
        assert bench.learner.learnt == []

    def test_an_image_that_was_closed_stops_the_burst(self, bench):
        bench.paint_both()
        bench.switch.wish(is_training=True)
        bench.events.curve_extended.connect(lambda _: bench.switch.retire())
        with pytest.raises(AbandonedError):
            bench.loop.work()

    def test_another_model_is_predicted_with_everywhere(self, bench):
        bench.paint_both()
        bench.train_and_rest()
        fitted = bench.learner.fitted
        for _ in range(2):
            n = len(bench.tiles)
            bench.loop.adopt(fitted, None)
            bench.run_until_rest()
            assert {tile.box for tile in bench.tiles[n:]} == {
                bench.predictor.board(0).box(i) for i in np.ndindex(3, 2, 2)
            }


class TestExtras:
    def test_probability_is_handed_out_with_the_tiles_on_screen_at_once(self, bench):
        bench.paint_both()
        bench.train_and_rest()
        n = len(bench.tiles)
        bench.switch.wish(probability_of=2, wants_uncertainty=True)
        bench.loop.repeat()
        bench.run_until_rest()
        assert len(bench.tiles) == n + 4
        assert all(tile.probability is not None and tile.uncertainty is not None for tile in bench.tiles[n:])

    def test_what_the_model_cannot_tell_yet_is_learnt_when_it_is_asked_for(self, bench):
        bench.paint_both()
        bench.train_and_rest()
        assert len(bench.learner.learnt) == 1
        bench.loop.repeat()
        bench.train_and_rest()
        assert len(bench.learner.learnt) == 1
        bench.loop.tell_extra("candidates")
        bench.train_and_rest()
        assert len(bench.learner.learnt) == 2

    def test_without_a_view_everything_is_predicted_too(self):
        bench = Bench(make_image(make_truth()))
        bench.switch.wish(probability_of=2)
        bench.paint_both()
        bench.train_and_rest()
        assert bench.status.n_fresh == N_TILES
        assert all(tile.probability is not None for tile in bench.tiles)

    def test_a_view_beside_the_image_does_no_harm(self, bench):
        plane = Plane(0, 0, 6)
        bench.switch.wish(view=View(plane, Box((6, 40, 0), (7, 40, 0)), (6, 20, 20)))
        bench.paint_both()
        bench.train_and_rest()
        assert bench.status.n_fresh == N_TILES


def test_a_step_always_belongs_to_a_piece_of_training(bench, monkeypatch):
    monkeypatch.setattr(module, "_PIECE_SECONDS", 1e-9)
    bench.paint_both()
    bench.switch.wish(is_training=True, is_live=False)
    bench.loop.work()
    bench.loop.work()
    assert bench.learner.step == 1


class TestFinding:
    def find(self, bench):
        bench.paint_both()
        bench.train_and_rest()
        find = Find(0, Box((2, 0, 0), (10, 40, 40)))
        bench.switch.wish(find=find)
        return find

    def test_it_is_done_in_pieces_told_and_then_no_longer_wanted(self, bench):
        changes = []
        bench.events.objects_changed.connect(changes.append)
        find = self.find(bench)
        bench.statuses.clear()
        bench.run_until(lambda: changes)
        assert changes == [ObjectsChange(0, find.box)]
        activities = [status.activity for status in bench.statuses if status.is_finding]
        assert any(activity.startswith("Finding objects") for activity in activities)
        assert bench.switch.wishes.find is None
        assert not bench.status.is_finding
        found = bench.opened.objects.read(0, Box.whole(SHAPE))
        assert not found[:2].any()
        assert not found[10:].any()
        bench.run_until_rest()

    def test_it_respects_what_was_painted(self, bench):
        self.find(bench)
        bench.run_until(lambda: not bench.status.is_finding)
        found = bench.opened.objects.read(0, Box.whole(SHAPE))
        assert not found[BACKGROUND_BOX.slices].any()
        assert found[OBJECT_BOX.slices].any()

    def test_what_pairs_of_voxels_tell_counts_only_once_it_was_learnt(self, bench, monkeypatch):
        counted = []

        class Spy(module.ObjectSearch):
            def __init__(self, *args, uses_pairs):
                counted.append(uses_pairs)
                super().__init__(*args, uses_pairs=uses_pairs)

        monkeypatch.setattr(module, "ObjectSearch", Spy)
        bench.paint_both()
        bench.train_and_rest(200)
        monkeypatch.setattr(module, "_STEPS_FOR_PAIRS", 2 * bench.learner.step)
        bench.learner.heads = Heads(((0, 0, 1),))  # as if what is painted next had ids
        bench.paint(2, OBJECT_BOX.shifted((1, 0, 0)))
        for n_steps in (1, bench.learner.step):
            bench.train_and_rest(n_steps)
            self.find(bench)
            bench.run_until(lambda: not bench.status.is_finding)
        assert counted == [False, True]

    def test_cancelled_it_changes_nothing(self, bench):
        self.find(bench)
        bench.loop.work()
        bench.switch.wish(find=None)
        bench.run_until_rest()
        assert bench.opened.objects.is_empty

    def test_without_a_model_it_is_not_tried(self, bench):
        bench.switch.wish(find=Find(0, Box.whole(SHAPE)))
        bench.run_until_rest()
        assert bench.switch.wishes.find is None
        assert bench.opened.objects.is_empty
