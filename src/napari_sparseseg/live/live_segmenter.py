"""LiveSegmenter: learns while it is painted at. The one object that the widgets talk to."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from napari_sparseseg._types import UNPAINTED, Box, Plane, Region, Shape3D
from napari_sparseseg.config import ModelConfig, PredictionConfig, TrainingConfig
from napari_sparseseg.errors import InputError, NotFittedError, SparseSegError
from napari_sparseseg.live.classes import ClassList
from napari_sparseseg.live.events import (
    ClassInfo,
    Color,
    LiveEvents,
    LiveState,
    LiveStatus,
    PaintChange,
    PaintedSlice,
    View,
)
from napari_sparseseg.live.image import LiveImage
from napari_sparseseg.live.runner import Runner
from napari_sparseseg.live.score import StrokeScore
from napari_sparseseg.live.settings import Settings
from napari_sparseseg.live.switchboard import Switchboard
from napari_sparseseg.storage.journal import Journal
from napari_sparseseg.storage.palette import FIRST_SET
from napari_sparseseg.storage.strokes import AnnotationStore, PaintEdit

if TYPE_CHECKING:
    from napari_sparseseg.live.loop import LiveLoop

T = TypeVar("T")

_log = logging.getLogger(__name__)
_PATIENCE = 30.0  # seconds to wait for the piece of work that is going on
_FIRST_GUESS = 3e-6  # seconds for each predicted voxel


class LiveSegmenter:
    """Paint goes in, predictions come out, what is looked at first; without Qt.

    Its methods are called from one thread (that of the GUI) and return at once. Learning and predicting happen on
    a thread of its own, which starts with the first image and ends with `close`.

    Parameters
    ----------
    device
        "auto" takes a GPU that torch can use, else the CPU; or a torch device such as "cuda:1".
    model, training, prediction
        `ModelConfig`, `TrainingConfig`, `PredictionConfig`; None takes the defaults.
    journal
        Where each stroke is noted before it counts; None keeps them in memory only.

    Attributes
    ----------
    events
        `LiveEvents`: status, tiles, changes of paint and classes, learning curve, failures.
    auto_start
        Whether training starts by itself once two classes are painted, unless it was paused.

    Examples
    --------
    >>> live = LiveSegmenter()
    >>> live.open(image, spacing=(0.5, 0.2, 0.2))  # doctest: +SKIP
    >>> live.annotate(Region(0, box), class_id=2)  # doctest: +SKIP

    """

    def __init__(
        self,
        *,
        device: str = "auto",
        model: ModelConfig | None = None,
        training: TrainingConfig | None = None,
        prediction: PredictionConfig | None = None,
        journal: Journal | None = None,
    ) -> None:
        self.events = LiveEvents()
        self.auto_start = True
        self._settings = Settings(
            model or ModelConfig(), training or TrainingConfig(), prediction or PredictionConfig(), device
        )
        self._journal = journal
        self._classes = ClassList()
        self._switch = Switchboard(self.events)
        self._score = StrokeScore()
        self._runner = Runner(self._work, self._on_error)
        self._was_paused = False
        self._image: LiveImage | None = None
        self._store: AnnotationStore | None = None
        self._labels: npt.NDArray[np.uint8] | None = None
        self._loop: LiveLoop | None = None  # on the compute thread

    @property
    def status(self) -> LiveStatus:
        """The latest snapshot."""
        return self._switch.status

    # --- image ---

    def open(
        self,
        image: Any,
        *,
        channel_axis: int | None = None,
        time_axis: int | None = None,
        spacing: Sequence[float] | None = None,
        journal: Journal | None = None,
    ) -> None:
        """Take an image, (Y, X) or (Z, Y, X) with or without a channel and a time axis; older paint is dropped.

        `spacing` is along z, y, x (y, x). Raises `InputError` or `InputTypeError` for what cannot be used. Loading
        torch and reading the image start in the background, so that the first prediction comes quickly. `journal`
        takes the place of the one before, which the caller closes.
        """
        opened = LiveImage.of(image, channel_axis, time_axis, spacing)
        self._journal = journal or self._journal
        self._image = opened
        self._store = AnnotationStore(opened.shape, journal=self._journal)
        self._labels = np.zeros(opened.shape, np.uint8)
        self._score.clear()
        self._was_paused = False
        self._switch.wish(is_training=False, is_once=False, is_halted=False, view=None, hot=None)
        self._switch.publish(**_fields_of(LiveStatus(LiveState.PREPARING, "Loading torch")))
        self.events.predictions_cleared.emit()
        self.events.curve_cleared.emit()
        self._ask(self._begin)

    @property
    def shape(self) -> tuple[int, int, int, int] | None:
        """Frames (time points), z, y, x; None without image."""
        return self._image.shape if self._image else None

    @property
    def image_shape(self) -> tuple[int, ...] | None:
        """Shape of annotation and labels as the user sees them: the image's without channels."""
        return self._image.image_shape if self._image else None

    def close(self) -> bool:
        """End the thread; paint and predictions stay readable. Whether it ended within a second."""
        return self._runner.close()

    # --- classes ---

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        """All classes, by id."""
        return self._classes.all

    def add_class(self, name: str | None = None, color: Color | None = None) -> ClassInfo:
        """Add a class under the lowest free id, 1..127."""
        info = self._classes.add(name, color)
        self._tell_classes()
        return info

    def rename_class(self, class_id: int, name: str) -> None:
        """Raises `InputError` for an empty name, or one that another class has."""
        self._classes.rename(class_id, name)
        self._tell_classes()

    def recolor_class(self, class_id: int, color: Color) -> None:
        """Change the colour of a class."""
        self._classes.recolor(class_id, color)
        self._tell_classes()

    def set_background(self, class_id: int) -> None:
        """Give the background role to this class."""
        self._classes.set_background(class_id)
        self._tell_classes()
        self._with_loop(lambda loop: loop.relearn())

    def remove_class(self, class_id: int) -> None:
        """Remove a class with its paint; the model forgets it. Raises `InputError` for one of the last two."""
        self._classes.remove(class_id)
        if self._store is not None:
            for edit in self._store.remove_class(class_id, class_ids=self._classes.ids):
                self._tell_paint(edit)
        self._tell_classes()
        self._with_loop(lambda loop: loop.drop_class(class_id))

    # --- paint ---

    def annotate(self, region: Region, class_id: int, *, plane: Plane | None = None) -> None:
        """Paint a class, or a set of classes by its code, on the annotation; 0 erases.

        `plane` is the slice that the stroke was made on. Raises `InputError` for an unknown class or a region outside
        the image.
        """
        store = self._opened()
        if 0 < class_id < FIRST_SET:
            self._check_class(class_id)
            self._score_stroke(region, class_id)
        self._take(store.annotate(region, class_id, plane), region)

    def annotate_values(self, region: Region, codes: npt.NDArray[np.uint8], *, plane: Plane | None = None) -> None:
        """The same with a code for each voxel of the region's box."""
        for class_id in np.unique(codes[(codes > 0) & (codes < FIRST_SET)]).tolist():
            self._check_class(class_id)
        self._take(self._opened().annotate(region, codes, plane), region)

    def correct(
        self, region: Region, class_id: int, *, shown: npt.NDArray[np.uint8], plane: Plane | None = None
    ) -> None:
        """Paint a class on the prediction: voxels are pinned to it; where it was `shown` already, that confirms it.

        `shown` are the labels of the region's box before the stroke. Class 0 erases: paint of one class goes; elsewhere
        it says "not the class that was shown", but nothing about voxels that showed the background or nothing.
        """
        store = self._opened()
        if class_id:
            self._check_class(class_id)
        ids, background = self._classes.ids, self._classes.background
        self._take(store.correct(region, class_id, shown, plane, class_ids=ids, background=background), region)

    def undo(self) -> bool:
        """Take the last stroke back, on whichever layer it was made; False if there is none."""
        return self._take(self._opened().undo())

    def redo(self) -> bool:
        """Make the stroke again that was taken back last; False if there is none."""
        return self._take(self._opened().redo())

    def code_for_any_of(self, class_ids: Sequence[int]) -> int:
        """The code to `annotate` with that means "one of these classes"."""
        for class_id in class_ids:
            self._check_class(class_id)
        return self._opened().code_for(any_of=class_ids)

    def set_complete(self, plane: Plane, complete: bool) -> None:
        """Say that all that is unpainted on this slice is background, or take that back.

        Raises `InputError` if no class has the background role, or for a slice outside the image.
        """
        if complete and self._classes.background is None:
            raise InputError("no class has the background role; give it to one first, then mark the slice complete")
        self._take(self._opened().set_complete(plane, complete))

    def painted_slices(self) -> tuple[PaintedSlice, ...]:
        """Slices that strokes were made on or that are complete, in order."""
        if self._store is None:
            return ()
        return tuple(PaintedSlice(*found) for found in self._store.painted_slices())

    @property
    def codes(self) -> npt.NDArray[np.uint8] | None:
        """The annotation's codes, (frames, z, y, x), read-only: 0 unpainted, 1..127 classes, 128..254 sets."""
        return self._store.codes if self._store else None

    def allowed(self, code: int) -> frozenset[int]:
        """Class ids that a code leaves possible."""
        return self._opened().allowed(code, self._classes.ids)

    # --- wishes ---

    def start(self) -> None:
        """Train until `pause`; waits where fewer than two classes are painted."""
        self._opened()
        self._was_paused = False
        self._wish(is_training=True, is_halted=False)

    def pause(self) -> None:
        """Stop training; what is out of date is still predicted, if predictions are live."""
        self._was_paused = True
        self._wish(is_training=False, is_once=False)

    def update_once(self) -> None:
        """Learn what was painted in a short burst, predict everything once, then rest."""
        self._opened()
        self._wish(is_once=True, is_halted=False)

    def reset_model(self) -> None:
        """Forget what was learnt and drop the predictions; the paint stays. Training goes on if it was on."""
        self._opened()
        self._score.clear()
        self._switch.wish(is_halted=False)
        self._ask(self._begin)

    def set_live(self, live: bool) -> None:
        """Whether predictions are kept fresh."""
        self._wish(is_live=live, is_halted=self._switch.wishes.is_halted and not live)

    def look_at(self, view: View) -> None:
        """Tell what is on screen: that is predicted first."""
        if self._image is not None and view != self._switch.wishes.view:
            self._wish(view=view)

    def show_probability(self, class_id: int | None) -> None:
        """Hand out the probability of this class with each tile from now on (None: no longer)."""
        self._switch.wish(probability_of=class_id)
        self._with_loop(lambda loop: loop.repeat())

    def show_uncertainty(self, wanted: bool) -> None:
        """Hand out the uncertainty with each tile from now on, or no longer."""
        self._switch.wish(wants_uncertainty=wanted)
        self._with_loop(lambda loop: loop.repeat())

    def configure(
        self,
        *,
        model: ModelConfig | None = None,
        training: TrainingConfig | None = None,
        prediction: PredictionConfig | None = None,
        device: str | None = None,
    ) -> None:
        """Change settings; those of model and device take hold with the next `reset_model` or image."""
        old = self._settings
        settings = Settings(
            model or old.model, training or old.training, prediction or old.prediction, device or old.device
        )
        self._settings = settings
        self._with_loop(lambda loop: loop.configure(settings))

    @property
    def settings(self) -> Settings:
        """Configurations and device as they were asked for."""
        return self._settings

    # --- results ---

    @property
    def tile_shape(self) -> Shape3D | None:
        """Tiles of the freshness map, in voxels."""
        return self._loop.predictor.board(0).tile_shape if self._loop else None

    def freshness(self, frame: int) -> npt.NDArray[np.uint8]:
        """One number for each tile, (tiles along z, y, x): 0 never predicted, 1 stale, 2 fresh."""
        loop = self._loop
        if loop is None:
            return np.zeros((1, 1, 1), np.uint8)
        return loop.predictor.board(frame).states(loop.predictor.generation)

    def labels(self, frame: int, box: Box | None = None) -> npt.NDArray[np.uint8]:
        """What the prediction layer should show: predicted class ids, paint of one class over them; a copy."""
        codes = self._opened().codes[frame]
        assert self._labels is not None  # noqa: S101 - it comes with the store
        where = (box or Box.whole(self._labels.shape[1:])).slices
        painted = codes[where]
        is_pinned = (painted != UNPAINTED) & (painted < FIRST_SET)
        shown: npt.NDArray[np.uint8] = np.where(is_pinned, painted, self._labels[frame][where])
        return shown

    def estimate_seconds(self, n_voxels: int) -> float:
        """Expected time to predict so many voxels on this machine: as measured so far, or a first guess."""
        measured = self._loop.seconds_per_voxel if self._loop else None
        return n_voxels * (measured or _FIRST_GUESS)

    def save_model(self, path: str | os.PathLike[str]) -> None:
        """Write the model, between two steps; `SparseSegmenter.load` reads it.

        Raises `NotFittedError` if nothing was learnt, `InputError` for an unusable path.
        """
        if self._loop is None or not self.status.has_model:
            raise NotFittedError("there is no model to save yet; paint two classes and train first")
        loop = self._loop
        self._wait_for(self._runner.call(lambda: loop.save(path)))

    def load_model(self, path: str | os.PathLike[str]) -> None:
        """Go on from a saved model, whose classes are added to the list.

        Raises `ModelFileError` for a file that cannot be trusted, `InputError` if the model does not fit the image.
        """
        self._opened()
        for class_id in self._wait_for(self._runner.call(lambda: self._adopt(path))):
            if class_id not in self._classes:
                self._classes.add(class_id=class_id)
        self._tell_classes()
        self._wish(is_halted=False)

    # --- on the compute thread ---

    def _begin(self) -> None:
        """Make a new loop for the image; loading torch takes a second."""
        from napari_sparseseg.live.learner import Learner
        from napari_sparseseg.live.loop import LiveLoop
        from napari_sparseseg.live.predictor import LivePredictor

        image, store, labels = self._image, self._store, self._labels
        if image is None or store is None or labels is None:
            return
        self._loop = None
        labels.fill(0)
        predictor = LivePredictor(labels, store.codes, self.allowed)
        learner = Learner(image, self._settings)
        loop = LiveLoop(store, self._classes, learner, predictor, self._switch, self.events, self._score)
        loop.announce()
        self._loop = loop
        loop.prepare()

    def _adopt(self, path: str | os.PathLike[str]) -> tuple[int, ...]:
        from napari_sparseseg.engine.checkpoint import load_model

        fitted, _, _ = load_model(path)
        if self._loop is None:
            raise InputError("the image is still being read; try again in a moment")
        self._loop.adopt(fitted)
        return fitted.classes.ids

    def _work(self) -> bool:
        return self._loop.work() if self._loop else False

    def _on_error(self, error: Exception) -> None:
        """A run has ended: halt, keep all paint, and say why."""
        if not isinstance(error, SparseSegError):
            _log.error("the live loop failed", exc_info=error)
        message = _explain(error)
        if self._loop is not None:
            self._loop.recover(error)
        self._switch.wish(is_training=False, is_once=False, is_halted=True)
        self._switch.publish(state=LiveState.FAILED, activity="Stopped by an error", error=message)
        self.events.failed.emit(message)

    # --- between ---

    def _opened(self) -> AnnotationStore:
        if self._store is None:
            raise InputError("there is no image yet; open one first")
        return self._store

    def _check_class(self, class_id: int) -> None:
        if class_id not in self._classes:
            raise InputError(f"there is no class {class_id}; add it first, or paint one of {self._classes.ids}")

    def _take(self, edit: PaintEdit | None, region: Region | None = None) -> bool:
        """Tell of a change of paint, and wake the thread; False if there was none."""
        if edit is None:
            return False
        box = edit.box
        middle = [(a + b) // 2 for a, b in zip(box.start, box.stop, strict=True)]
        self._switch.wish(hot=(edit.frame, (middle[0], middle[1], middle[2])) if region else None)
        self._tell_paint(edit)
        self._start_by_itself()
        self._runner.wake()
        return True

    def _start_by_itself(self) -> None:
        wishes = self._switch.wishes
        if not self.auto_start or self._was_paused or wishes.is_training or wishes.is_halted:
            return
        if len(self._opened().painted_classes(self._classes.background)) > 1:
            self._switch.wish(is_training=True)

    def _score_stroke(self, region: Region, class_id: int) -> None:
        """Compare a stroke with what was predicted there, where nothing was painted before."""
        codes, labels = self._opened().codes, self._labels
        if labels is None or not 0 <= region.frame < len(labels):
            return
        where = (region.frame, *region.box.slices)
        fresh = codes[where] == UNPAINTED
        if region.mask is not None and region.mask.shape == fresh.shape:
            fresh &= region.mask
        self._score.add(labels[where][fresh], class_id)

    def _tell_paint(self, edit: PaintEdit) -> None:
        self.events.paint_changed.emit(PaintChange(edit.frame, edit.box, self._opened().revision))

    def _tell_classes(self) -> None:
        self.events.classes_changed.emit(self._classes.all)

    def _wish(self, **changes: Any) -> None:
        self._switch.wish(**changes)
        if self._image is not None:
            self._runner.wake()

    def _ask(self, function: Callable[[], None]) -> None:
        """Have something done on the compute thread; what goes wrong there is told like any failure."""
        self._runner.call(function).add_done_callback(self._report)

    def _with_loop(self, function: Callable[[LiveLoop], None]) -> None:
        self._ask(lambda: function(self._loop) if self._loop else None)

    def _report(self, future: Future[None]) -> None:
        if not future.cancelled():
            error = future.exception()
            if isinstance(error, Exception):
                self._on_error(error)

    @staticmethod
    def _wait_for(future: Future[T]) -> T:
        try:
            return future.result(timeout=_PATIENCE)
        except (TimeoutError, CancelledError):
            raise InputError("the compute thread does not answer; pause the training, then try again") from None


def _fields_of(status: LiveStatus) -> dict[str, Any]:
    return {name: getattr(status, name) for name in LiveStatus.__dataclass_fields__}


def _explain(error: Exception) -> str:
    """One sentence on what went wrong and what to do."""
    from napari_sparseseg.engine.device import is_out_of_memory

    if isinstance(error, SparseSegError):
        return str(error)
    if is_out_of_memory(error):
        return (
            "Memory ran out. Choose a smaller patch size or feature cache under Advanced, a smaller working region, or "
            "close other programs; then press Train"
        )
    return f"Something unexpected went wrong ({type(error).__name__}: {error}). Press Train to try again"
