"""SwitchPanel: a way of painting that is switched on and off."""

from __future__ import annotations

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QPushButton, QVBoxLayout, QWidget

from napari_sparseseg.widgets.controls import SPACING, ElidedLabel, row


class SwitchPanel(QWidget):
    """A switch, a text on what is so, and a button that can be pressed while it is on, in one line."""

    toggled = Signal(bool)

    def __init__(self, name: str, tip: str, button: QPushButton, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._is_on = False
        self._switch = QCheckBox(name)
        self._switch.setToolTip(tip)
        self._text = ElidedLabel(role="muted")
        self._button = button
        line = row(self._switch, self._text, button)
        line.setStretch(1, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(SPACING)
        layout.addLayout(line)
        self._switch.clicked.connect(self._on_clicked)

    def show_on(self, is_on: bool) -> None:
        """Show whether it is on."""
        self._is_on = is_on
        self._switch.setChecked(is_on)
        self._button.setEnabled(is_on)

    def _on_clicked(self, wished: bool) -> None:
        self._switch.setChecked(self._is_on)  # it changes when the tool has
        self.toggled.emit(wished)
