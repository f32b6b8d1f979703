"""Makes the pictures of docs/weak-labels.md: the same paint without and with a method, and what comes of it.

    python scripts/weak_pictures.py [METHOD ...]

The volumes are those of `benchmarks/weak_labels.py`, as small and as quickly learnt as with its --quick.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from napari_sparseseg import suggest_between  # noqa: E402
from napari_sparseseg.figure import COLOURS  # noqa: E402
from sparsebench import Case  # noqa: E402 - it lies beside the benchmarks
from weak import allowed_sets, hints, orientations, smoothing, transfer, uncertain, unlabelled, weights  # noqa: E402
from weak.common import fit, load, repainted  # noqa: E402

FOLDER = ROOT / "docs" / "images"
_SET = "#BBBBBB"
_WRONG = "#D62728"
Picture = npt.NDArray[np.float64]
Panels = dict[str, Picture]


def plane_of(array: npt.NDArray[Any], axis: int, index: int) -> npt.NDArray[Any]:
    """A slice, which is turned if it is higher than wide."""
    plane = np.take(array, index, axis)
    return plane.T if plane.shape[0] > plane.shape[1] else plane


def grey(image: npt.NDArray[Any]) -> Picture:
    """From the darkest to the brightest percent."""
    low, high = np.percentile(image, [1, 99.5])
    bright = np.clip((image - low) / max(high - low, 1e-6), 0, 1)
    return np.repeat(bright[..., None], 3, axis=-1)


def painted(image: npt.NDArray[Any], codes: npt.NDArray[Any], alpha: float = 0.65) -> Picture:
    """Classes in their colours over the image, sets of classes in grey, unpainted voxels as they are."""
    picture = grey(image)
    for code in np.unique(codes[codes > 0]).tolist():
        color = np.array(to_rgb(COLOURS[code - 1] if code < 128 else _SET))
        picture[codes == code] = (1 - alpha) * picture[codes == code] + alpha * color
    return picture


def judged(image: npt.NDArray[Any], labels: npt.NDArray[Any], truth: npt.NDArray[Any]) -> Picture:
    """The classes but the first in their colours; voxels that are wrong in red."""
    picture = painted(image, np.where(labels > 1, labels, 0), 0.5)
    picture[labels != truth] = to_rgb(_WRONG)
    return picture


def compared(
    without: Case,
    with_it: Case,
    at: tuple[int, int],
    shown: tuple[int, int],
    plain: Mapping[str, Any] = MappingProxyType({}),
    **how: Any,
) -> Panels:
    """Both paintings on the slice `at` (axis, index), and what comes of them on the slice `shown`.

    `plain` is how it is learnt without the method, `how` with it.
    """
    both = (without, plain), (with_it, how)
    labels = [np.asarray(fit(case, True, **more).predict(case.image)) for case, more in both]
    image, truth = (plane_of(array, *shown) for array in (without.image, without.truth))
    scores = ["paint without", "paint with", "without", "with"]
    paints = [painted(plane_of(c.image, *at), plane_of(c.annotation, *at)) for c in (without, with_it)]
    results = [judged(image, plane_of(found, *shown), truth) for found in labels]
    return dict(zip(scores, [*paints, *results], strict=True))


def of_weights() -> Panels:
    """Early paint, corrections, and both ways to weigh them."""
    case, weight = weights.hurried_then_corrected(load("nuclei_part", 0))
    corrected = np.where(weight > 1, case.annotation, 0)
    z = int(np.argmax((corrected > 0).sum((1, 2))))
    early = int(np.argmax(((case.annotation > 0) & (weight == 1)).sum((1, 2))))
    panels = compared(case, case, (0, early), (0, (z + early) // 2), weight=weight)
    first, _, *rest = panels.items()
    return {
        "early paint": first[1],
        "corrections": painted(case.image[z], corrected[z]),
        "all alike": rest[0][1],
        "corrections weigh more": rest[1][1],
    }


def of_allowed_sets() -> Panels:
    """Strokes of which some are half known."""
    case = allowed_sets.of_three_classes(load("nuclei_part", 0, "scribbles"))
    annotation, allowed = allowed_sets.half_known(case)
    definite = repainted(case, np.where(annotation < 128, annotation, 0).astype(np.uint8))
    z = int(np.argmax((annotation > 127).sum((1, 2))))
    panels = compared(definite, repainted(case, annotation), (0, z), (0, z + 6), allowed=allowed)
    return dict(zip(("what is certain", "“A or B” in grey", "without sets", "with sets"), panels.values(), strict=True))


def of_uncertain() -> Panels:
    """Outlines guessed, and outlines marked."""
    case = load("nuclei_part", 0)
    guessed, marked, allowed = uncertain.doubtful(case)
    z = int(np.argmax((marked > 127).sum((1, 2))))
    panels = compared(repainted(case, guessed), repainted(case, marked), (0, z), (0, z + 6), allowed=allowed)
    return dict(zip(("outlines guessed", "outlines unsure, grey", "guessed", "unsure"), panels.values(), strict=True))


def of_orientations() -> Panels:
    """Slices of one orientation, and of three."""
    one, mixed, _ = orientations.paintings(load("hippocampus", 1))
    middle = one.truth.shape[1] // 2
    panels = compared(one, mixed, (1, middle), (1, middle))
    return dict(zip(("three slices across z", "across z, y and x", "one", "three"), panels.values(), strict=True))


def of_hints() -> Panels:
    """Strokes, what they grow to, what a gap between two slices is filled with, and the truth; nothing is learnt."""
    case = load("nuclei_part", 0, "scribbles")
    found = hints.grown(case)
    z = int(np.argmax((found.codes > 1).sum((1, 2))))
    near = hints.on_near_slices(case)
    middle = int(np.flatnonzero(near.annotation.any((1, 2)))[0]) + 1
    filled = suggest_between(near.annotation, spacing=near.spacing)
    return {
        "strokes": painted(case.image[z], case.annotation[z]),
        "what they grow to": painted(case.image[z], found.codes[z]),
        "truth": painted(case.image[z], case.truth[z]),
        "filled between slices": painted(case.image[middle], filled.codes[middle]),
        "truth there": painted(case.image[middle], case.truth[middle]),
    }


def of_transfer() -> Panels:
    """What was painted elsewhere and here, and what comes of it without and with the other model."""
    other, case = transfer.elsewhere("hippocampus", 0), transfer.target("hippocampus", 0)
    there, here = (int(np.argmax((c.annotation > 1).sum((1, 2)))) for c in (other, case))
    models = [transfer.fit_here(case, True, start=s) for s in (None, transfer.learnt_elsewhere("hippocampus", 0, True))]
    shown = int(np.argmax(((case.truth > 1) & case.scored).sum((1, 2))))
    results = [judged(case.image[shown], np.asarray(m.predict(case.image))[shown], case.truth[shown]) for m in models]
    return {
        "another volume": painted(other.image[there], other.annotation[there]),
        "a few strokes here": painted(case.image[here], case.annotation[here]),
        "from nothing": results[0],
        "from the other model": results[1],
    }


def of_label_smoothing() -> Panels:
    """Paint of a hurried hand, and both ways to believe it."""
    case = load("nuclei_part", 0)
    hurried = repainted(case, smoothing.hurried(case))
    z = int(np.flatnonzero(case.annotation.any((1, 2)))[1])
    panels = compared(hurried, hurried, (0, z), (0, z + 6), paint__label_smoothing=0.1)
    return _with_truth(case, z, panels, ("in a hurry", "believed", "smoothed"))


def of_positive_unlabelled() -> Panels:
    """Some objects outlined, and what the rest is taken for."""
    case = load("nuclei_part", 0)
    some = repainted(case, unlabelled.some_outlined(case))
    z = int(np.argmax((some.annotation > 0).sum((1, 2))))
    background = {"paint__unlabelled": "background", "paint__negative_weight": 1.0}
    panels = compared(some, some, (0, z), (0, z + 6), background, paint__unlabelled="risk")
    return _with_truth(case, z, panels, ("some outlined", "the rest is background", "the rest may be either"))


def _with_truth(case: Case, z: int, panels: Panels, titles: tuple[str, str, str]) -> Panels:
    """The truth of a painted slice, its paint, and both results."""
    _, *rest = panels.values()
    return {"truth": painted(case.image[z], case.truth[z]), **dict(zip(titles, rest, strict=True))}


PICTURES: dict[str, Callable[[], Panels]] = {
    "weights": of_weights,
    "allowed_sets": of_allowed_sets,
    "uncertain": of_uncertain,
    "orientations": of_orientations,
    "hints": of_hints,
    "transfer": of_transfer,
    "label_smoothing": of_label_smoothing,
    "positive_unlabelled": of_positive_unlabelled,
}


def draw(panels: Panels, path: Path) -> None:
    """All panels in a row, each with its title."""
    figure = Figure(figsize=(2.6 * len(panels), 2.6), dpi=110, layout="constrained")
    for axes, (title, picture) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        axes.imshow(picture, interpolation="nearest")
        axes.set_title(title, fontsize=10)
        axes.set_axis_off()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def main() -> None:
    """Draw what the command line names, or everything."""
    for name in sys.argv[1:] or PICTURES:
        draw(PICTURES[name](), FOLDER / f"weak-{name.replace('_', '-')}.png")


if __name__ == "__main__":
    main()
