"""Labels on their way into a file: what each writer gets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_sparseseg._types import Box
from napari_sparseseg.errors import InputError
from napari_sparseseg.storage.formats._geometry import Geometry
from napari_sparseseg.storage.volume import ArrayVolume

_SLAB_VOXELS = 2**25


@dataclass(frozen=True, slots=True)
class Stack:
    """Integer labels (Z, Y, X) or (Y, X), read slab by slab, with the voxel size along these axes in `unit`.

    `geometry`, of the image, comes before both in the format that it is of.
    """

    volume: ArrayVolume
    dtype: np.dtype[Any]
    chunk_depth: int
    spacing: tuple[float, ...] | None
    unit: str | None
    geometry: Geometry | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.volume.spatial_shape

    def slabs(self) -> Iterator[npt.NDArray[Any]]:
        """Slabs (z, y, x) that follow each other along z, little-endian, of whole chunks where these are not too large.

        Raises `InputError` if a label does not fit into `dtype`.
        """
        depth, height, width = self.volume.shape
        step = max(1, _SLAB_VOXELS // (height * width))
        step = max(1, step // self.chunk_depth) * self.chunk_depth if self.chunk_depth <= step else step
        for z in range(0, depth, step):
            slab = self.volume.read(Box((z, 0, 0), (min(z + step, depth), height, width)))[0]
            yield self._stored(slab)

    def planes(self) -> Iterator[npt.NDArray[Any]]:
        """Planes (y, x), one after the other."""
        for slab in self.slabs():
            yield from slab

    def _stored(self, slab: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if slab.dtype != self.dtype:
            limits = np.iinfo(self.dtype)
            low, high = int(slab.min()), int(slab.max())
            if low < limits.min or high > limits.max:
                raise InputError(
                    f"labels range from {low} to {high}, which this format does not hold; write .npy or "
                    ".ome.zarr instead"
                )
        return slab.astype(self.dtype.newbyteorder("<"), copy=False)
