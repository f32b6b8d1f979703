"""A prediction under way: what it is of, which shards are finished, and how it becomes the result.

It lies in a folder `NAME.unfinished` beside its target. The manifest says what is predicted, and with what; a line is
added to the list of finished shards once a shard is on the disk. Shards that are not in the list are predicted again,
whatever is there of them, so that the next run can go on from any moment at which this one is killed.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import shutil
import time
import uuid
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from napari_sparseseg._types import Spacing
from napari_sparseseg.errors import InputError, InputWarning
from napari_sparseseg.storage.atomic import put_in_place, sync_all, writable
from napari_sparseseg.storage.durable import DROPPED, PARTIAL, RealDisk, drop_folder, replace_file
from napari_sparseseg.storage.sharded import Frame

Task = tuple[int, int, int, int]
"""Level, and the shard's first voxel there along z, y, x."""

_ATTEMPTS, _PAUSE = 10, 0.01  # seconds
_ENDING = ".unfinished"
_MANIFEST, _FINISHED, _LOCK = "manifest.json", "finished.jsonl", "lock"
_LABELS, _PROBABILITIES = "labels", "probabilities"
_WRITTEN, _REPLACED = "written", "replaced"
_FILES = ("model.safetensors", "image.npy", "image.partial.npy")
_ARRAY = rf"({_LABELS}|{_PROBABILITIES})(-[0-9a-f]+)?\.zarr"
_PIECE = r"[0-9]+\.ome\.zarr"
_MADE = re.compile(
    rf"""
    manifest\.json(\.partial)? | finished\.jsonl | image(\.partial)?\.npy
    | model\.safetensors | \.model\.safetensors\.[0-9a-f]+\.part
    | ({_ARRAY} | {_PIECE}(\.unfinished)? | {_WRITTEN} | {_REPLACED})(\.dropped)? | \.{_PIECE}\.(old|partial)
    | \.DS_Store
    """,
    re.VERBOSE,
)
"""What lies in the folder: also results of time points, what is half written or removed, and what macOS leaves where
somebody has looked. What a user has put there stays."""

RESULT_NOTE = "zarr.json"
"""The file of a result with what is noted in it once it is complete, under `ATTRIBUTE`."""
ATTRIBUTE = "napari-sparseseg"

_Edges = tuple[PositiveInt, PositiveInt, PositiveInt]


class Manifest(BaseModel):
    """What is predicted and how: all that the bytes of the result depend on.

    `fingerprint` has one hash each for the model, the image and the settings. `run` is part of the arrays' names, since
    workers of a run that was stopped may still write into theirs.
    """

    model_config = ConfigDict(frozen=True)

    version: Literal[1] = 1
    fingerprint: Mapping[str, str]
    shape: _Edges
    axes: Literal["zyx", "yx"]
    shard: _Edges
    tile: _Edges
    spacing: Spacing
    offset: Spacing
    unit: str | None
    probabilities: bool
    intensity_offset: tuple[float, ...]
    intensity_scale: tuple[float, ...]
    run: str = Field("", pattern="^[0-9a-f]*$")

    @property
    def frame(self) -> Frame:
        return Frame(self.shape, self.axes, self.shard, self.spacing, self.offset, self.unit)


class HeldFolder:
    """The folder `NAME.unfinished` beside a target, held by one process at a time.

    Raises `InputError` if another process holds it, or if the folder cannot be written to.
    """

    def __init__(self, target: Path) -> None:
        self.folder = self.folder_of(target)
        self._disk = RealDisk()
        try:
            self._lock = self._acquired()
        except Timeout:
            raise InputError(
                f"{target} is being predicted by another process; wait for it, or choose another name"
            ) from None
        except OSError as error:
            raise InputError(
                f"{self.folder} cannot be written to ({error.strerror or error}); choose another folder"
            ) from error

    def _acquired(self) -> FileLock:
        """The lock in the folder, which is made; again, if the one who held it has just removed both."""
        for left in reversed(range(_ATTEMPTS)):
            try:
                self.folder.mkdir(exist_ok=True)
                lock = FileLock(self.folder / _LOCK, timeout=0, thread_local=False)
                lock.acquire()
            except (FileNotFoundError, FileExistsError):
                if not left:
                    raise
                time.sleep(_PAUSE)
            else:
                break
        return lock

    @staticmethod
    def folder_of(target: Path) -> Path:
        """Where what is under way lies: beside its target."""
        return target.with_name(f"{target.name}{_ENDING}")

    @staticmethod
    def holds(path: Path) -> bool:
        """Whether a path lies in such a folder, which somebody holds."""
        return path.parent.name.endswith(_ENDING) and (path.parent / _LOCK).is_file()

    @classmethod
    def remove_left(cls, target: Path) -> None:
        """Remove what an earlier run has left, once the target was completed without it; not what another one has."""
        if not cls.folder_of(target).is_dir():
            return
        with suppress(InputError), closing(HeldFolder(target)) as held:
            held.empty()

    @contextmanager
    def written(self, target: Path) -> Iterator[Path]:
        """Give a path to write a target at, which takes its place once the body is through; whatever is there goes.

        What a process that is killed leaves of it lies in this folder, and goes with it.
        """
        folder, aside = self.folder / _WRITTEN, self.folder / _REPLACED
        new = folder / target.name
        with writable(target):
            self._disk.remove(folder)
            folder.mkdir()
        try:
            yield new
        except InputError as error:  # of a name that nobody has chosen
            raise InputError(str(error).replace(str(new), str(target))) from error
        with writable(target):
            if target.exists():
                self._disk.remove(aside)
            put_in_place(new, target, aside=aside)

    def empty(self) -> None:
        """Remove all that any kind of run makes in it, now the target is complete; warns of what cannot be removed."""
        made = [path for path in self.folder.glob("*") if _MADE.fullmatch(path.name)]
        failed: list[OSError] = []
        for path in sorted(made, key=lambda path: path.name != _MANIFEST):  # without it nothing counts
            try:
                if path.is_dir() and not path.name.endswith(DROPPED):
                    self.drop(path)
                else:
                    self._disk.remove(path)
            except OSError as error:
                failed.append(error)
        if failed:
            _warn_of_left(self.folder, failed[0])

    def drop(self, path: Path) -> None:
        """Remove a folder in this one; interrupted, none of it is left under its name."""
        drop_folder(self._disk, path)

    def close(self) -> None:
        """Let others have the folder, and remove it if nothing is in it."""
        if not self._lock.is_locked:
            return
        # no other process may take the file as a lock that is about to go; Windows removes no file that is open
        if os.name == "nt":
            self._lock.release()
        with suppress(OSError):
            self._disk.remove(self.folder / _LOCK)
        self._lock.release()
        with suppress(OSError):
            self.folder.rmdir()


class Unfinished(HeldFolder):
    """The folder of a prediction under way."""

    def __init__(self, target: Path) -> None:
        super().__init__(target)
        self.model, self.image = (self.folder / name for name in _FILES[:2])
        manifest = self.manifest()
        self._run = manifest.run if manifest else ""

    @property
    def labels(self) -> Path:
        """Where the labels are written."""
        return self._array(_LABELS)

    @property
    def probabilities(self) -> Path:
        """Where the probabilities are written."""
        return self._array(_PROBABILITIES)

    @staticmethod
    def files_of(target: Path) -> list[Path]:
        """That folder, and what `share_of` reads in it."""
        folder = Unfinished.folder_of(target)
        return [folder, folder / _MANIFEST, folder / _FINISHED]

    def manifest(self) -> Manifest | None:
        """The manifest of what is under way; None if there is none, or none that can be read."""
        return _read_manifest(self.folder)

    @staticmethod
    def share_of(target: Path) -> float | None:
        """How much of a prediction is finished, 0..1, whichever process has it; None if none is under way."""
        folder = Unfinished.folder_of(target)
        manifest = _read_manifest(folder)
        if manifest is None:
            return None
        n_shards = math.prod(-(-size // edge) for size, edge in zip(manifest.shape, manifest.shard, strict=True))
        return sum(not level for level, *_ in _finished_in(folder)) / n_shards

    def clear(self) -> None:
        """Drop what is under way; arrays have other names from now on."""
        for name in (_MANIFEST, _FINISHED, *_FILES):  # the manifest first: without it nothing counts
            self._disk.remove(self.folder / name)
        self._disk.sync_folder(self.folder)
        for path in list(self.folder.iterdir()):
            if re.fullmatch(_ARRAY, path.name.removesuffix(DROPPED)):
                with suppress(OSError):  # somebody may still write there; removed another time
                    self._disk.remove(path)
        self._run = uuid.uuid4().hex[:8]

    def begin(self, manifest: Manifest) -> None:
        """Note what is predicted, and by what; model and arrays must be there."""
        if self.model.exists():
            self._disk.sync(self.model)
        self._sync_metadata()
        manifest = manifest.model_copy(update={"run": self._run})
        replace_file(self._disk, self.folder / _MANIFEST, manifest.model_dump_json(indent=1).encode())

    def finish(self, task: Task, n_voxels: Mapping[int, int]) -> None:
        """Note that a shard is on the disk, and how many voxels of each class are in it."""
        self._note([task, {str(class_id): n for class_id, n in n_voxels.items()}])

    def reopen(self, task: Task) -> None:
        """Note that a shard is no longer finished: it is about to be written again."""
        self._note([task, None])

    def finished(self) -> dict[Task, dict[int, int]]:
        """Finished shards, and their voxels of each class; a line that was cut short does not count."""
        return _finished_in(self.folder)

    def holds_arrays_of(self, manifest: Manifest) -> bool:
        """Whether what is written is here and can be opened; not once some of it was put in its place."""
        arrays = [self.labels, self.probabilities] if manifest.probabilities else [self.labels]
        levels = [str(number) for number in range(len(manifest.frame.levels()))]
        files = (array / level / RESULT_NOTE for array in arrays for level in ("", *levels))
        return all(file.is_file() and file.stat().st_size for file in files)

    def publish(self, probabilities: Path | None, labels: Path) -> None:
        """Put the results in their places, the labels last, and remove the folder; what lies there is replaced."""
        self._sync_metadata()
        if probabilities is not None:
            self._replace(self.probabilities, probabilities)
        self._replace(self.labels, labels)
        self.leave([labels] if probabilities is None else [probabilities, labels])

    @staticmethod
    def left_of(outputs: Iterable[Path]) -> list[Path]:
        """What a run has left beside these that was killed while it replaced them."""
        return [left for output in outputs for left in (_aside(output), _copy(output)) if left.exists()]

    def leave(self, outputs: Iterable[Path] = ()) -> None:
        """Remove the folder, and what is left beside these outputs, which are complete; warns of what cannot be."""
        for left in self.left_of(outputs):
            try:
                self._disk.remove(left)
            except OSError as error:
                _warn_of_left(left, error)
        self.empty()
        self.close()

    def _array(self, name: str) -> Path:
        return self.folder / (f"{name}-{self._run}.zarr" if self._run else f"{name}.zarr")

    def _note(self, entry: list[Any]) -> None:
        # begins with a line break: a process that was killed may have left half a line
        line = "\n" + json.dumps(entry) + "\n"
        path = self.folder / _FINISHED
        with path.open("ab", buffering=0) as file:
            file.write(line.encode())
        self._disk.sync(path)

    def _sync_metadata(self) -> None:
        """Make the arrays' metadata last, which zarr does not; their shards do already."""
        for array in (self.labels, self.probabilities):
            for file in (*array.glob("zarr.json"), *array.glob("*/zarr.json")):
                self._disk.sync(file)
                self._disk.sync_folder(file.parent)

    def _replace(self, source: Path, target: Path) -> None:
        if not source.exists():  # a run that was killed came as far as this
            return
        try:
            self._put(source, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            self._put(self._copied(source, target), target)
            with suppress(OSError):  # it goes, or is told, with the folder
                self.drop(source)

    def _put(self, new: Path, target: Path) -> None:
        aside = _aside(target)
        if target.exists():
            self._disk.remove(aside)
            target.rename(aside)
        try:
            new.rename(target)
        except OSError:
            if aside.exists():
                aside.rename(target)
            raise
        self._disk.sync_folder(target.parent)
        with suppress(OSError):  # it goes, or is told, when the folder is left
            self._disk.remove(aside)

    def _copied(self, source: Path, target: Path) -> Path:
        """A copy beside a target on another disk."""
        partial = _copy(target)
        self._disk.remove(partial)  # of a run that was killed
        try:
            shutil.copytree(source, partial)
            sync_all(partial)
        except BaseException:
            self._disk.remove(partial)
            raise
        return partial


def result_note(path: Path) -> dict[str, Any] | None:
    """What was noted in a result once it was complete; None if it is not, or cannot be read."""
    file = path / RESULT_NOTE
    if not file.is_file():  # a pipe would be waited for
        return None
    try:
        noted = json.loads(file.read_bytes())["attributes"][ATTRIBUTE]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return noted if isinstance(noted, dict) else None


def _aside(target: Path) -> Path:
    """Where what is replaced lies until its successor is in place."""
    return target.with_name(f".{target.name}.old")


def _copy(target: Path) -> Path:
    """Where what comes from another disk lies until it is whole; another run finds it, too."""
    return target.with_name(f".{target.name}{PARTIAL}")


def _warn_of_left(path: Path, error: OSError) -> None:
    warnings.warn(
        f"{path} is no longer needed, but cannot be removed ({error.strerror or error}); remove it yourself",
        InputWarning,
        stacklevel=4,
    )


def _read_manifest(folder: Path) -> Manifest | None:
    try:
        return Manifest.model_validate_json((folder / _MANIFEST).read_bytes())
    except (OSError, ValidationError):
        return None


def _finished_in(folder: Path) -> dict[Task, dict[int, int]]:
    found: dict[Task, dict[int, int]] = {}
    for task, n_voxels in _lines_in(folder):
        if n_voxels is None:
            found.pop(task, None)
        else:
            found[task] = n_voxels
    return found


def _lines_in(folder: Path) -> Iterator[tuple[Task, dict[int, int] | None]]:
    path = folder / _FINISHED
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    for line in lines:
        try:
            (level, z, y, x), n_voxels = json.loads(line)
            counts = None if n_voxels is None else {int(class_id): int(n) for class_id, n in n_voxels.items()}
        except (ValueError, TypeError, AttributeError):
            continue
        if line.endswith(b"\n"):
            yield (level, z, y, x), counts
