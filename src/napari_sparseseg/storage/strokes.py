"""AnnotationStore: everything that was painted, stroke by stroke, to be undone, journalled and learnt from."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from napari_sparseseg._types import NO_OBJECT, UNPAINTED, Box, Plane, Region
from napari_sparseseg.errors import InputError
from napari_sparseseg.storage._checks import (
    check_class,
    check_known,
    check_object,
    check_plane,
    checked_classes,
    checked_codes,
    checked_region,
    checked_shown,
)
from napari_sparseseg.storage._edits import Codes, Edit, History, Mask, bounds_of, box_within
from napari_sparseseg.storage._readable import ReadableAnnotation
from napari_sparseseg.storage._records import (
    edit_of,
    palette_of,
    record_of,
    record_of_palette,
    record_of_undo,
    undo_of,
)
from napari_sparseseg.storage._stroke_table import Objects, StrokeHead, StrokeTable
from napari_sparseseg.storage._stroke_table import Stroke as Stroke
from napari_sparseseg.storage._stroke_table import StrokeAuthor as StrokeAuthor
from napari_sparseseg.storage._stroke_table import StrokeKind as StrokeKind
from napari_sparseseg.storage._voxels import Painted
from napari_sparseseg.storage.journal import Journal, JournalRecord
from napari_sparseseg.storage.palette import FIRST_SET, ClassSet, Palette

MAX_STROKES = 2**16 - 1
MAX_MARK = 255
MAX_EDITS = 200
MAX_HISTORY_BYTES = 2**28
_N_AT_ONCE = 2**18


class PaintEdit(NamedTuple):
    """Where the annotation changed."""

    frame: int
    box: Box


class StoreState(NamedTuple):
    """The whole annotation except its undo history: what must be on disk.

    `painted` holds copies of the painted segments of each frame that has paint; `ticket` is the journal's for the
    latest change that is included (0 without a journal).
    """

    shape: tuple[int, int, int, int]
    painted: dict[int, Painted]
    sets: dict[int, ClassSet]
    strokes: tuple[Stroke, ...]
    complete: frozenset[Plane]
    revision: int
    ticket: int


class AnnotationStore(ReadableAnnotation):
    """The annotation of an image: codes, the strokes that they come from, sets of classes, complete slices.

    One thread may write while others read. Each change is noted in the journal before it is made.

    Parameters
    ----------
    shape
        Frames (time points), z, y, x.
    journal
        Where each change is noted before it is made. A journal that is passed here starts again from nothing; to
        continue an older one, `replay` it into a store without a journal, then set `journal`.
    clock
        Seconds since 1970.

    """

    def __init__(
        self,
        shape: tuple[int, int, int, int],
        *,
        journal: Journal | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if min(shape) < 1:
            raise InputError(f"an annotation of shape {shape} (frames, z, y, x) has no voxels")
        self._clock = clock
        super().__init__(shape)
        self.on_edit: Callable[[], object] | None = None
        """Called when something was painted, not when it is taken back or made again."""
        self.journal = journal
        self._note(JournalRecord("begin", {"shape": shape}))

    def _begin(self) -> None:
        super()._begin()
        self._chosen = UNPAINTED  # the code that was asked for last: a brush may be about to paint it
        self._history = History(MAX_EDITS, MAX_HISTORY_BYTES)

    @property
    def largest_record(self) -> int:
        """The most bytes of voxels that one record of the journal can hold."""
        return largest_record(self._shape)

    @property
    def can_undo(self) -> bool:
        return self._history.to_undo is not None

    @property
    def can_redo(self) -> bool:
        return self._history.to_redo is not None

    def state(self) -> StoreState:
        """The whole annotation at one moment; any thread."""
        with self._lock:
            frames = np.flatnonzero(self._voxels.n_of_code[:, 1:].any(axis=1)).tolist()
            painted = {frame: self._voxels.read_painted(frame) for frame in frames}
            ticket = self.journal.ticket if self.journal is not None else 0
            sets, strokes = self._palette.sets, self._table.strokes
            return StoreState(self._shape, painted, sets, strokes, frozenset(self._complete), self._revision, ticket)

    # --- painting ---

    def annotate(
        self,
        region: Region,
        codes: int | npt.ArrayLike,
        plane: Plane | None = None,
        *,
        by: StrokeAuthor = StrokeAuthor.HUMAN,
        object_id: int = NO_OBJECT,
    ) -> PaintEdit | None:
        """Paint a class or a set, or one code for each voxel of the region's box; 0 erases.

        With an `object_id` the painted voxels belong to that object; without one, voxels that have the class already
        stay with their object. Paint over a suggestion gets full weight, even if it is of the same class. None if
        nothing changed. Raises `InputError` for a region outside the image, codes that stand for nothing, impossible
        ids, and sets of classes as objects.
        """
        with self._lock:
            box, mask = checked_region(region, plane, self._shape)
            wanted = checked_codes(codes, box, self._palette)
            self._check_object(object_id, wanted)
            changed = self._voxels.codes[region.frame][box.slices] != wanted
            if object_id != NO_OBJECT:
                changed |= (wanted != UNPAINTED) & (self.objects(region.frame, box) != object_id)
            if by is StrokeAuthor.HUMAN:
                changed |= (wanted != UNPAINTED) & self.is_suggested(region.frame, box)
            if mask is not None:
                changed &= mask
            heads = StrokeHead(StrokeKind.PAINT, plane, by, object_id), StrokeHead(StrokeKind.ERASURE, plane, by)
            return self._write(region.frame, box, changed, wanted, wanted == UNPAINTED, heads)

    def correct(
        self,
        region: Region,
        class_id: int,
        shown: npt.ArrayLike,
        plane: Plane | None = None,
        *,
        class_ids: Collection[int],
        background: int | None,
        object_id: int = NO_OBJECT,
    ) -> PaintEdit | None:
        """Paint a class on a prediction that has `shown` these labels, of the shape of the region's box.

        Voxels become the class: a confirmation where it was shown and nothing else was painted, otherwise a correction.
        With class 0, voxels that were painted with a single class are erased; elsewhere the class that was shown,
        unless it is the background, is excluded ("not this class"), which leaves a set of `class_ids`, or the only one
        that remains. If none would remain, only the latest exclusion counts. `object_id` is as in `annotate`.

        None if nothing changed. Raises `InputError` for a region outside the image or an impossible class.
        """
        with self._lock:
            box, mask = checked_region(region, plane, self._shape)
            labels = checked_shown(shown, box)
            before = self._voxels.codes[region.frame][box.slices]
            is_pinned = (before != UNPAINTED) & (before < FIRST_SET)
            if class_id == UNPAINTED:
                within = np.ones(box.shape, np.bool_) if mask is None else mask
                allowed, in_use = frozenset(class_ids), self._codes_in_use
                wanted, palette = self._palette.narrowed_codes(before, labels, within, allowed, background, in_use)
                self._take(palette)
                is_second = is_pinned
                heads = StrokeHead(StrokeKind.REJECTION, plane), StrokeHead(StrokeKind.ERASURE, plane)
            else:
                check_class(class_id)
                wanted = np.array(class_id, np.uint8)
                is_second = (labels != class_id) | (is_pinned & (before != class_id))
                heads = _answers(plane, object_id)
                self._check_object(object_id, wanted)
            changed = before != wanted
            if object_id != NO_OBJECT and class_id != UNPAINTED:
                changed |= self.objects(region.frame, box) != object_id
            if class_id != UNPAINTED:
                changed |= self.is_suggested(region.frame, box)
            if mask is not None:
                changed &= mask
            return self._write(region.frame, box, changed, wanted, is_second, heads)

    def say(
        self,
        region: Region,
        class_id: int | npt.ArrayLike,
        *,
        is_present: bool,
        class_ids: Collection[int],
        background: int | None,
        plane: Plane | None = None,
        shown: npt.ArrayLike | None = None,
        object_id: int = NO_OBJECT,
    ) -> PaintEdit | None:
        """Say that an overlapping class is present, or that it is absent; what was said about others stays.

        `class_id` may be one for each voxel of the region's box, 0 where nothing is said. If labels were `shown`, it is
        a confirmation or a correction; saying that a class is absent is a rejection. `object_id` is as in `annotate`.
        None if nothing changed. Raises `InputError` for a region outside the image, impossible classes, and more
        combinations than there are codes.
        """
        with self._lock:
            box, mask = checked_region(region, plane, self._shape)
            classes = np.broadcast_to(checked_classes(class_id, box), box.shape)
            within = (classes != UNPAINTED) if mask is None else (classes != UNPAINTED) & mask
            before = self._voxels.codes[region.frame][box.slices]
            wanted = self._said(before, classes, within, class_ids, background, is_present=is_present)
            changed = (before != wanted) & within
            if object_id != NO_OBJECT:
                self._check_object(object_id, np.zeros(1, np.uint8))
                changed |= within & (self.objects(region.frame, box) != object_id)
            heads: tuple[StrokeHead, ...]
            is_second: Mask = np.zeros((), np.bool_)
            if not is_present:
                heads = (StrokeHead(StrokeKind.REJECTION, plane),)
            elif shown is None:
                heads = (StrokeHead(StrokeKind.PAINT, plane, object_id=object_id),)
            else:
                heads = _answers(plane, object_id)
                is_second = checked_shown(shown, box) != classes
            return self._write(region.frame, box, changed, wanted, is_second, heads)

    def annotate_objects(
        self, region: Region, codes: npt.ArrayLike, objects: Objects, plane: Plane | None = None
    ) -> PaintEdit | None:
        """Paint the voxels of a region with a class each, and an object each of several (0: none), as one edit.

        `codes` and `objects` have the shape of the region's box. Each object gets a stroke of its own, a confirmation.
        None if nothing changed. Raises `InputError` for a region outside the image, impossible classes or ids, or too
        many objects.
        """
        with self._lock:
            box, mask = checked_region(region, plane, self._shape)
            wanted = checked_codes(codes, box, self._palette)
            changed = (self._voxels.codes[region.frame][box.slices] != wanted) | (
                self.objects(region.frame, box) != objects
            )
            changed &= (wanted != UNPAINTED) if mask is None else (wanted != UNPAINTED) & mask
            return self._write_objects(region.frame, box, changed, wanted, objects, plane, may_overlap=False)

    def say_objects(
        self,
        region: Region,
        class_id: int,
        objects: Objects,
        plane: Plane | None = None,
        *,
        class_ids: Collection[int],
        background: int | None,
    ) -> PaintEdit | None:
        """Say that an overlapping class is present in the voxels of a region, as one edit; an object each of several.

        What was said about other classes stays. Otherwise as `annotate_objects`.
        """
        with self._lock:
            box, mask = checked_region(region, plane, self._shape)
            check_class(class_id)
            within = np.ones(box.shape, np.bool_) if mask is None else mask
            before = self._voxels.codes[region.frame][box.slices]
            classes = np.full(box.shape, class_id, np.uint8)
            wanted = self._said(before, classes, within, class_ids, background, is_present=True)
            changed = within & ((before != wanted) | (self.objects(region.frame, box) != objects))
            return self._write_objects(region.frame, box, changed, wanted, objects, plane, may_overlap=True)

    def bring_back(self, frame: int, box: Box, codes: Codes, old: AnnotationStore) -> list[PaintEdit]:
        """Make a box as it is in an `old` store: `codes`, of its shape, and the objects and authors they belong to.

        Makes as few edits as possible, of at most 255 strokes, and returns where each was. Raises `InputError` for
        codes that stand for nothing, or too many objects.
        """
        with self._lock:
            changed = codes != self._voxels.codes[frame][box.slices]
            owners = old.objects(frame, box)
            owners_changed = owners != self.objects(frame, box)
            owners_changed |= old.is_suggested(frame, box) != self.is_suggested(frame, box)
            changed |= owners_changed & (codes != UNPAINTED)
            check_known(codes[changed], self._palette)
            suggested = np.broadcast_to(old.is_suggested(frame, box), box.shape)[changed]
            # twice the object, plus 1 for a suggestion; -1 where nothing is painted
            keys = np.where(codes[changed] == UNPAINTED, -1, 2 * owners[changed].astype(np.int64) + suggested)
            found, numbers = np.unique(keys, return_inverse=True)
            edits = []
            for first in range(0, len(found), MAX_MARK):
                heads = [_head_of(key) for key in found[first : first + MAX_MARK].tolist()]
                for head in heads:
                    self._check_object(head.object_id, np.zeros(1, np.uint8))
                chosen = (numbers >= first) & (numbers < first + MAX_MARK)
                of_head, mask = np.zeros(box.shape, np.uint8), changed.copy()
                mask[changed] = chosen
                of_head[mask] = numbers[chosen] - first
                edits.append(self._write(frame, box, mask, codes, of_head, heads))
            return [edit for edit in edits if edit is not None]

    def undo(self) -> PaintEdit | None:
        """Undo the latest edit; returns where it was, None if there is nothing to undo."""
        with self._lock:
            edit = self._history.to_undo
            if edit is None:
                return None
            self._note(record_of_undo(edit))
            self._voxels.put(edit.frame, edit.box, edit.mask, edit.old_codes, edit.old_ids)
            self._table.take_back(edit.strokes)
            self._history.undo()
            self._revision += 1
            return PaintEdit(edit.frame, edit.box)

    def redo(self) -> PaintEdit | None:
        """Redo the edit that was undone last; returns where it is, None if there is nothing to redo."""
        with self._lock:
            edit = self._history.to_redo
            if edit is None:
                return None
            self._note(record_of(edit, "redo"))
            self._put(edit)
            self._history.redo()
            return PaintEdit(edit.frame, edit.box)

    def set_complete(self, plane: Plane, complete: bool) -> PaintEdit | None:
        """Say that the unpainted voxels of a slice are background, or take that back; not part of the undo history.

        None if that is so already. Raises `InputError` for a slice outside the image.
        """
        with self._lock:
            check_plane(plane, self._shape)
            if (plane in self._complete) == complete:
                return None
            where = (plane.frame, plane.axis, plane.index)
            self._note(JournalRecord("complete", {"plane": where, "is_complete": bool(complete)}))
            self._complete ^= {plane}
            others = tuple(other for other in self._complete if other.frame == plane.frame)
            self._voxels.mark_complete(plane, others, complete)
            self._revision += 1
            return PaintEdit(plane.frame, plane.box(self._shape[1:]))

    # --- classes ---

    def code_for(self, *, any_of: Collection[int] | None = None, none_of: Collection[int] | None = None) -> int:
        """The code of a set of allowed or forbidden classes; made if there is none yet.

        Though it is not painted yet, it keeps its meaning until another one is asked for. Raises `InputError` if all
        codes are taken by other sets.
        """
        if (any_of is None) == (none_of is None) or not (any_of or none_of):
            raise InputError("name the classes that are possible (any_of), or those that are not (none_of)")
        wanted = ClassSet(frozenset(any_of or none_of or ()), is_forbidding=any_of is None)
        for class_id in wanted.class_ids:
            check_class(class_id)
        with self._lock:
            self._chosen = UNPAINTED
            [self._chosen] = self.codes_for_sets([wanted])
            return self._chosen

    def codes_for_sets(self, wanted: Sequence[ClassSet]) -> list[int]:
        """The codes of several sets, whose ids must be possible; made as by `code_for`, none in place of another."""

        def is_class(known: ClassSet) -> bool:
            return not known.is_forbidding and len(known.class_ids) == 1

        with self._lock:
            sets = [known for known in wanted if not is_class(known)]
            self._take(self._palette.with_sets(sets, self._codes_in_use))
            return [next(iter(k.class_ids)) if is_class(k) else self._palette.code_of(k) for k in wanted]

    def remove_class(self, class_id: int, *, class_ids: Collection[int] | None = None) -> tuple[PaintEdit, ...]:
        """Make a class's voxels unpainted and drop it from all sets; returns where codes changed.

        Nothing can be undone afterwards. With the remaining `class_ids`, sets that no longer say anything become
        unpainted, and sets of one class become that class; without, only sets that no longer mention a class do.
        """
        with self._lock:
            check_class(class_id)
            remaining = None if class_ids is None else sorted(set(class_ids) - {class_id})
            self._note(JournalRecord("remove_class", {"class_id": class_id, "class_ids": remaining}))
            self._history.clear()
            palette, moved = self._palette.forget(class_id, remaining)
            changed = self._voxels.replace_codes(moved)
            self._palette = palette
            self._revision += 1
            return tuple(PaintEdit(frame, box) for frame, box in changed)

    # --- journal ---

    def replay(self, record: JournalRecord) -> bool:
        """Make the change that a record of the journal describes; False if it does not concern this store.

        Raises `InputError` for a record that does not fit, such as one of an image of another shape.
        """
        actions: dict[str, Callable[[JournalRecord], object]] = {
            "begin": self._replay_begin,
            "edit": self._replay_edit,
            "palette": self._replay_palette,
            "undo": self._replay_undo,
            "redo": self._replay_undo,
            "complete": lambda r: self.set_complete(Plane(*r.values["plane"]), r.values["is_complete"]),
            "remove_class": lambda r: self.remove_class(r.values["class_id"], class_ids=r.values["class_ids"]),
        }
        if record.op not in actions:
            return False
        with self._lock:
            journal, self.journal = self.journal, None
            try:
                actions[record.op](record)
            except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
                if isinstance(error, InputError):
                    raise
                raise InputError(f"the journal holds a record ({record.op!r}) that makes no sense: {error}") from error
            finally:
                self.journal = journal
        return True

    def restore(self, state: StoreState) -> None:
        """Start again from a state, whose numbers must have been checked; nothing is noted in the journal.

        Raises `InputError` for the state of another image.
        """
        if state.shape != self._shape:
            raise InputError(f"the annotation belongs to an image of shape {state.shape}, this one has {self._shape}")
        with self._lock:
            self._begin()
            self._palette = Palette(state.sets)
            self._table = StrokeTable(state.strokes)
            for frame, painted in state.painted.items():
                self._voxels.put_painted(frame, painted)
            for plane in state.complete:
                check_plane(plane, self._shape)
                self._complete.add(plane)
                self._voxels.mark_complete(plane, (), is_complete=True)
            self._revision += 1

    def _note(self, record: JournalRecord) -> None:
        if self.journal is not None:
            self.journal.append(record)

    def _replay_begin(self, record: JournalRecord) -> None:
        shape = tuple(record.values["shape"])
        if shape != self._shape:
            raise InputError(f"the journal belongs to an image of shape {shape}, this one has {self._shape}")
        self._begin()
        self._revision += 1

    def _replay_palette(self, record: JournalRecord) -> None:
        self._palette = palette_of(record)

    def _replay_edit(self, record: JournalRecord) -> None:
        frame, box, mask, codes, marks, strokes = edit_of(record)
        checked_region(Region(frame, box), None, self._shape)
        check_known(codes, self._palette)
        self._make_room(len(strokes))
        self._commit(frame, box, mask, codes, marks, self._table.numbered(strokes))

    def _replay_undo(self, record: JournalRecord) -> None:
        if record.op == "undo" and not self.can_undo and record.arrays:
            self._history.remember(self._edit_before(record))
        if record.op == "redo" and not self.can_redo and record.arrays:
            self._replay_edit(record)
        elif (self.undo() if record.op == "undo" else self.redo()) is None:
            raise InputError(f"the journal says {record.op} where there is nothing to {record.op}")

    def _edit_before(self, record: JournalRecord) -> Edit:
        """The edit that a record undoes, which was made before reading began: it is what is there now."""
        frame, box, mask, old_codes, old_ids, n_strokes = undo_of(record)
        checked_region(Region(frame, box), None, self._shape)
        check_known(old_codes, self._palette)
        n_left = len(self._table) - n_strokes
        if not 1 <= n_strokes <= MAX_MARK or n_left < 0 or old_ids.max() > n_left:
            raise InputError("the journal holds an undo of strokes that were not made")
        # a stroke that is forgotten must not have voxels anywhere else
        n_here = np.count_nonzero(self._voxels.ids[frame][box.slices][mask] > n_left)
        if n_here != self._voxels.n_of_id[n_left + 1 :].sum():
            raise InputError("the journal holds an undo of less than its strokes")
        codes, ids = (_single(array[frame][box.slices][mask]) for array in (self._voxels.codes, self._voxels.ids))
        marks = np.where(ids > n_left, ids - n_left, 0).astype(np.uint8)
        strokes = self._table.strokes[n_left:]
        return Edit(frame, box, np.packbits(mask), old_codes, codes, old_ids, marks, n_left + 1, strokes)

    # --- inside ---

    def _check_object(self, object_id: int, wanted: Codes) -> None:
        check_object(object_id, wanted)
        self._table.check_room_for(object_id, self._voxels.n_of_id, MAX_STROKES)

    def _take(self, palette: Palette) -> None:
        """Use a palette from now on, and note it in the journal if it has new sets."""
        if palette.sets != self._palette.sets:
            self._note(record_of_palette(palette))
            self._palette = palette

    def _said(
        self,
        before: Codes,
        classes: Codes,
        within: Mask,
        class_ids: Collection[int],
        background: int | None,
        *,
        is_present: bool,
    ) -> Codes:
        """Codes after an overlapping class, one for each voxel, was said to be present, or absent, within a mask."""

        def said(code: int, of_class: int) -> int | ClassSet:
            return self._palette.saying(
                code, of_class, is_present=is_present, class_ids=class_ids, background=background
            )

        wanted, palette = self._palette.recoded(before, classes, within, said, self._codes_in_use)
        self._take(palette)
        return wanted

    def _codes_in_use(self) -> set[int]:
        """Codes that are painted, that undo and redo may paint again, or a brush."""
        arrays = [array for edit in self._history.edits for array in (edit.old_codes, edit.new_codes)]
        is_used = np.asarray(self._voxels.n_of_code.any(axis=0))
        for array in arrays:
            is_used[array] = True
        is_used[self._chosen] = True
        return set(np.flatnonzero(is_used).tolist())

    def _write_objects(
        self,
        frame: int,
        box: Box,
        changed: Mask,
        codes: Codes,
        objects: Objects,
        plane: Plane | None,
        *,
        may_overlap: bool,
    ) -> PaintEdit | None:
        """Make an edit of the `changed` voxels of a box, with a stroke for each of the objects that they belong to."""
        ids, found = np.unique(objects[changed], return_inverse=True)
        if len(ids) > MAX_MARK:
            raise InputError(f"{len(ids)} objects were painted at once; paint at most {MAX_MARK}")
        for object_id in ids.tolist():
            self._check_object(object_id, np.zeros(1, np.uint8) if may_overlap else codes)
        numbers = np.zeros(box.shape, np.uint8)
        numbers[changed] = found
        heads = [StrokeHead(StrokeKind.CONFIRMATION, plane, object_id=object_id) for object_id in ids.tolist()]
        return self._write(frame, box, changed, codes, numbers, heads)

    def _write(
        self,
        frame: int,
        box: Box,
        changed: Mask,
        codes: Codes,
        numbers: npt.NDArray[Any],
        heads: Sequence[StrokeHead],
    ) -> PaintEdit | None:
        """Make an edit of the `changed` voxels of a box: one stroke for each of the heads that any of them has.

        `numbers` are the voxels' places in `heads`, of which there are at most 255: callers refuse more, or make more
        edits. They and the codes are arrays of the box's shape, or single values. None if nothing changes.
        """
        if not changed.any():
            return None
        bounds = bounds_of(changed)
        mask = changed[bounds]
        codes = np.broadcast_to(codes, changed.shape)[bounds][mask]
        numbers = np.broadcast_to(numbers, changed.shape)[bounds][mask].astype(np.uint8, copy=False)
        sizes = _counts_of(numbers, len(heads))
        self._make_room(int(np.count_nonzero(sizes)))
        now = self._clock()
        strokes = self._table.numbered(
            (head.kind, now, head.plane, n, head.by, head.object_id)
            for head, n in zip(heads, sizes.tolist(), strict=True)
            if n
        )
        marks = _ranks_of(numbers, sizes)
        marks[codes == UNPAINTED] = 0
        return self._commit(frame, box_within(box, bounds), mask, _single(codes), _single(marks), strokes)

    def _commit(
        self, frame: int, box: Box, mask: Mask, codes: Codes, marks: Codes, strokes: tuple[Stroke, ...]
    ) -> PaintEdit:
        old_codes = _single(self._voxels.codes[frame][box.slices][mask])
        old_ids = _single(self._voxels.ids[frame][box.slices][mask])
        first_id = len(self._table) + 1
        edit = Edit(frame, box, np.packbits(mask), old_codes, codes, old_ids, marks, first_id, strokes)
        self._note(record_of(edit))
        self._put(edit)
        self._history.add(edit)
        if self.on_edit is not None:
            self.on_edit()
        return PaintEdit(frame, box)

    def _put(self, edit: Edit) -> None:
        self._voxels.put(edit.frame, edit.box, edit.mask, edit.new_codes, edit.new_ids)
        self._table.add(edit.strokes)
        self._revision += 1

    def _make_room(self, n_strokes: int) -> None:
        """If ids run short, forget strokes without voxels, and merge the oldest of the same kind, slice and object.

        Nothing before that can be undone any more, since edits remember ids.
        """
        if len(self._table) + n_strokes <= MAX_STROKES:
            return
        table = self._table.merge(self._voxels.n_of_id, MAX_STROKES, n_strokes)
        self._history.clear()
        self._voxels.replace_ids(table)


def largest_record(shape: tuple[int, int, int, int]) -> int:
    """Bytes of voxels in a record of a whole frame: a bit, a code and an id for each; `shape` is frames, z, y, x."""
    return 4 * math.prod(shape[1:]) + 64


def _answers(plane: Plane | None, object_id: int) -> tuple[StrokeHead, StrokeHead]:
    """A confirmation of what was shown, and a correction, which comes last so that it is the newest stroke."""
    confirmation = StrokeHead(StrokeKind.CONFIRMATION, plane, object_id=object_id)
    return confirmation, confirmation._replace(kind=StrokeKind.CORRECTION)


def _head_of(key: int) -> StrokeHead:
    """The stroke that brings a key back: twice its object, plus 1 for a suggestion; -1 erases."""
    if key < 0:
        return StrokeHead(StrokeKind.ERASURE)
    object_id, is_suggested = divmod(key, 2)
    author = StrokeAuthor.SUGGESTION if is_suggested else StrokeAuthor.HUMAN
    return StrokeHead(StrokeKind.PAINT, None, author, object_id)


def _counts_of(numbers: Codes, n: int) -> npt.NDArray[np.intp]:
    """How often each of the `n` numbers occurs."""
    if n <= 2:  # nearly always, and then much faster
        n_second = np.count_nonzero(numbers)
        return np.array([numbers.size - n_second, n_second][:n], np.intp)
    counts = np.zeros(n, np.intp)
    for part in _parts_of(numbers):
        counts += np.bincount(part, minlength=n)
    return counts


def _ranks_of(numbers: Codes, counts: npt.NDArray[np.intp]) -> Codes:
    """The place, from 1, of each number among those that occur."""
    ranks = np.cumsum(counts > 0).astype(np.uint8)
    if ranks[-1] == len(ranks):
        return numbers + np.uint8(1)
    found = np.empty_like(numbers)
    for part, of_part in zip(_parts_of(found), _parts_of(numbers), strict=True):
        part[:] = 1 if ranks[-1] == 1 else ranks[of_part]
    return found


def _parts_of(values: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    """Views of a part each: numpy makes eight bytes of every number that it counts or looks up by."""
    for start in range(0, len(values), _N_AT_ONCE):
        yield values[start : start + _N_AT_ONCE]


def _single(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A single value where all are equal, to save memory."""
    return values[:1].copy() if (values == values[0]).all() else values
