"""Filter bank: Gaussian, gradient magnitude and Hessian eigenvalues at many scales, honouring the voxel size.

These are the features of interactive pixel classifiers (ilastik, Labkit, Weka; scikit-image's
`multiscale_basic_features`). Here they feed both the pixel head and the U-Net.

Scales of 4 voxels and more live on a coarse lattice that is anchored at the volume's origin; the fine scales are
computed block by block with a small halo. A voxel's features do not depend on the block in which they are computed.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_sparseseg._types import Box, Shape3D, Spacing, Volume
from napari_sparseseg.engine.filters import PER_SCALE, Grid, radius, reflect, write_scale
from napari_sparseseg.engine.lattice import COARSE_STRIDE, CoarseLattice, coarse_reach
from napari_sparseseg.engine.normalise import IntensityRange

_COARSE_FROM = 4.0
_BLOCK_SHAPE: Shape3D = (16, 64, 64)
_BLOCK_SHAPE_OF_GPU: Shape3D = (32, 128, 128)  # of smaller ones, starting the kernels takes longer than they do
_SHARP_FROM = 4.0


@dataclass(frozen=True, slots=True)
class FilterBank:
    """Which features are computed: scales in units of the finest voxel edge, and the voxel's shape.

    `spacing` is the voxel size along z, y, x. An axis along which voxels are n times longer is smoothed over
    n times fewer voxels and its derivatives count n times less: on strongly anisotropic volumes the bank
    becomes slice by slice by itself. An image may tell that it counts for less: `lengths` are for how many of the
    finest edges a voxel counts (`sharpness.lengths_of`). Without them the voxel size decides, see `_usual_length`.
    """

    spacing: Spacing
    n_channels: int = 1
    scales: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 16.0)
    lengths: Spacing | None = None

    @property
    def n_features(self) -> int:
        return self.n_channels * (1 + PER_SCALE * len(self.scales))

    @property
    def fine_scales(self) -> tuple[float, ...]:
        return tuple(s for s in self.scales if s < _COARSE_FROM)

    @property
    def coarse_scales(self) -> tuple[float, ...]:
        return tuple(s for s in self.scales if s >= _COARSE_FROM)

    @property
    def relative_size(self) -> Spacing:
        """How much less is smoothed along z, y, x, in voxels, than along the finest axis: 1 there, less elsewhere."""
        finest = min(self.spacing)
        z, y, x = (1 / length for length in self.lengths or [_usual_length(s / finest) for s in self.spacing])
        return z, y, x

    @property
    def coarse_stride(self) -> Shape3D:
        """Voxels per node of the coarse lattice: 4 along the finest axes, less where voxels are longer."""
        z, y, x = (2 ** max(0, round(np.log2(COARSE_STRIDE * size))) for size in self.relative_size)
        return z, y, x

    def emphasis(self, damping: float) -> tuple[float, ...]:
        """How much each feature may weigh at first: less for scales above 2, which tell where strokes lie.

        With a scale it falls to the power of `damping`.
        """
        of_scales = [min(1.0, (2.0 / scale) ** damping) for scale in (*self.fine_scales, *self.coarse_scales)]
        n = self.n_channels
        return (*(1.0,) * n, *(weight for weight in of_scales for _ in range(n * PER_SCALE)))

    @property
    def halo(self) -> Shape3D:
        """Voxels around a block that its fine features depend on."""
        sigma = max(self.fine_scales, default=0.0)
        z, y, x = (radius(sigma * size) for size in self.relative_size)
        return z, y, x

    @property
    def reach(self) -> Shape3D:
        """Voxels around a region that its features depend on."""
        far = coarse_reach(self) if self.coarse_scales else (0, 0, 0)
        z, y, x = (max(a, b) for a, b in zip(self.halo, far, strict=True))
        return z, y, x


def _usual_length(length: float) -> float:
    """For how many times as long as wide a voxel counts, 1 and more: its own length from `_SHARP_FROM` on.

    Voxels of up to about three times are mostly those of light microscopes, which blur as much more along z: what is
    sharp there spans more voxels than their size says. Serial sections are thicker, and sharp.
    """
    return max(math.sqrt(length), min(length, 2 * length - _SHARP_FROM))


class FeatureMap:
    """The features of one volume, computed block by block when they are asked for, and cached.

    `cache_bytes` bounds the memory of the cached blocks, 0 keeps no more of them; the least recently used go first. The
    coarse lattice of a volume with more than some 200 million voxels is not kept as a whole either. Not thread-safe.
    """

    def __init__(
        self,
        volume: Volume,
        bank: FilterBank,
        intensity: IntensityRange,
        *,
        device: torch.device | None = None,
        cache_bytes: int = 1 << 30,
    ) -> None:
        self.volume = volume
        self.bank = bank
        self.intensity = intensity
        self.shape = volume.shape
        self.device = device or torch.device("cpu")
        self._cache_bytes = cache_bytes
        self._block_shape = _BLOCK_SHAPE if self.device.type == "cpu" else _BLOCK_SHAPE_OF_GPU
        self._blocks: OrderedDict[Shape3D, Tensor] = OrderedDict()
        self._cached_bytes = 0
        self._has_missing = False  # as far as it has been read
        self._lattice = CoarseLattice(self.shape, bank, self._intensities, self.device)

    @property
    def cache_bytes(self) -> int:
        """Less of it frees memory at once, in a map that is not read from as well; 0 only lets no more be kept."""
        return self._cache_bytes

    @cache_bytes.setter
    def cache_bytes(self, n_bytes: int) -> None:
        self._cache_bytes = n_bytes
        if n_bytes:
            self._trim()

    def prepare(self, region: Box | None = None) -> None:
        """Read a small volume once, or a region, for the coarse features: see `CoarseLattice.prepare`."""
        if self.bank.coarse_scales:
            self._lattice.prepare(region)

    def glance(self, box: Box) -> Tensor:
        """Features of a thin box within the volume, of which nothing is kept: for a plane that may not be seen again.

        Equals `read` within rounding, at the cost of the box alone, not of all blocks that it touches.
        """
        indices = list(product(*self._block_ranges(box)))
        if all(index in self._blocks for index in indices):
            return self.read(box)
        return self._compute(box)

    def read(self, box: Box) -> Tensor:
        """Features of a box, shape (z, y, x, features), float32; beyond the volume they are mirrored."""
        return self.mapped(box, lambda features, _: features)

    def mapped(self, box: Box, function: Callable[[Tensor, Box], Tensor]) -> Tensor:
        """What a function of single voxels, (z, y, x, features) -> (z, y, x, channels), makes of a box; see `read`.

        It is called for each part of the box that lies in the volume, and told which: all the features are never there
        at once unless they are cached.
        """
        if box.clipped(Box.whole(self.shape)) == box:
            return self._mapped_inside(box, function)
        indices = [reflect(np.arange(a, b), n) for a, b, n in zip(box.start, box.stop, self.shape, strict=True)]
        lower = [int(i.min()) for i in indices]
        upper = [int(i.max()) + 1 for i in indices]
        found = self._mapped_inside(Box((lower[0], lower[1], lower[2]), (upper[0], upper[1], upper[2])), function)
        for axis, (index, low) in enumerate(zip(indices, lower, strict=True)):
            found = found.index_select(axis, torch.from_numpy(index - low).to(found.device))
        return found

    def at(self, coordinates: npt.NDArray[np.int32]) -> Tensor:
        """Features of single voxels, shape (n, features), for coordinates (n, 3) within the volume."""
        found = torch.empty((len(coordinates), self.bank.n_features), device=self.device)
        block = np.asarray(self._block_shape)
        owners, inverse = np.unique(coordinates // block, axis=0, return_inverse=True)
        for number, owner in enumerate(owners):
            rows = np.flatnonzero(inverse.ravel() == number)
            z, y, x = torch.from_numpy((coordinates[rows] - owner * block).astype(np.int64).T)
            found[torch.from_numpy(rows)] = self._block(tuple(owner.tolist()))[z, y, x]
        return found

    def clear_missing(self, values: Tensor, box: Box) -> None:
        """Set to 0 what `values`, (channels, z, y, x), say of a box where the image is missing in all of its channels.

        Call it after the features of the box were read, which tells whether there is such a voxel.
        """
        if not self._has_missing:
            return
        missing = np.isnan(self.volume.read(box)).all(0)
        if missing.any():
            values.masked_fill_(torch.from_numpy(missing).to(values.device), 0)

    def _mapped_inside(self, box: Box, function: Callable[[Tensor, Box], Tensor]) -> Tensor:
        joined = None
        for z, y, x in product(*self._block_ranges(box)):
            owner = self._block_box((z, y, x))
            part = owner.clipped(box)
            found = function(self._block((z, y, x))[part.relative_to(owner.start).slices], part)
            if part == box:
                return found
            if joined is None:
                joined = found.new_empty((*box.shape, found.shape[-1]))
            joined[part.relative_to(box.start).slices] = found
        assert joined is not None  # noqa: S101 - a box has voxels
        return joined

    def _block(self, index: Shape3D) -> Tensor:
        if index in self._blocks:
            self._blocks.move_to_end(index)
            return self._blocks[index]
        block = self._compute(self._block_box(index))
        if not self.cache_bytes:  # needed once: the products that follow take one feature after the other as well
            return block
        # transposed as a matrix: torch writes every 26th number of a row of features many times slower
        block = block.reshape(-1, block.shape[-1]).contiguous().reshape(block.shape)
        self._blocks[index] = block
        self._cached_bytes += block.nbytes
        self._trim()
        return block

    def _trim(self) -> None:
        """Drop the blocks used longest ago that are too many; the last one stays for what is read next to it."""
        while len(self._blocks) > 1 and self._cached_bytes > self.cache_bytes:
            _, oldest = self._blocks.popitem(last=False)
            self._cached_bytes -= oldest.nbytes

    def _compute(self, box: Box) -> Tensor:
        bank = self.bank
        source = box.grown(bank.halo).clipped(Box.whole(self.shape))
        image = self._intensities(source)
        features = torch.empty((bank.n_features, *box.shape), device=self.device)
        features[: bank.n_channels] = image[(slice(None), *box.relative_to(source.start).slices)]
        column = bank.n_channels
        for scale, channel in product(bank.fine_scales, image):
            sigmas = [scale * size for size in bank.relative_size]
            grids = [
                Grid(first=a, n_out=b - a, stride=1, source=s, n_source=t - s, size=n)
                for a, b, s, t, n in zip(box.start, box.stop, source.start, source.stop, self.shape, strict=True)
            ]
            write_scale(features[column : column + PER_SCALE], channel, grids, sigmas, scale, bank.relative_size)
            column += PER_SCALE
        if bank.coarse_scales:
            self._lattice.write(features[column:], box)
        return features.movedim(0, -1)

    def _intensities(self, box: Box) -> Tensor:
        image = self.volume.read(box)
        if image.dtype.kind == "f" and not self._has_missing:
            self._has_missing = bool(np.isnan(image).any())
        return torch.from_numpy(self.intensity.apply(image)).to(self.device)

    def _block_ranges(self, box: Box) -> list[range]:
        """Along each axis, the blocks that a box touches."""
        return [range(a // n, (b - 1) // n + 1) for a, b, n in zip(box.start, box.stop, self._block_shape, strict=True)]

    def _block_box(self, index: Shape3D) -> Box:
        z, y, x = (i * n for i, n in zip(index, self._block_shape, strict=True))
        return Box.whole(self._block_shape).shifted((z, y, x)).clipped(Box.whole(self.shape))
