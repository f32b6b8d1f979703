"""`devices`: what torch can compute with, and why."""

from __future__ import annotations

import textwrap
from shutil import get_terminal_size

import typer

from napari_sparseseg.cli._app import add
from napari_sparseseg.cli._console import print_table


def register() -> None:
    """Add the command to the application."""
    add(
        devices,
        "napari-sparseseg devices",
        "napari-sparseseg train a.tif ink.tif -o m.safetensors --device cuda:1",
    )


def devices() -> None:
    """Show which device computes and why, and what to do for a GPU."""
    from napari_sparseseg.engine.device import report_devices

    report = report_devices()
    print_table([("Device", "What it is"), *report.devices], header=True)
    typer.echo()
    print_table(
        [
            ("torch", f"{report.torch_version}, built for {report.build}"),
            ("In use", f"{report.choice.device}: {report.choice.reason}"),
        ]
    )
    if report.advice:
        typer.echo()
        width = min(get_terminal_size((100, 24)).columns, 100)
        typer.echo(textwrap.fill(f"Did you expect a GPU? {report.advice}", width, break_on_hyphens=False))
