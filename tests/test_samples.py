from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_sparseseg.errors import InputError
from napari_sparseseg.samples import Sample, cells3d, paint_slices, tissue


def digest(sample: Sample) -> str:
    return hashlib.sha256(sample.image.tobytes() + sample.truth.tobytes()).hexdigest()


@pytest.fixture(scope="module")
def tissue_sample() -> Sample:
    return tissue()


class TestTissue:
    def test_says_what_it_holds(self, tissue_sample: Sample) -> None:
        assert tissue_sample.image.shape == tissue_sample.truth.shape == (48, 128, 128)
        assert tissue_sample.image.dtype == np.uint16
        assert tissue_sample.truth.dtype == np.uint8
        assert tissue_sample.spacing == (0.5, 0.25, 0.25)
        assert tissue_sample.channel_axis is None

    def test_each_class_is_a_fair_part_of_the_volume(self, tissue_sample: Sample) -> None:
        share = np.bincount(tissue_sample.truth.ravel(), minlength=4) / tissue_sample.truth.size
        assert set(np.unique(tissue_sample.truth)) == set(tissue_sample.class_names)
        assert share[1] > 0.4
        assert 0.05 < share[2] < 0.3
        assert 0.1 < share[3] < 0.4

    def test_same_seed_gives_same_bytes(self, tissue_sample: Sample) -> None:
        assert digest(tissue()) == digest(tissue_sample)
        assert digest(tissue(seed=1)) != digest(tissue_sample)

    def test_global_random_state_plays_no_part(self) -> None:
        state = np.random.get_state()[1].tobytes()  # noqa: NPY002
        one = digest(tissue((12, 32, 32), seed=3))
        assert np.random.get_state()[1].tobytes() == state  # noqa: NPY002
        np.random.seed(5)  # noqa: NPY002
        assert digest(tissue((12, 32, 32), seed=3)) == one

    def test_brightness_alone_does_not_tell_the_classes_apart(self, tissue_sample: Sample) -> None:
        smooth = ndimage.gaussian_filter(tissue_sample.image.astype(np.float32), (0.5, 1, 1))
        limits = np.quantile(smooth, np.linspace(0, 1, 21))
        for class_id in (2, 3):
            true = tissue_sample.truth == class_id
            best = max(
                dice((smooth >= low) & (smooth <= high), true)
                for i, low in enumerate(limits)
                for high in limits[i + 1 :]
            )
            assert best < 0.75, tissue_sample.class_names[class_id]

    def test_nothing_is_saturated_and_the_camera_has_an_offset(self, tissue_sample: Sample) -> None:
        assert tissue_sample.image.min() > 0
        assert tissue_sample.image.max() < 65535

    @settings(max_examples=15, deadline=None)
    @example((14, 25, 25), 0.625, 25)
    @given(
        shape=st.tuples(st.integers(14, 24), st.integers(25, 50), st.integers(25, 50)),
        dz=st.floats(0.45, 2.0),
        seed=st.integers(0, 2**32),
    )
    def test_each_class_occurs_in_small_volumes(self, shape: tuple[int, int, int], dz: float, seed: int) -> None:
        sample = tissue(shape, (dz, 0.25, 0.25), seed)
        assert set(np.unique(sample.truth)) == {1, 2, 3}

    @pytest.mark.parametrize("spacing", [(0.1, 0.25, 0.25), (np.nan, 0.25, 0.25), (-1, 0.25, 0.25), (np.inf, 1, 1)])
    def test_volume_without_room_for_a_cell_is_refused(self, spacing: tuple[float, float, float]) -> None:
        with pytest.raises(InputError, match="at least 6 micrometres"):
            tissue((16, 32, 32), spacing)


class TestPaintSlices:
    @pytest.mark.parametrize("seed", [0, 1, 2])
    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_paints_part_of_three_slices_and_nothing_else(self, tissue_sample: Sample, axis: int, seed: int) -> None:
        annotation = paint_slices(tissue_sample.truth, axis=axis, seed=seed)
        share = (annotation > 0).mean(axis=tuple(a for a in range(3) if a != axis))
        painted = np.flatnonzero(share)
        assert annotation.dtype == np.uint8
        assert annotation.shape == tissue_sample.truth.shape
        np.testing.assert_allclose(painted / (len(share) - 1), [0.2, 0.5, 0.8], atol=0.02)
        assert (share[painted] > 0.25).all()
        assert (share[painted] < 0.65).all()

    def test_paint_agrees_with_the_truth_nearly_everywhere(self, tissue_sample: Sample) -> None:
        annotation = paint_slices(tissue_sample.truth)
        painted = annotation > 0
        assert (annotation[painted] == tissue_sample.truth[painted]).mean() > 0.97

    def test_each_class_that_a_slice_shows_gets_paint(self, tissue_sample: Sample) -> None:
        truth = tissue_sample.truth.copy()
        truth[24, 60, 60] = 9
        annotation = paint_slices(truth)
        for z in np.flatnonzero(annotation.any(axis=(1, 2))):
            assert set(np.unique(annotation[z])) - {0} == set(np.unique(truth[z]))

    def test_wide_areas_are_mostly_left_unpainted_beside_their_borders(self) -> None:
        truth = np.ones((3, 60, 60), np.uint8)
        truth[:, :, 30:] = 2
        annotation = paint_slices(truth, 1)
        near, far = annotation[1, :, 29:31] > 0, annotation[1, :, 26:34] > 0
        assert near.mean() < 0.6 * far.mean()
        assert set(np.unique(annotation)) == {0, 1, 2}

    def test_same_seed_gives_same_paint(self, tissue_sample: Sample) -> None:
        one = paint_slices(tissue_sample.truth, seed=4)
        np.testing.assert_array_equal(one, paint_slices(tissue_sample.truth, seed=4))
        assert (one != paint_slices(tissue_sample.truth, seed=5)).any()

    def test_voxels_without_a_class_are_never_painted(self) -> None:
        truth = np.zeros((5, 40, 40), np.uint8)
        truth[:, 10:30, 10:30] = 3
        annotation = paint_slices(truth, 2)
        assert set(np.unique(annotation)) == {0, 3}
        assert (truth[annotation > 0] == 3).all()
        assert not paint_slices(np.zeros((5, 40, 40), np.uint8)).any()

    @pytest.mark.parametrize(("n_slices", "shape"), [(0, (5, 8, 8)), (6, (5, 8, 8)), (1, (8, 8))])
    def test_impossible_number_of_slices_is_refused(self, n_slices: int, shape: tuple[int, ...]) -> None:
        with pytest.raises(InputError, match="n_slices"):
            paint_slices(np.ones(shape, np.uint8), n_slices)


class TestCells3D:
    @pytest.fixture
    def two_channels(self, tissue_sample: Sample) -> np.ndarray:
        nuclei = 1000.0 * (tissue_sample.truth == 2)
        membranes = 1000.0 * (tissue_sample.truth == 3)
        return np.stack([membranes, nuclei], axis=1).astype(np.uint16) + np.uint16(100)

    def test_truth_is_derived_from_the_channels(
        self, monkeypatch: pytest.MonkeyPatch, two_channels: np.ndarray, tissue_sample: Sample
    ) -> None:
        monkeypatch.setattr("skimage.data.cells3d", lambda: two_channels)
        sample = cells3d()
        assert sample.channel_axis == 1
        assert sample.spacing == (0.29, 0.26, 0.26)
        assert sample.truth.shape == (48, 128, 128)
        for class_id in (1, 2, 3):
            assert dice(sample.truth == class_id, tissue_sample.truth == class_id) > 0.75

    @pytest.mark.parametrize("error", [ConnectionError("no connection"), ValueError("hash does not match")])
    def test_without_the_internet_it_says_what_to_do(self, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
        def fail() -> None:
            raise error

        monkeypatch.setattr("skimage.data.cells3d", fail)
        with pytest.raises(InputError, match="generated sample 'tissue'"):
            cells3d()


def dice(predicted: np.ndarray, true: np.ndarray) -> float:
    return float(2 * (predicted & true).sum() / (predicted.sum() + true.sum()))
