"""Features of painted voxels, which outlive the cache of blocks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_sparseseg.engine.features import FeatureMap
from napari_sparseseg.engine.paint import Paint

_MOST_VOXELS = 500_000  # of which features are kept, some 50 MB for each channel


class PaintedFeatures:
    """Features of the painted voxels of several volumes, computed anew only where the paint has changed.

    The blocks of a long time series do not all fit in the cache, so each stroke would have all of them computed again.
    A single volume has the cache for itself: nothing is kept of it.
    """

    def __init__(self) -> None:
        self._known: dict[FeatureMap, tuple[npt.NDArray[np.int32], Tensor]] = {}
        self._are_several = False

    def keep_only(self, maps: Sequence[FeatureMap]) -> None:
        """Forget the volumes that are not among these, from which is learnt next."""
        self._are_several = len(maps) > 1
        self._known = {m: self._known[m] for m in maps if m in self._known} if self._are_several else {}

    def at(self, feature_map: FeatureMap, paint: Paint, rows: npt.NDArray[np.intp]) -> Tensor:
        """Features of these painted voxels, shape (rows, features)."""
        known = self._known.get(feature_map)
        if known is None or not np.array_equal(known[0], paint.coordinates):
            self._known.pop(feature_map, None)
            if not self._has_room_for(paint):
                return feature_map.at(paint.coordinates[rows])
            known = paint.coordinates, feature_map.at(paint.coordinates)
            self._known[feature_map] = known
        features = known[1]
        return features[torch.from_numpy(rows).to(features.device)]

    def _has_room_for(self, paint: Paint) -> bool:
        """Unlabelled voxels are drawn anew with each stroke."""
        n_kept = sum(len(features) for _, features in self._known.values())
        return self._are_several and n_kept + len(paint) <= _MOST_VOXELS and not paint.is_unlabelled.any()
