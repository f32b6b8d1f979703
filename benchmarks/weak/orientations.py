"""Slices of three orientations against slices of one, at the same number of painted voxels.

Each of three slices carries the same number of voxels, in squares of 16 pixels at random places; scored is what lies on
none of the five slices. `whole_0` and `whole_1` are whole slices of three orientations, of which the largest has most
paint, with `orientation_balance` 0 and 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

import sparsebench
from sparsebench import Case
from weak.common import Result, compare_cases, dice_after, rng_of

_CELL = 16
_QUANTILES = (0.25, 0.5, 0.75)
Planes = list[tuple[int, int]]


def compare(volume_names: Sequence[str], seeds: Sequence[int], quick: bool) -> Result:
    return compare_cases(_measure, volume_names, seeds, quick)


def _measure(case: Case, quick: bool) -> tuple[float, float, dict[str, Any]]:
    one, mixed, whole = paintings(case)
    more = {}
    if not quick:
        more = {f"whole_{b:.0f}": dice_after(whole, quick, training__orientation_balance=b) for b in (0.0, 1.0)}
    return dice_after(one, quick), dice_after(mixed, quick), more


def paintings(case: Case) -> tuple[Case, Case, Case]:
    """Paint on slices of one orientation, of three, and whole slices of three."""
    rng = rng_of(case)
    one = [(0, index) for index in _amid(case.truth, 0, _QUANTILES, rng)]
    mixed = [one[1], *((axis, _amid(case.truth, axis, (0.5,), rng)[0]) for axis in (1, 2))]
    scored = np.ones(case.truth.shape, bool)
    for axis, index in (*one, *mixed):
        scored[sparsebench.on_plane(axis, index)] = False
    quota = min(case.truth[sparsebench.on_plane(axis, 0)].size for axis in range(3))
    return (
        _painted(case, one, scored, quota),
        _painted(case, mixed, scored, quota),
        _painted(case, mixed, scored, None),
    )


def _painted(case: Case, planes: Planes, scored: npt.NDArray[np.bool_], quota: int | None) -> Case:
    """Truth on these planes, `quota` voxels of each in randomly placed squares, or whole planes."""
    rng = rng_of(case, 1)
    annotation = np.zeros_like(case.annotation)
    for axis, index in planes:
        plane = case.truth[sparsebench.on_plane(axis, index)]
        cells = np.indices(plane.shape) // _CELL
        order = rng.permutation(np.prod(cells.max((1, 2)) + 1))[
            np.ravel_multi_index(tuple(cells), cells.max((1, 2)) + 1)
        ]
        chosen = np.argsort(order.ravel(), kind="stable")[:quota]
        target = annotation[sparsebench.on_plane(axis, index)]
        target.flat[chosen] = plane.flat[chosen]
    return replace(case, annotation=annotation, scored=scored)


def _amid(truth: npt.NDArray[np.uint8], axis: int, quantiles: Sequence[float], rng: np.random.Generator) -> list[int]:
    """Planes across an axis with these shares of the foreground before them, a little moved."""
    counts = (truth > 1).sum(axis=tuple(a for a in range(3) if a != axis)).cumsum()
    shares = [q + rng.uniform(-0.05, 0.05) for q in quantiles]
    return [int(np.searchsorted(counts, share * counts[-1])) for share in shares]
