"""Each stroke is compared with what was predicted before it."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sparseseg.live.score import StrokeScore


def predicted(**counts):
    """So many voxels of each label: predicted(c1=3, c2=5)."""
    return np.repeat([int(name[1:]) for name in counts], list(counts.values())).astype(np.uint8)


def new_score(*class_ids):
    """The score of a model that knows these classes, 1 to 3 if none are given."""
    score = StrokeScore()
    score.class_ids = frozenset(class_ids or (1, 2, 3))
    return score


def test_strokes_of_a_class_that_is_new_to_the_model_do_not_count():
    score = new_score(1, 2)
    for _ in range(5):
        score.add(predicted(c1=5, c2=5), 3)
    assert score.dice(1) is None
    for _ in range(3):
        score.add(predicted(c2=10), 2)
    assert score.dice(1) == 1.0
    score.clear()
    score.add(predicted(c2=10), 2)
    assert len(score) == 0


def test_there_is_no_figure_before_three_strokes():
    score = new_score()
    score.add(predicted(c2=10), 2)
    score.add(predicted(c2=10), 2)
    assert score.dice(1) is None
    score.add(predicted(c2=10), 2)
    assert score.dice(1) == 1.0


def test_it_is_the_dice_of_all_stroked_voxels():
    score = new_score()
    score.add(predicted(c2=6, c1=4), 2)
    score.add(predicted(c1=7, c2=3), 1)
    score.add(predicted(c2=10), 2)
    # class 2: painted 20, predicted 6 + 3 + 10, both 16
    assert score.dice(1) == pytest.approx(2 * 16 / (20 + 19))


def test_classes_but_the_background_count_the_same():
    score = new_score()
    for class_id in (1, 2, 3):
        score.add(predicted(c1=5) if class_id == 1 else predicted(c2=8), class_id)
    # class 2: painted 8, predicted 16, both 8; class 3: never predicted
    assert score.dice(1) == pytest.approx((2 * 8 / 24 + 0) / 2)
    assert score.dice(None) == pytest.approx((1 + 2 * 8 / 24 + 0) / 3)


def test_strokes_where_nothing_was_predicted_do_not_count():
    score = new_score()
    score.add(np.zeros(10, np.uint8), 2)
    score.add(np.zeros(0, np.uint8), 2)
    assert len(score) == 0


def test_with_the_background_alone_there_is_no_figure():
    score = new_score()
    for _ in range(3):
        score.add(predicted(c1=4), 1)
    assert score.dice(1) is None


def test_only_the_last_strokes_count():
    score = new_score()
    for _ in range(30):
        score.add(predicted(c1=4), 2)
    for _ in range(20):
        score.add(predicted(c2=4), 2)
    assert len(score) == 20
    assert score.dice(1) == 1.0


def test_a_removed_class_is_forgotten():
    score = new_score()
    for _ in range(3):
        score.add(predicted(c3=4), 3)
        score.add(predicted(c2=4), 2)
    score.add(predicted(c3=4), 2)
    score.forget(3)
    assert score.dice(1) == pytest.approx(2 * 12 / (12 + 16))
    score.clear()
    assert score.dice(1) is None
