"""What the C library does with memory that is freed, in this process and in the workers that it starts."""

from __future__ import annotations

import ctypes
import os
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD in malloc.h
_KEPT, _LARGE = 1 << 30, 1 << 25

# glibc gives large blocks back to the system at once, and the next tile has to get them anew
KEEP_FREED_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(_KEPT), "MALLOC_MMAP_THRESHOLD_": str(_LARGE)}


def keep_freed_memory() -> None:
    """Let glibc keep up to 1 GB of freed memory for the next step or tile, as `KEEP_FREED_MEMORY` does for workers.

    For processes that are ours alone. Elsewhere than on glibc nothing happens, nor where the user has set one of these
    thresholds.
    """
    if sys.platform != "linux" or any(name.startswith("MALLOC_") for name in os.environ):
        return
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return
    set_option(_TRIM_THRESHOLD, _KEPT)
    set_option(_MMAP_THRESHOLD, _LARGE)
