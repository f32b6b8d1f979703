"""Home: where projects lie until the user chooses a place, and which were open lately."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import platformdirs
from napari.settings import get_settings

from napari_sparseseg.errors import InputError, ProjectError
from napari_sparseseg.storage.durable import RealDisk, replace_file
from napari_sparseseg.storage.project.image import ProjectImage
from napari_sparseseg.storage.project.loading import JOURNAL
from napari_sparseseg.storage.project.manifest import ImageEntry, Position, read_json
from napari_sparseseg.storage.project.migrations import import_journal
from napari_sparseseg.storage.project.project import SUFFIX, Project, is_project
from napari_sparseseg.storage.project.segments import read_segments
from napari_sparseseg.storage.strokes import largest_record

HOME_VARIABLE = "SPARSESEG_HOME"
"""Environment variable that names the folder of projects and of what was open lately, instead of the user's own."""

_PLUGIN = "napari-sparseseg"
_RECENTS = "recent.json"
_MOST_RECENTS = 20
_LARGEST = 2**20  # bytes of the list
_IMPORTED = ".imported"


@dataclass(frozen=True, slots=True)
class Recent:
    """A project that was open: where it lies, its image's name, and when it was opened last (seconds since 1970)."""

    path: Path
    image: str
    time: float


@dataclass(frozen=True, slots=True)
class Earlier:
    """Paint of the same image in another project: its folder, the image's number there, when it was painted last."""

    path: Path
    number: int
    time: float


def home() -> Path:
    """The folder, which may not be there yet."""
    named = os.environ.get(HOME_VARIABLE)
    return Path(named) if named else platformdirs.user_data_path("napari-sparseseg")


def shelf() -> Path:
    """The folder of kept models, which may not be there yet."""
    return home() / "models"


def unused_path(folder: Path, name: str) -> Path:
    """Where a new project may lie, named for an image and the time."""
    word = re.sub(r"[^\w.-]+", "_", name).strip("._")[:60] or "image"
    stem = f"{word}-{time.strftime('%Y%m%d-%H%M%S')}"
    path, number = folder / f"{stem}{SUFFIX}", 1
    while path.exists():
        number += 1
        path = folder / f"{stem}-{number}{SUFFIX}"
    return path


def is_same_folder(one: Path, other: Path) -> bool:
    """Whether two paths lead to the same folder, however they are written, and maybe by a link."""
    try:
        return one.absolute() == other.absolute() or one.samefile(other)
    except OSError:  # one of them leads nowhere
        return False


def new_project(name: str) -> Project:
    """Make a project in the user's folder. Raises `ProjectError` if that cannot be."""
    folder = home() / "projects"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ProjectError(
            f"there can be no project in {folder} ({error.strerror or error}); choose a place with Save as"
        ) from error
    return Project.create(unused_path(folder, name))


def prefer_own_reader() -> None:
    """Let napari open projects with this plugin, as if the user had said so: it asks for each folder otherwise."""
    preferred = get_settings().plugins.extension2reader
    if not any(SUFFIX in pattern for pattern in preferred):
        get_settings().plugins.extension2reader = {**preferred, f"*{SUFFIX}{os.sep}": _PLUGIN}


# ---------------------------------------------------------------- what was open lately


def recents() -> tuple[Recent, ...]:
    """Projects that were open and are still there, newest first."""
    found = sorted(_read_recents(), key=lambda recent: recent.time, reverse=True)
    return tuple(recent for recent in found if is_project(recent.path))


def note_recent(path: Path, image: str) -> None:
    """Remember that a project was opened now. Raises OSError if that cannot be written."""
    others = [recent for recent in recents() if not is_same_folder(recent.path, path)]
    _write_recents([Recent(path, image, time.time()), *others][:_MOST_RECENTS])


def forget_recent(path: Path) -> None:
    """Remember a project no longer. Raises OSError."""
    kept = [recent for recent in recents() if recent.path != path]
    _write_recents(kept)


def _read_recents() -> Iterator[Recent]:
    file = home() / _RECENTS
    if not file.is_file():
        return
    try:
        entries = read_json(file, _LARGEST)
    except ProjectError:  # a list that is damaged is begun anew: it only saves a search
        return
    for entry in entries if isinstance(entries, list) else ():
        with suppress(KeyError, TypeError, ValueError):
            yield Recent(Path(entry["path"]), str(entry["image"]), float(entry["time"]))


def _write_recents(entries: list[Recent]) -> None:
    home().mkdir(parents=True, exist_ok=True)
    listed = [{"path": str(entry.path), "image": entry.image, "time": entry.time} for entry in entries]
    replace_file(RealDisk(), home() / _RECENTS, json.dumps(listed, indent=1).encode())


# ---------------------------------------------------------------- the same image before


def find_earlier(present: ProjectImage) -> Earlier | None:
    """The newest paint on the same image in another project that was open lately, None if there is none.

    Of projects that were journals once, nothing but name and shape of the image is known.
    """
    found: list[Earlier] = []
    for recent in recents():
        if recent.path == present.project.path:
            continue
        with suppress(InputError, OSError), Project.open(recent.path, read_only=True) as project:
            for image in project.images:
                time_painted = painted_at(image) if _is_of_same(image.entry, present.entry) else None
                if time_painted is not None:
                    found.append(Earlier(recent.path, image.number, time_painted))
    return max(found, key=lambda earlier: earlier.time, default=None)


def _is_of_same(entry: ImageEntry, present: ImageEntry) -> bool:
    one, other = entry.reference.fingerprint, present.reference.fingerprint
    if one is None or other is None:
        return entry.shape == present.shape and entry.title.startswith(present.title)
    return (one.shape, one.dtype, one.voxels) == (other.shape, other.dtype, other.voxels)


def painted_at(image: ProjectImage) -> float | None:
    """When the journal of an image was written last, None if it holds no paint."""
    folder = image.folder / JOURNAL
    records = read_segments(folder, Position(), largest_record(image.entry.shape))
    if not any(record.op == "edit" for record, _ in records):
        return None
    return max(path.stat().st_mtime for path in folder.iterdir())


# ---------------------------------------------------------------- older versions


def import_old_journals(on_import: Callable[[str], object]) -> None:
    """Make projects of bare journals, which older versions left in the user's folder; tells of each in one sentence.

    A journal stays where it is, under a name that says so; what cannot be read keeps its name.
    """
    for journal in sorted((home() / "journals").glob("*.journal")):
        target = home() / "projects" / f"{journal.stem}{SUFFIX}"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                import_journal(journal, target, title=journal.stem).close()
            journal.rename(journal.with_name(journal.name + _IMPORTED))
            note_recent(target, journal.stem)
        except (InputError, OSError) as error:
            on_import(f"{journal} could not be taken over ({error}). It stays where it is")
        else:
            on_import(f"What was painted with an older version is in Project > Open recent: {target.stem}")
