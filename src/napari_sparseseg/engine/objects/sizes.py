"""How small an object may be, by the sections that were painted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from napari_sparseseg._types import Spacing
from napari_sparseseg.engine.paint import Paint

UNKNOWN_SMALLEST = 50  # voxels, where no ids of objects were painted
_SHARE = 0.1  # of the painted objects that may be smaller


def smallest_of(paints: Sequence[Paint], spacing: Spacing) -> int:
    """Voxels that nine of ten painted objects have, `UNKNOWN_SMALLEST` at least.

    An object counts as the ball with a central section like the largest one that was painted of it; `spacing` along z,
    y, x. Where only a stroke was painted it seems smaller than it is, so none is lost for that.
    """
    volumes = np.concatenate([np.zeros(0), *(_balls(paint, spacing) for paint in paints)])
    return max(UNKNOWN_SMALLEST, int(np.quantile(volumes, _SHARE))) if len(volumes) else UNKNOWN_SMALLEST


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
