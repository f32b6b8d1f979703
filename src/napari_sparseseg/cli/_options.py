"""Options that several commands have, and what their text means."""

from __future__ import annotations

import json
from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from napari_sparseseg.config import ModelConfig, ObjectConfig, PaintConfig, PredictionConfig, TrainingConfig

_READING = "Reading the files"
_DEVICES = ["auto", "cpu", "cuda", "mps"]

Spacing = Annotated[
    str | None,
    typer.Option(
        metavar="Z,Y,X",
        help="Voxel size in micrometres, in place of the files' own.",
        rich_help_panel=_READING,
        show_default=False,
    ),
]
Axes = Annotated[
    str | None,
    typer.Option(
        metavar="LETTERS",
        help="What the axes of the images are, where a file does not say: letters of TCZYX, such as CZYX.",
        rich_help_panel=_READING,
        show_default=False,
    ),
]
Level = Annotated[
    str | None,
    typer.Option(
        metavar="N",
        help="Level of resolution to work at: 0 is the finest, or auto. [default: 0]",
        rich_help_panel=_READING,
        show_default=False,
    ),
]
Series = Annotated[
    int | None,
    typer.Option(
        min=0,
        metavar="N",
        help="Which of several images in a file, counted from 0. [default: 0]",
        rich_help_panel=_READING,
        show_default=False,
    ),
]
Device = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="auto, cpu, cuda, cuda:1 or mps; 'napari-sparseseg devices' lists them.",
        autocompletion=lambda: _DEVICES,
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there under the name of the output.")]
Background = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=254,
        metavar="ID",
        help="Class that the mean leaves out; without it the background of the model, or the lowest one of labels.",
        show_default=False,
    ),
]


def parse_spacing(text: str | None) -> tuple[float, ...] | None:
    """Voxel size along z, y, x (or y, x) from numbers with commas between them; a usage error for anything else."""
    if text is None:
        return None
    from napari_sparseseg.storage._arrays import is_length

    try:
        sizes = tuple(float(part) for part in text.split(","))
    except ValueError:
        sizes = ()
    if len(sizes) not in (2, 3) or not all(map(is_length, sizes)):
        raise typer.BadParameter(
            f"{text!r} is not a voxel size; give positive numbers along z, y, x (y, x for 2D images), such as "
            "0.5,0.2,0.2",
            param_hint="--spacing",
        )
    return sizes


def parse_level(text: str | None) -> int | None:
    """A level of resolution, 0 without a text, None for "auto"; a usage error for anything else."""
    if text is None:
        return 0
    if text.lower() == "auto":
        return None
    if not text.isdecimal():
        raise typer.BadParameter(
            f"{text!r} is no level of resolution; give 0 for the finest, 1, 2, ... for coarser ones, or auto",
            param_hint="--level",
        )
    return int(text)


def parse_settings(texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Settings by group from texts like `training.learning_rate=1e-3`; a usage error for unknown names.

    Values are JSON where they can be read as that, lists may be written without brackets. Their bounds are checked
    where they are used.
    """
    found: dict[str, dict[str, Any]] = {}
    names = setting_names() if texts else []
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise typer.BadParameter(f"{text!r} has no value; write NAME=VALUE", param_hint="--set")
        if name not in names:
            close = get_close_matches(name, names, n=1, cutoff=0.75)
            hint = f"did you mean {close[0]}? " if close else ""
            raise typer.BadParameter(
                f"there is no setting {name!r}; {hint}The settings are {', '.join(names)}", param_hint="--set"
            )
        group, _, setting = name.partition(".")
        found.setdefault(group, {})[setting] = _value(value)
    return found


def parse_allowed(texts: Sequence[str]) -> dict[int, set[int]]:
    """Codes and the classes that they leave possible, from texts like `130=1,3`; a usage error for anything else."""
    found = {}
    for text in texts:
        code, _, ids = text.partition("=")
        parts = [part.strip() for part in (code, *ids.split(","))]
        if len(parts) < 2 or not all(part.isdecimal() for part in parts):
            raise typer.BadParameter(
                f"{text!r} does not say which classes a label leaves possible; write for example 130=1,3",
                param_hint="--allowed",
            )
        found[int(parts[0])] = {int(part) for part in parts[1:]}
    return found


def setting_names() -> list[str]:
    """Every setting, as `training.learning_rate`."""
    return [f"{group}.{name}" for group, config in setting_groups().items() for name in config.model_fields]


def setting_groups() -> dict[str, type[ModelConfig | TrainingConfig | PaintConfig | PredictionConfig | ObjectConfig]]:
    """The kinds of settings."""
    from napari_sparseseg.config import ModelConfig, ObjectConfig, PaintConfig, PredictionConfig, TrainingConfig

    return {
        "training": TrainingConfig,
        "paint": PaintConfig,
        "model": ModelConfig,
        "prediction": PredictionConfig,
        "objects": ObjectConfig,
    }


def _value(text: str) -> Any:
    for candidate in (text, text.lower(), f"[{text}]"):
        try:
            return json.loads(candidate)
        except ValueError:
            continue
    return text


def parse_memory(text: str | None) -> int | None:
    """Bytes from an amount such as 8GB; a usage error for anything else."""
    if text is None:
        return None
    from napari_sparseseg.distributed.plan import parse_memory as bytes_of
    from napari_sparseseg.errors import InputError

    try:
        return bytes_of(text)
    except InputError:
        raise typer.BadParameter(
            f"{text!r} is not an amount of memory; give one such as 8GB or 512MiB", param_hint="--memory"
        ) from None
