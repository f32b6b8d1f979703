"""Painted voxels: their slices, and which of them are held out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from synthetic import make_annotation, make_noise, paint_planes

from napari_sparseseg._types import Box
from napari_sparseseg.engine import paint as module
from napari_sparseseg.engine.classes import ClassTable
from napari_sparseseg.engine.paint import balancing_weight, painted_axis, prepare_paint, surrounded

GAP = module._GAP


def halves(shape):
    """Class 1 in one half of the volume, 2 in the other."""
    truth = np.ones(shape, np.uint8)
    truth[..., shape[-1] // 2 :] = 2
    return truth


def three_slices(shape=(20, 80, 90)):
    return paint_planes(halves(shape), (0, 4), (0, 10), (0, 16))


def prepare(codes, share=0.1, balance=0.0, seed=0, allowed=None):
    annotation = make_annotation(codes, allowed)
    ids = annotation.classes()
    return prepare_paint(annotation, ClassTable(ids, ids[0]), share=share, balance=balance, seed=seed)


def as_volume(paint, chosen, shape):
    mask = np.zeros(shape, bool)
    mask[tuple(paint.coordinates[chosen].T)] = True
    return mask


class TestHoldingOut:
    @pytest.fixture(params=range(4), ids="seed {}".format)
    def paint(self, request):
        return prepare(three_slices(), seed=request.param)

    def test_held_out_paint_is_not_learnt(self, paint):
        assert paint.held_out.any()
        assert paint.learnt.any()
        assert not (paint.held_out & paint.learnt).any()

    def test_a_gap_is_kept_around_it(self, paint):
        shape = (20, 80, 90)
        around = ndimage.binary_dilation(as_volume(paint, paint.held_out, shape), np.ones((2 * GAP + 1,) * 3))
        assert not (around & as_volume(paint, paint.learnt, shape)).any()
        neither = as_volume(paint, ~paint.learnt & ~paint.held_out, shape)
        assert not (neither & ~around).any()

    def test_about_the_wanted_share_is_held_out(self, paint):
        assert 0.05 < paint.held_out.mean() < 0.2

    def test_most_of_the_paint_is_still_learnt(self, paint):
        assert paint.learnt.mean() > 0.7

    def test_every_class_is_held_out_and_learnt(self, paint):
        for chosen in (paint.held_out, paint.learnt):
            assert paint.allowed[chosen].any(axis=0).all()

    def test_no_class_gives_more_than_a_part_of_its_paint(self, paint):
        for channel in range(2):
            of_class = paint.allowed[:, channel]
            assert paint.held_out[of_class].mean() <= 0.25

    def test_the_choice_depends_on_the_seed_only(self, paint):
        first, again, other = (prepare(three_slices(), seed=seed) for seed in (7, 7, 8))
        np.testing.assert_array_equal(first.held_out, again.held_out)
        assert (first.held_out != other.held_out).any()

    def test_a_share_of_zero_holds_nothing_out(self):
        paint = prepare(three_slices(), share=0.0)
        assert not paint.held_out.any()
        assert paint.learnt.all()

    @pytest.mark.parametrize("seed", range(5))
    def test_a_scarce_class_is_never_held_out(self, seed):
        codes = three_slices()
        codes[4, 5:18, 5:18] = 3  # 169 voxels
        paint = prepare(codes, share=0.3, seed=seed)
        assert paint.held_out.any()
        assert not paint.held_out[paint.allowed[:, 2]].any()

    def test_little_paint_is_learnt_as_a_whole(self):
        codes = np.zeros((3, 20, 20), np.uint8)
        codes[1, 3:6] = 1
        codes[1, 9:12] = 2
        assert prepare(codes, share=0.5).learnt.all()

    def test_only_paint_of_a_single_class_is_held_out(self):
        codes = three_slices()
        codes[10][codes[10] == 2] = 130
        paint = prepare(codes, share=0.3, allowed={130: {1, 2}})
        several = paint.allowed.sum(axis=1) > 1
        assert several.any()
        assert paint.held_out.any()
        assert not paint.held_out[several].any()

    def test_a_small_object_painted_through_many_slices_stays_learnt(self):
        codes = np.zeros((14, 60, 60), np.uint8)
        codes[2:12, 5:55, 5:25] = 1
        codes[2:12, 40:45, 40:45] = 2  # 250 voxels: enough to be held out, but the gaps must not take all the rest
        paints = [prepare(codes, seed=seed) for seed in range(20)]
        assert min(paint.learnt[paint.allowed[:, 1]].mean() for paint in paints) >= 0.25

    @pytest.mark.parametrize("seed", range(3))
    def test_a_volume_painted_everywhere_stays_learnt(self, seed):
        paint = prepare(halves((40, 64, 64)), seed=seed)
        assert paint.learnt.mean() > 0.25

    def test_no_paint_at_all_is_fine(self):
        annotation = make_annotation(np.zeros((4, 5, 6), np.uint8))
        paint = prepare_paint(annotation, ClassTable((1, 2), 1), share=0.1, balance=0.5, seed=0)
        assert len(paint) == 0
        assert len(paint.within(Box.whole((4, 5, 6)))) == 0


class TestSlices:
    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_a_painted_plane_lies_across_its_axis(self, axis):
        codes = paint_planes(halves((15, 17, 19)), (axis, 7))
        paint = prepare(codes)
        assert (paint.axis == axis).all()
        assert len(np.unique(paint.slice_id)) == 1

    def test_planes_of_all_orientations_are_told_apart(self):
        codes = paint_planes(halves((20, 20, 20)), (0, 5), (1, 8), (2, 3), (0, 15))
        paint = prepare(codes)
        assert len(np.unique(paint.slice_id)) == 4
        for axis, index in ((0, 5), (1, 8), (2, 3), (0, 15)):
            alone = (paint.coordinates[:, axis] == index) & (
                sum(np.isin(paint.coordinates[:, a], [5, 15] if a == 0 else [8] if a == 1 else [3]) for a in range(3))
                == 1
            )
            assert (paint.axis[alone] == axis).all()
            assert len(np.unique(paint.slice_id[alone])) == 1

    @pytest.mark.parametrize("flat", [0, 1, 2])
    def test_a_flat_axis_is_never_within_a_slice(self, flat):
        shape = [20, 20, 20]
        shape[flat] = 1
        coordinates = np.argwhere(make_noise(shape) > 0).astype(np.int32)
        axis = painted_axis(coordinates, tuple(shape))
        if flat == 0:
            assert (axis == 0).all()

    def test_codes_become_allowed_classes_and_weights_stay(self):
        codes = np.zeros((3, 4, 5), np.uint8)
        codes[0, 0, 0], codes[1, 1, 1], codes[2, 2, 2] = 3, 7, 130
        weight = np.ones(codes.shape)
        weight[1, 1, 1] = 5
        annotation = make_annotation(codes, {130: {3, 9}}, weight)
        paint = prepare_paint(annotation, ClassTable((3, 7, 9), 3), share=0.1, balance=0.0, seed=0)
        expected = [[True, False, False], [False, True, False], [True, False, True]]
        np.testing.assert_array_equal(paint.allowed, expected)
        np.testing.assert_allclose(paint.weights / paint.weights[0], [1, 5, 1])


@settings(deadline=None, max_examples=40)
@given(
    shape=st.tuples(*[st.integers(1, 12)] * 3),
    corners=st.tuples(*[st.integers(-5, 15)] * 6),
    density=st.sampled_from([0.02, 0.5, 1.0]),
)
def test_voxels_within_a_box_are_found(shape, corners, density):
    codes = (np.random.default_rng(0).random(shape) < density).astype(np.uint8)
    codes.flat[0] = 2
    paint = prepare(np.where(codes == 1, 1, codes) if (codes == 1).any() else np.full(shape, 1))
    start, stop = (
        tuple(map(min, zip(corners[:3], corners[3:], strict=True))),
        tuple(map(max, zip(corners[:3], corners[3:], strict=True))),
    )
    inside = ((paint.coordinates >= start) & (paint.coordinates < stop)).all(axis=1)
    np.testing.assert_array_equal(paint.within(Box(start, stop)), np.flatnonzero(inside))


class TestBalance:
    allowed = np.repeat(np.eye(2, dtype=bool), [900, 100], axis=0)

    def test_zero_lets_every_voxel_count_the_same(self):
        np.testing.assert_allclose(balancing_weight(self.allowed, 0.0), 1)

    def test_one_lets_every_class_count_the_same(self):
        weight = balancing_weight(self.allowed, 1.0)
        assert weight[:900].sum() == pytest.approx(weight[900:].sum())

    @pytest.mark.parametrize("balance", [0.0, 0.3, 1.0])
    def test_the_mean_is_one(self, balance):
        assert balancing_weight(self.allowed, balance).mean() == pytest.approx(1)

    def test_a_set_lies_between_its_classes(self):
        allowed = np.vstack([self.allowed, [[True, True]]])
        weight = balancing_weight(allowed, 1.0)
        assert weight[0] < weight[-1] < weight[950]

    def test_a_class_that_is_only_named_in_sets_is_finite(self):
        assert np.isfinite(balancing_weight(np.array([[True, False, False], [False, True, True]]), 1.0)).all()


class TestStrokesAndFilledAreas:
    def test_nothing_of_a_stroke_is_surrounded(self):
        codes = np.zeros((5, 40, 40), np.uint8)
        codes[2, 10:15, 5:35] = 1
        codes[2, 20:25, 5:35] = 2
        assert not surrounded(prepare(codes, share=0), codes.shape).any()

    @pytest.mark.parametrize("axis", range(3))
    def test_all_of_a_slice_is_surrounded_up_to_the_edge_of_the_volume(self, axis):
        codes = paint_planes(halves((20, 24, 22)), (axis, 9))
        assert surrounded(prepare(codes, share=0), codes.shape).all()

    def test_a_filled_window_is_surrounded_but_for_its_rim(self):
        codes = np.zeros((4, 40, 40), np.uint8)
        codes[1, 10:30, 12:28] = halves((1, 20, 16))[0]
        found = as_volume(paint := prepare(codes, share=0), surrounded(paint, codes.shape), codes.shape)
        expected = np.zeros(codes.shape, bool)
        expected[1, 13:27, 15:25] = True
        np.testing.assert_array_equal(found, expected)

    @settings(max_examples=60, deadline=None)
    @given(st.tuples(*[st.integers(1, 12)] * 3), st.floats(0.05, 1), st.integers(0, 2**32 - 1))
    def test_each_voxel_has_paint_on_four_sides_or_the_edge_of_the_volume(self, shape, density, seed):
        rng = np.random.default_rng(seed)
        codes = (rng.random(shape) < density).astype(np.uint8)
        codes.flat[0] = 1
        paint = prepare(codes, share=0)
        for voxel, across, found in zip(paint.coordinates, paint.axis, surrounded(paint, shape), strict=True):
            beside = [voxel + step * (np.arange(3) == axis) for axis in range(3) if axis != across for step in (-3, 3)]
            assert found == all((place < 0).any() or (place >= shape).any() or codes[tuple(place)] for place in beside)


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.integers(1, 70)] * 3), st.integers(1, 300), st.integers(0, 2**32 - 1))
def test_squares_are_the_cells_of_each_slice_in_order(shape, n_voxels, seed):
    rng = np.random.default_rng(seed)
    coordinates = np.sort(rng.integers(0, shape, (n_voxels, 3)), axis=0).astype(np.int32)
    axis = rng.integers(0, 3, n_voxels).astype(np.int8)
    slice_id = module.slice_ids(coordinates, axis, shape)
    cells = coordinates // module.CELL
    cells[np.arange(n_voxels), axis] = 0
    _, cell = np.unique(np.column_stack([slice_id, cells]), axis=0, return_inverse=True)
    found = module._squares(coordinates // module.CELL, axis, slice_id)
    assert [rows.tolist() for rows in found] == [np.flatnonzero(cell == n).tolist() for n in range(cell.max() + 1)]


def held_out_one_by_one(paint, share, seed):
    """What is held out and what is learnt, each square compared with every voxel."""
    coordinates, kinds, definite = paint.coordinates, paint.allowed, paint.is_definite
    painted = kinds[definite].sum(0)
    room = np.where(painted >= module._FEWEST, module._LARGEST_SHARE * painted, 0)
    to_lose, wanted = module._LARGEST_LOSS * kinds.sum(0), share * definite.sum()
    held_out, untouched, near = np.zeros((3, len(paint)), bool)
    untouched[:] = True
    squares = module._squares(coordinates // module.CELL, paint.axis, paint.slice_id)
    for number in np.random.default_rng(seed).permutation(len(squares)):
        rows = squares[number][definite[squares[number]]]
        if wanted <= 0 or len(rows) == 0:
            continue
        square, counts = coordinates[rows], kinds[rows].sum(0)
        around = ((coordinates >= square.min(0) - GAP) & (coordinates <= square.max(0) + GAP)).all(1) & untouched
        loss = kinds[around].sum(0)
        if (counts <= room).all() and (loss <= to_lose).all():
            held_out[rows], untouched[around] = True, False
            room, to_lose, wanted = room - counts, to_lose - loss, wanted - len(rows)
    for voxel in coordinates[held_out]:
        near |= (np.abs(coordinates - voxel) <= GAP).all(1)
    return held_out, ~(held_out | near)


@st.composite
def painted_codes(draw):
    """Planes across any axis and blocks, some filled and some with holes, of two classes and a set."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(st.permutations([rng.integers(1, 13), *rng.integers(20, 50, 2)]))
    codes = np.zeros(shape, np.uint8)
    for _ in range(draw(st.integers(1, 3))):
        low = [int(rng.integers(0, n)) // 2 for n in shape]
        high = [int(rng.integers(a, n)) + 1 for a, n in zip(low, shape, strict=True)]
        if rng.random() < 0.7:
            axis = int(rng.integers(3))
            high[axis] = low[axis] + 1
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        codes[box] = rng.choice([1, 2, 130], p=[0.6, 0.3, 0.1]) if rng.random() < 0.5 else 1
        codes[box][rng.random(codes[box].shape) < rng.choice([0, 0.2, 0.8])] = rng.integers(0, 3)
    codes.flat[[0, -1]] = 1, 2
    return codes


@settings(max_examples=30, deadline=None)
@given(painted_codes(), st.sampled_from([0.02, 0.1, 0.3]), st.integers(0, 99), st.booleans())
def test_held_out_paint_and_its_gap_are_those_found_voxel_by_voxel(codes, share, seed, is_shuffled):
    annotation = make_annotation(codes, {130: {1, 3}})
    if is_shuffled:
        order = np.random.default_rng(seed).permutation(len(annotation))
        order = order[np.argsort(annotation.coordinates[order, 0], kind="stable")]  # by z is all that is promised
        annotation = replace(annotation, coordinates=annotation.coordinates[order], codes=annotation.codes[order])
    paint = prepare_paint(annotation, ClassTable((1, 2, 3), 1), share=share, balance=0.0, seed=seed)
    held_out, learnt = held_out_one_by_one(paint, share, seed)
    np.testing.assert_array_equal(paint.held_out, held_out)
    np.testing.assert_array_equal(paint.learnt, learnt)


def test_a_slice_painted_all_over_is_searched_once_not_for_each_square():
    looked_at = []

    class Counted(np.ndarray):
        """Counts the coordinates that are compared or computed with."""

        def __array_ufunc__(self, ufunc, method, *inputs, **options):
            looked_at.append(sum(np.size(array) for array in inputs))
            return getattr(ufunc, method)(*[np.asarray(array) for array in inputs], **options)

    paint = prepare(halves((1, 320, 320)), share=0)
    coordinates = paint.coordinates.view(Counted)
    module.choose_held_out(coordinates, paint.kinds, paint.is_definite, paint.axis, paint.slice_id, share=0.1, seed=0)
    assert sum(looked_at) < 10 * paint.coordinates.size
