"""ObjectTool: paint that says which object it belongs to, and a layer that shows these ids."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal

from napari_sparseseg._types import NO_OBJECT, Box
from napari_sparseseg.widgets.overlays import ObjectMap, ObjectOverlay
from napari_sparseseg.widgets.tools import take_brush
from napari_sparseseg.widgets.view import voxel_at

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
        return self._overlay is not None

    def open(self, pair: LayerPair) -> None:
        """Paint objects of this image, once it is switched on."""
        self.close()
        self._pair = pair

    def close(self) -> None:
        """Switch off and let go of the image."""
        self.switch(False)
        self._pair = None

    def switch(self, wanted: bool) -> None:
        """Give each object that is painted an id and show the ids, or paint classes alone and take the layer away."""
        if not wanted:
            self._switch_off()
        elif self._pair is None:
            self.problem.emit("Choose an image first: its objects are painted then")
        elif not self.is_on:
            self._switch_on(self._pair)

    def _switch_on(self, pair: LayerPair) -> None:
        viewer = self._viewer()
        if viewer is None:
            return
        ids = ObjectMap(pair.axes, self._live.objects)
        self._overlay = ObjectOverlay(viewer, ids, f"{pair.source.name} painted objects", **pair.placement)
        viewer.mouse_move_callbacks.append(self._follow)
        take_brush(pair.both)
        self.take_next()

    def _switch_off(self) -> None:
        overlay, self._overlay = self._overlay, None
        if overlay is not None:
            overlay.remove()
            self._leave()

    def _leave(self) -> None:
        viewer = self._viewer()
        if viewer is not None:
            viewer.mouse_move_callbacks.remove(self._follow)
        self.hovered = self.object_id = NO_OBJECT
        if self._pair is not None:
            self._pair.object_id = NO_OBJECT
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
            self._leave()

    def _take(self, object_id: int) -> None:
        if self._pair is not None and self.is_on:
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
        found = voxel_at(overlay.layer, pair.axes, viewer.cursor.position)
        if found is None:
            return NO_OBJECT
        frame, (z, y, x) = found
        return int(self._live.objects(frame, Box((z, y, x), (z + 1, y + 1, x + 1))).item())
