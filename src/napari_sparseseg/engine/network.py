"""The whole network: standardised filter features, a pixel head, a U-Net, and how they are mixed.

The pixel head is a stack of 1x1x1 convolutions: it learns within a second or two what a classifier on filter
features can know. The U-Net sees the same features with their surroundings. `context` says how much of the
answer is the U-Net's; the trainer chooses it on held-out paint, so the mix is not worse than either alone. `shift`
makes up for classes that are painted more than their share. Classes that may overlap are answered one by one: a sigmoid
of each logit takes the place of the softmax over all.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_sparseseg._types import Box, Extra
from napari_sparseseg.config import ModelConfig
from napari_sparseseg.engine.heads import EMBEDDING_SIZE, AffinityHead, Familiar, Heads, Novelty
from napari_sparseseg.engine.unet import LevelPlan, UNet3D

_PIXELS_AT_ONCE = 1 << 12
_PIXELS_AT_ONCE_ON_GPU = 1 << 20

Mapped: TypeAlias = Callable[[Box, Callable[[Tensor, Box], Tensor]], Tensor]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a network says of a box, voxels first: log-probabilities (z, y, x, classes), and what its heads add.

    `affinities` (z, y, x, offsets) 0..1, `candidates` (z, y, x, classes) bool and `novelty` (z, y, x) 0..1 are None
    where they were not asked for, or the network has no such head.
    """

    log_probabilities: Tensor
    affinities: Tensor | None = None
    candidates: Tensor | None = None
    novelty: Tensor | None = None


class PixelHead(nn.Module):
    """Perceptron on the features of single voxels: (..., features) -> (..., classes)."""

    def __init__(self, n_features: int, n_classes: int, width: int) -> None:
        super().__init__()
        self.hidden = nn.ModuleList([nn.Linear(n_features, width), nn.Linear(width, width)])
        self.classify = nn.Linear(width, n_classes)

    def forward(self, features: Tensor, dropout: Sequence[Tensor] | None = None) -> Tensor:
        """Logits; `dropout` holds a factor for each hidden layer's units, (n, width), while training."""
        return self.beyond_first(self.hidden[0](features), dropout)

    def beyond_first(self, hidden: Tensor, dropout: Sequence[Tensor] | None = None) -> Tensor:
        """Logits from what the first layer gives, which is overwritten."""
        for number, layer in enumerate([nn.Identity(), *self.hidden[1:]]):
            hidden = functional.relu(layer(hidden), inplace=True)
            if dropout is not None:
                hidden = hidden * dropout[number]
        logits: Tensor = self.classify(hidden)
        return logits


def familiar_of(heads: Heads, n_features: int, width: int) -> Familiar | None:
    """What novelty is measured from, in the space that the heads name; None if it is not measured."""
    if heads.novelty == "off":
        return None
    return Familiar(n_features if heads.novelty == "features" else min(EMBEDDING_SIZE, width))


class SparseNet(nn.Module):
    """Pixel head and U-Net on the same standardised features."""

    mean: Tensor
    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        n_features: int,
        n_classes: int,
        levels: Sequence[LevelPlan],
        config: ModelConfig | None = None,
        heads: Heads | None = None,
        *,
        overlapping: bool = False,
    ) -> None:
        super().__init__()
        config = config or ModelConfig()
        self.pixel = PixelHead(n_features, n_classes, config.head_width)
        self.unet = UNet3D(n_features, n_classes, levels, config.width, heads)
        self.register_buffer("mean", torch.zeros(n_features))
        self.register_buffer("scale", torch.ones(n_features))
        self.register_buffer("shift", torch.zeros(n_classes), persistent=False)
        self.familiar = familiar_of(heads, n_features, config.width) if heads else None
        self.context = 0.0
        self.overlapping = overlapping

    @property
    def n_classes(self) -> int:
        return self.pixel.classify.out_features

    @property
    def heads(self) -> Heads:
        """What the network says beside the classes."""
        offsets = self.unet.affinity.offsets if self.unet.affinity is not None else ()
        space: Novelty = "features" if self.unet.embedding is None else "embedding"
        return Heads(offsets, self.unet.candidates is not None, "off" if self.familiar is None else space)

    @property
    def extras(self) -> frozenset[Extra]:
        """The same, by the names of what is said."""
        heads = self.heads
        said: dict[Extra, bool] = {
            "affinities": bool(heads.offsets),
            "candidates": heads.candidates,
            "novelty": heads.novelty != "off",
        }
        return frozenset(extra for extra, is_said in said.items() if is_said)

    @property
    def affinity(self) -> AffinityHead | None:
        """The head that tells objects apart, or None where no ids were painted."""
        return self.unet.affinity

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
        """Logits of the mix, classes last: a weighted mean of both log-probabilities, of logits if classes overlap."""
        share = self.context if context is None else context
        if self.overlapping:
            return (1 - share) * pixel + share * unet
        return (1 - share) * pixel.log_softmax(-1) + share * unet.log_softmax(-1)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Of one head's logits, (n, classes, ...)."""
        return logits.sigmoid() if self.overlapping else logits.softmax(1)

    def forward(self, features: Tensor, inner: Box | None = None) -> Tensor:
        """Raw features of one tile (z, y, x, features) -> log-probabilities (z, y, x, classes), of `inner` only."""
        whole = _box_of(features)
        return self.answer(_mapped(features), whole, inner or whole)

    def with_decoded(self, features: Tensor, inner: Box | None = None) -> tuple[Tensor, Tensor]:
        """The same, and what the U-Net's heads look at, (z, y, x, width)."""
        whole = _box_of(features)
        log_probabilities, decoded = self._answer(_mapped(features), whole, inner or whole)
        return log_probabilities, decoded[0].movedim(0, -1)

    def answer(self, mapped: Mapped, source: Box, inner: Box) -> Tensor:
        """Log-probabilities (z, y, x, classes) of `inner`, by what is known of `source`.

        `mapped(box, function)` applies a function of single voxels to the raw features of the parts of a box, and
        joins what it gives: the features of all, which take much memory, need never be there at once.
        """
        if self.context == 0:
            return self._log_probabilities(mapped(inner, lambda features, _: self._of_pixels(features)))
        return self._answer(mapped, source, inner)[0]

    def answer_with(self, extras: Collection[Extra], mapped: Mapped, source: Box, inner: Box) -> Answer:
        """The same, and those of the `extras` that the network has a head for."""
        log_probabilities, decoded = self._answer(mapped, source, inner)
        return Answer(
            log_probabilities,
            affinities=self._affinities(decoded) if "affinities" in extras else None,
            candidates=self._candidates(decoded, log_probabilities) if "candidates" in extras else None,
            novelty=self._novelty(decoded, mapped, inner) if "novelty" in extras else None,
        )

    def _affinities(self, decoded: Tensor) -> Tensor | None:
        if self.affinity is None:
            return None
        affinities: Tensor = self.affinity(decoded)[0].movedim(0, -1)
        return affinities.float().sigmoid()

    def _candidates(self, decoded: Tensor, log_probabilities: Tensor) -> Tensor | None:
        head = self.unet.candidates
        if head is None:
            return None
        return head.candidates(decoded[0].movedim(0, -1), log_probabilities.exp(), self.context)

    def _novelty(self, decoded: Tensor, mapped: Mapped, inner: Box) -> Tensor | None:
        familiar, head = self.familiar, self.unet.embedding
        if familiar is None:
            return None
        if head is None:
            return mapped(inner, lambda features, _: _by_rows(self._novelty_of_features, features)[..., None])[..., 0]
        return _by_rows(lambda rows: familiar.novelty(head.points(rows)), decoded[0].movedim(0, -1))

    def _novelty_of_features(self, features: Tensor) -> Tensor:
        assert self.familiar is not None  # noqa: S101 - its callers have looked
        return self.familiar.novelty(self.familiar.points(self.standardised(features)))

    def _answer(self, mapped: Mapped, source: Box, inner: Box) -> tuple[Tensor, Tensor]:
        """Log-probabilities, and what the U-Net's heads look at, (1, width, z, y, x)."""
        pixel: list[tuple[Box, Tensor]] = []

        def both(features: Tensor, part: Box) -> Tensor:
            wanted = part.clipped(inner)
            if self.context < 1 and wanted.n_voxels:
                known = features[wanted.relative_to(part.start).slices]
                pixel.append((wanted.relative_to(inner.start), self._of_pixels(known)))
            return self._first(self.unet.stem, features)

        stem = mapped(source, both).movedim(-1, 0)[None]
        decoded = self.unet.decoded(stem, inner.relative_to(source.start))
        logits = self.unet.classify(decoded)[0].movedim(0, -1)
        for box, of_part in pixel:  # that neither is normalised shifts all classes of a voxel alike
            logits[box.slices].lerp_(of_part.to(logits.dtype), 1 - self.context)
        return self._log_probabilities(logits), decoded

    def at_a_glance(self, features: Tensor) -> Tensor:
        """Log-probabilities by the pixel head alone, (z, y, x, features) -> (z, y, x, classes)."""
        return self._log_probabilities(self._of_pixels(features))

    def _log_probabilities(self, logits: Tensor) -> Tensor:
        # torch is several times faster along the first axis than along a last one of a few classes
        by_class = (logits.float() + self.shift).movedim(-1, 0).contiguous()
        normalised = functional.logsigmoid(by_class) if self.overlapping else by_class.log_softmax(0)
        return normalised.movedim(0, -1)

    def _of_pixels(self, features: Tensor) -> Tensor:
        """The pixel head's logits, in parts that fit a processor's cache, or a GPU's memory: its layers are wide."""
        rows = features.reshape(-1, features.shape[-1])
        first = self.pixel.hidden[0]
        n_rows = _PIXELS_AT_ONCE if rows.device.type == "cpu" else _PIXELS_AT_ONCE_ON_GPU
        parts = [self.pixel.beyond_first(self._first(first, part)) for part in torch.split(rows, n_rows)]
        return torch.cat(parts).reshape(*features.shape[:-1], self.n_classes)

    def _first(self, layer: nn.Module, features: Tensor) -> Tensor:
        """A linear layer of the standardised features, from the raw ones: the scaling is in its weights."""
        assert isinstance(layer, nn.Linear)  # noqa: S101 - what is first in either head
        weight = layer.weight / self.scale
        bias = layer.bias - weight @ self.mean
        with torch.autocast(features.device.type, enabled=False):  # half precision would lose what is subtracted
            rows = functional.linear(features.reshape(-1, features.shape[-1]), weight, bias)
        return rows.reshape(*features.shape[:-1], -1)


def _box_of(features: Tensor) -> Box:
    return Box.whole((features.shape[0], features.shape[1], features.shape[2]))


def _mapped(features: Tensor) -> Mapped:
    return lambda box, function: function(features[box.slices], box)


def _by_rows(function: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
    """A function of rows (n, channels) -> (n,) of an image (..., channels) -> (...)."""
    return function(image.reshape(-1, image.shape[-1])).reshape(image.shape[:-1])
