"""Cached chunks: the same voxels, read once."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor

import dask.array as da
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_sparseseg.storage.cached import CachedArray, with_cache


class Counting:
    """An array-like that notes which boxes are read."""

    def __init__(self, array, chunks):
        self._array, self.chunks = array, chunks
        self.shape, self.dtype = array.shape, array.dtype
        self.read = []

    def __getitem__(self, index):
        self.read.append(index)
        return self._array[index]


def counting(shape=(8, 12, 16), chunks=(4, 4, 4), dtype=np.uint16):
    return Counting(np.arange(np.prod(shape), dtype=dtype).reshape(shape), chunks)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_every_index_gives_what_numpy_gives(data):
    shape = data.draw(hnp.array_shapes(min_dims=2, max_dims=4, max_side=9))
    chunks = data.draw(st.tuples(*[st.integers(1, 10)] * len(shape)))
    array = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    cached = CachedArray(array, chunks, data.draw(st.integers(0, 400)))
    for _ in range(3):
        index = data.draw(hnp.basic_indices(shape, allow_newaxis=False))
        np.testing.assert_array_equal(cached[index], array[index])
        assert cached.n_bytes <= cached._cache_bytes


def test_neighbouring_blocks_read_their_chunks_once():
    array = counting()
    cached = with_cache(array)
    for z in range(4):
        np.testing.assert_array_equal(cached[z : z + 1, 2:7, 3:9], array._array[z : z + 1, 2:7, 3:9])
    assert array.read == [(slice(0, 4), slice(0, 8), slice(0, 12))]


def test_only_what_is_missing_is_read():
    array = counting()
    cached = with_cache(array)
    cached[:4, :4, :4]
    cached[:4, :4, :8]
    assert array.read[1:] == [(slice(0, 4), slice(0, 4), slice(4, 8))]


def test_what_was_used_last_is_kept():
    array = counting()
    cached = with_cache(array, cache_bytes=2 * 64 * 2)  # two chunks
    for x in (0, 4, 0, 8, 0):
        cached[0, 0, x]
    assert [index[2].start for index in array.read] == [0, 4, 8]


def test_what_would_drive_out_all_else_is_read_past_the_cache():
    array = counting()
    cached = with_cache(array, cache_bytes=4 * 64 * 2)
    cached[0, 0, 0]
    np.testing.assert_array_equal(cached[:], array._array)
    cached[0, 0, 0]
    assert len(array.read) == 2


def test_what_is_given_out_is_nobody_elses():
    cached = with_cache(counting())
    cached[0, 0, :4][:] = 0
    assert cached[0, 0, 1] == 1


def test_threads_may_share_it():
    array = counting((16, 16, 16))
    cached = with_cache(array, cache_bytes=3000)

    def look(seed):
        z, y, x = np.random.default_rng(seed).integers(0, 13, 3)
        return (cached[z : z + 4, y : y + 4, x : x + 4] == array._array[z : z + 4, y : y + 4, x : x + 4]).all()

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(look, range(200)))
    assert cached.n_bytes == sum(chunk.nbytes for chunk in cached._kept.values()) <= 3000


@pytest.mark.parametrize("make", [zarr.array, da.from_array], ids=["zarr", "dask"])
def test_arrays_of_chunks_get_a_cache(make):
    numbers = np.arange(60.0).reshape(3, 4, 5)
    cached = with_cache(make(numbers, chunks=(2, 3, 4)))
    assert isinstance(cached, CachedArray)
    assert cached.chunks == (2, 3, 4)
    assert with_cache(cached) is cached
    np.testing.assert_array_equal(cached[1:, 2], numbers[1:, 2])


def test_another_process_gets_the_array_without_what_is_kept(tmp_path):
    array = zarr.create_array(tmp_path / "a.zarr", shape=(40, 50, 60), chunks=(20, 25, 30), dtype=np.uint8)
    array[:] = np.random.default_rng(0).integers(0, 255, array.shape)
    cached = with_cache(array)
    expected = cached[1:30, 2:40, 3:50]
    sent = pickle.dumps(cached)
    assert len(sent) < 10_000
    found = pickle.loads(sent)
    assert found.n_bytes == 0
    np.testing.assert_array_equal(found[1:30, 2:40, 3:50], expected)


@pytest.mark.parametrize("array", [np.zeros((2, 3)), da.zeros((7, 6), chunks=((2, 4, 1), 6))], ids=["numpy", "uneven"])
def test_others_get_none(array):
    assert with_cache(array) is array
