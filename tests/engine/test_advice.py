"""Where to paint next: which slices are suggested, and where on them."""

from __future__ import annotations

from itertools import islice, pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from synthetic import CUBES, make_annotation, paint_planes

from napari_sparseseg._types import Box
from napari_sparseseg.engine.weak import advice
from napari_sparseseg.engine.weak.advice import (
    Advisor,
    Survey,
    by_intervals,
    by_uncertainty,
    paintable_axes,
    painted_slices_by_axis,
    spread_tiles,
    uncertainty,
    worth_of_slices,
)

SHAPE = (20, 40, 30)
TILE = (8, 16, 16)


def sure_but_in(*boxes, shape=SHAPE):
    """A predictor that is sure of class 0 everywhere but in some boxes, where both classes are as likely."""
    probabilities = np.zeros((2, *shape), np.float32)
    probabilities[0] = 1
    for box in boxes:
        probabilities[(slice(None), *box.slices)] = 0.5
    looked_at = []

    def tile(box):
        looked_at.append(box)
        return torch.from_numpy(probabilities[(slice(None), *box.slices)])

    return SimpleNamespace(tile=tile, overlapping=False, tile_shape=TILE, looked_at=looked_at)


def advise(predictor, painted=None, *, method="uncertainty", shape=SHAPE, axes=(0,), **options):
    """What an advisor found."""
    advisor = Advisor(shape, CUBES, painted or {}, axes=axes, method=method, predictor=predictor, **options)
    shares = list(advisor.work())
    assert shares == sorted(shares)
    assert not shares or shares[-1] == 1
    return advisor.found


class TestUncertainty:
    @given(st.integers(0, 2**32 - 1), st.integers(2, 6))
    def test_it_is_the_entropy_over_its_maximum(self, seed, n_classes):
        p = np.random.default_rng(seed).dirichlet(np.full(n_classes, 0.5), 7).T.clip(1e-6)

        found = uncertainty(torch.from_numpy(p)).numpy()

        np.testing.assert_allclose(found, -(p * np.log(p)).sum(0) / np.log(n_classes), atol=1e-4)

    @pytest.mark.parametrize("n_classes", [2, 3, 7])
    def test_it_goes_from_certain_to_all_alike(self, n_classes):
        certain = torch.eye(n_classes)
        alike = torch.full((n_classes, 1), 1 / n_classes)

        assert uncertainty(certain).tolist() == [0] * n_classes
        assert uncertainty(alike).item() == pytest.approx(1)

    def test_of_classes_that_may_overlap_it_is_that_of_the_most_uncertain(self):
        p = torch.tensor([[0.5, 1.0, 0.5], [0.5, 1.0, 0.0]])

        assert uncertainty(p, overlapping=True).tolist() == pytest.approx([1, 0, 1])


class TestIntervals:
    def test_the_middle_comes_first_then_the_middles_of_what_is_left(self):
        found = [advice.index for advice in islice(by_intervals((31, 9, 9), {}, (0,)), 5)]

        assert found == [15, 7, 23, 3, 11]

    @given(st.integers(1, 40), st.sets(st.integers(0, 39)))
    def test_nothing_is_suggested_twice_and_gaps_shrink(self, n_slices, painted):
        painted = {index for index in painted if index < n_slices}

        found = list(by_intervals((n_slices, 5, 5), {0: painted}, (0,)))

        assert sorted([*painted, *(advice.index for advice in found)]) == list(range(n_slices))
        assert all(a.score >= b.score for a, b in pairwise(found))

    def test_an_orientation_that_was_left_out_comes_first(self):
        first = next(by_intervals(SHAPE, {0: {4, 10, 16}, 1: {20}}, (0, 1, 2)))

        assert (first.axis, first.index) == (2, 14)
        assert first.score == 1


class TestByUncertainty:
    def test_the_slice_amid_uncertain_ones_is_taken(self):
        profile = np.zeros(20)
        profile[[0, 13, 14, 15]] = 0.4, 0.3, 0.3, 0.3

        assert next(by_uncertainty(SHAPE, {0: profile}, {0: {5}})).index == 14

    def test_beside_a_painted_slice_uncertainty_counts_less(self):
        profile = np.full(20, 0.2)
        profile[[11, 17]] = 0.5, 0.4

        assert abs(next(by_uncertainty(SHAPE, {0: profile}, {0: {10}})).index - 10) > 3

    @given(
        st.lists(st.floats(0, 1) | st.just(np.nan), min_size=2, max_size=25),
        st.sets(st.integers(0, 24)),
    )
    def test_each_slice_that_is_known_and_not_painted_comes_once(self, values, painted):
        profile = np.array(values)
        painted = {index for index in painted if index < len(profile)}

        found = list(by_uncertainty((len(profile), 5, 5), {0: profile}, {0: painted}))

        known = set(np.flatnonzero(~np.isnan(profile)).tolist())
        assert sorted(advice.index for advice in found) == sorted(known - painted)
        assert all(0 < advice.score <= 1 for advice in found)

    def test_a_score_is_the_worth_beside_the_slices_before_and_may_rise(self):
        profile = np.zeros(32)
        profile[[2, 30]] = 0.3, 0.4
        found = list(islice(by_uncertainty((32, 9, 9), {0: profile}, {0: {16}}), 3))

        for number, suggested in enumerate(found):
            worth = worth_of_slices(profile, {16, *(before.index for before in found[:number])})
            assert suggested.score == worth[suggested.index] == worth.max()
        assert any(b.score > a.score for a, b in pairwise(found))

    def test_where_the_network_is_sure_of_all_slices_are_spread_evenly(self):
        found = sorted(advice.index for advice in islice(by_uncertainty((31, 9, 9), {0: np.zeros(31)}, {0: {15}}), 2))

        assert 4 <= found[0] <= 8
        assert 22 <= found[1] <= 26

    @given(st.integers(0, 2**32 - 1), st.integers(2, 30), st.integers(0, 5))
    def test_worth_is_that_of_the_formula(self, seed, n, n_painted):
        rng = np.random.default_rng(seed)
        profile, painted = rng.random(n), set(rng.integers(0, n, n_painted).tolist())
        reach = n / (len(painted) + 1)

        def near(i, j):
            return max(0, 1 - abs(i - j) / reach)

        found = worth_of_slices(profile, painted)

        for i in range(n):
            gains = [max(0, near(i, j) - max((near(p, j) for p in painted), default=0)) for j in range(n)]
            assert found[i] == pytest.approx(np.dot(profile, gains) / reach, abs=1e-5)
        assert not found[sorted(painted)].any()


class TestSurvey:
    def test_a_profile_is_the_mean_of_what_was_looked_at(self):
        values = np.random.default_rng(0).random(SHAPE).astype(np.float32)
        survey = Survey(SHAPE, CUBES)
        for tile in spread_tiles(Box.whole(SHAPE), TILE, 1000):
            survey.add(tile, values[tile.slices])

        for axis in range(3):
            others = tuple(a for a in range(3) if a != axis)
            np.testing.assert_allclose(survey.profile(axis), values.mean(others), rtol=1e-5)

    def test_slices_that_were_not_looked_at_are_unknown(self):
        survey = Survey(SHAPE, CUBES)
        survey.add(Box((2, 0, 0), (4, 5, 5)), np.ones((2, 5, 5), np.float32))

        assert np.flatnonzero(~np.isnan(survey.profile(0))).tolist() == [2, 3]
        assert survey.spot(0, 9) == (9, 20, 15)

    def test_the_spot_is_where_most_is_unsure_not_where_one_voxel_is(self):
        values = np.zeros((1, 40, 30), np.float32)
        values[0, 3, 3] = 1
        values[0, 20:30, 10:20] = 0.9
        survey = Survey(SHAPE, CUBES)
        survey.add(Box((7, 0, 0), (8, 40, 30)), values)

        z, y, x = survey.spot(0, 7)

        assert z == 7
        assert 20 <= y < 30
        assert 10 <= x < 20

    def test_the_spot_does_not_depend_on_the_tiles(self, monkeypatch):
        values = np.random.default_rng(1).random((20, 40, 30)).astype(np.float32)
        values[9, 12:20, 8:20] += 1  # across the edges of tiles
        found = []
        for tile_shape in (SHAPE, TILE, (3, 7, 5)):
            survey = Survey(SHAPE, CUBES)
            for tile in spread_tiles(Box.whole(SHAPE), tile_shape, 1000):
                survey.add(tile, values[tile.slices])
            found.append(survey.spot(0, 9))

        assert found[0] == found[1] == found[2]
        assert 12 <= found[0][1] < 20
        assert 8 <= found[0][2] < 20
        monkeypatch.setattr(advice, "_LARGEST_PLANE", 100)
        assert survey.spot(0, 9)[0] == 9


class TestTiles:
    @given(st.tuples(*[st.integers(1, 60)] * 3), st.integers(1, 30))
    def test_tiles_lie_within_and_apart_and_are_no_more_than_asked_for(self, shape, most):
        covered = np.zeros(shape, int)

        tiles = spread_tiles(Box.whole(shape), TILE, most)

        for tile in tiles:
            assert tile.n_voxels
            covered[tile.slices] += 1
        n_all = np.prod([-(-n // t) for n, t in zip(shape, TILE, strict=True)])
        assert covered.max() == 1
        assert 1 <= len(tiles) <= most
        assert n_all > most or covered.all()

    def test_few_tiles_of_many_reach_all_slices_of_each_orientation(self):
        whole = Box.whole((64, 256, 256))

        tiles = spread_tiles(whole, (8, 16, 16), 24)

        assert len(tiles) == 24
        assert all(len({tile.start[axis] for tile in tiles}) >= n for axis, n in enumerate((8, 15, 15)))


class TestAdvisor:
    def test_the_unsure_slice_is_found_with_its_spot(self):
        predictor = sure_but_in(Box((12, 4, 4), (14, 12, 12)), Box((5, 20, 20), (6, 24, 24)))

        (found,) = advise(predictor, {0: {3}})

        assert (found.axis, found.index) in [(0, 12), (0, 13)]
        assert found.spot[0] == found.index
        assert 4 <= found.spot[1] < 12
        assert 4 <= found.spot[2] < 12

    def test_of_all_orientations_the_most_uncertain_slice_is_taken(self):
        predictor = sure_but_in(Box((0, 22, 0), (20, 23, 30)))

        (found,) = advise(predictor, axes=(0, 1, 2))

        assert (found.axis, found.index) == (1, 22)

    def test_intervals_take_the_spot_from_the_network(self):
        predictor = sure_but_in(Box((9, 30, 20), (10, 36, 26)))

        (found,) = advise(predictor, method="intervals")

        assert (found.axis, found.index, found.score) == (0, 9, 1)
        assert 30 <= found.spot[1] < 36
        assert 20 <= found.spot[2] < 26
        assert all(tile.start[0] == 9 and tile.stop[0] == 10 for tile in predictor.looked_at)

    def test_without_a_network_the_spot_is_the_middle(self):
        (found,) = advise(None, method="intervals")

        assert found.spot == (9, 20, 15)
        with pytest.raises(ValueError, match="predictor"):
            advise(None, method="uncertainty")

    @pytest.mark.parametrize("method", ["intervals", "uncertainty"])
    def test_it_looks_at_few_places_of_a_large_volume(self, method):
        shape = (64, 512, 512)
        looked_at = []

        def tile(box):
            looked_at.append(box)
            return torch.full((2, *box.shape), 0.5)

        predictor = SimpleNamespace(tile=tile, overlapping=False, tile_shape=TILE)

        found = advise(predictor, method=method, shape=shape, n=3, most_tiles=9)

        assert len(found) == 3
        assert len(looked_at) <= 9


def test_painted_slices_are_told_by_their_orientation():
    truth = np.ones(SHAPE, np.uint8)
    annotation = make_annotation(paint_planes(truth, (0, 4), (2, 11)))

    assert painted_slices_by_axis(annotation) == {0: {4}, 1: set(), 2: {11}}


@pytest.mark.parametrize(
    ("shape", "spacing", "expected"),
    [
        ((9, 9, 9), (1, 1, 1), (0, 1, 2)),
        ((9, 9, 9), (2.9, 1, 1), (0, 1, 2)),
        ((9, 9, 9), (5, 1, 1), (0,)),
        ((1, 9, 9), (1, 1, 1), ()),
    ],
)
def test_slices_of_long_voxels_are_not_painted(shape, spacing, expected):
    assert paintable_axes(shape, spacing) == expected
