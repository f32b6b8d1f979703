"""Prequential score: each stroke is compared with what had been predicted there before it was learnt."""

from __future__ import annotations

from collections import deque

import numpy as np
import numpy.typing as npt

_LAST = 20  # strokes that count
_FEWEST = 3  # strokes before there is a figure

Counts = dict[int, tuple[int, int]]
"""For each class: voxels in which stroke and prediction agree, and the sum of both."""


class StrokeScore:
    """Dice over the last strokes, mean over the classes but the background. Any thread may read.

    Corrections do not belong here: they are made where the prediction is wrong.
    Source: Gama et al. 2013, On evaluating stream learning algorithms.
    """

    def __init__(self) -> None:
        self.class_ids: frozenset[int] = frozenset()
        """Classes that what is predicted could be; strokes of others, new to the model, say nothing about it."""
        self._strokes: deque[Counts] = deque(maxlen=_LAST)

    def add(self, predicted: npt.NDArray[np.uint8], class_id: int) -> None:
        """A stroke of a class over voxels with these predicted labels; 0 (nothing predicted) does not count."""
        known = predicted[predicted > 0]
        if not len(known) or class_id not in self.class_ids:
            return
        counts = np.bincount(known)
        found = {label: (0, int(n)) for label, n in enumerate(counts.tolist()) if n}
        agree, total = found.get(class_id, (0, 0))[1], len(known)
        found[class_id] = (agree, agree + total)
        self._strokes.append(found)

    def forget(self, class_id: int) -> None:
        """Leave a class out that has been removed."""
        known = [{label: n for label, n in counts.items() if label != class_id} for counts in self._strokes]
        self._strokes = deque((counts for counts in known if counts), maxlen=_LAST)

    def clear(self) -> None:
        """Forget all strokes; nothing is predicted any more."""
        self._strokes.clear()
        self.class_ids = frozenset()

    def __len__(self) -> int:
        return len(self._strokes)

    def dice(self, background: int | None) -> float | None:
        """The figure, 0..1; None before a few strokes, some of them of another class than the background."""
        strokes = list(self._strokes)
        if len(strokes) < _FEWEST:
            return None
        class_ids = {class_id for counts in strokes for class_id in counts} - {background}
        scores = []
        for class_id in class_ids:
            agree, total = np.sum([counts.get(class_id, (0, 0)) for counts in strokes], axis=0)
            scores.append(2 * agree / total)
        return float(np.mean(scores)) if scores else None
