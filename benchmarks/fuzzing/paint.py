"""Journals of strokes."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fuzzing.mutators import Rng, bytes_of_some_file, odd_json, pick, text_of_some_file, zlib_bomb
from fuzzing.target import Target
from napari_sparseseg._types import Box, Plane, Region
from napari_sparseseg.storage.journal import SIGNATURE, FileJournal, read_journal, replay
from napari_sparseseg.storage.strokes import AnnotationStore

SHAPE = (2, 3, 12, 10)
_SIZES = struct.Struct("<III")


def make_journals(folder: Path) -> Sequence[Path]:
    """A journal of everything that can happen to an annotation."""
    path = folder / "strokes.journal"
    journal = FileJournal(path)
    paint(AnnotationStore(SHAPE, journal=journal, clock=lambda: 1.7e9))
    journal.close()
    return [path]


def paint(store: AnnotationStore) -> None:
    """One stroke or decision of each kind."""
    plane = Plane(0, 0, 1)
    region = Region(0, Box((1, 2, 2), (2, 9, 8)), np.random.default_rng(0).random((1, 7, 6)) < 0.7)
    shown = np.random.default_rng(1).integers(1, 4, (1, 7, 6)).astype(np.uint8)
    store.annotate(region, 2, plane)
    store.annotate(Region(1, Box((0, 0, 0), (3, 4, 4))), store.code_for(any_of=(1, 3)), Plane(1, 1, 2))
    store.correct(region, 3, shown, plane, class_ids=(1, 2, 3), background=1)
    store.correct(region, 0, shown, plane, class_ids=(1, 2, 3), background=1)
    store.undo()
    store.redo()
    store.set_complete(plane, True)
    store.remove_class(2, class_ids=(1, 3))
    store.annotate(Region(0, Box((0, 0, 0), (1, 12, 10))), 0)


def use_journal(path: Path) -> None:
    """Replay it, read all that a store tells, and go on with the journal."""
    store = AnnotationStore(SHAPE)
    replay(path, store)
    read_all(store)
    journal = FileJournal(path)
    store.journal = journal
    store.annotate(Region(0, Box((0, 0, 0), (1, 2, 2))), 1)
    journal.close()
    assert not journal.error, journal.error
    n_records = sum(1 for _ in read_journal(path, store.largest_record))
    assert n_records, "what was appended to a journal is there"


def read_all(store: AnnotationStore) -> None:
    """All that the dock and the learner ask a store for; then undo and redo everything."""
    for frame in range(store.shape[0]):
        store.snapshot(frame, classes=(1, 2, 3), background=1)
        store.n_painted(frame)
    assert store.codes.shape == store.shape
    _ = store.painted_classes(1), store.painted_slices(), store.frames_with_paint(), store.strokes, store.sets
    while store.undo():
        pass
    while store.redo():
        pass
    store.code_for(none_of=(2, 3))
    store.remove_class(1, class_ids=(2, 3))


# --- somebody who knows the format ---


def mutate_records(path: Path, rng: Rng) -> None:
    """Change, repeat, leave out or move a record, and compute its checksum anew."""
    records = _records_of(path.read_bytes())
    if not records:
        return bytes_of_some_file(path, rng)
    at = int(rng.integers(len(records)))
    header, payload = records[at]
    match int(rng.integers(8)):
        case 0:
            records.insert(int(rng.integers(len(records))), records[at])
        case 1:
            del records[at]
        case 2:
            records.insert(int(rng.integers(len(records))), records.pop(at))
        case 3:
            content = bytearray(zlib.decompress(payload)) if payload else bytearray(rng.bytes(9))
            if content:
                content[int(rng.integers(len(content)))] = int(rng.integers(256))
            records[at] = header, zlib.compress(bytes(content), 1)
        case 4:
            sizes = pick(rng, ([2**33], [2**33] * 3, [2**40, 0, 0], [1, 2**31, 1], [float("inf")], [-1, 1]))
            records[at] = json.dumps({**json.loads(header), "arrays": sizes}).encode(), zlib_bomb()
        case _:
            records[at] = odd_json(json.loads(header), rng), payload
    path.write_bytes(SIGNATURE + b"".join(_framed(*record) for record in records))
    return None


def _records_of(content: bytes) -> list[tuple[bytes, bytes]]:
    """Header and payload of each record."""
    at, found = len(SIGNATURE), []
    while at + _SIZES.size <= len(content):
        n_header, n_payload, _ = _SIZES.unpack_from(content, at)
        start = at + _SIZES.size
        at = start + n_header + n_payload
        header, payload = content[start : start + n_header], content[start + n_header : at]
        if not header.startswith(b"{"):
            break
        found.append((header, payload))
    return found


def _framed(header: bytes, payload: bytes) -> bytes:
    sizes = struct.pack("<II", len(header), len(payload))
    return _SIZES.pack(len(header), len(payload), zlib.crc32(payload, zlib.crc32(header, zlib.crc32(sizes)))) + (
        header + payload
    )


TARGETS = (
    Target(
        "journal",
        make_journals,
        (bytes_of_some_file, text_of_some_file, mutate_records, mutate_records, mutate_records),
        use_journal,
    ),
)
