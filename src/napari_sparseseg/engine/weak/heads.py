"""The heads beside those of classes and objects: what teaches them, and what their answers are compared with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_sparseseg.config import PaintConfig
from napari_sparseseg.engine.features import FeatureMap
from napari_sparseseg.engine.heads import CandidateHead, Familiar, Heads
from napari_sparseseg.engine.lessons import Lesson, box_of
from napari_sparseseg.engine.network import SparseNet
from napari_sparseseg.engine.paint import Paint
from napari_sparseseg.engine.sampler import PatchSampler
from napari_sparseseg.engine.weak.average_k import CandidateLesson, average_threshold
from napari_sparseseg.engine.weak.novelty import EmbeddingLesson, settle

_SURVEYED = 4  # patches anywhere around the paint
_PAINTED = 8  # patches of painted voxels
_MOST = 20_000  # painted voxels that stand for all

_Rows = npt.NDArray[np.intp]


def lessons_of_heads(heads: Heads, paints: Sequence[Paint], painting: PaintConfig) -> Iterator[Lesson]:
    """What teaches those of the heads that there are."""
    if heads.candidates:
        yield CandidateLesson(paints, painting.candidates)
    if heads.novelty == "embedding":
        yield EmbeddingLesson(paints)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a network is calibrated by: volumes, their paint, and patches of them."""

    maps: Sequence[FeatureMap]
    paints: Sequence[Paint]
    sampler: PatchSampler


def calibrate_heads(
    network: SparseNet, known: Surroundings, painting: PaintConfig, rng: np.random.Generator, *, only_new: bool = False
) -> None:
    """Settle what the heads of a network compare with, by what lies around the paint and by the paint itself.

    With `only_new` that is left as it is where it was settled before.
    """
    candidates, familiar = network.unet.candidates, network.familiar
    with torch.no_grad():
        if candidates is not None and not (only_new and candidates.threshold < torch.inf):
            candidates.threshold = _threshold(network, candidates, known, painting.candidates, rng)
        if familiar is not None and only_new and len(familiar.centres):
            familiar = None
        if familiar is not None and network.unet.embedding is None:
            _settle_features(network, familiar, known)
        elif familiar is not None:
            _settle_embedding(network, familiar, known, rng)


def _threshold(
    network: SparseNet, head: CandidateHead, known: Surroundings, average: float, rng: np.random.Generator
) -> float:
    scores, probabilities = [], []
    for at in known.sampler.survey(_SURVEYED, rng):
        log_probabilities, decoded = network.with_decoded(known.maps[at.volume].read(at.box))
        probabilities.append(log_probabilities.exp().flatten(0, 2))
        scores.append(head.scores(decoded.flatten(0, 2), probabilities[-1], network.context))
    return average_threshold(torch.cat(scores), torch.cat(probabilities), average)


def _settle_features(network: SparseNet, familiar: Familiar, known: Surroundings) -> None:
    found: list[tuple[Tensor, Paint, _Rows]] = []
    for feature_map, paint in zip(known.maps, known.paints, strict=True):
        rows = _evenly(np.flatnonzero(_is_definite(paint)), _MOST // len(known.maps))
        found.append((network.standardised(feature_map.at(paint.coordinates[rows])), paint, rows))
    features = torch.cat([features for features, _, _ in found])
    if len(features):
        familiar.spread = features.std(0, correction=0).clamp_min(1e-4)
        settle(familiar, *_by_class([(familiar.points(f), paint, rows) for f, paint, rows in found], network.n_classes))


def _settle_embedding(network: SparseNet, familiar: Familiar, known: Surroundings, rng: np.random.Generator) -> None:
    head = network.unet.embedding
    assert head is not None  # noqa: S101 - its caller has looked
    found = []
    for at in known.sampler.draw(_PAINTED, rng)[1]:
        paint = known.paints[at.volume]
        rows = paint.within(at.box)
        rows = rows[_is_definite(paint)[rows]]
        if len(rows):
            positions = paint.coordinates[rows].astype(np.int64) - at.box.start
            inner = box_of(positions)
            decoded = network.with_decoded(known.maps[at.volume].read(at.box), inner)[1]
            where = tuple(torch.from_numpy((positions - inner.start).T.copy()).to(decoded.device))
            found.append((head.points(decoded[where]), paint, rows))
    if found:
        settle(familiar, *_by_class(found, network.n_classes))


def _is_definite(paint: Paint) -> npt.NDArray[np.bool_]:
    """Painted with one class, and learnt or held out."""
    found: npt.NDArray[np.bool_] = (paint.allowed.sum(1) == 1) & (paint.learnt | paint.held_out)
    return found


def _by_class(found: Sequence[tuple[Tensor, Paint, _Rows]], n_classes: int) -> tuple[list[Tensor], list[Tensor]]:
    """Points of the learnt voxels of each class, and of those held out."""

    def of(channel: int, *, is_learnt: bool) -> Tensor:
        wanted = [
            points[torch.from_numpy(paint.allowed[rows, channel] & (paint.learnt[rows] == is_learnt)).to(points.device)]
            for points, paint, rows in found
        ]
        return torch.cat(wanted)

    learnt, held_out = ([of(c, is_learnt=is_learnt) for c in range(n_classes)] for is_learnt in (True, False))
    return learnt, held_out


def _evenly(rows: _Rows, n: int) -> _Rows:
    """At most n of the rows, evenly spread."""
    return rows if len(rows) <= n else rows[np.linspace(0, len(rows) - 1, n).round().astype(np.intp)]
