"""What appears whole or not at all, whoever interrupts."""

from __future__ import annotations

import threading
import time

import pytest

from napari_sparseseg.errors import InputError
from napari_sparseseg.storage.atomic import is_safetensors, is_zarr, written_whole


def test_what_threads_write_after_a_failure_is_removed_as_well(tmp_path):
    failed, threads = threading.Event(), []

    def write_late(folder):
        failed.wait()
        time.sleep(0.02)
        folder.mkdir(parents=True)

    def fail():
        with written_whole(tmp_path / "a.zarr", overwrite=False, is_kind=is_zarr, kind="zarr") as partial:
            partial.mkdir()
            threads.append(threading.Thread(target=write_late, args=(partial / "0" / "c",)))
            threads[0].start()
            failed.set()
            raise OSError("No space left on device")

    with pytest.raises(InputError, match="could not be written"):
        fail()
    threads[0].join()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "is_model"),
    [
        (b"\2\0\0\0\0\0\0\0{}", True),
        (b"\2\0\0\0\0\0\0\0[]", False),
        (b"II*\0\x51\0\0\0{ voxels behind the first eight bytes", False),
        (b"\2\0", False),
        (b"", False),
    ],
)
def test_models_are_told_by_their_beginning(tmp_path, content, is_model):
    (tmp_path / "a").write_bytes(content)
    assert is_safetensors(tmp_path / "a") == is_model
    assert not is_safetensors(tmp_path)
