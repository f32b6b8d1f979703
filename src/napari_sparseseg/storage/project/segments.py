"""The journal of an image: a file for each time it was opened for painting."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path

from napari_sparseseg.storage.durable import Disk
from napari_sparseseg.storage.journal import LARGEST_PAYLOAD, FileJournal, JournalRecord, read_from
from napari_sparseseg.storage.project.manifest import Position

_ENDING = ".journal"
_DIGITS = 6


def segment_numbers(folder: Path) -> list[int]:
    """Numbers of the files that are there, ascending."""
    names = [path.name for path in folder.glob(f"*{_ENDING}") if path.is_file() and not path.is_symlink()]
    stems = [name.removesuffix(_ENDING) for name in names]
    return sorted(int(stem) for stem in stems if len(stem) == _DIGITS and stem.isascii() and stem.isdigit())


def segment_path(folder: Path, number: int) -> Path:
    """The file of a number."""
    return folder / f"{number:0{_DIGITS}}{_ENDING}"


def lacks_segments(folder: Path, until: Position) -> bool:
    """Whether files are not there that there may have been before a position: those of the numbers up to its own."""
    numbers = [number for number in segment_numbers(folder) if number <= until.segment]
    return len(numbers) < until.segment


def read_segments(
    folder: Path,
    start: Position,
    largest: int = LARGEST_PAYLOAD,
    *,
    on_damage: Callable[[Path], object] = lambda _: None,
) -> Iterator[tuple[JournalRecord, Position]]:
    """Records from a position on, oldest first, each with the position behind it.

    What is damaged is left out; `on_damage` is called with the file of it, but not for what a crash has torn.
    """
    for number in segment_numbers(folder):
        if number >= start.segment:
            offset = start.offset if number == start.segment else 0
            path = segment_path(folder, number)
            for record, end in read_from(path, offset, largest, on_damage=partial(on_damage, path)):
                yield record, Position(segment=number, offset=end)


class SegmentJournal:
    """The file that is being written; a `Journal`. It appears with the first record, after one that says when.

    Parameters
    ----------
    folder
        Of the image's journal.
    disk
        What is written to.
    on_error
        Called with one sentence when writing fails, and with "" when it works again; writer thread.
    after
        A number that was used already, even if its file is gone.

    """

    def __init__(
        self, folder: Path, disk: Disk, on_error: Callable[[str], object] | None = None, *, after: int = 0
    ) -> None:
        self._folder = folder
        self._disk = disk
        self._on_error = on_error
        self._lock = threading.RLock()
        self._n_before = 0  # records of files that were given up
        self._is_covered = True  # by a fold, what was given up
        self.number = after
        self._begin()

    def _begin(self) -> None:
        self.number = max((self.number, *segment_numbers(self._folder)[-1:])) + 1
        path = segment_path(self._folder, self.number)
        self._file = FileJournal(path, on_error=self._on_error, disk=self._disk)

    @property
    def error(self) -> str:
        """Why the latest records could not be written; empty if all is well."""
        return self._file.error

    @property
    def path(self) -> Path:
        return segment_path(self._folder, self.number)

    @property
    def ticket(self) -> int:
        """Ticket of the latest record, 0 if there is none."""
        with self._lock:
            return self._n_before + self._file.ticket

    def append(self, record: JournalRecord) -> int:
        """Take a record and return its ticket, at once; any thread."""
        with self._lock:
            if not self._file.ticket:
                values = {"time": time.time(), "program": version("napari-sparseseg")}
                self._file.append(JournalRecord("session", values))
            return self._n_before + self._file.append(record)

    def sync(self, ticket: int | None = None, timeout: float | None = None) -> bool:
        """Wait until the record of this ticket (None: all so far) is on disk; False if that fails or takes longer.

        After a file was given up, nothing counts as being on disk before a fold is.
        """
        return self.sync_file(ticket, timeout) and self._is_covered

    def sync_file(self, ticket: int | None = None, timeout: float | None = None) -> bool:
        """The same for the present file alone."""
        with self._lock:
            file, wanted = self._file, self.ticket if ticket is None else ticket
            wanted -= self._n_before
        return wanted <= 0 or file.sync(wanted, timeout)

    def position_of(self, ticket: int) -> Position:
        """The position behind a record, which must be synced; 0 is the beginning."""
        with self._lock:
            within = ticket - self._n_before
            return Position(segment=self.number, offset=self._file.end_of(within) if within > 0 else 0)

    @property
    def needs_fold(self) -> bool:
        """Whether a file was given up and no fold has taken its place yet."""
        return not self._is_covered

    def note_fold(self) -> None:
        """A fold holds all that was in files that were given up."""
        self._is_covered = True

    def is_gone(self) -> bool:
        """Whether the file was removed, so that it cannot be gone on with."""
        return self._file.ticket > 0 and bool(self.error) and not self.path.exists()

    def begin_anew(self) -> None:
        """Go on in a new file. What waits to be written is given up: the caller makes a fold of it all next."""
        with self._lock:
            old, self._n_before, self._is_covered = self._file, self.ticket, False
            self._begin()
        old.close(0)

    def close(self) -> None:
        """Write what is left, then let go of the file."""
        self._file.close()
