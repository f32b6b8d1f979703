"""Affinities: which painted pairs count, and what they teach."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_sparseseg._types import Annotation
from napari_sparseseg.engine.classes import ClassTable
from napari_sparseseg.engine.objects.affinity import AffinityLesson, affinity_loss, balancing_factors, known_pairs
from napari_sparseseg.engine.objects.offsets import default_offsets, is_short
from napari_sparseseg.engine.paint import prepare_paint

OFFSETS = ((1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, -1), (2, 0, 0), (0, 3, 0))
BACKGROUND, OBJECT, EITHER = 1, 2, 3

# What was painted on a voxel: nothing, the background, the object's class without an id, ids 1 to 3, "either class".
KINDS = ((0, 0), (BACKGROUND, 0), (OBJECT, 0), (OBJECT, 1), (OBJECT, 2), (OBJECT, 3), (EITHER, 0))

volumes = hnp.array_shapes(min_dims=3, max_dims=3, max_side=4).flatmap(
    lambda shape: hnp.arrays(np.int64, shape, elements=st.integers(0, len(KINDS) - 1))
)


def paint_of(kinds):
    """Paint of the voxels of a volume of kinds, all of them learnt, and its class table."""
    codes, ids = (np.array(KINDS)[kinds][..., part] for part in (0, 1))
    coordinates = np.argwhere(codes).astype(np.int32)
    painted = codes > 0
    weights = np.linspace(0.5, 2, len(coordinates), dtype=np.float32)
    annotation = Annotation(
        kinds.shape,
        coordinates,
        codes[painted].astype(np.uint8),
        weights,
        {EITHER: frozenset({BACKGROUND, OBJECT})},
        ids[painted].astype(np.int32),
    )
    table = ClassTable((BACKGROUND, OBJECT), BACKGROUND, (OBJECT,))
    return prepare_paint(annotation, table, share=0, balance=0, seed=0), table


def said_by(first, second):
    """What a pair of kinds says: True for one object, False for two, None for nothing."""
    (code, id_), (other_code, other_id) = KINDS[first], KINDS[second]
    if id_ and other_id:
        return id_ == other_id
    if (id_ and other_code == BACKGROUND) or (other_id and code == BACKGROUND):
        return False
    return None


def pairs_one_by_one(kinds, paint, offsets):
    """`known_pairs` in plain Python."""
    number = {tuple(place): row for row, place in enumerate(paint.coordinates.tolist())}
    same, weight = np.zeros((len(paint), len(offsets)), bool), np.zeros((len(paint), len(offsets)), np.float32)
    for (place, row), (column, offset) in product(number.items(), enumerate(offsets)):
        other = tuple(a + b for a, b in zip(place, offset, strict=True))
        said = said_by(kinds[place], kinds[other]) if other in number else None
        if said is not None:
            same[row, column] = said
            weight[row, column] = min(paint.weights[row], paint.weights[number[other]])
    return same, weight


def pairs_of(paint, table, positions=None):
    is_between = (paint.object_ids == 0) & ~paint.allowed[:, list(table.object_channels)].any(1)
    positions = paint.coordinates if positions is None else positions
    return known_pairs(positions, paint.object_ids, is_between, paint.weights, OFFSETS)


class TestKnownPairs:
    @settings(max_examples=150, deadline=None)
    @given(volumes)
    def test_are_those_that_were_painted(self, kinds):
        paint, table = paint_of(kinds)
        pairs = pairs_of(paint, table)
        same, weight = pairs_one_by_one(kinds, paint, OFFSETS)
        np.testing.assert_array_equal(pairs.same, same)
        np.testing.assert_array_equal(pairs.weight, weight)
        assert pairs.counts().tolist() == [((weight > 0) & ~same).sum(0).tolist(), same.sum(0).tolist()]

    @settings(max_examples=50, deadline=None)
    @given(volumes, st.randoms(use_true_random=False))
    def test_do_not_depend_on_the_order_of_voxels(self, kinds, random):
        paint, table = paint_of(kinds)
        order = list(range(len(paint)))
        random.shuffle(order)
        is_between = (paint.object_ids == 0) & ~paint.allowed[:, list(table.object_channels)].any(1)
        shuffled = known_pairs(
            paint.coordinates[order], paint.object_ids[order], is_between[order], paint.weights[order], OFFSETS
        )
        np.testing.assert_array_equal(shuffled.same, pairs_of(paint, table).same[order])
        np.testing.assert_array_equal(shuffled.weight, pairs_of(paint, table).weight[order])

    def test_lie_far_apart_in_large_volumes(self):
        positions = np.array([[0, 0, 0], [100_000, 100_000, 99_999], [100_000, 100_000, 100_000]], np.int32)
        pairs = known_pairs(
            positions, np.array([1, 2, 2], np.int32), np.zeros(3, bool), np.ones(3, np.float32), OFFSETS
        )
        assert np.argwhere(pairs.weight).tolist() == [[1, 2], [2, 3]]


class TestLoss:
    logits = st.floats(-20, 20, width=32)
    cases = hnp.array_shapes(min_dims=2, max_dims=2, max_side=6).flatmap(
        lambda shape: st.tuples(
            hnp.arrays(np.float32, shape, elements=st.floats(-20, 20, width=32)),
            hnp.arrays(bool, shape),
            hnp.arrays(np.float32, shape, elements=st.sampled_from([0.0, 0.0, 0.25, 1.0, 3.0])),
        )
    )

    @settings(max_examples=150, deadline=None)
    @given(cases)
    def test_value_and_gradient_are_those_of_plain_numpy(self, case):
        logits, same, weight = case
        given_logits = torch.from_numpy(logits).requires_grad_()
        loss = affinity_loss(given_logits, torch.from_numpy(same), torch.from_numpy(weight))
        loss.backward()
        wide = logits.astype(np.float64)
        total = weight.sum() or 1.0
        value = (weight * np.logaddexp(0, np.where(same, -wide, wide))).sum() / total
        gradient = weight * (1 / (1 + np.exp(-wide)) - same) / total
        np.testing.assert_allclose(loss.item(), value, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(given_logits.grad.numpy(), gradient, rtol=1e-4, atol=1e-6)
        assert not given_logits.grad[torch.from_numpy(weight) == 0].any()

    @pytest.mark.parametrize("absurd", [math.inf, -math.inf, math.nan])
    def test_what_was_not_painted_does_not_count_whatever_is_answered(self, absurd):
        logits = torch.tensor([[0.0, absurd]], requires_grad=True)
        loss = affinity_loss(logits, torch.tensor([[True, True]]), torch.tensor([[1.0, 0.0]]))
        loss.backward()
        assert loss.item() == pytest.approx(math.log(2))
        assert logits.grad[0, 1] == 0


class TestLesson:
    @settings(max_examples=50, deadline=None)
    @given(volumes, st.permutations(range(3)), st.tuples(*[st.booleans()] * 3))
    def test_a_turned_and_mirrored_patch_teaches_the_offsets_along_its_own_axes(self, kinds, order, flips):
        turned = np.flip(kinds, [axis for axis, flip in enumerate(flips) if flip]).transpose(order)
        paint, table = paint_of(kinds)
        shape = np.asarray(kinds.shape)
        positions = np.where(flips, shape - 1 - paint.coordinates, paint.coordinates)[:, order]
        seen = pairs_of(paint, table, positions)
        same, weight = pairs_one_by_one(turned, paint_of(turned)[0], OFFSETS)
        row_of = {tuple(place): row for row, place in enumerate(paint_of(turned)[0].coordinates.tolist())}
        rows = [row_of[tuple(place)] for place in positions.tolist()]
        np.testing.assert_array_equal(seen.same, same[rows])
        np.testing.assert_array_equal(seen.weight > 0, weight[rows] > 0)

    def make(self, orders):
        kinds = np.zeros((5, 6, 6), int)
        kinds[2] = np.where(np.arange(6) < 3, 3, 4)  # two objects side by side on one slice
        paint, table = paint_of(kinds)
        return AffinityLesson([paint], table.object_channels, OFFSETS[:3], orders), paint

    def test_a_slice_teaches_the_steps_within_it(self):
        assert self.make([(0, 1, 2)])[0].taught == (0, 30, 30)

    @pytest.mark.parametrize(("middle", "is_taught"), [(3, True), (4, True), (2, False)], ids=["one", "other", "none"])
    def test_without_two_objects_near_each_other_nothing_is_taught(self, middle, is_taught):
        kinds = np.zeros((5, 6, 40), int)
        kinds[2, :, :10], kinds[2, :, 30:], kinds[2, :, 10:30] = 3, 4, middle  # 2 is painted, but no object
        paint, table = paint_of(kinds)
        taught = AffinityLesson([paint], table.object_channels, OFFSETS).taught
        assert any(taught) == is_taught

    def test_turns_let_a_slice_teach_steps_across_it(self):
        orders = [(0, 1, 2), (1, 0, 2), (2, 1, 0)]
        assert self.make(orders)[0].taught == (60, 60, 60)

    def test_pairs_that_are_cut_weigh_more_where_they_are_rarer(self):
        lesson, paint = self.make([(0, 1, 2)])
        members = np.arange(len(paint))
        logits = torch.zeros(len(paint), 3, requires_grad=True)
        lesson.loss_of(logits, [(0, members)], [paint.coordinates.astype(np.int64)]).backward()
        left_of_border = (paint.coordinates[:, 2] == 2).nonzero()[0]
        inside = (paint.coordinates[:, 2] == 0).nonzero()[0]
        assert -logits.grad[left_of_border, 2].sum() < 0 < -logits.grad[inside, 2].sum()
        assert logits.grad[left_of_border[0], 2] > -logits.grad[inside[0], 2]
        assert not logits.grad[:, 0].any()

    @given(hnp.arrays(np.int64, (2, 4), elements=st.integers(0, 10**6)), st.floats(0, 1))
    def test_balancing_keeps_the_mean_weight(self, counts, balance):
        factors = balancing_factors(counts, balance)
        has_pairs = counts.sum(0) > 0
        mean = (factors * counts).sum(0)[has_pairs] / counts.sum(0)[has_pairs]
        np.testing.assert_allclose(mean, 1, rtol=1e-4)
        assert np.isfinite(factors).all()


class TestOffsets:
    sizes = st.floats(0.01, 100)

    @given(st.tuples(sizes, sizes, sizes), st.tuples(*[st.booleans()] * 3))
    def test_are_distinct_steps_along_single_axes_that_are_not_flat(self, spacing, flat):
        offsets = default_offsets(spacing, flat)
        assert len(set(offsets)) == len(offsets)
        for offset in offsets:
            (axis,) = np.flatnonzero(offset)
            assert offset[axis] > 0
            assert not flat[axis]
        assert sum(map(is_short, offsets)) == 3 - sum(flat)

    @given(st.tuples(sizes, sizes, sizes))
    def test_long_steps_cover_the_same_distance_along_every_axis(self, spacing):
        finest = min(spacing)
        for offset in default_offsets(spacing, (False,) * 3, (1, 3, 9)):
            (axis,) = np.flatnonzero(offset)
            length = offset[axis] * spacing[axis]
            assert (
                is_short(offset) or min(abs(length - reach * finest) for reach in (3, 9)) <= spacing[axis] / 2 * 1.001
            )
