"""Where to paint next: in the largest gap between painted slices, or where the network is least sure.

Uncertainty is the entropy of a voxel's probabilities over its maximum, H = -sum p log p / log(classes), 0..1:
uncertainty sampling (Lewis and Gale 1994, arXiv:cmp-lg/9407020), on slices of volumes (Top, Hamarneh and Abugharbieh,
MICCAI 2011). A slice is worth what it tells about the slices around it beyond what painted ones tell already,

    sum over slices j of u_j max(0, k(i, j) - max over painted p of k(p, j)) / r,    k(i, j) = max(0, 1 - |i - j| / r)

with the mean uncertainty u of a slice, and the distance r between slices if they were spread evenly, this one included:
weighted facility location (Wei, Iyer and Bilmes, ICML 2015). Alone, u would choose the ends of the volume.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor

from napari_sparseseg._types import Annotation, Box, Plane, Shape3D, Spacing
from napari_sparseseg.engine.paint import painted_axis
from napari_sparseseg.engine.predictor import Predictor

TILE_VOXELS = 1 << 19
"""Voxels that are computed at each place that is looked at, including its surroundings."""
MOST_TILES = 24
"""The most places that are looked at in a volume, which bounds the time."""

Method: TypeAlias = Literal["intervals", "uncertainty"]
Painted: TypeAlias = Mapping[int, Collection[int]]
"""Indices of the slices that carry paint, by the axis across which they lie."""

_SPOT = 4.0  # radius over which uncertainty is averaged to find the spot, in units of the finest voxel edge
_SURE = 1e-6  # uncertainty of every slice: where the network is sure of everything, slices are spread evenly
_MOST_CANDIDATES = 512  # slices of an orientation that are compared, spread evenly
_LARGEST_PLANE = 1 << 26  # voxels of a slice that is searched for the spot as a whole
_PART = 96  # edge of the parts of a slice in which a spot is looked for, in voxels
_LONGEST_VOXEL = 3.0  # relative to their width, on a slice that can be painted well


@dataclass(frozen=True, slots=True)
class SliceAdvice:
    """A slice worth painting: the plane at `index` across `axis` (0 z, 1 y, 2 x); start at the voxel `spot` (z, y, x).

    `score`, 0..1, is what slices are chosen by, as if those suggested before were painted. By intervals it is the share
    of the orientation that the gap around the slice takes up, which never rises along a list. By uncertainty it is the
    mean uncertainty around the slice of what no painted one tells about, within a distance that shrinks as more slices
    are painted, so it may rise along a list, of which the order counts.
    """

    axis: int
    index: int
    spot: Shape3D
    score: float


def uncertainty(probabilities: Tensor, *, overlapping: bool = False) -> Tensor:
    """Entropy over its maximum, 0..1: (classes, ...) -> (...), float32; the highest of the classes if they overlap."""
    entropy = torch.special.entr(probabilities)
    if overlapping:
        share = (entropy + torch.special.entr(1 - probabilities)).max(0)[0] / math.log(2)
    else:
        share = entropy.sum(0) / math.log(max(2, len(probabilities)))
    found: Tensor = share.clamp_(0, 1)
    return found


def painted_slices_by_axis(annotation: Annotation) -> dict[int, set[int]]:
    """Slices that carry paint, by axis; each painted voxel counts for the orientation that holds most paint there."""
    axis = painted_axis(annotation.coordinates, annotation.shape)
    return {a: set(np.unique(annotation.coordinates[axis == a, a]).tolist()) for a in range(3)}


def paintable_axes(shape: Shape3D, spacing: Spacing) -> tuple[int, ...]:
    """Axes across which there are several slices, with voxels not much longer than wide; none for a single plane."""
    if min(shape) == 1:
        return ()  # a plane, or less, is the only slice
    found = []
    for axis in range(3):
        edges = [size for a, size in enumerate(spacing) if a != axis]
        if max(edges) <= _LONGEST_VOXEL * min(edges):
            found.append(axis)
    return tuple(found)


class Advisor:
    """Suggests slices of one volume, predicting it in small pieces.

    Without a predictor only `intervals` is possible, and the spot is the middle of the slice. `axes` are the
    orientations to choose from. Not thread-safe.
    """

    def __init__(
        self,
        shape: Shape3D,
        spacing: Spacing,
        painted: Painted,
        *,
        axes: Sequence[int],
        method: Method,
        predictor: Predictor | None = None,
        n: int = 1,
        most_tiles: int = MOST_TILES,
    ) -> None:
        if method == "uncertainty" and predictor is None:
            raise ValueError("uncertainty is the network's: pass a predictor")
        self.found: list[SliceAdvice] = []
        self._shape, self._spacing, self._painted = shape, spacing, painted
        self._axes, self._method, self._n = tuple(axes), method, n
        self._predictor, self._most_tiles = predictor, most_tiles
        self._survey = Survey(shape, spacing)

    def work(self) -> Iterator[float]:
        """Yields the share that is done after each place; `found` is complete at the end, best first."""
        if self._method == "intervals":
            self.found = list(islice(by_intervals(self._shape, self._painted, self._axes), self._n))
        if self._predictor is not None:
            tiles = self._tiles()
            for number, tile in enumerate(tiles):
                unsure = uncertainty(self._predictor.tile(tile), overlapping=self._predictor.overlapping)
                self._survey.add(tile, unsure.cpu().numpy())
                yield (number + 1) / len(tiles)
        if self._method == "uncertainty":
            profiles = {axis: self._survey.profile(axis) for axis in self._axes}
            self.found = list(islice(by_uncertainty(self._shape, profiles, self._painted), self._n))
        self.found = [replace(advice, spot=self._survey.spot(advice.axis, advice.index)) for advice in self.found]

    def _tiles(self) -> list[Box]:
        """The places to look at: all over the volume, or on the slices whose spot is wanted."""
        assert self._predictor is not None  # noqa: S101 - callers look
        whole, tile_shape = Box.whole(self._shape), self._predictor.tile_shape
        if self._method == "uncertainty":
            return spread_tiles(whole, tile_shape, self._most_tiles)
        each = max(1, self._most_tiles // max(1, len(self.found)))
        planes = [Plane(0, advice.axis, advice.index).box(self._shape) for advice in self.found]
        return [part for plane in planes for part in spread_tiles(plane, (_PART, _PART, _PART), each)]


class Survey:
    """Uncertainty at those places of a volume that were looked at."""

    def __init__(self, shape: Shape3D, spacing: Spacing) -> None:
        self._shape = shape
        self._sigma = [_SPOT * min(spacing) / edge for edge in spacing]
        self._parts: list[tuple[Box, npt.NDArray[np.float32]]] = []

    def add(self, box: Box, values: npt.NDArray[np.float32]) -> None:
        """Add the uncertainty of a box, an array of its shape; boxes must not overlap."""
        self._parts.append((box, values))

    def profile(self, axis: int) -> npt.NDArray[np.float64]:
        """Mean uncertainty of each slice across an axis, (slices,); nan where none of its voxels was looked at."""
        total, count = np.zeros(self._shape[axis]), np.zeros(self._shape[axis])
        others = tuple(a for a in range(3) if a != axis)
        for box, values in self._parts:
            total[box.slices[axis]] += values.sum(others, dtype=np.float64)
            count[box.slices[axis]] += values.size / values.shape[axis]
        means: npt.NDArray[np.float64] = np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
        return means

    def spot(self, axis: int, index: int) -> Shape3D:
        """The voxel of a slice around which uncertainty is highest; its middle if nothing of it was looked at."""
        plane = Plane(0, axis, index).box(self._shape)
        parts = [
            (part, values[part.relative_to(box.start).slices])
            for box, values in self._parts
            if (part := box.clipped(plane)).n_voxels
        ]
        if not parts:
            return _middle_of(self._shape, axis, index)
        if plane.n_voxels > _LARGEST_PLANE:  # then only the least certain part
            parts = [max(parts, key=lambda part: float(part[1].mean()))]
            plane = parts[0][0]
        known = np.zeros(plane.shape, np.float32)
        for part, values in parts:
            known[part.relative_to(plane.start).slices] = values
        sigma = [0.0 if a == axis else s for a, s in enumerate(self._sigma)]
        around = ndimage.gaussian_filter(known, sigma, mode="constant")
        place = np.unravel_index(int(around.argmax()), around.shape)
        z, y, x = (int(p) + s for p, s in zip(place, plane.start, strict=True))
        return z, y, x


def by_intervals(shape: Shape3D, painted: Painted, axes: Sequence[int]) -> Iterator[SliceAdvice]:
    """The middle of the largest gap between painted slices; then, as if that were painted, the next one, and so on.

    Gaps are compared by the share of their orientation that they take up. Ends when no slice is left.
    """
    taken = {axis: set(painted.get(axis, ())) for axis in axes}
    while True:
        gaps = [(*_largest_gap(shape[axis], taken[axis]), axis) for axis in axes]
        share, index, axis = max(gaps, key=lambda gap: gap[0], default=(0.0, 0, 0))
        if not share:
            return
        yield SliceAdvice(axis, index, _middle_of(shape, axis, index), share)
        taken[axis].add(index)


def by_uncertainty(
    shape: Shape3D, profiles: Mapping[int, npt.NDArray[np.float64]], painted: Painted
) -> Iterator[SliceAdvice]:
    """The slice that tells most about uncertain ones; then, as if that were painted, the next one, and so on.

    `profiles` are uncertainties 0..1 of the slices of each orientation, nan for those that are not to be suggested.
    Ends when no slice is left.
    """
    taken = {axis: set(painted.get(axis, ())) for axis in profiles}
    while True:
        best, index, axis = 0.0, 0, 0
        for across, profile in profiles.items():
            worth = worth_of_slices(profile, taken[across])
            if len(worth) and worth.max() > best:
                best, index, axis = float(worth.max()), int(worth.argmax()), across
        if not best:
            return
        yield SliceAdvice(axis, index, _middle_of(shape, axis, index), min(1.0, best))
        taken[axis].add(index)


def worth_of_slices(profile: npt.NDArray[np.float64], painted: Collection[int]) -> npt.NDArray[np.float64]:
    """What each slice of an orientation is worth, (slices,): 0 where it is painted or its uncertainty unknown (nan)."""
    n = len(profile)
    reach = n / (len(painted) + 1)
    known = np.flatnonzero(~np.isnan(profile))
    candidates = known[np.unique(np.linspace(0, len(known) - 1, min(len(known), _MOST_CANDIDATES)).astype(int))]

    def near(slices: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        kernel: npt.NDArray[np.float64] = np.maximum(0.0, 1 - np.abs(np.subtract.outer(slices, known)) / reach)
        return kernel

    told = near(np.array(sorted(painted), np.int64)).max(0, initial=0.0)
    worth = np.zeros(n)
    worth[candidates] = np.maximum(0.0, near(candidates) - told) @ (profile[known] + _SURE) / reach
    return worth


def spread_tiles(region: Box, tile_shape: Shape3D, most: int) -> list[Box]:
    """All tiles of a region, or at most so many, spread evenly over it; always the same ones.

    They follow Halton's sequence, whose points fill every axis evenly, however many there are.
    """
    from scipy.stats import qmc  # takes a while to load

    n = [-(-size // edge) for size, edge in zip(region.shape, tile_shape, strict=True)]
    if n[0] * n[1] * n[2] <= most:
        cells = np.stack(np.meshgrid(*map(np.arange, n), indexing="ij"), -1).reshape(-1, 3)
    else:
        points = qmc.Halton(3, scramble=False).fast_forward(1).random(16 * most)  # the first one is a corner
        cells, first = np.unique((points * n).astype(np.int64), axis=0, return_index=True)
        cells = cells[np.argsort(first)][:most]
    starts = (cells * tile_shape + region.start).tolist()
    tiles = (Box((z, y, x), (z + tile_shape[0], y + tile_shape[1], x + tile_shape[2])) for z, y, x in starts)
    return [tile.clipped(region) for tile in tiles]


def _largest_gap(n_slices: int, painted: Collection[int]) -> tuple[float, int]:
    """Share of the slices that the longest unpainted run takes up, and its middle."""
    ends = [-1, *sorted(painted), n_slices]
    length, start = max(((b - a - 1, a + 1) for a, b in pairwise(ends)), key=lambda gap: gap[0])
    return length / n_slices, start + (length - 1) // 2


def _middle_of(shape: Shape3D, axis: int, index: int) -> Shape3D:
    z, y, x = (index if a == axis else n // 2 for a, n in enumerate(shape))
    return z, y, x
