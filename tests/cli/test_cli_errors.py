"""Errors: one sentence, an exit code, no traceback, nothing written."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import SMALL, make_volume, paint, run, write_tiff

from napari_sparseseg import demo
from napari_sparseseg.cli import main
from napari_sparseseg.errors import InputError, InputWarning
from napari_sparseseg.learning import Learnt
from napari_sparseseg.segmenter import SparseSegmenter
from napari_sparseseg.storage.atomic import written_whole
from napari_sparseseg.storage.ome import write_labels


def fail_with(monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(demo, "run_demo", fail)


class TestSentences:
    @pytest.mark.parametrize(
        ("error", "sentence"),
        [
            (InputError("The volume is too small; take a larger one."), "The volume is too small; take a larger one."),
            (InputError("a.tif exists; pass overwrite=True to"), "a.tif exists; add --overwrite to"),
            (OSError(errno.ENOSPC, "No space left on device", "x.tif"), "x.tif: No space left on device"),
            (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        ],
    )
    def test_what_users_can_mend_is_said_as_it_is(self, invoke, monkeypatch, error, sentence):
        fail_with(monkeypatch, error)
        result = invoke("demo")
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == f"Error: {sentence}\n"

    @pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
    def test_lack_of_memory_says_what_to_make_smaller(self, invoke, monkeypatch, error):
        fail_with(monkeypatch, error)
        result = invoke("demo")
        assert result.exit_code == 1
        assert "memory ran out" in result.stderr
        assert "--tile-voxels" in result.stderr

    @pytest.mark.parametrize("error", [ZeroDivisionError("a bug\nin two lines"), AssertionError(), OSError()])
    def test_the_unexpected_is_a_sentence_too(self, invoke, monkeypatch, error):
        fail_with(monkeypatch, error)
        result = invoke("demo")
        assert result.exit_code == 1
        assert len(result.stderr.splitlines()) == 1
        assert result.stderr.startswith(f"Error: unexpected {type(error).__name__}")
        assert "run with --debug" in result.stderr

    @pytest.mark.parametrize(
        "arguments", [["--debug", "demo"], ["demo", "--debug"], ["demo", "--debug", "--seed", "1"]]
    )
    def test_debug_shows_where_wherever_it_stands(self, invoke, monkeypatch, arguments):
        fail_with(monkeypatch, error := InputError("too small"))
        result = invoke(*arguments)
        assert result.exit_code == 1
        assert result.exception is error

    def test_interrupt_exits_130(self, invoke, monkeypatch):
        fail_with(monkeypatch, KeyboardInterrupt())
        result = invoke("demo")
        assert (result.exit_code, result.stderr) == (130, "Interrupted.\n")

    def test_a_scheduler_s_end_leaves_nothing(self, monkeypatch, tmp_path):
        def end(*_, **__):
            with written_whole(tmp_path / "a", overwrite=False, is_kind=Path.is_file, kind="file") as partial:
                partial.touch()
                signal.raise_signal(signal.SIGTERM)

        monkeypatch.setattr(demo, "run_demo", end)
        monkeypatch.setattr(sys, "argv", ["napari-sparseseg", "demo"])
        before = signal.getsignal(signal.SIGTERM)
        with pytest.raises(SystemExit, match="143"):
            main()
        assert signal.getsignal(signal.SIGTERM) == before
        assert not list(tmp_path.iterdir())

    def test_warnings_of_ours_are_a_sentence_and_others_are_left_out(self, invoke, monkeypatch):
        def complain(*_, **__):
            warnings.warn("channel 0 is constant", InputWarning, stacklevel=1)
            warnings.warn("deprecated", UserWarning, stacklevel=1)
            raise InputError("enough")

        monkeypatch.setattr(demo, "run_demo", complain)
        assert invoke("demo").stderr == "Warning: channel 0 is constant\nError: enough\n"

    def test_a_real_process_shows_no_traceback(self, tmp_path):
        done = run("info", tmp_path / "nowhere.tif")
        assert done.returncode == 1
        assert done.stderr.startswith("Error: ")
        assert len(done.stderr.splitlines()) == 1
        assert "Traceback" in run("info", tmp_path / "nowhere.tif", "--debug").stderr

    @pytest.mark.parametrize(
        ("encoding", "name", "shown"),
        [
            ("latin-1", "\u03b6.tif", "\\u03b6.tif"),
            pytest.param(
                "utf-8",
                os.fsdecode(b"\xe9.tif"),
                "\\udce9.tif",
                marks=pytest.mark.skipif(sys.platform != "linux", reason="names of files are text there"),
            ),
        ],
    )
    def test_names_that_the_output_cannot_show_end_nothing(self, files, tmp_path, encoding, name, shown):
        image = Path(shutil.copy(files.image, tmp_path / name))
        done = run("info", image, encoding=encoding)
        assert (done.returncode, done.stderr) == (0, "")
        assert f"{tmp_path}{os.sep}{shown}" in done.stdout


@pytest.fixture
def untouched(files, monkeypatch):
    """Nothing may be learnt or predicted: what is wrong is found before."""

    def forbidden(*_, **__):
        raise AssertionError("the work has started")

    for name in ("fit", "partial_fit", "predict", "predict_proba"):
        monkeypatch.setattr(SparseSegmenter, name, forbidden)
    before = sorted(files.folder.rglob("*"))
    yield
    assert sorted(files.folder.rglob("*")) == before


@pytest.mark.usefixtures("untouched")
class TestBeforeTheWork:
    def check(self, result, code, text):
        assert result.exit_code == code, result.output
        assert text in " ".join(result.stderr.replace("│", " ").split())

    @pytest.mark.parametrize(
        ("options", "text"),
        [
            (["--set", "training.learn_rate=1"], "did you mean training.learning_rate?"),
            (["--set", "nonsense=1"], "prediction.tile_voxels"),
            (["--set", "training.dropout"], "write NAME=VALUE"),
            (["--allowed", "130"], "which classes a label leaves possible"),
            (["--allowed", "130=1,b"], "which classes a label leaves possible"),
            (["--spacing", "1,2,three"], "is not a voxel size"),
            (["--spacing", "1,0,1"], "is not a voxel size"),
            (["--spacing", "1e-320,1,1"], "is not a voxel size"),
            (["--steps", "-1"], "--steps"),
            (["--seconds", "nan"], "--seconds"),
            (["--background", "255"], "--background"),
            (["--continue", "x", "--spacing", "1,1,1"], "fixes this already"),
            (["--continue", "x", "--set", "model.width=8"], "--set model.width"),
            (["--continue", "x", "--start", "y"], "--start"),
            (["--start", "x", "--set", "model.width=8"], "--set model.width"),
        ],
    )
    def test_usage_of_train(self, invoke, files, tmp_path, options, text):
        self.check(invoke("train", files.image, files.annotation, "-o", tmp_path / "m", *options), 2, text)

    def test_an_argument_that_is_empty(self, invoke, files):
        self.check(invoke("predict", files.model, files.image, "-o", ""), 2, "an argument is empty")

    def test_a_file_without_its_pair(self, invoke, files, tmp_path):
        result = invoke("train", files.image, "-o", tmp_path / "m")
        self.check(result, 2, "1 file cannot be paired; give each image with its annotation")

    @pytest.mark.parametrize(
        ("options", "text"),
        [
            (["--set", "training.dropout=2"], "less than 1"),
            (["--spacing", "1,1"], "has three spatial axes"),
            (["--axes", "QYX"], "axes"),
            (["--device", "gpu"], "is not a device"),
            (["--continue", "nowhere"], "no model file"),
            (["--start", "nowhere"], "no model file"),
        ],
    )
    def test_input_of_train(self, invoke, files, tmp_path, monkeypatch, options, text):
        if "--device" in options:
            monkeypatch.undo()  # the device is looked for within the fit
        self.check(invoke("train", files.image, files.annotation, "-o", tmp_path / "m", *options), 1, text)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        ("shape", "hint"), [((6, 24, 30), "both must be alike"), ((32, 24, 6), "axes are in another order")]
    )
    def test_an_annotation_of_another_shape(self, invoke, files, tmp_path, shape, hint):
        other = write_tiff(tmp_path / "other.tif", np.ones(shape, np.uint8))
        result = invoke("train", files.image, other, "-o", tmp_path / "m")
        self.check(result, 1, f"other.tif has shape {shape}, but {files.image} has (6, 24, 32)")
        self.check(result, 1, hint)
        assert not (tmp_path / "m").exists()

    def test_an_image_in_place_of_the_annotation(self, invoke, files, tmp_path, monkeypatch):
        monkeypatch.undo()  # it is read within the fit
        result = invoke("train", files.annotation, files.image, "-o", tmp_path / "m")
        self.check(result, 1, f"{files.image} holds ")
        self.check(result, 1, "or is this the image?")

    def test_one_pair_of_several_is_named_by_its_file(self, invoke, files, tmp_path, monkeypatch):
        monkeypatch.undo()
        wrong = write_tiff(tmp_path / "wrong.tif", np.full((6, 24, 32), 300, np.uint16))
        pairs = [files.image, files.annotation, files.image, wrong]
        self.check(invoke("train", *pairs, "-o", tmp_path / "m"), 1, f"{wrong} holds 300")

    def test_a_model_is_not_overwritten(self, invoke, files):
        result = invoke("train", files.image, files.annotation, "-o", files.model)
        self.check(result, 1, "add --overwrite to replace it")

    def test_nothing_but_a_model_gives_way_to_a_model(self, invoke, files, tmp_path):
        other = write_tiff(tmp_path / "other.tif", np.ones((6, 24, 32), np.uint8))
        before = other.read_bytes()
        result = invoke("train", files.image, files.annotation, "-o", other, "--overwrite")
        self.check(result, 1, "is not a model, so it is not replaced")
        assert other.read_bytes() == before

    @pytest.mark.parametrize("name", ["model.tif", "model.ome.zarr", "MODEL.NII.GZ"])
    def test_a_model_is_not_written_under_the_name_of_an_image(self, invoke, files, tmp_path, name):
        result = invoke("train", files.image, files.annotation, "-o", tmp_path / name, *SMALL)
        self.check(result, 1, "is the name of an image; end that of a model with .safetensors, such as")
        assert not (tmp_path / name).exists()

    @pytest.mark.parametrize("which", ["image", "annotation"])
    def test_an_input_is_never_overwritten(self, invoke, files, which):
        result = invoke("train", files.image, files.annotation, "-o", getattr(files, which), "--overwrite")
        self.check(result, 1, "inputs are never replaced")

    def test_a_folder_that_is_missing_or_in_the_way(self, invoke, files, tmp_path):
        self.check(invoke("train", files.image, files.annotation, "-o", tmp_path / "a" / "m"), 1, "make it first")
        self.check(invoke("train", files.image, files.annotation, "-o", tmp_path), 1, "is a folder")

    @pytest.mark.parametrize(
        ("name", "text"),
        [("labels.xyz", "end its name with"), ("labels", "end its name with"), ("no/l.tif", "make it")],
    )
    def test_outputs_of_predict(self, invoke, files, tmp_path, name, text):
        self.check(invoke("predict", files.model, files.image, "-o", tmp_path / name), 1, text)

    def test_labels_are_not_overwritten(self, invoke, files, tmp_path):
        (tmp_path / "labels.tif").write_text("mine")
        result = invoke("predict", files.model, files.image, "-o", tmp_path / "labels.tif")
        self.check(result, 1, "add --overwrite to replace it")
        result = invoke("predict", files.model, files.image, "-o", tmp_path / "labels.tif", "--overwrite")
        self.check(result, 1, "is not a TIFF, so it is not replaced")
        assert (tmp_path / "labels.tif").read_text() == "mine"

    def test_probabilities_are_checked_as_well(self, invoke, files, tmp_path):
        base = ["predict", files.model, files.image, "-o", tmp_path / "l.tif", "--probabilities"]
        self.check(invoke(*base, tmp_path / "p.tif"), 1, ".ome.zarr or .npy")
        (tmp_path / "p.npy").write_text("mine")
        self.check(invoke(*base, tmp_path / "p.npy"), 1, "add --overwrite")

    @pytest.mark.parametrize("place", ["", "images/"])
    def test_an_output_never_replaces_a_folder_with_an_input(self, invoke, files, tmp_path, place):
        image = tmp_path / "all.zarr" / place / "a.ome.zarr"
        write_labels(tmp_path / "all.zarr", np.ones((6, 24, 32), np.uint8))
        write_labels(image, np.ones((6, 24, 32), np.uint8))
        result = invoke("predict", files.model, image, "-o", tmp_path / "all.zarr", "--overwrite")
        self.check(result, 1, f"all.zarr holds the input {image}")
        assert image.is_dir()

    def test_an_input_under_another_name_is_not_replaced(self, invoke, files, tmp_path):
        (tmp_path / "link.tif").symlink_to(files.image)
        result = invoke("predict", files.model, tmp_path / "link.tif", "-o", files.image, "--overwrite")
        self.check(result, 1, "is an input as well")

    @pytest.mark.parametrize("command", ["predict", "objects"])
    def test_two_outputs_are_two_files(self, invoke, files, tmp_path, command):
        out = tmp_path / "labels.tif"
        result = invoke(command, files.model, files.image, "-o", out, "--table", tmp_path / "." / "labels.tif")
        self.check(result, 1, "labels.tif is named for two outputs; choose another name for one of them")
        assert not out.exists()

    def test_no_map_replaces_the_labels(self, invoke, files, tmp_path):
        base = ["predict", files.model, files.image, "-o", tmp_path / "l.zarr", "--probabilities"]
        self.check(invoke(*base, tmp_path / "l.zarr"), 1, "l.zarr is named for two outputs")
        base = ["predict", files.model, files.image, "-o", tmp_path / "p.zarr/l.zarr", "--probabilities"]
        (tmp_path / "p.zarr").mkdir()
        self.check(invoke(*base, tmp_path / "p.zarr"), 1, "p.zarr holds another output")

    @pytest.mark.parametrize("name", ["labels.tif", "labels.ome.zarr", "mine"])
    def test_several_images_need_a_folder(self, invoke, files, tmp_path, name):
        (tmp_path / "mine").write_text("mine")
        result = invoke("predict", files.model, files.image, files.truth, "-o", tmp_path / name)
        self.check(result, 2, "of several images the output is a folder")
        assert [p.name for p in tmp_path.iterdir()] == ["mine"]

    @pytest.mark.parametrize("command", ["train", "predict", "evaluate"])
    def test_a_folder_that_may_not_be_written_to(self, invoke, files, tmp_path, monkeypatch, command):
        arguments = {
            "train": [files.image, files.annotation, "-o", tmp_path / "m"],
            "predict": [files.model, files.image, "-o", tmp_path / "l.tif"],
            "evaluate": [files.model, files.image, files.truth, "--csv", tmp_path / "s.csv"],
        }
        monkeypatch.setattr(os, "access", lambda _, mode: mode == os.R_OK)
        self.check(invoke(command, *arguments[command]), 1, "may not be written to; choose another folder")

    def test_several_images_of_one_name(self, invoke, files, tmp_path):
        result = invoke("predict", files.model, files.image, "elsewhere/image.nii.gz", "-o", tmp_path / "out")
        self.check(result, 2, "would both become")

    def test_several_images_and_probabilities(self, invoke, files, tmp_path):
        options = ["-o", tmp_path / "out", "--probabilities", tmp_path / "p.npy"]
        self.check(invoke("predict", files.model, files.image, files.truth, *options), 2, "single image")

    def test_all_outputs_of_several_images_are_checked_first(self, invoke, files, tmp_path):
        (tmp_path / "truth_labels.tif").write_text("mine")
        result = invoke("predict", files.model, files.image, files.truth, "-o", tmp_path, "--suffix", "_labels.tif")
        self.check(result, 1, "truth_labels.tif exists")

    def test_a_model_that_is_none(self, invoke, files, tmp_path):
        self.check(invoke("predict", files.image, files.model, "-o", tmp_path / "l.tif"), 1, "the model comes first")
        self.check(invoke("evaluate", files.image, files.model, files.truth), 1, "the model comes first")
        (tmp_path / "m").write_text("notes")
        arguments = ["predict", tmp_path / "m", files.image, "-o", tmp_path / "l.tif"]
        self.check(invoke(*arguments), 1, "not a readable model file")
        self.check(invoke("train", files.model, files.annotation, "-o", tmp_path / "n"), 1, "is a model and no image")

    def test_a_model_that_is_cut_short(self, invoke, files, tmp_path):
        (tmp_path / "cut").write_bytes(files.model.read_bytes()[:-100])
        result = invoke("predict", tmp_path / "cut", files.image, "-o", tmp_path / "l.tif")
        self.check(result, 1, "cut short by 100 bytes")

    @pytest.mark.parametrize("n_files", [1, 4])
    def test_evaluate_takes_two_or_three_files(self, invoke, files, n_files):
        self.check(invoke("evaluate", *[files.truth] * n_files), 2, "labels and their truth")

    def test_truth_that_rather_is_an_image(self, invoke, files, tmp_path):
        self.check(invoke("evaluate", files.model, files.truth, files.image), 1, "is it the image")
        self.check(invoke("evaluate", files.truth, files.image), 1, "is it the image")
        fractions = write_tiff(tmp_path / "f.tif", np.full((6, 24, 32), 0.5, np.float32))
        self.check(invoke("evaluate", fractions, files.truth), 1, f"{fractions} holds fractions")

    def test_the_table_is_checked_before_scoring(self, invoke, files, tmp_path):
        (tmp_path / "s.csv").write_text("mine")
        result = invoke("evaluate", files.truth, files.truth, "--csv", tmp_path / "s.csv")
        self.check(result, 1, "add --overwrite")


@pytest.mark.parametrize("stage", ["predict", "predict_proba"])
def test_interrupting_leaves_nothing(invoke, files, tmp_path, monkeypatch, stage):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(SparseSegmenter, stage, interrupt)
    extra = ["--probabilities", tmp_path / "p.npy"] if stage == "predict_proba" else []
    result = invoke("predict", files.model, files.image, "-o", tmp_path / "l.tif", *extra)
    assert result.exit_code == 130
    assert not list(tmp_path.iterdir())


def test_a_failure_while_learning_leaves_the_old_model(invoke, files, tmp_path, monkeypatch):
    model = tmp_path / "m.safetensors"
    model.write_bytes(before := files.model.read_bytes())

    def fail(*_, **__):
        raise InputError("no")

    monkeypatch.setattr(SparseSegmenter, "partial_fit", fail)
    assert invoke("train", files.image, files.annotation, "-o", model, "--overwrite").exit_code == 1
    assert model.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


class TestSavingTheModel:
    @pytest.fixture
    def saving(self, invoke, files, tmp_path, monkeypatch):
        """Train without learning; what is passed is called before the model is written."""

        def save(meanwhile):
            trained = SparseSegmenter.load(files.model)

            def take_what_was_learnt(self, *_, **__):
                self._take(Learnt(trained._fitted, None, trained.history_))
                meanwhile()

            monkeypatch.setattr(SparseSegmenter, "partial_fit", take_what_was_learnt)
            return invoke("train", files.image, files.annotation, "-o", tmp_path / "m")

        return save

    def test_of_somebody_else_is_not_replaced(self, saving, tmp_path):
        result = saving(lambda: (tmp_path / "m").write_text("theirs"))
        assert result.exit_code == 1
        assert "add --overwrite to replace it" in result.stderr
        assert (tmp_path / "m").read_text() == "theirs"

    def test_on_a_full_disk_says_so(self, saving, tmp_path, monkeypatch):
        def full(handle):
            raise OSError(errno.ENOSPC, "No space left on device")

        result = saving(lambda: monkeypatch.setattr(os, "fsync", full))
        assert result.exit_code == 1
        assert f"{tmp_path / 'm'} could not be written (No space left on device); check the room" in result.stderr
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("argument", ["~/a.npy", "~\\a.npy"] if os.name == "nt" else ["~/a.npy"])
def test_the_home_folder_is_found_without_a_shell(invoke, tmp_path, monkeypatch, argument):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    np.save(tmp_path / "a.npy", np.ones((3, 8, 9), np.uint8))
    assert invoke("info", argument).exit_code == 0
    assert invoke("evaluate", argument, argument, f"--csv={argument[:2]}s.csv").exit_code == 0
    assert (tmp_path / "s.csv").is_file()


def test_images_with_and_without_channels_do_not_mix(invoke, files, tmp_path):
    image, truth = make_volume()
    two = write_tiff(tmp_path / "two.tif", np.stack([image, image], 1), axes="ZCYX")
    ink = write_tiff(tmp_path / "ink.tif", paint(truth))
    result = invoke("train", files.image, files.annotation, two, ink, "-o", tmp_path / "m", *SMALL)
    assert result.exit_code == 1
    assert "all images of a model need the same" in result.stderr
