"""Folds: the annotation as of one moment, as arrays of zarr that hold what is painted and nothing else."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from napari_sparseseg._types import MAX_CLASSES
from napari_sparseseg.errors import ProjectError
from napari_sparseseg.storage._records import new_stroke_of, plane_of, sets_of, values_of, values_of_sets
from napari_sparseseg.storage._voxels import SEGMENT, Painted
from napari_sparseseg.storage.durable import Disk
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


class _Block(NamedTuple):
    """The voxels of a shard, dense, and where the first one lies."""

    corner: tuple[int, ...]
    codes: npt.NDArray[np.uint8]
    ids: npt.NDArray[np.uint16]

    @property
    def described(self) -> list[Any]:
        """What is compared after reading: corner, painted voxels, checksum."""
        ids = np.ascontiguousarray(self.ids, "<u2")
        checksum = zlib.crc32(ids.data, zlib.crc32(np.ascontiguousarray(self.codes).data))
        return [list(self.corner), int(np.count_nonzero(self.codes)), checksum]


def write_fold(disk: Disk, folder: Path, state: StoreState) -> None:
    """Write a state of the annotation into a new folder; once this returns it lasts. Raises OSError."""
    writer = GroupWriter(disk, folder)
    codes, ids = writer.array(_CODES, state.shape, np.uint8), writer.array(_STROKES, state.shape, np.uint16)
    shards = []
    for frame, painted in state.painted.items():
        for block in _blocks(state.shape, frame, painted):
            writer.write(codes, block.corner, block.codes)
            writer.write(ids, block.corner, block.ids)
            shards.append(block.described)
    writer.finish({_ATTRIBUTE: {**_described(state), "shards": shards}})


def read_fold(folder: Path, shape: _Shape4) -> StoreState:
    """Read what `write_fold` wrote for an image of this shape.

    Raises `ProjectError` if anything about it is wrong: it is all there and all right, or not used.
    """
    with damage(folder):
        about = attributes_of(folder)[_ATTRIBUTE]
        strokes = tuple(Stroke(int(n), *new_stroke_of(entry)) for n, *entry in about["strokes"])
        _require(len(strokes) <= MAX_STROKES, folder, "too many strokes")
        sets = sets_of(about["sets"])
        complete = frozenset(map(plane_of, about["complete"]))
        painted = _read_painted(folder, shape, about["shards"], set(sets), len(strokes))
        return StoreState(shape, painted, sets, strokes, complete, 0, 0)


def _require(holds: bool, folder: Path, problem: str) -> None:
    if not holds:
        raise ProjectError(f"{folder} is damaged ({problem}); what is older is used")


def _described(state: StoreState) -> dict[str, Any]:
    return {
        "strokes": [[stroke.number, *values_of(stroke)] for stroke in state.strokes],
        "sets": values_of_sets(state.sets),
        "complete": sorted([plane.frame, plane.axis, plane.index] for plane in state.complete),
    }


# --- segments to shards and back ---


def _blocks(shape: _Shape4, frame: int, painted: Painted) -> Iterator[_Block]:
    """The shards of a frame that hold paint."""
    _, depth, height, width = shape
    for z in range(0, depth, SHARD[1]):
        for y in range(0, height, SHARD[2]):
            size = (min(SHARD[1], depth - z), min(SHARD[2], height - y), width)
            rows = [_Row((z + i) * height * width + y * width, size[1] * width) for i in range(size[0])]
            found = [row.segments(painted.start) for row in rows]
            if all(chosen.start == chosen.stop for chosen in found):
                continue
            codes, ids = np.zeros(size, np.uint8), np.zeros(size, np.uint16)
            for row, chosen, code_plane, id_plane in zip(rows, found, codes, ids, strict=True):
                row.spread(painted.start, painted.codes, chosen, code_plane)
                row.spread(painted.start, painted.ids, chosen, id_plane)
            for x in range(0, width, SHARD[3]):
                part = (slice(None), slice(None), slice(x, x + SHARD[3]))
                if codes[part].any():
                    yield _Block((frame, z, y, x), codes[part][None], ids[part][None])


class _Row(NamedTuple):
    """A part of a frame that lies in one piece in memory: flat index of its first voxel, and its length."""

    first: int
    n_voxels: int

    def segments(self, start: npt.NDArray[np.int64]) -> slice:
        """Which of the segments, ascending by their start, have voxels in it."""
        low, high = np.searchsorted(start, [self.first - SEGMENT + 1, self.first + self.n_voxels]).tolist()
        return slice(low, high)

    def spread(
        self, start: npt.NDArray[np.int64], values: npt.NDArray[Any], chosen: slice, plane: npt.NDArray[Any]
    ) -> None:
        """Write the values of segments into a plane of its voxels."""
        if chosen.start == chosen.stop:
            return
        shift = int(self.first - start[chosen.start]) % SEGMENT
        whole = np.zeros((-(-(shift + self.n_voxels) // SEGMENT), SEGMENT), values.dtype)
        whole[(start[chosen] - (self.first - shift)) // SEGMENT] = values[chosen]
        plane[:] = whole.reshape(-1)[shift : shift + self.n_voxels].reshape(plane.shape)


def _read_painted(folder: Path, shape: _Shape4, shards: Any, set_codes: set[int], n_strokes: int) -> dict[int, Painted]:
    """Read all shards, and compare them with what is known of them."""
    codes = open_array(folder, _CODES, shape, np.uint8)
    ids = open_array(folder, _STROKES, shape, np.uint16)
    corners = stored_corners(folder / _CODES, shape)
    known = {tuple(corner): [list(corner), n_voxels, checksum] for corner, n_voxels, checksum in shards}
    _require(set(corners) == set(known), folder, "voxels are missing")
    found: dict[int, list[Painted]] = {}
    for corner in corners:
        where = shard_slices(corner, shape)
        block = _Block(corner, np.asarray(codes[where]), np.asarray(ids[where]))
        _require(block.described == known[corner], folder, "voxels are missing or changed")
        _require(int(block.ids.max()) <= n_strokes, folder, "voxels of strokes that are not there")
        present = np.flatnonzero(np.bincount(block.codes.reshape(-1)))
        _require(set(present[present > MAX_CLASSES].tolist()) <= set_codes, folder, "voxels of sets that are not there")
        found.setdefault(corner[0], []).append(_segments_of(block, shape))
    return {frame: _joined(parts) for frame, parts in found.items()}


def _segments_of(block: _Block, shape: _Shape4) -> Painted:
    """Segments that hold the paint of a shard: pieces of its rows along x, which lie at any index."""
    _, _, height, width = shape
    _, n_z, n_y, n_x = block.codes.shape
    n_pieces = -(-n_x // SEGMENT)
    parts = []
    for values in (block.codes, block.ids):
        padded = np.zeros((n_z, n_y, n_pieces * SEGMENT), values.dtype)
        padded[..., :n_x] = values[0]
        parts.append(padded.reshape(-1, SEGMENT))
    codes, ids = parts
    _, z, y, x = block.corner
    rows = ((np.arange(z, z + n_z)[:, None] * height) + np.arange(y, y + n_y))[..., None] * width
    start = (rows + x + np.arange(n_pieces) * SEGMENT).reshape(-1)
    is_painted = codes.any(axis=1)
    return Painted(start[is_painted], codes[is_painted], ids[is_painted], None)


def _joined(parts: list[Painted]) -> Painted:
    start, codes, ids = (np.concatenate([part[i] for part in parts]) for i in range(3))
    return Painted(start, codes, ids, None)
