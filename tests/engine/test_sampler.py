"""Which patches are learnt from."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import CUBES, make_annotation, make_noise, paint_planes

from napari_sparseseg._types import Box
from napari_sparseseg.engine.classes import ClassTable
from napari_sparseseg.engine.paint import prepare_paint
from napari_sparseseg.engine.sampler import PatchSampler, patch_shapes
from napari_sparseseg.engine.tiles import frame_of


def make_sampler(*volumes, n_voxels=600, spacing=CUBES, stride=(2, 2, 2), share=0.1, balance=0.0):
    """A sampler over arrays of codes, with its paints and patch shapes."""
    annotations = [make_annotation(codes) for codes in volumes]
    ids = tuple(sorted({i for annotation in annotations for i in annotation.classes()}))
    table = ClassTable(ids, ids[0])
    paints = [prepare_paint(a, table, share=share, balance=0.0, seed=0) for a in annotations]
    shapes = [codes.shape for codes in volumes]
    of_patches = patch_shapes(n_voxels, spacing, stride, tuple(map(max, zip(*shapes, strict=True))))
    return PatchSampler(paints, shapes, of_patches, balance=balance), paints, of_patches


def draw_many(sampler, n=200, batch_size=2):
    rng = np.random.default_rng(0)
    return [sampler.draw(batch_size, rng) for _ in range(n)]


def checkers(shape):
    return (1 + (np.indices(shape) // 4).sum(axis=0) % 2).astype(np.uint8)


VOLUMES = {
    "three slices": [paint_planes(checkers((16, 40, 30)), (0, 3), (0, 8), (0, 12))],
    "three orientations": [paint_planes(checkers((16, 40, 30)), (0, 3), (1, 20), (2, 9))],
    "smaller than a patch": [paint_planes(checkers((3, 5, 4)), (0, 1))],
    "one plane": [checkers((1, 30, 40))],
    "a corner": [np.where(np.indices((9, 30, 31)).max(axis=0) < 3, checkers((9, 30, 31)), 0)],
    "two volumes": [paint_planes(checkers((16, 40, 30)), (0, 3)), paint_planes(checkers((5, 60, 8)), (1, 7))],
}


@pytest.fixture(params=VOLUMES.values(), ids=VOLUMES)
def sampled(request):
    sampler, paints, of_patches = make_sampler(*request.param)
    return draw_many(sampler), paints, of_patches, [codes.shape for codes in request.param]


@pytest.mark.parametrize("volumes", VOLUMES.values(), ids=VOLUMES)
def test_a_survey_reaches_everything_between_the_paint_and_nothing_far_from_it(volumes):
    sampler, paints, of_patches = make_sampler(*volumes)
    seen = [np.zeros(codes.shape, bool) for codes in volumes]
    for location in sampler.survey(400, np.random.default_rng(0)):
        seen[location.volume][location.box.clipped(Box.whole(seen[location.volume].shape)).slices] = True
    for reached, paint in zip(seen, paints, strict=True):
        low, high = paint.coordinates.min(0), paint.coordinates.max(0) + 1
        assert reached[tuple(map(slice, low, high))].all()
        far = np.ones(reached.shape, bool)
        beside = [(max(0, a - n), b + n) for a, b, n in zip(low, high, np.max(of_patches, axis=0), strict=True)]
        far[tuple(slice(*edge) for edge in beside)] = False
        assert not (reached & far).any()


def test_each_patch_contains_a_learnt_voxel(sampled):
    draws, paints, _, _ = sampled
    for _, locations in draws:
        for location in locations:
            paint = paints[location.volume]
            assert paint.learnt[paint.within(location.box)].any()


def test_patches_lie_in_the_volume_or_start_at_its_edge(sampled):
    draws, _, _, shapes = sampled
    for _, locations in draws:
        for location in locations:
            for start, stop, size in zip(location.box.start, location.box.stop, shapes[location.volume], strict=True):
                assert start >= 0
                assert stop <= size or start == 0


def test_a_batch_is_of_one_orientation_and_one_shape(sampled):
    draws, _, of_patches, _ = sampled
    for axis, locations in draws:
        assert len(locations) == 2
        assert {location.box.shape for location in locations} == {of_patches[axis]}


def test_all_slices_are_drawn(sampled):
    draws, paints, _, _ = sampled
    seen = {
        (location.volume, *np.unique(paints[location.volume].slice_id[paints[location.volume].within(location.box)]))
        for _, locations in draws
        for location in locations
    }
    for volume, paint in enumerate(paints):
        drawn = {slice_id for owner, *ids in seen if owner == volume for slice_id in ids}
        assert drawn >= set(np.unique(paint.slice_id[paint.learnt]))


def test_the_same_random_state_draws_the_same(sampled):
    first, _, _ = make_sampler(*VOLUMES["three orientations"])
    second, _, _ = make_sampler(*VOLUMES["three orientations"])
    assert draw_many(first, 20) == draw_many(second, 20)


def test_a_slice_with_far_more_paint_is_not_drawn_in_proportion():
    codes = np.zeros((24, 80, 80), np.uint8)
    codes[2] = checkers((80, 80))
    codes[20, 40:48, 40:48] = checkers((8, 8))  # a hundredth of the paint
    sampler, _, _ = make_sampler(codes, share=0.0)
    drawn = Counter(location.box.start[0] > 8 for _, locations in draw_many(sampler, 500) for location in locations)
    assert 4 < drawn[False] / drawn[True] < 25


def test_a_rare_class_is_seen_more_often_than_its_share():
    codes = np.zeros((3, 200, 200), np.uint8)
    codes[1] = 1
    codes[1, 100:102, 100:102] = 2  # 4 of 40000 voxels
    sampler, paints, _ = make_sampler(codes, n_voxels=512)
    seen = [
        paints[0].allowed[paints[0].within(location.box)][:, 1].any()
        for _, locations in draw_many(sampler, 1500, 1)
        for location in locations
    ]
    share_of_random_patches = 512 / codes[1].size
    assert np.mean(seen) > 1.3 * share_of_random_patches


def test_the_painted_voxel_lies_anywhere_in_the_inner_half():
    codes = np.zeros((60, 60, 60), np.uint8)
    codes[30, 30, 30], codes[30, 30, 31] = 1, 2
    sampler, _, of_patches = make_sampler(codes, n_voxels=4000)
    axis, _ = draw_many(sampler, 1)[0]
    offsets = np.array([30 - np.array(location.box.start) for _, ls in draw_many(sampler, 300) for location in ls])
    shape = np.array(of_patches[axis])
    assert (offsets >= shape // 4 - 1).all()
    assert (offsets <= shape - shape // 4).all()
    assert (offsets.std(axis=0) > 0.05 * shape).all()


@settings(deadline=None, max_examples=80)
@given(
    n_voxels=st.integers(512, 200_000),
    spacing=st.tuples(*[st.sampled_from([0.2, 1.0, 1.7, 10.0])] * 3),
    stride=st.tuples(*[st.sampled_from([1, 2, 4, 8])] * 3),
    largest=st.tuples(*[st.integers(1, 200)] * 3),
)
def test_patch_shapes_fit_grid_and_volume(n_voxels, spacing, stride, largest):
    frame = frame_of(largest, stride)
    for shape in patch_shapes(n_voxels, spacing, stride, largest):
        for edge, step, limit in zip(shape, stride, frame.shape, strict=True):
            assert 0 < edge <= limit
            assert edge % step == 0


@pytest.mark.parametrize("n_voxels", [4096, 65536])
@pytest.mark.parametrize("spacing", [CUBES, (4.0, 1.0, 1.0)])
def test_patches_have_about_the_wanted_size_and_lie_flat(n_voxels, spacing):
    for axis, shape in enumerate(patch_shapes(n_voxels, spacing, (4, 4, 4), (1000, 1000, 1000))):
        assert 0.4 * n_voxels < np.prod(shape) < 2.5 * n_voxels
        extent = np.array(shape) * spacing
        assert extent[axis] <= 1.5 * np.delete(extent, axis).min()


def test_what_a_thin_volume_cannot_take_goes_to_the_other_axes():
    of_thin = patch_shapes(8192, CUBES, (1, 4, 4), (1, 1000, 1000))
    assert 0.4 * 8192 < np.prod(of_thin[0]) < 2.5 * 8192


def test_paint_of_two_pixels_is_enough():
    codes = np.zeros((4, 4, 4), np.uint8)
    codes[0, 0, 0], codes[3, 3, 3] = 1, 2
    sampler, paints, _ = make_sampler(codes)
    for _, locations in draw_many(sampler, 10):
        assert all(len(paints[0].within(location.box)) for location in locations)


def test_a_volume_without_paint_is_never_drawn():
    sampler, _, _ = make_sampler(np.zeros((8, 9, 10), np.uint8), checkers((8, 9, 10)))
    assert {location.volume for _, locations in draw_many(sampler, 30) for location in locations} == {1}


def test_noise_as_paint_is_drawn_everywhere():
    codes = np.where(make_noise((12, 30, 30)) > 1.5, checkers((12, 30, 30)), 0).astype(np.uint8)
    sampler, _, _ = make_sampler(codes)
    starts = np.array([location.box.start for _, ls in draw_many(sampler, 300) for location in ls])
    assert (np.ptp(starts, axis=0) >= 1).all()


@pytest.mark.parametrize("balance", [0.0, 1.0])
def test_orientations_are_drawn_by_their_paint_or_alike(balance):
    codes = paint_planes(checkers((40, 40, 40)), *((0, z) for z in range(2, 38, 4)), (1, 20))
    sampler, (paint,), _ = make_sampler(codes, share=0.0, balance=balance)
    axes = Counter(axis for axis, _ in draw_many(sampler, 600))
    alike = np.bincount(paint.axis) ** ((1 - balance) / 2)
    assert axes[0] / 600 == pytest.approx(alike[0] / alike.sum(), abs=0.05)
