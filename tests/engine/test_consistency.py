"""Consistency with the average of the weights: when it counts, and what it says nothing about."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from synthetic import QUICK, make_blobs, make_trainer, paint_planes

from napari_sparseseg.engine.weak.consistency import ConsistencyLesson, disagreement, margin
from weak.reference import drawn_patches

SHAPE = (10, 24, 20)


@given(st.integers(0, 10_000))
def test_voxels_that_do_not_count_have_no_gradient(seed):
    logits, teacher, counts = (torch.from_numpy(a) for a in drawn_patches(np.random.default_rng(seed)))
    logits.requires_grad_()
    disagreement(logits.softmax(1), teacher, counts).backward()
    assert not logits.grad.movedim(1, -1)[~counts].any()


def make(**changes):
    image, truth = make_blobs(SHAPE)
    return make_trainer(image, paint_planes(truth, (0, 3), (0, 7)), config=QUICK.with_changes(**changes))


def seen_by(trainer, monkeypatch, step):
    """The patches that lessons see at a step, and the lesson on consistency."""
    lesson = next(each for each in trainer._course.lessons if isinstance(each, ConsistencyLesson))
    seen = []
    monkeypatch.setattr(
        ConsistencyLesson, "loss", lambda _, network, patches: seen.append(patches) or patches.dense.sum() * 0
    )
    next(s for s in trainer.steps() if s.phase == "unet")
    monkeypatch.undo()
    trainer.step = step
    return lesson, seen[0]


class TestLesson:
    def test_without_weight_there_is_no_such_lesson(self):
        assert not any(isinstance(each, ConsistencyLesson) for each in make()._course.lessons)

    def test_the_first_steps_have_none_and_it_rises(self, monkeypatch):
        trainer = make(consistency=2.0)
        lesson, patches = seen_by(trainer, monkeypatch, step=0)
        assert float(lesson.loss(trainer.network, patches)) == 0
        values = []
        for step in (40, 60, 1000):
            trainer.step = step
            values.append(float(lesson.loss(trainer.network, patches).detach()))
        assert 0 < values[0] < values[1] == values[2]

    def test_only_the_pupil_learns_and_only_where_nothing_is_painted(self, monkeypatch):
        trainer = make(consistency=2.0)
        lesson, patches = seen_by(trainer, monkeypatch, step=200)
        patches = replace(patches, dense=patches.dense.detach().requires_grad_())
        lesson.loss(trainer.network, patches).backward()
        says = patches.dense.grad.abs().sum(1) > 0
        assert says.any()
        assert not (says & patches.painted).any()
        assert all(value.grad is None for value in trainer.averaged.parameters())

    def test_a_pupil_that_equals_its_teacher_and_sees_the_same_has_nothing_to_learn(self, monkeypatch):
        trainer = make(consistency=2.0, feature_dropout=0.0)
        lesson, patches = seen_by(trainer, monkeypatch, step=200)
        trainer.averaged.unet.load_state_dict(trainer.network.unet.state_dict())
        with torch.no_grad():
            dense = trainer.network.unet(patches.image.movedim(-1, 1), patches.inner)
        patches = replace(patches, dense=dense)
        assert float(lesson.loss(trainer.network, patches)) == pytest.approx(0, abs=1e-12)

    def test_it_looks_beyond_the_painted_planes(self, monkeypatch):
        _, patches = seen_by(make(consistency=2.0), monkeypatch, step=200)
        assert not patches.painted.all()
        assert patches.inner.shape[0] > 1


def test_the_margin_follows_the_voxel_size():
    assert margin((1.0, 1.0, 1.0)) == (4, 4, 4)
    assert margin((10.0, 1.0, 1.0)) == (1, 4, 4)


def test_what_is_painted_is_marked_where_it_lies(monkeypatch):
    trainer = make(consistency=1.0)
    _, patches = seen_by(trainer, monkeypatch, step=0)
    assert int(patches.painted.sum()) == sum(map(len, patches.positions))
    number = len(patches.positions) - 1
    first = tuple(patches.positions[number][0] - patches.inner.start)
    assert patches.painted[(number, *first)]


def test_steps_go_on_beyond_the_first(monkeypatch):
    monkeypatch.setattr("napari_sparseseg.engine.weak.consistency._FROM", 2)
    steps = list(islice((s for s in make(consistency=5.0).steps() if s.phase == "unet"), 6))
    assert all(np.isfinite(step.loss) for step in steps)
