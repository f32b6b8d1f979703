"""LiveSegmenter: learns while it is painted at. The one object that the widgets talk to."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_sparseseg._types import MAX_CLASSES, NO_OBJECT, UNPAINTED, Box, Extra, Plane, Region, Shape3D
from napari_sparseseg.config import ModelConfig, PaintConfig, PredictionConfig, TrainingConfig
from napari_sparseseg.errors import InputError, NotFittedError
from napari_sparseseg.live.board import grid_of, live_tile_shape
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
    tell,
)
from napari_sparseseg.live.found_objects import FoundObjects
from napari_sparseseg.live.image import LiveImage
from napari_sparseseg.live.keeper import Keeper
from napari_sparseseg.live.keeping import Keeping
from napari_sparseseg.live.kept import class_infos, settings_of
from napari_sparseseg.live.opened import Opened
from napari_sparseseg.live.overlap import learnable_classes, shown_presence
from napari_sparseseg.live.settings import Settings
from napari_sparseseg.live.shown import Allowed, labels_left_possible, with_paint
from napari_sparseseg.live.suggestions import Suggestions
from napari_sparseseg.live.switchboard import Advise, Switchboard, Wishes
from napari_sparseseg.live.whole import WholePrediction
from napari_sparseseg.live.worker import Worker
from napari_sparseseg.storage.journal import Journal
from napari_sparseseg.storage.object_ids import ObjectIds
from napari_sparseseg.storage.palette import FIRST_SET
from napari_sparseseg.storage.project.image import ProjectImage
from napari_sparseseg.storage.project.loading import LoadedAnnotation
from napari_sparseseg.storage.sparse import is_large, zeros
from napari_sparseseg.storage.strokes import AnnotationStore, PaintEdit, StrokeAuthor

if TYPE_CHECKING:
    from napari_sparseseg.engine.model import FittedModel

_FIRST_GUESS = 3e-6  # seconds for each predicted voxel


class LiveSegmenter:
    """Paint goes in, predictions come out, what is looked at first; without Qt.

    Its methods are called from one thread (that of the GUI) and return at once. Learning and predicting happen on
    a thread of its own, which starts with the first image and ends with `close`.

    Parameters
    ----------
    device
        "auto" takes a GPU that torch can use, else the CPU; or a torch device such as "cuda:1"; or the address of a
        Dask scheduler, such as "tcp://host:8786": then a worker of it trains, which must be able to read the image, and
        what is on screen is still predicted here.
    model
        Shape of the network; None takes the defaults.
    training
        How it learns; None takes the defaults.
    paint
        How much paint counts, and how strokes grow; None takes the defaults.
    prediction
        How it predicts; None takes the defaults.
    journal
        Where each stroke is noted before it counts; None keeps them in memory only.

    Attributes
    ----------
    events
        `LiveEvents`: status, tiles, changes of paint and classes, learning curve, failures.
    auto_start
        Whether training starts by itself once enough is painted, mostly two classes, unless it was paused.
    keeping
        `Keeping`: saves all that belongs to the project, and brings earlier states back.
    found
        `FoundObjects`: finds objects, and merges, splits, deletes and fills them.
    suggestions
        `Suggestions`: proposes paint around strokes and between slices, to be accepted or refused.
    whole
        `WholePrediction`: predicts all of the image into its project, in the background.

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
        paint: PaintConfig | None = None,
        prediction: PredictionConfig | None = None,
        journal: Journal | None = None,
    ) -> None:
        self.events = LiveEvents()
        self.auto_start = True
        self._settings = Settings(
            model or ModelConfig(),
            training or TrainingConfig(),
            prediction or PredictionConfig(),
            device,
            paint or PaintConfig(),
        )
        self._journal = journal
        self._classes = ClassList()
        self._switch = Switchboard(self.events)
        self._worker = Worker(self._classes, self._settings)
        self._work: Opened | None = None
        self._was_paused = False
        self._n_updates = 0
        self.found = FoundObjects(
            lambda: self._work,
            self._classes,
            lambda: self._settings.paint,
            self.labels,
            self._take,
            self._wish,
            self._worker.compute,
        )
        self.suggestions = Suggestions(
            lambda: self._work, self._classes, lambda: self._settings.paint, self._take, self._worker.compute
        )
        self.whole = WholePrediction(
            lambda: self._work, self._worker.checkpoint, lambda: self._settings, self._left_possible, self.events
        )
        self.keeping = Keeping(
            lambda: self._work,
            self._classes,
            self._worker,
            lambda: self._settings,
            self.events,
            self.whole,
            self._tell_classes,
            self._take,
        )

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
        project: ProjectImage | None = None,
    ) -> None:
        """Take an image, (Y, X) or (Z, Y, X) with or without a channel and a time axis; older paint is dropped.

        `spacing` is along z, y, x (y, x). Raises `InputError` or `InputTypeError` for what cannot be used. Loading
        torch and reading the image start in the background, so that the first prediction comes quickly. `journal`
        takes the place of the one before, which the caller closes.

        With an image of a `project`, its annotation, the objects that were found in it, classes, settings, prediction,
        model and learning curve come back, and from now on all of them are saved there; the caller closes the project
        after `close`. Raises `InputError` if the project's image has another shape, `ProjectError` or OSError if it
        cannot be read. Whatever is raised, the image before stays open, and is saved on.
        """
        journal = None if project is not None else journal or self._journal
        # first all that may fail: until then what is open is saved, and afterwards as it was, with its own classes
        try:
            taken = LiveImage.of(image, channel_axis, time_axis, spacing)
            keeper = self.keeping.prepare(project, taken.shape, journal)
            loaded, labels = self._loaded(project, keeper, taken.shape, journal)
        except BaseException:
            self.keeping.go_on()
            raise
        self.keeping.stop()
        store, objects = loaded.store, loaded.objects or ObjectIds()
        if project is not None:
            self._take_over(project, loaded)
        before = self._switch
        before.retire()
        old = before.wishes
        wishes = Wishes(
            is_live=old.is_live,
            probability_of=old.probability_of,
            wants_uncertainty=old.wants_uncertainty,
            extras=old.extras,
        )
        status = LiveStatus(LiveState.PREPARING, "Loading torch", is_live=wishes.is_live)
        self._switch = Switchboard(self.events, wishes, status)
        self._journal = journal
        self._was_paused = False
        self._work = Opened(taken, store, labels, self._switch, project, objects=objects)
        self._switch.tell(self.events.status_changed, status)
        self._switch.tell(self.events.predictions_cleared)
        self._switch.tell(self.events.curve_cleared)
        if project is not None:
            self._tell_classes()
            self._switch.publish(revision=store.revision)
        self.keeping.start(keeper, self._work)
        self.suggestions.refuse()
        self.whole.look()
        self._worker.open(self._work)

    @property
    def shape(self) -> tuple[int, int, int, int] | None:
        """Frames (time points), z, y, x; None without image."""
        return self._work.image.shape if self._work else None

    @property
    def image_shape(self) -> tuple[int, ...] | None:
        """Shape of annotation and labels as the user sees them: the image's without channels."""
        return self._work.image.image_shape if self._work else None

    @property
    def project(self) -> ProjectImage | None:
        """The image of a project that is worked on."""
        return self._work.project if self._work else None

    def close(self) -> bool:
        """Save what belongs to a project and end the thread; paint and predictions stay readable, signals end.

        Whether it ended within a second; else it ends with its piece of work. Saving may take some seconds more.
        """
        if self._work is not None and not self._switch.is_retired:
            self._switch.wish(is_training=False, once=0)
            self._switch.publish(state=LiveState.PAUSED, activity="Closed", steps_per_second=0.0, seconds_left=None)
        self.keeping.stop()
        self._switch.retire()
        is_whole_ended = self.whole.close()
        return self._worker.close() and is_whole_ended

    def _loaded(
        self,
        project: ProjectImage | None,
        keeper: Keeper,
        shape: tuple[int, int, int, int],
        journal: Journal | None,
    ) -> tuple[LoadedAnnotation, npt.NDArray[np.uint8]]:
        """Annotation and objects, those of a project if there is one, and an array for the prediction."""
        try:
            labels = zeros(shape, np.uint8)
            if project is None:
                return LoadedAnnotation(AnnotationStore(shape, journal=journal)), labels
            return project.open(keeper.hear_journal), labels
        except MemoryError:
            raise InputError(
                f"there is not enough memory to work on an image of shape {shape}; choose a working region, or close "
                "other programs"
            ) from None

    def _take_over(self, project: ProjectImage, loaded: LoadedAnnotation) -> None:
        """Take classes and settings of a project; a new project takes those that are set here."""
        if project.project.classes:
            self._classes.restore(class_infos(project.project.classes), project.project.highest_class)
            self._settings = settings_of(project.project.settings)
            self._worker.configure(self._settings)
        self._classes.add_missing(loaded.store.named_classes())
        for problem in (*project.project.problems, *loaded.problems):
            tell(self.events.noticed, problem)

    # --- classes ---

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        """All classes, by id."""
        return self._classes.all

    def add_class(self, name: str | None = None, color: Color | None = None) -> ClassInfo:
        """Add a class under an id, 1..127, that none has had before, not even one that was removed.

        Where they are used up, under the lowest free one. Raises `InputError` for a name that another class has.
        """
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
        self._worker.change(lambda loop: loop.relearn())

    def remove_class(self, class_id: int) -> None:
        """Remove a class with its paint; the model forgets it. Raises `InputError` for one of the last two."""
        self._classes.remove(class_id)
        if self._work is not None:
            self._work.score.forget(class_id)
            # where classes may overlap, a set of one class is not that class
            remaining = None if self.is_overlapping else self._classes.ids
            for edit in self._work.store.remove_class(class_id, class_ids=remaining):
                self._tell_paint(edit)
        self._tell_classes()
        self._worker.change(lambda loop: loop.drop_class(class_id))
        self.keeping.note_model()

    # --- paint ---

    def annotate(
        self,
        region: Region,
        class_id: int,
        *,
        plane: Plane | None = None,
        by: StrokeAuthor = StrokeAuthor.HUMAN,
        object_id: int = NO_OBJECT,
    ) -> None:
        """Paint a class, or a set of classes by its code, on the annotation; 0 erases.

        `plane` is the slice that the stroke was made on, `by` who made it, `object_id` the object that it belongs to,
        0 if that is not said. Raises `InputError` for an unknown class, an impossible id or a region outside the image.
        """
        predicted = None
        if 0 < class_id < FIRST_SET:
            self._check_class(class_id)
            if self.is_overlapping:
                self.say(region, class_id, is_present=True, plane=plane, object_id=object_id)
                return
            predicted = self._predicted_where_unpainted(region)
        if (
            self._take(self._store.annotate(region, class_id, plane, by=by, object_id=object_id))
            and predicted is not None
        ):
            self._opened().score.add(predicted, class_id)

    def annotate_values(self, region: Region, codes: npt.NDArray[np.uint8], *, plane: Plane | None = None) -> None:
        """The same with a code for each voxel of the region's box."""
        for class_id in np.unique(codes[(codes > 0) & (codes < FIRST_SET)]).tolist():
            self._check_class(class_id)
        self._take(self._store.annotate(region, codes, plane))

    def correct(
        self,
        region: Region,
        class_id: int,
        *,
        shown: npt.NDArray[np.uint8],
        plane: Plane | None = None,
        object_id: int = NO_OBJECT,
    ) -> None:
        """Paint a class on the prediction: voxels are pinned to it; where it was `shown` already, that confirms it.

        `shown` are the labels of the region's box before the stroke. Class 0 erases: paint of one class goes; elsewhere
        it says "not the class that was shown", but nothing about voxels that showed the background or nothing.
        `object_id` is as in `annotate`.
        """
        if class_id:
            self._check_class(class_id)
        ids, background = self._classes.ids, self._classes.background
        if self.is_overlapping:
            said = class_id or np.where(shown == background, UNPAINTED, shown)
            self.say(region, said, is_present=class_id != UNPAINTED, plane=plane, shown=shown, object_id=object_id)
            return
        self._take(
            self._store.correct(
                region, class_id, shown, plane, class_ids=ids, background=background, object_id=object_id
            )
        )

    @property
    def is_overlapping(self) -> bool:
        """Whether classes may overlap: then paint says of a class that it is there, and nothing of the others."""
        return self._settings.paint.overlapping

    def say(
        self,
        region: Region,
        class_id: int | npt.NDArray[np.uint8],
        *,
        is_present: bool,
        plane: Plane | None = None,
        shown: npt.NDArray[np.uint8] | None = None,
        object_id: int = NO_OBJECT,
    ) -> None:
        """Say of a class that may overlap others that it is there, or that it is not; what was said of others stays.

        `class_id` may be one for each voxel of the region's box, 0 where nothing is said; `shown` are labels that are
        corrected. The background says that no other class is there. Raises `InputError` for an unknown class or a
        region outside the image.
        """
        for each in np.unique(class_id).tolist():
            if each != UNPAINTED:
                self._check_class(each)
        ids, background = self._classes.ids, self._classes.background
        self._take(
            self._store.say(
                region,
                class_id,
                is_present=is_present,
                class_ids=ids,
                background=background,
                plane=plane,
                shown=shown,
                object_id=object_id,
            )
        )

    def presence(self, class_id: int, frame: int, box: Box) -> npt.NDArray[np.bool_]:
        """Where a class is in a box: as predicted, if `keep_presence_of` asked for it, and as painted over that."""
        work, loop = self._opened(), self._worker.loop
        where = (frame, *box.slices)
        kept = loop.predictor.presence.get(class_id) if loop else None
        predicted = np.zeros(box.shape, np.bool_) if kept is None else kept[where]
        return shown_presence(work.store, class_id, predicted, work.store.codes[where].copy(), self._classes)

    def keep_presence_of(self, class_ids: Collection[int]) -> None:
        """Keep where each of these classes is, beside the likeliest one, from now on; of no others."""
        self._switch.wish(presence_of=frozenset(class_ids))
        self._worker.change(lambda loop: loop.repeat())

    @property
    def next_object_id(self) -> int:
        """An id that no painted object has; 1 where no image is open."""
        return 1 if self._work is None else self._work.store.next_object_id

    def objects(self, frame: int, box: Box) -> npt.NDArray[np.int32]:
        """Ids of the painted objects in a box, of its shape, 0 where nothing was said; zeros where no image is open."""
        return np.zeros(box.shape, np.int32) if self._work is None else self._work.store.objects(frame, box)

    def undo(self) -> bool:
        """Take the last stroke or correction of objects back, on whichever layer; False if there is none."""
        return self.found.undo()

    def redo(self) -> bool:
        """Make the stroke or correction again that was taken back last; False if there is none."""
        return self.found.redo()

    @property
    def can_undo(self) -> bool:
        """Whether there is a stroke or correction to take back."""
        return self.found.can_undo

    @property
    def can_redo(self) -> bool:
        """Whether there is a stroke or correction to make again."""
        return self.found.can_redo

    def code_for_any_of(self, class_ids: Sequence[int]) -> int:
        """The code to `annotate` with that means "one of these classes"."""
        for class_id in class_ids:
            self._check_class(class_id)
        return self._store.code_for(any_of=class_ids)

    def set_complete(self, plane: Plane, complete: bool) -> None:
        """Say that all that is unpainted on this slice is background, or take that back.

        Raises `InputError` if no class has the background role, or for a slice outside the image.
        """
        if complete and self._classes.background is None:
            raise InputError("no class has the background role; give it to one first, then mark the slice complete")
        self._take(self._store.set_complete(plane, complete))

    def painted_slices(self) -> tuple[PaintedSlice, ...]:
        """Slices that strokes were made on or that are complete, in order."""
        if self._work is None:
            return ()
        return tuple(PaintedSlice(*found) for found in self._work.store.painted_slices())

    def painted_classes(self) -> tuple[int, ...]:
        """Ids of the classes that voxels were painted with, ascending."""
        return self._work.store.painted_classes() if self._work else ()

    @property
    def codes(self) -> npt.NDArray[np.uint8] | None:
        """The annotation's codes, (frames, z, y, x), read-only: 0 unpainted, 1..127 classes, 128..254 sets."""
        return self._work.store.codes if self._work else None

    def allowed(self, code: int) -> frozenset[int]:
        """Class ids that a code leaves possible."""
        return self._store.allowed(code, self._classes.ids)

    # --- wishes ---

    def start(self) -> None:
        """Train until `pause`; waits where fewer than two classes are painted."""
        self._opened()
        self._was_paused = False
        self._wish(is_training=True, is_halted=False)

    def pause(self) -> None:
        """Stop training; what is out of date is still predicted, if predictions are live."""
        self._was_paused = True
        self._wish(is_training=False, once=0)
        self.keeping.save()

    @property
    def was_paused(self) -> bool:
        """Whether training does not start by itself, since it was paused; opening an image ends that."""
        return self._was_paused

    def update_once(self) -> None:
        """Learn what was painted in a short burst, predict everything once, then rest."""
        self._opened()
        self._n_updates += 1
        self._wish(once=self._n_updates, is_halted=False)

    def reset_model(self) -> None:
        """Forget what was learnt and drop the predictions; the paint stays. Training goes on if it was on."""
        self._begin_anew(None)

    def start_from(self, path: str | os.PathLike[str]) -> None:
        """As `reset_model`, but begin with what a saved model of other images, maybe of other classes, knows of images.

        The classes stay those of the list. Raises `ModelFileError` for a file that cannot be trusted, `InputError` if
        the model knows other channels or voxels of another shape.
        """
        self._opened()
        self._begin_anew(self._worker.read_start(path))

    def _begin_anew(self, start: FittedModel | None) -> None:
        self._opened().score.clear()
        self._switch.wish(is_halted=False, find=None)
        with self.keeping.forgetting_model():
            self._worker.reset(start)

    def suggest_slice(self) -> None:
        """Look for the slice to paint next, of the orientation and the time point on screen.

        Returns at once; `LiveEvents.slice_suggested` brings the answer. `PredictionConfig.next_slice` chooses the
        method; while there is no model, it is fixed intervals. Raises `InputError` if there is no other slice.
        """
        opened = self._opened()
        view = opened.switch.wishes.view
        plane = view.plane if view else Plane(0, 0, 0)
        if opened.image.shape[1 + plane.axis] == 1:
            raise InputError("this is a single slice, so there is no other one to suggest")
        painted = [s.plane.index for s in self.painted_slices() if s.plane == replace(plane, index=s.plane.index)]
        method = self._settings.prediction.next_slice
        self._wish(advise=Advise(plane.frame, plane.axis, tuple(painted), method), is_halted=False)

    def set_live(self, live: bool) -> None:
        """Whether predictions are kept fresh."""
        self._wish(is_live=live, is_halted=self._switch.wishes.is_halted and not live)

    def look_at(self, view: View) -> None:
        """Tell what is on screen: that is predicted first. Raises `InputError` for a plane outside the image."""
        if self._work is None or view == self._switch.wishes.view:
            return
        n_frames, *shape = self._work.image.shape
        plane = view.plane
        if not (0 <= plane.frame < n_frames and plane.axis in (0, 1, 2) and 0 <= plane.index < shape[plane.axis]):
            raise InputError(f"{plane} is not a slice of an image of shape {self._work.image.shape}")
        self._wish(view=replace(view, box=view.box.clipped(plane.box(self._work.image.shape[1:]))))

    def show_probability(self, class_id: int | None) -> None:
        """Hand out the probability of this class with each tile from now on (None: no longer)."""
        self._switch.wish(probability_of=class_id)
        self._worker.change(lambda loop: loop.repeat())

    def show_uncertainty(self, wanted: bool) -> None:
        """Hand out the uncertainty with each tile from now on, or no longer."""
        self._switch.wish(wants_uncertainty=wanted)
        self._worker.change(lambda loop: loop.repeat())

    def show_candidates(self, wanted: bool) -> None:
        """Hand out the second of the candidate classes with each tile from now on, or no longer.

        They are learnt if `PaintConfig.candidates` says so.
        """
        self._show_extra("candidates", wanted)

    def show_novelty(self, wanted: bool) -> None:
        """Hand out what is like nothing that was painted with each tile from now on, or no longer.

        It is known if `PaintConfig.novelty` says so.
        """
        self._show_extra("novelty", wanted)

    def _show_extra(self, extra: Extra, wanted: bool) -> None:
        extras = self._switch.wishes.extras
        self._switch.wish(extras=extras | {extra} if wanted else extras - {extra})
        self._worker.change(lambda loop: loop.tell_extra(extra) if wanted else loop.repeat())

    def configure(
        self,
        *,
        model: ModelConfig | None = None,
        training: TrainingConfig | None = None,
        paint: PaintConfig | None = None,
        prediction: PredictionConfig | None = None,
        device: str | None = None,
    ) -> None:
        """Change settings; those of `paint` take hold with the next stroke, of model and device at `reset_model`."""
        old = self._settings
        self._settings = Settings(
            model or old.model,
            training or old.training,
            prediction or old.prediction,
            device or old.device,
            paint or old.paint,
        )
        self._worker.configure(self._settings)

    @property
    def settings(self) -> Settings:
        """Configurations and device as they were asked for."""
        return self._settings

    # --- results ---

    @property
    def tile_shape(self) -> Shape3D | None:
        """Tiles of the freshness map, in voxels; the same as long as the image is."""
        return live_tile_shape(self._work.image.shape[1:]) if self._work else None

    def freshness(self, frame: int) -> npt.NDArray[np.uint8]:
        """One number for each tile, (tiles along z, y, x): 0 never predicted, 1 stale, 2 fresh."""
        if self._work is None:
            return np.zeros((1, 1, 1), np.uint8)
        shape, loop = self._work.image.shape[1:], self._worker.loop
        states = loop.predictor.states(frame) if loop else None
        return np.zeros(grid_of(shape, live_tile_shape(shape)), np.uint8) if states is None else states

    def known_boxes(self, frame: int) -> list[Box]:
        """Boxes outside of which nothing was painted or predicted in a frame; one of all for an image of usual size."""
        work, loop = self._opened(), self._worker.loop
        shape = work.image.shape[1:]
        if not is_large(work.labels):
            return [Box.whole(shape)]
        predicted = loop.predictor.known_boxes(frame) if loop else []
        return [*predicted, *work.store.painted_boxes(frame)]

    def labels(self, frame: int, box: Box | None = None) -> npt.NDArray[np.uint8]:
        """What the prediction layer should show: predicted class ids, and what was painted over them; a copy.

        0 where nothing is known, or where the class that was predicted has been ruled out since.
        """
        work = self._opened()
        if box is None and is_large(work.labels):
            raise InputError(
                "the image is too large for all of its labels at once; save the model and let napari-sparseseg predict "
                "write them"
            )
        where = (frame, *(box or Box.whole(work.image.shape[1:])).slices)
        codes = work.store.codes[where].copy()  # another thread may be painting
        return with_paint(work.labels[where].copy(), codes, self._left_possible(work))

    def estimate_seconds(self, n_voxels: int) -> float:
        """Expected time to predict so many voxels on this machine: as measured so far, or a first guess."""
        measured = self._worker.loop.reporter.pace.seconds_per_voxel if self._worker.loop else None
        return n_voxels * (measured or _FIRST_GUESS)

    def save_model(self, path: str | os.PathLike[str]) -> None:
        """Write the model, between two steps; `SparseSegmenter.load` reads it.

        Raises `NotFittedError` if nothing was learnt, `InputError` for an unusable path.
        """
        if not self.status.has_model:
            raise NotFittedError("there is no model to save yet; paint two classes and train first")
        self._worker.save(path)

    def load_model(self, path: str | os.PathLike[str]) -> None:
        """Go on from a saved model, whose classes are added to the list.

        Raises `ModelFileError` for a file that cannot be trusted, `InputError` if the model does not fit the image.
        """
        self._opened()
        fitted, last = self._worker.read_model(path)
        too_high = [class_id for class_id in fitted.classes.ids if class_id > MAX_CLASSES]
        if too_high:
            raise InputError(f"the model knows class {too_high[0]}, but only {MAX_CLASSES} classes can be painted here")
        # first the classes: what is not in the list is not learnt
        self._classes.add_missing(fitted.classes.ids)
        if fitted.classes.overlapping != self.is_overlapping:
            self.configure(paint=self._settings.paint.with_changes(overlapping=fitted.classes.overlapping))
        self._worker.adopt(fitted, last)
        self.keeping.note_model()
        self._tell_classes()
        self._wish(is_halted=False)

    # --- between ---

    def _left_possible(self, work: Opened) -> Allowed:
        return labels_left_possible(work.store, self._classes, is_overlapping=self.is_overlapping)

    def _opened(self) -> Opened:
        if self._work is None:
            raise InputError("there is no image yet; open one first")
        return self._work

    @property
    def _store(self) -> AnnotationStore:
        return self._opened().store

    def _check_class(self, class_id: int) -> None:
        if class_id not in self._classes:
            raise InputError(f"there is no class {class_id}; add it first, or paint one of {self._classes.ids}")

    def _take(self, edit: PaintEdit | None) -> bool:
        """Tell of a change of paint, and wake the thread; False if there was none."""
        if edit is None:
            return False
        z, y, x = ((a + b) // 2 for a, b in zip(edit.box.start, edit.box.stop, strict=True))
        self._switch.wish(hot=(edit.frame, (z, y, x)))
        self._tell_paint(edit)
        self._start_by_itself()
        self._worker.wake()
        return True

    def _start_by_itself(self) -> None:
        wishes = self._switch.wishes
        if not self.auto_start or self._was_paused or wishes.is_training or wishes.is_halted:
            return
        painting, is_overlapping = self._settings.paint, self.is_overlapping
        if learnable_classes(self._store, self._classes, painting, is_overlapping=is_overlapping):
            self._switch.wish(is_training=True)

    def _predicted_where_unpainted(self, region: Region) -> npt.NDArray[np.uint8] | None:
        """Predicted labels of a region's voxels that are to be painted for the first time; None if it is no region."""
        work = self._opened()
        inside = region.box.clipped(Box.whole(work.image.shape[1:])) == region.box
        if not inside or not 0 <= region.frame < len(work.labels):
            return None
        where = (region.frame, *region.box.slices)
        unpainted = work.store.codes[where] == UNPAINTED
        if region.mask is not None:
            if region.mask.shape != unpainted.shape:
                return None
            unpainted &= region.mask
        predicted: npt.NDArray[np.uint8] = work.labels[where][unpainted]
        return predicted

    def _tell_paint(self, edit: PaintEdit) -> None:
        revision = self._store.revision
        self._switch.publish(revision=revision)
        tell(self.events.paint_changed, PaintChange(edit.frame, edit.box, revision))

    def _tell_classes(self) -> None:
        self.keeping.note_classes()
        tell(self.events.classes_changed, self._classes.all)

    def _wish(self, **changes: Any) -> None:
        self._switch.wish(**changes)
        self._worker.wake()
