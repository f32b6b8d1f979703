"""Prediction tile by tile: the same numbers as for the whole volume at once, in bounded memory."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from napari_sparseseg._types import Box, Extra, Shape3D
from napari_sparseseg.engine.device import is_out_of_memory, mixed_precision
from napari_sparseseg.engine.features import FeatureMap
from napari_sparseseg.engine.network import SparseNet
from napari_sparseseg.engine.tiles import frame_of, tile_grid, tile_input, tile_shape_for


@dataclass(frozen=True, slots=True)
class TilePrediction:
    """Probabilities of one tile, shape (classes, z, y, x), float32, and where it lies; 0 where the image is missing.

    Where they were asked for and the network has such a head: `affinities` (offsets, z, y, x) float32, `candidates`
    (classes, z, y, x) bool, `novelty` (z, y, x) float32, 0..1.
    """

    box: Box
    probabilities: Tensor
    affinities: Tensor | None = None
    candidates: Tensor | None = None
    novelty: Tensor | None = None


class Predictor:
    """Predicts one volume with one state of a network.

    When memory runs out on a tile, the tile is halved and the volume goes on with smaller ones.
    """

    def __init__(self, network: SparseNet, feature_map: FeatureMap, *, tile_voxels: int) -> None:
        self._network = network
        self._features = feature_map
        self._stride = network.unet.stride
        self._halo = network.unet.halo
        self.frame = frame_of(feature_map.shape, self._stride)
        self.tile_shape: Shape3D = tile_shape_for(feature_map.shape, self._stride, self._halo, tile_voxels)

    @property
    def overlapping(self) -> bool:
        """Whether each class has a probability of its own."""
        return self._network.overlapping

    @property
    def n_tiles(self) -> int:
        return sum(1 for _ in tile_grid(Box.whole(self._features.shape), self.tile_shape))

    def predict(self, region: Box | None = None, *, extras: Collection[Extra] = ()) -> Iterator[TilePrediction]:
        """Every voxel of the volume, or of a region of it, once; with those extras that the network has a head for."""
        if region is None and self.n_tiles == 1:
            self._features.cache_bytes = 0  # each block is needed once
        for tile in tile_grid(region or Box.whole(self._features.shape), self.tile_shape):
            yield from self._predict_or_halve(tile, extras)

    def tile(self, box: Box) -> Tensor:
        """Probabilities of any box within the volume, shape (classes, z, y, x)."""
        # the pixel head alone needs no surroundings
        source = tile_input(box, self.frame, self._stride, self._halo) if self._network.context else box
        with torch.no_grad(), mixed_precision(self._features.device):
            log_probabilities = self._network.answer(self._features.mapped, source, box)
        return self._probabilities(log_probabilities, box)

    def tile_with(self, extras: Collection[Extra], box: Box) -> TilePrediction:
        """Probabilities of any box within the volume, and those extras that the network has a head for."""
        if not self._network.extras.intersection(extras):
            return TilePrediction(box, self.tile(box))
        source = tile_input(box, self.frame, self._stride, self._halo)
        with torch.no_grad(), mixed_precision(self._features.device):
            answer = self._network.answer_with(extras, self._features.mapped, source, box)
        candidates = _classes_first(answer.candidates)
        if candidates is not None:
            self._features.clear_missing(candidates, box)
        return TilePrediction(
            box,
            self._probabilities(answer.log_probabilities, box),
            affinities=_classes_first(answer.affinities),
            candidates=candidates,
            novelty=answer.novelty,
        )

    def _probabilities(self, log_probabilities: Tensor, box: Box) -> Tensor:
        found: Tensor = log_probabilities.movedim(-1, 0).exp()
        self._features.clear_missing(found, box)
        return found

    def _predict_or_halve(self, tile: Box, extras: Collection[Extra]) -> Iterator[TilePrediction]:
        try:
            yield self.tile_with(extras, tile)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error) or all(n <= s for n, s in zip(tile.shape, self._stride, strict=True)):
                raise
            halves = _halved(tile, self._stride)
        else:
            return
        if self._features.device.type == "cuda":
            torch.cuda.empty_cache()
        for half in halves:
            yield from self._predict_or_halve(half, extras)


def _classes_first(image: Tensor | None) -> Tensor | None:
    return None if image is None else image.movedim(-1, 0)


def _halved(tile: Box, stride: Shape3D) -> tuple[Box, Box]:
    """Cut a tile in two along its longest axis, on the stride's grid."""
    axis = max(range(3), key=lambda a: tile.shape[a] / stride[a])
    middle = (tile.start[axis] + tile.stop[axis]) // 2
    cut = max(tile.start[axis] // stride[axis] * stride[axis] + stride[axis], middle // stride[axis] * stride[axis])
    stop, start = list(tile.stop), list(tile.start)
    stop[axis] = start[axis] = cut
    return Box(tile.start, (stop[0], stop[1], stop[2])), Box((start[0], start[1], start[2]), tile.stop)
