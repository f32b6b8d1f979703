"""What is shown is what was predicted, but for what the user has said."""

from __future__ import annotations

import numpy as np

from napari_sparseseg.live.shown import with_paint

ALLOWED = {130: frozenset((1, 3)), 131: frozenset((3,))}


def shown(labels, codes):
    return with_paint(np.array(labels, np.uint8), np.array(codes, np.uint8), ALLOWED.__getitem__).tolist()


def test_where_nothing_is_painted_the_prediction_shows():
    assert shown([0, 1, 2, 3], [0, 0, 0, 0]) == [0, 1, 2, 3]


def test_paint_of_a_class_shows_over_it():
    assert shown([0, 1, 2, 3], [2, 2, 2, 2]) == [2, 2, 2, 2]


def test_a_class_that_was_ruled_out_shows_no_more():
    assert shown([0, 1, 2, 3], [130, 130, 130, 130]) == [0, 1, 0, 3]


def test_the_only_class_that_is_left_shows():
    assert shown([0, 1, 2, 3], [131, 131, 131, 131]) == [3, 3, 3, 3]
