"""Writing so that it lasts: every write of a project goes through a `Disk`, and is on the medium once it was synced.

A file's content and its name are two things: `sync` makes the content last, `sync_folder` the names in a folder. Only
what both have covered is there after the power has failed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

PARTIAL = ".partial"
"""Ending of what is being written and not yet in its place; may be removed by whoever finds it."""

DROPPED = ".dropped"
"""Ending of a folder that is being removed."""


class SourceError(OSError):
    """What was to be copied cannot be read."""


class DiskFile(Protocol):
    """An open file that grows: the journal's."""

    def write_at(self, offset: int, content: bytes) -> None:
        """Write all of the content; what lies behind it is cut off."""

    def sync(self) -> None: ...

    def close(self) -> None: ...


class Disk(Protocol):
    """Where a project is written to. Methods raise OSError as the system does."""

    def make_folder(self, path: Path) -> None: ...

    def write(self, path: Path, content: bytes) -> None:
        """Write a new file, or an existing one anew; not synced."""

    def open(self, path: Path) -> DiskFile:
        """Open a file for growing; made if it is not there."""

    def rename(self, old: Path, new: Path) -> None:
        """Give a file or folder another name; takes the place of a file that has it."""

    def remove(self, path: Path) -> None:
        """Remove a file, or a folder with all that it holds; it may be gone already."""

    def sync(self, path: Path) -> None:
        """Make a file's content last."""

    def sync_folder(self, path: Path) -> None:
        """Make names in a folder last: new ones, changed ones, removed ones."""


class RealDisk:
    """The file system."""

    def make_folder(self, path: Path) -> None:
        """Make a folder that may be there already."""
        path.mkdir(exist_ok=True)

    def write(self, path: Path, content: bytes) -> None:
        """As the protocol says."""
        with path.open("wb", buffering=0) as file:
            _write_all(file, content)

    def open(self, path: Path) -> DiskFile:
        """As the protocol says."""
        return _RealFile(path)

    def rename(self, old: Path, new: Path) -> None:
        """As the protocol says."""
        old.replace(new)

    def remove(self, path: Path) -> None:
        """As the protocol says."""
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def sync(self, path: Path) -> None:
        """As the protocol says."""
        # Windows flushes only what was opened for writing
        _sync(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)

    def sync_folder(self, path: Path) -> None:
        """As the protocol says; Windows opens no folders and keeps names by itself."""
        if os.name == "posix":
            _sync(path, os.O_RDONLY)


class _RealFile:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] = path.open("r+b" if path.exists() else "x+b", buffering=0)

    def write_at(self, offset: int, content: bytes) -> None:
        there = self._path.stat()
        # what is written to a file that was deleted or replaced is lost without an error
        if not os.path.samestat(there, os.fstat(self._file.fileno())) or there.st_size < offset:
            raise OSError(None, "the file was removed or changed by something else")
        self._file.seek(offset)
        _write_all(self._file, content)
        self._file.truncate()

    def sync(self) -> None:
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def replace_file(disk: Disk, path: Path, content: bytes) -> None:
    """Put a file in its place, whole or not at all; once this returns it lasts."""
    partial = path.with_name(path.name + PARTIAL)
    disk.write(partial, content)
    disk.sync(partial)
    disk.rename(partial, path)
    disk.sync_folder(path.parent)


def drop_folder(disk: Disk, path: Path) -> None:
    """Remove a folder, which may be gone already, so that nobody ever finds a part of it under its name."""
    disk.remove(set_aside(disk, path))


def set_aside(disk: Disk, path: Path) -> Path:
    """Give a folder, if it is there, a name by which nobody looks for it; that is returned, for it to be removed."""
    aside = path.with_name(path.name + DROPPED)
    disk.remove(aside)
    if os.path.lexists(path):
        disk.rename(path, aside)
        disk.sync_folder(path.parent)
    return aside


def write_folder(disk: Disk, path: Path, files: Mapping[str, bytes]) -> None:
    """Write a new folder of files, named by paths with slashes; once this returns it lasts, under its name."""
    folders = {path.parent}
    _make(disk, path, folders)
    for name, content in files.items():
        *parents, last = name.split("/")
        folder = path
        for parent in parents:
            folder = folder / parent
            _make(disk, folder, folders)
        disk.write(folder / last, content)
        disk.sync(folder / last)
    for folder in sorted(folders, key=lambda f: len(f.parts), reverse=True):
        disk.sync_folder(folder)


@dataclass(slots=True)
class Copying:
    """How far a folder was copied: files by what they were when they were read, and what could not be read."""

    read: dict[Path, tuple[int, int]] = field(default_factory=dict)
    unread: dict[Path, SourceError] = field(default_factory=dict)


def copy_folder(
    disk: Disk, source: Path, target: Path, *, without: Collection[str] = (), copying: Copying | None = None
) -> None:
    """Copy a folder so that the copy lasts, but for links, devices, what is half written or removed, and some names.

    Raises `SourceError` if something cannot be read, OSError if it cannot be written. With `copying` only if the folder
    itself cannot be read: all else is left out and noted there, and what was copied before and is as it was then is not
    copied again.
    """
    with _reading():
        paths = sorted(source.iterdir())
    disk.make_folder(target)
    for path in paths:
        if path.name in without or path.name.endswith((PARTIAL, DROPPED)):
            continue
        try:
            _copy_entry(disk, path, target / path.name, without, copying)
        except SourceError as error:
            if copying is None:
                raise
            copying.unread[path] = error
    disk.sync_folder(target)


def _copy_entry(disk: Disk, path: Path, target: Path, without: Collection[str], copying: Copying | None) -> None:
    with _reading():
        is_folder, is_file = (not path.is_symlink() and is_one() for is_one in (path.is_dir, path.is_file))
    if is_folder:
        copy_folder(disk, path, target, without=without, copying=copying)
    elif is_file:
        with _reading():
            there = path.stat()
            known = there.st_size, there.st_mtime_ns
            if copying is not None and copying.read.get(path) == known:
                return
            content = path.read_bytes()
        disk.write(target, content)
        disk.sync(target)
        if copying is not None:
            copying.read[path] = known


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SourceError(error.errno, error.strerror or str(error), error.filename) from error


def _make(disk: Disk, folder: Path, made: set[Path]) -> None:
    if folder not in made:
        disk.make_folder(folder)
        made.add(folder)


def _write_all(file: IO[bytes], content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[file.write(left) :]


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
