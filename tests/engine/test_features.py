"""The filter bank and the cached features of a volume."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from synthetic import CUBES, Recorder, make_features, make_noise, whole

from napari_sparseseg._types import Box
from napari_sparseseg.engine import features as module
from napari_sparseseg.engine.features import FilterBank
from napari_sparseseg.engine.filters import PER_SCALE, Grid, kernel_matrix, radius, reflect, write_eigenvalues
from napari_sparseseg.engine.normalise import IntensityRange
from napari_sparseseg.storage.volume import ArrayVolume

ALL_SCALES = (1.0, 2.0, 4.0, 8.0)
SPACINGS = [CUBES, (3.0, 1.0, 1.0), (1.0, 1.0, 10.0), (4.0, 2.0, 1.0)]
THIN = [(1, 1, 1), (1, 9, 7), (5, 1, 7), (6, 8, 1), (1, 1, 11), (2, 3, 2)]


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks so small that a small volume has many, of sizes that divide nothing."""
    monkeypatch.setattr(module, "_BLOCK_SHAPE", (3, 8, 5))


def whole_of(image, spacing=CUBES, scales=ALL_SCALES, **options):
    return make_features(image, spacing, scales, **options).read(whole(image.shape))


def column(scale, scales=ALL_SCALES):
    """First column of a scale, one channel."""
    return 1 + PER_SCALE * scales.index(scale)


class TestBlocks:
    @pytest.mark.parametrize("spacing", SPACINGS)
    def test_features_do_not_depend_on_the_block(self, monkeypatch, spacing):
        image = make_noise((13, 21, 18))
        expected = whole_of(image, spacing)
        eigenvalues = [c for scale in ALL_SCALES for c in range(column(scale) + 2, column(scale) + PER_SCALE)]
        tolerance = np.full(expected.shape[-1], 1e-5)
        tolerance[eigenvalues] = 2e-4  # where two of them are nearly equal, rounding grows by a square root
        for block in ((3, 8, 5), (13, 1, 18), (64, 64, 64)):
            monkeypatch.setattr(module, "_BLOCK_SHAPE", block)
            difference = (whole_of(image, spacing) - expected).abs().flatten(0, 2).amax(0).numpy()
            assert (difference < tolerance).all()

    def test_a_box_across_blocks_equals_the_same_part_of_the_whole(self, small_blocks):
        image = make_noise((7, 20, 13))
        for box in (Box((2, 5, 3), (6, 19, 12)), Box((0, 0, 0), (1, 1, 1)), Box((6, 19, 12), (7, 20, 13))):
            torch.testing.assert_close(
                make_features(image).read(box), make_features(image).read(whole(image.shape))[box.slices]
            )

    def test_a_function_of_voxels_is_mapped_part_by_part_as_on_the_whole(self, small_blocks):
        feature_map = make_features(make_noise((7, 20, 13)))
        parts = []

        def twice(features, part):
            parts.append(part)
            assert torch.equal(features, feature_map.read(part))
            return 2 * features[..., :3]

        for box in (Box((2, 5, 3), (6, 19, 12)), Box((0, 0, 0), (8, 24, 16))):
            parts.clear()
            assert torch.equal(feature_map.mapped(box, twice), 2 * feature_map.read(box)[..., :3])
            assert sum(part.n_voxels for part in parts) == box.clipped(whole((7, 20, 13))).n_voxels

    def test_dropping_blocks_changes_nothing(self, small_blocks):
        image = make_noise((7, 20, 13))
        kept, dropping = make_features(image), make_features(image, cache_bytes=1)
        boxes = [Box((0, 0, 0), (7, 20, 13)), Box((1, 1, 1), (5, 9, 9)), Box((3, 12, 4), (7, 20, 10))]
        for box in boxes * 2:
            assert torch.equal(dropping.read(box), kept.read(box))

    def test_cached_blocks_are_not_computed_again(self, small_blocks):
        volume = Recorder(make_noise((7, 20, 13)))
        feature_map = make_features(volume)
        feature_map.read(whole(volume.shape))
        n_reads = len(volume.boxes)
        feature_map.read(Box((1, 2, 3), (7, 19, 12)))
        assert len(volume.boxes) == n_reads

    def test_reading_twice_gives_the_same_although_the_first_was_changed(self, small_blocks):
        feature_map = make_features(make_noise((7, 20, 13)))
        box = Box((-1, 0, 0), (4, 9, 9))
        first = feature_map.read(box)
        expected = first.clone()
        first += 1
        assert torch.equal(feature_map.read(box), expected)

    @pytest.mark.parametrize("spacing", SPACINGS)
    def test_only_what_a_block_depends_on_is_read(self, monkeypatch, spacing):
        monkeypatch.setattr(module, "_BLOCK_SHAPE", (4, 8, 8))
        volume = Recorder(make_noise((60, 60, 60)))
        feature_map = make_features(volume, spacing, scales=(1.0, 2.0))
        assert volume.boxes == []
        feature_map.read(Box((25, 25, 25), (27, 31, 27)))
        (read,) = volume.boxes
        assert read == Box((24, 24, 24), (28, 32, 32)).grown(feature_map.bank.halo).clipped(whole(volume.shape))

    def test_coarse_scales_read_each_voxel_once(self):
        volume = Recorder(make_noise((9, 20, 20)))
        make_features(volume, scales=(4.0, 8.0)).read(Box((0, 0, 0), (1, 1, 1)))
        touched = np.zeros(volume.shape, int)
        for box in volume.boxes[1:]:  # the first is the block's own intensities
            touched[box.slices] += 1
        assert (touched == 1).all()


class TestAtAGlance:
    @pytest.mark.parametrize("spacing", SPACINGS)
    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_a_plane_equals_the_same_plane_of_the_whole(self, small_blocks, spacing, axis):
        image = make_noise((7, 20, 13))
        start, stop = [0, 0, 0], list(image.shape)
        start[axis], stop[axis] = 3, 4
        box = Box(tuple(start), tuple(stop))
        found = make_features(image, spacing).glance(box)
        expected = make_features(image, spacing).read(whole(image.shape))[box.slices]
        torch.testing.assert_close(found, expected, atol=3e-4, rtol=1e-3)

    def test_only_what_the_box_depends_on_is_read_and_nothing_is_kept(self, small_blocks):
        volume = Recorder(make_noise((7, 20, 13)))
        feature_map = make_features(volume)
        feature_map.prepare()
        volume.boxes.clear()
        box = Box((3, 4, 0), (4, 12, 13))
        for _ in range(2):
            feature_map.glance(box)
        wanted = box.grown(feature_map.bank.halo).clipped(whole(volume.shape))
        assert volume.boxes == [wanted, wanted]

    def test_what_is_cached_is_taken_from_there(self, small_blocks):
        volume = Recorder(make_noise((7, 20, 13)))
        feature_map = make_features(volume)
        features = feature_map.read(whole(volume.shape))
        volume.boxes.clear()
        assert torch.equal(feature_map.glance(Box((3, 0, 0), (4, 20, 13))), features[3:4])
        assert volume.boxes == []

    def test_preparing_reads_the_volume_so_that_the_first_box_need_not(self):
        volume = Recorder(make_noise((7, 20, 13)))
        feature_map = make_features(volume)
        feature_map.prepare()
        assert volume.boxes == [whole(volume.shape)]
        feature_map.prepare()
        feature_map.glance(Box((3, 0, 0), (4, 2, 2)))
        assert len(volume.boxes) == 2

    def test_without_coarse_scales_there_is_nothing_to_prepare(self):
        volume = Recorder(make_noise((7, 20, 13)))
        make_features(volume, scales=(1.0,)).prepare()
        assert volume.boxes == []

    def test_less_cache_can_be_allowed_later_and_frees_memory_at_once(self, small_blocks):
        image = make_noise((7, 20, 13))
        feature_map = make_features(image)
        expected = feature_map.read(whole(image.shape))
        used = sum(block.nbytes for block in feature_map._blocks.values())
        feature_map.cache_bytes = used // 2
        left = sum(block.nbytes for block in feature_map._blocks.values())
        assert used // 4 < left <= used // 2
        assert left == feature_map._cached_bytes
        assert torch.equal(feature_map.read(whole(image.shape)), expected)
        feature_map.cache_bytes = 1
        assert len(feature_map._blocks) == 1

    def test_without_a_cache_what_was_kept_before_is_still_used(self, small_blocks):
        volume = Recorder(make_noise((7, 20, 13)))
        feature_map = make_features(volume)
        feature_map.read(whole(volume.shape))
        n_reads = len(volume.boxes)
        feature_map.cache_bytes = 0
        feature_map.read(whole(volume.shape))
        assert len(volume.boxes) == n_reads


class TestSingleVoxels:
    @pytest.mark.parametrize("spacing", SPACINGS[:3])
    def test_at_equals_read(self, small_blocks, spacing):
        image = make_noise((7, 20, 13))
        coordinates = np.argwhere(make_noise(image.shape, 1) > 1).astype(np.int32)
        found = make_features(image, spacing).at(coordinates)
        expected = make_features(image, spacing).read(whole(image.shape))[tuple(torch.from_numpy(coordinates.T).long())]
        torch.testing.assert_close(found, expected)

    def test_any_order_and_repetition_is_kept(self, small_blocks):
        feature_map = make_features(make_noise((7, 20, 13)))
        coordinates = np.array([[6, 19, 12], [0, 0, 0], [3, 8, 5], [6, 19, 12]], np.int32)
        found = feature_map.at(coordinates)
        for row, (z, y, x) in zip(found, coordinates.tolist(), strict=True):
            assert torch.equal(row, feature_map.read(Box((z, y, x), (z + 1, y + 1, x + 1)))[0, 0, 0])

    def test_no_voxels_give_no_rows(self):
        feature_map = make_features(make_noise((3, 4, 5)))
        assert feature_map.at(np.zeros((0, 3), np.int32)).shape == (0, feature_map.bank.n_features)


@st.composite
def boxes_beyond(draw):
    """A shape, and a box that may reach far beyond it on any side."""
    shape = tuple(draw(st.integers(1, 9)) for _ in range(3))
    start = tuple(draw(st.integers(-12, n + 3)) for n in shape)
    return shape, Box(start, tuple(a + draw(st.integers(1, 12)) for a in start))


class TestBeyondTheVolume:
    @settings(deadline=None, max_examples=40)
    @given(boxes_beyond())
    def test_features_are_mirrored(self, drawn):
        shape, box = drawn
        image = make_noise(shape)
        inside = whole_of(image, scales=(1.0, 4.0)).numpy()
        before = [max(0, -a) for a in box.start]
        after = [max(0, b - n) for b, n in zip(box.stop, shape, strict=True)]
        padded = np.pad(inside, [*zip(before, after, strict=True), (0, 0)], mode="reflect")
        expected = padded[box.shifted(tuple(before)).slices]
        np.testing.assert_array_equal(make_features(image, scales=(1.0, 4.0)).read(box).numpy(), expected)

    @pytest.mark.parametrize("size", [1, 2, 3, 7])
    def test_indices_are_mirrored_without_repeating_the_edge(self, size):
        index = np.arange(-30, 30)
        padded = np.pad(np.arange(size), (30, 30), mode="reflect")
        np.testing.assert_array_equal(reflect(index, size), padded[: len(index)])


def edges_of(image, sigma):
    """What filters of that width do at the edges, along each axis."""
    return ["mirror" if sigma > n / 6 else "nearest" for n in image.shape]


class TestFilters:
    @pytest.mark.parametrize("spacing", SPACINGS)
    @pytest.mark.parametrize("scale", [1.0, 2.0, 3.0])
    def test_fine_gaussians_equal_scipy(self, spacing, scale):
        image = make_noise((11, 17, 15))
        sigmas = [scale * size for size in FilterBank(spacing).relative_size]
        radii = [radius(sigma) for sigma in sigmas]
        expected = image.astype(float)
        for axis, (sigma, reach) in enumerate(zip(sigmas, radii, strict=True)):
            if sigma >= 0.3:  # narrower ones are the identity
                mode = edges_of(image, sigma)[axis]
                expected = ndimage.gaussian_filter1d(expected, sigma, axis, mode=mode, radius=reach - 1)
        found = whole_of(image, spacing, scales=(scale,))[..., 1]
        np.testing.assert_allclose(found, expected, atol=1e-4)

    @pytest.mark.parametrize("scale", [4.0, 8.0])
    def test_coarse_gaussians_are_close_to_scipy(self, scale):
        image = make_noise((33, 41, 29), sigma=2)
        expected = ndimage.gaussian_filter(image, scale, mode=edges_of(image, scale))
        found = whole_of(image, scales=(scale,))[..., 1].numpy()
        assert (found - expected).std() < 0.15 * expected.std()  # linear interpolation between the nodes
        assert abs((found - expected).mean()) < 0.01

    @pytest.mark.parametrize("scale", ALL_SCALES)
    def test_gradient_magnitude_is_close_to_scipy_and_scale_normalised(self, scale):
        image = make_noise((33, 41, 29), sigma=2)
        inside = (slice(8, -8),) * 3
        gradient = scale * ndimage.gaussian_gradient_magnitude(image, scale, mode=edges_of(image, scale))
        expected, found = gradient[inside], whole_of(image, scales=(scale,))[inside][..., 2].numpy()
        assert (found - expected).std() < 0.4 * expected.std()
        assert found.mean() == pytest.approx(expected.mean(), rel=0.1)

    @pytest.mark.parametrize("scale", [1.0, 2.0, 4.0, 8.0])
    @pytest.mark.parametrize("edge", [0, -1])
    def test_at_the_edge_a_ramp_keeps_half_of_its_slope_and_is_hardly_curved(self, scale, edge):
        image = np.broadcast_to(0.1 * np.arange(60, dtype=np.float32)[:, None, None], (60, 60, 60))
        found = whole_of(image.copy(), scales=(scale,))[edge, 30, 30]
        assert found[2] > 0.5 * 0.1 * scale  # 0 where it is mirrored
        assert found[3:].abs().max() < 0.5 * 0.1 * scale  # 0.8 where it is mirrored

    @pytest.mark.parametrize("size", [3, 20, 60])
    def test_the_slope_at_the_edge_is_that_of_the_voxel_next_to_it(self, size):
        slope = kernel_matrix(Grid(0, size, 1, 0, size, size), 1.0, 1)
        torch.testing.assert_close(slope[[0, -1]], slope[[1, -2]])

    def test_a_filter_that_is_wide_for_the_volume_mirrors_it(self):
        image = np.zeros((60, 60, 12), np.float32)
        image[..., 0] = 1
        found = whole_of(image, scales=(4.0,))[30, 30, 0, 1]
        assert found < 0.35  # more than 0.5 if the edge were repeated

    @pytest.mark.parametrize("scale", ALL_SCALES)
    def test_a_ramp_has_its_slope_and_no_curvature(self, scale):
        z, y, x = np.meshgrid(*map(np.arange, (60, 60, 60)), indexing="ij")
        image = (0.03 * z - 0.02 * y + 0.06 * x).astype(np.float32)
        middle = whole_of(image, scales=(scale,))[30, 30, 30]
        assert middle[2].item() == pytest.approx(0.07 * scale, rel=0.01)
        assert middle[3:].abs().max() < 0.01

    @pytest.mark.parametrize("scale", ALL_SCALES)
    def test_a_paraboloid_has_its_curvatures_largest_first(self, scale):
        z, y, x = np.meshgrid(*(np.arange(60) - 30.0,) * 3, indexing="ij")
        image = (1e-3 * (3 * z**2 - y**2 + x**2)).astype(np.float32)
        middle = whole_of(image, scales=(scale,))[30, 30, 30]
        expected = scale**2 * np.array([6e-3, 2e-3, -2e-3])
        np.testing.assert_allclose(middle[3:], expected, rtol=0.05, atol=2e-3)

    @pytest.mark.parametrize("scale", [1.0, 2.0, 4.0])
    def test_a_physical_slope_counts_the_same_in_long_voxels(self, scale):
        image = np.zeros((30, 60, 60), np.float32)
        image += 0.1 * np.arange(30)[:, None, None]  # per slice; slices are five times as far apart as rows
        middle = whole_of(image, (5.0, 1.0, 1.0), scales=(scale,))[15, 30, 30]
        assert middle[2].item() == pytest.approx(0.02 * scale, rel=0.02)

    def test_on_very_long_voxels_the_bank_is_slice_by_slice(self):
        image = make_noise((5, 20, 20))
        alone = whole_of(image[2:3], (50.0, 1.0, 1.0), scales=(1.0, 2.0, 4.0))[0]
        stacked = whole_of(image, (50.0, 1.0, 1.0), scales=(1.0, 2.0, 4.0))[2]
        for scale in (1.0, 2.0, 4.0):
            first = column(scale)
            torch.testing.assert_close(stacked[..., first], alone[..., first], atol=0.02, rtol=0)

    @pytest.mark.parametrize("unit", [1e-9, 1e6])
    def test_the_unit_of_the_spacing_does_not_matter(self, unit):
        image = make_noise((5, 12, 12))
        expected = whole_of(image, (3.0, 1.0, 1.0))
        torch.testing.assert_close(whole_of(image, (3 * unit, unit, unit)), expected, atol=1e-5, rtol=1e-5)

    def test_a_constant_image_has_no_edges(self):
        found = whole_of(np.full((9, 10, 11), 2.5, np.float32))
        gaussians = [0, *(column(scale) for scale in ALL_SCALES)]
        others = [c for c in range(found.shape[-1]) if c not in gaussians]
        torch.testing.assert_close(found[..., gaussians], torch.full_like(found[..., gaussians], 2.5))
        assert found[..., others].abs().max() < 1e-4

    @pytest.mark.parametrize("shape", THIN)
    @pytest.mark.parametrize("spacing", [CUBES, (4.0, 2.0, 1.0)])
    def test_an_axis_of_one_voxel_is_fine(self, shape, spacing):
        found = whole_of(make_noise((3, *shape))[0] if shape != (1, 1, 1) else np.ones(shape, np.float32), spacing)
        assert found.shape == (*shape, 1 + PER_SCALE * len(ALL_SCALES))
        assert torch.isfinite(found).all()

    def test_scale_by_scale_all_channels_follow_each_other(self):
        first, second = make_noise((5, 9, 8), 0), make_noise((5, 9, 8), 1)
        both = make_features(ArrayVolume(np.stack([first, second]), 0), scales=(1.0, 2.0, 4.0)).read(whole(first.shape))
        ones = [make_features(image, scales=(1.0, 2.0, 4.0)).read(whole(first.shape)) for image in (first, second)]
        for number in range(3):
            for channel, alone in enumerate(ones):
                start = 2 + PER_SCALE * (2 * number + channel)
                expected = alone[..., 1 + PER_SCALE * number : 1 + PER_SCALE * (number + 1)]
                torch.testing.assert_close(both[..., start : start + PER_SCALE], expected, atol=2e-4, rtol=1e-4)

    def test_channels_do_not_touch_each_other(self):
        first, second = make_noise((5, 9, 8), 0), make_noise((5, 9, 8), 1)
        both = make_features(ArrayVolume(np.stack([first, second]), 0)).read(whole(first.shape))
        assert both.shape[-1] == 2 * make_features(first).bank.n_features
        zero_second = make_features(ArrayVolume(np.stack([first, 0 * second]), 0)).read(whole(first.shape))
        changed = (both != zero_second).flatten(0, 2).any(0)
        assert changed.sum() == both.shape[-1] // 2
        torch.testing.assert_close(both[..., ~changed], make_features(first).read(whole(first.shape)))

    def test_intensities_are_normalised_first(self):
        image = make_noise((5, 9, 8))
        volume = ArrayVolume(100 + 7 * image)
        intensity = IntensityRange((100.0,), (7.0,))
        found = module.FeatureMap(volume, FilterBank(CUBES, scales=(1.0,)), intensity).read(whole(image.shape))
        normalised = intensity.apply(volume.read(whole(image.shape)))[0]
        torch.testing.assert_close(found, whole_of(normalised, scales=(1.0,)), atol=1e-4, rtol=1e-4)


class TestSymmetry:
    """What augmentation relies on."""

    @pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 2)])
    @pytest.mark.parametrize("spacing", [CUBES, (2.0, 1.0, 1.0)])
    def test_a_mirrored_image_has_mirrored_features(self, axes, spacing):
        image = make_noise((13, 21, 17))
        expected = whole_of(image, spacing).flip(axes)
        torch.testing.assert_close(whole_of(np.flip(image, axes).copy(), spacing), expected, atol=1e-4, rtol=1e-4)

    @pytest.mark.parametrize("order", [(1, 0, 2), (0, 2, 1), (2, 1, 0), (1, 2, 0)])
    def test_a_turned_image_has_turned_features(self, order):
        image = make_noise((10, 21, 14))
        expected = whole_of(image).permute(*order, 3)
        torch.testing.assert_close(whole_of(image.transpose(order).copy()), expected, atol=1e-4, rtol=1e-4)

    @pytest.mark.parametrize("gain", [0.5, 3.0])
    def test_a_change_of_contrast_multiplies_all_features(self, gain):
        image = make_noise((7, 12, 9))
        torch.testing.assert_close(whole_of(gain * image), gain * whole_of(image), atol=1e-4, rtol=1e-4)

    def test_mirroring_hardly_matters_where_the_lattice_does_not_fit_the_volume(self):
        image = make_noise((20, 30, 27), sigma=2)
        expected = whole_of(image).flip(2)
        found = whole_of(np.flip(image, 2).copy())
        error = (found - expected).flatten(0, 2).std(0) / expected.flatten(0, 2).std(0)
        assert error.max() < 0.4


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-6, 1.0, 1e4]))
def test_eigenvalues_equal_numpy(seed, size):
    matrices = np.random.default_rng(seed).normal(size=(20, 3, 3)) * size
    matrices = matrices + matrices.swapaxes(1, 2)
    entries = [torch.from_numpy(matrices[:, i, j].copy()) for i, j in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))]
    found = torch.empty((3, 20), dtype=torch.float64)
    write_eigenvalues(found, *entries)
    np.testing.assert_allclose(found.T, np.linalg.eigvalsh(matrices)[:, ::-1], atol=1e-5 * size)


@pytest.mark.parametrize(
    "diagonal", [(0, 0, 0), (2, 2, 2), (1, 1, -5), (-5, 1, 1), (1e-20, 0, 0), (3, 0, 0), (1e8, 1, 0)]
)
def test_eigenvalues_of_degenerate_matrices_are_finite_and_in_order(diagonal):
    zero = torch.zeros(1)
    entries = [torch.tensor([float(value)]) for value in diagonal]
    found = torch.empty((3, 1))
    write_eigenvalues(found, *entries, zero, zero, zero)
    largest = max(map(abs, diagonal))
    np.testing.assert_allclose(found[:, 0], sorted(diagonal, reverse=True), atol=1e-3 * largest + 1e-12)


@pytest.mark.parametrize("n_channels", [2, 3])
def test_every_channel_of_a_scale_is_emphasised_alike(n_channels):
    single = FilterBank(CUBES, scales=ALL_SCALES).emphasis(0.5)
    expected = [single[0]] * n_channels
    for number in range(len(ALL_SCALES)):
        expected += single[1 + PER_SCALE * number : 1 + PER_SCALE * (number + 1)] * n_channels
    found = FilterBank(CUBES, n_channels, ALL_SCALES).emphasis(0.5)
    assert list(found) == expected
    assert max(found) == 1


def test_the_bank_counts_its_features_and_parts_its_scales():
    bank = FilterBank((2.0, 1.0, 1.0), n_channels=3, scales=(1.0, 2.0, 8.0))
    assert bank.n_features == 3 * (1 + 3 * PER_SCALE)
    assert bank.fine_scales + bank.coarse_scales == bank.scales
    assert bank.coarse_stride[1] >= 2 * bank.coarse_stride[0]


@pytest.mark.parametrize(("length", "expected"), [(1, 1), (2.25, 1.5), (4, 4), (10, 10)])
def test_short_voxels_are_smoothed_over_more_of_them_than_their_size_says(length, expected):
    size = FilterBank((float(length), 1.0, 1.0)).relative_size
    assert size == pytest.approx((1 / expected, 1.0, 1.0))
