"""ObjectPanel: the switch that gives each painted object an id of its own."""

from __future__ import annotations

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QPushButton, QWidget

from napari_sparseseg._types import NO_OBJECT
from napari_sparseseg.widgets.keys import NEXT_OBJECT_KEY, PICK_OBJECT_KEY
from napari_sparseseg.widgets.switch_panel import SwitchPanel

_TIP = (
    "Paint single objects: all strokes of one object get the same number, so that touching ones can be told apart. "
    "The class stays what you paint with."
)
_NEXT_TIP = f"Go on with another object ({NEXT_OBJECT_KEY}). {PICK_OBJECT_KEY} goes on with the one under the brush."


class ObjectPanel(SwitchPanel):
    """Says whether objects are painted, and which; it changes only by `show_objects`."""

    next_requested = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        button = QPushButton(f"Next ({NEXT_OBJECT_KEY})")
        button.setToolTip(_NEXT_TIP)
        super().__init__("Objects", _TIP, button, parent)
        button.clicked.connect(lambda: self.next_requested.emit())
        self.show_objects(NO_OBJECT, NO_OBJECT)

    def show_objects(self, object_id: int, hovered: int) -> None:
        """Show the object in hand (0: none are painted), and the one under the brush (0: there is none)."""
        self.show_on(object_id != NO_OBJECT)
        parts = [f"number {object_id}"] if self._is_on else []
        parts += [f"here: {hovered}"] if hovered != NO_OBJECT else []
        self._text.show_text(" · ".join(parts))
