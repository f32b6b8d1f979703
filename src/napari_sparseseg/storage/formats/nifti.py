"""NIfTI: x, y, z on disk, z, y, x here."""

from __future__ import annotations

import gzip
import math
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from napari_sparseseg.errors import InputError
from napari_sparseseg.storage.formats._bounds import HEADER_LIMIT, check_claim
from napari_sparseseg.storage.formats._errors import optional
from napari_sparseseg.storage.formats._geometry import Affine, Geometry
from napari_sparseseg.storage.formats._image import Opened, ReadOptions
from napari_sparseseg.storage.formats._lazy import LoadedOnce
from napari_sparseseg.storage.formats._stack import Stack
from napari_sparseseg.storage.units import factor

_AXES = "CTZYX"  # its axes 1 to 5, from the back
_UNITS = {"mm": "millimeter", "micron": "micrometer", "meter": "meter"}
_LONGEST_AXIS = 2**15 - 1
_DATA_OFFSETS = {348: 352, 540: 544}  # by the size of the header: NIfTI-1 and -2


class _Reversed:
    """A nibabel proxy with its axes from the back to the front; it reads what is sliced."""

    def __init__(self, proxy: Any, dtype: np.dtype[Any]) -> None:
        self._proxy, self.dtype = proxy, dtype
        self.shape: tuple[int, ...] = tuple(proxy.shape[::-1])

    def __getitem__(self, index: tuple[int | slice, ...]) -> npt.NDArray[Any]:
        block: npt.NDArray[Any] = np.asarray(self._proxy[index[::-1]]).T
        return block


def open_nifti(path: Path | str, _options: ReadOptions) -> Opened:
    """A NIfTI-1 or -2 image, 2D to 5D: axes ZYX, TZYX or CTZYX, in the order in which the voxels are stored.

    Intensities are scaled as the header says. The orientation of the header is not applied: no axis is flipped.
    """
    nibabel = optional("nibabel", path, "nifti")
    image = _loaded(nibabel, path)
    header = image.header
    array = _whole(image, path) if str(path).lower().endswith(".gz") else _in_place(image, path)
    unit = _UNITS.get(header.get_xyzt_units()[0]) if hasattr(header, "get_xyzt_units") else None
    steps = tuple(float(zoom) for zoom in header.get_zooms())[::-1]
    geometry = _geometry(nibabel, header, tuple(array.shape))
    return Opened(array, _AXES[-len(array.shape) :], "NIfTI", steps=steps, unit=unit, geometry=geometry)


def _geometry(nibabel: Any, header: Any, shape: tuple[int, ...]) -> Geometry | None:
    """Both affines of the header with their codes; None if these say that it knows no space."""
    codes = {name: int(header[f"{name}_code"]) for name in ("qform", "sform")}
    if not any(codes.values()):
        return None
    try:
        with np.errstate(invalid="ignore"):  # of sizes that are not finite
            qform = header.get_qform()
    except (ValueError, nibabel.spatialimages.HeaderDataError):  # no rotation, but the sform may be fine
        codes["qform"], qform = 0, np.diag([*header["pixdim"][1:4], 1.0])
    # without a code a qform still holds the voxel size, and a sform nothing
    matrices = {"qform": qform} | ({"sform": header.get_sform()} if codes["sform"] else {})
    affines = {name: _affine(matrix, codes[name], len(shape)) for name, matrix in matrices.items()}
    return Geometry("NIfTI", shape, affines, (header.get_xyzt_units()[0],))


def _affine(matrix: npt.NDArray[Any], code: int, n_axes: int) -> Affine:
    *rows, origin = (tuple(map(float, column)) for column in matrix[:3, [2, 1, 0, 3]].T)
    n_outside, n_spatial = max(n_axes - 3, 0), min(n_axes, 3)
    hidden = tuple(row for row in rows[:-n_spatial] if any(row))
    return Affine(code, (*[None] * n_outside, *rows[-n_spatial:]), origin, hidden)


def _loaded(nibabel: Any, path: Path | str) -> Any:
    """The image, as NIfTI and nothing else: nibabel would also try formats that need a second file."""
    kinds = (nibabel.Nifti1Image, nibabel.Nifti2Image)
    kind = next((kind for kind in kinds if kind.path_maybe_image(str(path))[0]), None)
    if kind is None:
        raise ValueError("no header of NIfTI")
    with nibabel.openers.ImageOpener(str(path)) as file:
        # without what lies between header and voxels, which may claim any size
        header = kind.header_class(file.read(kind.header_class.sizeof_hdr), check=False)
    offset = float(header["vox_offset"])
    if not 0 <= offset <= HEADER_LIMIT:
        raise InputError(f"{path} has its voxels {offset:g} bytes behind its beginning; copy it again from its source")
    return kind.from_filename(str(path))


def _end(image: Any) -> int:
    end: int = image.dataobj.offset + math.prod(image.shape) * image.get_data_dtype().itemsize
    return end


def _in_place(image: Any, path: Path | str) -> _Reversed:
    if _end(image) > Path(path).stat().st_size:
        raise InputError(f"{path} is cut short, it ends before its voxels do; copy it again from its source")
    return _Reversed(image.dataobj, _dtype(image))


def _whole(image: Any, path: Path | str) -> LoadedOnce:
    check_claim(path, "gzip", _end(image))
    # gzip has no way to the middle: each box would unpack all that lies before it
    return LoadedOnce(image.shape[::-1], _dtype(image), lambda: np.asarray(image.dataobj).T)


def _dtype(image: Any) -> np.dtype[Any]:
    """Type of the voxels after scaling, which only a scaled voxel shows."""
    dtype: np.dtype[Any] = np.dtype(image.get_data_dtype())
    if dtype.kind in "iuf" and 0 not in image.shape:
        dtype = np.asarray(image.dataobj[(slice(0, 1),) * len(image.shape)]).dtype
    return dtype


def write_nifti(file: BinaryIO, path: Path, stack: Stack) -> None:
    """Write labels with the geometry of a NIfTI image, else with their voxel size in millimetres and no orientation.

    They are compressed if `path` ends with .gz.

    Raises `InputError` for a unit that cannot be told in millimetres.
    """
    header = _header(path, stack)
    if path.name.lower().endswith(".gz"):
        with gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0) as packed:
            _write(packed, header, stack)
    else:
        _write(file, header, stack)


def _write(file: Any, header: Any, stack: Stack) -> None:
    header.write_to(file)  # and four bytes that say that nothing but voxels follows
    # z, y, x in C order is x, y, z in Fortran order
    file.writelines(slab.tobytes() for slab in stack.slabs())


def _header(path: Path, stack: Stack) -> Any:
    nibabel = optional("nibabel", path, "nifti")
    # else in the byte order of this machine
    kind = nibabel.Nifti2Header if max(stack.shape) > _LONGEST_AXIS else nibabel.Nifti1Header
    header = kind(endianness="<")
    header.set_data_dtype(stack.dtype)
    header.set_data_shape(stack.shape[::-1])
    header.set_data_offset(_DATA_OFFSETS[int(header["sizeof_hdr"])])
    if stack.geometry is not None and stack.geometry.format == "NIfTI":
        _set_geometry(header, stack.geometry)
        return header
    # no affine: any would claim that left and right are known
    header.set_zooms(_millimetres(stack, path)[: len(stack.shape)])
    header.set_xyzt_units(xyz="mm" if stack.spacing and stack.unit else "unknown")
    return header


def _set_geometry(header: Any, geometry: Geometry) -> None:
    header.set_qform(_matrix(geometry.affines["qform"]), code=geometry.affines["qform"].space)
    if "sform" in geometry.affines:
        header.set_sform(_matrix(geometry.affines["sform"]), code=geometry.affines["sform"].space)
    header.set_xyzt_units(xyz=geometry.units[0])


def _matrix(affine: Affine) -> npt.NDArray[np.float64]:
    columns = [np.array(row) for row in (*affine.directions[::-1], *affine.others) if row is not None][:3]
    if len(columns) == 2:
        normal = np.cross(columns[0], columns[1])
        columns.append(normal / (np.linalg.norm(normal) or 1.0))
    matrix = np.eye(4)
    matrix[:3, :3] = np.transpose(columns)
    matrix[:3, 3] = affine.origin
    return matrix


def _millimetres(stack: Stack, path: Path) -> list[float]:
    """Voxel size along x, y, z."""
    if stack.spacing is None:
        return [1.0, 1.0, 1.0]
    scale = factor(stack.unit, "millimeter") if stack.unit else 1.0
    if scale is None:
        raise InputError(f"{path} holds lengths in millimeter, but {stack.unit!r} is not known; use e.g. 'micrometer'")
    return [*(size * scale for size in stack.spacing[::-1]), 1.0][:3]
