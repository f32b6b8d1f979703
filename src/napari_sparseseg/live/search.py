"""ObjectSearch: looks for the objects of a region in short pieces. Lives on the compute thread."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np
import torch
from torch import Tensor

from napari_sparseseg._types import Box
from napari_sparseseg.config import ObjectConfig
from napari_sparseseg.engine.features import FeatureMap
from napari_sparseseg.engine.model import FittedModel
from napari_sparseseg.engine.objects.finding import ObjectFinder
from napari_sparseseg.live.board import live_tile_shape
from napari_sparseseg.storage.strokes import AnnotationStore


class ObjectSearch:
    """Finds the objects in a box of a frame with a model; voxels that were painted with a class count as that class.

    What the network says of pairs of voxels counts only if it `uses_pairs`.
    """

    def __init__(
        self,
        model: FittedModel,
        feature_map: FeatureMap,
        store: AnnotationStore,
        frame: int,
        box: Box,
        *,
        uses_pairs: bool = True,
        config: ObjectConfig | None = None,
    ) -> None:
        self.found = np.zeros(box.shape, np.uint32)
        self._classes, self._store, self._frame = model.classes, store, frame
        self._finder = ObjectFinder(
            model,
            feature_map,
            config or ObjectConfig(),
            tile_voxels=prod(live_tile_shape(feature_map.shape)),
            region=box,
            amend=self._say_painted,
            uses_pairs=uses_pairs,
        )

    @property
    def class_ids(self) -> tuple[int, ...]:
        """The classes that make objects, ascending."""
        return tuple(self._classes.ids[channel] for channel in self._classes.object_channels)

    def work(self) -> Iterator[float]:
        """The share that is done, after each short piece of work; `found` is complete at the end."""
        return self._finder.find(self.found)

    def _say_painted(self, box: Box, probabilities: Tensor) -> None:
        """Where a class was painted it is certain; where classes may overlap, that says nothing of the others."""
        codes = self._store.codes[(self._frame, *box.slices)].copy()
        for channel, class_id in enumerate(self._classes.ids):
            painted = torch.from_numpy(codes == class_id).to(probabilities.device)
            if not self._classes.overlapping:
                probabilities[:, painted] = 0
            probabilities[channel, painted] = 1
