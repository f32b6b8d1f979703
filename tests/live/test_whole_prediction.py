"""All of an image is predicted into its project, in the background, and goes on where it was interrupted."""

from __future__ import annotations

import shutil
import time

import numpy as np
import pytest
import zarr
from distributed import LocalCluster
from livekit import PATIENCE, make_image, make_truth, paint_both, rest, view_of

from napari_sparseseg import SparseSegmenter
from napari_sparseseg._types import Box, Region
from napari_sparseseg.distributed import plan
from napari_sparseseg.errors import InputError, NotFittedError, ProjectError
from napari_sparseseg.live import whole
from napari_sparseseg.live.events import WholeState
from napari_sparseseg.storage.formats import open_image
from napari_sparseseg.storage.project.manifest import LayerPlace
from napari_sparseseg.storage.project.project import Project

SHAPE = (12, 40, 400)  # four shards of the smallest size


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(plan, "_SHARD_VOXELS", (1, 1, 1))
    monkeypatch.setattr(whole, "_TELL_EVERY", 0.0)


@pytest.fixture
def volume():
    return make_image(make_truth(SHAPE))


@pytest.fixture
def opened(make_live, volume, tmp_path):
    """``opened(image)``: a live segmenter on a project; the second time, on the same one."""
    path, projects = tmp_path / "cells.sparseseg", []

    def do(image=volume, **options):
        is_new = not path.exists()
        project = Project.create(path) if is_new else Project.open(path)
        projects.append(project)
        time_axis = options.get("time_axis")
        n_frames = 1 if time_axis is None else image.shape[time_axis]
        if is_new:
            place = LayerPlace(translate=(0.01, 20.0, 30.0), units=("millimeter", "micrometer", "micrometer"))
            project.add_image(image, shape=(n_frames, *SHAPE), time_axis=time_axis, place=place)
        live = make_live()
        live.wholes = []
        live.events.whole_changed.connect(live.wholes.append)
        live.open(image, project=project.images[0], spacing=(2.0, 0.5, 0.5), **options)
        return live, project

    yield do
    for project in projects:
        project.close()


def learn(live, steps=8):
    live.look_at(view_of(SHAPE))
    paint_both(live)
    live.heard.wait_for_step(steps)
    rest(live)


def wait_for(live, *states):
    deadline = time.monotonic() + PATIENCE
    while live.whole.status.state not in states:
        assert time.monotonic() < deadline, live.whole.status
        assert WholeState.UNFINISHED in states or not live.whole.status.text or live.whole.is_running
        time.sleep(0.01)
    return live.whole.status


def stop_at(live, share):
    """Stop as soon as so much is done."""
    live.events.whole_changed.connect(
        lambda status: live.whole.stop() if status.state is WholeState.RUNNING and status.share >= share else None
    )


def expected_of(live, model, volume):
    """What a model predicts, and the paint over it."""
    labels = SparseSegmenter.load(model, device="cpu").predict(volume)
    return np.where(live.codes[0] > 0, live.codes[0], labels)


def found_in(path, level=0):
    return zarr.open_group(path, mode="r")[str(level)][:]


def test_it_is_what_the_saved_model_predicts(opened, volume, tmp_path):
    live, _ = opened()
    learn(live)
    live.whole.start()
    status = wait_for(live, WholeState.DONE)
    (path,) = status.paths
    live.save_model(tmp_path / "model.safetensors")
    expected = expected_of(live, tmp_path / "model.safetensors", volume)
    np.testing.assert_array_equal(found_in(path), expected)
    np.testing.assert_array_equal(found_in(path, 1), expected[:, ::2, ::2])  # voxels are long along z
    written = open_image(path)
    assert (written.spacing, written.offset, written.unit) == ((2.0, 0.5, 0.5), (10.0, 20.0, 30.0), "micrometer")
    shares = [status.share for status in live.wholes]
    assert shares == sorted(shares)
    assert any("left" in status.text for status in live.wholes)
    assert not live.heard.failures


def test_workers_of_a_cluster_predict_the_same(opened, volume, tmp_path):
    live, _ = opened()
    learn(live)
    live.save_model(tmp_path / "model.safetensors")
    options = {"memory_limit": 0, "dashboard_address": "127.0.0.1:0", "host": "127.0.0.1"}
    with LocalCluster(n_workers=2, threads_per_worker=1, **options) as cluster:
        live.configure(device=cluster.scheduler_address)
        live.whole.start()
        (path,) = wait_for(live, WholeState.DONE).paths
    np.testing.assert_array_equal(found_in(path), expected_of(live, tmp_path / "model.safetensors", volume))
    assert any("left" in status.text for status in live.wholes)
    assert not live.heard.failures


def test_painting_and_learning_go_on_meanwhile(opened):
    live, _ = opened()
    learn(live)
    live.start()
    live.whole.start()
    live.heard.wait_for_step(3)
    wait_for(live, WholeState.DONE)
    live.heard.wait_for_step(3)


def test_stopped_and_opened_again_it_goes_on_with_the_model_of_then(opened, volume):
    live, project = opened()
    learn(live)
    stop_at(live, 0.5)
    live.whole.start()
    stopped = wait_for(live, WholeState.UNFINISHED)
    assert 0.2 < stopped.share < 1
    assert stopped.paths == ()
    live.start()
    live.heard.wait_for_step(5)  # the model changes
    live.close()
    project.close()

    live, project = opened()
    assert live.whole.status.state is WholeState.UNFINISHED
    assert live.whole.status.share == stopped.share
    expected = expected_of(live, project.images[0].whole.model, volume)
    live.whole.go_on()
    done = wait_for(live, WholeState.DONE)
    np.testing.assert_array_equal(found_in(done.paths[0]), expected)
    assert min(status.share for status in live.wholes if status.state is WholeState.RUNNING) >= stopped.share


def test_begun_anew_it_takes_the_model_as_it_is(opened, volume):
    live, _ = opened()
    learn(live)
    live.whole.start()
    before = wait_for(live, WholeState.DONE)
    live.start()
    live.heard.wait_for_step(10)
    rest(live)
    live.whole.start()
    assert live.whole.status.paths == before.paths  # the older one stays until the newer one is complete
    wait_for(live, WholeState.DONE)
    expected = expected_of(live, live.project.whole.path / "done" / "model.safetensors", volume)
    np.testing.assert_array_equal(found_in(before.paths[0]), expected)


def test_paint_counts_more_than_what_is_predicted(opened):
    live, _ = opened()
    learn(live)
    live.auto_start = False
    wrong, not_object = Box((2, 3, 210), (5, 20, 330)), Box((5, 15, 150), (7, 25, 170))
    live.annotate(Region(0, wrong), 1 + int(live.labels(0)[3, 10, 250] == 1))
    live.correct(Region(0, not_object), 0, shown=np.full(not_object.shape, 2, np.uint8))
    live.whole.start()
    (path,) = wait_for(live, WholeState.DONE).paths
    np.testing.assert_array_equal(found_in(path)[wrong.slices], live.codes[0][wrong.slices])
    assert not (found_in(path)[not_object.slices] == 2).any()


def test_time_points_become_files_of_their_own(opened, volume):
    series = np.stack([volume, volume[:, ::-1]], axis=1)
    live, _ = opened(series, time_axis=1)
    learn(live)
    live.whole.start()
    done = wait_for(live, WholeState.DONE)
    first, second = map(found_in, done.paths)
    assert first.shape == second.shape == SHAPE
    assert np.mean(first == second[:, ::-1]) > 0.9


def test_a_new_one_that_fails_leaves_the_older_one(opened, monkeypatch):
    live, _ = opened()
    learn(live)
    live.whole.start()
    before = wait_for(live, WholeState.DONE)
    assert [status.is_new for status in live.wholes].count(True) == 1
    live.configure(device="tcp://127.0.0.1:9")
    monkeypatch.setattr("napari_sparseseg.distributed.cluster._PATIENCE", 0.5)
    live.whole.start()
    live.heard.wait_until(lambda: live.heard.failures, "for the failure")
    assert "no Dask scheduler" in live.heard.failures[0]
    after = live.whole.status
    assert after.paths == before.paths
    assert not after.is_new
    assert after.state is WholeState.UNFINISHED
    assert (found_in(after.paths[0]) > 0).all()


def test_a_hostile_folder_is_no_trouble(opened):
    live, project = opened()
    folder = project.images[0].whole
    unfinished = folder.path / "next" / "0000.ome.zarr.unfinished"
    (unfinished / "manifest.json").mkdir(parents=True)
    folder.model.touch()
    (unfinished / "finished.jsonl").write_text("5\n[[0, 0, 0, 0], [1]]\n")
    live.close()
    project.close()
    live, _ = opened()
    assert live.whole.status.share == 0


def test_closed_it_does_not_start(opened):
    live, _ = opened()
    learn(live)
    live.close()
    with pytest.raises(InputError, match="was closed"):
        live.whole.start()
    assert not live.whole.is_running


def test_another_image_ends_it(opened, make_live):
    live, _ = opened()
    learn(live)
    live.whole.start()
    live.open(make_image(make_truth()))
    assert live.whole.status.state is WholeState.NONE
    with pytest.raises(InputError, match="no project"):
        live.whole.start()


def test_what_fails_is_told_and_goes_on_later(opened):
    live, project = opened()
    learn(live)
    saved = project.images[0].whole.model
    stop_at(live, 0.3)
    live.whole.start()
    wait_for(live, WholeState.UNFINISHED)
    live.events.whole_changed.disconnect()  # nobody stops it any more
    model = saved.read_bytes()
    saved.write_bytes(b"damaged")
    live.whole.go_on()
    live.heard.wait_until(lambda: live.heard.failures, "for the failure")
    assert "not predicted to its end" in live.heard.failures[0]
    assert wait_for(live, WholeState.UNFINISHED).text
    saved.write_bytes(model)
    live.whole.go_on()
    wait_for(live, WholeState.DONE)


def test_without_image_model_or_beginning_it_is_refused(opened, make_live):
    with pytest.raises(InputError, match="no image"):
        make_live().whole.start()
    live, _ = opened()
    with pytest.raises(NotFittedError, match="no model"):
        live.whole.start()
    with pytest.raises(InputError, match="go on with"):
        live.whole.go_on()
    live.whole.stop()  # nothing to stop
    assert live.whole.status.state is WholeState.NONE


def test_no_link_leads_out_of_the_project(opened, tmp_path):
    live, project = opened()
    learn(live)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").touch()
    folder = project.images[0].whole.path
    stop_at(live, 0.3)
    live.whole.start()
    wait_for(live, WholeState.UNFINISHED)
    live.events.whole_changed.disconnect()  # nobody stops it any more
    (folder / "next" / "0000.ome.zarr.unfinished" / "planted").symlink_to(elsewhere)
    live.whole.go_on()
    live.heard.wait_until(lambda: live.heard.failures, "for the failure")
    assert "planted is a link" in live.heard.failures[0]
    live.whole.start()  # drops what was under way, and the link with it
    wait_for(live, WholeState.DONE)
    assert (elsewhere / "precious").exists()
    target = folder / "next" / "0000.ome.zarr.unfinished"
    (elsewhere / "file").touch()
    for name in ("manifest.json", "finished.jsonl", "."):
        target.mkdir(parents=True)
        if name == ".":
            target.rmdir()
            target.symlink_to(elsewhere)
        else:
            (target / name).symlink_to(elsewhere / "file")
        live.whole.look()
        assert "is a link" in live.whole.status.text
        if name == ".":
            target.unlink()
        else:
            shutil.rmtree(target)
    live.close()
    project.close()
    shutil.rmtree(folder)
    folder.symlink_to(elsewhere)
    with pytest.raises(ProjectError, match="is a link"):
        Project.open(project.path)
