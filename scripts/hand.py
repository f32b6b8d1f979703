"""A hand on the mouse: strokes and keys on napari's canvas as a user makes them, for pictures and benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import napari
import numpy as np
from qtpy.QtCore import QEvent, QEventLoop, QPoint, QPointF, Qt, QTimer
from qtpy.QtGui import QMouseEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QWidget

_PAUSE = 0.012  # seconds; vispy drops a move that comes within 10 ms of the one before


def let_live(seconds: float) -> None:
    """Let the application live for a while, and rest where there is nothing to do.

    vispy replaces `QTest.qWait` by one that computes all the time, at the cost of the thread that trains.
    """
    loop, timer = QEventLoop(), QTimer()
    timer.setSingleShot(True)
    timer.setTimerType(Qt.TimerType.PreciseTimer)
    timer.timeout.connect(loop.quit)
    timer.start(round(1000 * seconds))
    loop.exec()


class Hand:
    """Drives the mouse over the canvas of a viewer; points are world coordinates along the displayed axes."""

    def __init__(self, viewer: napari.Viewer) -> None:
        self._viewer = viewer
        self.canvas: QWidget = viewer.window._qt_viewer.canvas.native

    def at(self, point: Sequence[float]) -> QPoint:
        """Where on the canvas a point lies, in pixels."""
        camera, size = self._viewer.scene.camera, self._viewer.canvas.size
        y = size[0] / 2 + (point[0] - camera.center[-2]) * camera.zoom
        x = size[1] / 2 + (point[1] - camera.center[-1]) * camera.zoom
        return QPoint(round(x), round(y))

    def stroke(self, *points: Sequence[float], steps: int = 6) -> None:
        """Press, draw from point to point, release."""
        self.press(points[0])
        for start, end in pairwise(points):
            for point in np.linspace(start, end, steps + 1)[1:]:
                self.move(point)
                let_live(_PAUSE)
        self.move(points[-1])
        self.release(points[-1])

    def press(self, point: Sequence[float]) -> None:
        """Press the left button."""
        self._send(QEvent.Type.MouseMove, point, Qt.MouseButton.NoButton)
        QTest.mousePress(self.canvas, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, self.at(point))

    def move(self, point: Sequence[float]) -> None:
        """Move with the left button held."""
        self._send(QEvent.Type.MouseMove, point, Qt.MouseButton.LeftButton)

    def release(self, point: Sequence[float]) -> None:
        """Let the left button go."""
        QTest.mouseRelease(self.canvas, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, self.at(point))

    def key(self, key: Qt.Key, modifiers: Qt.KeyboardModifier = Qt.KeyboardModifier.NoModifier) -> None:
        """Press a key over the canvas."""
        QTest.keyClick(self.canvas, key, modifiers)

    def _send(self, kind: QEvent.Type, point: Sequence[float], held: Qt.MouseButton) -> None:
        # QTest.mouseMove tells of no button, and a drag is a move with one
        position = QPointF(self.at(point))
        everywhere = QPointF(self.canvas.mapToGlobal(self.at(point)))
        event = QMouseEvent(kind, position, everywhere, Qt.MouseButton.NoButton, held, Qt.KeyboardModifier.NoModifier)
        QApplication.sendEvent(self.canvas, event)
