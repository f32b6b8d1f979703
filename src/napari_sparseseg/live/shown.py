"""What is shown: predicted labels, with the user's paint over them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from napari_sparseseg._types import MAX_CLASSES

Values = npt.NDArray[np.uint8]


def with_paint(labels: Values, codes: Values, allowed: Callable[[int], frozenset[int]]) -> Values:
    """Labels as the user sees them: painted classes over the labels, and nothing where paint rules the label out."""
    if not codes.any():
        return labels
    merged = np.where((codes > 0) & (codes <= MAX_CLASSES), codes, labels)
    if codes.max() > MAX_CLASSES:
        for code in np.unique(codes[codes > MAX_CLASSES]).tolist():
            possible = sorted(allowed(code))
            merged[(codes == code) & ~np.isin(labels, possible)] = possible[0] if len(possible) == 1 else 0
    return merged
