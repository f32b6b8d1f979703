"""Hands that paint and type: on the canvas of a window with real events, or without one, as napari hands them on."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from napari._vispy.mouse_event import NapariMouseEvent
from napari.utils._proxies import ReadOnlyWrapper
from napari.utils.action_manager import action_manager
from napari.utils.interactions import (
    mouse_move_callbacks,
    mouse_press_callbacks,
    mouse_release_callbacks,
)
from napari.utils.key_bindings import KeymapHandler
from napari.utils.shortcuts import default_shortcuts
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication
from vispy.app.canvas import MouseEvent

_REST = 0.002  # seconds


def wait(milliseconds: float) -> None:
    """Let the window live for a while, as Qt's own function does, which vispy replaces by one that never rests.

    That one takes the time from the thread that a test waits for.
    """
    end = time.monotonic() + milliseconds / 1000
    QApplication.processEvents()
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, _REST))
        QApplication.processEvents()


QTest.qWait = staticmethod(wait)

_BUTTONS = {"": None, "LeftButton": 1, "RightButton": 2}
_KEYS = {"Return": "Enter"}
_MODIFIERS = {"Control": "Meta" if sys.platform == "darwin" else "Ctrl"}


class Hands(Protocol):
    """`world` is a place in the world, `button` the name of one in Qt, "" for none."""

    def press(self, world: Sequence[float], button: str) -> None: ...

    def move(self, world: Sequence[float], button: str) -> None: ...

    def release(self, world: Sequence[float], button: str) -> None: ...

    def key(self, name: str, *modifiers: str) -> None: ...


class WindowHands:
    """Mouse and keys of a viewer's window."""

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer

    def press(self, world: Sequence[float], button: str) -> None:
        QTest.qWait(1)  # sliders that come or go change the canvas's size, and with it where a voxel lies
        QTest.mousePress(self._canvas, _qt_button(button), Qt.KeyboardModifier.NoModifier, self._at(world))

    def move(self, world: Sequence[float], button: str) -> None:
        # QTest.mouseMove tells of no button, and a drag is a move with one
        here = self._at(world)
        event = QMouseEvent(
            QEvent.Type.MouseMove,
            QPointF(here),
            QPointF(self._canvas.mapToGlobal(here)),
            Qt.MouseButton.NoButton,
            _qt_button(button),
            Qt.KeyboardModifier.NoModifier,
        )
        QApplication.sendEvent(self._canvas, event)
        QTest.qWait(12)  # vispy drops a move that comes within 10 ms of the one before; napari is 5 ms late

    def release(self, world: Sequence[float], button: str) -> None:
        QTest.mouseRelease(self._canvas, _qt_button(button), Qt.KeyboardModifier.NoModifier, self._at(world))

    def key(self, name: str, *modifiers: str) -> None:
        held = Qt.KeyboardModifier.NoModifier
        for modifier in modifiers:
            held |= getattr(Qt.KeyboardModifier, f"{modifier}Modifier")
        QTest.keyClick(self._canvas, getattr(Qt.Key, f"Key_{name}"), held)

    @property
    def _canvas(self) -> Any:
        return self._viewer.window._qt_viewer.canvas.native

    def _at(self, world: Sequence[float]) -> QPoint:
        """Where on the canvas that is, in pixels."""
        camera, size = self._viewer.scene.camera, self._viewer.canvas.size
        down, across = (world[axis] for axis in self._viewer.dims.displayed)
        y = size[0] / 2 + (down - camera.center[-2]) * camera.zoom
        x = size[1] / 2 + (across - camera.center[-1]) * camera.zoom
        return QPoint(round(x), round(y))


class ModelHands:
    """Mouse and keys of a viewer that has no window: what its canvas would make of them, in 2D."""

    def __init__(self, viewer: Any) -> None:
        self._viewer, self._keys = viewer, KeymapHandler()
        self._pressed: MouseEvent | None = None
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Could not resolve type hint")  # of what works on windows only
            for action, shortcuts in default_shortcuts.items():  # which a window does
                action_manager.unbind_shortcut(action)
                for shortcut in shortcuts:
                    action_manager.bind_shortcut(action, shortcut)

    def press(self, world: Sequence[float], button: str) -> None:
        event = MouseEvent("mouse_press", button=_BUTTONS[button], buttons=[_BUTTONS[button]])
        self._give(mouse_press_callbacks, event, world)
        self._pressed = event

    def move(self, world: Sequence[float], button: str) -> None:
        event = MouseEvent("mouse_move", button=_BUTTONS[button], press_event=self._pressed)
        self._give(mouse_move_callbacks, event, world)

    def release(self, world: Sequence[float], button: str) -> None:
        event = MouseEvent("mouse_release", button=_BUTTONS[button], press_event=self._pressed)
        self._give(mouse_release_callbacks, event, world)
        self._pressed = None

    def key(self, name: str, *modifiers: str) -> None:
        active = self._viewer.layers.selection.active
        self._keys.keymap_providers = [each for each in (active, self._viewer) if each is not None]
        key = "+".join((*(_MODIFIERS.get(modifier, modifier) for modifier in modifiers), _KEYS.get(name, name)))
        assert self._keys.press_key(key), f"{key} is bound to nothing"
        self._keys.release_key(key)

    def _give(self, callbacks: Callable[[Any, Any], None], event: MouseEvent, world: Sequence[float]) -> None:
        viewer, dims = self._viewer, self._viewer.dims
        position = np.array(dims.point, float)
        for axis in dims.displayed:
            position[axis] = world[axis]
        more = {"view_direction": None, "up_direction": None, "camera_zoom": viewer.scene.camera.zoom}
        point = {"dims_displayed": list(dims.displayed), "dims_point": list(dims.point), "viewbox": (0, 0)}
        whole = NapariMouseEvent(event, position=tuple(position.tolist()), **more, **point)
        viewer.cursor.position = whole.position
        read_only = ReadOnlyWrapper(whole, exceptions=("handled",))
        callbacks(viewer, read_only)
        if viewer.layers.selection.active is not None:
            callbacks(viewer.layers.selection.active, read_only)


def _qt_button(name: str) -> Qt.MouseButton:
    return getattr(Qt.MouseButton, name or "NoButton")  # type: ignore[no-any-return]
