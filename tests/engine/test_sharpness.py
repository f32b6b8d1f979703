"""How long voxels count, by what the image tells."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from synthetic import CUBES, SMALL, Recorder, make_noise

from napari_sparseseg import SparseSegmenter, TrainingConfig
from napari_sparseseg.engine.features import FilterBank
from napari_sparseseg.engine.model import ModelSpec
from napari_sparseseg.engine.sharpness import lengths_of
from napari_sparseseg.storage.volume import ArrayVolume, ImageVolume

SHAPE = (60, 70, 64)


def told(image, *spacing):
    return lengths_of([ArrayVolume(image)], spacing)


def sections(step, seed=0):
    """Every so many planes of structures that are as long along z as along x."""
    return make_noise((step * 20, 70, 64), seed, sigma=3.0)[::step]


@pytest.mark.parametrize("step", [2, 3, 4])
def test_sharp_sections_count_in_full(step):
    assert told(sections(step), step, 1, 1) == pytest.approx((step, 1, 1), rel=0.15)


@pytest.mark.parametrize("length", [2.0, 4.0, 8.0])
def test_voxels_that_look_like_cubes_count_as_cubes(length):
    assert told(make_noise(SHAPE, sigma=3.0), length, 1, 1) == pytest.approx((1, 1, 1), abs=0.2)


def test_between_them_it_is_what_the_image_tells():
    assert told(sections(2), 6, 1, 1) == pytest.approx((2, 1, 1), rel=0.15)


def test_noise_from_plane_to_plane_makes_them_count_for_less():
    noisy = sections(3) + 0.7 * np.random.default_rng(0).standard_normal((20, 1, 1))
    z, *_ = told(noisy, 3, 1, 1)
    assert 1.5 < z < 2.7


def test_voxels_that_are_missing_tell_nothing():
    image = sections(3)
    padded = np.where(np.indices(image.shape)[2] < 10, np.nan, image)
    volume = ImageVolume(padded)
    assert lengths_of([volume], (3, 1, 1)) == pytest.approx(told(image, 3, 1, 1), rel=0.1)
    assert lengths_of([ImageVolume(np.full(SHAPE, np.nan))], (3, 1, 1)) is None


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_any_axis_may_be_the_long_one(axis):
    spacing = [1.0, 1.0, 1.0]
    spacing[axis] = 3.0
    expected = np.roll(told(sections(3), 3, 1, 1), axis)
    assert told(np.moveaxis(sections(3), 0, axis), *spacing) == pytest.approx(expected, rel=0.02)


def test_only_ratios_of_sizes_and_of_intensities_matter():
    image = sections(3)
    expected = told(image, 3, 1, 1)
    assert told(1000 * image + 5, 0.3, 0.1, 0.1) == pytest.approx(expected, abs=0.01)
    assert told(1e300 * image.astype(float), 3, 1, 1) == pytest.approx(expected, abs=0.01)
    assert told((2**40 + 1000 * image.astype(float)).astype(np.int64), 3, 1, 1) == pytest.approx(expected, abs=0.01)


def test_channels_and_volumes_are_taken_together():
    image, blurred = sections(3), make_noise((20, 70, 64), sigma=3.0)
    both = lengths_of([ArrayVolume(np.stack([image, 100 * blurred]), channel_axis=0)], (3, 1, 1))
    assert 1.2 < both[0] < 2.9
    mean = lengths_of([ArrayVolume(image), ArrayVolume(blurred)], (3, 1, 1))
    assert mean[0] == pytest.approx(np.sqrt(told(image, 3, 1, 1)[0] * told(blurred, 3, 1, 1)[0]), abs=0.01)


@pytest.mark.parametrize(
    ("image", "spacing"),
    [
        (np.full((8, 30, 30), 7), (3, 1, 1)),
        (np.zeros((8, 30, 30)), (3, 1, 1)),
        (make_noise((1, 30, 30)), CUBES),
        (make_noise((20, 3, 2)), (3, 1, 1)),
        (make_noise((20, 1, 1)), (3, 1, 1)),
    ],
    ids=["constant", "black", "plane", "thin", "line"],
)
def test_where_nothing_tells_the_size_decides(image, spacing):
    assert told(image, *spacing) is None


def test_a_single_plane_of_long_voxels_has_no_length():
    assert told(make_noise((1, 40, 40)), 5, 1, 1) == (1, 1, 1)


def test_of_cubes_nothing_is_read_and_of_large_volumes_some_parts():
    volume = Recorder(make_noise((60, 300, 320), sigma=1.0))
    assert lengths_of([volume], CUBES) is None
    assert volume.boxes == []
    lengths_of([volume], (3.0, 1.0, 1.0))
    assert 0 < sum(box.n_voxels for box in volume.boxes) < 0.4 * 60 * 300 * 320


def test_of_many_channels_some_are_enough():
    many = np.stack([make_noise((8, 30, 30), seed, sigma=2.0) for seed in range(10)])
    few = many[::3]
    found, expected = (lengths_of([ArrayVolume(i, channel_axis=0)], (3, 1, 1)) for i in (many, few))
    assert found == expected


@given(
    image=arrays(np.uint8, st.tuples(*[st.integers(1, 9)] * 3)),
    spacing=st.tuples(*[st.floats(0.01, 100)] * 3),
)
def test_a_voxel_counts_for_one_edge_at_least_and_for_its_own_length_at_most(image, spacing):
    found = told(image, *spacing)
    if found is not None:
        assert all(0.999 <= f <= max(1, s / min(spacing)) + 0.001 for f, s in zip(found, spacing, strict=True))


class TestInAModel:
    def test_filters_follow_the_lengths(self):
        bank = FilterBank((4.0, 1.0, 1.0), lengths=(2.5, 1.0, 1.0))
        assert bank.relative_size == (0.4, 1.0, 1.0)
        assert replace(bank, lengths=None).relative_size == (0.25, 1.0, 1.0)
        assert ModelSpec(SMALL, (4.0, 1.0, 1.0), 1, (False,) * 3, (2.5, 1.0, 1.0)).bank.lengths == (2.5, 1.0, 1.0)

    def test_it_is_measured_once_and_saved(self, tmp_path):
        image = make_noise((16, 40, 40), sigma=2.0)
        paint = np.zeros(image.shape, np.uint8)
        paint[8] = 1 + (image[8] > 0)
        segmenter = SparseSegmenter(
            device="cpu", spacing=(3, 1, 1), model=SMALL, training=TrainingConfig(patch_voxels=2048), random_state=0
        )
        segmenter.fit(image, paint, max_steps=0)
        lengths = segmenter._fitted.spec.lengths
        assert lengths == told(image, 3, 1, 1)
        segmenter.partial_fit(sections(3)[:, :40, :40], np.pad(paint[8:9], ((8, 11), (0, 0), (0, 0))), max_steps=0)
        segmenter.save(tmp_path / "model")
        loaded = SparseSegmenter.load(tmp_path / "model", device="cpu")
        assert loaded._fitted.spec.lengths == lengths
        np.testing.assert_array_equal(loaded.predict_proba(image), segmenter.predict_proba(image))
