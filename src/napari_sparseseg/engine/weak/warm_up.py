"""Warming up on the volume itself: before it learns from paint, the U-Net fills in what is hidden from it.

Source: masked autoencoders, He et al. 2021, arXiv:2111.06377; what is filled in are the standardised filter features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from napari_sparseseg._types import Shape3D, Spacing
from napari_sparseseg.config import TrainingConfig
from napari_sparseseg.engine.device import mixed_precision
from napari_sparseseg.engine.heads import Pointwise
from napari_sparseseg.engine.optimiser import AdamW
from napari_sparseseg.engine.unet import UNet3D

_SHARE = 0.4  # of a patch that is hidden
_EDGE = 4  # of a hidden block, in edges of the finest voxel
_RISE = 20  # steps over which the step size rises
_FALL_FROM = 0.7  # of all steps, after which it falls


def warm_up(
    unet: UNet3D,
    draw: Callable[[], Tensor],
    spacing: Spacing,
    config: TrainingConfig,
    rng: np.random.Generator,
) -> Iterator[float]:
    """Train the trunk, whose heads stay as they are; yields the loss after each step.

    `draw` gives standardised features of patches from anywhere, (n, z, y, x, features). What the trunk makes of them
    with blocks hidden goes through a linear layer, which is thrown away, and is compared with what was hidden.
    """
    trunk = [value for name, value in unet.named_parameters() if name.partition(".")[0] in unet.TRUNK]
    rebuild = _Rebuilder(unet.classify.in_features, unet.stem.in_features).to(unet.stem.weight.device)
    optimiser = AdamW([*trunk, *rebuild.parameters()], weight_decay=config.weight_decay)
    for step in range(config.warm_up_steps):
        features = draw()
        n, z, y, x, _ = features.shape
        hidden = torch.from_numpy(hidden_blocks(n, (z, y, x), spacing, rng)).to(features.device)
        with mixed_precision(features.device):
            seen = features.masked_fill(hidden[..., None], 0).movedim(-1, 1)
            found = rebuild(unet.decoded(unet.stem(seen))).movedim(1, -1)
        loss = reconstruction_loss(found.float(), features, hidden)
        rise, left = min(1.0, (step + 1) / _RISE), 1 - step / config.warm_up_steps
        optimiser.step(loss, config.learning_rate * rise * min(1.0, max(0.05, left / (1 - _FALL_FROM))))
        yield float(loss.detach())


def reconstruction_loss(found: Tensor, features: Tensor, hidden: Tensor) -> Tensor:
    """Mean squared error over the features of `hidden` voxels, which must be some; the others have zero gradient.

    `found` and `features` are (n, z, y, x, features), `hidden` (n, z, y, x) bool.
    """
    return (found[hidden] - features[hidden]).square().mean()


def hidden_blocks(n: int, shape: Shape3D, spacing: Spacing, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Which voxels are hidden, (n, z, y, x): blocks, as cubic as voxels allow, of which there is at least one."""
    edges = [max(1, round(_EDGE * min(spacing) / size)) for size in spacing]
    cells = [-(-length // edge) for length, edge in zip(shape, edges, strict=True)]
    hidden = rng.random((n, *cells)) < _SHARE
    hidden[:, 0, 0, 0] |= ~hidden.reshape(n, -1).any(1)
    for axis, edge in enumerate(edges, start=1):
        hidden = hidden.repeat(edge, axis)
    return hidden[:, : shape[0], : shape[1], : shape[2]]


class _Rebuilder(Pointwise):
    """From what the heads look at to features; from zero, so that no random number is needed."""

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)
