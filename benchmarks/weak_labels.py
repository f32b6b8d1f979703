"""Learning from weak labels: each method against doing without it, on the same incomplete annotation.

    python benchmarks/weak_labels.py --quick
    python benchmarks/weak_labels.py --seeds 0 1 2 --out rows.jsonl
    python benchmarks/weak_labels.py --only label_smoothing orientations --volumes nuclei walls --out rows.jsonl
    python benchmarks/weak_labels.py --fill docs/weak-labels.md rows.jsonl

Real volumes are painted sparsely, wrongly, or half-heartedly, as suits the method; then the same network learns from
that paint for a fixed number of steps without and with the method. The metric is Dice (mean over all classes but
the first, on planes without paint) where the table names no other; more is better. Gains and losses are printed as they
are. With --out the rows are kept as JSON lines, and those that are there already are not measured again. --fill writes
the tables of a file of rows into a page, between "<!-- table: METHOD -->" and "<!-- end -->", and measures nothing.

--quick takes two small volumes, one seed and few steps. The last line is a JSON object: for each method the mean
`without` and `with` it, and `reference_tests`, 1 if every loss agrees with its plain numpy reference in value and
gradient. The volumes lie where $SPARSEBENCH_DATA says, or in ../shared/data.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from weak import reference
from weak.common import FULL_VOLUMES, QUICK_VOLUMES, VOLUMES, Result, Row

Column = npt.NDArray[np.float64]
_HEAD = "volume | runs | without | with | gain"


@dataclass(frozen=True)
class Method:
    """A method: the module of `weak` that compares it, what is compared, and by which metric."""

    module: str
    title: str
    metric: str = "Dice"

    @property
    def is_there(self) -> bool:
        return find_spec(f"weak.{self.module}") is not None

    @property
    def compare(self) -> Callable[[Sequence[str], Sequence[int], bool], Result]:
        found: Callable[[Sequence[str], Sequence[int], bool], Result] = import_module(f"weak.{self.module}").compare
        return found


METHODS = {
    "weights": Method("weights", "all paint alike / corrections weigh more"),
    "allowed_sets": Method("allowed_sets", "half-known strokes thrown away / used as sets"),
    "label_smoothing": Method("smoothing", "sloppy outlines believed / smoothed"),
    "uncertain": Method("uncertain", "doubtful voxels guessed / marked as doubtful"),
    "orientations": Method("orientations", "slices of one orientation / of three"),
    "positive_unlabelled": Method("unlabelled", "unpainted is background / may be either"),
    "overlapping": Method("overlapping", "one class a voxel / overlapping classes"),
    "transfer": Method("transfer", "from nothing / from another model"),
    "where_next": Method("advice", "slices at fixed intervals / where it is least sure"),
    "hints": Method("hints", "strokes / strokes that grew"),
    "average_k": Method("average_k", "thresholded softmax / head for sets", "coverage of the truth"),
    "metric_learning": Method("novelty", "1 - largest probability / distance from the paint", "AUROC"),
}


def measure(
    names: Iterable[str], volumes: Sequence[str], seeds: Sequence[int], quick: bool, out: Path | None
) -> dict[str, list[Row]]:
    """Rows of each method; those that lie in `out` are taken from there."""
    known = [json.loads(line) for line in out.read_text().splitlines()] if out and out.exists() else []
    rows: dict[str, list[Row]] = {}
    for name in names:
        for volume in volumes:
            for seed in seeds:
                key = {"method": name, "quick": quick, "volume": volume, "seed": seed}
                found = [row for row in known if all(row.get(field) == value for field, value in key.items())]
                if not found:
                    found = [key | row | key for row in METHODS[name].compare([volume], [seed], quick)["rows"]]
                    _keep(found, out)
                rows.setdefault(name, []).extend(found)
    return rows


def _keep(rows: Sequence[Row], out: Path | None) -> None:
    for row in rows:
        line = json.dumps(row)
        print(line, flush=True)
        if out:
            with out.open("a") as file:
                file.write(line + "\n")


def table(rows: dict[str, list[Row]]) -> str:
    """The tables of all methods as one, with a column that names them."""
    lines = [f"| method | {_HEAD} |", "| --- | --- | --- | --- | --- | --- |"]
    lines += [f"| {name} | {cells} |" for name, of_method in rows.items() for cells in _lines(of_method)]
    return "\n".join(lines)


def table_of(rows: Sequence[Row]) -> str:
    """The table of one method."""
    return "\n".join([f"| {_HEAD} |", "| --- | --- | --- | --- | --- |", *(f"| {cells} |" for cells in _lines(rows))])


def _lines(rows: Sequence[Row]) -> list[str]:
    """Means over the seeds ± standard deviation; in the line of means the gain's over the volumes."""
    by_volume: dict[str, list[Row]] = {}
    for row in rows:
        by_volume.setdefault(row["volume"], []).append(row)
    lines = []
    for volume, of_volume in by_volume.items():
        without, with_it, gain = _columns(of_volume)
        cells = [_cell(without), _cell(with_it), _cell(gain, "+")]
        lines.append(f"{volume} | {len(of_volume)} | {' | '.join(cells)}")
    if len(by_volume) > 1:
        without, with_it, gain = (column.mean() for column in _columns(rows))
        spread = np.std([_columns(of_volume)[2].mean() for of_volume in by_volume.values()])
        lines.append(f"mean | {len(rows)} | {without:.3f} | {with_it:.3f} | {gain:+.3f} ± {spread:.3f}")
    return lines


def _cell(values: Column, sign: str = "") -> str:
    """The mean, and the standard deviation where there is more than one value."""
    spread = f" ± {values.std():.3f}" if len(values) > 1 else ""
    return f"{values.mean():{sign}.3f}{spread}"


def fill(page: str, rows: Sequence[Row]) -> str:
    """The page with the tables of these rows; a method without rows keeps what stands there."""
    by_method: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: (row["volume"], row["seed"])):
        by_method.setdefault(row["method"], []).append(row)

    def filled(found: re.Match[str]) -> str:
        of_method = by_method.get(found["name"])
        return f"{found['begin']}\n{table_of(of_method)}\n{found['end']}" if of_method else found[0]

    return re.sub(r"(?s)(?P<begin><!-- table: (?P<name>\w+) -->).*?(?P<end><!-- end -->)", filled, page)


def _columns(rows: Sequence[Row]) -> tuple[Column, Column, Column]:
    """Without, with, and the gain."""
    without, with_it = (np.array([row[side] for row in rows], float) for side in ("without", "with"))
    return without, with_it, with_it - without


def means(rows: dict[str, list[Row]]) -> dict[str, Any]:
    """The JSON object of the last line."""
    sides = {
        name: {side: round(float(np.mean([row[side] for row in of_method])), 4) for side in ("without", "with")}
        for name, of_method in rows.items()
    }
    return {**sides, "reference_tests": reference.all_agree()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{' and '.join(QUICK_VOLUMES)}, one seed, few steps")
    parser.add_argument("--volumes", nargs="+", choices=[*VOLUMES], help=f"[{' '.join(FULL_VOLUMES)}]")
    parser.add_argument("--seeds", nargs="+", type=int)
    parser.add_argument("--only", nargs="+", choices=[*METHODS], default=[*METHODS], metavar="METHOD")
    parser.add_argument("--out", type=Path, help="append the rows as JSON lines; what is there is not measured again")
    parser.add_argument(
        "--fill", nargs=2, type=Path, metavar=("PAGE", "ROWS"), help="write the tables of rows into a page"
    )
    arguments = parser.parse_args()
    if arguments.fill:
        page, source = arguments.fill
        rows_of_file = [json.loads(line) for line in source.read_text().splitlines()]
        page.write_text(fill(page.read_text(), rows_of_file))
        return
    volumes = arguments.volumes or (QUICK_VOLUMES if arguments.quick else FULL_VOLUMES)
    seeds = arguments.seeds or ([0] if arguments.quick else [0, 1, 2])
    names = [name for name in arguments.only if METHODS[name].is_there]
    rows = measure(names, volumes, seeds, arguments.quick, arguments.out)
    for name in names:
        print(f"{name}: {METHODS[name].title} ({METHODS[name].metric})")
    print(table(rows))
    print(json.dumps(means(rows)))


if __name__ == "__main__":
    main()
