"""The folder of what is predicted of all of an image, and where that lies in the world."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_sparseseg.errors import ProjectError
from napari_sparseseg.storage.durable import RealDisk
from napari_sparseseg.storage.project.manifest import LayerPlace
from napari_sparseseg.storage.project.whole import WholeFolder


@pytest.fixture
def whole(tmp_path: Path) -> WholeFolder:
    return WholeFolder(tmp_path / "whole", 2, RealDisk())


def test_what_is_complete_stays_until_what_is_under_way_is(whole: WholeFolder) -> None:
    assert (whole.complete, whole.share) == ((), None)
    for round_number in range(2):
        whole.begin(b"a model")
        assert whole.share == 0
        whole.targets[0].mkdir()
        assert whole.share == 0.5
        assert bool(whole.complete) == bool(round_number)
        whole.targets[1].mkdir()
        whole.finish()
        assert (len(whole.complete), whole.share) == (2, None)
        assert all(path.is_dir() for path in whole.complete)
    whole.check()
    whole.check_unfinished()


@pytest.mark.parametrize(
    "name",
    [
        ".",
        "done",
        "next",
        "done/0001.ome.zarr",
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
