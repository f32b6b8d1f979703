"""An image counts as that of an earlier run only if no voxel has changed since."""

from __future__ import annotations

import math
import os
import tracemalloc
from itertools import permutations
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given
from hypothesis import strategies as st

from napari_sparseseg._types import Box
from napari_sparseseg.storage import identity as module
from napari_sparseseg.storage.cached import with_cache
from napari_sparseseg.storage.formats import ImageFile, open_image
from napari_sparseseg.storage.identity import identity_of
from napari_sparseseg.storage.series import time_points
from napari_sparseseg.storage.volume import Frame
from napari_sparseseg.storage.working import Colours, StackedChannels, WorkingArray

SHAPE = (6, 40, 50)


def image():
    return np.random.default_rng(0).integers(0, 200, SHAPE).astype(np.uint8)


@given(place=st.tuples(*(st.integers(0, size - 1) for size in SHAPE)))
def test_every_voxel_in_memory_counts(place):
    changed = image()
    changed[place] += 1
    assert identity_of(image()).is_certain
    assert identity_of(changed) != identity_of(image())


@pytest.mark.parametrize("view", [np.asfortranarray, lambda a: np.flip(np.flip(a, 1), 1), lambda a: a.copy()])
def test_equal_arrays_are_one_however_they_lie_in_memory(view):
    assert identity_of(view(image())) == identity_of(image())


@pytest.mark.parametrize("axes", list(permutations(range(3))))
@pytest.mark.parametrize("shape", [(3, 40, 70), (70, 3, 40), (33, 64, 65), (1, 1, 100)])
def test_tiles_of_arrays_that_lie_across_are_put_together_in_c_order(shape, axes):
    voxels = np.arange(math.prod(shape), dtype=np.uint32).reshape(shape)
    across = np.ascontiguousarray(voxels.transpose(axes)).transpose(np.argsort(axes))
    for view in (across, across[::-1, :, ::-1]):
        found = module._in_c_order(view)
        assert found.flags.c_contiguous
        np.testing.assert_array_equal(found, np.array(view))
    assert identity_of(across) == identity_of(voxels)


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (2, 1, 0)])
def test_a_large_array_is_read_in_blocks_of_any_size_without_copies_of_its_slices(tmp_path, monkeypatch, axes):
    voxels = np.random.default_rng(0).integers(0, 9, (2, 300, 400)).astype(np.uint16)  # 240 kB in each slice
    np.save(tmp_path / "a.npy", voxels.transpose(np.argsort(axes)))
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r").transpose(axes)
    expected = identity_of(voxels.copy())
    monkeypatch.setattr(module, "_BLOCK_BYTES", 10_000)
    tracemalloc.start()
    try:
        assert identity_of(mapped) == expected
        assert tracemalloc.get_traced_memory()[1] < 150_000
    finally:
        tracemalloc.stop()


def test_shape_and_type_count():
    found = {identity_of(a) for a in (image(), image().reshape(6, 50, 40), image().view(np.int8), image()[..., None])}
    assert len(found) == 4


NRRD = "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 50 40 6\nencoding: raw\ndata file: a.raw\n\n"
SET = """<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:{own}">
<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="50" SizeY="40" SizeZ="6" SizeC="1"
SizeT="1"><Channel ID="Channel:0:0" SamplesPerPixel="1"/>{planes}</Pixels></Image></OME>"""


def several_tiffs(folder: Path) -> Path:
    """An OME-TIFF of two files of three planes, of which the first is opened."""
    named = [f'<UUID FileName="{number}.ome.tif">urn:uuid:{number}</UUID>' for number in range(2)]
    planes = [f'<TiffData IFD="{z % 3}" FirstZ="{z}" PlaneCount="1">{named[z // 3]}</TiffData>' for z in range(6)]
    for number in range(2):
        description = SET.format(own=number, planes="".join(planes))
        voxels = image()[3 * number : 3 * number + 3]
        file = folder / f"{number}.ome.tif"
        tifffile.imwrite(file, voxels, description=description, metadata=None, photometric="minisblack")
    return folder / "0.ome.tif"


def stored(kind: str, path: Path) -> object:
    """An image in files, opened by its path or by zarr, maybe behind what the dock puts before it."""
    if kind == "tiff":
        tifffile.imwrite(path / "a.tif", image())
        return open_image(path / "a.tif").array
    if kind == "series":
        tifffile.imwrite(path / "a.tif", np.stack([image(), image()]), metadata={"axes": "TZYX"})
        return time_points(open_image(path / "a.tif").array, "TZYX")[0]
    if kind == "several tiffs":
        return open_image(several_tiffs(path)).array
    if kind == "nrrd":
        image().tofile(path / "a.raw")
        (path / "a.nhdr").write_text(NRRD)
        return open_image(path / "a.nhdr").array
    group = zarr.create_group(path / "a.zarr")
    array = group.create_array("0", data=image(), chunks=(3, 20, 50))
    opened = open_image(path / "a.zarr" / "0").array
    first = np.zeros(SHAPE, np.uint8)
    wrapped = {
        "cached": with_cache(opened),
        "region": WorkingArray(opened, step=(2, 2, 2)),
        "channels": StackedChannels([first, opened]),
        "colours": Colours(opened),
    }
    return {"zarr": array, "opened zarr": opened, **wrapped}[kind]


KINDS = ("tiff", "series", "several tiffs", "nrrd", "zarr", "opened zarr", "cached", "region", "channels", "colours")


@pytest.mark.parametrize("kind", KINDS)
def test_each_file_that_was_written_to_makes_another_image(tmp_path, kind):
    array = stored(kind, tmp_path)
    before = identity_of(array)
    assert before.is_certain
    assert identity_of(array) == before
    for file in files_in(tmp_path):
        written = file.stat().st_mtime_ns
        os.utime(file, ns=(0, written - 1))  # older too: that of a copy which keeps its time
        assert identity_of(array) != before, file
        os.utime(file, ns=(0, written))
        assert identity_of(array) == before


def look(kind: str, file: ImageFile) -> tuple[Any, set[str]]:
    """Part of an array of chunks of 1 x 2 x 20 x 50 voxels, and the chunks in which it lies."""
    array = file.array
    first, second = {"2/0/0/0", "2/0/1/0"}, {"2/1/0/0", "2/1/1/0"}
    small = WorkingArray(array, time_axis=0, region=Box((0, 0, 0), (2, 20, 50)), step=(1, 2, 2))
    looks = {
        "file": (file.frame(2).array, first | second),
        "frame": (Frame(array, 0, 2), first | second),
        "cached": (Frame(with_cache(array), 0, 2), first | second),
        "series": (time_points(array, "TZYX")[2], first | second),
        "plane": (Frame(Frame(array, 0, 2), 0, 3), second),
        "turned": (time_points(Frame(array, 0, 2), "YXZ")[0], first | second),
        "region": (Frame(small, 0, 2), {"2/0/0/0"}),
        "channels": (Frame(StackedChannels([array, array]), 1, 2), first | second),
    }
    return looks[kind]


@pytest.mark.parametrize("kind", ["file", "frame", "cached", "series", "plane", "turned", "region", "channels"])
@pytest.mark.parametrize("version", [2, 3])
def test_of_a_zarr_only_the_chunks_that_are_read_are_looked_at(tmp_path, monkeypatch, kind, version):
    place = tmp_path / "a.zarr"
    voxels = np.ones((5, 4, 40, 50), np.uint8)
    encoding = {"name": "v2" if version == 2 else "default", "separator": "/"}
    zarr.create_array(place, data=voxels, chunks=(1, 2, 20, 50), zarr_format=version, chunk_key_encoding=encoding)
    array, wanted = look(kind, open_image(place, axes="TZYX"))
    before = identity_of(array)
    assert before.is_certain
    counted = set()
    for file in files_in(place):
        written = file.stat().st_mtime_ns
        os.utime(file, ns=(0, written + 1))
        if identity_of(array) != before:
            counted.add(file.relative_to(place).as_posix().removeprefix("c/"))
        os.utime(file, ns=(0, written))
    assert counted - {".zarray", ".zattrs"} == wanted


def test_of_a_sharded_zarr_the_shards_are_looked_at(tmp_path):
    zarr.create_array(tmp_path / "a.zarr", data=image(), shards=(2, 40, 50), chunks=(1, 20, 50))
    array = open_image(tmp_path / "a.zarr").array
    planes = [identity_of(Frame(array, 0, z)) for z in range(6)]
    os.utime(tmp_path / "a.zarr" / "c" / "1" / "0" / "0", ns=(0, 0))
    assert [identity_of(Frame(array, 0, z)) == planes[z] for z in range(6)] == [True, True, False, False, True, True]


def test_a_chunk_that_is_gone_makes_another_image(tmp_path):
    array = stored("zarr", tmp_path)
    before = identity_of(array)
    files_in(tmp_path)[0].unlink()
    assert identity_of(array) != before


def files_in(folder: Path) -> list[Path]:
    """Those that hold voxels."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".json")


def test_only_what_is_looked_at_of_an_array_in_memory_counts():
    array = image()
    region = WorkingArray(array, region=Box((0, 0, 0), (6, 40, 25)))
    before = identity_of(region)
    assert before.is_certain
    array[3, 20, 25] += 1
    assert identity_of(region) == before
    array[3, 20, 24] += 1
    assert identity_of(region) != before


def test_each_look_at_a_file_is_another():
    array = zarr.array(np.zeros((5, 6, 40, 50), np.uint8))
    looks = [array, *(Frame(array, 0, n) for n in range(5)), *time_points(array, "TZYX")]
    looks += [WorkingArray(Frame(array, 0, 0), step=(1, n, 1)) for n in (1, 2)]
    assert len({identity_of(look).digest for look in looks}) == len(looks)


def test_what_lies_beside_an_array_does_not_count(tmp_path):
    array = stored("zarr", tmp_path)
    before = identity_of(array)
    zarr.open_group(tmp_path / "a.zarr").create_array("labels", data=image())
    assert identity_of(array) == before


@pytest.mark.parametrize("wrap", [da.from_array, lambda a: zarr.array(a, store=zarr.storage.MemoryStore())])
def test_of_others_some_voxels_are_compared(wrap):
    assert identity_of(wrap(image())) == identity_of(wrap(image()))
    assert not identity_of(wrap(image())).is_certain
    assert identity_of(wrap(image() + 1)) != identity_of(wrap(image()))
