"""What corrections do to an object: two points cut it, its holes close."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy.ndimage import label

from napari_sparseseg.engine.objects.editing import cut, holes


def dumbbell():
    """Two balls of radius 5 around x 6 and x 20, and a rod between them."""
    z, y, x = np.indices((13, 13, 27))
    balls = [(z - 6) ** 2 + (y - 6) ** 2 + (x - middle) ** 2 <= 25 for middle in (6, 20)]
    rod = (abs(z - 6) <= 1) & (abs(y - 6) <= 1) & (x > 6) & (x < 20)
    return balls[0] | balls[1] | rod


@pytest.mark.parametrize("points", [((6, 6, 6), (6, 6, 20)), ((6, 4, 4), (6, 9, 22)), ((6, 6, 2), (4, 6, 17))])
def test_two_points_cut_at_the_neck_wherever_in_the_balls_they_lie(points):
    mask = dumbbell()
    parts = cut(mask, *points, (1.0, 1.0, 1.0))
    assert (parts[:, :, :11][mask[:, :, :11]] == 1).mean() > 0.9
    assert (parts[:, :, 16:][mask[:, :, 16:]] == 2).mean() > 0.9


def test_a_plane_is_cut_at_its_neck_as_well():
    mask = dumbbell()[6:7]
    parts = cut(mask, (0, 6, 2), (0, 6, 18), (1.0, 1.0, 1.0))
    assert (parts[:, :, :11][mask[:, :, :11]] == 1).all()
    assert (parts[:, :, 16:][mask[:, :, 16:]] == 2).all()


def test_without_a_neck_it_is_cut_half_way():
    mask = np.ones((5, 9, 40), bool)
    parts = cut(mask, (2, 4, 10), (2, 4, 29), (1.0, 1.0, 1.0))
    assert 0.3 < (parts == 1).mean() < 0.7
    assert (parts[2, 4, 10], parts[2, 4, 29]) == (1, 2)


@given(npst.arrays(bool, (3, 6, 7)), st.data())
def test_every_voxel_that_hangs_together_gets_a_part_and_no_other(mask, data):
    places = [tuple(p) for p in np.argwhere(label(mask)[0] == 1).tolist()]
    if len(places) < 2:
        return
    first, second = data.draw(st.lists(st.sampled_from(places), min_size=2, max_size=2, unique=True))
    mask = label(mask)[0] == 1
    parts = cut(mask, first, second, (2.0, 1.0, 1.0))
    np.testing.assert_array_equal(parts > 0, mask)
    assert (parts[first], parts[second]) == (1, 2)


def test_holes_are_those_in_space_and_those_of_the_slice():
    mask = np.zeros((7, 9, 9), bool)
    mask[1:6, 1:8, 1:8] = True
    mask[3, 4, 4] = False  # a hole in space
    mask[:, 2, 2] = False  # a tunnel
    found = holes(mask, 0, 2)
    assert [tuple(p) for p in np.argwhere(found)] == [(2, 2, 2), (3, 4, 4)]
    assert not holes(mask | found, 0, 2).any()
