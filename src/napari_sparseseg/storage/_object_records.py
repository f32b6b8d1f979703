"""Objects that were found, and what was done to them by hand, as the journal has them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_sparseseg._types import MAX_CLASSES, Box
from napari_sparseseg.errors import InputError
from napari_sparseseg.storage._edits import Mask, unpack
from napari_sparseseg.storage._records import new_stroke_of, values_of
from napari_sparseseg.storage._stroke_table import Stroke
from napari_sparseseg.storage.journal import JournalRecord

FOUND, CHANGED, UNDONE, REDONE = "found", "found_changed", "found_undone", "found_redone"
HIGHEST_ID = 2**26
"""Of what is read from disk: tables have an entry for each id, so one that was made up must not cost all memory."""

Ids = npt.NDArray[np.uint32]
Shape4 = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Change:
    """Voxels of a box that belonged to one object, `before`, and belong to another one, `after`; 0 is none.

    `bits` is the packed mask of these voxels. `stroke` is the latest of the annotation then; if `is_painted` it was
    made by the change itself, and goes with it.
    """

    frame: int
    box: Box
    bits: npt.NDArray[np.uint8]
    before: int
    after: int
    stroke: Stroke | None
    is_painted: bool

    @property
    def mask(self) -> Mask:
        return unpack(self.bits, self.box.shape)


def record_of_search(frame: int, box: Box, ids: Ids, classes: tuple[int, ...]) -> JournalRecord:
    """The record of what was found in a box of a frame, under the ids that it has got, and of which classes."""
    voxels = np.ascontiguousarray(ids, "<u4").view(np.uint8).reshape(-1)
    return JournalRecord(FOUND, {**_place_of(frame, box), "classes": classes}, (voxels,))


def search_of(record: JournalRecord, shape: Shape4) -> tuple[int, Box, Ids, tuple[int, ...]]:
    """Frame, box, ids and classes of a search in an image of this shape; raises `InputError` for what makes no sense.

    Older versions have not noted the classes.
    """
    with _making_sense(record):
        frame, box = _place_from(record, shape)
        (raw,) = record.arrays
        if raw.size != 4 * box.n_voxels:
            raise InputError("the journal holds objects that do not fit their box")
        ids: Ids = raw.view("<u4").reshape(box.shape).astype(np.uint32)
        if ids.max() > HIGHEST_ID:
            raise InputError(f"the journal holds object {ids.max()}, but {HIGHEST_ID} is the highest that can be")
        return frame, box, ids, tuple(_whole(n, MAX_CLASSES) for n in record.values.get("classes", ()))


def record_of_change(change: Change, op: str = CHANGED) -> JournalRecord:
    """The record of a change, or of taking it back or making it again: each says all."""
    stroke = change.stroke
    values = {
        **_place_of(change.frame, change.box),
        "before": change.before,
        "after": change.after,
        "stroke": None if stroke is None else [stroke.number, *values_of(stroke)],
        "is_painted": change.is_painted,
    }
    return JournalRecord(op, values, (change.bits,))


def change_of(record: JournalRecord, shape: Shape4) -> Change:
    """The change that a record tells of; raises as `search_of`."""
    with _making_sense(record):
        frame, box = _place_from(record, shape)
        (bits,) = record.arrays
        before, after = (_whole(record.values[name], HIGHEST_ID) for name in ("before", "after"))
        if bits.size != -(-box.n_voxels // 8) or not unpack(bits, box.shape).any():
            raise InputError("the journal holds a change of objects that does not fit its box")
        known = record.values["stroke"]
        stroke = None if known is None else Stroke(int(known[0]), *new_stroke_of(known[1:]))
        return Change(frame, box, bits, before, after, stroke, bool(record.values["is_painted"]))


@contextmanager
def _making_sense(record: JournalRecord) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise InputError(f"the journal holds a record ({record.op!r}) that makes no sense: {error}") from error


def _place_of(frame: int, box: Box) -> dict[str, Any]:
    return {"frame": frame, "start": box.start, "stop": box.stop}


def _place_from(record: JournalRecord, shape: Shape4) -> tuple[int, Box]:
    """Frame and box, which must lie in the image: nothing is unpacked before."""
    values, n_frames, space = record.values, shape[0], shape[1:]
    frame = _whole(values["frame"], n_frames - 1)
    starts, stops = ([_whole(n, size) for n, size in zip(values[k], space, strict=True)] for k in ("start", "stop"))
    box = Box((starts[0], starts[1], starts[2]), (stops[0], stops[1], stops[2]))
    if min(box.shape) < 1:
        raise InputError(f"the journal holds objects in a box from {box.start} to {box.stop}, which is none")
    return frame, box


def _whole(value: Any, highest: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= highest:
        raise ValueError(f"{value!r} is not a whole number from 0 to {highest}")
    return value
