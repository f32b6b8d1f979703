"""Edits of the annotation: what can be undone, held in little memory."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_sparseseg._types import Box, Shape3D, triple
from napari_sparseseg.storage._stroke_table import Ids, Stroke

Codes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Edit:
    """The voxels of a box that an edit changed, and their values before and after.

    `bits` is the packed mask of these voxels. Values have one entry for each of them, in C order, or a single one for
    all. `marks` say which of the edit's strokes (1, 2, ...) a voxel belongs to, 0 if to none; `first_id` is the id of
    the first of these in the table of strokes.
    """

    frame: int
    box: Box
    bits: npt.NDArray[np.uint8]
    old_codes: Codes
    new_codes: Codes
    old_ids: Ids
    marks: npt.NDArray[np.uint8]
    first_id: int
    strokes: tuple[Stroke, ...]

    @property
    def mask(self) -> Mask:
        return unpack(self.bits, self.box.shape)

    @property
    def new_ids(self) -> Ids:
        return ids_of(self.marks, self.first_id)

    @property
    def n_bytes(self) -> int:
        arrays = (self.bits, self.old_codes, self.new_codes, self.old_ids, self.marks)
        return sum(array.nbytes for array in arrays)


class History:
    """Edits to undo and to redo; beyond `max_edits` or `max_bytes` the oldest are dropped, but never the newest."""

    def __init__(self, max_edits: int, max_bytes: int) -> None:
        self._max_edits = max_edits
        self._max_bytes = max_bytes
        self._done: deque[Edit] = deque()
        self._undone: list[Edit] = []
        self._n_bytes = 0

    @property
    def edits(self) -> tuple[Edit, ...]:
        """All that can be undone or redone."""
        return *self._done, *self._undone

    @property
    def to_undo(self) -> Edit | None:
        return self._done[-1] if self._done else None

    @property
    def to_redo(self) -> Edit | None:
        return self._undone[-1] if self._undone else None

    def add(self, edit: Edit) -> None:
        """Add a new edit; what was undone can no longer be redone."""
        self._n_bytes += edit.n_bytes - sum(undone.n_bytes for undone in self._undone)
        self._undone.clear()
        self._done.append(edit)
        while len(self._done) > 1 and (len(self._done) > self._max_edits or self._n_bytes > self._max_bytes):
            self._n_bytes -= self._done.popleft().n_bytes

    def remember(self, edit: Edit) -> None:
        """Add an edit that was made before all others that can be undone."""
        self._n_bytes += edit.n_bytes
        self._done.appendleft(edit)

    def undo(self) -> None:
        self._undone.append(self._done.pop())

    def redo(self) -> None:
        self._done.append(self._undone.pop())

    def clear(self) -> None:
        self._done.clear()
        self._undone.clear()
        self._n_bytes = 0


def ids_of(marks: npt.NDArray[np.uint8], first_id: int) -> Ids:
    """Ids in the table of strokes for marks 0 (none), 1, 2, ..."""
    ids: Ids = np.where(marks == 0, 0, marks.astype(np.uint32) + (first_id - 1)).astype(np.uint16)
    return ids


def unpack(bits: npt.NDArray[np.uint8], shape: Shape3D) -> Mask:
    """The mask of this shape, from what `numpy.packbits` made of it."""
    z, y, x = shape
    return np.unpackbits(bits, count=z * y * x).view(np.bool_).reshape(shape)


def bounds_of(mask: Mask) -> tuple[slice, slice, slice]:
    """The smallest block that holds all true voxels; there must be one."""
    z = _extent(mask.any(axis=(1, 2)))
    y = _extent(mask[z].any(axis=(0, 2)))
    return z, y, _extent(mask[z, y].any(axis=(0, 1)))


def box_within(box: Box, part: tuple[slice, slice, slice]) -> Box:
    """The box of a block that was cut out of `box`."""
    start = tuple(s.start for s in part)
    stop = tuple(s.stop for s in part)
    return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2])).shifted(box.start)


def box_around(one: Box, other: Box) -> Box:
    """The smallest box that holds both."""
    start, stop = zip(one.start, other.start, strict=True), zip(one.stop, other.stop, strict=True)
    return Box(triple(map(min, start)), triple(map(max, stop)))


def _extent(line: npt.ArrayLike) -> slice:
    places = np.flatnonzero(line)
    return slice(int(places[0]), int(places[-1]) + 1)
