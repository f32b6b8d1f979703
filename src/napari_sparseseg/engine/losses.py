"""The loss over (allowed classes, weight): one function for every kind of partial label."""

from __future__ import annotations

import torch
from torch import Tensor


def partial_label_loss(logits: Tensor, allowed: Tensor, weight: Tensor) -> Tensor:
    """Mean over voxels of -w log(sum of p_k over the allowed classes k), weighted by w.

    `logits` (n, classes); `allowed` (n, classes) bool, at least one class per voxel; `weight` (n,), >= 0.
    With one allowed class this is cross-entropy. A voxel of weight 0, or for which every class is allowed, has
    exactly zero gradient. Source: Cour et al. 2011, Learning from partial labels.
    """
    of_set = logits.log_softmax(dim=-1).masked_fill(~allowed, -torch.inf).logsumexp(dim=-1)
    says_something = (weight > 0) & ~allowed.all(dim=-1)
    weight = torch.where(says_something, weight, torch.zeros_like(weight))
    of_set = torch.where(says_something, of_set, torch.zeros_like(of_set))
    return -(weight * of_set).sum() / weight.sum().clamp_min(1e-12)
