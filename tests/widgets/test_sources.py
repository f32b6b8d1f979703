"""What Image layers hold becomes the image that is learnt from, and its annotation lies where the image does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Shapes

from napari_sparseseg._types import Box
from napari_sparseseg.errors import InputError
from napari_sparseseg.storage.project.project import Project
from napari_sparseseg.widgets.restoring import recognised
from napari_sparseseg.widgets.sources import (
    n_levels,
    n_voxels_at,
    region_of_shapes,
    region_on_screen,
    source_of,
    spatial_shape,
    step_for,
    suggested_factor,
)

RNG = np.random.default_rng(0)


def volume(*shape: int) -> np.ndarray:
    return RNG.integers(0, 255, shape, dtype=np.uint8)


def world_of(source: Any, index: tuple[float, ...]) -> np.ndarray:
    return np.multiply(source.scale, index) + source.translate


class TestOneLayer:
    def test_volume_with_scale_translate_units_and_labels(self) -> None:
        layer = Image(
            volume(6, 8, 10), name="tissue", scale=(0.5, 0.25, 0.25), translate=(1, 2, 3), units=("um",) * 3,
            axis_labels=("z", "y", "x"),
        )  # fmt: skip
        source = source_of([layer])
        assert source.array is layer.data
        assert (source.channel_axis, source.time_axis, source.shape) == (None, None, (6, 8, 10))
        assert source.spacing == (0.5, 0.25, 0.25)
        assert (source.scale, source.translate) == ((0.5, 0.25, 0.25), (1, 2, 3))
        assert source.units == ("micrometer",) * 3
        assert source.axis_labels == ("z", "y", "x")
        assert (source.name, source.layer_names) == ("tissue", ("tissue",))
        assert source.has_voxel_size
        assert (source.n_channels, source.n_voxels) == (1, 480)

    def test_plain_volume_has_cubes_of_unknown_size(self) -> None:
        source = source_of([Image(volume(4, 5, 6))])
        assert source.spacing == (1, 1, 1)
        assert not source.has_voxel_size

    def test_plane(self) -> None:
        source = source_of([Image(volume(5, 6), scale=(2, 3))])
        assert (source.shape, source.spacing, source.scale) == ((5, 6), (2, 3), (2, 3))

    def test_colours_are_channels(self) -> None:
        source = source_of([Image(volume(5, 40, 60, 3), rgb=True)])
        assert (source.channel_axis, source.n_channels, source.shape) == (3, 3, (5, 40, 60))
        assert len(source.scale) == 3

    def test_how_opaque_a_voxel_is_is_no_channel(self) -> None:
        layer = Image(volume(5, 40, 60, 4), rgb=True)
        source = source_of([layer], step=(1, 2, 2))
        assert (source.channel_axis, source.n_channels, source.shape) == (3, 3, (5, 20, 30))
        np.testing.assert_array_equal(np.asarray(source_of([layer]).array), layer.data[..., :3])
        assert source_of([layer], keeps_alpha=True).n_channels == 4

    @pytest.mark.parametrize("n_values", [3, 4])
    def test_a_project_knows_its_image_by_the_colours_it_was_made_with(self, tmp_path: Path, n_values: int) -> None:
        layer = Image(volume(40, 60, 4), rgb=True)
        with Project.create(tmp_path / "a.sparseseg", classes=[]) as project:
            image = project.add_image(layer.data[..., :n_values], channel_axis=2)
            source = recognised(image, [layer])
        assert source is not None
        assert source.n_channels == n_values

    @pytest.mark.parametrize("labels", [None, ("t", "z", "y", "x")])
    def test_of_four_axes_the_first_is_time(self, labels: Any) -> None:
        source = source_of([Image(volume(3, 4, 5, 6), scale=(1, 2, 0.5, 0.5), axis_labels=labels)])
        assert (source.time_axis, source.channel_axis, source.shape) == (0, None, (3, 4, 5, 6))
        assert source.spacing == (2, 0.5, 0.5)
        assert len(source.scale) == 4

    def test_labels_tell_time_of_planes_and_channels(self) -> None:
        movie = source_of([Image(volume(3, 5, 6), axis_labels=("time", "y", "x"))])
        assert (movie.time_axis, movie.shape, movie.spacing) == (0, (3, 5, 6), (1, 1))
        channels = source_of([Image(volume(2, 4, 5, 6), axis_labels=("channel", "z", "y", "x"))])
        assert (channels.time_axis, channels.channel_axis, channels.shape) == (None, 0, (4, 5, 6))
        assert channels.axis_labels == ("z", "y", "x")
        assert len(channels.scale) == 3

    def test_spacing_is_in_one_unit(self) -> None:
        layer = Image(volume(4, 5, 6), scale=(2, 300, 300), translate=(1, 2, 3), units=("um", "nm", "nm"))
        source = source_of([layer])
        assert source.offset == (1000, 2, 3)
        assert source.spacing == pytest.approx((2000, 300, 300))
        assert source.scale == (2, 300, 300)

    def test_flipped_axis_keeps_its_sign_in_the_world_only(self) -> None:
        source = source_of([Image(volume(4, 5, 6), scale=(1, -2, 2))])
        assert (source.spacing, source.scale) == ((1, 2, 2), (1, -2, 2))

    def test_affine_that_only_scales_is_understood(self) -> None:
        affine = np.diag([2.0, 3.0, 4.0, 1.0])
        affine[:3, 3] = 5, 6, 7
        source = source_of([Image(volume(4, 5, 6), scale=(1, 0.5, 0.5), affine=affine)])
        assert source.scale == (2, 1.5, 2)
        assert source.translate == (5, 6, 7)

    @pytest.mark.parametrize("transform", [{"rotate": 30}, {"shear": [0.5, 0, 0]}])
    def test_rotated_and_sheared_layers_are_refused(self, transform: dict[str, Any]) -> None:
        with pytest.raises(InputError, match="rotated or sheared"):
            source_of([Image(volume(4, 5, 6), name="turned", **transform)])

    @pytest.mark.parametrize(
        ("shape", "labels", "remedy"),
        [((2, 2, 3, 4, 5), None, "Split Stack"), ((3, 2, 4, 5), ("z", "c", "y", "x"), "Split Stack")],
    )
    def test_other_axes_are_refused_with_a_remedy(self, shape: tuple[int, ...], labels: Any, remedy: str) -> None:
        with pytest.raises(InputError, match=remedy):
            source_of([Image(volume(*shape), axis_labels=labels)])

    def test_no_layer_is_refused(self) -> None:
        with pytest.raises(InputError, match="no image"):
            source_of([])


class TestSeveralLayers:
    def test_are_channels_in_their_order(self) -> None:
        layers = [Image(volume(4, 5, 6), name=f"cells [{n}]", scale=(2, 1, 1)) for n in range(3)]
        source = source_of(layers)
        assert (source.channel_axis, source.n_channels, source.shape) == (0, 3, (4, 5, 6))
        for channel, layer in enumerate(layers):
            np.testing.assert_array_equal(source.array[channel], layer.data)
        assert source.name == "cells"
        assert source.layer_names == ("cells [0]", "cells [1]", "cells [2]")

    def test_of_a_time_series(self) -> None:
        source = source_of([Image(volume(3, 4, 5, 6), name="a"), Image(volume(3, 4, 5, 6), name="b")])
        assert (source.channel_axis, source.time_axis, source.shape) == (0, 1, (3, 4, 5, 6))
        assert source.name == "a + b"

    @pytest.mark.parametrize(
        ("other", "reason"),
        [
            (Image(volume(4, 5, 7), name="b"), r"'b' has the shape \(4, 5, 7\)"),
            (Image(volume(5, 6), name="b"), "different axes"),
            (Image(volume(4, 5, 6), name="b", scale=(2, 1, 1)), "same scale"),
            (Image(volume(4, 5, 6), name="b", translate=(0, 0, 1)), "same scale"),
            (Image(volume(4, 5, 6, 3), name="b", rgb=True), "colour image"),
        ],
    )
    def test_that_do_not_fit_are_refused(self, other: Image, reason: str) -> None:
        with pytest.raises(InputError, match=reason):
            source_of([Image(volume(4, 5, 6), name="a"), other])


class TestWorkingScale:
    def test_voxels_lie_in_the_middle_of_what_they_are_the_mean_of(self) -> None:
        layer = Image(volume(4, 16, 16), scale=(2, 0.5, 0.5), translate=(10, 20, 30))
        source = source_of([layer], region=Box((1, 4, 8), (3, 12, 16)), step=(1, 4, 4))
        assert source.shape == (2, 2, 2)
        assert source.spacing == (2, 2, 2)
        np.testing.assert_allclose(source.array[0, 0, 0], layer.data[1, 4:8, 8:12].mean())
        np.testing.assert_allclose(world_of(source, (0, 0, 0)), layer.data_to_world((1, 5.5, 9.5)))
        np.testing.assert_allclose(world_of(source, (1, 1, 1)), layer.data_to_world((2, 9.5, 13.5)))

    def test_time_and_channels_stay(self) -> None:
        layers = [Image(volume(3, 4, 8, 8), name=name) for name in "ab"]
        source = source_of(layers, region=Box((0, 0, 0), (4, 4, 8)), step=(2, 2, 2))
        assert (source.array.shape, source.shape) == ((2, 3, 2, 2, 4), (3, 2, 2, 4))
        assert source.scale == (1, 2, 2, 2)
        assert source.translate == (0, 0.5, 0.5, 0.5)

    def test_planes_take_the_last_two_of_step_and_region(self) -> None:
        source = source_of([Image(volume(8, 8))], region=Box((0, 2, 0), (1, 8, 8)), step=(4, 2, 2))
        assert source.shape == (3, 4)
        assert source.translate == (2.5, 0.5)

    def test_level_of_a_multiscale_image(self) -> None:
        levels = [da.from_array(volume(4, 32, 32)), volume(4, 16, 16), volume(4, 8, 8)]
        layer = Image(levels, multiscale=True, scale=(3, 1, 1))
        assert (n_levels(layer), spatial_shape(layer, 2)) == (3, (4, 8, 8))
        source = source_of([layer], level=1)
        assert source.array is levels[1]
        assert (source.scale, source.translate, source.spacing) == ((3, 2, 2), (0, 0.5, 0.5), (3, 2, 2))

    def test_region_counts_voxels_at_full_resolution(self) -> None:
        levels = [volume(4, 32, 32), volume(4, 16, 16)]
        layer = Image(levels, multiscale=True)
        source = source_of([layer], level=1, region=Box((0, 9, 16), (4, 17, 32)))
        np.testing.assert_array_equal(source.array[:], levels[1][:, 4:9, 8:16])
        np.testing.assert_allclose(source.translate, (0, 8.5, 16.5))

    def test_level_that_is_not_there(self) -> None:
        with pytest.raises(InputError, match="level 1"):
            source_of([Image(volume(4, 8, 8))], level=1)

    def test_region_beyond_the_image(self) -> None:
        with pytest.raises(InputError, match="does not lie on the image"):
            source_of([Image(volume(4, 8, 8))], region=Box((9, 0, 0), (10, 8, 8)))

    @pytest.mark.parametrize(
        ("factor", "spacing", "step"),
        [
            (1, (1, 1, 1), (1, 1, 1)),
            (2, (1, 1, 1), (2, 2, 2)),
            (2, (2, 0.5, 0.5), (1, 2, 2)),
            (4, (1, 0.5, 0.5), (2, 4, 4)),
            (4, (1, 1), (1, 4, 4)),
        ],
    )
    def test_coarse_axes_are_averaged_less(self, factor: int, spacing: Any, step: Any) -> None:
        assert step_for(factor, spacing) == step

    @pytest.mark.parametrize(("edge", "factor"), [(100, 1), (800, 2), (1500, 4), (9000, 4)])
    def test_a_scale_is_suggested_that_can_be_predicted_in_minutes(self, edge: int, factor: int) -> None:
        assert suggested_factor((edge,) * 3, (1, 1, 1), lambda n: n / 1e6) == factor

    def test_voxels_that_are_left(self) -> None:
        assert n_voxels_at((5, 8, 8), (2, 2, 4)) == 3 * 4 * 2
        assert n_voxels_at((8, 8), (2, 2, 4)) == 4 * 2


class TestRegions:
    def test_of_rectangles_in_world_coordinates(self) -> None:
        layer = Image(volume(10, 40, 40), scale=(2, 0.5, 0.5), translate=(0, 10, 0))
        shapes = Shapes([np.array([[4, 12, 1], [4, 12, 4], [4, 15, 4], [4, 15, 1]])], name="region")
        assert region_of_shapes(shapes, layer) == Box((0, 4, 2), (10, 11, 9))

    def test_of_a_plane(self) -> None:
        layer = Image(volume(40, 40))
        shapes = Shapes([np.array([[-5, 3], [-5, 9], [9, 9], [9, 3]])])
        assert region_of_shapes(shapes, layer) == Box((0, 0, 3), (1, 10, 10))

    @pytest.mark.parametrize("corners", [[], [np.array([[0, 90, 90], [0, 95, 90], [0, 95, 95], [0, 90, 95]])]])
    def test_without_a_shape_on_the_image(self, corners: Any) -> None:
        shapes = Shapes(corners, ndim=3)
        with pytest.raises(InputError, match=r"no shape|do not lie"):
            region_of_shapes(shapes, Image(volume(4, 40, 40)))

    def test_on_screen_is_what_napari_says_it_shows(self) -> None:
        viewer = ViewerModel()
        layer = viewer.add_image(volume(6, 40, 40))
        layer.corner_pixels = np.array([[0, 5, 10], [0, 20, 39]])
        assert region_on_screen(viewer, layer) == Box((0, 5, 10), (6, 21, 40))
        viewer.dims.transpose()
        assert region_on_screen(viewer, layer) == Box((0, 5, 10), (6, 21, 40))

    def test_on_screen_of_a_sideways_view_of_a_time_series(self) -> None:
        viewer = ViewerModel()
        layer = viewer.add_image(volume(3, 6, 40, 50))
        viewer.dims.order = (0, 2, 1, 3)
        layer.corner_pixels = np.array([[0, 1, 0, 5], [0, 3, 0, 20]])
        assert region_on_screen(viewer, layer) == Box((1, 0, 5), (4, 40, 21))
