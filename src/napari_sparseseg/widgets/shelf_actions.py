"""ShelfActions: carries out what the shelf of models asks for."""

from __future__ import annotations

from pathlib import Path

from napari.qt.threading import thread_worker
from qtpy.QtCore import QObject

from napari_sparseseg.errors import InputError
from napari_sparseseg.live.shelf import ShelfModel, place_on_shelf, read_shelf
from napari_sparseseg.widgets import actions
from napari_sparseseg.widgets.home import shelf
from napari_sparseseg.widgets.session import Session
from napari_sparseseg.widgets.shelf_panel import ShelfPanel


class ShelfActions(QObject):
    """What users wish of kept models, done; what they can cause is told to them."""

    def __init__(self, session: Session, panel: ShelfPanel) -> None:
        super().__init__(panel)
        self._session = session
        self._panel = panel
        panel.list_requested.connect(self.look)
        panel.keep_requested.connect(self.keep)
        panel.start_requested.connect(self.start)
        panel.remove_requested.connect(self.remove)

    def look(self) -> None:
        """Read what is on the shelf, in the background."""
        worker = _read(shelf())
        worker.returned.connect(self._panel.show_models)
        worker.start()

    def keep(self, name: str) -> None:
        """Write what was learnt to the shelf."""
        session = self._session
        with session.guarded():
            try:
                shelf().mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(f"{shelf()} cannot be made ({error.strerror}); save the model elsewhere") from error
            path = place_on_shelf(shelf(), name or (session.source.name if session.source else ""))
            session.live.save_model(path)
            session.tell(f"“{path.stem}” is on the shelf")
            self._panel.show_kept(path)
            self.look()

    def start(self, model: ShelfModel) -> None:
        """Begin anew from a model; asks if something was learnt here."""
        session = self._session
        if session.live.status.has_model and not actions.ask(
            self._panel,
            "Start from this model?",
            "What was learnt here and the predictions are dropped. Your paint stays, and is learnt anew with what "
            f"“{model.name}” knows of images.",
            "Start",
        ):
            return
        with session.guarded():
            session.live.start_from(model.path)
            session.tell(f"Learning begins with what “{model.name}” knows of images")

    def remove(self, model: ShelfModel) -> None:
        """Remove a model from the shelf, after asking."""
        if not actions.ask(self._panel, "Remove the model?", f"“{model.name}” is deleted for good.", "Remove"):
            return
        with self._session.guarded():
            try:
                model.path.unlink(missing_ok=True)
            except OSError as error:
                raise InputError(f"{model.path} cannot be removed ({error.strerror})") from error
        self.look()


@thread_worker  # type: ignore[untyped-decorator]
def _read(folder: Path) -> tuple[ShelfModel, ...]:
    """Errors must not leave a napari worker; there are none but of the program's own."""
    return read_shelf(folder)
