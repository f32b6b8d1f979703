"""The loss over (allowed classes, weight)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_sparseseg.engine.losses import partial_label_loss
from weak.reference import partial_label

SMOOTHING = st.sampled_from([0.0, 0.1, 0.5])


def reference(*drawn):
    """The value that plain numpy finds, voxel by voxel."""
    return partial_label(*drawn)[0]


@st.composite
def labelled_logits(draw):
    """Logits (float64), allowed classes and weights of a few voxels."""
    n, n_classes = draw(st.integers(1, 12)), draw(st.integers(2, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    logits = rng.normal(scale=draw(st.sampled_from([0.1, 3.0, 30.0])), size=(n, n_classes))
    allowed = rng.random((n, n_classes)) < draw(st.sampled_from([0.2, 0.6, 1.0]))
    allowed[np.arange(n), rng.integers(n_classes, size=n)] = True
    weight = rng.choice([0.0, 0.5, 1.0, 7.0], size=n)
    return logits, allowed, weight


def loss_and_gradient(logits, allowed, weight, smoothing=0.0):
    leaf = torch.from_numpy(logits).requires_grad_()
    loss = partial_label_loss(leaf, torch.from_numpy(allowed), torch.from_numpy(weight), smoothing=smoothing)
    loss.backward()
    return loss.item(), leaf.grad.numpy()


@settings(deadline=None, max_examples=50)
@given(labelled_logits(), SMOOTHING)
def test_equals_the_plain_formula(drawn, smoothing):
    found, _ = loss_and_gradient(*drawn, smoothing)
    assert found == pytest.approx(reference(*drawn, smoothing), rel=1e-9, abs=1e-12)


@settings(deadline=None, max_examples=20)
@given(labelled_logits(), SMOOTHING)
def test_gradient_equals_finite_differences(drawn, smoothing):
    logits, allowed, weight = drawn
    gradient = loss_and_gradient(*drawn, smoothing)[1]
    step = 1e-5
    for index in np.ndindex(logits.shape):
        above, below = logits.copy(), logits.copy()
        above[index] += step
        below[index] -= step
        slope = (reference(above, allowed, weight, smoothing) - reference(below, allowed, weight, smoothing)) / (
            2 * step
        )
        assert gradient[index] == pytest.approx(slope, rel=1e-4, abs=1e-6)


@settings(deadline=None, max_examples=30)
@given(labelled_logits(), SMOOTHING)
def test_gradient_is_exactly_zero_where_nothing_is_said(drawn, smoothing):
    _, allowed, weight = drawn
    gradient = loss_and_gradient(*drawn, smoothing)[1]
    assert not gradient[(weight == 0) | allowed.all(axis=1)].any()


def test_one_allowed_class_is_weighted_cross_entropy():
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(size=(50, 4)).astype(np.float32))
    classes = torch.from_numpy(rng.integers(4, size=50))
    weight = torch.from_numpy(rng.random(50).astype(np.float32))
    each = torch.nn.functional.cross_entropy(logits, classes, reduction="none")
    loss = partial_label_loss(logits, torch.nn.functional.one_hot(classes, 4).bool(), weight)
    torch.testing.assert_close(loss, (each * weight).sum() / weight.sum())


def test_a_set_is_satisfied_by_any_of_its_classes():
    allowed = torch.tensor([[True, True, False]])
    for logits in ([20.0, -20.0, -20.0], [-20.0, 20.0, -20.0]):
        assert partial_label_loss(torch.tensor([logits]), allowed, torch.ones(1)).item() < 1e-6
    assert partial_label_loss(torch.tensor([[-20.0, -20.0, 20.0]]), allowed, torch.ones(1)).item() > 30


def test_nothing_said_anywhere_is_a_loss_of_zero_without_gradient():
    loss, gradient = loss_and_gradient(np.ones((3, 2)), np.ones((3, 2), bool), np.ones(3))
    assert loss == 0
    assert not gradient.any()


def test_stays_finite_where_the_network_is_sure_and_wrong():
    logits = np.array([[1e4, -1e4, 0.0]])
    loss, gradient = loss_and_gradient(logits, np.array([[False, True, False]]), np.ones(1))
    assert loss == pytest.approx(2e4)
    assert np.isfinite(gradient).all()


def test_smoothing_is_that_of_cross_entropy_where_one_class_is_painted():
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(size=(50, 4)).astype(np.float32))
    classes = torch.from_numpy(rng.integers(4, size=50))
    loss = partial_label_loss(logits, torch.nn.functional.one_hot(classes, 4).bool(), torch.ones(50), smoothing=0.2)
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(logits, classes, label_smoothing=0.2))


def test_smoothing_keeps_the_classes_of_a_set_alive_and_says_nothing_for_the_others():
    allowed = np.array([[True, True, False]])
    logits = np.array([[3.0, -3.0, 0.0]])
    plain, smooth = (loss_and_gradient(logits, allowed, np.ones(1), e)[1][0] for e in (0.0, 0.3))
    assert smooth[1] < plain[1]  # descent raises the class that is given up
    assert smooth[2] > 0  # and never the one that is ruled out
