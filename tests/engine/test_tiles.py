"""Tiles cover a volume once, lie on one grid, and are no larger than they may."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import whole

from napari_sparseseg._types import Box
from napari_sparseseg.engine.tiles import frame_of, tile_grid, tile_input, tile_shape_for

sizes = st.integers(1, 30)
shapes = st.tuples(sizes, sizes, sizes)
strides = st.tuples(*[st.sampled_from([1, 2, 4])] * 3)


@st.composite
def regions(draw):
    """A box of at least one voxel."""
    bounds = [
        sorted(draw(st.lists(st.integers(0, n), min_size=2, max_size=2, unique=True)))
        for n in draw(st.tuples(*[st.integers(1, 10)] * 3))
    ]
    return Box(tuple(a for a, _ in bounds), tuple(b for _, b in bounds))


@st.composite
def tilings(draw):
    """Shape, stride, halo and the number of voxels allowed."""
    stride = draw(strides)
    halo = tuple(s * draw(st.integers(0, 3)) for s in stride)
    return draw(shapes), stride, halo, draw(st.integers(1, 40_000))


@settings(deadline=None, max_examples=60)
@given(regions(), st.tuples(*[st.integers(1, 12)] * 3))
def test_each_voxel_of_a_region_lies_in_one_tile(region, tile_shape):
    touched = np.zeros(region.stop, int)
    for tile in tile_grid(region, tile_shape):
        assert tile.n_voxels > 0
        assert tile.clipped(region) == tile
        touched[tile.slices] += 1
    expected = np.zeros(region.stop, int)
    expected[region.slices] = 1
    np.testing.assert_array_equal(touched, expected)


@settings(deadline=None, max_examples=60)
@given(regions(), st.tuples(*[st.integers(1, 12)] * 3))
def test_tiles_of_a_part_are_parts_of_the_tiles_of_the_whole(region, tile_shape):
    of_whole = list(tile_grid(whole(region.stop), tile_shape))
    for tile in tile_grid(region, tile_shape):
        assert sum(owner.clipped(tile) == tile for owner in of_whole) == 1


@settings(deadline=None, max_examples=60)
@given(tilings())
def test_tiles_are_as_large_as_they_may_be_and_seldom_larger(drawn):
    shape, stride, halo, max_voxels = drawn
    tile_shape = tile_shape_for(shape, stride, halo, max_voxels)
    assert all(t % s == 0 and t > 0 for t, s in zip(tile_shape, stride, strict=True))
    frame = frame_of(shape, stride)
    inputs = [tile_input(tile, frame, stride, halo).n_voxels for tile in tile_grid(whole(shape), tile_shape)]
    least = [max(s, -(-2 * h // s) * s) for h, s in zip(halo, stride, strict=True)]
    is_smallest = all(t <= n for t, n in zip(tile_shape, least, strict=True))
    assert max(inputs) <= max_voxels or is_smallest
    assert all(t >= min(n, f) for t, n, f in zip(tile_shape, least, frame.shape, strict=True))


def test_no_tile_is_smaller_than_its_surroundings():
    assert tile_shape_for((128, 512, 512), (2, 4, 4), (6, 16, 16), 4096) == (12, 32, 32)
    assert tile_shape_for((6, 512, 512), (2, 4, 4), (6, 16, 16), 4096) == (6, 32, 32)


@settings(deadline=None, max_examples=60)
@given(tilings())
def test_the_input_of_a_tile_lies_on_the_grid_with_all_of_its_halo(drawn):
    shape, stride, halo, max_voxels = drawn
    frame = frame_of(shape, stride)
    for tile in tile_grid(whole(shape), tile_shape_for(shape, stride, halo, max_voxels)):
        source = tile_input(tile, frame, stride, halo)
        assert source.clipped(frame) == source
        assert all(a % s == 0 and b % s == 0 for a, b, s in zip(source.start, source.stop, stride, strict=True))
        needed = tile.grown(halo).clipped(frame)
        assert source.clipped(needed) == needed


def test_a_volume_that_fits_is_one_tile():
    assert tile_shape_for((30, 50, 70), (4, 4, 4), (8, 8, 8), 10**6) == (32, 52, 72)


@given(shapes, strides)
def test_the_frame_is_the_smallest_on_the_grid(shape, stride):
    for end, n, s in zip(frame_of(shape, stride).stop, shape, stride, strict=True):
        assert end % s == 0
        assert n <= end < n + s
