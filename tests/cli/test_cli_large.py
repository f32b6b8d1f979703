"""`predict` into OME-Zarr: within a budget, by several workers, resumed."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
import zarr

from napari_sparseseg.distributed.job import Job
from napari_sparseseg.segmenter import SparseSegmenter


def test_interrupted_the_same_command_goes_on(invoke, files, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    arguments = ["predict", files.model, files.image, "-o", tmp_path / "l.ome.zarr"]
    monkeypatch.setattr(Job, "run", interrupt)
    assert invoke(*arguments).exit_code == 130
    assert [path.name for path in tmp_path.iterdir()] == ["l.ome.zarr.unfinished"]
    monkeypatch.undo()
    done = invoke(*arguments)
    assert done.exit_code == 0, done.output
    assert [path.name for path in tmp_path.iterdir()] == ["l.ome.zarr"]
    found = zarr.open_array(tmp_path / "l.ome.zarr" / "0", mode="r")[:]
    np.testing.assert_array_equal(found, SparseSegmenter.load(files.model).predict(tifffile.imread(files.image)))


def test_two_workers_write_what_one_writes(invoke, files, tmp_path):
    for name, options in (("a.zarr", []), ("b.zarr", ["--workers", "2", "--memory", "6GB"])):
        done = invoke("predict", files.model, files.image, "-o", tmp_path / name, *options)
        assert done.exit_code == 0, done.output
    a, b = (zarr.open_array(tmp_path / name / "0", mode="r")[:] for name in ("a.zarr", "b.zarr"))
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("output", "options", "text"),
    [
        ("l.tif", ["--workers", "2"], "end it with .ome.zarr"),
        ("l.ome.zarr", ["--workers", "2", "--scheduler", "tcp://127.0.0.1:9"], "leave one of both out"),
        ("l.ome.zarr", ["--memory", "lots"], "'lots' is not an amount of memory"),
        ("l.ome.zarr", ["--memory", "200MB"], "are too little"),
    ],
)
def test_what_cannot_be(invoke, files, tmp_path, output, options, text):
    result = invoke("predict", files.model, files.image, "-o", tmp_path / output, *options)
    assert result.exit_code in (1, 2)
    assert text in " ".join(result.output.replace("│", " ").split())
    assert not (tmp_path / output).exists()
