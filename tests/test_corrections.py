"""The simulated person of benchmarks/corrections.py: each merge and each split costs two clicks and mends."""

from __future__ import annotations

import numpy as np
import pytest

from corrections import Corrector

SHAPE = (6, 30, 60)


def truth():
    """Six balls of one size, 1 to 6."""
    ids = np.zeros(SHAPE, np.int64)
    z, y, x = np.indices(SHAPE)
    for number in range(6):
        row, column = divmod(number, 3)
        ids[(z - 3) ** 2 * 4 + (y - 7 - 15 * row) ** 2 + (x - 10 - 18 * column) ** 2 < 50] = number + 1
    return ids


def corrected(found, counts=(1, 2, 3, 4, 5, 6)):
    corrector = Corrector(found, truth(), np.array(counts), np.ones(SHAPE, bool), (1.0, 1.0, 1.0), 10)
    before = corrector.ap50()
    return before, corrector.correct(), corrector


def test_what_is_right_needs_no_click():
    before, result, _ = corrected(truth() * 7)
    assert (before, result.clicks, result.ap50) == (1, 0, 1)


def test_a_fused_pair_is_split_and_a_cut_one_is_merged():
    found = truth()
    found[found == 2] = 1
    found[3, 7, 10:28] = 1  # the bridge between the two
    cut = (found == 5) & (np.indices(SHAPE)[2] % 2 == 0)
    found[cut] = 9
    before, result, corrector = corrected(found)
    assert before < 0.6
    assert (result.clicks, result.ap50, result.is_reached) == (4, 1, True)
    assert corrector.found[3, 7, 10] != corrector.found[3, 7, 28]
    assert len(np.unique(corrector.found[truth() == 5])) == 1


def test_what_is_missing_cannot_be_mended():
    found = truth()
    found[found >= 4] = 0
    before, result, _ = corrected(found)
    assert (before, result.clicks, result.is_reached) == (0.5, 0, False)


def test_what_was_painted_is_not_held_against_it():
    found = truth()
    found[found == 3] = 0
    found[found == 2] = 0
    assert corrected(found, counts=(1, 4, 5, 6))[0] == 1


@pytest.mark.parametrize("seed", range(3))
def test_it_ends_and_never_makes_it_worse_in_the_end(seed):
    rng = np.random.default_rng(seed)
    found = truth()
    for _ in range(4):
        one, other = rng.integers(1, 7, 2)
        found[found == one] = other
    before, result, _ = corrected(found)
    assert result.clicks <= 400
    assert result.ap50 >= before


@pytest.mark.parametrize("seed", [1, 2, 4])
def test_splits_in_vain_end_it(seed):
    """What is mixed beyond repair: a split that was taken back left the numbers of objects out of step."""
    found = truth()
    inside = found > 0
    found[inside] = np.random.default_rng(seed).integers(1, 4, inside.sum())
    before, result, _ = corrected(found)
    assert result.ap50 >= before
    assert not result.is_reached
