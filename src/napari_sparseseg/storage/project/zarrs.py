"""Zarr groups in a project: written through its disk, whole or not at all, and read with nothing believed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.storage import LocalStore, MemoryStore

from napari_sparseseg._types import Box
from napari_sparseseg.errors import ProjectError
from napari_sparseseg.storage.chunks import guarded
from napari_sparseseg.storage.durable import Disk
from napari_sparseseg.storage.project.manifest import read_json

CHUNK = (1, 16, 64, 64)
SHARD = (1, 64, 512, 512)
"""Frames, z, y, x: what is stored in one file. A shard that holds nothing has none."""

_LARGEST_ATTRIBUTES = 2**27  # bytes
_LARGEST_METADATA = 2**20
_CODECS = {"sharding_indexed", "bytes", "zstd", "crc32c"}

Shape = tuple[int, ...]
Corner = tuple[int, ...]


class GroupWriter:
    """Writes a new group into a folder, array by array and shard by shard; nothing of it counts before `finish`."""

    def __init__(self, disk: Disk, folder: Path) -> None:
        self._disk = disk
        self._folder = folder
        self._folders: set[Path] = set()
        self._store = MemoryStore()
        self._group = zarr.create_group(store=self._store, zarr_format=3)
        self._make(folder)

    def array(self, name: str, shape: Shape, dtype: npt.DTypeLike) -> zarr.Array[Any]:
        """Make an array; its last axes are (frames, z, y, x), or the last of these."""
        chunks, shards = _fitted(CHUNK, len(shape)), _fitted(SHARD, len(shape))
        made = self._group.create_array(name, shape=shape, chunks=chunks, shards=shards, dtype=dtype, fill_value=0)
        self._flush()
        return made

    def write(self, array: zarr.Array[Any], corner: Corner, block: npt.NDArray[Any]) -> None:
        """Write the voxels of one shard, whose first one lies at `corner`; nothing is stored of zeros."""
        array[tuple(slice(a, a + n) for a, n in zip(corner, block.shape, strict=True))] = block
        self._flush()

    def finish(self, attributes: Mapping[str, Any]) -> None:
        """Give the group its attributes, and make all of it last."""
        self._group.attrs.update(attributes)
        self._flush(is_finished=True)
        for folder in sorted(self._folders, key=lambda f: len(f.parts), reverse=True):
            self._disk.sync_folder(folder)
        self._disk.sync_folder(self._folder.parent)

    def _flush(self, *, is_finished: bool = False) -> None:
        """Write what zarr has made to the disk: voxels, which are not kept in memory, and at the end metadata."""
        content = self._store._store_dict  # noqa: SLF001 - MemoryStore(dict) would copy; there is no other way to list
        for name in list(content):
            if name.endswith("zarr.json") != is_finished:
                continue
            self._write_file(name, content[name].to_bytes())
            if not is_finished:
                del content[name]

    def _write_file(self, name: str, content: bytes) -> None:
        *parents, last = name.split("/")
        folder = self._folder
        for parent in parents:
            folder = folder / parent
            self._make(folder)
        self._disk.write(folder / last, content)
        self._disk.sync(folder / last)

    def _make(self, folder: Path) -> None:
        if folder not in self._folders:
            self._disk.make_folder(folder)
            self._folders.add(folder)


@contextmanager
def damage(what: Path) -> Iterator[None]:
    """Turn whatever comes of reading damaged zarrs into a `ProjectError`."""
    try:
        yield
    except ProjectError:
        raise
    # zarr and its codecs raise many things for files that are damaged, RuntimeError and bare Exception among them
    except Exception as error:
        raise ProjectError(
            f"{what} is damaged ({type(error).__name__}: {str(error)[:200]}); what is older is used"
        ) from error


def attributes_of(folder: Path) -> dict[str, Any]:
    """The attributes of a group. Raises `ProjectError` if it is none."""
    odd = next((path for path in folder.rglob("*") if path.is_symlink() or not (path.is_file() or path.is_dir())), None)
    if odd is not None:
        raise ProjectError(f"{odd} is a link or a device, which no project has; what is older is used")
    metadata = read_json(folder / "zarr.json", _LARGEST_ATTRIBUTES)
    found = metadata.get("attributes") if isinstance(metadata, dict) else None
    if not isinstance(found, dict) or metadata.get("node_type") != "group":
        raise ProjectError(f"{folder} is damaged (it is no zarr group); what is older is used")
    return found


def open_array(folder: Path, name: str, shape: Shape, dtype: npt.DTypeLike) -> zarr.Array[Any]:
    """Open an array that must have this shape and dtype, and be stored as `GroupWriter` does.

    Raises `ProjectError` before memory is taken for voxels.
    """
    metadata = read_json(folder / name / "zarr.json", _LARGEST_METADATA)
    with damage(folder):
        grid = metadata["chunk_grid"]["configuration"]["chunk_shape"]
        inner = metadata["codecs"][0]["configuration"]["chunk_shape"]
        is_ours = (
            tuple(metadata["shape"]) == shape
            and metadata["data_type"] == np.dtype(dtype).name
            and (tuple(grid), tuple(inner)) == (_fitted(SHARD, len(shape)), _fitted(CHUNK, len(shape)))
            and set(_codecs(metadata["codecs"])) <= _CODECS
            and metadata["fill_value"] == 0
            and not metadata.get("storage_transformers")
        )
        if not is_ours:
            raise ProjectError(
                f"{folder / name} is not an array of {np.dtype(dtype)} {shape} as projects have them; use a backup"
            )
        array = zarr.open_array(LocalStore(folder / name, read_only=True), mode="r", zarr_format=3)
        return guarded(array, folder / name)


def stored_corners(folder: Path, shape: Shape) -> list[Corner]:
    """First voxels of the shards that have a file, of an array in a folder."""
    root, n_shards = folder / "c", tuple(-(-n // s) for n, s in zip(shape, _shard(shape), strict=True))
    found = []
    for file in sorted(root.rglob("*")) if root.is_dir() else ():
        parts = file.relative_to(root).parts
        if len(parts) != len(shape) or not all(part.isascii() and part.isdigit() for part in parts):
            continue
        index = tuple(int(part) for part in parts)
        if all(i < n for i, n in zip(index, n_shards, strict=True)):
            found.append(tuple(i * s for i, s in zip(index, _shard(shape), strict=True)))
    return found


def all_corners(shape: Shape) -> Iterable[Corner]:
    """First voxels of all shards of an array."""
    return product(*(range(0, n, s) for n, s in zip(shape, _shard(shape), strict=True)))


def shard_slices(corner: Corner, shape: Shape) -> tuple[slice, ...]:
    """The voxels of a shard."""
    return tuple(slice(a, min(a + s, n)) for a, s, n in zip(corner, _shard(shape), shape, strict=True))


def corners_of(parts: Iterable[tuple[int, Box]]) -> list[Corner]:
    """First voxels of the shards that some boxes of frames lie in, of an array (frames, z, y, x)."""
    corners: set[Corner] = set()
    for frame, box in parts:
        ranges = [range(a // n * n, b, n) for a, b, n in zip(box.start, box.stop, SHARD[1:], strict=True)]
        corners.update((frame, *corner) for corner in product(*ranges))
    return sorted(corners)


def part_of(corner: Corner, shape: Shape) -> tuple[int, Box]:
    """Frame and box of a shard of an array (frames, z, y, x)."""
    frame, z, y, x = shard_slices(corner, shape)
    return frame.start, Box((z.start, y.start, x.start), (z.stop, y.stop, x.stop))


def _shard(shape: Shape) -> Shape:
    return _fitted(SHARD, len(shape))


def _fitted(sizes: Shape, n_axes: int) -> Shape:
    """Sizes along so many axes: of single voxels where there are more, the last ones where there are fewer."""
    return ((1,) * (n_axes - len(sizes)) + sizes)[-n_axes:]


def _codecs(codecs: Any) -> Iterator[str]:
    for codec in codecs:
        yield codec["name"]
        configuration = codec.get("configuration", {})
        for inner in ("codecs", "index_codecs"):
            yield from _codecs(configuration.get(inner, ()))
