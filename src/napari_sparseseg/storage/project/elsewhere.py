"""How a project is written to another place with what is in memory, whatever its own disk has of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from napari_sparseseg.storage.object_ids import ObjectIds
from napari_sparseseg.storage.project.image import ProjectImage
from napari_sparseseg.storage.project.manifest import Manifest, ProjectClass, ProjectSettings
from napari_sparseseg.storage.project.project import Project, UnreadableProjectError
from napari_sparseseg.storage.strokes import StoreState

_N_TOLD = 8  # files that a message names


@dataclass(frozen=True, slots=True, eq=False)
class Present:
    """What is worked on as it is in memory: image `number` of a project, and what belongs to the project.

    `model` is the content of a model file, with what is noted about it; None leaves those that are in the files, unless
    the user has begun anew since. `lacks_model` says that there is a newer one, which could not be had.
    """

    number: int
    state: StoreState
    objects: ObjectIds
    classes: tuple[ProjectClass, ...]
    highest_class: int
    settings: ProjectSettings
    model: bytes | None = None
    about_model: Mapping[str, Any] = field(default_factory=dict)
    is_begun_anew: bool = False
    lacks_model: bool = False


class Copied(NamedTuple):
    """The number that the image has in the copy, and a sentence on what is not there; empty if all is."""

    number: int
    missing: str = ""


def write_elsewhere(project: Project, target: Path, present: Present) -> Copied:
    """Copy a project, and put what is in memory in the place of what the files say; whole or not at all.

    Files that cannot be read are left out. Where its folder cannot be read any more, a project of what is in memory
    alone is made. If this window only reads, classes and settings are as another one has written them, but for what was
    changed here. Raises `ProjectError` if the target exists, and `ProjectError` or OSError if it cannot be written.
    """
    number, missing, image = present.number, "", project.images[present.number]
    before = image.opened_with if project.is_read_only else None
    unread: tuple[str, ...] = ()
    try:
        unread = project.copy_to(target, only_what_is_written=True)
    except UnreadableProjectError as error:
        number, before, missing = 0, None, f"its history, other images and earlier models are not there, for {error}"
        Project.create(target, disk=project.disk).close()
    try:
        with Project.open(target, disk=project.disk) as copy:
            if unread:
                missing = _told(unread)
                copy.make_folders()
            elif missing:
                _add_image(copy, image)
            _put(copy.images[number], present, before)
    except BaseException:
        with suppress(OSError):
            project.disk.remove(target)
        raise
    if present.lacks_model:
        missing = missing or "the model as it is now is not there, for learning and predicting are at something long"
    return Copied(number, missing)


def _told(unread: Sequence[str]) -> str:
    listed = ", ".join(unread[:_N_TOLD]) + (" and others" if len(unread) > _N_TOLD else "")
    return f"{listed} cannot be read and {'is' if len(unread) == 1 else 'are'} not there"


def _add_image(copy: Project, image: ProjectImage) -> None:
    """The image as the project knows it, but for what lies in files."""
    entry = image.entry
    nothing = {"folds": (), "prediction": None, "is_stored": False}
    copy.add_entry(**{**dict(entry), **nothing, "reference": entry.reference.seen_from(copy.path)})


def _put(image: ProjectImage, present: Present, before: Manifest | None) -> None:
    """Put what is in memory into a copy; what is there and was not changed since `before` is kept, if that is known."""
    project = image.project
    classes, settings = present.classes, present.settings
    if before is not None:
        is_older = project.manifest.classes_number < before.classes_number  # than what a journal has told
        classes = _merged(before.classes, classes, before.classes if is_older else project.classes)
        settings = project.settings if settings == before.settings else settings
    project.update(classes=classes, highest_class=present.highest_class, settings=settings)
    image.put(present.state, present.objects)
    if present.is_begun_anew:
        image.drop_prediction()
        project.drop_checkpoints()
    if present.model is not None:
        project.add_checkpoint(present.model, **present.about_model)


def _merged(
    before: Sequence[ProjectClass], ours: Sequence[ProjectClass], theirs: Sequence[ProjectClass]
) -> tuple[ProjectClass, ...]:
    """Their classes with what was changed in ours; one that they alone removed stays, since ours may be painted."""
    known, present = ({info.class_id: info for info in infos} for infos in (before, ours))
    changed = {i: info for i, info in present.items() if known.get(i) != info}
    merged = {**present, **{info.class_id: info for info in theirs}, **changed}
    return tuple(merged[i] for i in sorted(merged.keys() - (known.keys() - present.keys())))
