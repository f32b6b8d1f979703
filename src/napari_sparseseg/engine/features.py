"""Filter bank: Gaussian, gradient magnitude and Hessian eigenvalues at many scales, honouring the voxel size.

These are the features of interactive pixel classifiers (ilastik, Labkit, Weka; scikit-image's
`multiscale_basic_features`). Here they feed both the pixel head and the U-Net.

Each separable filter is a banded matrix that multiplies one axis: on a CPU one matrix product is several
times faster than a one-channel convolution, and reflection at the volume's edge, sampling on a coarse
lattice and interpolation back are folded into the same matrix.

Scales of 4 voxels and more live on a coarse lattice that is anchored at the volume's origin and computed
once; the fine scales are computed block by block with a small halo. A voxel's features do not depend on the
block in which they are computed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_sparseseg._types import Box, Shape3D, Spacing, Volume
from napari_sparseseg.engine.normalise import IntensityRange

PER_SCALE = 5  # Gaussian, gradient magnitude, three Hessian eigenvalues
TRUNCATE = 3.0
_COARSE_FROM = 4.0
_COARSE_STRIDE = 4
_BLOCK_SHAPE: Shape3D = (16, 64, 64)


@dataclass(frozen=True, slots=True)
class FilterBank:
    """Which features are computed: scales in units of the finest voxel edge, and the voxel's shape.

    `spacing` is the voxel size along z, y, x. An axis along which voxels are n times longer is smoothed over
    n times fewer voxels and its derivatives count n times less: on strongly anisotropic volumes the bank
    becomes slice by slice by itself.
    """

    spacing: Spacing
    n_channels: int = 1
    scales: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 16.0)

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
        """Finest voxel edge divided by the edge along z, y, x: 1 along the finest axis, less elsewhere."""
        finest = min(self.spacing)
        z, y, x = (finest / s for s in self.spacing)
        return z, y, x

    @property
    def coarse_stride(self) -> Shape3D:
        """Voxels per node of the coarse lattice: 4 along the finest axes, less where voxels are longer."""
        z, y, x = (2 ** max(0, round(np.log2(_COARSE_STRIDE * size))) for size in self.relative_size)
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


class FeatureMap:
    """The features of one volume, computed block by block when they are asked for, and cached.

    `cache_bytes` bounds the memory of the cached blocks; the least recently used go first. Not thread-safe.
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
        self.cache_bytes = cache_bytes
        self._blocks: OrderedDict[Shape3D, Tensor] = OrderedDict()
        self._cached_bytes = 0
        self._coarse: Tensor | None = None

    def prepare(self) -> None:
        """Read the volume once, for the coarse features; else the first `read` does."""
        if self.bank.coarse_scales:
            self._lattice()

    def glance(self, box: Box) -> Tensor:
        """Features of a thin box within the volume, of which nothing is kept: for a plane that may not be seen again.

        Equals `read` within rounding, at the cost of the box alone, not of all blocks that it touches.
        """
        indices = list(product(*_block_ranges(box)))
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
        block = np.asarray(_BLOCK_SHAPE)
        owners, inverse = np.unique(coordinates // block, axis=0, return_inverse=True)
        for number, owner in enumerate(owners):
            rows = np.flatnonzero(inverse.ravel() == number)
            z, y, x = torch.from_numpy((coordinates[rows] - owner * block).astype(np.int64).T)
            found[torch.from_numpy(rows)] = self._block(tuple(owner.tolist()))[z, y, x]
        return found

    def _mapped_inside(self, box: Box, function: Callable[[Tensor, Box], Tensor]) -> Tensor:
        joined = None
        for z, y, x in product(*_block_ranges(box)):
            owner = _block_box((z, y, x), self.shape)
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
        block = self._compute(_block_box(index, self.shape))
        self._blocks[index] = block
        self._cached_bytes += block.nbytes
        while len(self._blocks) > 1 and self._cached_bytes > self.cache_bytes:
            _, oldest = self._blocks.popitem(last=False)
            self._cached_bytes -= oldest.nbytes
        return block

    def _compute(self, box: Box) -> Tensor:
        bank = self.bank
        source = box.grown(bank.halo).clipped(Box.whole(self.shape))
        image = self._intensities(source)
        features = torch.empty((*box.shape, bank.n_features), device=self.device)
        features[..., : bank.n_channels] = image[(slice(None), *box.relative_to(source.start).slices)].movedim(0, -1)
        column = bank.n_channels
        for scale, channel in product(bank.fine_scales, image):
            sigmas = _scaled(scale, bank.relative_size)
            grids = [
                _Grid(first=a, n_out=b - a, stride=1, source=s, n_source=t - s, size=n)
                for a, b, s, t, n in zip(box.start, box.stop, source.start, source.stop, self.shape, strict=True)
            ]
            _write_scale(features, column, channel, grids, sigmas, scale, bank.relative_size)
            column += PER_SCALE
        if bank.coarse_scales:
            features[..., column:] = self._upsampled(box)
        return features

    def _intensities(self, box: Box) -> Tensor:
        return torch.from_numpy(self.intensity.apply(self.volume.read(box))).to(self.device)

    def _upsampled(self, box: Box) -> Tensor:
        """Coarse features at the voxels of a box, by linear interpolation."""
        lattice = self._lattice()
        matrices = [
            _interpolation(a, b - a, stride, n).to(self.device)
            for a, b, stride, n in zip(box.start, box.stop, self.bank.coarse_stride, lattice.shape[1:], strict=True)
        ]
        trimmed = []
        for axis, matrix in enumerate(matrices):  # a block sees only the few nodes around it
            used = torch.nonzero(matrix.abs().sum(0) > 0).ravel()
            low, high = int(used[0]), int(used[-1]) + 1
            lattice = lattice.narrow(axis + 1, low, high - low)
            trimmed.append(matrix[:, low:high])
        return _separable(lattice, trimmed).movedim(0, -1)

    def _lattice(self) -> Tensor:
        if self._coarse is None:
            self._coarse = self._compute_coarse()
        return self._coarse

    def _compute_coarse(self) -> Tensor:
        """Features of the coarse scales on the whole lattice, shape (features, z, y, x)."""
        bank = self.bank
        image = self._coarse_image()
        stride = bank.coarse_stride
        relative = [size * step for size, step in zip(bank.relative_size, stride, strict=True)]
        columns = []
        for scale, channel in product(bank.coarse_scales, image):
            remaining = float(np.sqrt(scale**2 - _prefilter(_COARSE_STRIDE) ** 2))
            sigmas = [remaining * size / step for size, step in zip(bank.relative_size, stride, strict=True)]
            grids = [_Grid(0, n, 1, 0, n, n) for n in channel.shape]
            out = torch.empty((*channel.shape, PER_SCALE), device=self.device)
            units = tuple(r / s**2 for r, s in zip(relative, stride, strict=True))
            _write_scale(out, 0, channel, grids, sigmas, scale, units)
            columns.append(out.movedim(-1, 0))
        return torch.cat(columns)

    def _coarse_image(self) -> Tensor:
        """The volume, smoothed and sampled at the nodes of the coarse lattice; reads each slab once."""
        bank, shape = self.bank, self.shape
        n_nodes = [-(-(n - 1) // step) + 1 for n, step in zip(shape, bank.coarse_stride, strict=True)]
        sigmas = _scaled(_prefilter(_COARSE_STRIDE), bank.relative_size)
        in_plane = [
            _kernel_matrix(_Grid(0, n_nodes[a], bank.coarse_stride[a], 0, shape[a], shape[a]), sigmas[a], 0)
            for a in (1, 2)
        ]
        along_z = _kernel_matrix(_Grid(0, n_nodes[0], bank.coarse_stride[0], 0, shape[0], shape[0]), sigmas[0], 0)
        nodes = torch.zeros((bank.n_channels, *n_nodes), device=self.device)
        depth = max(1, (1 << 22) // (shape[1] * shape[2]))
        for first in range(0, shape[0], depth):
            last = min(first + depth, shape[0])
            slab = self._intensities(Box((first, 0, 0), (last, shape[1], shape[2])))
            reduced = in_plane[0].to(self.device) @ slab @ in_plane[1].to(self.device).T
            nodes += torch.tensordot(along_z[:, first:last].to(self.device), reduced, dims=([1], [1])).movedim(0, 1)
        return nodes


@dataclass(frozen=True, slots=True)
class _Grid:
    """Samples `first + stride * i` along one axis, taken from the voxels `source .. source + n_source`."""

    first: int
    n_out: int
    stride: int
    source: int
    n_source: int
    size: int


def radius(sigma: float) -> int:
    """Voxels on either side that a Gaussian of `sigma` voxels, or its derivatives, reaches."""
    return int(np.ceil(TRUNCATE * sigma)) + 1


def reflect(index: npt.NDArray[np.integer], size: int) -> npt.NDArray[np.int64]:
    """Indices mirrored into `0 .. size`, the edge voxel not repeated, for any distance and any size."""
    if size == 1:
        return np.zeros_like(index, dtype=np.int64)
    folded = np.abs(np.asarray(index, np.int64)) % (2 * (size - 1))
    mirrored: npt.NDArray[np.int64] = np.minimum(folded, 2 * (size - 1) - folded)
    return mirrored


def _prefilter(stride: int) -> float:
    """Smoothing, in fine voxels, before sampling every `stride` voxels."""
    return stride / 2


def _scaled(scale: float, relative_size: Spacing) -> list[float]:
    return [scale * size for size in relative_size]


def _block_ranges(box: Box) -> list[range]:
    """Along each axis, the blocks that a box touches."""
    return [range(a // n, (b - 1) // n + 1) for a, b, n in zip(box.start, box.stop, _BLOCK_SHAPE, strict=True)]


def _block_box(index: Shape3D, shape: Shape3D) -> Box:
    start = (index[0] * _BLOCK_SHAPE[0], index[1] * _BLOCK_SHAPE[1], index[2] * _BLOCK_SHAPE[2])
    stop = (start[0] + _BLOCK_SHAPE[0], start[1] + _BLOCK_SHAPE[1], start[2] + _BLOCK_SHAPE[2])
    return Box(start, stop).clipped(Box.whole(shape))


def _gaussian_kernel(sigma: float, order: int) -> npt.NDArray[np.float64]:
    """Sampled Gaussian or its first or second derivative, normalised by its moments; correlation order."""
    offset = np.arange(-radius(sigma), radius(sigma) + 1, dtype=np.float64)
    if sigma < 0.3:  # narrower than the grid: identity and central differences
        stencil = ([0.0, 1.0, 0.0], [-0.5, 0.0, 0.5], [1.0, -2.0, 1.0])[order]
        return np.pad(np.asarray(stencil), len(offset) // 2 - 1)
    kernel = np.exp(-(offset**2) / (2 * sigma**2))
    kernel /= kernel.sum()
    if order == 1:
        kernel = kernel * offset
        kernel /= (kernel * offset).sum()
    elif order == 2:
        kernel = kernel * (offset**2 - (kernel * offset**2).sum())
        kernel /= (kernel * offset**2).sum() / 2
    return kernel


@lru_cache(maxsize=512)
def _kernel_matrix(grid: _Grid, sigma: float, order: int) -> Tensor:
    """Matrix (n_out, n_source) that filters one axis, with reflection at the volume's edges folded in."""
    kernel = _gaussian_kernel(sigma, order)
    reach = len(kernel) // 2
    matrix = np.zeros((grid.n_out, grid.n_source))
    if grid.size == 1 and order > 0:
        return torch.from_numpy(matrix.astype(np.float32))
    centres = grid.first + grid.stride * np.arange(grid.n_out)
    taps = reflect(centres[:, None] + np.arange(-reach, reach + 1), grid.size) - grid.source
    rows = np.broadcast_to(np.arange(grid.n_out)[:, None], taps.shape)
    np.add.at(matrix, (rows, taps), np.broadcast_to(kernel, taps.shape))
    return torch.from_numpy(matrix.astype(np.float32))


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


def _write_scale(
    out: Tensor,
    column: int,
    image: Tensor,
    grids: list[_Grid],
    sigmas: list[float],
    scale: float,
    units: tuple[float, ...],
) -> None:
    """Write the five features of one scale into `out[..., column:column + 5]`.

    `units` turn a derivative per voxel into one per finest voxel edge; derivatives are scale-normalised.
    """
    z, y, x = (
        [_kernel_matrix(grid, sigma, order).to(image.device) for order in range(3)]
        for grid, sigma in zip(grids, sigmas, strict=True)
    )
    uz, uy, ux = (unit * scale for unit in units)
    planes = image.reshape(image.shape[0], -1)
    smooth, slope, curve = ((m @ planes).reshape(-1, *image.shape[1:]) for m in z)
    smooth_y, slope_y = y[0] @ smooth, y[1] @ smooth
    slope_z = y[0] @ slope
    out[..., column] = smooth_y @ x[0].T
    gz, gy, gx = slope_z @ x[0].T * uz, slope_y @ x[0].T * uy, smooth_y @ x[1].T * ux
    out[..., column + 1] = (gz.square_().add_(gy.square_()).add_(gx.square_())).sqrt_()
    out[..., column + 2 : column + 5] = torch.stack(
        symmetric_eigenvalues(
            (y[0] @ curve) @ x[0].T * uz**2,
            (y[2] @ smooth) @ x[0].T * uy**2,
            smooth_y @ x[2].T * ux**2,
            (y[1] @ slope) @ x[0].T * (uz * uy),
            slope_z @ x[1].T * (uz * ux),
            slope_y @ x[1].T * (uy * ux),
        ),
        dim=-1,
    )


def symmetric_eigenvalues(zz: Tensor, yy: Tensor, xx: Tensor, zy: Tensor, zx: Tensor, yx: Tensor) -> list[Tensor]:
    """Eigenvalues of symmetric 3x3 matrices, largest first, in closed form (Smith 1961)."""
    mean = (zz + yy + xx) / 3
    a, b, c = zz - mean, yy - mean, xx - mean
    off = zy.square() + zx.square() + yx.square()
    spread = ((a.square() + b.square() + c.square() + 2 * off) / 6).sqrt_()
    half_det = (a * (b * c - yx.square()) - zy * (zy * c - yx * zx) + zx * (zy * yx - b * zx)) / 2
    angle = (half_det / (spread * spread * spread).clamp_min(1e-30)).clamp_(-1, 1).acos_().div_(3)
    largest = mean + 2 * spread * angle.cos()
    smallest = mean + 2 * spread * angle.add_(2 * np.pi / 3).cos_()
    return [largest, 3 * mean - largest - smallest, smallest]
