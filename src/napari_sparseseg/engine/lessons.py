"""What a step of the U-Net learns from: the painted voxels of its patches, and lessons that turn them into a loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_sparseseg._types import Box
from napari_sparseseg.config import PaintConfig
from napari_sparseseg.engine.losses import partial_label_loss
from napari_sparseseg.engine.network import SparseNet
from napari_sparseseg.engine.paint import Paint
from napari_sparseseg.engine.weak.overlapping import overlapping_loss


@dataclass(frozen=True, slots=True)
class Targets:
    """What was said about n voxels: `allowed` (n, classes) bool, `weights` (n,).

    Where classes may overlap, `present` (n, classes) says which are there, and those that are not `allowed` are absent.
    """

    allowed: Tensor
    weights: Tensor
    present: Tensor | None = None

    @classmethod
    def of(
        cls, paints: Sequence[Paint], members: Sequence[tuple[int, npt.NDArray[np.intp]]], device: torch.device
    ) -> Targets:
        """Those of some voxels: pairs of a volume and the numbers of voxels in its paint."""
        allowed = np.concatenate([paints[volume].allowed[numbers] for volume, numbers in members])
        weights = np.concatenate([paints[volume].weights[numbers] for volume, numbers in members])
        present = [p[numbers] for volume, numbers in members if (p := paints[volume].present) is not None]
        return cls(
            torch.from_numpy(allowed).to(device),
            torch.from_numpy(weights).to(device),
            torch.from_numpy(np.concatenate(present)).to(device) if present else None,
        )

    def __getitem__(self, rows: Tensor) -> Targets:
        return Targets(self.allowed[rows], self.weights[rows], None if self.present is None else self.present[rows])


Criterion = Callable[[Tensor, Targets], Tensor]
"""Loss of the class logits (n, classes) of n voxels; pixel head and U-Net learn by the same."""


def criterion_of(painting: PaintConfig) -> Criterion:
    """The criterion that the settings ask for; targets of classes that may overlap have one of their own."""
    return partial(_loss_of, painting)  # which can be pickled, with the trainer that has it


def _loss_of(painting: PaintConfig, logits: Tensor, targets: Targets) -> Tensor:
    if targets.present is not None:
        return overlapping_loss(logits, targets.present, ~targets.allowed, targets.weights, painting)
    return partial_label_loss(logits, targets.allowed, targets.weights, smoothing=painting.label_smoothing)


@dataclass(frozen=True, slots=True)
class Patches:
    """The learnt voxels of a batch of patches, n in all, one patch after the other.

    `members` holds for each patch its volume and the numbers of the voxels in that volume's paint, `positions` where
    they lie in the patch as it was turned and mirrored. `decoded` (n, width) is what the U-Net's heads look at,
    `logits` (n, classes) what its class head says.

    `image` (patches, z, y, x, features) are the patches with all their features. Of them only the box `inner` is
    decoded: `dense` (patches, classes, z, y, x) is what the class head says of all its voxels.
    """

    members: Sequence[tuple[int, npt.NDArray[np.intp]]]
    positions: Sequence[npt.NDArray[np.int64]]
    decoded: Tensor
    logits: Tensor
    image: Tensor
    inner: Box
    dense: Tensor

    @property
    def painted(self) -> Tensor:
        """Which voxels of `inner` the others are about, (patches, z, y, x) bool."""
        found = np.zeros((len(self.positions), *self.inner.shape), bool)
        for number, positions in enumerate(self.positions):
            found[(number, *(positions - self.inner.start).T)] = True
        return torch.from_numpy(found).to(self.dense.device)


class Lesson(Protocol):
    """Adds its share to the loss of a step; made anew whenever the paint has changed."""

    def loss(self, network: SparseNet, patches: Patches) -> Tensor:
        """A scalar, weighted against the loss of the classes, with gradients to `network`."""


class ClassLesson:
    """Which class each painted voxel is, or may be."""

    def __init__(self, paints: Sequence[Paint], criterion: Criterion) -> None:
        self._paints = paints
        self._criterion = criterion

    def loss(self, network: SparseNet, patches: Patches) -> Tensor:  # noqa: ARG002 - as every lesson
        """The criterion on the U-Net's logits."""
        return self._criterion(patches.logits, Targets.of(self._paints, patches.members, patches.logits.device))


def box_of(positions: npt.NDArray[np.int64]) -> Box:
    """The box around some voxels: only there does the loss ask for logits, mostly on a single plane."""
    low, high = positions.min(0).tolist(), (positions.max(0) + 1).tolist()
    return Box((low[0], low[1], low[2]), (high[0], high[1], high[2]))


def gathered(image: Tensor, where: Sequence[tuple[Tensor, ...]]) -> Tensor:
    """Voxels of each (n, channels, z, y, x), (voxels, channels): `where` holds their z, y and x."""
    return torch.cat([image.movedim(1, -1)[number][places] for number, places in enumerate(where)])
