"""Annotations and labels whose files say less of their axes than the image does, or something else."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from command_line import SMALL, SPACING, call, make_volume, paint, write_tiff

from napari_sparseseg.cli._images import Image, open_labels, read_all
from napari_sparseseg.errors import InputError
from napari_sparseseg.storage.ome import write_image, write_labels


def save_as_napari(path, layer):
    """Write a Labels layer as napari does: without a word on its axes, and 3 or 4 slices as colours."""
    colours = {"photometric": "rgb", "planarconfig": "separate"} if layer.shape[:-2][-1:] in ((3,), (4,)) else {}
    if path.suffix == ".npy":
        np.save(path, layer)
    else:
        tifffile.imwrite(path, layer, compression="zlib", compressionargs={"level": 1}, **colours)
    return path


def numbered(shape):
    """Labels of which each voxel along the first axes has another value, so that order and place show."""
    return (np.indices(shape)[: len(shape) - 1].sum(0) % 5).astype(np.uint8)


class TestLayersSavedByNapari:
    @pytest.mark.parametrize("ending", [".tif", ".npy"])
    @pytest.mark.parametrize(
        ("shape", "axes"),
        [
            ((3, 24, 32), "ZYX"),
            ((4, 24, 32), "ZYX"),
            ((3, 24, 32), "TYX"),
            ((2, 6, 24, 32), "TZYX"),
            ((7, 9, 24, 32), "TZYX"),
            ((6, 3, 24, 32), "TZYX"),
            ((3, 4, 24, 32), "TZYX"),
        ],
    )
    def test_have_the_axes_of_their_image(self, tmp_path, shape, axes, ending):
        image = Image.open(write_tiff(tmp_path / "image.tif", np.zeros(shape, np.uint16), axes=axes))
        layer = save_as_napari(tmp_path / f"layer{ending}", numbered(shape))

        labels = open_labels(layer, image)

        assert labels.axes == axes
        np.testing.assert_array_equal(labels.array[...], numbered(shape))
        image.check_paint(labels)

    @pytest.mark.parametrize("has_classes", [False, True])
    def test_are_no_classes_that_overlap_where_they_fit_as_they_are(self, tmp_path, has_classes):
        image = Image.open(write_tiff(tmp_path / "image.tif", np.zeros((3, 24, 32), np.uint16)))
        layer = save_as_napari(tmp_path / "layer.tif", numbered((3, 24, 32)))
        assert open_labels(layer, image, has_classes=has_classes).axes == "ZYX"

    def test_train_a_model(self, invoke, tmp_path):
        voxels, truth = make_volume((3, 24, 32))
        image = write_tiff(tmp_path / "image.tif", voxels)
        layer = save_as_napari(tmp_path / "layer.tif", paint(truth))
        done = invoke("train", image, layer, "-o", tmp_path / "m", *SMALL)
        assert done.exit_code == 0, done.output

    def test_of_another_shape_are_said_to_be(self, tmp_path):
        image = write_tiff(tmp_path / "image.tif", np.zeros((3, 24, 32), np.uint16))
        layer = save_as_napari(tmp_path / "layer.tif", numbered((3, 24, 30)))
        done = call("train", image, layer, "-o", tmp_path / "m", *SMALL)
        assert f"{layer} has shape (3, 24, 30), but {image} has (3, 24, 32)" in done.stderr


class TestSinglePlanes:
    """OME-Zarr of bioformats2raw always has an axis along z; TIFF leaves one of a single plane out."""

    def open(self, folder, voxels, axes):
        np.save(folder / "image.npy", voxels)
        return Image.open(folder / "image.npy", axes=axes)

    def check(self, labels, image, wanted):
        image.check_paint(labels)
        assert labels.axes == image.file.axes
        for time in image.times:
            frame = wanted if labels.time_axis is None else wanted[time]
            np.testing.assert_array_equal(read_all(labels, time), frame)
            paint = image.paint(labels, time)
            assert paint.shape == image.file.spatial_shape
            np.testing.assert_array_equal(paint[..., 3:9, :], frame[..., 3:9, :])

    @pytest.mark.parametrize("ending", [".tif", ".npy"])
    @pytest.mark.parametrize(
        ("shape", "axes"), [((1, 24, 32), "ZYX"), ((3, 1, 24, 32), "TZYX"), ((9, 1, 24, 32), "TZYX")]
    )
    def test_labels_without_the_axis_get_it(self, tmp_path, shape, axes, ending):
        image = self.open(tmp_path, np.zeros(shape, np.uint16), axes)
        codes = numbered(shape)
        layer = save_as_napari(tmp_path / f"layer{ending}", np.squeeze(codes))
        self.check(open_labels(layer, image), image, codes)

    @pytest.mark.parametrize(("shape", "axes"), [((24, 32), "YX"), ((3, 24, 32), "TYX"), ((9, 24, 32), "TYX")])
    def test_labels_with_the_axis_lose_it(self, tmp_path, shape, axes):
        image = self.open(tmp_path, np.zeros(shape, np.uint16), axes)
        codes = numbered(shape)
        np.save(tmp_path / "layer.npy", codes[..., None, :, :])
        self.check(open_labels(tmp_path / "layer.npy", image), image, codes)

    @pytest.mark.parametrize(
        ("image_shape", "axes", "shape"),
        [((1, 24, 32), "ZYX", (2, 24, 32)), ((24, 32), "YX", (2, 1, 24, 32)), ((24, 32), "YX", (2, 24, 32))],
    )
    def test_classes_that_overlap_do_so_too(self, tmp_path, image_shape, axes, shape):
        image = self.open(tmp_path, np.zeros(image_shape, np.uint16), axes)
        states = numbered(shape) % 3
        np.save(tmp_path / "ink.npy", states)
        labels = open_labels(tmp_path / "ink.npy", image, has_classes=True)
        assert labels.axes == f"C{axes}"
        np.testing.assert_array_equal(image.paint(labels, 0)[...], states.reshape(2, *image_shape))

    def test_several_planes_stay_refused(self, tmp_path):
        image = self.open(tmp_path, np.zeros((24, 32), np.uint16), "YX")
        np.save(tmp_path / "layer.npy", numbered((6, 24, 32)))
        with pytest.raises(InputError, match=r"has shape \(6, 24, 32\), but .* has \(24, 32\)"):
            image.check_paint(open_labels(tmp_path / "layer.npy", image))

    def test_are_learnt_and_scored(self, invoke, tmp_path):
        voxels, truth = make_volume((1, 64, 64))
        write_image(tmp_path / "image.ome.zarr", voxels, spacing=SPACING)
        layer = save_as_napari(tmp_path / "truth.tif", truth[0])
        model, labels = tmp_path / "m", tmp_path / "labels.tif"
        trained = invoke("train", tmp_path / "image.ome.zarr", layer, "-o", model, "--level", "auto", *SMALL)
        assert trained.exit_code == 0, trained.output
        scored = invoke("evaluate", model, tmp_path / "image.ome.zarr", layer)
        assert scored.exit_code == 0, scored.output
        assert invoke("predict", model, tmp_path / "image.ome.zarr", "-o", labels).exit_code == 0
        write_labels(tmp_path / "truth.ome.zarr", truth)
        again = invoke("evaluate", labels, tmp_path / "truth.ome.zarr")
        assert [line.split()[:3] for line in again.stdout.splitlines()[1:3]] == [
            line.split()[:3] for line in scored.stdout.splitlines()[1:3]
        ]


def test_labels_have_the_axes_that_are_given(invoke, tmp_path):
    shape = (3, 4, 24, 32)
    np.save(tmp_path / "labels.npy", 1 + numbered(shape))
    np.save(tmp_path / "truth.npy", 1 + numbered(shape))
    done = invoke("evaluate", tmp_path / "labels.npy", tmp_path / "truth.npy", "--axes", "TZYX")
    assert done.exit_code == 0, done.output
    assert {line.split()[0] for line in done.stdout.splitlines()[1:-1]} == {"0", "1", "2"}


def test_channels_that_are_no_axis_of_the_image_stay_refused(tmp_path):
    image = Image.open(write_tiff(tmp_path / "image.tif", np.zeros((6, 24, 32), np.uint16)))
    two = write_tiff(tmp_path / "two.tif", np.ones((6, 2, 24, 32), np.uint8), axes="ZCYX")
    with pytest.raises(InputError, match="has 2 channels, but painted labels need one value"):
        open_labels(two, image)
