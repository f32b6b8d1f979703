"""The journal file: nothing that was synced is lost, and nothing that is damaged is believed."""

from __future__ import annotations

import errno
import os
import struct
import threading
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_sparseseg._types import Box, Plane, Region
from napari_sparseseg.errors import InputError
from napari_sparseseg.storage import journal as journal_module
from napari_sparseseg.storage.journal import SIGNATURE, FileJournal, JournalRecord, read_from, read_journal, replay
from napari_sparseseg.storage.strokes import AnnotationStore

SHAPE = (1, 2, 16, 16)


def same(first: JournalRecord, second: JournalRecord) -> bool:
    return (
        (first.op, first.values) == (second.op, second.values)
        and len(first.arrays) == len(second.arrays)
        and all(np.array_equal(a, b) for a, b in zip(first.arrays, second.arrays, strict=True))
    )


def records(n=4):
    rng = np.random.default_rng(0)
    return [
        JournalRecord("test", {"number": i}, tuple(rng.integers(0, 9, size, np.uint8) for size in (i, 50 * i)[: i % 3]))
        for i in range(n)
    ]


def write(path, items):
    journal = FileJournal(path)
    for record in items:
        journal.append(record)
    assert journal.sync(timeout=30), journal.error
    journal.close()
    return path.read_bytes()


def assert_holds(path, expected):
    found = list(read_journal(path))
    assert len(found) == len(expected)
    assert all(same(a, b) for a, b in zip(found, expected, strict=True))


def frame(header: bytes, payload: bytes = b"") -> bytes:
    """A record whose checksum is right."""
    sizes = struct.pack("<II", len(header), len(payload))
    checksum = zlib.crc32(payload, zlib.crc32(header, zlib.crc32(sizes)))
    return sizes + struct.pack("<I", checksum) + header + payload


@pytest.fixture
def path(tmp_path):
    return tmp_path / "strokes.journal"


class FailingFsync:
    """fsync that fails as long as it is told to."""

    def __init__(self, monkeypatch, n_failures):
        self.n_failures = n_failures
        self.n_calls = 0
        self.real = os.fsync
        monkeypatch.setattr(journal_module.os, "fsync", self)

    def __call__(self, number):
        self.n_calls += 1
        if self.n_failures > 0:
            self.n_failures -= 1
            raise OSError(errno.ENOSPC, "No space left on device")
        self.real(number)


class TestFileJournal:
    def test_what_was_appended_is_read(self, path):
        write(path, records())
        assert_holds(path, records())

    def test_tickets_count_up(self, path):
        journal = FileJournal(path)
        assert [journal.append(record) for record in records(3)] == [1, 2, 3]
        assert journal.sync(2, timeout=30)
        assert journal.path == path
        journal.close()

    def test_a_journal_can_be_gone_on_with(self, path):
        write(path, records(2))
        write(path, records(3))
        assert_holds(path, records(2) + records(3))

    def test_one_that_was_not_used_makes_no_file(self, path):
        journal = FileJournal(path)
        assert journal.sync(timeout=5)
        journal.close()
        assert not path.exists()

    def test_a_torn_tail_is_put_aside_before_more_is_written(self, path):
        write(path, records(3))
        with path.open("ab") as file:
            file.write(b"torn")
        write(path, records(1))
        assert_holds(path, records(3) + records(1))
        assert path.with_name("strokes.journal.torn").read_bytes() == b"torn"

    @pytest.mark.parametrize("n_bytes", range(len(SIGNATURE) + 1))
    def test_a_file_that_was_torn_at_its_birth_is_begun_anew(self, path, n_bytes):
        path.write_bytes(SIGNATURE[:n_bytes])
        assert list(read_journal(path)) == []
        write(path, records(1))
        assert_holds(path, records(1))

    def test_closing_writes_what_is_left(self, path):
        journal = FileJournal(path)
        for record in records():
            journal.append(record)
        journal.close()
        assert journal.error == ""
        assert_holds(path, records())

    def test_after_closing_it_says_so_and_raises_nothing(self, path):
        for journal in (FileJournal(path), FileJournal(path)):
            journal.close()
            ticket = journal.append(records(1)[0])
            assert not journal.sync(ticket, timeout=5)
            assert "is closed" in journal.error
            journal.close()

    def test_the_thread_ends(self, path):
        write(path, records())
        assert "sparseseg-journal" not in [thread.name for thread in threading.enumerate()]

    def test_many_strokes_are_synced_together(self, path, monkeypatch):
        fsync = FailingFsync(monkeypatch, 0)
        is_open = threading.Event()
        real_open = journal_module._open_or_create

        def slow_open(*args, **kwargs):
            is_open.wait(30)
            return real_open(*args, **kwargs)

        monkeypatch.setattr(journal_module, "_open_or_create", slow_open)
        journal = FileJournal(path)
        for i in range(500):
            journal.append(JournalRecord("test", {"number": i}))
        is_open.set()
        assert journal.sync(timeout=30)
        journal.close()
        assert fsync.n_calls < 10
        assert len(list(read_journal(path))) == 500

    def test_several_threads_may_append(self, path):
        journal = FileJournal(path)

        def append_some(name):
            for i in range(50):
                journal.append(JournalRecord(name, {"number": i}))

        threads = [threading.Thread(target=append_some, args=(name,)) for name in "abc"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert journal.sync(timeout=30)
        journal.close()
        found = list(read_journal(path))
        for name in "abc":
            assert [record.values["number"] for record in found if record.op == name] == list(range(50))


class TestFailure:
    @pytest.mark.parametrize("n_failures", [1, 2, 3])
    def test_no_stroke_is_lost_when_syncing_fails(self, path, monkeypatch, n_failures):
        told = []
        journal = FileJournal(path, on_error=told.append)
        tickets = [journal.append(records(1)[0])]
        assert journal.sync(timeout=30)
        FailingFsync(monkeypatch, n_failures)
        tickets += [journal.append(record) for record in records()[1:]]
        while not journal.sync(tickets[-1], timeout=30):
            assert "No space left on device" in journal.error
        journal.close()
        assert journal.error == ""
        assert_holds(path, records())
        assert told[0].startswith("strokes cannot be saved")
        assert told[-1] == ""

    def test_a_write_that_ends_halfway_is_written_over(self, path, monkeypatch):
        journal = FileJournal(path)
        journal.append(records(1)[0])
        assert journal.sync(timeout=30)
        real = journal._file._file

        class HalfFull:
            n_left = 1

            def write(self, content):
                if self.n_left:
                    self.n_left -= 1
                    real.write(content[:7])
                    raise OSError(errno.ENOSPC, "No space left on device")
                return real.write(content)

            def __getattr__(self, name):
                return getattr(real, name)

        journal._file._file = HalfFull()
        for record in records()[1:]:
            journal.append(record)
        assert journal.sync(timeout=30)
        journal.close()
        assert_holds(path, records())

    def test_a_disk_that_takes_a_few_bytes_at_a_time_gets_all(self, path):
        journal = FileJournal(path)
        journal.append(records(1)[0])
        assert journal.sync(timeout=30)
        real = journal._file._file

        class Narrow:
            def write(self, content):
                return real.write(content[:5])

            def __getattr__(self, name):
                return getattr(real, name)

        journal._file._file = Narrow()
        for record in records()[1:]:
            journal.append(record)
        journal.close()
        assert_holds(path, records())

    def test_a_folder_that_appears_later_gets_everything(self, tmp_path):
        path = tmp_path / "later" / "journal"
        journal = FileJournal(path)
        ticket = journal.append(records(1)[0])
        assert not journal.sync(ticket, timeout=30)
        assert "No such file" in journal.error
        path.parent.mkdir()
        for record in records()[1:]:
            ticket = journal.append(record)
        assert journal.sync(ticket, timeout=30)
        assert journal.error == ""
        journal.close()
        assert_holds(path, records())

    @pytest.mark.skipif(os.name != "posix", reason="Windows does not let go of a file that is open")
    def test_a_file_that_was_removed_is_noticed(self, path):
        journal = FileJournal(path)
        journal.append(records(1)[0])
        assert journal.sync(timeout=30)
        path.rename(path.with_name("aside"))
        ticket = journal.append(records(2)[1])
        assert not journal.sync(ticket, timeout=30)
        assert journal.error
        path.write_bytes(SIGNATURE)
        assert not journal.sync(ticket, timeout=30)
        assert "removed or changed" in journal.error
        path.with_name("aside").replace(path)
        assert journal.sync(ticket, timeout=30)
        journal.close()
        assert_holds(path, records(2))

    def test_another_file_is_not_written_to(self, path):
        path.write_bytes(b"a letter to my aunt")
        journal = FileJournal(path)
        assert not journal.sync(journal.append(records(1)[0]), timeout=30)
        assert "not a journal" in journal.error
        journal.close()
        assert path.read_bytes() == b"a letter to my aunt"

    def test_closing_ends_even_if_nothing_can_be_written(self, tmp_path):
        journal = FileJournal(tmp_path / "nowhere" / "journal")
        journal.append(records(1)[0])
        journal.close(timeout=30)
        assert not journal._thread.is_alive()
        assert "kept in memory" in journal.error

    def test_waiting_ends_in_time(self, path, monkeypatch):
        is_free = threading.Event()
        monkeypatch.setattr(journal_module.os, "fsync", lambda number: is_free.wait(30))
        journal = FileJournal(path)
        assert not journal.sync(journal.append(records(1)[0]), timeout=0.05)
        is_free.set()
        assert journal.sync(timeout=30)
        journal.close()


class TestReadJournal:
    def test_a_torn_tail_is_dropped_wherever_it_was_torn(self, path):
        whole = write(path, records())
        ends = [len(SIGNATURE)]
        for i in range(1, 5):
            part = path.with_name("part")
            part.unlink(missing_ok=True)
            ends.append(len(write(part, records(i))))
        for size in range(len(whole) + 1):
            path.write_bytes(whole[:size])
            assert_holds(path, records(max(0, sum(end <= size for end in ends) - 1)))

    def test_whatever_follows_a_damaged_byte_is_dropped(self, path):
        whole = write(path, records())
        for place in range(len(SIGNATURE), len(whole)):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
            found = list(read_journal(path))
            assert len(found) < 4
            assert all(same(a, b) for a, b in zip(found, records(), strict=False))

    @settings(max_examples=200, deadline=None)
    @given(tail=st.binary(max_size=60))
    def test_any_tail_is_harmless(self, tmp_path_factory, tail):
        path = tmp_path_factory.getbasetemp() / "any-tail.journal"
        path.write_bytes(SIGNATURE + frame(b'{"op":"test","number":0,"arrays":[]}') + tail)
        assert_holds(path, records(1))

    @pytest.mark.parametrize(
        ("header", "payload"),
        [
            (b"not json", b""),
            (b"[1]", b""),
            (b'{"op":"x"}', b""),
            (b'{"op":"x","arrays":3}', b""),
            (b'{"op":"x","arrays":["a"]}', b""),
            (b'{"op":"x","arrays":[-1]}', zlib.compress(b"")),
            (b'{"op":"x","arrays":[99999999999999]}', zlib.compress(b"")),
            (b'{"op":"x","arrays":[3]}', b"not zlib"),
            (b'{"op":"x","arrays":[3]}', zlib.compress(b"12")),
            (b"\xff\xfe", b""),
        ],
    )
    def test_records_that_this_program_never_wrote_are_not_believed(self, path, header, payload):
        path.write_bytes(SIGNATURE + frame(header, payload))
        assert list(read_journal(path)) == []

    def test_the_size_of_a_header_is_bounded(self, path):
        path.write_bytes(SIGNATURE + frame(b'{"op":"x","arrays":[]}' + b" " * 2**20))
        assert list(read_journal(path)) == []

    def test_a_payload_unpacks_to_no_more_than_it_says(self, path):
        path.write_bytes(SIGNATURE + frame(b'{"op":"x","arrays":[3]}', zlib.compress(bytes(10_000_000))))
        (record,) = read_journal(path)
        assert record.arrays[0].tolist() == [0, 0, 0]

    def test_what_is_no_journal_is_refused(self, path):
        with pytest.raises(InputError, match="there is no journal"):
            list(read_journal(path))
        path.write_bytes(b"a letter to my aunt")
        with pytest.raises(InputError, match="is not a journal"):
            list(read_journal(path))


class TestReplay:
    def paint(self, store, seed=0):
        rng = np.random.default_rng(seed)
        for i in range(12):
            region = Region(0, Plane(0, 0, i % 2).box(SHAPE[1:]), rng.random((1, 16, 16)) < 0.3)
            if i % 3:
                store.annotate(region, rng.integers(0, 4, (1, 16, 16)), Plane(0, 0, i % 2))
            else:
                shown = rng.integers(0, 4, (1, 16, 16))
                store.correct(region, i % 2, shown, Plane(0, 0, i % 2), class_ids=(1, 2, 3), background=1)
            if i % 4 == 3:
                store.undo()
        store.redo()
        store.set_complete(Plane(0, 1, 4), True)

    def assert_equal(self, first, second):
        np.testing.assert_array_equal(first.codes, second.codes)
        np.testing.assert_array_equal(first._voxels.ids, second._voxels.ids)
        assert first.strokes == second.strokes
        assert first.sets == second.sets
        assert first.painted_slices() == second.painted_slices()

    def test_gives_the_same_store(self, path):
        journal = FileJournal(path)
        store = AnnotationStore(SHAPE, journal=journal)
        self.paint(store)
        journal.append(JournalRecord("classes", {"names": ["background"]}))
        journal.close()
        again = AnnotationStore(SHAPE)
        (other,) = replay(path, again)
        assert (other.op, other.values) == ("classes", {"names": ["background"]})
        self.assert_equal(again, store)
        assert again.undo() == store.undo()

    def test_numpy_numbers_are_welcome(self, path):
        journal = FileJournal(path)
        store = AnnotationStore(tuple(np.array(SHAPE)), journal=journal)
        zero, one = np.int64(0), np.uint16(1)
        store.annotate(
            Region(zero, Box((zero, zero, zero), (one, one, one)), np.ones((1, 1, 1), np.uint8)),
            one,
            Plane(zero, zero, one),
        )
        store.set_complete(Plane(zero, one, one), np.bool_(True))
        store.remove_class(np.uint8(2), class_ids=np.array([1, 3]))
        journal.close()
        again = AnnotationStore(SHAPE)
        replay(path, again)
        self.assert_equal(again, store)

    def test_the_store_can_go_on_with_the_same_file(self, path):
        first_journal = FileJournal(path)
        self.paint(AnnotationStore(SHAPE, journal=first_journal))
        first_journal.close()
        store = AnnotationStore(SHAPE)
        replay(path, store)
        store.journal = FileJournal(path)
        self.paint(store, seed=1)
        store.journal.close()
        again = AnnotationStore(SHAPE)
        replay(path, again)
        self.assert_equal(again, store)

    def test_a_stroke_costs_no_more_than_its_bits(self, path):
        journal = FileJournal(path)
        store = AnnotationStore((1, 8, 64, 64), journal=journal)
        store.annotate(Region(0, Box.whole((8, 64, 64))), 1)
        journal.close()
        assert path.stat().st_size < 1000

    def test_of_another_image_is_refused(self, path):
        journal = FileJournal(path)
        AnnotationStore(SHAPE, journal=journal)
        journal.close()
        with pytest.raises(InputError, match="belongs to an image of shape"):
            replay(path, AnnotationStore((1, 2, 3, 4)))

    def test_a_failing_disk_does_not_disturb_painting(self, tmp_path):
        store = AnnotationStore(SHAPE, journal=FileJournal(tmp_path / "nowhere" / "journal"))
        self.paint(store)
        assert store.codes.any()
        assert not store.journal.sync(timeout=30)
        (tmp_path / "nowhere").mkdir()
        assert store.journal.sync(timeout=30)
        store.journal.close()
        again = AnnotationStore(SHAPE)
        replay(tmp_path / "nowhere" / "journal", again)
        self.assert_equal(again, store)


class TestReadFrom:
    def test_it_goes_on_from_where_a_record_ended(self, path):
        write(path, records())
        ends = [end for _, end in read_from(path)]
        assert ends[-1] == path.stat().st_size
        found = [record for record, _ in read_from(path, ends[1])]
        assert [record.values["number"] for record in found] == [2, 3]

    @pytest.mark.parametrize("offset", range(0, 60, 7))
    def test_a_damaged_record_costs_itself_only(self, path, offset):
        content = bytearray(write(path, records()))
        ends = [end for _, end in read_from(path)]
        content[ends[0] + offset % (ends[1] - ends[0])] ^= 0xFF
        path.write_bytes(content)
        assert [record.values["number"] for record, _ in read_from(path)] == [0, 2, 3]

    def test_a_torn_tail_is_left_out(self, path):
        content = write(path, records())
        path.write_bytes(content[:-3])
        assert [record.values["number"] for record, _ in read_from(path)] == [0, 1, 2]

    def test_nothing_follows_the_end(self, path):
        content = write(path, records())
        assert list(read_from(path, len(content))) == []
        assert list(read_from(path, 10 * len(content))) == []

    def test_the_journal_knows_where_records_end(self, path):
        journal = FileJournal(path)
        tickets = [journal.append(record) for record in records()]
        assert journal.sync(timeout=30)
        assert [journal.end_of(ticket) for ticket in tickets] == [end for _, end in read_from(path)]
        assert journal.ticket == tickets[-1]
        journal.close()
