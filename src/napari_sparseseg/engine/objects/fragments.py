"""Fragments: the hills of a landscape that is high amid an object and low where objects meet.

Every voxel climbs to its highest neighbour until there is none higher; what climbs to one summit is a fragment. All of
it is local: computed on a block with its surroundings, it is the same as in the whole volume.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import edt
import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from napari_sparseseg._types import Box, Shape3D, Spacing
from napari_sparseseg.engine.objects.offsets import Offset, is_short

_LEVELS = (0.0, 0.6, 0.75, 0.9)  # certainties whose distances make up the height
_SMOOTHING = 0.7  # voxels
_TRUNCATE = 3
_STEPS = 1 << 10  # heights are whole multiples of this part of the finest voxel edge, so that ties are ties everywhere
_MARGIN = 2 + round(_TRUNCATE * _SMOOTHING)  # voxels beyond what distances need


@dataclass(frozen=True, slots=True)
class Landscape:
    """`kind` uint8 (z, y, x), 0 outside of objects, else 1 + the channel of the class; `height` float32.

    `certainty` (z, y, x) float32 is the probability of the likeliest class, `cohesion` the least affinity of a voxel
    with its neighbours, 1 without affinities.
    """

    kind: npt.NDArray[np.uint8]
    height: npt.NDArray[np.float32]
    certainty: npt.NDArray[np.float32]
    cohesion: npt.NDArray[np.float32]

    @classmethod
    def of(
        cls,
        probabilities: npt.NDArray[np.float32],
        object_channels: Sequence[int],
        spacing: Spacing,
        reach: float,
        affinities: npt.NDArray[np.float32] | None = None,
        offsets: Sequence[Offset] = (),
    ) -> Landscape:
        """From probabilities (classes, z, y, x) and affinities (offsets, z, y, x).

        The height is the distance to where a voxel of its class is no longer certain, in units of the finest voxel
        edge, at most `reach`: the mean over several certainties, so that a dent in the probabilities counts as well as
        one of the outline.
        """
        channel, certainty = probabilities.argmax(0), probabilities.max(0)
        is_object = np.isin(channel, np.asarray(object_channels, np.intp)) & (certainty > 0)
        kind = np.where(is_object, channel + 1, 0).astype(np.uint8)
        cohesion = np.ones(kind.shape, np.float32) if affinities is None else _cohesion(kind, affinities, offsets)
        voxel = tuple(float(s) / min(spacing) for s in spacing)
        height = np.zeros(kind.shape, np.float32)
        for level in _LEVELS:
            certain = (certainty > level) & (cohesion > level) if level else cohesion > 0.5
            height += np.minimum(edt.edt(np.where(certain, kind, 0), anisotropy=voxel, parallel=1), reach)
        gaussian_filter(height, _SMOOTHING, truncate=_TRUNCATE, mode="nearest", output=height)
        height = np.rint(height * (_STEPS / len(_LEVELS))) / np.float32(_STEPS)
        return cls(kind, np.where(kind > 0, height, 0).astype(np.float32), certainty, cohesion)


def margin_for(spacing: Spacing, reach: float, offsets: Sequence[Offset] = ()) -> Shape3D:
    """How far around a block its surroundings count, in voxels along z, y, x."""
    z, y, x = (
        max(_MARGIN + int(np.ceil(reach * min(spacing) / size)), *(abs(o[axis]) + 1 for o in offsets), 0)
        for axis, size in enumerate(spacing)
    )
    return z, y, x


def climb(landscape: Landscape) -> npt.NDArray[np.intp]:
    """Of each voxel the flat index of its highest neighbour of the same kind, or its own; -1 outside of objects.

    Of neighbours of one height the last counts, in the order of the array; so no way leads in a circle. At the faces of
    the array, neighbours beyond are missing.
    """
    kind, height = landscape.kind, landscape.height
    own = np.arange(kind.size).reshape(kind.shape)
    best, target = np.full(kind.shape, -1, np.float32), np.full(kind.shape, -1, np.intp)
    for axis, sign in ((0, -1), (1, -1), (2, -1), (0, 0), (2, 1), (1, 1), (0, 1)):
        here, there = shifted(tuple(sign if a == axis else 0 for a in range(3)))
        better = (kind[here] > 0) & (kind[here] == kind[there]) & (height[there] >= best[here])
        np.copyto(best[here], height[there], where=better)
        np.copyto(target[here], own[there], where=better)
    return target


def follow(target: npt.NDArray[np.intp], fixed: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """Where each voxel's way ends: at a summit or a `fixed` voxel; flat indices, -1 outside of objects."""
    flat = target.ravel().copy()
    stay = fixed.ravel() & (flat >= 0)
    flat[stay] = np.flatnonzero(stay)
    inside = np.flatnonzero(flat >= 0)
    while True:
        further = flat[flat[inside]]
        if np.array_equal(further, flat[inside]):
            return flat.reshape(target.shape)
        flat[inside] = further


def shifted(offset: Sequence[int]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Indices of the first and of the second voxels of all pairs that lie `offset` apart."""
    here = tuple(slice(max(0, -o), -o if o > 0 else None) for o in offset)
    there = tuple(slice(max(0, o), o if o < 0 else None) for o in offset)
    return here, there


def blocks_of(shape: Shape3D, block: Shape3D) -> Iterator[Box]:
    """Blocks that cover a volume, each voxel once, the last axis fastest."""
    for z in range(0, shape[0], block[0]):
        for y in range(0, shape[1], block[1]):
            for x in range(0, shape[2], block[2]):
                yield Box((z, y, x), (z + block[0], y + block[1], x + block[2])).clipped(Box.whole(shape))


def _cohesion(
    kind: npt.NDArray[np.uint8], affinities: npt.NDArray[Any], offsets: Sequence[Offset]
) -> npt.NDArray[np.float32]:
    """The least affinity of each voxel with a neighbour within objects; 1 where it has none."""
    found = np.ones(kind.shape, np.float32)
    for offset, affinity in zip(offsets, affinities, strict=True):
        if not is_short(offset):
            continue
        here, there = shifted(offset)
        both = (kind[here] > 0) & (kind[there] > 0)
        of_pair = np.where(both, affinity[here], 1)
        found[here] = np.minimum(found[here], of_pair)
        found[there] = np.minimum(found[there], of_pair)
    return found
