"""Finds the objects of a volume of any size, or of a part: predicts tile by tile, and groups what was predicted."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

from napari_sparseseg._types import Box, Shape3D
from napari_sparseseg.config import ObjectConfig
from napari_sparseseg.engine.classes import ClassTable
from napari_sparseseg.engine.features import FeatureMap
from napari_sparseseg.engine.labelling import of_objects
from napari_sparseseg.engine.model import FittedModel
from napari_sparseseg.engine.network import SparseNet
from napari_sparseseg.engine.objects.fragments import blocks_of, margin_for
from napari_sparseseg.engine.objects.grouping import Grouping, Writable
from napari_sparseseg.engine.objects.offsets import Offset
from napari_sparseseg.engine.predictor import Predictor, TilePrediction
from napari_sparseseg.engine.tiles import tile_grid
from napari_sparseseg.errors import InputError

_CACHE_BYTES = 1 << 30
_MARGINS_PER_BLOCK = 3  # smaller blocks compute the same surroundings again and again

_Arrays = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None]


class ObjectFinder:
    """Finds the objects of one volume with one model.

    What neighbouring blocks need of each other's predictions is kept, up to `cache_bytes`; beyond, it is predicted
    again. Raises `InputError` if the settings ask for affinities that the model has not learnt.

    Parameters
    ----------
    region
        Where objects are looked for, as if there was nothing beyond; None for the whole volume.
    amend
        Changes the probabilities (classes, z, y, x) of a box of the volume in place, where more is known of it.
    uses_pairs
        Whether what the network says of pairs of voxels counts.

    """

    def __init__(
        self,
        model: FittedModel,
        feature_map: FeatureMap,
        config: ObjectConfig,
        *,
        tile_voxels: int,
        cache_bytes: int = _CACHE_BYTES,
        region: Box | None = None,
        amend: Callable[[Box, Tensor], None] | None = None,
        uses_pairs: bool = True,
    ) -> None:
        rows = taught_rows(model.network) if uses_pairs and config.method != "distance" else []
        if config.method == "affinities" and not rows:
            raise InputError(
                "objects cannot be told apart by affinities, since the model has learnt none: no two objects near each "
                "other were painted with ids; paint some, or set the method of ObjectConfig to auto or distance"
            )
        head = model.network.affinity
        self._model, self._config = model, config
        self._painted_smallest = 0 if head is None else head.smallest
        self._offsets: list[Offset] = [] if head is None else [head.offsets[row] for row in rows]
        self._region = region or Box.whole(feature_map.shape)
        predictor = Predictor(model.network, feature_map, tile_voxels=tile_voxels)
        self._tiles = _Tiles(predictor, model.classes, rows, self._region, cache_bytes, amend)
        self._margin = margin_for(model.spec.spacing, config.reach, self._offsets)

    def find(self, ids: Writable) -> Iterator[float]:
        """Write ids 1..n of objects to an array of zeros (z, y, x) of the region; yields the share that is done."""
        shape, start = self._region.shape, self._region.start
        whole = Box.whole(shape)
        channels, spacing = self._model.classes.object_channels, self._model.spec.spacing
        grouping = Grouping(
            lambda box: self._tiles.read(box.shifted(start)),
            shape,
            ids,
            channels,
            spacing,
            self._offsets,
            self._config,
            self._painted_smallest,
        )
        done = 0
        for block in blocks_of(shape, self._block_shape()):
            for share in self._tiles.fetch(block.grown(self._margin).clipped(whole).shifted(start)):
                yield (done + share * block.n_voxels) / whole.n_voxels
            grouping.add(block)
            self._tiles.trim()
            done += block.n_voxels
        grouping.finish()
        yield 1.0

    def _block_shape(self) -> Shape3D:
        """Whole tiles, and so many of them that the margin around a block is not much larger than the block."""
        z, y, x = (
            min(-(-_MARGINS_PER_BLOCK * m // t) * t if t < _MARGINS_PER_BLOCK * m else t, n)
            for t, m, n in zip(self._tiles.tile_shape, self._margin, self._region.shape, strict=True)
        )
        return z, y, x


def taught_rows(network: SparseNet) -> list[int]:
    """Numbers of the offsets whose affinities paint has taught: what the network says of others is a guess."""
    head = network.affinity
    return [] if head is None else [row for row, n_pairs in enumerate(head.taught) if n_pairs]


class _Tiles:
    """Predictions of the tiles of a region of a volume, of which the last ones used are kept."""

    def __init__(
        self,
        predictor: Predictor,
        classes: ClassTable,
        rows: list[int],
        region: Box,
        cache_bytes: int,
        amend: Callable[[Box, Tensor], None] | None,
    ) -> None:
        self._predictor, self._classes, self._rows, self._region = predictor, classes, rows, region
        self._cache_bytes, self._amend = cache_bytes, amend
        self._cache: OrderedDict[Box, _Arrays] = OrderedDict()
        self.tile_shape = predictor.tile_shape

    def fetch(self, box: Box) -> Iterator[float]:
        """Predict what a box needs and is not there; yields the share that is done."""
        tiles = list(self._touching(box))
        for number, tile in enumerate(tiles, 1):
            if tile in self._cache:
                self._cache.move_to_end(tile)
            else:
                self._cache[tile] = self._predicted(tile)
            yield number / len(tiles)

    def read(self, box: Box) -> _Arrays:
        """Probabilities (classes, z, y, x) and affinities (offsets, z, y, x), if there are any, of a fetched box."""
        return _joined([(tile, self._cache[tile]) for tile in self._touching(box)], box)

    def trim(self) -> None:
        """Forget what was used longest ago and does not fit."""
        n_bytes = sum(_n_bytes(arrays) for arrays in self._cache.values())
        while n_bytes > self._cache_bytes and self._cache:
            n_bytes -= _n_bytes(self._cache.popitem(last=False)[1])

    def _touching(self, box: Box) -> Iterator[Box]:
        """Tiles of the volume's grid that have voxels in a box."""
        z, y, x = (a // t * t for a, t in zip(box.start, self.tile_shape, strict=True))
        stop = tuple(-(-b // t) * t for b, t in zip(box.stop, self.tile_shape, strict=True))
        for tile in tile_grid(Box((z, y, x), (stop[0], stop[1], stop[2])), self.tile_shape):
            yield tile.clipped(self._region)

    def _predicted(self, tile: Box) -> _Arrays:
        parts = self._predictor.predict(tile, extras={"affinities"} if self._rows else ())
        return _joined([(part.box, self._arrays(part)) for part in parts], tile)

    def _arrays(self, part: TilePrediction) -> _Arrays:
        if self._amend is not None:
            self._amend(part.box, part.probabilities)
        affinities = None if part.affinities is None else part.affinities[self._rows].cpu().numpy()
        return of_objects(part.probabilities, self._classes).cpu().numpy(), affinities


def _joined(parts: Sequence[tuple[Box, _Arrays]], box: Box) -> _Arrays:
    """The arrays of a box from those of the boxes that cover it."""
    probabilities, affinities = (
        None if array is None else np.empty((len(array), *box.shape), np.float32) for array in parts[0][1]
    )
    assert probabilities is not None  # noqa: S101 - every part has them
    for part, (of_classes, of_pairs) in parts:
        common = part.clipped(box)
        there = (slice(None), *common.relative_to(box.start).slices)
        here = (slice(None), *common.relative_to(part.start).slices)
        probabilities[there] = of_classes[here]
        if affinities is not None and of_pairs is not None:
            affinities[there] = of_pairs[here]
    return probabilities, affinities


def _n_bytes(arrays: _Arrays) -> int:
    return sum(array.nbytes for array in arrays if array is not None)
