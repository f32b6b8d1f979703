"""A part of a volume in memory, and arrays that processes share."""

from __future__ import annotations

import pickle

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


def test_a_mapped_array_travels_as_its_path(tmp_path):
    array = np.random.default_rng(0).integers(0, 9, (30, 400, 500)).astype(np.uint16)
    save_mapped(tmp_path / "a.npy", array)
    pickled = pickle.dumps(MappedArray(tmp_path / "a.npy"))
    assert len(pickled) < 1000
    opened = pickle.loads(pickled)
    assert (opened.shape, opened.dtype) == (array.shape, array.dtype)
    np.testing.assert_array_equal(opened[3:7, :5, 2:], array[3:7, :5, 2:])
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]
