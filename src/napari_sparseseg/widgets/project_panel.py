"""ProjectPanel: where the work is kept, whether it is saved, and what can be done with the project."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from qtpy.QtCore import Signal
from qtpy.QtGui import QAction
from qtpy.QtWidgets import QHBoxLayout, QMenu, QPushButton, QVBoxLayout, QWidget

from napari_sparseseg.live.events import SavingStatus
from napari_sparseseg.widgets.controls import ElidedLabel, IconButton, row
from napari_sparseseg.widgets.home import Earlier, Recent

_NO_PROJECT = "A project is made by itself with the first image."
_IMAGE_IS_LOST = (
    "The image is in no file, so only its paint is kept. Project > Store image in project keeps the image as well."
)
_NOT_NOW = "Not now. It stays under Project > Open recent."


class ProjectPanel(QWidget):
    """Says what the user wishes to do with the project; it changes only by its `show_` methods."""

    open_requested = Signal()
    recent_chosen = Signal(object)
    """Path."""
    recents_requested = Signal()
    """The list of what was open lately is about to be shown."""
    save_as_requested = Signal()
    history_requested = Signal()
    provenance_requested = Signal()
    methods_requested = Signal()
    store_requested = Signal()
    offer_accepted = Signal()
    offer_declined = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addLayout(self._build_line())
        layout.addWidget(self._build_offer())
        self._is_lost = False
        self.show_saving(SavingStatus(), is_writing=False)
        self.show_project(is_open=False, is_only_in_memory=False)

    # --- what it shows ---

    def show_saving(self, status: SavingStatus, *, is_writing: bool) -> None:
        """Show the project's name, and whether all is saved."""
        path = Path(status.path)
        if not status.path:
            self._state.set_role("muted")
            self._state.show_text("No project yet", _NO_PROJECT)
        elif status.reason:
            self._state.set_role("error")
            self._state.show_text(f"Read-only · {path.stem}", status.reason)
        elif status.error:
            self._state.set_role("error")
            self._state.show_text(f"Not saved: {status.error}", f"{status.error}\n{path}")
        else:
            self._state.set_role("muted")
            saved = "Saved without the image" if self._is_lost else "Saved"
            hint = f"{_IMAGE_IS_LOST}\n{path}" if self._is_lost else str(path)
            self._state.show_text(f"{'Saving…' if is_writing else saved} · {path.stem}", hint)

    def show_project(self, *, is_open: bool, is_only_in_memory: bool, comes_back: bool = False) -> None:
        """Enable what can be done; an image that is only in memory `comes_back` if it is a sample."""
        for action in (self._save_as, self._history, self._provenance, self._methods):
            action.setEnabled(is_open)
        self._store.setEnabled(is_open and is_only_in_memory)
        self._is_lost = self._store.isEnabled() and not comes_back  # said with the next `show_saving`

    def show_recents(self, found: Sequence[Recent]) -> None:
        """Offer projects that were open lately."""
        self._recents.clear()
        for recent in found:
            action = _add(self._recents, f"{recent.image} · {when(recent.time)}")
            action.setToolTip(str(recent.path))
            action.triggered.connect(lambda _=False, path=recent.path: self.recent_chosen.emit(path))
        if not found:
            _add(self._recents, "Nothing yet").setEnabled(False)

    def show_offer(self, earlier: Earlier | None) -> None:
        """Offer to go on with earlier paint of the same image."""
        self._offer.setVisible(earlier is not None)
        if earlier is not None:
            self._question.show_text(f"Go on with the paint of {when(earlier.time)}?", str(earlier.path))

    # --- building ---

    def _build_line(self) -> QHBoxLayout:
        self._state = ElidedLabel(role="muted")
        self._state.setAccessibleName("Project")
        self._button = QPushButton("Project")
        self._button.setToolTip("Open a project, save it elsewhere, bring back an earlier state.")
        menu = QMenu(self)
        menu.setToolTipsVisible(True)
        _add(menu, "Open…").triggered.connect(lambda _: self.open_requested.emit())
        self._recents = QMenu("Open recent", menu)
        self._recents.setToolTipsVisible(True)
        self._recents.aboutToShow.connect(self.recents_requested)
        menu.addMenu(self._recents)
        self._save_as = _add(menu, "Save as…")
        self._save_as.setToolTip("Choose a place for the project, and go on there.")
        self._history = _add(menu, "History…")
        self._history.setToolTip("Bring back the annotation as it was earlier today.")
        menu.addSeparator()
        self._provenance = _add(menu, "Export provenance…")
        self._provenance.setToolTip("Write who painted what and when, models and settings, as JSON.")
        self._methods = _add(menu, "Copy methods text")
        self._methods.setToolTip("A paragraph for the methods section of a paper.")
        self._store = _add(menu, "Store image in project")
        self._store.setToolTip("For an image that is in no file: without it the project cannot be gone on with.")
        for action, signal in (
            (self._save_as, self.save_as_requested),
            (self._history, self.history_requested),
            (self._provenance, self.provenance_requested),
            (self._methods, self.methods_requested),
            (self._store, self.store_requested),
        ):
            action.triggered.connect(lambda _=False, signal=signal: signal.emit())
        self._button.setMenu(menu)
        line = row(self._state, self._button)
        line.setStretch(0, 1)
        return line

    def _build_offer(self) -> QWidget:
        self._offer = QWidget()
        self._question = ElidedLabel()
        go_on, decline = QPushButton("Go on"), IconButton("remove", _NOT_NOW)
        go_on.setToolTip("Open the project in which this image was painted, with paint, model and prediction.")
        go_on.clicked.connect(lambda: self.offer_accepted.emit())
        decline.clicked.connect(lambda: self.offer_declined.emit())
        line = row(self._question, go_on, decline)
        line.setStretch(0, 1)
        self._offer.setLayout(line)
        self._offer.hide()
        return self._offer


def _add(menu: QMenu, text: str) -> QAction:
    action = QAction(text, menu)
    menu.addAction(action)
    return action


def when(moment: float) -> str:
    """A time in the user's words: 14:05 today, else with the date."""
    then = time.localtime(moment)
    is_today = time.strftime("%Y%m%d", then) == time.strftime("%Y%m%d")
    return time.strftime("%H:%M" if is_today else "%Y-%m-%d %H:%M", then)
