"""Two structures of which one lies within the other, each outlined on slices of its own: a voxel knows of one only.

Where a volume has three classes, the outer structure is both of its objects together and the inner one of them; else
the outer one is the object with its near surroundings. Without: a softmax in which a voxel is outer, inner or neither,
so that the slices of one structure contradict those of the other.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_sparseseg import SparseSegmenter
from napari_sparseseg.engine.metrics import dice_of_overlapping
from sparsebench import Case
from weak.common import Result, compare_cases, rng_of, segmenter_for, steps_of

_NEAR = 4  # voxels, in units of the finest edge
_QUANTILES = (0.2, 0.4, 0.6, 0.8)
_IDS = (1, 2)  # outer and inner, of the overlapping classes
_CODES = (2, 3)  # the same, of classes that exclude each other; 1 is neither

Masks = npt.NDArray[np.bool_]


def compare(volume_names: Sequence[str], seeds: Sequence[int], quick: bool) -> Result:
    return compare_cases(_measure, volume_names, seeds, quick)


def _measure(case: Case, quick: bool) -> tuple[float, float]:
    truth = structures(case)
    annotation, scored = outlined(case, truth)
    without = segmenter_for(case, quick).fit(case.image, exclusive(annotation), max_steps=steps_of(quick))
    overlapping = segmenter_for(case, quick, background=None, paint__overlapping=True)
    overlapping.fit(case.image, annotation, max_steps=steps_of(quick))
    return _dice(case, without, _CODES, truth, scored), _dice(case, overlapping, _IDS, truth, scored)


def structures(case: Case) -> Masks:
    """Where the outer and the inner structure are, (2, z, y, x)."""
    inner = case.truth == 2
    if case.n_classes > 2:
        return np.stack([case.truth > 1, inner])
    voxel = [size / min(case.spacing) for size in case.spacing]
    return np.stack([ndimage.distance_transform_edt(~inner, sampling=voxel) <= _NEAR, inner])


def outlined(case: Case, truth: Masks) -> tuple[npt.NDArray[np.uint8], Masks]:
    """Both structures in turn on four slices, 0 unknown, 1 absent, 2 present, and the voxels beside the slices."""
    rng = rng_of(case)
    counts = truth[1].sum((1, 2)).cumsum()
    shares = [quantile + rng.uniform(-0.05, 0.05) for quantile in _QUANTILES]
    annotation, scored = np.zeros(truth.shape, np.uint8), np.ones(case.truth.shape, bool)
    for number, share in enumerate(shares):
        z = int(np.searchsorted(counts, share * counts[-1]))
        annotation[number % 2, z] = 1 + truth[number % 2, z]
        scored[z] = False
    return annotation, scored


def exclusive(annotation: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The same paint for classes that exclude each other: what is not the structure of its slice is neither."""
    codes = (annotation == 1).any(0).astype(np.uint8)
    for code, of_class in zip(_CODES, annotation, strict=True):
        codes[of_class == 2] = code
    return codes


def _dice(case: Case, segmenter: SparseSegmenter, ids: Sequence[int], truth: Masks, scored: Masks) -> float:
    """Mean over both structures, beside the slices."""
    found = np.asarray(segmenter.predict_present(case.image))[np.isin(segmenter.classes_, ids)]
    found, there = found[:, scored].T, truth[:, scored].T
    return float(np.mean(list(dice_of_overlapping(found, there, ~there, ids).values())))
