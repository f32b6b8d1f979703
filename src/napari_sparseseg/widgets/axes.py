"""How the axes of our layers are read as frames, z, y, x."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from napari_sparseseg._types import Box, Plane

Index = tuple[slice, ...]


@dataclass(frozen=True, slots=True)
class AxisMap:
    """Layers have the axes of the image without channels: Y, X or Z, Y, X, and perhaps time somewhere between.

    Everything else counts frames, z, y, x, with one frame or one plane where the layers have no such axis.
    """

    shape: tuple[int, ...]
    time_axis: int | None = None

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def spatial(self) -> tuple[int, ...]:
        """Axes of the layer that are space: (z,) y, x."""
        return tuple(axis for axis in range(self.ndim) if axis != self.time_axis)

    @property
    def frames_shape(self) -> tuple[int, int, int, int]:
        """Frames, z, y, x."""
        n_frames = 1 if self.time_axis is None else self.shape[self.time_axis]
        z, y, x = (1, 1, 1, *(self.shape[axis] for axis in self.spatial))[-3:]
        return n_frames, z, y, x

    def as_frames(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """View of an array that has the layer's axes as (frames, z, y, x)."""
        if self.time_axis is None:
            array = array[None]
        elif self.time_axis:
            array = array.transpose(self.time_axis, *self.spatial)
        return array if array.ndim == 4 else array[:, None]

    def to_frames(self, index: Sequence[slice]) -> tuple[slice, slice, slice, slice]:
        """The same voxels, one slice for each of frames, z, y, x."""
        time = slice(0, 1) if self.time_axis is None else index[self.time_axis]
        space = [index[axis] for axis in self.spatial]
        z, y, x = space if len(space) == 3 else (slice(0, 1), *space)
        return time, z, y, x

    def to_layer(self, frame: int, box: Box) -> Index:
        """Where the box lies in the layer's array."""
        space = list(box.slices[-len(self.spatial) :])
        if self.time_axis is not None:
            space.insert(self.time_axis, slice(frame, frame + 1))
        return tuple(space)

    def axis_of(self, plane: Plane) -> int | None:
        """The layer's axis that a plane lies across; None for the only plane of a 2D image."""
        return self.spatial[plane.axis] if len(self.spatial) == 3 else None

    def plane_across(self, order: Sequence[int], point: Sequence[int]) -> Plane:
        """The plane that is shown at `point` when the layer's axes are displayed in `order`, the last ones on screen.

        Of the axes of space, the one furthest from the screen is the one that the plane lies across.
        """
        frame = 0 if self.time_axis is None else point[self.time_axis]
        if len(self.spatial) < 3:
            return Plane(frame, 0, 0)
        across = next(axis for axis in order if axis in self.spatial)
        return Plane(frame, self.spatial.index(across), point[across])
