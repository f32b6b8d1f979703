"""Time series: their time points as volumes, and labels written one after the other with a T axis in front."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from napari_sparseseg._types import ArrayLike
from napari_sparseseg.errors import InputError
from napari_sparseseg.storage._arrays import check_array_like, full_index, real_dtype_of, shape_of, to_numpy
from napari_sparseseg.storage.whole import is_zarr, written_whole

_Frame = npt.NDArray[np.integer]


class _Place(NamedTuple):
    """Voxel size and position of the first voxel along the axes of a frame, in a unit."""

    spacing: Sequence[float] | None
    offset: Sequence[float] | None
    unit: str | None


_Writer = Callable[[Path, Iterator[_Frame], tuple[int, ...], np.dtype[Any], _Place], None]
_CHUNK = 128


def time_points(array: ArrayLike, axes: str, *, name: str = "image") -> list[ArrayLike]:
    """Volumes of each time point of an array, whatever the order of its axes; no voxel is read yet.

    `axes` names them, one letter each of T, C, Z, Y, X, such as "CTZYX". A volume has what is left without T in the
    order C, Z, Y, X: its channel axis is 0 if there is a C. Without a T there is one volume.

    Raises `InputError` for letters that do not fit the array or lack Y or X, `InputTypeError` for what is no array of
    real numbers.
    """
    check_array_like(array, name)
    real_dtype_of(array, name)
    letters, shape = str(axes).upper(), shape_of(array, name)
    if len(letters) != len(shape) or len(set(letters)) < len(letters) or set(letters) - set("TCZYX"):
        raise InputError(
            f"axes={axes!r} does not fit {name} of shape {shape}; give one letter of T, C, Z, Y, X for each axis"
        )
    if not {"Y", "X"} <= set(letters):
        raise InputError(f"axes={axes!r} lacks Y or X, without which {name} is no image")
    order = [letters.index(letter) for letter in "CZYX" if letter in letters]
    time = letters.find("T")
    if time < 0:
        return [Arranged(array, order)]
    return [Arranged(array, order, {time: number}) for number in range(shape[time])]


class Arranged:
    """An array with its axes in another order, others fixed at an index; sliced with one slice for each axis."""

    def __init__(self, array: ArrayLike, order: Sequence[int], fixed: Mapping[int, int] | None = None) -> None:
        self._array, self._order, self._fixed = array, tuple(order), dict(fixed or {})
        self.shape = tuple(int(array.shape[axis]) for axis in order)
        self.dtype = array.dtype
        self.source_name: str | None = getattr(array, "source_name", None)

    @property
    def chunks(self) -> tuple[Any, ...] | None:
        """Chunks of the array along these axes; None if it is not stored in pieces."""
        chunks = getattr(self._array, "chunks", None)
        return tuple(chunks[axis] for axis in self._order) if chunks else None

    def __getitem__(self, index: Any, /) -> npt.NDArray[Any]:
        full: list[int | slice] = [self._fixed.get(axis, 0) for axis in range(len(self._array.shape))]
        for axis, part in zip(self._order, full_index(index, self.shape), strict=True):
            full[axis] = part
        block = to_numpy(self._array[tuple(full)], self.source_name or "image")
        kept = sorted(self._order)
        return block.transpose([kept.index(axis) for axis in self._order])


def check_series_output(path: str | os.PathLike[str]) -> None:
    """Raise `InputError` unless the end of the name stands for a format that holds time points."""
    _writer_of(path)


def write_series(
    path: str | os.PathLike[str],
    frames: Iterable[_Frame],
    n_frames: int,
    *,
    spacing: Sequence[float] | None = None,
    offset: Sequence[float] | None = None,
    unit: str | None = "micrometer",
    dtype: npt.DTypeLike = np.uint8,
    overwrite: bool = False,
) -> None:
    """Write the labels of each time point, (Z, Y, X) or (Y, X), as `dtype`, all of one shape; whole or not at all.

    `frames` may compute them: only one is held at a time. `spacing` is the voxel size along their axes in `unit`,
    `offset` the position of the first voxel, which OME-Zarr alone keeps.
    """
    write, is_kind = _writer_of(path)
    with written_whole(path, overwrite=overwrite, is_kind=is_kind, kind="image of its format") as partial:
        given = iter(frames)
        first = next(given)
        write(partial, _from(first, given), (n_frames, *first.shape), np.dtype(dtype), _Place(spacing, offset, unit))


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


def _write_npy(path: Path, frames: Iterator[_Frame], shape: tuple[int, ...], dtype: np.dtype[Any], *_: Any) -> None:
    from napari_sparseseg.storage.formats.npy import write_header

    # not numpy.save, which needs all time points at once, nor a memory map, in which a full disk kills the process
    with path.open("wb") as file:
        write_header(file, dtype, shape)
        file.writelines(frame.astype(dtype, copy=False).tobytes() for frame in frames)


def _write_tiff(
    path: Path, frames: Iterator[_Frame], shape: tuple[int, ...], dtype: np.dtype[Any], place: _Place
) -> None:
    import tifffile

    from napari_sparseseg.storage.formats.tiff import ome_metadata

    with path.open("wb") as file:
        tifffile.imwrite(
            file,
            (np.ascontiguousarray(plane) for frame in frames for plane in frame.reshape(-1, *shape[-2:])),
            shape=shape,
            dtype=dtype,
            ome=True,
            photometric="minisblack",
            compression="zlib",
            metadata=ome_metadata("TZYX" if len(shape) == 4 else "TYX", place.spacing, place.unit),
        )


def _write_zarr(
    path: Path, frames: Iterator[_Frame], shape: tuple[int, ...], dtype: np.dtype[Any], place: _Place
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
        dtype=dtype,
        dimension_names=tuple(letters),
        fill_value=0,
    )
    for number, frame in enumerate(frames):
        array[number] = frame
    sizes = place.spacing or (1.0,) * (len(shape) - 1)
    moved = (0.0, *place.offset) if place.offset and any(place.offset) else None
    space = [Axis(name=name, type="space", unit=place.unit if place.spacing else None) for name in letters[1:]]
    dataset = Dataset.build(path="0", scale=(1.0, *sizes), translation=moved)
    multiscale = Multiscale(axes=(Axis(name="t", type="time"), *space), datasets=(dataset,), name="labels")
    ome = ImageLabelAttrs(version="0.5", multiscales=[multiscale], image_label=Label(version="0.5"))
    group.attrs.update(BaseZarrAttrs(ome=ome).model_dump(mode="json", by_alias=True, exclude_none=True))
