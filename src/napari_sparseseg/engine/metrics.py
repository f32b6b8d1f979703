"""Agreement of labels with truth: overlap (Dice, IoU) and distance of surfaces.

What is not known is left out before anything is counted: callers pass only voxels where truth is known to `dice` and
`iou`, and say which are known to `surface_distances`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_NAN = float("nan")
_PERCENTILE = 95


def dice(labels: npt.NDArray[np.integer], truth: npt.NDArray[np.integer], class_ids: Sequence[int]) -> dict[int, float]:
    """Dice of each class, 0..1: twice the common voxels over the sum of both. NaN for a class that is in neither array.

    Arrays of one shape.
    """
    scores = {}
    for class_id in class_ids:
        n_labels, n_truth, n_common = _counts(labels, truth, class_id)
        total = n_labels + n_truth
        scores[class_id] = 2 * n_common / total if total else _NAN
    return scores


def dice_of_overlapping(
    found: npt.NDArray[np.bool_],
    present: npt.NDArray[np.bool_],
    absent: npt.NDArray[np.bool_],
    class_ids: Sequence[int],
) -> dict[int, float]:
    """Dice of each class where it is known whether it is there; all (n, classes). NaN for a class that never is."""
    scores = {}
    for class_id, is_found, is_there, is_not in zip(class_ids, found.T, present.T, absent.T, strict=True):
        total = int(np.count_nonzero(is_found & (is_there | is_not))) + int(np.count_nonzero(is_there))
        scores[class_id] = 2 * int(np.count_nonzero(is_found & is_there)) / total if total else _NAN
    return scores


def iou(labels: npt.NDArray[np.integer], truth: npt.NDArray[np.integer], class_ids: Sequence[int]) -> dict[int, float]:
    """Intersection over union (Jaccard index) of each class, 0..1: `dice / (2 - dice)`. Else as `dice`."""
    scores = {}
    for class_id in class_ids:
        n_labels, n_truth, n_common = _counts(labels, truth, class_id)
        union = n_labels + n_truth - n_common
        scores[class_id] = n_common / union if union else _NAN
    return scores


def mean_dice(scores: dict[int, float], without: int) -> float:
    """Mean over the classes but `without` (the background), leaving out classes that are nowhere."""
    found = [score for class_id, score in scores.items() if class_id != without and not np.isnan(score)]
    return float(np.mean(found)) if found else _NAN


@dataclass(frozen=True, slots=True)
class SurfaceDistance:
    """How far the surface of a class in the labels lies from that in the truth, in the unit of `spacing`.

    `mean` is the mean symmetric surface distance: the mean of the distances of every surface voxel of either one to the
    nearest surface voxel of the other. `hausdorff95` is the larger of the two directed 95th percentiles (linear
    interpolation): all but a twentieth of either surface lies that close to the other. Both are NaN where one of the
    two has no surface, because the class is missing or fills all that is known.
    """

    mean: float = _NAN
    hausdorff95: float = _NAN


def surface_distances(
    labels: npt.NDArray[np.integer],
    truth: npt.NDArray[np.integer],
    class_ids: Sequence[int],
    *,
    spacing: Sequence[float] | None = None,
    known: npt.NDArray[np.bool_] | None = None,
) -> dict[int, SurfaceDistance]:
    """Distances between the surfaces of each class, for two arrays of one shape, 2D or 3D.

    A surface voxel belongs to the class and shares a face with a voxel that does not. Distances are measured between
    centres of voxels, whose size along each axis is `spacing` (None: 1), and every surface voxel counts the same,
    whatever its area. Voxels beyond the array's edge, and those that are not `known`, are neither inside nor outside:
    where an object is cut by them it has no surface, in labels and truth alike. Distances are straight lines, through
    unknown voxels too.
    """
    sizes = [1.0] * labels.ndim if spacing is None else [float(size) for size in spacing]
    return {
        class_id: _distance(_surface(labels == class_id, known), _surface(truth == class_id, known), sizes)
        for class_id in class_ids
    }


def _counts(labels: npt.NDArray[np.integer], truth: npt.NDArray[np.integer], class_id: int) -> tuple[int, int, int]:
    """Voxels of a class in the labels, in the truth, and in both."""
    in_labels, in_truth = labels == class_id, truth == class_id
    return (
        int(np.count_nonzero(in_labels)),
        int(np.count_nonzero(in_truth)),
        int(np.count_nonzero(in_labels & in_truth)),
    )


def _surface(inside: npt.NDArray[np.bool_], known: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.bool_]:
    """Voxels inside that share a face with one outside."""
    outside = ~inside if known is None else ~inside & known
    inside = inside if known is None else inside & known
    touches = np.zeros_like(inside)
    for axis in range(inside.ndim):
        lower = (*(slice(None),) * axis, slice(None, -1))
        upper = (*(slice(None),) * axis, slice(1, None))
        touches[lower] |= outside[upper]
        touches[upper] |= outside[lower]
    surface: npt.NDArray[np.bool_] = touches & inside
    return surface


def _distance(labels: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_], spacing: list[float]) -> SurfaceDistance:
    if not (labels.any() and truth.any()):
        return SurfaceDistance()
    box = _bounding_box(labels | truth)  # no nearest voxel lies outside of it
    labels, truth = labels[box], truth[box]
    to_truth, to_labels = _distances(labels, truth, spacing), _distances(truth, labels, spacing)
    return SurfaceDistance(
        mean=float(np.concatenate([to_truth, to_labels]).mean()),
        hausdorff95=float(max(np.percentile(to_truth, _PERCENTILE), np.percentile(to_labels, _PERCENTILE))),
    )


def _distances(
    surface: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_], spacing: list[float]
) -> npt.NDArray[np.float64]:
    """Of each voxel of a surface, the distance to the nearest of another."""
    from scipy.ndimage import distance_transform_edt

    distances: npt.NDArray[np.float64] = distance_transform_edt(~other, sampling=spacing)[surface]
    return distances


def _bounding_box(mask: npt.NDArray[np.bool_]) -> tuple[slice, ...]:
    found = []
    for axis in range(mask.ndim):
        hit = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        found.append(slice(int(hit[0]), int(hit[-1]) + 1))
    return tuple(found)
