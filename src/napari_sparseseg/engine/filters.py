"""Separable filters as banded matrices, and what they give at one scale: Gaussian, slope, Hessian eigenvalues.

On a CPU one matrix product for each axis is several times faster than a one-channel convolution, and reflection at
the volume's edge, and sampling on a coarse lattice, are folded into the matrix.
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
    """Voxels on either side that a Gaussian of `sigma` voxels, or its derivatives, reaches."""
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
def kernel_matrix(grid: Grid, sigma: float, order: int) -> Tensor:
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


def write_scale(
    out: Tensor,
    column: int,
    image: Tensor,
    grids: Sequence[Grid],
    sigmas: Sequence[float],
    scale: float,
    units: Sequence[float],
) -> None:
    """Write the five features of one scale into `out[..., column:column + 5]`.

    `units` turn a derivative per voxel into one per finest voxel edge; derivatives are scale-normalised.
    """
    z, y, x = (
        [kernel_matrix(grid, sigma, order).to(image.device) for order in range(3)]
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
