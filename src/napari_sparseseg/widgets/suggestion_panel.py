"""SuggestionPanel: asks for suggested paint, and takes it or not."""

from __future__ import annotations

from qtpy.QtCore import QPoint, Signal
from qtpy.QtWidgets import QMenu, QPushButton, QVBoxLayout, QWidget

from napari_sparseseg.live.events import SuggestionState
from napari_sparseseg.widgets.controls import SPACING, ElidedLabel, equal_row

_TIP = (
    "Let the program propose paint, without any model: around your strokes, or between slices. Nothing changes before "
    "you accept it."
)
_GROW_TIP = (
    "Strokes of two classes or more grow to the outlines of what they lie in. For a few strokes on each slice; see "
    "Settings, Meaning of paint."
)
_FILL_TIP = (
    "Shapes that are painted on the slices to either side are interpolated. For slices closer together than objects "
    "are thick."
)
_ONLY_SLICE_TIP = "This is a single slice, so there is nothing between slices."
_ACCEPT_TIP = "Make paint of it. It counts less than what you painted, and never replaces it; Ctrl+Z takes it back."
_REFUSE_TIP = "Drop the suggestion."
_NONE_TIP = "Nothing is suggested at the moment."


class SuggestionPanel(QWidget):
    """Says what is wished of suggestions; it changes only by `show_state`."""

    grow_requested = Signal()
    fill_requested = Signal()
    accepted = Signal()
    refused = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._suggest = QPushButton("Suggest…")
        self._suggest.setToolTip(_TIP)
        self._accept, self._refuse = QPushButton("Accept"), QPushButton("Refuse")
        self._text = ElidedLabel(role="muted")
        self.menu = QMenu(self)
        self.menu.setToolTipsVisible(True)
        for text, tip, signal in (
            ("Grow strokes on this slice", _GROW_TIP, self.grow_requested),
            ("Fill between slices", _FILL_TIP, self.fill_requested),
        ):
            action = self.menu.addAction(text)
            if action is not None:
                action.setToolTip(tip)
                action.triggered.connect(lambda _=False, signal=signal: signal.emit())
        self._fill = action
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(SPACING)
        layout.addLayout(equal_row(self._suggest, self._accept, self._refuse))
        layout.addWidget(self._text)
        self._suggest.clicked.connect(self._open_menu)
        self._accept.clicked.connect(lambda: self.accepted.emit())
        self._refuse.clicked.connect(lambda: self.refused.emit())
        self.show_state(SuggestionState())

    def show_state(self, state: SuggestionState) -> None:
        """Show what is suggested, or being computed, or why nothing is."""
        is_there = state.suggestion is not None
        self._suggest.setEnabled(not state.is_busy)
        self._accept.setEnabled(is_there)
        self._refuse.setEnabled(is_there or state.is_busy)
        self._accept.setToolTip(_ACCEPT_TIP if is_there else _NONE_TIP)
        self._refuse.setToolTip(_REFUSE_TIP if is_there or state.is_busy else _NONE_TIP)
        self._text.show_text(_text_of(state))
        self._text.setVisible(bool(self._text.text()))

    def show_only_slice(self, is_only: bool) -> None:
        """Whether the image has no other slice of the orientation on screen, so that none lie between."""
        if self._fill is not None:
            self._fill.setEnabled(not is_only)
            self._fill.setToolTip(_ONLY_SLICE_TIP if is_only else _FILL_TIP)

    def _open_menu(self) -> None:
        self.menu.popup(self._suggest.mapToGlobal(QPoint(0, self._suggest.height())))


def _text_of(state: SuggestionState) -> str:
    if state.is_busy:
        return "Looking for what to suggest"
    if state.suggestion is None:
        return state.reason[:1].upper() + state.reason[1:]
    n_voxels = int((state.suggestion.codes > 0).sum())
    return f"{n_voxels:,} voxels suggested"
