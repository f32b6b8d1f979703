"""What may be read as an array of real numbers, and how: shared by images, annotations and labels."""

from __future__ import annotations

import operator
import os
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_sparseseg._types import Spacing
from napari_sparseseg.errors import InputError, InputTypeError

_SMALLEST, _LARGEST = 1e-30, 1e30  # of lengths: products of several, and their reciprocals, stay finite
_REAL_KINDS = "biuf"
_REMEDIES = {
    "c": "take one real quantity of it first, e.g. numpy.abs",
    "O": "convert it to numbers first, e.g. with astype('float32')",
}


def check_array_like(array: object, name: str) -> None:
    """Refuse whatever is not an array: paths, lists, None, masked arrays.

    Raises `InputTypeError` with the type that was found and how to make an array of it.
    """
    if isinstance(array, str | os.PathLike):
        raise InputTypeError(
            f"{name} is a path ({os.fspath(array)!r}), not an array; open it first, e.g. with tifffile.imread or "
            "zarr.open_array"
        )
    if isinstance(array, np.ma.MaskedArray):
        raise InputTypeError(_masked_message(name))
    has_all = hasattr(array, "shape") and getattr(array, "dtype", None) is not None and hasattr(array, "__getitem__")
    if not has_all:
        remedy = "convert it with numpy.asarray" if isinstance(array, list | tuple) else "pass one"
        raise InputTypeError(
            f"{name} is of type {type(array).__name__}, but an array is needed (numpy, zarr, dask, or anything "
            f"with shape, dtype and slicing); {remedy}"
        )


def behind_dask(array: Any) -> Any:
    """The zarr array that a dask array is nothing but a view of, as readers of images make it; any other as it is.

    Of an image of 100 GB each look at a dask array goes through a graph of all its chunks, which takes seconds.
    """
    layers = getattr(getattr(array, "dask", None), "layers", {})
    origin = f"original-{getattr(array, 'name', '')}"
    if len(layers) != 2 or origin not in layers:
        return array
    found = layers[origin].get(origin)
    is_zarr = type(found).__module__.partition(".")[0] == "zarr" and hasattr(found, "chunks")
    return found if is_zarr and (found.shape, found.dtype) == (array.shape, array.dtype) else array


def shape_of(array: Any, name: str) -> tuple[int, ...]:
    """Shape of an array-like as plain integers.

    Raises `InputError` if a size is unknown (dask) or zero.
    """
    try:
        shape = tuple(operator.index(size) for size in array.shape)
    except TypeError as error:
        raise InputError(
            f"{name} has shape {tuple(array.shape)}, in which not every size is known; call its "
            "compute_chunk_sizes() first"
        ) from error
    if 0 in shape:
        raise InputError(
            f"{name} is empty: axis {shape.index(0)} of its shape {shape} has size 0; pass at least one voxel along "
            "each axis"
        )
    return shape


def real_dtype_of(array: Any, name: str) -> np.dtype[Any]:
    """Numpy dtype of an array-like that holds real numbers; also for arrays with dtypes of their own (torch).

    Raises `InputTypeError` for complex numbers, objects, text, dates and structured dtypes.
    """
    dtype = _numpy_dtype_of(array, name)
    if dtype.kind not in _REAL_KINDS:
        remedy = _REMEDIES.get(dtype.kind, "is this the right array?")
        raise InputTypeError(f"{name} has dtype {dtype}, but real numbers are needed; {remedy}")
    return dtype


def readable_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Give the dtype in which values are handed out: native byte order, bool as uint8, long double as float64."""
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    if dtype.kind == "f" and dtype.itemsize > np.dtype(np.float64).itemsize:
        return np.dtype(np.float64)
    return dtype.newbyteorder("=")


def to_numpy(block: Any, name: str) -> npt.NDArray[Any]:
    """Load a slice of an array-like; lazy ones are computed.

    Raises `InputTypeError` if it turns out to be masked, which a dask array tells only now.
    """
    # dask's own __array__ and numpy.asarray both drop a mask without a word
    loaded = np.asanyarray(block.compute() if hasattr(block, "compute") else block)
    if isinstance(loaded, np.ma.MaskedArray):
        raise InputTypeError(_masked_message(name))
    return np.asarray(loaded)


def plain_int(value: object, what: str) -> int:
    """Convert an integer of any kind to int.

    Raises `InputTypeError` for everything else, bool included, naming `what` it should have been.
    """
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        return operator.index(value)  # type: ignore[arg-type]  # that is the question
    except TypeError as error:
        raise InputTypeError(f"{what} must be an integer, not {value!r} ({type(value).__name__})") from error


def is_length(size: float) -> bool:
    """Whether a number can be the size of a voxel along one axis, in whatever unit."""
    return _SMALLEST <= size <= _LARGEST


def checked_spacing(spacing: Any, n_axes: int) -> Spacing:
    """Voxel size along z, y, x; for 2D images z takes the size along y. Without any, voxels are cubes of size 1.

    Raises `InputTypeError` for what are no numbers, `InputError` for another number of them, and sizes that are none.
    """
    if spacing is None:
        return 1.0, 1.0, 1.0
    axes = "(z, y, x)" if n_axes == 3 else "(y, x)"
    try:
        if isinstance(spacing, str | bytes):
            raise TypeError  # a sequence of numerals, or of bytes, but not of sizes
        sizes = [float(size) for size in spacing]
    except (TypeError, ValueError):
        raise InputTypeError(
            f"spacing={spacing!r} is not a sequence of numbers; pass the voxel size along {axes}, for example "
            f"{(0.5, 0.2, 0.2)[-n_axes:]}"
        ) from None
    if len(sizes) != n_axes and not (n_axes == 2 and len(sizes) == 3):
        raise InputError(f"spacing={tuple(sizes)} has {len(sizes)} numbers; {n_axes} are needed, along {axes}")
    wrong = [size for size in sizes if not is_length(size)]
    if wrong:
        raise InputError(
            f"spacing={tuple(sizes)} contains {wrong[0]}; voxel sizes are positive numbers along {axes}, from "
            f"{_SMALLEST:g} to {_LARGEST:g}, or None for cubes"
        )
    if n_axes == 2:
        sizes = [sizes[-2], *sizes[-2:]]
    return sizes[0], sizes[1], sizes[2]


def full_index(index: Any, shape: tuple[int, ...]) -> list[Any]:
    """One part of an index for each axis, with the dots and what is missing at the end written out."""
    parts = list(index) if isinstance(index, tuple) else [index]
    n_dots = sum(part is Ellipsis for part in parts)
    n_missing = len(shape) - (len(parts) - n_dots)
    if n_dots > 1 or n_missing < 0:
        raise IndexError(f"too many indices for an array of {len(shape)} axes: {index!r}")
    where = next((i for i, part in enumerate(parts) if part is Ellipsis), len(parts))
    return [*parts[:where], *[slice(None)] * n_missing, *parts[where + n_dots :]]


def chunk_depth(array: Any) -> int:
    """Size of an array's chunks along z (zarr, h5py: a number for each axis; dask: a tuple of them); 1 without."""
    chunks = getattr(array, "chunks", None)
    if not chunks or len(array.shape) < 3:
        return 1
    first = chunks[0]
    return max(1, int(max(first) if isinstance(first, tuple) else first))


def index_text(index: tuple[int, ...]) -> str:
    """How messages write the position of a voxel, in the user's own axes."""
    return f"index ({', '.join(str(i) for i in index)})"


def _numpy_dtype_of(array: Any, name: str) -> np.dtype[Any]:
    try:
        dtype: np.dtype[Any] = np.dtype(array.dtype)
    except TypeError:
        return _probed_dtype(array, name)
    return dtype


def _probed_dtype(array: Any, name: str) -> np.dtype[Any]:
    nothing = (slice(0, 0),) * len(array.shape)
    try:
        return to_numpy(array[nothing], name).dtype
    except (TypeError, RuntimeError) as error:
        raise InputTypeError(
            f"{name} is a {type(array).__name__} of dtype {array.dtype} that numpy cannot read ({error}); convert it "
            "first, a tensor e.g. with .detach().cpu().float().numpy()"
        ) from error


def _masked_message(name: str) -> str:
    return (
        f"{name} is a masked array, and its masked voxels have no value; say which they shall have, "
        f"e.g. with {name}.filled(0)"
    )
