"""Labels of single planes, which some formats keep with an axis along z and others without."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_sparseseg.storage._arrays import full_index, to_numpy

if TYPE_CHECKING:
    from napari_sparseseg._types import ArrayLike
    from napari_sparseseg.storage.formats import ImageFile


def with_planes_of(image: ImageFile, labels: ImageFile) -> ImageFile:
    """The labels with an axis of one plane if the image has one, and without if it has none; else as they are."""
    if _n_planes(image) == 1 and _n_planes(labels) is None:
        axis = labels.axes.index("Y")
        axes = f"{labels.axes[:axis]}Z{labels.axes[axis:]}"
        return replace(labels, array=_WithPlane(labels.array, axis), axes=axes, spacing=None, unit=None, offset=())
    if _n_planes(image) is None and _n_planes(labels) == 1:
        array = _WithoutPlane(labels.array, labels.axes.index("Z"))
        spacing = None if labels.spacing is None else (labels.spacing[-2], labels.spacing[-1])
        return replace(
            labels, array=array, axes=labels.axes.replace("Z", ""), spacing=spacing, offset=labels.offset[-2:]
        )
    return labels


def _n_planes(file: ImageFile) -> int | None:
    """Size along z; None if there is no such axis."""
    return file.array.shape[file.axes.index("Z")] if "Z" in file.axes else None


class _WithPlane:
    """An array with an axis of size 1 before `axis`; read by slicing, as the array is."""

    def __init__(self, array: ArrayLike, axis: int) -> None:
        self._array, self._axis = array, axis
        self.shape = (*array.shape[:axis], 1, *array.shape[axis:])
        self.dtype = array.dtype
        self.source_name: str | None = getattr(array, "source_name", None)

    def __getitem__(self, index: Any, /) -> npt.NDArray[Any]:
        parts = full_index(index, self.shape)
        of_plane = parts.pop(self._axis)
        block = to_numpy(self._array[tuple(parts)], self.source_name or "labels")
        n_before = sum(isinstance(part, slice) for part in parts[: self._axis])
        return np.expand_dims(block, n_before)[(slice(None),) * n_before + (of_plane,)]


class _WithoutPlane:
    """An array at the only index of `axis`, without it; read by slicing, as the array is."""

    def __init__(self, array: ArrayLike, axis: int) -> None:
        self._array, self._axis = array, axis
        self.shape = (*array.shape[:axis], *array.shape[axis + 1 :])
        self.dtype = array.dtype
        self.source_name: str | None = getattr(array, "source_name", None)

    def __getitem__(self, index: Any, /) -> npt.NDArray[Any]:
        parts = full_index(index, self.shape)
        parts.insert(self._axis, 0)
        return to_numpy(self._array[tuple(parts)], self.source_name or "labels")
