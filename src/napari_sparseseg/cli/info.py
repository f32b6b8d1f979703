"""`info`: what a model or an image file holds."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_sparseseg.cli import _options
from napari_sparseseg.cli._app import add
from napari_sparseseg.cli._console import counted, lengths, n_bytes, print_table

if TYPE_CHECKING:
    from napari_sparseseg.engine.checkpoint import ModelDescription
    from napari_sparseseg.engine.classes import ClassTable

_MODEL_SUFFIX = ".safetensors"


def register() -> None:
    """Add the command to the application."""
    add(
        info,
        "napari-sparseseg info cells.safetensors",
        "napari-sparseseg info cells.ome.zarr",
        "napari-sparseseg info stack.tif --axes ZCYX",
    )


def info(
    file: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|IMAGE",
            help="A model, or a project for its newest one; or an image or annotation.",
            show_default=False,
        ),
    ],
    axes: _options.Axes = None,
    series: _options.Series = None,
) -> None:
    """Show what a model has learnt, or how an image is understood."""
    from napari_sparseseg.storage.atomic import is_safetensors
    from napari_sparseseg.storage.project.project import is_project

    if file.endswith(_MODEL_SUFFIX) or is_safetensors(Path(file)) or is_project(file):
        print_table(_model_rows(Path(file)))
    else:
        print_table(_image_rows(file, axes, series or 0))


def _model_rows(path: Path) -> list[tuple[str, str]]:
    from napari_sparseseg.model_files import read_description

    path, found = read_description(path)
    config, classes = found.spec.config, found.classes
    return [
        ("Model", f"{path} ({n_bytes(path.stat().st_size)}, format {found.header['version']}, checksum right)"),
        ("Classes", _classes_text(classes)),
        ("Channels", str(found.spec.n_channels)),
        ("Voxel size", _voxel_size(found)),
        *_learning_rows(found),
        ("Network", f"{config.depth} levels, {config.width} channels, {counted(len(config.scales), 'filter scale')}"),
        ("Weights", f"{found.n_weights:,}{' with those to continue exactly' if found.has_training_state else ''}"),
        ("Answers by", f"U-Net {found.context:.0%}, pixel classifier {1 - found.context:.0%}"),
        ("Settings", _changed_settings(found)),
    ]


def _classes_text(classes: ClassTable) -> str:
    text = ", ".join(f"{i} (background)" if i == classes.background else str(i) for i in classes.ids)
    return f"{text}; they may overlap" if classes.overlapping else text


def _voxel_size(found: ModelDescription) -> str:
    spacing = found.header["settings"].get("spacing")
    return "not given: cubes" if spacing is None else f"{lengths(spacing, None)} ({'z, y, x'[-3 * len(spacing) + 2 :]})"


def _learning_rows(found: ModelDescription) -> list[tuple[str, str]]:
    history = found.header["history"]
    if not history:
        return []
    last = history[-1]
    rows = [("Learning", f"{last['step']} steps, the last fit {last['seconds']:.1f} s")]
    if last["dice"] is not None and math.isfinite(last["dice"]):
        rows.append(("Dice", f"{last['dice']:.3f}, estimated on held-out paint, which flatters"))
    return rows


def _changed_settings(found: ModelDescription) -> str:
    """Settings that differ from their defaults."""
    given: dict[str, Any] = {"model": found.spec.config.model_dump(), **found.header["settings"]}
    changed = [
        f"{group}.{name}={given[group][name]}"
        for group, config in _options.setting_groups().items()
        for name, default in config().model_dump().items()
        if isinstance(given.get(group), dict) and name in given[group] and _plain(given[group][name]) != _plain(default)
    ]
    return ", ".join(changed) or "all by default"


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _image_rows(path: str, axes: str | None, series: int) -> list[tuple[str, str]]:
    from napari_sparseseg.cli._images import spacing_option, unknown_axes
    from napari_sparseseg.storage.formats import open_image

    image = open_image(path, axes=axes, series=series)
    shape, dtype = tuple(image.array.shape), image.array.dtype
    rows = [
        ("Image", f"{path} ({image.format})"),
        ("Axes", ", ".join(f"{letter} {size}" for letter, size in zip(image.axes, shape, strict=True))),
        ("Voxels", f"{dtype}, {n_bytes(math.prod(shape) * dtype.itemsize)} in memory"),
    ]
    if image.known_spacing and image.spacing is None:
        known = f"{lengths(tuple(image.known_spacing.values()), image.unit)} ({', '.join(image.known_spacing).lower()})"
        remedy = f"give {spacing_option(image)} to train"
        rows.append(("Voxel size", f"the file does not say it along {unknown_axes(image)}, only {known}; {remedy}"))
    elif image.spacing is None:
        rows.append(("Voxel size", "the file does not say; give --spacing to train"))
    else:
        order = ", ".join(image.spatial_axes.lower())
        unit = "" if image.unit else ", in an unknown unit"
        rows.append(("Voxel size", f"{lengths(image.spacing, image.unit)} ({order}{unit})"))
    if image.channel_names:
        rows.append(("Channels", ", ".join(image.channel_names)))
    if image.class_names:
        rows.append(("Classes", ", ".join(f"{i} {name}" for i, name in sorted(image.class_names.items()))))
    if image.n_series > 1:
        used = f"this is {series}, counted from 0" if series else "of which the first is used; --series takes another"
        rows.append(("Images", f"{image.n_series} in this file, {used}"))
    if image.n_levels > 1:
        rows.append(("Levels", f"{image.n_levels} resolutions, of which the finest is used"))
    return rows
