"""napari's way to open a project: dropped on the viewer, File > Open Folder, or named on the command line."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from napari_sparseseg.storage.project.project import SUFFIX

_Read = Callable[[Any], list[tuple[None]]]
_NOTHING: list[tuple[None]] = [(None,)]
"""What tells napari that nothing is to be added."""


def get_reader(path: str | list[str]) -> _Read | None:
    """A reader for the folder of a project, None for anything else; napari asks for every folder."""
    paths = [path] if isinstance(path, str) else path
    return read_project if len(paths) == 1 and Path(paths[0]).suffix == SUFFIX else None


def read_project(path: str | list[str]) -> list[tuple[None]]:
    """Open a project in the current viewer, as soon as napari is through with reading; there is no layer to add."""
    import napari
    from qtpy.QtCore import QTimer

    viewer = napari.current_viewer()
    if viewer is not None:
        folder = path if isinstance(path, str) else path[0]
        QTimer.singleShot(0, partial(_open, weakref.ref(viewer), Path(folder)))
    return _NOTHING


def _open(viewer_ref: weakref.ref[Any], folder: Path) -> None:
    from napari_sparseseg.errors import InputError
    from napari_sparseseg.widgets.opening import open_project
    from napari_sparseseg.widgets.session import session_of

    viewer = viewer_ref()
    if viewer is None:
        return
    session = session_of(viewer)
    with session.guarded():
        try:
            open_project(session, viewer, folder)
        except OSError as error:
            raise InputError(f"{folder} cannot be opened ({error.strerror or error})") from error
    viewer.window.add_plugin_dock_widget("napari-sparseseg", "Sparse Segmentation")
