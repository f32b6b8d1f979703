"""ObjectTool: paint that says which object it belongs to, and a layer that shows these ids."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, Signal

from napari_sparseseg._types import NO_OBJECT, Box
from napari_sparseseg.widgets.overlays import ObjectMap, ObjectOverlay

if TYPE_CHECKING:
    from napari_sparseseg.live.live_segmenter import LiveSegmenter
    from napari_sparseseg.widgets.pair import LayerPair


class ObjectTool(QObject):
    """While it is on, what is painted belongs to the object in hand; GUI thread only."""

    changed = Signal()
    """It was switched, another object is in hand, or another one is under the brush."""
    problem = Signal(str)

    def __init__(self, viewer: Any, live: LiveSegmenter, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.object_id = NO_OBJECT
        """The object in hand, 0 while it is off."""
        self.hovered = NO_OBJECT
        """The object under the brush, 0 if there is none."""
        self._viewer = weakref.ref(viewer)
        self._live = live
        self._pair: LayerPair | None = None
        self._overlay: ObjectOverlay | None = None

    @property
    def is_on(self) -> bool:
        return self._pair is not None

    def switch_on(self, pair: LayerPair) -> None:
        """Take the next free object in hand, and show the ids of what was painted."""
        viewer = self._viewer()
        if viewer is None or self.is_on:
            return
        self._pair = pair
        ids = ObjectMap(pair.axes, self._live.objects)
        self._overlay = ObjectOverlay(viewer, ids, f"{pair.source.name} painted objects", **pair.placement)
        viewer.mouse_move_callbacks.append(self._follow)
        self.take_next()

    def switch_off(self) -> None:
        """Paint classes alone from now on, and take the layer of ids away."""
        pair, self._pair = self._pair, None
        overlay, self._overlay = self._overlay, None
        viewer = self._viewer()
        if pair is None:
            return
        if overlay is not None:
            overlay.remove()
        if viewer is not None:
            viewer.mouse_move_callbacks.remove(self._follow)
        self.hovered = self.object_id = pair.object_id = NO_OBJECT
        self.changed.emit()

    def take_next(self) -> None:
        """Take an object in hand of which nothing is painted yet."""
        self._take(self._live.next_object_id)

    def pick(self) -> None:
        """Take the object under the brush in hand."""
        self._look()
        if self.is_on and self.hovered == NO_OBJECT:
            self.problem.emit("There is no painted object under the brush")
            return
        self._take(self.hovered)

    def update(self) -> None:
        """Show what has been painted, or taken back."""
        if self._overlay is not None:
            self._overlay.update()
        self._look()

    def on_layer_removed(self, layer: Any) -> None:
        """Switch off if the user has removed the layer of ids."""
        if self._overlay is not None and layer is self._overlay.layer:
            self._overlay = None
            self.switch_off()

    def _take(self, object_id: int) -> None:
        if self._pair is not None:
            self.object_id = self._pair.object_id = object_id
            self.changed.emit()

    def _follow(self, _viewer: Any, _event: Any) -> None:
        self._look()

    def _look(self) -> None:
        """See what is under the brush."""
        hovered = self._under_brush()
        if hovered != self.hovered:
            self.hovered = hovered
            self.changed.emit()

    def _under_brush(self) -> int:
        viewer, overlay, pair = self._viewer(), self._overlay, self._pair
        if viewer is None or overlay is None or pair is None:
            return NO_OBJECT
        position = viewer.cursor.position[-pair.axes.ndim :]
        point = np.round(overlay.layer.world_to_data(position)).astype(int).tolist()
        if not all(0 <= p < n for p, n in zip(point, pair.axes.shape, strict=True)):
            return NO_OBJECT
        frames, *space = pair.axes.to_frames([slice(p, p + 1) for p in point])
        z, y, x = space
        box = Box((z.start, y.start, x.start), (z.stop, y.stop, x.stop))
        return int(self._live.objects(frames.start, box).item())
