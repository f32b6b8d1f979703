"""Array-likes that are made of others when they are read."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_sparseseg.storage._arrays import full_index

Range = tuple[int, int]


class DerivedArray(ABC):
    """An array-like that reads what is asked for; subclasses say their shape and dtype, and read a block."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.shape} {self.dtype})"

    def __getitem__(self, index: Any, /) -> npt.NDArray[Any]:
        """Voxels at an index of slices and whole numbers, as numpy would give them."""
        parts = full_index(index, self.shape)
        ranges, within = zip(
            *(_range_of(part, size) for part, size in zip(parts, self.shape, strict=True)), strict=True
        )
        return self._read(ranges)[within]

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """All voxels; `copy=False` cannot be had, since they are read."""
        if copy is False:
            raise ValueError(f"{type(self).__name__} is read when it is asked for, which copies")
        whole = self._read(tuple((0, size) for size in self.shape))
        return whole if dtype is None else whole.astype(dtype, copy=False)

    @abstractmethod
    def _read(self, ranges: tuple[Range, ...]) -> npt.NDArray[Any]:
        """Voxels from first to last along each axis."""


def _range_of(part: Any, size: int) -> tuple[Range, slice | int]:
    """The smallest range that holds what this part of an index asks for, and where it lies in the range."""
    if not isinstance(part, slice):
        position = operator.index(part)
        if not -size <= position < size:
            raise IndexError(f"index {position} is out of bounds for size {size}")
        position %= size
        return (position, position + 1), 0
    start, stop, stride = part.indices(size)
    positions = range(start, stop, stride)
    if not positions:
        return (0, 0), slice(0, 0)
    low, high = min(positions[0], positions[-1]), max(positions[0], positions[-1])
    return (low, high + 1), slice(None, None, stride)
