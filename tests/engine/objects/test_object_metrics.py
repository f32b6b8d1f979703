"""Scores of objects against what counting pairs of objects and of voxels gives."""

from __future__ import annotations

import math
from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_sparseseg.engine.objects.metrics import score_objects


@st.composite
def partitions(draw):
    """Found and true ids of one shape."""
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=4))
    ids = st.sampled_from([0, 1, 2, 7])
    return [draw(hnp.arrays(np.uint32, shape, elements=ids)) for _ in range(2)]


def objects_of(ids):
    return [set(np.flatnonzero(ids.ravel() == n)) for n in np.unique(ids) if n]


def precision_by_hand(found, truth, overlap):
    """The most matches that any order of matching gives."""
    found, truth = objects_of(found), objects_of(truth)
    if not (found or truth):
        return math.nan
    few, many = sorted([found, truth], key=len)
    matches = max(
        sum(len(a & b) / len(a | b) >= overlap for a, b in zip(few, order, strict=True))
        for order in permutations(many, len(few))
    )
    return matches / (len(found) + len(truth) - matches)


def entropy(values):
    _, counts = np.unique(values, return_counts=True, axis=0)
    shares = counts / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


def rand_error_by_hand(found, truth):
    pairs = list(combinations(range(len(truth)), 2))
    in_found = {p for p in pairs if found[p[0]] == found[p[1]]}
    in_truth = {p for p in pairs if truth[p[0]] == truth[p[1]]}
    total = len(in_found) + len(in_truth)
    return 1 - 2 * len(in_found & in_truth) / total if total else 0.0


@given(pair=partitions(), overlap=st.sampled_from([0.1, 0.25, 0.5, 0.75, 1.0]))
def test_average_precision_is_that_of_the_best_matching(pair, overlap):
    found, truth = pair
    wanted = precision_by_hand(found, truth, overlap)
    np.testing.assert_allclose(score_objects(found, truth).average_precision(overlap), wanted)


@given(pair=partitions())
def test_entropies_and_pairs_are_those_of_the_voxels_of_true_objects(pair):
    found, truth = pair
    scores = score_objects(found, truth)
    inside = truth > 0
    if not inside.any():
        assert math.isnan(scores.voi_split)
        assert math.isnan(scores.voi_merge)
        assert math.isnan(scores.rand_error)
        return
    found, truth = found[inside].astype(int), truth[inside].astype(int)
    joint = entropy(np.stack([found, truth], 1))
    np.testing.assert_allclose(scores.voi_split, joint - entropy(truth), atol=1e-9)
    np.testing.assert_allclose(scores.voi_merge, joint - entropy(found), atol=1e-9)
    np.testing.assert_allclose(scores.rand_error, rand_error_by_hand(found, truth), atol=1e-9)


@given(ids=partitions().map(lambda pair: pair[1]))
def test_numbers_of_ids_do_not_matter(ids):
    other = np.array([0, 90, 5, 0, 0, 0, 0, 1], np.uint32)[ids]
    scores = score_objects(other, ids)
    if not ids.any():
        assert (scores.n_found, scores.n_true) == (0, 0)
        return
    assert scores.average_precision(1.0) == 1
    np.testing.assert_allclose([scores.voi_split, scores.voi_merge, scores.rand_error], 0, atol=1e-9)


@given(pair=partitions(), data=st.data())
def test_unknown_voxels_count_for_nothing(pair, data):
    found, truth = pair
    known = data.draw(hnp.arrays(bool, found.shape))
    scores = score_objects(found, truth, known)
    other = score_objects(np.where(known, found, 0), np.where(known, truth, 0))
    assert (scores.n_found, scores.n_true) == (other.n_found, other.n_true)
    np.testing.assert_equal(scores.average_precision(), other.average_precision())


def test_one_object_cut_in_halves_is_a_split_of_one_bit():
    truth, found = np.ones((4, 4), int), np.repeat([[1, 1, 2, 2]], 4, 0)
    scores = score_objects(found, truth)
    assert (scores.voi_split, scores.voi_merge) == (pytest.approx(1), pytest.approx(0))
    assert scores.average_precision(0.5) == pytest.approx(1 / 2), "one half matches, the other is in excess"
    assert scores.average_precision(0.6) == 0
