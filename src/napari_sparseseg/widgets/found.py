"""FoundTool: the layer of the objects that were found, and the points on it that correct them."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import QObject, Signal

from napari_sparseseg._types import NO_OBJECT, Box, Shape3D
from napari_sparseseg.errors import SparseSegError
from napari_sparseseg.widgets.found_table import TableTool, VisibleIds
from napari_sparseseg.widgets.layers import FoundLayer, History, add_on_top
from napari_sparseseg.widgets.overlays import ObjectMap
from napari_sparseseg.widgets.view import current_plane, show_voxel, voxel_at

if TYPE_CHECKING:
    from concurrent.futures import Future

    from napari_sparseseg.live.found_objects import Draft
    from napari_sparseseg.live.live_segmenter import LiveSegmenter
    from napari_sparseseg.widgets.pair import LayerPair

Tool = Literal["", "merge", "split", "delete", "fill"]
TWO_POINTS: tuple[Tool, ...] = ("merge", "split")

_OPACITY = 0.6


class FoundTool(QObject):
    """Shows the objects once there are some. With a tool, a click or two points on them correct; GUI thread only.

    Two points are two clicks, or where a drag begins and ends.
    """

    changed = Signal()
    """Other objects, another tool, or a first point."""
    problem = Signal(str)
    _drafted = Signal(object)  # a future that is done, from whatever thread

    def __init__(self, viewer: Any, live: LiveSegmenter, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.layer: FoundLayer | None = None
        self.tool: Tool = ""
        self._first: Shape3D | None = None
        self._viewer = weakref.ref(viewer)
        self._live = live
        self._pair: LayerPair | None = None
        self._history: History | None = None
        self._ids: VisibleIds | None = None
        self.table = TableTool(self, live.found, self)
        self.table.problem.connect(self.problem)
        self._drafted.connect(self._on_drafted)

    @property
    def frame(self) -> int | None:
        """The time point on screen; None if its objects are not shown."""
        viewer = self._viewer()
        if viewer is None or self.layer is None or self._pair is None:
            return None
        return current_plane(viewer, self.layer, self._pair.axes).frame

    @property
    def count(self) -> int | None:
        """Objects of the time point on screen; None if they were not looked for."""
        return None if self.frame is None else self._live.found.count(self.frame)

    @property
    def has_first(self) -> bool:
        """Whether the first of two points was clicked."""
        return self._first is not None

    def open(self, pair: LayerPair, history: History) -> None:
        """Show the objects of this image: those that came back with the project, or as soon as some are found."""
        self.close()
        self._pair, self._history = pair, history
        if not self._live.found.is_empty:
            self._remove_left_over(ObjectMap(pair.axes, self._live.found.reader, np.uint32))
            self.update()
        self.changed.emit()

    def close(self) -> None:
        """Leave the layer in the viewer as an ordinary one."""
        self.choose("")
        layer, self.layer = self.layer, None
        if layer is not None:
            layer.history = None
            layer.mouse_drag_callbacks.remove(self._on_click)
            layer.events.selected_label.disconnect(self._on_label_selected)
        self._pair = self._history = self._ids = None
        self.table.follow()

    def _remove_left_over(self, ids: ObjectMap) -> None:
        """Remove layers of before that show these objects and nothing else."""
        viewer = self._viewer()
        if viewer is None:
            return
        for layer in list(viewer.layers):
            if isinstance(layer, FoundLayer) and layer.history is None and np.array_equal(layer.data, ids):
                viewer.layers.remove(layer)

    def update(self) -> None:
        """Show what was found or corrected; a layer that was removed comes back."""
        viewer, pair = self._viewer(), self._pair
        if viewer is None or pair is None or self._live.found.is_empty:
            return
        if self.layer is None:
            self._ids = VisibleIds(self._live.found.reader)
            ids = ObjectMap(pair.axes, self._ids, np.uint32)
            self.layer = FoundLayer(ids, name=f"{pair.source.name} objects", opacity=_OPACITY, **pair.placement)
            self.layer.editable = False
            self.layer.history = self._history
            self.layer.mouse_drag_callbacks.append(self._on_click)
            self.layer.events.selected_label.connect(self._on_label_selected)
            add_on_top(viewer, self.layer)
        self._redraw()
        self.follow()

    def follow(self) -> None:
        """Another time point may be on screen."""
        self.table.follow()
        self.changed.emit()

    def hide(self, frame: int, object_ids: npt.NDArray[np.integer]) -> None:
        """Hide these objects of a time point in the layer, and no others."""
        if self._ids is not None and self._ids.hide(frame, object_ids):
            self._redraw()

    def go_to(self, object_id: int) -> None:
        """Bring an object of the time point on screen into the middle, and select it in the layer."""
        viewer, frame = self._viewer(), self.frame
        if viewer is None or frame is None or self.layer is None or self._pair is None:
            return
        show_voxel(viewer, self.layer, self._pair.axes, frame, self._live.found.place_of(frame, object_id))
        self.layer.selected_label = object_id

    def _redraw(self) -> None:
        if self.layer is not None:
            self.layer.refresh(extent=False, thumbnail=False, highlight=False)

    def choose(self, tool: Tool) -> None:
        """Take a tool in hand, on the layer of objects; "" lays it down."""
        viewer, layer = self._viewer(), self.layer
        if tool and (viewer is None or layer is None):
            self.problem.emit("Find objects first; then they can be corrected")
            tool = ""
        had_one, self.tool, self._first = bool(self.tool), tool, None
        if viewer is not None and layer is not None and had_one != bool(tool):
            layer.mouse_pan = not tool
            if tool:
                viewer.layers.selection.active = layer
                layer.mouse_drag_callbacks.append(self._on_drag)
                viewer.layers.selection.events.active.connect(self._on_active)
            else:
                layer.mouse_drag_callbacks.remove(self._on_drag)
                viewer.layers.selection.events.active.disconnect(self._on_active)
        self.changed.emit()

    def on_layer_removed(self, layer: Any) -> None:
        """Let go of the layer, if it is this one; the objects stay known."""
        if layer is self.layer:
            self.choose("")
            self.layer = self._ids = None
            self.follow()

    def _on_active(self, event: Any) -> None:
        """Another layer was selected, on which clicks mean something else."""
        if event.value is not self.layer:
            self.choose("")

    def _on_drag(self, _layer: Any, event: Any) -> Iterator[None]:
        """Called by napari with the button down, and gone on with until it is up."""
        start = self._voxel(event)
        if start is None or event.button != 1:
            return
        yield
        while event.type == "mouse_move":
            yield
        end = self._voxel(event)
        if end is not None:
            self._point(start, end)

    def _on_click(self, layer: Any, event: Any) -> Iterator[None]:
        """A click without a tool selects what is there; a drag moves the image, as ever."""
        if self.tool or event.button != 1 or len(event.dims_displayed) != 2 or self._pair is None:
            return
        yield
        if event.type == "mouse_move":
            return
        found = voxel_at(layer, self._pair.axes, event.position)
        object_id = NO_OBJECT if found is None or self._ids is None else self._id_at(*found)
        if object_id != NO_OBJECT:
            layer.selected_label = object_id

    def _id_at(self, frame: int, voxel: Shape3D) -> int:
        """The object at a voxel that can be seen, 0 without."""
        z, y, x = voxel
        return NO_OBJECT if self._ids is None else int(self._ids(frame, Box(voxel, (z + 1, y + 1, x + 1))).item())

    def _on_label_selected(self, _event: Any) -> None:
        if self.layer is not None:
            self.table.pick(int(self.layer.selected_label))

    def _voxel(self, event: Any) -> Shape3D | None:
        viewer = self._viewer()
        if viewer is None or self.layer is None or self._pair is None:
            return None
        if viewer.dims.ndisplay == 3:
            self.problem.emit("Objects are corrected on slices; switch to 2D")
            return None
        found = voxel_at(self.layer, self._pair.axes, event.position)
        if found is not None and self._id_at(*found) == NO_OBJECT and self._live.found.id_at(*found) != NO_OBJECT:
            self.problem.emit("This object is hidden by the sizes or the border chosen at the table; widen them first")
            return None
        return None if found is None else found[1]

    def _point(self, start: Shape3D, end: Shape3D) -> None:
        if self.tool not in TWO_POINTS:
            self._act(start, start)
        elif start != end:
            self._act(start, end)
        elif self._first is None:
            self._first = start
            self.changed.emit()
        else:
            self._act(self._first, start)

    def _act(self, first: Shape3D, second: Shape3D) -> None:
        viewer, found, self._first = self._viewer(), self._live.found, None
        if viewer is None or self.layer is None or self._pair is None:
            return
        plane = current_plane(viewer, self.layer, self._pair.axes)
        try:
            if self.tool == "merge":
                found.merge(plane, first, second)
            elif self.tool == "split":
                found.begin_split(plane, first, second).add_done_callback(self._tell_draft)
            elif self.tool == "delete":
                found.delete(plane, first)
            else:
                found.begin_fill(plane, first).add_done_callback(self._tell_draft)
        except SparseSegError as error:
            self.problem.emit(str(error))
        self.changed.emit()

    def _tell_draft(self, future: Future[Draft]) -> None:
        """On the compute thread: hand over what was found."""
        with suppress(RuntimeError):  # the window is gone, and Qt has deleted this
            self._drafted.emit(future)

    def _on_drafted(self, future: Future[Draft]) -> None:
        if future.cancelled() or self._pair is None:
            return
        try:
            self._live.found.finish(future.result())
        except SparseSegError as error:
            self.problem.emit(str(error))
        self.changed.emit()
