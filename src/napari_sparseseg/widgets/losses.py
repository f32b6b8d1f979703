"""LossWatch: hears of layers that leave the viewer, and tells the user of those that matter."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

from qtpy.QtCore import QObject, QTimer, Signal

ANNOTATION_LOST = "The layer '{name}' was removed. Your paint is kept; Paint brings the layer back"
PREDICTION_LOST = "The layer '{name}' was removed. Predictions go on; Correct brings the layer back"


class LossWatch(QObject):
    """Calls `lose` with each layer that is removed or exchanged, between `start` and `stop`; GUI thread only."""

    told = Signal(str)
    """What a loss means and how the layer comes back."""

    def __init__(self, viewer: Any, lose: Callable[[Any], None], parent: QObject) -> None:
        super().__init__(parent)
        self._viewer = weakref.ref(viewer)
        self._lose = weakref.WeakMethod(lose)
        self._is_on = False

    def start(self) -> None:
        """Listen."""
        viewer = self._viewer()
        if viewer is not None and not self._is_on:
            self._is_on = True
            viewer.layers.events.removed.connect(self._on_removed)
            viewer.layers.events.changed.connect(self._on_exchanged)

    def stop(self) -> None:
        """Listen no longer."""
        viewer = self._viewer()
        if viewer is not None and self._is_on:
            viewer.layers.events.removed.disconnect(self._on_removed)
            viewer.layers.events.changed.disconnect(self._on_exchanged)
        self._is_on = False

    def tell(self, sentence: str) -> None:
        """Tell of a loss soon: napari removes all layers when it closes, and there is nobody to tell then."""
        QTimer.singleShot(0, partial(_tell, weakref.ref(self), sentence))

    def tell_now(self, sentence: str) -> None:
        """Tell of a loss, unless everything is gone."""
        viewer = self._viewer()
        if self._is_on and viewer is not None and len(viewer.layers):
            self.told.emit(sentence)

    def _on_exchanged(self, event: Any) -> None:
        old = event.old_value
        for layer in old if isinstance(old, list) else [old]:
            self._on_lost(layer)

    def _on_removed(self, event: Any) -> None:
        self._on_lost(event.value)

    def _on_lost(self, layer: Any) -> None:
        lose = self._lose()
        if lose is not None:
            lose(layer)


def _tell(watch: weakref.ref[LossWatch], sentence: str) -> None:
    alive = watch()
    if alive is not None:
        alive.tell_now(sentence)
