"""What the C library does with memory that is freed."""

from __future__ import annotations

import ctypes
import os
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD in malloc.h
_KEPT, _LARGE = 1 << 30, 1 << 25


def keep_freed_memory() -> None:
    """Let glibc keep up to 1 GB of freed memory for the next step or tile, which otherwise has to get it anew.

    For processes that are ours alone; `distributed.cluster` gives its workers the same by their environment. Elsewhere
    than on glibc nothing happens, nor where the user has set these thresholds.
    """
    if sys.platform != "linux" or any(name.startswith("MALLOC_") for name in os.environ):
        return
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return
    set_option(_TRIM_THRESHOLD, _KEPT)
    set_option(_MMAP_THRESHOLD, _LARGE)
