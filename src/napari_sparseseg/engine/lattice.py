"""The coarse lattice: features of large scales, on every fourth voxel, for a whole volume or cell by cell.

A node's value depends on the nodes around it up to the reach of the widest filter, so a cell of a volume that is
larger than memory is computed from what surrounds it, and gives the same numbers.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from napari_sparseseg._types import Box, Shape3D
from napari_sparseseg.engine.filters import PER_SCALE, Grid, kernel_matrix, radius, write_scale

if TYPE_CHECKING:
    from napari_sparseseg.engine.features import FilterBank

COARSE_STRIDE = 4
_PREFILTER = COARSE_STRIDE / 2  # smoothing, in fine voxels, before sampling
_CELL_SHAPE: Shape3D = (64, 128, 128)
_KEPT_BYTES = 1 << 28
_SLAB_VOXELS = 1 << 22


class CoarseLattice:
    """Features of the coarse scales of one volume, whose normalised voxels (channels, z, y, x) `read` gives.

    All of a small volume are kept; of one with more than some 200 million voxels those of the cells used last.
    """

    def __init__(self, shape: Shape3D, bank: FilterBank, read: Callable[[Box], Tensor], device: torch.device) -> None:
        self._shape, self._bank, self._read, self._device = shape, bank, read, device
        self._size = _lattice_shape(shape, bank)
        self._kept: OrderedDict[Box, tuple[Box, Tensor]] = OrderedDict()
        self._region = Box((0, 0, 0), (0, 0, 0))
        n_features = PER_SCALE * len(bank.coarse_scales) * bank.n_channels
        is_small = 4 * n_features * Box.whole(self._size).n_voxels <= _KEPT_BYTES
        self._cell_shape = shape if is_small else _CELL_SHAPE

    def prepare(self, region: Box | None = None) -> None:
        """Compute a region in one piece, and keep it until the next one; without one all of a small volume.

        Cells are computed when they are asked for; where a region is hardly larger than what is read around cells,
        one piece is half the work.
        """
        if region is not None:
            self._kept.clear()
            self._region = region
            self._nodes(region)
        elif self._cell_shape == self._shape:
            self._nodes(Box.whole(self._shape))

    def write(self, out: Tensor, box: Box) -> None:
        """Write the coarse features at the voxels of a box, by linear interpolation, into `out` (features, z, y, x)."""
        for cell in self._cells(box):
            part = cell.clipped(box)
            out[(slice(None), *part.relative_to(box.start).slices)] = self._upsampled(part, cell)

    def _cells(self, box: Box) -> list[Box]:
        """Parts of the volume, with one piece of the coarse lattice each, that cover a box."""
        if box.clipped(self._region) == box:
            return [self._region]
        ranges = [range(a // n * n, b, n) for a, b, n in zip(box.start, box.stop, self._cell_shape, strict=True)]
        return [
            Box((z, y, x), self._shape).clipped(Box.whole(self._cell_shape).shifted((z, y, x)))
            for z, y, x in product(*ranges)
        ]

    def _upsampled(self, box: Box, cell: Box) -> Tensor:
        """Coarse features (features, z, y, x) at the voxels of a box in a cell, by linear interpolation."""
        nodes, lattice = self._nodes(cell)
        matrices = [
            _interpolation(a - first * stride, b - a, stride, n)
            for a, b, first, stride, n in zip(
                box.start, box.stop, nodes.start, self._bank.coarse_stride, nodes.shape, strict=True
            )
        ]
        trimmed = []
        for axis, matrix in enumerate(matrices):  # a block sees only the few nodes around it
            used = torch.nonzero(matrix.abs().sum(0) > 0).ravel()
            low, high = int(used[0]), int(used[-1]) + 1
            lattice = lattice.narrow(axis + 1, low, high - low)
            trimmed.append(matrix[:, low:high].to(self._device))
        return _separable(lattice, trimmed)

    def _nodes(self, cell: Box) -> tuple[Box, Tensor]:
        """The nodes between which a cell lies, and the coarse features there, shape (features, z, y, x)."""
        if cell in self._kept:
            self._kept.move_to_end(cell)
            return self._kept[cell]
        start = [a // step for a, step in zip(cell.start, self._bank.coarse_stride, strict=True)]
        stop = [(b - 1) // step + 2 for b, step in zip(cell.stop, self._bank.coarse_stride, strict=True)]
        nodes = Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))
        nodes = nodes.clipped(Box.whole(self._size))
        self._kept[cell] = nodes, self._compute_coarse(nodes)
        while len(self._kept) > 1 and sum(kept.nbytes for _, kept in self._kept.values()) > _KEPT_BYTES:
            self._kept.popitem(last=False)
        return nodes, self._kept[cell][1]

    def _compute_coarse(self, nodes: Box) -> Tensor:
        """Features of the coarse scales on some nodes of the lattice, shape (features, z, y, x)."""
        bank = self._bank
        stride = bank.coarse_stride
        relative = [size * step for size, step in zip(bank.relative_size, stride, strict=True)]
        of_scale = _sigmas(bank)
        source = nodes.grown(_node_reach(bank)).clipped(Box.whole(self._size))
        units = tuple(r / s**2 for r, s in zip(relative, stride, strict=True))
        grids = [
            Grid(first=a, n_out=b - a, stride=1, source=s, n_source=t - s, size=n)
            for a, b, s, t, n in zip(nodes.start, nodes.stop, source.start, source.stop, self._size, strict=True)
        ]
        columns = []
        for (scale, sigmas), channel in product(of_scale.items(), self._coarse_image(source)):
            columns.append(torch.empty((PER_SCALE, *nodes.shape), device=self._device))
            write_scale(columns[-1], channel, grids, sigmas, scale, units)
        return torch.cat(columns)

    def _coarse_image(self, nodes: Box) -> Tensor:
        """The volume, smoothed and sampled at some nodes of the coarse lattice; reads each slab once."""
        bank = self._bank
        sigmas = [_PREFILTER * size for size in bank.relative_size]
        start = [a * step for a, step in zip(nodes.start, bank.coarse_stride, strict=True)]
        stop = [(b - 1) * step + 1 for b, step in zip(nodes.stop, bank.coarse_stride, strict=True)]
        source = Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2])).grown(_image_reach(bank))
        source = source.clipped(Box.whole(self._shape))
        along_z, *in_plane = (
            kernel_matrix(Grid(a, n, step, s, t - s, size), sigma, 0).to(self._device)
            for a, n, step, s, t, size, sigma in zip(
                start, nodes.shape, bank.coarse_stride, source.start, source.stop, self._shape, sigmas, strict=True
            )
        )
        image = torch.zeros((bank.n_channels, *nodes.shape), device=self._device)
        depth = max(1, _SLAB_VOXELS // (source.shape[1] * source.shape[2]))
        for first in range(source.start[0], source.stop[0], depth):
            last = min(first + depth, source.stop[0])
            slab = self._read(Box((first, *source.start[1:]), (last, *source.stop[1:])))
            reduced = in_plane[0] @ slab @ in_plane[1].T
            weights = along_z[:, first - source.start[0] : last - source.start[0]]
            image += torch.tensordot(weights, reduced, dims=([1], [1])).movedim(0, 1)
        return image


def coarse_reach(bank: FilterBank) -> Shape3D:
    """Voxels around a region that its coarse features depend on."""
    of_nodes, of_voxels = _node_reach(bank), _image_reach(bank)
    z, y, x = ((n + 1) * step + v for n, step, v in zip(of_nodes, bank.coarse_stride, of_voxels, strict=True))
    return z, y, x


def _node_reach(bank: FilterBank) -> Shape3D:
    """Nodes around a node that its features depend on."""
    z, y, x = (max(radius(sigmas[axis]) for sigmas in _sigmas(bank).values()) for axis in range(3))
    return z, y, x


def _image_reach(bank: FilterBank) -> Shape3D:
    """Voxels around a node that its smoothed intensity depends on."""
    # the last node may lie up to a stride beyond the volume, and then sees twice as far back
    pairs = zip(bank.relative_size, bank.coarse_stride, strict=True)
    z, y, x = (radius(_PREFILTER * size) + 2 * step for size, step in pairs)
    return z, y, x


def _sigmas(bank: FilterBank) -> dict[float, list[float]]:
    """For each coarse scale the width, in nodes along z, y, x, of the filter on what is smoothed already."""
    pairs = list(zip(bank.relative_size, bank.coarse_stride, strict=True))
    left = {scale: float(np.sqrt(scale**2 - _PREFILTER**2)) for scale in bank.coarse_scales}
    return {scale: [sigma * size / step for size, step in pairs] for scale, sigma in left.items()}


def _lattice_shape(shape: Shape3D, bank: FilterBank) -> Shape3D:
    """Nodes of the coarse lattice of a whole volume; the last ones lie at its end or beyond."""
    z, y, x = (-(-(n - 1) // step) + 1 for n, step in zip(shape, bank.coarse_stride, strict=True))
    return z, y, x


@lru_cache(maxsize=256)
def _interpolation(first: int, n_out: int, stride: int, n_nodes: int) -> Tensor:
    """Matrix (n_out, n_nodes) of linear interpolation from nodes at multiples of `stride`."""
    position = (first + np.arange(n_out)) / stride
    low = np.minimum(np.floor(position).astype(int), n_nodes - 1)
    high = np.minimum(low + 1, n_nodes - 1)
    weight = position - low
    matrix = np.zeros((n_out, n_nodes))
    rows = np.arange(n_out)
    np.add.at(matrix, (rows, low), 1 - weight)
    np.add.at(matrix, (rows, high), weight)
    return torch.from_numpy(matrix.astype(np.float32))


def _separable(image: Tensor, matrices: list[Tensor]) -> Tensor:
    """Multiply each of the last three axes by its matrix."""
    along_z, along_y, along_x = matrices
    lead = image.shape[:-3]
    planes = image.reshape(*lead, image.shape[-3], -1)
    filtered = (along_z @ planes).reshape(*lead, along_z.shape[0], *image.shape[-2:])
    return along_y @ filtered @ along_x.T
