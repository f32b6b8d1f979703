"""On the command line one painted class is enough where unpainted voxels say something."""

from __future__ import annotations

import numpy as np
import pytest
from command_line import SMALL, call, one_thread

from napari_sparseseg.segmenter import SparseSegmenter

RISK = ["--set", "paint.unlabelled=risk", "--set", "paint.prior=0.2"]


@pytest.fixture
def files(tmp_path):
    """An image of bright squares, and some of them painted on a slice."""
    y, x = np.indices((8, 40, 40))[1:]
    is_object = (y % 10 < 5) & (x % 10 < 5)
    image = (is_object + 0.2 * np.random.default_rng(0).standard_normal(is_object.shape)).astype(np.float32)
    np.save(tmp_path / "image.npy", image)
    np.save(tmp_path / "ink.npy", np.where(is_object & (np.indices(image.shape)[0] == 4) & (x // 10 % 2 == 0), 2, 0))
    return tmp_path


def train(files, *options):
    with one_thread():
        return call("train", files / "image.npy", files / "ink.npy", "-o", files / "m.model", *SMALL, *options)


def test_objects_are_learnt_against_the_rest(files):
    result = train(files, *RISK)
    assert result.exit_code == 0, result.output
    assert "not estimated" in result.output
    assert SparseSegmenter.load(files / "m.model").classes_.tolist() == [1, 2]


def test_the_background_can_be_named(files):
    assert train(files, *RISK, "--background", 9).exit_code == 0
    assert "9 (background)" in call("info", files / "m.model").output


def test_scores_leave_out_the_background_that_was_named(files):
    assert train(files, *RISK, "--background", 9).exit_code == 0
    image = np.load(files / "image.npy")
    np.save(files / "truth.npy", np.where(image > 0.5, 2, 9).astype(np.uint8))
    scored = ["evaluate", files / "m.model", files / "image.npy", files / "truth.npy"]
    lines = call(*scored).stdout.splitlines()
    assert [line.split()[0] for line in lines[1:3]] == ["2", "9"]
    assert lines[3].split() == ["Mean", "without", "9", *lines[1].split()[1:5]]
    assert "Mean without 2" in call(*scored, "--background", 2).stdout


def test_class_weights_are_a_setting(files):
    assert train(files, *RISK, "--set", "paint.class_weights=1,2.5").exit_code == 0
    assert SparseSegmenter.load(files / "m.model").get_params()["paint__class_weights"] == (1.0, 2.5)


def test_without_it_one_class_is_too_few(files):
    result = train(files)
    assert result.exit_code != 0
    assert "only class 2 is painted" in result.output
