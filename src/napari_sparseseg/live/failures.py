"""What an exception means to the user, and what can be done about it."""

from __future__ import annotations

import sys

from napari_sparseseg.errors import SparseSegError


def explain(error: Exception) -> str:
    """One sentence on what went wrong and what to do."""
    if isinstance(error, SparseSegError):
        return str(error)
    if is_out_of_memory(error):
        return (
            "Memory ran out. Choose a smaller patch size or feature cache under Settings, a smaller working region, or "
            "close other programs; then press Train"
        )
    if "torch" not in sys.modules:
        return (
            f"torch cannot be loaded ({type(error).__name__}: {error}). Install it anew as https://pytorch.org says, "
            "then start the program again"
        )
    return f"Something unexpected went wrong ({type(error).__name__}: {error}). Press Train to try again"


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out, on any device; loads no torch."""
    if "torch" not in sys.modules:
        return isinstance(error, MemoryError)
    from napari_sparseseg.engine import device

    return device.is_out_of_memory(error)
