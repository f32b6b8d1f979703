"""ObjectIds: the objects that were found in an image, and what was done to them by hand."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from threading import RLock

import numpy as np
import numpy.typing as npt
from scipy.ndimage import find_objects

from napari_sparseseg._types import NO_OBJECT, Box, Shape3D
from napari_sparseseg.storage.strokes import Stroke

Ids = npt.NDArray[np.uint32]
Mask = npt.NDArray[np.bool_]
Bounds = npt.NDArray[np.int64]  # of objects, axes, start and stop

_MAX_CHANGES = 200
_NOTHING = np.array([(np.iinfo(np.int64).max, 0)] * 3)
_NO_BOUNDS = np.zeros((0, 3, 2), np.int64)
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


@dataclass(frozen=True, slots=True)
class Touched:
    """What was done to the objects of a frame: all may be others now, or only those of `ids`, which lie in `box`."""

    box: Box
    ids: Ids | None

    def joined(self, other: Touched) -> Touched:
        """Both, as if it were one."""
        ids = None if self.ids is None or other.ids is None else np.union1d(self.ids, other.ids)
        start, stop = np.minimum(self.box.start, other.box.start), np.maximum(self.box.stop, other.box.stop)
        return Touched(Box(_triple(start.tolist()), _triple(stop.tolist())), ids)


class ObjectIds:
    """Ids of objects, uint32, 0 where there is none; empty and without memory until some are found. Any thread."""

    def __init__(self) -> None:
        self._ids: Ids | None = None  # frames, z, y, x
        self._highest = 0
        self._sizes: dict[int, npt.NDArray[np.int64]] = {}  # of each frame: voxels of each id
        self._bounds: dict[int, Bounds] = {}  # of each frame: a box that holds all of an id
        self._lock = RLock()
        self._done: deque[Change] = deque(maxlen=_MAX_CHANGES)
        self._undone: list[Change] = []
        self._touched: dict[int, Touched] = {}
        self._n_writes = 0

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
            bound = _box_around(self._bounds.get(frame, _NO_BOUNDS), np.asarray(object_ids))
            if self._ids is None or bound is None:
                return None
            found = self._ids[frame][bound.slices]
            mask = np.any([found == object_id for object_id in object_ids], axis=0)
        within = _box_around(_bounds_of(mask.astype(np.uint32)), np.ones(1, int))
        return None if within is None else within.shifted(bound.start)

    def take(self, shape: tuple[int, int, int, int], frame: int, box: Box, found: Ids) -> None:
        """Take what was found in a box of an image (frames, z, y, x); what was there is replaced.

        An object that was known before keeps its id if most of it is in the new one and the other way round.
        """
        with self._lock:
            if self._ids is None:
                self._ids = np.zeros(shape, np.uint32)
        bounds = _bounds_of(found)
        is_there = bounds[:, 0, 0] < bounds[:, 0, 1]
        bounds[is_there] += np.asarray(box.start)[:, None]
        is_taken = False
        while not is_taken:
            # most of the work without the lock, for which whoever draws would wait
            n_writes, before = self._n_writes, self.read(frame, box)
            names = _named(found, before, self._highest + 1)
            ids = names[found]
            more = _difference(_sizes_of(ids), _sizes_of(before))
            with self._lock:
                is_taken = self._n_writes == n_writes  # else somebody was at work in between
                if is_taken:
                    self._write(frame, box, ids, more)
                    self._grow(frame, names[is_there], bounds[is_there])
                    self._touch(frame, Touched(box, None))
                    self._done.clear()
                    self._undone.clear()

    def put(self, frame: int, box: Box, after: Ids, stroke: Stroke | None, *, is_painted: bool) -> None:
        """Change the ids of a box by hand; `stroke` is the annotation's latest, made with it if `is_painted`."""
        with self._lock:
            change = Change(frame, box, self.read(frame, box), after, stroke, is_painted)
            self._change(change, change.before, after)
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
            self._change(change, change.after, change.before)
            return change

    def redo(self) -> Change:
        """Make the change again that was taken back last."""
        with self._lock:
            change = self._undone.pop()
            self._done.append(change)
            self._change(change, change.before, change.after)
            return change

    def claim_touched(self, frame: int) -> Touched | None:
        """What was done to the objects of a frame since this was asked last; None if nothing was."""
        with self._lock:
            return self._touched.pop(frame, None)

    def _change(self, change: Change, before: Ids, after: Ids) -> None:
        frame, box = change.frame, change.box
        differs = before != after
        gone, come = (np.unique(ids[differs]) for ids in (before, after))
        self._write(frame, box, after, _difference(_sizes_of(after), _sizes_of(before)))
        self._grow(frame, come[come > 0], np.stack([box.start, box.stop], axis=1)[None])
        ids = np.union1d(gone, come)
        ids = ids[ids > 0]
        around = _box_around(self._bounds[frame], ids)
        self._touch(frame, Touched(box if around is None else around, ids))

    def _write(self, frame: int, box: Box, ids: Ids, more: npt.NDArray[np.int64]) -> None:
        """Write ids; each has so many voxels `more` then."""
        if self._ids is None:
            return
        self._n_writes += 1
        self._highest = max(self._highest, int(ids.max(initial=0)))
        self._sizes[frame] = _difference(self._sizes.get(frame, more[:0]), -more)
        self._ids[frame][box.slices] = ids

    def _grow(self, frame: int, names: Ids, bounds: Bounds) -> None:
        """These objects may lie within these bounds, too."""
        known = self._bounds.get(frame, _NO_BOUNDS)
        if len(known) <= self._highest:
            known = np.concatenate([known, np.repeat(_NOTHING[None], self._highest + 1 - len(known), axis=0)])
        known[names, :, 0] = np.minimum(known[names, :, 0], bounds[..., 0])
        known[names, :, 1] = np.maximum(known[names, :, 1], bounds[..., 1])
        self._bounds[frame] = known

    def _touch(self, frame: int, touched: Touched) -> None:
        before = self._touched.get(frame)
        self._touched[frame] = touched if before is None else before.joined(touched)


def _difference(counts: npt.NDArray[np.integer], less: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Counts less others, of which either may be shorter."""
    result = np.zeros(max(len(counts), len(less)), np.int64)
    result[: len(counts)] += counts
    result[: len(less)] -= less
    return result


def _bounds_of(ids: Ids) -> Bounds:
    """Start and stop along each axis of what has the id 0, 1, ...; `_NOTHING` for 0, and for what is not there."""
    found = [None, *find_objects(ids.astype(np.int32))]
    return np.array([_NOTHING if parts is None else [(part.start, part.stop) for part in parts] for parts in found])


def _box_around(bounds: Bounds, object_ids: npt.NDArray[np.integer]) -> Box | None:
    """The box that holds those of some objects that are known."""
    own = bounds[object_ids[object_ids < len(bounds)]]
    own = own[own[:, 0, 0] < own[:, 0, 1]]
    return Box(_triple(own[..., 0].min(0).tolist()), _triple(own[..., 1].max(0).tolist())) if len(own) else None


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
