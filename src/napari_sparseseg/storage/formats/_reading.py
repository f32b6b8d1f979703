"""Which reader opens which file."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_sparseseg.errors import InputError, InputTypeError
from napari_sparseseg.storage._arrays import plain_int
from napari_sparseseg.storage.atomic import ZARR_FILES, is_safetensors
from napari_sparseseg.storage.formats._errors import may_not_be_read, readable
from napari_sparseseg.storage.formats._image import ImageFile, Opened, ReadOptions, presented, without_channel

_PACKAGE = __name__.rpartition(".")[0]


@dataclass(frozen=True, slots=True)
class _Format:
    """A reader, as "module.function", so that its libraries are imported when the first such file is opened."""

    name: str
    suffixes: tuple[str, ...]
    image: str
    annotation: str = ""


_ZARR = _Format("zarr", (".zarr",), "omezarr.open_zarr", "omezarr.open_zarr_labels")
_FORMATS = (
    _Format("TIFF", (".tif", ".tiff", ".btf", ".tf8"), "tiff.open_tiff"),
    _ZARR,
    _Format("NPY", (".npy",), "npy.open_npy"),
    _Format("NPZ", (".npz",), "npy.refuse_npz"),
    _Format("NIfTI", (".nii", ".nii.gz"), "nifti.open_nifti"),
    _Format("NRRD", (".nrrd", ".nhdr"), "nrrd.open_nrrd"),
    _Format("an ilastik project", (".ilp",), "ilastik.refuse_image", "ilastik.open_ilastik"),
)


def open_image(path: str | os.PathLike[str], *, axes: str | None = None, level: int = 0, series: int = 0) -> ImageFile:
    """Open an image file, whose voxels stay on disk until they are sliced.

    TIFF (OME, ImageJ, BigTIFF, plain), OME-Zarr 0.4 and 0.5, also one image in a group, zarr arrays, NPY, NIfTI and
    NRRD. A folder is taken for a zarr whatever its name, and a zarr may be a URL that fsspec opens.

    Parameters
    ----------
    axes : str, optional
        Letters of T, C, Z, Y, X for the axes of the array in the file, e.g. "CZYX"; NIfTI and NRRD count from their
        slowest axis. Without it the file's own are used, or 2 axes are taken for YX, 3 for ZYX, and 4 for ZYX with
        channels if just one axis is tiny.
    level
        Level of resolution, 0 is the finest.
    series
        Which image of a TIFF, or of a zarr of bioformats2raw, counted from 0.

    Returns
    -------
    ImageFile
        The lazy array with its axes, voxel size, unit, and names of channels.

    Raises
    ------
    InputError
        If there is no such file, it is damaged or of an unknown format, a library is missing, or the axes are
        ambiguous. The message names the path and says what to do.
    InputTypeError
        If `path` is no path, or a number no integer.
    """
    return _opened(path, ReadOptions(axes, *_checked_numbers(level, series)), is_annotation=False)


def open_annotation(
    path: str | os.PathLike[str],
    *,
    axes: str | None = None,
    level: int = 0,
    series: int = 0,
    has_classes: bool = False,
) -> ImageFile:
    """Open painted labels, from any format of `open_image` or an ilastik project.

    A channel axis of one channel is left out. Of an OME-Zarr image that holds one label image, this one is opened. Of
    an ilastik project (Pixel Classification), `series` is the lane, i.e. which of the project's images. What is read
    is checked where it is used (`storage.annotation.read_annotation`), codes for instance.

    Parameters, results and errors are those of `open_image`; besides, more than one channel is an `InputError`, unless
    the channels may be classes that overlap (`has_classes`).
    """
    options = ReadOptions(axes, *_checked_numbers(level, series))
    opened = _opened(path, options, is_annotation=True)
    axis = opened.channel_axis
    return opened if has_classes and axis is not None and opened.array.shape[axis] > 1 else without_channel(opened)


def image_suffixes() -> tuple[str, ...]:
    """Ends of the names of files that `open_image` reads."""
    return tuple(suffix for kind in _FORMATS for suffix in kind.suffixes if kind.name not in ("NPZ", _FORMATS[-1].name))


def annotation_suffixes() -> tuple[str, ...]:
    """Ends of the names of files that `open_annotation` reads."""
    return (*image_suffixes(), ".ilp")


def _opened(path: str | os.PathLike[str], options: ReadOptions, *, is_annotation: bool) -> ImageFile:
    place = _checked_path(path)
    kind = _format_of(place)
    reader = _function((is_annotation and kind.annotation) or kind.image)
    with readable(place, kind.name):
        _check_readable(place)
        return presented(reader(place, options), place, reader, options)


def _function(name: str) -> Callable[[Path | str, ReadOptions], Opened]:
    module, _, function = name.partition(".")
    found: Callable[[Path | str, ReadOptions], Opened] = getattr(
        importlib.import_module(f"{_PACKAGE}.{module}"), function
    )
    return found


def _checked_numbers(level: Any, series: Any) -> tuple[int, int]:
    return plain_int(level, "level"), plain_int(series, "series")


def _checked_path(path: Any) -> Path | str:
    if not isinstance(path, str | os.PathLike):
        raise InputTypeError(f"path is of type {type(path).__name__}, but a str or pathlib.Path is needed")
    text = os.fspath(path)
    if not isinstance(text, str):
        raise InputTypeError(f"path {text!r} is bytes, but a str or pathlib.Path is needed")
    if "://" in text:
        return text.rstrip("/")
    place = Path(text)
    try:
        exists = place.exists()
    except PermissionError as error:
        raise may_not_be_read(place) from error
    except (OSError, ValueError) as error:  # a name with a null byte, or too long
        raise InputError(f"{text!r} cannot be the name of a file ({error}); check the path") from error
    if not exists:
        raise InputError(f"{place} does not exist{_nearest_folder(place)}; check the path")
    return place


def _nearest_folder(place: Path) -> str:
    missing = next((parent for parent in reversed(place.parents) if not parent.exists()), None)
    return f" (nor does {missing})" if missing else ""


def _format_of(place: Path | str) -> _Format:
    if isinstance(place, str):
        return _ZARR
    if place.is_dir():
        return _checked_folder(place)
    name = place.name.lower()
    if not place.is_file():
        raise InputError(f"{place} is a pipe or a device, which is not read in parts; save it as a file first")
    if name.endswith((".zarr", ".zarr.zip")):
        raise InputError(f"{place} is a file, but a zarr is a folder; if it is an archive, unpack it")
    for kind in _FORMATS:
        if name.endswith(kind.suffixes):
            return kind
    if is_safetensors(place):
        raise InputError(f"{place} is a model and no image; give the path of an image")
    raise InputError(
        f"{place} is of no format that is read here; convert it to one of {', '.join(annotation_suffixes())}, e.g. "
        "with Fiji"
    )


def _checked_folder(place: Path) -> _Format:
    try:
        names = {entry.name for entry in place.iterdir()}
    except PermissionError:
        return _ZARR  # where it is read, the message is that of any file
    if not names & set(ZARR_FILES):
        raise InputError(f"{place} is a folder and no zarr; give the path of an image file in it")
    return _ZARR


def _check_readable(place: Path | str) -> None:
    if isinstance(place, str):
        return
    if place.is_dir():
        next(place.iterdir())
        return
    with place.open("rb") as file:
        if not file.read(1):
            raise InputError(f"{place} is empty (0 bytes); copy it again from its source")
