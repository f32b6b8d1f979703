"""The losses in plain numpy, written for reading: values and gradients, against which those of the engine are held.

Each entry of `LOSSES` says how to draw inputs, what the engine makes of them, and what numpy does. The tests ask for
agreement one by one, the benchmark once for all (`all_agree`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_sparseseg.engine.losses import contrastive_loss, multi_label_loss, non_negative_risk, partial_label_loss
from napari_sparseseg.engine.weak.average_k import pseudo_candidates
from napari_sparseseg.engine.weak.consistency import disagreement
from napari_sparseseg.engine.weak.warm_up import reconstruction_loss

Floats = npt.NDArray[np.float64]
TEMPERATURE = 0.1  # of the contrastive loss
_CLOSE = 1e-8


@dataclass(frozen=True)
class Loss:
    """A loss of the engine and the same in numpy; both take the logits, (n, classes), and whatever else `draw` gives.

    `plain` returns the value and its gradient by the logits.
    """

    draw: Callable[[np.random.Generator], tuple[Any, ...]]
    engine: Callable[..., Tensor]
    plain: Callable[..., tuple[float, Floats]]

    def difference(self, rng: np.random.Generator) -> float:
        """Largest difference of values and gradients, relative to the larger of 1 and the plain one."""
        logits, *rest = self.draw(rng)
        leaf = torch.from_numpy(logits).requires_grad_()
        value = self.engine(leaf, *(torch.from_numpy(r) if isinstance(r, np.ndarray) else r for r in rest))
        value.backward()
        wanted, gradient = self.plain(logits, *rest)
        found = np.append(leaf.grad.numpy().ravel(), value.item())
        expected = np.append(gradient.ravel(), wanted)
        return float(np.max(np.abs(found - expected) / np.maximum(1, np.abs(expected))))


def softmax(logits: Floats) -> Floats:
    """Along the last axis."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def partial_label(
    logits: Floats, allowed: npt.NDArray[np.bool_], weight: Floats, smoothing: float = 0.0
) -> tuple[float, Floats]:
    """Mean of -w ((1 - e) log(sum of p over the set) + e (mean of log p over the set)), voxel by voxel.

    Where the set is a single class, the second mean is over all classes. By the logits the first logarithm grows by
    q - p, q being p restricted to the set, and the second by u - p, u being alike over its classes.
    """
    value, gradient, total = 0.0, np.zeros_like(logits), 0.0
    for n, (row, names, w) in enumerate(zip(logits, allowed, weight, strict=True)):
        if w <= 0 or names.all():
            continue
        spread = names if names.sum() > 1 else np.ones_like(names)
        log_p = row - row.max() - np.log(np.exp(row - row.max()).sum())
        best = log_p[names].max()
        log_of_set = best + np.log(np.exp(log_p[names] - best).sum())
        value -= w * ((1 - smoothing) * log_of_set + smoothing * log_p[spread].mean())
        restricted, alike = softmax(np.where(names, row, -np.inf)), spread / spread.sum()
        gradient[n] = w * (softmax(row) - (1 - smoothing) * restricted - smoothing * alike)
        total += w
    return (value / total, gradient / total) if total else (0.0, gradient)


def drawn_voxels(rng: np.random.Generator) -> tuple[Floats, npt.NDArray[np.bool_], Floats]:
    """Logits (float64), allowed classes and weights of a few voxels, some of which say nothing."""
    n, n_classes = int(rng.integers(1, 13)), int(rng.integers(2, 6))
    logits = rng.normal(scale=rng.choice([0.1, 3.0, 30.0]), size=(n, n_classes))
    allowed = rng.random((n, n_classes)) < rng.choice([0.2, 0.6, 1.0])
    allowed[np.arange(n), rng.integers(n_classes, size=n)] = True
    return logits, allowed, rng.choice([0.0, 0.5, 1.0, 7.0], size=n)


def multi_label(logits: Floats, present: Floats, absent: Floats) -> tuple[float, Floats]:
    """Mean of -(w_p log s + w_n log(1 - s)), s = 1 / (1 + exp(-z)); d/dz = (w_p + w_n) s - w_p, entry by entry."""
    value, gradient, total = 0.0, np.zeros_like(logits), 0.0
    for place in np.ndindex(logits.shape):
        z, w_p, w_n = logits[place], present[place], absent[place]
        log_s, log_not = -np.logaddexp(0, -z), -np.logaddexp(0, z)
        value -= w_p * log_s + w_n * log_not
        gradient[place] = (w_p + w_n) * np.exp(log_s) - w_p
        total += w_p + w_n
    return (value / total, gradient / total) if total else (0.0, gradient)


def drawn_entries(rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    """Logits (float64) of a few voxels and classes, and how much it counts that each is present, and absent."""
    shape = int(rng.integers(1, 13)), int(rng.integers(1, 6))
    logits = rng.normal(scale=rng.choice([0.1, 3.0, 30.0]), size=shape)
    present, absent = (rng.choice([0.0, 0.5, 1.0, 7.0], size=shape) for _ in range(2))
    return logits, present, absent


def candidates(
    logits: Floats, probabilities: Floats, allowed: npt.NDArray[np.bool_], average: float
) -> tuple[float, Floats]:
    """Binary cross-entropy with what the softmax takes into consideration: the average * n largest, and the true class.

    The true class is the likeliest of the allowed ones.
    """
    ordered = sorted(probabilities.ravel(), reverse=True)
    n_above = round(average * len(probabilities))
    threshold = (ordered[n_above - 1] + ordered[n_above]) / 2 if n_above < len(ordered) else -np.inf
    wanted = probabilities >= threshold
    for n, (row, names) in enumerate(zip(probabilities, allowed, strict=True)):
        wanted[n, max(np.flatnonzero(names), key=lambda k: row[k])] = True
    return multi_label(logits, wanted.astype(float), 1.0 - wanted)


def drawn_candidates(rng: np.random.Generator) -> tuple[Floats, Floats, npt.NDArray[np.bool_], float]:
    """Logits (float64) of the second head, probabilities of the first, allowed classes, and classes on average."""
    logits, allowed, _ = drawn_voxels(rng)
    return logits, softmax(rng.normal(size=logits.shape)), allowed, float(rng.uniform(1, 2.5))


def contrastive(points: Floats, channels: npt.NDArray[np.int64], weight: Floats) -> tuple[float, Floats]:
    """Mean of -log(exp(z_i z_p / t) / sum over a of exp(z_i z_a / t)) over the others p of a class, row by row."""
    value, total = 0.0, 0.0
    by_similarity = np.zeros((len(points), len(points)))
    known = np.flatnonzero(weight > 0)
    for i in known:
        others = known[known != i]
        alike = others[channels[others] == channels[i]]
        if len(alike):
            similarity = points[others] @ points[i] / TEMPERATURE
            log_sum = similarity.max() + np.log(np.exp(similarity - similarity.max()).sum())
            value -= weight[i] * np.mean(points[alike] @ points[i] / TEMPERATURE - log_sum)
            by_similarity[i, others] += weight[i] * np.exp(similarity - log_sum)
            by_similarity[i, alike] -= weight[i] / len(alike)
            total += weight[i]
    gradient = (by_similarity + by_similarity.T) @ points / TEMPERATURE
    return (value / total, gradient / total) if total else (0.0, np.zeros_like(points))


def drawn_points(rng: np.random.Generator) -> tuple[Floats, npt.NDArray[np.int64], Floats]:
    """Unit vectors (float64), their classes and weights; some say nothing."""
    n = int(rng.integers(1, 13))
    points = rng.normal(size=(n, int(rng.integers(2, 6))))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return points, rng.integers(3, size=n), rng.choice([0.0, 0.5, 1.0, 7.0], size=n)


def candidate_loss(logits: Tensor, probabilities: Tensor, allowed: Tensor, average: float) -> Tensor:
    """As the lesson of the candidate head computes it, all voxels weighing the same."""
    present = pseudo_candidates(probabilities, allowed, average).double()
    return multi_label_loss(logits, present, 1 - present)


def risk_of_unlabelled(
    logits: Floats, allowed: npt.NDArray[np.bool_], weight: Floats, background: int = 0, prior: float = 0.3
) -> tuple[float, Floats]:
    """Prior R_p(+) + mean of [max(0, R_u(-) - prior R_p(-))] and [(1 - prior) R_n], of those that can be told.

    Positive voxels cannot be the background, unlabelled ones may be all, negative are the others. Each R is a weighted
    mean of -log of a sum of probabilities, which by the logits falls by q - p (`partial_label`).
    """
    only_background = np.arange(logits.shape[1]) == background
    kind = np.where(allowed.all(1), "u", np.where(allowed[:, background], "n", "p"))

    def risk(of_kind: str, of_background: bool) -> tuple[float, Floats, float]:
        value, gradient, total = 0.0, np.zeros_like(logits), weight[kind == of_kind].sum()
        for n in np.flatnonzero((kind == of_kind) & (weight > 0)):
            names = only_background if of_background else allowed[n]
            row = logits[n] - logits[n].max()
            best = row[names].max()
            value -= weight[n] * (best + np.log(np.exp(row[names] - best).sum()) - np.log(np.exp(row).sum()))
            gradient[n] = weight[n] * (softmax(row) - softmax(np.where(names, row, -np.inf)))
        return (value / total, gradient / total, total) if total else (0.0, gradient, 0.0)

    (hit, by_hit, n_positive), (missed, by_missed, _) = risk("p", False), risk("p", True)
    (taken, by_taken, n_unlabelled), (wrong, by_wrong, n_negative) = risk("u", True), risk("n", False)
    told = []
    if n_positive and n_unlabelled:
        excess = taken - prior * missed
        told.append((max(0.0, excess), (excess > 0) * (by_taken - prior * by_missed)))
    if n_negative:
        told.append(((1 - prior) * wrong, (1 - prior) * by_wrong))
    value, gradient = prior * hit, prior * by_hit
    for summand, slope in told:
        value, gradient = value + summand / len(told), gradient + slope / len(told)
    return value, gradient


def drawn_unlabelled(rng: np.random.Generator) -> tuple[Floats, npt.NDArray[np.bool_], Floats]:
    """As `drawn_voxels`, with more that may be anything."""
    logits, allowed, weight = drawn_voxels(rng)
    allowed[rng.random(len(allowed)) < 0.4] = True
    return logits, allowed, weight


def consistency(logits: Floats, teacher: Floats, counts: npt.NDArray[np.bool_]) -> tuple[float, Floats]:
    """Mean over the voxels that count of the sum of (p - q)^2; by the logits p falls like p (d - sum of p d)."""
    pupil = np.moveaxis(softmax(np.moveaxis(logits, 1, -1)), -1, 1)
    n = max(1, int(counts.sum()))
    value = float((((pupil - teacher) ** 2).sum(1) * counts).sum() / n)
    by_pupil = 2 * (pupil - teacher) * counts[:, None] / n
    return value, pupil * (by_pupil - (by_pupil * pupil).sum(1, keepdims=True))


def drawn_patches(rng: np.random.Generator) -> tuple[Floats, Floats, npt.NDArray[np.bool_]]:
    """Logits (patches, classes, z, y, x) of the pupil, probabilities of the teacher, and which voxels count."""
    n, *shape = rng.integers(1, 4, size=4).tolist()
    logits, other = rng.normal(scale=3, size=(2, n, int(rng.integers(2, 5)), *shape))
    teacher = np.moveaxis(softmax(np.moveaxis(other, 1, -1)), -1, 1)
    return logits, teacher, rng.random((n, *shape)) < rng.choice([0.0, 0.5, 1.0])


def reconstruction(found: Floats, features: Floats, hidden: npt.NDArray[np.bool_]) -> tuple[float, Floats]:
    """Mean squared error of the features of hidden voxels."""
    difference = (found - features) * hidden[..., None]
    n = found.shape[-1] * hidden.sum()
    return float((difference**2).sum() / n), 2 * difference / n


def drawn_hidden(rng: np.random.Generator) -> tuple[Floats, Floats, npt.NDArray[np.bool_]]:
    """What was rebuilt, (patches, z, y, x, features), what it was, and which voxels were hidden: one at least."""
    n, *shape = rng.integers(1, 4, size=4).tolist()
    found, features = rng.normal(size=(2, n, *shape, 5))
    hidden = rng.random((n, *shape)) < 0.5
    hidden[0, 0, 0, 0] = True
    return found, features, hidden


LOSSES: dict[str, Loss] = {
    "partial_label_loss": Loss(drawn_voxels, partial_label_loss, partial_label),
    "label_smoothing": Loss(
        drawn_voxels, partial(partial_label_loss, smoothing=0.1), partial(partial_label, smoothing=0.1)
    ),
    "multi_label_loss": Loss(drawn_entries, multi_label_loss, multi_label),
    "average_k": Loss(drawn_candidates, candidate_loss, candidates),
    "contrastive_loss": Loss(drawn_points, partial(contrastive_loss, temperature=TEMPERATURE), contrastive),
    "non_negative_risk": Loss(
        drawn_unlabelled, partial(non_negative_risk, background=0, prior=0.3), risk_of_unlabelled
    ),
    "consistency": Loss(
        drawn_patches, lambda logits, teacher, counts: disagreement(logits.softmax(1), teacher, counts), consistency
    ),
    "reconstruction_loss": Loss(drawn_hidden, reconstruction_loss, reconstruction),
}


def disagreements(n_draws: int = 20) -> dict[str, float]:
    """The losses that differ from their plain reference, and by how much at most."""
    worst = {
        name: max(loss.difference(np.random.default_rng(seed)) for seed in range(n_draws))
        for name, loss in LOSSES.items()
    }
    return {name: difference for name, difference in worst.items() if not difference <= _CLOSE}


def all_agree() -> int:
    """1 if every loss agrees with its reference, else 0."""
    return int(not disagreements())
