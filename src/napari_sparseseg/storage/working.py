"""Images that are worked on at a region and a scale, and channels that lie in several arrays; nothing is copied."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_sparseseg.errors import InputError
from napari_sparseseg.storage._arrays import check_array_like, real_dtype_of, shape_of, to_numpy
from napari_sparseseg.storage._derived import DerivedArray, Range
from napari_sparseseg.storage._origin import Origin, Ranges

if TYPE_CHECKING:
    from napari_sparseseg._types import ArrayLike, Box, Shape3D


class WorkingArray(DerivedArray):
    """A region of an array-like, each of its voxels the mean of `step` voxels along z, y, x; (y, x) in 2D.

    The channel and the time axis of the array stay as they are; the two or three others are spatial. `region` counts
    voxels of the array along z, y, x (z from 0 to 1 in 2D); None takes everything. Where the size is not a multiple
    of the step, the last voxel is the mean of what is left. At a step of 1 the dtype stays; means are float32, or
    float64 for an array of float64 or 64-bit integers.

    Reading a block reads that block of the array only, at its own resolution.

    Raises `InputError` for a region that does not lie within the array, or a step below 1.
    """

    def __init__(
        self,
        array: ArrayLike,
        *,
        channel_axis: int | None = None,
        time_axis: int | None = None,
        region: Box | None = None,
        step: Shape3D = (1, 1, 1),
        name: str = "image",
    ) -> None:
        check_array_like(array, name)
        self._array = array
        self._name = name
        sizes = shape_of(array, name)
        self._dtype = real_dtype_of(array, name)
        axes = _spatial_axes(len(sizes), channel_axis, time_axis, name)
        spatial = tuple(sizes[axis] for axis in axes)
        self._bounds = _scattered(_checked_region(region, spatial, name), axes, [(0, size) for size in sizes])
        self._steps = _scattered(_checked_step(step, len(axes)), axes, [1] * len(sizes))
        self.shape = tuple(-(-(b - a) // s) for (a, b), s in zip(self._bounds, self._steps, strict=True))
        self.dtype = self._dtype if max(self._steps) == 1 else _mean_dtype(self._dtype)

    @property
    def origin(self) -> Origin:
        """The array, and how it is looked at."""
        return Origin((self._array,), [self._bounds, self._steps], self._part)

    def _part(self, ranges: Ranges) -> Ranges:
        return tuple(
            (low + a * step, min(low + b * step, high))
            for (a, b), (low, high), step in zip(ranges, self._bounds, self._steps, strict=True)
        )

    def _read(self, ranges: tuple[Range, ...]) -> npt.NDArray[Any]:
        block = to_numpy(self._array[tuple(slice(a, b) for a, b in self._part(ranges))], self._name)
        return block if max(self._steps) == 1 else _block_means(block, self._steps, self.dtype)


class StackedChannels(DerivedArray):
    """Arrays of one shape as the channels of one image, along axis 0; each is read when it is asked for."""

    def __init__(self, arrays: Sequence[ArrayLike], *, names: Sequence[str] | None = None) -> None:
        if not arrays:
            raise InputError("there is no channel to stack; pass at least one array")
        self._names = list(names or (f"channel {number}" for number in range(len(arrays))))
        self._arrays = list(arrays)
        for array, name in zip(self._arrays, self._names, strict=True):
            check_array_like(array, name)
        shapes = [shape_of(array, name) for array, name in zip(self._arrays, self._names, strict=True)]
        for shape, name in zip(shapes, self._names, strict=True):
            if shape != shapes[0]:
                raise InputError(
                    f"{name} has shape {shape}, but {self._names[0]} has {shapes[0]}; channels of one image have one "
                    "shape"
                )
        dtypes = (real_dtype_of(array, name) for array, name in zip(self._arrays, self._names, strict=True))
        self.dtype = np.result_type(*dtypes)
        self.shape = (len(self._arrays), *shapes[0])

    @property
    def origin(self) -> Origin:
        """The arrays of all channels."""
        return Origin(tuple(self._arrays), part=_behind_channels)

    def _read(self, ranges: tuple[Range, ...]) -> npt.NDArray[Any]:
        (first, last), *rest = ranges
        index = tuple(slice(a, b) for a, b in rest)
        block = np.empty((last - first, *(b - a for a, b in rest)), self.dtype)
        for channel in range(first, last):
            block[channel - first] = to_numpy(self._arrays[channel][index], self._names[channel])
        return block


class Colours(DerivedArray):
    """Red, green and blue, the first three along the last axis of an array; how opaque a voxel is comes after them."""

    def __init__(self, array: ArrayLike, *, name: str = "image") -> None:
        check_array_like(array, name)
        self._array, self._name = array, name
        self.shape = (*shape_of(array, name)[:-1], 3)
        self.dtype = real_dtype_of(array, name)

    @property
    def origin(self) -> Origin:
        """The array with all that is beside the colours."""
        return Origin((self._array,), "colours")

    def _read(self, ranges: tuple[Range, ...]) -> npt.NDArray[Any]:
        return to_numpy(self._array[tuple(slice(a, b) for a, b in ranges)], self._name)


def _behind_channels(ranges: Ranges) -> Ranges:
    return ranges[1:]


# ---------------------------------------------------------------- checks


def _spatial_axes(n_axes: int, channel_axis: int | None, time_axis: int | None, name: str) -> list[int]:
    others = {operator.index(axis) % n_axes for axis in (channel_axis, time_axis) if axis is not None}
    axes = [axis for axis in range(n_axes) if axis not in others]
    if len(axes) not in (2, 3):
        raise InputError(
            f"{name} has {len(axes)} axes besides channels and time, but 3 (Z, Y, X) or 2 (Y, X) are needed"
        )
    return axes


def _checked_region(region: Box | None, sizes: tuple[int, ...], name: str) -> list[Range]:
    if region is None:
        return [(0, size) for size in sizes]
    bounds = list(zip(region.start, region.stop, strict=True))[-len(sizes) :]
    if any(not 0 <= low < high <= size for (low, high), size in zip(bounds, sizes, strict=True)):
        raise InputError(
            f"the region from {region.start} to {region.stop} does not lie within the {name} of size {sizes}; choose "
            "one of at least one voxel that does"
        )
    return bounds


def _checked_step(step: Shape3D, n_axes: int) -> list[int]:
    steps = [operator.index(size) for size in step][-n_axes:]
    if min(steps) < 1:
        raise InputError(f"step={tuple(step)} contains {min(steps)}; steps are whole numbers from 1 along z, y, x")
    return steps


def _scattered(values: Sequence[Any], axes: Sequence[int], everywhere: list[Any]) -> tuple[Any, ...]:
    """`everywhere`, with `values` at these axes."""
    for axis, value in zip(axes, values, strict=True):
        everywhere[axis] = value
    return tuple(everywhere)


# ---------------------------------------------------------------- means


def _mean_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    is_wide = dtype.itemsize >= 8
    return np.dtype(np.float64 if is_wide else np.float32)


def _block_means(block: npt.NDArray[Any], steps: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    # sums of up to 256 numbers of 16 bits are exact in float32
    is_short = block.dtype.kind in "bui" and block.dtype.itemsize <= 2 and np.prod(steps) <= 256
    sums = block
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite stays so, and is refused by the reader
        for axis, step in enumerate(steps):
            if step > 1:
                sums = _strided_sums(sums, axis, step, np.float32 if is_short else np.float64)
        for axis, step in enumerate(steps):
            if step > 1:
                sums /= _counts(block.shape[axis], step, axis, block.ndim)
        return sums.astype(dtype, copy=False)


def _strided_sums(block: npt.NDArray[Any], axis: int, step: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Sums of `step` neighbours along an axis; adding strided views is several times faster than `reduceat`."""
    n_sums = -(-block.shape[axis] // step)
    sums = np.zeros((*block.shape[:axis], n_sums, *block.shape[axis + 1 :]), dtype)
    before = (slice(None),) * axis
    for offset in range(step):
        part = block[(*before, slice(offset, None, step))]
        sums[(*before, slice(0, part.shape[axis]))] += part
    return sums


def _counts(size: int, step: int, axis: int, n_axes: int) -> npt.NDArray[np.float32]:
    """How many neighbours each sum holds: `step`, and what is left in the last."""
    counts = np.minimum(step, size - np.arange(0, size, step)).astype(np.float32)
    return counts.reshape([-1 if a == axis else 1 for a in range(n_axes)])
