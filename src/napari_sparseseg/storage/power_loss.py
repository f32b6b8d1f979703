"""What a power failure leaves of a project: a disk that records, and the state of the medium at any moment since.

For tests and benchmarks. A process that is killed leaves what it wrote in the system's memory; a power failure does
not. Here the recorded writes are played into a model of a file system that keeps what was synced, and of all else
nothing, or some of it at random: systems promise neither.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from napari_sparseseg.storage.durable import Disk, DiskFile, RealDisk


class DiskEvent(NamedTuple):
    """A call of a disk, or a mark; paths are relative to the recorded folder."""

    op: str
    path: str = ""
    content: bytes = b""
    offset: int = 0
    target: str = ""
    mark: Any = None


class RecordingDisk:
    """Writes to a real disk and remembers all of it. `folder` holds the projects that are written."""

    def __init__(self, folder: Path, disk: Disk | None = None) -> None:
        self.events: list[DiskEvent] = []
        self._folder = folder
        self._disk = disk or RealDisk()
        self._lock = threading.RLock()

    def mark(self, what: Any) -> None:
        """Remember that something happened at this moment."""
        with self._lock:
            self.events.append(DiskEvent("mark", mark=what))

    def make_folder(self, path: Path) -> None:
        """As `Disk` has it."""
        with self._lock:
            self._disk.make_folder(path)
            self._note("make_folder", path)

    def write(self, path: Path, content: bytes) -> None:
        """As `Disk` has it."""
        with self._lock:
            self._disk.write(path, content)
            self._note("write", path, content=bytes(content))

    def open(self, path: Path) -> DiskFile:
        """As `Disk` has it."""
        with self._lock:
            file = self._disk.open(path)
            self._note("open", path)
        return _RecordingFile(self, path, file)

    def rename(self, old: Path, new: Path) -> None:
        """As `Disk` has it."""
        with self._lock:
            self._disk.rename(old, new)
            self._note("rename", old, target=self._name(new))

    def remove(self, path: Path) -> None:
        """As `Disk` has it."""
        with self._lock:
            self._disk.remove(path)
            self._note("remove", path)

    def sync(self, path: Path) -> None:
        """As `Disk` has it."""
        with self._lock:
            self._disk.sync(path)
            self._note("sync", path)

    def sync_folder(self, path: Path) -> None:
        """As `Disk` has it."""
        with self._lock:
            self._disk.sync_folder(path)
            self._note("sync_folder", path)

    def note_growth(self, path: Path, file: DiskFile, offset: int, content: bytes | None) -> None:
        """Write to an open file, or sync it, and remember that."""
        with self._lock:
            if content is None:
                file.sync()
                self._note("sync", path)
            else:
                file.write_at(offset, content)
                self._note("write_at", path, content=bytes(content), offset=offset)

    def _note(self, op: str, path: Path, **values: Any) -> None:
        self.events.append(DiskEvent(op, self._name(path), **values))

    def _name(self, path: Path) -> str:
        return path.relative_to(self._folder).as_posix()


class _RecordingFile:
    def __init__(self, disk: RecordingDisk, path: Path, file: DiskFile) -> None:
        self._disk, self._path, self._file = disk, path, file

    def write_at(self, offset: int, content: bytes) -> None:
        self._disk.note_growth(self._path, self._file, offset, content)

    def sync(self) -> None:
        self._disk.note_growth(self._path, self._file, 0, None)

    def close(self) -> None:
        self._file.close()


@dataclass(slots=True, eq=False)
class _File:
    content: bytes = b""
    synced: bytes = b""


@dataclass(slots=True, eq=False)
class _Folder:
    entries: dict[str, _File | _Folder] = field(default_factory=dict)
    synced: dict[str, _File | _Folder] = field(default_factory=dict)


class Medium:
    """A file system as it is in memory, and as it is on the medium."""

    def __init__(self) -> None:
        self._root = _Folder()

    def play(self, events: Sequence[DiskEvent]) -> None:
        """Do what was recorded."""
        for event in events:
            if event.op != "mark":
                self._do(event)

    def leave(self, folder: Path, rng: np.random.Generator | None = None) -> None:
        """Write what is left after a power failure into an empty folder.

        Without `rng` only what was synced; with it, of each thing that was not synced the old or the new state, and
        of new contents mostly a part.
        """
        self._leave(self._root, folder, rng)

    def _do(self, event: DiskEvent) -> None:
        folder, name = self._place(event.path)
        there = folder.entries.get(name) if name else folder
        if event.op == "make_folder":
            folder.entries.setdefault(name, _Folder())
        elif event.op in ("write", "open", "write_at"):
            file = there if isinstance(there, _File) else folder.entries.setdefault(name, _File())
            assert isinstance(file, _File)  # noqa: S101 - the real disk has refused anything else
            if event.op != "open":
                file.content = file.content[: event.offset] + event.content
        elif event.op == "rename":
            target, new_name = self._place(event.target)
            target.entries[new_name] = folder.entries.pop(name)
        elif event.op == "remove":
            folder.entries.pop(name, None)
        elif event.op == "sync" and isinstance(there, _File):
            there.synced = there.content
        elif event.op == "sync_folder" and isinstance(there, _Folder):
            there.synced = dict(there.entries)

    def _place(self, path: str) -> tuple[_Folder, str]:
        if path == ".":
            return self._root, ""
        *parents, name = path.split("/")
        folder = self._root
        for parent in parents:
            found = folder.entries[parent]
            assert isinstance(found, _Folder)  # noqa: S101
            folder = found
        return folder, name

    def _leave(self, node: _Folder, folder: Path, rng: np.random.Generator | None) -> None:
        for name in sorted({*node.synced, *node.entries}):
            old, new = node.synced.get(name), node.entries.get(name)
            found = new if rng is not None and old is not new and rng.random() < 0.5 else old
            if isinstance(found, _File):
                (folder / name).write_bytes(_content_left(found, rng))
            elif found is not None:
                (folder / name).mkdir()
                self._leave(found, folder / name, rng)


def _content_left(file: _File, rng: np.random.Generator | None) -> bytes:
    if rng is None or file.content == file.synced or rng.random() < 0.3:
        return file.synced
    # what was synced and has only grown since is not touched
    kept = len(file.synced) if file.content.startswith(file.synced) else 0
    return file.content[: int(rng.integers(kept, len(file.content) + 1))]
