"""ObjectSearch: looks for the objects of a region in short pieces. Lives on the compute thread."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from napari_sparseseg._types import Box
from napari_sparseseg.config import ObjectConfig
from napari_sparseseg.engine.classes import ClassTable
from napari_sparseseg.engine.features import FeatureMap
from napari_sparseseg.engine.labelling import of_objects
from napari_sparseseg.engine.network import SparseNet
from napari_sparseseg.engine.objects.finding import taught_rows
from napari_sparseseg.engine.objects.fragments import blocks_of, margin_for
from napari_sparseseg.engine.objects.grouping import Grouping
from napari_sparseseg.engine.predictor import Predictor
from napari_sparseseg.engine.tiles import tile_grid
from napari_sparseseg.live.board import live_tile_shape
from napari_sparseseg.storage.strokes import AnnotationStore

_BLOCK = (32, 128, 128)

_Tile = tuple[npt.NDArray[np.float16], npt.NDArray[np.float16] | None]


class ObjectSearch:
    """Predicts a region of a frame with one state of the network and groups its voxels into objects.

    Voxels that were painted with a class count as that class. What the network says of pairs counts only if it
    `uses_pairs`. Only a part of the region's predictions is in memory at a time: what later blocks need.
    """

    def __init__(
        self,
        network: SparseNet,
        classes: ClassTable,
        feature_map: FeatureMap,
        store: AnnotationStore,
        frame: int,
        box: Box,
        *,
        uses_pairs: bool = True,
        config: ObjectConfig | None = None,
    ) -> None:
        self.frame, self.box = frame, box
        self.found = np.zeros(box.shape, np.uint32)
        self._config = config or ObjectConfig()
        self._classes, self._store = classes, store
        self._spacing = feature_map.bank.spacing
        self._predictor = Predictor(network, feature_map, tile_voxels=Box.whole(_BLOCK).n_voxels)
        self._rows = taught_rows(network) if uses_pairs else []
        self._offsets = [] if network.affinity is None else [network.affinity.offsets[row] for row in self._rows]
        self._tile_shape = live_tile_shape(feature_map.shape)
        self._tiles: dict[Box, _Tile] = {}

    def work(self) -> Iterator[float]:
        """The share that is done, after each short piece of work; `found` is complete at the end."""
        grouping = Grouping(
            self._read,
            self.box.shape,
            self.found,
            self._classes.object_channels,
            self._spacing,
            self._offsets,
            self._config,
        )
        margin = margin_for(self._spacing, self._config.reach, self._offsets)
        blocks = list(blocks_of(self.box.shape, _BLOCK))
        for number, block in enumerate(blocks):
            source = block.grown(margin).clipped(Box.whole(self.box.shape)).shifted(self.box.start)
            missing = [tile for tile in self._tiles_of(source) if tile not in self._tiles]
            for done, tile in enumerate(missing):
                self._tiles[tile] = self._predicted(tile)
                yield (number + (done + 1) / (len(missing) + 1)) / len(blocks)
            grouping.add(block)
            self._forget_before(self.box.start[0] + block.start[0] - margin[0])
            yield (number + 1) / len(blocks)
        grouping.finish()

    def _tiles_of(self, box: Box) -> Iterator[Box]:
        """Tiles of the global grid, within the region, that cover a box of it."""
        z, y, x = (a // t * t for a, t in zip(box.start, self._tile_shape, strict=True))
        stop = tuple(-(-b // t) * t for b, t in zip(box.stop, self._tile_shape, strict=True))
        for tile in tile_grid(Box((z, y, x), (stop[0], stop[1], stop[2])), self._tile_shape):
            yield tile.clipped(self.box)

    def _predicted(self, tile: Box) -> _Tile:
        prediction = self._predictor.tile_with({"affinities"}, tile)
        probabilities = prediction.probabilities
        codes = self._store.codes[(self.frame, *tile.slices)].copy()
        for channel, class_id in enumerate(self._classes.ids):
            painted = torch.from_numpy(codes == class_id).to(probabilities.device)
            if not self._classes.overlapping:
                probabilities[:, painted] = 0
            probabilities[channel, painted] = 1
        likely = of_objects(probabilities, self._classes).cpu().numpy().astype(np.float16)
        if prediction.affinities is None or not self._rows:
            return likely, None
        return likely, prediction.affinities[self._rows].cpu().numpy().astype(np.float16)

    def _read(self, box: Box) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None]:
        """Probabilities and affinities of a box of the region, counted from the region's first voxel."""
        source = box.shifted(self.box.start)
        probabilities = np.empty((len(self._classes) + self._classes.overlapping, *box.shape), np.float32)
        affinities = np.empty((len(self._rows), *box.shape), np.float32) if self._rows else None
        for tile in self._tiles_of(source):
            common = tile.clipped(source)
            if not common.n_voxels:
                continue
            there = (slice(None), *common.relative_to(source.start).slices)
            here = (slice(None), *common.relative_to(tile.start).slices)
            of_classes, of_pairs = self._tiles[tile]
            probabilities[there] = of_classes[here]
            if affinities is not None and of_pairs is not None:
                affinities[there] = of_pairs[here]
        return probabilities, affinities

    def _forget_before(self, z: int) -> None:
        for tile in [tile for tile in self._tiles if tile.stop[0] <= z]:
            del self._tiles[tile]
