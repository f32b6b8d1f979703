"""Suggestions from arrays, and how they are learnt beside the paint."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sparseseg import (
    InputError,
    InputTypeError,
    PaintConfig,
    SparseSegmenter,
    suggest_between,
    suggest_grown,
    with_suggestions,
)
from napari_sparseseg.config import ModelConfig, TrainingConfig
from napari_sparseseg.suggesting import Suggested

SHAPE = (7, 30, 40)


def halves():
    """Dark class 1 beside bright class 2."""
    truth = np.ones(SHAPE, np.uint8)
    truth[:, :, 20:] = 2
    return truth, 4 * truth + np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)


def strokes():
    codes = np.zeros(SHAPE, np.uint8)
    codes[3, 14:16, 4:14], codes[3, 14:16, 26:36] = 1, 2
    codes[:, 8, 30] = 2
    return codes


def test_each_painted_slice_of_any_orientation_grows():
    truth, image = halves()
    codes = strokes()
    codes[1, 6:8, 20:30], codes[5, 6:8, 20:30] = 2, 2  # across y and one class alone: not grown
    found = suggest_grown(image, codes, spacing=(2, 1, 1), paint=PaintConfig(suggestion_weight=0.5))
    assert found.codes.dtype == np.uint8
    assert found.codes.shape == SHAPE
    assert found.weight == 0.5
    assert found.codes[3].any()
    assert not found.codes[codes > 0].any()
    named = found.codes > 0
    assert (found.codes[named] == truth[named]).mean() > 0.95
    assert not found.codes[[0, 1, 2, 4, 5, 6]].any()


def test_planes_have_suggestions_of_their_own_shape():
    _, image = halves()
    found = suggest_grown(image[3], strokes()[3], spacing=(1, 1))
    assert found.codes.shape == SHAPE[1:]
    assert (found.codes > 0).sum() > 100
    with pytest.raises(InputError, match="which has slices"):
        suggest_between(strokes()[3])


def test_gaps_are_filled_where_they_are_small_enough():
    truth, _ = halves()
    codes = np.zeros_like(truth)
    codes[[0, 2, 6]] = truth[[0, 2, 6]]
    everywhere, near = suggest_between(codes, spacing=(2, 1, 1)), suggest_between(codes, spacing=(2, 1, 1), max_gap=4)
    assert np.flatnonzero(everywhere.codes.any((1, 2))).tolist() == [1, 3, 4, 5]
    assert np.flatnonzero(near.codes.any((1, 2))).tolist() == [1]
    np.testing.assert_array_equal(near.codes[1], truth[1])


def test_paint_comes_first_then_the_first_suggestion():
    codes = np.array([[1, 0, 0, 0]], np.uint8)
    one, other = Suggested(np.array([[2, 2, 0, 0]], np.uint8), 0.5), Suggested(np.array([[3, 3, 3, 0]], np.uint8), 0.25)
    merged, weight = with_suggestions(codes, one, other)
    assert merged.tolist() == [[1, 2, 3, 0]]
    assert weight.tolist() == [[1, 0.5, 0.25, 0]]
    assert codes.tolist() == [[1, 0, 0, 0]]
    _, weight = with_suggestions(codes, one, weight=2.0)
    assert weight.tolist() == [[2, 0.5, 0, 0]]
    with pytest.raises(InputError, match="suggestion 1 has shape"):
        with_suggestions(np.zeros((2, 2), np.uint8), one)


def test_they_are_learnt_beside_the_paint():
    _, image = halves()
    codes, weight = with_suggestions(strokes(), suggest_grown(image, strokes()))
    segmenter = SparseSegmenter(
        model=ModelConfig(width=4, depth=2, scales=(1.0, 2.0), head_width=16),
        training=TrainingConfig(patch_voxels=2048),
        random_state=0,
    )
    assert segmenter.fit(image, codes, weight=weight, max_steps=1).classes_.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: suggest_between(strokes(), axis=3), InputError, "axis=3"),
        (lambda: suggest_between(strokes(), max_gap=0), InputError, "max_gap=0"),
        (lambda: suggest_between(strokes(), spacing=(1, 0, 1)), InputError, "voxel sizes are positive"),
        (lambda: suggest_grown(halves()[1], strokes()[:3]), InputError, "annotation has shape"),
        (lambda: suggest_grown(halves()[1], strokes(), paint="walker"), InputTypeError, "PaintConfig"),
    ],
)
def test_what_cannot_be_is_told(call, error, text):
    with pytest.raises(error, match=text):
        call()
