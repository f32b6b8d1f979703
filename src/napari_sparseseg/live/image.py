"""The image that is worked on, and its frames as volumes."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_sparseseg._types import Box, Spacing, Volume
from napari_sparseseg.errors import InputError, InputTypeError
from napari_sparseseg.storage._arrays import checked_spacing
from napari_sparseseg.storage.cached import with_cache
from napari_sparseseg.storage.volume import Frame, ImageVolume


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
        channel_axis = _from_front("channel_axis", channel_axis, n_axes)
        time_axis = _from_front("time_axis", time_axis, n_axes)
        if time_axis is not None and time_axis == channel_axis:
            raise InputError(f"channel_axis and time_axis are both {time_axis}; they must be different axes")
        n_frames = 1 if time_axis is None else int(array.shape[time_axis])
        first = _volume(array, channel_axis, time_axis, 0)
        voxel = checked_spacing(spacing, n_axes=len(first.spatial_shape))
        image_shape = tuple(int(n) for axis, n in enumerate(array.shape) if axis != channel_axis)
        return cls(with_cache(array), channel_axis, time_axis, voxel, (n_frames, *first.shape), image_shape)

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

    def volume(self, frame: int) -> ImageVolume:
        """One time point."""
        return _volume(self.array, self.channel_axis, self.time_axis, frame)

    def frame(self, number: int) -> tuple[Any, int | None]:
        """The array of one time point, and its channel axis."""
        return _frame(self.array, self.channel_axis, self.time_axis, number)


class AbandonedError(Exception):
    """An image was closed or replaced while it was being read."""


class Watched:
    """A volume that is read only as long as somebody wants it; else reading raises `AbandonedError`.

    Reading, block by block, is what takes long: so an image can be closed at once, however large it is.
    """

    def __init__(self, volume: Volume, is_wanted: Callable[[], bool]) -> None:
        self.shape = volume.shape
        self.n_channels = volume.n_channels
        self._volume = volume
        self._is_wanted = is_wanted

    def read(self, box: Box) -> npt.NDArray[Any]:
        """Voxels of a box, as the volume has them."""
        if not self._is_wanted():
            raise AbandonedError
        return self._volume.read(box)


def _volume(array: Any, channel_axis: int | None, time_axis: int | None, frame: int) -> ImageVolume:
    return ImageVolume(*_frame(array, channel_axis, time_axis, frame))


def _frame(array: Any, channel_axis: int | None, time_axis: int | None, frame: int) -> tuple[Any, int | None]:
    if time_axis is None:
        return array, channel_axis
    if channel_axis is not None and channel_axis > time_axis:
        channel_axis -= 1
    if isinstance(array, np.ndarray):
        return array[(slice(None),) * time_axis + (frame,)], channel_axis
    return Frame(array, time_axis, frame), channel_axis


def _from_front(name: str, axis: int | None, n_axes: int) -> int | None:
    if axis is None:
        return None
    try:
        position = operator.index(axis)
    except TypeError:
        raise InputTypeError(f"{name} must be the number of an axis or None, not {axis!r}") from None
    if not -n_axes <= position < n_axes:
        raise InputError(
            f"{name}={position} does not exist: the image has {n_axes} axes; pass None if it has none such"
        )
    return position % n_axes
