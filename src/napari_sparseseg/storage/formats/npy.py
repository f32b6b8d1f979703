"""Arrays saved by numpy: mapped into memory, never unpickled."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from napari_sparseseg.errors import InputError
from napari_sparseseg.storage.formats._axes import UNKNOWN
from napari_sparseseg.storage.formats._errors import shown
from napari_sparseseg.storage.formats._image import Opened, ReadOptions
from napari_sparseseg.storage.formats._stack import Stack

_SHOWN_NAMES = 10


def open_npy(path: Path | str, _options: ReadOptions) -> Opened:
    """A .npy file, mapped into memory; it says nothing about its axes and its voxel size."""
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    return Opened(array, UNKNOWN * array.ndim, "NPY")


def refuse_npz(path: Path | str, _options: ReadOptions) -> Opened:
    """Say how to get one array out of an archive of several."""
    with zipfile.ZipFile(path) as archive:
        names = [shown(name.removesuffix(".npy")) for name in archive.namelist()[:_SHOWN_NAMES]]
    raise InputError(
        f"{path} is an archive of arrays ({', '.join(names) or 'empty'}), which is not read in parts; save one of "
        f"them, e.g. numpy.save('image.npy', numpy.load({str(path)!r})[{(names or ['image'])[0]!r}])"
    )


def write_npy(file: BinaryIO, _path: Path, stack: Stack) -> None:
    """Write labels as one array, which holds no voxel size."""
    write_header(file, stack.dtype.newbyteorder("<"), stack.shape)
    file.writelines(slab.tobytes() for slab in stack.slabs())


def write_header(file: BinaryIO, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """What stands before the voxels, which follow in C order."""
    description = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, description)
