"""From painted files to labels and scores, with the installed command."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import tifffile
import zarr
from command_line import SMALL, SPACING, call, make_volume, one_thread, paint, run, write_tiff
from ome_zarr_models.v05.image import Image
from ome_zarr_models.v05.image_label import ImageLabel

from napari_sparseseg.engine.budget import Budget
from napari_sparseseg.segmenter import SparseSegmenter
from napari_sparseseg.storage.project.project import Project


def table(text):
    """The first words of each line, with the rest of it."""
    return dict(line.split(None, 1) for line in text.splitlines() if line.strip())


def read_csv(path):
    return list(csv.DictReader(path.read_text().splitlines()))


class TestTrain:
    def test_numbered_objects_are_not_taken_for_classes_in_silence(self, invoke, files, tmp_path):
        objects = np.zeros((6, 24, 32), np.uint8)
        objects[3] = np.arange(24 * 32).reshape(24, 32) // 30 + 1
        write_tiff(tmp_path / "objects.tif", objects)
        out = tmp_path / "model.safetensors"
        done = invoke("train", files.image, tmp_path / "objects.tif", "-o", out, *SMALL)
        assert done.exit_code == 0, done.output
        assert "26 classes were learnt" in done.stderr

    def test_the_model_knows_classes_steps_and_voxel_size(self, files):
        model = SparseSegmenter.load(files.model)
        assert model.classes_.tolist() == [1, 2]
        assert model.n_steps_ == 3
        assert model.spacing == pytest.approx(SPACING)

    def test_the_report_names_what_counts_and_that_the_estimate_flatters(self, invoke, files, tmp_path):
        result = invoke("train", files.image, files.annotation, "-o", tmp_path / "m", *SMALL)
        assert result.exit_code == 0
        rows = table(result.stdout)
        assert rows["Classes"] == "1, 2"
        assert rows["Voxel"] == "size  2 x 0.5 x 0.25 µm"
        assert rows["Steps"] == "3"
        assert rows["Model"] == str(tmp_path / "m")
        assert "flatters" in rows["Dice"]
        assert result.stderr == ""

    def test_the_pixel_classifier_alone_has_an_estimate_too(self, invoke, files, tmp_path):
        result = invoke("train", files.image, files.annotation, "-o", tmp_path / "m", *SMALL, "--steps", 0)
        assert (result.exit_code, result.stderr) == (0, "")
        assert "flatters" in table(result.stdout)["Dice"]

    def test_without_an_estimate_it_says_that_the_time_ended(self, invoke, files, tmp_path, monkeypatch):
        monkeypatch.setattr(Budget, "is_over", lambda *_: True)
        result = invoke("train", files.image, files.annotation, "-o", tmp_path / "m", *SMALL)
        assert table(result.stdout)["Dice"] == "not estimated: the time ended before"

    def test_a_label_may_stand_for_several_classes(self, invoke, files, tmp_path):
        codes = tifffile.imread(files.annotation).copy()
        codes[codes > 0] = np.where(np.arange((codes > 0).sum()) % 3 == 0, 130, codes[codes > 0])
        codes[3, :2, :8] = 3
        write_tiff(tmp_path / "sets.tif", codes)
        out = tmp_path / "model.safetensors"
        done = invoke("train", files.image, tmp_path / "sets.tif", "-o", out, "--allowed", "130=1,2", *SMALL)
        assert done.exit_code == 0, done.output
        assert SparseSegmenter.load(out).classes_.tolist() == [1, 2, 3]

    def test_the_same_seed_gives_the_same_model(self, invoke, files, tmp_path):
        for name in ("a", "b"):
            assert invoke("train", files.image, files.annotation, "-o", tmp_path / name, *SMALL).exit_code == 0
        a, b = (SparseSegmenter.load(tmp_path / name).predict_proba(tifffile.imread(files.image)) for name in "ab")
        np.testing.assert_array_equal(a, b)

    def test_several_pairs(self, invoke, files, tmp_path):
        image, truth = make_volume((4, 24, 30), seed=5)
        truth[truth == 2] = 3
        other, ink = write_tiff(tmp_path / "i.tif", image), write_tiff(tmp_path / "p.tif", paint(truth))
        result = invoke("train", files.image, files.annotation, other, ink, "-o", tmp_path / "m", *SMALL)
        assert result.exit_code == 0, result.output
        assert table(result.stdout)["Classes"] == "1, 2, 3"

    def test_a_model_of_other_classes_is_a_start(self, invoke, files, tmp_path):
        ink = write_tiff(tmp_path / "p.tif", (tifffile.imread(files.annotation) * 4).astype(np.uint8))
        model, options = tmp_path / "m", ["--steps", 2, "--seed", 0, "--set", "training.patch_voxels=2048"]
        options += ["--set", "training.warm_start_steps=20"]
        result = invoke("train", files.image, ink, "-o", model, "--start", files.model, *options)
        assert result.exit_code == 0, result.output
        found = SparseSegmenter.load(model)
        assert (found.classes_.tolist(), found.n_steps_, found.model.width) == ([4, 8], 2, 4)

    def test_a_model_is_continued_with_a_new_class(self, invoke, files, tmp_path):
        annotation = tifffile.imread(files.annotation)
        annotation[0, :6, :6] = 9
        ink = write_tiff(tmp_path / "p.tif", annotation)
        model = tmp_path / "m"
        options = ["--steps", 2, "--set", "training.learning_rate=1e-3", "--set", "training.flips=False"]
        result = invoke("train", files.image, ink, "-o", model, "--continue", files.model, *options)
        assert result.exit_code == 0, result.output
        found = SparseSegmenter.load(model)
        assert (found.classes_.tolist(), found.n_steps_) == ([1, 2, 9], 5)
        assert found.spacing == pytest.approx(SPACING)
        assert (found.training.learning_rate, found.training.flips, found.training.patch_voxels) == (1e-3, False, 2048)
        assert found.model.scales == (1.0, 2.0, 4.0)

    def test_unknown_voxel_size_is_taken_for_cubes_and_said(self, invoke, files, tmp_path):
        image = write_tiff(tmp_path / "i.tif", tifffile.imread(files.image), spacing=None)
        result = invoke("train", image, files.annotation, "-o", tmp_path / "m", *SMALL)
        assert result.exit_code == 0
        assert "taken for cubes" in result.stderr
        assert "not given: cubes" in invoke("info", tmp_path / "m").stdout
        result = invoke("train", image, files.annotation, "-o", tmp_path / "n", *SMALL, "--spacing", "3,1,1")
        assert result.stderr == ""
        assert SparseSegmenter.load(tmp_path / "n").spacing == [3, 1, 1]

    def test_another_voxel_size_of_another_image_is_said(self, invoke, files, tmp_path):
        image = write_tiff(tmp_path / "i.tif", tifffile.imread(files.image), spacing=(2, 1, 1))
        pairs = [files.image, files.annotation, image, files.annotation]
        result = invoke("train", *pairs, "-o", tmp_path / "m", *SMALL)
        assert "2 x 1 x 1 µm instead of 2 x 0.5 x 0.25 µm" in result.stderr

    def test_background_is_left_out_of_the_estimate(self, invoke, files, tmp_path):
        assert (
            invoke("train", files.image, files.annotation, "-o", tmp_path / "m", *SMALL, "--background", 2).exit_code
            == 0
        )
        assert "1, 2 (background)" in invoke("info", tmp_path / "m").stdout

    def test_channels_may_stand_anywhere(self, invoke, files, tmp_path):
        image, _ = make_volume()
        noise = np.random.default_rng(3).integers(0, 9, image.shape).astype(image.dtype)
        np.save(tmp_path / "czyx.npy", np.stack([image, noise]))
        write_tiff(tmp_path / "zcyx.tif", np.stack([image, noise], 1), axes="ZCYX")
        np.save(tmp_path / "zyxc.npy", np.stack([image, noise], -1))
        trained = ["-o", tmp_path / "m", *SMALL, "--spacing", "2,0.5,0.25", "--axes"]
        assert invoke("train", tmp_path / "czyx.npy", files.annotation, *trained, "CZYX").exit_code == 0
        found = []
        for name, axes in (("czyx.npy", "CZYX"), ("zcyx.tif", "ZCYX"), ("zyxc.npy", "ZYXC")):
            out = tmp_path / f"{name}.out.npy"
            result = invoke("predict", tmp_path / "m", tmp_path / name, "-o", out, "--axes", axes)
            assert result.exit_code == 0, result.output
            found.append(np.load(out))
        np.testing.assert_array_equal(found[0], found[1])
        np.testing.assert_array_equal(found[0], found[2])


class TestPredict:
    def test_labels_and_probabilities_belong_together(self, files, tmp_path):
        labels, likely = tmp_path / "l.ome.zarr", tmp_path / "p.ome.zarr"
        done = run("predict", files.model, files.image, "-o", labels, "--probabilities", likely)
        assert (done.returncode, done.stderr) == (0, "")
        assert table(done.stdout)["Labels"] == str(labels)
        image = ImageLabel.from_zarr(zarr.open_group(labels, mode="r"))
        scale = image.ome_attributes.multiscales[0].datasets[0].coordinateTransformations[0]
        assert scale.scale == pytest.approx(SPACING)
        probabilities = Image.from_zarr(zarr.open_group(likely, mode="r"))
        assert [axis.name for axis in probabilities.ome_attributes.multiscales[0].axes] == ["c", "z", "y", "x"]
        values = zarr.open_array(likely / "0", mode="r")[:]
        assert values.dtype == np.uint8
        found = zarr.open_array(labels / "0", mode="r")[:]
        np.testing.assert_array_equal(values.sum(0) // 10, 25)  # 254 to 256
        sure = np.abs(values[0].astype(int) - values[1]) > 1
        np.testing.assert_array_equal(found[sure], 1 + (values[1] > values[0])[sure])

    def test_a_suffix_means_a_folder_for_a_single_image_too(self, invoke, files, tmp_path):
        done = invoke("predict", files.model, files.image, "-o", tmp_path / "out", "--suffix", "_labels.tif")
        assert done.exit_code == 0, done.output
        assert [path.name for path in (tmp_path / "out").iterdir()] == [f"{files.image.name.split('.')[0]}_labels.tif"]

    def test_probabilities_as_they_are(self, invoke, files, tmp_path):
        out, likely = tmp_path / "l.npy", tmp_path / "p.npy"
        assert invoke("predict", files.model, files.image, "-o", out, "--probabilities", likely).exit_code == 0
        values = np.load(likely)
        assert (values.dtype, values.shape) == (np.float32, (2, 6, 24, 32))
        np.testing.assert_array_equal(np.load(out), 1 + values.argmax(0))

    def test_small_tiles_give_the_same_labels(self, invoke, files, tmp_path):
        assert invoke("predict", files.model, files.image, "-o", tmp_path / "a.npy").exit_code == 0
        options = ["--tile-voxels", 4096]
        assert invoke("predict", files.model, files.image, "-o", tmp_path / "b.npy", *options).exit_code == 0
        assert (np.load(tmp_path / "a.npy") == np.load(tmp_path / "b.npy")).mean() > 0.999

    def test_overwrite_replaces(self, invoke, files, tmp_path):
        for options in ([], ["--overwrite"]):
            assert invoke("predict", files.model, files.image, "-o", tmp_path / "a.tif", *options).exit_code == 0
        assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]

    def test_one_image_into_a_folder_that_exists(self, invoke, files, tmp_path):
        assert invoke("predict", files.model, files.image, "-o", tmp_path, "--suffix", "-seg.npy").exit_code == 0
        assert [p.name for p in tmp_path.iterdir()] == ["image-seg.npy"]

    def test_several_images_go_on_after_one_that_fails(self, invoke, files, tmp_path):
        broken = tmp_path / "broken.tif"
        broken.write_bytes(files.image.read_bytes()[:500])
        out = tmp_path / "out"
        images = [broken, tmp_path / "none.tif", files.image]
        done = invoke("predict", files.model, *images, "-o", out, "--suffix", ".seg.tif")
        assert done.exit_code == 1
        assert [p.name for p in out.iterdir()] == ["image.seg.tif"]
        assert done.stdout.startswith(str(out / "image.seg.tif"))
        errors = done.stderr.splitlines()
        assert len(errors) == 3
        assert "broken.tif" in errors[0]
        assert "none.tif" in errors[1]
        assert errors[2].startswith("1 image segmented, 2 failed: ")

    def test_another_voxel_size_than_the_model_s_is_said(self, invoke, files, tmp_path):
        options = ["-o", tmp_path / "l.tif", "--spacing", "2,0.5,0.5"]
        result = invoke("predict", files.model, files.image, *options)
        assert result.exit_code == 0
        assert "2 x 0.5 x 0.5 µm instead of 2 x 0.5 x 0.25 µm when the model learnt" in result.stderr
        close = ["-o", tmp_path / "m.tif", "--spacing", "2.1,0.5,0.26"]
        assert invoke("predict", files.model, files.image, *close).stderr == ""
        scored = invoke("evaluate", files.model, files.image, files.truth, "--spacing", "2,0.5,0.5")
        assert "when the model learnt" in scored.stderr
        coarse = write_tiff(tmp_path / "coarse.tif", tifffile.imread(files.image), spacing=(2, 1, 1))
        more = ["-o", tmp_path / "m", "--continue", files.model, "--steps", 0]
        assert "when the model learnt" in invoke("train", coarse, files.annotation, *more).stderr

    def test_other_channels_than_the_model_s(self, invoke, files, tmp_path):
        np.save(tmp_path / "two.npy", np.zeros((2, 6, 24, 32), np.uint8))
        result = invoke("predict", files.model, tmp_path / "two.npy", "--axes", "CZYX", "-o", tmp_path / "l.npy")
        assert result.exit_code == 1
        assert "has 2 channels" in result.stderr


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """Three time points of which the first and the last are painted, and a model of them."""
    folder = tmp_path_factory.mktemp("series")
    frames = [make_volume(seed=seed) for seed in range(3)]
    write_tiff(folder / "image.tif", np.stack([image for image, _ in frames]), axes="TZYX")
    ink = [paint(truth) if t != 1 else np.zeros_like(truth) for t, (_, truth) in enumerate(frames)]
    write_tiff(folder / "ink.tif", np.stack(ink), axes="TZYX")
    write_tiff(folder / "truth.tif", np.stack([truth for _, truth in frames]), axes="TZYX")
    with one_thread():
        done = call("train", folder / "image.tif", folder / "ink.tif", "-o", folder / "model", *SMALL)
    assert (done.exit_code, done.stderr) == (0, "")
    return folder


class TestTimeSeries:
    def test_painted_time_points_train_as_volumes_of_their_own(self, series):
        fitted = SparseSegmenter.load(series / "model")._fitted
        assert len(fitted.intensity) == 2

    @pytest.mark.parametrize("name", ["l.ome.tif", "l.ome.zarr", "l.npy"])
    def test_each_time_point_is_predicted(self, invoke, series, tmp_path, name):
        result = invoke("predict", series / "model", series / "image.tif", "-o", tmp_path / name)
        assert result.exit_code == 0, result.output
        if name.endswith("tif"):
            with tifffile.TiffFile(tmp_path / name) as tiff:
                labels, axes = tiff.asarray(), tiff.series[0].axes
                assert 'PhysicalSizeZ="2.0"' in tiff.ome_metadata
                assert 'PhysicalSizeX="0.25"' in tiff.ome_metadata
            assert axes == "TZYX"
        elif name.endswith("zarr"):
            scale = ImageLabel.from_zarr(zarr.open_group(tmp_path / name, mode="r")).ome_attributes.multiscales[0]
            assert [axis.name for axis in scale.axes] == ["t", "z", "y", "x"]
            assert scale.datasets[0].coordinateTransformations[0].scale == pytest.approx([1, *SPACING])
            labels = zarr.open_array(tmp_path / name / "0", mode="r")[:]
        else:
            labels = np.load(tmp_path / name)
        model, images = SparseSegmenter.load(series / "model"), tifffile.imread(series / "image.tif")
        np.testing.assert_array_equal(labels, [model.predict(image) for image in images])

    def test_what_was_written_can_be_evaluated(self, invoke, series, tmp_path):
        out = tmp_path / "l.ome.tif"
        assert invoke("predict", series / "model", series / "image.tif", "-o", out).exit_code == 0
        result = invoke("evaluate", out, series / "truth.tif", "--csv", tmp_path / "s.csv")
        assert result.exit_code == 0, result.output
        rows = read_csv(tmp_path / "s.csv")
        assert [(row["time"], row["class_id"]) for row in rows] == [(t, c) for t in "012" for c in "12"]
        again = invoke("evaluate", series / "model", series / "image.tif", series / "truth.tif")
        assert again.stdout == result.stdout

    def test_probabilities_have_a_time_axis_too(self, invoke, series, tmp_path):
        base = ["predict", series / "model", series / "image.tif", "-o", tmp_path / "l.npy", "--probabilities"]
        result = invoke(*base, tmp_path / "p.ome.zarr")
        assert result.exit_code == 1
        assert "choose" in result.stderr
        assert not list(tmp_path.iterdir())
        assert invoke(*base, tmp_path / "p.npy").exit_code == 0
        assert np.load(tmp_path / "p.npy").shape == (3, 2, 6, 24, 32)

    @pytest.mark.parametrize("name", ["l.nii.gz", "l.nrrd"])
    def test_formats_without_time_are_refused_before_the_work(self, invoke, series, tmp_path, monkeypatch, name):
        monkeypatch.setattr(SparseSegmenter, "predict", None)
        result = invoke("predict", series / "model", series / "image.tif", "-o", tmp_path / name)
        assert result.exit_code == 1
        assert "cannot hold the time points of a series; end the name with .ome.zarr" in result.stderr

    def test_an_annotation_without_time_is_refused(self, invoke, series, files, tmp_path):
        result = invoke("train", series / "image.tif", files.annotation, "-o", tmp_path / "m")
        assert result.exit_code == 1
        assert "is a time series" in result.stderr

    def test_an_unpainted_series_is_refused(self, invoke, series, tmp_path):
        empty = write_tiff(tmp_path / "empty.tif", np.zeros((3, 6, 24, 32), np.uint8), axes="TZYX")
        result = invoke("train", series / "image.tif", empty, "-o", tmp_path / "m")
        assert result.exit_code == 1
        assert "no time point" in result.stderr


class TestEvaluate:
    def test_a_model_and_its_labels_score_the_same(self, files, invoke, tmp_path):
        done = run("evaluate", files.model, files.image, files.truth, "--csv", tmp_path / "s.csv")
        assert (done.returncode, done.stderr) == (0, "")
        assert invoke("predict", files.model, files.image, "-o", tmp_path / "l.tif").exit_code == 0
        assert invoke("evaluate", tmp_path / "l.tif", files.truth).stdout == done.stdout
        header, first, second, mean = done.stdout.splitlines()
        assert header.split() == [
            "Class",
            "Dice",
            "IoU",
            "Distance",
            "(µm)",
            "95",
            "%",
            "(µm)",
            "Voxels",
            "of",
            "truth",
        ]
        assert [first.split()[0], second.split()[0]] == ["1", "2"]
        assert mean.split()[:3] == ["Mean", "without", "1"]
        assert float(second.split()[1]) > 0.7

    def test_the_file_has_the_same_figures(self, invoke, files, tmp_path):
        labels = tifffile.imread(files.truth)
        labels[:, :, 0] = 3 - labels[:, :, 0]
        out = write_tiff(tmp_path / "l.tif", labels)
        assert invoke("evaluate", out, files.truth, "--csv", tmp_path / "s.csv").exit_code == 0
        truth = tifffile.imread(files.truth)
        for row in read_csv(tmp_path / "s.csv"):
            a, b = labels == int(row["class_id"]), truth == int(row["class_id"])
            assert float(row["dice"]) == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()), rel=1e-5)
            assert float(row["iou"]) == pytest.approx((a & b).sum() / (a | b).sum(), rel=1e-5)
            assert float(row["surface_distance"]) > 0
            assert (row["unit"], int(row["truth_voxels"]), int(row["labels_voxels"])) == ("µm", b.sum(), a.sum())

    def test_only_where_the_truth_is_known(self, invoke, files, tmp_path):
        truth = tifffile.imread(files.truth)
        labels = 3 - truth
        labels[2] = truth[2]
        truth[[0, 1, 3, 4, 5]] = 0
        a, b = write_tiff(tmp_path / "a.tif", labels), write_tiff(tmp_path / "b.tif", truth)
        lines = invoke("evaluate", a, b).stdout.splitlines()
        assert [line.split()[-5:-1] for line in lines[1:3]] == [["1.000", "1.000", "0.000", "0.000"]] * 2

    def test_a_class_that_is_missing_has_no_distance(self, invoke, files, tmp_path):
        labels = write_tiff(tmp_path / "a.tif", np.ones((6, 24, 32), np.uint8))
        lines = invoke("evaluate", labels, files.truth, "--background", 2).stdout.splitlines()
        assert lines[2].split()[:5] == ["2", "0.000", "0.000", "-", "-"]
        assert lines[3].startswith("Mean without 2")

    @pytest.mark.parametrize("has_model", [True, False])
    def test_a_background_that_no_class_is_is_refused(self, invoke, files, tmp_path, has_model):
        scored = [files.model, files.image] if has_model else [files.truth]
        result = invoke("evaluate", *scored, files.truth, "--background", 7, "--csv", tmp_path / "s.csv")
        assert (result.exit_code, result.stdout) == (1, "")
        assert "background 7 is not among the classes 1, 2" in result.stderr
        assert not list(tmp_path.iterdir())

    def test_the_mean_is_of_the_objects_where_they_alone_have_a_truth(self, invoke, files, tmp_path):
        labels = SparseSegmenter.load(files.model).predict(tifffile.imread(files.image))
        known = write_tiff(tmp_path / "t.tif", np.where(labels == 2, 2, 0).astype(np.uint8))
        lines = invoke("evaluate", files.model, files.image, known).stdout.splitlines()
        assert [line.split()[:5] for line in lines[1:]] == [
            ["2", "1.000", "1.000", *lines[1].split()[3:5]],
            ["Mean", "without", "1", "1.000", "1.000"],
        ]

    def test_a_truth_without_a_class_of_the_model_is_refused_before_anything_is_predicted(
        self, invoke, files, tmp_path, monkeypatch
    ):
        with monkeypatch.context() as patched:
            patched.setattr(SparseSegmenter, "predict", None)
            other = write_tiff(tmp_path / "t.tif", np.full((6, 24, 32), 5, np.uint8))
            result = invoke("evaluate", files.model, files.image, other)
        assert (result.exit_code, result.stdout) == (1, "")
        assert f"{other} holds the class 5, but the model has learnt 1, 2" in result.stderr
        also = write_tiff(tmp_path / "u.tif", np.where(tifffile.imread(files.truth) == 2, 2, 5).astype(np.uint8))
        assert invoke("evaluate", files.model, files.image, also).exit_code == 0

    def test_a_class_of_the_model_in_one_time_point_is_enough(self, invoke, series, tmp_path):
        truth = tifffile.imread(series / "truth.tif")
        truth[0] = np.where(truth[0], 5, 0)
        write_tiff(tmp_path / "t.tif", truth, axes="TZYX")
        scored = ["evaluate", series / "model", series / "image.tif", tmp_path / "t.tif"]
        assert invoke(*scored).exit_code == 0
        write_tiff(tmp_path / "t.tif", np.where(truth, 5, 0).astype(np.uint8), axes="TZYX")
        assert "the model has learnt 1, 2" in invoke(*scored).stderr

    def test_shapes_that_differ_and_truth_that_is_empty(self, invoke, files, tmp_path):
        other = write_tiff(tmp_path / "a.tif", np.ones((6, 24, 30), np.uint8))
        assert "both must be alike" in invoke("evaluate", other, files.truth).stderr
        empty = write_tiff(tmp_path / "b.tif", np.zeros((6, 24, 32), np.uint8))
        result = invoke("evaluate", files.truth, empty)
        assert (result.exit_code, result.stdout) == (1, "")
        assert "0 everywhere" in result.stderr


class TestInfo:
    def test_of_a_model(self, files):
        done = run("info", files.model)
        assert (done.returncode, done.stderr) == (0, "")
        rows = table(done.stdout)
        assert rows["Classes"] == "1 (background), 2"
        assert rows["Voxel"] == "size  2 x 0.5 x 0.25 (z, y, x)"
        assert rows["Learning"].startswith("3 steps")
        assert "model.width=4" in rows["Settings"]
        assert "training.patch_voxels=2048" in rows["Settings"]
        assert "learning_rate" not in rows["Settings"]

    def test_a_model_needs_no_ending(self, invoke, files, tmp_path):
        (tmp_path / "m").write_bytes(files.model.read_bytes())
        assert "checksum right" in invoke("info", tmp_path / "m").stdout

    def test_of_a_project_its_newest_model_is_described(self, invoke, files, tmp_path):
        path = tmp_path / "cells.sparseseg"
        with Project.create(path) as project:
            project.add_checkpoint(files.model.read_bytes(), step=3)
            project.add_checkpoint(b"torn", step=4)
        done = invoke("info", path)
        assert done.exit_code == 0, done.output
        of_file, of_project = table(invoke("info", files.model).stdout), table(done.stdout)
        assert of_project.pop("Model").startswith(str(path))
        del of_file["Model"]
        assert of_project == of_file
        assert SparseSegmenter.load(path).n_steps_ == 3

    def test_of_a_project_without_a_model_it_is_said(self, invoke, tmp_path):
        Project.create(tmp_path / "cells.sparseseg").close()
        done = invoke("info", tmp_path / "cells.sparseseg")
        assert done.exit_code == 1
        assert "there is no model in" in done.stderr

    def test_a_model_of_a_newer_version(self, invoke, files, tmp_path):
        content = files.model.read_bytes()
        end = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(content[8:end])
        description = json.loads(header["__metadata__"]["header"]) | {"version": 99}
        header["__metadata__"]["header"] = json.dumps(description)
        raw = json.dumps(header, separators=(",", ":")).encode()
        (tmp_path / "m.safetensors").write_bytes(len(raw).to_bytes(8, "little") + raw + content[end:])
        newer, out = tmp_path / "m.safetensors", tmp_path / "l.tif"
        for arguments in (["info", newer], ["predict", newer, files.image, "-o", out]):
            result = invoke(*arguments)
            assert (result.exit_code, result.stdout) == (1, "")
            assert "update napari-sparseseg" in result.stderr

    def test_of_an_image(self, invoke, files):
        rows = table(invoke("info", files.image).stdout)
        assert rows["Axes"] == "Z 6, Y 24, X 32"
        assert rows["Voxel"] == "size  2 x 0.5 x 0.25 µm (z, y, x)"
        assert rows["Voxels"].startswith("uint16, 9.22 kB")

    def test_of_an_image_that_begins_like_a_model(self, invoke, tmp_path):
        voxels = np.full((8, 9), ord("{"), np.uint8)
        tifffile.imwrite(tmp_path / "a.tif", voxels)
        content = bytearray((tmp_path / "a.tif").read_bytes())
        # voxels in front and the directory behind, as libtiff writes it
        moved = len(content)
        content += content[8 : 8 + 2 + 12 * int.from_bytes(content[8:10], "little") + 4]
        content[4:8] = moved.to_bytes(4, "little")
        content[8:80] = voxels.tobytes()
        (tmp_path / "a.tif").write_bytes(content)
        assert table(invoke("info", tmp_path / "a.tif").stdout)["Axes"] == "Y 8, X 9"

    def test_of_an_image_that_says_little(self, invoke, tmp_path):
        np.save(tmp_path / "a.npy", np.zeros((3, 8, 9), np.float32))
        rows = table(invoke("info", tmp_path / "a.npy").stdout)
        assert rows["Axes"] == "Z 3, Y 8, X 9"
        assert "does not say" in rows["Voxel"]
        assert table(invoke("info", tmp_path / "a.npy", "--axes", "TYX").stdout)["Axes"] == "T 3, Y 8, X 9"


def test_devices_says_what_is_used_and_why():
    done = run("devices")
    assert (done.returncode, done.stderr) == (0, "")
    assert "cpu " in done.stdout
    assert "In use" in done.stdout
    assert ("Did you expect a GPU?" in done.stdout) == ("In use  cpu" in done.stdout)
