"""A fold is the annotation, or it is not used."""

from __future__ import annotations

import json

import numpy as np
import pytest
from paintkit import SHAPE, contents, do_something

from napari_sparseseg._types import Box, Region
from napari_sparseseg.errors import ProjectError
from napari_sparseseg.storage.durable import RealDisk
from napari_sparseseg.storage.project.folds import read_fold, write_fold
from napari_sparseseg.storage.strokes import AnnotationStore


def painted(seed=0, n=25):
    store, rng = AnnotationStore(SHAPE), np.random.default_rng(seed)
    for _ in range(n):
        do_something(store, rng)
    return store


def restored(folder, shape=SHAPE):
    store = AnnotationStore(shape)
    store.restore(read_fold(folder, shape))
    return store


@pytest.mark.parametrize("seed", range(5))
def test_what_was_written_is_read(tmp_path, seed):
    store = painted(seed)
    write_fold(RealDisk(), tmp_path / "fold", store.state())
    assert contents(restored(tmp_path / "fold")) == contents(store)


def test_objects_are_read(tmp_path):
    store = AnnotationStore(SHAPE)
    for object_id in (5, 0, 2**31 - 1):
        start = object_id % 4
        store.annotate(Region(0, Box((0, start, 0), (1, start + 1, 4))), 2, object_id=object_id)
    write_fold(RealDisk(), tmp_path / "fold", store.state())
    again = restored(tmp_path / "fold")
    assert again.strokes == store.strokes
    assert again.object_ids(0) == store.object_ids(0) == (5, 2**31 - 1)


def test_paint_in_several_shards_and_frames_is_read(tmp_path):
    shape = (2, 70, 530, 30)
    store = AnnotationStore(shape)
    for number, start in enumerate([(0, 0, 0), (65, 500, 3), (0, 520, 20)], 1):
        store.annotate(Region(number % 2, Box(start, tuple(a + 5 for a in start))), number)
    write_fold(RealDisk(), tmp_path / "fold", store.state())
    assert np.array_equal(restored(tmp_path / "fold", shape).codes, store.codes)


def test_an_empty_annotation_is_read(tmp_path):
    write_fold(RealDisk(), tmp_path / "fold", AnnotationStore(SHAPE).state())
    assert not restored(tmp_path / "fold").codes.any()


class TestDamage:
    @pytest.fixture
    def folder(self, tmp_path):
        write_fold(RealDisk(), tmp_path / "fold", painted().state())
        return tmp_path / "fold"

    def test_a_missing_shard_is_noticed(self, folder):
        next(path for path in (folder / "annotation" / "c").rglob("*") if path.is_file()).unlink()
        with pytest.raises(ProjectError, match="fold is damaged"):
            read_fold(folder, SHAPE)

    @pytest.mark.parametrize("seed", range(20))
    def test_a_flipped_bit_is_noticed_or_does_no_harm(self, folder, seed):
        rng = np.random.default_rng(seed)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        path = files[rng.integers(len(files))]
        content = bytearray(path.read_bytes())
        content[rng.integers(len(content))] ^= 1 << rng.integers(8)
        path.write_bytes(content)
        try:
            store = restored(folder)
        except ProjectError:
            return
        assert np.array_equal(store.codes, painted().codes)

    @pytest.mark.parametrize("name", ["zarr.json", "annotation/zarr.json", "stroke/zarr.json"])
    def test_a_truncated_file_is_noticed(self, folder, name):
        (folder / name).write_bytes((folder / name).read_bytes()[:50])
        with pytest.raises(ProjectError, match="damaged"):
            read_fold(folder, SHAPE)

    def test_a_chunk_that_claims_to_be_huge_is_refused_before_it_is_read(self, folder):
        path = folder / "annotation" / "zarr.json"
        metadata = json.loads(path.read_text())
        metadata["chunk_grid"]["configuration"]["chunk_shape"] = [1, 2**20, 2**20, 2**20]
        path.write_text(json.dumps(metadata))
        with pytest.raises(ProjectError, match="as projects have them"):
            read_fold(folder, SHAPE)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("complete", [[0, 1.0, 3]]),
            ("complete", [[0, 1, -1]]),
            ("complete", [[True, 1, 3]]),
            ("complete", [[0, 1]]),
            ("sets", [[200, False, [1.5]]]),
            ("sets", [[200, False, [0]]]),
            ("sets", [[5, False, [1]]]),
        ],
    )
    def test_slices_and_sets_that_cannot_be_are_refused(self, folder, name, value):
        path = folder / "zarr.json"
        metadata = json.loads(path.read_text())
        metadata["attributes"]["sparseseg"][name] = value
        path.write_text(json.dumps(metadata))
        with pytest.raises(ProjectError, match="fold is damaged"):
            read_fold(folder, SHAPE)

    def test_another_codec_is_refused(self, folder):
        path = folder / "annotation" / "zarr.json"
        path.write_text(path.read_text().replace('"zstd"', '"gzip"'))
        with pytest.raises(ProjectError, match="as projects have them"):
            read_fold(folder, SHAPE)

    def test_the_fold_of_another_image_is_refused(self, folder):
        with pytest.raises(ProjectError, match="as projects have them"):
            read_fold(folder, (2, 4, 20, 25))
