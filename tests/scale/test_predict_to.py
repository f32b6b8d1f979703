"""Prediction into an OME-Zarr by this process: what is written, and going on after an interruption."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import zarr
from ome_zarr_models.v05.image import Image
from ome_zarr_models.v05.image_label import ImageLabel
from volumes import SHAPE, Slow, digest, make_image

from napari_sparseseg import InputError, SparseSegmenter
from napari_sparseseg._types import Box
from napari_sparseseg.distributed import job as job_module
from napari_sparseseg.distributed import plan as plan_module
from napari_sparseseg.distributed import predict as predict_module
from napari_sparseseg.distributed.predict import Amendment, make_request, predict_volume
from napari_sparseseg.errors import InputTypeError, InputWarning
from napari_sparseseg.storage.durable import RealDisk
from napari_sparseseg.storage.formats import open_image
from napari_sparseseg.storage.unfinished import Unfinished

N_SHARDS = 5 + 2 + 1  # of three levels


@pytest.fixture
def interrupted(monkeypatch):
    """Let a prediction fail before its n-th shard, counted from 0, and any later one."""

    def interrupt(n):
        run, done = job_module.Job.run, []

        def run_or_fail(self, task, *on_tile):
            if len(done) == n:
                raise KeyboardInterrupt
            done.append(task)
            return run(self, task, *on_tile)

        monkeypatch.setattr(job_module.Job, "run", run_or_fail)

    yield interrupt
    monkeypatch.undo()


def names_in(folder):
    return [path.name for path in folder.iterdir()]


def level(path, number=0):
    return np.asarray(zarr.open_group(path, mode="r")[str(number)])


class TestWhatIsWritten:
    def test_labels_are_those_of_predict_and_levels_are_taken_from_them(self, segmenter, whole):
        done, labels = whole, level(whole.labels)
        np.testing.assert_array_equal(labels, segmenter.predict(make_image()))
        assert labels.dtype == np.uint8
        assert set(np.unique(labels)) == {3, 7}
        np.testing.assert_array_equal(level(done.labels, 1), labels[::2, ::2, ::2])
        np.testing.assert_array_equal(level(done.labels, 2), labels[::4, ::4, ::4])
        assert done.n_voxels == {3: (labels == 3).sum(), 7: (labels == 7).sum()}
        assert (done.n_shards, done.n_resumed) == (N_SHARDS, 0)
        assert sorted(names_in(done.labels.parent)) == ["labels.ome.zarr", "labels_probabilities.ome.zarr"]

    def test_probabilities_beside_the_labels(self, segmenter, whole):
        found = level(whole.probabilities)
        np.testing.assert_allclose(found, segmenter.predict_proba(make_image()) * 255, atol=0.6)
        cells = found.reshape(2, 4, 2, 20, 2, 260, 2).mean((2, 4, 6))
        np.testing.assert_allclose(level(whole.probabilities, 1), cells, atol=0.6)

    def test_files_are_valid_and_carry_size_and_place(self, segmenter, tmp_path):
        done = segmenter.predict_to(
            make_image(),
            tmp_path / "a.zarr",
            probabilities=True,
            spacing=(2, 0.5, 0.5),
            offset=(10, 0, 1),
            unit="nanometer",
        )
        labels = ImageLabel.from_zarr(zarr.open_group(done.labels, mode="r")).attributes.ome.multiscales[0]
        likely = Image.from_zarr(zarr.open_group(done.probabilities, mode="r")).attributes.ome.multiscales[0]
        assert [axis.name for axis in likely.axes] == ["c", "z", "y", "x"]
        assert [transform.model_dump() for transform in labels.datasets[1].coordinateTransformations] == [
            {"type": "scale", "scale": [2.0, 1.0, 1.0]},
            {"type": "translation", "translation": [10.0, 0.0, 1.0]},
        ]
        assert likely.datasets[1].coordinateTransformations[1].translation == [0.0, 10.0, 0.25, 1.25]
        opened = open_image(done.labels)
        assert (opened.axes, opened.spacing, opened.unit) == ("ZYX", (2.0, 0.5, 0.5), "nanometer")

    def test_another_reader_reads_the_same(self, whole):
        tensorstore = pytest.importorskip("tensorstore", reason="reads zarr without zarr-python")
        store = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(whole.labels / "0")}}
        found = tensorstore.open(store, read=True).result().read().result()
        np.testing.assert_array_equal(found, level(whole.labels))

    def test_planes_and_channels(self, tmp_path):
        image = np.stack([make_image(shape=(80, 300)), make_image(1, shape=(80, 300))], axis=-1)
        annotation = np.zeros((80, 300), np.uint8)
        annotation[:40, :50], annotation[40:, :50] = 1, 2
        segmenter = SparseSegmenter(channel_axis=-1, random_state=0).fit(image, annotation, max_steps=0)
        done = segmenter.predict_to(image, tmp_path / "a.zarr", probabilities=tmp_path / "p.zarr")
        np.testing.assert_array_equal(level(done.labels), segmenter.predict(image))
        assert level(done.probabilities, 1).shape == (2, 40, 150)

    def test_tiles_smaller_than_shards(self, model_file, tmp_path):
        segmenter = SparseSegmenter.load(model_file).set_params(prediction__tile_voxels=20000)
        done = segmenter.predict_to(make_image(), tmp_path / "a.zarr")
        np.testing.assert_array_equal(level(done.labels), segmenter.predict(make_image()))


class TestResuming:
    @pytest.mark.parametrize("n", [1, 6, N_SHARDS - 1])
    def test_after_any_shard_it_goes_on_to_the_same_bytes(
        self, segmenter, whole, tmp_path, interrupted, monkeypatch, n
    ):
        outputs = {"store": tmp_path / "labels.ome.zarr", "probabilities": True}
        interrupted(n)
        with pytest.raises(KeyboardInterrupt):
            segmenter.predict_to(make_image(), **outputs)
        assert names_in(tmp_path) == ["labels.ome.zarr.unfinished"]
        monkeypatch.undo()
        monkeypatch.setattr(plan_module, "_SHARD_VOXELS", (1 << 30,) * 3)  # the manifest says how it is cut
        done = segmenter.predict_to(make_image(), **outputs)
        assert (done.n_resumed, done.n_voxels) == (n, whole.n_voxels)
        for found, expected in ((done.labels, whole.labels), (done.probabilities, whole.probabilities)):
            assert digest(found) == digest(expected)
        assert not (tmp_path / "labels.ome.zarr.unfinished").exists()

    def test_what_is_finished_is_not_done_again(self, segmenter, tmp_path, interrupted):
        first = segmenter.predict_to(make_image(), tmp_path / "a.zarr")
        interrupted(0)
        again = segmenter.predict_to(make_image(), tmp_path / "a.zarr")
        assert (again.n_resumed, again.n_voxels) == (N_SHARDS, first.n_voxels)

    def test_a_single_voxel_that_changed_is_noticed(self, segmenter, tmp_path):
        segmenter.predict_to(make_image(), tmp_path / "a.zarr")
        changed = make_image()
        changed[0, 1, 2] += 1
        with pytest.raises(InputError, match="exists; pass overwrite=True"):
            segmenter.predict_to(changed, tmp_path / "a.zarr")
        assert segmenter.predict_to(changed, tmp_path / "a.zarr", overwrite=True).n_resumed == 0

    def test_where_changes_may_go_unnoticed_it_is_said_that_the_result_is_kept(self, segmenter, tmp_path):
        image = da.from_array(make_image())
        segmenter.predict_to(image, tmp_path / "a.zarr")
        with pytest.warns(InputWarning, match="is kept in .*some voxels of the image .*begin again"):
            again = segmenter.predict_to(image, tmp_path / "a.zarr", overwrite=True)
        assert again.n_resumed == N_SHARDS

    def test_other_probabilities_are_not_taken_for_the_finished_ones(self, segmenter, tmp_path):
        options = {"probabilities": tmp_path / "p.zarr", "overwrite": True}
        segmenter.predict_to(make_image(), tmp_path / "a.zarr", **options)
        zarr.create_array(tmp_path / "p.zarr", data=np.full((3, 3), 7), overwrite=True)
        assert segmenter.predict_to(make_image(), tmp_path / "a.zarr", **options).n_resumed == 0
        assert level(tmp_path / "p.zarr").shape[1:] == SHAPE

    @pytest.mark.parametrize("n_bytes", [0, 100])
    def test_a_result_whose_metadata_was_cut_short_counts_as_another_one(self, segmenter, whole, tmp_path, n_bytes):
        shutil.copytree(whole.labels, tmp_path / "a.zarr")
        metadata = tmp_path / "a.zarr" / "zarr.json"
        metadata.write_bytes(metadata.read_bytes()[:n_bytes])
        with pytest.raises(InputError, match="exists; pass overwrite=True"):
            segmenter.predict_to(make_image(), tmp_path / "a.zarr")
        assert segmenter.predict_to(make_image(), tmp_path / "a.zarr", overwrite=True).n_resumed == 0

    @pytest.mark.parametrize("what", ["image", "settings", "model"])
    def test_whatever_changed_begins_again(self, segmenter, tmp_path, interrupted, monkeypatch, what):
        interrupted(3)
        with pytest.raises(KeyboardInterrupt):
            segmenter.predict_to(make_image(), tmp_path / "a.zarr")
        monkeypatch.undo()
        image = make_image(seed=1) if what == "image" else make_image()
        if what == "model":
            segmenter._fitted.network.context = 0.123
        with pytest.warns(InputWarning, match=f"the {what}.* changed .* 3 finished shards are dropped"):
            done = segmenter.predict_to(image, tmp_path / "a.zarr", spacing=(2, 2, 2) if what == "settings" else None)
        assert done.n_resumed == 0
        np.testing.assert_array_equal(level(done.labels), segmenter.predict(image))

    @pytest.mark.parametrize("overwrite", [False, True])
    def test_killed_between_probabilities_and_labels_it_puts_the_labels_in_their_place(
        self, segmenter, whole, tmp_path, monkeypatch, overwrite
    ):
        outputs = {"store": tmp_path / "labels.ome.zarr", "probabilities": True}
        replace = Unfinished._replace

        def replace_or_fail(self, source, target):
            if target.name == "labels.ome.zarr":
                raise KeyboardInterrupt
            replace(self, source, target)

        monkeypatch.setattr(Unfinished, "_replace", replace_or_fail)
        with pytest.raises(KeyboardInterrupt):
            segmenter.predict_to(make_image(), **outputs)
        monkeypatch.undo()
        done = segmenter.predict_to(make_image(), **outputs, overwrite=overwrite)
        assert (done.n_resumed, done.n_voxels) == (N_SHARDS, whole.n_voxels)
        assert digest(done.labels) == digest(whole.labels)
        assert sorted(names_in(tmp_path)) == ["labels.ome.zarr", "labels_probabilities.ome.zarr"]

    def test_killed_before_the_source_of_probabilities_on_another_disk_is_removed_it_puts_the_labels_in_their_place(
        self, segmenter, whole, tmp_path, monkeypatch
    ):
        def copy_and_be_killed(self, source, target):
            shutil.copytree(source, target)
            raise KeyboardInterrupt

        outputs = {"store": tmp_path / "labels.ome.zarr", "probabilities": True}
        monkeypatch.setattr(Unfinished, "_replace", copy_and_be_killed)
        with pytest.raises(KeyboardInterrupt):
            segmenter.predict_to(make_image(), **outputs)
        monkeypatch.undo()
        done = segmenter.predict_to(make_image(), **outputs)
        assert (done.n_resumed, done.n_voxels) == (N_SHARDS, whole.n_voxels)
        assert digest(done.labels) == digest(whole.labels)
        assert sorted(names_in(tmp_path)) == ["labels.ome.zarr", "labels_probabilities.ome.zarr"]

    def test_where_what_was_begun_is_gone_it_begins_again(self, segmenter, whole, tmp_path, interrupted, monkeypatch):
        outputs = {"store": tmp_path / "labels.ome.zarr", "probabilities": True}
        interrupted(3)
        with pytest.raises(KeyboardInterrupt):
            segmenter.predict_to(make_image(), **outputs)
        monkeypatch.undo()
        (begun,) = tmp_path.glob("labels.ome.zarr.unfinished/probabilities*.zarr")
        shutil.rmtree(begun)
        done = segmenter.predict_to(make_image(), **outputs)
        assert done.n_resumed == 0
        np.testing.assert_array_equal(level(done.probabilities), level(whole.probabilities))

    def test_what_a_run_that_was_killed_at_its_end_has_left_is_removed(self, segmenter, tmp_path, monkeypatch):
        segmenter.predict_to(make_image(seed=1), tmp_path / "a.zarr")
        remove = RealDisk.remove

        def remove_or_fail(self, path):
            if path.name.endswith(".old") and path.exists():
                raise KeyboardInterrupt
            remove(self, path)

        monkeypatch.setattr(RealDisk, "remove", remove_or_fail)
        with pytest.raises(KeyboardInterrupt):
            segmenter.predict_to(make_image(), tmp_path / "a.zarr", overwrite=True)
        monkeypatch.undo()
        assert len(names_in(tmp_path)) == 3
        assert segmenter.predict_to(make_image(), tmp_path / "a.zarr").n_resumed == N_SHARDS
        assert names_in(tmp_path) == ["a.zarr"]

    def test_what_is_under_way_of_something_else_stays(self, segmenter, tmp_path, interrupted, monkeypatch):
        segmenter.predict_to(make_image(), tmp_path / "a.zarr")
        interrupted(3)
        with pytest.raises(KeyboardInterrupt):
            segmenter.predict_to(make_image(seed=1), tmp_path / "a.zarr", overwrite=True)
        monkeypatch.undo()
        assert segmenter.predict_to(make_image(), tmp_path / "a.zarr").n_resumed == N_SHARDS
        assert segmenter.predict_to(make_image(seed=1), tmp_path / "a.zarr", overwrite=True).n_resumed == 3

    def test_what_workers_of_a_run_that_was_stopped_still_write_gets_nowhere(self, segmenter, tmp_path, monkeypatch):
        run, stopped = job_module.Job.run, []

        def run_and_stop(self, task, *on_tile):
            stopped.append(self)
            run(self, task, *on_tile)
            raise KeyboardInterrupt

        def run_beside_the_other(self, task, *on_tile):
            n_voxels = run(self, task, *on_tile)
            with pytest.raises(InputError, match="could not be written"):
                run(stopped[0], task)
            return n_voxels

        monkeypatch.setattr(job_module.Job, "run", run_and_stop)
        with pytest.raises(KeyboardInterrupt):
            segmenter.predict_to(make_image(), tmp_path / "a.zarr")
        monkeypatch.setattr(job_module.Job, "run", run_beside_the_other)
        with pytest.warns(InputWarning, match="the image changed"):
            done = segmenter.predict_to(make_image(seed=1), tmp_path / "a.zarr")
        np.testing.assert_array_equal(level(done.labels), segmenter.predict(make_image(seed=1)))
        assert names_in(tmp_path) == ["a.zarr"]

    def test_on_wish_it_begins_again(self, segmenter, tmp_path, interrupted, monkeypatch):
        interrupted(3)
        with pytest.raises(KeyboardInterrupt):
            segmenter.predict_to(make_image(), tmp_path / "a.zarr")
        monkeypatch.undo()
        assert segmenter.predict_to(make_image(), tmp_path / "a.zarr", resume=False).n_resumed == 0

    def test_what_is_known_better_is_in_all_levels_even_after_an_interruption(self, segmenter, whole, tmp_path):
        known, wanted = Box((2, 10, 60), (6, 30, 500)), level(whole.labels)
        wanted[known.slices] = 9

        def amended(fails_at=None):
            changed = []

            def change(box, labels):
                if len(changed) == fails_at:
                    raise KeyboardInterrupt
                changed.append(box)
                common = known.clipped(box)
                labels[common.relative_to(box.start).slices] = 9
                return labels

            prediction = segmenter._prediction(make_image())
            request = make_request(
                prediction.volume, make_image(), tmp_path / "a.zarr", probabilities=False, spacing=None, offset=None,
                unit=None, workers=1, memory=None, tile_voxels=1 << 22, device="cpu", resume=True, overwrite=True,
                progress=False,
            )  # fmt: skip
            amendment = Amendment(lambda: [known], change)
            done = predict_volume(
                request, prediction.fitted, prediction.intensity(), segmenter.save, amendment=amendment
            )
            return done, len(changed)

        with pytest.raises(KeyboardInterrupt):
            amended(fails_at=2)
        done, n_changed = amended()
        assert n_changed == 4
        assert done.n_resumed == 1  # what was to be changed is predicted again
        np.testing.assert_array_equal(level(done.labels), wanted)
        np.testing.assert_array_equal(level(done.labels, 1), wanted[::2, ::2, ::2])
        assert done.n_voxels[9] == known.n_voxels

    def test_killed_it_goes_on(self, segmenter, model_file, whole, tmp_path):
        image = make_image()
        np.save(tmp_path / "image.npy", image)
        program = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
import numpy as np
from volumes import Slow
from napari_sparseseg import SparseSegmenter
from napari_sparseseg.distributed import plan
plan._SHARD_VOXELS = (1, 1, 1)
image = Slow(np.load({str(tmp_path / "image.npy")!r}), 0.2)
SparseSegmenter.load({str(model_file)!r}).predict_to(image, {str(tmp_path / "a.zarr")!r})
"""
        process = subprocess.Popen([sys.executable, "-c", program])
        listed = tmp_path / "a.zarr.unfinished" / "finished.jsonl"
        while process.poll() is None and not (listed.exists() and listed.stat().st_size):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        with pytest.warns(InputWarning, match="some voxels of the image were compared"):
            done = segmenter.predict_to(Slow(image, 0), tmp_path / "a.zarr")
        assert 0 < done.n_resumed < N_SHARDS
        for number in "012":
            assert digest(done.labels / number) == digest(whole.labels / number)


class TestRefusals:
    def test_another_result_is_replaced_only_on_wish(self, segmenter, tmp_path):
        segmenter.predict_to(make_image(), tmp_path / "a.zarr")
        with pytest.raises(InputError, match="exists; pass overwrite=True"):
            segmenter.predict_to(make_image(seed=1), tmp_path / "a.zarr")
        done = segmenter.predict_to(make_image(seed=1), tmp_path / "a.zarr", overwrite=True)
        np.testing.assert_array_equal(level(done.labels), segmenter.predict(make_image(seed=1)))
        assert names_in(tmp_path) == ["a.zarr"]

    @pytest.mark.parametrize("name", ["a.zarr", "p.zarr"])
    @pytest.mark.parametrize("is_file", [True, False])
    def test_what_appeared_meanwhile_is_not_replaced(self, segmenter, tmp_path, monkeypatch, name, is_file):
        run, outputs = job_module.Job.run, {"store": tmp_path / "a.zarr", "probabilities": tmp_path / "p.zarr"}

        def run_while_somebody_writes(self, task, *on_tile):
            if is_file:
                (tmp_path / name).write_text("hours of work")
            else:
                zarr.create_array(tmp_path / name, data=np.full((3, 3), 7), overwrite=True)
            return run(self, task, *on_tile)

        monkeypatch.setattr(job_module.Job, "run", run_while_somebody_writes)
        with pytest.raises(InputError, match=f"{name} exists.* is kept in .*a.zarr.unfinished"):
            segmenter.predict_to(make_image(), **outputs, overwrite=is_file)
        monkeypatch.undo()
        assert sorted(names_in(tmp_path)) == sorted([name, "a.zarr.unfinished"])
        if is_file:
            assert (tmp_path / name).read_text() == "hours of work"
            (tmp_path / name).unlink()
        else:
            np.testing.assert_array_equal(zarr.open_array(tmp_path / name, mode="r"), 7)
            shutil.rmtree(tmp_path / name)
        assert segmenter.predict_to(make_image(), **outputs).n_resumed == N_SHARDS
        assert sorted(names_in(tmp_path)) == ["a.zarr", "p.zarr"]

    @pytest.mark.parametrize("overwrite", [True, False])
    def test_what_another_process_completed_meanwhile_is_taken(self, segmenter, tmp_path, monkeypatch, overwrite):
        shares = predict_module._shares

        def predict_elsewhere(*args):
            monkeypatch.undo()
            segmenter.predict_to(make_image(), tmp_path / "a.zarr")
            return shares(*args)

        monkeypatch.setattr(predict_module, "_shares", predict_elsewhere)
        assert segmenter.predict_to(make_image(), tmp_path / "a.zarr", overwrite=overwrite).n_resumed > 0
        assert names_in(tmp_path) == ["a.zarr"]

    def test_one_process_at_a_time(self, segmenter, tmp_path):
        held = Unfinished(tmp_path / "a.zarr")
        with pytest.raises(InputError, match="being predicted by another process"):
            segmenter.predict_to(make_image(), tmp_path / "a.zarr")
        held.close()

    @pytest.mark.parametrize(
        ("options", "error", "text"),
        [
            ({"store": "a.tif"}, InputError, "end it with .ome.zarr"),
            ({"store": "none/a.zarr"}, InputError, "no folder"),
            ({"store": 3}, InputTypeError, "path"),
            ({"workers": 0}, InputError, "workers=0"),
            ({"workers": 1.5}, InputTypeError, "workers"),
            ({"memory": "much"}, InputError, "'much' is not an amount"),
            ({"memory": "100MB"}, InputError, r"give \d+ MB or more"),
            ({"probabilities": "a.zarr"}, InputError, "different names"),
            ({"offset": (1, 2)}, InputError, "offset"),
            ({"spacing": (1, -2, 1)}, InputError, "spacing"),
            ({"client": "tcp://127.0.0.1:9"}, InputError, "no Dask scheduler at tcp://127.0.0.1:9"),
        ],
    )
    def test_what_cannot_be_used(self, segmenter, tmp_path, monkeypatch, options, error, text):
        from napari_sparseseg.distributed import cluster

        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(cluster, "_PATIENCE", 1)
        with pytest.raises(error, match=text):
            segmenter.predict_to(make_image(), options.pop("store", "a.zarr"), **options)
        assert not (tmp_path / "a.zarr").exists()

    def test_a_full_disk_is_told_and_what_was_done_is_kept(self, segmenter, tmp_path, monkeypatch):
        from napari_sparseseg.storage import sharded

        write, done = sharded.ShardedImage.write, []

        def write_or_fail(self, *args):
            if len(done) == 2:
                raise OSError(28, "No space left on device")
            done.append(args)
            write(self, *args)

        monkeypatch.setattr(sharded.ShardedImage, "write", write_or_fail)
        with pytest.raises(InputError, match=r"No space left on device.*room on the disk"):
            segmenter.predict_to(make_image(), tmp_path / "a.zarr")
        monkeypatch.undo()
        assert segmenter.predict_to(make_image(), tmp_path / "a.zarr").n_resumed == 2

    def test_a_manifest_that_cannot_be_read_is_begun_again(self, segmenter, tmp_path):
        folder = tmp_path / "a.zarr.unfinished"
        folder.mkdir()
        (folder / "manifest.json").write_text(json.dumps({"version": 2}))
        (folder / "notes.txt").write_text("mine")
        assert segmenter.predict_to(make_image(), tmp_path / "a.zarr").n_shards == N_SHARDS
        assert names_in(folder) == ["notes.txt"]
        assert level(tmp_path / "a.zarr").shape == SHAPE
