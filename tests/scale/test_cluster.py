"""Prediction by workers of a Dask cluster: the same bytes, whoever dies."""

from __future__ import annotations

import os
import subprocess
import sys

import dask
import dask.array as da
import h5py
import numpy as np
import pytest
import zarr
from distributed.client import Future, FutureCancelledError
from volumes import Deadly, digest, make_image

from napari_sparseseg import InputError
from napari_sparseseg.distributed import cluster as module
from napari_sparseseg.distributed import job as job_module
from napari_sparseseg.distributed import predict
from napari_sparseseg.storage.series import Arranged
from napari_sparseseg.storage.window import save_mapped


@pytest.fixture(scope="module")
def client():
    """Two workers on this machine."""
    with module.local_client(2) as client:
        yield client


@pytest.fixture
def expected(whole):
    """What one process writes."""
    return written(whole.labels)


def written(path):
    return digest(path / "0") | digest(path / "1")


@pytest.mark.parametrize("kind", ["zarr", "lazy dask", "numpy", "dask", "series"])
def test_two_workers_write_the_bytes_of_one(client, segmenter, expected, tmp_path, kind, monkeypatch):
    image, copies = make_image(), []
    if "zarr" in kind or "lazy" in kind:
        image = zarr.create_array(tmp_path / "image.zarr", data=image, chunks=(8, 20, 100))
    if "dask" in kind:
        image = da.from_array(image, chunks=(8, 20, 100))
    if kind == "series":
        image = Arranged(np.stack([image, image]), (1, 2, 3), {0: 1})
    monkeypatch.setattr(predict, "_MOST_SENT", 20_000)
    monkeypatch.setattr(predict, "save_mapped", lambda *of: (copies.append(of), save_mapped(*of)))
    done = segmenter.predict_to(image, tmp_path / "a.zarr", client=client)
    assert done.n_resumed == 0
    assert written(done.labels) == expected
    assert len(copies) == (kind in ("numpy", "dask", "series")), "voxels in memory go into a file, files do not"
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("a.")) == ["a.zarr"]


def test_a_script_without_a_guard_is_told_of_it(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from napari_sparseseg.distributed.cluster import local_client\nwith local_client(1):\n    print('started')\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "started" not in done.stdout
    assert 'below `if __name__ == "__main__":`' in done.stderr.splitlines()[-1]
    assert done.stderr.count("Traceback") == 1


def test_a_worker_that_is_killed_is_replaced_and_its_shard_done_again(client, segmenter, expected, tmp_path):
    before = set(client.run(os.getpid).values())
    image = Deadly(make_image(), tmp_path / "killed")
    done = segmenter.predict_to(image, tmp_path / "a.zarr", client=client)
    assert (tmp_path / "killed").exists()
    assert written(done.labels) == expected
    client.wait_for_workers(2, timeout=60)
    assert set(client.run(os.getpid).values()) != before


def test_a_scheduler_by_its_address(client, segmenter, expected, tmp_path):
    done = segmenter.predict_to(make_image(), tmp_path / "a.zarr", client=client.cluster.scheduler_address)
    assert written(done.labels) == expected


def test_workers_that_do_not_see_the_output_say_so(client, segmenter, tmp_path, monkeypatch):
    getstate = job_module.Job.__getstate__
    monkeypatch.setattr(
        job_module.Job, "__getstate__", lambda self: getstate(self) | {"labels": tmp_path / "elsewhere"}
    )
    with pytest.raises(InputError, match=r"sees no folder .*elsewhere; write to a folder that all workers share"):
        segmenter.predict_to(make_image(), tmp_path / "a.zarr", client=client)


def test_a_scheduler_that_is_lost_is_told(client, segmenter, tmp_path, monkeypatch):
    cancelled = FutureCancelledError("key", "scheduler-connection-lost", None)

    class Lost(Future):
        def result(self, timeout=None):
            raise cancelled

    monkeypatch.setattr("distributed.client.Future", Lost)
    with pytest.raises(InputError, match=r"scheduler was lost.* predict again: shards that are finished are kept"):
        segmenter.predict_to(make_image(), tmp_path / "a.zarr", client=client)


def test_errors_of_workers_come_back(client, segmenter, tmp_path):
    def read(block):
        raise InputError("it cannot be read")

    image = da.from_array(make_image(), chunks=(8, 32, 64)).map_blocks(read, meta=np.empty(0, np.uint8))
    with pytest.raises(InputError, match="cannot be read"):
        segmenter.predict_to(image, tmp_path / "a.zarr", client=client, memory="4GB")


def test_a_client_need_not_be_the_default(client, segmenter, expected, tmp_path, monkeypatch):
    monkeypatch.setattr("distributed.client._get_global_client", lambda: None)
    done = segmenter.predict_to(make_image(), tmp_path / "a.zarr", client=client.cluster.scheduler_address)
    assert written(done.labels) == expected


def test_an_image_that_cannot_be_sent_is_refused(client, segmenter, expected, tmp_path):
    with h5py.File(tmp_path / "image.h5", "w") as file:
        image = file.create_dataset("image", data=make_image())
        with pytest.raises(InputError, match=r"Dataset, cannot be sent to workers; .* or workers=1"):
            segmenter.predict_to(image, tmp_path / "a.zarr", client=client)
    assert [path.name for path in tmp_path.iterdir()] == ["image.h5"]
    with h5py.File(tmp_path / "image.h5") as file:  # workers can open what is only read
        assert written(segmenter.predict_to(file["image"], tmp_path / "a.zarr", client=client).labels) == expected


def test_a_large_graph_is_not_taken_for_voxels(client, monkeypatch):
    monkeypatch.setattr(predict, "_MOST_SENT", 20_000)
    planes = [da.from_delayed(dask.delayed(np.zeros)((200, 200), "f4"), (200, 200), "f4") for _ in range(400)]
    graph = da.stack(planes)
    assert module.bytes_to_send(graph) > 20_000
    assert not predict._is_in_memory(graph)
    assert predict._is_in_memory(da.from_array(np.ones((40, 200, 200), "f4"), chunks=(8, 20, 100)))


def test_a_cluster_without_workers():
    class Empty:
        def nthreads(self):
            return {}

    with pytest.raises(InputError, match="no workers yet"):
        module.size_of(Empty())


class TestDevices:
    @pytest.mark.parametrize(
        ("wanted", "name", "n_gpus", "expected"),
        [
            ("auto", 0, 4, "cuda:0"),
            ("auto", 5, 4, "cuda:1"),
            ("cuda", "SLURMCluster-3-2", 4, "cuda:2"),
            ("auto", "tcp://10.0.0.1:4711", 4, "auto"),
            ("auto", 1, 1, "auto"),
            ("auto", 1, 0, "auto"),
            ("cpu", 1, 4, "cpu"),
            ("cuda:3", 1, 4, "cuda:3"),
            ("auto", None, 4, "auto"),
        ],
    )
    def test_each_worker_takes_a_gpu_of_its_own(self, monkeypatch, wanted, name, n_gpus, expected):
        class Worker:
            pass

        worker = None if name is None else Worker()
        if worker is not None:
            worker.name = name
        monkeypatch.setattr(job_module, "_worker", lambda: worker)
        monkeypatch.setattr("torch.cuda.device_count", lambda: n_gpus)
        assert job_module.device_of_worker(wanted) == expected
