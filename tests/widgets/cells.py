"""The image that the tests of projects work on, and where they paint on it."""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_sparseseg._types import Box

SHAPE = (6, 48, 48)
LEFT, RIGHT = Box((3, 4, 4), (4, 20, 20)), Box((3, 28, 28), (4, 44, 44))
PLUGIN = ("napari-sparseseg", "Sparse Segmentation")


def cells() -> Any:
    """Voxels that are brighter at the right, uint8 of `SHAPE`."""
    voxels = np.random.default_rng(1).integers(0, 90, SHAPE).astype(np.uint8)
    voxels[:, 26:46, 26:46] += 120
    return voxels
