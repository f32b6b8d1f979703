"""ProjectActions: carries out what the project panel asks for."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from napari.qt.threading import thread_worker
from qtpy.QtCore import QObject
from qtpy.QtWidgets import QApplication, QFileDialog, QWidget

from napari_sparseseg.errors import InputError
from napari_sparseseg.live.live_segmenter import LiveSegmenter
from napari_sparseseg.storage.durable import RealDisk, replace_file
from napari_sparseseg.storage.project.elsewhere import Copied, write_elsewhere
from napari_sparseseg.storage.project.image import ProjectImage
from napari_sparseseg.storage.project.project import SUFFIX, Project
from napari_sparseseg.widgets.actions import ask_for_output
from napari_sparseseg.widgets.history import ask_for_state
from napari_sparseseg.widgets.home import forget_recent, home
from napari_sparseseg.widgets.leaving import do_meanwhile, pausing
from napari_sparseseg.widgets.opening import open_project
from napari_sparseseg.widgets.results import remove_gone
from napari_sparseseg.widgets.session import Session

_HISTORY_SECONDS = 86_400.0


class ProjectActions(QObject):
    """What users wish of the project of one session, done; what they can cause is told to them."""

    def __init__(self, session: Session, viewer: Any, widget: QWidget) -> None:
        super().__init__(widget)
        self._session = session
        self._viewer = viewer
        self._widget = widget
        self._storing: ProjectImage | None = None  # into its project, at present

    # --- open ---

    def ask_and_open(self) -> None:
        """Ask for a folder and open the project in it."""
        path = ask_for_folder(self._widget)
        if path:
            self.open(Path(path))

    def open(self, path: Path) -> None:
        """Open a project; the one before is saved and closed."""
        with self._guarded():
            open_project(self._session, self._viewer, path)

    def accept_offer(self) -> None:
        """Go on with earlier paint of the image."""
        offer = self._session.offer
        if offer is not None:
            with self._guarded():
                open_project(self._session, self._viewer, offer.path, offer.number, self._session.source)

    # --- save ---

    def save_as(self) -> None:
        """Ask for a place and go on there: a project in the user's folder moves, any other one is copied."""
        with self._guarded():
            project, image = self._opened()
            asked = ask_for_output(self._widget, "Save project as", project.path.name, f"Project (*{SUFFIX})")
            if asked:
                with self._session.opening():
                    self._go_on_at(Path(asked if asked.endswith(SUFFIX) else asked + SUFFIX), project, image)

    def _go_on_at(self, target: Path, project: Project, image: ProjectImage) -> None:
        session, live, source = self._session, self._session.live, self._session.source
        if source is None:
            raise InputError("there is no image, so there is nothing to save")
        if self._storing is not None and self._storing is image:
            raise InputError("the image is being stored in the project; save it elsewhere once that is done")
        # voxels that are read from the old folder when they are needed must stay there
        is_read_there = image.entry.is_stored and not isinstance(source.array, np.ndarray)
        is_moving = project.path.is_relative_to(home()) and not project.is_read_only and not is_read_there
        copied: Project | None = None
        with pausing(session):  # what would be learnt from now on would not be in the copy
            try:
                text = f"The project is copied to {target} …"
                copy = do_meanwhile(self._widget, text, lambda: _write(live, project, image, target))
                copied = Project.open(target)
                session.open(source, copied.images[copy.number])
            except BaseException:
                if copied is not None and session.project is not copied:
                    copied.close()
                raise
            finally:  # what is open is saved on, be it where it was
                live.keeping.go_on()
        if copy.missing:
            session.tell(f"All paint was saved to {target}, and work goes on there; but {copy.missing}", True)
            return
        if is_moving and not copied.is_read_only:
            with suppress(OSError):  # it is a copy then
                RealDisk().remove(project.path)
                forget_recent(project.path)
            remove_gone(self._viewer)
        session.tell(f"The project was {'moved' if is_moving else 'copied'} to {target}. Work goes on there")

    def store_image(self) -> None:
        """Copy the image into the project, in the background."""
        with self._guarded():
            _, image = self._opened()
            if self._session.source is None:
                raise InputError("there is no image to store")
            worker = _store(image, self._session.source.array)
            self._storing = image
            worker.returned.connect(self._on_stored)
            worker.start()

    def _on_stored(self, outcome: tuple[str, bool]) -> None:
        self._storing = None
        self._session.tell(*outcome)
        self._session.configured.emit()  # whoever shows what can be stored looks again

    # --- record ---

    def restore(self) -> None:
        """Ask for a state of the last day, and bring the annotation back as it was."""
        with self._guarded():
            project, _ = self._opened()
            states = self._session.live.keeping.history(since=time.time() - _HISTORY_SECONDS)
            state = ask_for_state(states, self._widget.window(), is_read_only=project.is_read_only)
            if state is not None:
                self._session.live.keeping.restore(state)

    def export_provenance(self) -> None:
        """Ask for a file and write the record of provenance to it."""
        with self._guarded():
            project, _ = self._opened()
            path = ask_for_output(self._widget, "Export provenance", f"{project.name}.json", "JSON (*.json)")
            if path:
                replace_file(RealDisk(), Path(path), json.dumps(project.provenance(), indent=1).encode())
                self._session.tell(f"The record was written to {path}")

    def copy_methods(self) -> None:
        """Put the paragraph for the methods section on the clipboard."""
        with self._guarded():
            project, image = self._opened()
            if image.journal is not None:
                image.journal.sync(timeout=2.0)
            clipboard = QApplication.clipboard()
            if clipboard is not None:
                clipboard.setText(project.methods())
                self._session.tell("A paragraph for the methods section is on the clipboard")

    # --- between ---

    def _opened(self) -> tuple[Project, ProjectImage]:
        project, image = self._session.project, self._session.live.project
        if project is None or image is None:
            raise InputError("there is no project yet; open an image first")
        return project, image

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        with self._session.guarded():
            try:
                yield
            except OSError as error:
                raise InputError(f"{error.filename or 'the project'} cannot be written ({error.strerror})") from error


def _write(live: LiveSegmenter, project: Project, image: ProjectImage, target: Path) -> Copied:
    """Copy the project with all that it holds by now, also what its disk has not taken."""
    present = live.keeping.leave()
    if present is not None:
        return write_elsewhere(project, target, present)
    project.copy_to(target)
    return Copied(image.number)


@thread_worker  # type: ignore[untyped-decorator]
def _store(image: ProjectImage, array: Any) -> tuple[str, bool]:
    """Copy voxels; what to tell the user, and whether that is an error. Errors must not leave a napari worker."""
    try:
        image.store_pixels(array)
    except Exception as error:  # noqa: BLE001 - lazy arrays run other people's code, which raises what it likes
        return f"The image was not stored: {str(error) or type(error).__name__}", True
    return "The image is in the project now", False


def ask_for_folder(widget: QWidget) -> str:
    """A folder to open, empty if the user cancelled."""
    return QFileDialog.getExistingDirectory(widget.window(), f"Open a project (NAME{SUFFIX})")
