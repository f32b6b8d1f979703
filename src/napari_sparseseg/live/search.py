"""ObjectSearch: looks for the objects of a region in short pieces. Lives on the compute thread."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_sparseseg._types import UNPAINTED, Box
from napari_sparseseg.config import ObjectConfig
from napari_sparseseg.engine.features import FeatureMap
from napari_sparseseg.engine.model import FittedModel
from napari_sparseseg.engine.objects.agreement import agree_with_painted
from napari_sparseseg.engine.objects.finding import ObjectFinder
from napari_sparseseg.live.board import live_tile_shape
from napari_sparseseg.live.classes import ClassList
from napari_sparseseg.storage.strokes import AnnotationStore


class ObjectSearch:
    """Finds the objects in a box of a frame with a model; what paint says of the user's `classes` counts as certain.

    Painted objects, which corrections are as well, are found as they were painted. What the network says of pairs of
    voxels counts only if it `uses_pairs`.
    """

    def __init__(
        self,
        model: FittedModel,
        feature_map: FeatureMap,
        store: AnnotationStore,
        classes: ClassList,
        frame: int,
        box: Box,
        *,
        uses_pairs: bool = True,
        config: ObjectConfig | None = None,
    ) -> None:
        self.found = np.zeros(box.shape, np.uint32)
        self._classes, self._user_classes = model.classes, classes
        self._store, self._frame, self._box, self._spacing = store, frame, box, feature_map.bank.spacing
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
        yield from self._finder.find(self.found)
        if self._store.object_ids(self._frame):  # else there is no need for another array of the box's size
            agree_with_painted(self.found, self._painted_objects(), self._spacing)

    def _painted_objects(self) -> npt.NDArray[np.int32]:
        """Ids of painted objects of the classes that are looked for, of the shape of the box; 0 elsewhere."""
        painted: npt.NDArray[np.int32] = self._store.objects(self._frame, self._box)
        places = np.nonzero(painted)
        codes = self._store.codes[(self._frame, *self._box.slices)][places]
        said = self._store.meanings(np.unique(codes).tolist(), self._user_classes.ids, self._user_classes.background)
        wanted = [code for code, each in said.items() if each.present.intersection(self.class_ids)]
        painted[places] *= np.isin(codes, wanted)
        return painted

    def _say_painted(self, box: Box, probabilities: Tensor) -> None:
        """What paint says is certain; where classes may overlap, it says nothing of those that it does not name."""
        codes = self._store.codes[(self._frame, *box.slices)].copy()
        painted = np.unique(codes[codes != UNPAINTED]).tolist()
        known = self._user_classes
        said = self._store.meanings(painted, known.ids, known.background)
        for code in painted:
            where = torch.from_numpy(codes == code).to(probabilities.device)
            if self._classes.overlapping:
                for channel, class_id in enumerate(self._classes.ids):
                    if class_id in said[code].present | said[code].absent:
                        probabilities[channel, where] = float(class_id in said[code].present)
            else:
                probabilities[:, where] = self._left_possible(code, probabilities[:, where])

    def _left_possible(self, code: int, probabilities: Tensor) -> Tensor:
        """Probabilities (classes, n) where a code rules classes out; all 0 if it leaves none that the model knows."""
        allowed = self._store.allowed(code, self._classes.ids)
        is_left = torch.tensor([[class_id in allowed] for class_id in self._classes.ids]).to(probabilities)
        if is_left.sum() == 1:  # however unlikely it is
            return is_left.expand_as(probabilities)
        left = probabilities * is_left
        return left / left.sum(0).clamp_min(torch.finfo(left.dtype).tiny)
