"""Found objects agree with painted ones: joined, cut, and otherwise left alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from napari_sparseseg.engine.objects.agreement import agree_with_painted

CUBES = (1.0, 1.0, 1.0)


def balls(*middles, shape=(15, 15, 40), radius=6):
    """Balls with ids 1, 2, ... in the order of the places along x of their middles."""
    z, y, x = np.indices(shape)
    found = np.zeros(shape, np.uint32)
    for number, middle in enumerate(middles, 1):
        found[(z - 7) ** 2 + (y - 7) ** 2 + (x - middle) ** 2 <= radius**2] = number
    return found


def on_slice(mask, z=7, object_id=5):
    painted = np.zeros(mask.shape, np.int32)
    painted[z][mask[z]] = object_id
    return painted


def agreed(found, painted, spacing=CUBES):
    found = found.copy()
    agree_with_painted(found, painted, spacing)
    return found


def test_without_paint_nothing_changes():
    found = balls(8, 24)
    np.testing.assert_array_equal(agreed(found, np.zeros(found.shape, np.int32)), found)


def test_what_was_painted_as_one_becomes_one_in_space():
    found = balls(8, 20, 33)
    result = agreed(found, on_slice(np.isin(found, (1, 2))))
    assert len(np.unique(result[np.isin(found, (1, 2))])) == 1
    np.testing.assert_array_equal(result == 3, found == 3)


def test_a_small_part_joins_the_large_one_it_was_painted_with():
    found = balls(12)
    found[:, :, 17:][found[:, :, 17:] > 0] = 2
    result = agreed(found, on_slice(found > 0))
    np.testing.assert_array_equal(np.unique(result), [0, 1])


@pytest.mark.parametrize("spacing", [CUBES, (3.0, 1.0, 1.0)])
def test_what_was_painted_as_two_is_cut_between_them_in_space(spacing):
    truth = balls(12, 23)
    result = agreed(np.minimum(truth, 1), on_slice(truth == 1) + on_slice(truth == 2, object_id=9), spacing)
    one, other = result[7, 7, 12], result[7, 7, 23]
    assert one != other
    assert (result[truth == 1] == one).mean() > 0.97
    assert (result[truth == 2] == other).mean() > 0.97


def test_strokes_are_enough_to_cut():
    truth = balls(12, 23)
    painted = np.zeros(truth.shape, np.int32)
    painted[7, 7, 10:14], painted[7, 7, 22:26] = 3, 1
    result = agreed(np.minimum(truth, 1), painted)
    assert result[7, 7, 12] != result[7, 7, 23]
    assert (result[truth == 1] == result[7, 7, 12]).all()
    assert (result[truth == 2] == result[7, 7, 23]).mean() > 0.97


@pytest.mark.parametrize("offset", [-2, 2])
def test_a_neighbour_that_is_touched_stays(offset):
    """Its own outline was found a little elsewhere than that of the one beside it was painted."""
    found = balls(13, 26)
    painted = on_slice(np.roll(found == 1, offset, axis=2))
    result = agreed(found, painted)
    assert (result[7, 7, 26], result[2, 7, 26]) == (2, 2)
    assert (result[7][painted[7] > 0] == 1).all()


def test_a_painted_object_of_which_nothing_was_found_is_there():
    found = balls(8)
    painted = np.zeros(found.shape, np.int32)
    painted[7, 5:9, 30:34] = 4
    result = agreed(found, painted)
    np.testing.assert_array_equal(result == 2, painted == 4)
    np.testing.assert_array_equal(result == 1, found == 1)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_of_any_orientation_say_the_same(axis):
    found, painted = balls(8, 20, 33), on_slice(np.isin(balls(8, 20, 33), (1, 2)))
    turned = agreed(np.moveaxis(found, 0, axis), np.moveaxis(painted, 0, axis))
    np.testing.assert_array_equal(np.moveaxis(turned, axis, 0), agreed(found, painted))


def test_a_single_plane():
    truth = balls(12, 23)[7:8]
    painted = np.where(truth == 1, 4, np.where(truth == 2, 6, 0))
    result = agreed(np.minimum(truth, 1), painted)
    assert len(np.unique(result)) == 3
    assert len(np.unique(result[truth == 1])) == len(np.unique(result[truth == 2])) == 1


@given(
    npst.arrays(np.uint32, (3, 5, 6), elements=st.integers(0, 4)),
    npst.arrays(np.int32, (3, 5, 6), elements=st.sampled_from([0, 0, 0, 2, 7, 1_000_000])),
)
def test_each_painted_object_is_one_and_no_two_are_the_same(found, painted):
    result = agreed(found, painted)
    names = [np.unique(result[painted == i]).tolist() for i in np.unique(painted[painted > 0]).tolist()]
    assert all(len(each) == 1 and each[0] > 0 for each in names)
    assert len({each[0] for each in names}) == len(names)
    assert ((result > 0) == ((found > 0) | (painted > 0))).all()
