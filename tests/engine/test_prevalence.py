"""How common each class really is, told from a model that learnt from paint in other proportions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import make_annotation, make_blobs, make_trainer, paint_planes

from napari_sparseseg.config import TrainingConfig
from napari_sparseseg.engine.checks import stroke_share
from napari_sparseseg.engine.prevalence import prevalence, shift_towards


def answers_of(classes, painted, rng, contrast):
    """Log-probabilities of the ideal model of two overlapping Gaussians that was shown `painted` shares."""
    value = rng.normal(classes * contrast, 1.0)
    centres = np.arange(len(painted)) * contrast
    logits = -0.5 * (value[:, None] - centres) ** 2 + np.log(painted)
    return torch.from_numpy(logits).log_softmax(-1)


@settings(max_examples=25, deadline=None)
@given(true=st.floats(0.03, 0.97), painted=st.floats(0.1, 0.9), seed=st.integers(0, 2**16))
def test_true_shares_are_found_behind_others_that_were_painted(true, painted, seed):
    rng = np.random.default_rng(seed)
    classes = (rng.random(20_000) < true).astype(float)
    shares = torch.tensor([1 - painted, painted], dtype=torch.float64)
    found = prevalence(answers_of(classes, shares.numpy(), rng, contrast=3.0), shares)
    assert found.sum().item() == pytest.approx(1)
    assert found[1].item() == pytest.approx(true, abs=0.02)


def test_the_shift_turns_the_answers_into_those_of_a_model_that_knew_the_shares():
    rng = np.random.default_rng(0)
    classes = (rng.random(1000) < 0.3).astype(float)
    painted, true = torch.tensor([0.5, 0.5]).double(), torch.tensor([0.7, 0.3]).double()
    told = answers_of(classes, painted.numpy(), np.random.default_rng(1), contrast=2.0)
    knowing = answers_of(classes, true.numpy(), np.random.default_rng(1), contrast=2.0)
    torch.testing.assert_close((told + shift_towards(true, painted)).log_softmax(-1), knowing)


def test_a_class_that_is_never_recognised_does_not_vanish():
    shift = shift_towards(torch.tensor([1.0, 0.0]), torch.tensor([0.5, 0.5]))
    assert shift.isfinite().all()
    assert shift[0] - shift[1] < np.log(10)


class TestWhileLearning:
    """Bright balls that fill a twentieth of a noisy volume."""

    SHAPE = (16, 48, 48)

    @pytest.fixture
    def truth(self):
        z, y, x = np.indices(self.SHAPE)
        centres = (8, 10, 12), (8, 34, 30), (6, 12, 38)
        balls = [(z - a) ** 2 + (y - b) ** 2 + (x - c) ** 2 < 36 for a, b, c in centres]
        return (1 + np.any(balls, axis=0)).astype(np.uint8)

    def shift_after(self, truth, painted):
        image = (truth - 1.0) + np.random.default_rng(0).normal(0, 0.7, truth.shape)
        trainer = make_trainer(image.astype(np.float32), painted, TrainingConfig(warm_start_steps=150))
        for _ in trainer.steps(with_context=False):
            pass
        return trainer.averaged.shift

    def test_strokes_in_equal_amounts_make_the_rare_class_less_likely(self, truth):
        painted = np.zeros_like(truth)
        painted[8, 7:10, 6:18] = truth[8, 7:10, 6:18]
        painted[8, 24:27, 4:16] = truth[8, 24:27, 4:16]
        shift = self.shift_after(truth, painted)
        assert shift[1] < -0.1 < shift[0]

    def test_a_slice_that_is_painted_all_over_is_believed(self, truth):
        shift = self.shift_after(truth, paint_planes(truth, (0, 8)))
        assert shift.abs().max() < 0.05


class TestGuidedPaint:
    """Corrections show where a prediction went wrong, not how common classes are."""

    @staticmethod
    def strokes(truth, n):
        codes = np.zeros_like(truth)
        for z in range(1, 1 + n):
            for class_id in (1, 2):
                places = np.argwhere(truth[z] == class_id)[:20]
                codes[z][tuple(places.T)] = class_id
        return codes

    def test_paint_that_came_after_a_prediction_does_not_count(self):
        image, truth = make_blobs((8, 40, 40))
        trainer = make_trainer(image, self.strokes(truth, 1))
        assert trainer._course.checks.unguided == 1
        trainer.learn_from(trainer._maps, [make_annotation(self.strokes(truth, 4))])
        assert trainer._course.checks.unguided == 0.25 * stroke_share(trainer._maps, trainer._course.paints)
        trainer.learn_from(trainer._maps, [make_annotation(self.strokes(truth, 1))])  # undone
        assert trainer._course.checks.unguided == 1

    def test_it_is_remembered_and_older_files_take_all_for_unguided(self):
        image, truth = make_blobs((8, 40, 40))
        first = make_trainer(image, self.strokes(truth, 1))
        plain, tensors = first.state()
        second = make_trainer(image, self.strokes(truth, 4))
        second.restore(plain, tensors)
        second.learn_from(second._maps, [make_annotation(self.strokes(truth, 4))], is_known=True)
        assert second._course.checks.unguided == 0.25 * stroke_share(second._maps, second._course.paints)
        del plain["n_unguided"]
        second.restore(plain, tensors)
        second.learn_from(second._maps, [make_annotation(self.strokes(truth, 4))], is_known=True)
        assert second._course.checks.unguided == stroke_share(second._maps, second._course.paints) > 0
