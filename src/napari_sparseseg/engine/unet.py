"""A small 3D U-Net on filter features, shaped by the voxel size.

There is no normalisation layer: the features are standardised, so what a voxel gets does not depend on the
tile in which it is computed. Skips are added, not concatenated (on a CPU `torch.cat` is eight times slower
backward), and every level has one convolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from napari_sparseseg._types import Shape3D, Spacing

_PLAIN_CONVOLUTION_UP_TO = 20480  # use_mkldnn in ATen/native/Convolution.cpp


@dataclass(frozen=True, slots=True)
class LevelPlan:
    """One resolution level: kernel size of its convolutions and the step by which it is pooled from above."""

    kernel: Shape3D
    pool: Shape3D


def plan_levels(spacing: Spacing, depth: int, flat: tuple[bool, bool, bool]) -> tuple[LevelPlan, ...]:
    """Pool and convolve in-plane only until voxels are about isotropic (the rule of nnU-Net, arXiv:1809.10486).

    `flat` axes hold a single voxel (2D images): they are neither pooled nor convolved.
    """
    voxel = list(spacing)
    plans = []
    for level in range(depth):
        finest = min(size for size, is_flat in zip(voxel, flat, strict=True) if not is_flat) if not all(flat) else 1.0
        pool = [1, 1, 1]
        if level:
            pool = [1 if f or size >= 2 * finest else 2 for size, f in zip(voxel, flat, strict=True)]
            voxel = [size * step for size, step in zip(voxel, pool, strict=True)]
            finest = min([s for s, f in zip(voxel, flat, strict=True) if not f], default=1.0)
        kernel = [1 if f or size > 2 * finest else 3 for size, f in zip(voxel, flat, strict=True)]
        plans.append(LevelPlan((kernel[0], kernel[1], kernel[2]), (pool[0], pool[1], pool[2])))
    return tuple(plans)


class UNet3D(nn.Module):
    """Features (n, features, z, y, x) -> logits (n, classes, z, y, x); sizes are multiples of `stride`.

    Source: Çiçek et al. 2016, arXiv:1606.06650, with one convolution a level and added skips.
    """

    def __init__(self, n_features: int, n_classes: int, levels: Sequence[LevelPlan], width: int = 16) -> None:
        super().__init__()
        widths = [min(width * 2**level, 4 * width) for level in range(len(levels))]
        self.levels = tuple(levels)
        self.stem = Pointwise(n_features, width)
        self.encoders = nn.ModuleList(_conv(w, w, plan.kernel) for w, plan in zip(widths, levels, strict=True))
        self.widen = nn.ModuleList(Pointwise(a, b) for a, b in pairwise(widths))
        self.narrow = nn.ModuleList(Pointwise(b, a) for a, b in pairwise(widths))
        self.decoders = nn.ModuleList(
            _conv(w, w, plan.kernel) for w, plan in zip(widths[:-1], levels[:-1], strict=True)
        )
        self.classify = Pointwise(width, n_classes)

    @property
    def stride(self) -> Shape3D:
        """Total pooling along z, y, x."""
        total = [1, 1, 1]
        for plan in self.levels:
            total = [t * p for t, p in zip(total, plan.pool, strict=True)]
        return total[0], total[1], total[2]

    @property
    def halo(self) -> Shape3D:
        """Voxels around a tile that its inside depends on, rounded up to multiples of `stride`."""
        reach, step = [0, 0, 0], [1, 1, 1]
        for level, plan in enumerate(self.levels):
            step = [s * p for s, p in zip(step, plan.pool, strict=True)]
            times = 1 if level == len(self.levels) - 1 else 2  # encoder and decoder
            for axis in range(3):
                reach[axis] += times * step[axis] * (plan.kernel[axis] // 2)
                reach[axis] += (step[axis] - 1) if plan.pool[axis] > 1 else 0  # nearest-neighbour pooling and return
        z, y, x = (-(-r // s) * s for r, s in zip(reach, self.stride, strict=True))
        return z, y, x

    def forward(self, features: Tensor) -> Tensor:
        """Logits of every voxel."""
        if features.shape[0] == 1 and self._is_slow(features):
            return self._logits(features.repeat(2, 1, 1, 1, 1))[:1]
        return self._logits(features)

    def _is_slow(self, features: Tensor) -> bool:
        """Whether torch would take its plain convolution, 3 to 5 times slower than computing everything twice.

        On a CPU it does so for a batch of one if channels x depth x height is 20480 or less.
        """
        rows = features.shape[2] * features.shape[3]
        for encoder, plan in zip(self.encoders, self.levels, strict=True):
            rows //= plan.pool[0] * plan.pool[1]
            if encoder.in_channels * rows <= _PLAIN_CONVOLUTION_UP_TO:  # type: ignore[operator]
                return features.device.type == "cpu"
        return False

    def _logits(self, features: Tensor) -> Tensor:
        current = self.stem(features)
        skips = []
        for level, encoder in enumerate(self.encoders):
            if level:
                skips.append(current)
                current = self.widen[level - 1](functional.max_pool3d(current, self.levels[level].pool))
            current = current + functional.relu(encoder(current))
        for level in range(len(self.levels) - 2, -1, -1):
            current = _enlarge(self.narrow[level](current), self.levels[level + 1].pool) + skips[level]
            current = current + functional.relu(self.decoders[level](current))
        out: Tensor = self.classify(current)
        return out


class Pointwise(nn.Linear):
    """A 1x1x1 convolution as a matrix product; with channels last no copy is made."""

    def forward(self, image: Tensor) -> Tensor:
        """(n, channels, z, y, x) -> (n, out, z, y, x)."""
        return super().forward(image.movedim(1, -1)).movedim(-1, 1)


def _conv(n_in: int, n_out: int, kernel: Shape3D) -> nn.Conv3d:
    return nn.Conv3d(n_in, n_out, kernel, padding=(kernel[0] // 2, kernel[1] // 2, kernel[2] // 2))


def _enlarge(image: Tensor, factor: Shape3D) -> Tensor:
    if factor == (1, 1, 1):
        return image
    return functional.interpolate(image, scale_factor=[float(f) for f in factor], mode="nearest")
