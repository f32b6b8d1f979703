"""`train --suggest`: what the paint suggests is learnt with it."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from command_line import SMALL, write_tiff

from napari_sparseseg import PaintConfig, SparseSegmenter
from napari_sparseseg.cli._hints import suggested_paint


@pytest.fixture
def strokes(files, tmp_path):
    """A stroke of each class on two planes of the image, which leave most of them unpainted."""
    truth = tifffile.imread(files.truth)
    codes = np.zeros_like(truth, np.uint8)
    for z in (2, 5):
        for class_id in (1, 2):
            rows, columns = np.nonzero(truth[z] == class_id)
            codes[z, rows[::5], columns[::5]] = class_id
    return write_tiff(tmp_path / "strokes.tif", codes)


def test_suggestions_are_learnt_and_counted(invoke, files, strokes, tmp_path):
    models = []
    for name, options in (("plain", []), ("more", ["--suggest", "grow", "--suggest", "between"])):
        models.append(tmp_path / f"{name}.safetensors")
        done = invoke("train", files.image, strokes, "-o", models[-1], *options, *SMALL)
        assert done.exit_code == 0, done.output
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("Suggested"))
    assert int(line.split()[1].replace(",", "")) > 0
    image = tifffile.imread(files.image)
    plain, more = (SparseSegmenter.load(model, device="cpu").predict_proba(image) for model in models)
    assert not np.array_equal(plain, more)


def test_each_kind_adds_what_it_finds_with_the_weight_that_is_set(files, strokes):
    image, codes = tifffile.imread(files.image), tifffile.imread(strokes)
    config = PaintConfig(suggestion_weight=0.125)
    arguments = {"spacing": (2.0, 0.5, 0.25), "channel_axis": None, "paint": config}
    for kind in ("grow", "between"):
        (merged,), (weight,), n_suggested = suggested_paint([image], [codes], [kind], **arguments)
        assert n_suggested == (merged > 0).sum() - (codes > 0).sum()
        np.testing.assert_array_equal(merged[codes > 0], codes[codes > 0])
        assert set(np.unique(weight).tolist()) <= {0.0, 0.125, 1.0}
        is_new = (merged > 0) & (codes == 0)
        assert (weight[is_new] == 0.125).all()
        assert set(np.flatnonzero(is_new.any((1, 2))).tolist()) <= ({2, 5} if kind == "grow" else {3, 4})


def test_other_words_and_axes_of_classes_are_refused(invoke, files, strokes, tmp_path):
    done = invoke("train", files.image, strokes, "-o", tmp_path / "m.safetensors", "--suggest", "shrink", *SMALL)
    assert done.exit_code == 2
    assert "shrink" in done.output
    classes = np.stack([tifffile.imread(strokes)] * 2)
    with pytest.raises(ValueError, match="axis of classes"):
        suggested_paint(
            [tifffile.imread(files.image)], [classes], ["grow"], spacing=None, channel_axis=None, paint=PaintConfig()
        )
