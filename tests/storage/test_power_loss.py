"""Power fails at any moment: what was acknowledged is there, and the project can be opened."""

from __future__ import annotations

import numpy as np
import pytest
from paintkit import SHAPE, do_something

from napari_sparseseg.storage.durable import replace_file
from napari_sparseseg.storage.power_loss import Medium, RecordingDisk
from napari_sparseseg.storage.project.project import Project


def left_of(disk, end, folder, rng=None):
    folder.mkdir()
    medium = Medium()
    medium.play(disk.events[:end])
    medium.leave(folder, rng)
    return folder


def test_what_was_not_synced_is_gone(tmp_path):
    disk = RecordingDisk(tmp_path)
    disk.make_folder(tmp_path / "a")
    disk.sync_folder(tmp_path)
    disk.write(tmp_path / "a" / "name_only", b"content")
    disk.sync_folder(tmp_path / "a")
    disk.write(tmp_path / "a" / "content_only", b"content")
    disk.sync(tmp_path / "a" / "content_only")
    replace_file(disk, tmp_path / "a" / "both", b"content")
    disk.write(tmp_path / "a" / "both", b"newer")
    events = len(disk.events)
    left = left_of(disk, events, tmp_path / "left")
    assert {p.name: p.read_bytes() for p in (left / "a").iterdir()} == {
        "name_only": b"",
        "content_only": b"content",
        "both": b"content",
    }
    assert not list(left_of(disk, 1, tmp_path / "nothing").iterdir())


def test_a_removed_file_is_back_and_a_renamed_one_has_its_old_name(tmp_path):
    disk = RecordingDisk(tmp_path)
    replace_file(disk, tmp_path / "old", b"1")
    replace_file(disk, tmp_path / "gone", b"2")
    disk.rename(tmp_path / "old", tmp_path / "new")
    disk.remove(tmp_path / "gone")
    assert {p.name for p in left_of(disk, len(disk.events), tmp_path / "left").iterdir()} == {"old", "gone"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A session of painting on a disk that records, with a mark of the codes after each acknowledged act."""
    folder = tmp_path_factory.mktemp("written")
    disk, rng = RecordingDisk(folder), np.random.default_rng(0)
    for _ in range(2):
        path = folder / "cells.sparseseg"
        with Project.open(path, disk=disk) if path.exists() else Project.create(path, disk=disk) as project:
            if not project.images:
                project.add_image(np.zeros(SHAPE, np.uint8), shape=SHAPE)
            image = project.images[0]
            store = image.open().store
            for number in range(25):
                do_something(store, rng)
                assert image.journal.sync(timeout=30)
                disk.mark(store.codes.copy())
                if number % 6 == 5:
                    image.fold(store)
                    project.add_checkpoint(b"%d" % number, step=number)
                    image.write_prediction(store.codes.copy())
    return disk


@pytest.mark.parametrize("is_random", [False, True])
def test_every_acknowledged_stroke_is_there_whenever_the_power_fails(run, tmp_path, is_random):
    rng = np.random.default_rng(1)
    for number, end in enumerate(rng.integers(1, len(run.events) + 1, 40).tolist()):
        left = left_of(run, end, tmp_path / str(number), rng if is_random else None)
        marks = [event.mark for event in run.events if event.op == "mark"]
        n_acknowledged = sum(event.op == "mark" for event in run.events[:end])
        if not n_acknowledged:
            continue
        with Project.open(left / "cells.sparseseg") as project:
            found = project.images[0].open().store.codes
            possible = marks[n_acknowledged - 1 : n_acknowledged + 1]
            assert any(np.array_equal(found, codes) for codes in possible)
