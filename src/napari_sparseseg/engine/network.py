"""The whole network: standardised filter features, a pixel head, a U-Net, and how they are mixed.

The pixel head is a stack of 1x1x1 convolutions: it learns within a second or two what a classifier on filter
features can know. The U-Net sees the same features with their surroundings. `context` says how much of the
answer is the U-Net's; the trainer chooses it on held-out paint, so the mix is not worse than either alone. `shift`
makes up for classes that are painted more than their share.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_sparseseg._types import Box
from napari_sparseseg.config import ModelConfig
from napari_sparseseg.engine.unet import LevelPlan, UNet3D

_PIXELS_AT_ONCE = 1 << 14


class PixelHead(nn.Module):
    """Perceptron on the features of single voxels: (..., features) -> (..., classes)."""

    def __init__(self, n_features: int, n_classes: int, width: int) -> None:
        super().__init__()
        self.hidden = nn.ModuleList([nn.Linear(n_features, width), nn.Linear(width, width)])
        self.classify = nn.Linear(width, n_classes)

    def forward(self, features: Tensor, dropout: Sequence[Tensor] | None = None) -> Tensor:
        """Logits; `dropout` holds a factor for each hidden layer's units, (n, width), while training."""
        for number, layer in enumerate(self.hidden):
            features = functional.relu(layer(features))
            if dropout is not None:
                features = features * dropout[number]
        logits: Tensor = self.classify(features)
        return logits


class SparseNet(nn.Module):
    """Pixel head and U-Net on the same standardised features."""

    mean: Tensor
    scale: Tensor
    shift: Tensor

    def __init__(
        self, n_features: int, n_classes: int, levels: Sequence[LevelPlan], config: ModelConfig | None = None
    ) -> None:
        super().__init__()
        config = config or ModelConfig()
        self.pixel = PixelHead(n_features, n_classes, config.head_width)
        self.unet = UNet3D(n_features, n_classes, levels, config.width)
        self.register_buffer("mean", torch.zeros(n_features))
        self.register_buffer("scale", torch.ones(n_features))
        self.register_buffer("shift", torch.zeros(n_classes), persistent=False)
        self.context = 0.0

    @property
    def n_classes(self) -> int:
        return self.pixel.classify.out_features

    @property
    def is_standardised(self) -> bool:
        """Whether mean and scale have been measured."""
        return bool(self.mean.any())

    def standardise_by(self, features: Tensor, emphasis: Sequence[float]) -> None:
        """Measure the features on these voxels, shape (n, features); their spread is to become `emphasis`."""
        self.mean.copy_(features.mean(0))
        spread = features.std(0, correction=0).clamp_min(1e-4)
        self.scale.copy_(spread / torch.tensor(emphasis, device=spread.device))

    def standardised(self, features: Tensor) -> Tensor:
        """Features with mean 0 and spread `emphasis` over the painted voxels; last axis is the feature."""
        return torch.addcmul(-self.mean / self.scale, features, 1 / self.scale)

    def mixed(self, pixel: Tensor, unet: Tensor, context: float | None = None) -> Tensor:
        """Logits of the mix: a weighted mean of both log-probabilities, classes last."""
        share = self.context if context is None else context
        return (1 - share) * pixel.log_softmax(-1) + share * unet.log_softmax(-1)

    def forward(self, features: Tensor, inner: Box | None = None) -> Tensor:
        """Raw features of one tile (z, y, x, features) -> log-probabilities (z, y, x, classes), of `inner` only."""
        inner = inner or Box.whole((features.shape[0], features.shape[1], features.shape[2]))
        if self.context == 0:
            return self.at_a_glance(features[inner.slices])
        known = self.standardised(features)
        context: Tensor = self.unet(known.movedim(-1, 0)[None], inner)[0].movedim(0, -1)
        if self.context == 1:
            return self._answer(context)
        return self._answer(self.mixed(self._of_pixels(known[inner.slices]), context))

    def at_a_glance(self, features: Tensor) -> Tensor:
        """Log-probabilities by the pixel head alone, (z, y, x, features) -> (z, y, x, classes)."""
        return self._answer(self._of_pixels(self.standardised(features)))

    def _answer(self, logits: Tensor) -> Tensor:
        return (logits + self.shift).log_softmax(-1)

    def _of_pixels(self, known: Tensor) -> Tensor:
        """The pixel head's logits, in parts that fit the processor's cache: its hidden layers are wide."""
        parts = [self.pixel(part) for part in torch.split(known.reshape(-1, known.shape[-1]), _PIXELS_AT_ONCE)]
        return torch.cat(parts).reshape(*known.shape[:3], self.n_classes)
