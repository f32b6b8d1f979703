"""What a project keeps, to and from what is in memory: classes, settings, the model, and all of it at once."""

from __future__ import annotations

from concurrent.futures import CancelledError
from dataclasses import replace
from typing import Any

from napari_sparseseg.errors import InputError
from napari_sparseseg.live.classes import ClassList
from napari_sparseseg.live.events import ClassInfo
from napari_sparseseg.live.opened import Opened
from napari_sparseseg.live.settings import Settings, is_address
from napari_sparseseg.live.worker import Worker
from napari_sparseseg.storage.project.elsewhere import Present
from napari_sparseseg.storage.project.manifest import ProjectClass, ProjectSettings

_PATIENCE = 20.0  # seconds to wait for the compute thread
BUSY = "the model as it is now is in memory only, for learning and predicting are at something long"


def class_infos(classes: tuple[ProjectClass, ...]) -> tuple[ClassInfo, ...]:
    """Classes of a project as the live segmenter has them."""
    return tuple(ClassInfo(info.class_id, info.name, info.color, info.is_background) for info in classes)


def settings_of(settings: ProjectSettings) -> Settings:
    """Settings of a project as the live segmenter has them."""
    return Settings(settings.model, settings.training, settings.prediction, _local(settings.device), settings.paint)


def project_settings(settings: Settings) -> ProjectSettings:
    """Settings of the live segmenter as a project has them."""
    return ProjectSettings(
        model=settings.model,
        training=settings.training,
        paint=settings.paint,
        prediction=settings.prediction,
        device=_local(settings.device),
    )


def _local(device: str) -> str:
    """A device for a project, which may come from anywhere and must connect to nothing."""
    return "auto" if is_address(device) else device


def project_classes(classes: ClassList) -> tuple[ProjectClass, ...]:
    """Classes of the live segmenter as a project has them."""
    return tuple(
        ProjectClass(class_id=info.class_id, name=info.name, color=info.color, is_background=info.is_background)
        for info in classes.all
    )


def present_of(opened: Opened, classes: ClassList, settings: Settings, *, is_begun_anew: bool) -> Present:
    """What is in memory, but for the model."""
    project = opened.project
    assert project is not None  # noqa: S101 - there is something that saves
    return Present(
        number=project.number,
        state=opened.store.state(),
        objects=opened.objects,
        classes=project_classes(classes),
        highest_class=classes.highest,
        settings=project_settings(settings),
        is_begun_anew=is_begun_anew,
    )


def with_model(present: Present, worker: Worker, opened: Opened, *, is_needed: bool) -> Present:
    """The same with the model, if there is one.

    If the compute thread does not answer, it is left out; raises `InputError` then if it `is_needed`.
    """
    if not opened.switch.status.has_model:
        return present
    try:
        taken = model_of(worker, opened)
    except (CancelledError, TimeoutError):
        if is_needed:
            raise InputError(f"{BUSY}; try again in a minute") from None
        return replace(present, lacks_model=True)
    return present if taken is None else replace(present, model=taken[0], about_model=taken[1])


def model_of(worker: Worker, opened: Opened, seconds: float | None = None) -> tuple[bytes, dict[str, Any]] | None:
    """The model as the content of a file, and what is noted about it; None if there is none that is any good.

    Waits for so many seconds, or as long as is usual. Raises `TimeoutError` or `CancelledError` if the compute thread
    does not answer.
    """
    taken = worker.checkpoint(opened).result(_PATIENCE if seconds is None else seconds)
    if taken is None:
        return None
    content, last = taken
    about = {
        "step": last.step if last else 0,
        "loss": last.loss if last else None,
        "dice": last.dice if last else None,
        "n_strokes": len(opened.store.strokes),
    }
    return content, about
