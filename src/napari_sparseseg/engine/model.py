"""A fitted model: all that prediction needs, in one object that can be saved."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch

from napari_sparseseg._types import Spacing, Volume
from napari_sparseseg.config import ModelConfig
from napari_sparseseg.engine.classes import ClassTable
from napari_sparseseg.engine.features import FeatureMap, FilterBank
from napari_sparseseg.engine.heads import Heads
from napari_sparseseg.engine.network import SparseNet
from napari_sparseseg.engine.normalise import IntensityRange
from napari_sparseseg.engine.unet import plan_levels


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What fixes a network's shape. `flat` axes held a single voxel in every training image.

    `lengths` is what those images tell of their voxels (`sharpness.lengths_of`).
    """

    config: ModelConfig
    spacing: Spacing
    n_channels: int
    flat: tuple[bool, bool, bool]
    lengths: Spacing | None = None

    @property
    def bank(self) -> FilterBank:
        return FilterBank(self.spacing, self.n_channels, self.config.scales, self.lengths)

    def build(
        self, n_classes: int, seed: int = 0, heads: Heads | None = None, *, overlapping: bool = False
    ) -> SparseNet:
        """A network with fresh weights drawn from `seed`; torch's global random state is left as it was.

        Beside that of the classes it has these `heads`; all other weights are the same with and without them. Its
        classes may be `overlapping`.
        """
        levels = plan_levels(self.spacing, self.config.depth, self.flat)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed % 2**63)  # torch.manual_seed would reseed GPUs as well
            network = SparseNet(self.bank.n_features, n_classes, levels, self.config, heads, overlapping=overlapping)
        network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # missing in torch's stubs
        return network


def spacing_that_counts(spacing: Spacing, flat: tuple[bool, bool, bool]) -> Spacing:
    """The voxel size along z, y, x for a new model: of `flat` axes no less than of the finest other one.

    Scales count in finest edges, and along a flat axis there is nothing that a filter could span.
    """
    finest = min((size for size, is_flat in zip(spacing, flat, strict=True) if not is_flat), default=0.0)
    z, y, x = (max(size, finest) if is_flat else size for size, is_flat in zip(spacing, flat, strict=True))
    return z, y, x


@dataclass(slots=True)
class FittedModel:
    """A network with what it takes to apply it. `intensity` is that of the training images, in their order."""

    spec: ModelSpec
    classes: ClassTable
    network: SparseNet
    intensity: tuple[IntensityRange, ...] = field(default_factory=tuple)

    @classmethod
    def fresh(cls, spec: ModelSpec, classes: ClassTable, device: torch.device, seed: int) -> FittedModel:
        """A model that has learnt nothing yet, on a device; that there are objects it learns from paint."""
        network = spec.build(len(classes), seed, overlapping=classes.overlapping)
        return cls(spec, replace(classes, objects=()), network.to(device))

    def features_of(self, volume: Volume, intensity: IntensityRange, *, cache_bytes: int) -> FeatureMap:
        """What the network looks at in a volume, on the network's device; computed where it is read."""
        device = self.network.mean.device
        return FeatureMap(volume, self.spec.bank, intensity, device=device, cache_bytes=cache_bytes)
