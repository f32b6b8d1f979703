"""What images leave open, such as how large their voxels are, is said by every command that goes on without it."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from command_line import SMALL, SPACING, write_tiff

ALIKE = "voxels of 2 x 0.5 x 0.25 that the model learnt from"


@pytest.fixture
def unsized(files, tmp_path):
    """The image without its voxel size."""
    return write_tiff(tmp_path / "unsized.tif", tifffile.imread(files.image), spacing=None)


def arguments_of(command, files, image, tmp_path):
    """A command that needs a model and an image."""
    end = [files.truth] if command == "evaluate" else ["-o", tmp_path / f"{command}.tif", "--overwrite"]
    return [command, files.model, image, *end]


class TestUnknownVoxels:
    @pytest.mark.parametrize("command", ["objects", "predict", "evaluate"])
    def test_are_said_with_those_of_the_model(self, invoke, files, unsized, tmp_path, command):
        done = invoke(*arguments_of(command, files, unsized, tmp_path))
        assert done.exit_code == 0, done.output
        assert f"{unsized} does not say how large its voxels are" in done.stderr
        assert ALIKE in done.stderr
        assert "--spacing, which is 2,0.5,0.25" in done.stderr
        done = invoke(*arguments_of(command, files, unsized, tmp_path), "--spacing", "2,0.5,0.25")
        assert (done.exit_code, done.stderr) == (0, "")

    def test_of_many_images_are_said_once(self, invoke, files, unsized, tmp_path):
        images = tmp_path / "images"
        images.mkdir()
        for name in "abc":
            (images / f"{name}.tif").write_bytes(unsized.read_bytes())
        done = invoke("predict", files.model, images, "-o", tmp_path / "results", "--suffix", ".tif")
        assert done.exit_code == 0, done.output
        assert done.stderr.count("does not say how large its voxels are") == 1
        assert "further images" in done.stderr

    def test_are_what_objects_are_measured_in(self, invoke, files, unsized, tmp_path):
        done = invoke(*arguments_of("objects", files, unsized, tmp_path), "--set", "objects.smallest=1")
        assert "lengths in voxels" in done.stdout


class TestVoxelsKnownInPart:
    """Files such as an OME-TIFF may say how large voxels are along y and x, but not along z."""

    @pytest.fixture
    def flat(self, files, tmp_path):
        sizes = {"PhysicalSizeX": 200, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.3, "PhysicalSizeYUnit": "µm"}
        path = tmp_path / "flat.ome.tif"
        tifffile.imwrite(path, tifffile.imread(files.image), ome=True, metadata={"axes": "ZYX", **sizes})
        return path

    def test_info_shows_them(self, invoke, flat):
        shown = invoke("info", flat).stdout
        assert "not say it along z, only 300 x 200 nm (y, x); give --spacing Z,0.3,0.2 to train" in shown

    def test_the_warnings_say_what_is_left_to_give(self, invoke, files, flat, tmp_path):
        said = f"{flat} says how large its voxels are along y, x (300 x 200 nm), but not along z"
        trained = invoke("train", flat, files.annotation, "-o", tmp_path / "m.safetensors", *SMALL)
        predicted = invoke(*arguments_of("predict", files, flat, tmp_path))
        for done in (trained, predicted):
            assert done.exit_code == 0, done.output
            assert said in done.stderr
            assert "give --spacing Z,0.3,0.2" in done.stderr


class TestSeveralImages:
    """A file may hold several images, of which the first is used."""

    @pytest.fixture
    def several(self, files, tmp_path):
        """A file whose second image is that of the model."""
        path, image = tmp_path / "several.ome.tif", tifffile.imread(files.image)
        sizes = {f"PhysicalSize{letter}": size for letter, size in zip("ZYX", SPACING, strict=True)}
        with tifffile.TiffWriter(path, ome=True) as file:
            for each in (image[:, ::-1], image):
                file.write(each, metadata={"axes": "ZYX", **sizes})
        return path

    @pytest.mark.parametrize("command", ["objects", "predict", "evaluate"])
    def test_are_said_unless_one_is_chosen(self, invoke, files, several, tmp_path, command):
        arguments = arguments_of(command, files, several, tmp_path)
        done = invoke(*arguments)
        assert done.exit_code == 0, done.output
        assert f"{several} holds 2 images, of which the first is used; choose one with --series" in done.stderr
        chosen = invoke(*arguments, "--series", 1)
        assert (chosen.exit_code, chosen.stderr) == (0, "")

    def test_the_chosen_one_is_learnt_and_segmented(self, invoke, files, several, tmp_path):
        trained = invoke("train", several, files.annotation, "-o", tmp_path / "m.safetensors", *SMALL)
        assert f"{several} holds 2 images" in trained.stderr
        options = [*SMALL, "--series", 1, "--level", "auto", "--overwrite"]
        trained = invoke("train", several, files.annotation, "-o", tmp_path / "m.safetensors", *options)
        assert (trained.exit_code, trained.stderr) == (0, "")
        invoke(*arguments_of("predict", files, several, tmp_path), "--series", 1, "--level", "auto")
        of_chosen = tifffile.imread(tmp_path / "predict.tif")
        invoke(*arguments_of("predict", files, files.image, tmp_path))
        np.testing.assert_array_equal(of_chosen, tifffile.imread(tmp_path / "predict.tif"))

    def test_info_shows_the_chosen_one(self, invoke, several):
        assert "of which the first is used; --series takes another" in invoke("info", several).stdout
        assert "this is 1, counted from 0" in invoke("info", several, "--series", 1).stdout

    def test_one_that_is_not_there_is_told(self, invoke, files, several, tmp_path):
        done = invoke(*arguments_of("predict", files, several, tmp_path), "--series", 2)
        assert done.exit_code == 1
        assert "there is no series 2" in done.stderr

    def test_labels_are_taken_as_they_are(self, invoke, files):
        done = invoke("evaluate", files.truth, files.truth, "--series", 0)
        assert done.exit_code == 2
        assert "with a model" in done.stderr
