"""Voxels at outlines of which nobody can tell the class, marked so, against a guess.

On painted slices a band along the outlines is blurred to the eye. Without the method it is filled as a hurried hand
would, with it the brush "could be any of these" is used there. `as_class` is what comes of making doubt a class of its
own, whose voxels get the likeliest of the others afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

import sparsebench
from sparsebench import Case
from weak.common import Result, compare_cases, dice_after, fit, repainted, rng_of

_BANDS = (2, 1)  # pixels on either side of an outline; the first that leaves half of every class on painted slices
_DRIFT = 2  # times the drift of a hurried hand
_FIRST_CODE = 128


def compare(volume_names: Sequence[str], seeds: Sequence[int], quick: bool) -> Result:
    return compare_cases(_measure, volume_names, seeds, quick)


def _measure(case: Case, quick: bool) -> tuple[float, float, dict[str, Any]]:
    guessed, marked, allowed = doubtful(case)
    without = dice_after(repainted(case, guessed), quick)
    with_it = dice_after(repainted(case, marked), quick, allowed=allowed)
    return without, with_it, {} if quick else {"as_class": round(_as_class(repainted(case, marked), quick), 4)}


def doubtful(case: Case) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], dict[int, set[int]]]:
    """The annotation with guesses in the band, with codes of sets in the band, and what these allow."""
    rng = rng_of(case)
    guessed, marked = case.annotation.copy(), case.annotation.copy()
    allowed: dict[int, set[int]] = {}
    width = _width_of_band(case)
    for z in np.flatnonzero(case.annotation.any((1, 2))).tolist():
        plane = case.truth[z]
        reached = _reached(plane, case.n_classes, width)
        possible = np.sum([near.astype(np.uint8) << k for k, near in enumerate(reached)], axis=0)
        band = np.sum(reached, axis=0) > 1
        guess = plane
        for _ in range(_DRIFT):
            guess = sparsebench.sloppy(guess, rng)
        guessed[z] = np.where(band, guess, plane)
        marked[z] = np.where(band, _FIRST_CODE + possible, plane)
        for bits in np.unique(possible[band]).tolist():
            allowed[_FIRST_CODE + bits] = {c for c in range(1, case.n_classes + 1) if bits >> (c - 1) & 1}
    return guessed, marked, allowed


def _width_of_band(case: Case) -> int:
    painted = np.flatnonzero(case.annotation.any((1, 2))).tolist()
    for width in _BANDS:
        certain = [np.sum(_reached(case.truth[z], case.n_classes, width), axis=0) == 1 for z in painted]
        left = [np.mean(np.stack(certain)[case.truth[painted] == c]) for c in range(1, case.n_classes + 1)]
        if min(left) >= 0.5:
            return width
    return _BANDS[-1]


def _reached(plane: npt.NDArray[np.uint8], n_classes: int, width: int) -> list[npt.NDArray[np.bool_]]:
    """For each class what lies in it or near it."""
    around = ndimage.generate_binary_structure(2, 1)
    return [ndimage.binary_dilation(plane == c, around, iterations=width) for c in range(1, n_classes + 1)]


def _as_class(case: Case, quick: bool) -> float:
    segmenter = fit(case, quick)
    probabilities = segmenter.predict_proba(case.image)
    known = [channel for channel, class_id in enumerate(segmenter.classes_) if class_id < _FIRST_CODE]
    labels = segmenter.classes_[known][probabilities[known].argmax(0)]
    return float(sparsebench.score(case, labels)["foreground"])
