"""What is shown: predicted labels, with the user's paint over them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from napari_sparseseg._types import MAX_CLASSES, UNPAINTED
from napari_sparseseg.live.classes import ClassList
from napari_sparseseg.storage.strokes import AnnotationStore

Values = npt.NDArray[np.uint8]
Allowed = Callable[[int], frozenset[int]]
"""The labels that a code of the annotation leaves possible."""


def labels_left_possible(store: AnnotationStore, classes: ClassList, *, is_overlapping: bool) -> Allowed:
    """What the codes of this annotation allow; if classes overlap, no label as well where none was said to be there."""
    ids, background = classes.ids, classes.background

    def possible(code: int) -> frozenset[int]:
        allowed = store.allowed(code, ids)
        if not is_overlapping:
            return allowed
        return store.meanings([code], ids, background)[code].present or allowed | {UNPAINTED}

    return possible


def with_paint(labels: Values, codes: Values, allowed: Allowed) -> Values:
    """Labels as the user sees them: painted classes over the labels, and nothing where paint rules the label out."""
    if not codes.any():
        return labels
    merged = np.where((codes > 0) & (codes <= MAX_CLASSES), codes, labels)
    if codes.max() > MAX_CLASSES:
        for code in np.unique(codes[codes > MAX_CLASSES]).tolist():
            possible = sorted(allowed(code))
            merged[(codes == code) & ~np.isin(labels, possible)] = possible[0] if len(possible) == 1 else 0
    return merged
