"""Labels of a time series with a T axis in front: OME-Zarr, OME-TIFF and NPY, one time point after the other."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_sparseseg.errors import InputError
from napari_sparseseg.storage.whole import is_zarr, written_whole

_Frame = npt.NDArray[np.integer]
_Writer = Callable[[Path, Iterator[_Frame], tuple[int, ...], Sequence[float] | None, str | None], None]
_CHUNK = 128


def check_series_output(path: str | os.PathLike[str]) -> None:
    """Raise `InputError` unless the end of the name stands for a format that holds time points."""
    _writer_of(path)


def write_series(
    path: str | os.PathLike[str],
    frames: Iterable[_Frame],
    n_frames: int,
    *,
    spacing: Sequence[float] | None = None,
    unit: str | None = "micrometer",
    overwrite: bool = False,
) -> None:
    """Write the labels of each time point, (Z, Y, X) or (Y, X), uint8, all of one shape; whole or not at all.

    `frames` may compute them: only one is held at a time. `spacing` is the voxel size along their axes in `unit`.
    """
    write, is_kind = _writer_of(path)
    with written_whole(path, overwrite=overwrite, is_kind=is_kind, kind="image of its format") as partial:
        given = iter(frames)
        first = next(given)
        write(partial, _from(first, given), (n_frames, *first.shape), spacing, unit)


def _writer_of(path: str | os.PathLike[str]) -> tuple[_Writer, Callable[[Path], bool]]:
    name = os.fspath(path).lower()
    if name.endswith(".zarr"):
        return _write_zarr, is_zarr
    if name.endswith((".tif", ".tiff")):
        return _write_tiff, Path.is_file
    if name.endswith(".npy"):
        return _write_npy, Path.is_file
    raise InputError(f"{path} cannot hold the time points of a series; end the name with .ome.zarr, .ome.tif or .npy")


def _from(first: _Frame, others: Iterator[_Frame]) -> Iterator[_Frame]:
    yield first
    yield from others


def _write_npy(path: Path, frames: Iterator[_Frame], shape: tuple[int, ...], *_: Any) -> None:
    from napari_sparseseg.storage.formats.npy import write_header

    # not numpy.save, which needs all time points at once, nor a memory map, in which a full disk kills the process
    with path.open("wb") as file:
        write_header(file, np.dtype(np.uint8), shape)
        file.writelines(frame.astype(np.uint8, copy=False).tobytes() for frame in frames)


def _write_tiff(
    path: Path, frames: Iterator[_Frame], shape: tuple[int, ...], spacing: Sequence[float] | None, unit: str | None
) -> None:
    import tifffile

    from napari_sparseseg.storage.formats.tiff import ome_metadata

    with path.open("wb") as file:
        tifffile.imwrite(
            file,
            (np.ascontiguousarray(plane) for frame in frames for plane in frame.reshape(-1, *shape[-2:])),
            shape=shape,
            dtype=np.uint8,
            ome=True,
            photometric="minisblack",
            compression="zlib",
            metadata=ome_metadata("TZYX" if len(shape) == 4 else "TYX", spacing, unit),
        )


def _write_zarr(
    path: Path, frames: Iterator[_Frame], shape: tuple[int, ...], spacing: Sequence[float] | None, unit: str | None
) -> None:
    import zarr
    from ome_zarr_models.v05.axes import Axis
    from ome_zarr_models.v05.base import BaseZarrAttrs
    from ome_zarr_models.v05.image_label import ImageLabelAttrs
    from ome_zarr_models.v05.image_label_types import Label
    from ome_zarr_models.v05.multiscales import Dataset, Multiscale

    letters = "tzyx" if len(shape) == 4 else "tyx"
    group = zarr.create_group(store=path, zarr_format=3)
    array = group.create_array(
        name="0",
        shape=shape,
        chunks=(1, *(min(size, _CHUNK) for size in shape[1:])),
        dtype="uint8",
        dimension_names=tuple(letters),
        fill_value=0,
    )
    for number, frame in enumerate(frames):
        array[number] = frame
    sizes = spacing or (1.0,) * (len(shape) - 1)
    space = [Axis(name=name, type="space", unit=unit if spacing else None) for name in letters[1:]]
    dataset = Dataset.build(path="0", scale=(1.0, *sizes), translation=None)
    multiscale = Multiscale(axes=(Axis(name="t", type="time"), *space), datasets=(dataset,), name="labels")
    ome = ImageLabelAttrs(version="0.5", multiscales=[multiscale], image_label=Label(version="0.5"))
    group.attrs.update(BaseZarrAttrs(ome=ome).model_dump(mode="json", by_alias=True, exclude_none=True))
