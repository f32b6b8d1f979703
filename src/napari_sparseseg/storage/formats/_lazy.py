"""Arrays that stay on disk until they are sliced, whatever library opened them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from napari_sparseseg.storage._arrays import full_index, plain_int, to_numpy
from napari_sparseseg.storage._origin import Origin, Ranges
from napari_sparseseg.storage.formats._errors import readable


class Source(NamedTuple):
    """How to open an array again in another process, `reopen(path, options)`, and what to do if it is damaged.

    `files` are those in which voxels lie besides the one at `path`.
    """

    path: Path | str
    reopen: Callable[[Path | str, Any], Any]
    options: Any
    remedy: str = "it is damaged: copy it again from its source"
    files: tuple[Path, ...] = ()


class LazyArray:
    """A view on an array of any library: its axes in another order, some fixed at one index, no voxel read yet.

    `order` lists the axes of `base` that are shown, `fixed` the index along each that is not. Slices (also with a
    positive step) and integers read from disk, and only what they name; whatever the library raises then becomes an
    `InputError`. Pickling carries the path, not the voxels.
    """

    def __init__(self, base: Any, source: Source, order: tuple[int, ...], fixed: Mapping[int, int]) -> None:
        self._base, self._source, self._order, self._fixed = base, source, order, dict(fixed)
        self.shape: tuple[int, ...] = tuple(int(base.shape[axis]) for axis in order)
        self.dtype: np.dtype[Any] = np.dtype(base.dtype)

    @property
    def source_name(self) -> str:
        """What messages call it: the path."""
        return str(self._source.path)

    @property
    def origin(self) -> Origin:
        """The files that hold the voxels, or this array within a zarr."""
        place = self._source.path
        view = [list(self._order), sorted(self._fixed.items()), repr(self._source.options)]
        is_zarr = isinstance(place, Path) and place.is_dir()
        return Origin((self._base,) if is_zarr else (place, *self._source.files), view, self._part)

    def _part(self, ranges: Ranges) -> Ranges:
        fixed = (self._fixed.get(axis, 0) for axis in range(len(self._base.shape)))
        full = [(index, index + 1) for index in fixed]
        for axis, bounds in zip(self._order, ranges, strict=True):
            full[axis] = bounds
        return tuple(full)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def chunks(self) -> tuple[Any, ...] | None:
        """Sizes of what the file stores as a piece, one for each axis; None if it is not stored in pieces."""
        chunks = getattr(self._base, "chunks", None)
        return tuple(chunks[axis] for axis in self._order) if chunks else None

    def __repr__(self) -> str:
        return f"LazyArray({self._source.path}: {self.shape} {self.dtype})"

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> npt.NDArray[Any]:
        parts = [
            _checked_part(part, size) for part, size in zip(full_index(index, self.shape), self.shape, strict=True)
        ]
        full: list[int | slice] = [self._fixed.get(axis, 0) for axis in range(len(self._base.shape))]
        for axis, part in zip(self._order, parts, strict=True):
            full[axis] = part
        with readable(self._source.path, "an image", self._source.remedy):
            block = to_numpy(self._base[tuple(full)], self.source_name)
        shown = [axis for axis, part in zip(self._order, parts, strict=True) if isinstance(part, slice)]
        return block.transpose([sorted(shown).index(axis) for axis in shown])

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.array(self[...], dtype=dtype, copy=copy)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self._source, self._order, self._fixed)

    def taken(self, axis: int, index: int) -> LazyArray:
        """The array at one index of an axis, still unread."""
        fixed = self._fixed | {self._order[axis]: index}
        return LazyArray(self._base, self._source, (*self._order[:axis], *self._order[axis + 1 :]), fixed)


class LoadedOnce:
    """An array that its file gives only as a whole: loaded when the first voxel is asked for, and kept."""

    def __init__(self, shape: tuple[int, ...], dtype: Any, load: Callable[[], npt.NDArray[Any]]) -> None:
        self.shape, self.dtype = tuple(shape), np.dtype(dtype)
        self._load = load
        self._loaded: npt.NDArray[Any] | None = None
        self._lock = threading.Lock()

    def __getitem__(self, index: Any) -> npt.NDArray[Any]:
        with self._lock:
            if self._loaded is None:
                self._loaded = self._load()
        block: npt.NDArray[Any] = self._loaded[index]
        return block


def _reopened(source: Source, order: tuple[int, ...], fixed: dict[int, int]) -> LazyArray:
    return LazyArray(source.reopen(source.path, source.options).array, source, order, fixed)


def _checked_part(part: Any, size: int) -> int | slice:
    if isinstance(part, slice):
        start, stop, step = part.indices(size)
        if step < 1:
            raise IndexError("a file is not read backwards; turn what was read instead, e.g. with numpy.flip")
        return slice(start, max(start, stop), step)
    position = plain_int(part, "an index of a file (convert it to an array first for other kinds)")
    if not -size <= position < size:
        raise IndexError(f"index {position} lies outside an axis of size {size}")
    return position % size
