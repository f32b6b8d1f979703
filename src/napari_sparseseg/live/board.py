"""Which tiles have been predicted, with what, and which one is wanted next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_sparseseg._types import Box, Shape3D
from napari_sparseseg.live.events import View

NEVER, STALE, FRESH = 0, 1, 2
EXPIRED = -2
"""Revision of what was predicted by another model."""

_Part = tuple[slice, slice, slice]

_NEVER = -1
_GROWTH = 1.5  # weights have moved enough to matter after half as many steps again
_FEWEST_STEPS = 25


@dataclass(frozen=True, slots=True)
class Generation:
    """A state of the weights that predicts: a running number, the paint it has learnt, and its training steps."""

    number: int
    revision: int
    step: int


class TileBoard:
    """Freshness of the tiles of one volume. Not thread-safe."""

    def __init__(self, shape: Shape3D, tile_shape: Shape3D) -> None:
        self.shape = shape
        self.tile_shape = tile_shape
        self.grid = grid_of(shape, tile_shape)
        self._number = np.full(self.grid, _NEVER, np.int64)
        self._revision = np.full(self.grid, _NEVER, np.int64)
        self._step = np.zeros(self.grid, np.int64)
        self._touched = np.full(self.grid[:2], _NEVER, np.int64)  # rows of tiles along x, by their latest generation
        starts = [np.arange(n) * t for n, t in zip(self.grid, tile_shape, strict=True)]
        self._low = np.stack(np.meshgrid(*starts, indexing="ij"), -1)
        self._high = np.minimum(self._low + tile_shape, shape)

    def box(self, index: Shape3D) -> Box:
        """The voxels of a tile."""
        return Box(_triple(self._low[index]), _triple(self._high[index]))

    def mark(self, index: Shape3D, generation: Generation) -> None:
        """Note that a tile shows this generation."""
        self._number[index] = generation.number
        self._revision[index] = generation.revision
        self._step[index] = generation.step
        self._touched[index[:2]] = generation.number

    def touch(self, box: Box, generation: Generation) -> None:
        """Note that something of a box shows this generation, be it less than a tile."""
        z, y, _ = self._part(box)
        self._touched[z, y] = generation.number

    def expire(self) -> None:
        """All that was predicted is out of date, for instance because the model is another one."""
        self._revision.fill(EXPIRED)

    def known(self, box: Box) -> npt.NDArray[np.bool_]:
        """Which voxels of a box lie in tiles that were ever predicted."""
        tiles = [np.arange(a, b) // t for a, b, t in zip(box.start, box.stop, self.tile_shape, strict=True)]
        is_known: npt.NDArray[np.bool_] = self._number[np.ix_(*tiles)] != _NEVER
        return is_known

    def states(self, generation: Generation | None) -> npt.NDArray[np.uint8]:
        """NEVER, STALE or FRESH for each tile."""
        states = np.where(self._number == _NEVER, NEVER, FRESH).astype(np.uint8)
        if generation is not None:
            states[(states == FRESH) & self._is_stale(generation)] = STALE
        return states

    def known_boxes(self) -> list[Box]:
        """The tiles that were ever predicted."""
        return [self.box(_triple(index)) for index in np.argwhere(self._number != _NEVER)]

    def n_rows(self) -> int:
        """Rows of tiles along x of which something is known, or was previewed."""
        return int((self._touched != _NEVER).sum())

    def forget_row(self, seen: Box | None, view: View | None) -> Box | None:
        """Forget the row of tiles that was predicted longest ago, the farthest of several; its voxels.

        Not what is `seen`, or next to it; None if that is all.
        """
        is_kept = self._touched == _NEVER
        if seen is not None:
            is_kept[self._part(seen.grown(self.tile_shape))[:2]] = True
        rows = np.argwhere(~is_kept)
        if not len(rows):
            return None
        z, y = (int(n) for n in min(rows, key=lambda row: (self._touched[tuple(row)], -self._distance(row, view))))
        self._number[z, y] = self._touched[z, y] = _NEVER
        first, last = self.box((z, y, 0)), self.box((z, y, self.grid[2] - 1))
        return Box(first.start, last.stop)

    def is_touched(self, box: Box) -> bool:
        """Whether all rows that something of a box lies in are known, or were previewed."""
        return bool((self._touched[self._part(box)[:2]] != _NEVER).all())

    def _distance(self, row: npt.NDArray[np.intp], view: View | None) -> float:
        if view is None:
            return 0.0
        middle = (self._low[tuple(row)][0] + self._high[tuple(row)][0]) / 2
        return float(np.abs(middle - view.center)[:2].sum())

    def n_fresh(self, generation: Generation | None) -> int:
        """How many tiles are FRESH."""
        known = np.nonzero(self._number != _NEVER)
        return len(known[0]) - (0 if generation is None else int(self._is_stale(generation, known).sum()))

    def next_on_screen(self, view: View, generation: Generation, hot: Shape3D | None) -> Shape3D | None:
        """Of the tiles on screen that do not show this generation: the one closest to `hot`, or to the eye.

        `hot` counts while it is on screen.
        """
        if not view.box.n_voxels:
            return None
        part = self._part(view.box)
        wanted = self._number[part] != generation.number
        center = hot if hot is not None and _holds(view.box, hot) else view.center
        return self._closest(part, wanted, center, view, weight_across=1.0)

    def next_elsewhere(self, view: View | None, generation: Generation, within: Box | None = None) -> Shape3D | None:
        """Of the tiles that are out of date: the one closest to the plane on screen, then to the eye.

        Only of those that something of the box `within` lies in, if there is one.
        """
        part = self._part(within or Box.whole(self.shape))
        wanted = (self._number[part] == _NEVER) | self._is_stale(generation, part)
        center = view.center if view else tuple(n / 2 for n in self.shape)
        return self._closest(part, wanted, center, view, weight_across=1000.0)

    def _part(self, box: Box) -> _Part:
        """Tiles that something of a box lies in."""
        clipped = box.clipped(Box.whole(self.shape))
        z, y, x = (
            slice(a // t, -(-b // t)) for a, b, t in zip(clipped.start, clipped.stop, self.tile_shape, strict=True)
        )
        return z, y, x

    def _is_stale(self, generation: Generation, part: Any = ...) -> npt.NDArray[np.bool_]:
        step = self._step[part]
        moved = generation.step >= np.maximum(step * _GROWTH, step + _FEWEST_STEPS)
        is_anew = generation.step < step  # learning has begun anew
        stale: npt.NDArray[np.bool_] = (self._revision[part] != generation.revision) | moved | is_anew
        return stale

    def _closest(
        self,
        part: _Part,
        wanted: npt.NDArray[np.bool_],
        center: tuple[float, ...],
        view: View | None,
        weight_across: float,
    ) -> Shape3D | None:
        if not wanted.any():
            return None
        low, high = self._low[part], self._high[part]
        middle = (low + high) / 2
        weight = np.ones(3)
        if view is not None:
            weight[view.plane.axis] = weight_across
        # a tile that holds the eye's voxel is closest, however large it is
        apart = np.maximum(0, np.abs(middle - center) - (high - low) / 2)
        distance = (weight * apart).sum(-1) + 1e-3 * np.abs(middle - center).sum(-1)
        z, y, x = np.unravel_index(int(np.argmin(np.where(wanted, distance, np.inf))), wanted.shape)
        return int(z) + part[0].start, int(y) + part[1].start, int(x) + part[2].start


def live_tile_shape(shape: Shape3D) -> Shape3D:
    """Tiles that are predicted in a fraction of a second on a CPU.

    Thin along z, where people look at slices most; 2D images get larger squares. Powers of two, and so multiples of the
    network's stride; whatever the model, the tiles stay the same.
    """
    depth, edge = (16, 64) if shape[0] > 1 else (1, 128)
    z, y, x = (min(wanted, n) for wanted, n in zip((depth, edge, edge), shape, strict=True))
    return z, y, x


def grid_of(shape: Shape3D, tile_shape: Shape3D) -> Shape3D:
    """Tiles along z, y, x."""
    z, y, x = (-(-n // t) for n, t in zip(shape, tile_shape, strict=True))
    return z, y, x


def _holds(box: Box, voxel: Shape3D) -> bool:
    return all(a <= v < b for a, v, b in zip(box.start, voxel, box.stop, strict=True))


def _triple(values: npt.NDArray[np.integer] | tuple[np.intp, ...]) -> Shape3D:
    z, y, x = (int(v) for v in values)
    return z, y, x
