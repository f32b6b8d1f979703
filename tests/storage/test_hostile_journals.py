"""Journals by somebody who knows the format: what they claim is checked before memory is taken or anything believed."""

from __future__ import annotations

import json
import struct
import tracemalloc
import zlib

import numpy as np
import pytest

from napari_sparseseg._types import Box, Region
from napari_sparseseg.errors import InputError
from napari_sparseseg.storage.journal import SIGNATURE, FileJournal, JournalRecord, read_from, read_journal, replay
from napari_sparseseg.storage.project.project import Project
from napari_sparseseg.storage.strokes import AnnotationStore

SHAPE = (1, 2, 16, 16)


def framed(header: bytes, payload: bytes = b"") -> bytes:
    sizes = struct.pack("<II", len(header), len(payload))
    checksum = zlib.crc32(payload, zlib.crc32(header, zlib.crc32(sizes)))
    return sizes + struct.pack("<I", checksum) + header + payload


@pytest.fixture
def path(tmp_path):
    return tmp_path / "strokes.journal"


def write(path, header, payload=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(SIGNATURE + framed(text, payload))


@pytest.mark.parametrize(
    "header",
    [
        b'{"op": "a", "arrays": [1e999]}',
        b'{"op": "a", "arrays": [Infinity]}',
        b'{"op": "a", "arrays": [NaN]}',
        b'{"op": "a", "values": ' + b"[" * 100_000 + b"]" * 100_000 + b', "arrays": []}',
        b'{"op": "a", "arrays": [1' + b"0" * 5000 + b"]}",
    ],
    ids=["huge", "infinite", "nan", "nested", "digits"],
)
def test_headers_that_json_takes_and_python_does_not(path, header):
    write(path, header)
    assert list(read_journal(path)) == []


@pytest.mark.parametrize("size", [2**25, 2**33])
def test_more_is_not_unpacked_than_could_have_been_packed(path, size):
    packed = zlib.compress(bytes(1 << 14), 9)
    write(path, {"op": "edit", "arrays": [size]}, packed)
    tracemalloc.start()
    assert list(read_journal(path)) == []
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_a_record_that_is_larger_than_the_image_is_not_unpacked(path):
    size = 1 << 24
    write(path, {"op": "edit", "frame": 0, "arrays": [size]}, zlib.compress(bytes(size), 9))
    store = AnnotationStore(SHAPE)
    tracemalloc.start()
    assert replay(path, store) == []
    assert list(read_from(path, 0, store.largest_record)) == []
    journal = FileJournal(path)
    journal.append(JournalRecord("last"))
    journal.close()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert not journal.error
    assert peak < 4 << 20
    assert [record.op for record, _ in read_from(path, 0, store.largest_record)] == ["last"]
    assert [record.op for record in read_journal(path, store.largest_record)] == ["last"]
    assert [record.op for record in read_journal(path)] == ["edit", "last"]


@pytest.mark.parametrize("stop", [[2**20, 2**20, 2**20], [1, 1, 2**40], [-1, -1, 9], [1.5, 1, 8], ["a", "b", "c"], [1]])
@pytest.mark.parametrize("op", ["edit", "undo", "redo"])
def test_a_box_that_claims_more_than_its_mask_is_refused_before_it_is_unpacked(path, op, stop):
    values = {"frame": 0, "start": [0, 0, 0], "stop": stop, "strokes": [["paint", 1.0, None, 8]], "n_strokes": 1}
    write(path, {"op": op, **values, "arrays": [1, 1, 1]}, zlib.compress(b"\xff\1\1"))
    tracemalloc.start()
    with pytest.raises(InputError):
        replay(path, AnnotationStore(SHAPE))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


@pytest.mark.parametrize("plane", [["a", 0, 0], [0, None, 0], [0.5, 0, 0], [True, 0, 0], [0, 0, -1], [[], 0, 0]])
def test_slices_of_strokes_are_slices(path, plane):
    values = {"frame": 0, "start": [0, 0, 0], "stop": [1, 1, 8], "strokes": [["paint", 1.0, plane, 8]]}
    write(path, {"op": "edit", **values, "arrays": [1, 1, 1]}, zlib.compress(b"\xff\1\1"))
    with pytest.raises(InputError, match="makes no sense"):
        replay(path, AnnotationStore(SHAPE))


@pytest.mark.parametrize("seconds", [1e300, float("nan"), float("inf"), -1e300, 2.0**60])
def test_times_of_strokes_are_times(path, seconds):
    values = {"frame": 0, "start": [0, 0, 0], "stop": [1, 1, 8], "strokes": [["paint", seconds, None, 8]]}
    write(path, {"op": "edit", **values, "arrays": [1, 1, 1]}, zlib.compress(b"\xff\1\1"))
    with pytest.raises(InputError, match="makes no sense"):
        replay(path, AnnotationStore(SHAPE))


@pytest.mark.parametrize(
    "entry",
    [[5, False, [1]], [255, False, [1]], ["a", False, [1]], [130, True, ["a"]], [130, True, [0]]],
)
def test_sets_of_classes_are_codes_and_classes(path, entry):
    write(path, {"op": "palette", "sets": [entry], "arrays": []})
    with pytest.raises(InputError, match="sets of classes that cannot be"):
        replay(path, AnnotationStore(SHAPE))


@pytest.mark.parametrize(
    "header",
    [
        {"op": "complete", "plane": [0, 0, 0]},
        {"op": "complete", "plane": {"a": 1}, "is_complete": True},
        {"op": "remove_class", "class_id": 1, "class_ids": [[]]},
        {"op": "begin", "shape": [9, 9, 9, 9]},
        {"op": "undo"},
        {"op": "edit", "frame": 1e999, "start": {}, "stop": 5, "strokes": 7},
    ],
    ids=lambda header: header["op"],
)
def test_what_cannot_be_replayed_names_the_file_and_says_what_to_do(path, header):
    write(path, {**header, "arrays": []})
    with pytest.raises(InputError, match=r"strokes.journal' cannot be replayed \(.*\); use an intact copy"):
        replay(path, AnnotationStore(SHAPE))


def test_projects_unpack_no_record_that_is_larger_than_their_image(tmp_path):
    pixels = np.zeros(SHAPE, np.uint8)
    with Project.create(tmp_path / "a.sparseseg") as project:
        image = project.add_image(pixels, shape=SHAPE, time_axis=0)
        size = 1 << 26
        write(
            image.folder / "journal" / "000001.journal", {"op": "edit", "arrays": [size]}, zlib.compress(bytes(size), 9)
        )
        tracemalloc.start()
        assert not image.load().store.strokes
        assert not image.history()
        assert project.provenance()["images"][0]["events"] == []
        image.open().store.annotate(Region(0, Box((0, 0, 0), (1, 1, 1))), 1)
        image.close()
        assert len(image.load().store.strokes) == 1
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 16 << 20
