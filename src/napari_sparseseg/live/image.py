"""The image that is worked on, and its frames as volumes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from napari_sparseseg._inputs import checked_spacing
from napari_sparseseg._types import Spacing
from napari_sparseseg.errors import InputError
from napari_sparseseg.storage.volume import ArrayVolume, Frame


@dataclass(frozen=True, slots=True)
class LiveImage:
    """An image of 2 or 3 spatial axes, with or without a channel and a time axis; nothing is read before it is needed.

    `shape` is frames, z, y, x; `image_shape` the array's own without channels.
    """

    array: Any
    channel_axis: int | None
    time_axis: int | None
    spacing: Spacing
    shape: tuple[int, int, int, int]
    image_shape: tuple[int, ...]

    @classmethod
    def of(
        cls, array: Any, channel_axis: int | None, time_axis: int | None, spacing: Sequence[float] | None
    ) -> LiveImage:
        """Check what is given; raises `InputError` and `InputTypeError`."""
        n_axes = len(array.shape) if hasattr(array, "shape") else 0
        channel_axis, time_axis = (_from_front(a, n_axes) for a in (channel_axis, time_axis))
        if time_axis is not None and time_axis == channel_axis:
            raise InputError(f"channel_axis and time_axis are both {time_axis}; they must be different axes")
        n_frames = 1 if time_axis is None else int(array.shape[time_axis])
        first = _volume(array, channel_axis, time_axis, 0)
        voxel = checked_spacing(spacing, n_axes=len(first.spatial_shape))
        image_shape = tuple(int(n) for axis, n in enumerate(array.shape) if axis != channel_axis)
        return cls(array, channel_axis, time_axis, voxel, (n_frames, *first.shape), image_shape)

    @property
    def n_channels(self) -> int:
        return 1 if self.channel_axis is None else int(self.array.shape[self.channel_axis])

    @property
    def n_spatial(self) -> int:
        """2 or 3."""
        return len(self.image_shape) - (self.time_axis is not None)

    @property
    def flat(self) -> tuple[bool, bool, bool]:
        """Axes of a single voxel."""
        z, y, x = (n == 1 for n in self.shape[1:])
        return z, y, x

    def volume(self, frame: int) -> ArrayVolume:
        """One time point."""
        return _volume(self.array, self.channel_axis, self.time_axis, frame)


def _volume(array: Any, channel_axis: int | None, time_axis: int | None, frame: int) -> ArrayVolume:
    if time_axis is None:
        return ArrayVolume(array, channel_axis)
    if channel_axis is not None and channel_axis > time_axis:
        channel_axis -= 1
    return ArrayVolume(Frame(array, time_axis, frame), channel_axis)


def _from_front(axis: int | None, n_axes: int) -> int | None:
    if axis is None:
        return None
    if not -n_axes <= axis < n_axes:
        raise InputError(f"there is no axis {axis} in an image of {n_axes} axes")
    return axis % n_axes
