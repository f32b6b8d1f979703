"""How long a voxel is for the structures of an image: by how much its neighbours differ along each axis.

A light microscope blurs more along z, where its voxels are longer: if neighbours differ no more there than along x,
filters may take the voxels for cubes. Serial sections are sharp: a long voxel counts in full.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import numpy as np
import numpy.typing as npt

from napari_sparseseg._types import Box, Shape3D, Spacing, Volume

_ALIKE = 1.1  # voxels of up to so many times the finest edge are as long
_PART: Shape3D = (24, 96, 96)  # voxels of a part of the volume that is looked at
_PARTS = 2  # along each axis, at most
_CHANNELS = 4  # at most, spread over all
_FEW = 3  # voxels along an axis that tell nothing
_CLIPPED = (1, 99)  # percentiles: single bright voxels would decide


def lengths_of(volumes: Sequence[Volume], spacing: Spacing) -> Spacing | None:
    """For how many of the finest edges a voxel counts along z, y, x, 1 and more; mean over the volumes.

    Where an image differs from plane to plane as much as it does within a plane over some number of voxels, that is the
    length of a voxel across the planes. Beyond the voxel's own length it is noise from plane to plane, which wider
    filters average: then it counts for less than its length. None where nothing tells: voxels are cubes, an image has
    too few of them or is constant. Reads some parts of each volume, unless its voxels are cubes.
    """
    length = np.asarray(spacing) / min(spacing)
    if (length <= _ALIKE).all():
        return None
    told = [_told(_sample(volume), length) for volume in volumes]
    found = [lengths for lengths in told if lengths is not None]
    if not found:
        return None
    z, y, x = np.exp(np.log(found).mean(0)).round(3).tolist()
    return z, y, x


def _sample(volume: Volume) -> npt.NDArray[np.float32]:
    """Parts spread over the volume, (parts, channels, z, y, x), some channels, scaled to 0..1: all of a small one."""
    shape = Box.whole(_PART).clipped(Box.whole(volume.shape))
    starts = []
    for size, part in zip(volume.shape, shape.stop, strict=True):
        n = min(_PARTS, size // part)
        starts.append([round((size - part) * (k + 0.5) / n) for k in range(n)])
    some = slice(None, None, -(-volume.n_channels // _CHANNELS))
    boxes = [shape.shifted((z, y, x)) for z, y, x in product(*starts)]
    parts = np.stack([volume.read(box)[some] for box in boxes])
    parts = parts.astype(np.result_type(parts, np.float32))  # float64 of what float32 cannot hold
    missing = np.isnan(parts)
    if missing.any():  # between what is missing and the rest there is an edge along all axes alike
        parts = np.where(missing, 0 if missing.all() else np.nanmedian(parts), parts)
    low, high = np.percentile(parts, _CLIPPED, axis=(0, 2, 3, 4), keepdims=True).astype(parts.dtype)
    scaled: npt.NDArray[np.float32] = ((parts - low) / np.maximum(high - low, 1e-30)).clip(0, 1).astype(np.float32)
    return scaled


def _told(parts: npt.NDArray[np.float32], length: npt.NDArray[np.float64]) -> npt.NDArray[np.float64] | None:
    """The lengths that parts of an image tell, or None."""
    size = np.asarray(parts.shape[2:])
    fine = [axis for axis in range(3) if length[axis] <= _ALIKE and size[axis] > _FEW]
    if not fine or parts.min() == parts.max():
        return None
    lengths = np.ones(3)
    for axis in range(3):
        if length[axis] > _ALIKE and size[axis] > 1:
            furthest = min(math.ceil(2 * length[axis]) + 1, min(size[f] for f in fine) // 2)
            within = [sum(_difference(parts, f, d) for f in fine) / len(fine) for d in range(furthest + 1)]
            lengths[axis] = _discounted(_place(_difference(parts, axis, 1), within), length[axis])
    return lengths


def _difference(parts: npt.NDArray[np.float32], axis: int, distance: int) -> float:
    """Mean square, between voxels so far apart."""
    along = np.moveaxis(parts, axis + 2, 0)
    return float(np.square(along[distance:] - along[: len(along) - distance]).mean(dtype=np.float64))


def _place(value: float, curve: Sequence[float]) -> float:
    """Where a curve gets to a value first, between its points; its end if it does not."""
    reached = np.flatnonzero(np.asarray(curve) >= value)
    if not reached.size:
        return float(len(curve) - 1)
    after = max(1, int(reached[0]))
    return after - (curve[after] - value) / max(curve[after] - curve[after - 1], 1e-30)


def _discounted(told: float, length: float) -> float:
    """What is told, 1 to `length`; of more than that, which is noise, the root is taken off again."""
    return max(1.0, told if told < length else length * math.sqrt(length / told))
