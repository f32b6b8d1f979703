"""Saver: keeps what is painted and learnt on disk, on a thread of its own. Only `close` waits for it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from dataclasses import replace

from typing_extensions import override

from napari_sparseseg._types import Box
from napari_sparseseg.errors import InputError, ProjectError
from napari_sparseseg.live.classes import ClassList
from napari_sparseseg.live.events import LiveEvents, SavingStatus, TileUpdate, tell
from napari_sparseseg.live.keeper import Keeper
from napari_sparseseg.live.kept import BUSY, model_of, present_of, project_classes, project_settings, with_model
from napari_sparseseg.live.opened import Opened
from napari_sparseseg.live.settings import Settings
from napari_sparseseg.live.worker import Worker
from napari_sparseseg.storage.project.elsewhere import Present
from napari_sparseseg.storage.project.image import ProjectImage
from napari_sparseseg.storage.project.segments import SegmentJournal
from napari_sparseseg.storage.sparse import is_large

_log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0  # between two looks at what is to be saved
AUTOSAVE_SECONDS = 60.0  # between two states of the annotation that can be brought back, and between two models
PREDICTION_SECONDS = 300.0  # between two predictions that are written while work goes on
FOLD_RECORDS = 200  # of the journal, after which the annotation is folded
LONGEST_REST = 30.0  # before something that the disk has refused is tried again; strokes are tried with each look
HOLD_SECONDS = 45.0  # to wait until all is saved, twice for the model, before something else is opened
_CLOSE_SECONDS = 15.0  # to wait for the end; one second less for the compute thread then


class Saver(Keeper):
    """Saves one image of a project until it is closed.

    What cannot be saved is told, kept, and tried again with each look: nothing is given up. Made on the thread that
    paints; the project must be writable.
    """

    def __init__(
        self,
        project: ProjectImage,
        classes: ClassList,
        worker: Worker,
        settings: Callable[[], Settings],
        events: LiveEvents,
    ) -> None:
        super().__init__(SavingStatus(str(project.project.path)))
        self._image = project
        self._classes = classes
        self._worker = worker
        self._settings = settings
        self._events = events
        self._changed = threading.Condition()
        self._is_closing = False
        self._is_wanted = False  # everything, now
        self._is_held = self._is_resting = False
        self._is_handed_over = False  # what could not be saved, to who writes it elsewhere
        self._is_detached = False  # by who could not wait: nothing is told or written any more
        self._journal: SegmentJournal | None = None
        self._has_new_tiles = False
        self._tiles: set[tuple[int, Box]] = set()
        self._has_forgotten = False
        self._awaits_clearing = False  # the model that is not wanted any more may still be predicting
        self._journal_error = ""
        self._error = ""
        now = time.monotonic()
        self._marked_at, self._learnt_at, self._predicted_at = now, now, now
        self._marked_revision, self._folded_ticket = 0, 0
        self._classes_number = 0  # of the classes that are being written
        self._numbering = threading.Lock()
        self._lacks_model = False  # on disk, because the compute thread was at something long
        self._n_models = 0  # changes of the model that were no step
        self._saved_model: tuple[int, int] | None = None  # that was saved last: its step, and `_n_models`
        self._n_failures, self._retry_at = 0, 0.0
        self._opened: Opened | None = None
        self._status_lock = threading.Lock()
        self._told = self.status
        self._thread = threading.Thread(target=self._run, name="sparseseg saving", daemon=True)

    @override
    def start(self, opened: Opened) -> None:
        """Begin to save what was opened."""
        self._opened = opened
        self._journal = self._image.journal
        self._marked_revision = opened.store.revision
        self._folded_ticket = -self._image.n_unfolded
        self._events.tile_predicted.connect(self._note_tile)
        self._events.predictions_cleared.connect(self._note_clearing)
        self._thread.start()

    @override
    def hear_journal(self, error: str) -> None:
        self._journal_error = error
        self._publish()

    @override
    def note_classes(self) -> None:
        """The classes have changed: noted before anything is painted with them."""
        with self._numbering:
            number = max(self._image.project.manifest.classes_number, self._classes_number) + 1
            self._image.note_classes(project_classes(self._classes), number)

    @override
    def save(self) -> None:
        self._wake(everything=True)

    @override
    def note_model(self) -> None:
        """The next save is to keep it."""
        self._n_models += 1

    @override
    def expect_clearing(self) -> None:
        """What the model before still predicts is not saved."""
        self._awaits_clearing = True

    @override
    def forget_model(self) -> None:
        self._has_forgotten = True
        self._has_new_tiles, self._tiles = False, set()
        self._wake(everything=False)

    @override
    def hold(self) -> bool:
        """Save everything, then nothing until `go_on`; False if that takes too long, and then it is saved on.

        Also False, without waiting any longer, if it is closed meanwhile. Once it is held, `close` saves nothing more:
        what is opened next may know better what the project's classes are.
        """
        with self._changed:
            self._is_held = self._is_wanted = True
            self._is_resting = False  # it may rest still, though `go_on` was called
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._is_resting or self._is_detached, HOLD_SECONDS)
            self._is_held = self._is_resting
            return self._is_held

    @property
    @override
    def unsaved(self) -> str:
        """Why not all was on disk when it was last saved, in one sentence; empty if it was. May wait for a second."""
        journal = self._journal
        if journal is not None and not journal.sync(timeout=LOOK_SECONDS):
            return journal.error or f"strokes are still being written to {self._image.project.path}"
        if self._error:
            return self._error
        return BUSY if self._lacks_model else ""

    @property
    @override
    def fault(self) -> str:
        """What is wrong, as far as that is known without looking; empty if nothing is."""
        return self._journal_error or self._error

    @override
    def present(self) -> Present:
        """All there is in memory, after `hold`. Waits for the model, and does without only if nothing can be written.

        Raises `InputError` if there is nothing to be done but to wait.
        """
        opened = self._opened
        assert opened is not None  # noqa: S101 - `start` has set it
        if not self.fault:
            raise InputError(f"{self.unsaved}; try again in a minute")
        present = present_of(opened, self._classes, self._settings(), is_begun_anew=self._has_forgotten)
        present = with_model(present, self._worker, opened, is_needed=False)
        self._is_handed_over = True
        return present

    @override
    def go_on(self) -> None:
        """Save again after `hold`."""
        with self._changed:
            self._is_held = self._is_handed_over = False
            self._changed.notify_all()

    @override
    def close(self, timeout: float = _CLOSE_SECONDS) -> bool:
        """Save everything, end the thread and let go of the journal; whether all of it is on disk, or was handed over.

        What is not done in time is left, and neither told nor written later.
        """
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        self._thread.join(timeout)
        with self._changed:
            self._is_detached = True
            self._changed.notify_all()
        self._events.tile_predicted.disconnect(self._note_tile, missing_ok=True)
        self._events.predictions_cleared.disconnect(self._note_clearing, missing_ok=True)
        if self._image.journal is self._journal:  # else the image was opened anew
            self._image.close()
        return self._is_handed_over or (not self._thread.is_alive() and not self.unsaved)

    # --- the saving thread ---

    def _run(self) -> None:
        is_last = False
        while not is_last:
            with self._changed:
                if self._rest_while_held():
                    return
                self._changed.wait_for(lambda: self._is_closing or self._is_wanted, LOOK_SECONDS)
                is_last = self._is_closing
                everything = self._is_closing or self._is_wanted
                self._is_wanted = False
            self._try_saving(everything)

    def _rest_while_held(self) -> bool:
        """Wait until saving goes on, once everything was saved; whether it never does."""
        if not self._is_held or self._is_wanted:
            return False
        self._is_resting = True
        self._changed.notify_all()
        self._changed.wait_for(lambda: self._is_closing or not self._is_held or not self._is_resting)
        is_over = all((self._is_held, self._is_resting))  # else `go_on` or `hold` was called
        self._is_resting = False
        return is_over

    def _try_saving(self, everything: bool) -> None:
        opened = self._opened
        assert opened is not None  # noqa: S101 - `start` has set it
        try:
            self._revive_journal(opened)
            if not everything and time.monotonic() < self._retry_at:
                return
            has_saved = self._save_settings()
            for save in (self._save_paint, self._save_model, self._save_prediction):
                if self._is_detached:
                    return
                has_saved |= save(opened, everything)
        except (OSError, MemoryError, ProjectError) as error:
            reason = getattr(error, "strerror", None) or str(error) or "out of memory"
            self._fail(f"{self._image.project.path} cannot be written ({reason})")
        except Exception as error:  # noqa: BLE001 - the thread must live, and the user must be told
            _log.exception("saving failed")
            self._fail(f"saving failed ({type(error).__name__}: {error})")
        else:
            self._error, self._n_failures = "", 0
            if has_saved:
                self.status = replace(self.status, saved_at=time.time())
        finally:
            self._publish()

    def _fail(self, problem: str) -> None:
        """Say what cannot be saved, and rest before it is tried again: a fold of much paint takes seconds."""
        self._error = f"{problem}; everything is kept in memory and tried again"
        self._n_failures += 1
        self._retry_at = time.monotonic() + min(LONGEST_REST, 2.0 ** (self._n_failures - 1))

    def _revive_journal(self, opened: Opened) -> None:
        journal = self._image.journal
        if journal is None:
            return
        if journal.error:
            journal.sync(timeout=LOOK_SECONDS)
        if self._image.needs_rescue:
            self._image.rescue(opened.store)
            self._journal_error = ""
            self._folded_ticket = journal.ticket

    def _save_settings(self) -> bool:
        if self._has_forgotten:
            self._image.drop_prediction()
            self._image.project.drop_checkpoints()
            self._has_forgotten, self._saved_model = False, None
        wanted = project_settings(self._settings())
        has_other_settings = wanted != self._image.project.settings
        with self._numbering:  # what is noted from now on is newer
            classes = project_classes(self._classes)
            if classes != self._image.project.classes:
                self._classes_number = self._image.project.manifest.classes_number + 1
        has_changed = self._image.project.update(classes=classes, highest_class=self._classes.highest, settings=wanted)
        if has_other_settings:
            self._image.note("settings", settings=wanted.model_dump(mode="json"))
        return has_changed

    def _save_paint(self, opened: Opened, everything: bool) -> bool:
        store, journal = opened.store, self._image.journal
        if journal is None:
            return False
        is_due = everything or time.monotonic() - self._marked_at > AUTOSAVE_SECONDS
        has_marked = is_due and store.revision != self._marked_revision
        if has_marked:
            self._marked_revision = store.revision
            self._marked_at = time.monotonic()
            self._image.note_save(len(store.strokes))
        if journal.ticket - self._folded_ticket >= FOLD_RECORDS and not _is_interpreter_ending():
            ticket = journal.ticket
            if self._image.fold(store):
                self._folded_ticket = ticket
                return True
        return has_marked

    def _save_model(self, opened: Opened, everything: bool) -> bool:
        model = opened.switch.status.step, self._n_models
        is_due = everything or time.monotonic() - self._learnt_at > AUTOSAVE_SECONDS
        if not (is_due and opened.switch.status.has_model and model != self._saved_model):
            self._lacks_model = self._lacks_model and not is_due
            return False
        self._learnt_at = time.monotonic()
        try:
            taken = model_of(self._worker, opened, _CLOSE_SECONDS - 1 if self._is_closing else None)
        except (CancelledError, TimeoutError):
            self._lacks_model = True  # it is closed, or at something long: the model before is there
            return False
        self._lacks_model = False
        if taken is None or self._is_detached:
            return False
        content, about = taken
        entry = self._image.project.add_checkpoint(content, **about)
        self._saved_model = model
        self._image.note("model", number=entry.number, **about)
        return True

    def _save_prediction(self, opened: Opened, everything: bool) -> bool:
        is_due = everything or time.monotonic() - self._predicted_at > PREDICTION_SECONDS
        if not (is_due and self._has_new_tiles) or _is_interpreter_ending():
            return False
        self._has_new_tiles = False
        self._predicted_at = time.monotonic()
        try:
            self._image.write_prediction(opened.labels, self._parts() if is_large(opened.labels) else None)
        except BaseException:
            self._has_new_tiles = True
            raise
        return True

    # --- between ---

    def _wake(self, *, everything: bool) -> None:
        with self._changed:
            self._is_wanted |= everything
            self._changed.notify_all()

    def _note_clearing(self) -> None:
        self._awaits_clearing = False

    def _note_tile(self, update: TileUpdate) -> None:
        if self._awaits_clearing:
            return
        if update.is_forgotten:
            self._tiles = {tile for tile in self._tiles if not _lies_in(tile, update)}
            return
        self._has_new_tiles = self._has_new_tiles or update.generation > 0
        self._tiles.add((update.frame, update.box))

    def _parts(self) -> list[tuple[int, Box]]:
        """Where something was predicted."""
        return list(self._tiles.copy())  # tiles arrive meanwhile, on another thread

    def _publish(self) -> None:
        if self._is_detached:
            return
        with self._status_lock:
            status = replace(self.status, error=self.fault)
            is_news, self.status = status != self._told, status
            self._told = status
        if is_news:
            tell(self._events.saving_changed, status)


def _lies_in(tile: tuple[int, Box], update: TileUpdate) -> bool:
    """Whether a tile was forgotten as a whole; one that was in part is saved with zeros there."""
    frame, box = tile
    return frame == update.frame and box.clipped(update.box) == box


def _is_interpreter_ending() -> bool:
    """Whether Python shuts down with the window still open: zarr needs threads, and none can be started any more.

    Folds and predictions only save time on reopening; strokes and models need no zarr.
    """
    return not threading.main_thread().is_alive()
