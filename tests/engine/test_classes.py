"""Class ids against channels, and Dice."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic import make_annotation

from napari_sparseseg._types import Annotation, Statement
from napari_sparseseg.engine.classes import ClassTable
from napari_sparseseg.engine.metrics import dice, mean_dice


def test_channels_become_class_ids_of_the_smallest_dtype():
    labels = ClassTable((3, 7, 254), 3).labels_of(np.array([[0, 2], [1, 0]]))
    np.testing.assert_array_equal(labels, np.array([[3, 254], [7, 3]], np.uint8), strict=True)


def test_foreground_is_all_but_the_background():
    assert ClassTable((3, 7, 9), 7).foreground_channels == (0, 2)


def test_codes_become_rows_of_allowed_classes():
    annotation = make_annotation(np.array([[[3, 130, 9]]], np.uint8), {130: {7, 9}})
    rows = ClassTable((3, 7, 9), 3).allowed_by(annotation)
    np.testing.assert_array_equal(rows, [[True, False, False], [False, True, True], [False, False, True]])


def test_growing_keeps_the_order_and_the_background():
    grown = ClassTable((3, 7), 7).grown_by([5, 3, 1])
    assert (grown.ids, grown.background, len(grown)) == ((1, 3, 5, 7), 7, 4)
    assert ClassTable((3, 7), 7).grown_by([3]) == ClassTable((3, 7), 7)


def test_dice_counts_overlap_twice():
    labels, truth = np.array([1, 1, 2, 2, 2, 3]), np.array([1, 2, 2, 2, 1, 1])
    found = dice(labels, truth, [1, 2, 3, 4])
    assert found[1] == pytest.approx(2 * 1 / 5)
    assert found[2] == pytest.approx(2 * 2 / 6)
    assert found[3] == 0
    assert np.isnan(found[4])


def test_the_mean_leaves_out_background_and_absent_classes():
    assert mean_dice({1: 0.1, 2: 0.6, 3: float("nan"), 4: 0.8}, without=1) == pytest.approx(0.7)
    assert np.isnan(mean_dice({1: 0.1, 2: float("nan")}, without=1))


@pytest.mark.parametrize(
    ("present", "objects"),
    [
        ([{2}, {2, 3}], (2,)),
        ([{2}, {3}], (2, 3)),
        ([{2, 3}, {3, 4}], (3,)),
        ([{2, 3}], (2, 3)),
        ([{2, 3}, {4, 5}], ()),
        ([set(), {2, 3}], (2, 3)),
    ],
)
def test_ids_where_several_classes_are_there_are_of_what_they_have_in_common_if_nothing_else_tells(present, objects):
    n = len(present)
    annotation = Annotation(
        (1, 1, n),
        np.stack([np.zeros(n), np.zeros(n), np.arange(n)], axis=1).astype(np.int32),
        np.arange(128, 128 + n, dtype=np.uint8),
        np.ones(n, np.float32),
        objects=np.ones(n, np.int32),
        stated={128 + place: Statement(frozenset(found)) for place, found in enumerate(present)},
    )
    assert ClassTable((1, 2, 3, 4, 5), 1, overlapping=True).with_objects_of([annotation]).objects == objects
