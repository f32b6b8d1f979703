"""Average-K classification: sets of candidate classes, of K classes on average, by a second head.

Which voxels are ambiguous nobody paints. So the softmax head teaches it: in each batch its probabilities are cut at the
threshold that returns K classes a voxel on average; a head of sigmoids learns what is above, and the true class.
Source: Garcin et al. 2023, A two-head loss function for deep Average-K classification, arXiv:2303.18118.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from napari_sparseseg.engine.lessons import Patches, Targets
from napari_sparseseg.engine.losses import multi_label_loss
from napari_sparseseg.engine.network import SparseNet
from napari_sparseseg.engine.paint import Paint

_WEIGHT = 1.0  # of the loss beside that of the classes


def pseudo_candidates(probabilities: Tensor, allowed: Tensor, average: float) -> Tensor:
    """Which classes are taken for candidates, (n, classes) bool: those above the threshold, and the true one.

    The threshold on `probabilities` (n, classes) lies in the middle between the last of the `average` times n largest
    and the next one. The true class is the likeliest of those that `allowed` (n, classes) leaves.
    """
    found = probabilities >= threshold_for(probabilities.flatten(), round(average * len(probabilities)))
    true = probabilities.masked_fill(~allowed, -1).argmax(dim=-1, keepdim=True)
    return found.scatter(-1, true, True)


def threshold_for(scores: Tensor, n_above: int) -> float:
    """Above which `n_above` of the scores (n,) lie; of equal ones all or none."""
    if n_above <= 0:
        return torch.inf
    if n_above >= len(scores):
        return -torch.inf
    above, below = scores.topk(n_above + 1).values[-2:].tolist()
    return float((above + below) / 2)


def average_threshold(scores: Tensor, probabilities: Tensor, average: float) -> float:
    """Threshold at which voxels get `average` classes, the likeliest of each voxel among them; both (n, classes)."""
    others = torch.ones_like(scores, dtype=torch.bool).scatter_(-1, probabilities.argmax(-1, keepdim=True), False)
    return max(0.0, threshold_for(scores[others], round((average - 1) * len(scores))))


class CandidateLesson:
    """Teaches the candidate head what the class head takes into consideration."""

    def __init__(self, paints: Sequence[Paint], average: float) -> None:
        self._paints = paints
        self._average = average

    def loss(self, network: SparseNet, patches: Patches) -> Tensor:
        """Loss of the voxels that were painted with less than all classes."""
        head = network.unet.candidates
        assert head is not None  # noqa: S101 - the lesson is only given to networks that have it
        targets = Targets.of(self._paints, patches.members, patches.logits.device)
        rows = torch.nonzero((targets.weights > 0) & ~targets.allowed.all(dim=-1))[:, 0]
        targets = targets[rows]
        candidates = pseudo_candidates(patches.logits[rows].detach().softmax(dim=-1), targets.allowed, self._average)
        present = candidates * targets.weights[:, None]
        return _WEIGHT * multi_label_loss(
            head.of_voxels(patches.decoded[rows]), present, targets.weights[:, None] - present
        )
