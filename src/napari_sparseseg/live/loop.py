"""LiveLoop: what the compute thread does next. Trains and predicts in short pieces, what is on screen first.

The cycle: a stroke raises the store's revision and wakes the thread. With its next piece of work the loop takes a
snapshot of the paint, fits the pixel head in a short burst and makes a new generation of weights; what is on screen is
predicted with it. Then training and predicting take turns. Whenever the screen is fresh and the weights have moved,
there is another generation. The rest of the volume is predicted in what time is left.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from napari_sparseseg._types import Annotation, Box, Extra
from napari_sparseseg.engine.classes import ClassTable
from napari_sparseseg.engine.model import FittedModel
from napari_sparseseg.engine.trainer import TrainingStep
from napari_sparseseg.errors import TrainingError
from napari_sparseseg.live.advising import SliceSearch
from napari_sparseseg.live.board import Generation
from napari_sparseseg.live.classes import ClassList
from napari_sparseseg.live.events import LiveState, TileUpdate
from napari_sparseseg.live.image import AbandonedError
from napari_sparseseg.live.learner import Learner, TrainingState, table_of
from napari_sparseseg.live.object_table import ObjectTables
from napari_sparseseg.live.opened import Opened
from napari_sparseseg.live.overlap import labels_of_objects, learnable_classes, missing_paint
from napari_sparseseg.live.predictor import LivePredictor
from napari_sparseseg.live.reporter import TRAINING_FOR_TILES, Reporter
from napari_sparseseg.live.search import ObjectSearch
from napari_sparseseg.live.shown import labels_left_possible, with_paint
from napari_sparseseg.live.switchboard import Find, Tabulate, Wishes
from napari_sparseseg.storage.sparse import is_large

PAUSED_WITH_NEWS = "Paused; Train learns the latest paint"
"""What is said to have been left to do; it must fit into one line of the dock."""
_PIECE_SECONDS = 0.15  # of training between two looks at what else is wanted
_TRAINING_FOR_SCREEN = 0.7  # seconds of training for each second of predicting what is on screen
_GROWTH = 1.2  # of the steps since paint was last learnt, between two generations
_FEWEST_STEPS = 4
_ONCE_SECONDS = 4.0  # of learning for "update once"
_NOTHING_LEARNT = -1
_STEPS_FOR_PAIRS = 50  # before what the network says of pairs of voxels is worth anything
_KEEP_SECONDS = 5.0  # between two states to which training can go back


class LiveLoop:
    """Decides and does the next piece of work on one image. Made and used on the compute thread."""

    def __init__(self, opened: Opened, classes: ClassList, learner: Learner, predictor: LivePredictor) -> None:
        self.opened = opened
        self.learner = learner
        self.predictor = predictor
        self.reporter = Reporter(opened, classes, learner, predictor)
        self._store = opened.store
        self._switch = opened.switch
        self._classes = classes
        self._learnt_revision = _NOTHING_LEARNT
        self._learnt_at = 0  # the step at which it was
        self._pairs_since = 0  # the step at which ids of objects were painted first
        self._n_generations = 0
        self._owed = 0.0  # seconds of training before the next prediction
        self._kept_at = -math.inf
        self._search: tuple[Find, ObjectSearch, Iterator[float]] | None = None
        self._tables = ObjectTables(opened, self._labels_of_objects)
        self._told_table: Tabulate | None = None
        self._slices = SliceSearch(opened, learner, self.reporter)
        self._once = (0, 0.0)  # the "update once" that is going on, and until when it learns

    def prepare(self) -> None:
        """Load what the first step needs, before anybody waits for it."""
        self.reporter.begin()
        self.reporter.at_work(LiveState.PREPARING, "Reading the image")
        self.learner.map(self._switch.frame)

    def work(self) -> bool:
        """Do one short piece; False if there is nothing to do. Training that goes wrong goes back by itself."""
        try:
            return self._work()
        except TrainingError as error:
            if not self.learner.roll_back() or self.learner.keeps_failing:
                raise
            self._go_on_from_before(error)
            return True

    def _work(self) -> bool:
        wishes = self._switch.wishes
        if wishes.is_halted:
            return False
        if self._learn(wishes) or self._find(wishes.find) or self._measure(wishes.table):
            return True
        if self._slices.work(wishes.advise):
            return True
        can_train = self._can_train(wishes)
        is_turn_of_training = can_train and (self.learner.has_news or self._owed > 0)
        if not is_turn_of_training and self._predict(wishes, can_train):
            return True
        if can_train:
            self._train()
            return True
        self._rest(wishes)
        return False

    def repeat(self) -> None:
        """Predict the screen again with the same weights, since something else is wanted with it."""
        if self.learner.fitted is not None:
            self._new_generation(self.learner.fitted)

    def tell_extra(self, extra: Extra) -> None:
        """As `repeat`; a model that cannot tell this yet begins to learn it, if the settings say so."""
        fitted = self.learner.fitted
        if fitted is not None and extra not in fitted.network.extras:
            self.relearn()
        self.repeat()

    def relearn(self) -> None:
        """Take the paint anew with the next piece of work, whether it has changed or not."""
        self._learnt_revision = _NOTHING_LEARNT

    def recover(self, error: Exception) -> None:
        """After a failure: the paint is learnt anew with the next start, from the last good model if there is one."""
        self.relearn()
        if isinstance(error, TrainingError):
            if self.learner.roll_back() and self.learner.fitted is not None:
                self._new_generation(self.learner.fitted)
                return
            self.learner.forget()
            self.predictor.expire()
            self.reporter.lost_model()

    def _go_on_from_before(self, error: TrainingError) -> None:
        self.relearn()
        if self.learner.fitted is not None:
            self._new_generation(self.learner.fitted)
        reason = str(error).partition(", so ")[0]
        self.reporter.notice(
            f"Training went wrong ({reason}); it goes on from the last good model, step {self.learner.step}"
        )

    def checkpoint(self) -> tuple[bytes, TrainingStep | None] | None:
        """Content of a model file with the state of training, and its last step; None if there is no good model."""
        if self.learner.fitted is None or not self.learner.keep():
            return None
        steps = self.reporter.log.steps
        return self.learner.encoded(steps), (steps[-1] if steps else None)

    def adopt(self, fitted: FittedModel, last: TrainingStep | None, training: TrainingState | None = None) -> None:
        """Go on from a model that was saved after its `last` step. Raises `InputError` if it does not fit the image."""
        self.learner.adopt(fitted, last, training)
        self.relearn()
        self.predictor.expire()
        self._new_generation(fitted)

    def drop_class(self, class_id: int) -> None:
        """Forget a class; without two others the model goes as well."""
        self.relearn()
        before = self.learner.fitted
        self.learner.drop_class(class_id, self._classes.background)
        if before is not None and self.learner.fitted is None:
            self.predictor.clear()
            self.reporter.lost_model()
            self.reporter.lost_predictions()
            return
        for update in self.predictor.drop_class(class_id):
            self.reporter.tile(update)
        self.repeat()

    def drop_gone(self) -> None:
        """Forget classes that are not in the list any more, which a model that was saved before may know."""
        known = self.learner.fitted.classes.ids if self.learner.fitted else ()
        for class_id in known:
            if class_id not in self._classes:
                self.drop_class(class_id)

    # --- learning ---

    def _learn(self, wishes: Wishes) -> bool:
        """Take paint that is new; False if there is none, or too little to learn from."""
        revision = self._store.revision
        if not (wishes.is_training or wishes.once) or revision == self._learnt_revision:
            return False
        classes = self._trainable()
        annotations = self._snapshot(classes) if classes else {}
        if classes is None or not annotations:
            self.relearn()
            return False
        self.reporter.at_work(LiveState.TRAINING, "Learning the latest paint")
        had_pairs = self._has_pairs
        for step in self.learner.learn(annotations, classes):
            self.reporter.step(step)
            if self._switch.is_retired:
                raise AbandonedError
        self._learnt_revision, self._learnt_at = revision, self.learner.step
        if self._has_pairs and not had_pairs:
            self._pairs_since = self.learner.step
        self._owed = 0.0
        self.repeat()
        return True

    @property
    def _has_pairs(self) -> bool:
        """Whether the model learns which pairs of voxels are of one object."""
        return self.learner.fitted is not None and bool(self.learner.fitted.network.heads.offsets)

    @property
    def _n_steps_of_pairs(self) -> int:
        """For how many steps it has learnt that; a model that was taken over since, for all of its steps."""
        n_steps = self.learner.step - self._pairs_since
        return n_steps if n_steps >= 0 else self.learner.step

    def _trainable(self) -> ClassTable | None:
        """Classes that are painted or were learnt before; None if there is too little paint to learn from."""
        background = self._classes.background
        overlapping = self.learner.is_overlapping
        painted = learnable_classes(self._store, self._classes, self.learner.paint, is_overlapping=overlapping)
        if not painted:
            return None
        learnt = self.learner.fitted.classes.ids if self.learner.fitted else ()
        known = tuple(sorted({*painted, *(i for i in learnt if i in self._classes)}))
        return table_of(known, background, overlapping=overlapping)

    def _snapshot(self, classes: ClassTable) -> dict[int, Annotation]:
        store, background, painting = self._store, self._classes.background, self.learner.paint
        taken = {
            frame: store.snapshot(
                frame,
                classes=classes.ids,
                background=background,
                correction_weight=painting.correction_weight,
                halving=painting.correction_halving,
                suggestion_weight=painting.suggestion_weight,
                overlapping=classes.overlapping,
            )
            for frame in store.frames_with_paint()
        }
        return {frame: annotation for frame, annotation in taken.items() if len(annotation)}

    def _can_train(self, wishes: Wishes) -> bool:
        if self._learnt_revision == _NOTHING_LEARNT:
            return False
        return wishes.is_training or self._is_learning_once(wishes.once)

    def _is_learning_once(self, number: int) -> bool:
        if not number:
            return False
        if number != self._once[0]:
            self._once = number, time.perf_counter() + _ONCE_SECONDS
        return time.perf_counter() < self._once[1]

    def _train(self) -> None:
        started = time.perf_counter()
        had_context = self.learner.step > 0
        activity = ""
        for step in self.learner.train(_PIECE_SECONDS):
            self.reporter.step(step)
            activity = _activity(step)
        self._owed = max(0.0, self._owed - (time.perf_counter() - started))
        if not had_context and self.learner.step > 0:  # the pixel head has been fitted thoroughly
            self.repeat()
        self.reporter.at_work(LiveState.TRAINING, activity)
        if time.perf_counter() - self._kept_at > _KEEP_SECONDS:
            self.learner.keep()
            self._kept_at = time.perf_counter()

    # --- predicting ---

    def _predict(self, wishes: Wishes, can_train: bool) -> bool:
        """Predict one tile, or preview a part of the screen; False if nothing is out of date."""
        if not (wishes.is_live or wishes.once) or self.predictor.generation is None:
            return False
        self.predictor.probability_of = wishes.probability_of
        self.predictor.wants_uncertainty, self.predictor.extras = wishes.wants_uncertainty, wishes.extras
        self.predictor.keep_presence_of(wishes.presence_of)
        self.make_room()
        started = time.perf_counter()
        update, for_screen = self._on_screen(wishes), True
        if update is None and self._has_moved(can_train):
            self.repeat()
            update = self._on_screen(wishes)
        if update is None:
            update, for_screen = self._elsewhere(wishes), False
        if update is None:
            return False
        self._owe(time.perf_counter() - started, for_screen, wishes)
        self.reporter.tile(update)
        if can_train:
            self.reporter.at_work(LiveState.TRAINING)
        else:
            what = "Predicting what is on screen" if for_screen else "Predicting the rest"
            self.reporter.at_work(LiveState.PREDICTING, what)
        return True

    def make_room(self) -> None:
        """Forget what was predicted longest ago, if memory is short; nothing that is looked at by now."""
        for forgotten in self.predictor.make_room(self._switch.wishes.view):
            self.reporter.tile(forgotten)

    def _owe(self, seconds: float, for_screen: bool, wishes: Wishes) -> None:
        """So much predicting is worth so much training before the next; "update once" predicts first."""
        worth = _TRAINING_FOR_SCREEN if for_screen else TRAINING_FOR_TILES
        is_owed = wishes.is_training and not self.learner.trains_elsewhere
        self._owed = self._owed + worth * seconds if is_owed else 0.0

    def _on_screen(self, wishes: Wishes) -> TileUpdate | None:
        view, generation = wishes.view, self.predictor.generation
        if view is None or generation is None:
            return None
        frame = view.plane.frame
        preview = self.predictor.glance(view, self.learner.map(frame))
        if preview is not None:
            return preview
        hot = wishes.hot[1] if wishes.hot and wishes.hot[0] == frame else None
        board = self.predictor.board(frame)
        index = board.next_on_screen(view, generation, hot)
        if index is None or (self.predictor.is_full and not board.is_touched(board.box(index))):
            return None
        return self._tile(frame, index)

    def _elsewhere(self, wishes: Wishes) -> TileUpdate | None:
        frame, generation, view = self._switch.frame, self.predictor.generation, wishes.view
        if generation is None:
            return None
        within = None
        if is_large(self.opened.labels):  # which would take more memory and time than there is
            if view is None or self.predictor.is_full:
                return None
            within = view.box.grown(self.predictor.board(frame).tile_shape)
        index = self.predictor.board(frame).next_elsewhere(view, generation, within)
        return None if index is None else self._tile(frame, index)

    def _tile(self, frame: int, index: tuple[int, int, int]) -> TileUpdate:
        started = time.perf_counter()
        update = self.predictor.tile(frame, index, self.learner.map(frame))
        self.reporter.pace.count_tile(update.box, time.perf_counter() - started)
        return update

    def _has_moved(self, can_train: bool) -> bool:
        """Whether the weights are worth another look at the screen."""
        generation, step = self.predictor.generation, self.learner.step
        if generation is None or self.learner.fitted is None:
            return False
        if can_train:
            # a correction is to show soon however long learning went on before: the U-Net takes some steps to learn it
            since = max(0, generation.step - self._learnt_at)
            return step >= max(self._learnt_at + since * _GROWTH, generation.step + _FEWEST_STEPS)
        has_another_mix = self.learner.settle()
        return has_another_mix or step > generation.step

    def _new_generation(self, fitted: FittedModel) -> None:
        self._n_generations += 1
        generation = Generation(self._n_generations, self._learnt_revision, self.learner.step)
        self.predictor.use(self.learner.weights(), fitted.classes, generation)

    # --- objects ---

    def _find(self, find: Find | None) -> bool:
        """Go on looking for objects; False if none are looked for."""
        if find is None or self.learner.fitted is None:
            self._search = None
            if find is not None:
                self._switch.finish_find(find)
            return False
        if self._search is None or self._search[0] is not find:
            feature_map = self.learner.map(find.frame)
            search = ObjectSearch(
                replace(self.learner.fitted, network=self.learner.weights()),
                feature_map,
                self._store,
                self._classes,
                find.frame,
                find.box,
                uses_pairs=self._n_steps_of_pairs >= _STEPS_FOR_PAIRS,
            )
            self._search = find, search, search.work()
        _, search, pieces = self._search
        done = next(pieces, None)
        if done is not None:
            self.reporter.at_work(LiveState.PREDICTING, f"Finding objects, {done:.0%}")
            return True
        self._search = None
        if self._switch.wishes.find is find:  # not cancelled meanwhile
            self.opened.objects.take(self.opened.labels.shape, find.frame, find.box, search.found, search.class_ids)
            self.reporter.objects(find.frame, find.box)
        self._switch.finish_find(find)
        return True

    def _measure(self, wish: Tabulate | None) -> bool:
        """Go on measuring the objects of a frame; False if there are none, or the table is up to date."""
        if wish is None or self.opened.objects.is_empty:
            return False
        done = self._tables.work(wish.frame)
        if done is None and self._told_table is wish:
            return False
        if done is None or done == 1:
            self._told_table = wish
            self.reporter.table(self._tables.table(wish.frame))
        else:
            self.reporter.at_work(LiveState.PREDICTING, f"Measuring objects, {done:.0%}")
        return True

    def _labels_of_objects(self, frame: int, box: Box) -> npt.NDArray[np.uint8]:
        """Predicted classes with the paint over them, by which objects are told to be of a class."""
        store, where, is_overlapping = self._store, (frame, *box.slices), self.learner.paint.overlapping
        allowed = labels_left_possible(store, self._classes, is_overlapping=is_overlapping)
        labels = with_paint(self.opened.labels[where].copy(), store.codes[where].copy(), allowed)
        return labels_of_objects(labels, self.opened.objects.classes, self._classes) if is_overlapping else labels

    # --- resting ---

    def _rest(self, wishes: Wishes) -> None:
        """Say what is waited for."""
        self._switch.finish_once(wishes.once)
        is_trainable = self._trainable() is not None
        has_model = self.learner.fitted is not None
        if not is_trainable and (wishes.is_training or not has_model):
            self.reporter.at_rest(LiveState.WAITING, self._missing_paint())
        elif not has_model:
            self.reporter.at_rest(LiveState.WAITING, "Press Train")
        elif is_trainable and self._learnt_revision != self._store.revision:
            self.reporter.at_rest(LiveState.PAUSED, PAUSED_WITH_NEWS)
        elif self.reporter.is_all_fresh:
            self.reporter.at_rest(LiveState.UP_TO_DATE, "Everything is predicted")
        elif self.predictor.is_full and wishes.is_live:
            self.reporter.at_rest(LiveState.UP_TO_DATE, "Zoom in: there is no memory for all that is on screen")
        elif is_large(self.opened.labels) and wishes.is_live:
            self.reporter.at_rest(LiveState.UP_TO_DATE, "What is on screen is predicted")
        else:
            self.reporter.at_rest(LiveState.PAUSED, "Paused; Train goes on")

    def _missing_paint(self) -> str:
        if self.learner.is_overlapping:
            return missing_paint(self._store, self._classes, self.learner.paint)
        painted = self._store.painted_classes(self._classes.background)
        if self.learner.paint.learns_unlabelled:
            has_background = self._classes.background is not None
            return "Outline some objects" if has_background else "Say which class is the background"
        if not painted:
            return "Paint a little of two classes"
        names = [info.name for info in self._classes.all if info.class_id not in painted]
        return f"Paint some {names[0]} as well" if len(names) == 1 else "Paint a second class as well"


def _activity(step: TrainingStep) -> str:
    before = {"pixel": "Fitting the pixel classifier", "warm-up": "Warming up on the volume"}
    return before.get(step.phase, f"Training, step {step.step}")
