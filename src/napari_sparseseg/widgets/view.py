"""What is on screen: which plane, which part of it; and how to get to another one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from napari.layers import Layer
from qtpy.QtCore import QObject, QTimer, Signal

from napari_sparseseg._types import Box, Plane, Shape3D
from napari_sparseseg.live.events import View
from napari_sparseseg.widgets.axes import AxisMap

DELAY_MS = 30


@dataclass(frozen=True, slots=True)
class Shown:
    """How a layer is sliced: its axes in the order of display (the last ones on screen), and the voxel sliced at."""

    order: tuple[int, ...]
    n_displayed: int
    point: tuple[int, ...]

    @property
    def displayed(self) -> tuple[int, ...]:
        return self.order[len(self.order) - self.n_displayed :]

    @property
    def hidden(self) -> tuple[int, ...]:
        return self.order[: len(self.order) - self.n_displayed]


def camera_of(viewer: Any) -> Any:
    """The camera, which napari 0.9 has moved."""
    scene = getattr(viewer, "scene", None)
    return viewer.camera if scene is None else scene.camera


def canvas_size(viewer: Any) -> tuple[float, float] | None:
    """Height and width of the canvas in pixels; None where napari does not tell (before 0.9)."""
    height, width = getattr(getattr(viewer, "canvas", None), "size", (0, 0))
    return (height, width) if height and width else None


def shown(viewer: Any, layer: Layer) -> Shown:
    """How the viewer slices a layer, whose axes are the viewer's last ones."""
    dims = viewer.dims
    offset = dims.ndim - layer.ndim
    order = tuple(axis - offset for axis in dims.order if axis >= offset)
    n_displayed = sum(axis >= offset for axis in dims.displayed)
    point = np.round(layer.world_to_data(_world_point(viewer, layer))).astype(int)
    return Shown(order, n_displayed, tuple(point.tolist()))


def current_plane(viewer: Any, layer: Layer, axes: AxisMap) -> Plane:
    """The plane on screen, or in 3D display the one that the slider stands at; within the image."""
    state = shown(viewer, layer)
    point = [int(np.clip(p, 0, n - 1)) for p, n in zip(state.point, axes.shape, strict=True)]
    return axes.plane_across(state.order, point)


def voxel_at(layer: Layer, axes: AxisMap, position: Sequence[float]) -> tuple[int, Shape3D] | None:
    """Frame and voxel (z, y, x) of our layer at a position in the world; None outside."""
    point = np.round(layer.world_to_data(position[-axes.ndim :])).astype(int).tolist()
    if not all(0 <= p < n for p, n in zip(point, axes.shape, strict=True)):
        return None
    frame, z, y, x = (part.start for part in axes.to_frames([slice(p, p + 1) for p in point]))
    return frame, (z, y, x)


def view_of(viewer: Any, layer: Layer, axes: AxisMap, eye: tuple[float, float, float] | None = None) -> View:
    """What is on screen; `eye` (z, y, x) is where the user worked last: the centre of attention while it is visible."""
    plane = current_plane(viewer, layer, axes)
    whole = plane.box(axes.frames_shape[1:])
    window = _visible(viewer, layer, axes)
    box = whole if window is None else window.clipped(whole)
    if not box.n_voxels:
        box = whole
    center = tuple((a + b - 1) / 2 for a, b in zip(box.start, box.stop, strict=True))
    if eye is not None and all(a <= e < b for a, e, b in zip(box.start, eye, box.stop, strict=True)):
        center = eye
    z, y, x = center
    return View(plane, box, (z, y, x))


def show_plane(viewer: Any, layer: Layer, axes: AxisMap, plane: Plane) -> None:
    """Bring a plane on screen, in 2D."""
    state = shown(viewer, layer)
    offset = viewer.dims.ndim - layer.ndim
    point = list(state.point)
    across = axes.axis_of(plane)
    if across is not None:
        point[across] = plane.index
        viewer.dims.order = _order_across(viewer.dims.order, axes, across + offset, offset)
    if axes.time_axis is not None:
        point[axes.time_axis] = plane.frame
    viewer.dims.ndisplay = 2
    world = np.asarray(layer.data_to_world(point)) * _unit_ratio(viewer, layer)
    viewer.dims.point = (*viewer.dims.point[:offset], *world.tolist())


def center_on(viewer: Any, layer: Layer, point: Sequence[int]) -> None:
    """Move the view to a voxel of the slice on screen, unless it is seen already."""
    world = np.asarray(layer.data_to_world(point)) * _unit_ratio(viewer, layer)
    offset, dims = viewer.dims.ndim - layer.ndim, viewer.dims
    size, camera = canvas_size(viewer), camera_of(viewer)
    wanted = [float(world[axis - offset]) for axis in dims.displayed]
    reach = [pixels / camera.zoom / 2 for pixels in size or (0, 0)]
    if any(abs(w - c) > r for w, c, r in zip(wanted, camera.center[-2:], reach, strict=True)):
        camera.center = (*camera.center[:-2], *wanted)


def show_voxel(viewer: Any, layer: Layer, axes: AxisMap, frame: int, voxel: Shape3D) -> None:
    """Bring a voxel (z, y, x) of a frame into the middle of what is on screen, across the axes that are sliced now."""
    z, y, x = voxel
    point = [part.start for part in axes.to_layer(frame, Box(voxel, (z + 1, y + 1, x + 1)))]
    world = np.asarray(layer.data_to_world(point)) * _unit_ratio(viewer, layer)
    offset = viewer.dims.ndim - layer.ndim
    viewer.dims.point = (*viewer.dims.point[:offset], *world.tolist())
    camera = camera_of(viewer)
    shown_axes = [world[axis - offset] for axis in viewer.dims.displayed if axis >= offset]
    camera.center = (*camera.center[: 3 - len(shown_axes)], *shown_axes)


def _order_across(order: Sequence[int], axes: AxisMap, across: int, offset: int) -> tuple[int, ...]:
    """The order of axes nearest to `order` in which the two other axes of space are on screen."""
    on_screen = {axis + offset for axis in axes.spatial} - {across}
    return (*(axis for axis in order if axis not in on_screen), *(axis for axis in order if axis in on_screen))


def _visible(viewer: Any, layer: Layer, axes: AxisMap) -> Box | None:
    """The voxels that the canvas has room for, as a box that reaches through the volume along what is not on screen."""
    size, dims = canvas_size(viewer), viewer.dims
    if size is None or dims.ndisplay != 2:
        return None
    camera = camera_of(viewer)
    corners = np.tile(np.asarray(dims.point, float), (2, 1))
    for axis, center, pixels in zip(dims.displayed, camera.center[-2:], size, strict=True):
        reach = pixels / camera.zoom / 2
        corners[:, axis] = center - reach, center + reach
    ratio = _unit_ratio(viewer, layer)
    inside = np.sort([layer.world_to_data(corner[-layer.ndim :] / ratio) for corner in corners], axis=0)
    on_screen = [axis - (dims.ndim - layer.ndim) for axis in dims.displayed]
    bounds = []
    for axis in axes.spatial:
        low, high = inside[:, axis] if axis in on_screen else (0, axes.shape[axis])
        bounds.append((int(np.floor(low + 0.5)), int(np.ceil(high + 0.5))))
    (z0, z1), (y0, y1), (x0, x1) = [(0, 1), *bounds][-3:]
    return Box((z0, y0, x0), (z1, y1, x1))


def _world_point(viewer: Any, layer: Layer) -> Any:
    point = np.asarray(viewer.dims.point[-layer.ndim :], float)
    return point / _unit_ratio(viewer, layer)


def _unit_ratio(viewer: Any, layer: Layer) -> Any:
    """The layer's units in those of the viewer, along each axis: world coordinates of a layer do not count them."""
    world, own = getattr(viewer.dims, "units", None), getattr(layer, "units", None)
    if world is None or own is None or len(world) < len(own):
        return np.ones(layer.ndim)
    pairs = zip(own, world[-len(own) :], strict=True)
    # to compare is fast, to convert is not, and this is asked for with each tile and each step of a slider
    return np.array([1.0 if unit == other else _in_base(unit) / _in_base(other) for unit, other in pairs])


def _in_base(unit: Any) -> float:
    return float((1 * unit).to_base_units().magnitude)


class ViewWatcher(QObject):
    """Tells when something else came on screen, some 30 ms after it began to change, and then again while it does."""

    changed = Signal()

    def __init__(self, viewer: Any, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(DELAY_MS)
        self._timer.timeout.connect(self.changed)
        camera, canvas = camera_of(viewer), getattr(viewer, "canvas", None)
        self._emitters = [getattr(viewer.dims.events, name) for name in ("point", "order", "ndisplay")]
        self._emitters += [camera.events.center, camera.events.zoom]
        if canvas is not None and hasattr(canvas, "size"):
            self._emitters.append(canvas.events.size)
        for emitter in self._emitters:
            emitter.connect(self.touch)

    def touch(self) -> None:
        """Something changed, or may have."""
        if not self._timer.isActive():
            self._timer.start()

    def close(self) -> None:
        """Listen no longer."""
        self._timer.stop()
        for emitter in self._emitters:
            emitter.disconnect(self.touch)
        self._emitters = []
