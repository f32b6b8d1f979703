"""Positive-unlabelled learning: some objects were painted, and what was not may be either.

Unpainted voxels join the paint as voxels for which every class is allowed. That says nothing to the usual loss; the
criteria here are told what follows from it. With several classes of objects there is one prior, that of any of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_sparseseg._types import Annotation, Shape3D
from napari_sparseseg.config import PaintConfig
from napari_sparseseg.engine.classes import ClassTable
from napari_sparseseg.engine.features import FeatureMap
from napari_sparseseg.engine.lessons import Criterion, Targets
from napari_sparseseg.engine.losses import non_negative_risk, partial_label_loss
from napari_sparseseg.engine.network import PixelHead
from napari_sparseseg.engine.paint import CELL, Paint, near_held_out, slice_ids
from napari_sparseseg.engine.pixelfit import fit_pixel_head

_AROUND = 64  # voxels around the paint of a slice that were looked at while it was painted
_FEWEST, _MOST, _PER_PAINTED = 8000, 100_000, 4  # unlabelled voxels of a volume; so many for each painted one
_ELSEWHERE = 0.25  # of them lie on slices without paint, where a risk is estimated
_FEWEST_SLICES, _MOST_SLICES = 2, 16  # of those
_STREAM = 2  # of random numbers
# What tells the prior: voxels of either kind, steps and units of a small classifier
_COMPARED, _STEPS, _WIDTH = 3000, 60, 32
_CONFIDENCE = 0.1  # that the bounds which the prior is taken from do not hold
_SMALLEST, _LARGEST = 0.005, 0.95  # prior that an estimate may give

_Coordinates = npt.NDArray[np.int32]


class _Window(NamedTuple):
    """A part of the slice across `axis`: voxels from `low` up to but without `high`, each (3,)."""

    axis: int
    low: npt.NDArray[np.int64]
    high: npt.NDArray[np.int64]

    @property
    def n_voxels(self) -> int:
        return int(np.prod(self.high - self.low))


def tells_misses(annotations: Sequence[Annotation], background: int) -> bool:
    """Whether something is painted as background: else held-out paint cannot tell what is found too much."""
    return any(bool((a.codes == background).any()) for a in annotations)


def with_unlabelled(
    maps: Sequence[FeatureMap], paints: Sequence[Paint], classes: ClassTable, painting: PaintConfig, seed: int
) -> tuple[list[Paint], Criterion]:
    """The paint of each volume with a sample of its unpainted voxels, and the criterion that learns from both.

    The sample depends on the paint and the seed only.
    """
    joined = [
        joined_by_unlabelled(p, m.shape, painting, seed + n) for n, (p, m) in enumerate(zip(paints, maps, strict=True))
    ]
    background = classes.ids.index(classes.background)
    prior = painting.prior
    if painting.unlabelled == "risk" and not prior:
        prior = estimated_prior(maps, joined, background, seed)
    return joined, unlabelled_criterion(painting, background, prior)


def unlabelled_criterion(painting: PaintConfig, background: int, prior: float) -> Criterion:
    """What `PaintConfig.unlabelled` asks for, "background" or "risk"; `background` is a channel."""
    # partial functions can be pickled, with the trainer that has them
    if painting.unlabelled == "risk":
        return partial(_risk, background, prior)
    return partial(_weak_background, painting, background)


def _weak_background(painting: PaintConfig, background: int, logits: Tensor, targets: Targets) -> Tensor:
    is_unlabelled = targets.allowed.all(dim=-1, keepdim=True)
    is_background = torch.arange(targets.allowed.shape[1], device=logits.device) == background
    weights = targets.weights * torch.where(is_unlabelled[:, 0], painting.negative_weight, painting.positive_weight)
    allowed = torch.where(is_unlabelled, is_background, targets.allowed)
    return partial_label_loss(logits, allowed, weights, smoothing=painting.label_smoothing)


def _risk(background: int, prior: float, logits: Tensor, targets: Targets) -> Tensor:
    return non_negative_risk(logits, targets.allowed, targets.weights, background=background, prior=prior)


def joined_by_unlabelled(paint: Paint, shape: Shape3D, painting: PaintConfig, seed: int) -> Paint:
    """The paint with a sample of unpainted voxels, for which every class is allowed.

    What lies around the paint of a slice was looked at when that was painted. Where it counts as a weak background,
    only such voxels do, and each weighs as many as it stands for. A risk is estimated on slices without paint, too, and
    each voxel weighs 1. None lies in the gap around held-out paint.
    """
    if not len(paint):
        return paint
    rng = np.random.default_rng((seed, _STREAM))
    n_wanted = min(_MOST, max(_FEWEST, _PER_PAINTED * len(paint)))
    looked_at = _windows(paint, shape)
    if painting.unlabelled == "risk":
        others = _elsewhere(looked_at, paint, shape, rng)
        share = _ELSEWHERE if others else 0.0
        parts = (looked_at, n_wanted * (1 - share)), (others, n_wanted * share)
        drawn = [part for windows, n in parts for part, _ in _drawn(windows, n, paint, shape, rng)]
        return _joined(paint, shape, [(axis, coordinates, 1.0) for axis, coordinates in drawn])
    drawn_with_rate = _drawn(looked_at, n_wanted, paint, shape, rng)
    return _joined(paint, shape, [(axis, coordinates, 1 / rate) for (axis, coordinates), rate in drawn_with_rate])


def _windows(paint: Paint, shape: Shape3D) -> list[_Window]:
    """What lies around the paint of each slice."""
    found = []
    for slice_id in np.unique(paint.slice_id).tolist():
        rows = np.flatnonzero(paint.slice_id == slice_id)
        axis, of_slice = int(paint.axis[rows[0]]), paint.coordinates[rows].astype(np.int64)
        around = np.where(np.arange(3) == axis, 0, _AROUND)
        low, high = np.maximum(of_slice.min(0) - around, 0), np.minimum(of_slice.max(0) + 1 + around, shape)
        found.append(_Window(axis, low, high))
    return found


def _elsewhere(windows: Sequence[_Window], paint: Paint, shape: Shape3D, rng: np.random.Generator) -> list[_Window]:
    """The same places on slices without paint, as many in each orientation, within bounds."""
    found = []
    for axis in sorted({window.axis for window in windows}):
        alike = [window for window in windows if window.axis == axis]
        free = np.setdiff1d(np.arange(shape[axis]), paint.coordinates[:, axis])
        n_slices = min(len(free), max(_FEWEST_SLICES, min(_MOST_SLICES, len(alike))))
        for index in np.sort(rng.choice(free, n_slices, replace=False)).tolist():
            like = alike[int(rng.integers(len(alike)))]
            is_across = np.arange(3) == axis
            found.append(_Window(axis, np.where(is_across, index, like.low), np.where(is_across, index + 1, like.high)))
    return found


def _drawn(
    windows: Sequence[_Window], n_wanted: float, paint: Paint, shape: Shape3D, rng: np.random.Generator
) -> list[tuple[tuple[int, _Coordinates], float]]:
    """Of each window the axis, unpainted voxels (n, 3), about `n_wanted` in all, and which share of all these are."""
    known = np.ravel_multi_index(tuple(paint.coordinates.T), shape)
    rate = min(1.0, n_wanted / max(1, sum(window.n_voxels for window in windows)))
    found = []
    for window in windows:
        places = rng.choice(window.n_voxels, round(rate * window.n_voxels), replace=False)
        coordinates = np.column_stack(np.unravel_index(places, tuple(window.high - window.low))) + window.low
        is_painted = np.isin(np.ravel_multi_index(tuple(coordinates.T), shape), known)
        found.append(((window.axis, coordinates[~is_painted].astype(np.int32)), rate))
    return found


def _joined(paint: Paint, shape: Shape3D, parts: Sequence[tuple[int, _Coordinates, float]]) -> Paint:
    """The paint and unlabelled voxels, each part with its axis and weight."""
    added = np.concatenate([coordinates for _, coordinates, _ in parts])
    n = len(added)
    axis = np.concatenate([np.full(len(c), a, np.int8) for a, c, _ in parts])
    weights = np.concatenate([np.full(len(c), weight, np.float32) for _, c, weight in parts])
    coordinates = np.concatenate([paint.coordinates, added])
    order = np.argsort(coordinates[:, 0], kind="stable")
    held_out = np.concatenate([paint.held_out, np.zeros(n, bool)])
    learnt = np.concatenate([paint.learnt, np.ones(n, bool)]) & ~near_held_out(coordinates, held_out)
    return Paint(
        coordinates[order],
        np.concatenate([paint.allowed, np.ones((n, paint.allowed.shape[1]), bool)])[order],
        np.concatenate([paint.weights, weights])[order],
        np.concatenate([paint.axis, axis])[order],
        np.concatenate([paint.slice_id, slice_ids(added, axis, shape)])[order],
        learnt=learnt[order],
        held_out=held_out[order],
        object_ids=np.concatenate([paint.object_ids, np.zeros(n, np.int32)])[order],
    )


def estimated_prior(maps: Sequence[FeatureMap], paints: Sequence[Paint], background: int, seed: int) -> float:
    """Share of unlabelled voxels that belong to objects.

    A small classifier of single voxels learns to tell painted from unlabelled ones on one half, cut in squares; the
    other half tells the prior by its scores (`mixture_proportion`), and the other way round.
    """
    rng = np.random.default_rng((seed, _STREAM, 1))
    features, is_positive, half = [], [], []
    for feature_map, paint in zip(maps, paints, strict=True):
        kinds = ~paint.allowed[:, background] & paint.learnt, paint.is_unlabelled & paint.learnt
        rows = np.concatenate([_some(np.flatnonzero(kind), _COMPARED // len(maps), rng) for kind in kinds])
        features.append(feature_map.at(paint.coordinates[rows]))
        is_positive.append(~paint.is_unlabelled[rows])
        half.append(_halves(paint.coordinates[rows] // CELL, rng))
    seen, label, first = torch.cat(features), np.concatenate(is_positive), np.concatenate(half)
    seen = (seen - seen.mean(0)) / seen.std(0, correction=0).clamp_min(1e-6)
    found = []
    for learnt in (first, ~first):
        if all(label[side].any() and not label[side].all() for side in (learnt, ~learnt)):
            scores = _scores(seen, label, learnt, seed)
            found.append(mixture_proportion(scores[label[~learnt]], scores[~label[~learnt]]))
    return float(np.clip(np.mean(found), _SMALLEST, _LARGEST)) if found else _SMALLEST


def mixture_proportion(positive: npt.NDArray[np.floating], unlabelled: npt.NDArray[np.floating]) -> float:
    """Share of positives among unlabelled ones, 0..1, by how often scores of either exceed a threshold.

    The share above a threshold among unlabelled over that among positives is an upper bound of it; taken is that with
    the smallest upper confidence bound. The scores (n,) are of a classifier that has not learnt from these. Source:
    Garg et al. 2021, arXiv:2111.00980 (best bin estimation).
    """
    thresholds = np.unique(positive)
    above = [1 - np.searchsorted(np.sort(kind), thresholds) / len(kind) for kind in (positive, unlabelled)]
    of_positive, of_unlabelled = above
    doubt = sum(np.sqrt(np.log(4 / _CONFIDENCE) / (2 * len(kind))) for kind in (positive, unlabelled))
    best = np.argmin((of_unlabelled + doubt) / of_positive)
    return float(min(1.0, of_unlabelled[best] / of_positive[best]))


def _scores(
    features: Tensor, label: npt.NDArray[np.bool_], learnt: npt.NDArray[np.bool_], seed: int
) -> npt.NDArray[np.float32]:
    """Of those that are not `learnt`: how much they look painted."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed % 2**63)
        head = PixelHead(features.shape[1], 2, _WIDTH).to(features.device)
    allowed = torch.from_numpy(np.column_stack([~label, label])[learnt]).to(features.device)
    weights = np.where(label, 1 / label[learnt].mean(), 1 / (~label[learnt]).mean())[learnt].astype(np.float32)
    targets = Targets(allowed, torch.from_numpy(weights).to(features.device))
    rng = np.random.default_rng((seed, _STREAM, 2))
    chosen = features[torch.from_numpy(learnt).to(features.device)]
    fit = fit_pixel_head(
        head,
        chosen,
        targets,
        lambda logits, said: partial_label_loss(logits, said.allowed, said.weights),
        n_steps=_STEPS,
        dropout=0.0,
        noise=0.0,
        rng=rng,
    )
    for _ in fit:
        pass
    with torch.no_grad():
        logits = head(features[torch.from_numpy(~learnt).to(features.device)])
    scores: npt.NDArray[np.float32] = (logits[:, 1] - logits[:, 0]).cpu().numpy()
    return scores


def _some(numbers: npt.NDArray[np.intp], most: int, rng: np.random.Generator) -> npt.NDArray[np.intp]:
    return numbers if len(numbers) <= most else np.sort(rng.choice(numbers, most, replace=False))


def _halves(cells: npt.NDArray[np.integer], rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Which voxels are of the first half; those of a cell are together."""
    found, number = np.unique(cells, axis=0, return_inverse=True)
    half: npt.NDArray[np.bool_] = (rng.permutation(len(found)) % 2 == 0)[number.ravel()]
    return half
