"""Classes that may overlap: how much each painted voxel says about each class."""

from __future__ import annotations

import torch
from torch import Tensor

from napari_sparseseg.config import PaintConfig
from napari_sparseseg.engine.losses import multi_label_loss
from napari_sparseseg.engine.paint import weight_of_classes


def entry_weights(present: Tensor, absent: Tensor, weights: Tensor, painting: PaintConfig) -> tuple[Tensor, Tensor]:
    """How much it counts that each class is there, and that it is not, both (n, classes).

    `present` and `absent` (n, classes) bool say what was painted, `weights` (n,) how much each voxel counts. A class
    that was not mentioned where another one is present counts as absent, `painting.missing_weight` as much.
    """
    said_present, said_absent = present.to(weights.dtype), absent.to(weights.dtype)
    if painting.missing_weight:
        is_missing = present.any(1, keepdim=True) & ~present & ~absent
        said_absent = said_absent + painting.missing_weight * is_missing
    if painting.label_smoothing:  # a share of the say goes to present and absent alike
        half = painting.label_smoothing * (said_present + said_absent) / 2
        said_present = (1 - painting.label_smoothing) * said_present + half
        said_absent = (1 - painting.label_smoothing) * said_absent + half
    n_classes, voxel = present.shape[1], weights[:, None]
    of_present, of_absent = (
        torch.from_numpy(weight_of_classes(given, n_classes)).to(weights)
        for given in (painting.present_weight, painting.absent_weight)
    )
    return voxel * said_present * of_present, voxel * said_absent * of_absent


def overlapping_loss(logits: Tensor, present: Tensor, absent: Tensor, weights: Tensor, painting: PaintConfig) -> Tensor:
    """`multi_label_loss` of logits (n, classes), with the weights that the settings give to what was painted."""
    return multi_label_loss(logits, *entry_weights(present, absent, weights, painting))
