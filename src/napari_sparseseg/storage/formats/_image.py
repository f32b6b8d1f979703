"""What is known of an image file once it is open."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_sparseseg._types import ArrayLike, Spacing
from napari_sparseseg.errors import InputError
from napari_sparseseg.storage._arrays import plain_int
from napari_sparseseg.storage.formats._axes import named_axes, reading_order
from napari_sparseseg.storage.formats._geometry import Geometry
from napari_sparseseg.storage.formats._lazy import LazyArray, Source
from napari_sparseseg.storage.units import Steps


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image on disk, of which no voxel has been read yet.

    `array` is read by slicing. `axes` names its axes in order, one letter each: T, C, and Z, Y, X, which keep this
    order among themselves even if the file's is another. A time axis of one point is left out. `spacing` is the
    voxel size along the spatial axes in `unit` (an UDUNITS name, or None if the file gives lengths without a unit);
    None if the file does not tell it for each of them, since the shape of a voxel is not known then; `known_spacing` is
    what it tells, by letter, in the same unit. `offset` is the position of the first voxel along the same
    axes, 0 where nothing is told: a coarser level begins half a voxel later than the finest. `class_names` are those
    that a file of labels carries. `geometry` is the orientation and position of these axes that a header of NIfTI or
    NRRD tells, for labels of the same format. `n_series` counts the images that the file holds, of which this is
    one; those in a zarr on a server are not counted.
    """

    path: Path | str
    array: ArrayLike
    axes: str
    spacing: Spacing | tuple[float, float] | None
    unit: str | None
    channel_names: tuple[str, ...]
    format: str
    n_levels: int = 1
    class_names: Mapping[int, str] = field(default_factory=dict)
    offset: tuple[float, ...] = ()
    geometry: Geometry | None = None
    n_series: int = 1
    known_spacing: Mapping[str, float] = field(default_factory=dict)

    @property
    def channel_axis(self) -> int | None:
        """Position of the channel axis in `array`, or None."""
        return _position(self.axes, "C")

    @property
    def time_axis(self) -> int | None:
        """Position of the time axis in `array`, or None."""
        return _position(self.axes, "T")

    @property
    def spatial_axes(self) -> str:
        """The letters "ZYX" or "YX"."""
        return "".join(letter for letter in self.axes if letter in "ZYX")

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        """Sizes of these axes."""
        return tuple(size for letter, size in zip(self.axes, self.array.shape, strict=True) if letter in "ZYX")

    @property
    def n_frames(self) -> int:
        """Number of time points."""
        return 1 if self.time_axis is None else self.array.shape[self.time_axis]

    def frame(self, t: int) -> ImageFile:
        """One time point, without the time axis, still unread; an image without that axis has the time point 0.

        Raises `InputError` if there is no such time point.
        """
        number = plain_int(t, "a time point")
        if not -self.n_frames <= number < self.n_frames:
            raise InputError(
                f"{self.path} has no time point {number}; it has {self.n_frames}, counted from 0 to {self.n_frames - 1}"
            )
        if self.time_axis is None:
            return self
        return replace(
            self, array=_taken(self.array, self.time_axis, number % self.n_frames), axes=self.axes.replace("T", "")
        )


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """What users may say about a file: letters of its axes, level of resolution, which of several images."""

    axes: str | None = None
    level: int = 0
    series: int = 0


@dataclass(frozen=True, slots=True)
class Opened:
    """What the reader of a format found.

    `axes` holds one letter for each axis of `array`, "?" where the file does not say; `steps` the distance between
    neighbours along each axis in `unit`, None where that is not known; `offset` the position of the first voxel.
    `geometry` is along the same axes. `files` are those in which voxels lie besides the one that was opened.
    """

    array: Any
    axes: str
    format: str
    steps: Steps | None = None
    unit: str | None = None
    channel_names: tuple[str, ...] = ()
    n_levels: int = 1
    class_names: Mapping[int, str] = field(default_factory=dict)
    offset: Steps | None = None
    files: tuple[Path, ...] = ()
    geometry: Geometry | None = None
    n_series: int = 1


Reader = Callable[[Path | str, ReadOptions], Opened]


def presented(opened: Opened, path: Path | str, reader: Reader, options: ReadOptions) -> ImageFile:
    """The image in the axis order in which we read.

    Raises `InputError` for axes that cannot be named, an empty axis and voxels that are no real numbers.
    """
    shape = tuple(int(size) for size in opened.array.shape)
    _check_voxels(shape, opened.array.dtype, path)
    letters = named_axes(opened.axes, shape, options.axes, path)
    order = reading_order(letters, shape)
    array = LazyArray(opened.array, Source(path, reader, options, files=opened.files), order, {})
    known = _known_spacing(letters, order, opened.steps, opened.unit)
    spacing = _whole_spacing(known, n_axes=sum(letter in "ZYX" for letter in letters))
    return ImageFile(
        path=path,
        array=array,
        axes="".join(letters[i] for i in order),
        spacing=spacing,
        unit=opened.unit if known else None,
        channel_names=opened.channel_names,
        format=opened.format,
        n_levels=opened.n_levels,
        n_series=opened.n_series,
        class_names=opened.class_names,
        offset=_offset(letters, order, opened.offset if spacing else None),
        geometry=opened.geometry and opened.geometry.along([i for i in order if letters[i] in "ZYX"]),
        known_spacing=known,
    )


def without_channel(image: ImageFile) -> ImageFile:
    """Labels without a channel axis.

    Raises `InputError` if that axis holds more than one channel.
    """
    axis = image.channel_axis
    if axis is None:
        return image
    n_channels = image.array.shape[axis]
    if n_channels > 1:
        raise InputError(
            f"{image.path} has {n_channels} channels, but painted labels need one value for each voxel; save one "
            "channel of it (or is this the image?)"
        )
    return replace(image, array=_taken(image.array, axis, 0), axes=image.axes.replace("C", ""), channel_names=())


def _check_voxels(shape: tuple[int, ...], dtype: Any, path: Path | str) -> None:
    if min(shape, default=0) < 1:
        raise InputError(f"{path} holds no voxels (shape {shape}); save the image again")
    kind = np.dtype(dtype)
    if kind.kind not in "biuf":
        raise InputError(
            f"{path} holds values of type {kind}, but real numbers are needed; save one real quantity of it, colours "
            "as a channel axis"
        )


def _known_spacing(letters: str, order: Sequence[int], steps: Steps | None, unit: str | None) -> dict[str, float]:
    told = {letters[i]: steps[i] for i in order if letters[i] in "ZYX"} if steps else {}
    known = {letter: float(step) for letter, step in told.items() if step and math.isfinite(step) and step > 0}
    # without a unit, 1 is what libraries write when they were told nothing
    return {} if unit is None and set(known.values()) == {1.0} else known


def _whole_spacing(known: Mapping[str, float], n_axes: int) -> Spacing | tuple[float, float] | None:
    sizes = tuple(known.values())
    if len(sizes) < n_axes:
        return None
    if len(sizes) == 2:
        return sizes[0], sizes[1]
    return sizes[0], sizes[1], sizes[2]


def _offset(letters: str, order: Sequence[int], offset: Steps | None) -> tuple[float, ...]:
    spatial = [i for i in order if letters[i] in "ZYX"]
    known = [offset[i] if offset else 0.0 for i in spatial]
    return tuple(0.0 if value is None or not math.isfinite(value) else float(value) for value in known)


def _taken(array: Any, axis: int, index: int) -> ArrayLike:
    if isinstance(array, LazyArray):
        return array.taken(axis, index)
    taken: ArrayLike = array[(slice(None),) * axis + (index,)]
    return taken


def _position(axes: str, letter: str) -> int | None:
    return axes.index(letter) if letter in axes else None
