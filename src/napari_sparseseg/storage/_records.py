"""Edits and sets of classes as the journal has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from napari_sparseseg._types import UNPAINTED, Box, Plane
from napari_sparseseg.errors import InputError
from napari_sparseseg.storage._edits import Codes, Edit, Mask, unpack
from napari_sparseseg.storage._stroke_table import Stroke, StrokeKind
from napari_sparseseg.storage.journal import JournalRecord
from napari_sparseseg.storage.palette import ClassSet, Palette


class RecordedEdit(NamedTuple):
    """What an edit wrote, without what was there before; a stroke is its kind, time, plane and number of voxels."""

    frame: int
    box: Box
    mask: Mask
    codes: Codes
    marks: Codes
    strokes: Sequence[tuple[StrokeKind, float, Plane | None, int]]


def record_of(edit: Edit) -> JournalRecord:
    """The record of an edit: the mask's bits, codes and marks as arrays, all else as values."""
    values = {
        "frame": edit.frame,
        "start": edit.box.start,
        "stop": edit.box.stop,
        "strokes": [_values_of(stroke) for stroke in edit.strokes],
    }
    return JournalRecord("edit", values, (edit.bits, edit.new_codes, edit.marks))


def edit_of(record: JournalRecord) -> RecordedEdit:
    """The edit that a record tells of.

    Raises `InputError` where its values contradict each other, KeyError, TypeError or ValueError where they are none.
    """
    values, (bits, codes, marks) = record.values, record.arrays
    box = Box(tuple(values["start"]), tuple(values["stop"]))
    mask = unpack(bits, box.shape)
    strokes = [
        (StrokeKind(kind), float(seconds), None if plane is None else Plane(*plane), int(n_voxels))
        for kind, seconds, plane, n_voxels in values["strokes"]
    ]
    n_voxels = int(np.count_nonzero(mask))
    has_sizes = n_voxels > 0 and {codes.size, marks.size} <= {1, n_voxels}
    if not has_sizes or not strokes or marks.max() > len(strokes):
        raise InputError("the journal holds a stroke whose values contradict each other")
    if ((codes == UNPAINTED) != (marks == 0)).any():
        raise InputError("the journal holds a stroke that paints what it does not own")
    return RecordedEdit(values["frame"], box, mask, codes, marks, strokes)


def record_of_palette(palette: Palette) -> JournalRecord:
    """The record of all sets that have a code."""
    sets = [[code, known.is_forbidding, sorted(known.class_ids)] for code, known in palette.sets.items()]
    return JournalRecord("palette", {"sets": sets})


def palette_of(record: JournalRecord) -> Palette:
    """The sets that a record tells of."""
    sets = record.values["sets"]
    return Palette({code: ClassSet(frozenset(ids), bool(is_forbidding)) for code, is_forbidding, ids in sets})


def _values_of(stroke: Stroke) -> list[Any]:
    plane = stroke.plane
    where = None if plane is None else [plane.frame, plane.axis, plane.index]
    return [stroke.kind, stroke.time, where, stroke.n_voxels]
