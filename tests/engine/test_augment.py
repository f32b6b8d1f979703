"""Features and positions of voxels are moved together."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
import torch
from synthetic import CUBES

from napari_sparseseg.engine.augment import Augmentation, draw_flips, draw_turn

SHAPE = (2, 3, 4)


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("flips", list(product([False, True], repeat=3)))
def test_every_voxel_lands_where_its_features_land(flips, order):
    numbers = torch.arange(24.0).reshape(*SHAPE, 1).repeat(1, 1, 1, 2)
    augmentation = Augmentation(flips, order)
    moved = augmentation.features(numbers)
    positions = np.argwhere(np.ones(SHAPE, bool))
    landed = augmentation.positions(positions, np.asarray(SHAPE))
    assert moved.shape == (*(SHAPE[a] for a in order), 2)
    np.testing.assert_array_equal(moved[(*landed.T, 0)], np.arange(24))


def test_gain_multiplies_all_features():
    patch = torch.rand(*SHAPE, 5)
    torch.testing.assert_close(Augmentation(gain=1.3).features(patch), 1.3 * patch)


def test_doing_nothing_changes_nothing():
    patch = torch.rand(*SHAPE, 5)
    before = patch.clone()
    assert torch.equal(Augmentation().features(patch), before)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_turns_swap_the_axes_of_the_slice_about_every_other_time(axis):
    rng = np.random.default_rng(0)
    turns = [draw_turn(axis, CUBES, rng) for _ in range(200)]
    assert all(turn[axis] == axis for turn in turns)
    assert 0.35 < np.mean([turn != (0, 1, 2) for turn in turns]) < 0.65


@pytest.mark.parametrize(("axis", "turns"), [(0, True), (1, False), (2, False)])
def test_axes_of_different_voxel_size_are_never_swapped(axis, turns):
    rng = np.random.default_rng(0)
    found = {draw_turn(axis, (5.0, 1.0, 1.05), rng) for _ in range(50)}
    assert (len(found) == 2) == turns


def test_each_axis_is_mirrored_about_every_other_time():
    rng = np.random.default_rng(0)
    flips = np.array([draw_flips(rng) for _ in range(300)])
    assert (abs(flips.mean(axis=0) - 0.5) < 0.12).all()
    assert abs(np.corrcoef(flips.T.astype(float)) - np.eye(3)).max() < 0.2
