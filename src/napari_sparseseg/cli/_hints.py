"""What paint suggests of its surroundings, for commands that learn from files."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_sparseseg.config import PaintConfig
from napari_sparseseg.errors import InputError
from napari_sparseseg.suggesting import suggest_between, suggest_grown, with_suggestions

if TYPE_CHECKING:
    from napari_sparseseg._types import ArrayLike


def suggested_paint(
    volumes: Sequence[ArrayLike],
    annotations: Sequence[ArrayLike],
    wanted: Collection[str],
    *,
    spacing: Sequence[float] | None,
    channel_axis: int | None,
    allowed: Mapping[int, Collection[int]] | None = None,
    paint: PaintConfig,
) -> tuple[list[npt.NDArray[np.uint8]], list[npt.NDArray[np.float32]], int]:
    """The annotations with what they suggest ("grow", "between"), the weight of each voxel, how many were suggested.

    Gaps are filled between slices across the first axis. Raises `InputError` for annotations with an axis of classes.
    """
    how: dict[str, Any] = {"spacing": spacing, "allowed": allowed, "paint": paint}
    codes, weights, n_suggested = [], [], 0
    for volume, annotation in zip(volumes, annotations, strict=True):
        if len(annotation.shape) != len(volume.shape) - (channel_axis is not None):
            raise InputError("an annotation with an axis of classes suggests nothing; leave --suggest out")
        given = np.asarray(annotation[(slice(None),) * len(annotation.shape)])
        found = []
        if "grow" in wanted:
            found.append(suggest_grown(volume, given, channel_axis=channel_axis, **how))
        if "between" in wanted:
            found.append(suggest_between(given, **how))
        merged, weight = with_suggestions(given, *found)
        codes.append(merged)
        weights.append(weight)
        n_suggested += int(np.count_nonzero(merged)) - int(np.count_nonzero(given))
    return codes, weights, n_suggested
