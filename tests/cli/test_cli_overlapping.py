"""Classes that overlap on the command line: an axis of classes in the annotation, and what comes out."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import tifffile
import torch
from command_line import SMALL, call, one_thread

from napari_sparseseg import SparseSegmenter
from napari_sparseseg.engine.checkpoint import load_model

OVERLAPPING = ["--set", "paint.overlapping=true"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An image of two nested structures, and each of them outlined on a slice of its own: classes first."""
    folder = tmp_path_factory.mktemp("nested")
    y, x = np.indices((8, 40, 40))[1:]
    distance = np.hypot(y - 20, x - 20)
    truth = np.stack([distance < 15, distance < 7])
    image = (truth.sum(0) + 0.2 * np.random.default_rng(0).standard_normal(truth.shape[1:])).astype(np.float32)
    annotation = np.zeros(truth.shape, np.uint8)
    annotation[0, 2], annotation[1, 5] = 1 + truth[0, 2], 1 + truth[1, 5]
    np.save(folder / "image.npy", image)
    np.save(folder / "ink.npy", annotation)
    np.save(folder / "truth.npy", (1 + truth).astype(np.uint8))
    tifffile.imwrite(folder / "ink.ome.tif", np.moveaxis(annotation, 0, 1), metadata={"axes": "ZCYX"})
    return folder


@pytest.fixture(scope="module")
def model(folder):
    with one_thread():
        result = call("train", folder / "image.npy", folder / "ink.npy", "-o", folder / "m.model", *OVERLAPPING, *SMALL)
    assert result.exit_code == 0, result.output
    return folder / "m.model"


def test_train_takes_classes_as_channels_wherever_they_are(folder, model):
    with one_thread():
        result = call(
            "train", folder / "image.npy", folder / "ink.ome.tif", "-o", folder / "t.model", *OVERLAPPING, *SMALL
        )
    assert result.exit_code == 0, result.output
    assert all("they may overlap" in call("info", path).output for path in (model, folder / "t.model"))
    first, second = (load_model(path)[0].network.state_dict() for path in (model, folder / "t.model"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_train_goes_on_with_the_mode_of_the_model(folder, model):
    again = ["train", folder / "image.npy", folder / "ink.npy", "-o", folder / "a.model", "--continue", model]
    with one_thread():
        assert call(*again, "--steps", 1).exit_code == 0
        refused = call(*again, "--overwrite", "--set", "paint.overlapping=false", "--steps", 1)
    assert refused.exit_code != 0


def test_predict_writes_labels_and_independent_probabilities(folder, model):
    outputs = ["-o", folder / "labels.tif", "--probabilities", folder / "p.npy"]
    with one_thread():
        result = call("predict", model, folder / "image.npy", *outputs, "--overwrite")
    assert result.exit_code == 0, result.output
    labels, probabilities = tifffile.imread(folder / "labels.tif"), np.load(folder / "p.npy")
    assert probabilities.sum(0).max() > 1.1
    np.testing.assert_array_equal(labels == 0, (probabilities <= 0.5).all(0))


def test_labels_beside_probabilities_have_the_background_of_the_fit(folder, tmp_path):
    image = np.load(folder / "image.npy")
    segmenter = SparseSegmenter(random_state=0, background=1).set_params(paint__overlapping=True)
    segmenter.fit(image, np.load(folder / "ink.npy"), max_steps=0).set_params(background=None).save(tmp_path / "m")
    with one_thread():
        result = call(
            "predict",
            tmp_path / "m",
            folder / "image.npy",
            "-o",
            tmp_path / "l.npy",
            "--probabilities",
            tmp_path / "p.npy",
        )
        assert result.exit_code == 0, result.output
        np.testing.assert_array_equal(np.load(tmp_path / "l.npy"), SparseSegmenter.load(tmp_path / "m").predict(image))
    assert np.load(tmp_path / "l.npy").all()


def test_evaluate_scores_each_class(folder, model):
    with one_thread():
        result = call(
            "evaluate", model, folder / "image.npy", folder / "truth.npy", "--csv", folder / "s.csv", "--overwrite"
        )
    assert result.exit_code == 0, result.output
    with (folder / "s.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class_id"] for row in rows] == ["1", "2"]
    assert all(float(row["dice"]) > 0.8 for row in rows)
    assert "Mean without" not in result.output


def test_a_truth_of_other_classes_is_refused(folder, model, tmp_path):
    truth = np.load(folder / "truth.npy")
    np.save(tmp_path / "truth.npy", np.concatenate([np.zeros_like(truth), truth]))
    result = call("evaluate", model, folder / "image.npy", tmp_path / "truth.npy")
    assert result.exit_code == 1
    assert "holds the classes 3, 4, but the model has learnt 1, 2" in result.stderr


def test_suggest_takes_an_axis_of_classes(folder, model):
    with one_thread():
        result = call("suggest", model, folder / "image.npy", "--paint", folder / "ink.npy", "--across", "z", "-n", 2)
    assert result.exit_code == 0, result.output
    wanted = SparseSegmenter.load(model, device="cpu").suggest_slices(
        np.load(folder / "image.npy"), np.load(folder / "ink.npy"), 2, axes=[0]
    )
    assert [int(line.split()[1]) for line in result.stdout.splitlines()[1:]] == [advice.index for advice in wanted]


def test_channels_of_an_annotation_are_refused_where_classes_exclude_each_other(folder):
    result = call("train", folder / "image.npy", folder / "ink.npy", "-o", folder / "no.model", *SMALL)
    assert result.exit_code != 0
