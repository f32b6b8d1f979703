"""Distillation: where little is painted, the U-Net also learns what the pixel head says of unpainted voxels.

A U-Net knows a hundred painted voxels by heart after a few steps, and then answers at random elsewhere. The pixel head,
which knows its features only, generalises from less. A U-Net that must agree with it all over the volume starts from
there, and adds what paint teaches of context. Source: Hinton, Vinyals & Dean 2015, arXiv:1503.02531.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from napari_sparseseg.engine.lessons import Patches
from napari_sparseseg.engine.losses import weighted_mean
from napari_sparseseg.engine.network import SparseNet
from napari_sparseseg.engine.paint import Paint, sufficiency

_FEW_STROKES = 0.8  # scarcity of a dozen strokes on a slice or three


class DistillationLesson:
    """The U-Net's classes on unpainted voxels of a patch against the pixel head's, which has no gradient.

    `weight` is against the loss of the classes.
    """

    def __init__(self, weight: float) -> None:
        self._weight = weight

    def loss(self, network: SparseNet, patches: Patches) -> Tensor:
        """Mean cross-entropy of the voxels of `inner` that are not painted, weighted."""
        with torch.no_grad():
            known = patches.image[(slice(None), *patches.inner.slices)]
            teacher = network.pixel(known.reshape(-1, known.shape[-1]))
        pupil = patches.dense.float().movedim(1, -1).reshape(teacher.shape)
        disagreement = _cross_entropy(pupil, teacher, overlapping=network.overlapping)
        return self._weight * weighted_mean(disagreement, (~patches.painted.flatten()).to(disagreement))


def _cross_entropy(pupil: Tensor, teacher: Tensor, *, overlapping: bool) -> Tensor:
    """Of the probabilities that belong to logits (n, classes), (n,)."""
    if overlapping:
        return functional.binary_cross_entropy_with_logits(pupil, teacher.sigmoid(), reduction="none").sum(1)
    return functional.cross_entropy(pupil, teacher.softmax(1), reduction="none")


def need_of_teaching(paints: Sequence[Paint], scarcity: float, strokes: float) -> float:
    """How much the U-Net should listen to the pixel head, 0..1: 1 for a few strokes, or next to nothing of a class.

    `scarcity` is how little is painted, `strokes` the share of it that is not filled: of windows that are painted all
    over, small as they may be, the U-Net learns more than the pixel head knows.
    """
    of_strokes = min(1.0, scarcity * strokes / _FEW_STROKES)
    return max(of_strokes, 1 - sufficiency(paints))
