"""Faults of real disks: full, read-only, limited, damaged. Painting goes on, and nothing acknowledged is lost."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager, suppress

import numpy as np
import pytest
from livekit import PATIENCE, SHAPE

from napari_sparseseg._types import Box, Region
from napari_sparseseg.errors import ProjectError
from napari_sparseseg.storage.durable import RealDisk
from napari_sparseseg.storage.project.project import Project
from napari_sparseseg.storage.project.zarrs import damage


def run(*command):
    return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 0


@pytest.fixture
def small_disk(tmp_path):
    """A file system of half a megabyte, in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if sys.platform != "linux" or not run("mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)):
        pytest.skip("this system does not let us mount a file system")
    yield folder
    run("mount", "-o", "remount,rw", str(folder))
    run("umount", "-l", str(folder))


@contextmanager
def painting(make_live, image, folder):
    with Project.create(folder / "cells.sparseseg") as project:
        project.add_image(image, shape=(1, *SHAPE))
        live = make_live()
        live.auto_start = False
        live.open(image, project=project.images[0])
        yield live, project.images[0].journal
        live.close()


def paint(live, rng):
    """A stroke that cannot be packed well."""
    box = Box((0, 0, 0), SHAPE)
    live.annotate_values(Region(0, box), rng.integers(1, 3, SHAPE).astype(np.uint8))


def wait_for(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def annotation_in(path):
    with Project.open(path) as project:
        return project.images[0].annotation()


class TestRealDisks:
    def test_a_full_disk_is_told_and_saved_to_once_there_is_room(self, make_live, image, small_disk):
        rng = np.random.default_rng(0)
        filler = small_disk / "filler"
        with painting(make_live, image, small_disk) as (live, journal):
            paint(live, rng)
            assert journal.sync(timeout=30)
            filler.write_bytes(bytes(380_000))
            while journal.sync(timeout=30):
                acknowledged = live.codes.copy()
                paint(live, rng)
            wait_for(lambda: "No space left on device" in live.keeping.status.error)
            with Project.open(small_disk / "cells.sparseseg", read_only=True) as reader:
                found = reader.images[0].annotation()
                assert any(np.array_equal(found, codes) for codes in (acknowledged, live.codes))
            filler.unlink()
            wait_for(lambda: not live.keeping.status.error)
            assert journal.sync(timeout=30)
            codes = live.codes.copy()
        assert np.array_equal(annotation_in(small_disk / "cells.sparseseg"), codes)

    def test_a_disk_that_becomes_read_only_is_told_and_saved_to_once_it_is_not(self, make_live, image, small_disk):
        rng = np.random.default_rng(0)
        with painting(make_live, image, small_disk) as (live, journal):
            paint(live, rng)
            assert journal.sync(timeout=30)
            journal._file._close_file()  # as long as a file is open for writing, the system keeps the disk writable
            live.project.project._lock._lock.release()
            assert run("mount", "-o", "remount,ro", str(small_disk))
            paint(live, rng)
            wait_for(lambda: "Read-only file system" in live.keeping.status.error)
            assert run("mount", "-o", "remount,rw", str(small_disk))
            wait_for(lambda: not live.keeping.status.error)
            codes = live.codes.copy()
        assert np.array_equal(annotation_in(small_disk / "cells.sparseseg"), codes)

    def test_a_project_on_a_read_only_disk_can_be_looked_at(self, make_live, image, small_disk):
        with painting(make_live, image, small_disk) as (live, _):
            paint(live, np.random.default_rng(0))
            codes = live.codes.copy()
        assert run("mount", "-o", "remount,ro", str(small_disk))
        with Project.open(small_disk / "cells.sparseseg") as project:
            assert project.is_read_only
            assert "cannot be written" in project.reason
            assert np.array_equal(project.images[0].annotation(), codes)

    @pytest.mark.skipif(os.name != "posix", reason="only POSIX limits the size of files")
    def test_a_limit_of_file_sizes_is_an_error_like_any_other(self, tmp_path, image):
        code = """
import resource, signal, sys
import numpy as np
from pathlib import Path
from napari_sparseseg._types import Box, Region
from napari_sparseseg.storage.project.project import Project
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
shape = (1, 12, 40, 40)
with Project.create(sys.argv[1]) as project:
    image = project.add_image(np.zeros(shape[1:], np.uint8), shape=shape)
    store = image.open().store
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))
    rng = np.random.default_rng(0)
    while image.journal.sync(timeout=30):
        acknowledged = store.codes.copy()
        store.annotate(Region(0, Box((0, 0, 0), shape[1:])), rng.integers(1, 3, shape[1:]))
    assert "File too large" in image.journal.error, image.journal.error
    assert np.array_equal(image.annotation(), acknowledged)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert image.journal.sync(timeout=30)
    assert np.array_equal(image.annotation(), store.codes)
"""
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "cells.sparseseg")],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A project with folds, a model file, a prediction, and strokes that are not folded."""
    path = tmp_path_factory.mktemp("made") / "cells.sparseseg"
    rng = np.random.default_rng(0)
    with Project.create(path) as project:
        image = project.add_image(np.zeros(SHAPE, np.uint8), shape=(1, *SHAPE))
        store = image.open().store
        for number in range(12):
            start = rng.integers(0, 8, 3)
            box = Box(tuple(start.tolist()), tuple((start + rng.integers(1, 4, 3)).tolist()))
            store.annotate(Region(0, box), number % 3)
            if number in (4, 8):
                image.fold(store)
        project.add_checkpoint(b"no model", step=1)
        image.write_prediction(store.codes.copy())
    return path, store.codes.copy()


class TestDamage:
    def damaged(self, made, tmp_path, seed, change):
        path, codes = made
        copy = tmp_path / path.name
        shutil.copytree(path, copy)
        rng = np.random.default_rng(seed)
        files = sorted(p for p in copy.rglob("*") if p.is_file() and p.name not in ("lock", "writer.json"))
        file = files[int(rng.integers(len(files)))]
        file.write_bytes(change(file.read_bytes(), rng))
        return copy, file, codes

    def check(self, copy, file, codes):
        with Project.open(copy) as project:
            loaded = project.images[0].open()
            if file.suffix == ".journal":
                # what was folded is there; of the rest, at most one stroke is missing
                assert loaded.store.strokes
            else:
                assert np.array_equal(loaded.store.codes, codes)
            with suppress(ProjectError), damage(copy):  # it is made anew
                prediction = project.images[0].prediction()
                assert prediction is None or np.asarray(prediction[:]).shape == codes.shape
            loaded.store.annotate(Region(0, Box((11, 0, 0), (12, 3, 3))), 2)
            assert project.images[0].fold(loaded.store)
            again = loaded.store.codes.copy()
        assert np.array_equal(annotation_in(copy), again)

    @pytest.mark.parametrize("seed", range(40))
    def test_a_flipped_bit_costs_no_paint(self, made, tmp_path, seed):
        def flip(content, rng):
            changed = bytearray(content)
            changed[int(rng.integers(len(changed)))] ^= 1 << int(rng.integers(8))
            return bytes(changed)

        self.check(*self.damaged(made, tmp_path, seed, flip))

    @pytest.mark.parametrize("seed", range(40))
    def test_a_truncated_file_costs_no_paint(self, made, tmp_path, seed):
        self.check(*self.damaged(made, tmp_path, seed, lambda c, rng: c[: int(rng.integers(len(c)))]))

    def test_a_flipped_bit_in_the_journal_costs_one_stroke_and_is_told(self, made, tmp_path):
        path, _ = made
        copy = tmp_path / path.name
        shutil.copytree(path, copy)
        journal = copy / "images/0/journal/000001.journal"
        with Project.open(copy, read_only=True) as project:
            folded = project.images[0].entry.folds[-1].position.offset
            n_strokes = len(project.images[0].load().store.strokes)
        content = bytearray(journal.read_bytes())
        content[folded + 40] ^= 1
        journal.write_bytes(content)
        with Project.open(copy) as project:
            loaded = project.images[0].load()
            assert "could not be read" in loaded.problems[0]
            assert len(loaded.store.strokes) == n_strokes - 1


def test_strokes_after_a_lost_journal_are_not_taken_for_folded_ones(made, tmp_path):
    path, _ = made
    copy = tmp_path / path.name
    shutil.copytree(path, copy)
    (copy / "images/0/journal/000001.journal").unlink()
    for number in range(2):
        with Project.open(copy) as project:
            store = project.images[0].open().store
            store.annotate(Region(0, Box((9 + number, 0, 0), (12, 3, 3))), 2)
            then = store.codes.copy()
    assert np.array_equal(annotation_in(copy), then)


def test_the_real_disk_removes_what_is_gone_without_complaint(tmp_path):
    RealDisk().remove(tmp_path / "nothing")
