"""A shelf of models, and starting from one of them while an image is open."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from livekit import QUICK, SMALL, make_image, make_truth, paint_both, rest, view_of

from napari_sparseseg import SparseSegmenter
from napari_sparseseg.errors import InputError, ModelFileError
from napari_sparseseg.live.shelf import place_on_shelf, read_shelf


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A model of classes 4 and 9, of a network of another width."""
    truth = make_truth()
    codes = np.zeros_like(truth)
    codes[6] = np.where(truth[6] == 2, 9, 4)
    segmenter = SparseSegmenter(
        device="cpu", model=SMALL.with_changes(width=8), training=QUICK, random_state=0, progress=False
    )
    path = tmp_path_factory.mktemp("models") / "start.safetensors"
    segmenter.fit(make_image(truth, seed=3), codes, max_steps=6).save(path)
    return path


def trunk(network):
    return network.unet.stem.weight.detach().numpy().copy()


class TestStart:
    def test_what_it_knows_of_images_is_learnt_on_and_its_classes_are_not_taken(self, live, image, start):
        live.open(image)
        live.look_at(view_of())
        live.start_from(start)
        assert [info.class_id for info in live.classes] == [1, 2]
        paint_both(live)
        live.heard.wait_for_step(1)
        live.pause()
        learner = live._worker.loop.learner
        assert learner.fitted.spec.config.width == 8
        assert learner.fitted.classes.ids == (1, 2)
        assert learner._trainer.is_started
        before = trunk(SparseSegmenter.load(start, device="cpu")._fitted.network)
        assert np.abs(trunk(learner.fitted.network) - before).max() < 0.02
        rest(live)
        assert (live.labels(0) == make_truth()).mean() > 0.7

    def test_paint_stays_and_what_was_learnt_goes(self, live, image, start):
        live.open(image)
        live.look_at(view_of())
        paint_both(live)
        live.heard.wait_for_step(3)
        codes = live.codes.copy()
        n = len(live.heard.log)
        live.start_from(start)
        live.heard.wait_until(lambda: any(name == "predictions_cleared" for name, *_ in live.heard.log[n:]))
        live.heard.wait_until(lambda: live.status.has_model and live._worker.loop.learner.spec.config.width == 8)
        np.testing.assert_array_equal(live.codes, codes)
        live.reset_model()
        live.heard.wait_until(lambda: live._worker.loop and live._worker.loop.learner.spec.config.width == 4)

    def test_what_does_not_fit_changes_nothing(self, live, image, start, tmp_path):
        with pytest.raises(InputError, match="no image"):
            live.start_from(start)
        live.open(image, spacing=(5.0, 1.0, 1.0))
        live.look_at(view_of())
        paint_both(live)
        live.heard.wait_for_step(2)
        with pytest.raises(InputError, match="5 : 1 : 1"):
            live.start_from(start)
        with pytest.raises(ModelFileError, match="no model file"):
            live.start_from(tmp_path / "missing")
        assert live.status.has_model
        live.heard.wait_for_step(2)


class TestShelf:
    def test_it_tells_names_dice_and_time_newest_first(self, live, image, start, tmp_path):
        (tmp_path / "old.safetensors").write_bytes(start.read_bytes())
        live.open(image)
        live.look_at(view_of())
        live.rename_class(2, "nucleus")
        paint_both(live)
        live.heard.wait_for_step(1)
        live.save_model(tmp_path / "my cells.safetensors")
        new, old = read_shelf(tmp_path)
        assert (new.name, new.classes) == ("my cells", ("background", "nucleus"))
        assert (old.name, old.classes) == ("old", ("4", "9"))
        assert old.dice == SparseSegmenter.load(old.path).history_[-1].dice
        assert new.time == (tmp_path / "my cells.safetensors").stat().st_mtime
        assert SparseSegmenter.load(new.path).classes_.tolist() == [1, 2]

    def test_what_is_no_model_is_left_out(self, start, tmp_path):
        (tmp_path / "text.safetensors").write_text("no model")
        (tmp_path / "cut.safetensors").write_bytes(start.read_bytes()[:-5])
        assert read_shelf(tmp_path) == ()
        assert read_shelf(tmp_path / "missing") == ()

    @pytest.mark.parametrize(
        ("name", "file"),
        [("nuclei", "nuclei"), ("a/b\\c:d", "a_b_c_d"), ("..", "model"), ("", "model"), ("x" * 99, "x" * 60)],
    )
    def test_any_name_is_a_file_in_the_folder(self, name, file, tmp_path):
        assert place_on_shelf(tmp_path, name) == tmp_path / f"{file}.safetensors"

    def test_a_name_in_use_gets_a_number(self, tmp_path):
        for file in ("cells", "cells 2", "cells 3"):
            path = place_on_shelf(tmp_path, "cells")
            assert path == Path(tmp_path / f"{file}.safetensors")
            path.touch()
