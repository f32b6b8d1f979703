"""Projects of older versions, which are migrated on a copy, and bare journals, which become projects."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_sparseseg.errors import InputError, ProjectError, ProjectVersionError
from napari_sparseseg.storage.durable import PARTIAL, Disk, RealDisk, copy_folder, replace_file
from napari_sparseseg.storage.journal import read_journal
from napari_sparseseg.storage.project.lock import UNCOPIED
from napari_sparseseg.storage.project.manifest import MANIFEST, VERSION, Manifest, ProjectClass, read_envelope
from napari_sparseseg.storage.project.segments import segment_path

if TYPE_CHECKING:
    from napari_sparseseg.storage.project.project import Project

Migration = Callable[[dict[str, Any], Path, Disk], dict[str, Any]]
"""Takes the content of a commit point and the folder, a copy that it may change; returns the next version's content."""

MIGRATIONS: dict[int, Migration] = {}
"""For each older version the way to the next one."""

_COLORS = ((0.45, 0.45, 0.5), (0.9, 0.6, 0.0), (0.35, 0.7, 0.9), (0.0, 0.6, 0.5), (0.8, 0.4, 0.0), (0.8, 0.6, 0.7))


def migrated(folder: Path, disk: Disk) -> Path:
    """Where the project is in the present format: `folder` itself, or a copy beside it that is made if need be.

    The older one is left as it is. Raises `ProjectError` if there is no way from its version.
    """
    try:
        version = read_envelope(folder / MANIFEST)["version"]
    except ProjectVersionError:
        raise
    except ProjectError:  # the commit point before may be whole: whoever reads it says what is wrong
        return folder
    if version == VERSION:
        return folder
    target = folder.with_name(f"{folder.stem} (format {VERSION}){folder.suffix}")
    if (target / MANIFEST).is_file():
        return target
    partial = target.with_name(target.name + PARTIAL)
    disk.remove(partial)
    copy_folder(disk, folder, partial, without=UNCOPIED)
    _migrate(partial, version, disk)
    disk.rename(partial, target)
    disk.sync_folder(target.parent)
    return target


def _migrate(copy: Path, version: int, disk: Disk) -> None:
    content = read_envelope(copy / MANIFEST).get("project")
    for older in range(version, VERSION):
        if older not in MIGRATIONS or not isinstance(content, dict):
            raise ProjectError(
                f"{copy.name.removesuffix(PARTIAL)} has format version {version}, which this program cannot read any "
                "more; open it with the version of napari-sparseseg that wrote it"
            )
        try:
            content = MIGRATIONS[older](content, copy, disk)
        except (KeyError, TypeError, ValueError) as error:
            raise ProjectError(f"{copy} cannot be migrated from version {older} ({error!r}); use a backup") from error
    try:
        manifest = Manifest.model_validate(content)
    except ValueError as error:
        raise ProjectError(f"{copy} cannot be migrated from version {version} ({error}); use a backup") from error
    replace_file(disk, copy / MANIFEST, manifest.encoded())


def import_journal(
    journal: str | os.PathLike[str], project: str | os.PathLike[str], *, title: str = "", disk: Disk | None = None
) -> Project:
    """Make a project of a bare journal, as older versions of the program left them; the journal stays as it is.

    Raises `InputError` for what is no journal, `ProjectError` if the project cannot be made.
    """
    from napari_sparseseg.storage.project.project import Project

    source = Path(journal)
    first = next(read_journal(source), None)
    shape = first.values.get("shape") if first is not None and first.op == "begin" else None
    if not (isinstance(shape, list) and len(shape) == 4 and all(isinstance(n, int) and n > 0 for n in shape)):
        raise InputError(f"{source} does not say to what image it belongs; choose a journal of strokes")
    made = Project.create(project, disk=disk or RealDisk())
    try:
        image = made.add_entry(title=title or source.stem, shape=(shape[0], shape[1], shape[2], shape[3]))
        target = segment_path(image.folder / "journal", 1)
        replace_file(made.disk, target, source.read_bytes())
        painted = image.load().store.painted_classes()
        made.update(classes=tuple(_class_of(class_id) for class_id in sorted({1, 2, *painted})))
    except BaseException:
        made.close()
        raise
    return made


def _class_of(class_id: int) -> ProjectClass:
    name = {1: "background", 2: "object"}.get(class_id, f"class {class_id}")
    color = _COLORS[(class_id - 1) % len(_COLORS)]
    return ProjectClass(class_id=class_id, name=name, color=color, is_background=class_id == 1)
