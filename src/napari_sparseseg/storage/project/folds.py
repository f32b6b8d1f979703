"""Folds: the annotation as of one moment, as arrays of zarr that hold what is painted and nothing else."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from napari_sparseseg._types import MAX_CLASSES, MAX_CODE, Plane
from napari_sparseseg.errors import ProjectError
from napari_sparseseg.storage._records import new_stroke_of, values_of
from napari_sparseseg.storage._voxels import SEGMENT, Painted
from napari_sparseseg.storage.durable import Disk
from napari_sparseseg.storage.palette import FIRST_SET, ClassSet
from napari_sparseseg.storage.project.zarrs import (
    SHARD,
    GroupWriter,
    attributes_of,
    damage,
    open_array,
    shard_slices,
    stored_corners,
)
from napari_sparseseg.storage.strokes import MAX_STROKES, StoreState, Stroke

_CODES, _STROKES = "annotation", "stroke"
_ATTRIBUTE = "sparseseg"

_Shape4 = tuple[int, int, int, int]


class _Paint(NamedTuple):
    """Painted voxels of one frame: flat index, ascending, code, and id of the stroke."""

    places: npt.NDArray[np.int64]
    codes: npt.NDArray[np.uint8]
    ids: npt.NDArray[np.uint16]

    @property
    def checksum(self) -> int:
        return zlib.crc32(self.places.astype("<i8").tobytes() + self.codes.tobytes() + self.ids.astype("<u2").tobytes())


def write_fold(disk: Disk, folder: Path, state: StoreState) -> None:
    """Write a state of the annotation into a new folder; once this returns it lasts. Raises OSError."""
    paint = {frame: _paint_of(painted, state.shape) for frame, painted in state.painted.items()}
    writer = GroupWriter(disk, folder, {_ATTRIBUTE: _described(state, paint)})
    for name, dtype in ((_CODES, np.uint8), (_STROKES, np.uint16)):
        array = writer.array(name, state.shape, dtype)
        for frame, found in paint.items():
            values: npt.NDArray[Any] = found.codes if name == _CODES else found.ids
            for corner, block in _blocks(state.shape, frame, found.places, values):
                writer.write(array, corner, block)
    writer.finish()


def read_fold(folder: Path, shape: _Shape4) -> StoreState:
    """Read what `write_fold` wrote for an image of this shape.

    Raises `ProjectError` if anything about it is wrong: it is all there and all right, or not used.
    """
    with damage(folder):
        about = attributes_of(folder)[_ATTRIBUTE]
        strokes = tuple(Stroke(int(n), *new_stroke_of(entry)) for n, *entry in about["strokes"])
        _require(len(strokes) <= MAX_STROKES, folder, "too many strokes")
        sets = {int(code): ClassSet(frozenset(ids), bool(forbids)) for code, forbids, ids in about["sets"]}
        _require(all(FIRST_SET <= code <= MAX_CODE for code in sets), folder, "a set with a code of a class")
        for known in sets.values():
            _require(all(1 <= i <= MAX_CLASSES for i in known.class_ids), folder, "a set of impossible classes")
        complete = frozenset(Plane(*plane) for plane in about["complete"])
        paint = _read_paint(folder, shape)
        known_sums = {int(frame): (int(n), int(crc)) for frame, n, crc in about["frames"]}
        sums = {frame: (len(found.places), found.checksum) for frame, found in paint.items()}
        _require(sums == known_sums, folder, "voxels are missing or changed")
        for found in paint.values():
            _require(int(found.ids.max()) <= len(strokes), folder, "voxels of strokes that are not there")
            high = set(np.unique(found.codes[found.codes > MAX_CLASSES]).tolist())
            _require(high <= set(sets), folder, "voxels of sets that are not there")
        return StoreState(shape, {f: _segments_of(p) for f, p in paint.items()}, sets, strokes, complete, 0, 0)


def _require(holds: bool, folder: Path, problem: str) -> None:
    if not holds:
        raise ProjectError(f"{folder} is damaged ({problem}); what is older is used")


def _described(state: StoreState, paint: dict[int, _Paint]) -> dict[str, Any]:
    return {
        "strokes": [[stroke.number, *values_of(stroke)] for stroke in state.strokes],
        "sets": [[code, known.is_forbidding, sorted(known.class_ids)] for code, known in state.sets.items()],
        "complete": sorted([plane.frame, plane.axis, plane.index] for plane in state.complete),
        "frames": [[frame, len(found.places), found.checksum] for frame, found in paint.items()],
    }


def _paint_of(painted: Painted, shape: _Shape4) -> _Paint:
    places = np.flatnonzero(painted.codes.ravel())
    index = painted.start[places // SEGMENT] + places % SEGMENT
    # the first and the last segment may reach into other frames
    first, last = np.searchsorted(index, [0, int(np.prod(shape[1:]))]).tolist()
    places = places[first:last]
    return _Paint(index[first:last], painted.codes.ravel()[places], painted.ids.ravel()[places])


def _segments_of(paint: _Paint) -> Painted:
    segments, place = np.unique(paint.places // SEGMENT, return_inverse=True)
    codes, ids = np.zeros((len(segments), SEGMENT), np.uint8), np.zeros((len(segments), SEGMENT), np.uint16)
    codes[place, paint.places % SEGMENT] = paint.codes
    ids[place, paint.places % SEGMENT] = paint.ids
    return Painted(segments * SEGMENT, codes, ids, None)


def _blocks(
    shape: _Shape4, frame: int, index: npt.NDArray[np.int64], values: npt.NDArray[Any]
) -> Iterator[tuple[tuple[int, ...], npt.NDArray[Any]]]:
    """Dense voxels of each shard that holds some of the paint, and its first voxel."""
    voxels = np.stack(np.unravel_index(index, shape[1:]))
    grid = voxels // np.array(SHARD[1:])[:, None]
    n_shards = tuple(-(-n // s) for n, s in zip(shape[1:], SHARD[1:], strict=True))
    number = np.ravel_multi_index(tuple(grid), n_shards)
    order = np.argsort(number, kind="stable")
    bounds = np.flatnonzero(np.diff(number[order], prepend=-1, append=-1))
    for first, last in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        chosen = order[first:last]
        corner = (frame, *(int(g) * s for g, s in zip(grid[:, chosen[0]], SHARD[1:], strict=True)))
        block = np.zeros([s.stop - s.start for s in shard_slices(corner, shape)], values.dtype)
        block[0][tuple(voxels[:, chosen] - np.array(corner[1:])[:, None])] = values[chosen]
        yield corner, block


def _read_paint(folder: Path, shape: _Shape4) -> dict[int, _Paint]:
    codes = open_array(folder, _CODES, shape, np.uint8)
    ids = open_array(folder, _STROKES, shape, np.uint16)
    pieces: dict[int, list[_Paint]] = {}
    for corner in stored_corners(folder / _CODES, shape):
        where = shard_slices(corner, shape)
        block = np.asarray(codes[where])
        places = np.flatnonzero(block)
        voxels = np.unravel_index(places, block.shape)
        inside = tuple(v + c for v, c in zip(voxels[1:], corner[1:], strict=True))
        index = np.ravel_multi_index(inside, shape[1:]).astype(np.int64)
        stroke_ids = np.asarray(ids[where]).ravel()[places]
        if len(index):
            pieces.setdefault(corner[0], []).append(_Paint(index, block.ravel()[places], stroke_ids))
    found = {}
    for frame, parts in pieces.items():
        index, values, numbers = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = np.argsort(index)
        found[frame] = _Paint(index[order], values[order], numbers[order])
    return found
