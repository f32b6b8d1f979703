"""Tables and pictures of docs/performance.md, from the rows that benchmarks/sparsebench.py wrote.

    python benchmarks/quality.py benchmarks/results/runs.jsonl benchmarks/results/corrections.jsonl

The first file comes from `sparsebench.py run --out`, the second from `sparsebench.py correct --out`. Prints tables in
Markdown, and draws Dice against seconds and against strokes, for ours and the forest, into docs/images.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "images"
VOLUMES = ("nuclei", "embryo", "walls", "neuropil", "fibsem", "hippocampus")
OURS, FOREST = "sparseseg", "forest"
_COLORS = {OURS: "#D55E00", FOREST: "#0072B2"}
_NAMES = {OURS: "ours", FOREST: "random forest"}
_MARKS = {"slices3": "o", "scribbles": "^"}

Row = dict[str, Any]


def main() -> None:
    """Print and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path)
    parser.add_argument("corrections", type=Path)
    arguments = parser.parse_args()
    runs, corrections = read(arguments.runs), read(arguments.corrections)
    for budget in sorted({row["budget_s"] for row in runs if row["method"] == OURS}):
        print(f"\n### {budget:.0f} s\n\n{table_of(runs, budget)}")
    print(f"\n### corrections\n\n{table_of_strokes(corrections)}")
    draw(FOLDER / "quality-seconds.png", "seconds of a quiet machine", lambda axes, v: draw_seconds(axes, runs, v))
    draw(FOLDER / "quality-strokes.png", "strokes", lambda axes, v: draw_strokes(axes, corrections, v))


def read(path: Path) -> list[Row]:
    """Rows of a file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def table_of(runs: Sequence[Row], budget: float) -> str:
    """Ours against the forest for one budget, a line for each case and seed."""
    forest = {(row["case"], row["seed"]): row for row in runs if row["method"] == FOREST}
    lines = [
        "| case | seed | forest | ours | difference | pace | valid |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in runs:
        other = forest.get((row["case"], row["seed"]))
        if row["method"] == OURS and row["budget_s"] == budget and other is not None:
            ours, theirs = row["foreground"], other["foreground"]
            lines.append(
                f"| {row['case']} | {row['seed']} | {theirs:.3f} | {ours:.3f} | {ours - theirs:+.3f} "
                f"| {row['pace']:.1f} | {'yes' if row['valid'] else 'no'} |"
            )
    return "\n".join(lines)


def table_of_strokes(corrections: Sequence[Row]) -> str:
    """Strokes that ours needs to reach the Dice at which the forest ends."""
    lines = ["| volume | forest ends at | with strokes | ours gets there with | ours ends at |", "| --- " * 5 + "|"]
    for volume in VOLUMES:
        ours, forest = (rounds_of(corrections, volume, method) for method in (OURS, FOREST))
        if not ours or not forest:
            continue
        goal = forest[-1]["foreground"]
        needed = strokes_to(ours, goal)
        lines.append(
            f"| {volume} | {goal:.3f} | {forest[-1]['strokes']} | {'never' if needed is None else f'{needed:.0f}'} "
            f"| {ours[-1]['foreground']:.3f} |"
        )
    return "\n".join(lines)


def rounds_of(corrections: Iterable[Row], volume: str, method: str) -> list[Row]:
    """The rounds of one run, in order."""
    found = [row for row in corrections if row["case"] == f"{volume}/correct" and row["method"] == method]
    return sorted(found, key=lambda row: int(row["round"]))


def strokes_to(rounds: Sequence[Row], goal: float) -> float | None:
    """Strokes after which a Dice is reached, on straight lines between rounds; None if it never is."""
    if rounds[0]["foreground"] >= goal:
        return float(rounds[0]["strokes"])
    for before, after in pairwise(rounds):
        if before["foreground"] < goal <= after["foreground"]:
            share = (goal - before["foreground"]) / (after["foreground"] - before["foreground"])
            return float(before["strokes"] + share * (after["strokes"] - before["strokes"]))
    return None


def draw(path: Path, label: str, panel: Callable[[Axes, str], None]) -> None:
    """A panel for each volume."""
    figure = Figure(figsize=(9, 5), dpi=110, layout="constrained")
    grid = figure.subplots(2, 3)
    for axes, volume in zip(grid.flat, VOLUMES, strict=True):
        panel(axes, volume)
        axes.set_title(volume, fontsize=10)
        axes.grid(color="#DDDDDD", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    for axes in grid[1]:
        axes.set_xlabel(label, fontsize=9)
    for axes in grid[:, 0]:
        axes.set_ylabel("Dice", fontsize=9)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    figure.savefig(path)
    print(f"\n{path}")


def draw_seconds(axes: Axes, runs: Sequence[Row], volume: str) -> None:
    """Dice against the budget; the forest when it is done, and from then on."""
    for protocol, mark in _MARKS.items():
        rows = [row for row in runs if row["case"] == f"{volume}/{protocol}" and row["seed"] == 0]
        ours = sorted((row["budget_s"], row["foreground"]) for row in rows if row["method"] == OURS)
        if not ours:
            continue
        axes.plot(*zip(*ours, strict=True), mark + "-", color=_COLORS[OURS], label=f"{_NAMES[OURS]}, {protocol}")
        pace = float(np.median([row["pace"] for row in rows if row["method"] == OURS]))
        for row in rows:
            if row["method"] == FOREST:
                done, last = row["wall_s"] / pace, max(ours[-1][0], row["wall_s"] / pace)
                line = [(done, row["foreground"]), (last, row["foreground"])]
                name = f"{_NAMES[FOREST]}, {protocol}"
                axes.plot(*zip(*line, strict=True), mark + "--", color=_COLORS[FOREST], label=name, markevery=[0])
    axes.set_xscale("log")
    axes.set_xticks([1, 5, 15, 60, 300], ["1", "5", "15", "60", "300"])
    axes.minorticks_off()


def draw_strokes(axes: Axes, corrections: Sequence[Row], volume: str) -> None:
    """Dice after each round of corrections."""
    for method, color in _COLORS.items():
        rounds = rounds_of(corrections, volume, method)
        points = [(row["strokes"], row["foreground"]) for row in rounds]
        if points:
            axes.plot(*zip(*points, strict=True), "o-", color=color, label=_NAMES[method])


if __name__ == "__main__":
    main()
