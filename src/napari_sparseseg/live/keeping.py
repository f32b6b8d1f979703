"""Keeping: how what is painted and learnt is kept in the project that is open: saved, left, and brought back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from napari_sparseseg.errors import InputError
from napari_sparseseg.live.classes import ClassList
from napari_sparseseg.live.events import LiveEvents, SavingStatus, tell
from napari_sparseseg.live.history import classes_at
from napari_sparseseg.live.keeper import Keeper
from napari_sparseseg.live.onlooker import Onlooker
from napari_sparseseg.live.opened import Opened
from napari_sparseseg.live.saving import Saver
from napari_sparseseg.live.settings import Settings
from napari_sparseseg.live.whole import WholePrediction
from napari_sparseseg.live.worker import Worker
from napari_sparseseg.storage.journal import Journal
from napari_sparseseg.storage.project.elsewhere import Present
from napari_sparseseg.storage.project.image import ProjectImage, SavedState, restore_annotation
from napari_sparseseg.storage.strokes import PaintEdit

_PATIENCE = 15.0  # seconds for the tile that is being predicted
_NO_PROJECT = "there is no project, so that what you have painted is in memory only"


class Keeping:
    """Keeps the image that is open in its project; called from one thread, that of the GUI, like `LiveSegmenter`.

    Strokes are on disk within milliseconds, everything else from time to time, on a thread of its own.
    `LiveEvents.saving_changed` tells of it.
    """

    def __init__(
        self,
        work: Callable[[], Opened | None],
        classes: ClassList,
        worker: Worker,
        settings: Callable[[], Settings],
        events: LiveEvents,
        whole: WholePrediction,
        tell_classes: Callable[[], None],
        take: Callable[[PaintEdit | None], bool],
    ) -> None:
        self._work = work
        self._classes = classes
        self._worker = worker
        self._settings = settings
        self._events = events
        self._whole = whole
        self._tell_classes = tell_classes
        self._take = take
        self._keeper = Keeper()

    @property
    def status(self) -> SavingStatus:
        """How it is kept on disk: the latest snapshot."""
        return self._keeper.status

    # --- saving ---

    def save(self) -> None:
        """Save paint, model and prediction to the project soon, without waiting for the usual time."""
        self._keeper.save()

    @property
    def unsaved(self) -> str:
        """Why something is in memory only, in one sentence, as far as that is known at once; empty if nothing is."""
        return self._keeper.fault

    def hold(self) -> str:
        """Save everything, then nothing but strokes until `go_on` or until another image is opened.

        Waits, for a minute at most; on any thread, while nothing else is asked for. Returns why not all is on
        disk, in one sentence, empty if it is. Raises `InputError` if it is still being written then.
        """
        self._hold()
        return self._keeper.unsaved

    def go_on(self) -> None:
        """Save again after `hold`, also what it has not saved."""
        self._keeper.go_on()
        tell(self._events.saving_changed, self.status)

    def leave(self) -> Present | None:
        """As `hold`, so that the project may be copied; a prediction of all of the image is stopped.

        Returns None if all is on disk, else what is in memory, to be written elsewhere. Raises `InputError` if nothing
        is wrong but that saving takes too long.
        """
        if not self._whole.leave(_PATIENCE):
            raise InputError("all of the image is still being predicted, and stops soon; try again in a minute")
        return self._keeper.present() if self.hold() else None

    # --- earlier states ---

    def history(self, *, since: float = 0.0) -> tuple[SavedState, ...]:
        """States of the annotation that can be brought back, oldest first, from a time on (seconds since 1970)."""
        project = self._project
        return project.history(since=since) if project else ()

    def restore(self, saved: SavedState) -> None:
        """Make the annotation as it was then. What there is now joins the history, so that it can be brought back.

        Classes that were painted with and have been removed since come back. Raises `InputError` without project.
        """
        work, project = self._work(), self._project
        if work is None or project is None:
            raise InputError("there is no project; only what is in one has a history")
        loaded = project.load_at(saved)
        for problem in loaded.problems:
            tell(self._events.noticed, problem)
        old = loaded.store
        project.note_save(len(work.store.strokes))
        missing = [class_id for class_id in old.named_classes() if class_id not in self._classes]
        if missing:
            known = classes_at(project, saved)
            for class_id in missing:
                self._classes.bring_back(class_id, known.get(class_id))
            self._tell_classes()
        for frame, box in restore_annotation(work.store, old):
            self._take(PaintEdit(frame, box))

    # --- what the live segmenter tells ---

    def prepare(
        self, project: ProjectImage | None, shape: tuple[int, int, int, int], journal: Journal | None
    ) -> Keeper:
        """Who is to keep an image of this shape, once it was opened.

        What is open is held from now on if it is of the same project, whose classes are then those of what is opened.
        Raises `InputError` if that takes too long, or if the project's image has another shape.
        """
        if project is None:
            return Keeper(fault="" if journal is not None else _NO_PROJECT)
        if project.entry.shape != shape:
            raise InputError(
                f"the image has shape {shape} (frames, z, y, x), the one of the project {project.entry.shape}; "
                "open the image that was painted on, or add this one to the project"
            )
        keeper = self._keeper_of(project)
        before = self._project
        if before is not None and project.project is before.project:
            self._hold()
        return keeper

    def start(self, keeper: Keeper, opened: Opened) -> None:
        """Keep what was opened."""
        self._keeper = keeper
        keeper.start(opened)
        tell(self._events.saving_changed, self.status)

    def stop(self) -> None:
        """Save all of what is open, and keep it no longer; what could not be saved is told."""
        keeper = self._keeper
        if self._project is not None:
            self._keeper = Keeper(fault=_NO_PROJECT)
        if not keeper.close():
            name = Path(keeper.status.path).stem
            tell(self._events.noticed, f"not all of {name} could be saved before it was closed")

    def note_classes(self) -> None:
        """The classes have changed: noted before anything is painted with them."""
        self._keeper.note_classes()

    def note_model(self) -> None:
        """Have the model saved, which is another one without a step, or will be before it is asked for."""
        self._keeper.note_model()

    @contextmanager
    def forgetting_model(self) -> Iterator[None]:
        """The model begins anew within; the one before is not kept, nor what it has predicted or predicts still."""
        self._keeper.expect_clearing()
        yield
        self._keeper.forget_model()  # only now, so that the old model is not saved once more

    # --- between ---

    @property
    def _project(self) -> ProjectImage | None:
        work = self._work()
        return None if work is None else work.project

    def _hold(self) -> None:
        if not self._keeper.hold():
            raise InputError("the image that is open is still being saved; try again in a minute")

    def _keeper_of(self, project: ProjectImage) -> Keeper:
        if project.project.is_read_only:
            return Onlooker(project, self._classes, self._worker, self._settings)
        return Saver(project, self._classes, self._worker, self._settings, self._events)
