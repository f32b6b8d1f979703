"""Layers that can be switched on: which tiles are fresh, how probable a class is, what else it may be, and so on."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from napari.layers import Image, Labels
from napari.utils.colormaps import DirectLabelColormap
from typing_extensions import override

from napari_sparseseg._types import Box, Shape3D
from napari_sparseseg.live.board import FRESH, NEVER, STALE
from napari_sparseseg.live.events import ClassInfo, TileUpdate
from napari_sparseseg.storage.sparse import clear, forget, zeros
from napari_sparseseg.widgets.axes import AxisMap, Index
from napari_sparseseg.widgets.layers import CLEAR, TellingLabels, add_below_ours, add_on_top, class_colormap
from napari_sparseseg.widgets.redraw import redraw

Bytes = npt.NDArray[np.uint8]
Adding = Callable[[Any, Labels | Image], None]

FRESHNESS_COLORS = {
    None: CLEAR,
    NEVER: CLEAR,
    STALE: (0.9, 0.6, 0.0, 1.0),
    FRESH: (0.0, 0.62, 0.45, 1.0),
}
"""Orange and green that colour-blind people can tell apart."""


class LazyMap:
    """Values that are looked up when they are asked for, seen as an array with the layer's axes; napari slices it."""

    def __init__(self, axes: AxisMap, dtype: npt.DTypeLike) -> None:
        self.shape = axes.shape
        self.ndim = axes.ndim
        self.dtype = np.dtype(dtype)
        self._axes = axes

    def __getitem__(self, index: Any) -> npt.NDArray[Any]:
        parts = index if isinstance(index, tuple) else (index,)
        parts = (*parts, *(slice(None),) * (self.ndim - len(parts)))
        positions = [np.arange(size)[part] for size, part in zip(self.shape, parts, strict=True)]
        frames = [0] if self._axes.time_axis is None else np.atleast_1d(positions[self._axes.time_axis])
        space = [np.atleast_1d(positions[axis]) for axis in self._axes.spatial]
        volumes = [self._picked(int(frame), space) for frame in frames]
        values = volumes[0] if self._axes.time_axis is None else np.moveaxis(np.stack(volumes), 0, self._axes.time_axis)
        return values.reshape([np.size(p) for p in positions if np.ndim(p)])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.asarray(self[()], dtype)

    def _picked(self, frame: int, space: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """Values of a frame at the given positions along the layer's axes of space."""
        raise NotImplementedError


class TileMap(LazyMap):
    """One number for each tile."""

    def __init__(self, axes: AxisMap, tile_shape: Shape3D, tiles: Callable[[int], Bytes]) -> None:
        super().__init__(axes, np.uint8)
        self._sizes = tile_shape[-len(axes.spatial) :]
        self._tiles = tiles

    @override
    def _picked(self, frame: int, space: list[npt.NDArray[Any]]) -> Bytes:
        tiles = [positions // size for positions, size in zip(space, self._sizes, strict=True)]
        values: Bytes = self._tiles(frame).reshape(self._tile_counts)[np.ix_(*tiles)]
        return values

    @property
    def _tile_counts(self) -> tuple[int, ...]:
        lengths = (self.shape[axis] for axis in self._axes.spatial)
        return tuple(-(-length // size) for length, size in zip(lengths, self._sizes, strict=True))


class ObjectMap(LazyMap):
    """The id of the object at each voxel; `objects` tells those of a frame's box, in the given dtype."""

    def __init__(
        self, axes: AxisMap, objects: Callable[[int, Box], npt.NDArray[np.integer]], dtype: npt.DTypeLike = np.int32
    ) -> None:
        super().__init__(axes, dtype)
        self._objects = objects

    @override
    def _picked(self, frame: int, space: list[npt.NDArray[Any]]) -> npt.NDArray[np.integer]:
        z, y, x = [np.zeros(1, int), *space][-3:]
        low, high = ([int(end(positions)) for positions in (z, y, x)] for end in (np.min, np.max))
        box = Box((low[0], low[1], low[2]), (high[0] + 1, high[1] + 1, high[2] + 1))
        found: npt.NDArray[np.integer] = self._objects(frame, box)[np.ix_(z - low[0], y - low[1], x - low[2])]
        return found if len(space) == 3 else found[0]


class Overlay:
    """A layer beside our two that can be switched on and off, and that the user may remove."""

    def __init__(self, viewer: Any, layer: Labels | Image, add: Adding = add_below_ours) -> None:
        self.layer = layer
        self._viewer = weakref.ref(viewer)
        add(viewer, layer)

    def remove(self) -> None:
        """Take the layer out of the viewer, if it is still there."""
        viewer = self._viewer()
        if viewer is not None and self.layer in viewer.layers:
            viewer.layers.remove(self.layer)


class FreshnessOverlay(Overlay):
    """Colours the tiles: green where the prediction shows the latest paint, orange where it lags behind."""

    def __init__(self, viewer: Any, tiles: TileMap, name: str, **placement: Any) -> None:
        colormap = DirectLabelColormap(color_dict=FRESHNESS_COLORS)
        super().__init__(viewer, Labels(tiles, name=name, opacity=0.25, colormap=colormap, **placement))
        self.layer.editable = False

    def update(self) -> None:
        """Show what has become fresh or stale."""
        self.layer.refresh(extent=False, thumbnail=False, highlight=False)


class ObjectOverlay(Overlay):
    """Colours painted objects by their ids, above the paint."""

    def __init__(self, viewer: Any, ids: ObjectMap, name: str, **placement: Any) -> None:
        super().__init__(viewer, Labels(ids, name=name, opacity=0.8, **placement), add_on_top)
        self.layer.editable = False

    def update(self) -> None:
        """Show what has been painted."""
        self.layer.refresh(extent=False, thumbnail=False, highlight=False)


class VoxelOverlay(Overlay):
    """A number 0..255 for each voxel, filled as tiles are predicted."""

    def __init__(
        self, viewer: Any, axes: AxisMap, make: Callable[[Bytes], Labels | Image], add: Adding = add_below_ours
    ) -> None:
        self._axes = axes
        self._data = zeros(axes.shape, np.uint8)
        self._frames = axes.as_frames(self._data)
        self._dirty: list[Index] = []
        super().__init__(viewer, make(self._data), add)

    def at(self, index: tuple[int, ...]) -> int:
        """The number of a voxel, by its place in the layer."""
        return int(self._data[index])

    def write(self, tile: TileUpdate, values: Bytes) -> None:
        """Take the values of a tile; drawn by the next `redraw`."""
        self._frames[tile.frame][tile.box.slices] = values
        self._dirty.append(self._axes.to_layer(tile.frame, tile.box))

    def forget(self, tile: TileUpdate) -> None:
        """Forget the values of a tile; drawn by the next `redraw`."""
        forget(self._frames[tile.frame][tile.box.slices])
        self._dirty.append(self._axes.to_layer(tile.frame, tile.box))

    def clear(self) -> None:
        """Forget all values."""
        clear(self._data)
        self._dirty = []
        self.layer.refresh(extent=False, thumbnail=False, highlight=False)

    def redraw(self) -> None:
        """Draw what was written since the last time."""
        changed, self._dirty = self._dirty, []
        viewer = self._viewer()
        if changed and viewer is not None:
            redraw(viewer, self.layer, changed)


class IntensityOverlay(VoxelOverlay):
    """Shows the numbers as light of one colour."""

    def __init__(self, viewer: Any, axes: AxisMap, name: str, colormap: str, **placement: Any) -> None:
        super().__init__(
            viewer,
            axes,
            lambda data: Image(
                data,
                name=name,
                colormap=colormap,
                contrast_limits=(0, 255),
                blending="additive",
                opacity=0.6,
                **placement,
            ),
        )


class AmbiguityOverlay(VoxelOverlay):
    """Shows what else a voxel may be, above the prediction: the numbers are class ids, 0 where nothing else."""

    def __init__(self, viewer: Any, axes: AxisMap, name: str, classes: Iterable[ClassInfo], **placement: Any) -> None:
        colormap = class_colormap(classes)
        super().__init__(
            viewer,
            axes,
            lambda data: TellingLabels(data, name=name, colormap=colormap, opacity=0.9, **placement),
            add_on_top,
        )
        self.layer.editable = False

    def show_classes(self, classes: Iterable[ClassInfo]) -> None:
        """Colour the classes as they are now."""
        self.layer.colormap = class_colormap(classes)
