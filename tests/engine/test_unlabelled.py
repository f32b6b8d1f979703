"""Unpainted voxels that may be either: the losses, the sample, the prior, and networks that learn from them."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import QUICK, SMALL, make_annotation, make_blobs, make_features, make_trainer, whole

from napari_sparseseg._types import Annotation
from napari_sparseseg.config import PaintConfig
from napari_sparseseg.engine.classes import ClassTable
from napari_sparseseg.engine.lessons import Targets, criterion_of
from napari_sparseseg.engine.losses import non_negative_risk, partial_label_loss
from napari_sparseseg.engine.model import ModelSpec
from napari_sparseseg.engine.paint import prepare_paint
from napari_sparseseg.engine.trainer import Trainer
from napari_sparseseg.engine.weak import unlabelled as module
from napari_sparseseg.engine.weak.unlabelled import joined_by_unlabelled, mixture_proportion, unlabelled_criterion
from weak.reference import drawn_unlabelled, risk_of_unlabelled

SHAPE = (10, 40, 40)
TABLE = ClassTable((1, 2), 1)
BACKGROUND, RISK = PaintConfig(unlabelled="background"), PaintConfig(unlabelled="risk")


def value_and_gradient(loss, logits, *others):
    leaf = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
    value = loss(leaf, *(torch.as_tensor(other) for other in others))
    value.backward()
    return value.item(), leaf.grad.numpy()


class TestRisk:
    @settings(deadline=None, max_examples=60)
    @given(seed=st.integers(0, 10**6), prior=st.floats(0.01, 0.99), data=st.data())
    def test_equals_plain_numpy_in_value_and_gradient(self, seed, prior, data):
        logits, allowed, weight = drawn_unlabelled(np.random.default_rng(seed))
        background = data.draw(st.integers(0, logits.shape[1] - 1))

        def loss(*inputs):
            return non_negative_risk(*inputs, background=background, prior=prior)

        value, gradient = value_and_gradient(loss, logits, allowed, weight)
        wanted, slope = risk_of_unlabelled(logits, allowed, weight, background, prior)
        assert value == pytest.approx(wanted, rel=1e-9, abs=1e-12)
        np.testing.assert_allclose(gradient, slope, rtol=1e-9, atol=1e-12)

    @settings(deadline=None, max_examples=20)
    @given(seed=st.integers(0, 10**6))
    def test_gradient_equals_finite_differences(self, seed):
        rng = np.random.default_rng(seed)
        logits, allowed, weight = rng.normal(size=(6, 3)), np.ones((6, 3), bool), np.ones(6)
        allowed[:2, 0] = False

        def risk(at):
            inputs = torch.from_numpy(at), torch.from_numpy(allowed), torch.from_numpy(weight)
            return non_negative_risk(*inputs, background=0, prior=0.1).item()

        gradient = np.zeros_like(logits)
        for place in np.ndindex(logits.shape):
            step = np.zeros_like(logits)
            step[place] = 1e-6
            gradient[place] = (risk(logits + step) - risk(logits - step)) / 2e-6
        _, found = value_and_gradient(
            lambda *i: non_negative_risk(*i, background=0, prior=0.1), logits, allowed, weight
        )
        np.testing.assert_allclose(found, gradient, atol=1e-7)

    @given(seed=st.integers(0, 10**6), prior=st.floats(0, 1))
    @settings(deadline=None, max_examples=30)
    def test_it_is_never_negative(self, seed, prior):
        logits, allowed, weight = drawn_unlabelled(np.random.default_rng(seed))
        inputs = torch.from_numpy(logits), torch.from_numpy(allowed), torch.from_numpy(weight)
        assert non_negative_risk(*inputs, background=0, prior=prior).item() >= 0

    def test_what_weighs_nothing_has_no_gradient(self):
        logits, allowed, weight = drawn_unlabelled(np.random.default_rng(3))
        weight[:] = 0
        loss, gradient = value_and_gradient(
            lambda *i: non_negative_risk(*i, background=0, prior=0.3), logits, allowed, weight
        )
        assert loss == 0
        assert not gradient.any()

    def test_unlabelled_voxels_without_objects_to_compare_with_say_nothing(self):
        logits, allowed = np.random.default_rng(0).normal(size=(5, 2)), np.ones((5, 2), bool)
        _, gradient = value_and_gradient(
            lambda *i: non_negative_risk(*i, background=0, prior=0.3), logits, allowed, np.ones(5)
        )
        assert not gradient.any()


class TestCriteria:
    LOGITS = np.random.default_rng(0).normal(size=(4, 2))
    ALLOWED = np.array([[True, True], [False, True], [True, True], [True, False]])
    WEIGHTS = np.array([1.0, 1.0, 3.0, 2.0])

    def of(self, criterion):
        return value_and_gradient(
            lambda logits, allowed, weights: criterion(logits, Targets(allowed, weights)),
            self.LOGITS,
            self.ALLOWED,
            self.WEIGHTS,
        )

    def test_ignored_voxels_have_no_gradient(self):
        _, gradient = self.of(criterion_of(PaintConfig()))
        assert not gradient[[0, 2]].any()
        assert gradient[[1, 3]].all()

    def test_weak_background_is_background_with_its_weight(self):
        config = BACKGROUND.with_changes(negative_weight=0.25, positive_weight=2.0)
        value, gradient = self.of(unlabelled_criterion(config, 0, 0.0))
        allowed = np.array([[True, False], [False, True], [True, False], [True, False]])
        wanted, slope = value_and_gradient(
            partial_label_loss, self.LOGITS, allowed, self.WEIGHTS * [0.25, 2.0, 0.25, 2.0]
        )
        assert value == pytest.approx(wanted)
        np.testing.assert_allclose(gradient, slope)

    def test_risk_is_that_of_the_prior(self):
        value, _ = self.of(unlabelled_criterion(RISK, 0, 0.4))
        assert value == pytest.approx(risk_of_unlabelled(self.LOGITS, self.ALLOWED, self.WEIGHTS, 0, 0.4)[0])


def some_objects(truth, plane=5):
    """Left half of the objects on a slice, and nothing else."""
    painted = np.zeros_like(truth)
    left = np.s_[plane, :, : truth.shape[2] // 2]
    painted[left] = np.where(truth[left] == 2, 2, 0)
    return painted


def prepared(codes, share=0.0):
    return prepare_paint(make_annotation(codes), TABLE, share=share, balance=0, seed=0)


class TestSample:
    @pytest.fixture
    def truth(self):
        return make_blobs(SHAPE)[1]

    @pytest.mark.parametrize("config", [BACKGROUND, RISK], ids=lambda c: c.unlabelled)
    def test_paint_stays_and_unpainted_voxels_join_it(self, truth, config):
        paint = prepared(some_objects(truth))
        joined = joined_by_unlabelled(paint, SHAPE, config, seed=0)
        is_new = joined.is_unlabelled
        assert is_new.sum() > 1000
        np.testing.assert_array_equal(joined.coordinates[~is_new], paint.coordinates)
        np.testing.assert_array_equal(joined.weights[~is_new], paint.weights)
        assert (np.diff(joined.coordinates[:, 0]) >= 0).all()
        assert not some_objects(truth)[tuple(joined.coordinates[is_new].T)].any()
        assert len(np.unique(joined.coordinates, axis=0)) == len(joined)
        assert not joined.is_definite[is_new].any()

    def test_only_a_risk_is_estimated_on_slices_without_paint(self, truth):
        paint = prepared(some_objects(truth))
        slices = {
            config.unlabelled: set(joined_by_unlabelled(paint, SHAPE, config, seed=0).coordinates[:, 0].tolist())
            for config in (BACKGROUND, RISK)
        }
        assert slices["background"] == {5}
        assert len(slices["risk"]) == 3

    def test_weak_background_weighs_what_it_stands_for(self, truth, monkeypatch):
        monkeypatch.setattr(module, "_FEWEST", 200)
        monkeypatch.setattr(module, "_PER_PAINTED", 0)
        paint = prepared(some_objects(truth))
        joined = joined_by_unlabelled(paint, SHAPE, BACKGROUND, seed=0)
        assert 100 < joined.is_unlabelled.sum() <= 200
        assert joined.weights[joined.is_unlabelled].sum() == pytest.approx(40 * 40 - len(paint), rel=0.1)

    def test_what_is_far_from_the_paint_was_not_looked_at(self):
        codes = np.zeros((1, 300, 300), np.uint8)
        codes[0, 150, 150] = 2
        joined = joined_by_unlabelled(prepared(codes), codes.shape, BACKGROUND, seed=0)
        assert np.abs(joined.coordinates[:, 1:] - 150).max() == module._AROUND

    def test_the_gap_around_held_out_paint_stays_empty(self, truth):
        paint = prepared(some_objects(truth), share=0.3)
        assert paint.held_out.any()
        joined = joined_by_unlabelled(paint, SHAPE, BACKGROUND, seed=0)
        held_out, learnt = (joined.coordinates[chosen].astype(int) for chosen in (joined.held_out, joined.learnt))
        assert np.abs(held_out[:, None] - learnt[None]).max(-1).min() > 3

    def test_it_depends_on_the_seed_only(self, truth):
        paint = prepared(some_objects(truth))
        first, again, other = (joined_by_unlabelled(paint, SHAPE, RISK, seed).coordinates for seed in (1, 1, 2))
        np.testing.assert_array_equal(first, again)
        assert first.shape != other.shape or (first != other).any()

    def test_without_paint_there_is_nothing_to_join(self):
        assert len(joined_by_unlabelled(prepared(np.zeros(SHAPE, np.uint8)), SHAPE, RISK, seed=0)) == 0


class TestPrior:
    @settings(max_examples=20, deadline=None)
    @given(share=st.floats(0.05, 0.8), seed=st.integers(0, 1000))
    def test_the_share_of_positives_is_found_by_scores(self, share, seed):
        rng = np.random.default_rng(seed)
        positive, is_positive = rng.normal(3, 1, 3000), rng.random(3000) < share
        unlabelled = rng.normal(3 * is_positive, 1)
        assert mixture_proportion(positive, unlabelled) == pytest.approx(share, abs=0.07)

    def test_it_is_told_from_paint(self):
        image, truth = make_blobs((10, 64, 64), contrast=3.0)
        joined = joined_by_unlabelled(prepared(some_objects(truth)), truth.shape, RISK, seed=0)
        share = (truth[tuple(joined.coordinates[joined.is_unlabelled].T)] == 2).mean()
        features = make_features(image)
        found = module.estimated_prior([features], [joined], 0, seed=0)
        assert found == pytest.approx(share, abs=0.15)
        assert found == module.estimated_prior([features], [joined], 0, seed=0)


def trainer_on(image, codes, paint, seed=0):
    """A trainer whose background is class 1, painted or not."""
    annotation: Annotation = make_annotation(codes)
    network = ModelSpec(SMALL, (1.0, 1.0, 1.0), 1, (False, False, False)).build(2, seed)
    trainer = Trainer(network, TABLE, QUICK, paint=paint, seed=seed)
    trainer.learn_from([make_features(image)], [annotation])
    return trainer


def trained(trainer, n_steps):
    for step in trainer.steps():
        if step.step >= n_steps:
            return trainer
    raise AssertionError


class TestLearning:
    @pytest.fixture
    def volume(self):
        return make_blobs(SHAPE, contrast=3.0)

    @pytest.mark.parametrize("mode", ["background", "risk"])
    def test_one_painted_class_is_enough(self, volume, mode):
        image, truth = volume
        trainer = trained(trainer_on(image, some_objects(truth), PaintConfig(unlabelled=mode)), 5)
        found = trainer.averaged(trainer._maps[0].read(whole(SHAPE))).argmax(-1).numpy() == 1
        dice = 2 * (found & (truth == 2)).sum() / (found.sum() + (truth == 2).sum())
        assert dice > 0.8
        assert trainer.dice is None  # no held-out paint could tell what is found too much
        assert not trainer.averaged.shift.any()
        assert trainer.averaged.context > 0

    @pytest.mark.parametrize("mode", ["background", "risk"])
    def test_a_pickled_trainer_learns_on_as_the_original(self, volume, mode):
        image, truth = volume
        original = trained(trainer_on(image, some_objects(truth), PaintConfig(unlabelled=mode)), 1)
        copied = pickle.loads(pickle.dumps(original))
        one, other = (trained(trainer, 2).averaged.state_dict() for trainer in (original, copied))
        for name, value in one.items():
            assert torch.equal(value, other[name]), name

    def test_paint_of_the_background_lets_paint_be_held_out(self, volume):
        image, truth = volume
        codes = some_objects(truth)
        codes[5, :, 20:] = truth[5, :, 20:]
        trainer = trained(trainer_on(image, codes, RISK), 5)
        assert trainer.dice > 0.5

    def test_ignored_is_as_it_always_was(self, volume):
        image, truth = volume
        codes = np.where(np.indices(SHAPE)[0] == 5, truth, 0)
        plain = trained(make_trainer(image, codes), 3).averaged.state_dict()
        other = PaintConfig(unlabelled="ignore", prior=0.3, negative_weight=0.1, positive_weight=3.0)
        ignored = trained(make_trainer(image, codes, paint=other), 3).averaged.state_dict()
        for name, value in plain.items():
            assert torch.equal(value, ignored[name]), name

    def test_the_shift_of_an_earlier_mode_is_forgotten(self, volume):
        image, truth = volume
        trainer = trainer_on(image, some_objects(truth), BACKGROUND)
        trainer.averaged.shift += 0.7
        trained(trainer, 5)
        assert not trainer.averaged.shift.any()
