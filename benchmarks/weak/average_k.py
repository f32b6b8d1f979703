"""Sets of candidate classes: by a head that was taught to give them, or by a threshold on the softmax of a plain model.

Both give sets of the same average size on the planes without paint, the label always among them; the metric is the
share of voxels whose set holds the true class. Volumes of two classes get a third: the rim of the second, whose borders
are what annotators doubt. `labels` is the share that the label alone covers, `same_model` what the softmax of the model
with the head would cover.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from napari_sparseseg import SparseSegmenter
from napari_sparseseg.engine.weak.average_k import average_threshold
from sparsebench import Case
from weak.common import Result, compare_cases, fit, with_rim

AVERAGE = 1.1  # classes that a voxel may be


def compare(volume_names: Sequence[str], seeds: Sequence[int], quick: bool) -> Result:
    return compare_cases(_measure, volume_names, seeds, quick)


def _measure(case: Case, quick: bool) -> tuple[float, float, dict[str, Any]]:
    case = with_rim(case)
    plain, taught = fit(case, quick), fit(case, quick, paint__candidates=AVERAGE)
    found = np.asarray(taught.predict_candidates(case.image))
    size = float(found[:, case.scored].sum(0).mean())
    covered = {
        "labels": _coverage(case, sets_of_softmax(case, plain, 1.0)),
        "same_model": _coverage(case, sets_of_softmax(case, taught, size)),
    }
    more = {name: round(share, 4) for name, share in covered.items()}
    return _coverage(case, sets_of_softmax(case, plain, size)), _coverage(case, found), {"size": round(size, 3), **more}


def sets_of_softmax(case: Case, segmenter: SparseSegmenter, average: float) -> npt.NDArray[np.bool_]:
    """Sets of the most probable classes, (classes, z, y, x), of exactly this average size where it is scored."""
    probabilities = np.asarray(segmenter.predict_proba(case.image))
    scored = torch.from_numpy(probabilities[:, case.scored].T.copy())
    likeliest = probabilities == probabilities.max(0)
    return (probabilities >= average_threshold(scored, scored, average)) | likeliest


def _coverage(case: Case, sets: npt.NDArray[np.bool_]) -> float:
    holds_truth = np.take_along_axis(sets, case.truth[None].astype(np.int64) - 1, axis=0)[0]
    return float(holds_truth[case.scored].mean())
