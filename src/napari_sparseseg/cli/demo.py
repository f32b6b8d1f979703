"""`demo`: try everything on a sample."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_sparseseg.cli._app import add
from napari_sparseseg.cli._console import note, on_terminal, print_table

if TYPE_CHECKING:
    from napari_sparseseg.demo import DemoResult


class SampleName(StrEnum):
    """Volumes that the demonstration knows."""

    TISSUE = "tissue"
    CELLS3D = "cells3d"


def register() -> None:
    """Add the command to the application."""
    add(
        demo,
        "napari-sparseseg demo",
        "napari-sparseseg demo --seconds 30 --output demo-output",
    )


def demo(
    seconds: Annotated[float, typer.Option(min=1, metavar="S", help="How long to learn.")] = 60,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder for the labels, the model and a picture.")
    ] = Path("demo-output"),
    sample: Annotated[
        SampleName, typer.Option(help="A generated tissue, or real cells, which are downloaded once.")
    ] = SampleName.TISSUE,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="For the tissue, the strokes and the learning.")] = 0,
) -> None:
    """Try it: paint, learn, segment and score a sample.

    Three slices of the sample are painted as a person would, learnt from, and the whole volume is segmented.
    """
    from napari_sparseseg.demo import run_demo

    note(f"Learning for {seconds:g} s from three painted slices of the sample '{sample.value}'.")
    result = run_demo(output, seconds=seconds, sample=sample.value, seed=seed, progress=on_terminal())
    _print_result(result)


def _print_result(result: DemoResult) -> None:
    rows = [(name, f"{result.dice[class_id]:.3f}") for class_id, name in sorted(result.class_names.items())]
    print_table([("Class", "Dice over the planes without paint"), *rows], header=True)
    typer.echo()
    print_table(
        [
            ("Learning", f"{result.fit_seconds:.1f} s"),
            ("Predicting", f"{result.predict_seconds:.1f} s"),
            ("Labels", str(result.labels_path)),
            ("Model", str(result.model_path)),
            ("Picture", str(result.summary_path)),
        ]
    )
