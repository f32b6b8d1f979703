"""Worker: the compute thread of a live segmenter, and the loop that runs on it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING, TypeVar

from napari_sparseseg.errors import InputError, SparseSegError
from napari_sparseseg.live.classes import ClassList
from napari_sparseseg.live.events import LiveState
from napari_sparseseg.live.failures import explain
from napari_sparseseg.live.image import AbandonedError
from napari_sparseseg.live.opened import Opened
from napari_sparseseg.live.runner import Runner
from napari_sparseseg.live.settings import Settings, is_address
from napari_sparseseg.storage.sparse import clear

if TYPE_CHECKING:
    from napari_sparseseg.engine.model import FittedModel
    from napari_sparseseg.engine.trainer import TrainingStep
    from napari_sparseseg.live.learner import Learner
    from napari_sparseseg.live.loop import LiveLoop

T = TypeVar("T")

_log = logging.getLogger(__name__)
_PATIENCE = 30.0  # seconds to wait for the piece of work that is going on


class Worker:
    """Makes a loop for the latest image, keeps it going, and tells if that fails.

    Methods are called on one thread and return at once, but for those that say that they wait.
    """

    def __init__(self, classes: ClassList, settings: Settings) -> None:
        self._loop: LiveLoop | None = None  # set on the compute thread only
        self._classes = classes
        self._settings = settings
        self._opened: Opened | None = None  # the latest
        self._begun: Opened | None = None  # the one that was begun last; compute thread only
        self._resumed: Opened | None = None  # the one whose project has told all it knows; compute thread only
        self._runner = Runner(self._work, self._fail)

    @property
    def loop(self) -> LiveLoop | None:
        """The loop of the latest image, None while there is none. Any thread."""
        loop = self._loop
        return loop if loop is not None and loop.opened is self._opened else None

    def open(self, opened: Opened) -> None:
        """Work on this image from now on."""
        self._opened = opened
        self._runner.wake()

    def wake(self) -> None:
        """Wishes or paint have changed."""
        if self._opened is not None:
            self._runner.wake()

    def reset(self, start: FittedModel | None = None) -> None:
        """Begin anew with the image, maybe with what another model that fits knows of images."""

        def begin() -> None:
            self._resumed = self._opened  # what was learnt is not wanted, not even where it did not come back yet
            loop = self._begin()
            if start is not None:
                loop.learner.start_from(start)

        self._ask(begin)

    def configure(self, settings: Settings) -> None:
        """Take other settings; those of model and device count for the next image or reset."""
        self._settings = settings
        self.change(lambda loop: loop.learner.configure(settings))

    def change(self, function: Callable[[LiveLoop], None]) -> None:
        """Have the loop changed between two pieces of work; one that has not begun takes everything as it is then."""
        self._ask(lambda: function(self.loop) if self.loop else None)

    def compute(self, function: Callable[[], T]) -> Future[T]:
        """Have something computed between two pieces of work, whatever the loop is at. Any thread."""
        return self._runner.call(function)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to a file, between two steps. Waits; raises what that raises."""
        try:
            names = {info.class_id: info.name for info in self._classes.all}
            self._wait_for(lambda: self._current_loop().learner.save(path, names))
        except OSError as error:
            reason = error.strerror or str(error)
            raise InputError(f"the model cannot be written to {path} ({reason}); choose another place") from error

    def checkpoint(self, opened: Opened) -> Future[tuple[bytes, TrainingStep | None] | None]:
        """The model of this image as the content of a file, taken between two steps; None if there is none."""

        def take() -> tuple[bytes, TrainingStep | None] | None:
            loop = self._loop
            return loop.checkpoint() if loop is not None and loop.opened is opened else None

        return self._runner.call(take)

    def read_model(self, path: str | os.PathLike[str]) -> tuple[FittedModel, TrainingStep | None]:
        """A saved model that fits the image, and its last step. Waits; raises `ModelFileError`, `InputError`."""
        return self._wait_for(lambda: self._read_model(path))

    def read_start(self, path: str | os.PathLike[str]) -> FittedModel:
        """A saved model that `reset` may start from. Waits; raises `ModelFileError`, `InputError`."""
        return self._wait_for(lambda: self._read_start(path))

    def adopt(self, fitted: FittedModel, last: TrainingStep | None) -> None:
        """Go on from this model. Waits; raises `InputError` if it does not fit the image."""
        self._wait_for(lambda: self._current_loop().adopt(fitted, last))

    def close(self) -> bool:
        """End the thread; whether it ended within a second."""
        return self._runner.close()

    # --- on the compute thread ---

    def _work(self) -> bool:
        opened = self._opened
        if opened is None or opened.switch.wishes.is_halted:
            return False
        loop = self.loop
        if loop is None:
            self._begin()
            return True
        return loop.work()

    def _current_loop(self) -> LiveLoop:
        return self.loop or self._begin()

    def _begin(self) -> LiveLoop:
        """Make a new loop for the image, where its project was left; loading torch takes a second.

        What fails on the way, for want of memory or of a device, is done anew the next time, all of it.
        """
        opened = self._begun = self._opened
        if opened is None:
            raise InputError("there is no image yet; open one first")
        from napari_sparseseg.live.loop import LiveLoop
        from napari_sparseseg.live.predictor import LivePredictor
        from napari_sparseseg.live.resuming import resume

        self._loop = None
        clear(opened.labels)
        learner = _make_learner(opened, self._settings)
        loop = LiveLoop(opened, self._classes, learner, LivePredictor(opened.labels, opened.store))
        self._loop = loop
        try:
            loop.prepare()
            if opened.project is not None and opened is not self._resumed:
                resume(loop, opened.project)
        except BaseException:
            self._loop = None
            raise
        self._resumed = opened
        return loop

    def _read_model(self, path: str | os.PathLike[str]) -> tuple[FittedModel, TrainingStep | None]:
        from napari_sparseseg.engine.checkpoint import load_model
        from napari_sparseseg.engine.trainer import TrainingStep
        from napari_sparseseg.live.learner import check_fits

        fitted, header, _ = load_model(path)
        check_fits(self._current_loop().learner.image, fitted.spec)
        history = header["history"]
        return fitted, TrainingStep(**history[-1]) if history else None

    def _read_start(self, path: str | os.PathLike[str]) -> FittedModel:
        from napari_sparseseg.engine.checkpoint import load_model

        start = load_model(path)[0]
        self._current_loop().learner.check_start(start)
        return start

    def _fail(self, error: Exception) -> None:
        """Halt, keep all paint, and say why."""
        opened = self._begun
        if opened is None or opened.switch.is_retired or isinstance(error, AbandonedError):
            return
        if not isinstance(error, SparseSegError):
            _log.error("the live loop failed", exc_info=error)
        message = explain(error)
        if self._loop is not None:
            self._loop.recover(error)
        opened.switch.wish(is_training=False, once=0, find=None, table=None, advise=None, is_halted=True)
        opened.switch.publish(state=LiveState.FAILED, activity="Stopped by an error", error=message)
        opened.switch.tell(opened.switch.events.failed, message)

    # --- between ---

    def _ask(self, function: Callable[[], object]) -> None:
        """Have something done on the compute thread; what goes wrong there is told like any failure."""
        self._runner.call(function).add_done_callback(self._report)

    def _report(self, future: Future[object]) -> None:
        error = None if future.cancelled() else future.exception()
        if isinstance(error, Exception):
            self._fail(error)

    def _wait_for(self, function: Callable[[], T]) -> T:
        future = self._runner.call(function)
        try:
            return future.result(timeout=_PATIENCE)
        except (CancelledError, AbandonedError):
            raise InputError("the live segmenter was closed; open the image in a new one") from None
        except TimeoutError:
            future.cancel()
            raise InputError("the compute thread does not answer; pause the training, then try again") from None


def _make_learner(opened: Opened, settings: Settings) -> Learner:
    """One that trains here, or on the cluster whose scheduler was named as the device."""
    from napari_sparseseg.live.learner import Learner
    from napari_sparseseg.live.remote import RemoteLearner

    def is_wanted() -> bool:
        return not opened.switch.is_retired

    def notice(sentence: str) -> None:
        opened.switch.tell(opened.switch.events.noticed, sentence)

    if not is_address(settings.device):
        return Learner(opened.image, settings, notice=notice, is_wanted=is_wanted)
    return RemoteLearner(opened.image, settings, notice=notice, is_wanted=is_wanted)
