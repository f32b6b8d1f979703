"""How small an object may be, by the sections that were painted."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from napari_sparseseg._types import Shape3D, Spacing
from napari_sparseseg.engine.paint import Paint

_UNKNOWN = 50  # voxels, where no ids of objects were painted
_UNKNOWN_IN_PLANE = 16  # pixels: the section of a ball of so many voxels
_SHARE = 0.1  # of the painted objects that may be smaller
_ENOUGH = 5  # painted objects to know that; of fewer, those that were not painted may be smaller


def unknown_smallest(shape: Shape3D) -> int:
    """Voxels of an object, where nothing tells how large objects are."""
    return _UNKNOWN if min(shape) > 1 else _UNKNOWN_IN_PLANE


def smallest_of(paints: Sequence[Paint], spacing: Spacing, shape: Shape3D) -> int:
    """Voxels that nine of ten painted objects of volumes of some shape have, `unknown_smallest` at least.

    An object counts as the ball with a central section like the largest one that was painted of it, in a single plane
    as that section; `spacing` along z, y, x. Where only a stroke was painted it seems smaller than it is, so none is
    lost for that. Of fewer than five objects, a fifth for each counts.
    """
    sizes_in = _pixels if min(shape) == 1 else partial(_balls, spacing=spacing)
    sizes = np.concatenate([np.zeros(0), *map(sizes_in, paints)])
    if not len(sizes):
        return unknown_smallest(shape)
    return max(unknown_smallest(shape), int(np.quantile(sizes, _SHARE) * min(1, len(sizes) / _ENOUGH)))


def _pixels(paint: Paint) -> npt.NDArray[np.float64]:
    """Voxels that were painted of each object."""
    return np.unique(paint.object_ids[paint.object_ids > 0], return_counts=True)[1].astype(np.float64)


def _balls(paint: Paint, spacing: Spacing) -> npt.NDArray[np.float64]:
    """Voxels of each object of a volume."""
    of_objects = paint.object_ids > 0
    places = np.stack([paint.object_ids, paint.axis, paint.slice_id])[:, of_objects]
    (ids, axes, _), n_pixels = np.unique(places, axis=1, return_counts=True)
    voxel = float(np.prod(spacing))
    areas = n_pixels * voxel / np.asarray(spacing)[axes]
    _, numbers = np.unique(ids, return_inverse=True)
    largest = np.zeros(numbers.max(initial=-1) + 1)
    np.maximum.at(largest, numbers, areas)
    volumes: npt.NDArray[np.float64] = 4 / 3 * largest**1.5 / np.sqrt(np.pi) / voxel
    return volumes
