"""ObjectIds: the objects that were found in an image, and what was done to them by hand."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from threading import RLock

import numpy as np
import numpy.typing as npt
from scipy.ndimage import find_objects

from napari_sparseseg._types import NO_OBJECT, Box, Shape3D, triple
from napari_sparseseg.storage._edits import box_around
from napari_sparseseg.storage._object_records import (
    CHANGED,
    FOUND,
    REDONE,
    UNDONE,
    Shape4,
    change_of,
    record_of_change,
    record_of_search,
    search_of,
)
from napari_sparseseg.storage._object_records import Change as Change
from napari_sparseseg.storage._object_records import Ids as Ids
from napari_sparseseg.storage._stroke_table import Stroke
from napari_sparseseg.storage.journal import Journal, JournalRecord
from napari_sparseseg.storage.sparse import zeros

Bounds = npt.NDArray[np.int64]  # of objects, axes, start and stop

_MAX_CHANGES = 200
_NOTHING = np.array([(np.iinfo(np.int64).max, 0)] * 3)
_NO_BOUNDS = np.zeros((0, 3, 2), np.int64)
_SAME = 0.5  # share of two objects that is common to them if they are one


@dataclass(frozen=True, slots=True)
class Touched:
    """What was done to the objects of a frame: all may be others now, or only those of `ids`, which lie in `box`."""

    box: Box
    ids: Ids | None

    def joined(self, other: Touched) -> Touched:
        """Both, as if it were one."""
        ids = None if self.ids is None or other.ids is None else np.union1d(self.ids, other.ids)
        return Touched(box_around(self.box, other.box), ids)


class ObjectIds:
    """Ids of objects, uint32, 0 where there is none; empty and without memory until some are found. Any thread.

    What changes is told to the `journal` first, if there is one.
    """

    def __init__(self) -> None:
        self.journal: Journal | None = None
        self.classes: tuple[int, ...] = ()
        """Those that objects were looked for of, when that was done last; empty if it is not known."""
        self._lock = RLock()
        self._begin()

    def _begin(self) -> None:
        self._ids: Ids | None = None  # frames, z, y, x
        self._highest = 0
        self._sizes: dict[int, npt.NDArray[np.int64]] = {}  # of each frame: voxels of each id
        self._bounds: dict[int, Bounds] = {}  # of each frame: a box that holds all of an id
        self._done: deque[Change] = deque(maxlen=_MAX_CHANGES)
        self._undone: list[Change] = []
        self._touched: dict[int, Touched] = {}
        self._n_writes = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing was looked for yet."""
        return self._ids is None

    @property
    def n_writes(self) -> int:
        """Counts the changes."""
        return self._n_writes

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

    def parts(self) -> list[tuple[int, Box]]:
        """Frames and boxes outside of which there are none."""
        with self._lock:
            around = {frame: _box_of_known(known, np.arange(len(known))) for frame, known in self._bounds.items()}
        return [(frame, box) for frame, box in sorted(around.items()) if box is not None]

    def box_of(self, frame: int, object_ids: Sequence[int]) -> Box | None:
        """The smallest box that holds these objects; None if there is nothing of them."""
        with self._lock:
            bound = _box_of_known(self._bounds.get(frame, _NO_BOUNDS), np.asarray(object_ids))
            if self._ids is None or bound is None:
                return None
            found = self._ids[frame][bound.slices]
            mask = np.any([found == object_id for object_id in object_ids], axis=0)
        within = _box_of_known(_bounds_of(mask.astype(np.uint32)), np.ones(1, int))
        return None if within is None else within.shifted(bound.start)

    def take(self, shape: Shape4, frame: int, box: Box, found: Ids, classes: tuple[int, ...] = ()) -> None:
        """Take what was found of some classes in a box of an image (frames, z, y, x); what was there is replaced.

        An object that was known before keeps its id if most of it is in the new one and the other way round.
        """
        with self._lock:
            self._make(shape)
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
                    self._note(record_of_search(frame, box, ids, classes))
                    self._replace(frame, box, ids, more)
                    self.classes = classes
                    self._grow(frame, names[is_there], bounds[is_there])

    def put(self, change: Change) -> None:
        """Change ids by hand."""
        with self._lock:
            self._note(record_of_change(change))
            self._do(change)

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
            self._note(record_of_change(change, UNDONE))
            self._undone.append(change)
            self._change(change, change.before)
            return change

    def redo(self) -> Change:
        """Make the change again that was taken back last."""
        with self._lock:
            change = self._undone.pop()
            self._note(record_of_change(change, REDONE))
            self._done.append(change)
            self._change(change, change.after)
            return change

    def forget_undone(self) -> None:
        """Something was painted since: what was taken back before cannot be made again."""
        with self._lock:
            self._undone.clear()

    def claim_touched(self, frame: int) -> Touched | None:
        """What was done to the objects of a frame since this was asked last; None if nothing was."""
        with self._lock:
            return self._touched.pop(frame, None)

    # --- journal ---

    def replay(self, record: JournalRecord, shape: Shape4) -> bool:
        """Make the change that a record of the journal of an image of this shape tells; False if it is another's.

        Raises `InputError` for a record that makes no sense.
        """
        if record.op == FOUND:
            frame, box, ids, classes = search_of(record, shape)
            with self._lock:
                self._make(shape)
                self._replace(frame, box, ids, _difference(_sizes_of(ids), _sizes_of(self.read(frame, box))))
                self._grow_to(frame, ids, box.start)
                self.classes = classes
            return True
        if record.op not in (CHANGED, UNDONE, REDONE):
            return False
        change = change_of(record, shape)
        with self._lock:
            self._make(shape)
            if record.op == UNDONE:  # what was done before reading began is not in the history
                self._done = deque(list(self._done)[:-1], _MAX_CHANGES)
                self._undone.append(change)
                self._change(change, change.before)
            elif record.op == REDONE:
                self._undone = self._undone[:-1]
                self._done.append(change)
                self._change(change, change.after)
            else:
                self._do(change)
        return True

    def restore(self, ids: Ids, highest: int, parts: Iterable[tuple[int, Box]], classes: tuple[int, ...] = ()) -> None:
        """Begin anew from ids (frames, z, y, x) that become this one's, and the highest that was given so far.

        `parts` are frames and boxes outside of which there are none; they share no voxel. `classes` as above.
        """
        with self._lock:
            self._begin()
            self.classes = classes
            self._ids = ids
            self._highest = highest
            for frame, box in parts:
                part = ids[frame][box.slices]
                self._count(frame, int(part.max(initial=0)), _sizes_of(part).astype(np.int64))
                self._grow_to(frame, part, box.start)
                self._touch(frame, Touched(box, None))

    def _note(self, record: JournalRecord) -> None:
        if self.journal is not None:
            self.journal.append(record)

    # --- inside ---

    def _make(self, shape: Shape4) -> None:
        if self._ids is None:
            self._ids = zeros(shape, np.uint32)

    def _do(self, change: Change) -> None:
        self._change(change, change.after)
        self._done.append(change)
        self._undone.clear()

    def _replace(self, frame: int, box: Box, ids: Ids, more: npt.NDArray[np.int64]) -> None:
        """Take ids in place of those before; each has so many voxels `more` then. No change before can be undone."""
        if self._ids is None:
            return
        self._ids[frame][box.slices] = ids
        self._count(frame, int(ids.max(initial=0)), more)
        self._touch(frame, Touched(box, None))
        self._done.clear()
        self._undone.clear()

    def _change(self, change: Change, wanted: int) -> None:
        """Give the voxels of a change the wanted id."""
        if self._ids is None:
            return
        frame, box, mask = change.frame, change.box, change.mask
        within = self._ids[frame][box.slices]
        before = within[mask]
        more = -np.bincount(before, minlength=wanted + 1).astype(np.int64)
        more[wanted] += before.size
        gone = np.flatnonzero(more < 0)
        within[mask] = wanted
        self._count(frame, wanted, more)
        if wanted != NO_OBJECT:
            self._grow(frame, np.array([wanted], np.uint32), np.stack([box.start, box.stop], axis=1)[None])
        ids = np.union1d(gone, [wanted]).astype(np.uint32)
        ids = ids[ids > NO_OBJECT]
        around = _box_of_known(self._bounds.get(frame, _NO_BOUNDS), ids)
        self._touch(frame, Touched(box if around is None else around, ids))

    def _count(self, frame: int, highest: int, more: npt.NDArray[np.int64]) -> None:
        """Ids were written: each has so many voxels `more`."""
        self._n_writes += 1
        self._highest = max(self._highest, highest)
        self._sizes[frame] = _difference(self._sizes.get(frame, more[:0]), -more)

    def _grow_to(self, frame: int, ids: Ids, start: Shape3D) -> None:
        """Objects lie where these ids are, the first voxel of which lies at `start`."""
        sizes = _sizes_of(ids)
        sizes[NO_OBJECT] = 0
        names = np.flatnonzero(sizes).astype(np.uint32)
        numbers = np.zeros(len(sizes), np.uint32)  # without gaps, since all that is below the highest takes time
        numbers[names] = np.arange(1, len(names) + 1)
        self._grow(frame, names, _bounds_of(numbers[ids])[1:] + np.asarray(start)[:, None])

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


def _box_of_known(bounds: Bounds, object_ids: npt.NDArray[np.integer]) -> Box | None:
    """The box that holds those of some objects that are known."""
    own = bounds[object_ids[object_ids < len(bounds)]]
    own = own[own[:, 0, 0] < own[:, 0, 1]]
    return Box(triple(own[..., 0].min(0).tolist()), triple(own[..., 1].max(0).tolist())) if len(own) else None


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
    return Box(triple(start), triple(stop))
