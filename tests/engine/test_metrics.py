"""Overlap and distance of surfaces, against what counting voxel by voxel gives."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_sparseseg.engine.metrics import SurfaceDistance, dice, iou, mean_dice, surface_distances

IDS = (1, 2, 9)


@st.composite
def label_pairs(draw):
    """Labels and truth of one shape with classes 0..2, voxel sizes, and which voxels are known."""
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=4))
    classes = st.integers(0, 2)
    arrays = [draw(hnp.arrays(np.uint8, shape, elements=classes)) for _ in range(2)]
    spacing = [draw(st.sampled_from([0.25, 1.0, 3.0])) for _ in shape]
    return *arrays, spacing, draw(hnp.arrays(bool, shape))


def surface_by_hand(inside, known):
    found = []
    for position in np.argwhere(inside & known):
        for axis, step in product(range(inside.ndim), (-1, 1)):
            neighbour = position.copy()
            neighbour[axis] += step
            if 0 <= neighbour[axis] < inside.shape[axis] and known[tuple(neighbour)] and not inside[tuple(neighbour)]:
                found.append(position)
                break
    return np.asarray(found)


def distance_by_hand(labels, truth, class_id, spacing, known):
    a, b = surface_by_hand(labels == class_id, known), surface_by_hand(truth == class_id, known)
    if not (len(a) and len(b)):
        return math.nan, math.nan
    table = np.linalg.norm((a[:, None] - b[None]) * np.asarray(spacing), axis=-1)
    there, back = table.min(1), table.min(0)
    return np.concatenate([there, back]).mean(), max(np.percentile(there, 95), np.percentile(back, 95))


class TestOverlap:
    @given(pair=label_pairs())
    def test_as_counted_by_hand(self, pair):
        labels, truth, *_ = pair
        for class_id in IDS:
            a = {tuple(p) for p in np.argwhere(labels == class_id)}
            b = {tuple(p) for p in np.argwhere(truth == class_id)}
            wanted = (2 * len(a & b) / (len(a) + len(b)), len(a & b) / len(a | b)) if a | b else (math.nan, math.nan)
            found = dice(labels, truth, IDS)[class_id], iou(labels, truth, IDS)[class_id]
            np.testing.assert_allclose(found, wanted)

    @given(pair=label_pairs())
    def test_iou_follows_from_dice(self, pair):
        labels, truth, *_ = pair
        of_dice, of_iou = dice(labels, truth, IDS), iou(labels, truth, IDS)
        for class_id in IDS:
            np.testing.assert_allclose(of_iou[class_id], of_dice[class_id] / (2 - of_dice[class_id]))

    def test_the_mean_leaves_out_the_background_and_what_is_nowhere(self):
        assert mean_dice({1: 0.1, 2: 0.8, 3: math.nan, 4: 0.6}, without=1) == pytest.approx(0.7)
        assert math.isnan(mean_dice({1: 1.0, 2: math.nan}, without=1))


class TestSurfaces:
    @settings(deadline=None)
    @given(pair=label_pairs())
    def test_as_measured_by_hand(self, pair):
        labels, truth, spacing, known = pair
        found = surface_distances(labels, truth, IDS, spacing=spacing, known=known)
        for class_id in IDS:
            wanted = distance_by_hand(labels, truth, class_id, spacing, known)
            np.testing.assert_allclose((found[class_id].mean, found[class_id].hausdorff95), wanted)

    @settings(deadline=None)
    @given(pair=label_pairs())
    def test_without_a_mask_all_is_known(self, pair):
        labels, truth, spacing, known = pair
        plain = surface_distances(labels, truth, IDS, spacing=spacing)
        assert str(plain) == str(surface_distances(labels, truth, IDS, spacing=spacing, known=np.ones_like(known)))

    @settings(deadline=None)
    @given(pair=label_pairs())
    def test_labels_and_truth_may_be_swapped(self, pair):
        labels, truth, spacing, known = pair
        there = surface_distances(labels, truth, IDS, spacing=spacing, known=known)
        back = surface_distances(truth, labels, IDS, spacing=spacing, known=known)
        for class_id in IDS:
            np.testing.assert_allclose(there[class_id].mean, back[class_id].mean)
            np.testing.assert_allclose(there[class_id].hausdorff95, back[class_id].hausdorff95)

    def test_a_shifted_plane_is_as_far_as_it_was_shifted(self):
        truth = np.ones((10, 6, 6), np.uint8)
        truth[5:] = 2
        labels = np.ones_like(truth)
        labels[7:] = 2
        found = surface_distances(labels, truth, [1, 2], spacing=(0.5, 0.1, 0.1))
        assert found == {1: SurfaceDistance(1.0, 1.0), 2: SurfaceDistance(1.0, 1.0)}

    def test_equal_labels_are_at_distance_zero(self):
        truth = np.random.default_rng(0).integers(1, 3, (5, 6, 7))
        assert surface_distances(truth, truth, [1, 2]) == {1: SurfaceDistance(0, 0), 2: SurfaceDistance(0, 0)}

    @pytest.mark.parametrize("class_id", [1, 2, 3])
    def test_a_class_without_a_surface_has_no_distance(self, class_id):
        labels, truth = np.ones((3, 4, 5), int), np.ones((3, 4, 5), int)
        truth[0, 0, 0] = 2
        found = surface_distances(labels, truth, [class_id])[class_id]
        assert math.isnan(found.mean)
        assert math.isnan(found.hausdorff95)

    def test_one_outlier_in_twenty_does_not_move_the_95th_percentile(self):
        truth = np.ones((1, 100, 100), int)
        truth[0, 50:] = 2
        labels = truth.copy()
        labels[0, 5, 5] = 2  # a single voxel far away
        found = surface_distances(labels, truth, [2])[2]
        assert found.hausdorff95 == 0
        assert found.mean > 0

    def test_what_is_unknown_makes_no_surface(self):
        truth = np.full((3, 8, 8), 2)
        truth[:, :, :4] = 1
        known = np.zeros(truth.shape, bool)
        known[1] = True  # one painted slice
        labels = truth.copy()
        labels[0] = 1  # wrong, but nobody knows
        assert surface_distances(labels, truth, [1, 2], known=known) == {
            1: SurfaceDistance(0, 0),
            2: SurfaceDistance(0, 0),
        }
