"""Strokes of which only "A or B" is known, used as sets of classes, against thrown away.

Of three classes one stroke in four has its class; the others are known to be one of two. Where a volume has two classes
only, the near surroundings of the second are a third.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

import sparsebench
from sparsebench import Case
from weak.common import Result, compare_cases, dice_after, repainted, rng_of

_KNOWN = 0.25  # of the strokes
_NEAR = 3  # voxels, in units of the finest edge
_FIRST_CODE = 128


def compare(volume_names: Sequence[str], seeds: Sequence[int], quick: bool) -> Result:
    return compare_cases(_measure, volume_names, seeds, quick, protocol="scribbles")


def _measure(case: Case, quick: bool) -> tuple[float, float]:
    case = of_three_classes(case)
    annotation, allowed = half_known(case)
    definite = np.where(annotation < _FIRST_CODE, annotation, 0).astype(np.uint8)
    without = dice_after(repainted(case, definite), quick)
    return without, dice_after(repainted(case, annotation), quick, allowed=allowed)


def of_three_classes(case: Case) -> Case:
    """The case itself if it has three; else class 3 is what lies near class 2, and the strokes are drawn anew."""
    if case.n_classes >= 3:
        return case
    voxel = [size / min(case.spacing) for size in case.spacing]
    near = (case.truth != 2) & (ndimage.distance_transform_edt(case.truth != 2, sampling=voxel) <= _NEAR)
    truth = np.where(near, 3, case.truth).astype(np.uint8)
    annotation, _ = sparsebench.paint(truth, "scribbles", np.random.default_rng(case.seed))
    return replace(case, truth=truth, annotation=annotation)


def half_known(case: Case) -> tuple[npt.NDArray[np.uint8], dict[int, set[int]]]:
    """The annotation with codes of sets in most strokes, and what the codes allow; one of each class stays as it is."""
    rng = rng_of(case)
    annotation = case.annotation.copy()
    allowed: dict[int, set[int]] = {}
    for class_id in range(1, case.n_classes + 1):
        strokes, n_strokes = ndimage.label(case.annotation == class_id)
        others = [c for c in range(1, case.n_classes + 1) if c != class_id]
        known = rng.integers(1, max(1, n_strokes) + 1)
        for number in range(1, n_strokes + 1):
            pair = {class_id, int(rng.choice(others))}
            if number != known and rng.random() >= _KNOWN:
                code = _FIRST_CODE + sum(1 << (c - 1) for c in pair)
                allowed[code] = pair
                annotation[strokes == number] = code
    return annotation, allowed
