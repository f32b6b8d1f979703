"""Little paint on a volume: learnt from nothing, or from a model of another volume; with warm-up, with consistency.

The other volume is painted well (three slices) and learnt for twice as many steps; here there are a few strokes only.

    hippocampus   from the hippocampus of somebody else
    nuclei        its lower half from its upper half; nuclei_part: from the planes above it
    embryo        from nuclei of a plant, another microscope
    walls         one half from the other
    neuropil      from another block of the same tissue; fibsem: of another fly

`without` is from nothing, `with` is the start. Every row also has `warm_up` and `consistency`, each from nothing with
that setting alone, and `as_it_is`: what the other model predicts itself, whose classes are the same here.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import sparsebench
from napari_sparseseg import SparseSegmenter
from sparsebench import Case
from weak.common import VOLUMES, Result, foreground, result_of, row_of, segmenter_for, steps_of

_Stored = tuple[str, str | None]
_NUCLEI, _WALLS = "arabidopsis_ovule_nuclei_00", "arabidopsis_ovule_cells"
_TRANSFERS: dict[str, tuple[_Stored, _Stored]] = {
    "hippocampus": (VOLUMES["hippocampus_01"], VOLUMES["hippocampus"]),
    "nuclei": ((_NUCLEI, "0:50,0:100,0:100"), (_NUCLEI, "50:100,0:100,0:100")),
    "nuclei_part": ((_NUCLEI, "0:26,0:100,0:100"), VOLUMES["nuclei_part"]),
    "embryo": ((_NUCLEI, None), VOLUMES["embryo"]),
    "walls": ((_WALLS, "0:32,0:128,0:64"), (_WALLS, "0:32,0:128,64:128")),
    "neuropil": (VOLUMES["neuropil_01"], VOLUMES["neuropil"]),
    "fibsem": (VOLUMES["neuropil_01"], VOLUMES["fibsem"]),
}
SETTINGS: dict[str, dict[str, Any]] = {
    "warm_up": {"training__warm_up_steps": 200},
    "consistency": {"training__consistency": 1.0},
}


def compare(volume_names: Sequence[str], seeds: Sequence[int], quick: bool) -> Result:
    """Dice from nothing and from another model. Raises KeyError for a volume that has no other one like it."""
    rows = []
    for volume in volume_names:
        for seed in seeds:
            case, other = target(volume, seed), learnt_elsewhere(volume, seed, quick)
            more = {"as_it_is": foreground(case, other)}
            more |= {name: foreground(case, fit_here(case, quick, **setting)) for name, setting in SETTINGS.items()}
            without, with_it = (foreground(case, fit_here(case, quick, start=start)) for start in (None, other))
            rows.append(row_of(volume, seed, without, with_it, **{name: round(d, 4) for name, d in more.items()}))
    return result_of(rows)


def target(volume: str, seed: int) -> Case:
    """The volume with a few strokes on it."""
    return sparsebench.load_case("here/scribbles", {"here": _TRANSFERS[volume][1]}, seed)


def elsewhere(volume: str, seed: int) -> Case:
    """The other volume with three slices painted."""
    return sparsebench.load_case("there/slices3", {"there": _TRANSFERS[volume][0]}, seed)


@lru_cache(maxsize=4)
def learnt_elsewhere(volume: str, seed: int, quick: bool) -> SparseSegmenter:
    """The model of the other volume."""
    case = elsewhere(volume, seed)
    return segmenter_for(case, quick).fit(case.image, case.annotation, max_steps=2 * steps_of(quick))


def fit_here(case: Case, quick: bool, *, start: SparseSegmenter | None = None, **settings: Any) -> SparseSegmenter:
    """Learn from the few strokes, maybe from a start."""
    segmenter = segmenter_for(case, quick, **settings)
    return segmenter.fit(case.image, case.annotation, max_steps=steps_of(quick), start=start)
