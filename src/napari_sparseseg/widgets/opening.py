"""How a project is opened in a viewer: its image is found, or asked for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from qtpy.QtWidgets import QApplication, QFileDialog, QMessageBox

from napari_sparseseg.errors import InputError, ProjectError
from napari_sparseseg.storage.project.image import ProjectImage
from napari_sparseseg.storage.project.project import Project
from napari_sparseseg.storage.project.reference import ImageState
from napari_sparseseg.widgets.home import is_same_folder, painted_at
from napari_sparseseg.widgets.leaving import leaving, what_is_lost
from napari_sparseseg.widgets.questions import agrees
from napari_sparseseg.widgets.restoring import (
    add_to_viewer,
    find_in_viewer,
    open_file,
    place_of,
    recognised,
    reference_to,
    shape_of_source,
    show_paint,
    source_for,
)
from napari_sparseseg.widgets.session import Session
from napari_sparseseg.widgets.sources import ImageSource

Answer = Literal["choose", "use", "paint", "cancel"]


@dataclass(frozen=True, slots=True)
class _Found:
    """The image of a project, None to show its paint alone; `is_other` if the project must note where it is now.

    `added` are the layers that were added to the viewer for it.
    """

    source: ImageSource | None
    is_other: bool = False
    added: Sequence[Any] = ()


def open_project(
    session: Session,
    viewer: Any,
    path: str | os.PathLike[str],
    number: int | None = None,
    source: ImageSource | None = None,
) -> None:
    """Open a project in a viewer: image `number`, or the one that was painted last.

    `source` is that image, if it is known; else it is looked for, and asked for where it is not found.

    Raises `InputError`, or OSError if the project cannot be written.
    """
    with session.opening():
        _open(session, viewer, Path(path), number, source)


def _open(session: Session, viewer: Any, path: Path, number: int | None, source: ImageSource | None) -> None:
    opened = session.live.project
    is_open = opened is not None and session.project is opened.project
    if opened is not None and is_open and is_same_folder(opened.project.path, path):
        if session.is_image_on_screen:
            session.tell(f"“{opened.project.name}” is open here already")
        else:
            _go_on(session, viewer, opened, _find(viewer, opened))
        return
    project = Project.open(path)
    try:
        image = _image_of(project, number)
        if source is None:
            found = _find(viewer, image)
        else:
            _check_shape(image, source)
            found = _Found(source, is_other=image.entry.reference.fingerprint is None)
        _go_on(session, viewer, image, found)
    finally:
        if session.project is not project:
            project.close()


def _go_on(session: Session, viewer: Any, image: ProjectImage, found: _Found | None) -> None:
    """Work on the image of a project, or show its paint alone, as it was found; None if it was not."""
    if found is None:
        return
    try:
        if found.source is None:
            show_paint(viewer, image)
            name = image.project.name
            session.tell(f"The paint of {name} is shown as ordinary layers. Open it again to go on with it")
        else:
            _work_on(session, image, found.source, is_other=found.is_other)
    finally:
        if session.source is None or not any(session.source.is_of(layer) for layer in found.added):
            _remove(viewer, found.added)


def _work_on(session: Session, image: ProjectImage, source: ImageSource, *, is_other: bool) -> None:
    """Work on the image of a project, unless the user would not leave the one before."""
    if image is session.live.project and session.take_back(source):
        if is_other:
            _note_where_it_is(session, image, source)
        session.bridge.set_mode(session.bridge.mode)  # which brings back what else was removed
        return
    with leaving(session, QApplication.activeWindow()) as problem:
        if problem and session.has_paint and not ask_to_leave(what_is_lost(session, problem)):
            return
        session.open(source, image)
    if is_other:
        _note_where_it_is(session, image, source)
    painted = session.live.painted_slices()
    if painted:
        session.bridge.go_to(painted[0].plane)


def _note_where_it_is(session: Session, image: ProjectImage, source: ImageSource) -> None:
    """Have a project refer to the image that is in use for it now."""
    if not image.project.is_read_only:
        image.refer(reference_to(source, image.project), place_of(source))
        session.configured.emit()  # whoever shows what can be stored looks again


def _image_of(project: Project, number: int | None) -> ProjectImage:
    if not project.images:
        raise ProjectError(f"{project.path} holds no image yet; add one from Python, or work on an image in the dock")
    if number is not None:
        return project.images[number]
    return max(project.images, key=lambda image: painted_at(image) or 0.0)


def _find(viewer: Any, image: ProjectImage) -> _Found | None:
    """The image in the viewer, or from where it lies; None if the user gave up."""
    present = find_in_viewer(viewer, image)
    if present is not None:
        return _Found(present)
    layers: list[Any] = []
    try:
        layers, check = add_to_viewer(viewer, image)
        problem = check.message
        source = recognised(image, layers) if layers else None
        if source is not None:
            return _Found(source, check.state is ImageState.MOVED, layers)
        if layers:
            problem = f"“{image.entry.title}” is not as it was when it was painted on"
    except InputError as error:
        problem = str(error)
    return _ask(viewer, image, layers, problem)


def _ask(viewer: Any, image: ProjectImage, layers: Sequence[Any], problem: str) -> _Found | None:
    """Ask where the image is until that is clear. Layers that were opened for it and are of no use are taken away."""
    while True:
        answer = ask_for_image(problem, can_use=bool(layers))
        try:
            if answer == "use":
                source = source_for(image, layers)
                _check_shape(image, source)
                return _Found(source, is_other=True, added=layers)
            if answer == "paint":  # the layers go later: napari may crash where one is added to an empty viewer
                return _Found(None, added=layers)
            _remove(viewer, layers)
            layers = []
            if answer != "choose":
                return None
            path = choose_file()
            if not path:
                continue
            layers = open_file(viewer, path)
            known = recognised(image, layers)
            if known is not None:
                return _Found(known, is_other=True, added=layers)
            problem = f"{path} is not the image that was painted on, or has changed"
        except InputError as error:
            problem = str(error)


def _check_shape(image: ProjectImage, source: ImageSource) -> None:
    shape = shape_of_source(source)
    if shape != image.entry.shape:
        raise InputError(
            f"“{source.name}” has the shape {shape} (frames, z, y, x), what was painted has {image.entry.shape}; "
            "choose another file"
        )


def _remove(viewer: Any, layers: Sequence[Any]) -> None:
    for layer in layers:
        if layer in viewer.layers:
            viewer.layers.remove(layer)


# ---------------------------------------------------------------- questions


def ask_for_image(problem: str, *, can_use: bool) -> Answer:
    """Ask what to do about an image that has moved or changed."""
    text = f"{problem[:1].upper()}{problem[1:]}.\n\nAll paint is safe, whatever you choose."
    box = QMessageBox(QMessageBox.Icon.Question, "Where is the image?", text, parent=QApplication.activeWindow())
    answers: dict[Any, Answer] = {
        box.addButton("Choose file…", QMessageBox.ButtonRole.AcceptRole): "choose",
        box.addButton("Open paint only", QMessageBox.ButtonRole.ActionRole): "paint",
    }
    if can_use:
        answers[box.addButton("Use it anyway", QMessageBox.ButtonRole.ActionRole)] = "use"
    answers[box.addButton(QMessageBox.StandardButton.Cancel)] = "cancel"
    box.exec()
    clicked = box.clickedButton()
    return next((answer for button, answer in answers.items() if button is clicked), "cancel")


def ask_to_leave(loss: str) -> bool:
    """Whether the user agrees to what opening the project costs."""
    return agrees(QApplication.activeWindow(), "Open the project?", loss, "Open it", is_warning=True)


def choose_file() -> str:
    """Let the user choose the file of the image; empty if they do not."""
    path, _ = QFileDialog.getOpenFileName(QApplication.activeWindow(), "Where is the image now?")
    return path
