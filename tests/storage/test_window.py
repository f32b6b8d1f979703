"""A part of a volume in memory, and arrays that processes share."""

from __future__ import annotations

import pickle

import dask.array as da
import numpy as np
import pytest

from napari_sparseseg._types import Box
from napari_sparseseg.storage import window as module
from napari_sparseseg.storage.volume import ArrayVolume
from napari_sparseseg.storage.window import MappedArray, Window, save_mapped

SHAPE = (10, 12, 14)


class Counting:
    """An array that notes what is read of it."""

    def __init__(self, array):
        self._array, self.read = array, []
        self.shape, self.dtype = array.shape, array.dtype

    def __getitem__(self, index):
        self.read.append(index)
        return self._array[index]


@pytest.mark.parametrize("depth", [1, 4])
def test_what_is_held_is_read_once(monkeypatch, depth):
    monkeypatch.setattr(module, "_SLAB_VOXELS", 300)
    array = Counting(np.arange(np.prod(SHAPE)).reshape(SHAPE))
    window = Window(ArrayVolume(array), depth=depth)
    held = Box((1, 2, 3), (9, 12, 14))
    window.hold(held)
    planes = [z for index in array.read for z in range(index[0].start, index[0].stop)]
    assert planes == list(range(1, 9))
    assert all(index[0].start % depth == 0 for index in array.read[1:])
    array.read.clear()
    for box in (held, Box((1, 2, 3), (2, 3, 4)), Box((4, 5, 6), (9, 12, 14))):
        np.testing.assert_array_equal(window.read(box), array._array[None][(slice(None), *box.slices)])
    assert not array.read
    far = Box((0, 2, 3), (3, 4, 5))
    np.testing.assert_array_equal(window.read(far), array._array[None][(slice(None), *far.slices)])
    assert array.read


@pytest.mark.parametrize("shape", [(6, 8), (5, 6, 8), (2, 5, 6, 8)])
@pytest.mark.parametrize("dtype", [">u2", "f4", bool])
def test_any_array_is_mapped_as_it_is(tmp_path, shape, dtype):
    array = np.random.default_rng(0).integers(0, 2, shape[::-1]).astype(dtype).T
    save_mapped(tmp_path / "a.npy", Counting(array))
    mapped = MappedArray(tmp_path / "a.npy")
    assert (mapped.shape, mapped.dtype) == (shape, array.dtype)
    np.testing.assert_array_equal(mapped[:], array)


def test_what_computes_another_dtype_than_it_says_is_written_as_it_says(tmp_path):
    array = da.map_blocks(lambda block: block.astype("f8"), da.ones((6, 7, 8), "u1", chunks=(4, 7, 8)), dtype="u1")
    save_mapped(tmp_path / "a.npy", array)
    np.testing.assert_array_equal(MappedArray(tmp_path / "a.npy")[:], np.ones((6, 7, 8), "u1"))


def test_whole_chunks_are_copied_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_SLAB_VOXELS", 5 * 7 * 8)
    computed = []
    array = da.map_blocks(lambda block: computed.append(block.shape) or block, da.ones((9, 7, 8), chunks=(4, 7, 8)))
    computed.clear()
    save_mapped(tmp_path / "a.npy", array)
    assert sorted(computed) == [(1, 7, 8), (4, 7, 8), (4, 7, 8)]


def test_a_mapped_array_travels_as_its_path(tmp_path):
    array = np.random.default_rng(0).integers(0, 9, (30, 400, 500)).astype(np.uint16)
    save_mapped(tmp_path / "a.npy", array)
    pickled = pickle.dumps(MappedArray(tmp_path / "a.npy"))
    assert len(pickled) < 1000
    opened = pickle.loads(pickled)
    assert (opened.shape, opened.dtype) == (array.shape, array.dtype)
    np.testing.assert_array_equal(opened[3:7, :5, 2:], array[3:7, :5, 2:])
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]
