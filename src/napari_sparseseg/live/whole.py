"""WholePrediction: all of an image, predicted into its project in the background, beside painting and learning.

It is what `SparseSegmenter.predict_to` does, with the model as it was when it was asked for: shard by shard, in bounded
memory, by this process or by a cluster, and it goes on where it was interrupted, even by the end of the program. At the
end the paint of that moment is put over it.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy.typing as npt

from napari_sparseseg._types import Box
from napari_sparseseg.errors import InputError, NotFittedError, SparseSegError
from napari_sparseseg.live.events import LiveEvents, WholeState, WholeStatus, tell
from napari_sparseseg.live.failures import is_out_of_memory
from napari_sparseseg.live.opened import Opened
from napari_sparseseg.live.runner import Runner
from napari_sparseseg.live.settings import Settings, is_address
from napari_sparseseg.live.shown import with_paint
from napari_sparseseg.storage.durable import RealDisk, replace_file
from napari_sparseseg.storage.project.image import ProjectImage
from napari_sparseseg.storage.unfinished import Unfinished

Checkpoint = Callable[[Opened], Future[tuple[bytes, Any] | None]]

_log = logging.getLogger(__name__)
_MODEL = "model.safetensors"
_TILE_VOXELS = 1 << 22  # that are computed at a time: some seconds on a CPU, after which it can be stopped
_TELL_EVERY = 0.2  # seconds
_PATIENCE = 60.0  # seconds for the piece of work that the compute thread is at


class _StoppedError(Exception):
    """The user has stopped it."""


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    """What is to be predicted, and by which settings; `stop` is set once it is not wanted any more."""

    opened: Opened
    image: ProjectImage
    settings: Settings
    unit: str | None
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def folder(self) -> Path:
        return self.image.whole

    @property
    def model(self) -> Path:
        return self.folder / _MODEL

    @property
    def targets(self) -> list[Path]:
        return _targets(self.image)


class WholePrediction:
    """Predicts all of the image into its project. Called from one thread, that of the GUI, like `LiveSegmenter`.

    One at a time. What is complete stays until a newer one is: `LiveEvents.whole_changed` tells of both.
    """

    def __init__(
        self,
        work: Callable[[], Opened | None],
        checkpoint: Checkpoint,
        settings: Callable[[], Settings],
        allowed: Callable[[int], frozenset[int]],
        events: LiveEvents,
    ) -> None:
        self._work = work
        self._checkpoint = checkpoint
        self._settings = settings
        self._allowed = allowed
        self._events = events
        self._runner = Runner(lambda: False, lambda error: _log.error("telling of a prediction failed", exc_info=error))
        self._run: _Run | None = None
        self._status = WholeStatus()

    @property
    def status(self) -> WholeStatus:
        """The latest snapshot. Any thread."""
        return self._status

    def start(self) -> None:
        """Predict all of the image with the model as it is now; what was unfinished is dropped. Returns at once.

        On the device of the settings, or on the cluster that is named there, which must see project and image under the
        same paths. Raises `NotFittedError` without a model, `InputError` without a project that can be written to.
        """
        run = self._new_run()
        if not run.opened.switch.status.has_model:
            raise NotFittedError("there is no model to predict with yet; paint two classes first")
        if self.is_running:
            return
        self._begin(run, self._checkpoint(run.opened))

    def go_on(self) -> None:
        """Go on where it was interrupted, with the model of then; otherwise as `start`. Returns at once."""
        run = self._new_run()
        if self.is_running:
            return
        if not run.model.is_file():
            raise InputError("there is no prediction to go on with; predict all anew")
        self._begin(run, None)

    def stop(self) -> None:
        """Stop after the tile that is being computed (on a cluster: the shard); what is finished is kept."""
        run = self._run
        if run is not None and self.is_running:
            run.stop.set()
            self._show(run, replace(self._status, state=WholeState.STOPPING, text=""))

    @property
    def is_running(self) -> bool:
        """Whether it is at work, be it that it is about to stop."""
        return self._status.state in (WholeState.RUNNING, WholeState.STOPPING)

    def look(self) -> None:
        """Another image was opened, or none: stop what was under way, and say what there is of this one."""
        if self._run is not None:
            self._run.stop.set()
            self._run = None
        opened = self._work()
        image = None if opened is None else opened.project
        self._status = WholeStatus() if image is None else _status_on_disk(image)
        tell(self._events.whole_changed, self._status)

    def close(self, timeout: float = 1.0) -> bool:
        """Stop, and end the thread; whether it has ended in time."""
        if self._run is not None:
            self._run.stop.set()
        return self._runner.close(timeout)

    # --- on a thread of its own ---

    def _predict(self, run: _Run, checkpoint: Future[tuple[bytes, Any] | None] | None) -> None:
        """Predict what is left; whatever happens, the status tells how it ended."""
        error = ""
        try:
            if checkpoint is not None:
                _keep_model(run, checkpoint)
            for number, target in enumerate(run.targets):
                if len(run.targets) == 1 or not target.is_dir():
                    self._predict_frame(run, number)
        except _StoppedError:
            pass
        except Exception as failure:  # noqa: BLE001 - whatever it is, the user must be told
            if not isinstance(failure, (SparseSegError, OSError)):
                _log.error("predicting all of the image failed", exc_info=failure)
            error = _reason(failure)
        self._show(run, replace(_status_on_disk(run.image), text=error))
        if error and run is self._run:
            tell(self._events.failed, f"The image was not predicted to its end: {error}")

    def _predict_frame(self, run: _Run, number: int) -> None:
        from napari_sparseseg.distributed.predict import Amendment, make_request, predict_volume
        from napari_sparseseg.engine.checkpoint import load_model
        from napari_sparseseg.predicting import VolumePrediction

        told_at, n_frames = 0.0, len(run.targets)

        def report(share: float, text: str) -> None:
            nonlocal told_at
            if run.stop.is_set():
                raise _StoppedError
            if time.perf_counter() - told_at >= _TELL_EVERY:
                told_at = time.perf_counter()
                status = WholeStatus(WholeState.RUNNING, (number + share) / n_frames, text, self._status.paths)
                self._show(run, status)

        def paint_over(box: Box, labels: npt.NDArray[Any]) -> npt.NDArray[Any]:
            if run.stop.is_set():
                raise _StoppedError
            codes = run.opened.store.codes[(number, *box.slices)].copy()  # another thread may be painting
            return with_paint(labels, codes, self._allowed)

        image, settings = run.opened.image, run.settings
        fitted, _, _ = load_model(run.model)
        report(Unfinished.share_of(run.targets[number]) or 0.0, "reading the image")
        array, _ = image.frame(number)
        prediction = VolumePrediction(fitted, image.volume(number), settings.prediction, cache_bytes=0, progress=False)
        is_far = is_address(settings.device)
        request = make_request(
            prediction.volume,
            array,
            run.targets[number],
            probabilities=False,
            spacing=image.spacing[-image.n_spatial :],
            offset=None,
            unit=run.unit,
            workers=1,
            memory=None,
            device="auto" if is_far else settings.device,
            tile_voxels=_TILE_VOXELS,
            resume=True,
            overwrite=True,
            progress=False,
        )
        predict_volume(
            request,
            fitted,
            prediction.intensity(),
            lambda path: shutil.copyfile(run.model, path),
            settings.device if is_far else None,
            report,
            Amendment(lambda: run.opened.store.painted_boxes(number), paint_over),
        )

    # --- between ---

    def _new_run(self) -> _Run:
        opened = self._work()
        if opened is None:
            raise InputError("there is no image yet; open one first")
        image = opened.project
        if image is None or image.project.is_read_only:
            raise InputError(
                "there is no project to predict into; save the model, and let napari-sparseseg predict write the labels"
            )
        image.check_whole()
        units = image.entry.place.units if image.entry.place else ()
        unit = units[-1] if units else None
        return _Run(opened, image, self._settings(), None if unit == "pixel" else unit)

    def _begin(self, run: _Run, checkpoint: Future[tuple[bytes, Any] | None] | None) -> None:
        self._run = run
        share = self._status.share if checkpoint is None else 0.0
        self._show(run, WholeStatus(WholeState.RUNNING, share, "preparing", self._status.paths))
        self._runner.call(lambda: self._predict(run, checkpoint))

    def _show(self, run: _Run, status: WholeStatus) -> None:
        if run is self._run:
            if run.stop.is_set() and status.state is WholeState.RUNNING:
                return  # it was stopped meanwhile
            self._status = status
            tell(self._events.whole_changed, status)


def _reason(error: Exception) -> str:
    if isinstance(error, SparseSegError):
        return str(error)
    if is_out_of_memory(error):
        return "memory ran out; close other programs, then go on"
    return f"something unexpected went wrong ({type(error).__name__}: {error}); go on to try again"


def _keep_model(run: _Run, checkpoint: Future[tuple[bytes, Any] | None]) -> None:
    """Write the model that everything is predicted with, and drop what another one had begun."""
    taken = checkpoint.result(timeout=_PATIENCE)
    if taken is None:
        raise NotFittedError("there is no model to predict with yet; paint two classes first")
    disk = RealDisk()
    run.folder.mkdir(exist_ok=True)
    for target in run.targets:
        disk.remove(Unfinished.folder_of(target))
        if len(run.targets) > 1:  # of time points by several models nobody could tell which is whose
            disk.remove(target)
    replace_file(disk, run.model, taken[0])


def _targets(image: ProjectImage) -> list[Path]:
    """Where each time point goes."""
    return [image.whole / f"{number:04}.ome.zarr" for number in range(image.entry.shape[0])]


def _status_on_disk(image: ProjectImage) -> WholeStatus:
    """What there is, and how much of what was interrupted."""
    targets = _targets(image)
    complete = [str(target) for target in targets if target.is_dir()]
    paths = tuple(complete) if len(complete) == len(targets) else ()
    under_way = [
        (number, share) for number, target in enumerate(targets) if (share := Unfinished.share_of(target)) is not None
    ]
    if under_way:
        number, share = under_way[0]
        return WholeStatus(WholeState.UNFINISHED, (number + share) / len(targets), paths=paths)
    if paths:
        return WholeStatus(WholeState.DONE, 1.0, paths=paths)
    if complete:  # interrupted between two time points
        return WholeStatus(WholeState.UNFINISHED, len(complete) / len(targets))
    return WholeStatus()
