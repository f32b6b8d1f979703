"""Objects of which only some were outlined, and nothing else: the rest may be either, against the rest is background.

On three slices every second object was outlined, and of larger structures every second part. Without the method all the
rest of these slices counts as background, as much as paint does. With it the rest is a mixture, whose share of objects
is estimated. `weak` is what comes of counting the rest as half a background, `known` of telling the true share.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from sparsebench import Case
from weak.common import Result, compare_cases, dice_after, repainted, rng_of

_LARGE = 0.02  # of a slice: what is larger is no single object, and was outlined in part
_PART = 12  # edge, in pixels, of such a part


def compare(volume_names: Sequence[str], seeds: Sequence[int], quick: bool) -> Result:
    return compare_cases(_measure, volume_names, seeds, quick)


def _measure(case: Case, quick: bool) -> tuple[float, float, dict[str, Any]]:
    some = repainted(case, some_outlined(case))
    without = dice_after(some, quick, paint__unlabelled="background", paint__negative_weight=1.0)
    with_it = dice_after(some, quick, paint__unlabelled="risk")
    if quick:
        return without, with_it, {}
    weak = dice_after(some, quick, paint__unlabelled="background")
    share = float((case.truth[some.annotation == 0] > 1).mean())
    known = dice_after(some, quick, paint__unlabelled="risk", paint__prior=share)
    return without, with_it, {"weak": round(weak, 4), "known": round(known, 4), "share": round(share, 4)}


def some_outlined(case: Case) -> npt.NDArray[np.uint8]:
    """Every second object on each painted slice, in random order; one of each class on all slices together at least."""
    rng = rng_of(case)
    annotation = np.zeros_like(case.annotation)
    for class_id in range(2, case.n_classes + 1):
        regions = [
            (z, region)
            for z in np.flatnonzero(case.annotation.any((1, 2))).tolist()
            for region in _regions(case.truth[z] == class_id)
        ]
        order = rng.permutation(len(regions))
        for number in order[: -(-len(regions) // 2)].tolist():
            z, region = regions[number]
            annotation[z][region] = class_id
    return annotation


def _regions(plane: npt.NDArray[np.bool_]) -> list[npt.NDArray[np.bool_]]:
    """Connected regions; large ones cut along a grid."""
    parts, n_parts = ndimage.label(plane)
    y, x = np.indices(plane.shape) // _PART
    found = []
    for number in range(1, n_parts + 1):
        region = parts == number
        if region.mean() <= _LARGE:
            found.append(region)
            continue
        square = y * (x.max() + 1) + x
        found += [region & (square == each) for each in np.unique(square[region])]
    return found
