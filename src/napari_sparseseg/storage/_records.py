"""Edits and sets of classes as the journal has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from napari_sparseseg._types import MAX_CLASSES, MAX_CODE, NO_OBJECT, UNPAINTED, Box, Plane
from napari_sparseseg.errors import InputError
from napari_sparseseg.storage._checks import MAX_OBJECT
from napari_sparseseg.storage._edits import Codes, Edit, Mask, unpack
from napari_sparseseg.storage._stroke_table import Ids, NewStroke, Stroke, StrokeAuthor, StrokeKind
from napari_sparseseg.storage.journal import JournalRecord
from napari_sparseseg.storage.palette import FIRST_SET, ClassSet, Palette

_LAST_MOMENT = 1e10  # in the year 2286; Windows knows no date after 3000


class RecordedEdit(NamedTuple):
    """What an edit wrote, without what was there before."""

    frame: int
    box: Box
    mask: Mask
    codes: Codes
    marks: Codes
    strokes: Sequence[NewStroke]


class RecordedUndo(NamedTuple):
    """What was written by taking an edit back."""

    frame: int
    box: Box
    mask: Mask
    codes: Codes
    ids: Ids
    n_strokes: int


def record_of(edit: Edit, op: str = "edit") -> JournalRecord:
    """The record of an edit (or "redo"): the mask's bits, codes and marks as arrays, all else as values."""
    values = {**_place_of(edit), "strokes": [values_of(stroke) for stroke in edit.strokes]}
    return JournalRecord(op, values, (edit.bits, edit.new_codes, edit.marks))


def record_of_undo(edit: Edit) -> JournalRecord:
    """The record of taking an edit back, which says all: the edit may be older than where reading begins."""
    values = {**_place_of(edit), "n_strokes": len(edit.strokes)}
    return JournalRecord("undo", values, (edit.bits, edit.old_codes, edit.old_ids.astype("<u2").view(np.uint8)))


def undo_of(record: JournalRecord) -> RecordedUndo:
    """What a record of an undo tells of; raises as `edit_of`."""
    values, (bits, codes, raw_ids) = record.values, record.arrays
    box, mask = _place_from(values, bits)
    ids: Ids = np.frombuffer(raw_ids.tobytes(), "<u2").astype(np.uint16)
    n_voxels = int(np.count_nonzero(mask))
    if n_voxels == 0 or not {codes.size, ids.size} <= {1, n_voxels}:
        raise InputError("the journal holds an undo whose values contradict each other")
    return RecordedUndo(values["frame"], box, mask, codes, ids, int(values["n_strokes"]))


def edit_of(record: JournalRecord) -> RecordedEdit:
    """The edit that a record tells of.

    Raises `InputError` where its values contradict each other, KeyError, TypeError or ValueError where they are none.
    """
    values, (bits, codes, marks) = record.values, record.arrays
    box, mask = _place_from(values, bits)
    strokes = [new_stroke_of(entry) for entry in values["strokes"]]
    n_voxels = int(np.count_nonzero(mask))
    has_sizes = n_voxels > 0 and {codes.size, marks.size} <= {1, n_voxels}
    if not has_sizes or not strokes or marks.max() > len(strokes):
        raise InputError("the journal holds a stroke whose values contradict each other")
    if ((codes == UNPAINTED) != (marks == 0)).any():
        raise InputError("the journal holds a stroke that paints what it does not own")
    return RecordedEdit(values["frame"], box, mask, codes, marks, strokes)


def record_of_palette(palette: Palette) -> JournalRecord:
    """The record of all sets that have a code."""
    return JournalRecord("palette", {"sets": values_of_sets(palette.sets)})


def values_of_sets(sets: Mapping[int, ClassSet]) -> list[list[Any]]:
    """Sets by their codes, as JSON has them; classes that are present stand there only if there are any."""
    return [
        [code, known.is_forbidding, sorted(known.class_ids), *([sorted(known.present)] if known.present else [])]
        for code, known in sets.items()
    ]


def sets_of(values: Sequence[Any]) -> dict[int, ClassSet]:
    """Sets by their codes, from `values_of_sets`; raises TypeError or ValueError for what are none."""
    sets: dict[int, ClassSet] = {}
    for code, is_forbidding, ids, *rest in values:
        present = rest[0] if rest else []
        are_ids = all(_is_whole(class_id, 1, MAX_CLASSES) for class_id in (*ids, *present))
        if not (_is_whole(code, FIRST_SET, MAX_CODE) and are_ids) or len(rest) > 1 or set(ids) & set(present):
            raise ValueError(f"code {code} stands for a set of classes that cannot be")
        sets[code] = ClassSet(frozenset(ids), bool(is_forbidding), frozenset(present))
    return sets


def palette_of(record: JournalRecord) -> Palette:
    """The sets that a record tells of."""
    try:
        return Palette(sets_of(record.values["sets"]))
    except ValueError as error:
        raise InputError("the journal holds sets of classes that cannot be") from error


def values_of(stroke: Stroke) -> list[Any]:
    """A stroke without its number, as JSON has it."""
    plane = stroke.plane
    where = None if plane is None else [plane.frame, plane.axis, plane.index]
    values = [stroke.kind, stroke.time, where, stroke.n_voxels]
    # what older versions wrote is shorter, and still is where nothing else was said
    if stroke.object_id != NO_OBJECT:
        return [*values, stroke.by, stroke.object_id]
    return values if stroke.by is StrokeAuthor.HUMAN else [*values, stroke.by]


def new_stroke_of(entry: Sequence[Any]) -> NewStroke:
    """A stroke from `values_of`; raises TypeError or ValueError for what is none."""
    kind, seconds, plane, n_voxels, *rest = entry
    by, object_id = rest if len(rest) == 2 else (*rest, NO_OBJECT) if rest else (StrokeAuthor.HUMAN, NO_OBJECT)
    where = None if plane is None else plane_of(plane)
    if not _is_whole(object_id, NO_OBJECT, MAX_OBJECT):
        raise ValueError(f"{object_id} is no object")
    return StrokeKind(kind), moment_of(seconds), where, int(n_voxels), StrokeAuthor(by), object_id


def moment_of(seconds: Any) -> float:
    """Seconds since 1970 that calendars know; raises TypeError or ValueError for what is none."""
    moment = float(seconds)
    if not 0 <= moment < _LAST_MOMENT:
        raise ValueError(f"{moment} is no time")
    return moment


def plane_of(entry: Sequence[Any]) -> Plane:
    """A slice from its frame, axis and index; raises TypeError or ValueError for what is none."""
    plane = Plane(*entry)
    if not all(_is_whole(part, 0, 2**31) for part in entry):
        raise ValueError(f"{plane} is no slice")
    return plane


def _place_of(edit: Edit) -> dict[str, Any]:
    return {"frame": edit.frame, "start": edit.box.start, "stop": edit.box.stop}


def _place_from(values: Mapping[str, Any], bits: npt.NDArray[np.uint8]) -> tuple[Box, Mask]:
    """Box and mask of an edit; the box may claim any size, so nothing is unpacked before the bits fit it."""
    box = Box(tuple(values["start"]), tuple(values["stop"]))
    if min(box.shape) < 1 or -(-box.n_voxels // 8) != bits.size:
        raise InputError("the journal holds a mask that does not fit its box")
    return box, unpack(bits, box.shape)


def _is_whole(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
