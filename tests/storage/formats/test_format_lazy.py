"""Opening a file that is larger than it should be read, and reading one small box of it, reads that box."""

from __future__ import annotations

import tracemalloc

import nibabel
import numpy as np
import pytest
import tifffile
import zarr

from napari_sparseseg._types import Box
from napari_sparseseg.storage.formats import open_image
from napari_sparseseg.storage.formats import tiff as tiff_module
from napari_sparseseg.storage.volume import ArrayVolume

SHAPE = (700, 2048, 3072)  # 4.4e9 voxels of 8 bit
BOX = Box((650, 2000, 3000), (658, 2008, 3008))
MB = 2**20


def write_sparse(path, header, n_bytes):
    """A file whose voxels are a hole, which takes no room on the disk."""
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + n_bytes)


def put(path, offset, index):
    """Write one voxel."""
    with path.open("r+b") as file:
        file.seek(offset + int(np.ravel_multi_index(index, SHAPE)))
        file.write(b"\x07")


def write_npy(path):
    np.lib.format.open_memmap(path, "w+", np.uint8, SHAPE).flush()
    put(path, np.load(path, mmap_mode="r").offset, BOX.start)


def write_nifti(path):
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape(SHAPE[::-1])
    header.set_data_offset(352)
    write_sparse(path, header.binaryblock + bytes(4), int(np.prod(SHAPE)))
    put(path, 352, BOX.start)


def write_nrrd(path):
    sizes = " ".join(map(str, SHAPE[::-1]))
    header = f"NRRD0004\ntype: uint8\ndimension: 3\nsizes: {sizes}\nencoding: raw\n\n".encode()
    write_sparse(path, header, int(np.prod(SHAPE)))
    put(path, len(header), BOX.start)


def write_bigtiff(path):
    memmap = tifffile.memmap(path, shape=SHAPE, dtype=np.uint8, bigtiff=True, photometric="minisblack")
    memmap[BOX.start] = 7
    memmap.flush()


def write_zarr(path):
    array = zarr.create_array(path, shape=SHAPE, chunks=(32, 64, 64), dtype=np.uint8)
    array[BOX.start] = 7


def write_compressed_bigtiff(path):
    """As many planes as it takes to 4 GB, all of them the same small packed strip but the one of the box."""
    plain, marked = (np.zeros(SHAPE[1:], np.uint8) for _ in range(2))
    marked[BOX.start[1:]] = 7
    packed = [tifffile.tifffile.imagecodecs.zlib_encode(plane.tobytes(), level=1) for plane in (plain, marked)]
    planes = (packed[z == BOX.start[0]] for z in range(SHAPE[0]))
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        writer.write(
            planes,
            shape=SHAPE,
            dtype=np.uint8,
            compression="zlib",
            photometric="minisblack",
            rowsperstrip=SHAPE[1],
        )


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.npy", write_npy),
        ("a.nii", write_nifti),
        ("a.nrrd", write_nrrd),
        ("a.tif", write_bigtiff),
        ("a.zarr", write_zarr),
        ("packed.tif", write_compressed_bigtiff),
    ],
)
def test_a_small_box_of_a_large_file_takes_little_memory(tmp_path, name, write):
    write(tmp_path / name)
    open_image(tmp_path / name)  # the libraries are imported before it is measured
    tracemalloc.start()
    found = open_image(tmp_path / name)
    block = ArrayVolume(found.array).read(BOX)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.array.shape == SHAPE
    assert block[0, 0, 0, 0] == 7
    assert np.count_nonzero(block) == 1
    # a packed plane of 6 MB is unpacked for each of the 8 planes of the box; the image is 4200 MB
    assert peak < 100 * MB if name == "packed.tif" else peak < 8 * MB


def test_packed_files_are_not_unpacked_until_a_voxel_is_read(tmp_path, monkeypatch):
    loads = []
    load = tiff_module._Loader.__call__
    monkeypatch.setattr(tiff_module._Loader, "__call__", lambda self: loads.append(1) or load(self))
    tifffile.imwrite(tmp_path / "a.tif", np.ones((9, 50, 60), np.uint8), compression="zlib")
    found = open_image(tmp_path / "a.tif")
    assert not loads
    assert found.array[3:5, 2:4].sum() == 2 * 2 * 60
    assert found.array[8, 8, 8] == 1
    assert len(loads) == 1
