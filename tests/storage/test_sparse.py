"""Arrays that may be larger than memory."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_sparseseg._types import Box, Region
from napari_sparseseg.errors import InputError
from napari_sparseseg.storage import sparse
from napari_sparseseg.storage._arrays import behind_dask
from napari_sparseseg.storage.durable import RealDisk
from napari_sparseseg.storage.object_ids import ObjectIds
from napari_sparseseg.storage.project.image import restore_annotation
from napari_sparseseg.storage.project.objects import read_objects, write_objects
from napari_sparseseg.storage.project.predictions import read_prediction, stored_parts, write_prediction
from napari_sparseseg.storage.project.zarrs import corners_of
from napari_sparseseg.storage.strokes import AnnotationStore

ONLY_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="other systems promise less memory, or more")
HUGE = (1, 3072, 4096, 4096)  # as large as an image of 100 GB with 16 bits


@pytest.fixture
def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrays count as large from one kilobyte on."""
    monkeypatch.setattr(sparse, "LARGEST_RESERVED", 1000)


def test_a_small_array_is_an_ordinary_one() -> None:
    array = sparse.zeros((2, 3), np.uint16)
    assert array.dtype == np.uint16
    assert array.base is None
    assert not sparse.is_large(array)
    array[:] = 7
    sparse.clear(array)
    assert not array.any()


@ONLY_LINUX
def test_an_array_may_be_larger_than_memory() -> None:
    array = sparse.zeros(HUGE, np.uint16)
    assert array.shape == HUGE
    assert sparse.is_large(array)
    array[0, 3000, 4000:, 4000:] = 9
    assert array[0, 3000, 3999:4001, 4095].tolist() == [0, 9]


@pytest.mark.usefixtures("small_limit")
@pytest.mark.parametrize("platform", ["linux", "win32"])
def test_where_the_system_promises_no_more_than_it_has_a_part_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, platform: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(sparse, "sys", SimpleNamespace(platform=platform))
    monkeypatch.setattr(sparse.mmap, "mmap", refuse)
    monkeypatch.setattr(sparse.np, "zeros", refuse)
    with pytest.raises(InputError, match=r"\(4, 50, 50\) is too large .* working region"):
        sparse.zeros((4, 50, 50), np.uint8)


@ONLY_LINUX
@pytest.mark.usefixtures("small_limit")
def test_a_large_array_becomes_zero_again() -> None:
    array = sparse.zeros((4, 50, 50), np.uint8)
    array[:] = 5
    sparse.clear(array)
    assert not array.any()
    array[1, 2, 3] = 4
    assert array.sum() == 4


@ONLY_LINUX
@pytest.mark.usefixtures("small_limit")
@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_part_becomes_zero_again_and_the_rest_stays(data: st.DataObject) -> None:
    array = sparse.zeros((2, 5, 7, 3000), np.uint8)
    array[:] = 5
    part = tuple(slice(*sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n))))) for n in array.shape)
    expected = np.full(array.shape, 5, np.uint8)
    expected[part] = 0
    sparse.forget(array[part])
    np.testing.assert_array_equal(array, expected)


@ONLY_LINUX
def test_whole_rows_give_their_memory_back() -> None:
    array, process = sparse.zeros(HUGE, np.uint8), psutil.Process()
    before = process.memory_info().rss
    array[0, :16, :2048] = 3
    held = process.memory_info().rss - before
    sparse.forget(array[0, :16, :1024])
    sparse.forget(array[0, 0, 1024:2048, 100:])  # no whole page
    assert held > 120e6
    assert process.memory_info().rss - before < held - 60e6
    assert not array[0, :16, :1024].any()
    assert (array[0, 1:16, 1024:2048] == 3).all()


@ONLY_LINUX
def test_paint_on_a_huge_image_is_found_again_without_looking_at_all_of_it() -> None:
    store = AnnotationStore(HUGE)
    boxes = [Box((10, 20, 30), (11, 40, 50)), Box((3000, 4000, 4090), (3001, 4096, 4096))]
    for class_id, box in enumerate(boxes, 1):
        store.annotate(Region(0, box), class_id)
    annotation = store.snapshot(0, classes=(1, 2), background=1)
    assert len(annotation) == sum(box.n_voxels for box in boxes)
    found = store.painted_boxes(0)
    assert len(found) < 10
    for box in boxes:
        parts = [box.clipped(cube) for cube in found]
        assert sum(part.n_voxels for part in parts) == box.n_voxels


def test_only_shards_that_hold_something_are_written_and_read(tmp_path: Path) -> None:
    labels = np.zeros((1, 130, 600, 20), np.uint8)
    labels[0, 100, 550, 3] = 2
    parts = [(0, Box((96, 512, 0), (112, 576, 20)))]
    assert corners_of(parts) == [(0, 64, 512, 0)]
    write_prediction(RealDisk(), tmp_path / "p", labels, (1.0, 1.0, 1.0), (), corners_of(parts))
    assert stored_parts(tmp_path / "p", labels.shape) == [(0, Box((64, 512, 0), (128, 600, 20)))]
    assert (np.asarray(read_prediction(tmp_path / "p", labels.shape)[:]) == labels).all()


def test_zarr_is_read_without_the_graph_of_dask_around_it(tmp_path: Path) -> None:
    da = pytest.importorskip("dask.array")
    array = zarr.create_array(tmp_path / "a.zarr", shape=(8, 8), chunks=(4, 4), dtype=np.uint16)
    array[:] = np.arange(64).reshape(8, 8)
    lazy = da.from_zarr(array)
    assert isinstance(behind_dask(lazy), zarr.Array)
    assert (behind_dask(lazy)[2:5, 1:7] == lazy[2:5, 1:7].compute()).all()
    for other in (lazy + 1, lazy[2:], lazy.rechunk((8, 8)), lazy.astype(np.float32), da.zeros((4, 4))):
        assert behind_dask(other) is other
    plain = np.zeros(3)
    assert behind_dask(plain) is plain


@ONLY_LINUX
def test_an_earlier_state_of_a_huge_image_is_brought_back_without_looking_at_all_of_it() -> None:
    store, old = AnnotationStore(HUGE), AnnotationStore(HUGE)
    boxes = [Box((10, 20, 30), (11, 40, 50)), Box((3000, 4000, 4090), (3001, 4096, 4096))]
    store.annotate(Region(0, boxes[0]), 2)
    old.annotate(Region(0, boxes[1]), 1, object_id=3)
    assert restore_annotation(store, old) == [(0, box) for box in boxes]
    assert [store.n_painted(0), store.objects(0, boxes[1]).min()] == [boxes[1].n_voxels, 3]


@ONLY_LINUX
def test_a_class_is_removed_from_a_huge_image_without_looking_at_all_of_it() -> None:
    store = AnnotationStore(HUGE)
    boxes = [Box((10, 20, 30), (11, 40, 50)), Box((3000, 4000, 4090), (3001, 4096, 4096))]
    for box in boxes:
        store.annotate(Region(0, box), 2)
    store.annotate(Region(0, Box((10, 20, 30), (11, 30, 40))), 1)
    assert store.remove_class(2) == ((0, Box((10, 20, 30), (3001, 4096, 4096))),)
    assert (store.n_painted(0), store.painted_classes()) == (100, (1,))


@ONLY_LINUX
def test_objects_of_a_huge_image_are_read_without_looking_at_all_of_it(tmp_path: Path) -> None:
    objects = ObjectIds()
    box = Box((3000, 4000, 4080), (3010, 4096, 4096))
    objects.take(HUGE, 0, box, np.ones(box.shape, np.uint32))
    write_objects(RealDisk(), tmp_path / "objects", HUGE, objects)
    again = ObjectIds()
    again.restore(*read_objects(tmp_path / "objects", HUGE))
    assert (again.count(0), again.next_id, again.box_of(0, [1])) == (1, 2, box)
    assert (again.read(0, box) == 1).all()
