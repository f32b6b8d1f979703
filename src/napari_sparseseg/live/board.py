"""Which tiles have been predicted, with what, and which one is wanted next."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_sparseseg._types import Box, Shape3D
from napari_sparseseg.live.events import View

NEVER, STALE, FRESH = 0, 1, 2
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
        z, y, x = (-(-n // t) for n, t in zip(shape, tile_shape, strict=True))
        self.grid: Shape3D = (z, y, x)
        self._number = np.full(self.grid, _NEVER, np.int64)
        self._revision = np.full(self.grid, _NEVER, np.int64)
        self._step = np.zeros(self.grid, np.int64)
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

    def clear(self) -> None:
        """Nothing has been predicted."""
        self._number.fill(_NEVER)
        self._revision.fill(_NEVER)

    def is_new(self, box: Box) -> bool:
        """Whether no tile that the box touches was ever predicted."""
        first = [a // t for a, t in zip(box.start, self.tile_shape, strict=True)]
        last = [(b - 1) // t + 1 for b, t in zip(box.stop, self.tile_shape, strict=True)]
        touched = self._number[tuple(slice(a, b) for a, b in zip(first, last, strict=True))]
        return bool((touched == _NEVER).all())

    def states(self, generation: Generation | None) -> npt.NDArray[np.uint8]:
        """NEVER, STALE or FRESH for each tile."""
        states = np.where(self._number == _NEVER, NEVER, FRESH).astype(np.uint8)
        if generation is not None:
            states[(states == FRESH) & self._is_stale(generation)] = STALE
        return states

    def next_on_screen(self, view: View, generation: Generation, hot: Shape3D | None) -> Shape3D | None:
        """Of the tiles on screen that do not show this generation: the one closest to `hot`, or to the eye."""
        low, high = np.asarray(view.box.start), np.asarray(view.box.stop)
        on_screen = ((self._low < high) & (self._high > low)).all(-1)
        wanted = on_screen & (self._number != generation.number)
        return self._closest(wanted, hot or view.center, view, weight_across=1.0)

    def next_elsewhere(self, view: View | None, generation: Generation) -> Shape3D | None:
        """Of the tiles that are out of date: the one closest to the plane on screen, then to the eye."""
        wanted = (self._number == _NEVER) | self._is_stale(generation)
        center = view.center if view else tuple(n / 2 for n in self.shape)
        return self._closest(wanted, center, view, weight_across=1000.0)

    def _is_stale(self, generation: Generation) -> npt.NDArray[np.bool_]:
        moved = generation.step >= np.maximum(self._step * _GROWTH, self._step + _FEWEST_STEPS)
        stale: npt.NDArray[np.bool_] = (self._revision != generation.revision) | moved
        return stale

    def _closest(
        self, wanted: npt.NDArray[np.bool_], center: tuple[float, ...], view: View | None, weight_across: float
    ) -> Shape3D | None:
        if not wanted.any():
            return None
        middle = (self._low + self._high) / 2
        weight = np.ones(3)
        if view is not None:
            weight[view.plane.axis] = weight_across
        # a tile that holds the eye's voxel is closest, however large it is
        apart = np.maximum(0, np.abs(middle - center) - (self._high - self._low) / 2)
        distance = (weight * apart).sum(-1) + 1e-3 * np.abs(middle - center).sum(-1)
        index = np.unravel_index(int(np.argmin(np.where(wanted, distance, np.inf))), self.grid)
        return _triple(index)


def live_tile_shape(shape: Shape3D, stride: Shape3D) -> Shape3D:
    """Tiles that are predicted in a fraction of a second on a CPU, in multiples of the network's stride.

    Thin along z, where people look at slices most; 2D images get larger squares.
    """
    depth, edge = (16, 64) if shape[0] > 1 else (1, 128)
    edges = [-(-min(wanted, n) // s) * s for wanted, n, s in zip((depth, edge, edge), shape, stride, strict=True)]
    return edges[0], edges[1], edges[2]


def _triple(values: npt.NDArray[np.integer] | tuple[np.intp, ...]) -> Shape3D:
    z, y, x = (int(v) for v in values)
    return z, y, x
