"""How many slices must be painted? Learn from one slice, from two, from three ..., and score where nothing was painted.

    python examples/sweep_painted_slices.py
    python examples/sweep_painted_slices.py --volume volume.npz --seconds 60 --seeds 5

Without a volume it takes the generated tissue. A volume of your own is an .npz file with `image` (z, y, x), `labels`
(the true class of each voxel; 0 is a class too) and `spacing` (voxel size along z, y, x).
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from napari_sparseseg import SparseSegmenter
from napari_sparseseg.samples import Sample, paint_slices, tissue


def main() -> None:
    """Measure every number of slices with every seed, then write the table and the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--volume", type=Path, help="an .npz file; the generated tissue without")
    parser.add_argument("--slices", type=int, nargs="+", default=[1, 2, 3, 5, 8], help="numbers of painted slices")
    parser.add_argument("--seeds", type=int, default=3, help="how often each is repeated, with other strokes")
    parser.add_argument("--seconds", type=float, default=20, help="how long to learn each time")
    parser.add_argument("--output", type=Path, default=Path("sweep-output"), help="folder for sweep.csv and sweep.png")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)

    sample = read_volume(options.volume) if options.volume else tissue()
    scored = truth_off_paint(sample, options.slices)
    rows = []
    for n_slices in options.slices:
        for seed in range(options.seeds):
            dice = learn_and_score(sample, scored, n_slices, seed, options.seconds)
            rows.append((n_slices, seed, dice))
            print(f"{n_slices} painted slices, seed {seed}: Dice {dice:.3f}")

    write_table(options.output / "sweep.csv", rows)
    draw(options.output / "sweep.png", rows, f"{sample.name}, {options.seconds:g} s of learning")


def read_volume(path: Path) -> Sample:
    """Read image, truth and voxel size; classes are counted from 1, since 0 means unpainted."""
    stored = np.load(path)
    truth = (stored["labels"] + 1).astype(np.uint8)
    names = {int(class_id): f"class {class_id}" for class_id in np.unique(truth)}
    z, y, x = (float(size) for size in stored["spacing"])
    return Sample(path.stem, stored["image"], truth, (z, y, x), names)


def truth_off_paint(sample: Sample, numbers: list[int]) -> np.ndarray:
    """Clear the truth in each slice that is painted in any of the runs, so that all are scored on the same voxels."""
    scored = sample.truth.copy()
    for n_slices in numbers:
        scored[paint_slices(sample.truth, n_slices).any(axis=(1, 2))] = 0
    return scored


def learn_and_score(sample: Sample, scored: np.ndarray, n_slices: int, seed: int, seconds: float) -> float:
    """Return the mean Dice over all classes but the background."""
    annotation = paint_slices(sample.truth, n_slices, seed=seed)
    segmenter = SparseSegmenter(spacing=sample.spacing, random_state=seed)
    segmenter.fit(sample.image, annotation, max_seconds=seconds)
    return segmenter.score(sample.image, scored)


def write_table(path: Path, rows: list[tuple[int, int, float]]) -> None:
    """One line for each run."""
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["painted_slices", "seed", "mean_dice"])
        table.writerows((n_slices, seed, f"{dice:.4f}") for n_slices, seed, dice in rows)


def draw(path: Path, rows: list[tuple[int, int, float]], title: str) -> None:
    """Draw each run as a dot, the mean as a line, and from the worst to the best seed as a band."""
    numbers = sorted({n_slices for n_slices, _, _ in rows})
    found = [[dice for n_slices, _, dice in rows if n_slices == number] for number in numbers]

    figure = Figure(figsize=(5.2, 3.6), dpi=150, layout="constrained")
    axes = figure.subplots()
    axes.fill_between(numbers, [min(f) for f in found], [max(f) for f in found], color="#0072B2", alpha=0.15, lw=0)
    axes.plot(numbers, [np.mean(f) for f in found], color="#0072B2", label="mean")
    axes.scatter([n for n, _, _ in rows], [dice for _, _, dice in rows], s=12, color="#333333", zorder=3, label="a run")
    axes.set(xlabel="painted slices", ylabel="mean Dice on planes without paint", xticks=numbers)
    axes.set_title(title, loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#E6E6E6")
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(path)


if __name__ == "__main__":
    main()
