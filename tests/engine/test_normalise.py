"""Intensity normalisation."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import Recorder, make_noise, whole

from napari_sparseseg.engine import normalise as module
from napari_sparseseg.engine.normalise import IntensityRange
from napari_sparseseg.errors import InputWarning
from napari_sparseseg.storage.volume import ArrayVolume, ImageVolume

INTEGERS = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"]
FLOATS = ["float16", "float32", "float64"]


def normalised(image, channel_axis=None):
    volume = ArrayVolume(np.asarray(image), channel_axis)
    return IntensityRange.of(volume).apply(volume.read(whole(volume.shape)))


def grey_values(dtype, shape=(6, 12, 10)):
    """Noise with about sixty grey values, which every dtype can hold."""
    return (30 + 10 * np.clip(make_noise(shape), -3, 3)).round().astype(dtype)


@pytest.mark.parametrize("dtype", [*INTEGERS, *FLOATS, ">u2", ">f4"])
def test_every_dtype_gives_the_same_numbers(dtype):
    result = normalised(grey_values(dtype))
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, normalised(grey_values("float64")), atol=2e-5)
    assert abs(np.median(result)) < 0.1
    assert 0.7 < result.std() < 1.3


@settings(deadline=None, max_examples=25)
@given(
    factor=st.sampled_from([1e-30, 1e-12, 0.01, 1.0, 300.0, 1e20, 1e29]),
    offset=st.floats(-1e3, 1e3),
    seed=st.integers(0, 5),
)
def test_gain_and_offset_make_no_difference(factor, offset, seed):
    image = make_noise((5, 9, 8), seed).astype(np.float64)
    np.testing.assert_allclose(normalised(factor * (image + offset)), normalised(image), atol=1e-4)


@pytest.mark.parametrize("dtype", FLOATS)
def test_missing_voxels_count_for_nothing_and_look_like_the_median(dtype):
    image = grey_values(dtype)
    missing = np.indices(image.shape)[1] < 5
    with pytest.warns(InputWarning, match=r"41.7 % of the voxels of channel 0 of the image are not finite"):
        intensity = IntensityRange.of(ImageVolume(np.where(missing, image.dtype.type(np.nan), image)))
    assert intensity == IntensityRange.of(ImageVolume(image[:, 5:]))
    found = intensity.apply(np.where(missing, image.dtype.type(np.nan), image)[None])[0]
    assert (found[missing] == 0).all()
    np.testing.assert_array_equal(found[~missing], intensity.apply(image[None])[0][~missing])


def test_brighter_voxels_stay_brighter():
    image = np.sort(make_noise((4, 8, 8)).ravel()).reshape(4, 8, 8)
    image[-1, -1, -5:] = 1e2, 1e3, 1e4, 1e5, 1e6
    result = normalised(image).ravel()
    assert (np.diff(result) >= 0).all()
    assert (np.diff(result[:-5]) > 0).all()


def test_an_inverted_image_is_inverted():
    image = make_noise((5, 9, 8))
    np.testing.assert_allclose(normalised(-image), -normalised(image), atol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "offset"),
    [
        ("uint16", 2**16 - 100),
        ("int16", -(2**15)),
        ("uint32", 2**32 - 100),
        ("int32", -(2**31)),
        ("uint64", 2**50),
        ("uint64", 2**63),
        ("uint64", 2**64 - 100),
        ("int64", -(2**63)),
        ("int64", 2**63 - 100),
    ],
)
def test_grey_values_far_from_zero_keep_their_contrast(dtype, offset):
    image = grey_values(dtype) + np.asarray(offset, dtype)
    result, expected = normalised(image), normalised(grey_values("float64"))
    assert np.corrcoef(result.ravel(), expected.ravel())[0, 1] > 0.999
    assert 0.7 < result.std() < 1.3


@pytest.mark.parametrize("low", [-1e30, 0.0, 1e29])
def test_values_up_to_1e30_stay_finite_and_keep_their_contrast(low):
    image = low + (1e30 - low) * np.random.default_rng(0).random((4, 8, 8))
    result = normalised(image)
    assert np.isfinite(result).all()
    assert 0.5 < result.std() < 1.5


def test_a_stray_voxel_does_not_flatten_the_rest():
    image = make_noise((8, 16, 16))
    expected = normalised(image)
    image[3, 3, 3] = 1e30
    result = normalised(image)
    assert 3 < result[0, 3, 3, 3] < 1000
    result[0, 3, 3, 3] = expected[0, 3, 3, 3]
    np.testing.assert_allclose(result, expected, atol=0.1)


@pytest.mark.parametrize("value", [0, 7, 255])
def test_a_constant_image_warns_and_stays_finite(value):
    volume = ArrayVolume(np.full((3, 4, 5), value, np.uint8))
    with pytest.warns(InputWarning, match=f"channel 0 of the image is constant .{value}"):
        intensity = IntensityRange.of(volume)
    assert np.isfinite(intensity.apply(volume.read(whole(volume.shape)))).all()


def test_a_single_voxel_is_constant():
    with pytest.warns(InputWarning, match="constant"):
        IntensityRange.of(ArrayVolume(np.ones((1, 1, 1))))


def test_only_the_constant_channel_is_named():
    image = np.stack([make_noise((3, 4, 5)), np.zeros((3, 4, 5)), make_noise((3, 4, 5))])
    with pytest.warns(InputWarning) as caught:
        IntensityRange.of(ArrayVolume(image, 0))
    assert [str(w.message)[:9] for w in caught] == ["channel 1"]


def test_a_few_voxels_that_differ_carry_the_structure():
    image = np.zeros((4, 50, 50), np.uint8)
    image[2, 20:22, 20:25] = 200
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = normalised(image)
    assert result.max() - result.min() > 0.5


def test_channels_are_normalised_on_their_own():
    first, second = make_noise((4, 6, 7), 0), make_noise((4, 6, 7), 1)
    result = normalised(np.stack([first, 500 + 40 * second], axis=-1), channel_axis=-1)
    np.testing.assert_allclose(result[0], normalised(first)[0], atol=1e-4)
    np.testing.assert_allclose(result[1], normalised(second)[0], atol=1e-4)


def test_a_deep_volume_is_measured_on_some_slabs_only():
    volume = Recorder(make_noise((200, 5, 5)))
    IntensityRange.of(volume)
    read = sum(box.n_voxels for box in volume.boxes)
    assert read < 0.3 * 200 * 25
    assert min(box.start[0] for box in volume.boxes) == 0
    assert max(box.stop[0] for box in volume.boxes) == 200


def test_large_planes_are_thinned_out_but_still_measured_well():
    image = make_noise((1, 700, 900))
    result = normalised(image)
    assert abs(np.median(result)) < 0.02
    assert 0.8 < result.std() < 1.2


@pytest.mark.parametrize("depth", [1, 3, 40])
def test_of_huge_planes_only_windows_are_read_that_lie_everywhere(monkeypatch, depth):
    monkeypatch.setattr(module, "_LARGE_PLANE", 1000)
    monkeypatch.setattr(module, "_WINDOW", 8)
    image = make_noise((depth, 300, 400)) + np.linspace(0, 1, 400, dtype=np.float32)  # brighter to one side
    volume = Recorder(image)
    measured = IntensityRange.of(volume)
    assert max(box.n_voxels for box in volume.boxes) <= 64
    assert {corner % 8 for box in volume.boxes for corner in box.start[1:]} == {0}
    assert measured.offset[0] == pytest.approx(np.median(image), abs=0.05)
    assert measured.scale[0] == pytest.approx(image.std(), rel=0.1)


@pytest.mark.parametrize("shape", [(1, 2000, 3), (1, 3, 2000), (2, 1, 5000)])
def test_huge_planes_may_be_thin(monkeypatch, shape):
    monkeypatch.setattr(module, "_LARGE_PLANE", 1000)
    image = make_noise(shape)
    assert IntensityRange.of(ArrayVolume(image)).offset[0] == pytest.approx(np.median(image), abs=0.2)
