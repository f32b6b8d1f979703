"""`predict` at a level of resolution, of folders into a table, and of images on servers."""

from __future__ import annotations

import csv
import shutil

import numpy as np
import pytest
import tifffile
from command_line import SPACING, make_volume, paint, write_tiff
from scipy import ndimage

from napari_sparseseg.cli._images import Image
from napari_sparseseg.segmenter import SparseSegmenter
from napari_sparseseg.storage.formats import open_image
from napari_sparseseg.storage.ome import write_image
from servers import BUCKET, KEY, object_store, web_server

N_WORKERS = ["--workers", 2, "--memory", "6GB"]


@pytest.fixture(scope="module")
def pyramid(tmp_path_factory, files):
    """An image with two levels, which does not begin at 0, and the model that learnt from the coarser one."""
    folder = tmp_path_factory.mktemp("pyramid")
    rng = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(rng.standard_normal((4, 48, 600)), (1, 8, 8))
    truth = (1 + (smooth > smooth.mean())).astype(np.uint8)
    image = (1000.0 * truth + rng.normal(0, 100, truth.shape)).astype(np.uint16)
    write_image(folder / "image.ome.zarr", image, spacing=(2.0, 0.5, 0.5), offset=(10.0, 20.0, 30.0))
    segmenter = SparseSegmenter.load(files.model)
    half = open_image(folder / "image.ome.zarr", level=1)
    segmenter.set_params(spacing=half.spacing, random_state=0)
    segmenter.fit(half.array, paint(truth[:, ::2, ::2]), max_steps=2).save(folder / "model.safetensors")
    return folder


class TestLevels:
    @pytest.mark.parametrize("level", ["1", "auto"])
    @pytest.mark.parametrize("extra", [[], ["--probabilities", "p.ome.zarr"], ["--probabilities", "p.npy"]])
    def test_labels_lie_where_the_level_does(self, invoke, pyramid, tmp_path, monkeypatch, level, extra):
        monkeypatch.chdir(tmp_path)
        source = pyramid / "image.ome.zarr"
        done = invoke("predict", pyramid / "model.safetensors", source, "-o", "l.ome.zarr", "--level", level, *extra)
        assert done.exit_code == 0, done.output
        half, labels = open_image(source, level=1), open_image("l.ome.zarr")
        assert (labels.spacing, labels.offset, labels.unit) == (half.spacing, half.offset, half.unit)
        assert labels.offset == (10.0, 20.25, 30.25)
        if extra == ["--probabilities", "p.ome.zarr"]:
            assert open_image("p.ome.zarr").offset == half.offset
        expected = SparseSegmenter.load(pyramid / "model.safetensors").predict(half.array)
        np.testing.assert_array_equal(labels.array[:, :, :], expected)

    def test_the_level_is_chosen_by_the_voxel_size_that_is_given(self, invoke, pyramid, tmp_path):
        arguments = ["predict", pyramid / "model.safetensors", pyramid / "image.ome.zarr", "--level", "auto"]
        done = invoke(*arguments, "-o", tmp_path / "l.ome.zarr", "--spacing", "2,1,1")  # the model's, at the finest
        assert done.exit_code == 0, done.output
        assert open_image(tmp_path / "l.ome.zarr").array.shape == (4, 48, 600)

    def test_objects_lie_where_the_image_does(self, invoke, pyramid, tmp_path):
        image, out = pyramid / "image.ome.zarr", tmp_path / "o.ome.zarr"
        done = invoke("objects", pyramid / "model.safetensors", image, "-o", out)
        assert done.exit_code == 0, done.output
        assert open_image(out).offset == open_image(image).offset == (10.0, 20.0, 30.0)

    def test_without_a_voxel_size_they_are_measured_in_voxels_of_the_finest_level(self, tmp_path):
        write_image(tmp_path / "a.ome.zarr", np.zeros((4, 48, 600), np.uint8))
        assert Image.open(tmp_path / "a.ome.zarr").place()["spacing"] is None
        half = Image.open(tmp_path / "a.ome.zarr", level=1)
        assert half.place()["spacing"][1:] == (2.0, 2.0)
        assert half.place()["unit"] is None

    def test_a_level_that_is_none_is_refused(self, invoke, pyramid, tmp_path):
        done = invoke(
            *("predict", pyramid / "model.safetensors", pyramid / "image.ome.zarr"),
            *("-o", tmp_path / "l.ome.zarr", "--level", 7),
        )
        assert done.exit_code == 1
        assert "has no level 7" in done.output


class TestFolders:
    @pytest.fixture
    def images(self, tmp_path):
        folder = tmp_path / "images"
        folder.mkdir()
        for seed, name in enumerate(("b.tif", "a.tif")):
            write_tiff(folder / name, make_volume(seed=seed)[0])
        series = np.stack([make_volume(seed=seed)[0] for seed in (2, 3)])
        write_tiff(folder / "series.tif", series, axes="TZYX")
        (folder / "notes.txt").write_text("no image")
        (folder / ".hidden.tif").write_text("no image")
        return folder

    @pytest.mark.parametrize("suffix", [[], ["--suffix", "_labels.tif"]])
    def test_each_image_has_labels_and_rows_in_a_table(self, invoke, files, images, tmp_path, suffix):
        table = tmp_path / "out" / "amounts.csv"
        done = invoke("predict", files.model, images, "-o", tmp_path / "out", "--table", table, *suffix)
        assert done.exit_code == 0, done.output
        ending = suffix[1] if suffix else "_labels.ome.zarr"
        names = {f"{name}{ending}" for name in ("a", "b", "series")}
        assert {path.name for path in table.parent.iterdir()} == names | {"amounts.csv"}
        with table.open(newline="") as file:
            rows = list(csv.DictReader(file))
        found = {(row["file"], row["time"]) for row in rows}
        assert found == {
            *((str(images / name), "") for name in ("a.tif", "b.tif")),
            *((str(images / "series.tif"), time) for time in "01"),
        }
        for name, time in found:
            labels = open_image(tmp_path / "out" / f"{name.rpartition('/')[2][:-4]}{ending}").frame(int(time or 0))
            values, counts = np.unique(labels.array[:, :, :], return_counts=True)
            own = [row for row in rows if (row["file"], row["time"]) == (name, time)]
            assert {int(row["class_id"]): int(row["voxels"]) for row in own} == dict(zip(values, counts, strict=True))
            for row in own:
                assert float(row["amount"]) == pytest.approx(int(row["voxels"]) * np.prod(SPACING), rel=1e-4)
                assert row["unit"] == "micrometer^3"

    def test_an_image_that_fails_has_no_rows(self, invoke, files, images, tmp_path):
        (images / "c.tif").write_bytes(b"II*\x00 torn")
        done = invoke("predict", files.model, images, "-o", tmp_path / "out", "--table", tmp_path / "t.csv")
        assert done.exit_code == 1
        assert "3 images segmented, 1 failed" in done.output
        assert "c.tif" not in (tmp_path / "t.csv").read_text()

    def test_run_again_what_is_complete_is_kept(self, invoke, files, images, tmp_path):
        out, table = tmp_path / "out", tmp_path / "t.csv"
        (images / "series.tif").unlink()
        command = ["predict", files.model, images, "-o", out, "--table", table]
        assert invoke(*command).exit_code == 0
        first = table.read_text()
        shutil.rmtree(out / "a_labels.ome.zarr")
        kept = (out / "b_labels.ome.zarr").stat()
        done = invoke(*command, "--overwrite")
        assert done.exit_code == 0, done.output
        assert (out / "b_labels.ome.zarr").stat().st_ino == kept.st_ino
        assert (out / "a_labels.ome.zarr").is_dir()
        assert table.read_text() == first

    def test_of_a_single_image_too(self, invoke, files, tmp_path):
        done = invoke("predict", files.model, files.image, "-o", tmp_path / "l.tif", "--table", tmp_path / "t.csv")
        assert done.exit_code == 0, done.output
        assert (tmp_path / "t.csv").read_text().count(str(files.image)) == len(np.unique(tifffile.imread(files.truth)))

    def test_what_cannot_be(self, invoke, files, images, tmp_path):
        def output(*arguments):
            result = invoke("predict", files.model, *arguments)
            assert result.exit_code in (1, 2)
            return " ".join(result.output.replace("│", " ").split())

        (tmp_path / "empty").mkdir()
        (tmp_path / "t.csv").write_text("mine")
        assert "holds the images" in output(images, "-o", images)
        assert "is a folder without images" in output(tmp_path / "empty", "-o", tmp_path / "out")
        assert "t.csv exists" in output(images, "-o", tmp_path / "out", "--table", tmp_path / "t.csv")
        assert (tmp_path / "t.csv").read_text() == "mine"


class TestServers:
    @pytest.fixture
    def expected(self, pyramid):
        half = open_image(pyramid / "image.ome.zarr", level=1)
        return SparseSegmenter.load(pyramid / "model.safetensors").predict(half.array)

    def check(self, invoke, pyramid, url, output, expected):
        done = invoke("predict", pyramid / "model.safetensors", url, "-o", output, "--level", "auto", *N_WORKERS)
        assert done.exit_code == 0, done.output
        np.testing.assert_array_equal(open_image(output).array[:, :, :], expected)

    def test_workers_read_from_a_web_server(self, invoke, pyramid, tmp_path, expected):
        shutil.copytree(pyramid / "image.ome.zarr", tmp_path / "www" / "image.ome.zarr")
        with web_server(tmp_path / "www") as server:
            url = f"http://127.0.0.1:{server.server_port}/image.ome.zarr"
            self.check(invoke, pyramid, url, tmp_path / "l.ome.zarr", expected)

    def test_workers_read_from_an_object_store(self, invoke, pyramid, tmp_path, expected, monkeypatch):
        shutil.copytree(pyramid / "image.ome.zarr", tmp_path / "bucket" / "image.ome.zarr")
        with object_store(tmp_path / "bucket", public="none") as address:
            for name, value in {"aws_endpoint_url": address, **KEY}.items():
                monkeypatch.setenv("AWS_REGION" if name == "region_name" else name.upper(), value)
            self.check(invoke, pyramid, f"s3://{BUCKET}/image.ome.zarr", tmp_path / "l.ome.zarr", expected)
