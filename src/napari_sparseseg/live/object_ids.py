"""ObjectIds: the objects that were found in an image, and what was done to them by hand."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from threading import RLock

import numpy as np
import numpy.typing as npt

from napari_sparseseg._types import NO_OBJECT, Box, Shape3D
from napari_sparseseg.storage.strokes import Stroke

Ids = npt.NDArray[np.uint32]
Mask = npt.NDArray[np.bool_]

_MAX_CHANGES = 200
_SAME = 0.5  # share of two objects that is common to them if they are one


@dataclass(frozen=True, slots=True)
class Change:
    """Ids `before` and `after` of the voxels of a box, and the latest stroke of the annotation then.

    `is_painted`: that stroke was made by the change itself, and goes with it.
    """

    frame: int
    box: Box
    before: Ids
    after: Ids
    stroke: Stroke | None
    is_painted: bool


class ObjectIds:
    """Ids of objects, uint32, 0 where there is none; empty and without memory until some are found. Any thread."""

    def __init__(self) -> None:
        self._ids: Ids | None = None  # frames, z, y, x
        self._highest = 0
        self._sizes: dict[int, npt.NDArray[np.int64]] = {}  # of each frame: voxels of each id
        self._lock = RLock()
        self._done: deque[Change] = deque(maxlen=_MAX_CHANGES)
        self._undone: list[Change] = []

    @property
    def is_empty(self) -> bool:
        """Whether nothing was looked for yet."""
        return self._ids is None

    @property
    def next_id(self) -> int:
        """An id that no object has."""
        return self._highest + 1

    def read(self, frame: int, box: Box) -> Ids:
        """Ids in a box, of its shape; a copy."""
        with self._lock:
            if self._ids is None:
                return np.zeros(box.shape, np.uint32)
            ids: Ids = self._ids[frame][box.slices].copy()
            return ids

    def count(self, frame: int) -> int:
        """How many objects a frame has."""
        sizes = self._sizes.get(frame)
        return 0 if sizes is None else int(np.count_nonzero(sizes[1:]))

    def box_of(self, frame: int, object_ids: Sequence[int]) -> Box | None:
        """The smallest box that holds these objects; None if there is nothing of them."""
        with self._lock:
            if self._ids is None:
                return None
            mask = np.any([self._ids[frame] == object_id for object_id in object_ids], axis=0)
        extents = [np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
        if not len(extents[0]):
            return None
        (z0, z1), (y0, y1), (x0, x1) = ((int(places[0]), int(places[-1]) + 1) for places in extents)
        return Box((z0, y0, x0), (z1, y1, x1))

    def take(self, shape: tuple[int, int, int, int], frame: int, box: Box, found: Ids) -> None:
        """Take what was found in a box of an image (frames, z, y, x); what was there is replaced.

        An object that was known before keeps its id if most of it is in the new one and the other way round.
        """
        with self._lock:
            if self._ids is None:
                self._ids = np.zeros(shape, np.uint32)
            names = _named(found, self._ids[frame][box.slices], self._highest + 1)
            self._write(frame, box, names[found])
            self._done.clear()
            self._undone.clear()

    def put(self, frame: int, box: Box, after: Ids, stroke: Stroke | None, *, is_painted: bool) -> None:
        """Change the ids of a box by hand; `stroke` is the annotation's latest, made with it if `is_painted`."""
        with self._lock:
            change = Change(frame, box, self.read(frame, box), after, stroke, is_painted)
            self._write(frame, box, after)
            self._done.append(change)
            self._undone.clear()

    def to_undo(self, latest: Stroke | None) -> Change | None:
        """The change that comes before all strokes, after the `latest` of which it was made."""
        return self._done[-1] if self._done and self._done[-1].stroke == latest else None

    def to_redo(self) -> Change | None:
        """The change that was taken back last."""
        return self._undone[-1] if self._undone else None

    def undo(self) -> Change:
        """Take the latest change back."""
        with self._lock:
            change = self._done.pop()
            self._undone.append(change)
            self._write(change.frame, change.box, change.before)
            return change

    def redo(self) -> Change:
        """Make the change again that was taken back last."""
        with self._lock:
            change = self._undone.pop()
            self._done.append(change)
            self._write(change.frame, change.box, change.after)
            return change

    def _write(self, frame: int, box: Box, ids: Ids) -> None:
        if self._ids is None:
            return
        where = self._ids[frame][box.slices]
        self._highest = max(self._highest, int(ids.max(initial=0)))
        sizes = np.zeros(self._highest + 1, np.int64)
        for counts, sign in ((self._sizes.get(frame, sizes[:0]), 1), (_sizes_of(where), -1), (_sizes_of(ids), 1)):
            sizes[: len(counts)] += sign * counts
        self._sizes[frame] = sizes
        where[...] = ids


def _sizes_of(ids: Ids) -> npt.NDArray[np.intp]:
    """Voxels of each id; plane by plane, since counting takes eight bytes a voxel."""
    sizes = np.zeros(int(ids.max(initial=0)) + 1, np.intp)
    for plane in ids:
        sizes += np.bincount(plane.ravel(), minlength=len(sizes))
    return sizes


def _named(found: Ids, known: Ids, first_free: int) -> Ids:
    """The id of each object 0, 1, ... that was found: that of a known one that is the same, else a free one."""
    n_found = int(found.max(initial=0))
    names = np.arange(first_free - 1, first_free + n_found, dtype=np.uint32)
    names[0] = NO_OBJECT
    if not n_found or not known.any():
        return names
    both = (found > 0) & (known > 0)
    keys, counts = np.unique(found[both].astype(np.uint64) << np.uint64(32) | known[both], return_counts=True)
    new, old = (keys >> np.uint64(32)).astype(np.intp), (keys & np.uint64(2**32 - 1)).astype(np.intp)
    of_new, of_old = _sizes_of(found), _sizes_of(known)
    is_same = (counts > _SAME * of_new[new]) & (counts > _SAME * of_old[old])
    names[new[is_same]] = old[is_same]
    return names


def box_across(box: Box, axis: int, index: int) -> Box:
    """The slice of a box at an `index` of the volume across an axis."""
    start, stop = list(box.start), list(box.stop)
    start[axis], stop[axis] = index, index + 1
    return Box(_triple(start), _triple(stop))


def _triple(values: Sequence[int]) -> Shape3D:
    z, y, x = values
    return z, y, x
