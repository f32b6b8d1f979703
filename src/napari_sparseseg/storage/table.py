"""A table of results: how much of each class every file holds, in voxels and in physical units."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from napari_sparseseg.storage.atomic import written_whole


@dataclass(frozen=True, slots=True)
class ClassAmount:
    """One class in one time point of one file; `time` is None without a time axis, `amount` without a voxel size.

    `amount` is a volume, or an area of images without depth, in `unit`; `share` is that of all the image's voxels.
    """

    file: str
    time: int | None
    class_id: int
    class_name: str
    voxels: int
    share: float
    amount: float | None
    unit: str


def class_amounts(
    file: str | os.PathLike[str],
    n_voxels: Mapping[int, int],
    *,
    time: int | None = None,
    spacing: Sequence[float] | None = None,
    unit: str | None = None,
    class_names: Mapping[int, str] | None = None,
) -> list[ClassAmount]:
    """Rows for one image (or one time point of it), ascending by class id, from the voxels of each class.

    `spacing` is the voxel size along its 2 or 3 axes in `unit`, a name of UDUNITS; lengths without a known unit give
    amounts without one.
    """
    total = sum(n_voxels.values())
    voxel = None if spacing is None else math.prod(spacing)
    power = "" if voxel is None or spacing is None or not unit else f"{unit}^{len(spacing)}"
    return [
        ClassAmount(
            file=os.fspath(file),
            time=time,
            class_id=class_id,
            class_name=(class_names or {}).get(class_id, ""),
            voxels=n,
            share=n / total,
            amount=None if voxel is None else n * voxel,
            unit=power,
        )
        for class_id, n in sorted(n_voxels.items())
    ]


def write_amounts(path: str | os.PathLike[str], rows: Iterable[ClassAmount], *, overwrite: bool = False) -> None:
    """Write rows to a CSV file with a header (UTF-8, decimal points, empty where unknown), whole or not at all.

    What is no UTF-8 in a file's name is written as Python escapes it in a str.

    Raises `InputError` if something lies at `path` and `overwrite` is not set, and for a disk that is full.
    """
    with (
        written_whole(path, overwrite=overwrite, is_kind=Path.is_file, kind="file") as partial,
        partial.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        table = csv.writer(file)
        table.writerow(field.name for field in fields(ClassAmount))
        table.writerows([_text(value) for value in astuple(row)] for row in rows)


def _text(value: object) -> object:
    if isinstance(value, float):
        return f"{value:.6g}"
    # spreadsheets take such texts for formulas, and file names come from anywhere
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value
