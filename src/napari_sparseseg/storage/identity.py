"""Whether an image is that of an earlier run, whose result may then be kept.

Unlike the fingerprint by which a project recognises its image, it changes with every voxel: all of an array in memory
count, and of an image in files the size of each file and when it was last written to. Of others, on the network or
behind a graph of tasks, only some voxels can be compared.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import zarr
from zarr.storage import LocalStore, WrapperStore

from napari_sparseseg._types import ArrayLike
from napari_sparseseg.storage._origin import Origin, Ranges
from napari_sparseseg.storage.project.reference import fingerprint_of

_BLOCK_BYTES = 1 << 24  # of an array that is copied at a time where it does not lie in C order
_TILE = 32  # edge of what is copied at a time there
_DESCRIPTIONS = ("zarr.json", ".zarray")


class Identity(NamedTuple):
    """A hash, and whether every change of the image changes it."""

    digest: str
    is_certain: bool


def identity_of(image: ArrayLike) -> Identity:
    """The identity of an image of any kind; reads all of an array in memory or mapped there, some voxels of others."""
    views: list[Any] = []
    whole = tuple((0, int(size)) for size in image.shape)
    sources = list(_sources_of(image, whole, views))
    states = [_state(source, ranges) for source, ranges in sources]
    told = [fingerprint_of(image, None).model_dump(mode="json"), views, states]
    digest = hashlib.sha256(json.dumps(told).encode()).hexdigest()
    return Identity(digest, all(state is not None for state in states))


def _sources_of(array: object, ranges: Ranges, views: list[Any]) -> Iterator[tuple[object, Ranges]]:
    """What an array reads in the end for a block, and which voxels of it; notes how it is looked at."""
    origin = getattr(array, "origin", None)
    if not isinstance(origin, Origin):
        yield array, ranges
        return
    views.append(origin.view)
    for source in origin.sources:
        yield from _sources_of(source, origin.part(ranges), views)


def _state(source: object, ranges: Ranges) -> str | None:
    """A hash of an array in memory, or of name, size and time of the files in which voxels lie; None for others."""
    if isinstance(source, np.ndarray):
        return _hash(source[tuple(slice(a, b) for a, b in ranges)])
    place = _folder_of(source) if isinstance(source, zarr.Array) else source
    if not isinstance(place, Path):
        return None
    names = _names(source, ranges) if isinstance(source, zarr.Array) else ("",)
    digest = hashlib.sha256()
    for name in names:
        with suppress(FileNotFoundError):  # a chunk that holds nothing, or is being written
            found = (place / name).stat()
            digest.update(json.dumps([name, found.st_size, found.st_mtime_ns]).encode())
    return digest.hexdigest()


def _folder_of(array: zarr.Array[Any]) -> Path | None:
    store = array.store
    while isinstance(store, WrapperStore):
        store = store._store  # noqa: SLF001 - there is no other way to what is wrapped
    return Path(store.root, array.path) if isinstance(store, LocalStore) else None


def _names(array: zarr.Array[Any], ranges: Ranges) -> Iterator[str]:
    """Of the files of a zarr in which a block of voxels lies, and of what describes it."""
    yield from _DESCRIPTIONS
    sizes = array.shards or array.chunks
    grid = (range(a // size, -(-b // size)) for (a, b), size in zip(ranges, sizes, strict=True))
    for chunk in product(*grid):
        yield array.metadata.encode_chunk_key(chunk)


def _hash(array: npt.NDArray[Any]) -> str:
    """Of all voxels in C order, however they lie in memory."""
    digest = hashlib.sha256()
    for index in _blocks(array.shape, array.itemsize):
        digest.update(_in_c_order(array[index]).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _in_c_order(block: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A block in C order; much faster than numpy where its rows lie across memory, as in Fortran order.

    numpy copies row after row then, and reads each line of the memory again for every one of them.
    """
    strides = [abs(stride) for stride in block.strides]
    if block.ndim < 2 or block.shape[-1] < _TILE or strides[-1] == min(strides):
        return np.ascontiguousarray(block)
    copy = np.empty(block.shape, block.dtype)
    for first in range(0, block.shape[-2], _TILE):
        for second in range(0, block.shape[-1], _TILE):
            tile = ..., slice(first, first + _TILE), slice(second, second + _TILE)
            copy[tile] = block[tile]
    return copy


def _blocks(shape: tuple[int, ...], n_bytes: int) -> Iterator[tuple[slice, ...]]:
    """Blocks that follow each other in C order, of `n_bytes` a voxel and about `_BLOCK_BYTES` at most."""
    below = [n_bytes * math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    cut = next(axis for axis, size in enumerate(below) if size <= _BLOCK_BYTES or axis == len(shape) - 1)
    step = max(1, _BLOCK_BYTES // below[cut])
    for outer in np.ndindex(shape[:cut]):
        for first in range(0, shape[cut], step):
            yield (*(slice(i, i + 1) for i in outer), slice(first, first + step))
