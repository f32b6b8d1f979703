"""Images for several readers: a part of a volume held in memory, and an array in a file that processes share."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_sparseseg._types import ArrayLike, Box
from napari_sparseseg.storage._arrays import chunk_depth, real_dtype_of, shape_of, to_numpy
from napari_sparseseg.storage.atomic import writable
from napari_sparseseg.storage.formats.npy import write_header
from napari_sparseseg.storage.volume import ArrayVolume

_SLAB_VOXELS = 1 << 22


class Window:
    """A `Volume` that answers from the box that it holds, and from the volume behind it where that does not suffice."""

    def __init__(self, volume: ArrayVolume, *, depth: int = 1) -> None:
        """`depth` is that of the volume's chunks along z: whole ones are read at a time."""
        self.shape, self.n_channels = volume.shape, volume.n_channels
        self._volume, self._depth = volume, depth
        self._box = Box((0, 0, 0), (0, 0, 0))
        self._held = np.empty((self.n_channels, 0, 0, 0), volume.dtype)

    def hold(self, box: Box) -> None:
        """Read a box within the volume, slab by slab, and forget the one before."""
        self._box, self._held = box, self._held[:, :0]
        held = np.empty((self.n_channels, *box.shape), self._volume.dtype)
        planes = max(1, _SLAB_VOXELS // max(1, box.shape[1] * box.shape[2]))
        step = -(-planes // self._depth) * self._depth
        edges = [box.start[0], *range((box.start[0] // step + 1) * step, box.stop[0], step), box.stop[0]]
        for first, last in pairwise(edges):
            slab = Box((first, *box.start[1:]), (last, *box.stop[1:]))
            held[:, first - box.start[0] : last - box.start[0]] = self._volume.read(slab)
        self._held = held

    def read(self, box: Box) -> npt.NDArray[Any]:
        """Voxels of a box within the volume, shape (channels, z, y, x); not to be written to."""
        if box.clipped(self._box) != box:
            return self._volume.read(box)
        return self._held[(slice(None), *box.relative_to(self._box.start).slices)]


class MappedArray:
    """An array in an NPY file, mapped into memory; pickling carries the path."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mapped: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        self.shape, self.dtype = self._mapped.shape, self._mapped.dtype

    def __getitem__(self, index: Any, /) -> npt.NDArray[Any]:
        found: npt.NDArray[Any] = self._mapped[index]
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        return MappedArray, (self._path,)


def save_mapped(path: Path, array: ArrayLike) -> None:
    """Write an array slab by slab, whole or not at all, for `MappedArray`. Raises `InputError` if it has no room."""
    import dask

    partial = path.with_name(f"{path.stem}.partial.npy")
    shape, dtype = shape_of(array, "image"), real_dtype_of(array, "image")
    depth = chunk_depth(array)
    step = max(1, _SLAB_VOXELS * shape[0] // math.prod(shape) // depth) * depth
    with writable(path), partial.open("wb") as file:
        write_header(file, dtype, shape)
    for first in range(0, shape[0], step):
        slab = array[(slice(first, min(first + step, shape[0])), *(slice(0, size) for size in shape[1:]))]
        with dask.config.set(scheduler="threads"):  # here, not by the workers of a cluster
            voxels = to_numpy(slab, "image").astype(dtype, copy=False)
        with writable(path), partial.open("ab") as file:
            file.write(voxels.tobytes())
    with writable(path):
        partial.replace(path)
