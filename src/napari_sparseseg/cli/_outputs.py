"""Outputs: checked before the work starts, written whole or not at all."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_sparseseg.errors import InputError

if TYPE_CHECKING:
    from napari_sparseseg.cli._images import Image


def check_free(path: Path, *, overwrite: bool, inputs: Sequence[Path | str]) -> None:
    """Raise `InputError` if `path` is taken, is one of the inputs, or if its folder does not exist."""
    if any(path.resolve() == Path(source).resolve() for source in inputs):
        raise InputError(f"{path} is an input as well, and inputs are never replaced; choose another name")
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists; add --overwrite to replace it, or choose another name")
    if not path.parent.is_dir():
        raise InputError(
            f"the folder {path.parent} does not exist; make it first, or choose another name for {path.name}"
        )


def check_file(path: Path, *, overwrite: bool, inputs: Sequence[Path | str], example: str) -> None:
    """As `check_free`, for an output that is one file."""
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file in it, such as {path / example}")
    check_free(path, overwrite=overwrite, inputs=inputs)


def check_labels(path: Path, *, overwrite: bool, inputs: Sequence[Path | str]) -> None:
    """As `check_free`, for labels, whose format is told by the ending."""
    from napari_sparseseg.storage.formats import check_output

    check_free(path, overwrite=overwrite, inputs=inputs)
    check_output(path, overwrite=overwrite)


def check_holds_time(labels: Path, probabilities: Path | None) -> None:
    """Raise `InputError` if an output cannot hold the time points of a series."""
    from napari_sparseseg.storage.series import check_series_output

    check_series_output(labels)
    if probabilities is not None and probabilities.suffix != ".npy":
        raise InputError(
            f"probabilities of a time series cannot be written as OME-Zarr; choose {probabilities.with_suffix('.npy')}"
        )


def check_probabilities(path: Path, *, overwrite: bool, inputs: Sequence[Path | str]) -> None:
    """As `check_free`, for probabilities."""
    if path.suffix not in (".npy", ".zarr"):
        raise InputError(f"probabilities are written as .ome.zarr or .npy, but {path} is neither; choose one of these")
    check_free(path, overwrite=overwrite, inputs=inputs)
    if path.exists() and path.is_dir() != (path.suffix == ".zarr"):
        raise InputError(f"{path} exists and is no {path.suffix} image, so it is not replaced; choose another name")


def write_probabilities(
    path: Path, probabilities: Sequence[npt.NDArray[np.float32]], image: Image, *, overwrite: bool
) -> None:
    """Write probabilities of each time point, class axis first: as they are to .npy, as 0 to 255 to OME-Zarr."""
    if path.suffix == ".npy":
        values = probabilities[0] if image.file.time_axis is None else np.stack(probabilities)
        with _written(path, overwrite) as partial, partial.open("wb") as file:
            np.save(file, values)
        return
    from napari_sparseseg.storage.ome import write_image

    scaled = np.rint(probabilities[0] * np.float32(255)).astype(np.uint8)
    write_image(path, scaled, channel_axis=0, spacing=image.spacing, unit=image.unit, overwrite=overwrite)


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]], *, overwrite: bool) -> None:
    """Write a table of values."""
    with _written(path, overwrite) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def _written(path: Path, overwrite: bool) -> Any:
    from napari_sparseseg.storage.whole import written_whole

    return written_whole(path, overwrite=overwrite, is_kind=Path.is_file, kind="file")
