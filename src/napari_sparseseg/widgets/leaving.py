"""What is done before a project is left: all of it is saved, while a dialog says so if that takes long."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QProgressDialog, QWidget

from napari_sparseseg.widgets.session import Session

T = TypeVar("T")

_UNTOLD_SECONDS = 0.2  # for which nobody minds waiting
_LOOK_MS = 50


@contextmanager
def leaving(session: Session, widget: QWidget | None) -> Iterator[str]:
    """Have all saved before another image is opened within; why not all could be, in one sentence, empty if it was.

    Raises `InputError` if that takes too long. What is open still afterwards is saved on.
    """
    name = "The present image" if session.project is None else session.project.name
    try:
        yield do_meanwhile(widget, f"{name} is being saved …", session.live.keeping.hold)
    finally:
        session.live.keeping.go_on()


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
            dialog = QProgressDialog(text, "", 0, 0, None if widget is None else widget.window())
            dialog.setWindowTitle("Please wait")
            dialog.setCancelButton(None)
            dialog.setWindowModality(Qt.WindowModality.ApplicationModal)
            looking = QTimer(dialog)
            looking.timeout.connect(lambda: dialog.accept() if future.done() else None)
            looking.start(_LOOK_MS)
            while not future.done():  # Escape ends the dialog, but not what it waits for
                dialog.exec()
                wait([future], _LOOK_MS / 1000)  # where the application ends, a dialog is over at once
            dialog.deleteLater()
        return future.result()
