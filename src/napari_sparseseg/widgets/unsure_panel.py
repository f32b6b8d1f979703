"""UnsurePanel: the switch for paint that leaves several classes possible, and which ones."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from qtpy.QtCore import Signal
from qtpy.QtGui import QMouseEvent
from qtpy.QtWidgets import QMenu, QPushButton, QWidget
from typing_extensions import override

from napari_sparseseg.live.events import ClassInfo
from napari_sparseseg.widgets.keys import UNSURE_KEY
from napari_sparseseg.widgets.switch_panel import SwitchPanel

_TIP = (
    f"Paint what could be any of some classes ({UNSURE_KEY}): it is learnt that it is none of the others. Doubtful "
    "outlines, and places that only an expert can tell. Choosing a class ends it."
)
_ANY = "Could be any class: nothing is learnt here, and it is not background on a complete slice."
_CLASSES_TIP = "Which classes are possible where you paint; at least two."


class UnsurePanel(SwitchPanel):
    """Says whether sets of classes are painted, and which; it changes only by `show_unsure`."""

    allowed = Signal(int, bool)
    """A class id, and whether it is to be possible."""

    def __init__(self, parent: QWidget | None = None) -> None:
        button = QPushButton("Could be…")
        button.setToolTip(_CLASSES_TIP)
        super().__init__("Unsure", _TIP, button, parent)
        self._menu = _StayingMenu(self)
        self._menu.setToolTipsVisible(True)
        button.setMenu(self._menu)
        self.show_unsure(False, (), ())

    def show_unsure(self, is_on: bool, classes: Sequence[ClassInfo], possible: Collection[int]) -> None:
        """Show whether a set is painted, the classes that there are, and which are possible in it."""
        self.show_on(is_on)
        names = [info.name for info in classes if info.class_id in possible]
        is_any = len(names) == len(classes)
        text = "any class" if is_any else " or ".join(names)
        self._text.show_text(text if is_on else "", _ANY if is_any else text)
        self._fill(classes, possible)

    def _fill(self, classes: Sequence[ClassInfo], possible: Collection[int]) -> None:
        if [action.text() for action in self._menu.actions()] != [info.name for info in classes]:
            self._menu.clear()
            for info in classes:
                action = self._menu.addAction(info.name)
                if action is not None:
                    action.setCheckable(True)
                    action.triggered.connect(lambda wished, i=info.class_id: self.allowed.emit(i, wished))
        for action, info in zip(self._menu.actions(), classes, strict=True):
            action.setChecked(info.class_id in possible)
            action.setEnabled(info.class_id not in possible or len(possible) > 2)


class _StayingMenu(QMenu):
    """A menu that stays open while things are checked in it."""

    @override
    def mouseReleaseEvent(self, event: QMouseEvent | None) -> None:
        action = self.activeAction()
        if action is not None and action.isEnabled() and action.isCheckable():
            action.trigger()
        else:
            super().mouseReleaseEvent(event)
