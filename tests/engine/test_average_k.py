"""Candidate classes: what the second head is taught, and at which score a class comes into question."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import CUBES, SMALL, make_annotation

from napari_sparseseg._types import Box
from napari_sparseseg.config import PaintConfig
from napari_sparseseg.engine.classes import ClassTable
from napari_sparseseg.engine.heads import CandidateHead, Heads
from napari_sparseseg.engine.lessons import Patches
from napari_sparseseg.engine.model import ModelSpec
from napari_sparseseg.engine.paint import prepare_paint
from napari_sparseseg.engine.weak.average_k import (
    CandidateLesson,
    average_threshold,
    pseudo_candidates,
    threshold_for,
)
from napari_sparseseg.errors import InputError

SIZES = st.tuples(st.integers(1, 40), st.integers(2, 5), st.integers(0, 2**32 - 1))


def drawn(sizes):
    n, n_classes, seed = sizes
    rng = np.random.default_rng(seed)
    probabilities = torch.from_numpy(rng.dirichlet(np.ones(n_classes), size=n))
    allowed = rng.random((n, n_classes)) < 0.4
    allowed[np.arange(n), rng.integers(n_classes, size=n)] = True
    return probabilities, torch.from_numpy(allowed)


@settings(deadline=None, max_examples=50)
@given(SIZES, st.floats(1, 3))
def test_as_many_classes_are_above_the_threshold_as_are_wanted_on_average(sizes, average):
    probabilities, _ = drawn(sizes)
    wanted = min(probabilities.numel(), round(average * len(probabilities)))
    assert int((probabilities >= threshold_for(probabilities.flatten(), wanted)).sum()) == wanted


@settings(deadline=None, max_examples=50)
@given(SIZES, st.floats(1, 3))
def test_the_true_class_is_always_a_candidate_and_the_rest_are_the_most_probable(sizes, average):
    probabilities, allowed = drawn(sizes)
    found = pseudo_candidates(probabilities, allowed, average)
    true = torch.where(allowed, probabilities, -1).argmax(1)
    assert found[torch.arange(len(found)), true].all()
    others = torch.ones_like(found).scatter_(1, true[:, None], False)
    if (found & others).any() and (~found & others).any():
        assert probabilities[found & others].min() >= probabilities[~found & others].max()


@settings(deadline=None, max_examples=50)
@given(SIZES, st.floats(1, 4))
def test_sets_have_the_average_size_and_hold_the_likeliest_class(sizes, average):
    probabilities, _ = drawn(sizes)
    scores = torch.from_numpy(np.random.default_rng(sizes[2]).random(probabilities.shape))
    head = CandidateHead(3, probabilities.shape[1])
    head.threshold = average_threshold(scores, probabilities, average)
    head.scores = lambda *_: scores
    found = head.candidates(torch.zeros(len(scores), 3), probabilities, 1.0)
    assert found[torch.arange(len(found)), probabilities.argmax(1)].all()
    wanted = min(probabilities.numel(), len(found) + round((average - 1) * len(found)))
    assert int(found.sum()) == wanted


def test_before_it_is_calibrated_a_voxel_has_its_likeliest_class_only():
    probabilities = torch.tensor([[0.6, 0.4], [0.1, 0.9]])
    found = CandidateHead(3, 2).candidates(torch.zeros(2, 3), probabilities, 1.0)
    assert found.tolist() == [[True, False], [False, True]]


def test_scores_are_the_probabilities_where_the_context_has_no_say():
    probabilities = torch.tensor([[0.6, 0.4], [0.1, 0.9]])
    head = CandidateHead(3, 2)
    torch.testing.assert_close(head.scores(torch.zeros(2, 3), probabilities, 0.0), probabilities)
    torch.testing.assert_close(head.scores(torch.zeros(2, 3), probabilities, 1.0), torch.full((2, 2), 0.5))


def test_voxels_that_say_nothing_teach_nothing():
    codes = np.zeros((1, 4, 4), np.uint8)
    codes[0, 0] = [1, 2, 3, 9]
    annotation = make_annotation(codes, allowed={9: {1, 2, 3}}, weight=np.where(codes == 3, 0.5, 1.0))
    paint = prepare_paint(annotation, ClassTable((1, 2, 3), 1), share=0, balance=0, seed=0)
    paint.weights[paint.allowed[:, 2] & ~paint.allowed[:, 0]] = 0
    network = ModelSpec(SMALL, CUBES, 1, (False,) * 3).build(3, heads=Heads(candidates=True))
    decoded = torch.randn(4, SMALL.width, requires_grad=True)
    unseen = torch.zeros(1, 1, 1, 1, 1), Box.whole((1, 1, 1)), torch.zeros(1, 3, 1, 1, 1)
    patches = Patches([(0, np.arange(4))], [np.zeros((4, 3), np.int64)], decoded, torch.randn(4, 3), *unseen)
    with torch.no_grad():
        network.unet.candidates.weight.normal_()
    CandidateLesson([paint], 1.5).loss(network, patches).backward()
    assert decoded.grad.any(1).tolist() == [True, True, False, False]


@pytest.mark.parametrize("average", [0.5, -1.0, 128.0, float("nan")])
def test_averages_that_make_no_sense_are_refused(average):
    with pytest.raises(InputError, match=r"PaintConfig.candidates cannot be"):
        PaintConfig.of({"candidates": average})
