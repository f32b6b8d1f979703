"""Prediction tile by tile: the same numbers as for the whole volume at once, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from napari_sparseseg._types import Box, Shape3D
from napari_sparseseg.engine.device import is_out_of_memory, mixed_precision
from napari_sparseseg.engine.features import FeatureMap
from napari_sparseseg.engine.network import SparseNet
from napari_sparseseg.engine.tiles import frame_of, tile_grid, tile_input, tile_shape_for


@dataclass(frozen=True, slots=True)
class TilePrediction:
    """Probabilities of one tile, shape (classes, z, y, x), float32, and where it lies.

    `affinities` (offsets, z, y, x), float32, were asked for and are there only if the network tells objects apart.
    """

    box: Box
    probabilities: Tensor
    affinities: Tensor | None = None


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
    def n_tiles(self) -> int:
        return sum(1 for _ in tile_grid(Box.whole(self._features.shape), self.tile_shape))

    def predict(self, region: Box | None = None, *, with_affinities: bool = False) -> Iterator[TilePrediction]:
        """Every voxel of the volume, or of a region of it, once."""
        if region is None and self.n_tiles == 1:
            self._features.cache_bytes = 0  # each block is needed once
        for tile in tile_grid(region or Box.whole(self._features.shape), self.tile_shape):
            yield from self._predict_or_halve(tile, with_affinities=with_affinities)

    def tile(self, box: Box) -> Tensor:
        """Probabilities of any box within the volume, shape (classes, z, y, x)."""
        # the pixel head alone needs no surroundings
        source = tile_input(box, self.frame, self._stride, self._halo) if self._network.context else box
        with torch.no_grad(), mixed_precision(self._features.device):
            log_probabilities = self._network.answer(self._features.mapped, source, box)
        probabilities: Tensor = log_probabilities.movedim(-1, 0).exp()
        return probabilities

    def tile_with_affinities(self, box: Box) -> TilePrediction:
        """Probabilities and affinities of any box within the volume; no affinities if the network has none."""
        if self._network.affinity is None:
            return TilePrediction(box, self.tile(box))
        source = tile_input(box, self.frame, self._stride, self._halo)
        with torch.no_grad(), mixed_precision(self._features.device):
            log_probabilities, affinities = self._network.answer_with_affinities(self._features.mapped, source, box)
        return TilePrediction(box, log_probabilities.movedim(-1, 0).exp(), affinities.movedim(-1, 0))

    def _predict_or_halve(self, tile: Box, *, with_affinities: bool) -> Iterator[TilePrediction]:
        try:
            yield self.tile_with_affinities(tile) if with_affinities else TilePrediction(tile, self.tile(tile))
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error) or all(n <= s for n, s in zip(tile.shape, self._stride, strict=True)):
                raise
            halves = _halved(tile, self._stride)
        else:
            return
        if self._features.device.type == "cuda":
            torch.cuda.empty_cache()
        for half in halves:
            yield from self._predict_or_halve(half, with_affinities=with_affinities)


def _halved(tile: Box, stride: Shape3D) -> tuple[Box, Box]:
    """Cut a tile in two along its longest axis, on the stride's grid."""
    axis = max(range(3), key=lambda a: tile.shape[a] / stride[a])
    middle = (tile.start[axis] + tile.stop[axis]) // 2
    cut = max(tile.start[axis] // stride[axis] * stride[axis] + stride[axis], middle // stride[axis] * stride[axis])
    stop, start = list(tile.stop), list(tile.start)
    stop[axis] = start[axis] = cut
    return Box(tile.start, (stop[0], stop[1], stop[2])), Box((start[0], start[1], start[2]), tile.stop)
