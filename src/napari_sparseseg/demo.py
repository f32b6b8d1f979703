"""The whole way on one sample: paint a few slices, learn, predict, score, and write what came out."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_sparseseg._types import UNPAINTED
from napari_sparseseg.engine.metrics import dice
from napari_sparseseg.errors import InputError
from napari_sparseseg.figure import class_colours, draw_summary
from napari_sparseseg.samples import Sample, cells3d, paint_slices, tissue
from napari_sparseseg.segmenter import SparseSegmenter
from napari_sparseseg.storage.atomic import writable
from napari_sparseseg.storage.ome import write_labels

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_N_SLICES = 3


@dataclass(frozen=True)
class DemoResult:
    """What a demonstration found and wrote; `dice` is taken over the planes that carry no paint."""

    dice: Mapping[int, float]
    class_names: Mapping[int, str]
    fit_seconds: float
    predict_seconds: float
    labels_path: Path
    model_path: Path
    summary_path: Path


def run_demo(
    output: Path, *, seconds: float = 60.0, sample: str = "tissue", seed: int = 0, progress: bool = False
) -> DemoResult:
    """Paint three slices of a sample, learn from them, predict the whole volume and score it against the truth.

    Parameters
    ----------
    output
        Folder for `labels.ome.zarr`, `model.safetensors` and `summary.png`; it is made if need be, and each of the
        three appears complete or not at all, in place of an older one.
    seconds
        How long to learn.
    sample
        "tissue", which is generated, or "cells3d", which is downloaded.
    seed
        For the tissue, the strokes and the learning.
    progress
        Show how learning and predicting go on.
    """
    if not (np.isfinite(seconds) and seconds > 0):
        raise InputError(f"seconds is {seconds}, but learning needs a positive number of seconds.")
    volume = _make_sample(sample, seed)
    _make_folder(output)
    annotation = paint_slices(volume.truth, _N_SLICES, seed=seed)

    segmenter = SparseSegmenter(
        spacing=volume.spacing, channel_axis=volume.channel_axis, random_state=seed, progress=progress
    )
    started = time.perf_counter()
    segmenter.fit(volume.image, annotation, max_seconds=seconds)
    fitted = time.perf_counter()
    labels = np.asarray(segmenter.predict(volume.image))
    predicted = time.perf_counter()

    result = DemoResult(
        dice=_dice_off_paint(labels, volume.truth, annotation, volume.class_names),
        class_names=volume.class_names,
        fit_seconds=fitted - started,
        predict_seconds=predicted - fitted,
        labels_path=output / "labels.ome.zarr",
        model_path=output / "model.safetensors",
        summary_path=output / "summary.png",
    )
    _write(result, segmenter, volume, annotation, labels)
    return result


def _make_sample(name: str, seed: int) -> Sample:
    if name == "tissue":
        return tissue(seed=seed)
    if name == "cells3d":
        return cells3d()
    raise InputError(f"There is no sample {name!r}; choose 'tissue' or 'cells3d'.")


def _make_folder(output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"The folder {output} cannot be made ({error.strerror}); choose another.") from error


def _dice_off_paint(
    labels: npt.NDArray[Any], truth: npt.NDArray[Any], annotation: npt.NDArray[Any], class_names: Mapping[int, str]
) -> dict[int, float]:
    """Score each class over the z planes that carry no paint; nan for a class that neither volume has there."""
    scored = ~(annotation != UNPAINTED).any(axis=(1, 2))
    return dice(labels[scored], truth[scored], sorted(class_names))


def _write(
    result: DemoResult,
    segmenter: SparseSegmenter,
    volume: Sample,
    annotation: npt.NDArray[np.uint8],
    labels: npt.NDArray[Any],
) -> None:
    write_labels(
        result.labels_path,
        labels,
        spacing=volume.spacing,
        unit="micrometer",
        class_names=volume.class_names,
        colors={class_id: _rgb(colour) for class_id, colour in class_colours(volume.class_names).items()},
        overwrite=True,
    )
    with writable(result.model_path):
        segmenter.save(result.model_path)
    with writable(result.summary_path):
        draw_summary(
            result.summary_path,
            image=volume.image,
            annotation=annotation,
            labels=labels,
            truth=volume.truth,
            spacing=volume.spacing,
            history=segmenter.history_,
            class_names=volume.class_names,
            title=f"{volume.name}: {_N_SLICES} painted slices, {result.fit_seconds:.0f} s of learning",
            dice=result.dice,
            channel_axis=volume.channel_axis,
        )


def _rgb(colour: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue
