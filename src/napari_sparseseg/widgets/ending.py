"""Ending: notices that a viewer's window is gone, whichever way it went. Exits: asks before napari ends."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QCoreApplication, QEvent, QObject, QTimer, Signal
from qtpy.QtWidgets import QApplication
from typing_extensions import override

from napari_sparseseg.widgets.questions import agrees

# of napari's windows, which have nothing public that tells; without them each window is asked for by itself
_CANVAS = "_qt_viewer"
_EXITS = "_quit_app"


class Ending(QObject):
    """Notices that a window closes, that it is deleted, or that the application ends.

    `may_close` is asked first when the user closes the window, which keeps it open if it says so; not where napari is
    to end, before which `Exits` asks. A script that closes the window cannot be kept from it.
    """

    ended = Signal()
    """Once, as soon as it is certain; the window may be there still, hidden."""

    def __init__(
        self,
        parent: QObject | None = None,
        may_close: Callable[[], bool] = lambda: True,
    ) -> None:
        super().__init__(parent)
        self._may_close = may_close
        self._window: weakref.ref[QObject] | None = None
        self._is_over = False
        self.is_under_way = False
        self._afterwards = QTimer(self)
        self._afterwards.setSingleShot(True)
        self._afterwards.timeout.connect(self._end_if_hidden)
        application = QCoreApplication.instance()
        if application is not None:
            application.aboutToQuit.connect(self._end)

    def watch(self, window: QObject) -> None:
        """Watch one window; others before it are watched no longer."""
        if self._window is not None and self._window() is window:
            return
        self._window = weakref.ref(window)
        window.installEventFilter(self)
        window.destroyed.connect(self._end)

    def stop(self) -> None:
        """Watch no longer."""
        window = None if self._window is None else self._window()
        self._window = None
        if window is not None and _is_alive(window):
            window.removeEventFilter(self)

    @override
    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        if event is None or watched is None:
            return False
        if event.type() == QEvent.Type.Close:
            if self._is_meant_alone(watched) and not self._may_close():
                event.ignore()
                return True
            # the user may still say no: what tells is whether the window is hidden afterwards
            self.is_under_way = True
            self._afterwards.start(0)
        elif event.type() == QEvent.Type.Hide and self.is_under_way:
            self._end()
        return False

    def _is_meant_alone(self, window: Any) -> bool:
        """Whether the user closes this window, and nothing else."""
        return not self._is_over and not getattr(window, _EXITS, False) and not _is_closed_by_script(window)

    def _end_if_hidden(self) -> None:
        window: Any = None if self._window is None else self._window()
        if window is None or not _is_alive(window) or not window.isVisible():
            self._end()
        else:
            self.is_under_way = False

    def _end(self) -> None:
        if not self._is_over:
            self._is_over = True
            self.ended.emit()


class Exits(QObject):
    """Notices, between `start` and `stop`, that napari is to end, which closes all windows, whichever that is told to.

    `may_exit` is asked first, and keeps all windows as they are if it says so.
    """

    def __init__(self, may_exit: Callable[[], bool]) -> None:
        super().__init__()
        self._may_exit = may_exit

    def start(self) -> None:
        """Watch all windows, also those that are opened later; may be called twice."""
        application = QCoreApplication.instance()
        if application is not None:
            application.installEventFilter(self)

    def stop(self) -> None:
        """Watch no longer."""
        application = QCoreApplication.instance()
        if application is not None:
            application.removeEventFilter(self)

    @override
    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        if event is None or event.type() != QEvent.Type.Close or not getattr(watched, _EXITS, False):
            return False
        if _is_closed_by_script(watched) or self._may_exit():
            return False
        setattr(watched, _EXITS, False)  # else napari ends as soon as this window alone is closed
        event.ignore()
        return True


def _is_closed_by_script(window: Any) -> bool:
    """Whether `Viewer.close` was called, by a script or by Exit: it has removed the layers by now."""
    canvas = getattr(window, _CANVAS, None)
    return canvas is not None and canvas.isHidden()


def ask_to_close(problem: str) -> bool:
    """Whether the user agrees that the window closes though something is in memory only."""
    return agrees(QApplication.activeWindow(), "Close the window?", _loss(problem), "Close it", is_warning=True)


def ask_to_exit(problem: str) -> bool:
    """Whether the user agrees that napari ends though something is in memory only, in one of its windows."""
    return agrees(QApplication.activeWindow(), "Exit napari?", _loss(problem), "Exit", is_warning=True)


def _loss(problem: str) -> str:
    return f"Not all is saved: {problem}. What is in memory only will be lost."


def _is_alive(window: Any) -> bool:
    """Whether Qt has not deleted the object behind it."""
    try:
        window.objectName()
    except RuntimeError:
        return False
    return True
