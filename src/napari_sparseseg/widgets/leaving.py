"""What is done before a project is left: all of it is saved, while a dialog says so if that takes long."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QProgressDialog, QWidget

from napari_sparseseg.live.events import LiveState
from napari_sparseseg.widgets.session import Session

T = TypeVar("T")

_UNTOLD_SECONDS = 0.2  # for which nobody minds waiting
_LOOK_MS = 50


@contextmanager
def leaving(session: Session, widget: QWidget | None) -> Iterator[str]:
    """Have all saved before another image is opened within; why not all could be, in one sentence, empty if it was.

    Raises `InputError` if that takes too long. What is open still afterwards is saved on, and learnt from as before.
    """
    name = "The present image" if session.project is None else session.project.name
    with pausing(session):
        try:
            yield do_meanwhile(widget, f"{name} is being saved …", session.live.keeping.hold)
        finally:
            session.live.keeping.go_on()


@contextmanager
def pausing(session: Session) -> Iterator[None]:
    """Learn nothing within, which would not be saved; from the same image it is learnt as before afterwards.

    That image may be in another project by then. An update once is not taken up again.
    """
    live, source = session.live, session.source
    was_training, was_paused = live.status.is_training, live.was_paused
    is_learning = was_training or live.status.state is LiveState.TRAINING
    if is_learning or was_paused:  # else to pause would only keep training from starting by itself afterwards
        live.pause()
    if is_learning:  # the steps that are being done now count only later
        live.keeping.note_model()
    try:
        yield
    finally:
        if session.source is source:
            if was_training:
                live.start()
            elif was_paused:  # which opening a project has ended
                live.pause()


def what_is_lost(session: Session, problem: str) -> str:
    """Sentences for a question: what leaving the present image costs."""
    remedy = "" if session.project is None else "; Project > Save as… keeps it, on another disk"
    return f"Not all of the present one is saved: {problem}. What is in memory only will be lost{remedy}."


def do_meanwhile(widget: QWidget | None, text: str, function: Callable[[], T]) -> T:
    """Do something on another thread; if that takes long, a dialog says so, which lets nobody paint meanwhile.

    Raises what that raises.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="sparseseg meanwhile") as pool:
        future = pool.submit(function)
        wait([future], _UNTOLD_SECONDS)
        if not future.done():
            with suppress(RuntimeError):  # its window was closed, and Qt has deleted it: the result is waited for
                _Waiting(text, future, None if widget is None else widget.window()).show_until_done()
        return future.result()


class _Waiting(QProgressDialog):
    """Says that something is being done, until it is. Escape ends the dialog, but not what it waits for."""

    def __init__(self, text: str, future: Future[Any], parent: QWidget | None) -> None:
        super().__init__(text, "", 0, 0, parent)
        self._future = future
        self.setWindowTitle("Please wait")
        self.setCancelButton(None)
        self.setWindowModality(Qt.WindowModality.ApplicationModal)
        self._looking = QTimer(self)
        self._looking.timeout.connect(self._look)

    def show_until_done(self) -> None:
        """Show the dialog; raises RuntimeError if it is deleted meanwhile."""
        self._looking.start(_LOOK_MS)
        while not self._future.done():
            self.exec()
            wait([self._future], _LOOK_MS / 1000)  # where the application ends, a dialog is over at once
        self._looking.stop()  # `deleteLater` waits for the event loop around us, while others run: of the next question
        self.deleteLater()

    def _look(self) -> None:
        if self._future.done():
            self.accept()
