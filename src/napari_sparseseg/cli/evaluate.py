"""`evaluate`: how well labels agree with the truth."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_sparseseg.cli import _options
from napari_sparseseg.cli._app import add
from napari_sparseseg.cli._console import print_table, short_unit

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_sparseseg.cli._images import Image
    from napari_sparseseg.segmenter import SparseSegmenter
    from napari_sparseseg.storage.formats import ImageFile

_CSV_HEADER = (
    "time",
    "class_id",
    "dice",
    "iou",
    "surface_distance",
    "hausdorff95",
    "unit",
    "truth_voxels",
    "labels_voxels",
)


def register() -> None:
    """Add the command to the application."""
    add(
        evaluate,
        "napari-sparseseg evaluate cells.safetensors cells.tif truth.tif",
        "napari-sparseseg evaluate m.safetensors cells.tif truth.tif --csv scores.csv",
        "napari-sparseseg evaluate labels.ome.zarr truth.tif",
    )


def evaluate(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="[MODEL] IMAGE TRUTH",
            help="A model, an image and its truth; or labels and their truth. Where the truth is 0 nothing is scored.",
            show_default=False,
        ),
    ],
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write the scores to this file.", show_default=False)
    ] = None,
    overwrite: _options.Overwrite = False,
    background: _options.Background = None,
    spacing: _options.Spacing = None,
    axes: _options.Axes = None,
    level: _options.Level = None,
    series: _options.Series = None,
    device: _options.Device = "auto",
) -> None:
    """Score a model, or labels, against the truth.

    Dice, IoU and the distance of surfaces are given for each class, in micrometres where the voxel size is known. The
    distance is the mean from every surface voxel of one to the nearest of the other, both ways; 95 % of either surface
    lie within the figure beside it.
    """
    if len(files) not in (2, 3):
        raise typer.BadParameter(
            "give a model, an image and its truth, or labels and their truth", param_hint="[MODEL] IMAGE TRUTH"
        )
    sizes, number = _options.parse_spacing(spacing), _options.parse_level(level)
    if csv is not None:
        from napari_sparseseg.cli._outputs import check_file

        check_file(csv, overwrite=overwrite, inputs=files, example="scores.csv")
    *model, image, truth = files
    if model:
        from napari_sparseseg.cli._images import open_model

        segmenter = open_model(Path(model[0]), device=device)
        scores = list(_score_model(segmenter, image, truth, axes=axes, spacing=sizes, level=number, series=series))
        _check_background(background, scores, segmenter.classes_.tolist())
        background = segmenter.background_ if background is None else background
    elif level is not None:
        raise typer.BadParameter("labels are scored as they are, a level is chosen with a model", param_hint="--level")
    elif series is not None:
        raise typer.BadParameter(
            "labels are scored as they are, an image is chosen with a model", param_hint="--series"
        )
    else:
        scores = list(_score_labels(image, truth, axes=axes, spacing=sizes))
        _check_background(background, scores)
    _print_scores(scores, background)
    if csv is not None:
        _write_scores(csv, scores, overwrite=overwrite)


@dataclass(frozen=True, slots=True)
class _Score:
    """How well one class of one time point (None: there is no time axis) agrees."""

    time: int | None
    class_id: int
    dice: float
    iou: float
    distance: float
    hausdorff95: float
    unit: str
    truth_voxels: int
    labels_voxels: int


def _score_model(
    segmenter: SparseSegmenter,
    path: str,
    truth_path: str,
    *,
    axes: str | None,
    spacing: Sequence[float] | None,
    level: int | None,
    series: int | None,
) -> Iterator[_Score]:
    from napari_sparseseg.cli._images import (
        Doubts,
        open_labels,
        open_matching,
        painted_times,
        read_classes,
        read_states,
    )

    image = open_matching(path, segmenter, axes=axes, spacing=spacing, level=level, series=series)
    truth = open_labels(truth_path, image, has_classes=segmenter.get_params()["paint__overlapping"])
    image.check_paint(truth)
    Doubts(segmenter, series=series).warn(image)
    segmenter.set_params(channel_axis=image.channel_axis)
    _check_truth(truth, image, segmenter.classes_.tolist())
    for number in painted_times(truth):
        if truth.channel_axis is not None:
            yield from _scores_of_overlapping(segmenter, read_states(truth, number, image), image, number)
            continue
        known = read_classes(truth, number, image)
        yield from _scores(segmenter.predict(image.volume(number)), known, image, number)


def _check_truth(truth: ImageFile, image: Image, learnt: Sequence[int]) -> None:
    """Refuse a truth that names no class of the model at any time point, before anything is predicted."""
    from napari_sparseseg.cli._images import painted_times
    from napari_sparseseg.errors import InputError

    found: set[int] = set()
    for number in painted_times(truth):
        found |= _classes_of(truth, number, image)
        if not found.isdisjoint(learnt):
            return
    if found:
        listed = f"class{'es' if len(found) > 1 else ''} {', '.join(map(str, sorted(found)))}"
        raise InputError(
            f"{truth.path} holds the {listed}, but the model has learnt {', '.join(map(str, learnt))}; give the truth "
            "the same ids as the paint"
        )


def _classes_of(truth: ImageFile, time: int, image: Image) -> set[int]:
    """The classes that a time point of the truth says something of."""
    import numpy as np

    from napari_sparseseg.cli._images import read_classes, read_states

    if truth.channel_axis is None:
        return {int(i) for i in np.unique(read_classes(truth, time, image)) if i != 0}
    return {i for i, states in enumerate(read_states(truth, time, image), 1) if states.any()}


def _score_labels(path: str, truth_path: str, *, axes: str | None, spacing: Sequence[float] | None) -> Iterator[_Score]:
    from napari_sparseseg.cli._images import Image, check_shape, open_labels, painted_times, read_classes

    image = Image.open(path, axes=axes, spacing=spacing)
    labels = open_labels(path, image)
    truth = open_labels(truth_path, image)
    check_shape(truth_path, truth.array.shape, path, labels.array.shape)
    for number in painted_times(truth):
        yield from _scores(read_classes(labels, number), read_classes(truth, number), image, number)


def _scores_of_overlapping(
    segmenter: SparseSegmenter, truth: npt.NDArray[Any], image: Image, time: int
) -> Iterator[_Score]:
    """Of each class, where the truth (classes 1, 2, ... in front) says whether it is there."""
    import numpy as np

    from napari_sparseseg.storage.overlapping import ABSENT, PRESENT

    present = segmenter.predict_present(image.volume(time))
    for class_id, found in zip(segmenter.classes_.tolist(), present, strict=True):
        if class_id <= len(truth) and truth[class_id - 1].any():
            scores = _scores(np.where(found, PRESENT, ABSENT), truth[class_id - 1], image, time)
            of_present = [score for score in scores if score.class_id == PRESENT]
            yield from (replace(score, class_id=class_id) for score in of_present)


def _scores(labels: npt.NDArray[Any], truth: npt.NDArray[Any], image: Image, time: int) -> Iterator[_Score]:
    import numpy as np

    from napari_sparseseg.engine.metrics import dice, iou, surface_distances

    known = truth != 0
    found, wanted = labels[known], truth[known]
    ids = [int(i) for i in np.union1d(found, wanted) if i != 0]
    overlap, union = dice(found, wanted, ids), iou(found, wanted, ids)
    surfaces = surface_distances(labels, truth, ids, spacing=image.spacing, known=known)
    unit = "voxels" if image.spacing is None else short_unit(image.unit)
    for class_id in ids:
        yield _Score(
            time=None if image.file.time_axis is None else time,
            class_id=class_id,
            dice=overlap[class_id],
            iou=union[class_id],
            distance=surfaces[class_id].mean,
            hausdorff95=surfaces[class_id].hausdorff95,
            unit=unit,
            truth_voxels=int(np.count_nonzero(wanted == class_id)),
            labels_voxels=int(np.count_nonzero(found == class_id)),
        )


def _check_background(background: int | None, scores: Sequence[_Score], learnt: Collection[int] = ()) -> None:
    """Refuse to leave out of the mean a class that neither the model nor what was scored has."""
    from napari_sparseseg.errors import InputError

    known = sorted({*learnt, *(score.class_id for score in scores)})
    if background is not None and scores and background not in known:
        raise InputError(
            f"--background {background} is not among the classes {', '.join(map(str, known))}; name one of these, or "
            "leave it out"
        )


def _print_scores(scores: Sequence[_Score], background: int | None) -> None:
    """Print a table that ends with the mean without the background: None takes the lowest class, 0 is no class."""
    from napari_sparseseg.errors import InputError

    if not scores:
        raise InputError("the truth is 0 everywhere, so there is nothing to score; is it the right file?")
    unit = f" ({scores[0].unit})" if scores[0].unit else ""
    with_time = scores[0].time is not None
    header = ["Class", "Dice", "IoU", f"Distance{unit}", f"95 %{unit}", "Voxels of truth"]
    rows = [[str(s.class_id), *_figures(s), f"{s.truth_voxels:,}"] for s in scores]
    left_out = min(s.class_id for s in scores) if background is None else background
    name = f"Mean without {left_out}" if left_out else "Mean"
    rows.append([name, *_means([s for s in scores if s.class_id != left_out]), ""])
    if with_time:
        header.insert(0, "Time")
        for row, time in zip(rows, [*(str(s.time) for s in scores), ""], strict=True):
            row.insert(0, time)
    print_table([header, *rows], header=True)


def _figures(score: _Score) -> list[str]:
    return [_text(score.dice), _text(score.iou), _text(score.distance), _text(score.hausdorff95)]


def _means(scores: Sequence[_Score]) -> list[str]:
    columns = zip(*((s.dice, s.iou, s.distance, s.hausdorff95) for s in scores), strict=True) if scores else [()] * 4
    means = []
    for column in columns:
        found = [value for value in column if not math.isnan(value)]
        means.append(_text(sum(found) / len(found) if found else math.nan))
    return means


def _text(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _write_scores(path: Path, scores: Sequence[_Score], *, overwrite: bool) -> None:
    from napari_sparseseg.cli._outputs import write_csv

    rows = [
        (
            "" if s.time is None else s.time,
            s.class_id,
            *(f"{value:.6g}" for value in (s.dice, s.iou, s.distance, s.hausdorff95)),
            s.unit,
            s.truth_voxels,
            s.labels_voxels,
        )
        for s in scores
    ]
    write_csv(path, _CSV_HEADER, rows, overwrite=overwrite)
