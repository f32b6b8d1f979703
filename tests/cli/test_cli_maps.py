"""Candidate classes and novelty on the command line."""

from __future__ import annotations

import numpy as np
import pytest
from command_line import SMALL, call, one_thread

from napari_sparseseg.distributed.job import Job
from napari_sparseseg.segmenter import SparseSegmenter
from napari_sparseseg.storage.formats import open_image

TELLING = ["--set", "paint.candidates=1.2", "--set", "paint.novelty=features"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An image of two classes, paint on three of its slices, and models that learnt them with and without more."""
    folder = tmp_path_factory.mktemp("maps")
    truth = np.where(np.indices((8, 30, 30))[2] < 15, 1, 2).astype(np.uint8)
    image = truth + 0.6 * np.random.default_rng(0).standard_normal(truth.shape)
    np.save(folder / "image.npy", image.astype(np.float32))
    np.save(folder / "ink.npy", np.where(np.isin(np.arange(8), (1, 4, 6))[:, None, None], truth, 0).astype(np.uint8))
    np.save(folder / "series.npy", np.stack([image, image]).astype(np.float32))
    with one_thread():
        for name, options in (("telling", TELLING), ("plain", [])):
            done = call("train", folder / "image.npy", folder / "ink.npy", "-o", folder / name, *options, *SMALL)
            assert done.exit_code == 0, done.output
    return folder


def predict(folder, *options, model="telling", image="image.npy", out="labels.tif"):
    with one_thread():
        return call("predict", folder / model, folder / image, "-o", folder / out, "--overwrite", *options)


def test_arrays_hold_what_the_segmenter_says(folder):
    done = predict(folder, "--candidates", folder / "c.npy", "--novelty", folder / "n.npy")
    assert done.exit_code == 0, done.output
    assert "Candidates" in done.output
    assert "Novelty" in done.output
    segmenter, image = SparseSegmenter.load(folder / "telling"), np.load(folder / "image.npy")
    np.testing.assert_array_equal(np.load(folder / "c.npy"), segmenter.predict_candidates(image))
    np.testing.assert_allclose(np.load(folder / "n.npy"), segmenter.predict_novelty(image), atol=1e-5)


def test_zarrs_can_be_looked_at(folder):
    done = predict(folder, "--candidates", folder / "c.ome.zarr", "--novelty", folder / "n.ome.zarr")
    assert done.exit_code == 0, done.output
    candidates, novelty = open_image(folder / "c.ome.zarr"), open_image(folder / "n.ome.zarr")
    assert (candidates.axes, novelty.axes) == ("CZYX", "ZYX")
    assert set(np.unique(candidates.array[...])) <= {0, 1}
    assert 0 < novelty.array[...].max() <= 255


def test_time_points_come_one_after_the_other(folder):
    options = ["--axes", "TZYX", "--novelty"]
    done = predict(folder, *options, folder / "n.npy", image="series.npy", out="labels.npy")
    assert done.exit_code == 0, done.output
    assert np.load(folder / "n.npy").shape == (2, 8, 30, 30)
    refused = predict(folder, *options, folder / "n.ome.zarr", image="series.npy", out="never.npy")
    assert "novelty of a time series cannot be written as OME-Zarr" in " ".join(refused.output.split())
    assert not (folder / "never.npy").exists(), "nothing is predicted before"


@pytest.mark.parametrize(("option", "what"), [("--candidates", "candidate classes"), ("--novelty", "what is new")])
def test_a_model_that_cannot_tell_it_says_so_before_it_predicts(folder, tmp_path, option, what):
    done = predict(folder, option, tmp_path / "x.npy", model="plain", out="never.tif")
    assert done.exit_code != 0
    assert f"has not learnt {what}" in " ".join(done.output.split())
    assert not (folder / "never.tif").exists()


def test_interrupted_the_same_command_goes_on(folder, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    arguments = ["predict", folder / "telling", folder / "image.npy", "-o", tmp_path / "l.ome.zarr"]
    arguments += ["--candidates", tmp_path / "c.npy", "--novelty", tmp_path / "n.npy"]
    with monkeypatch.context() as patched, one_thread():
        patched.setattr(Job, "run", interrupt)
        assert call(*arguments).exit_code == 130
    with one_thread():
        done = call(*arguments)
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.npy", "l.ome.zarr", "n.npy"]


@pytest.mark.parametrize("option", ["--candidates", "--novelty"])
@pytest.mark.parametrize("large", [("--workers", "2"), ("--memory", "6GB")])
def test_what_is_not_done_in_pieces_is_refused(folder, tmp_path, option, large):
    done = predict(folder, option, tmp_path / "x.npy", *large, out="never.tif")
    assert done.exit_code == 2
    assert "cannot be computed piece by piece" in " ".join(done.output.replace("│", " ").split())
    assert not (folder / "never.tif").exists()


@pytest.mark.parametrize("option", ["--candidates", "--novelty"])
def test_outputs_are_checked_first(folder, tmp_path, option):
    assert "written as .ome.zarr or .npy" in " ".join(predict(folder, option, tmp_path / "x.tif").output.split())
    assert "is an input as well" in " ".join(predict(folder, option, folder / "image.npy").output.split())
    several = call(
        "predict", folder / "telling", folder / "image.npy", folder / "ink.npy", "-o", tmp_path, option, "a.npy"
    )
    assert "for a single image" in " ".join(several.output.split())
    (tmp_path / "there.npy").touch()
    with one_thread():
        done = call(
            "predict",
            folder / "telling",
            folder / "image.npy",
            "-o",
            tmp_path / "l.tif",
            option,
            tmp_path / "there.npy",
        )
    assert "add --overwrite" in " ".join(done.output.split())
