"""Classes that may overlap: the loss, what paint says of each class, and networks that learn from it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import QUICK, SMALL, make_annotation, make_features, make_network, standardise, whole

from napari_sparseseg._types import Box
from napari_sparseseg.config import PaintConfig
from napari_sparseseg.engine.classes import ClassTable
from napari_sparseseg.engine.labelling import best_labels, of_objects, present_of
from napari_sparseseg.engine.losses import multi_label_loss
from napari_sparseseg.engine.metrics import dice_of_overlapping
from napari_sparseseg.engine.model import ModelSpec
from napari_sparseseg.engine.paint import prepare_paint
from napari_sparseseg.engine.predictor import Predictor
from napari_sparseseg.engine.trainer import Trainer
from napari_sparseseg.engine.weak.overlapping import entry_weights, overlapping_loss
from napari_sparseseg.storage.annotation import read_annotation
from napari_sparseseg.storage.volume import ArrayVolume
from weak.reference import multi_label

SHAPE = (8, 32, 32)
TABLE = ClassTable((1, 2), 0, overlapping=True)


@st.composite
def weighted_logits(draw):
    n, n_classes = draw(st.integers(1, 8)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    scale = draw(st.sampled_from([0.1, 3.0, 40.0]))
    weights = (rng.choice([0.0, 0.5, 1.0, 7.0], (n, n_classes)) for _ in range(2))
    return (rng.normal(0, scale, (n, n_classes)), *weights)


def loss_and_gradient(logits, present, absent):
    leaf = torch.from_numpy(logits).requires_grad_()
    loss = multi_label_loss(leaf, torch.from_numpy(present), torch.from_numpy(absent))
    loss.backward()
    return loss.item(), leaf.grad.numpy()


class TestLoss:
    @settings(deadline=None, max_examples=40)
    @given(weighted_logits())
    def test_equals_plain_numpy_in_value_and_gradient(self, drawn):
        value, gradient = loss_and_gradient(*drawn)
        wanted, slope = multi_label(*drawn)
        assert value == pytest.approx(wanted, rel=1e-9, abs=1e-12)
        np.testing.assert_allclose(gradient, slope, rtol=1e-9, atol=1e-12)

    @settings(deadline=None, max_examples=15)
    @given(weighted_logits())
    def test_gradient_equals_finite_differences(self, drawn):
        logits, *weights = drawn
        gradient, step = loss_and_gradient(*drawn)[1], 1e-5
        for place in np.ndindex(logits.shape):
            above, below = logits.copy(), logits.copy()
            above[place] += step
            below[place] -= step
            slope = (multi_label(above, *weights)[0] - multi_label(below, *weights)[0]) / (2 * step)
            assert gradient[place] == pytest.approx(slope, rel=1e-4, abs=1e-6)

    @settings(deadline=None, max_examples=30)
    @given(weighted_logits())
    def test_gradient_is_exactly_zero_where_nothing_is_known(self, drawn):
        _, present, absent = drawn
        assert not loss_and_gradient(*drawn)[1][(present == 0) & (absent == 0)].any()

    def test_equals_binary_cross_entropy_where_all_is_known(self):
        rng = np.random.default_rng(0)
        logits = torch.from_numpy(rng.normal(size=(50, 3)))
        present = torch.from_numpy((rng.random((50, 3)) < 0.4).astype(float))
        loss = multi_label_loss(logits, present, 1 - present)
        torch.testing.assert_close(loss, torch.nn.functional.binary_cross_entropy_with_logits(logits, present))

    def test_stays_finite_where_the_network_is_sure_and_wrong(self):
        loss, gradient = loss_and_gradient(np.array([[-1e4, 1e4]]), np.array([[1.0, 0]]), np.array([[0, 1.0]]))
        assert loss == pytest.approx(1e4)
        assert np.isfinite(gradient).all()


class TestWeights:
    present = torch.tensor([[True, False, False], [False, False, False]])
    absent = torch.tensor([[False, True, False], [False, False, True]])
    weights = torch.tensor([1.0, 3.0])

    def of(self, **paint):
        found = entry_weights(self.present, self.absent, self.weights, PaintConfig(**paint))
        return [part.numpy() for part in found]

    def test_a_class_that_was_not_mentioned_counts_as_absent_where_another_is_present(self):
        present, absent = self.of(missing_weight=0.25)
        np.testing.assert_allclose(present, [[1, 0, 0], [0, 0, 0]])
        np.testing.assert_allclose(absent, [[0, 1, 0.25], [0, 0, 3]])

    def test_or_says_nothing(self):
        np.testing.assert_allclose(self.of(missing_weight=0)[1], [[0, 1, 0], [0, 0, 3]])

    def test_each_class_has_weights_of_its_own_and_one_if_left_out(self):
        present, absent = self.of(missing_weight=0, present_weight=(5,), absent_weight=(1, 0.5, 0.25, 9))
        np.testing.assert_allclose(present, [[5, 0, 0], [0, 0, 0]])
        np.testing.assert_allclose(absent, [[0, 0.5, 0], [0, 0, 0.75]])

    def test_smoothing_gives_a_share_to_present_and_absent_alike(self):
        present, absent = self.of(missing_weight=0, label_smoothing=0.2)
        np.testing.assert_allclose(present, [[0.9, 0.1, 0], [0, 0, 0.3]])
        np.testing.assert_allclose(present + absent, [[1, 1, 0], [0, 0, 3]])

    def test_nothing_flows_where_nothing_was_said(self):
        logits = torch.randn(2, 3, requires_grad=True)
        config = PaintConfig(missing_weight=0, label_smoothing=0.1)
        overlapping_loss(logits, self.present, self.absent, self.weights, config).backward()
        assert ((logits.grad != 0) == (self.present | self.absent)).all()


class TestWhatPaintSays:
    codes = np.array([[[0, 1, 2, 3, 130]]], np.uint8)

    def said(self, background=0):
        annotation = make_annotation(self.codes, allowed={130: {1, 3}})
        present, absent = ClassTable((1, 2, 3), background, overlapping=True).stated_by(annotation)
        return present.astype(int).tolist(), absent.astype(int).tolist()

    def test_a_class_is_present_and_a_set_rules_the_others_out(self):
        present, absent = self.said()
        assert present == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]]
        assert absent == [[0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 1, 0]]

    def test_the_background_rules_all_others_out_and_they_rule_it_out(self):
        present, absent = self.said(background=1)
        assert present == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]]
        assert absent == [[0, 1, 1], [1, 0, 0], [1, 0, 0], [0, 1, 0]]

    def test_an_axis_of_classes_says_it_of_each(self):
        states = np.zeros((3, 1, 1, 4), np.uint8)
        states[:, 0, 0, 0], states[:, 0, 0, 2] = (2, 2, 0), (1, 0, 2)
        annotation = read_annotation(states, ArrayVolume(np.zeros((1, 1, 4))), overlapping=True)
        assert annotation.coordinates.tolist() == [[0, 0, 0], [0, 0, 2]]
        present, absent = ClassTable((1, 2, 3), 0, overlapping=True).stated_by(annotation)
        assert present.astype(int).tolist() == [[1, 1, 0], [0, 0, 1]]
        assert absent.astype(int).tolist() == [[0, 0, 0], [1, 0, 0]]

    def test_paint_of_either_kind_can_be_held_out(self):
        truth = np.ones((2, 3, 64, 64), np.uint8)
        truth[0, :, :, 32:], truth[1, :, 32:] = 2, 2
        annotation = read_annotation(truth, ArrayVolume(np.zeros((3, 64, 64))), overlapping=True)
        paint = prepare_paint(annotation, TABLE, share=0.1, balance=0.5, seed=0)
        assert paint.kinds[paint.held_out].any(0).all()
        assert paint.kinds[paint.learnt].any(0).all()
        assert not (paint.present & ~paint.allowed).any()


class TestLabels:
    probabilities = torch.tensor([[0.9, 0.2, 0.6, 0.5], [0.8, 0.4, 0.7, 0.1]])[:, None, None]

    def test_the_likeliest_class_if_it_is_likelier_than_not(self):
        assert best_labels(self.probabilities, TABLE)[0, 0].tolist() == [1, 0, 2, 0]
        assert best_labels(self.probabilities, replace(TABLE, background=2))[0, 0].tolist() == [1, 2, 2, 2]

    def test_of_classes_that_exclude_each_other_always_one(self):
        table = ClassTable((3, 7), 3)
        assert best_labels(self.probabilities, table)[0, 0].tolist() == [3, 7, 7, 3]
        assert present_of(self.probabilities, table).sum(0).tolist() == [[[1, 1, 1, 1]]]

    def test_all_classes_that_are_likelier_than_not_are_present(self):
        assert present_of(self.probabilities, TABLE)[:, 0, 0].tolist() == [[1, 0, 1, 0], [1, 0, 1, 0]]

    def test_objects_of_a_class_are_not_cut_by_what_lies_over_them(self):
        table = replace(TABLE, objects=(1,))
        assert of_objects(self.probabilities, table).argmax(0)[0, 0, :3].tolist() == [0, 2, 0]

    def test_dice_looks_only_where_something_is_known(self):
        found = np.array([[1, 1], [1, 0], [0, 1]], bool)
        present = np.array([[1, 0], [0, 0], [1, 0]], bool)
        absent = np.array([[0, 0], [1, 0], [0, 0]], bool)
        assert dice_of_overlapping(found, present, absent, (4, 9))[4] == pytest.approx(0.5)
        assert np.isnan(dice_of_overlapping(found, present, absent, (4, 9))[9])


def make_nested():
    """An image with a bright core in a grey disc, and a trainer taught each on slices of its own."""
    y, x = np.indices(SHAPE)[1:]
    distance = np.hypot(y - 16, x - 16)
    truth = np.stack([distance < 12, distance < 6])
    image = (truth.sum(0) + 0.2 * np.random.default_rng(0).standard_normal(SHAPE)).astype(np.float32)
    states = np.zeros((2, *SHAPE), np.uint8)
    states[0, 2], states[1, 5] = 1 + truth[0, 2], 1 + truth[1, 5]
    return image, truth, states


def make_overlapping_trainer(seed=0, **paint):
    image, _, states = make_nested()
    annotation = read_annotation(states, ArrayVolume(np.zeros(SHAPE)), overlapping=True)
    network = ModelSpec(SMALL, (1.0, 1.0, 1.0), 1, (False,) * 3).build(2, seed, overlapping=True)
    trainer = Trainer(network, TABLE, QUICK, paint=PaintConfig(overlapping=True, **paint), seed=seed)
    trainer.learn_from([make_features(image)], [annotation])
    return trainer


def run(trainer, n_steps):
    steps = trainer.steps()
    while trainer.step < n_steps:
        next(steps)
    trainer.finish()
    with torch.no_grad():
        return trainer.averaged(trainer._maps[0].read(whole(SHAPE))).exp().numpy()


class TestNetwork:
    def test_answers_each_class_for_itself(self):
        network = ModelSpec(SMALL, (1.0, 1.0, 1.0), 1, (False,) * 3).build(3, overlapping=True)
        features = torch.randn(4, 8, 8, network.mean.shape[0])
        logits = network.pixel(network.standardised(features))
        torch.testing.assert_close(network(features).exp(), logits.sigmoid(), rtol=1e-4, atol=1e-6)

    def test_mixes_logits(self):
        network = ModelSpec(SMALL, (1.0, 1.0, 1.0), 1, (False,) * 3).build(2, overlapping=True)
        pixel, unet = torch.randn(5, 2), torch.randn(5, 2)
        torch.testing.assert_close(network.mixed(pixel, unet, 0.25), 0.75 * pixel + 0.25 * unet)

    def test_tiles_equal_the_whole(self):
        image = np.random.default_rng(0).standard_normal((8, 40, 40)).astype(np.float32)
        network = make_network(n_classes=3)
        network.overlapping = True
        feature_map = make_features(image)
        features = feature_map.read(whole((8, 40, 40)))
        standardise(network, features)
        predictor = Predictor(network, feature_map, tile_voxels=1 << 20)
        at_once = predictor.tile(whole((8, 40, 40)))
        predictor.tile_shape = (8, 16, 16)
        tiles = torch.empty_like(at_once)
        for tile in predictor.predict(Box((0, 0, 0), (8, 40, 40))):
            tiles[(slice(None), *tile.box.slices)] = tile.probabilities
        torch.testing.assert_close(tiles, at_once, rtol=1e-4, atol=1e-4)


class TestTraining:
    def test_learns_both_of_two_nested_structures_from_slices_that_show_one(self):
        probabilities = run(make_overlapping_trainer(), 25)
        _, truth, _ = make_nested()
        for channel in range(2):
            found = probabilities[..., channel] > 0.5
            assert 2 * (found & truth[channel]).sum() / (found.sum() + truth[channel].sum()) > 0.9

    def test_classes_are_not_made_to_be_as_common_as_each_other(self):
        trainer = make_overlapping_trainer()
        run(trainer, 10)
        assert not trainer.averaged.shift.any()

    def test_resumed_equals_unbroken(self):
        first = make_overlapping_trainer()
        run(first, 6)
        plain, tensors = first.state()
        second = make_overlapping_trainer()
        second.averaged.load_state_dict(first.averaged.state_dict())
        second.network.load_state_dict(first.network.state_dict())
        second.averaged.context = first.averaged.context
        second.restore(plain, tensors)
        annotations = [read_annotation(make_nested()[2], ArrayVolume(np.zeros(SHAPE)), overlapping=True)]
        for trainer in (first, second):
            trainer.learn_from(trainer._maps, annotations)
        np.testing.assert_array_equal(run(first, 10), run(second, 10))

    def test_settings_of_overlap_change_nothing_where_classes_exclude_each_other(self):
        def learnt(paint):
            image, truth, _ = make_nested()
            codes = np.zeros(SHAPE, np.uint8)
            codes[3] = 1 + truth.sum(0)[3]
            network = ModelSpec(SMALL, (1.0, 1.0, 1.0), 1, (False,) * 3).build(3, 0)
            trainer = Trainer(network, ClassTable((1, 2, 3), 1), QUICK, paint=paint, seed=0)
            trainer.learn_from([make_features(image)], [make_annotation(codes)])
            return run(trainer, 4)

        other = PaintConfig(missing_weight=0.7, present_weight=(3.0,), absent_weight=(0.5,))
        np.testing.assert_array_equal(learnt(PaintConfig()), learnt(other))
