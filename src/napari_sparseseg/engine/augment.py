"""Random flips, turns and gain of patches of filter features.

The features are intensities, gradient magnitudes and Hessian eigenvalues: turning or mirroring the image
turns them along, and a gain multiplies them. So augmenting cached features is the same as
augmenting the normalised image and filtering again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
import numpy.typing as npt
from torch import Tensor

from napari_sparseseg._types import Spacing

_ALIKE = 0.1  # difference of the logarithms of voxel sizes that are taken for equal


@dataclass(frozen=True, slots=True)
class Augmentation:
    """One draw: which axes are mirrored, in which order they come, and the contrast."""

    flips: tuple[bool, bool, bool] = (False, False, False)
    order: tuple[int, int, int] = (0, 1, 2)
    gain: float = 1.0

    def features(self, patch: Tensor) -> Tensor:
        """Transform features of shape (z, y, x, features)."""
        mirrored = [axis for axis, flip in enumerate(self.flips) if flip]
        if mirrored:
            patch = patch.flip(mirrored)
        if self.order != (0, 1, 2):
            patch = patch.permute(*self.order, 3)
        return patch * self.gain if self.gain != 1 else patch

    def positions(self, positions: npt.NDArray[np.integer], shape: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        """Where voxels at `positions` (n, 3) of a patch of `shape` come to lie."""
        moved = np.where(self.flips, shape - 1 - positions, positions)
        turned: npt.NDArray[np.int64] = moved[:, self.order].astype(np.int64)
        return turned


def draw_turn(axis: int, spacing: Spacing, rng: np.random.Generator) -> tuple[int, int, int]:
    """Swap the two axes of the painted plane, every other time, if their voxel sizes agree within a tenth."""
    first, second = (a for a in range(3) if a != axis)
    swap = rng.random() < 0.5
    if not swap or abs(np.log(spacing[first] / spacing[second])) > _ALIKE:
        return 0, 1, 2
    order = [0, 1, 2]
    order[first], order[second] = second, first
    return order[0], order[1], order[2]


def turns_of(spacing: Spacing, plans: Sequence[object]) -> list[tuple[int, int, int]]:
    """Every order of axes in which each comes to lie where one of its voxel size was, within a tenth.

    `plans` tell more of each axis, which must be equal as well.
    """
    return [
        (z, y, x)
        for z, y, x in permutations(range(3))
        if all(
            abs(np.log(spacing[old] / spacing[new])) <= _ALIKE and plans[old] == plans[new]
            for new, old in enumerate((z, y, x))
        )
    ]


def draw_flips(rng: np.random.Generator) -> tuple[bool, bool, bool]:
    """Mirror each axis every other time."""
    z, y, x = (rng.random(3) < 0.5).tolist()
    return z, y, x
