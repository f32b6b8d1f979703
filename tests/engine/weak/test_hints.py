"""Suggestions around strokes and between slices: right where the image is clear, never on paint, nothing made up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_sparseseg.engine.weak.hints import between, grow, paint_on, painted_slices
from napari_sparseseg.storage.annotation import read_annotation
from napari_sparseseg.storage.volume import ArrayVolume, ImageVolume

CUBES = (1.0, 1.0, 1.0)


def discs(shape=(5, 60, 70), noise=0.3, seed=0):
    """Bright discs of class 2, the same on each plane, in dark class 1; truth and image."""
    y, x = np.mgrid[: shape[1], : shape[2]]
    plane = np.zeros(shape[1:], bool)
    for cy, cx, radius in ((18, 20, 9), (40, 50, 11)):
        plane |= (y - cy) ** 2 + (x - cx) ** 2 < radius**2
    truth = np.broadcast_to(np.where(plane, 2, 1), shape).astype(np.uint8)
    rng = np.random.default_rng(seed)
    return truth, (truth + noise * rng.standard_normal(shape)).astype(np.float32)


def strokes(shape=(5, 60, 70), z=2):
    codes = np.zeros(shape, np.uint8)
    codes[z, 17:20, 15:26] = 2
    codes[z, 30:33, 8:35] = 1
    return codes


def dense(found):
    codes = np.zeros(found.shape, np.uint8)
    codes[tuple(found.coordinates.T)] = found.codes
    return codes


def read(codes, image=None, **options):
    volume = ArrayVolume(np.zeros(codes.shape, np.uint8) if image is None else image, options.pop("channel_axis", None))
    return volume, read_annotation(codes, volume, **options)


@pytest.mark.parametrize("method", ["walker", "superpixels"])
def test_strokes_grow_to_what_they_lie_in_and_no_further(method):
    truth, image = discs()
    volume, paint = read(strokes(), image)
    found = grow(volume, paint, 0, 2, spacing=CUBES, method=method, weight=0.25)
    codes = dense(found)
    assert set(np.unique(found.coordinates[:, 0])) == {2}
    assert (found.weights == np.float32(0.25)).all()
    assert not (codes[strokes() > 0]).any()
    assert (codes == 2).sum() > 60
    assert (codes == 1).sum() > 60
    assert (truth[codes > 0] == codes[codes > 0]).mean() > 0.9


def test_missing_voxels_do_no_harm():
    truth, image = discs()
    image[:, :, 60:] = np.nan
    _, paint = read(strokes(), image.clip(0, 1))
    codes = dense(grow(ImageVolume(image), paint, 0, 2, spacing=CUBES))
    assert (codes == 2).sum() > 60
    assert (truth[codes > 0] == codes[codes > 0]).mean() > 0.9


def test_what_no_stroke_reaches_is_not_suggested():
    _, image = discs()
    volume, paint = read(strokes(), image)
    codes = dense(grow(volume, paint, 0, 2, spacing=CUBES, reach=5))
    distance = ndimage.distance_transform_edt(strokes()[2] == 0)
    assert codes.any()
    assert not codes[2][distance > 5].any()


def test_more_certainty_suggests_less():
    _, image = discs(noise=0.8)
    volume, paint = read(strokes(), image)
    n_found = [len(grow(volume, paint, 0, 2, spacing=CUBES, certainty=c)) for c in (0.6, 0.9, 0.99)]
    assert n_found == sorted(n_found, reverse=True)
    assert n_found[0] > n_found[2]


def test_one_class_alone_does_not_grow_and_sets_are_no_seeds():
    _, image = discs()
    one = np.where(strokes() == 2, 2, 0)
    assert len(grow(*read(one, image), 0, 2, spacing=CUBES)) == 0
    with_set = np.where(strokes() == 1, 130, strokes())
    assert len(grow(*read(with_set, image, allowed={130: {1, 3}}), 0, 2, spacing=CUBES)) == 0
    more = strokes()
    more[2, 36:56, 45:48] = 130
    codes = dense(grow(*read(more, image, allowed={130: {1, 2}}), 0, 2, spacing=CUBES))
    assert codes.any()
    assert not codes[more > 0].any()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_of_any_orientation_grow_alike(axis):
    _, image = discs()
    expected = dense(grow(*read(strokes(), image), 0, 2, spacing=CUBES))
    turned = [np.moveaxis(a, 0, axis) for a in (image, strokes())]
    found = dense(grow(*read(turned[1], turned[0]), axis, 2, spacing=CUBES))
    np.testing.assert_array_equal(np.moveaxis(found, axis, 0), expected)


def test_channels_count_and_a_useless_one_does_no_harm():
    truth, image = discs()
    both = np.stack([np.zeros_like(image), image])
    volume, paint = read(strokes(), both, channel_axis=0)
    codes = dense(grow(volume, paint, 0, 2, spacing=CUBES))
    assert (codes == 2).sum() > 60
    assert (truth[codes > 0] == codes[codes > 0]).mean() > 0.95


def test_reach_is_measured_in_voxel_edges():
    """Rows three times as thick: a third as many of them are reached."""
    image = np.random.default_rng(0).normal(size=(1, 60, 60)).astype(np.float32)
    image[:, :, 30:] += 8
    codes = np.zeros(image.shape, np.uint8)
    codes[0, 30, :28], codes[0, 30, 32:] = 1, 2
    found = grow(*read(codes, image), 0, 0, spacing=(1.0, 3.0, 1.0), reach=12, certainty=0.5)
    rows = found.coordinates[:, 1]
    assert (rows.min(), rows.max()) == (26, 34)


def test_a_slice_of_many_tiles_has_no_seams(monkeypatch):
    _, image = discs()
    whole = dense(grow(*read(strokes(), image), 0, 2, spacing=CUBES, reach=8))
    monkeypatch.setattr("napari_sparseseg.engine.weak.hints._TILE", 20)
    tiled = dense(grow(*read(strokes(), image), 0, 2, spacing=CUBES, reach=8))
    assert (whole != tiled).sum() < 0.1 * (whole > 0).sum()
    assert np.setdiff1d(tiled, (0, 1, 2)).size == 0


def test_a_slice_all_painted_leaves_nothing_to_suggest():
    truth, image = discs()
    codes = np.zeros_like(truth)
    codes[2] = truth[2]
    assert len(grow(*read(codes, image), 0, 2, spacing=CUBES)) == 0


def test_an_image_without_contrast_suggests_nothing_wrong():
    codes = dense(grow(*read(strokes(), np.zeros((5, 60, 70), np.uint8)), 0, 2, spacing=CUBES))
    assert not codes.any()


# ---------------------------------------------------------------- between


def cone(depth=9, size=40):
    """A disc that shrinks linearly from plane to plane: class 2 in class 1."""
    y, x = np.mgrid[:size, :size] - size / 2 + 0.5
    radii = np.linspace(15, 7, depth)
    return np.stack([np.where(y**2 + x**2 < r**2, 2, 1) for r in radii]).astype(np.uint8)


def only(truth, *planes):
    codes = np.zeros_like(truth)
    codes[list(planes)] = truth[list(planes)]
    return codes


def test_shapes_that_change_linearly_are_found_between():
    truth = cone()
    _, paint = read(only(truth, 0, 8))
    codes = dense(between(paint, 0, spacing=CUBES))
    assert not codes[[0, 8]].any()
    assert (codes[1:8] > 0).mean() > 0.95
    named = codes > 0
    assert (codes[named] == truth[named]).mean() > 0.99


@pytest.mark.parametrize("axis", [1, 2])
def test_other_orientations_are_filled_alike(axis):
    truth = cone()
    expected = dense(between(read(only(truth, 0, 8))[1], 0, spacing=CUBES))
    turned = np.ascontiguousarray(np.moveaxis(only(truth, 0, 8), 0, axis))
    found = dense(between(read(turned)[1], axis, spacing=CUBES))
    np.testing.assert_array_equal(np.moveaxis(found, axis, 0), expected)


def test_only_the_gap_around_a_slice_is_filled():
    paint = read(only(cone(), 0, 3, 8))[1]
    assert set(np.unique(between(paint, 0, spacing=CUBES, around=5).coordinates[:, 0])) == {4, 5, 6, 7}
    assert set(np.unique(between(paint, 0, spacing=CUBES, around=3).coordinates[:, 0])) == {1, 2, 4, 5, 6, 7}
    assert set(np.unique(between(paint, 0, spacing=(2.0, 1.0, 1.0), max_gap=6.0).coordinates[:, 0])) == {1, 2}


def test_a_class_on_one_of_the_slices_is_not_continued():
    truth = np.ones((5, 20, 20), np.uint8)
    truth[0, 5:15, 5:15] = 2
    codes = dense(between(read(only(truth, 0, 4))[1], 0, spacing=CUBES))
    assert not (codes == 2).any()
    assert codes[2, 1, 1] == 1


def test_what_is_painted_between_stays_free_of_suggestions():
    painted = only(cone(), 0, 8)
    painted[4, 20, 20], painted[4, 20, 21] = 1, 130
    codes = dense(between(read(painted, allowed={130: {1, 2}})[1], 0, spacing=CUBES))
    assert codes.any()
    assert not codes[painted > 0].any()


def test_without_a_gap_there_is_nothing_between():
    assert len(between(read(only(cone(), 3))[1], 0, spacing=CUBES)) == 0
    assert len(between(read(only(cone(), 3, 4))[1], 0, spacing=CUBES)) == 0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 8), st.floats(0.05, 0.9), st.sampled_from([0, 1, 2]))
def test_whatever_is_painted_suggestions_are_free_voxels_of_painted_classes(seed, depth, share, axis):
    rng = np.random.default_rng(seed)
    codes = np.where(rng.random((depth, 9, 7)) < share, rng.integers(1, 4, (depth, 9, 7)), 0).astype(np.uint8)
    codes[rng.random(depth) < 0.5] = 0
    _, paint = read(codes)
    found = between(paint, axis, spacing=(2.0, 1.0, 0.5))
    assert not dense(found)[codes > 0].any()
    assert set(found.codes.tolist()) <= set(paint.codes.tolist())
    assert (np.diff(found.coordinates[:, 0]) >= 0).all()
    assert len(np.unique(found.coordinates, axis=0)) == len(found)
    for a in range(3):
        assert set(painted_slices(paint, a)) <= set(paint.coordinates[:, a].tolist())


def test_paint_on_a_slice_holds_classes_and_remembers_sets():
    codes = np.zeros((3, 4, 5), np.uint8)
    codes[1, 2, 3], codes[1, 0, 0] = 2, 130
    paint = read(codes, allowed={130: {1, 2}})[1]
    found = paint_on(paint, 0, 1)
    assert found.codes.sum() == 2
    assert found.codes[2, 3] == 2
    assert np.argwhere(found.is_painted).tolist() == [[0, 0], [2, 3]]
    assert paint_on(replace(paint), 2, 3).codes[1, 2] == 2
