"""`suggest`: which slices of an image to paint next."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_sparseseg.cli import _options
from napari_sparseseg.cli._app import add
from napari_sparseseg.cli._console import note, print_table

if TYPE_CHECKING:
    from napari_sparseseg.engine.weak.advice import Method, SliceAdvice

_NAMES = "zyx"
_METHODS: tuple[Method, ...] = ("intervals", "uncertainty")


def register() -> None:
    """Add the command to the application."""
    add(
        suggest,
        "napari-sparseseg suggest m.safetensors cells.tif --paint paint.tif",
        "napari-sparseseg suggest m.safetensors a.tif --paint p.tif --across z -n 3",
        "napari-sparseseg suggest m.safetensors a.tif --paint p.tif --across yx",
    )


def suggest(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model of 'train'.", show_default=False)],
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="The image.", show_default=False)],
    paint: Annotated[str, typer.Option(metavar="FILE", help="What is painted in it so far.", show_default=False)],
    number: Annotated[int, typer.Option("--number", "-n", min=1, metavar="N", help="Slices to suggest, at most.")] = 5,
    method: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="intervals: the middle of the largest gap between painted slices; uncertainty: where the model is "
            "least sure. [default: as set in the model]",
            show_default=False,
            autocompletion=lambda: list(_METHODS),
        ),
    ] = None,
    across: Annotated[
        str | None,
        typer.Option(
            metavar="LETTERS",
            help="Orientations: z, y, x, or several such as zy; all on which voxels are not much longer than wide "
            "without it.",
            show_default=False,
        ),
    ] = None,
    spacing: _options.Spacing = None,
    axes: _options.Axes = None,
    level: _options.Level = None,
    series: _options.Series = None,
    device: _options.Device = "auto",
) -> None:
    """Suggest slices to paint next, best first.

    Each is chosen as if those before it were painted already. Slices and spots count voxels from 0; the spot is where
    the model is least sure on the slice. The score is the share of its orientation that the gap around a slice takes
    up, or, for uncertainty, how unsure the model is around it, away from painted slices and those before it. The latter
    may rise down the list, whose order counts.
    """
    orientations = _parse_axes(across)
    chosen = next((name for name in _METHODS if name == method), None)
    if method is not None and chosen is None:
        raise typer.BadParameter(f"{method!r} is unknown; choose {' or '.join(_METHODS)}", param_hint="--method")
    sizes, level_number = _options.parse_spacing(spacing), _options.parse_level(level)
    from napari_sparseseg.cli._images import (
        Doubts,
        open_labels,
        open_matching,
        open_model,
        painted_times,
    )

    segmenter = open_model(model, device=device)
    opened = open_matching(image, segmenter, axes=axes, spacing=sizes, level=level_number, series=series)
    annotation = open_labels(paint, opened, has_classes=segmenter.get_params()["paint__overlapping"])
    opened.check_paint(annotation)
    Doubts(segmenter, series=series).warn(opened)
    segmenter.set_params(channel_axis=opened.channel_axis)
    if opened.spacing is not None:
        segmenter.set_params(spacing=opened.spacing)  # for the orientations; the model keeps its own
    found: list[tuple[int, SliceAdvice]] = []
    for time in list(painted_times(annotation)) or [0]:
        if len(opened.times) > 1:
            note(f"Time point {time}")
        volume, painted = opened.volume(time), opened.paint(annotation, time)
        suggested = segmenter.suggest_slices(volume, painted, number, method=chosen, axes=orientations)
        found += [(time, advice) for advice in suggested]
    _print_advice(found, is_series=opened.file.time_axis is not None)


def _parse_axes(text: str | None) -> list[int] | None:
    """Orientations by their letters; a usage error for others."""
    if text is None:
        return None
    letters = text.lower().replace(",", "")
    if not letters or set(letters) - set(_NAMES):
        raise typer.BadParameter(f"{text!r} names no orientations; give letters of z, y, x", param_hint="--across")
    return sorted({_NAMES.index(letter) for letter in letters})


def _print_advice(found: list[tuple[int, SliceAdvice]], *, is_series: bool) -> None:
    header = ["Slice", "Score", "Spot (z, y, x)"]
    rows = [
        [f"{_NAMES[advice.axis]} {advice.index}", f"{advice.score:.3f}", ", ".join(map(str, advice.spot))]
        for _, advice in found
    ]
    if is_series:
        header.insert(0, "Time")
        for row, (time, _) in zip(rows, found, strict=True):
            row.insert(0, str(time))
    print_table([header, *rows], header=True)
