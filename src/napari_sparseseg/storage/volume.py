"""Images as volumes: any array-like, 2D or 3D, with or without channels, read box by box."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_sparseseg.errors import InputError
from napari_sparseseg.storage._arrays import (
    check_array_like,
    index_text,
    plain_int,
    readable_dtype,
    real_dtype_of,
    shape_of,
    to_numpy,
)
from napari_sparseseg.storage._origin import Origin, Ranges

if TYPE_CHECKING:
    from napari_sparseseg._types import ArrayLike, Box, Shape3D

FEW_CHANNELS = 5  # an axis of at most this size is taken for channels in hints, never in silence


class ArrayVolume:
    """A `Volume` around an array-like of real numbers: (Z, Y, X) or (Y, X), and one channel axis anywhere.

    A 2D image is presented as one plane, shape (1, Y, X); `spatial_shape` keeps the user's 2 or 3 axes,
    `array_shape` all of them. `channel_axis` is counted from the front, None without channels. `dtype` is what
    `read` returns: the array's own in native byte order, but uint8 for bool and float64 for long double.

    Raises `InputTypeError` for what is no array of real numbers, `InputError` for a wrong number of axes, an empty
    axis or a `channel_axis` that does not exist. No voxel is read before `read`.
    """

    shape: Shape3D
    n_channels: int
    name: str
    dtype: np.dtype[Any]
    array_shape: tuple[int, ...]
    spatial_shape: tuple[int, ...]
    channel_axis: int | None

    def __init__(self, array: ArrayLike, channel_axis: int | None = None, *, name: str = "image") -> None:
        check_array_like(array, name)
        self._array = array
        self.name = name
        self.array_shape = shape_of(array, name)
        self.channel_axis = _checked_channel_axis(channel_axis, self.array_shape, name)
        _check_n_axes(self.array_shape, self.channel_axis, name)
        self.dtype = readable_dtype(real_dtype_of(array, name))
        self.spatial_shape = _without(self.array_shape, self.channel_axis)
        self.n_channels = 1 if self.channel_axis is None else self.array_shape[self.channel_axis]
        height, width = self.spatial_shape[-2:]
        self.shape = (1 if len(self.spatial_shape) == 2 else self.spatial_shape[0], height, width)

    def __repr__(self) -> str:
        channels = "" if self.channel_axis is None else f", channel_axis={self.channel_axis}"
        return f"ArrayVolume({self.name}: {self.array_shape} {self.dtype}{channels})"

    def read(self, box: Box) -> npt.NDArray[Any]:
        """Voxels of a box that lies within the volume, shape (channels, z, y, x), as a new C-ordered array.

        Reads nothing but the box. Raises `InputError` if the box reaches beyond the volume, or if a voxel in it is
        not finite, naming the first such voxel by its position in the array.
        """
        self._check_inside(box)
        index = self._index(box)
        block = to_numpy(self._array[index], self.name)
        with np.errstate(over="ignore"):  # a long double beyond float64 becomes infinite, and is refused as such
            block = block.astype(self.dtype, copy=False)
        if self.dtype.kind == "f" and not (finite := np.isfinite(block)).all():
            block = self._without_infinite(block, finite, index)
        block = self._channels_first(block)
        if len(self.spatial_shape) == 2:
            block = block[:, np.newaxis][:, box.slices[0]]
        # always a copy: a view of a numpy image would let callers change the user's voxels
        return block.copy(order="C")

    def _check_inside(self, box: Box) -> None:
        for low, high, size in zip(box.start, box.stop, self.shape, strict=True):
            if not 0 <= low <= high <= size:
                raise InputError(
                    f"the box from {box.start} to {box.stop} does not lie within the {self.name} of shape "
                    f"{self.shape}; clip it with Box.clipped"
                )

    def _index(self, box: Box) -> tuple[slice, ...]:
        """Slice the array's axes, in their own order."""
        index = list(box.slices[-len(self.spatial_shape) :])
        if self.channel_axis is not None:
            # not slice(None): not all that can be sliced takes open slices
            index.insert(self.channel_axis, slice(0, self.n_channels))
        return tuple(index)

    def _without_infinite(
        self, block: npt.NDArray[Any], finite: npt.NDArray[np.bool_], index: tuple[slice, ...]
    ) -> npt.NDArray[Any]:
        """What to take for a block of which not all voxels are finite: there is no such thing here."""
        n_wrong = finite.size - int(np.count_nonzero(finite))
        first = np.unravel_index(int(np.argmin(finite)), finite.shape)
        position = tuple(int(i) + part.start for i, part in zip(first, index, strict=True))
        raise InputError(
            f"{self.name} has {n_wrong} {'voxel that is' if n_wrong == 1 else 'voxels that are'} not finite in the "
            f"block [{', '.join(f'{part.start}:{part.stop}' for part in index)}], the first is {block[first]} at "
            f"{index_text(position)}; replace them, e.g. with numpy.nan_to_num, or crop it"
        )

    def _channels_first(self, block: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return block[np.newaxis] if self.channel_axis is None else np.moveaxis(block, self.channel_axis, 0)


class ImageVolume(ArrayVolume):
    """An image, in which voxels may be missing: what is not finite is read as NaN, instead of being refused.

    Volumes that were rotated, masked or stitched are padded so. `IntensityRange` knows what to take for such voxels.
    """

    def _without_infinite(
        self,
        block: npt.NDArray[Any],
        finite: npt.NDArray[np.bool_],
        index: tuple[slice, ...],  # noqa: ARG002 - as its base
    ) -> npt.NDArray[Any]:
        return np.where(finite, block, block.dtype.type(np.nan))


class Frame:
    """One index along an axis of an array-like, as an array-like without that axis; nothing is read before slicing."""

    def __init__(self, array: Any, axis: int, index: int) -> None:
        self._array = array
        self._axis = axis
        self._frame = index
        self.shape = _without(tuple(array.shape), axis)
        self.dtype = array.dtype

    @property
    def origin(self) -> Origin:
        """The array, and how it is looked at."""
        return Origin((self._array,), [self._axis, self._frame], self._part)

    def _part(self, ranges: Ranges) -> Ranges:
        index = self._frame % self._array.shape[self._axis]
        return (*ranges[: self._axis], (index, index + 1), *ranges[self._axis :])

    def __getitem__(self, index: tuple[slice, ...]) -> Any:
        """Read a box, one slice for each axis."""
        return self._array[(*index[: self._axis], self._frame, *index[self._axis :])]


def _without(shape: tuple[int, ...], axis: int | None) -> tuple[int, ...]:
    return tuple(size for i, size in enumerate(shape) if i != axis)


def _checked_channel_axis(channel_axis: int | None, shape: tuple[int, ...], name: str) -> int | None:
    if channel_axis is None:
        return None
    axis = plain_int(channel_axis, "channel_axis")
    n_axes = len(shape)
    if not -n_axes <= axis < n_axes:
        usable = f"use {-n_axes} to {n_axes - 1}, or None" if n_axes else "use None"
        raise InputError(
            f"channel_axis={axis} does not exist: {name} has {_axes_text(n_axes)} (shape {shape}); {usable} if no "
            "axis holds channels"
        )
    return axis % n_axes


def _check_n_axes(shape: tuple[int, ...], channel_axis: int | None, name: str) -> None:
    n_spatial = len(shape) - (channel_axis is not None)
    if n_spatial in (2, 3):
        return
    besides = "" if channel_axis is None else f" besides the channel axis {channel_axis}"
    found = f"{name} has {_axes_text(n_spatial)}{besides} (shape {shape})"
    if n_spatial < 2:
        hint = "" if channel_axis is None else "; pass channel_axis=None if no axis holds channels"
    elif channel_axis is None and n_spatial == 4:
        hint = _channel_hint(shape, name)
    else:
        hint = _time_hint(channel_axis, name)
    raise InputError(f"{found}, but 3 (Z, Y, X) or 2 (Y, X) are needed{hint}")


def _axes_text(n_axes: int) -> str:
    return "1 axis" if n_axes == 1 else f"{n_axes} axes"


def _channel_hint(shape: tuple[int, ...], name: str) -> str:
    axes = _likely_channel_axes(shape)
    if not axes:
        return f"; if one of them holds channels, say which with channel_axis; of time points take one, e.g. {name}[0]"
    named = " or ".join(f"channel_axis={axis}" for axis in axes)
    holders = " or ".join(f"axis {axis}" for axis in axes)
    example = f"{name}[{':, ' * axes[0]}0]"
    return f"; if {holders} holds channels, pass {named}; if it holds time points, take one of them, e.g. {example}"


def _likely_channel_axes(shape: tuple[int, ...]) -> list[int]:
    """Axes so small that they may hold channels, or the one that is far smaller than all others."""
    few = [axis for axis, size in enumerate(shape) if size <= FEW_CHANNELS]
    smallest, second = sorted(shape)[:2]
    return few or ([shape.index(smallest)] if smallest * 4 <= second else [])


def _time_hint(channel_axis: int | None, name: str) -> str:
    if channel_axis is None:
        return f"; take one time point first, e.g. {name}[0], and say with channel_axis if an axis holds channels"
    if channel_axis == 0:
        return f"; take one time point first, e.g. {name}[:, 0] if axis 1 holds time"
    return f"; take one time point first, e.g. {name}[0] with channel_axis={channel_axis - 1} if axis 0 holds time"
