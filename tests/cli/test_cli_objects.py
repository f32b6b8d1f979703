"""`objects`: ids into files of any format, a table, filters."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tifffile
from command_line import SPACING, write_tiff

from napari_sparseseg import SparseSegmenter, measure_objects
from napari_sparseseg.storage.formats import open_annotation

SETTINGS = ["--set", "objects.smallest=5", "--set", "objects.reach=4"]


@dataclass(frozen=True)
class Given:
    model: Path
    image: Path


@pytest.fixture(scope="module")
def files(files, tmp_path_factory):
    """A model, and an image of four bricks of different sizes, of which one lies at the edge."""
    truth = np.ones((6, 30, 60), np.uint16)
    for number, width in enumerate((6, 8, 10)):
        truth[1:5, 6:24, 8 + 18 * number : 8 + 18 * number + width] = 2
    truth[2:4, :3] = 2
    noise = np.random.default_rng(0).normal(0, 50, truth.shape)
    path = tmp_path_factory.mktemp("objects") / "bricks.tif"
    return Given(files.model, write_tiff(path, (1000 * truth + noise).astype(np.uint16)))


def read_csv(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def found_by_python(files):
    segmenter = SparseSegmenter.load(files.model, device="cpu")
    segmenter.set_params(objects__smallest=5, objects__reach=4.0)
    return segmenter.predict_objects(tifffile.imread(files.image))


def test_ids_and_table_are_those_of_python(invoke, files, tmp_path):
    out, table = tmp_path / "objects.tif", tmp_path / "objects.csv"
    done = invoke("objects", files.model, files.image, "-o", out, "--table", table, *SETTINGS)
    assert done.exit_code == 0, done.output
    wanted = found_by_python(files)
    assert wanted.max() > 2
    np.testing.assert_array_equal(tifffile.imread(out), wanted)
    assert f"Objects        {wanted.max()}\n" in done.stdout
    rows = read_csv(table)
    known = measure_objects(wanted, tifffile.imread(files.image), (wanted > 0) * 2, SPACING)
    assert list(rows[0]) == list(known.columns)
    assert {row["class"] for row in rows} == {"2"}
    for name in ("id", "volume", "surface", "z", "mean_0", "x_stop"):
        np.testing.assert_allclose([float(row[name]) for row in rows], known[name], rtol=1e-6)


def test_what_is_filtered_out_is_neither_in_the_image_nor_in_the_table(invoke, files, tmp_path):
    out, table = tmp_path / "objects.ome.zarr", tmp_path / "objects.csv"
    wanted = found_by_python(files)
    volumes = measure_objects(wanted, spacing=SPACING)["volume"]
    limit = float(volumes.median())
    done = invoke("objects", files.model, files.image, "-o", out, "--table", table, "--min-size", limit, *SETTINGS)
    assert done.exit_code == 0, done.output
    kept = np.flatnonzero(volumes >= limit) + 1
    assert [int(row["id"]) for row in read_csv(table)] == kept.tolist()
    np.testing.assert_array_equal(np.asarray(open_annotation(out).array), np.where(np.isin(wanted, kept), wanted, 0))
    assert f"{wanted.max() - len(kept)} other" in done.stdout


@pytest.mark.parametrize("name", ["objects.tif", "objects.ome.zarr"])
def test_of_an_image_larger_than_memory_they_are_the_same(invoke, files, tmp_path, monkeypatch, name):
    monkeypatch.setattr("napari_sparseseg.cli.objects.MANY_VOXELS", 1)
    monkeypatch.setattr(SparseSegmenter, "predict_objects", None)
    out, table = tmp_path / name, tmp_path / "objects.csv"
    done = invoke("objects", files.model, files.image, "-o", out, "--table", table, *SETTINGS)
    assert done.exit_code == 0, done.output
    monkeypatch.undo()
    wanted = found_by_python(files)
    np.testing.assert_array_equal(np.asarray(open_annotation(out).array), wanted)
    assert [int(row["id"]) for row in read_csv(table)] == list(range(1, wanted.max() + 1))
    assert {row["class"] for row in read_csv(table)} == {"2"}
    assert [path.name for path in out.parent.iterdir() if path not in (out, table)] == []


def test_objects_of_a_series_are_told_by_their_time(invoke, files, tmp_path):
    image = tifffile.imread(files.image)
    write_tiff(tmp_path / "series.tif", np.stack([image, image[:, ::-1]]), axes="TZYX")
    out, table = tmp_path / "objects.tif", tmp_path / "objects.csv"
    done = invoke("objects", files.model, tmp_path / "series.tif", "-o", out, "--table", table, *SETTINGS)
    assert done.exit_code == 0, done.output
    found = tifffile.imread(out)
    assert found.shape == (2, *image.shape)
    rows = read_csv(table)
    for number in range(2):
        assert [int(row["id"]) for row in rows if row["time"] == str(number)] == list(range(1, found[number].max() + 1))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--set", "training.dropout=0.1"], "changes nothing here"),
        (["--set", "objects.neck=2"], "neck"),
        (["--set", "objects.method=affinities"], "has learnt none"),
        (["--min-size", "-1"], "greater than or equal to 0"),
        (["--min-size", "5", "--max-size", "2"], "smallest size, 5, is above the largest, 2"),
        (["--table", "."], "is a folder"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(invoke, files, tmp_path, arguments, text):
    out = tmp_path / "objects.tif"
    done = invoke("objects", files.model, files.image, "-o", out, *arguments)
    assert done.exit_code != 0
    assert text in " ".join(done.output.split())
    assert not out.exists()


def test_outputs_are_replaced_on_wish_only(invoke, files, tmp_path):
    out, table = tmp_path / "objects.tif", tmp_path / "objects.csv"
    table.write_text("mine")
    done = invoke("objects", files.model, files.image, "-o", out, "--table", table)
    assert (done.exit_code, table.read_text()) == (1, "mine")
    assert "exists" in done.stderr
    done = invoke("objects", files.model, files.image, "-o", out, "--table", table, "--overwrite", *SETTINGS)
    assert done.exit_code == 0, done.output
    assert read_csv(table)
