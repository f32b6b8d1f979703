"""What a network says beside the classes: small layers on the U-Net's decoded features, each there if it is wanted.

Each starts without drawing a random number, so that all other weights are the same with and without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_sparseseg.engine.objects.offsets import Offset

EMBEDDING_SIZE = 16
MOST_CENTRES = 1024
_VOXELS_AT_ONCE = 1 << 16
_STEEPNESS = 4
_LENGTH_POWER = 0.25  # 0: direction only, 1: length as it is; in between found more of what was new than either


Novelty = Literal["off", "features", "embedding"]
"""In which space novelty is measured: not at all, among filter features, or in an embedding that is learnt."""


@dataclass(frozen=True, slots=True)
class Heads:
    """What a network says beside the classes: affinities of these `offsets`, candidate classes, and what is new."""

    offsets: tuple[Offset, ...] = ()
    candidates: bool = False
    novelty: Novelty = "off"


class Pointwise(nn.Linear):
    """A 1x1x1 convolution as a matrix product; with channels last no copy is made."""

    def forward(self, image: Tensor) -> Tensor:
        """(n, channels, z, y, x) -> (n, out, z, y, x)."""
        return super().forward(image.movedim(1, -1)).movedim(-1, 1)

    def of_voxels(self, decoded: Tensor) -> Tensor:
        """The same of single voxels, (n, channels) -> (n, out)."""
        return functional.linear(decoded, self.weight, self.bias)


class AffinityHead(Pointwise):
    """Logits of the affinities, (n, channels, z, y, x) -> (n, offsets, z, y, x): is a voxel's pair of one object.

    `taught` counts the painted pairs that each offset has learnt from; what was never taught must not be believed.
    Without training every answer is that it does not know. `smallest` is how many voxels an object has, by the painted
    ones; 0 if that is not known.
    """

    def __init__(self, n_channels: int, offsets: Sequence[Offset]) -> None:
        super().__init__(n_channels, len(offsets))
        self.offsets = tuple(offsets)
        self.taught = (0,) * len(self.offsets)
        self.smallest = 0

    def reset_parameters(self) -> None:
        """Start at one half everywhere."""
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)


class CandidateHead(Pointwise):
    """Logits of classes that do not rule each other out, (n, channels, z, y, x) -> (n, classes, z, y, x).

    A class whose score reaches `threshold` is a candidate; infinity, before it was calibrated, leaves one to a voxel.
    """

    def __init__(self, n_channels: int, n_classes: int) -> None:
        super().__init__(n_channels, n_classes)
        self.threshold = torch.inf

    def reset_parameters(self) -> None:
        """Start at one half everywhere."""
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def scores(self, decoded: Tensor, probabilities: Tensor, context: float) -> Tensor:
        """How much each class may be it, 0..1, (n, classes), of (n, channels) and the classes' probabilities.

        As in the answer about classes, `context` is the U-Net's share; the rest is what the pixel head knows.
        """
        return torch.lerp(probabilities, self.of_voxels(decoded).float().sigmoid(), context)

    def candidates(self, decoded: Tensor, probabilities: Tensor, context: float) -> Tensor:
        """Which classes come into question, (n, classes) bool: the likeliest, and those that reach the threshold."""
        found = self.scores(decoded, probabilities, context) >= self.threshold
        return found.scatter_(-1, probabilities.argmax(-1, keepdim=True), True)


class EmbeddingHead(Pointwise):
    """Unit vectors (n, size) of decoded features (n, channels), close to each other where voxels are alike.

    It starts as the features themselves.
    """

    def __init__(self, n_channels: int) -> None:
        super().__init__(n_channels, min(EMBEDDING_SIZE, n_channels))

    def reset_parameters(self) -> None:
        """Start with the features as they are."""
        nn.init.eye_(self.weight)
        nn.init.zeros_(self.bias)

    def points(self, decoded: Tensor) -> Tensor:
        """The unit vectors."""
        return functional.normalize(self.of_voxels(decoded).float(), dim=-1)


class Familiar(nn.Module):
    """What was painted, as a few points that stand for it: tells how far others are from all of it.

    `centres` (n, size), and `reach` (n,), the distance from them within which nearly all of their class's paint lies;
    `spread` (size,) of the features that points are made of. None of it before it was settled.
    """

    centres: Tensor
    reach: Tensor
    spread: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("centres", torch.zeros(0, size), persistent=False)
        self.register_buffer("reach", torch.zeros(0), persistent=False)
        self.register_buffer("spread", torch.ones(size), persistent=False)

    def points(self, features: Tensor) -> Tensor:
        """Points (..., size) of standardised filter features, each by its spread.

        Their direction counts more than their length, which in a volume varies much among voxels of one class.
        """
        scaled = features / self.spread
        length: Tensor = scaled.norm(dim=-1, keepdim=True)
        return scaled * length.clamp_min(1e-6).pow(_LENGTH_POWER - 1)

    def novelty(self, points: Tensor) -> Tensor:
        """How unlike everything that was painted points (n, size) are, (n,), 0..1; 0 while nothing is known.

        s^4 / (1 + s^4), where s is the distance from the nearest centre in units of its reach: 1/2 is how far one in a
        hundred painted voxels lies, and most of them are close to 0.
        """
        if not len(self.centres):
            return torch.zeros(len(points), device=points.device)
        nearest = [
            (torch.cdist(part, self.centres) / self.reach).amin(-1) for part in torch.split(points, _VOXELS_AT_ONCE)
        ]
        return 1 / (1 + torch.cat(nearest).pow(-_STEEPNESS))
