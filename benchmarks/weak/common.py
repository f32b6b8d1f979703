"""What all methods share: volumes, paint, fits of a fixed number of steps, and the rows that come out.

A module `weak/NAME.py` of a method has one function for the runner,

    compare(volume_names, seeds, quick) -> {"without": mean, "with": mean, "rows": [one for each volume and seed]}

which for most methods is `compare_cases(measure, ...)`: `measure(case, quick)` learns twice from the same incomplete
annotation and returns the metric without and with the method. More is better. Nothing looks at a clock.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

import sparsebench
from napari_sparseseg import SparseSegmenter
from sparsebench import Case

QUICK_VOLUMES = ("hippocampus", "nuclei_part")
FULL_VOLUMES = ("hippocampus", "nuclei", "walls", "neuropil")
VOLUMES: dict[str, tuple[str, str | None]] = {
    **sparsebench.VOLUMES,
    "nuclei_part": ("arabidopsis_ovule_nuclei_00", "26:74,14:86,14:86"),
    "nuclei_near": ("arabidopsis_ovule_nuclei_00", "0:100,0:100,0:50"),
    "nuclei_far": ("arabidopsis_ovule_nuclei_00", "0:100,0:100,50:100"),
    "neuropil_01": ("gala_neuropil_01", None),
    "hippocampus_01": ("msd_hippocampus_01", None),
    "hippocampus_02": ("msd_hippocampus_02", None),
    "hippocampus_03": ("msd_hippocampus_03", None),
}
_STEPS, _QUICK_STEPS = 120, 50
_PATCH, _QUICK_PATCH = 16384, 8192  # voxels

Row = dict[str, Any]
"""`volume`, `seed`, `without`, `with`, and whatever else explains them."""
Result = dict[str, Any]
"""`without` and `with`, the means over the `rows`."""
Measure = Callable[[Case, bool], tuple[float, float] | tuple[float, float, Mapping[str, Any]]]
"""The metric of a case (second: whether it is to be quick) without and with the method, and what explains it."""


def load(volume: str, seed: int, protocol: str = "slices3") -> Case:
    """A volume of `VOLUMES`, painted by one of sparsebench's protocols."""
    return sparsebench.load_case(f"{volume}/{protocol}", VOLUMES, seed)


def compare_cases(
    measure: Measure, volume_names: Sequence[str], seeds: Sequence[int], quick: bool, *, protocol: str = "slices3"
) -> Result:
    """Measure every volume with every seed."""
    rows = []
    for volume in volume_names:
        for seed in seeds:
            without, with_it, *more = measure(load(volume, seed, protocol), quick)
            rows.append(row_of(volume, seed, without, with_it, **(more[0] if more else {})))
    return result_of(rows)


def row_of(volume: str, seed: int, without: float, with_it: float, **more: Any) -> Row:
    return {"volume": volume, "seed": seed, "without": round(without, 4), "with": round(with_it, 4), **more}


def result_of(rows: Sequence[Row]) -> Result:
    """Means over the rows."""
    means = {side: round(float(np.mean([row[side] for row in rows])), 4) for side in ("without", "with")}
    return {**means, "rows": list(rows)}


def rng_of(case: Case, salt: int = 0) -> np.random.Generator:
    """Randomness for one use (`salt` numbers the uses) that depends on the case's seed only."""
    return np.random.default_rng((case.seed, salt))


def repainted(case: Case, annotation: npt.NDArray[np.uint8]) -> Case:
    """The case with other paint; what is scored stays, so that all paint of a case is scored on the same voxels."""
    return replace(case, annotation=annotation)


def with_rim(case: Case, protocol: str = "slices3") -> Case:
    """The case with three classes at least: of two, the rim of the second becomes the third."""
    if case.n_classes > 2:
        return case
    inner = ndimage.binary_erosion(case.truth == 2, np.ones((1, 3, 3)))
    truth = np.where((case.truth == 2) & ~inner, 3, case.truth).astype(np.uint8)
    annotation, _ = sparsebench.paint(truth, protocol, np.random.default_rng(case.seed))
    return replace(case, truth=truth, annotation=annotation)


def steps_of(quick: bool) -> int:
    """Steps of one fit."""
    return _QUICK_STEPS if quick else _STEPS


def segmenter_for(case: Case, quick: bool, **settings: Any) -> SparseSegmenter:
    """One that has learnt nothing yet; `settings` as for `set_params`, such as `training__class_balance=1.0`.

    Patches are smaller than usual, which makes a step several times as quick and costs little where volumes are small.
    """
    segmenter = SparseSegmenter(
        spacing=case.spacing, channel_axis=case.channel_axis, random_state=case.seed, background=1, progress=False
    )
    return segmenter.set_params(**{"training__patch_voxels": _QUICK_PATCH if quick else _PATCH, **settings})


def fit(
    case: Case,
    quick: bool,
    *,
    allowed: Mapping[int, Collection[int]] | None = None,
    weight: npt.NDArray[np.float32] | float | None = None,
    steps: int | None = None,
    **settings: Any,
) -> SparseSegmenter:
    """Learn from the paint of the case for a fixed number of steps; `settings` as for `segmenter_for`."""
    segmenter = segmenter_for(case, quick, **settings)
    return segmenter.fit(
        case.image, case.annotation, allowed=allowed, weight=weight, max_steps=steps or steps_of(quick)
    )


def foreground(case: Case, segmenter: SparseSegmenter) -> float:
    """Mean Dice over all classes but the first, where no plane carries paint."""
    return float(sparsebench.score(case, np.asarray(segmenter.predict(case.image)))["foreground"])


def dice_after(case: Case, quick: bool, **how: Any) -> float:
    """`foreground` after `fit`."""
    return foreground(case, fit(case, quick, **how))
