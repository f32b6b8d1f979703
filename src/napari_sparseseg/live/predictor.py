"""LivePredictor: predicts what is on screen first, tile by tile, and keeps what was predicted."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_sparseseg._types import Box, Shape3D
from napari_sparseseg.engine.classes import ClassTable
from napari_sparseseg.engine.features import FeatureMap
from napari_sparseseg.engine.network import SparseNet
from napari_sparseseg.engine.predictor import Predictor
from napari_sparseseg.engine.tiles import tile_grid
from napari_sparseseg.live.board import Generation, TileBoard, live_tile_shape
from napari_sparseseg.live.events import TileUpdate, View

_GLANCE = 128  # edge of the parts in which a plane is previewed, in voxels
_FIRST_SET = 128

Allowed = Callable[[int], frozenset[int]]


class LivePredictor:
    """Predictions of all frames of one image. Used on the compute thread; `labels` may be read on any.

    `labels` and `codes`, the annotation, are (frames, z, y, x) uint8. The annotation is only looked at for sets of
    classes: there the best class of the set is predicted.
    """

    def __init__(self, labels: npt.NDArray[np.uint8], codes: npt.NDArray[np.uint8], allowed: Allowed) -> None:
        self.labels = labels
        self.probability_of: int | None = None
        self.wants_uncertainty = False
        self._codes = codes
        self._allowed = allowed
        self._boards: dict[int, TileBoard] = {}
        self._stride: Shape3D = (1, 1, 1)
        self._network: SparseNet | None = None
        self._classes: ClassTable | None = None
        self._glanced: set[tuple[int, Box]] = set()
        self.generation: Generation | None = None

    def use(self, network: SparseNet, classes: ClassTable, generation: Generation) -> None:
        """Predict with these weights from now on; what was predicted stays until it is predicted again."""
        if self._network is None or network.unet.stride != self._stride:
            self._stride = network.unet.stride
            self._boards.clear()
        self._network, self._classes, self.generation = network, classes, generation
        self._glanced.clear()

    def clear(self) -> None:
        """Forget weights and predictions."""
        self._network, self._classes, self.generation = None, None, None
        self._boards.clear()
        self._glanced.clear()
        self.labels.fill(0)

    def drop_class(self, class_id: int) -> Iterator[TileUpdate]:
        """Make voxels that were predicted as this class unknown; yields what changed."""
        for frame, labels in enumerate(self.labels):
            places = np.argwhere((labels == class_id).any((1, 2)))
            if len(places):
                first, last = int(places[0, 0]), int(places[-1, 0]) + 1
                slab = labels[first:last]
                slab[slab == class_id] = 0
                box = Box((first, 0, 0), (last, labels.shape[1], labels.shape[2]))
                yield TileUpdate(frame, box, slab.copy(), self.generation.number if self.generation else 0)

    def board(self, frame: int) -> TileBoard:
        """Freshness of a frame's tiles."""
        if frame not in self._boards:
            shape: Shape3D = self.labels.shape[1:]
            self._boards[frame] = TileBoard(shape, live_tile_shape(shape, self._stride))
        return self._boards[frame]

    def glance(self, view: View, feature_map: FeatureMap) -> TileUpdate | None:
        """Preview a part of the plane on screen where no tile was ever predicted; None if there is none left.

        It is the pixel head's answer. The part closest to the eye comes first. It costs some ten milliseconds, where
        a first tile costs half a second.
        """
        frame, board = view.plane.frame, self.board(view.plane.frame)
        parts = [p for p in glance_parts(view) if (frame, p) not in self._glanced and board.is_new(p)]
        if not parts or self._network is None:
            return None
        box = min(parts, key=lambda part: _distance(part, view.center))
        self._glanced.add((frame, box))
        with torch.no_grad():
            logits = self._network.at_a_glance(feature_map.glance(box))
        return self._take(frame, box, logits.softmax(-1).movedim(-1, 0))

    def tile(self, frame: int, index: Shape3D, feature_map: FeatureMap) -> TileUpdate:
        """Predict a tile of the board with the current weights."""
        assert self._network is not None  # noqa: S101 - there is a generation
        assert self.generation is not None  # noqa: S101
        box = self.board(frame).box(index)
        predictor = Predictor(self._network, feature_map, tile_voxels=box.n_voxels)
        update = self._take(frame, box, predictor.tile(box))
        self.board(frame).mark(index, self.generation)
        return update

    def _take(self, frame: int, box: Box, probabilities: Tensor) -> TileUpdate:
        assert self._classes is not None  # noqa: S101
        assert self.generation is not None  # noqa: S101
        channels = probabilities.argmax(0).cpu().numpy().astype(np.uint8)
        self._narrow(channels, probabilities, self._codes[(frame, *box.slices)])
        labels = self._classes.labels_of(channels)
        self.labels[(frame, *box.slices)] = labels
        return TileUpdate(
            frame,
            box,
            labels,
            self.generation.number,
            probability=self._probability(probabilities),
            uncertainty=_entropy(probabilities) if self.wants_uncertainty else None,
        )

    def _narrow(self, channels: npt.NDArray[np.uint8], probabilities: Tensor, codes: npt.NDArray[np.uint8]) -> None:
        """Where a set of classes was painted, take the best class of the set."""
        ids = self._classes.ids if self._classes else ()
        for code in np.unique(codes[codes >= _FIRST_SET]).tolist():
            possible = [channel for channel, class_id in enumerate(ids) if class_id in self._allowed(code)]
            if possible:
                where = codes == code
                best = probabilities[possible][:, torch.from_numpy(where).to(probabilities.device)].argmax(0)
                channels[where] = np.asarray(possible, np.uint8)[best.cpu().numpy()]

    def _probability(self, probabilities: Tensor) -> npt.NDArray[np.uint8] | None:
        if self.probability_of is None:
            return None
        ids = self._classes.ids if self._classes else ()
        if self.probability_of not in ids:
            return np.zeros(probabilities.shape[1:], np.uint8)
        return _as_bytes(probabilities[ids.index(self.probability_of)])


def glance_parts(view: View) -> Iterator[Box]:
    """Parts of the plane on screen, on a grid that does not move with the view."""
    axis = view.plane.axis
    z, y, x = (1 if a == axis else _GLANCE for a in range(3))
    yield from tile_grid(view.box, (z, y, x))


def _entropy(probabilities: Tensor) -> npt.NDArray[np.uint8]:
    """Uncertainty: entropy over its maximum."""
    n_classes = max(2, probabilities.shape[0])
    return _as_bytes(torch.special.entr(probabilities).sum(0) / math.log(n_classes))


def _as_bytes(share: Tensor) -> npt.NDArray[np.uint8]:
    """0..1 as 0..255."""
    found: npt.NDArray[np.uint8] = share.mul(255).round_().clamp_(0, 255).to(torch.uint8).cpu().numpy()
    return found


def _distance(box: Box, center: tuple[float, float, float]) -> float:
    return sum(((a + b) / 2 - c) ** 2 for a, b, c in zip(box.start, box.stop, center, strict=True))
