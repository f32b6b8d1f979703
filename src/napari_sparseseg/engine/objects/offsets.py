"""Which pairs of voxels the affinities tell apart: short and long steps along single axes."""

from __future__ import annotations

from collections.abc import Sequence

from napari_sparseseg._types import Spacing

Offset = tuple[int, int, int]
"""Step from a voxel to the other one of its pair, in voxels along z, y, x."""

REACHES = (1, 3, 9)
"""Lengths of the steps, in units of the finest voxel edge."""


def default_offsets(
    spacing: Spacing, flat: tuple[bool, bool, bool], reaches: Sequence[float] = REACHES
) -> tuple[Offset, ...]:
    """Steps along z, y, x, shortest first: to the next voxel, and as far as `reaches` says.

    A long step covers about the same distance along each axis, so that a long voxel edge takes few voxels or none.
    `flat` axes hold a single voxel and have no steps.
    """
    finest = min((size for size, is_flat in zip(spacing, flat, strict=True) if not is_flat), default=1.0)
    found: list[Offset] = []
    for reach in reaches:
        for axis in (a for a in range(3) if not flat[a]):
            step = [0, 0, 0]
            step[axis] = max(1, round(reach * finest / spacing[axis]))
            if (offset := (step[0], step[1], step[2])) not in found:
                found.append(offset)
    return tuple(found)


def is_short(offset: Offset) -> bool:
    """Whether the pair are neighbours."""
    return sum(map(abs, offset)) == 1
