"""SpotMarker: a ring where painting next is worth most, until something is painted on that slice."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from napari.layers import Points
from qtpy.QtCore import QObject

from napari_sparseseg._types import Box
from napari_sparseseg.live.events import PaintChange, SuggestedSlice
from napari_sparseseg.widgets.layers import exchange
from napari_sparseseg.widgets.view import center_on, show_plane

if TYPE_CHECKING:
    from napari_sparseseg.widgets.pair import LayerPair

_COLOR = (1.0, 1.0, 0.0, 1.0)
_SHARE = 8  # of the slice's shorter side that the ring takes
_SMALLEST = 6  # voxels


class SpotMarker(QObject):
    """Shows one suggestion at a time, in a layer of points that is there only meanwhile. GUI thread only."""

    def __init__(self, viewer: Any, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.layer: Points | None = None
        self._viewer = weakref.ref(viewer)
        self._pair: LayerPair | None = None
        self._suggested: SuggestedSlice | None = None

    def open(self, pair: LayerPair) -> None:
        """Mark spots on this image."""
        self._pair = pair

    def close(self) -> None:
        """Mark nothing any more."""
        self.hide()
        self._pair = None

    def show(self, suggested: SuggestedSlice) -> None:
        """Bring a slice on screen and mark the spot on it."""
        viewer, pair, before = self._viewer(), self._pair, self.layer
        if viewer is None or pair is None:
            return
        z, y, x = suggested.spot
        voxel = Box(suggested.spot, (z + 1, y + 1, x + 1))
        place = [part.start for part in pair.axes.to_layer(suggested.plane.frame, voxel)]
        on_slice = [n for axis, n in enumerate(pair.axes.frames_shape[1:]) if axis != suggested.plane.axis]
        self.layer = Points(
            [place],
            name=f"{pair.source.name} paint next",
            symbol="ring",
            size=max(_SMALLEST, min(on_slice) // _SHARE),
            face_color="transparent",
            border_color=[_COLOR],
            **pair.placement,
        )
        self.layer.editable = False
        self._suggested = suggested
        exchange(viewer, [before], self.layer)
        show_plane(viewer, self.layer, pair.axes, suggested.plane)
        center_on(viewer, self.layer, place)

    def hide(self) -> None:
        """Take the mark away."""
        layer, self.layer, self._suggested = self.layer, None, None
        viewer = self._viewer()
        if viewer is not None and layer is not None and layer in viewer.layers:
            viewer.layers.remove(layer)

    def on_paint(self, changes: Sequence[PaintChange]) -> None:
        """What was suggested was done, once there is paint on the slice."""
        plane = self._suggested.plane if self._suggested else None
        if plane is None:
            return
        inside = (
            c.box.start[plane.axis] <= plane.index < c.box.stop[plane.axis] for c in changes if c.frame == plane.frame
        )
        if any(inside):
            self.hide()

    def on_layer_removed(self, layer: Any) -> None:
        """Let go of the layer, if it is this one."""
        if layer is self.layer:
            self.layer = self._suggested = None


def sentence_of(suggested: SuggestedSlice, axis_labels: Sequence[str]) -> str:
    """What the user is told: where to paint, and why there."""
    why = "where the network is least sure" if suggested.method == "uncertainty" else "amid the largest unpainted gap"
    return f"Paint next: {axis_labels[suggested.plane.axis]} {suggested.plane.index}, {why}; begin at the ring"
