"""AdamW, its moves of whole matrices, and the one-cycle schedule."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from napari_sparseseg.engine.optimiser import AdamW, one_cycle, orthogonal_rows


def make_problem(dtype):
    """A small network and its loss, always the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 2)).to(dtype)
        inputs, wanted = torch.randn(30, 5, dtype=dtype), torch.randn(30, 2, dtype=dtype)
    return network, lambda: (network(inputs) - wanted).square().mean()


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_equals_torch_with_changing_step_sizes(weight_decay):
    ours, our_loss = make_problem(torch.float64)
    theirs, their_loss = make_problem(torch.float64)
    optimiser = AdamW(ours.parameters(), weight_decay=weight_decay)
    reference = torch.optim.AdamW(theirs.parameters(), weight_decay=weight_decay)
    for step in range(12):
        step_size = 1e-2 / (1 + step)
        optimiser.step(our_loss(), step_size)
        reference.param_groups[0]["lr"] = step_size
        reference.zero_grad()
        their_loss().backward()
        reference.step()
        for our, their in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(our, their, rtol=1e-6, atol=1e-6)


def test_a_copied_state_continues_alike():
    first, first_loss = make_problem(torch.float32)
    second, second_loss = make_problem(torch.float32)
    one, two = AdamW(first.parameters(), weight_decay=0.01), AdamW(second.parameters(), weight_decay=0.01)
    for _ in range(3):
        one.step(first_loss(), 1e-2)
    second.load_state_dict(first.state_dict())
    two.n_steps = one.n_steps
    two.means, two.squares = [m.clone() for m in one.means], [s.clone() for s in one.squares]
    one.step(first_loss(), 1e-2)
    two.step(second_loss(), 1e-2)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_cycle_rises_to_its_largest_and_falls():
    sizes = [one_cycle(used, 0.5) for used in (n / 200 for n in range(201))]
    assert max(sizes) == pytest.approx(0.5)
    peak = sizes.index(max(sizes))
    assert 0 < peak < 100
    assert sizes[: peak + 1] == sorted(sizes[: peak + 1])
    assert sizes[peak:] == sorted(sizes[peak:], reverse=True)
    assert sizes[0] > 0
    assert sizes[-1] < 0.01


def test_the_cycle_has_an_end_even_if_more_was_used():
    assert one_cycle(1.7, 0.5) == one_cycle(1.0, 0.5) >= 0


class TestMatrices:
    @pytest.mark.parametrize("shape", [(16, 432), (5, 5), (64, 32), (1, 7), (7, 1)])
    @pytest.mark.parametrize("size", [1e-12, 1.0, 1e6])
    def test_rows_become_orthogonal_and_keep_their_directions(self, shape, size):
        matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * size
        (found,) = orthogonal_rows([matrix])
        values = torch.linalg.svdvals(found)
        assert values.min() > 0.6
        assert values.max() < 1.3
        left, _, right = torch.linalg.svd(matrix, full_matrices=False)
        mixed = left.T @ found @ right.T
        torch.testing.assert_close(mixed, torch.diag(mixed.diagonal()), rtol=0, atol=1e-3)

    def test_many_are_turned_as_each_alone(self):
        random = torch.Generator().manual_seed(0)
        matrices = [torch.randn(shape, generator=random) for shape in [(4, 9), (8, 4), (4, 30), (8, 8)]]
        together = orthogonal_rows(matrices)
        for matrix, found in zip(matrices, together, strict=True):
            torch.testing.assert_close(found, orthogonal_rows([matrix])[0])

    def test_nothing_to_learn_moves_nothing(self):
        (found,) = orthogonal_rows([torch.zeros(3, 5)])
        assert torch.equal(found, torch.zeros(3, 5))

    def test_only_the_named_ones_are_moved_as_a_whole_and_as_far_as_others(self):
        moved = {}
        for wholeness in (0.0, 0.5, 1.0):
            network, loss = make_problem(torch.float64)
            before = [p.detach().clone() for p in network.parameters()]
            optimiser = AdamW(network.parameters(), weight_decay=0.0, matrices=[network[0].weight])
            optimiser.wholeness = wholeness
            optimiser.step(loss(), 1e-2)
            moved[wholeness] = [(p - b).detach() for p, b in zip(network.parameters(), before, strict=True)]
        for number, (plain, half, whole) in enumerate(zip(*moved.values(), strict=True)):
            assert torch.equal(plain, whole) == (number > 0)
            torch.testing.assert_close(half, (plain + whole) / 2)
        whole = moved[1.0][0]
        assert whole.square().mean().sqrt() == pytest.approx(0.2 * 1e-2, rel=0.2)
        values = torch.linalg.svdvals(whole)
        assert values.max() < 2 * values.min()
