"""OME-Zarr 0.5 on disk: labels and images with levels of resolution, written whole or not at all."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from ome_zarr_models.v05.axes import Axis
from ome_zarr_models.v05.base import BaseZarrAttrs
from ome_zarr_models.v05.image import ImageAttrs
from ome_zarr_models.v05.image_label import ImageLabelAttrs
from ome_zarr_models.v05.image_label_types import Color, Label, Property
from ome_zarr_models.v05.multiscales import Dataset, Multiscale

from napari_sparseseg._types import ArrayLike, Box, Shape3D, Spacing
from napari_sparseseg.errors import InputError, InputTypeError
from napari_sparseseg.storage._arrays import checked_spacing, plain_int
from napari_sparseseg.storage.atomic import checked_target, is_zarr, written_whole
from napari_sparseseg.storage.volume import ArrayVolume, ImageVolume

_SMALL = 256  # no coarser level once the axes to be halved are this short
_CHUNK = 64
_CHUNK_VOXELS = _CHUNK**3
_CHUNKS_AT_ONCE = (1, 4, 4)
_ABOUT_AS_FINE = 1.5

_Downsample = Callable[[npt.NDArray[Any], Shape3D], npt.NDArray[Any]]


def write_labels(
    path: str | os.PathLike[str],
    labels: ArrayLike,
    *,
    spacing: Sequence[float] | None = None,
    offset: Sequence[float] | None = None,
    unit: str | None = "micrometer",
    class_names: Mapping[int, str] | None = None,
    colors: Mapping[int, Sequence[float]] | None = None,
    overwrite: bool = False,
) -> None:
    """Write integer labels, (Z, Y, X) or (Y, X), as an OME-Zarr 0.5 label image with nearest-neighbour levels.

    `spacing` is the voxel size along the labels' axes in `unit`; without it the scale is 1 and has no unit. `offset` is
    the position of the first voxel, 0 without it. Colours are RGB or RGBA, integers 0..255 or floats 0..1. Lazy labels
    are read piece by piece. The result appears at `path` when it is complete; `overwrite` replaces an older one at that
    moment, and only if that is a zarr.

    Raises `InputTypeError` for labels that are no integers, `InputError` if something lies at `path` and `overwrite`
    is not set, and for unusable spacings, offsets, names and colours.
    """
    volume = ArrayVolume(labels, name="labels")
    if volume.dtype.kind not in "iu":
        raise InputTypeError(f"labels have dtype {volume.dtype}, but integers are needed; convert with astype('uint8')")
    label = label_metadata(class_names, colors)
    voxel = checked_spacing(spacing, len(volume.spatial_shape))
    begin = checked_offset(offset, len(volume.spatial_shape))
    with _written_zarr(path, overwrite) as partial:
        group = zarr.create_group(store=partial, zarr_format=3)
        levels = _write_levels(group, volume, voxel, begin, nearest)
        multiscale = multiscale_of(path, _axes(volume), levels, unit if spacing is not None else None, "nearest")
        ome = ImageLabelAttrs(version="0.5", multiscales=[multiscale], image_label=label)
        group.attrs.update(as_attributes(ome))


def write_image(
    path: str | os.PathLike[str],
    image: ArrayLike,
    *,
    channel_axis: int | None = None,
    spacing: Sequence[float] | None = None,
    offset: Sequence[float] | None = None,
    unit: str | None = "micrometer",
    overwrite: bool = False,
) -> None:
    """Write an image, 2D or 3D with or without channels, as an OME-Zarr 0.5 image with locally averaged levels.

    Channels come first on disk. `spacing` and `offset` count spatial axes only; everything else as in `write_labels`.
    """
    volume = ImageVolume(image, channel_axis)
    voxel = checked_spacing(spacing, len(volume.spatial_shape))
    begin = checked_offset(offset, len(volume.spatial_shape))
    with _written_zarr(path, overwrite) as partial:
        group = zarr.create_group(store=partial, zarr_format=3)
        levels = _write_levels(group, volume, voxel, begin, mean)
        multiscale = multiscale_of(path, _axes(volume), levels, unit if spacing is not None else None, "mean")
        group.attrs.update(as_attributes(ImageAttrs(version="0.5", multiscales=[multiscale])))


def checked_offset(offset: Sequence[float] | None, n_axes: int) -> Spacing:
    """The position of the first voxel along z, y, x; raises `InputError` for what is none along so many axes."""
    if offset is None:
        return 0.0, 0.0, 0.0
    values = [float(value) for value in offset]
    if len(values) not in (n_axes, 3) or not all(map(math.isfinite, values)):
        raise InputError(f"offset={tuple(values)} is no position; pass a number for each of the {n_axes} axes")
    return _spacing([0.0, 0.0, *values][-3:])


# --- files ---


@contextmanager
def _written_zarr(path: str | os.PathLike[str], overwrite: bool) -> Iterator[Path]:
    """Give a folder to write into, which appears at `path` at the end; folders on the way to it are made."""
    target = checked_target(path, overwrite=overwrite, is_kind=is_zarr, kind="zarr")
    target.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(target, overwrite=overwrite, is_kind=is_zarr, kind="zarr") as partial:
        yield partial


# --- levels of resolution ---


def _write_levels(
    group: zarr.Group, volume: ArrayVolume, voxel: Spacing, offset: Spacing, downsample: _Downsample
) -> list[tuple[Spacing, Spacing]]:
    """Write the volume and its coarser levels as arrays "0", "1", ...; voxel size and offset of each along z, y, x."""
    levels: list[tuple[Spacing, Spacing]] = []
    source, step = volume, (1, 1, 1)
    while True:
        array = _create_level(group, str(len(levels)), source, step)
        target = type(volume)(array, None if volume.channel_axis is None else 0, name=volume.name)
        _fill(array, target, source, step, downsample)
        if downsample is mean:  # the middle of the averaged voxels; nearest keeps that of the first one
            offset = _spacing(o + (f - 1) / 2 * v for o, f, v in zip(offset, step, voxel, strict=True))
        voxel = _spacing(f * v for f, v in zip(step, voxel, strict=True))
        levels.append((voxel, offset))
        step = next_step(target.shape, voxel)
        if step == (1, 1, 1):
            return levels
        source = target


def next_step(shape: Shape3D, voxel: Spacing) -> Shape3D:
    """Factors to the next coarser level: y and x are halved, z only where it is about as fine; all 1 at the end."""
    factors = [1 if size == 1 else 2 for size in shape]
    if voxel[0] > _ABOUT_AS_FINE * min(voxel[1:]):
        factors[0] = 1
    longest = max((size for size, factor in zip(shape, factors, strict=True) if factor == 2), default=0)
    return (factors[0], factors[1], factors[2]) if longest > _SMALL else (1, 1, 1)


def _create_level(group: zarr.Group, name: str, source: ArrayVolume, step: Shape3D) -> zarr.Array[Any]:
    shape = _divided(source.shape, step)
    return group.create_array(
        name=name,
        shape=on_disk(_axes(source), (source.n_channels, *shape)),
        chunks=on_disk(_axes(source), (1, *chunk_shape(shape))),
        dtype=source.dtype,
        dimension_names=on_disk(_axes(source), ("c", "z", "y", "x")),
        fill_value=0,
    )


def chunk_shape(shape: Shape3D) -> Shape3D:
    """What is packed as one piece: 64 voxels along each axis, more along y and x where there are fewer along z."""
    depth, height, width = shape
    edge = _CHUNK
    while min(_CHUNK, depth) * (2 * edge) ** 2 <= _CHUNK_VOXELS:
        edge *= 2
    return min(_CHUNK, depth), min(edge, height), min(edge, width)


def _fill(array: zarr.Array[Any], target: ArrayVolume, source: ArrayVolume, step: Shape3D, down: _Downsample) -> None:
    """Write one level from the next finer one, a few chunks at a time."""
    for box in _pieces(target.shape, array.chunks):
        finer = Box(_scaled(box.start, step), _scaled(box.stop, step)).clipped(Box.whole(source.shape))
        values = down(source.read(finer), step)
        index = on_disk(_axes(target), (slice(None), *box.slices))
        array[index] = values.reshape(on_disk(_axes(target), values.shape))


def _pieces(shape: Shape3D, chunks: tuple[int, ...]) -> Iterator[Box]:
    """Boxes of whole chunks that cover the volume."""
    spatial = (1, *chunks)[-3:] if len(chunks) == 2 else chunks[-3:]
    sizes = [chunk * n for chunk, n in zip(spatial, _CHUNKS_AT_ONCE, strict=True)]
    for start in product(*(range(0, length, size) for length, size in zip(shape, sizes, strict=True))):
        stop = [min(a + size, length) for a, size, length in zip(start, sizes, shape, strict=True)]
        yield Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))


def on_disk(axes: str, czyx: Sequence[Any]) -> tuple[Any, ...]:
    """Of four values for c, z, y, x those whose axis is written: "zyx" or "yx", "c" before it if there are channels."""
    return tuple(value for letter, value in zip("czyx", czyx, strict=True) if letter in axes)


def _axes(volume: ArrayVolume) -> str:
    return ("" if volume.channel_axis is None else "c") + "zyx"[-len(volume.spatial_shape) :]


def nearest(block: npt.NDArray[Any], step: Shape3D) -> npt.NDArray[Any]:
    """Take the first of each cell of `step` voxels, (channels, z, y, x)."""
    z, y, x = step
    return block[:, ::z, ::y, ::x]


def mean(block: npt.NDArray[Any], step: Shape3D) -> npt.NDArray[Any]:
    """Average cells of `step` voxels; an incomplete last cell repeats its last voxel."""
    if step == (1, 1, 1):
        return block
    margin = [(0, -size % factor) for size, factor in zip(block.shape[1:], step, strict=True)]
    padded = np.pad(block, [(0, 0), *margin], mode="edge")
    z, y, x = (size // factor for size, factor in zip(padded.shape[1:], step, strict=True))
    cells = padded.reshape(len(block), z, step[0], y, step[1], x, step[2])
    # divided before the sum, which else may overflow; exact, since the factors are powers of two
    means: npt.NDArray[np.float64] = (cells.astype(np.float64) / math.prod(step)).sum(axis=(2, 4, 6))
    if block.dtype.kind == "f":
        return means.astype(block.dtype)
    limits = np.iinfo(block.dtype)
    highest = np.nextafter(float(limits.max), 0) if block.dtype.itemsize == 8 else limits.max
    return np.rint(means).clip(limits.min, highest).astype(block.dtype)


def _divided(shape: Shape3D, step: Shape3D) -> Shape3D:
    z, y, x = (-(-size // factor) for size, factor in zip(shape, step, strict=True))
    return z, y, x


def _scaled(corner: Shape3D, step: Shape3D) -> Shape3D:
    z, y, x = (a * factor for a, factor in zip(corner, step, strict=True))
    return z, y, x


def _spacing(values: Any) -> Spacing:
    z, y, x = values
    return z, y, x


# --- metadata ---


def multiscale_of(
    path: str | os.PathLike[str],
    on_axes: str,
    levels: Sequence[tuple[Spacing, Spacing]],
    unit: str | None,
    method: str,
) -> Multiscale:
    """Levels of resolution, each with its voxel size and offset along z, y, x; `on_axes` as for `on_disk`."""
    space = [Axis(name=name, type="space", unit=unit) for name in "zyx"]
    datasets = [
        Dataset.build(
            path=str(number),
            scale=on_disk(on_axes, (1.0, *voxel)),
            translation=on_disk(on_axes, (0.0, *offset)) if any(offset) else None,
        )
        for number, (voxel, offset) in enumerate(levels)
    ]
    axes = on_disk(on_axes, (Axis(name="c", type="channel"), *space))
    name = Path(path).name.removesuffix(".zarr").removesuffix(".ome")
    return Multiscale(axes=axes, datasets=tuple(datasets), name=name, type=method)


def as_attributes(ome: ImageAttrs | ImageLabelAttrs) -> dict[str, Any]:
    """What is written into a group."""
    return BaseZarrAttrs(ome=ome).model_dump(mode="json", by_alias=True, exclude_none=True)


def label_metadata(class_names: Mapping[int, str] | None, colors: Mapping[int, Sequence[float]] | None) -> Label:
    """Names and colours of classes; raises `InputError` for those that cannot be used."""
    names = {_class_id(value, "class_names"): str(name) for value, name in (class_names or {}).items()}
    rgba = {_class_id(value, "colors"): _rgba(value, color) for value, color in (colors or {}).items()}
    if names and rgba:
        _check_each_coloured(names, rgba)
        names = {value: names.get(value, f"class {value}") for value in rgba}
    properties = [Property.model_validate({"label-value": value, "class": names[value]}) for value in sorted(names)]
    entries = [Color(label_value=value, rgba=rgba[value]) for value in sorted(rgba)]
    return Label(colors=tuple(entries) or None, properties=tuple(properties) or None, version="0.5")


def _check_each_coloured(names: Collection[int], rgba: Collection[int]) -> None:
    missing = sorted(set(names) - set(rgba))
    if missing:
        raise InputError(
            f"class_names names class {missing[0]}, but colors has no colour for it; give one, or no colors"
        )


def _class_id(value: object, what: str) -> int:
    number = plain_int(value, f"a key of {what}")
    if number < 0:
        raise InputError(f"{what} has the key {number}, but class ids are not negative")
    return number


def _rgba(value: int, color: Any) -> tuple[int, int, int, int]:
    parts = list(color) if isinstance(color, Iterable) else [color]
    whole = all(isinstance(part, Integral) for part in parts)
    limit = 255 if whole else 1
    if len(parts) not in (3, 4) or not all(isinstance(part, Real) and 0 <= float(part) <= limit for part in parts):
        raise InputError(
            f"the colour {tuple(parts)} of class {value} is not RGB or RGBA; give 3 or 4 integers 0..255 or floats 0..1"
        )
    red, green, blue, alpha = (int(part) if whole else round(255 * float(part)) for part in [*parts, limit][:4])
    return red, green, blue, alpha
