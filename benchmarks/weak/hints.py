"""Paint and what it suggests of its surroundings, against the paint alone.

Strokes grow on their slice (scribbles on three slices), and in the full run gaps between three slices that lie some six
fine voxel edges apart are filled. Suggestions count 0.3. Beside the Dice of what is learnt, rows say how much was
suggested, in voxels for each painted one, and how much of it is right: of all, and of all but the first class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from napari_sparseseg import PaintConfig, suggest_between, suggest_grown, with_suggestions
from napari_sparseseg.suggesting import Suggested
from sparsebench import Case
from weak.common import Result, compare_cases, dice_after, repainted, rng_of

STEPS = 150
_APART = 6.0  # finest voxel edges between two slices


def compare(volume_names: Sequence[str], seeds: Sequence[int], quick: bool) -> Result:
    return compare_cases(_measure, volume_names, seeds, quick, protocol="scribbles")


def _measure(case: Case, quick: bool) -> tuple[float, float, Mapping[str, Any]]:
    without, with_it, more = learnt_with(case, grown(case), quick)
    if not quick:
        near = on_near_slices(case)
        values = learnt_with(near, suggest_between(near.annotation, spacing=near.spacing), quick)
        more |= dict(zip(("between_without", "between_with"), (round(v, 4) for v in values[:2]), strict=True))
        more |= {f"between_{name}": value for name, value in values[2].items()}
    return without, with_it, more


def grown(case: Case, **settings: Any) -> Suggested:
    """What the strokes of a case grow to; `settings` as of `PaintConfig`."""
    return suggest_grown(
        case.image,
        case.annotation,
        spacing=case.spacing,
        channel_axis=case.channel_axis,
        paint=PaintConfig(**settings),
    )


def learnt_with(case: Case, suggested: Suggested, quick: bool) -> tuple[float, float, dict[str, Any]]:
    """Dice of the paint alone, then with a suggestion, and how much is suggested and right."""
    codes, weight = with_suggestions(case.annotation, suggested)
    steps = None if quick else STEPS
    without = dice_after(case, quick, steps=steps)
    return without, dice_after(repainted(case, codes), quick, weight=weight, steps=steps), quality(case, suggested)


def quality(case: Case, suggested: Suggested) -> dict[str, Any]:
    """How much is suggested, and how much of that is right."""
    is_said = suggested.codes > 0
    is_object = suggested.codes > 1
    right = suggested.codes == case.truth
    return {
        "suggested": round(float(is_said.sum() / (case.annotation > 0).sum()), 3),
        "precision": _share(right, is_said),
        "precision_of_objects": _share(right, is_object),
    }


def on_near_slices(case: Case) -> Case:
    """The case with three slices painted all over, so close that shapes continue from one to the next."""
    step = max(2, round(_APART * min(case.spacing) / case.spacing[0]))
    depth = len(case.truth)
    middle = int(np.clip(depth // 2 + rng_of(case).integers(-depth // 8, depth // 8 + 1), step, depth - 1 - step))
    planes = [middle - step, middle, middle + step]
    annotation, scored = np.zeros_like(case.annotation), np.ones_like(case.scored)
    annotation[planes], scored[planes] = case.truth[planes], False
    return replace(case, annotation=annotation, scored=scored)


def _share(right: Any, among: Any) -> float | None:
    return round(float(right[among].mean()), 3) if among.any() else None
