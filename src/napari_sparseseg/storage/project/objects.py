"""Objects that were found, as of one moment: ids in an array of zarr of which only what holds objects is stored."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from napari_sparseseg._types import MAX_CLASSES, Box
from napari_sparseseg.errors import ProjectError
from napari_sparseseg.storage._object_records import HIGHEST_ID, Ids, Shape4
from napari_sparseseg.storage.durable import Disk
from napari_sparseseg.storage.object_ids import ObjectIds
from napari_sparseseg.storage.project.zarrs import (
    Corner,
    GroupWriter,
    attributes_of,
    corners_of,
    damage,
    open_array,
    part_of,
    shard_slices,
    stored_corners,
)
from napari_sparseseg.storage.sparse import zeros

_IDS, _ATTRIBUTE = "objects", "sparseseg"


class StoredObjects(NamedTuple):
    """Ids (frames, z, y, x), the highest given so far, and the frames and boxes outside of which there are none.

    `classes` are those that were looked for; empty if that is not known, as where an older version has written.
    """

    ids: Ids
    highest: int
    parts: list[tuple[int, Box]]
    classes: tuple[int, ...] = ()


def write_objects(disk: Disk, folder: Path, shape: Shape4, objects: ObjectIds) -> None:
    """Write the objects of an image (frames, z, y, x) into a new folder; once this returns they last. Raises OSError.

    They may be changed meanwhile: what is written then is of before or after each change, as the journal has them.
    """
    writer = GroupWriter(disk, folder)
    array, shards = writer.array(_IDS, shape, np.uint32), []
    for corner in corners_of(objects.parts()):
        block = objects.read(*part_of(corner, shape))[None]
        if block.any():
            writer.write(array, corner, block)
            shards.append(_described(corner, block))
    # asked last: no id that was written may be higher
    writer.finish({_ATTRIBUTE: {"highest": objects.next_id - 1, "classes": objects.classes, "shards": shards}})


def read_objects(folder: Path, shape: Shape4) -> StoredObjects:
    """What `write_objects` wrote for an image of this shape.

    Raises `ProjectError` if anything about it is wrong, `InputError` if there is no memory for it.
    """
    with damage(folder):
        about = attributes_of(folder)[_ATTRIBUTE]
        highest, known = about["highest"], {tuple(shard[0]): shard for shard in about["shards"]}
        classes = tuple(about.get("classes", ()))
        stored = open_array(folder, _IDS, shape, np.uint32)
        corners = stored_corners(folder / _IDS, shape)
        _require(isinstance(highest, int) and 0 <= highest <= HIGHEST_ID, folder, "ids that cannot be")
        _require(all(isinstance(n, int) and 0 < n <= MAX_CLASSES for n in classes), folder, "classes that cannot be")
        _require(set(corners) == set(known), folder, "voxels are missing")
    ids: Ids = zeros(shape, np.uint32)
    with damage(folder):
        for corner in corners:
            block = np.asarray(stored[shard_slices(corner, shape)])
            _require(_described(corner, block) == known[corner], folder, "voxels are missing or changed")
            _require(int(block.max()) <= highest, folder, "ids that were not given")
            ids[shard_slices(corner, shape)] = block
    return StoredObjects(ids, highest, [part_of(corner, shape) for corner in corners], classes)


def _described(corner: Corner, block: Ids) -> list[Any]:
    """What is compared after reading: corner, voxels of objects, checksum."""
    return [list(corner), int(np.count_nonzero(block)), zlib.crc32(np.ascontiguousarray(block, "<u4").data)]


def _require(holds: bool, folder: Path, problem: str) -> None:
    if not holds:
        raise ProjectError(f"{folder} is damaged ({problem}); what is older is used")
