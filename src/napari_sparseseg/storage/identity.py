"""Whether an image is that of an earlier run, whose result may then be kept.

Unlike the fingerprint by which a project recognises its image, it changes with every voxel: all of an array in memory
count, and of a file or folder when it was last written to. Of others, on the network or behind a graph of tasks, only
some voxels can be compared.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import zarr
from zarr.storage import LocalStore

from napari_sparseseg._types import ArrayLike
from napari_sparseseg.storage.project.reference import fingerprint_of


class Identity(NamedTuple):
    """A hash, and whether every change of the image changes it."""

    digest: str
    is_certain: bool


def identity_of(image: ArrayLike) -> Identity:
    """The identity of an image of any kind; reads all of an array in memory, some voxels of others."""
    looks = fingerprint_of(image, None).model_dump(mode="json")
    if isinstance(image, np.ndarray):
        return _identity(looks, _hash(image), is_certain=True)
    place = _local_place(image)
    return _identity(looks, [] if place is None else _last_written(place), is_certain=place is not None)


def _local_place(array: object) -> Path | None:
    """The file or folder on this computer that holds an array's voxels; None if there is none that is known."""
    for origin in getattr(array, "origins", (array,)):
        if isinstance(origin, zarr.Array) and isinstance(origin.store, LocalStore):
            return Path(origin.store.root, origin.path)
        if isinstance(origin, Path):
            return origin
    return None


def _identity(looks: object, rest: object, *, is_certain: bool) -> Identity:
    return Identity(hashlib.sha256(json.dumps([looks, rest]).encode()).hexdigest(), is_certain)


def _hash(array: npt.NDArray[np.generic]) -> str:
    digest = hashlib.sha256()
    for plane in np.atleast_2d(array):  # one by one: views in another order are copied to be hashed
        digest.update(plane.tobytes())
    return digest.hexdigest()


def _last_written(place: Path) -> list[int]:
    """Number and size of all files, and the latest time of a change in nanoseconds."""
    if place.is_file():
        return _sum_up([place.stat()])
    return _sum_up([Path(folder, name).stat() for folder, _, names in os.walk(place) for name in names])


def _sum_up(files: list[os.stat_result]) -> list[int]:
    return [len(files), sum(file.st_size for file in files), max((file.st_mtime_ns for file in files), default=0)]
