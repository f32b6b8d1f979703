"""Agreement of labels with truth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def dice(labels: npt.NDArray[np.integer], truth: npt.NDArray[np.integer], class_ids: Sequence[int]) -> dict[int, float]:
    """Dice of each class, 0..1; NaN for a class that is in neither array. Arrays of one shape."""
    scores = {}
    for class_id in class_ids:
        predicted, true = labels == class_id, truth == class_id
        total = int(np.count_nonzero(predicted)) + int(np.count_nonzero(true))
        scores[class_id] = 2 * int(np.count_nonzero(predicted & true)) / total if total else float("nan")
    return scores


def mean_dice(scores: dict[int, float], without: int) -> float:
    """Mean over the classes but `without` (the background), leaving out classes that are nowhere."""
    found = [score for class_id, score in scores.items() if class_id != without and not np.isnan(score)]
    return float(np.mean(found)) if found else float("nan")
