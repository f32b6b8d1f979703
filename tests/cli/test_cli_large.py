"""`predict` into OME-Zarr: within a budget, by several workers, resumed."""

from __future__ import annotations

import os
import shutil
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from command_line import write_tiff

from napari_sparseseg.cli import _prediction
from napari_sparseseg.cli._images import open_model
from napari_sparseseg.distributed.job import Job
from napari_sparseseg.errors import InputError
from napari_sparseseg.segmenter import SparseSegmenter
from napari_sparseseg.storage.formats import open_image, write_labels
from napari_sparseseg.storage.unfinished import HeldFolder


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
        ("l.tif", ["--workers", "2", "--probabilities", "p.npy"], "end it with .ome.zarr"),
        ("l.ome.zarr", ["--workers", "2", "--scheduler", "tcp://127.0.0.1:9"], "leave one of both out"),
        ("l.ome.zarr", ["--memory", "lots"], "'lots' is not an amount of memory"),
        ("l.ome.zarr", ["--memory", "200MB"], "are too little"),
        ("l.tif", ["--memory", "200MB"], "are too little"),
    ],
)
def test_what_cannot_be(invoke, files, tmp_path, output, options, text):
    result = invoke("predict", files.model, files.image, "-o", tmp_path / output, *options)
    assert result.exit_code in (1, 2)
    assert text in " ".join(result.output.replace("│", " ").split())
    assert not list(tmp_path.iterdir()), "nothing was begun, and nothing is left"


class TestOtherFormats:
    def test_several_workers_write_them_through_an_ome_zarr_beside(self, invoke, files, tmp_path):
        output, likely = tmp_path / "l.tif", tmp_path / "p.ome.zarr"
        options = ["--workers", "2", "--memory", "6GB", "--probabilities", likely]
        done = invoke("predict", files.model, files.image, "-o", output, *options)
        assert done.exit_code == 0, done.output
        assert sorted(path.name for path in tmp_path.iterdir()) == ["l.tif", "p.ome.zarr"]
        expected = SparseSegmenter.load(files.model).predict(tifffile.imread(files.image))
        np.testing.assert_array_equal(tifffile.imread(output), expected)
        assert open_image(output).spacing == pytest.approx(open_image(files.image).spacing)

    def test_large_ones_are_written_piece_by_piece_and_resumed(self, invoke, files, tmp_path, monkeypatch):
        def fail(*_, **__):
            raise InputError("the disk is full")

        arguments = ["predict", files.model, files.image, "-o", tmp_path / "l.nii"]
        monkeypatch.setattr(_prediction, "MANY_VOXELS", 1)
        with monkeypatch.context() as patched:
            patched.setattr("napari_sparseseg.storage.formats.write_labels", fail)
            assert invoke(*arguments).exit_code == 1
        assert [path.name for path in tmp_path.iterdir()] == ["l.nii.unfinished"]
        monkeypatch.setattr(Job, "run", fail)  # all shards are there: none is predicted again
        done = invoke(*arguments)
        assert done.exit_code == 0, done.output
        assert [path.name for path in tmp_path.iterdir()] == ["l.nii"]

    def test_what_was_begun_piece_by_piece_goes_when_the_output_is_written_at_once(
        self, invoke, files, tmp_path, monkeypatch
    ):
        def interrupt(*_):
            raise KeyboardInterrupt

        arguments = ["predict", files.model, files.image, "-o", tmp_path / "l.tif"]
        with monkeypatch.context() as patched:
            patched.setattr(Job, "run", interrupt)
            assert invoke(*arguments, "--memory", "3GB").exit_code == 130
        assert [path.name for path in tmp_path.iterdir()] == ["l.tif.unfinished"]
        done = invoke(*arguments)
        assert done.exit_code == 0, done.output
        assert [path.name for path in tmp_path.iterdir()] == ["l.tif"]

    def test_pieces_that_cannot_be_removed_are_told_of(self, invoke, files, tmp_path, monkeypatch):
        def refuse(self, path):
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr(HeldFolder, "drop", refuse)
        done = invoke("predict", files.model, files.image, "-o", tmp_path / "l.tif", "--memory", "3GB")
        assert done.exit_code == 0, done.output
        assert "l.tif.unfinished is no longer needed" in " ".join(done.output.split())
        assert tifffile.imread(tmp_path / "l.tif").any()

    def test_killed_while_the_pieces_are_removed_it_takes_none_that_is_half_removed(
        self, invoke, files, tmp_path, monkeypatch
    ):
        remove = shutil.rmtree

        def remove_some_of_it(path, *args, **options):
            chunks = list(Path(path).rglob("c"))
            if not chunks:  # nothing that was predicted
                return remove(path, *args, **options)
            for folder in chunks:
                remove(folder)
            raise KeyboardInterrupt

        arguments = ["predict", files.model, files.image, "-o", tmp_path / "l.tif", "--memory", "3GB", "--overwrite"]
        with monkeypatch.context() as patched:
            patched.setattr(shutil, "rmtree", remove_some_of_it)
            assert invoke(*arguments).exit_code == 130
        expected = tifffile.imread(tmp_path / "l.tif")
        done = invoke(*arguments)
        assert done.exit_code == 0, done.output
        assert expected.any()
        np.testing.assert_array_equal(tifffile.imread(tmp_path / "l.tif"), expected)
        assert [path.name for path in tmp_path.iterdir()] == ["l.tif"]

    @pytest.mark.parametrize(("name", "step"), [("l.ome.tif", "replace"), ("l.ome.zarr", "rename")])
    def test_killed_while_the_output_is_replaced_nothing_is_left_by_the_next_run(
        self, invoke, files, tmp_path, monkeypatch, name, step
    ):
        series, output, put = tmp_path / "series.tif", tmp_path / "out" / name, getattr(Path, step)
        write_tiff(series, np.stack([tifffile.imread(files.image)] * 2), axes="TZYX")
        output.parent.mkdir()

        def kill(path, target):
            if Path(target) == output:
                raise KeyboardInterrupt
            return put(path, target)

        arguments = ["predict", files.model, series, "-o", output, "--memory", "3GB", "--overwrite"]
        assert invoke(*arguments).exit_code == 0
        with monkeypatch.context() as patched:
            patched.setattr(Path, step, kill)
            patched.setattr("napari_sparseseg.storage.atomic._discard", lambda partial: None)  # killed, it does nothing
            assert invoke(*arguments).exit_code == 130
        done = invoke(*arguments)
        assert done.exit_code == 0, done.output
        assert [path.name for path in output.parent.iterdir()] == [name]

    def test_one_command_at_a_time_writes_an_output(self, invoke, files, tmp_path, monkeypatch):
        others = []

        def write_while_another_tries(*args, **options):
            monkeypatch.undo()
            others.append(invoke(*arguments))
            write_labels(*args, **options)

        arguments = ["predict", files.model, files.image, "-o", tmp_path / "l.tif", "--memory", "3GB", "--overwrite"]
        monkeypatch.setattr("napari_sparseseg.storage.formats.write_labels", write_while_another_tries)
        done = invoke(*arguments)
        assert others[0].exit_code == 1
        assert "being predicted by another process" in " ".join(others[0].output.split())
        assert done.exit_code == 0, done.output
        assert tifffile.imread(tmp_path / "l.tif").any()
        assert [path.name for path in tmp_path.iterdir()] == ["l.tif"]

    @pytest.mark.skipif(os.name == "nt", reason="links need rights there")
    def test_nor_by_another_name_of_it(self, invoke, files, tmp_path):
        (tmp_path / "there").mkdir()
        (tmp_path / "link.tif").symlink_to(tmp_path / "there" / "l.tif")
        with closing(HeldFolder(tmp_path / "there" / "l.tif")):
            result = invoke("predict", files.model, files.image, "-o", tmp_path / "link.tif", "--memory", "3GB")
        assert result.exit_code == 1
        assert "being predicted by another process" in " ".join(result.output.split())

    def test_what_another_command_has_written_meanwhile_is_refused_at_once(self, invoke, files, tmp_path, monkeypatch):
        def write_and_open(*args, **options):
            (tmp_path / "l.tif").touch()
            return open_model(*args, **options)

        def fail(*_, **__):
            raise InputError("nothing is to be predicted")

        monkeypatch.setattr("napari_sparseseg.cli._images.open_model", write_and_open)
        monkeypatch.setattr(Job, "run", fail)
        result = invoke("predict", files.model, files.image, "-o", tmp_path / "l.tif", "--memory", "3GB")
        assert result.exit_code == 1
        assert "l.tif exists" in " ".join(result.output.split())
        assert [path.name for path in tmp_path.iterdir()] == ["l.tif"]

    @pytest.mark.parametrize("moment", ["_run_all", "make_plan"])
    def test_probabilities_that_another_program_has_written_meanwhile_are_not_replaced(
        self, invoke, files, tmp_path, monkeypatch, moment
    ):
        from napari_sparseseg.distributed import predict

        likely, original = tmp_path / "p.ome.zarr", getattr(predict, moment)

        def write_and_go_on(*args, **options):
            zarr.create_array(likely, data=np.full((2, 2), 7, np.uint8))
            return original(*args, **options)

        options = ["--memory", "3GB", "--probabilities", likely]
        arguments = ["predict", files.model, files.image, "-o", tmp_path / "l.tif", *options]
        with monkeypatch.context() as patched:
            patched.setattr(predict, moment, write_and_go_on)
            result = invoke(*arguments)
        assert result.exit_code == 1
        assert "p.ome.zarr exists" in " ".join(result.output.split())
        np.testing.assert_array_equal(zarr.open_array(likely, mode="r")[:], 7)
        assert not (tmp_path / "l.tif").exists()
        done = invoke(*arguments, "--overwrite")
        assert done.exit_code == 0, done.output
        assert sorted(path.name for path in tmp_path.iterdir()) == ["l.tif", "p.ome.zarr"]

    def test_a_piece_of_another_model_is_replaced_without_asking(self, invoke, files, tmp_path, monkeypatch):
        def fail(*_, **__):
            raise InputError("the disk is full")

        arguments = ["predict", files.model, files.image, "-o", tmp_path / "l.tif", "--memory", "3GB"]
        with monkeypatch.context() as patched:
            patched.setattr("napari_sparseseg.storage.formats.write_labels", fail)
            assert invoke(*arguments, "--spacing", "2,2,2").exit_code == 1
        done = invoke(*arguments)
        assert done.exit_code == 0, done.output
        assert [path.name for path in tmp_path.iterdir()] == ["l.tif"]

    @pytest.mark.parametrize("name", ["l.ome.tif", "l.npy", "l.ome.zarr"])
    def test_so_are_time_series(self, invoke, files, tmp_path, name):
        image = tifffile.imread(files.image)
        write_tiff(tmp_path / "series.tif", np.stack([image, image[::-1]]), axes="TZYX")
        series = ["predict", files.model, tmp_path / "series.tif", "-o"]
        for output, options in ((tmp_path / "a" / name, []), (tmp_path / "b" / name, ["--memory", "6GB"])):
            output.parent.mkdir()
            done = invoke(*series, output, *options)
            assert done.exit_code == 0, done.output
            assert [path.name for path in output.parent.iterdir()] == [name]
        a, b = (open_image(tmp_path / folder / name, axes="TZYX").array[:, :, :, :] for folder in "ab")
        np.testing.assert_array_equal(a, b)
