"""The folder of what is predicted of all of an image, and where that lies in the world."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from napari_sparseseg.errors import ProjectError
from napari_sparseseg.storage.durable import RealDisk
from napari_sparseseg.storage.project.manifest import LayerPlace
from napari_sparseseg.storage.project.project import Project
from napari_sparseseg.storage.project.whole import WholeFolder


def complete(target: Path) -> None:
    """What a prediction leaves that came to its end."""
    (target / "0" / "c").mkdir(parents=True)
    (target / "zarr.json").write_text('{"attributes": {"napari-sparseseg": {"n_shards": 1}}}')


def remove_by_halves(path: Path) -> None:
    """Remove the voxels, and be killed before the rest is removed."""
    for chunks in list(path.rglob("c")):
        chunks.rmdir()
        raise KeyboardInterrupt


@pytest.fixture
def whole(tmp_path: Path) -> WholeFolder:
    return WholeFolder(tmp_path / "whole", 2, RealDisk())


def test_what_is_complete_stays_until_what_is_under_way_is(whole: WholeFolder) -> None:
    assert (whole.complete, whole.share) == ((), None)
    for round_number in range(2):
        whole.begin(b"a model")
        assert whole.share == 0
        complete(whole.targets[0])
        assert whole.share == 0.5
        assert whole.left == [1]
        assert bool(whole.complete) == bool(round_number)
        complete(whole.targets[1])
        whole.finish()
        assert (len(whole.complete), whole.share) == (2, None)
        assert all(path.is_dir() for path in whole.complete)
    whole.check()
    whole.check_unfinished()


def test_a_folder_without_a_note_is_not_complete(whole: WholeFolder) -> None:
    whole.begin(b"a model")
    for target, text in zip(whole.targets, ("", '{"attributes": {}}'), strict=True):
        complete(target)
        (target / "zarr.json").write_text(text)
    assert (whole.share, whole.left) == (0, [0, 1])
    whole.finish()
    assert whole.complete == ()


def test_killed_while_what_was_under_way_is_dropped_it_goes_on_with_none_of_it(
    whole: WholeFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole.begin(b"a model")
    complete(whole.targets[0])
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", remove_by_halves)
        with pytest.raises(KeyboardInterrupt):
            whole.begin(b"another model")
    assert whole.share is None
    whole.begin(b"another model")
    assert (whole.share, whole.left) == (0, [0, 1])
    assert [path.name for path in whole.path.iterdir()] == ["next"]


def test_killed_while_the_older_one_is_removed_the_newer_one_is_in_its_place(
    whole: WholeFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        whole.begin(b"a model")
        for target in whole.targets:
            complete(target)
        with monkeypatch.context() as patched, suppress(KeyboardInterrupt):
            patched.setattr(shutil, "rmtree", remove_by_halves)
            whole.finish()
    assert len(whole.complete) == 2
    assert all((path / "0" / "c").is_dir() for path in whole.complete)
    assert whole.share is None


def test_what_a_kill_left_of_the_older_one_is_neither_copied_nor_kept(tmp_path: Path) -> None:
    path, array = tmp_path / "cells.sparseseg", np.zeros((1, 3, 9, 9), np.uint8)
    with Project.create(path) as project:
        whole = project.add_image(array, shape=array.shape, time_axis=0).whole
        whole.begin(b"a model")
        complete(whole.targets[0])
        whole.finish()
        complete(whole.path / "done.dropped" / "0000.ome.zarr")
        project.copy_to(tmp_path / "copy.sparseseg")
    assert not list((tmp_path / "copy.sparseseg").rglob("*.dropped"))
    Project.open(path, read_only=True).close()
    assert list(path.rglob("*.dropped"))
    with Project.open(path) as project:
        assert project.images[0].whole.complete
    assert not list(path.rglob("*.dropped"))


@pytest.mark.parametrize(
    "name",
    [
        ".",
        "done",
        "next",
        "done/0001.ome.zarr",
        "done/0001.ome.zarr/zarr.json",
        "next/0000.ome.zarr",
        "next/model.safetensors",
        "next/0000.ome.zarr.unfinished",
        "next/0000.ome.zarr.unfinished/manifest.json",
        "next/0001.ome.zarr.unfinished/finished.jsonl",
    ],
)
def test_links_are_refused(whole: WholeFolder, tmp_path: Path, name: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    link = whole.path / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(elsewhere)
    with pytest.raises(ProjectError, match="is a link"):
        whole.check()


def test_links_among_what_is_under_way_are_refused_before_it_goes_on(whole: WholeFolder, tmp_path: Path) -> None:
    whole.begin(b"a model")
    deep = whole.path / "next" / "0000.ome.zarr.unfinished" / "labels.zarr" / "0" / "c"
    deep.mkdir(parents=True)
    (deep / "0").symlink_to(tmp_path)
    whole.check()
    with pytest.raises(ProjectError, match="is a link"):
        whole.check_unfinished()


@pytest.mark.parametrize(
    ("place", "offset"),
    [
        (LayerPlace(), None),
        (LayerPlace(translate=(1, 2)), None),
        (LayerPlace(translate=(9, 1, 2, 3)), (1, 2, 3)),
        (LayerPlace(translate=(1, 2, 3), units=("pixel",) * 3), (1, 2, 3)),
        (LayerPlace(translate=(1, 2, 3), units=("micrometer", "nanometer", "nanometer")), (1000, 2, 3)),
        (LayerPlace(translate=(1, 2, 3), units=("micron", "nanometer", "furlong")), (1, 2, 3)),
        (LayerPlace(translate=(1, 2, 3), scale=(1, -1, 1)), None),
    ],
)
def test_the_place_of_an_image_is_told_in_one_unit(place: LayerPlace, offset: tuple[float, ...] | None) -> None:
    assert place.offset(3) == offset
