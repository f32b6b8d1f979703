"""Whether an image is that of an earlier run, whose result may then be kept.

Unlike the fingerprint by which a project recognises its image, it changes with every voxel: all of an array in memory
count, and of an image in files the size of each file and when it was last written to. Of others, on the network or
behind a graph of tasks, only some voxels can be compared.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr
from zarr.storage import LocalStore

from napari_sparseseg._types import ArrayLike
from napari_sparseseg.storage._arrays import to_numpy
from napari_sparseseg.storage._origin import Origin
from napari_sparseseg.storage.project.reference import fingerprint_of


class Identity(NamedTuple):
    """A hash, and whether every change of the image changes it."""

    digest: str
    is_certain: bool


def identity_of(image: ArrayLike) -> Identity:
    """The identity of an image of any kind; reads all of an array in memory or mapped there, some voxels of others."""
    views: list[Any] = []
    sources = list(_sources_of(image, views))
    states = [_state(source) for source in sources if not isinstance(source, np.ndarray)]
    told = [fingerprint_of(image, None).model_dump(mode="json"), views, states]
    if len(states) < len(sources):
        told.append(_hash(image))
    digest = hashlib.sha256(json.dumps(told).encode()).hexdigest()
    return Identity(digest, all(state is not None for state in states))


def _sources_of(array: object, views: list[Any]) -> Iterator[object]:
    """What an array reads in the end; notes how it is looked at."""
    origin = getattr(array, "origin", None)
    if not isinstance(origin, Origin):
        yield array
        return
    views.append(origin.view)
    for source in origin.sources:
        yield from _sources_of(source, views)


def _state(source: object) -> str | None:
    """A hash of name, size and time of all files of an array or path on this computer; None for what lies elsewhere."""
    place = source
    if isinstance(source, zarr.Array):
        store = source.store
        place = Path(store.root, source.path) if isinstance(store, LocalStore) else None
    if not isinstance(place, Path):
        return None
    below = sorted(Path(folder, name) for folder, _, names in os.walk(place) for name in names)
    digest = hashlib.sha256()
    for file in [place] if place.is_file() else below:
        with suppress(FileNotFoundError):  # somebody is writing it
            found = file.stat()
            told = [file.relative_to(place).as_posix(), found.st_size, found.st_mtime_ns]
            digest.update(json.dumps(told).encode())
    return digest.hexdigest()


def _hash(image: ArrayLike) -> str:
    """Of all voxels, slice by slice."""
    digest = hashlib.sha256()
    rest = [slice(0, size) for size in image.shape[1:]]
    for first in range(image.shape[0]):
        digest.update(to_numpy(image[(slice(first, first + 1), *rest)], "image").tobytes())
    return digest.hexdigest()
