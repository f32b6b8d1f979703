"""Finding what is like nothing that was painted: by the distance from the paint, or by how unsure the softmax is.

Twice a volume holds what its paint does not show: a class that was left out of the paint (the last one; volumes of two
classes get a third, the rim of the second), and a piece of another volume, an artefact so to speak, as bright as the
rest. The metric is the area under the ROC curve for telling its voxels from all others on planes without paint, mean of
both. `with` is the distance among filter features; `embedding` that in an embedding learnt by the contrastive loss;
`both` the mean of the ranks that softmax and distance give.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from sparsebench import Case
from weak.common import Result, compare_cases, fit, load, repainted, rng_of, with_rim

_PIECE = (12, 24, 24)  # voxels of another volume, at most a third of each edge
_STRANGER = {"neuropil": "nuclei"}  # whose voxels; of all others those of neuropil

Mask = npt.NDArray[np.bool_]


def compare(volume_names: Sequence[str], seeds: Sequence[int], quick: bool) -> Result:
    return compare_cases(_measure, volume_names, seeds, quick)


def _measure(case: Case, quick: bool) -> tuple[float, float, dict[str, Any]]:
    found = {name: _areas(shown, new, quick) for name, shown, new in _situations(case)}
    means = {way: float(np.mean([areas[way] for areas in found.values()])) for way in found["piece"]}
    more = {name: {way: round(area, 4) for way, area in areas.items()} for name, areas in found.items()}
    return (
        means["softmax"],
        means["features"],
        {
            "embedding": round(means["embedding"], 4),
            "both": round(means["both"], 4),
            **more,
        },
    )


def _situations(case: Case) -> Iterator[tuple[str, Case, Mask]]:
    """What is new, the case, and where the new is."""
    with_classes = with_rim(case)
    last = with_classes.n_classes
    shown = np.where(with_classes.annotation == last, 0, with_classes.annotation).astype(np.uint8)
    yield "left_out", repainted(with_classes, shown), with_classes.truth == last
    yield "piece", *_with_piece(case)


def _areas(case: Case, new: Mask, quick: bool) -> dict[str, float]:
    by_features = fit(case, quick, paint__novelty="features")  # learns the same as without
    by_embedding = fit(case, quick, paint__novelty="embedding")
    scores = {
        "softmax": 1 - np.asarray(by_features.predict_proba(case.image)).max(0),
        "features": np.asarray(by_features.predict_novelty(case.image)),
        "embedding": np.asarray(by_embedding.predict_novelty(case.image)),
    }
    scores["both"] = sum(rankdata(scores[way]).reshape(new.shape) for way in ("softmax", "features"))
    return {way: area_under_curve(score[case.scored], new[case.scored]) for way, score in scores.items()}


def area_under_curve(score: npt.NDArray[np.floating], wanted: Mask) -> float:
    """Probability that a wanted voxel scores higher than another one."""
    n_wanted = int(wanted.sum())
    ranks = rankdata(score)[wanted].sum() - n_wanted * (n_wanted + 1) / 2
    return float(ranks / (n_wanted * (len(wanted) - n_wanted)))


def _with_piece(case: Case) -> tuple[Case, Mask]:
    """The case with a piece of another volume in it, its dark and bright voxels as bright as the classes are here."""
    rng = rng_of(case)
    stranger = load(_STRANGER.get(case.name.split("/")[0], "neuropil"), 0).image.astype(np.float32)
    edges = [min(a, b // 3) for a, b in zip(_PIECE, case.image.shape, strict=True)]
    source, target = (
        tuple(
            slice(start := int(rng.integers(0, n - edge + 1)), start + edge)
            for n, edge in zip(shape, edges, strict=True)
        )
        for shape in (stranger.shape, case.image.shape)
    )
    image = case.image.astype(np.float32)
    levels = [image[case.truth == class_id].mean() for class_id in (1, 2)]
    piece = np.interp(stranger[source], np.percentile(stranger, [5, 95]), levels)
    image[target] = piece
    new = np.zeros(image.shape, bool)
    new[target] = True
    shown = np.where(new, 0, case.annotation).astype(np.uint8)
    return replace(case, image=image, annotation=shown), new
