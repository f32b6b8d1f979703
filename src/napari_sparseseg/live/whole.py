"""WholePrediction: all of an image, predicted into its project in the background, beside painting and learning.

It does what `SparseSegmenter.predict_to` does, with a copy of the model from when it was started: shard by shard, in
bounded memory, by this process or by a cluster. It goes on where it was interrupted, even by the end of the program. At
the end the paint of that moment is put over the labels.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from napari_sparseseg._types import Box
from napari_sparseseg.errors import InputError, NotFittedError, SparseSegError
from napari_sparseseg.live.events import LiveEvents, WholeState, WholeStatus, tell
from napari_sparseseg.live.failures import is_out_of_memory
from napari_sparseseg.live.opened import Opened
from napari_sparseseg.live.runner import Runner
from napari_sparseseg.live.settings import Settings, is_address
from napari_sparseseg.live.shown import Allowed, with_paint
from napari_sparseseg.storage.project.manifest import LayerPlace
from napari_sparseseg.storage.project.whole import WholeFolder

if TYPE_CHECKING:
    from napari_sparseseg.distributed.predict import Report, Request
    from napari_sparseseg.storage.volume import ArrayVolume

Checkpoint = Callable[[Opened], Future[tuple[bytes, Any] | None]]

_log = logging.getLogger(__name__)
_TILE_VOXELS = 1 << 22  # computed at a time: some seconds on a CPU, and it can be stopped only in between
_TELL_EVERY = 0.2  # seconds
_PATIENCE = 60.0  # seconds for the compute thread to finish its current piece of work


class _StoppedError(Exception):
    """The user has stopped it."""


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    """What is predicted, and with which settings; `stop` is set once it is no longer wanted."""

    opened: Opened
    folder: WholeFolder
    settings: Settings
    allowed: Allowed
    unit: str | None
    offset: tuple[float, ...] | None  # where the image lies in the world, as a region of a larger one does
    stop: threading.Event = field(default_factory=threading.Event)


class WholePrediction:
    """Predicts all of the image into its project. Called from one thread, that of the GUI, like `LiveSegmenter`.

    One prediction runs at a time. A complete one stays until a newer one is complete; `LiveEvents.whole_changed` tells
    of both.
    """

    def __init__(
        self,
        work: Callable[[], Opened | None],
        checkpoint: Checkpoint,
        settings: Callable[[], Settings],
        allowed: Callable[[Opened], Allowed],
        events: LiveEvents,
    ) -> None:
        self._work = work
        self._checkpoint = checkpoint
        self._settings = settings
        self._allowed = allowed
        self._events = events
        self._runner = Runner(lambda: False, lambda error: _log.error("telling of a prediction failed", exc_info=error))
        self._run: _Run | None = None
        self._done: Future[None] | None = None
        self._status = WholeStatus()
        self._telling = threading.RLock()  # so that statuses are told in order, and are true when they are

    @property
    def status(self) -> WholeStatus:
        """The latest snapshot. Any thread."""
        return self._status

    @property
    def is_running(self) -> bool:
        """Whether it is running or stopping."""
        return self._status.state in (WholeState.RUNNING, WholeState.STOPPING)

    def start(self) -> None:
        """Predict all of the image with the model as it is now; what was unfinished is dropped. Returns at once.

        It runs on the device of the settings, or on the cluster that is named there, which must see project and image
        under the same paths.

        Raises `NotFittedError` without a model, `InputError` without a project that can be written to.
        """
        run = self._new_run()
        if not run.opened.switch.status.has_model:
            raise NotFittedError("there is no model to predict with yet; paint two classes first")
        if not self.is_running:
            self._begin(run, self._checkpoint(run.opened))

    def go_on(self) -> None:
        """Go on where it was interrupted, with the model it was started with. Returns at once; otherwise as `start`.

        Raises `InputError` if nothing was interrupted.
        """
        run = self._new_run()
        if self.is_running:
            return
        if run.folder.share is None:
            raise InputError("there is no prediction to go on with; predict all again")
        self._begin(run, None)

    def stop(self) -> None:
        """Stop after the current tile, on a cluster soon; finished shards are kept."""
        with self._telling:
            if self._run is not None and self._status.state is WholeState.RUNNING:
                self._run.stop.set()
                self._tell(replace(self._status, state=WholeState.STOPPING, text=""))

    def leave(self, timeout: float) -> bool:
        """Stop, and wait until the project's files are closed; whether they were in time."""
        self.stop()
        return self._has_ended(timeout)

    def look(self) -> None:
        """Stop what is under way, and tell the status of the image that is open now, if one is."""
        opened = self._work()
        with self._telling:
            if self._run is not None:
                self._run.stop.set()
                self._run = None
            self._tell(WholeStatus() if opened is None else _status_on_disk(_folder_of(opened)))

    def close(self, timeout: float = 1.0) -> bool:
        """Stop, and end the thread; whether it ended in time."""
        if self._run is not None:
            self._run.stop.set()
        return self._runner.close(timeout)

    # --- on a thread of its own ---

    def _predict(self, run: _Run, checkpoint: Future[tuple[bytes, Any] | None] | None) -> None:
        """Predict what is left; the status tells how that ended, whatever happens."""
        error, is_new = "", False
        try:
            if checkpoint is None:
                run.folder.check_unfinished()
            else:
                _begin_with_model(run, checkpoint)
            for number in run.folder.left:
                self._predict_frame(run, number)
            run.folder.finish()
            is_new = True
        except _StoppedError:
            pass
        except Exception as failure:  # noqa: BLE001 - whatever it is, the user must be told
            if not isinstance(failure, SparseSegError):
                _log.error("predicting all of the image failed", exc_info=failure)
            error = _reason(failure)
        status = _status_on_disk(run.folder)
        with self._telling:
            if run is self._run:
                self._tell(replace(status, text=error or status.text, is_new=is_new))
                if error:
                    tell(self._events.failed, f"The image was not predicted to its end: {error}")

    def _predict_frame(self, run: _Run, number: int) -> None:
        from napari_sparseseg.distributed.predict import Amendment, predict_volume
        from napari_sparseseg.engine.checkpoint import load_model
        from napari_sparseseg.predicting import VolumePrediction

        folder, settings = run.folder, run.settings
        self._check_wanted(run)
        self._tell_progress(run, folder.share or 0.0, "reading the image")
        fitted, _, _ = load_model(folder.model)
        volume = run.opened.image.volume(number)
        prediction = VolumePrediction(fitted, volume, settings.prediction, cache_bytes=0, progress=False)
        frame = _Frame(
            run,
            number,
            folder.n_frames - len(folder.left),
            lambda: self._check_wanted(run),
            lambda share, text: self._tell_progress(run, share, text),
        )
        predict_volume(
            _request_of(run, number, volume),
            fitted,
            prediction.intensity(),
            lambda path: shutil.copyfile(folder.model, path),
            settings.device if is_address(settings.device) else None,
            frame.report,
            Amendment(frame.painted_boxes, frame.paint_over),
        )

    def _check_wanted(self, run: _Run) -> None:
        if run.stop.is_set() or self._runner.is_closing:
            raise _StoppedError

    def _tell_progress(self, run: _Run, share: float, text: str) -> None:
        with self._telling:
            if run is self._run and not run.stop.is_set():
                self._tell(WholeStatus(WholeState.RUNNING, share, text, self._status.paths))

    # --- between ---

    def _new_run(self) -> _Run:
        opened = self._work()
        if opened is None:
            raise InputError("there is no image yet; open one first")
        image, remedy = opened.project, "save the model, and let napari-sparseseg predict write the labels"
        if image is None:
            raise InputError(f"there is no project to predict into; {remedy}")
        if image.project.is_read_only:
            raise InputError(f"the project cannot be written to: {image.project.reason}; {remedy}")
        folder = _folder_of(opened)
        assert folder is not None  # noqa: S101 - there is a project
        folder.check()
        place = image.entry.place or LayerPlace()
        unit = place.units[-1] if place.units and place.units[-1] != "pixel" else None
        offset = place.offset(opened.image.n_spatial)
        return _Run(opened, folder, self._settings(), self._allowed(opened), unit, offset)

    def _begin(self, run: _Run, checkpoint: Future[tuple[bytes, Any] | None] | None) -> None:
        with self._telling:
            self._run = run
            share = self._status.share if checkpoint is None else 0.0
            self._tell(WholeStatus(WholeState.RUNNING, share, "preparing", self._status.paths))
        self._done = self._runner.call(lambda: self._predict(run, checkpoint))
        if self._done.cancelled():
            self.look()
            raise InputError("the live segmenter was closed; open the image in a new one")

    def _has_ended(self, timeout: float) -> bool:
        if self._done is None or self._done.cancelled():
            return True
        try:
            self._done.exception(timeout)
        except TimeoutError:
            return False
        return True

    def _tell(self, status: WholeStatus) -> None:
        """Set and tell the status. The caller holds the lock."""
        self._status = status
        tell(self._events.whole_changed, status)


class _Frame:
    """One time point while it is predicted: what is told of it, and the paint over it.

    `check_wanted` raises once the run is to stop; `n_before` time points are complete already.
    """

    def __init__(
        self, run: _Run, number: int, n_before: int, check_wanted: Callable[[], None], tell_progress: Report
    ) -> None:
        self._run, self._number, self._n_before = run, number, n_before
        self._check_wanted, self._tell_progress = check_wanted, tell_progress
        self._told_at = 0.0

    def report(self, share: float, text: str) -> None:
        """Tell how much of all time points is done, but not too often."""
        self._check_wanted()
        if time.perf_counter() - self._told_at >= _TELL_EVERY:
            self._told_at = time.perf_counter()
            self._tell_progress((self._n_before + share) / self._run.folder.n_frames, text)

    def painted_boxes(self) -> list[Box]:
        """Boxes in which all paint lies."""
        return self._run.opened.store.painted_boxes(self._number)

    def paint_over(self, box: Box, labels: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Labels of a box with the paint over them."""
        self._check_wanted()
        # a copy, since another thread may be painting
        codes = self._run.opened.store.codes[(self._number, *box.slices)].copy()
        return with_paint(labels, codes, self._run.allowed)


def _request_of(run: _Run, number: int, volume: ArrayVolume) -> Request:
    from napari_sparseseg.distributed.predict import make_request

    image, device = run.opened.image, run.settings.device
    return make_request(
        volume,
        image.frame(number)[0],
        run.folder.targets[number],
        probabilities=False,
        spacing=image.spacing[-image.n_spatial :],
        offset=run.offset,
        unit=run.unit,
        workers=1,
        memory=None,
        device="auto" if is_address(device) else device,
        tile_voxels=_TILE_VOXELS,
        resume=True,
        overwrite=True,
        progress=False,
    )


def _begin_with_model(run: _Run, checkpoint: Future[tuple[bytes, Any] | None]) -> None:
    """Save the model that everything is predicted with."""
    try:
        taken = checkpoint.result(timeout=_PATIENCE)
    except TimeoutError:
        raise InputError("the compute thread is busy; pause the training, and predict all again") from None
    if run.stop.is_set():
        raise _StoppedError
    if taken is None:
        raise NotFittedError("there is no model to predict with yet; paint two classes first")
    run.folder.begin(taken[0])


def _folder_of(opened: Opened) -> WholeFolder | None:
    return None if opened.project is None else opened.project.whole


def _status_on_disk(folder: WholeFolder | None) -> WholeStatus:
    """Which predictions are complete, and how much of an interrupted one is done."""
    if folder is None:
        return WholeStatus()
    try:
        folder.check()
        paths, share = tuple(map(str, folder.complete)), folder.share
    except (SparseSegError, OSError) as error:
        return WholeStatus(text=str(error))
    if share is not None:
        return WholeStatus(WholeState.UNFINISHED, share, paths=paths)
    return WholeStatus(WholeState.DONE if paths else WholeState.NONE, float(bool(paths)), paths=paths)


def _reason(error: Exception) -> str:
    if isinstance(error, SparseSegError):
        return str(error)
    if is_out_of_memory(error):
        return "memory ran out; close other programs, then go on"
    return f"something unexpected went wrong ({type(error).__name__}: {error}); go on to try again"
