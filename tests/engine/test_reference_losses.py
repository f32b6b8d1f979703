"""The losses against their plain references in numpy, which the benchmark uses, too."""

from __future__ import annotations

import numpy as np
import pytest

from weak import reference


@pytest.mark.parametrize("name", [*reference.LOSSES])
def test_value_and_gradient_are_those_of_the_reference(name):
    loss = reference.LOSSES[name]
    for seed in range(50):
        assert loss.difference(np.random.default_rng(seed)) < 1e-8, f"seed {seed}"


def test_a_wrong_gradient_is_seen():
    right = reference.LOSSES["partial_label_loss"]

    def doubled(*inputs):
        value, gradient = right.plain(*inputs)
        return value, 2 * gradient

    wrong = reference.Loss(right.draw, right.engine, doubled)
    assert max(wrong.difference(np.random.default_rng(seed)) for seed in range(5)) > 1e-3
