"""OME-Zarr 0.5 images larger than memory: written shard by shard, from any number of processes, levels included.

A shard is one file of many chunks. Two that write into one shard lose data, so each is written once, as a whole, by
whoever has been given it.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import zarr
from ome_zarr_models.v05.image import ImageAttrs
from ome_zarr_models.v05.image_label import ImageLabelAttrs

from napari_sparseseg._types import Box, Shape3D, Spacing
from napari_sparseseg.storage.durable import RealDisk
from napari_sparseseg.storage.ome import (
    as_attributes,
    chunk_shape,
    label_metadata,
    mean,
    multiscale_of,
    nearest,
    next_step,
    on_disk,
)

_STEP: Shape3D = (1, 1, 1)
_DOWN: dict[str, Callable[[npt.NDArray[Any], Shape3D], npt.NDArray[Any]]] = {"nearest": nearest, "mean": mean}


@dataclass(frozen=True, slots=True)
class Frame:
    """Size and place of an image, and how it is cut: `axes` are "zyx" or "yx", `shard` whole chunks.

    `spacing` and `offset` are along z, y, x in `unit`, the offset being the middle of the first voxel.
    """

    shape: Shape3D
    axes: str
    shard: Shape3D
    spacing: Spacing = (1.0, 1.0, 1.0)
    offset: Spacing = (0.0, 0.0, 0.0)
    unit: str | None = None

    def levels(self) -> list[Level]:
        """All levels of resolution, the finest first."""
        found = [Level(self.shape, self.shard, _STEP, self.spacing)]
        while (step := next_step(found[-1].shape, found[-1].spacing)) != _STEP:
            found.append(found[-1].coarser(step, self.shard))
        return found


@dataclass(frozen=True, slots=True)
class Level:
    """One level of resolution, `step` voxels of the finer one to each of its own."""

    shape: Shape3D
    shard: Shape3D
    step: Shape3D
    spacing: Spacing

    def coarser(self, step: Shape3D, shard: Shape3D) -> Level:
        """The next level."""
        shape = _triple(-(-n // f) for n, f in zip(self.shape, step, strict=True))
        spacing = _triple(v * f for v, f in zip(self.spacing, step, strict=True))
        return Level(shape, fitted(shard, shape), step, spacing)

    def shards(self) -> Iterator[Box]:
        """The voxels of each shard."""
        return _pieces(Box.whole(self.shape), self.shard)

    def finer(self, box: Box, limits: Shape3D) -> Box:
        """The voxels of the finer level, of shape `limits`, that a box is made from."""
        start = _triple(a * f for a, f in zip(box.start, self.step, strict=True))
        stop = _triple(b * f for b, f in zip(box.stop, self.step, strict=True))
        return Box(start, stop).clipped(Box.whole(limits))


def fitted(shard: Shape3D, shape: Shape3D) -> Shape3D:
    """A shard for an image that may be smaller: whole chunks of it, no more than cover it."""
    sizes = zip(shard, shape, chunk_shape(shape), strict=True)
    z, y, x = (max(1, min(edge // chunk, -(-size // chunk))) * chunk for edge, size, chunk in sizes)
    return z, y, x


class ShardedImage:
    """An image on disk of which shards are written and read back; to be opened anew in each process."""

    def __init__(self, path: Path, frame: Frame, downsample: Literal["nearest", "mean"]) -> None:
        self.path, self.frame, self.levels = path, frame, frame.levels()
        self._down = _DOWN[downsample]
        self._arrays = [_array(path, number) for number in range(len(self.levels))]
        self._axes = ("c" if self._arrays[0].ndim > len(frame.axes) else "") + frame.axes
        self._disk = RealDisk()

    @classmethod
    def create_labels(cls, path: Path, frame: Frame, dtype: npt.DTypeLike, *, name: str) -> ShardedImage:
        """Make an empty label image, whose coarser levels take every second voxel."""
        levels = _create(path, frame, frame.axes, 1, dtype)
        multiscale = multiscale_of(name, frame.axes, _places(levels, frame, is_mean=False), frame.unit, "nearest")
        ome = ImageLabelAttrs(version="0.5", multiscales=[multiscale], image_label=label_metadata(None, None))
        zarr.open_group(path, mode="r+").attrs.update(as_attributes(ome))
        return cls(path, frame, "nearest")

    @classmethod
    def create_image(
        cls, path: Path, frame: Frame, dtype: npt.DTypeLike, n_channels: int, *, name: str
    ) -> ShardedImage:
        """Make an empty image with channels first, whose coarser levels are averages."""
        levels = _create(path, frame, "c" + frame.axes, n_channels, dtype)
        multiscale = multiscale_of(name, "c" + frame.axes, _places(levels, frame, is_mean=True), frame.unit, "mean")
        ome = ImageAttrs(version="0.5", multiscales=[multiscale])
        zarr.open_group(path, mode="r+").attrs.update(as_attributes(ome))
        return cls(path, frame, "mean")

    def write(self, level: int, box: Box, values: npt.NDArray[Any]) -> None:
        """Write a whole shard, shape (channels, z, y, x), so that it lasts.

        Raises `FileNotFoundError` if the image was removed or moved; zarr would make folders for it anew.
        """
        if not (self.path / "zarr.json").is_file():
            raise FileNotFoundError(errno.ENOENT, "the image that was begun is not there any more", str(self.path))
        path = self._file(level, box)
        path.unlink(missing_ok=True)  # of a shard at the volume's end zarr would read first what is there
        index = on_disk(self._axes, (slice(None), *box.slices))
        self._arrays[level][index] = values.reshape(on_disk(self._axes, values.shape))
        if path.exists():  # nothing is written where all is 0
            self._disk.sync(path)
            for folder in path.parents[: len(self._axes)]:
                self._disk.sync_folder(folder)

    def read(self, level: int, box: Box) -> npt.NDArray[Any]:
        """Voxels of a box, shape (channels, z, y, x)."""
        voxels = np.asarray(self._arrays[level][on_disk(self._axes, (slice(None), *box.slices))])
        return voxels.reshape(-1, *box.shape)

    def coarsen(self, level: int, box: Box) -> None:
        """Write a shard from the finer level, whose shards must be there; a part of it is held at a time."""
        finer, source = self._arrays[level - 1], self.levels[level - 1].shape
        n_channels = finer.shape[0] if "c" in self._axes else 1
        values = np.empty((n_channels, *box.shape), finer.dtype)
        for piece in _pieces(box, _triple(-(-n // 2) for n in self.levels[level].shard)):
            wanted = self.levels[level].finer(piece, source)
            voxels = np.asarray(finer[on_disk(self._axes, (slice(None), *wanted.slices))])
            part = self._down(voxels.reshape(n_channels, *wanted.shape), self.levels[level].step)
            values[(slice(None), *piece.relative_to(box.start).slices)] = part
        self.write(level, box, values)

    def note(self, attributes: Mapping[str, Any]) -> None:
        """Keep further attributes, and remove what a process left that was killed while it wrote."""
        zarr.open_group(self.path, mode="r+").attrs.update(dict(attributes))
        for leftover in self.path.rglob("*.partial"):
            leftover.unlink(missing_ok=True)

    def _file(self, level: int, box: Box) -> Path:
        index = (a // n for a, n in zip(box.start, self.levels[level].shard, strict=True))
        return self.path.joinpath(str(level), "c", *map(str, on_disk(self._axes, (0, *index))))


def _array(path: Path, level: int) -> zarr.Array[Any]:
    return zarr.open_array(path / str(level), mode="r+")


def _create(path: Path, frame: Frame, axes: str, n_channels: int, dtype: npt.DTypeLike) -> list[Level]:
    group = zarr.create_group(store=path, zarr_format=3, overwrite=True)
    levels = frame.levels()
    for number, level in enumerate(levels):
        chunks = chunk_shape(level.shape)
        group.create_array(
            name=str(number),
            shape=on_disk(axes, (n_channels, *level.shape)),
            chunks=on_disk(axes, (1, *chunks)),
            shards=on_disk(axes, (n_channels, *level.shard)),
            dtype=np.dtype(dtype),
            dimension_names=on_disk(axes, "czyx"),
            fill_value=0,
        )
    return levels


def _places(levels: Sequence[Level], frame: Frame, *, is_mean: bool) -> list[tuple[Spacing, Spacing]]:
    """Voxel size and offset of each level: averages lie in the middle of their voxels, else in that of the first."""
    found, offset, spacing = [], frame.offset, frame.spacing
    for level in levels:
        if is_mean:
            offset = _triple(o + (f - 1) / 2 * v for o, f, v in zip(offset, level.step, spacing, strict=True))
        spacing = level.spacing
        found.append((spacing, offset))
    return found


def _pieces(box: Box, edges: Shape3D) -> Iterator[Box]:
    """Boxes of a size, counted from the box's start, that cover it."""
    ranges = (range(a, b, n) for a, b, n in zip(box.start, box.stop, edges, strict=True))
    for z, y, x in product(*ranges):
        yield Box.whole(edges).shifted((z, y, x)).clipped(box)


def shard_for(shape: Shape3D, most_voxels: int) -> Shape3D:
    """A shard of at most so many voxels (but one chunk at least), as close to a cube as the image lets it be."""
    chunk = chunk_shape(shape)
    shard = list(chunk)
    while True:
        open_axes = [axis for axis in range(3) if shard[axis] < shape[axis]]
        if not open_axes or 2 * math.prod(shard) > most_voxels:
            return shard[0], shard[1], shard[2]
        shard[min(reversed(open_axes), key=lambda axis: shard[axis])] *= 2


def _triple(values: Any) -> Any:
    z, y, x = values
    return z, y, x
