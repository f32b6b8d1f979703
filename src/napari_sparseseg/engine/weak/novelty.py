"""What is like nothing that was painted: how far a voxel lies from points that stand for the paint.

Several points a class, since a class may look different in different places; how far painted voxels lie from them is
the yardstick. The space is that of the filter features, or an embedding learnt by the supervised contrastive loss.
Sources: Khosla et al. 2020, arXiv:2004.11362, of the loss; Snell et al. 2017, arXiv:1703.05175, of prototypes, which
are means there and centres of clusters here.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from napari_sparseseg.engine.heads import MOST_CENTRES, Familiar
from napari_sparseseg.engine.lessons import Patches, Targets
from napari_sparseseg.engine.losses import contrastive_loss
from napari_sparseseg.engine.network import SparseNet
from napari_sparseseg.engine.paint import Paint

_WEIGHT = 0.5  # of the loss beside that of the classes
_TEMPERATURE = 0.1
_ANCHORS = 512  # voxels of a batch that are compared with each other
_CENTRES = 32  # of a class
_ROUNDS = 15
_REACHED = 0.99  # share of the painted voxels within reach
_SHORTEST = 1e-4  # reach
_FEWEST = 100  # held-out voxels of a class that tell how far it reaches


class EmbeddingLesson:
    """Teaches the embedding which painted voxels are of one class."""

    def __init__(self, paints: Sequence[Paint]) -> None:
        self._paints = paints

    def loss(self, network: SparseNet, patches: Patches) -> Tensor:
        """Loss of about as many voxels of each class; a set of classes says nothing."""
        head = network.unet.embedding
        assert head is not None  # noqa: S101 - the lesson is only given to networks that have it
        targets = Targets.of(self._paints, patches.members, patches.logits.device)
        rows = anchors(targets, _ANCHORS)
        points, channels = head.points(patches.decoded[rows]), targets.allowed[rows].int().argmax(dim=-1)
        return _WEIGHT * contrastive_loss(points, channels, targets.weights[rows], temperature=_TEMPERATURE)


def anchors(targets: Targets, n: int) -> Tensor:
    """Rows of at most n voxels of a single class, as many of each class, evenly spread over those it has."""
    definite = (targets.allowed.sum(dim=-1) == 1) & (targets.weights > 0)
    of_class = [torch.nonzero(definite & row)[:, 0] for row in targets.allowed.T]
    there = [rows for rows in of_class if len(rows)]
    return torch.cat([evenly(rows, n // len(there)) for rows in there]) if there else of_class[0]


def evenly(rows: Tensor, n: int) -> Tensor:
    """At most n of the rows, evenly spread."""
    if len(rows) <= n:
        return rows
    return rows[torch.linspace(0, len(rows) - 1, n, device=rows.device).round().long()]


def settle(familiar: Familiar, learnt: Sequence[Tensor], held_out: Sequence[Tensor]) -> None:
    """Find points that stand for the paint of each class, (n, size) each, and how far from them its paint lies.

    `held_out` are points of each class that the network has not learnt; where they are few, the learnt ones count.
    """
    centres, reach = [], []
    n = min(_CENTRES, MOST_CENTRES // max(1, len(learnt)))
    for points, others in zip(learnt, held_out, strict=True):
        if len(points):
            centres.append(clustered(points, n))
            distance = torch.cdist(others if len(others) >= _FEWEST else points, centres[-1]).amin(dim=-1)
            reach.append(distance.quantile(_REACHED).clamp_min(_SHORTEST).expand(len(centres[-1])))
    if centres:
        familiar.centres, familiar.reach = torch.cat(centres), torch.cat(reach)


def clustered(points: Tensor, n: int) -> Tensor:
    """Centres of at most n clusters of points (m, size): k-means, from points that are evenly spread over the rows."""
    centres = evenly(points, n)
    for _ in range(_ROUNDS):
        members = functional.one_hot(torch.cdist(points, centres).argmin(dim=-1), len(centres)).to(points.dtype)
        amount = members.sum(dim=0)[:, None]
        centres = torch.where(amount > 0, members.T @ points / amount.clamp_min(1), centres)
    return centres
