"""ObjectPanel: the switch that gives each painted object an id of its own."""

from __future__ import annotations

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QPushButton, QVBoxLayout, QWidget

from napari_sparseseg._types import NO_OBJECT
from napari_sparseseg.widgets.controls import SPACING, ElidedLabel, row
from napari_sparseseg.widgets.keys import NEXT_OBJECT_KEY, PICK_OBJECT_KEY

_TIP = (
    "Paint single objects: all strokes of one object get the same number, so that touching ones can be told apart. "
    "The class stays what you paint with."
)
_NEXT_TIP = f"Go on with another object ({NEXT_OBJECT_KEY}). {PICK_OBJECT_KEY} goes on with the one under the brush."


class ObjectPanel(QWidget):
    """Says whether objects are painted, and which; it changes only by `show_objects`."""

    toggled = Signal(bool)
    next_requested = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._is_on = False
        self._switch = QCheckBox("Objects")
        self._switch.setToolTip(_TIP)
        self._text = ElidedLabel(role="muted")
        self._next = QPushButton(f"Next ({NEXT_OBJECT_KEY})")
        self._next.setToolTip(_NEXT_TIP)
        line = row(self._switch, self._text, self._next)
        line.setStretch(1, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(SPACING)
        layout.addLayout(line)
        self._switch.clicked.connect(self._on_clicked)
        self._next.clicked.connect(lambda: self.next_requested.emit())
        self.show_objects(NO_OBJECT, NO_OBJECT)

    def show_objects(self, object_id: int, hovered: int) -> None:
        """Show the object in hand (0: none are painted), and the one under the brush (0: there is none)."""
        self._is_on = object_id != NO_OBJECT
        self._switch.setChecked(self._is_on)
        self._next.setEnabled(self._is_on)
        parts = [f"number {object_id}"] if self._is_on else []
        parts += [f"here: {hovered}"] if hovered != NO_OBJECT else []
        self._text.show_text(" · ".join(parts))

    def _on_clicked(self, wished: bool) -> None:
        self._switch.setChecked(self._is_on)  # it changes when the tool has
        self.toggled.emit(wished)
