"""Where to paint next, in a simulated corrective loop: slices at fixed intervals against the most uncertain ones.

One slice is painted by the truth; in each round a slice is added and learning goes on for a fixed number of steps. Both
ways begin with the same model; there are many fits, so patches are always the small ones. Scored are the planes that
neither way has painted by that round.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from napari_sparseseg import SparseSegmenter
from sparsebench import Case, score
from weak.common import Result, Row, load, result_of, rng_of, row_of, segmenter_for

_METHODS = ("intervals", "uncertainty")
_ROUNDS, _QUICK_ROUNDS = 4, 2
_STEPS, _QUICK_STEPS = 60, 20


def compare(volume_names: Sequence[str], seeds: Sequence[int], quick: bool) -> Result:
    """Dice after the last round; `rounds` holds it after each, `slices` those that were painted, in order."""
    return result_of([_correct(volume, seed, quick) for volume in volume_names for seed in seeds])


def _correct(volume: str, seed: int, quick: bool) -> Row:
    """Both loops on one volume."""
    case = load(volume, seed)
    steps = _QUICK_STEPS if quick else _STEPS
    planes = {method: [first_slice(case)] for method in _METHODS}
    begun = segmenter_for(case, True).fit(case.image, painted(case.truth, planes["intervals"]), max_steps=steps)
    segmenters = {method: copy.deepcopy(begun) for method in _METHODS}
    dice: dict[str, list[float]] = {method: [] for method in _METHODS}
    for _ in range(_QUICK_ROUNDS if quick else _ROUNDS):
        labels = {}
        for method, segmenter in segmenters.items():
            planes[method].append(next_slice(segmenter, case, planes[method], method))
            segmenter.partial_fit(case.image, painted(case.truth, planes[method]), max_steps=steps)
            labels[method] = np.asarray(segmenter.predict(case.image))
        scored = np.ones(case.truth.shape, bool)
        scored[[index for chosen in planes.values() for index in chosen]] = False
        for method, found in labels.items():
            dice[method].append(score(replace(case, scored=scored), found)["foreground"])
    without, with_it = (dice[method][-1] for method in _METHODS)
    return row_of(volume, seed, without, with_it, rounds=dice, slices=planes)


def first_slice(case: Case) -> int:
    """One of the slices that show most classes."""
    n_classes = np.array([len(np.unique(plane)) for plane in case.truth])
    return int(rng_of(case).choice(np.flatnonzero(n_classes == n_classes.max())))


def next_slice(segmenter: SparseSegmenter, case: Case, planes: Sequence[int], method: str) -> int:
    """The slice that is suggested after those."""
    (advice,) = segmenter.suggest_slices(case.image, painted(case.truth, planes), n=1, method=method, axes=[0])
    return int(advice.index)


def painted(truth: npt.NDArray[np.uint8], planes: Sequence[int]) -> npt.NDArray[np.uint8]:
    """The truth on some planes, 0 elsewhere."""
    annotation = np.zeros_like(truth)
    annotation[planes] = truth[planes]
    return annotation
