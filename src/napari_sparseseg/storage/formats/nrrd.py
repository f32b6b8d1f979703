"""NRRD: fastest axis first in its header, last here."""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from napari_sparseseg.errors import InputError
from napari_sparseseg.storage.formats._axes import UNKNOWN
from napari_sparseseg.storage.formats._bounds import HEADER_LIMIT, beside, check_claim, unpacked
from napari_sparseseg.storage.formats._errors import optional, shown
from napari_sparseseg.storage.formats._geometry import Affine, Geometry
from napari_sparseseg.storage.formats._image import Opened, ReadOptions
from napari_sparseseg.storage.formats._lazy import LoadedOnce
from napari_sparseseg.storage.formats._stack import Stack
from napari_sparseseg.storage.units import Steps, in_one_unit, unit_name

_TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": (
        "longlong",
        "long long",
        "long long int",
        "signed long long",
        "signed long long int",
        "int64",
        "int64_t",
    ),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
_DTYPES = {name: np.dtype(code) for code, names in _TYPES.items() for name in names}
_TYPE_NAMES = {"i1": "int8", "u1": "uint8", "i2": "int16", "u2": "uint16", "i4": "int32", "u4": "uint32"}
_BESIDE = {"data file", "datafile", "line skip", "lineskip", "byte skip", "byteskip"}
_PACKINGS = {
    "raw": "raw",
    "gzip": "gzip",
    "gz": "gzip",
    "bzip2": "bzip2",
    "bz2": "bzip2",
    **dict.fromkeys(("ASCII", "ascii", "text", "txt"), "text"),
}
_SPATIAL_KINDS = ("domain", "space")
_SPACES = {  # with the number of their dimensions
    **dict.fromkeys(("right-anterior-superior", "ras", "left-anterior-superior", "las"), 3),
    **dict.fromkeys(("left-posterior-superior", "lps", "scanner-xyz", "3d-right-handed", "3d-left-handed"), 3),
    **dict.fromkeys(("right-anterior-superior-time", "rast", "left-anterior-superior-time", "last"), 4),
    **dict.fromkeys(("left-posterior-superior-time", "lpst", "scanner-xyz-time"), 4),
    **dict.fromkeys(("3d-right-handed-time", "3d-left-handed-time"), 4),
}
_KINDS = {"time": "T", "list": "C", "vector": "C", "RGB-color": "C", "RGBA-color": "C", "none": "C", "???": UNKNOWN}


def open_nrrd(path: Path | str, _options: ReadOptions) -> Opened:
    """An NRRD file with its data in it or beside it; its orientation is not applied: no axis is flipped.

    Uncompressed data within the file is mapped into memory, other data is loaded when it is first read.
    """
    nrrd = optional("nrrd", path, "nrrd")
    with Path(path).open("rb") as file:
        header = nrrd.read_header(_lines(file))
        offset = file.tell()
    shape = tuple(int(size) for size in header["sizes"])[::-1]
    dtype = _dtype(header, path)
    array = _array(path, header, shape, dtype, offset)
    steps, unit = _steps(header, len(shape))
    files = (beside(path, name),) if (name := _data_file(header)) is not None else ()
    geometry = _geometry(header, shape)
    axes = _axes(header, len(shape))
    return Opened(array, axes, "NRRD", steps=steps, unit=unit, files=files, geometry=geometry)


def _lines(file: BinaryIO) -> Iterator[str]:
    """Lines, up to where no header ends any more; decoded here, since pynrrd would leave out the letter of µm."""
    while line := file.readline(HEADER_LIMIT - file.tell()):
        try:
            yield line.decode()
        except UnicodeDecodeError:
            yield line.decode("latin-1")


def _dtype(header: Mapping[str, Any], path: Path | str) -> np.dtype[Any]:
    if header["type"] not in _DTYPES:
        raise InputError(f"{path} holds values of type {shown(header['type'])!r}; save the image as numbers")
    return _DTYPES[header["type"]].newbyteorder(">" if header.get("endian") == "big" else "<")


def _array(
    path: Path | str, header: Mapping[str, Any], shape: tuple[int, ...], dtype: np.dtype[Any], offset: int
) -> Any:
    if header["encoding"] == "raw" and not _BESIDE & set(header):
        return np.memmap(path, dtype, "r", offset, shape)
    place = _Place(path, header, offset)
    place.check(shape, dtype)
    return LoadedOnce(shape, dtype, lambda: place.load(shape, dtype))


def _data_file(header: Mapping[str, Any]) -> str | None:
    """Name of the file that holds the voxels; None if they follow the header."""
    name: str | None = header.get("data file", header.get("datafile"))
    return name


class _Place:
    """Where the voxels are and how they are packed. Nothing is opened outside the folder of the header."""

    def __init__(self, path: Path | str, header: Mapping[str, Any], offset: int) -> None:
        self._header = path
        name = _data_file(header)
        self._path = Path(path) if name is None else beside(path, name)
        self._start = offset if name is None else 0
        self._n_lines = int(header.get("line skip", header.get("lineskip", 0)))
        self._n_bytes = int(header.get("byte skip", header.get("byteskip", 0)))
        self._packing = _PACKINGS.get(header["encoding"])
        is_at_end = self._n_bytes == -1 and self._packing == "raw"
        if self._packing is None or self._n_lines < 0 or (self._n_bytes < 0 and not is_at_end):
            raise InputError(f"{path} is packed in a way that is not read ({header['encoding']:.40}); save it as raw")
        if not self._path.is_file():
            raise InputError(f"{path} has its voxels in {self._path.name}, which is missing; put it into the folder")

    def check(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Raise `InputError` if there cannot be as many voxels."""
        if self._packing == "text":  # at least a digit and a space for each
            check_claim(self._header, "raw", 2 * math.prod(shape) - 1, self._path)
        else:
            check_claim(self._header, str(self._packing), math.prod(shape) * dtype.itemsize, self._path)

    def load(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Read the voxels, and no more than these; raises ValueError if there are fewer."""
        n_bytes = math.prod(shape) * dtype.itemsize
        with self._path.open("rb") as file:
            file.seek(self._start)
            for _ in range(self._n_lines):
                if not file.readline():
                    break
            if self._packing == "text":
                file.seek(self._n_bytes, os.SEEK_CUR)
                return np.fromfile(file, dtype, math.prod(shape), sep=" ").reshape(shape)
            if self._packing != "raw":
                content = unpacked(file, str(self._packing), self._n_bytes, n_bytes)
                return np.frombuffer(content, dtype).reshape(shape)
            file.seek(*((-n_bytes, os.SEEK_END) if self._n_bytes == -1 else (self._n_bytes, os.SEEK_CUR)))
            return np.fromfile(file, dtype, math.prod(shape)).reshape(shape)


def _axes(header: Mapping[str, Any], n_axes: int) -> str:
    """Letters of the axes, slowest first; "?" for all if the header does not tell space from other axes."""
    letters = _letters(header, n_axes)
    n_spatial = letters.count("s")
    if not 2 <= n_spatial <= 3:
        return UNKNOWN * n_axes
    spatial = iter("XYZ")
    return "".join(next(spatial) if letter == "s" else letter for letter in letters)[::-1]


def _letters(header: Mapping[str, Any], n_axes: int) -> list[str]:
    directions = header.get("space directions")
    kinds = header.get("kinds", [UNKNOWN] * n_axes)
    is_spatial = [kind in _SPATIAL_KINDS for kind in kinds]
    if directions is not None:
        is_spatial = [_length(row) is not None for row in directions]
    return ["s" if space else _KINDS.get(kind, "C") for space, kind in zip(is_spatial, kinds, strict=True)]


def _steps(header: Mapping[str, Any], n_axes: int) -> tuple[Steps | None, str | None]:
    """Distance of neighbours along each axis, slowest first, and the unit."""
    rows = header.get("space directions")
    lengths = [_length(row) for row in rows] if rows is not None else list(header.get("spacings", ()))
    if len(lengths) != n_axes:
        return None, None
    space_units = [unit_name(unit) for unit in header.get("space units", ())]
    units = [unit_name(unit) for unit in header.get("units", [None] * n_axes)]
    if space_units:
        units = [space_units[0]] * n_axes
    return in_one_unit(tuple(lengths[::-1]), units[::-1])


def _length(row: Sequence[float] | None) -> float | None:
    """Length of an axis' direction; None for the row of an axis that lies outside space."""
    if row is None or not np.isfinite(row).all():
        return None
    return math.sqrt(math.fsum(float(part) ** 2 for part in row))


def _geometry(header: Mapping[str, Any], shape: tuple[int, ...]) -> Geometry | None:
    """Directions, origin and name of the space; None without directions, or where these do not fit together."""
    rows = header.get("space directions")
    if rows is None or len(rows) != len(shape):
        return None
    directions = tuple(None if _length(row) is None else tuple(map(float, row)) for row in rows)[::-1]
    n_dimensions = max((len(row) for row in directions if row is not None), default=0)
    name = str(header.get("space", ""))
    space = name if _SPACES.get(name.lower()) == n_dimensions else n_dimensions
    origin = header.get("space origin")
    vectors = [row for row in (*directions, origin) if row is not None]
    units = tuple(str(unit) for unit in header.get("space units", ()))
    if any(len(row) != n_dimensions for row in vectors) or len(units) not in (0, n_dimensions):
        return None
    place = None if origin is None or _length(origin) is None else tuple(map(float, origin))
    return Geometry("NRRD", shape, {"space": Affine(space, directions, place)}, units)


def write_nrrd(file: BinaryIO, _path: Path, stack: Stack) -> None:
    """Write labels with the geometry of a NRRD image, else in a space without name; packed with gzip."""
    file.write(_header(stack).encode("ascii"))
    packer = zlib.compressobj(6, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    file.writelines(packer.compress(slab.tobytes()) for slab in stack.slabs())
    file.write(packer.flush())


def _header(stack: Stack) -> str:
    n_axes = len(stack.shape)
    fields = {
        "type": _TYPE_NAMES[stack.dtype.str[1:]],
        "dimension": n_axes,
        "sizes": " ".join(str(size) for size in stack.shape[::-1]),
        "kinds": " ".join(["domain"] * n_axes),
        "endian": "little",
        "encoding": "gzip",
    }
    # the space must come before everything that rests on it
    if stack.geometry is not None and stack.geometry.format == "NRRD":
        affine = stack.geometry.affines["space"]
        is_named = isinstance(affine.space, str)
        fields = {"space" if is_named else "space dimension": affine.space} | fields
        fields["space directions"] = _vectors([row for row in affine.directions[::-1] if row is not None])
        if affine.origin is not None:
            fields["space origin"] = _vectors([affine.origin])
        if stack.geometry.units:
            fields["space units"] = _quoted(stack.geometry.units)
    elif stack.spacing is not None:
        fields = {"space dimension": n_axes} | fields
        fields["space directions"] = _vectors(np.diag(stack.spacing[::-1]).tolist())
        if stack.unit:
            fields["space units"] = _quoted([stack.unit] * n_axes)
    return "\n".join(["NRRD0004", *(f"{name}: {value}" for name, value in fields.items()), "", ""])


def _vectors(rows: Sequence[Sequence[float]]) -> str:
    return " ".join(f"({','.join(repr(float(part)) for part in row)})" for row in rows)


def _quoted(units: Sequence[str]) -> str:
    """Units as a header in ASCII holds them."""
    names = [unit if unit.isascii() and unit.isprintable() else unit_name(unit) or "" for unit in units]
    return " ".join(f'"{name.replace(chr(34), "")}"' for name in names)
