"""Images written shard by shard: whole, aligned, with levels that are made without loading."""

from __future__ import annotations

import math

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from ome_zarr_models.v05.image import Image
from ome_zarr_models.v05.image_label import ImageLabel

from napari_sparseseg._types import Box
from napari_sparseseg.storage import ome
from napari_sparseseg.storage.ome import chunk_shape
from napari_sparseseg.storage.sharded import Frame, ShardedImage, fitted, shard_for

CHUNK = 8


@pytest.fixture
def small(monkeypatch):
    """Chunks of 8 voxels, and levels down to 16."""
    monkeypatch.setattr(ome, "_CHUNK", CHUNK)
    monkeypatch.setattr(ome, "_CHUNK_VOXELS", CHUNK**3)
    monkeypatch.setattr(ome, "_SMALL", 16)


def fill(image, values):
    for box in image.levels[0].shards():
        image.write(0, box, values[(slice(None), *box.slices)])
    for number, level in enumerate(image.levels[1:], 1):
        for box in level.shards():
            image.coarsen(number, box)


def read(path):
    group = zarr.open_group(path, mode="r")
    return [np.asarray(group[name]) for name in sorted(group)]


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [((20, 37, 45), (1.0,) * 3), ((5, 40, 33), (4.0, 1.0, 1.0)), ((1, 70, 20), (1.0,) * 3), ((33, 9, 9), (1.0,) * 3)],
)
@pytest.mark.parametrize("most", [1, 5000])
def test_every_level_holds_what_it_should(small, tmp_path, shape, spacing, most):
    values = np.random.default_rng(0).integers(1, 200, (1, *shape)).astype(np.uint8)
    frame = Frame(shape, "zyx", shard_for(shape, most), spacing, unit="micrometer")
    labels = ShardedImage.create_labels(tmp_path / "a.zarr", frame, np.uint8, name="a")
    fill(labels, values)
    expected = values
    for number, found in enumerate(read(tmp_path / "a.zarr")):
        expected = ome.nearest(expected, labels.levels[number].step)
        np.testing.assert_array_equal(found, expected[0])
    assert len(labels.levels) > 1
    ImageLabel.from_zarr(zarr.open_group(tmp_path / "a.zarr", mode="r"))


def test_averages_of_channels_and_planes(small, tmp_path):
    values = np.random.default_rng(0).integers(0, 255, (3, 1, 50, 41)).astype(np.uint8)
    frame = Frame((1, 50, 41), "yx", shard_for((1, 50, 41), 1), (1.0, 0.5, 0.5), unit="micrometer")
    image = ShardedImage.create_image(tmp_path / "a.zarr", frame, np.uint8, 3, name="a")
    fill(image, values)
    finest, coarser, *_ = read(tmp_path / "a.zarr")
    np.testing.assert_array_equal(finest, values[:, 0])
    np.testing.assert_array_equal(coarser, ome.mean(values, (1, 2, 2))[:, 0])
    Image.from_zarr(zarr.open_group(tmp_path / "a.zarr", mode="r"))


def test_a_shard_is_one_file_and_can_be_written_again(small, tmp_path):
    shape = (20, 20, 20)
    frame = Frame(shape, "zyx", (16, 16, 16))
    image = ShardedImage.create_labels(tmp_path / "a.zarr", frame, np.uint8, name="a")
    box = Box((16, 0, 16), (20, 16, 20))
    for value in (1, 2):
        image.write(0, box, np.full((1, *box.shape), value, np.uint8))
    files = [path for path in (tmp_path / "a.zarr" / "0" / "c").rglob("*") if path.is_file()]
    assert [str(path.relative_to(tmp_path / "a.zarr" / "0")) for path in files] == ["c/1/0/1"]
    assert (read(tmp_path / "a.zarr")[0][box.slices] == 2).all()


def test_a_damaged_shard_is_replaced(small, tmp_path):
    image = ShardedImage.create_labels(
        tmp_path / "a.zarr", Frame((12, 12, 12), "zyx", (16, 16, 16)), np.uint8, name="a"
    )
    torn = tmp_path / "a.zarr" / "0" / "c" / "0" / "0" / "0"
    torn.parent.mkdir(parents=True)
    torn.write_bytes(b"torn")
    (torn.parent / "0.123.partial").write_bytes(b"half")
    image.write(0, Box.whole((12, 12, 12)), np.ones((1, 12, 12, 12), np.uint8))
    image.note({"made": "by a test"})
    assert (read(tmp_path / "a.zarr")[0] == 1).all()
    assert [path.name for path in torn.parent.iterdir()] == ["0"]
    assert zarr.open_group(tmp_path / "a.zarr").attrs["made"] == "by a test"


@given(
    shape=st.tuples(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 3000)),
    most=st.integers(1, 1 << 30),
)
@settings(max_examples=100, deadline=None)
def test_shards_are_whole_chunks_and_cover_the_image_once(shape, most):
    shard, chunk = shard_for(shape, most), chunk_shape(shape)
    assert all(edge % part == 0 for edge, part in zip(shard, chunk, strict=True))
    assert math.prod(shard) <= max(most, math.prod(chunk))
    assert all(edge < 2 * max(size, part) for edge, size, part in zip(shard, shape, chunk, strict=True))
    small = fitted(shard, shape)
    assert all(edge % part == 0 for edge, part in zip(small, chunk, strict=True))
    for level in Frame(shape, "zyx", shard).levels():
        boxes = math.prod(-(-n // s) for n, s in zip(level.shape, level.shard, strict=True))
        if boxes < 2000:
            found = list(level.shards())
            assert len(found) == boxes
            assert sum(box.n_voxels for box in found) == math.prod(level.shape)
