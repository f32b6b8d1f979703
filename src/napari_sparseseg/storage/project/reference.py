"""References to images outside a project: where one lies, and how it is recognised."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PureWindowsPath
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from napari_sparseseg._types import ArrayLike
from napari_sparseseg.storage._arrays import real_dtype_of, to_numpy
from napari_sparseseg.storage.formats._errors import shown

_N_PLACES = 24
_RUN = 16  # voxels that are looked at in each place
_GOLDEN = (0.8191725133961645, 0.6710436067037893, 0.5497004779019703, 0.4503, 0.3689)
"""Steps of a sequence that spreads evenly over up to five axes."""

_SHARES = ("\\\\", "//")
"""Windows connects, and logs in, as soon as it is asked whether such a path exists."""

_Text = Annotated[str, Field(max_length=4096)]


class Fingerprint(BaseModel):
    """What an image is recognised by: shape and dtype of its array, a hash of some of its voxels, size and time.

    `n_bytes` and `modified` (seconds since 1970) are those of its file, None for folders and URLs.
    """

    model_config = ConfigDict(frozen=True)

    shape: tuple[int, ...] = Field(max_length=8)
    dtype: str = Field(max_length=40)
    voxels: str = Field(max_length=64)
    n_bytes: int | None = None
    modified: float | None = None


class ImageReference(BaseModel):
    """Where an image lies; all None if it is only in memory.

    `path` is an absolute path or a URL, `relative` the way from the project's folder. `axes`, `level` and `series` are
    what `open_image` was told.
    """

    model_config = ConfigDict(frozen=True)

    path: _Text | None = None
    relative: _Text | None = None
    axes: Annotated[str, Field(max_length=8)] | None = None
    level: int = Field(0, ge=0)
    series: int = Field(0, ge=0)
    fingerprint: Fingerprint | None = None

    @property
    def is_url(self) -> bool:
        return self.path is not None and "://" in self.path

    def seen_from(self, project: Path) -> ImageReference:
        """The same reference for a project in another folder."""
        if self.path is None or self.is_url:
            return self
        return self.model_copy(update={"relative": _relative(Path(self.path), project)})


class ImageState(StrEnum):
    """What has become of an image since the project saw it."""

    SAME = "same"
    MOVED = "moved"  # it lies elsewhere: as far from the project as before
    CHANGED = "changed"
    MISSING = "missing"
    IN_MEMORY = "in memory"  # it never was in a file
    STORED = "stored"  # in the project
    UNASKED = "unasked"  # on the network, where nobody looks before the user has agreed


class ImageOrigin(StrEnum):
    """Where an image lies as seen from its project, which may be a stranger's and name whatever place it likes."""

    MEMORY = "memory"
    PROJECT = "project"  # stored in it
    NEAR = "near"  # in the folder in which the project lies, or below
    FAR = "far"  # elsewhere on this computer
    NETWORK = "network"  # a URL, or another computer's share


@dataclass(frozen=True, slots=True)
class ImageCheck:
    """The state of an image, where it was found, and a sentence for the user."""

    state: ImageState
    path: str | None = None
    message: str = ""


def refer_to(
    path: str | os.PathLike[str] | None,
    array: ArrayLike,
    project: Path,
    *,
    axes: str | None = None,
    level: int = 0,
    series: int = 0,
) -> ImageReference:
    """A reference to the image at a path or URL, whose voxels are `array`; reads a few of them."""
    if path is None:
        return ImageReference(fingerprint=fingerprint_of(array, None))
    text = os.fspath(path)
    if "://" in text:
        where, relative = text, None
    else:
        where = str(Path(text).absolute())
        relative = _relative(Path(where), project)
    found = fingerprint_of(array, where)
    return ImageReference(path=where, relative=relative, axes=axes, level=level, series=series, fingerprint=found)


def fingerprint_of(array: ArrayLike, path: str | None) -> Fingerprint:
    """Read runs of voxels at fixed places, and ask the file for its size and time."""
    shape = tuple(int(size) for size in array.shape)
    digest = hashlib.sha256()
    for number in range(_N_PLACES):
        place = [int((0.5 + (number + 1) * step) % 1 * size) for step, size in zip(_GOLDEN, shape, strict=False)]
        # none beyond the end, which not all arrays take
        index = (*(slice(p, p + 1) for p in place[:-1]), slice(place[-1], min(place[-1] + _RUN, shape[len(place) - 1])))
        voxels = np.ascontiguousarray(to_numpy(array[index], "image"))
        digest.update(voxels.astype(voxels.dtype.newbyteorder("<")).tobytes())
    n_bytes, modified = _size_and_time(path)
    dtype = real_dtype_of(array, "image").newbyteorder("=")
    return Fingerprint(shape=shape, dtype=str(dtype), voxels=digest.hexdigest(), n_bytes=n_bytes, modified=modified)


def origin_of(path: str | None, project: Path) -> ImageOrigin:
    """Where a path that a reference named leads; looks at files only to follow links of near ones."""
    if path is None:
        return ImageOrigin.MEMORY
    home = project.absolute().parent
    is_near = "://" not in path and Path(os.path.normpath(path)).is_relative_to(home)
    if not is_near:
        return ImageOrigin.NETWORK if "://" in path or path.startswith(_SHARES) else ImageOrigin.FAR
    return ImageOrigin.NEAR if Path(path).resolve().is_relative_to(home.resolve()) else ImageOrigin.FAR


def find(reference: ImageReference, project: Path, *, may_connect: bool = False) -> ImageCheck:
    """Look for an image by its reference, without opening it.

    What is on the network is `UNASKED`, and has no path, unless the user agreed that the program `may_connect`.
    """
    if reference.path is None:
        return ImageCheck(ImageState.IN_MEMORY, None, "the image was only in memory; open it again")
    if origin_of(reference.path, project) is ImageOrigin.NETWORK and not may_connect:
        message = f"the image lies on the network, at {shown(reference.path, 300)}; it is opened only if you agree"
        return ImageCheck(ImageState.UNASKED, None, message)
    if reference.is_url:
        return ImageCheck(ImageState.SAME, reference.path)
    near = None if not _is_relative(reference.relative) else os.path.normpath(project / str(reference.relative))
    for path, state in ((reference.path, ImageState.SAME), (near, ImageState.MOVED)):
        if path is not None and Path(path).exists():
            return _compared_file(reference, path, state)
    message = f"there is no image at {reference.path} any more; say where it is now. All paint is safe"
    return ImageCheck(ImageState.MISSING, None, message)


def compare(reference: ImageReference, array: Any, found: ImageCheck) -> ImageCheck:
    """Say whether an array is the image that was referred to; reads a few voxels."""
    known = reference.fingerprint
    if known is None:
        return found
    now = fingerprint_of(array, found.path)
    if now.shape != known.shape:
        what = f"its shape is {now.shape}, it was {known.shape}"
    elif (now.dtype, now.voxels) != (known.dtype, known.voxels):
        what = "its voxels have changed"
    else:
        state = ImageState.MOVED if found.state is ImageState.MOVED else ImageState.SAME
        return ImageCheck(state, found.path, found.message if state is ImageState.MOVED else "")
    message = f"the image has changed since it was painted on ({what}); the paint is kept as it is"
    return ImageCheck(ImageState.CHANGED, found.path, message)


def _compared_file(reference: ImageReference, path: str, state: ImageState) -> ImageCheck:
    known, (n_bytes, modified) = reference.fingerprint, _size_and_time(path)
    message = f"the image was found at {path}" if state is ImageState.MOVED else ""
    has_changed = known is not None and known.n_bytes is not None and known.n_bytes != n_bytes
    is_newer = known is not None and known.modified is not None and known.modified != modified
    if has_changed or (is_newer and state is ImageState.SAME):
        message = (
            f"{path} was written to since it was painted on; whether its voxels have changed shows once it is open"
        )
        return ImageCheck(ImageState.CHANGED, path, message)
    return ImageCheck(state, path, message)


def _size_and_time(path: str | None) -> tuple[int | None, float | None]:
    if path is None or "://" in path or not Path(path).is_file():
        return None, None
    found = Path(path).stat()
    return found.st_size, found.st_mtime


def _is_relative(path: str | None) -> bool:
    """Whether joining it to a folder keeps to this computer's disk: a drive or a share would replace the folder."""
    return path is not None and not (PureWindowsPath(path).anchor or PureWindowsPath(path).drive)


def _relative(path: Path, project: Path) -> str | None:
    try:
        return Path(os.path.relpath(path, project.absolute())).as_posix()
    except ValueError:  # another drive of Windows
        return None
