"""Which writer writes which file, and the checks before it starts."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from napari_sparseseg._types import ArrayLike
from napari_sparseseg.errors import InputError, InputTypeError
from napari_sparseseg.storage._arrays import checked_spacing, chunk_depth
from napari_sparseseg.storage.atomic import check_folder, checked_target, is_zarr, written_whole
from napari_sparseseg.storage.formats._errors import optional
from napari_sparseseg.storage.formats._geometry import Geometry
from napari_sparseseg.storage.formats._stack import Stack
from napari_sparseseg.storage.volume import ArrayVolume

_PACKAGE = __name__.rpartition(".")[0]


@dataclass(frozen=True, slots=True)
class _Format:
    name: str
    suffixes: tuple[str, ...]
    writer: str  # "module.function"
    is_kind: Callable[[Path], bool]
    library: tuple[str, str] | None = None  # module, extra
    is_wide: bool = False  # holds integers of 64 bit


def _starts_with(*magics: bytes) -> Callable[[Path], bool]:
    return lambda path: path.is_file() and _head(path, 16).startswith(magics)


def _head(path: Path, n_bytes: int) -> bytes:
    with path.open("rb") as file:
        return file.read(n_bytes)


def _is_nifti(path: Path) -> bool:
    if not path.is_file():
        return False
    head = _head(path, 348)
    return head[344:347] in (b"n+1", b"ni1") or head[4:7] in (b"n+2", b"ni2")


_FORMATS = (
    _Format("zarr", (".ome.zarr", ".zarr"), "", is_zarr),
    _Format(
        "TIFF",
        (".ome.tif", ".ome.tiff", ".tif", ".tiff"),
        "tiff.write_tiff",
        _starts_with(b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"),
    ),
    _Format("packed NIfTI", (".nii.gz",), "nifti.write_nifti", _starts_with(b"\x1f\x8b"), ("nibabel", "nifti")),
    _Format("NIfTI", (".nii",), "nifti.write_nifti", _is_nifti, ("nibabel", "nifti")),
    _Format("NPY", (".npy",), "npy.write_npy", _starts_with(b"\x93NUMPY"), is_wide=True),
    _Format("NRRD", (".nrrd",), "nrrd.write_nrrd", _starts_with(b"NRRD")),
)


def label_suffixes() -> tuple[str, ...]:
    """Ends of the names of files that `write_labels` writes."""
    return tuple(suffix for kind in _FORMATS for suffix in kind.suffixes)


def check_output(path: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Check that labels can be written to `path`, before any work is done for them.

    Raises
    ------
    InputError
        For a name whose end stands for no format, a library that is missing, a folder that does not exist or may not
        be written to, and for what lies at `path` already: it is replaced only if `overwrite` is set, and only if it
        is of the same format.
    """
    _checked(path, overwrite)


def write_labels(
    path: str | os.PathLike[str],
    labels: ArrayLike,
    *,
    spacing: Sequence[float] | None = None,
    offset: Sequence[float] | None = None,
    unit: str | None = "micrometer",
    geometry: Geometry | None = None,
    class_names: Mapping[int, str] | None = None,
    colors: Mapping[int, Sequence[float]] | None = None,
    overwrite: bool = False,
) -> None:
    """Write integer labels, (Z, Y, X) or (Y, X), in the format that the end of the name of `path` says.

    .ome.zarr and .zarr: OME-Zarr 0.5 with levels of resolution, names and colours (`storage.ome`). .tif and .tiff:
    ImageJ TIFF if it can hold them, else OME-TIFF; .ome.tif: OME-TIFF; packed with zlib. .nii and .nii.gz: NIfTI in
    millimetres. .nrrd. .npy: the bare array. Names and colours are kept by OME-Zarr only, the voxel size by all but
    NPY. Lazy labels are read slab by slab. The file appears at `path` when it is complete and on disk.

    Parameters
    ----------
    spacing
        Voxel size along the axes of the labels in `unit`; an image without depth may be given three numbers.
    offset
        Position of the first voxel along the same axes, which OME-Zarr alone keeps.
    unit
        UDUNITS name of a unit of length; plays no part without `spacing`.
    geometry
        That of the image that the labels belong to, `ImageFile.geometry`. Labels in its format, NIfTI or NRRD, get
        its orientation, position and voxel size instead of `spacing`; without it they have an unknown orientation.
    class_names, colors
        Name, and RGB or RGBA colour (integers 0..255 or floats 0..1), of class ids.
    overwrite
        Replace a file of the same format that lies at `path`.

    Raises
    ------
    InputError
        See `check_output`; and for unusable spacings, a geometry of another shape, names and colours, labels that the
        format cannot hold, and a disk that is full.
    InputTypeError
        If the labels are no integers.
    """
    target, kind = _checked(path, overwrite)
    if kind.name == "zarr":
        from napari_sparseseg.storage import ome

        options: dict[str, Any] = {"class_names": class_names, "colors": colors, "overwrite": overwrite}
        ome.write_labels(target, labels, spacing=spacing, offset=offset, unit=unit, **options)
        return
    stack = replace(_stack(labels, spacing, unit, is_wide=kind.is_wide), geometry=geometry)
    _check_geometry(stack)
    write = _writer(kind)
    with (
        written_whole(target, overwrite=overwrite, is_kind=kind.is_kind, kind=kind.name) as partial,
        partial.open("wb") as file,
    ):
        write(file, target, stack)


def _checked(path: str | os.PathLike[str], overwrite: bool) -> tuple[Path, _Format]:
    kind = _format_of(path)
    target = checked_target(path, overwrite=overwrite, is_kind=kind.is_kind, kind=kind.name)
    check_folder(target)
    if kind.library:
        optional(kind.library[0], target, kind.library[1])
    return target, kind


def _format_of(path: Any) -> _Format:
    name = os.fspath(path) if isinstance(path, str | os.PathLike) else ""
    for kind in _FORMATS:
        if str(name).lower().rstrip("/").endswith(kind.suffixes):
            return kind
    if not isinstance(path, str | os.PathLike):
        raise InputTypeError(f"path is of type {type(path).__name__}, but a str or pathlib.Path is needed")
    raise InputError(f"{name} does not say in which format to write; end its name with {', '.join(label_suffixes())}")


def _writer(kind: _Format) -> Callable[[BinaryIO, Path, Stack], None]:
    module, _, function = kind.writer.partition(".")
    found: Callable[[BinaryIO, Path, Stack], None] = getattr(importlib.import_module(f"{_PACKAGE}.{module}"), function)
    return found


def _stack(labels: ArrayLike, spacing: Sequence[float] | None, unit: str | None, *, is_wide: bool) -> Stack:
    volume = ArrayVolume(labels, name="labels")
    if volume.dtype.kind not in "iu":
        raise InputTypeError(f"labels have dtype {volume.dtype}, but integers are needed; convert with astype('uint8')")
    n_axes = len(volume.spatial_shape)
    voxel = checked_spacing(spacing, n_axes)
    return Stack(
        volume=volume,
        dtype=volume.dtype if is_wide or volume.dtype.itemsize < 8 else np.dtype(f"{volume.dtype.kind}4"),
        chunk_depth=chunk_depth(labels),
        spacing=None if spacing is None else voxel[-n_axes:],
        unit=unit,
    )


def _check_geometry(stack: Stack) -> None:
    if stack.geometry is not None and stack.geometry.shape != stack.shape:
        raise InputError(
            f"the geometry is that of an image of shape {stack.geometry.shape}, but the labels have {stack.shape}; "
            "leave it out for a part of the image"
        )
