"""How much paint of each class counts, and that the shift towards true shares does not take it back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import QUICK, make_annotation, make_blobs, make_trainer, paint_planes, whole

from napari_sparseseg.config import PaintConfig
from napari_sparseseg.engine.classes import ClassTable
from napari_sparseseg.engine.paint import prepare_paint
from napari_sparseseg.engine.prevalence import painted_share, prevalence, shift_towards, without_class_weights
from napari_sparseseg.errors import InputError

SHAPE = (8, 32, 32)


def weights_of(codes, class_weights, allowed=None, classes=(1, 2, 3)):
    annotation = make_annotation(np.asarray(codes, np.uint8).reshape(1, 1, -1), allowed)
    table = ClassTable(classes, classes[0])
    return prepare_paint(annotation, table, share=0, balance=0, seed=0, class_weights=class_weights).weights.tolist()


class TestWeights:
    def test_each_class_has_its_own_and_1_if_none_is_given(self):
        assert weights_of([1, 2, 3, 1], (4.0, 0.5)) == [4.0, 0.5, 1.0, 4.0]

    def test_a_set_weighs_the_mean_of_its_classes(self):
        assert weights_of([1, 130], (4.0, 2.0), {130: {2, 3}}) == [4.0, 1.5]

    def test_the_order_is_that_of_the_ids_not_the_ids_themselves(self):
        assert weights_of([7, 90], (3.0, 5.0), classes=(7, 90)) == [3.0, 5.0]

    def test_those_of_classes_that_are_not_there_are_left_over(self):
        assert weights_of([1, 2], (3.0, 5.0, 7.0, 9.0), classes=(1, 2)) == [3.0, 5.0]

    def test_classes_that_overlap_have_weights_of_their_own(self):
        annotation = make_annotation(np.array([[[1, 2]]], np.uint8))
        table = ClassTable((1, 2), 0, overlapping=True)
        paint = prepare_paint(annotation, table, share=0, balance=0, seed=0, class_weights=(9.0,))
        assert paint.weights.tolist() == [1, 1]

    @pytest.mark.parametrize("wrong", [(0.0,), (-1.0, 1.0), (1.0, float("inf"))])
    def test_a_weight_that_is_none_is_refused(self, wrong):
        with pytest.raises(InputError, match="class_weights"):
            PaintConfig.of({"class_weights": wrong})


def trained(image, truth, paint=None, n_steps=6):
    painted = paint_planes(truth, (0, 3))
    painted[:, :, ::3] = 0
    trainer = make_trainer(image, painted, QUICK, paint=paint)
    for step in trainer.steps():
        if step.step >= n_steps:
            break
    return trainer.averaged


class TestLearning:
    @pytest.fixture
    def volume(self):
        return make_blobs(SHAPE, contrast=0.7)

    def test_weights_of_1_change_no_bit(self, volume):
        plain, alike = trained(*volume), trained(*volume, PaintConfig(class_weights=(1.0, 1.0)))
        for name, value in plain.state_dict().items():
            assert torch.equal(value, alike.state_dict()[name]), name

    def test_a_class_that_weighs_more_is_found_more_often(self, volume):
        image, _ = volume
        found = {}
        for weight in (0.1, 1.0, 10.0):
            config, paint = QUICK.with_changes(warm_start_steps=100), PaintConfig(class_weights=(1.0, weight))
            trainer = make_trainer(image, strokes(volume[1]), config, paint=paint)
            for _ in trainer.steps(with_context=False):
                pass
            features = trainer.averaged(trainer._maps[0].read(whole(SHAPE)))
            found[weight] = float((features.argmax(-1) == 1).float().mean())
        assert found[0.1] < found[1.0] - 0.05
        assert found[10.0] > found[1.0] + 0.05


def strokes(truth):
    """Rows, not areas: then it is estimated how common the classes are."""
    painted = np.zeros_like(truth)
    painted[2, 4::12], painted[5, 8::12] = truth[2, 4::12], truth[5, 8::12]
    return painted


class TestShift:
    @settings(max_examples=25, deadline=None)
    @given(weights=st.lists(st.floats(0.1, 10), min_size=2, max_size=5), seed=st.integers(0, 1000))
    def test_the_unweighted_share_is_that_of_paint_without_weights(self, weights, seed):
        n_classes = len(weights)
        codes = np.concatenate([np.arange(n_classes), np.random.default_rng(seed).integers(n_classes, size=30)]) + 1
        annotation = make_annotation(codes.astype(np.uint8).reshape(1, 1, -1))
        table = ClassTable(tuple(range(1, n_classes + 1)), 1)
        plain, weighted = (
            prepare_paint(annotation, table, share=0, balance=0, seed=0, class_weights=given)
            for given in ((), tuple(np.float32(10) * np.float32(w) for w in weights))
        )
        recovered = without_class_weights(painted_share([weighted]), [10 * w for w in weights])
        torch.testing.assert_close(recovered, painted_share([plain]))

    def test_answers_become_those_of_true_shares_times_weights(self):
        rng = np.random.default_rng(0)
        painted, weight, true = (np.array(v) for v in ([0.5, 0.5], [1.0, 3.0], [0.8, 0.2]))
        value = torch.from_numpy(rng.normal(2.5 * (rng.random(20_000) < true[1]), 1.0))
        likelihood = torch.stack([-0.5 * value**2, -0.5 * (value - 2.5) ** 2], 1)
        learnt = torch.from_numpy(painted * weight / (painted * weight).sum())
        logits = likelihood + learnt.log()
        share = prevalence(logits.log_softmax(1), learnt)
        shift = shift_towards(share, without_class_weights(learnt, weight))
        wanted = np.log(true * weight)
        assert float(shift[1] - shift[0] + learnt[1].log() - learnt[0].log()) == pytest.approx(
            wanted[1] - wanted[0], abs=0.1
        )
