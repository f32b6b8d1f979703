"""Files and folders that appear whole or not at all, and replace only what is of their kind."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from napari_sparseseg.errors import InputError, InputTypeError

ZARR_FILES = ("zarr.json", ".zgroup", ".zarray")
_LENGTH_BYTES = 8
_ATTEMPTS, _PAUSE = 20, 0.05  # seconds


def is_zarr(path: Path) -> bool:
    """Whether a folder is a zarr array or group, of format 2 or 3."""
    return any((path / name).is_file() for name in ZARR_FILES)


def is_safetensors(path: Path) -> bool:
    """Whether a file begins as models do: with the length of the JSON that follows, in eight bytes."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(_LENGTH_BYTES + 1)
    # the length as well: a TIFF, too, may have a brace at that place
    is_length = int.from_bytes(start[:_LENGTH_BYTES], "little") < path.stat().st_size
    return is_length and start[_LENGTH_BYTES:] == b"{"


@contextmanager
def written_whole(
    path: str | os.PathLike[str], *, overwrite: bool, is_kind: Callable[[Path], bool], kind: str
) -> Iterator[Path]:
    """Give a path beside `path` to write a file or folder to, which takes the place of `path` once the body is through.

    What was written is on the disk, and not only in the system's memory, before it appears under its name. If the
    body fails, or the machine, what was at `path` before is still there, and whole.

    Raises what `checked_target` raises, before the body and again after it, and `InputError` for what the system
    refuses in between, as when the disk is full.
    """
    target = checked_target(path, overwrite=overwrite, is_kind=is_kind, kind=kind)
    token = uuid.uuid4().hex[:8]
    partial = target.with_name(f".{target.name}.{token}.partial")
    try:
        with writable(target):
            yield partial
            sync_all(partial)
            # somebody else may have written meanwhile
            check_free(target, overwrite=overwrite, is_kind=is_kind, kind=kind)
            put_in_place(partial, target, aside=target.with_name(f".{target.name}.{token}.old"))
    finally:
        _discard(partial)


@contextmanager
def writable(target: Path) -> Iterator[None]:
    """Turn an `OSError` while `target` is written, such as that of a full disk, into an `InputError`."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{target} could not be written ({error.strerror or error}); check the room on the disk and the "
            "permissions of its folder"
        ) from error


def checked_target(
    path: str | os.PathLike[str], *, overwrite: bool, is_kind: Callable[[Path], bool], kind: str
) -> Path:
    """Where to write, with links resolved.

    Raises `InputTypeError` if `path` is no path, `InputError` if it is a URL or what lies there is not replaced.
    """
    if not isinstance(path, str | os.PathLike):
        raise InputTypeError(f"path is of type {type(path).__name__}, but a str or pathlib.Path is needed")
    if "://" in os.fspath(path):
        raise InputError(f"path {os.fspath(path)!r} is a URL; write to a local folder and upload that")
    target = Path(os.path.realpath(path))  # not Path.resolve, which fails where links form a loop
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


def check_folder(target: Path) -> None:
    """Raise `InputError` if the folder of `target` does not exist or may not be written to."""
    folder = target.parent
    if not folder.is_dir():
        raise InputError(f"{target} cannot be written, since there is no folder {folder}; make it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{target} cannot be written, since {folder} may not be written to; choose another folder")


def sync_all(path: Path) -> None:
    """Make a file last, or a folder with all that it holds."""
    if not path.is_dir():
        _sync_entry(path)
        return
    for folder, _, names in os.walk(path):
        for name in names:
            _sync_entry(Path(folder, name))
        _sync_entry(Path(folder))


def put_in_place(new: Path, target: Path, *, aside: Path) -> None:
    """Give a file or folder, which lasts, the name of another one; a folder lies `aside` until that is done."""
    _replace(target, new, aside)
    _sync_entry(target.parent)


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
    shutil.rmtree(aside, ignore_errors=True)


def _discard(partial: Path) -> None:
    if not partial.is_dir():
        partial.unlink(missing_ok=True)
        return
    # after an error, threads of zarr still write the chunks that were under way, and make their folders again
    for _ in range(_ATTEMPTS):
        shutil.rmtree(partial, ignore_errors=True)
        time.sleep(_PAUSE)
        if not partial.exists():
            return


def _sync_entry(path: Path) -> None:
    if os.name == "nt" and path.is_dir():  # Windows opens no folders
        return
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
