"""What corrections do to single objects: cut one in two, close its holes."""

from __future__ import annotations

import edt
import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_fill_holes
from skimage.segmentation import watershed

from napari_sparseseg._types import Shape3D, Spacing

Mask = npt.NDArray[np.bool_]

_SMALLEST_SHARE = 0.1  # of an object; a neck that leaves less is not what two points have meant


def cut(mask: Mask, first: Shape3D, second: Shape3D, spacing: Spacing) -> npt.NDArray[np.uint8]:
    """Which part of an object each voxel belongs to: 1 that of the `first` point, 2 that of the `second`, 0 none.

    It is cut at the narrowest place between the points; where there is none, half-way between them. Both are voxels of
    the mask (z, y, x).
    """
    seeds = np.zeros(mask.shape, np.int32)
    seeds[first], seeds[second] = 1, 2
    parts = at_necks(mask, seeds, spacing).astype(np.uint8)
    sizes = np.bincount(parts.ravel(), minlength=3)[1:]
    if sizes.min() >= _SMALLEST_SHARE * sizes.sum():
        return parts
    places = np.argwhere(mask) * np.asarray(spacing)
    to_first, to_second = (((places - np.asarray(point) * spacing) ** 2).sum(1) for point in (first, second))
    parts[mask] = np.where(to_first <= to_second, 1, 2)
    return parts


def at_necks(mask: Mask, seeds: npt.NDArray[np.int32], spacing: Spacing) -> npt.NDArray[np.int32]:
    """Which seed each voxel of an object belongs to, cut where it is narrow; 0 where none hangs together with it.

    `seeds` hold numbers from 1 on at some voxels of the mask, both (z, y, x).
    """
    rim = [(int(n > 1), int(n > 1)) for n in mask.shape]  # nothing lies beyond a single plane
    height = edt.edt(np.pad(mask, rim), anisotropy=spacing, parallel=1)
    height = height[tuple(slice(low, low + n) for (low, _), n in zip(rim, mask.shape, strict=True))]
    parts: npt.NDArray[np.int32] = watershed(-height, seeds, mask=mask)  # type: ignore[no-untyped-call]
    return parts


def holes(mask: Mask, axis: int, index: int) -> Mask:
    """Voxels that an object encloses: in space, and within its slice at `index` across `axis`."""
    filled: Mask = binary_fill_holes(mask)
    where: list[slice | int] = [slice(None)] * 3
    where[axis] = index
    filled[tuple(where)] |= binary_fill_holes(mask[tuple(where)])
    return filled & ~mask
