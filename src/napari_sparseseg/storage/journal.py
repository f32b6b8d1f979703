"""The journal: every stroke, appended to a file and synced, before anything else happens to it.

A file is a signature, then records: sizes of header and payload, a CRC-32 over sizes, header and payload, the header
(JSON), the payload (bytes, compressed). Whatever follows the last record that is whole was torn by a crash.
"""

from __future__ import annotations

import json
import operator
import os
import struct
import threading
import time
import zlib
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import numpy.typing as npt

from napari_sparseseg.errors import InputError
from napari_sparseseg.storage.durable import Disk, DiskFile, RealDisk

SIGNATURE = b"sparseseg journal 1\n"
_SIZES = struct.Struct("<III")  # header, payload, CRC-32
_LARGEST_HEADER = 2**20
LARGEST_PAYLOAD = 2**34
_LARGEST_RATIO = 1032  # zlib packs no better: more is claimed only by who means harm
_COMPRESSION = 1
_HEADER_START = b'{"op":'
_SEARCHED_AT_ONCE = 2**20
_SEARCH_LIMIT = 8  # sizes of the file that may be read to find a whole record: a file may have been made to be slow

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class JournalRecord:
    """One thing that happened: what (`op`), its values (as JSON has them), and voxels as flat uint8 arrays."""

    op: str
    values: Mapping[str, Any] = field(default_factory=dict)
    arrays: tuple[Bytes, ...] = ()


class Journal(Protocol):
    """Where a store tells what it is about to do."""

    @property
    def error(self) -> str:
        """Why the latest records could not be written: one sentence, empty if all is well."""

    @property
    def ticket(self) -> int:
        """Ticket of the latest record, 0 if there is none."""

    def append(self, record: JournalRecord) -> int:
        """Take a record and return its ticket, at once; never fails."""

    def sync(self, ticket: int, timeout: float | None = None) -> bool:
        """Wait until the record of this ticket is safely on disk; False if it could not be written in time."""

    def close(self) -> None:
        """Write what is left, then let go of the file."""


class Replayable(Protocol):
    """What a journal can be played into."""

    @property
    def largest_record(self) -> int:
        """Bytes of voxels that a record can need; one with more was not written for this."""

    def replay(self, record: JournalRecord) -> bool:
        """Do what a record tells; False if it is about something else."""


def replay(path: str | os.PathLike[str], store: Replayable) -> list[JournalRecord]:
    """Bring a new store to the state in which its journal left it, and return the records of others.

    Raises `InputError` if there is no such file, if it is no journal or belongs to another image.
    """
    others = []
    for record in read_journal(path, store.largest_record):
        try:
            is_known = store.replay(record)
        except InputError as error:
            raise InputError(
                f"{os.fspath(path)!r} cannot be replayed ({str(error)[:200]}); use an intact copy or that of this image"
            ) from error
        if not is_known:
            others.append(record)
    return others


def read_journal(path: str | os.PathLike[str], largest: int = LARGEST_PAYLOAD) -> Iterator[JournalRecord]:
    """Records of a journal, oldest first; ends before the first that is torn or damaged.

    One that was not written here, or has more than `largest` bytes of voxels, is passed over.

    Raises `InputError` if there is no such file, or if it is no journal.
    """
    if not Path(path).is_file():
        raise InputError(f"there is no journal {os.fspath(path)!r}; check the path")
    with Path(path).open("rb") as file:
        for record, _ in _read_records(file, largest):
            yield record


def read_from(
    path: str | os.PathLike[str],
    start: int = 0,
    largest: int = LARGEST_PAYLOAD,
    *,
    on_damage: Callable[[], object] = lambda: None,
) -> Iterator[tuple[JournalRecord, int]]:
    """Records of a journal from a position on, each with the position where it ends; damaged ones are passed over.

    Where something in the middle cannot be read, the next record that is whole is looked for, so that damage costs
    what it hit and no more; one of more than `largest` bytes counts as damaged. `on_damage` is called where records
    follow on something damaged, which a crash does not leave.

    Raises `InputError` if there is no such file.
    """
    if not Path(path).is_file():
        raise InputError(f"there is no journal {os.fspath(path)!r}; check the path")
    with Path(path).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        position: int | None = max(start, len(SIGNATURE))
        while position is not None and position < size:
            file.seek(position)
            record = _read_record(file, size, largest)
            if record is None:
                position = _next_record(file, position + 1, size, largest)
                if position is not None:
                    on_damage()
                continue
            position = file.tell()
            yield record, position


class FileJournal:
    """Appends records to a file, on a thread of its own; what waits is written and synced together.

    What cannot be written (disk full, folder gone) is kept and tried again with the next record, `sync` or `close`.
    A torn tail of an existing file is put aside as "<name>.torn".

    Parameters
    ----------
    path
        A new file, or a journal to go on with; its folder must exist.
    on_error
        Called with one sentence when writing fails, and with "" when it works again; writer thread.
    disk
        What is written to.

    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        on_error: Callable[[str], object] | None = None,
        disk: Disk | None = None,
    ) -> None:
        self._path = Path(path)
        self._on_error = on_error
        self._disk = disk or RealDisk()
        self._ends = array("Q")  # where each record that is synced ends in the file
        self._changed = threading.Condition()
        self._waiting: deque[tuple[bytes, JournalRecord]] = deque()
        self._n_appended = 0
        self._n_synced = 0
        self._n_failed = 0
        self._is_due = False
        self._is_closing = False
        self._has_ended = False
        self._error = ""
        self._file: DiskFile | None = None
        self._end: int | None = None  # of what is known to be whole and synced
        self._thread: threading.Thread | None = None

    @property
    def path(self) -> Path:
        return self._path

    @property
    def error(self) -> str:
        return self._error

    @property
    def ticket(self) -> int:
        """Ticket of the latest record, 0 if there is none."""
        return self._n_appended

    def end_of(self, ticket: int) -> int:
        """Where the record of a ticket ends in the file, in bytes; it must be synced."""
        return self._ends[ticket - 1]

    def append(self, record: JournalRecord) -> int:
        """Take a record and return its ticket, at once; any thread."""
        header = _encode_header(record)
        with self._changed:
            self._waiting.append((header, record))
            self._n_appended += 1
            self._wake_writer()
            return self._n_appended

    def sync(self, ticket: int | None = None, timeout: float | None = None) -> bool:
        """Wait until the record of this ticket (None: all so far) is on disk; False if that fails or takes longer."""
        with self._changed:
            wanted = self._n_appended if ticket is None else ticket
            deadline = None if timeout is None else time.monotonic() + timeout
            # an attempt that is under way may have begun before the cause of a failure was gone: so two
            for _ in range(2):
                if self._n_synced < wanted:
                    self._await_attempt(wanted, None if deadline is None else deadline - time.monotonic())
            return self._n_synced >= wanted

    def close(self, timeout: float = 10.0) -> None:
        """Write what is left and end the thread; what could not be written by then is reported by `error`."""
        with self._changed:
            thread = self._thread
            self._is_closing = True
            self._has_ended |= thread is None
            self._changed.notify_all()
        if thread is not None:
            thread.join(timeout)

    def _wake_writer(self) -> None:
        if self._has_ended:
            self._error = f"the journal {self._path} is closed; strokes are kept in memory only"
            return
        self._is_due = True
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="sparseseg-journal", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _await_attempt(self, wanted: int, timeout: float | None) -> None:
        """Wait until a record is written, or writing has failed once more."""
        n_failed = self._n_failed
        self._wake_writer()
        self._changed.wait_for(
            lambda: self._n_synced >= wanted or self._n_failed > n_failed or self._has_ended, timeout
        )

    def _run(self) -> None:
        while not self._has_ended:
            with self._changed:
                self._changed.wait_for(lambda: self._is_due or self._is_closing)
                self._is_due = False
                batch = list(self._waiting)
            error = self._try_write(batch)
            with self._changed:
                is_news, self._error = error != self._error, error
                if error:
                    self._n_failed += 1
                else:
                    self._n_synced += len(batch)
                    for _ in batch:
                        self._waiting.popleft()
                self._has_ended = self._is_closing and (bool(error) or not self._waiting)
                self._changed.notify_all()
            if is_news and self._on_error is not None:
                self._on_error(error)
        self._close_file()

    def _try_write(self, batch: list[tuple[bytes, JournalRecord]]) -> str:
        if not batch:
            return ""
        try:
            self._write([_encode(header, record.arrays) for header, record in batch])
        except (OSError, MemoryError, InputError) as error:
            self._close_file()
            reason = getattr(error, "strerror", None) or str(error) or "out of memory"
            return f"strokes cannot be saved to {self._path}: {reason}; they are kept in memory and tried again"
        return ""

    def _write(self, records: list[bytes]) -> None:
        file = self._open()
        assert self._end is not None  # noqa: S101  # _open has set it
        file.write_at(self._end, b"".join(records))
        file.sync()
        for record in records:
            self._end += len(record)
            self._ends.append(self._end)

    def _open(self) -> DiskFile:
        """The file, ready to be written at `_end`; opened anew after an error."""
        if self._file is None:
            self._file = _open_or_create(self._disk, self._path, must_exist=self._end is not None)
        if self._end is None:
            self._end = _end_of_records(self._disk, self._file, self._path)
        return self._file

    def _close_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()


def _open_or_create(disk: Disk, path: Path, *, must_exist: bool) -> DiskFile:
    is_new = not path.exists()
    if must_exist and is_new:
        raise InputError("the file was removed or changed by something else")
    file = disk.open(path)
    if is_new:
        disk.sync_folder(path.parent)
    return file


def _end_of_records(disk: Disk, file: DiskFile, path: Path) -> int:
    """Where to go on writing; a torn tail is put aside, a new file gets its signature."""
    with path.open("rb") as existing:
        end = _end_of_whole(existing)
        existing.seek(0)
        if not end and existing.read(len(SIGNATURE)) == SIGNATURE:
            end = len(SIGNATURE)
        existing.seek(end)
        torn = existing.read()
    if end and torn:
        disk.write(path.with_name(f"{path.name}.torn"), torn)
    if not end:
        file.write_at(0, SIGNATURE)
        end = len(SIGNATURE)
    return end


def _read_records(file: IO[bytes], largest: int = LARGEST_PAYLOAD) -> Iterator[tuple[JournalRecord, int]]:
    """Records that are whole, each with the position where it ends.

    Those that cannot be, or have more than `largest` bytes of voxels, were not written here, and are passed over.
    """
    size = os.fstat(file.fileno()).st_size
    _check_signature(file)
    while framed := _read_framed(file, size):
        record = _decode(*framed, largest)
        if record is not None:
            yield record, file.tell()


def _end_of_whole(file: IO[bytes]) -> int:
    """Where the last record ends whose checksum is right; 0 if there is none."""
    size = os.fstat(file.fileno()).st_size
    _check_signature(file)
    end = 0
    while _read_framed(file, size):
        end = file.tell()
    return end


def _check_signature(file: IO[bytes]) -> None:
    file.seek(0)
    found = file.read(len(SIGNATURE))
    if found != SIGNATURE[: len(found)]:
        raise InputError(f"{os.fspath(file.name)!r} is not a journal of strokes; check the path")


def _read_record(file: IO[bytes], size: int, largest: int) -> JournalRecord | None:
    framed = _read_framed(file, size)
    return None if framed is None else _decode(*framed, largest)


def _read_framed(file: IO[bytes], size: int) -> tuple[bytes, bytes] | None:
    """Header and payload of a record, None if its sizes or its checksum are wrong."""
    sizes = file.read(_SIZES.size)
    if len(sizes) < _SIZES.size:
        return None
    n_header, n_payload, expected = _SIZES.unpack(sizes)
    if n_header > _LARGEST_HEADER or file.tell() + n_header + n_payload > size:
        return None
    header, payload = file.read(n_header), file.read(n_payload)
    if _checksum(header, payload) != expected:
        return None
    return header, payload


def _next_record(file: IO[bytes], start: int, size: int, largest: int) -> int | None:
    """Where the next record begins that is whole; None if there is none, or if the search becomes endless."""
    position, n_read = start, 0
    while position < size and n_read <= _SEARCH_LIMIT * size:
        file.seek(position)
        piece = file.read(_SEARCHED_AT_ONCE + len(_HEADER_START))
        found = piece.find(_HEADER_START)
        while found >= 0:
            begin = position + found - _SIZES.size
            file.seek(max(begin, 0))
            if begin >= start and _read_record(file, size, largest) is not None:
                return begin
            n_read += file.tell() - max(begin, 0)
            if n_read > _SEARCH_LIMIT * size:
                break
            found = piece.find(_HEADER_START, found + 1)
        position += _SEARCHED_AT_ONCE
    return None


def _encode_header(record: JournalRecord) -> bytes:
    content = {"op": record.op, **record.values, "arrays": [array.size for array in record.arrays]}
    return json.dumps(content, separators=(",", ":"), default=operator.index).encode()


def _encode(header: bytes, arrays: tuple[Bytes, ...]) -> bytes:
    packer = zlib.compressobj(_COMPRESSION)
    parts = [packer.compress(np.ascontiguousarray(array).data) for array in arrays]
    payload = b"".join([*parts, packer.flush()]) if arrays else b""
    return _SIZES.pack(len(header), len(payload), _checksum(header, payload)) + header + payload


def _checksum(header: bytes, payload: bytes) -> int:
    sizes = struct.pack("<II", len(header), len(payload))
    return zlib.crc32(payload, zlib.crc32(header, zlib.crc32(sizes)))


def _parsed(header: bytes, n_packed: int, largest: int) -> tuple[str, dict[str, Any], list[int]] | None:
    """What a record is about, its values, and the sizes of its arrays, if they can be in a payload of this size."""
    try:
        values = json.loads(header)
        op, sizes = str(values.pop("op")), [int(size) for size in values.pop("arrays")]
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
    if min(sizes, default=0) < 0 or sum(sizes) > min(largest, _LARGEST_RATIO * n_packed):
        return None
    return op, values, sizes


def _decode(header: bytes, payload: bytes, largest: int) -> JournalRecord | None:
    """The record, None if it cannot be: then the file was not written by this class."""
    parsed = _parsed(header, len(payload), largest)
    if parsed is None:
        return None
    op, values, sizes = parsed
    total = sum(sizes)
    try:
        content = zlib.decompressobj().decompress(payload, max_length=max(total, 1)) if sizes else b""
    except zlib.error:
        return None
    if len(content) != total:
        return None
    flat = np.frombuffer(content, np.uint8)
    return JournalRecord(op, values, tuple(np.split(flat, np.cumsum(sizes)[:-1])) if sizes else ())
