"""Chunks of an image that were read last stay in memory: blocks that lie side by side are cut from the same ones."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from napari_sparseseg.storage._arrays import real_dtype_of, shape_of, to_numpy
from napari_sparseseg.storage._derived import DerivedArray, Range
from napari_sparseseg.storage._origin import Origin

CACHE_BYTES = 1 << 29
_LARGEST_READ = 1 / 2  # of the cache: what takes more is read past it, lest it drives out all else

_Chunk = tuple[int, ...]


def with_cache(array: Any, cache_bytes: int = CACHE_BYTES) -> Any:
    """An array of chunks (zarr, h5py, dask) behind a cache of them; any other as it is."""
    chunks = _chunk_shape(getattr(array, "chunks", None))
    return array if chunks is None or isinstance(array, CachedArray) else CachedArray(array, chunks, cache_bytes)


class CachedArray(DerivedArray):
    """An array-like of the same voxels, of whose chunks those used last are kept, up to `cache_bytes`. Any thread.

    What changes in the array below is not seen as long as its chunk is kept.
    """

    def __init__(self, array: Any, chunks: Sequence[int], cache_bytes: int = CACHE_BYTES, name: str = "image") -> None:
        self._array, self._name, self._cache_bytes = array, name, cache_bytes
        self.origin = Origin((array,))
        self.shape, self.dtype = shape_of(array, name), real_dtype_of(array, name)
        self.chunks = tuple(min(chunk, size) for chunk, size in zip(chunks, self.shape, strict=True))
        self._kept: OrderedDict[_Chunk, npt.NDArray[Any]] = OrderedDict()
        self._n_bytes = 0
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled without what is kept: another process reads for itself."""
        return CachedArray, (self._array, self.chunks, self._cache_bytes, self._name)

    @property
    def n_bytes(self) -> int:
        """What the kept chunks take."""
        return self._n_bytes

    @override
    def _read(self, ranges: tuple[Range, ...]) -> npt.NDArray[Any]:
        owners = [range(a // n, -(-b // n)) for (a, b), n in zip(ranges, self.chunks, strict=True)]
        n_bytes = int(np.prod([len(o) * n for o, n in zip(owners, self.chunks, strict=True)])) * self.dtype.itemsize
        if n_bytes > _LARGEST_READ * self._cache_bytes:
            return self._load(ranges)
        wanted = list(product(*owners))
        chunks = self._known(wanted)
        if missing := [chunk for chunk in wanted if chunk not in chunks]:
            chunks |= self._fetch(missing)
        block = np.empty([b - a for a, b in ranges], self.dtype)
        for chunk in wanted:
            places = [self._range(number, axis) for axis, number in enumerate(chunk)]
            common = [(max(a, c), min(b, d)) for (a, b), (c, d) in zip(ranges, places, strict=True)]
            target = tuple(slice(a - low, b - low) for (a, b), (low, _) in zip(common, ranges, strict=True))
            source = tuple(slice(a - low, b - low) for (a, b), (low, _) in zip(common, places, strict=True))
            block[target] = chunks[chunk][source]
        return block

    def _known(self, wanted: list[_Chunk]) -> dict[_Chunk, npt.NDArray[Any]]:
        with self._lock:
            found = {chunk: self._kept[chunk] for chunk in wanted if chunk in self._kept}
            for chunk in found:
                self._kept.move_to_end(chunk)
        return found

    def _fetch(self, missing: list[_Chunk]) -> dict[_Chunk, npt.NDArray[Any]]:
        """Read the box around missing chunks in one go, which the storage does side by side, and keep what is in it."""
        numbers = np.array(missing)
        first, last = numbers.min(0), numbers.max(0)
        corners = enumerate(zip(first, last, strict=True))
        ranges = [(self._range(a, axis)[0], self._range(b, axis)[1]) for axis, (a, b) in corners]
        block = self._load(tuple(ranges))
        found = {}
        for chunk in product(*(range(a, b + 1) for a, b in zip(first.tolist(), last.tolist(), strict=True))):
            places = (self._range(number, axis) for axis, number in enumerate(chunk))
            part = tuple(slice(a - low, b - low) for (a, b), (low, _) in zip(places, ranges, strict=True))
            found[chunk] = block[part].copy()  # a view would hold all of the block
        self._keep(found)
        return found

    def _keep(self, found: dict[_Chunk, npt.NDArray[Any]]) -> None:
        with self._lock:
            for chunk, voxels in found.items():
                if chunk not in self._kept:
                    self._kept[chunk] = voxels
                    self._n_bytes += voxels.nbytes
            while self._n_bytes > self._cache_bytes:
                self._n_bytes -= self._kept.popitem(last=False)[1].nbytes

    def _load(self, ranges: tuple[Range, ...]) -> npt.NDArray[Any]:
        return to_numpy(self._array[tuple(slice(a, b) for a, b in ranges)], self._name)

    def _range(self, number: int, axis: int) -> Range:
        size = self.chunks[axis]
        return int(number) * size, min((int(number) + 1) * size, self.shape[axis])


def _chunk_shape(chunks: Any) -> tuple[int, ...] | None:
    """A number for each axis; None if there are no chunks, or those of an axis differ."""
    if not chunks:
        return None
    sizes = [axis if isinstance(axis, tuple) else (axis,) for axis in chunks]
    is_regular = all(len(set(axis[:-1])) <= 1 and axis[-1] <= axis[0] for axis in sizes)
    return tuple(int(axis[0]) for axis in sizes) if is_regular else None
