"""The command line: parse, call the library, say what came out.

What is slow to import is imported by the command that needs it, so that `--help` answers at once.
"""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from napari_sparseseg.errors import SparseSegError

if TYPE_CHECKING:
    from napari_sparseseg.demo import DemoResult

_INTERRUPTED = 130  # what a shell expects after Ctrl-C: 128 + SIGINT


class _Commands(TyperGroup):
    """Turns the project's own errors and Ctrl-C into one sentence and an exit code, for every command."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except SparseSegError as error:
            if ctx.params["debug"]:
                raise
            typer.echo(f"Error: {error}", err=True)
            raise typer.Exit(1) from error
        except KeyboardInterrupt as interrupt:
            typer.echo("Interrupted.", err=True)
            raise typer.Exit(_INTERRUPTED) from interrupt


class SampleName(StrEnum):
    """Volumes that the demonstration knows."""

    TISSUE = "tissue"
    CELLS3D = "cells3d"


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line."""
    app(prog_name="napari-sparseseg")


def _print_version(wanted: bool) -> None:
    if wanted:
        from napari_sparseseg import __version__

        typer.echo(f"napari-sparseseg {__version__}")
        raise typer.Exit


@app.callback(epilog="Start with: napari-sparseseg demo")
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Paint a few slices of a volume, get the dense segmentation."""


@app.command(epilog="Example: napari-sparseseg demo --seconds 30 --output demo-output")
def demo(
    seconds: Annotated[float, typer.Option(min=1, help="How long to learn.")] = 60,
    output: Annotated[Path, typer.Option(help="Folder for the labels, the model and a picture.")] = Path("demo-output"),
    sample: Annotated[
        SampleName, typer.Option(help="A generated tissue, or real cells, which are downloaded once.")
    ] = SampleName.TISSUE,
    seed: Annotated[int, typer.Option(min=0, help="For the tissue, the strokes and the learning.")] = 0,
) -> None:
    """Try it: paint three slices of a sample, learn from them, segment the whole volume and score it."""
    from napari_sparseseg.demo import run_demo

    typer.echo(f"Learning for {seconds:g} s from three painted slices of the sample '{sample.value}'.", err=True)
    result = run_demo(output, seconds=seconds, sample=sample.value, seed=seed, progress=sys.stderr.isatty())
    _print_demo(result)


def _print_demo(result: DemoResult) -> None:
    rows = [(name, f"{result.dice[class_id]:.3f}") for class_id, name in sorted(result.class_names.items())]
    _print_table([("Class", "Dice over the planes without paint"), *rows])
    typer.echo()
    _print_table(
        [
            ("Learning", f"{result.fit_seconds:.1f} s"),
            ("Predicting", f"{result.predict_seconds:.1f} s"),
            ("Labels", str(result.labels_path)),
            ("Model", str(result.model_path)),
            ("Picture", str(result.summary_path)),
        ]
    )


def _print_table(rows: list[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        typer.echo(f"{name:<{width}}  {value}")


if __name__ == "__main__":
    main()
