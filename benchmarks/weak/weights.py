"""Corrections that weigh more and fade, against all paint alike.

Three slices are painted in a hurry: outlines wander, and one region in four has the class of something else. Later
somebody corrects: a stroke on every second region that was wrong, then strokes on two more slices. They are few against
the painted areas, so what is right is outvoted unless it weighs more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

import sparsebench
from napari_sparseseg.storage._stroke_table import Stroke, StrokeKind, StrokeTable
from sparsebench import Case
from weak.common import Result, compare_cases, dice_after, rng_of

_WRONG = 0.25  # of the regions of a slice
_SMALLEST = 12  # voxels of a region that can be taken for something else
_LATER = (0.35, 0.65)  # where the further slices lie


def compare(volume_names: Sequence[str], seeds: Sequence[int], quick: bool) -> Result:
    return compare_cases(_measure, volume_names, seeds, quick)


def _measure(case: Case, quick: bool) -> tuple[float, float]:
    corrected, weight = hurried_then_corrected(case)
    return dice_after(corrected, quick), dice_after(corrected, quick, weight=weight)


def hurried_then_corrected(case: Case) -> tuple[Case, npt.NDArray[np.float32]]:
    """The case with such paint, and what the napari plugin would let each voxel weigh."""
    rng = rng_of(case)
    painted = _Painted(case)
    wrong_regions: list[tuple[int, npt.NDArray[np.bool_]]] = []
    for z in np.flatnonzero(case.annotation.any((1, 2))).tolist():
        plane = sparsebench.sloppy(case.truth[z], rng)
        wrong = _regions(case.truth[z], rng)
        for region in wrong:
            others = [c for c in range(1, case.n_classes + 1) if c != case.truth[z][region][0]]
            plane[region] = rng.choice(others)
        painted.add(z, plane, StrokeKind.PAINT)
        wrong_regions += [(z, region) for region in wrong]
    for z, region in wrong_regions[::2]:
        painted.add(z, _stroke_in(case, z, region, rng), StrokeKind.CORRECTION)
    scored = case.scored.copy()
    for share in _LATER:
        z = round((len(case.truth) - 1) * share)
        for class_id in np.unique(case.truth[z]):
            for _ in range(4):
                painted.add(z, _stroke_in(case, z, case.truth[z] == class_id, rng), StrokeKind.CORRECTION)
        scored[z] = False
    return replace(case, annotation=painted.annotation, scored=scored), painted.weights()


class _Painted:
    """Strokes, one after the other, each over what was there."""

    def __init__(self, case: Case) -> None:
        self.annotation = np.zeros_like(case.annotation)
        self._stroke = np.zeros(case.annotation.shape, np.uint16)
        self._strokes: list[Stroke] = []

    def add(self, z: int, plane: npt.NDArray[np.uint8], kind: StrokeKind) -> None:
        self._strokes.append(Stroke(len(self._strokes) + 1, kind, 0.0, None, int((plane > 0).sum())))
        self.annotation[z][plane > 0] = plane[plane > 0]
        self._stroke[z][plane > 0] = len(self._strokes)

    def weights(self) -> npt.NDArray[np.float32]:
        return StrokeTable(self._strokes).weights(2.0, 8.0)[self._stroke]


def _regions(plane: npt.NDArray[np.uint8], rng: np.random.Generator) -> list[npt.NDArray[np.bool_]]:
    """Some connected regions of single classes, one in four, and none that takes more than a third of the slice."""
    found = []
    for class_id in np.unique(plane):
        parts, n_parts = ndimage.label(plane == class_id)
        found += [parts == number for number in range(1, n_parts + 1)]
    found = [region for region in found if _SMALLEST <= region.sum() <= plane.size / 3]
    return [region for region in found if rng.random() < _WRONG]


def _stroke_in(case: Case, z: int, region: npt.NDArray[np.bool_], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """One stroke of the right class within a region of a slice."""
    plane = np.zeros_like(case.truth[z])
    starts = np.argwhere(region)
    start = starts[rng.integers(len(starts))]
    sparsebench.stroke(plane, region, start, case.truth[z][tuple(start)], max(plane.shape) // 3, 1, rng)
    return plane
