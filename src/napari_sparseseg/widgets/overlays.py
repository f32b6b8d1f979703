"""Layers that can be switched on: which tiles are fresh, how probable a class is, how sure the network is."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from napari.layers import Image, Labels
from napari.utils.colormaps import DirectLabelColormap

from napari_sparseseg._types import Shape3D
from napari_sparseseg.live.board import FRESH, NEVER, STALE
from napari_sparseseg.live.events import TileUpdate
from napari_sparseseg.widgets.axes import AxisMap, Index
from napari_sparseseg.widgets.layers import CLEAR, add_below_ours
from napari_sparseseg.widgets.redraw import redraw

Bytes = npt.NDArray[np.uint8]

FRESHNESS_COLORS = {
    None: CLEAR,
    NEVER: CLEAR,
    STALE: (0.9, 0.6, 0.0, 1.0),
    FRESH: (0.0, 0.62, 0.45, 1.0),
}
"""Orange and green that colour-blind people can tell apart."""


class TileMap:
    """One number for each tile, seen as an array with the layer's axes; napari slices it like any other."""

    def __init__(self, axes: AxisMap, tile_shape: Shape3D, tiles: Callable[[int], Bytes]) -> None:
        self.shape = axes.shape
        self.ndim = axes.ndim
        self.dtype = np.dtype(np.uint8)
        self._axes = axes
        self._sizes = tile_shape[-len(axes.spatial) :]
        self._tiles = tiles

    def __getitem__(self, index: Any) -> Bytes:
        parts = index if isinstance(index, tuple) else (index,)
        parts = (*parts, *(slice(None),) * (self.ndim - len(parts)))
        positions = [np.arange(size)[part] for size, part in zip(self.shape, parts, strict=True)]
        frames = [0] if self._axes.time_axis is None else np.atleast_1d(positions[self._axes.time_axis])
        space = [
            np.atleast_1d(positions[axis]) // size for axis, size in zip(self._axes.spatial, self._sizes, strict=True)
        ]
        values = self._picked(frames, space)
        return values.reshape([np.size(p) for p in positions if np.ndim(p)])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.asarray(self[()], dtype)

    def _picked(self, frames: Any, space: list[Any]) -> Bytes:
        """Values at the given frames and tiles, axes in the layer's order."""
        volumes: list[Bytes] = [self._tiles(int(frame)).reshape(self._tile_counts)[np.ix_(*space)] for frame in frames]
        if self._axes.time_axis is None:
            return volumes[0]
        return np.moveaxis(np.stack(volumes), 0, self._axes.time_axis)

    @property
    def _tile_counts(self) -> tuple[int, ...]:
        lengths = (self.shape[axis] for axis in self._axes.spatial)
        return tuple(-(-length // size) for length, size in zip(lengths, self._sizes, strict=True))


class Overlay:
    """A layer beside our two that can be switched on and off, and that the user may remove."""

    def __init__(self, viewer: Any, layer: Labels | Image) -> None:
        self.layer = layer
        self._viewer = weakref.ref(viewer)
        add_below_ours(viewer, layer)

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


class IntensityOverlay(Overlay):
    """A number 0..255 for each voxel, filled as tiles are predicted."""

    def __init__(self, viewer: Any, axes: AxisMap, name: str, colormap: str, **placement: Any) -> None:
        self._axes = axes
        self._data = np.zeros(axes.shape, np.uint8)
        self._frames = axes.as_frames(self._data)
        self._dirty: list[Index] = []
        super().__init__(
            viewer,
            Image(
                self._data,
                name=name,
                colormap=colormap,
                contrast_limits=(0, 255),
                blending="additive",
                opacity=0.6,
                **placement,
            ),
        )

    def write(self, tile: TileUpdate, values: Bytes) -> None:
        """Take the values of a tile; drawn by the next `redraw`."""
        self._frames[tile.frame][tile.box.slices] = values
        self._dirty.append(self._axes.to_layer(tile.frame, tile.box))

    def clear(self) -> None:
        """Forget all values."""
        self._data[...] = 0
        self._dirty = []
        self.layer.refresh(extent=False, thumbnail=False, highlight=False)

    def redraw(self) -> None:
        """Draw what was written since the last time."""
        changed, self._dirty = self._dirty, []
        viewer = self._viewer()
        if changed and viewer is not None:
            redraw(viewer, self.layer, changed)
