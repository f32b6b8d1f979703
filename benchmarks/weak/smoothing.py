"""Label smoothing, on paint whose outlines wander: a share of 0.1 of each voxel's say goes to all classes alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

import sparsebench
from sparsebench import Case
from weak.common import Result, compare_cases, dice_after, repainted, rng_of

_SHARE = 0.1
_DRIFT = 2  # times the drift of a hurried hand


def compare(volume_names: Sequence[str], seeds: Sequence[int], quick: bool) -> Result:
    return compare_cases(_measure, volume_names, seeds, quick)


def _measure(case: Case, quick: bool) -> tuple[float, float]:
    sloppy = repainted(case, hurried(case))
    return dice_after(sloppy, quick), dice_after(sloppy, quick, paint__label_smoothing=_SHARE)


def hurried(case: Case) -> npt.NDArray[np.uint8]:
    """The painted slices as a hurried hand would fill them."""
    rng = rng_of(case)
    annotation = case.annotation.copy()
    for z in np.flatnonzero(case.annotation.any((1, 2))).tolist():
        plane = case.truth[z]
        for _ in range(_DRIFT):
            plane = sparsebench.sloppy(plane, rng)
        annotation[z] = plane
    return annotation
