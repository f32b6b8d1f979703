"""The loss over (allowed classes, weight), for every kind of partial label; and those of the other heads."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def partial_label_loss(logits: Tensor, allowed: Tensor, weight: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Mean over voxels of -w log(sum of p_k over the allowed classes k), weighted by w.

    `logits` (n, classes); `allowed` (n, classes) bool, at least one class per voxel; `weight` (n,), >= 0.
    With one allowed class this is cross-entropy. A voxel of weight 0, or for which every class is allowed, has
    exactly zero gradient. Source: Cour et al. 2011, Learning from partial labels.

    With `smoothing` e, 0..1, the answer is not to be certain. A voxel of one class k keeps 1 - e of its say and spreads
    e over all classes alike: -w ((1 - e) log p_k + e mean of log p). One of a set spreads it over the set: -w ((1 - e)
    log(sum of p_k over the set) + e mean of log p_k over the set), so that no class of it is given up for another.
    Source: Goodfellow, Bengio and Courville 2016, Deep Learning, section 7.5.1.
    """
    log_probabilities = logits.log_softmax(dim=-1)
    of_set = log_probabilities.masked_fill(~allowed, -torch.inf).logsumexp(dim=-1)
    if smoothing:
        spread = allowed | (allowed.sum(dim=-1, keepdim=True) == 1)
        mean = log_probabilities.masked_fill(~spread, 0).sum(dim=-1) / spread.sum(dim=-1)
        of_set = (1 - smoothing) * of_set + smoothing * mean
    says_something = (weight > 0) & ~allowed.all(dim=-1)
    weight = torch.where(says_something, weight, torch.zeros_like(weight))
    of_set = torch.where(says_something, of_set, torch.zeros_like(of_set))
    return -(weight * of_set).sum() / weight.sum().clamp_min(1e-12)


def multi_label_loss(logits: Tensor, present: Tensor, absent: Tensor) -> Tensor:
    """Mean over entries of -(w_p log sigma(z) + w_n log(1 - sigma(z))), weighted by w_p + w_n: N classifiers in one.

    All (n, classes): logits z, and how much it counts that a class is `present` (w_p) and `absent` (w_n), >= 0. Where
    both are 0 nothing is known, and the gradient is exactly zero. Where both are above 0, the two contradict each
    other, and the loss is least at sigma(z) = w_p / (w_p + w_n). Source: binary relevance with missing labels, Yu et
    al. 2014, Large-scale multi-label learning with missing labels, arXiv:1307.5101.
    """
    likely = present * functional.logsigmoid(logits) + absent * functional.logsigmoid(-logits)
    return -likely.sum() / (present + absent).sum().clamp_min(1e-12)


def contrastive_loss(embedded: Tensor, channels: Tensor, weight: Tensor, *, temperature: float) -> Tensor:
    """Supervised contrastive loss: voxels of one class attract each other, those of different classes repel.

    `embedded` (n, size) are unit vectors z; `channels` (n,) tells the class of each; `weight` (n,), >= 0. The weighted
    mean over voxels i of the mean over the others p of i's class of -log(exp(z_i z_p / t) / sum over all others a of
    exp(z_i z_a / t)), with t the `temperature`. Voxels of weight 0 take no part: their gradient is exactly zero; one
    that is alone in its class only repels. Source: Khosla et al. 2020, arXiv:2004.11362, its L_out.
    """
    says_something = weight > 0
    embedded, channels, weight = embedded[says_something], channels[says_something], weight[says_something]
    itself = torch.eye(len(embedded), dtype=torch.bool, device=embedded.device)
    similarity = (embedded @ embedded.T / temperature).masked_fill(itself, -torch.inf)
    alike = (channels[:, None] == channels) & ~itself
    log_share = similarity.log_softmax(dim=-1).masked_fill(~alike, 0)
    weight = weight * alike.any(dim=-1)
    return -(weight * log_share.sum(dim=-1) / alike.sum(dim=-1).clamp_min(1)).sum() / weight.sum().clamp_min(1e-12)


def non_negative_risk(logits: Tensor, allowed: Tensor, weight: Tensor, *, background: int, prior: float) -> Tensor:
    """Positive-unlabelled learning: prior R_p(+) + max(0, R_u(-) - prior R_p(-)), which no overfitting makes negative.

    `logits` (n, classes), `allowed` (n, classes) bool, `weight` (n,), >= 0. Positive are voxels that cannot be the
    `background`, unlabelled those for which every class is allowed, of which a share `prior`, 0..1, is positive after
    all. R_p(+) is the mean over positive ones of -log(sum of p_k over the allowed classes), R_p(-) and R_u(-) the means
    of -log p_background over positive and over unlabelled ones, all weighted. Without voxels of either kind no
    difference can be told, and R_u(-) - prior R_p(-) is left out. Source: Kiryo et al. 2017, arXiv:1703.00593.

    The other voxels, painted as the background or as a set with it, tell the second summand, too: it is the mean of
    both estimates, (max(0, ..) + (1 - prior) R_n) / 2 with R_n as R_p(+). Source: Sakai et al. 2017, arXiv:1605.06955.
    """
    log_p = logits.log_softmax(dim=-1)
    of_set, of_background = log_p.masked_fill(~allowed, -torch.inf).logsumexp(dim=-1), log_p[:, background]
    is_unlabelled, is_positive = allowed.all(dim=-1), ~allowed[:, background]
    of_positive, of_unlabelled = weight * is_positive, weight * is_unlabelled
    of_negative = weight * ~(is_positive | is_unlabelled)
    # tensors, not branches: on a GPU a branch would wait for it
    is_told = ((of_positive.sum() > 0) & (of_unlabelled.sum() > 0)).to(logits)
    excess = weighted_mean(-of_background, of_unlabelled) - prior * weighted_mean(-of_background, of_positive)
    negative = is_told * excess.clamp_min(0)
    estimates = is_told + (of_negative.sum() > 0).to(logits)
    negative = (negative + (1 - prior) * weighted_mean(-of_set, of_negative)) / estimates.clamp_min(1)
    return prior * weighted_mean(-of_set, of_positive) + negative


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Weighted; 0 where nothing weighs. Values without weight may be anything and have no gradient."""
    counted = torch.where(weight > 0, values, torch.zeros_like(values))
    return (weight * counted).sum() / weight.sum().clamp_min(1e-12)
