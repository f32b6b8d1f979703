"""Distillation: where the U-Net listens to the pixel head, and what that changes."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from synthetic import QUICK, make_annotation, make_blobs, make_trainer, paint_planes, whole

from napari_sparseseg.config import PaintConfig
from napari_sparseseg.engine.classes import ClassTable
from napari_sparseseg.engine.distillation import (
    DistillationLesson,
    _cross_entropy,
    need_of_teaching,
)
from napari_sparseseg.engine.paint import ENOUGH_PAINT, paint_of_rarest, prepare_paint
from napari_sparseseg.engine.validation import agreement, pupil_context, untested_context

SHAPE = (10, 40, 40)


def make(codes=None, *, paint=None, **changes):
    image, truth = make_blobs(SHAPE)
    config = QUICK.with_changes(**changes)
    return make_trainer(image, few(truth) if codes is None else codes, config, paint=paint)


def few(truth, n=60):
    """Some voxels of each class on one slice."""
    codes = np.zeros_like(truth)
    for class_id in (1, 2):
        places = np.argwhere(truth[5] == class_id)[:n]
        codes[5][tuple(places.T)] = class_id
    return codes


def lesson_of(trainer):
    return next((each for each in trainer._course.lessons if isinstance(each, DistillationLesson)), None)


def patches_of(trainer, monkeypatch):
    """What the lessons of one step are about."""
    seen = []
    monkeypatch.setattr(
        DistillationLesson, "loss", lambda _, network, patches: seen.append(patches) or patches.dense.sum() * 0
    )
    next(s for s in trainer.steps() if s.phase == "unet")
    monkeypatch.undo()
    return seen[0]


def softmax(logits):
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


@given(st.integers(0, 10_000), st.integers(2, 5), st.booleans())
def test_the_cross_entropy_is_that_of_plain_numpy(seed, n_classes, overlapping):
    rng = np.random.default_rng(seed)
    pupil, teacher = rng.normal(0, 3, (2, 7, n_classes)).astype(np.float32)
    found = _cross_entropy(torch.from_numpy(pupil), torch.from_numpy(teacher), overlapping=overlapping).numpy()
    if overlapping:
        p, q = (1 / (1 + np.exp(-a.astype(float))) for a in (pupil, teacher))
        expected = -(q * np.log(p) + (1 - q) * np.log(1 - p)).sum(1)
    else:
        expected = -(softmax(teacher.astype(float)) * np.log(softmax(pupil.astype(float)))).sum(1)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


class TestLesson:
    def test_only_the_unet_learns_and_only_where_nothing_is_painted(self, monkeypatch):
        trainer = make()
        patches = patches_of(trainer, monkeypatch)
        patches = replace(patches, dense=patches.dense.detach().requires_grad_())
        lesson_of(trainer).loss(trainer.network, patches).backward()
        says = patches.dense.grad.abs().sum(1) > 0
        assert says.any()
        assert not (says & patches.painted).any()
        assert all(value.grad is None for value in trainer.network.pixel.parameters())

    def test_a_unet_that_says_what_the_pixel_head_says_has_nothing_to_learn(self, monkeypatch):
        trainer = make()
        patches = patches_of(trainer, monkeypatch)
        with torch.no_grad():
            known = patches.image[(slice(None), *patches.inner.slices)]
            dense = trainer.network.pixel(known).movedim(-1, 1)
        patches = replace(patches, dense=dense.clone().requires_grad_())
        lesson_of(trainer).loss(trainer.network, patches).backward()
        assert float(patches.dense.grad.abs().max()) < 1e-6

    @pytest.mark.parametrize("weight", [0.5, 2.0])
    def test_its_weight_is_a_factor(self, monkeypatch, weight):
        trainer = make()
        patches = patches_of(trainer, monkeypatch)
        one, other = (DistillationLesson(w).loss(trainer.network, patches).item() for w in (1.0, weight))
        assert other == pytest.approx(weight * one)

    def test_where_all_is_painted_it_is_zero(self, monkeypatch):
        trainer = make()
        patches = patches_of(trainer, monkeypatch)
        box = patches.inner
        everywhere = np.argwhere(np.ones(box.shape, bool)) + box.start
        patches = replace(patches, positions=[everywhere] * len(patches.positions))
        assert DistillationLesson(1.0).loss(trainer.network, patches).item() == 0


class TestNeed:
    @staticmethod
    def need(codes, scarcity=1.0, strokes=1.0):
        paint = prepare_paint(make_annotation(codes), ClassTable((1, 2), 1), share=0.0, balance=0.0, seed=0)
        return need_of_teaching([paint], scarcity, strokes), paint

    def test_few_strokes_need_it_and_filled_slices_do_not(self):
        codes = np.zeros((4, 60, 60), np.uint8)
        codes[2], codes[2, :, 30:] = 1, 2
        assert self.need(codes, scarcity=0.9, strokes=0.95)[0] == 1
        assert self.need(codes, scarcity=0.4, strokes=0.5)[0] == pytest.approx(0.25)
        assert self.need(codes, scarcity=0.8, strokes=0.0)[0] == 0
        assert self.need(codes, scarcity=0.0, strokes=1.0)[0] == 0

    def test_a_class_with_next_to_no_paint_needs_it_even_on_a_filled_slice(self):
        codes = np.zeros((4, 60, 60), np.uint8)
        codes[2], codes[2, :10, :10] = 1, 2
        need, paint = self.need(codes, scarcity=0.0, strokes=0.0)
        assert paint_of_rarest([paint]) == 100
        assert need == pytest.approx(1 - 100 / ENOUGH_PAINT)

    def test_a_class_of_which_nothing_is_painted_needs_it_most(self):
        codes = np.zeros((4, 60, 60), np.uint8)
        codes[2] = 1
        assert self.need(codes, scarcity=0.0, strokes=0.0)[0] == 1

    def test_the_trainer_asks_for_it_by_the_settings_and_the_paint(self):
        image, truth = make_blobs((8, 64, 64))
        filled = make_trainer(image, paint_planes(truth, (0, 2), (0, 5)))
        assert lesson_of(make()) is not None
        assert lesson_of(filled) is None
        assert lesson_of(make(distillation=0.0)) is None
        assert lesson_of(make(paint=PaintConfig(unlabelled="risk"))) is None

    def test_a_trunk_that_was_learnt_elsewhere_is_not_taught(self):
        trainer = make()
        started = make()
        started.is_started = True
        started._take_paint(0.1)
        assert lesson_of(trainer) is not None
        assert lesson_of(started) is None


def logits_of(channels, n_classes=3, overlapping=False):
    """Of a head that is sure of these classes; where they overlap, `channels` says whether each is there."""
    if overlapping:
        return torch.where(torch.tensor(channels), 5.0, -5.0)
    return 5.0 * torch.nn.functional.one_hot(torch.tensor(channels), n_classes).float()


class TestAgreement:
    CLASSES = ClassTable((1, 2, 3), 1)

    @pytest.mark.parametrize(
        ("pupil", "expected"),
        [
            ([0, 0, 1, 1, 2, 2], 1.0),
            ([0, 0, 1, 1, 2, 1], (4 / 5 * 2 / 3) ** 0.5),
            ([0, 1, 1, 1, 2, 2], 2 / 3),  # of the background, which is less than that of the others
            ([0, 0, 1, 1, 0, 0], 0.0),  # a class that is missed counts
            ([1, 1, 1, 1, 2, 2], 0.0),  # and so does a background that is
        ],
    )
    def test_it_is_the_mean_dice_of_the_classes_or_that_of_the_background(self, pupil, expected):
        teacher = logits_of([0, 0, 1, 1, 2, 2])
        assert agreement(teacher, logits_of(pupil), self.CLASSES) == pytest.approx(expected)

    def test_a_class_that_neither_finds_does_not_count(self):
        assert agreement(logits_of([0, 0, 1, 1]), logits_of([0, 1, 1, 1]), self.CLASSES) == pytest.approx(2 / 3)
        assert agreement(logits_of([0, 0]), logits_of([0, 0]), self.CLASSES) == 1

    def test_where_classes_overlap_each_is_there_or_not(self):
        classes = ClassTable((1, 2), None, overlapping=True)
        teacher = logits_of([[True, True], [True, False], [False, False]], overlapping=True)
        pupil = logits_of([[True, True], [False, False], [False, False]], overlapping=True)
        assert agreement(teacher, teacher, classes) == 1
        assert agreement(teacher, pupil, classes) == pytest.approx((2 / 3 * 1) ** 0.5)


class TestMix:
    def test_a_pupil_has_no_say_until_it_agrees_and_never_all_of_it(self):
        for shares in (
            [pupil_context(a, 50) for a in np.linspace(0, 1, 21)],
            [pupil_context(0.3, n) for n in range(300)],
        ):
            assert shares == sorted(shares)
            assert shares[0] == 0
            assert 0.75 <= shares[-1] < 1

    @pytest.mark.parametrize("agrees", [True, False])
    def test_what_the_pupil_has_learnt_decides_not_held_out_paint(self, monkeypatch, agrees):
        trainer = make()
        assert trainer._course.taught == 1
        list(islice((s for s in trainer.steps() if s.phase == "unet"), 3))
        network = trainer.averaged
        monkeypatch.setattr(network.unet, "forward", lambda image: -network.pixel(image.movedim(1, -1)).movedim(-1, 1))
        if agrees:
            monkeypatch.setattr(
                network.unet, "forward", lambda image: network.pixel(image.movedim(1, -1)).movedim(-1, 1)
            )
        trainer._check()
        assert network.context == (pupil_context(1.0, trainer.step) if agrees else 0.0)

    def test_a_unet_that_learns_from_paint_alone_stays_small_where_a_class_has_little(self):
        annotation = make_annotation(few(make_blobs(SHAPE)[1]))
        paint = prepare_paint(annotation, ClassTable((1, 2), 1), share=0, balance=0, seed=0)
        assert untested_context([paint], 400) == pytest.approx(0.75 * 60 / ENOUGH_PAINT)


class TestTraining:
    def test_some_patches_lie_where_nothing_is_painted(self):
        trainer = make()
        empty = []
        original = trainer._painted

        def counting(location, augmentation):
            positions, numbers = original(location, augmentation)
            empty.append(not len(numbers))
            return positions, numbers

        trainer._painted = counting
        trainer._course.sampler._patch_shapes = [(2, 8, 8)] * 3
        list(islice((s for s in trainer.steps() if s.phase == "unet"), 12))
        assert 0 < sum(empty) <= 12
        assert not any(empty[::2])  # the first patch of each step lies around paint

    def test_all_over_the_volume_the_unet_agrees_with_the_pixel_head(self):
        disagreements = []
        image, truth = make_blobs(SHAPE, contrast=0.7)
        for distillation in (0.0, 3.0):
            trainer = make_trainer(image, few(truth, 15), QUICK.with_changes(distillation=distillation))
            list(islice((s for s in trainer.steps() if s.phase == "unet"), 60))
            network = trainer.averaged
            with torch.no_grad():
                known = network.standardised(trainer._maps[0].read(whole(SHAPE)))
                pixel, unet = network.pixel(known), network.unet(known.movedim(-1, 0)[None])[0].movedim(0, -1)
            disagreements.append(float((pixel.softmax(-1) - unet.softmax(-1)).square().mean()))
        assert disagreements[1] < 0.8 * disagreements[0]
