"""Annotations and labels whose files say less of their axes than the image does, or something else."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from command_line import SMALL, call, make_volume, paint, write_tiff

from napari_sparseseg.cli._images import Image, open_labels
from napari_sparseseg.errors import InputError


def save_as_napari(path, layer):
    """Write a Labels layer as napari does: without a word on its axes, and 3 or 4 slices as colours."""
    colours = {"photometric": "rgb", "planarconfig": "separate"} if layer.shape[-3] in (3, 4) else {}
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
