"""Files and folders that appear whole or not at all, and replace only what is of their kind."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from napari_sparseseg.errors import InputError, InputTypeError

ZARR_FILES = ("zarr.json", ".zgroup", ".zarray")


def is_zarr(path: Path) -> bool:
    """Whether a folder is a zarr array or group, of format 2 or 3."""
    return any((path / name).is_file() for name in ZARR_FILES)


@contextmanager
def written_whole(
    path: str | os.PathLike[str], *, overwrite: bool, is_kind: Callable[[Path], bool], kind: str
) -> Iterator[Path]:
    """Give a path beside `path` to write a file or folder to, which takes the place of `path` once the body is through.

    What was written is on the disk, and not only in the system's memory, before it appears under its name. If the
    body fails, or the machine, what was at `path` before is still there, and whole.

    Raises what `checked_target` raises, before the body and again after it.
    """
    target = checked_target(path, overwrite=overwrite, is_kind=is_kind, kind=kind)
    token = uuid.uuid4().hex[:8]
    partial = target.with_name(f".{target.name}.{token}.partial")
    try:
        yield partial
        _sync(partial)
        check_free(target, overwrite=overwrite, is_kind=is_kind, kind=kind)  # somebody else may have written meanwhile
        _replace(target, partial, target.with_name(f".{target.name}.{token}.old"))
        _sync_entry(target.parent)
    finally:
        _remove(partial)


def checked_target(
    path: str | os.PathLike[str], *, overwrite: bool, is_kind: Callable[[Path], bool], kind: str
) -> Path:
    """Where to write: behind a link, what it points to.

    Raises `InputTypeError` if `path` is no path, `InputError` if it is a URL or what lies there is not replaced.
    """
    if not isinstance(path, str | os.PathLike):
        raise InputTypeError(f"path is of type {type(path).__name__}, but a str or pathlib.Path is needed")
    if "://" in os.fspath(path):
        raise InputError(f"path {os.fspath(path)!r} is a URL; write to a local folder and upload that")
    target = Path(path).resolve()
    check_free(target, overwrite=overwrite, is_kind=is_kind, kind=kind)
    return target


def check_free(target: Path, *, overwrite: bool, is_kind: Callable[[Path], bool], kind: str) -> None:
    """Raise `InputError` if something lies at `target`, unless it is of the same kind and `overwrite` is set."""
    if not target.exists():
        return
    if not is_kind(target):
        raise InputError(f"{target} exists and is not a {kind}, so it is not replaced; choose another path")
    if not overwrite:
        raise InputError(f"{target} exists; pass overwrite=True to replace it, or choose another path")


def _replace(target: Path, new: Path, aside: Path) -> None:
    if not new.is_dir():
        new.replace(target)
        return
    # a folder that is not empty cannot be renamed over: the old one steps aside, and back if that fails
    if not target.exists():
        new.rename(target)
        return
    target.rename(aside)
    try:
        new.rename(target)
    except OSError:
        aside.rename(target)
        raise
    _remove(aside)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    if not path.is_dir():
        _sync_entry(path)
        return
    for folder, _, names in os.walk(path):
        for name in names:
            _sync_entry(Path(folder, name))
        _sync_entry(Path(folder))


def _sync_entry(path: Path) -> None:
    if os.name == "nt" and path.is_dir():  # Windows opens no folders
        return
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
