"""A small 3D U-Net on filter features, shaped by the voxel size.

There is no normalisation layer: the features are standardised, so what a voxel gets does not depend on the
tile in which it is computed. Skips are added, not concatenated (on a CPU `torch.cat` is eight times slower
backward), and every level has one convolution.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_sparseseg._types import Box, Shape3D, Spacing
from napari_sparseseg.engine.heads import AffinityHead, CandidateHead, EmbeddingHead, Heads, Pointwise

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

    Beside `classify` it has the `heads` that are asked for, on the same decoded features. All but heads are
    its `TRUNK`, which knows images, not classes.
    Source: Çiçek et al. 2016, arXiv:1606.06650, with one convolution a level and added skips.
    """

    TRUNK = ("stem", "encoders", "widen", "narrow", "decoders")

    affinity: AffinityHead | None
    candidates: CandidateHead | None
    embedding: EmbeddingHead | None

    def __init__(
        self,
        n_features: int,
        n_classes: int,
        levels: Sequence[LevelPlan],
        width: int = 16,
        heads: Heads | None = None,
    ) -> None:
        super().__init__()
        heads = heads or Heads()
        widths = [min(width * 2**level, 4 * width) for level in range(len(levels))]
        self.levels = tuple(levels)
        self.stem = Pointwise(n_features, width)
        self.encoders = nn.ModuleList(Convolution(w, w, plan.kernel) for w, plan in zip(widths, levels, strict=True))
        self.widen = nn.ModuleList(Pointwise(a, b) for a, b in pairwise(widths))
        self.narrow = nn.ModuleList(Pointwise(b, a) for a, b in pairwise(widths))
        self.decoders = nn.ModuleList(
            Convolution(w, w, plan.kernel) for w, plan in zip(widths[:-1], levels[:-1], strict=True)
        )
        self.classify = Pointwise(width, n_classes)
        # registered even if there is none: whenever they come, their parameters have the same place among the others
        self.register_module("affinity", AffinityHead(width, heads.offsets) if heads.offsets else None)
        self.register_module("candidates", CandidateHead(width, n_classes) if heads.candidates else None)
        self.register_module("embedding", EmbeddingHead(width) if heads.novelty == "embedding" else None)

    @property
    def stride(self) -> Shape3D:
        """Total pooling along z, y, x."""
        total = [1, 1, 1]
        for plan in self.levels:
            total = [t * p for t, p in zip(total, plan.pool, strict=True)]
        return total[0], total[1], total[2]

    @property
    def hidden_weights(self) -> list[nn.Parameter]:
        """The weights between what is seen and what is said, (out, in, ...)."""
        inner = (self.encoders, self.widen, self.narrow, self.decoders)
        return [weight for layers in inner for weight in layers.parameters() if weight.ndim > 1]

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

    def forward(self, features: Tensor, inner: Box | None = None) -> Tensor:
        """Logits of every voxel, or of those in `inner` only: what surrounds it then counts as context.

        The decoder computes nothing that is thrown away, which is most of it where the halo is wide.
        """
        logits: Tensor = self.classify(self.decoded(self.stem(features), inner))
        return logits

    def decoded(self, current: Tensor, inner: Box | None = None) -> Tensor:
        """What the heads look at, (n, width, z, y, x), from what the stem gives, of the same shape."""
        whole = _spatial(current)
        skips = []
        for level, encoder in enumerate(self.encoders):
            if level:
                skips.append(current)
                current = self.widen[level - 1](functional.max_pool3d(current, self.levels[level].pool))
            current = _residual(encoder, current)
        wanted = self._wanted(inner or Box.whole(whole), whole)
        current = _crop(current, wanted[-1])
        for level in range(len(self.levels) - 2, -1, -1):
            pool = self.levels[level + 1].pool
            source = self._source(wanted[level], level, _spatial(skips[-1]))
            covered = _times(wanted[level + 1].start, pool)
            current = _with_enlarged(skips.pop(), self.narrow[level](current), pool, covered)
            current = _residual(self.decoders[level], _crop(current, source.relative_to(covered)))
            current = _crop(current, wanted[level].relative_to(source.start))
        return current

    def _wanted(self, inner: Box, shape: Shape3D) -> list[Box]:
        """What the output of each level must cover, from the finest on, each in the voxels of its level."""
        wanted = [inner]
        for level, plan in enumerate(self.levels[1:]):
            source = self._source(wanted[level], level, shape)
            start = _triple(a // p for a, p in zip(source.start, plan.pool, strict=True))
            wanted.append(Box(start, _triple(-(-b // p) for b, p in zip(source.stop, plan.pool, strict=True))))
            shape = _triple(n // p for n, p in zip(shape, plan.pool, strict=True))
        return wanted

    def _source(self, wanted: Box, level: int, shape: Shape3D) -> Box:
        """What the decoder's convolution must see."""
        reach = _triple(k // 2 for k in self.levels[level].kernel)
        return wanted.grown(reach).clipped(Box.whole(shape))


class Convolution(nn.Conv3d):
    """A convolution that keeps the image's size, on torch's fast path.

    On a CPU torch takes its plain convolution, 3 to 5 times slower than computing everything twice, for a batch of
    one if channels x depth x height is 20480 or less.
    """

    def __init__(self, n_in: int, n_out: int, kernel: Shape3D) -> None:
        super().__init__(n_in, n_out, kernel, padding=_triple(k // 2 for k in kernel))

    def forward(self, image: Tensor) -> Tensor:
        """(n, channels, z, y, x) -> (n, out, z, y, x)."""
        n_images, channels, depth, height, _ = image.shape
        is_slow = n_images == 1 and channels * depth * height <= _PLAIN_CONVOLUTION_UP_TO
        if is_slow and image.device.type == "cpu":
            return super().forward(image.repeat(2, 1, 1, 1, 1))[:1]
        return super().forward(image)


def _residual(convolution: nn.Module, image: Tensor) -> Tensor:
    """Add what the convolution finds to its input."""
    return _sum(functional.relu(convolution(image), inplace=True), image)


def _sum(image: Tensor, other: Tensor) -> Tensor:
    # in place where there are no gradients: large images are bound by memory
    return image + other if torch.is_grad_enabled() else image.add_(other)


def _crop(image: Tensor, box: Box) -> Tensor:
    """View of a box of (n, channels, z, y, x)."""
    return image[(slice(None), slice(None), *box.slices)]


def _spatial(image: Tensor) -> Shape3D:
    return _triple(image.shape[2:])


def _times(corner: Shape3D, factor: Shape3D) -> Shape3D:
    return _triple(c * f for c, f in zip(corner, factor, strict=True))


def _triple(values: Iterable[int]) -> Shape3D:
    z, y, x = values
    return z, y, x


def _with_enlarged(skip: Tensor, image: Tensor, factor: Shape3D, at: Shape3D) -> Tensor:
    """Repeat an image's voxels `factor` times, and add them to what lies in `skip` from the corner `at` on."""
    coarse = _spatial(image)
    skip = _crop(skip, Box(at, _triple(a + c * f for a, c, f in zip(at, coarse, factor, strict=True))))
    if torch.is_grad_enabled():
        return skip + functional.interpolate(image, scale_factor=[float(f) for f in factor], mode="nearest")
    (z, y, x), (fz, fy, fx) = coarse, factor
    repeats = skip.movedim(1, -1).view(len(skip), z, fz, y, fy, x, fx, -1)
    repeats.add_(image.movedim(1, -1)[:, :, None, :, None, :, None])
    return skip
