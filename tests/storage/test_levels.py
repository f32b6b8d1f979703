"""Which level of resolution is suggested, and paint brought to it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_sparseseg.errors import InputError, InputTypeError
from napari_sparseseg.storage.annotation import read_annotation
from napari_sparseseg.storage.levels import ReducedPaint, matching_level, reduction, suggested_level
from napari_sparseseg.storage.volume import ArrayVolume

SHAPES = [(64, 256, 256), (64, 128, 128), (32, 64, 64), (16, 32, 32)]


def painted(annotation):
    return read_annotation(annotation, ArrayVolume(np.zeros(annotation.shape, np.uint8)))


class TestSuggestion:
    @pytest.mark.parametrize(("limit", "level"), [(1e9, 0), (2e6, 1), (1e6, 2), (10, 3)])
    def test_is_the_finest_that_is_small_enough(self, limit, level):
        assert suggested_level(SHAPES, max_voxels=limit) == level

    def test_is_finer_where_strokes_would_run_together(self):
        annotation = np.zeros(SHAPES[0], np.uint8)
        annotation[30] = 1 + (np.arange(256)[:, None] // 2 % 2)  # stripes of two voxels
        assert suggested_level(SHAPES, painted(annotation), max_voxels=1e6) == 1
        annotation[30] = 1 + (np.arange(256)[:, None] % 2)
        assert suggested_level(SHAPES, painted(annotation), max_voxels=1e6) == 0
        annotation[30] = 1 + (np.arange(256)[:, None] // 128)
        assert suggested_level(SHAPES, painted(annotation), max_voxels=1e6) == 2

    def test_is_finer_where_little_paint_would_be_left(self):
        annotation = np.zeros(SHAPES[0], np.uint8)
        annotation[30, :64, :128] = 1
        annotation[30, 200:212, 200:212] = 2  # 144 voxels, 36 at level 1
        assert suggested_level(SHAPES, painted(annotation), max_voxels=1e6) == 0

    def test_nothing_painted_says_nothing(self):
        assert suggested_level(SHAPES, painted(np.zeros(SHAPES[0], np.uint8)), max_voxels=1e6) == 2

    def test_works_in_two_dimensions(self):
        annotation = np.zeros((256, 256), np.uint8)
        annotation[::2], annotation[1::2] = 1, 2
        assert suggested_level([(256, 256), (128, 128)], painted(annotation), max_voxels=20000) == 0


@pytest.mark.parametrize(
    ("wanted", "level"), [((2, 0.5, 0.5), 0), ((2, 1, 1), 1), ((2.2, 0.9, 1.1), 1), ((4, 9, 9), 2), ((1.0, 1.0), 1)]
)
def test_the_level_with_the_most_similar_voxels(wanted, level):
    assert matching_level([(2, 0.5, 0.5), (2, 1, 1), (4, 2, 2)], wanted) == level
    assert matching_level([None, None], wanted) == 0


class TestReduction:
    @given(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 5)), min_size=2, max_size=3), st.booleans())
    def test_is_found_again(self, axes, keeps_incomplete):
        coarse = [size for size, _ in axes]
        fine = [size * factor - (keeps_incomplete and size > 9 and factor > 1) for size, factor in axes]
        assert reduction(fine, coarse) == tuple(factor for _, factor in axes)

    def test_refuses_what_does_not_fit(self):
        with pytest.raises(InputError, match=r"\(10, 64\) is no whole multiple of \(7, 32\)"):
            reduction((10, 64), (7, 32))


class TestReducedPaint:
    @given(st.data())
    def test_holds_the_only_code_of_each_cell(self, data):
        factors = data.draw(st.tuples(*[st.integers(1, 3)] * 3))
        coarse = data.draw(st.tuples(*[st.integers(1, 4)] * 3))
        lacking = data.draw(st.tuples(*[st.integers(0, f - 1) for f in factors]))
        fine = tuple(n * f - lack for n, f, lack in zip(coarse, factors, lacking, strict=True))
        seed = data.draw(st.integers(0, 99))
        paint = np.random.default_rng(seed).choice([0, 0, 0, 1, 2, 200], fine).astype(np.uint8)
        reduced = ReducedPaint(paint, coarse)
        factors = reduced._factors  # another whole number may lead to the same shape
        found = reduced[:, :, :]
        for z, y, x in np.ndindex(coarse):
            a, b, c = factors
            cell = paint[z * a : (z + 1) * a, y * b : (y + 1) * b, x * c : (x + 1) * c]
            codes = set(cell[cell > 0].tolist())
            assert found[z, y, x] == (codes.pop() if len(codes) == 1 else 0)
        np.testing.assert_array_equal(reduced[:, 1:, :2], found[:, 1:, :2])

    def test_is_read_as_an_annotation(self):
        paint = np.zeros((6, 8, 8), np.uint8)
        paint[2, :4], paint[2, 4:] = 1, 2
        found = read_annotation(ReducedPaint(paint, (3, 4, 4)), ArrayVolume(np.zeros((3, 4, 4), np.uint8)))
        assert len(found) == 16
        assert set(found.coordinates[:, 0]) == {1}
        assert found.classes() == (1, 2)

    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64, bool])
    def test_whole_numbers_of_any_type_are_codes(self, dtype):
        paint = np.random.default_rng(0).choice([0, 0, 0, 1, 2, 200], (4, 6, 9)).astype(dtype)
        found = ReducedPaint(paint, (2, 3, 3))[:, :, :]
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, ReducedPaint(paint.astype(np.uint8), (2, 3, 3))[:, :, :])

    @pytest.mark.parametrize("wrong", [[0.5, 0], [0.5, 1], [np.nan, 1]])
    def test_refuses_fractions(self, wrong):
        paint = np.zeros((4, 4), np.float32)
        paint[2, 2:] = wrong
        with pytest.raises(InputError, match=f"annotation holds {wrong[0]}, but codes are whole numbers"):
            ReducedPaint(paint, (2, 2))[:, :]

    def test_refuses_what_are_no_numbers(self):
        with pytest.raises(InputTypeError, match="annotation has dtype complex64"):
            ReducedPaint(np.zeros((4, 4), np.complex64), (2, 2))
