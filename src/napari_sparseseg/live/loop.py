"""LiveLoop: what the compute thread does next. Trains and predicts in short pieces, what is on screen first.

The cycle: a stroke raises the store's revision and wakes the thread. With its next piece of work the loop takes a
snapshot of the paint, fits the pixel head in a short burst and makes a new generation of weights; what is on screen is
predicted with it. Then training and predicting take turns. Whenever the screen is fresh and the weights have moved,
there is another generation. The rest of the volume is predicted in what time is left.
"""

from __future__ import annotations

import os
import time

from napari_sparseseg._types import Annotation
from napari_sparseseg.engine.checkpoint import save_model
from napari_sparseseg.engine.classes import ClassTable
from napari_sparseseg.engine.model import FittedModel
from napari_sparseseg.engine.trainer import TrainingStep
from napari_sparseseg.errors import NotFittedError, TrainingError
from napari_sparseseg.live.board import FRESH, Generation
from napari_sparseseg.live.classes import ClassList
from napari_sparseseg.live.events import CurvePoint, LiveEvents, LiveState, TileUpdate
from napari_sparseseg.live.learner import Learner
from napari_sparseseg.live.predictor import LivePredictor
from napari_sparseseg.live.score import StrokeScore
from napari_sparseseg.live.settings import Settings
from napari_sparseseg.live.switchboard import Switchboard, Wishes
from napari_sparseseg.storage.strokes import AnnotationStore

_PIECE_SECONDS = 0.15  # of training between two looks at what else is wanted
_OWED_ON_SCREEN = 0.7  # seconds of training for each second of predicting what is on screen
_OWED_ELSEWHERE = 3.0
_GROWTH = 1.2  # of the steps, between two generations
_FEWEST_STEPS = 4
_ONCE_SECONDS = 4.0  # of learning for "update once"
_MEMORY = 0.9  # of running means
_STATUS_SECONDS = 0.1


class LiveLoop:
    """Decides and does the next piece of work on one image. Made and used on the compute thread."""

    def __init__(
        self,
        store: AnnotationStore,
        classes: ClassList,
        learner: Learner,
        predictor: LivePredictor,
        switchboard: Switchboard,
        events: LiveEvents,
        score: StrokeScore,
    ) -> None:
        self.store = store
        self.learner = learner
        self.predictor = predictor
        self._classes = classes
        self._switch = switchboard
        self._events = events
        self._score = score
        self._learnt_revision = -1
        self._n_generations = 0
        self._owed = 0.0  # seconds of training before the next prediction
        self._once_until: float | None = None
        self._pace = _Pace()
        self._told = 0.0

    @property
    def seconds_per_voxel(self) -> float | None:
        """Of prediction, as measured; None before the first tile."""
        return self._pace.seconds_per_voxel

    def announce(self) -> None:
        """Tell that there is neither model nor prediction."""
        choice = self.learner.choice
        self._events.predictions_cleared.emit()
        self._events.curve_cleared.emit()
        self._switch.publish(
            device=str(choice.device), device_reason=choice.reason, has_model=False, dice=None, dice_source=""
        )

    def prepare(self) -> None:
        """Load what the first step needs, before anybody waits for it."""
        self._say(LiveState.PREPARING, "Reading the image")
        self.learner.map(self._frame())

    def configure(self, settings: Settings) -> None:
        """Take other settings; model and device stay what they are."""
        self.learner.settings = settings

    def repeat(self) -> None:
        """Predict everything again with the same weights, since something else is wanted with it."""
        self._new_generation()

    def recover(self, error: Exception) -> None:
        """After a failure: a model that went wrong is dropped, and the paint is learnt anew with the next start."""
        if isinstance(error, TrainingError):
            self.learner.forget()
        self.relearn()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to a file."""
        if self.learner.fitted is None:
            raise NotFittedError("there is no model to save yet; paint two classes and train first")
        settings = self.learner.settings
        image = self.learner.image
        save_model(
            path,
            self.learner.fitted,
            settings={
                "spacing": list(image.spacing)[-image.n_spatial :],
                "channel_axis": image.channel_axis,
                "random_state": None,
                "background": self.learner.fitted.classes.background,
                "training": settings.training.model_dump(),
                "prediction": settings.prediction.model_dump(),
            },
        )

    def work(self) -> bool:
        """Do one short piece; False if there is nothing to do."""
        wishes = self._switch.wishes
        if wishes.is_halted:
            return False
        if self._learn(wishes):
            return True
        can_train = self._can_train(wishes)
        if not (can_train and self._owed > 0) and self._predict(wishes):
            return True
        if can_train:
            self._train()
            return True
        self._rest(wishes)
        return False

    def relearn(self) -> None:
        """Take the paint anew with the next piece of work, whether it has changed or not."""
        self._learnt_revision = -1

    def adopt(self, fitted: FittedModel) -> None:
        """Go on from a saved model. Raises `InputError` if it does not fit the image."""
        self.learner.adopt(fitted)
        self.relearn()
        self._new_generation()

    def drop_class(self, class_id: int) -> None:
        """Forget a class; without two others the model goes as well."""
        fitted = self.learner.fitted
        if fitted is not None and class_id in fitted.classes.ids:
            remaining = tuple(i for i in fitted.classes.ids if i != class_id)
            if len(remaining) < 2 or self.learner.trainer is None:
                self.learner.forget()
                self.predictor.clear()
                self._switch.publish(has_model=False)
                self._events.predictions_cleared.emit()
                self.relearn()
                return
            self.learner.trainer.change_classes(_table(remaining, self._classes.background))
            fitted.classes = self.learner.trainer.classes
            self._new_generation()
        for update in self.predictor.drop_class(class_id):
            self._events.tile_predicted.emit(update)
        self.relearn()

    # --- learning ---

    def _learn(self, wishes: Wishes) -> bool:
        """Take paint that is new; False if there is none, or too little to learn from."""
        revision = self.store.revision
        if not (wishes.is_training or wishes.is_once) or revision == self._learnt_revision:
            return False
        classes = self._trainable()
        annotations = self._snapshot(classes) if classes else {}
        if classes is None or not annotations:
            return False
        self._say(LiveState.TRAINING, "Learning the latest paint")
        for step in self.learner.learn(annotations, classes):
            self._tell_step(step)
        self._learnt_revision = revision
        self._new_generation()
        self._owed = 0.0
        return True

    def _trainable(self) -> ClassTable | None:
        """Classes that are painted or were learnt before; None if there are not two painted ones."""
        background = self._classes.background
        painted = [i for i in self.store.painted_classes(background) if i in self._classes]
        if len(painted) < 2:
            return None
        learnt = self.learner.fitted.classes.ids if self.learner.fitted else ()
        return _table(tuple(sorted({*painted, *(i for i in learnt if i in self._classes)})), background)

    def _snapshot(self, classes: ClassTable) -> dict[int, Annotation]:
        frames = self.store.frames_with_paint()
        taken = {f: self.store.snapshot(f, classes=classes.ids, background=self._classes.background) for f in frames}
        return {frame: annotation for frame, annotation in taken.items() if len(annotation)}

    def _can_train(self, wishes: Wishes) -> bool:
        if self._learnt_revision < 0:
            return False
        if wishes.is_once and not wishes.is_training:
            self._once_until = self._once_until or time.perf_counter() + _ONCE_SECONDS
            return time.perf_counter() < self._once_until
        return wishes.is_training

    def _train(self) -> None:
        started = time.perf_counter()
        had_context = self.learner.step > 0
        while (elapsed := time.perf_counter() - started) < _PIECE_SECONDS:
            step = self.learner.train()
            self._tell_step(step)
        self._owed = max(0.0, self._owed - elapsed)
        if not had_context and self.learner.step > 0:  # the pixel head has been fitted thoroughly
            self._new_generation()
        self._say(LiveState.TRAINING, _activity(step))

    def _tell_step(self, step: TrainingStep) -> None:
        self._pace.count(step)
        self._events.curve_extended.emit(CurvePoint(step.step, self._pace.seconds, step.loss, step.dice))

    # --- predicting ---

    def _predict(self, wishes: Wishes) -> bool:
        """Predict one tile, or preview a part of the screen; False if nothing is out of date."""
        if not (wishes.is_live or wishes.is_once) or self.predictor.generation is None:
            return False
        started = time.perf_counter()
        update, owed = self._on_screen(wishes), _OWED_ON_SCREEN
        if update is None and self._has_moved(wishes):
            self._new_generation()
            update = self._on_screen(wishes)
        if update is None:
            update, owed = self._elsewhere(wishes), _OWED_ELSEWHERE
        if update is None:
            return False
        seconds = time.perf_counter() - started
        self._owed = 0.0 if wishes.is_once else self._owed + owed * seconds
        self._pace.count_tile(update, seconds)
        self._events.tile_predicted.emit(update)
        if self._switch.status.state is not LiveState.TRAINING or not wishes.is_training:
            self._say(LiveState.PREDICTING, "Predicting what is on screen" if owed < 1 else "Predicting the rest")
        return True

    def _on_screen(self, wishes: Wishes) -> TileUpdate | None:
        view, generation = wishes.view, self.predictor.generation
        if view is None or generation is None:
            return None
        self.predictor.probability_of = wishes.probability_of
        self.predictor.wants_uncertainty = wishes.wants_uncertainty
        frame = view.plane.frame
        features = self.learner.map(frame)
        preview = self.predictor.glance(view, features)
        if preview is not None:
            return preview
        hot = wishes.hot[1] if wishes.hot and wishes.hot[0] == frame else None
        index = self.predictor.board(frame).next_on_screen(view, generation, hot)
        return None if index is None else self.predictor.tile(frame, index, features)

    def _elsewhere(self, wishes: Wishes) -> TileUpdate | None:
        frame, generation = self._frame(), self.predictor.generation
        if generation is None:
            return None
        index = self.predictor.board(frame).next_elsewhere(wishes.view, generation)
        return None if index is None else self.predictor.tile(frame, index, self.learner.map(frame))

    def _has_moved(self, wishes: Wishes) -> bool:
        """Whether the weights are worth another look at the screen."""
        generation = self.predictor.generation
        if generation is None or self.learner.trainer is None:
            return False
        if not self._can_train(wishes):
            return self.learner.step > generation.step
        return self.learner.step >= max(generation.step * _GROWTH, generation.step + _FEWEST_STEPS)

    def _new_generation(self) -> None:
        fitted = self.learner.fitted
        if fitted is None:
            return
        if not self._switch.wishes.is_training:
            self.learner.settle()
        self._n_generations += 1
        generation = Generation(self._n_generations, self._learnt_revision, self.learner.step)
        self.predictor.use(self.learner.weights(), fitted.classes, generation)
        self._switch.publish(has_model=True)

    # --- telling ---

    def _frame(self) -> int:
        view = self._switch.wishes.view
        return view.plane.frame if view else 0

    def _rest(self, wishes: Wishes) -> None:
        """Say what the loop waits for."""
        if wishes.is_once and self._learnt_revision >= 0:
            self._once_until = None
            self._switch.wish(is_once=False)
        if (wishes.is_training or not self.learner.fitted) and self._trainable() is None:
            self._say(LiveState.WAITING, self._missing_paint())
        elif not wishes.is_training and self._n_fresh() == self._n_tiles():
            self._say(LiveState.UP_TO_DATE, "Everything is predicted")
        elif self.learner.fitted:
            self._say(LiveState.PAUSED, "Paused; Train goes on")
        else:
            self._say(LiveState.WAITING, "Press Train")

    def _missing_paint(self) -> str:
        painted = self.store.painted_classes(self._classes.background)
        if not painted:
            return "Paint a little of two classes"
        names = [info.name for info in self._classes.all if info.class_id not in painted]
        return f"Paint some {names[0]} as well" if len(names) == 1 else "Paint a second class as well"

    def _n_tiles(self) -> int:
        z, y, x = self.predictor.board(self._frame()).grid
        return z * y * x

    def _n_fresh(self) -> int:
        states = self.predictor.board(self._frame()).states(self.predictor.generation)
        return int((states == FRESH).sum())

    def _dice(self) -> tuple[float | None, str]:
        """The best estimate there is, and on what it rests."""
        of_strokes = self._score.dice(self._classes.background)
        if of_strokes is not None:
            return of_strokes, f"your last {len(self._score)} strokes, compared with what was predicted before them"
        return self.learner.dice, "painted voxels that were kept out of training; it flatters"

    def _say(self, state: LiveState, activity: str) -> None:
        """Publish the status: at once if the state is another one, else not too often."""
        now = time.perf_counter()
        status = self._switch.status
        is_resting = state not in (LiveState.TRAINING, LiveState.PREDICTING)
        if state is status.state and not is_resting and now - self._told < _STATUS_SECONDS:
            return
        self._told = now
        n_tiles, n_fresh = self._n_tiles(), self._n_fresh()
        dice, source = self._dice()
        self._switch.publish(
            state=state,
            activity=activity,
            step=self.learner.step,
            steps_per_second=0.0 if is_resting else self._pace.steps_per_second,
            loss=self._pace.loss,
            dice=dice,
            dice_source=source,
            n_tiles=n_tiles,
            n_fresh=n_fresh,
            seconds_left=self._seconds_left(n_tiles - n_fresh, is_resting),
            revision=self._learnt_revision,
            error="",
        )
        self._events.freshness_changed.emit(self._frame())

    def _seconds_left(self, n_stale: int, is_resting: bool) -> float | None:
        wishes = self._switch.wishes
        if is_resting or not (wishes.is_live or wishes.is_once) or self.predictor.generation is None:
            return None
        share = 1 + _OWED_ELSEWHERE if wishes.is_training else 1.0
        return n_stale * self._pace.tile_seconds * share


class _Pace:
    """Running means: how fast it goes."""

    def __init__(self) -> None:
        self.steps_per_second = 0.0
        self.loss: float | None = None
        self.tile_seconds = 0.5
        self.seconds_per_voxel: float | None = None
        self._started = time.perf_counter()
        self._last: tuple[int, float] | None = None

    @property
    def seconds(self) -> float:
        """Since the first step."""
        return time.perf_counter() - self._started

    def count(self, step: TrainingStep) -> None:
        if self.loss is None:
            self._started = time.perf_counter()
        self.loss = step.loss if self.loss is None else _MEMORY * self.loss + (1 - _MEMORY) * step.loss
        now = time.perf_counter()
        if self._last is not None and step.step > self._last[0]:
            rate = (step.step - self._last[0]) / max(1e-6, now - self._last[1])
            self.steps_per_second = _mean(self.steps_per_second or rate, rate)
        self._last = step.step, now

    def count_tile(self, update: TileUpdate, seconds: float) -> None:
        if update.labels.shape[0] > 1 or self.seconds_per_voxel is None:  # a preview says little
            self.tile_seconds = _mean(self.tile_seconds, seconds)
            per_voxel = seconds / update.labels.size
            self.seconds_per_voxel = _mean(self.seconds_per_voxel or per_voxel, per_voxel)


def _mean(mean: float, value: float) -> float:
    return _MEMORY * mean + (1 - _MEMORY) * value


def _activity(step: TrainingStep) -> str:
    return "Fitting the pixel classifier" if step.phase == "pixel" else f"Training, step {step.step}"


def _table(class_ids: tuple[int, ...], background: int | None) -> ClassTable:
    """Where the background class is not among them, the lowest id stands in for it."""
    return ClassTable(class_ids, background if background in class_ids else class_ids[0])
