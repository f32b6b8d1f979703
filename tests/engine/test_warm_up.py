"""Warming up on the volume itself: what is hidden, what is learnt, and that heads and global random states stay."""

from __future__ import annotations

from itertools import chain, islice, repeat

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from synthetic import CUBES, QUICK, make_blobs, make_network, make_trainer, paint_planes

from napari_sparseseg.engine.weak.warm_up import hidden_blocks, reconstruction_loss, warm_up
from weak.reference import drawn_hidden

SHAPE = (10, 24, 20)


@given(
    st.tuples(*[st.integers(1, 20)] * 3),
    st.integers(1, 3),
    st.sampled_from([CUBES, (10.0, 1.0, 1.0)]),
    st.integers(0, 99),
)
def test_some_blocks_of_each_patch_are_hidden(shape, n, spacing, seed):
    hidden = hidden_blocks(n, shape, spacing, np.random.default_rng(seed))
    assert hidden.shape == (n, *shape)
    assert hidden.reshape(n, -1).any(1).all()
    edge = 4 if spacing == CUBES else 1
    assert np.array_equal(hidden, hidden[:, np.arange(shape[0]) // edge * edge])


def test_about_two_fifths_are_hidden():
    assert hidden_blocks(2, (40, 40, 40), CUBES, np.random.default_rng(0)).mean() == pytest.approx(0.4, abs=0.05)


def test_what_was_seen_has_no_gradient():
    found, features, hidden = (torch.from_numpy(a) for a in drawn_hidden(np.random.default_rng(0)))
    found.requires_grad_()
    reconstruction_loss(found, features, hidden).backward()
    assert not found.grad[~hidden].any()


def warmed(n_steps=40):
    network = make_network()
    features = torch.from_numpy(np.random.default_rng(1).standard_normal((1, 8, 16, 16, 1), dtype=np.float32))
    features = features.expand(2, 8, 16, 16, network.mean.numel())
    config = QUICK.with_changes(warm_up_steps=n_steps)
    losses = list(warm_up(network.unet, lambda: features, CUBES, config, np.random.default_rng(0)))
    return network, losses


def test_the_trunk_learns_and_the_heads_stay():
    network, losses = warmed()
    before = make_network().state_dict()
    assert len(losses) == 40
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    assert all(
        torch.equal(value, before[name]) != name.startswith(tuple(f"unet.{part}" for part in network.unet.TRUNK))
        for name, value in network.state_dict().items()
    )


def test_global_random_states_neither_matter_nor_change():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    _, first = warmed(4)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert warmed(4)[1] == first


def test_it_comes_before_the_first_step_and_predicts_at_once():
    image, truth = make_blobs(SHAPE)
    config = QUICK.with_changes(warm_up_steps=3)
    trainer = make_trainer(image, paint_planes(truth, (0, 3), (0, 7)), config=config)
    phases = [step.phase for step in islice((s for s in trainer.steps() if s.phase != "pixel"), 5)]
    assert phases == ["warm-up"] * 3 + ["unet"] * 2
    assert trainer.step == 2


def test_of_a_short_budget_it_takes_a_part_only():
    image, truth = make_blobs(SHAPE)
    config = QUICK.with_changes(warm_up_steps=1000)
    trainer = make_trainer(image, paint_planes(truth, (0, 3), (0, 7)), config=config)
    used = chain(np.linspace(0, 0.6, 400), repeat(0.6))
    phases = [step.phase for step in islice(trainer.steps(lambda _: next(used)), 200)]
    assert 0 < phases.count("warm-up") < 150
    assert phases[-1] == "unet"
