"""Separable filters as banded matrices, and what they give at one scale: Gaussian, slope, Hessian eigenvalues.

On a CPU one matrix product for each axis is several times faster than a one-channel convolution, and what lies beyond
the volume's edge, sampling on a coarse lattice, and the units of derivatives are folded into the matrix. What follows
the products is done in place, some planes at a time: so much stays in the processor's cache.

Beyond the edge its voxel is repeated. A mirrored image has a crease there: no slope, and curvature where there is none;
of a volume of 32 slices a fifth lies within three voxels of it. Only filters that are wide for the volume mirror it,
since they would see little but the repeated voxel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

PER_SCALE = 5  # Gaussian, gradient magnitude, three Hessian eigenvalues
TRUNCATE = 3.0
_WIDE = 1 / 6  # of the volume: filters from this width on mirror it at its edges
_INSET = 1  # samples from the edge at which its slope is taken: at the edge it is halved
_VOXELS_OF_A_CORE = 1 << 14
_VOXELS_OF_A_THREAD = 1 << 15  # GRAIN_SIZE in ATen/TensorIterator.h: of less, torch gives nothing to a second thread


@dataclass(frozen=True, slots=True)
class Grid:
    """Samples `first + stride * i` along one axis, taken from the voxels `source .. source + n_source`."""

    first: int
    n_out: int
    stride: int
    source: int
    n_source: int
    size: int


def radius(sigma: float) -> int:
    """Voxels on either side on which a Gaussian of `sigma` voxels, or one of its derivatives, depends."""
    return _half_length(sigma) + _INSET


def _half_length(sigma: float) -> int:
    return int(np.ceil(TRUNCATE * sigma)) + 1


def reflect(index: npt.NDArray[np.integer], size: int) -> npt.NDArray[np.int64]:
    """Indices mirrored into `0 .. size`, the edge voxel not repeated, for any distance and any size."""
    if size == 1:
        return np.zeros_like(index, dtype=np.int64)
    folded = np.abs(np.asarray(index, np.int64)) % (2 * (size - 1))
    mirrored: npt.NDArray[np.int64] = np.minimum(folded, 2 * (size - 1) - folded)
    return mirrored


def _gaussian_kernel(sigma: float, order: int) -> npt.NDArray[np.float64]:
    """Sampled Gaussian or its first or second derivative, normalised by its moments; correlation order."""
    offset = np.arange(-_half_length(sigma), _half_length(sigma) + 1, dtype=np.float64)
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
def kernel_matrix(grid: Grid, sigma: float, order: int, factor: float = 1.0) -> Tensor:
    """Matrix (n_out, n_source) that filters one axis, times a factor; what lies beyond the edges is folded in."""
    kernel = factor * _gaussian_kernel(sigma, order)
    reach = len(kernel) // 2
    matrix = np.zeros((grid.n_out, grid.n_source))
    if grid.size == 1 and order > 0:
        return torch.from_numpy(matrix.astype(np.float32))
    centres = grid.first + grid.stride * np.arange(grid.n_out)
    if order == 1:
        inset = min(_INSET, (grid.size - 1) // 2)
        centres = np.clip(centres, inset, grid.size - 1 - inset)
    taps = _within(centres[:, None] + np.arange(-reach, reach + 1), grid.size, sigma) - grid.source
    rows = np.broadcast_to(np.arange(grid.n_out)[:, None], taps.shape)
    np.add.at(matrix, (rows, taps), np.broadcast_to(kernel, taps.shape))
    return torch.from_numpy(matrix.astype(np.float32))


def _within(index: npt.NDArray[np.integer], size: int, sigma: float) -> npt.NDArray[np.int64]:
    """Which voxels stand for those at these indices, within the volume and beyond."""
    return reflect(index, size) if sigma > _WIDE * size else np.clip(np.asarray(index, np.int64), 0, size - 1)


def write_scale(
    out: Tensor,
    image: Tensor,
    grids: Sequence[Grid],
    sigmas: Sequence[float],
    scale: float,
    units: Sequence[float],
) -> None:
    """Write the five features of one scale of an image (z, y, x) into `out` (5, z, y, x), which is contiguous.

    `units` turn a derivative per voxel into one per finest voxel edge; derivatives are scale-normalised.
    """
    along_z, along_y, along_x = (
        [kernel_matrix(grid, sigma, order, (unit * scale) ** order).to(image.device) for order in range(3)]
        for grid, sigma, unit in zip(grids, sigmas, units, strict=True)
    )
    planes = image.reshape(image.shape[0], -1)
    filtered = [(matrix @ planes).reshape(-1, *image.shape[1:]) for matrix in along_z]
    n_planes = max(1, _voxels_at_once(image.device) // (out.shape[2] * out.shape[3]))
    for first in range(0, out.shape[1], n_planes):
        some = slice(first, first + n_planes)
        _write_planes(out[:, some], [each[some] for each in filtered], along_y, [matrix.T for matrix in along_x])


def _voxels_at_once(device: torch.device) -> int:
    """So many that a dozen arrays of them fit into a core's cache, or that torch shares them out among several."""
    n_threads = torch.get_num_threads()
    if device.type != "cpu":
        return 1 << 62
    return _VOXELS_OF_A_CORE if n_threads == 1 else _VOXELS_OF_A_THREAD * n_threads


def _write_planes(out: Tensor, along_z: Sequence[Tensor], along_y: Sequence[Tensor], along_x: Sequence[Tensor]) -> None:
    """The same of some planes that are filtered along z, (planes, y, x) of each order, in place."""
    smooth, slope, curve = along_z

    def across_x(image: Tensor, order: int) -> Tensor:
        return (image.reshape(-1, image.shape[-1]) @ along_x[order]).reshape(out.shape[1:])

    smooth_y, slope_y, slope_z = along_y[0] @ smooth, along_y[1] @ smooth, along_y[0] @ slope
    out[0] = across_x(smooth_y, 0)
    steepness = across_x(slope_z, 0).square_()
    for gradient in (across_x(slope_y, 0), across_x(smooth_y, 1)):
        steepness.addcmul_(gradient, gradient)
    torch.sqrt(steepness, out=out[1])
    write_eigenvalues(
        out[2:],
        across_x(along_y[0] @ curve, 0),
        across_x(along_y[2] @ smooth, 0),
        across_x(smooth_y, 2),
        across_x(along_y[1] @ slope, 0),
        across_x(slope_z, 1),
        across_x(slope_y, 1),
    )


def write_eigenvalues(out: Tensor, zz: Tensor, yy: Tensor, xx: Tensor, zy: Tensor, zx: Tensor, yx: Tensor) -> None:
    """Eigenvalues of symmetric 3x3 matrices into `out` (3, ...), largest first, in closed form (Smith 1961).

    The diagonals are overwritten.
    """
    mean = (zz + yy).add_(xx).div_(3)
    a, b, c = zz.sub_(mean), yy.sub_(mean), xx.sub_(mean)
    spread = (zy * zy).addcmul_(zx, zx).addcmul_(yx, yx).mul_(2)
    spread.addcmul_(a, a).addcmul_(b, b).addcmul_(c, c).div_(6).sqrt_()
    # a (bc - yx²) - zy (zy c - yx zx) + zx (zy yx - b zx), the determinant
    part = (zy * c).addcmul_(yx, zx, value=-1)
    det = (b * c).addcmul_(yx, yx, value=-1).mul_(a).addcmul_(zy, part, value=-1)
    det.addcmul_(zx, torch.mul(zy, yx, out=part).addcmul_(b, zx, value=-1))
    cube = torch.mul(spread, spread, out=part).mul_(spread).mul_(2).clamp_min_(1e-30)
    angle = det.div_(cube).clamp_(-1, 1).acos_().div_(3)
    torch.addcmul(mean, spread, torch.cos(angle, out=part), value=2, out=out[0])
    torch.addcmul(mean, spread, angle.add_(2 * np.pi / 3).cos_(), value=2, out=out[2])
    torch.mul(mean, 3, out=out[1]).sub_(out[0]).sub_(out[2])
