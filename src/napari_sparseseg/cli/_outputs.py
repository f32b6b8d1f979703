"""Outputs: checked before the work starts, written whole or not at all."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_sparseseg.errors import InputError

if TYPE_CHECKING:
    from napari_sparseseg.cli._images import Image
    from napari_sparseseg.segmenter import SparseSegmenter


def check_free(
    path: Path, *, overwrite: bool, inputs: Sequence[Path | str], outputs: Sequence[Path | str] = ()
) -> None:
    """Raise `InputError` if `path` is taken, or if its folder cannot be written to.

    Nor may it be or hold one of the inputs or of the other outputs.
    """
    from napari_sparseseg.storage.atomic import check_folder

    for source in inputs:
        if _is_same(path, source):
            raise InputError(f"{path} is an input as well, and inputs are never replaced; choose another name")
        if _holds(path, source):
            raise InputError(f"{path} holds the input {source}, and inputs are never replaced; choose another name")
    for other in outputs:
        if _is_same(path, other):
            raise InputError(f"{path} is named for two outputs; choose another name for one of them")
        if _holds(path, other):
            raise InputError(f"{path} holds another output, {other}; choose another name for one of them")
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists; add --overwrite to replace it, or choose another name")
    check_folder(path)


def check_file(
    path: Path,
    *,
    overwrite: bool,
    inputs: Sequence[Path | str],
    example: str,
    outputs: Sequence[Path | str] = (),
) -> None:
    """As `check_free`, for an output that is one file."""
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file in it, such as {path / example}")
    check_free(path, overwrite=overwrite, inputs=inputs, outputs=outputs)


def check_model(path: Path, *, overwrite: bool, inputs: Sequence[Path | str]) -> None:
    """As `check_free`, for a model, which replaces nothing but a model, and has no name of an image."""
    from napari_sparseseg.storage.atomic import is_safetensors
    from napari_sparseseg.storage.formats import image_suffixes

    check_file(path, overwrite=overwrite, inputs=inputs, example="model.safetensors")
    if path.exists() and not is_safetensors(path):
        raise InputError(f"{path} exists and is not a model, so it is not replaced; choose another name")
    if path.name.lower().endswith(image_suffixes()):
        example = path.with_name(f"{path.name.partition('.')[0]}.safetensors")
        raise InputError(f"{path} is the name of an image; end that of a model with .safetensors, such as {example}")


def check_labels(
    path: Path, *, overwrite: bool, inputs: Sequence[Path | str], outputs: Sequence[Path | str] = ()
) -> None:
    """As `check_free`, for labels, whose format is told by the ending."""
    from napari_sparseseg.storage.formats import check_output

    check_free(path, overwrite=overwrite, inputs=inputs, outputs=outputs)
    check_output(path, overwrite=overwrite)


def _is_same(path: Path, other: Path | str) -> bool:
    target, place = Path(os.path.realpath(path)), Path(os.path.realpath(other))
    # by the file too: on some systems names differ in capitals only
    return target == place or (target.exists() and place.exists() and target.samefile(place))


def _holds(path: Path, other: Path | str) -> bool:
    return Path(os.path.realpath(path)) in Path(os.path.realpath(other)).parents


def check_holds_time(labels: Path, probabilities: Path | None = None) -> None:
    """Raise `InputError` if an output cannot hold the time points of a series."""
    from napari_sparseseg.storage.series import check_series_output

    check_series_output(labels)
    if probabilities is not None:
        check_map_holds_time(probabilities, "probabilities")


def check_map_holds_time(path: Path, name: str) -> None:
    """As `check_holds_time`, for values of all voxels, which are called `name`."""
    if path.suffix != ".npy":
        raise InputError(f"{name} of a time series cannot be written as OME-Zarr; choose {path.with_suffix('.npy')}")


def check_map(
    path: Path, name: str, *, overwrite: bool, inputs: Sequence[Path | str], outputs: Sequence[Path | str] = ()
) -> None:
    """As `check_labels`, for probabilities and other values of all voxels, which are called `name`."""
    if path.suffix not in (".npy", ".zarr"):
        verb = "is" if name == "novelty" else "are"
        raise InputError(f"{name} {verb} written as .ome.zarr or .npy, but {path} is neither; choose one of these")
    check_labels(path, overwrite=overwrite, inputs=inputs, outputs=outputs)


def write_map(path: Path, frames: Sequence[npt.NDArray[Any]], image: Image, *, overwrite: bool) -> None:
    """Write values of each time point: as they are to .npy; to OME-Zarr truth as 1 and 0, shares as 0 to 255.

    A frame has the image's axes of space, and before them maybe one of the classes.
    """
    if path.suffix == ".npy":
        values = frames[0] if image.file.time_axis is None else np.stack(frames)
        with _written(path, overwrite) as partial, partial.open("wb") as file:
            np.save(file, values)
        return
    from napari_sparseseg.storage.ome import write_image

    is_truth, has_classes = frames[0].dtype == bool, frames[0].ndim > len(image.file.spatial_axes)
    scaled = frames[0].astype(np.uint8) if is_truth else np.rint(frames[0] * np.float32(255)).astype(np.uint8)
    write_image(path, scaled, channel_axis=0 if has_classes else None, **image.place(), overwrite=overwrite)


def write_model(path: Path, segmenter: SparseSegmenter, *, overwrite: bool) -> None:
    """Write a model, unless somebody else has written to `path` since it was checked."""
    from napari_sparseseg.storage.atomic import writable

    check_model(path, overwrite=overwrite, inputs=())
    with writable(path):
        segmenter.save(path)


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]], *, overwrite: bool) -> None:
    """Write a table of values."""
    with _written(path, overwrite) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def _written(path: Path, overwrite: bool) -> Any:
    from napari_sparseseg.storage.atomic import written_whole

    return written_whole(path, overwrite=overwrite, is_kind=Path.is_file, kind="file")
