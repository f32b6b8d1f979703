"""Reporter: tells what the live loop is at, in words and figures. Lives on the compute thread."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace

from napari_sparseseg._types import Box
from napari_sparseseg.engine.trainer import TrainingStep
from napari_sparseseg.engine.training_log import TrainingLog
from napari_sparseseg.live.classes import ClassList
from napari_sparseseg.live.events import CurvePoint, LiveState, ObjectsChange, ObjectTable, SuggestedSlice, TileUpdate
from napari_sparseseg.live.learner import Learner
from napari_sparseseg.live.opened import Opened
from napari_sparseseg.live.predictor import LivePredictor
from napari_sparseseg.storage.sparse import is_large

TRAINING_FOR_TILES = 3.0  # seconds of training for each second of predicting what is not on screen
_STATUS_SECONDS = 0.1
_MEMORY = 0.9  # of running means
_AT_WORK = (LiveState.TRAINING, LiveState.PREDICTING)


class Reporter:
    """Publishes status, learning curve and tiles of one image."""

    def __init__(self, opened: Opened, classes: ClassList, learner: Learner, predictor: LivePredictor) -> None:
        self.pace = Pace()
        self.log = TrainingLog()
        self._opened = opened
        self._classes = classes
        self._learner = learner
        self._predictor = predictor
        self._switch = opened.switch
        self._events = opened.switch.events
        self._activity = ""
        self._told = 0.0
        self._told_freshness: tuple[int, ...] = ()

    def begin(self) -> None:
        """Tell that there is neither model nor prediction."""
        choice = self._learner.choice
        self._switch.tell(self._events.predictions_cleared)
        self._switch.tell(self._events.curve_cleared)
        self._switch.publish(
            device=str(choice.device),
            device_reason=choice.reason,
            has_model=False,
            loss=None,
            dice=None,
            dice_source="",
            is_dice_of_strokes=False,
        )

    def lost_model(self) -> None:
        """Tell that there is no model any more."""
        self._switch.publish(has_model=False)

    def lost_predictions(self) -> None:
        """Tell that nothing is predicted any more."""
        self._switch.tell(self._events.predictions_cleared)

    def step(self, step: TrainingStep) -> None:
        """Tell of a training step."""
        self.pace.count_step(step)
        timed = replace(step, seconds=self.pace.seconds)
        self.log.add(timed)
        self._switch.tell(self._events.curve_extended, _point(timed))

    def resume(self, steps: Sequence[TrainingStep]) -> None:
        """Tell of the steps of an earlier time, and go on from there."""
        for step in steps:
            self.log.add(step)
            self._switch.tell(self._events.curve_extended, _point(step))
        self.pace.seconds_before = steps[-1].seconds if steps else 0.0

    def notice(self, sentence: str) -> None:
        """Tell something that is no failure."""
        self._switch.tell(self._events.noticed, sentence)

    def tile(self, update: TileUpdate) -> None:
        """Tell of what was predicted."""
        if self._learner.fitted is not None:
            self._opened.score.class_ids = frozenset(self._learner.fitted.classes.ids)
        self._switch.tell(self._events.tile_predicted, update)

    def objects(self, frame: int, box: Box) -> None:
        """Tell of the objects that were found."""
        self._switch.tell(self._events.objects_changed, ObjectsChange(frame, box))

    def table(self, table: ObjectTable) -> None:
        """Tell of the objects that were measured."""
        self._switch.tell(self._events.objects_measured, table)

    def suggestion(self, suggested: SuggestedSlice) -> None:
        """Tell of the slice to paint next."""
        self._switch.tell(self._events.slice_suggested, suggested)

    def at_work(self, state: LiveState, activity: str = "") -> None:
        """Tell what is being computed: at once if the state is another one, else now and then."""
        self._activity = activity or self._activity
        if state is not self._switch.status.state or time.perf_counter() - self._told >= _STATUS_SECONDS:
            self._publish(state, self._activity)

    def at_rest(self, state: LiveState, activity: str) -> None:
        """Tell what is waited for."""
        self.pace.rest()
        self._publish(state, activity)

    @property
    def is_all_fresh(self) -> bool:
        """Whether no tile of the frame on screen is out of date."""
        n_tiles, n_fresh = self._count_tiles()
        return n_tiles == n_fresh

    def _publish(self, state: LiveState, activity: str) -> None:
        self._told = time.perf_counter()
        n_tiles, n_fresh = self._count_tiles()
        dice, source, is_of_strokes = self._dice()
        self._switch.publish(
            state=state,
            activity=activity,
            step=self._learner.step,
            steps_per_second=self.pace.steps_per_second if state is LiveState.TRAINING else 0.0,
            loss=self.pace.loss,
            dice=dice,
            dice_source=source,
            is_dice_of_strokes=is_of_strokes,
            n_tiles=n_tiles,
            n_fresh=n_fresh,
            seconds_left=self._seconds_left(n_tiles - n_fresh) if state in _AT_WORK else None,
            has_model=self._learner.fitted is not None,
            error="",
        )
        self._tell_freshness(n_fresh)

    def _tell_freshness(self, n_fresh: int) -> None:
        generation = self._predictor.generation
        now = (self._switch.frame, n_fresh, generation.number if generation else 0, self._predictor.n_forgotten)
        if now != self._told_freshness:
            self._told_freshness = now
            self._switch.tell(self._events.freshness_changed, self._switch.frame)

    def _count_tiles(self) -> tuple[int, int]:
        board = self._predictor.board(self._switch.frame)
        return math.prod(board.grid), board.n_fresh(self._predictor.generation)

    def _dice(self) -> tuple[float | None, str, bool]:
        """The best estimate there is, on what it rests, and whether that is strokes."""
        score = self._opened.score
        of_strokes = score.dice(self._classes.background)
        if of_strokes is not None:
            return of_strokes, f"your last {len(score)} strokes, compared with what was predicted before them", True
        if self._learner.dice is None:
            return None, "", False
        return self._learner.dice, "painted voxels that were kept out of training; it flatters", False

    def _seconds_left(self, n_stale: int) -> float | None:
        wishes = self._switch.wishes
        is_predicting = (wishes.is_live or wishes.once) and not is_large(self._opened.labels)
        if not is_predicting or self._predictor.generation is None or self.pace.tile_seconds is None:
            return None
        return n_stale * self.pace.tile_seconds * (1 + TRAINING_FOR_TILES if wishes.is_training else 1.0)


class Pace:
    """Running means: how fast it goes; None before anything was measured."""

    def __init__(self) -> None:
        self.steps_per_second = 0.0
        self.seconds_before = 0.0
        self.loss: float | None = None
        self.tile_seconds: float | None = None
        self.seconds_per_voxel: float | None = None
        self._started = time.perf_counter()
        self._last: tuple[int, float] | None = None

    @property
    def seconds(self) -> float:
        """Since the first step, and those of earlier times."""
        return self.seconds_before + time.perf_counter() - self._started

    def count_step(self, step: TrainingStep) -> None:
        """Measure the loss, and the time since the step before."""
        now = time.perf_counter()
        if self.loss is None:
            self._started = now
        self.loss = _mean(self.loss, step.loss)
        if self._last is not None and step.step > self._last[0]:
            rate = (step.step - self._last[0]) / max(1e-6, now - self._last[1])
            self.steps_per_second = _mean(self.steps_per_second or None, rate)
        self._last = step.step, now

    def count_tile(self, box: Box, seconds: float) -> None:
        """Measure how long a tile took."""
        self.tile_seconds = _mean(self.tile_seconds, seconds)
        self.seconds_per_voxel = _mean(self.seconds_per_voxel, seconds / box.n_voxels)

    def rest(self) -> None:
        """What passes until the next step says nothing."""
        self._last = None


def _point(step: TrainingStep) -> CurvePoint:
    return CurvePoint(step.step, step.seconds, step.loss, step.dice)


def _mean(mean: float | None, value: float) -> float:
    return value if mean is None else _MEMORY * mean + (1 - _MEMORY) * value
