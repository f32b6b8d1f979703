"""Objects from sparse paint, against components and a watershed; the last line is a JSON object of means.

    python benchmarks/instances.py
    python benchmarks/instances.py --quick --volume nuclei neuropil --out rows.jsonl

On three slices of each volume a cluster of neighbours is filled, each with its own id, and everything within a few
voxels around them is painted with the other class: 20 objects in all, never more than half of a volume's. The other
objects are scored, on the slices without paint. Found objects that overlap most with a painted one are left out as
well, and so are objects smaller than 50 voxels, true or found.

`ap50`, `ap75`: matched objects among all (TP / (TP + FP + FN)) at these overlaps. `voi_split`, `voi_merge` and
`rand_error`: over the voxels of scored objects. `_components`: touching voxels of the object class on the class map of
the same model. `_forest`: seeded watershed on the probabilities of a random forest that learnt from the same paint, the
best, by the truth itself, of two kinds of features and several kinds of seeds. `margin` is `ap50` minus the better of
the two, `worst` the volume where it is smallest. --quick takes a fixed number of steps instead of seconds.

`clicks`: merges and splits by a simulated person (see corrections.py) until `ap50` is 0.9, two clicks each;
`ap50_corrected`: where that ended, possibly below, since missing objects cannot be merged or split. `reached`: share of
the volumes where 0.9 was reached.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import edt
import numpy as np
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.segmentation import watershed
from sklearn.ensemble import RandomForestClassifier

import sparsebench
from corrections import Corrector
from napari_sparseseg import SparseSegmenter
from napari_sparseseg.engine.objects.metrics import score_objects

OBJECT_CLASS = {"nuclei": 2, "embryo": 2, "walls": 1, "neuropil": 1, "fibsem": 1}
SLICES = (0.2, 0.5, 0.8)
N_OBJECTS = 20
AROUND = 4  # voxels
SMALLEST = 50  # voxels
SMALLEST_PAINTED = 12  # pixels on a slice
QUICK_STEPS = 150
MEASURES = ("ap50", "ap75", "voi_split", "voi_merge", "rand_error")


@dataclass(frozen=True)
class Volume:
    """A volume, three painted slices, and what is scored: `truth` holds ids of objects, `annotation` classes."""

    name: str
    case: sparsebench.Case
    truth: np.ndarray
    painted: np.ndarray
    """Ids of painted voxels, 0 elsewhere."""

    @property
    def object_class(self) -> int:
        return OBJECT_CLASS[self.name]

    def correct(self, found: np.ndarray) -> dict[str, float | bool]:
        """What a person who merges and splits needs to mend it."""
        ids, sizes = np.unique(self.truth, return_counts=True)
        counts = ids[(ids > 0) & (sizes >= SMALLEST) & ~np.isin(ids, self.painted)]
        result = Corrector(found, self.truth, counts, self.case.scored, self.case.spacing, SMALLEST).correct()
        return {"clicks": result.clicks, "ap50_corrected": result.ap50, "reached": result.is_reached}

    def score(self, found: np.ndarray) -> dict[str, float]:
        """Measures over what was neither painted nor is a speck."""
        scored = self.case.scored
        true_ids, rows, sizes = np.unique(self.truth, return_inverse=True, return_counts=True)
        counts = (true_ids > 0) & (sizes >= SMALLEST) & ~np.isin(true_ids, self.painted)
        truth = np.where(counts, true_ids, 0)[rows].reshape(self.truth.shape)
        found_ids, found_rows, found_sizes = np.unique(found, return_inverse=True, return_counts=True)
        table = np.zeros((len(found_ids), len(true_ids)), np.int64)
        np.add.at(table, (found_rows.ravel(), rows.ravel()), 1)
        table[:, true_ids == 0] = 0
        main = table.argmax(1)
        is_left_out = (found_sizes < SMALLEST) | ((table.max(1) > 0) & ~counts[main])
        rest = np.where(is_left_out, 0, found_ids)[found_rows].reshape(found.shape)
        matched, whole = score_objects(rest, truth, scored), score_objects(found, truth, scored)
        values = (
            matched.average_precision(0.5),
            matched.average_precision(0.75),
            whole.voi_split,
            whole.voi_merge,
            whole.rand_error,
        )
        return {name: round(float(value), 4) for name, value in zip(MEASURES, values, strict=True)}


def load(name: str, seed: int) -> Volume:
    """One of the stored volumes, painted."""
    stem, crop = sparsebench.VOLUMES[name]
    image, classes, spacing = sparsebench.load_volume(stem, crop)
    ids = np.load(sparsebench.DATA / f"{stem}.npz")["instances"].astype(np.int64)
    if crop:
        ids = ids[tuple(slice(*(int(v) for v in part.split(":"))) for part in crop.split(","))]
    truth = np.where(classes == OBJECT_CLASS[name], ids, 0)
    annotation, painted, planes = paint(classes, truth, OBJECT_CLASS[name], np.random.default_rng(seed))
    scored = np.ones(truth.shape, bool)
    scored[planes] = False
    channel_axis = 0 if image.ndim == 4 else None
    case = sparsebench.Case(f"{name}/objects", image, annotation, classes, scored, spacing, channel_axis, seed)
    return Volume(name, case, truth, painted)


def paint(
    classes: np.ndarray, truth: np.ndarray, object_class: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Classes and ids as a person would paint them on three slices, and which slices these are."""
    annotation, painted = np.zeros_like(classes), np.zeros(truth.shape, np.int32)
    planes = [round((len(truth) - 1) * (share + rng.uniform(-0.05, 0.05))) for share in SLICES]
    sizes = np.bincount(truth.ravel())[1:]
    left = min(N_OBJECTS, int((sizes >= SMALLEST).sum()) // 2)
    for number, z in enumerate(planes):
        share = -(-left // (len(planes) - number))
        cluster = neighbours(truth[z], share, rng)
        left -= len(set(cluster) - set(np.unique(painted).tolist()))
        inside = np.isin(truth[z], cluster)
        around = ndimage.binary_dilation(inside, iterations=AROUND) & (classes[z] != object_class)
        annotation[z][inside | around] = classes[z][inside | around]
        painted[z][inside] = truth[z][inside]
    return annotation, painted, planes


def neighbours(plane: np.ndarray, n: int, rng: np.random.Generator) -> list[int]:
    """Ids of an object on this slice and the n - 1 that are nearest to it."""
    ids, sizes = np.unique(plane[plane > 0], return_counts=True)
    ids = ids[sizes >= SMALLEST_PAINTED]
    if not n or not len(ids):
        return []
    centres = np.array(ndimage.center_of_mass(plane > 0, plane, ids))
    distances = np.linalg.norm(centres - centres[rng.integers(len(ids))], axis=1)
    return [int(i) for i in ids[np.argsort(distances, kind="stable")[:n]]]


def forest_objects(volume: Volume) -> Iterator[tuple[str, np.ndarray]]:
    """Objects by a random forest and watersheds, and how they were made."""
    case = volume.case
    forest = sparsebench.Forest(case)
    is_painted = case.annotation > 0
    for kind in ("3D", "2D"):
        features = forest.compute(kind)
        trees = RandomForestClassifier(100, max_depth=25, n_jobs=-1, random_state=case.seed)
        trees.fit(features[is_painted], case.annotation[is_painted])
        channel = list(trees.classes_).index(volume.object_class)
        flat = features.reshape(-1, features.shape[-1])
        probability = trees.predict_proba(flat)[:, channel].reshape(case.truth.shape)
        forest.features.clear()
        for seeds, found in watersheds(probability, case.spacing):
            yield f"{kind} {seeds}", found


def watersheds(probability: np.ndarray, spacing: tuple[float, float, float]) -> Iterator[tuple[str, np.ndarray]]:
    """Seeds where it is certain, flooded down the probability; seeds amid objects, flooded down the distance."""
    mask = probability > 0.5
    smooth = ndimage.gaussian_filter(probability, 1)
    for level in (0.5, 0.7, 0.85):
        yield f"certain {level}", watershed(-smooth, ndimage.label(probability > level)[0], mask=mask)
    voxel = [size / min(spacing) for size in spacing]
    distance = ndimage.gaussian_filter(edt.edt(mask, anisotropy=voxel, parallel=1), 1)
    for apart in (3, 6, 10):
        seeds = np.zeros(mask.shape, np.int32)
        peaks = peak_local_max(distance, min_distance=apart, labels=mask.astype(np.int32), exclude_border=False)
        seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
        yield f"distance {apart}", watershed(-distance, seeds, mask=mask)


def measure(name: str, seed: int, budget: dict[str, float | int], *, with_forest: bool) -> dict[str, Any]:
    """All methods on one volume."""
    volume = load(name, seed)
    case = volume.case
    row: dict[str, Any] = {
        "volume": name,
        "seed": seed,
        "n_painted": len(np.unique(volume.painted)) - 1,
        "n_true": len(np.unique(volume.truth)) - 1,
    }
    start = time.perf_counter()
    segmenter = SparseSegmenter(spacing=case.spacing, channel_axis=case.channel_axis, random_state=seed)
    segmenter.fit(case.image, case.annotation, objects=volume.painted, **budget)
    fitted = time.perf_counter()
    found = np.asarray(segmenter.predict_objects(case.image))
    row |= volume.score(found)
    row |= {"fit_s": round(fitted - start, 1), "objects_s": round(time.perf_counter() - fitted, 1)}
    row |= volume.correct(found)
    components = ndimage.label(np.asarray(segmenter.predict(case.image)) == volume.object_class)[0]
    row |= {f"{measure}_components": value for measure, value in volume.score(components).items()}
    if with_forest:
        scores = [(volume.score(found), variant) for variant, found in forest_objects(volume)]
        best, variant = max(scores, key=lambda pair: pair[0]["ap50"])
        row |= {f"{measure}_forest": value for measure, value in best.items()} | {"forest": variant}
    return row


def means(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over the volumes, and how far the objects are ahead."""
    names = [f"{measure}{suffix}" for suffix in ("", "_components", "_forest") for measure in MEASURES]
    names += ["clicks", "ap50_corrected", "reached"]
    found: dict[str, Any] = {
        name: round(float(np.mean([row[name] for row in rows])), 4) for name in names if name in rows[0]
    }
    margins: dict[str, list[float]] = {}
    for row in rows:
        better = max(row["ap50_components"], row.get("ap50_forest", 0.0))
        margins.setdefault(row["volume"], []).append(row["ap50"] - better)
    worst = min(margins, key=lambda name: float(np.mean(margins[name])))
    ahead = found["ap50"] - max(found["ap50_components"], found.get("ap50_forest", 0.0))
    return found | {
        "margin": round(ahead, 4),
        "worst": worst,
        "worst_margin": round(float(np.mean(margins[worst])), 4),
        "volumes": len(margins),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--volume", nargs="+", choices=[*OBJECT_CLASS], default=[*OBJECT_CLASS])
    parser.add_argument("--seed", nargs="+", type=int, default=[0])
    parser.add_argument("--seconds", type=float, default=60, help="to learn from each volume")
    parser.add_argument("--steps", type=int, help="to learn from each volume, instead of seconds")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_STEPS} steps each")
    parser.add_argument("--no-forest", action="store_true")
    parser.add_argument("--out", type=Path, help="append the rows as JSON lines")
    arguments = parser.parse_args()
    steps = arguments.steps or (QUICK_STEPS if arguments.quick else None)
    budget: dict[str, float | int] = {"max_steps": steps} if steps else {"max_seconds": arguments.seconds}
    rows = []
    for name in arguments.volume:
        for seed in arguments.seed:
            rows.append(measure(name, seed, budget, with_forest=not arguments.no_forest))
            line = json.dumps(rows[-1])
            print(line, flush=True)
            if arguments.out:
                with arguments.out.open("a") as file:
                    file.write(line + "\n")
    print(json.dumps(means(rows)))


if __name__ == "__main__":
    main()
