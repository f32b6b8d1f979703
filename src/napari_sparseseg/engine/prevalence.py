"""How common each class really is, and what that changes.

A few strokes for each class say what the classes look like, not how common they are: an object that fills a tenth of
the volume gets half of the paint. A network that learnt from such paint takes doubtful voxels for the rare class too
often. How common the classes are in unpainted voxels can be estimated from its own answers there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from napari_sparseseg.engine.paint import Paint, weight_of_classes

_ROUNDS = 50
_LARGEST_SHIFT = 1.1  # of a log-probability, a factor of three: a class that is seldom recognised must not vanish


def painted_share(paints: Sequence[Paint]) -> Tensor:
    """Share of each class in what is learnt, (classes,), by weight; a set of classes says nothing about it."""
    definite = [p.learnt & (p.allowed.sum(1) == 1) for p in paints]
    amounts = [(p.allowed[d] * p.weights[d, None]).sum(0) for p, d in zip(paints, definite, strict=True)]
    amount = np.maximum(np.sum(amounts, axis=0), 1.0)
    return torch.from_numpy((amount / amount.sum()).astype(np.float32))


def without_class_weights(painted: Tensor, class_weights: Sequence[float]) -> Tensor:
    """What `painted_share` would be if every class weighed 1, (classes,).

    A model answers as if classes were as common as their weight in what it learnt, so that `prevalence` needs to know
    the weighted share. But if the answers were shifted from there to the true shares, a class that the user lets weigh
    more would lose exactly what it gained. Shifted from the unweighted share instead, the answers become those of a
    model that learnt from the classes as common as they are, weighted as the user wants.
    """
    amount = painted / torch.from_numpy(weight_of_classes(class_weights, len(painted))).to(painted)
    return amount / amount.sum()


def prevalence(log_probabilities: Tensor, painted: Tensor) -> Tensor:
    """Share of each class among voxels, (classes,), by expectation maximisation.

    `log_probabilities` (n, classes) are those of a model that learnt from classes in the proportion `painted`,
    (classes,), above 0. Source: Saerens, Latinne and Decaestecker 2002, doi:10.1162/089976602753284446.
    """
    likelihood = log_probabilities.exp() / painted
    share = painted
    for _ in range(_ROUNDS):
        answer = likelihood * share
        share = (answer / answer.sum(1, keepdim=True)).mean(0)
    return share


def shift_towards(share: Tensor, painted: Tensor) -> Tensor:
    """What to add to the logits of a model that learnt from `painted` so that it expects `share`, (classes,)."""
    found: Tensor = (share.clamp_min(1e-6) / painted).log()
    return found.clamp(-_LARGEST_SHIFT, _LARGEST_SHIFT)
