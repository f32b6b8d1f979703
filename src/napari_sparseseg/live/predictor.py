"""LivePredictor: predicts what is on screen first, tile by tile, and keeps what was predicted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from mmap import PAGESIZE
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_sparseseg._types import Box, Extra, Shape3D
from napari_sparseseg.distributed.plan import free_memory
from napari_sparseseg.engine.classes import ClassTable
from napari_sparseseg.engine.features import FeatureMap
from napari_sparseseg.engine.labelling import PRESENT_FROM, best_labels, present_of
from napari_sparseseg.engine.network import SparseNet
from napari_sparseseg.engine.predictor import Predictor
from napari_sparseseg.engine.tiles import tile_grid
from napari_sparseseg.engine.weak.advice import uncertainty
from napari_sparseseg.live.board import EXPIRED, Generation, TileBoard, live_tile_shape
from napari_sparseseg.live.events import TileUpdate, View
from napari_sparseseg.storage.palette import FIRST_SET
from napari_sparseseg.storage.sparse import clear, forget, is_large, zeros
from napari_sparseseg.storage.strokes import AnnotationStore

_GLANCE = 128  # edge of the parts in which a plane is previewed, in voxels
_SHARE_KEPT = 4  # of the memory that may be used, this part is for predictions of an image larger than memory
_WHEN_FULL = 2  # times that share: what is on screen may take as much
_LEAST_KEPT = 1 << 29  # bytes
_IN_VIEWER = 2  # arrays that the layer holds of each prediction


class LivePredictor:
    """Predictions of all frames of one image. Used on the compute thread; `labels` and `states` on any.

    `labels` is (frames, z, y, x) uint8; `presence` holds, of classes for which that is wanted, where they are, of the
    same shape; it is replaced as a whole. The annotation is only looked at for sets of classes: there the best class of
    the set is predicted.
    """

    def __init__(self, labels: npt.NDArray[np.uint8], store: AnnotationStore) -> None:
        self.labels = labels
        self.probability_of: int | None = None
        self.wants_uncertainty = False
        self.extras: frozenset[Extra] = frozenset()
        self.generation: Generation | None = None
        self._store = store
        self.presence: dict[int, npt.NDArray[np.bool_]] = {}
        self._boards: dict[int, TileBoard] = {}
        self._network: SparseNet | None = None
        self._classes: ClassTable | None = None
        self._glanced: set[tuple[int, Box]] = set()
        self._most_bytes = max(_LEAST_KEPT, free_memory() // _SHARE_KEPT) if is_large(labels) else None
        self.n_forgotten = 0

    def use(self, network: SparseNet, classes: ClassTable, generation: Generation) -> None:
        """Predict with these weights from now on; what was predicted stays until it is predicted again."""
        self._network, self._classes, self.generation = network, classes, generation
        self._glanced.clear()

    def expire(self) -> None:
        """All that was predicted is out of date, since the model is another one; it stays until it is replaced."""
        for board in self._boards.values():
            board.expire()

    def clear(self) -> None:
        """Forget weights and predictions."""
        self._network, self._classes, self.generation = None, None, None
        self._boards.clear()
        self._glanced.clear()
        clear(self.labels)
        for found in self.presence.values():
            clear(found)

    def restore(self, frame: int, box: Box, labels: npt.NDArray[np.uint8]) -> Iterator[TileUpdate]:
        """Take labels that were predicted at an earlier time; they are shown until they are predicted again.

        Tile by tile where what is empty must take no memory.
        """
        board, tiles = self.board(frame), []
        z, y, x = (range(a // t, -(-b // t)) for a, b, t in zip(box.start, box.stop, board.tile_shape, strict=True))
        for index in product(z, y, x):
            tile = board.box(index).clipped(box)
            if labels[tile.relative_to(box.start).slices].any():
                board.mark(index, Generation(0, EXPIRED, 0))
                tiles.append(tile)
        for part in tiles if is_large(self.labels) else [box]:
            found = labels[part.relative_to(box.start).slices]
            self.labels[(frame, *part.slices)] = found
            yield TileUpdate(frame, part, found, 0)

    def drop_class(self, class_id: int) -> Iterator[TileUpdate]:
        """Make voxels that were predicted as this class unknown; yields what changed."""
        if is_large(self.labels):
            yield from self._drop_in_tiles(class_id)
            return
        for frame, labels in enumerate(self.labels):
            places = np.argwhere((labels == class_id).any((1, 2)))
            if len(places):
                first, last = int(places[0, 0]), int(places[-1, 0]) + 1
                slab = labels[first:last]
                slab[slab == class_id] = 0
                box = Box((first, 0, 0), (last, labels.shape[1], labels.shape[2]))
                yield TileUpdate(frame, box, slab.copy(), self.generation.number if self.generation else 0)

    def _drop_in_tiles(self, class_id: int) -> Iterator[TileUpdate]:
        """The same, where not all labels can be looked at."""
        for frame, board in self._boards.items():
            for box in board.known_boxes():
                labels = self.labels[(frame, *box.slices)]
                if (labels == class_id).any():
                    labels[labels == class_id] = 0
                    yield TileUpdate(frame, box, labels.copy(), self.generation.number if self.generation else 0)

    def known_boxes(self, frame: int) -> list[Box]:
        """The tiles of a frame that were ever predicted. Any thread."""
        board = self._boards.get(frame)
        return [] if board is None else board.known_boxes()

    def board(self, frame: int) -> TileBoard:
        """Freshness of a frame's tiles."""
        if frame not in self._boards:
            shape: Shape3D = self.labels.shape[1:]
            self._boards[frame] = TileBoard(shape, live_tile_shape(shape))
        return self._boards[frame]

    def states(self, frame: int) -> npt.NDArray[np.uint8] | None:
        """NEVER, STALE or FRESH for each tile of a frame; None if nothing of it was predicted. Any thread."""
        board = self._boards.get(frame)
        return None if board is None else board.states(self.generation)

    def glance(self, view: View, feature_map: FeatureMap) -> TileUpdate | None:
        """Preview a part of the plane on screen where tiles were never predicted; None if there is none left.

        It is the pixel head's answer. The part closest to the eye comes first. It costs some ten milliseconds, where
        a first tile costs half a second.
        """
        box = self._part_to_glance_at(view)
        if box is None or self._network is None or not self._has_room_for(view.plane.frame, box):
            return None
        frame = view.plane.frame
        self._glanced.add((frame, box))
        with torch.no_grad():
            logits = self._network.at_a_glance(feature_map.glance(box))
        probabilities = (logits.exp() if self._network.overlapping else logits.softmax(-1)).movedim(-1, 0)
        feature_map.clear_missing(probabilities, box)
        assert self.generation is not None  # noqa: S101 - there is a network
        board = self.board(frame)
        board.touch(box, self.generation)
        return self._take(frame, box, probabilities, kept=board.known(box))

    def tile(self, frame: int, index: Shape3D, feature_map: FeatureMap) -> TileUpdate:
        """Predict a tile of the board with the current weights."""
        assert self._network is not None  # noqa: S101 - there is a generation
        assert self.generation is not None  # noqa: S101
        box = self.board(frame).box(index)
        predictor = Predictor(self._network, feature_map, tile_voxels=box.n_voxels)
        found = predictor.tile_with(self.extras, box)
        update = self._take(frame, box, found.probabilities)
        update = replace(
            update,
            novelty=None if found.novelty is None else _as_bytes(found.novelty),
            second=self._second(found.probabilities, found.candidates),
        )
        self.board(frame).mark(index, self.generation)
        return update

    @property
    def is_full(self) -> bool:
        """Whether what is on screen alone takes more memory than there is, so that no more of it is predicted."""
        return self._most_bytes is not None and self._n_bytes() > _WHEN_FULL * self._most_bytes

    def make_room(self, view: View | None) -> Iterator[TileUpdate]:
        """Forget what was predicted longest ago of an image larger than memory, while it takes more than its share.

        Nothing on screen; yields what is forgotten.
        """
        while self._most_bytes is not None and self._n_bytes() > self._most_bytes:
            frame = None if view is None else view.plane.frame
            for number in sorted(self._boards, key=lambda other: other == frame):  # that on screen last
                board = self._boards[number]
                seen = None if view is None or number != frame else _glanced_at(view, board.shape)
                box = board.forget_row(seen, view)
                if box is not None:
                    yield self._forget(number, box)
                    break
            else:
                return

    def _has_room_for(self, frame: int, box: Box) -> bool:
        return not self.is_full or self.board(frame).is_touched(box)

    def _n_bytes(self) -> int:
        """Memory that predictions take: pages of whole rows of tiles, here and in the viewer."""
        n_arrays = (1 + _IN_VIEWER) * (1 + len(self.presence))
        n_bytes = 0
        for board in self._boards.values():
            depth, height, _ = board.tile_shape
            pages = -(-height * board.shape[2] // PAGESIZE)
            n_bytes += board.n_rows() * depth * pages * PAGESIZE * n_arrays
        return n_bytes

    def _forget(self, frame: int, box: Box) -> TileUpdate:
        where = (frame, *box.slices)
        self.n_forgotten += 1
        for array in (self.labels, *self.presence.values()):
            forget(array[where])
        self._glanced = {(f, part) for f, part in self._glanced if f != frame or not part.clipped(box).n_voxels}
        return TileUpdate(frame, box, np.broadcast_to(np.uint8(0), box.shape), 0, is_forgotten=True)

    def _part_to_glance_at(self, view: View) -> Box | None:
        frame, board = view.plane.frame, self.board(view.plane.frame)
        parts = [part for part in glance_parts(view, board.shape) if (frame, part) not in self._glanced]
        for part in sorted(parts, key=lambda part: _distance(part, view.center)):
            if not board.known(part).all():
                return part
            self._glanced.add((frame, part))
        return None

    def _take(
        self, frame: int, box: Box, probabilities: Tensor, kept: npt.NDArray[np.bool_] | None = None
    ) -> TileUpdate:
        """Write labels where they are not to be kept as they were, and hand out what is there now."""
        assert self._classes is not None  # noqa: S101 - there is a generation
        assert self.generation is not None  # noqa: S101
        where = (frame, *box.slices)
        labels = best_labels(probabilities, self._classes).astype(np.uint8)
        self._narrow(labels, probabilities, self._store.codes[where].copy())
        if kept is not None:
            labels[kept] = self.labels[where][kept]
        self.labels[where] = labels
        self._note_presence(where, probabilities, kept)
        return TileUpdate(
            frame,
            box,
            labels,
            self.generation.number,
            probability=self._probability(probabilities),
            uncertainty=_uncertainty(probabilities, self._classes) if self.wants_uncertainty else None,
        )

    def keep_presence_of(self, class_ids: frozenset[int]) -> None:
        """Keep where these classes are from now on, and of no others; it is filled as tiles are predicted."""
        if class_ids != self.presence.keys():
            kept = self.presence
            self.presence = {i: kept[i] if i in kept else zeros(self.labels.shape, np.bool_) for i in class_ids}

    def _note_presence(self, where: tuple[Any, ...], probabilities: Tensor, kept: npt.NDArray[np.bool_] | None) -> None:
        if not self.presence or self._classes is None:
            return
        of_channel = present_of(probabilities, self._classes)
        for class_id, found in self.presence.items():
            if class_id in self._classes.ids:
                now = of_channel[self._classes.ids.index(class_id)]
                found[where] = now if kept is None else np.where(kept, found[where], now)

    def _narrow(self, labels: npt.NDArray[np.uint8], probabilities: Tensor, codes: npt.NDArray[np.uint8]) -> None:
        """Where a set of classes was painted, take the best class of the set; where they may overlap, if it is likely.

        Classes that were said to be there need not be likely.
        """
        ids = self._classes.ids if self._classes else ()
        painted = np.unique(codes[codes >= FIRST_SET]).tolist()
        sets = self._store.sets if painted else {}
        for code in painted:
            # a code may have been given up since it was read
            allowed = sets[code].within(ids) if code in sets else ids
            possible = [channel for channel, class_id in enumerate(ids) if class_id in allowed]
            if possible:
                where = codes == code
                likely = probabilities[possible][:, torch.from_numpy(where).to(probabilities.device)]
                found = np.asarray(ids, np.uint8)[possible][likely.argmax(0).cpu().numpy()]
                if self._classes and self._classes.overlapping and not (code in sets and sets[code].present):
                    is_likely = (likely.max(0)[0] > PRESENT_FROM).cpu().numpy()
                    found = np.where(is_likely, found, np.uint8(self._classes.background))
                labels[where] = found

    def _second(self, probabilities: Tensor, candidates: Tensor | None) -> npt.NDArray[np.uint8] | None:
        """The likeliest candidate but the likeliest of all; 0 where there is no other."""
        if candidates is None or self._classes is None:
            return None
        others = candidates.scatter(0, probabilities.argmax(0, keepdim=True), False)
        likely, channels = probabilities.masked_fill(~others, -1).max(0)
        ids = np.asarray(self._classes.ids, np.uint8)[channels.cpu().numpy()]
        return np.where((likely >= 0).cpu().numpy(), ids, np.uint8(0))

    def _probability(self, probabilities: Tensor) -> npt.NDArray[np.uint8] | None:
        if self.probability_of is None:
            return None
        ids = self._classes.ids if self._classes else ()
        if self.probability_of not in ids:
            return np.zeros(probabilities.shape[1:], np.uint8)
        return _as_bytes(probabilities[ids.index(self.probability_of)])


def glance_parts(view: View, shape: Shape3D) -> Iterator[Box]:
    """Parts of the plane of which something is on screen, on a grid that does not move with the view."""
    if view.box.n_voxels:
        yield from tile_grid(_glanced_at(view, shape), _glance_edges(view))


def _glance_edges(view: View) -> Shape3D:
    z, y, x = (1 if axis == view.plane.axis else _GLANCE for axis in range(3))
    return z, y, x


def _glanced_at(view: View, shape: Shape3D) -> Box:
    """What is on screen, and what is previewed with it."""
    edges = _glance_edges(view)
    start = [a // n * n for a, n in zip(view.box.start, edges, strict=True)]
    stop = [-(-b // n) * n for b, n in zip(view.box.stop, edges, strict=True)]
    return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2])).clipped(Box.whole(shape))


def _uncertainty(probabilities: Tensor, classes: ClassTable) -> npt.NDArray[np.uint8]:
    return _as_bytes(uncertainty(probabilities, overlapping=classes.overlapping))


def _as_bytes(share: Tensor) -> npt.NDArray[np.uint8]:
    """0..1 as 0..255."""
    found: npt.NDArray[np.uint8] = share.mul(255).round_().clamp_(0, 255).to(torch.uint8).cpu().numpy()
    return found


def _distance(box: Box, center: tuple[float, float, float]) -> float:
    return sum(((a + b) / 2 - c) ** 2 for a, b, c in zip(box.start, box.stop, center, strict=True))
