"""Random flips, turns and gain of patches of filter features.

The features are intensities, gradient magnitudes and Hessian eigenvalues: turning or mirroring the image
turns them along, and a gain multiplies them. So augmenting cached features is the same as
augmenting the normalised image and filtering again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from napari_sparseseg._types import Spacing


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
    if not swap or abs(np.log(spacing[first] / spacing[second])) > 0.1:
        return 0, 1, 2
    order = [0, 1, 2]
    order[first], order[second] = second, first
    return order[0], order[1], order[2]


def draw_flips(rng: np.random.Generator) -> tuple[bool, bool, bool]:
    """Mirror each axis every other time."""
    z, y, x = (rng.random(3) < 0.5).tolist()
    return z, y, x
