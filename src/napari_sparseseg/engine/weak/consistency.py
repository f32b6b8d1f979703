"""Consistency: where nothing was painted, the network that learns is to agree with the average of what it was.

The average of the weights, which predicts anyway, is a teacher that is better than its pupil, and sees all features of
a patch while the pupil must do without some. Source: Tarvainen & Valpola 2017, Mean teachers are better role models,
arXiv:1703.01780.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from napari_sparseseg._types import Shape3D, Spacing
from napari_sparseseg.engine.device import mixed_precision
from napari_sparseseg.engine.lessons import Patches
from napari_sparseseg.engine.losses import weighted_mean
from napari_sparseseg.engine.network import SparseNet

_FROM = 20  # steps after which the average is worth listening to
_RISE = 40  # steps over which the weight of the lesson rises
_AROUND = 4  # edges of the finest voxel, around what is painted of a patch, in which both are compared


class ConsistencyLesson:
    """The pupil's probabilities on unpainted voxels of a patch against the teacher's, who has no gradient.

    `weight` is against the loss of the classes, `step` tells which step it is: the first ones have no such lesson.
    """

    def __init__(self, teacher: SparseNet, weight: float, step: Callable[[], int]) -> None:
        self._teacher = teacher
        self._weight = weight
        self._step = step

    def loss(self, network: SparseNet, patches: Patches) -> Tensor:
        """`disagreement`, weighted."""
        weight = self._weight * min(1.0, max(0.0, (self._step() - _FROM) / _RISE))
        if not weight:
            return patches.logits.new_zeros(())
        with torch.no_grad(), mixed_precision(patches.image.device):
            teacher = self._teacher.unet(patches.image.movedim(-1, 1), patches.inner)
        answers = [network.probabilities(logits.float()) for logits in (patches.dense, teacher)]
        return weight * disagreement(answers[0], answers[1], ~patches.painted)


def disagreement(pupil: Tensor, teacher: Tensor, counts: Tensor) -> Tensor:
    """Mean over the voxels that count of the squared difference of probabilities, summed over the classes.

    Probabilities are (n, classes, z, y, x), `counts` is (n, z, y, x) bool. Voxels that do not count have exactly zero
    gradient; 0 where none counts.
    """
    difference = (pupil - teacher).square().sum(1)
    return weighted_mean(difference, counts.to(difference))


def margin(spacing: Spacing) -> Shape3D:
    """Voxels along z, y, x around the painted ones of a patch in which the lesson is given: slices are thin."""
    z, y, x = (max(1, round(_AROUND * min(spacing) / size)) for size in spacing)
    return z, y, x
