"""`train`: learn from images and their annotations, and write a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_sparseseg.cli import _options
from napari_sparseseg.cli._app import add
from napari_sparseseg.cli._console import counted, lengths, note, on_terminal, print_table, warn

if TYPE_CHECKING:
    from napari_sparseseg._types import ArrayLike
    from napari_sparseseg.cli._images import Image
    from napari_sparseseg.segmenter import SparseSegmenter
    from napari_sparseseg.storage.formats import ImageFile

_LEARNING = "Learning"
_SECONDS = 60.0
_MANY_CLASSES = 20  # kinds of things are fewer; numbered objects are more
_FIXED_BY_THE_MODEL = ("spacing", "background")


class Hint(StrEnum):
    """What paint can suggest."""

    GROW = "grow"
    BETWEEN = "between"


def register() -> None:
    """Add the command to the application."""
    add(
        train,
        "napari-sparseseg train cells.tif painted.tif -o cells.safetensors",
        "napari-sparseseg train a.ome.zarr a.tif b.ome.zarr b.tif -o ab.safetensors",
        "napari-sparseseg train images/ painted/ -o cells.safetensors",
        "napari-sparseseg train pairs.csv -o cells.safetensors",
        "napari-sparseseg train s3://b/a.zarr ink.tif --level auto -o m.safetensors",
        "napari-sparseseg train a.nii ink.nii -o m.safetensors --steps 500 --seed 0",
        "napari-sparseseg train a.tif ink.tif -o new.safetensors --continue old.model",
        "napari-sparseseg train a.tif ink.tif -o wide.safetensors --set model.width=32",
        "napari-sparseseg train a.tif ink.tif -o m.safetensors --suggest grow",
        "napari-sparseseg train a.tif c.npy -o m.model --set paint.overlapping=true",
        "napari-sparseseg train a.tif ink.tif -o m.safetensors --allowed 130=1,3",
    )


def train(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE ANNOTATION",
            help="An image and what was painted on it: 0 is unpainted, 1 to 254 are classes. More pairs may follow. "
            "With paint.overlapping its channels may be classes: 0 is unknown, 1 absent, 2 present. "
            "Or a folder of images and one of annotations, alike named up to their endings; or a CSV file with the "
            "columns image and annotation. Of a time series the time points that carry paint are learnt.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="MODEL", help="File for the model, such as cells.safetensors."),
    ],
    seconds: Annotated[
        float | None,
        typer.Option(
            min=1,
            metavar="S",
            help="How long to learn, everything included; 60 without --steps.",
            show_default=False,
            rich_help_panel=_LEARNING,
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Learn for so many steps instead; with --seed, twice the same gives the same model. With --seconds, "
            "whichever ends first.",
            show_default=False,
            rich_help_panel=_LEARNING,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Seed of every random choice; a new one each time without it.",
            show_default=False,
            rich_help_panel=_LEARNING,
        ),
    ] = None,
    continue_from: Annotated[
        Path | None,
        typer.Option(
            "--continue",
            metavar="MODEL",
            help="Go on with this model. The annotations are all the paint that counts, old and new.",
            show_default=False,
            rich_help_panel=_LEARNING,
        ),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL",
            help="Begin with what this model of other images, maybe of other classes, knows of images.",
            show_default=False,
            rich_help_panel=_LEARNING,
        ),
    ] = None,
    allowed: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CODE=ID,ID",
            help="A label of the annotations that is no class, but could be any of these: 130=1,3. May be repeated.",
            show_default=False,
            rich_help_panel=_LEARNING,
        ),
    ] = None,
    suggest: Annotated[
        list[Hint] | None,
        typer.Option(
            metavar="WHAT",
            help="Also learn, with less weight, what the paint suggests: grow lets strokes grow on their slice, for a "
            "few strokes on each; between fills gaps between slices across z, for slices closer together than objects "
            "are thick. May be repeated; see paint.suggestion_weight.",
            show_default=False,
            rich_help_panel=_LEARNING,
        ),
    ] = None,
    background: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=254,
            metavar="ID",
            help="Class that the Dice estimate leaves out; the lowest one without it. With paint.unlabelled it need "
            "not be painted, and is the lowest free id without it.",
            show_default=False,
            rich_help_panel=_LEARNING,
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Any setting, such as training.learning_rate=1e-3; a wrong name lists them all. May be repeated.",
            show_default=False,
            rich_help_panel=_LEARNING,
            autocompletion=lambda: [f"{name}=" for name in _options.setting_names()],
        ),
    ] = None,
    spacing: _options.Spacing = None,
    axes: _options.Axes = None,
    level: _options.Level = None,
    series: _options.Series = None,
    device: _options.Device = "auto",
    overwrite: _options.Overwrite = False,
) -> None:
    """Learn from painted voxels, and write a model."""
    values, sets = _options.parse_settings(settings or []), _options.parse_allowed(allowed or [])
    reading = _Reading(axes, _options.parse_spacing(spacing), _options.parse_level(level), series)
    if continue_from is not None:
        _refuse_what_the_model_fixes(values, spacing=spacing, background=background, start=start)
    if start is not None:
        _refuse_what_the_model_fixes(values)

    from napari_sparseseg.cli._outputs import check_model, write_model
    from napari_sparseseg.cli._pairs import read_pairs

    pairs = read_pairs(files)
    check_model(output, overwrite=overwrite, inputs=[*files, *(file for pair in pairs for file in pair)])
    model, begin = (_open_model(path, device) for path in (continue_from, start))
    paint = _open_pairs(pairs, reading, sets, has_classes=_may_overlap(values, model))
    segmenter = _make_segmenter(paint, values, model, device=device, seed=seed, background=background)
    if suggest:
        paint = _with_suggestions(paint, segmenter, suggest)
    _fit(segmenter, paint, begin, seconds=_SECONDS if seconds is None and steps is None else seconds, steps=steps)
    write_model(output, segmenter, overwrite=overwrite)
    _print_result(segmenter, output, paint.images[0].unit, paint.n_suggested, has_steps=steps != 0)
    _warn_of_result(segmenter, steps)


@dataclass(frozen=True, slots=True)
class _Reading:
    """What the user says about the files; `level` is None where it is to be suggested."""

    axes: str | None
    spacing: tuple[float, ...] | None
    level: int | None
    series: int | None


@dataclass(frozen=True, slots=True)
class _Paint:
    """What is learnt from: the images, and of each painted time point the volume, its annotation and how it weighs."""

    images: Sequence[Image]
    volumes: Sequence[ArrayLike]
    annotations: Sequence[ArrayLike]
    allowed: dict[int, set[int]]
    """Classes that labels leave possible, for labels that are no classes themselves."""
    weights: Sequence[ArrayLike] | None = None
    n_suggested: int | None = None


def _refuse_what_the_model_fixes(values: dict[str, Any], **options: object) -> None:
    given = [f"--{name}" for name, value in options.items() if value is not None]
    given += [f"--set model.{name}" for name in values.get("model", ())]
    if given:
        raise typer.BadParameter(
            "the model that is given fixes this already; leave it out, or train a new model", param_hint=given[0]
        )


def _open_model(path: Path | None, device: str) -> SparseSegmenter | None:
    from napari_sparseseg.cli._images import open_model

    return None if path is None else open_model(path, device=device)


def _may_overlap(values: dict[str, dict[str, Any]], model: SparseSegmenter | None) -> bool:
    """Whether annotations may have an axis of classes."""
    current = model is not None and model.get_params()["paint__overlapping"]
    return bool(values.get("paint", {}).get("overlapping", current))


def _open_pairs(
    pairs: Sequence[tuple[str, str]], reading: _Reading, allowed: dict[int, set[int]], *, has_classes: bool
) -> _Paint:
    from napari_sparseseg.cli._images import Doubts, painted_times

    images, volumes, annotations = [], [], []
    doubts = Doubts(None, n_images=len(pairs), series=reading.series)
    for path, painted in pairs:
        image, annotation = _open_pair(path, painted, reading, has_classes=has_classes)
        doubts.warn(image)
        images.append(image)
        for number in painted_times(annotation):
            volumes.append(image.volume(number))
            annotations.append(image.paint(annotation, number))
    _check_alike(images)
    if not volumes:
        from napari_sparseseg.errors import InputError

        raise InputError(f"no time point of {pairs[0][1]} is painted; paint two classes on at least one")
    return _Paint(images, volumes, annotations, allowed)


def _open_pair(path: str, painted: str, reading: _Reading, *, has_classes: bool) -> tuple[Image, ImageFile]:
    """An image at its level, and its annotation."""
    from napari_sparseseg.cli._images import Image, open_labels, suggest_level

    level = reading.level
    if level is None:
        finest = Image.open(path, axes=reading.axes, series=reading.series)
        labels = open_labels(painted, finest, has_classes=has_classes)
        paint = labels if labels.channel_axis is None else None
        level = suggest_level(path, paint, axes=reading.axes, series=reading.series)
        note(f"{path}: level {level} of 0 to {finest.file.n_levels - 1} is taken")
    image = Image.open(path, axes=reading.axes, spacing=reading.spacing, level=level, series=reading.series)
    annotation = open_labels(painted, image, has_classes=has_classes)
    image.check_paint(annotation)
    return image, annotation


def _check_alike(images: Sequence[Image]) -> None:
    """Images of one model have the same axes; voxel sizes should be alike."""
    from napari_sparseseg.cli._images import difference
    from napari_sparseseg.errors import InputError

    first = images[0]
    for image in images[1:]:
        if image.channel_axis != first.channel_axis:
            with_axis, without = (image, first) if first.channel_axis is None else (first, image)
            raise InputError(
                f"{with_axis.path} has channels and {without.path} has none; all images of a model need the same"
            )
        other = difference(image.spacing, first.spacing, image.unit, first.unit) if first.spacing else None
        if other:
            warn(f"{image.path} has voxels of {other} in {first.path}; the model takes them for the latter.")


def _make_segmenter(
    paint: _Paint,
    values: dict[str, dict[str, Any]],
    model: SparseSegmenter | None,
    *,
    device: str,
    seed: int | None,
    background: int | None,
) -> SparseSegmenter:
    from napari_sparseseg.cli._images import warn_of_other_voxels
    from napari_sparseseg.segmenter import SparseSegmenter

    image = paint.images[0]
    if model is not None:
        segmenter = model
        segmenter.set_params(channel_axis=image.channel_axis, random_state=seed)
        for each in paint.images:
            warn_of_other_voxels(each, segmenter)
    else:
        segmenter = SparseSegmenter(
            spacing=_spacing_of(paint.images),
            channel_axis=image.channel_axis,
            device=device,
            random_state=seed,
            background=background,
            progress=on_terminal(),
        )
    # all settings of a group at once: one may be in bounds only together with another
    for group, config in _options.setting_groups().items():
        if group in values:
            current = getattr(segmenter, group) or config()
            segmenter.set_params(**{group: current.with_changes(**values[group])})
    return segmenter


def _with_suggestions(paint: _Paint, segmenter: SparseSegmenter, wanted: Sequence[Hint]) -> _Paint:
    from napari_sparseseg.cli._hints import suggested_paint
    from napari_sparseseg.config import PaintConfig

    codes, weights, n_suggested = suggested_paint(
        paint.volumes,
        paint.annotations,
        wanted,
        spacing=segmenter.spacing,
        channel_axis=segmenter.channel_axis,
        allowed=paint.allowed,
        paint=segmenter.paint or PaintConfig(),
    )
    return replace(paint, annotations=codes, weights=weights, n_suggested=n_suggested)


def _spacing_of(images: Sequence[Image]) -> tuple[float, ...] | None:
    for image in images:
        if image.spacing is not None:
            return image.spacing
    from napari_sparseseg.cli._images import spacing_option, unsized

    file = images[0].finest
    warn(
        f"{unsized(file)}, so they are taken for cubes; if they are not, give {spacing_option(file)}, which matters "
        "much for stacks with thick slices."
    )
    return None


def _fit(
    segmenter: SparseSegmenter,
    paint: _Paint,
    start: SparseSegmenter | None,
    *,
    seconds: float | None,
    steps: int | None,
) -> None:
    budget = " or ".join(
        text for text in (f"{seconds:g} s" if seconds else "", f"{steps} steps" if steps is not None else "") if text
    )
    note(f"Learning for {budget} from {counted(len(paint.volumes), 'painted volume')}.")
    volumes, annotations = list(paint.volumes), list(paint.annotations)
    how: dict[str, Any] = {"allowed": paint.allowed or None, "max_seconds": seconds, "max_steps": steps}
    if paint.weights is not None:
        how["weight"] = list(paint.weights)
    if start is not None:
        segmenter.fit(volumes, annotations, start=start, **how)
    else:
        segmenter.partial_fit(volumes, annotations, **how)


def _warn_of_result(segmenter: SparseSegmenter, steps: int | None) -> None:
    if len(segmenter.classes_) > _MANY_CLASSES:
        warn(
            f"{len(segmenter.classes_)} classes were learnt. If the annotation numbers objects (a label for each "
            "cell), give all objects of a kind one label instead, and the background another."
        )
    if segmenter.n_steps_ == 0 and steps != 0:
        warn("the time was enough for the pixel classifier only; with more --seconds the network learns as well.")


def _print_result(
    segmenter: SparseSegmenter, output: Path, unit: str | None, n_suggested: int | None, *, has_steps: bool
) -> None:
    last = segmenter.history_[-1] if segmenter.history_ else None
    dice = last.dice if last else None
    if dice is not None:
        estimate = f"{dice:.3f}, estimated on paint that was held out; it lies beside what was learnt, which flatters"
    elif last and last.phase == "pixel" and has_steps:
        estimate = "not estimated: the time ended before"
    else:
        estimate = "not estimated: no part of the paint could be held out"
    rows = [
        ("Classes", ", ".join(map(str, segmenter.classes_))),
        ("Steps", str(segmenter.n_steps_)),
        ("Learning", f"{last.seconds:.1f} s" if last else "0 s"),
        ("Dice", estimate),
        ("Model", str(output)),
    ]
    if n_suggested is not None:
        rows.insert(1, ("Suggested", f"{n_suggested:,} voxels"))
    if segmenter.spacing is not None:
        rows.insert(1, ("Voxel size", lengths(segmenter.spacing, unit)))
    print_table(rows)
