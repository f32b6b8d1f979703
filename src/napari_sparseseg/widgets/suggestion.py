"""SuggestionTool: the layer that shows suggested paint until it is accepted or refused."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, Signal

from napari_sparseseg._types import Box
from napari_sparseseg.errors import SparseSegError
from napari_sparseseg.live.events import Suggestion
from napari_sparseseg.widgets.layers import History, SuggestionLayer, exchange, suggestion_colormap
from napari_sparseseg.widgets.overlays import ObjectMap
from napari_sparseseg.widgets.view import current_plane

if TYPE_CHECKING:
    from napari_sparseseg.live.live_segmenter import LiveSegmenter
    from napari_sparseseg.widgets.pair import LayerPair

_OPACITY = 0.5


class SuggestionTool(QObject):
    """Asks for suggestions for the slice on screen, and shows what comes; GUI thread only.

    To remove the layer refuses what it shows.
    """

    changed = Signal()
    """Something is being computed, suggested, or no longer."""
    problem = Signal(str)

    def __init__(self, viewer: Any, live: LiveSegmenter, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.layer: SuggestionLayer | None = None
        self._shown: Suggestion | None = None
        self._viewer = weakref.ref(viewer)
        self._live = live
        self._pair: LayerPair | None = None
        self._history: History | None = None

    def open(self, pair: LayerPair, history: History) -> None:
        """Suggest paint on this image from now on."""
        self.close()
        self._pair, self._history = pair, history
        self.changed.emit()

    def close(self) -> None:
        """Take the layer away, and let go of the image."""
        self._hide()
        self._pair = self._history = None

    def grow(self) -> None:
        """Ask for what the strokes on the slice on screen may belong to."""
        self._ask("grow")

    def fill(self) -> None:
        """Ask for what may lie between the painted slices around the one on screen."""
        self._ask("fill")

    def accept(self) -> None:
        """Make paint of what is suggested."""
        try:
            was_taken = self._live.suggestions.accept()
        except SparseSegError as error:
            self.problem.emit(str(error))
        else:
            if was_taken and self._pair is not None:
                # to paint the same class over it says something now: that it is right
                self._pair.annotation.tells_same = True
        self.update()

    def refuse(self) -> None:
        """Drop what is suggested, or is being computed."""
        self._live.suggestions.refuse()
        self.update()

    def update(self) -> None:
        """Show what is suggested now."""
        suggestion = self._live.suggestions.state.suggestion
        if suggestion is None:
            self._hide()
        elif suggestion is not self._shown:
            self._show(suggestion)
        self.changed.emit()

    def on_layer_removed(self, layer: Any) -> None:
        """The user has removed the layer: what it showed is not wanted."""
        if layer is self.layer:
            self.layer = self._shown = None
            self.refuse()

    def _ask(self, what: str) -> None:
        viewer, pair = self._viewer(), self._pair
        layer = None if pair is None else pair.annotation.layer or pair.prediction.layer
        if viewer is None or pair is None or layer is None:
            self.problem.emit("Choose an image and paint on it first; then more can be suggested")
            return
        plane = current_plane(viewer, layer, pair.axes)
        try:
            (self._live.suggestions.grow if what == "grow" else self._live.suggestions.fill)(plane)
        except SparseSegError as error:
            self.problem.emit(str(error))
        self.update()

    def _show(self, suggestion: Suggestion) -> None:
        viewer, pair = self._viewer(), self._pair
        if viewer is None or pair is None:
            return
        before = self.layer
        self.layer = SuggestionLayer(
            ObjectMap(pair.axes, lambda frame, box: _read(suggestion, frame, box), np.uint8),
            name=f"{pair.source.name} suggestion",
            opacity=_OPACITY,
            colormap=suggestion_colormap(self._live.classes),
            **pair.placement,
        )
        self._shown = suggestion
        self.layer.editable = False
        self.layer.history = self._history
        exchange(viewer, [before], self.layer)

    def _hide(self) -> None:
        viewer, layer = self._viewer(), self.layer
        self.layer = self._shown = None  # before: to be removed by us does not refuse
        if layer is not None:
            layer.history = None
            if viewer is not None and layer in viewer.layers:
                viewer.layers.remove(layer)


def _read(suggestion: Suggestion, frame: int, box: Box) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """What is suggested in a box of a frame, of the box's shape."""
    codes = np.zeros(box.shape, np.uint8)
    common = box.clipped(suggestion.box)
    if frame == suggestion.frame and common.n_voxels:
        part = suggestion.codes[common.relative_to(suggestion.box.start).slices]
        codes[common.relative_to(box.start).slices] = part
    return codes
