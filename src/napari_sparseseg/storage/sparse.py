"""Arrays of zeros that may be larger than memory: what was never written takes none."""

from __future__ import annotations

import mmap
import sys
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_sparseseg.errors import InputError

LARGEST_RESERVED = 2**31
"""Bytes of an array for which the system sets memory aside; of a larger one, pages are taken as they are written."""

_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)  # which Python knows from 3.13 on


class NoRoomError(InputError):
    """There is no memory for a large array."""


def zeros(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """An array of zeros, as `numpy.zeros` makes it; a large one may exceed memory, and must be looked at in parts.

    Not mapped from a sparse file: each page would then come from the file system, a plane of 25 MB in half a second
    where this takes milliseconds, and a full disk would end the process.

    Raises `NoRoomError` where the system does not promise more memory than it has.
    """
    n_bytes = int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize
    if n_bytes <= LARGEST_RESERVED:
        return np.zeros(shape, dtype)
    try:
        if sys.platform != "linux":  # macOS promises more than it has by itself; Windows does not, and refuses
            return np.zeros(shape, dtype)
        mapped = mmap.mmap(-1, n_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE)
    except (OSError, MemoryError, ValueError, OverflowError) as error:
        raise NoRoomError(
            f"an image of shape {tuple(shape)} is too large to be worked on as a whole here ({error}); choose a "
            "working region, a coarser level or a coarser resolution"
        ) from error
    with suppress(OSError):  # a kernel without huge pages
        mapped.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(mapped, dtype).reshape(shape)


def is_large(array: npt.NDArray[Any]) -> bool:
    """Whether nothing should look at all of an array at once: it may be larger than memory."""
    return array.nbytes > LARGEST_RESERVED


def clear(array: npt.NDArray[Any]) -> None:
    """Fill an array made by `zeros` with zeros again; a large one gives its memory back."""
    mapped = _map_of(array)
    if mapped is None or len(mapped) != array.nbytes:
        array.fill(0)
    else:
        mapped.madvise(mmap.MADV_DONTNEED)


def forget(part: npt.NDArray[Any]) -> None:
    """Fill a view of an array made by `zeros` with zeros; a large one gives memory back where that fills whole pages.

    Those are pages of 4 kB along the last axis: rows that go all the way give back everything but their ends.
    """
    mapped = _map_of(part)
    if mapped is None or _run_of(part) < mmap.PAGESIZE:
        part.fill(0)
    elif part.flags.c_contiguous:
        _give_back(mapped, part.reshape(-1).view(np.uint8))
    else:
        for each in part:
            forget(each)


def _run_of(part: npt.NDArray[Any]) -> int:
    """Bytes of a view that follow each other in memory."""
    while part.size and part.ndim > 1 and not part.flags.c_contiguous:
        part = part[0]
    return part.nbytes if part.flags.c_contiguous else 0


def _give_back(mapped: mmap.mmap, octets: npt.NDArray[np.uint8]) -> None:
    start = octets.ctypes.data - np.frombuffer(mapped, np.uint8).ctypes.data
    first = -start % mmap.PAGESIZE
    whole = (octets.size - first) // mmap.PAGESIZE * mmap.PAGESIZE
    if whole <= 0:
        octets.fill(0)
        return
    octets[:first], octets[first + whole :] = 0, 0
    mapped.madvise(mmap.MADV_DONTNEED, start + first, whole)


def _map_of(array: npt.NDArray[Any]) -> mmap.mmap | None:
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, memoryview):
        base = base.obj
    return base if isinstance(base, mmap.mmap) else None
