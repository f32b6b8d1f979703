"""Time series: their time points as volumes, and labels written one after the other with a T axis in front."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from napari_sparseseg._types import ArrayLike
from napari_sparseseg.errors import InputError
from napari_sparseseg.storage._arrays import (
    check_array_like,
    chunk_depth,
    full_index,
    real_dtype_of,
    shape_of,
    to_numpy,
)
from napari_sparseseg.storage._origin import Origin, Ranges
from napari_sparseseg.storage.atomic import is_zarr, written_whole
from napari_sparseseg.storage.formats._stack import Stack
from napari_sparseseg.storage.volume import ArrayVolume


class _Series(NamedTuple):
    """Labels of each time point, to be read once; their shape with T in front, and what is said of their axes."""

    stacks: Iterator[Stack]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    spacing: Sequence[float] | None
    offset: Sequence[float] | None
    unit: str | None


_Writer = Callable[[Path, _Series], None]
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
    def origin(self) -> Origin:
        """The array, and how it is looked at."""
        return Origin((self._array,), [list(self._order), sorted(self._fixed.items())], self._part)

    def _part(self, ranges: Ranges) -> Ranges:
        fixed = (self._fixed.get(axis, 0) for axis in range(len(self._array.shape)))
        full = [(index, index + 1) for index in fixed]
        for axis, bounds in zip(self._order, ranges, strict=True):
            full[axis] = bounds
        return tuple(full)

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
    frames: Iterable[ArrayLike],
    n_frames: int,
    *,
    spacing: Sequence[float] | None = None,
    offset: Sequence[float] | None = None,
    unit: str | None = "micrometer",
    dtype: npt.DTypeLike = np.uint8,
    overwrite: bool = False,
) -> None:
    """Write the labels of each time point, (Z, Y, X) or (Y, X), as `dtype`, all of one shape; whole or not at all.

    `frames` may compute them: only one is held at a time, and of a lazy one only a slab. `spacing` is the voxel size
    along their axes in `unit`, `offset` the position of the first voxel, which OME-Zarr alone keeps.

    Raises `InputError` for labels that `dtype` does not hold, and for what cannot be written to `path`.
    """
    write, is_kind = _writer_of(path)
    with written_whole(path, overwrite=overwrite, is_kind=is_kind, kind="image of its format") as partial:
        stacks = (_stack(frame, np.dtype(dtype)) for frame in frames)
        first = next(stacks)
        shape = (n_frames, *first.shape)
        write(partial, _Series(chain([first], stacks), shape, first.dtype, spacing, offset, unit))


def _stack(frame: ArrayLike, dtype: np.dtype[Any]) -> Stack:
    return Stack(ArrayVolume(frame, name="labels"), dtype, chunk_depth(frame), spacing=None, unit=None)


def _writer_of(path: str | os.PathLike[str]) -> tuple[_Writer, Callable[[Path], bool]]:
    name = os.fspath(path).lower()
    if name.endswith(".zarr"):
        return _write_zarr, is_zarr
    if name.endswith((".tif", ".tiff")):
        return _write_tiff, Path.is_file
    if name.endswith(".npy"):
        return _write_npy, Path.is_file
    raise InputError(f"{path} cannot hold the time points of a series; end the name with .ome.zarr, .ome.tif or .npy")


def _write_npy(path: Path, series: _Series) -> None:
    from napari_sparseseg.storage.formats.npy import write_header

    # not numpy.save, which needs all time points at once, nor a memory map, in which a full disk kills the process
    with path.open("wb") as file:
        write_header(file, series.dtype.newbyteorder("<"), series.shape)
        file.writelines(slab.tobytes() for stack in series.stacks for slab in stack.slabs())


def _write_tiff(path: Path, series: _Series) -> None:
    import tifffile

    from napari_sparseseg.storage.formats.tiff import needs_bigtiff, ome_metadata

    axes = "TZYX" if len(series.shape) == 4 else "TYX"
    with path.open("wb") as file:
        tifffile.imwrite(
            file,
            (np.ascontiguousarray(plane) for stack in series.stacks for plane in stack.planes()),
            shape=series.shape,
            dtype=series.dtype,
            bigtiff=needs_bigtiff(series.shape, series.dtype),
            byteorder="<",
            ome=True,
            photometric="minisblack",
            compression="zlib",
            metadata=ome_metadata(axes, series.spacing, series.unit),
        )


def _write_zarr(path: Path, series: _Series) -> None:
    import zarr
    from ome_zarr_models.v05.axes import Axis
    from ome_zarr_models.v05.base import BaseZarrAttrs
    from ome_zarr_models.v05.image_label import ImageLabelAttrs
    from ome_zarr_models.v05.image_label_types import Label
    from ome_zarr_models.v05.multiscales import Dataset, Multiscale

    letters = "tzyx" if len(series.shape) == 4 else "tyx"
    group = zarr.create_group(store=path, zarr_format=3)
    array = group.create_array(
        name="0",
        shape=series.shape,
        chunks=(1, *(min(size, _CHUNK) for size in series.shape[1:])),
        dtype=series.dtype,
        dimension_names=tuple(letters),
        fill_value=0,
    )
    for number, stack in enumerate(series.stacks):
        z = 0
        for slab in stack.slabs():
            if len(series.shape) == 4:
                array[number, z : z + len(slab)] = slab
            else:
                array[number] = slab[0]
            z += len(slab)
    sizes = series.spacing or (1.0,) * (len(series.shape) - 1)
    moved = (0.0, *series.offset) if series.offset and any(series.offset) else None
    space = [Axis(name=name, type="space", unit=series.unit if series.spacing else None) for name in letters[1:]]
    dataset = Dataset.build(path="0", scale=(1.0, *sizes), translation=moved)
    multiscale = Multiscale(axes=(Axis(name="t", type="time"), *space), datasets=(dataset,), name="labels")
    ome = ImageLabelAttrs(version="0.5", multiscales=[multiscale], image_label=Label(version="0.5"))
    group.attrs.update(BaseZarrAttrs(ome=ome).model_dump(mode="json", by_alias=True, exclude_none=True))
