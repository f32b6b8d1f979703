"""Dense arrays of codes and stroke ids that know where they are not empty."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from napari_sparseseg._types import Box, Plane, Shape3D
from napari_sparseseg.storage._edits import Codes, Mask, box_around
from napari_sparseseg.storage._stroke_table import Ids
from napari_sparseseg.storage.sparse import zeros

SEGMENT = 64
"""Voxels that lie side by side in memory and are looked at together."""

_SEGMENTS_AT_ONCE = 2**13
_GROUP = 2**12  # segments that are looked at only if one of them was ever painted


class Painted(NamedTuple):
    """Copies of the segments of one frame that are not empty, in C order; `start` is their first voxel's index."""

    start: npt.NDArray[np.int64]
    codes: Codes
    ids: Ids
    is_complete: Mask | None

    def part(self, chosen: slice) -> Painted:
        """Some of the segments."""
        is_complete = None if self.is_complete is None else self.is_complete[chosen]
        return Painted(self.start[chosen], self.codes[chosen], self.ids[chosen], is_complete)

    def cubes(self, shape: Shape3D, edge: int) -> npt.NDArray[np.intp]:
        """Which cubes of a grid over a frame of this shape hold something: their numbers along z, y, x, in C order."""
        is_there = np.zeros([-(-size // edge) for size in shape], np.bool_)
        for first in range(0, len(self.start), _SEGMENTS_AT_ONCE):
            part = self.part(slice(first, first + _SEGMENTS_AT_ONCE))
            is_said = part.codes != 0 if part.is_complete is None else (part.codes != 0) | part.is_complete
            index = (part.start[:, None] + np.arange(SEGMENT))[is_said]
            z, y, x = np.unravel_index(index[(index >= 0) & (index < np.prod(shape))], shape)
            is_there[z // edge, y // edge, x // edge] = True
        return np.argwhere(is_there)


class Voxels:
    """Codes, stroke ids and complete slices of all frames.

    The arrays are as large as the image; the operating system commits their memory as they are painted. A table of
    occupied segments makes reading all that was painted a matter of the paint's size.
    """

    def __init__(self, shape: tuple[int, int, int, int]) -> None:
        self.shape = shape
        n_segments = -(-int(np.prod(shape)) // SEGMENT)
        self._codes = zeros((n_segments * SEGMENT,), np.uint8)
        self._ids = zeros((n_segments * SEGMENT,), np.uint16)
        self._complete: npt.NDArray[np.uint8] | None = None
        self._is_occupied = zeros((n_segments,), np.bool_)
        self._was_occupied = np.zeros(-(-n_segments // _GROUP), np.bool_)  # groups of segments
        self._n_of_code = np.zeros((shape[0], 256), np.int64)
        self._n_of_id = np.zeros(2**16, np.int64)
        self._n_of_code[:, 0] = int(np.prod(shape[1:]))
        self._n_of_id[0] = int(np.prod(shape))
        self.codes: Codes = self._as_volumes(self._codes)
        self.ids: Ids = self._as_volumes(self._ids)

    @property
    def n_of_code(self) -> npt.NDArray[np.int64]:
        """Voxels of each code, (frames, 256)."""
        return self._n_of_code

    @property
    def n_of_id(self) -> npt.NDArray[np.int64]:
        """Voxels of each stroke id, (65536,)."""
        return self._n_of_id

    def put(self, frame: int, box: Box, mask: Mask, codes: Codes, ids: Ids) -> None:
        """Write codes and ids (one for each voxel of the mask, or a single one for all)."""
        code_block, id_block = self.codes[frame][box.slices], self.ids[frame][box.slices]
        n_voxels = int(np.count_nonzero(mask))
        self._count(frame, code_block[mask], id_block[mask], n_voxels, -1)
        code_block[mask] = codes
        id_block[mask] = ids
        self._count(frame, codes, ids, n_voxels, 1)
        self._update_occupied(frame, box)

    def put_painted(self, frame: int, painted: Painted) -> None:
        """Write segments into a frame, as `read_painted` has them; no voxel in them may be painted there already."""
        for first in range(0, len(painted.start), _SEGMENTS_AT_ONCE):
            self._put_some(frame, painted.part(slice(first, first + _SEGMENTS_AT_ONCE)))

    def _put_some(self, frame: int, painted: Painted) -> None:
        size = int(np.prod(self.shape[1:]))
        index = (painted.start[:, None] + np.arange(SEGMENT)).ravel()
        codes, ids = painted.codes.ravel(), painted.ids.ravel()
        chosen = (codes != 0) & (index >= 0) & (index < size)
        index, codes, ids = index[chosen] + frame * size, codes[chosen], ids[chosen]
        self._codes[index] = codes
        self._ids[index] = ids
        self._is_occupied[index // SEGMENT] = True
        self._was_occupied[index // (SEGMENT * _GROUP)] = True
        for table, values in ((self._n_of_code[frame], codes), (self._n_of_id, ids)):
            found = np.bincount(values)
            table[: len(found)] += found
            table[0] -= len(values)

    def mark_complete(self, plane: Plane, others: tuple[Plane, ...], is_complete: bool) -> None:
        """Mark the voxels of a plane, or unmark those that no other complete plane shares."""
        if self._complete is None:
            self._complete = zeros((self._codes.size,), np.uint8)
        frame = self._as_volumes(self._complete)[plane.frame]
        shape = self.shape[1:]
        frame[plane.box(shape).slices] = is_complete
        for other in others if not is_complete else ():
            frame[other.box(shape).slices] = 1
        self._update_occupied(plane.frame, plane.box(shape))

    def read_painted(self, frame: int) -> Painted:
        """Copies of all segments with paint in a frame; at the ends they may reach into its neighbours."""
        chosen = self._occupied_in(frame)
        return Painted(
            chosen * SEGMENT - frame * int(np.prod(self.shape[1:])),
            self._codes.reshape(-1, SEGMENT)[chosen],
            self._ids.reshape(-1, SEGMENT)[chosen],
            None if self._complete is None else self._complete.reshape(-1, SEGMENT)[chosen].view(np.bool_),
        )

    def replace_codes(self, moved: Mapping[int, int]) -> list[tuple[int, Box]]:
        """Put other codes (0: unpainted) in the place of some; the box that changed in each frame."""
        table = np.arange(256, dtype=np.uint8)
        table[list(moved)] = list(moved.values())
        frames = np.flatnonzero(self._n_of_code[:, list(moved)].any(axis=1)).tolist()
        return [(frame, self._replace_codes_in(frame, table)) for frame in frames]

    def _replace_codes_in(self, frame: int, table: Codes) -> Box:
        occupied, boxes = self._occupied_in(frame), []
        for first in range(0, len(occupied), _SEGMENTS_AT_ONCE):
            segments = occupied[first : first + _SEGMENTS_AT_ONCE]
            index = self._index_of(frame, segments)
            index = index[table[self._codes[index]] != self._codes[index]]
            if index.size:
                self._recode(frame, index, table)
                boxes.append(self._box_holding(index))
                self._look_again(segments)
        return reduce(box_around, boxes)

    def _recode(self, frame: int, index: npt.NDArray[np.int64], table: Codes) -> None:
        before, ids = self._codes[index], self._ids[index]
        after = table[before]
        new_ids = np.where(after == 0, 0, ids).astype(np.uint16)
        self._count(frame, before, ids, len(index), -1)
        self._codes[index], self._ids[index] = after, new_ids
        self._count(frame, after, new_ids, len(index), 1)

    def _index_of(self, frame: int, segments: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Voxels of segments that are of a frame, as they lie in memory."""
        size = int(np.prod(self.shape[1:]))
        index = (segments[:, None] * SEGMENT + np.arange(SEGMENT)).ravel()
        within: npt.NDArray[np.int64] = index[(index >= frame * size) & (index < (frame + 1) * size)]
        return within

    def _box_holding(self, index: npt.NDArray[np.int64]) -> Box:
        """The smallest box that holds voxels of a frame."""
        _, *place = np.unravel_index(index, self.shape)
        (z, y, x), (last_z, last_y, last_x) = ([int(find(axis)) for axis in place] for find in (np.min, np.max))
        return Box((z, y, x), (last_z + 1, last_y + 1, last_x + 1))

    def replace_ids(self, table: Ids) -> None:
        """Put `table[id]` in the place of each stroke id."""
        occupied = self._occupied(0, len(self._is_occupied))
        segments = self._ids.reshape(-1, SEGMENT)
        segments[occupied] = table[segments[occupied]]
        counts = np.bincount(table, weights=self._n_of_id, minlength=len(self._n_of_id))
        self._n_of_id[:] = counts.astype(np.int64)

    def _as_volumes(self, flat: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return flat[: int(np.prod(self.shape))].reshape(self.shape)

    def _count(self, frame: int, codes: Codes, ids: Ids, n_voxels: int, sign: int) -> None:
        for table, values in ((self._n_of_code[frame], codes), (self._n_of_id, ids)):
            if values.size == 1:
                table[int(values.reshape(-1)[0])] += sign * n_voxels
            else:
                found = np.bincount(values)
                table[: len(found)] += sign * found

    def _occupied(self, first: int, stop: int) -> npt.NDArray[np.int64]:
        """Segments from `first` to before `stop` that are not empty, in order."""
        groups = np.flatnonzero(self._was_occupied)
        segments = (groups[:, None] * _GROUP + np.arange(_GROUP)).ravel()
        segments = segments[(segments >= first) & (segments < stop)]
        occupied: npt.NDArray[np.int64] = segments[self._is_occupied[segments]]
        return occupied

    def _occupied_in(self, frame: int) -> npt.NDArray[np.int64]:
        """Segments with something of a frame that are not empty, in order; at the ends they may reach out of it."""
        size = int(np.prod(self.shape[1:]))
        return self._occupied(frame * size // SEGMENT, -(-(frame + 1) * size // SEGMENT))

    def _update_occupied(self, frame: int, box: Box) -> None:
        """Look again at all segments that the box touches."""
        _, depth, height, width = self.shape
        z = np.arange(box.start[0], box.stop[0]) + frame * depth
        y = np.arange(box.start[1], box.stop[1])
        rows = ((z[:, None] * height + y) * width).ravel()
        first, last = (rows + box.start[2]) // SEGMENT, (rows + box.stop[2] - 1) // SEGMENT
        n_side_by_side = int((last - first).max()) + 1
        segments = np.minimum(first[:, None] + np.arange(n_side_by_side), last[:, None]).ravel()
        self._was_occupied[segments // _GROUP] = True
        self._look_again(segments)

    def _look_again(self, segments: npt.NDArray[np.int64]) -> None:
        """Tell which of some segments are not empty."""
        self._is_occupied[segments] = self._any(self._codes, segments)
        if self._complete is not None:
            self._is_occupied[segments] |= self._any(self._complete, segments)

    @staticmethod
    def _any(flat: npt.NDArray[np.uint8], segments: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        words = flat.view(np.uint64).reshape(-1, SEGMENT // 8)
        return np.asarray(words[segments].any(axis=1))
