"""How long to learn, on a clock of our own."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from napari_sparseseg.config import TrainingConfig
from napari_sparseseg.engine import budget as module
from napari_sparseseg.engine.budget import Budget
from napari_sparseseg.engine.trainer import TrainingStep

CONFIG = TrainingConfig(check_every=5, patience=3, default_seconds=100.0)


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still unless a test moves it."""
    state = SimpleNamespace(now=1000.0, reads=0)

    def perf_counter():
        state.reads += 1
        return state.now

    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=perf_counter))
    return state


def make_budget(clock, **limits):
    return Budget(CONFIG, started=clock.now, **limits)


def run(budget, clock, seconds=1.0, n_pixel=3, dice=lambda step: None, most=10_000):
    """Take steps of `seconds` until the budget is over; return the last one."""
    for number in range(most):
        clock.now += seconds if isinstance(seconds, float) else seconds(number)
        step = number - n_pixel + 1 + budget.first_step
        phase = "pixel" if number < n_pixel else "unet"
        done = TrainingStep(max(budget.first_step, step), phase, 0.5, dice(step))
        if budget.is_over(done):
            return done
    pytest.fail("never over")


class TestSeconds:
    @pytest.mark.parametrize("seconds", [0.1, 1.0, 7.0])
    def test_no_step_is_begun_that_would_not_fit(self, clock, seconds):
        budget = make_budget(clock, max_seconds=50.0)
        run(budget, clock, seconds)
        assert 50 - 2.1 * seconds <= budget.elapsed <= 50

    def test_a_long_first_step_is_forgotten(self, clock):
        budget = make_budget(clock, max_seconds=50.0)
        run(budget, clock, lambda number: 10.0 if number == 3 else 0.1)
        assert budget.elapsed > 45

    def test_time_spent_before_the_first_step_counts(self, clock):
        budget = make_budget(clock, max_seconds=50.0)
        clock.now += 49.5
        assert run(budget, clock).step <= 1

    def test_time_may_run_out_in_the_pixel_phase(self, clock):
        budget = make_budget(clock, max_seconds=2.5)
        assert run(budget, clock, n_pixel=100).phase == "pixel"

    def test_no_plateau_ends_it(self, clock):
        budget = make_budget(clock, max_seconds=50.0)
        run(budget, clock, dice=lambda step: 0.5)
        assert budget.elapsed > 45

    def test_the_used_share_is_that_of_time(self, clock):
        budget = make_budget(clock, max_seconds=50.0)
        clock.now += 10
        assert budget.used(3) == pytest.approx(0.2)
        clock.now += 1000
        assert budget.used(3) == 1


class TestSteps:
    @pytest.mark.parametrize("first", [0, 17])
    @pytest.mark.parametrize("most", [1, 2, 30])
    def test_so_many_are_made(self, clock, first, most):
        budget = make_budget(clock, max_steps=most, first_step=first)
        done = run(budget, clock)
        assert (done.step, done.phase) == (first + most, "unet")

    def test_seconds_make_no_difference(self, clock):
        for seconds in (0.0, 1e6):
            assert run(make_budget(clock, max_steps=9), clock, seconds).step == 9

    def test_neither_does_a_plateau(self, clock):
        assert run(make_budget(clock, max_steps=90), clock, dice=lambda step: 0.5).step == 90

    def test_the_used_share_counts_steps(self, clock):
        budget = make_budget(clock, max_steps=10, first_step=5)
        clock.now += 1e6
        assert [budget.used(step) for step in (5, 10, 15, 30)] == [0, 0.5, 1, 1]

    def test_whichever_of_both_limits_comes_first_holds(self, clock):
        assert run(make_budget(clock, max_steps=9, max_seconds=1000.0), clock).step == 9
        budget = make_budget(clock, max_steps=1000, max_seconds=50.0)
        assert run(budget, clock).step < 60
        assert budget.elapsed <= 50

    def test_the_used_share_counts_steps_even_if_seconds_are_limited_too(self, clock):
        budget = make_budget(clock, max_steps=10, max_seconds=100.0)
        clock.now += 50
        assert budget.used(1) == pytest.approx(0.1)


class TestDefault:
    def test_ends_after_so_many_checks_without_gain(self, clock):
        done = run(make_budget(clock), clock, 0.1, dice=lambda step: min(step, 20) / 100)
        assert done.step == 20 + CONFIG.patience * CONFIG.check_every

    def test_goes_on_while_it_gains(self, clock):
        budget = make_budget(clock)
        run(budget, clock, 0.5, dice=lambda step: step / 1000)
        assert 95 < budget.elapsed <= CONFIG.default_seconds

    def test_ends_after_the_longest_time_without_an_estimate(self, clock):
        budget = make_budget(clock)
        run(budget, clock, 0.5)
        assert 95 < budget.elapsed <= CONFIG.default_seconds

    def test_a_gain_too_small_to_matter_does_not_count(self, clock):
        done = run(make_budget(clock), clock, 0.01, dice=lambda step: 0.5 + 1e-7 * step)
        assert done.step <= (CONFIG.patience + 2) * CONFIG.check_every

    def test_the_limit_in_seconds_is_told(self, clock):
        assert make_budget(clock).seconds == CONFIG.default_seconds
        assert make_budget(clock, max_seconds=7.0).seconds == 7
        assert make_budget(clock, max_steps=7).seconds is None
