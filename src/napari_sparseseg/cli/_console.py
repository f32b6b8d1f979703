"""What commands print: tables and results to standard output, everything else to standard error."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer


def on_terminal() -> bool:
    """Whether somebody watches; progress and notes are for them only."""
    return sys.stderr.isatty()


def note(text: str) -> None:
    """Tell somebody who watches what is going on."""
    if on_terminal():
        typer.secho(text, err=True, dim=True)


def warn(text: str) -> None:
    """Print a warning to standard error."""
    typer.echo(f"{typer.style('Warning:', fg='yellow')} {text}", err=True)


def print_table(rows: Sequence[Sequence[str]], *, header: bool = False) -> None:
    """Print columns that are as wide as their longest entry; figures under a header are right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for number, row in enumerate(rows):
        first, *others = row
        if header and len(row) > 2:
            cells = [first.ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(others, widths[1:], strict=True))]
        else:
            cells = [first.ljust(widths[0]), *others]
        line = "  ".join(cells).rstrip()
        typer.secho(line, bold=True) if header and number == 0 else typer.echo(line)


def lengths(spacing: Sequence[float], unit: str | None) -> str:
    """A voxel size as people write it: `0.5 x 0.2 x 0.2 µm`."""
    return " x ".join(f"{size:.4g}" for size in spacing) + f" {short_unit(unit)}".rstrip()


def short_unit(unit: str | None) -> str:
    """The symbol of a unit of length, or its name; empty for None."""
    symbols = {"micrometer": "µm", "nanometer": "nm", "millimeter": "mm", "centimeter": "cm", "meter": "m"}
    return symbols.get(unit, unit) if unit else ""


def counted(n: int, thing: str) -> str:
    """`1 volume`, `3 volumes`."""
    return f"{n} {thing}" if n == 1 else f"{n} {thing}s"


def n_bytes(size: float) -> str:
    """A size in the unit that leaves few digits: `3.4 MB`."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
