"""ClassRow: one class in the list of classes."""

from __future__ import annotations

from qtpy.QtCore import QEvent, QPointF, QRectF, Qt, Signal
from qtpy.QtGui import QColor, QEnterEvent, QKeyEvent, QMouseEvent, QPainter, QPaintEvent, QPen
from qtpy.QtWidgets import QAbstractButton, QColorDialog, QLineEdit, QListWidget, QWidget
from typing_extensions import override

from napari_sparseseg.live.events import ClassInfo, Color
from napari_sparseseg.widgets.controls import ElidedLabel, IconButton, row, text_color
from napari_sparseseg.widgets.keys import N_CLASS_KEYS

ROW_HEIGHT = 28
ROLE_WIDTH = 84
ROLE_TIP = "The background: transparent in the prediction, and what fills up a complete slice."


class ClassRow(QWidget):
    """Key, colour, name, background or not, remove."""

    renamed = Signal(int, str)
    recolored = Signal(int, tuple)
    removed = Signal(int)
    background_chosen = Signal(int)

    def __init__(self, number: int, info: ClassInfo) -> None:
        super().__init__()
        self.class_id = info.class_id
        self._info = info
        self._edit: _NameEdit | None = None
        self._is_current = False
        self._key = ElidedLabel(str(number) if number <= N_CLASS_KEYS else "", role="muted", side="center", width=14)
        self._key.setToolTip(f"Key {number} chooses this class." if number <= N_CLASS_KEYS else "")
        self._swatch = _Swatch()
        self._name = ElidedLabel()
        self._role = _RoleButton()
        self._remove = IconButton("remove", "Remove this class (Delete)")
        self._layout = row(self._key, self._swatch, self._name, self._role, self._remove, spacing=4)
        self._layout.setContentsMargins(6, 0, 4, 0)
        self._layout.setStretch(2, 1)
        self.setLayout(self._layout)
        self.setFixedHeight(ROW_HEIGHT)
        self._build_buttons()
        self._connect()
        self.show_class(info)

    def _build_buttons(self) -> None:
        self._name.setToolTip("Double-click or F2 to rename")
        # One stop of the Tab key for the whole list; each button has a key of its own.
        for button in (self._swatch, self._role, self._remove):
            button.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        keeps_room = self._remove.sizePolicy()
        keeps_room.setRetainSizeWhenHidden(True)
        self._remove.setSizePolicy(keeps_room)
        self._remove.hide()

    def _connect(self) -> None:
        self._swatch.clicked.connect(self.ask_color)
        self._role.clicked.connect(self._on_role_clicked)
        self._remove.clicked.connect(lambda: self.removed.emit(self.class_id))

    def show_class(self, info: ClassInfo) -> None:
        """Show name, colour and role."""
        self._info = info
        self._name.show_text(info.name, f"{info.name}\nDouble-click or F2 to rename")
        self._swatch.show_color(QColor.fromRgbF(*info.color))
        self._swatch.setAccessibleName(f"Colour of {info.name}")
        self._role.show_checked(info.is_background)

    def set_current(self, is_current: bool) -> None:
        """Offer to remove the class that is painted with; of the others, only the one under the mouse."""
        self._is_current = is_current
        self._remove.setVisible(is_current or self.underMouse())

    @override
    def enterEvent(self, event: QEnterEvent | None) -> None:
        self._remove.show()

    @override
    def leaveEvent(self, event: QEvent | None) -> None:
        self._remove.setVisible(self._is_current)

    def edit_name(self) -> None:
        """Put a line edit in the place of the name until Enter, Escape or a click elsewhere."""
        if self._edit is not None:
            return
        self._edit = edit = _NameEdit(self._info.name)
        self._layout.replaceWidget(self._name, edit)
        self._layout.setStretch(2, 1)
        self._name.hide()
        edit.finished.connect(self._on_edit_finished)
        edit.show()
        edit.setFocus()
        edit.selectAll()

    def finish_edit(self, *, keep: bool = True) -> None:
        """Close the line edit, if it is open, with or without what was typed."""
        if self._edit is not None:
            self._edit.finish(self._edit.text() if keep else "")

    def ask_color(self) -> None:
        """Open a colour dialog; it does not block the viewer."""
        dialog = QColorDialog(QColor.fromRgbF(*self._info.color), self)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.setWindowTitle(f"Colour of {self._info.name}")
        dialog.colorSelected.connect(self._on_color_selected)
        dialog.open()

    @override
    def mouseDoubleClickEvent(self, event: QMouseEvent | None) -> None:
        if event is not None and self._name.geometry().contains(event.position().toPoint()):
            self.edit_name()

    def _on_role_clicked(self) -> None:
        if not self._info.is_background:
            self.background_chosen.emit(self.class_id)

    def _on_color_selected(self, color: QColor) -> None:
        chosen: Color = (color.redF(), color.greenF(), color.blueF())
        self.recolored.emit(self.class_id, chosen)

    def _on_edit_finished(self, name: str) -> None:
        edit, self._edit = self._edit, None
        if edit is None:
            return
        had_focus = edit.hasFocus()
        self._layout.replaceWidget(edit, self._name)
        self._layout.setStretch(2, 1)
        edit.hide()
        edit.deleteLater()
        self._name.show()
        if had_focus:
            self._focus_list()
        if name.strip() and name.strip() != self._info.name:
            self.renamed.emit(self.class_id, name.strip())

    def _focus_list(self) -> None:
        parent = self.parentWidget()
        while parent is not None and not isinstance(parent, QListWidget):
            parent = parent.parentWidget()
        if parent is not None:
            parent.setFocus()


class _Swatch(QAbstractButton):
    """A rounded square of the class's colour; the mouse over it draws a frame."""

    def __init__(self) -> None:
        super().__init__()
        self._color = QColor()
        self.setFixedSize(22, 22)
        self.setToolTip("Change the colour (C)")

    def show_color(self, color: QColor) -> None:
        """Take this colour."""
        if color != self._color:
            self._color = color
            self.update()

    @override
    def paintEvent(self, event: QPaintEvent | None) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setBrush(self._color)
        painter.setPen(QPen(text_color(self) if self.underMouse() else self._color.darker(140), 1))
        painter.drawRoundedRect(QRectF(4.5, 4.5, 13, 13), 3, 3)
        painter.end()


class _RoleButton(QAbstractButton):
    """A ring, filled for the background; napari's radio buttons have the colour of the list beneath."""

    def __init__(self) -> None:
        super().__init__()
        self._is_filled = False
        self.setFixedSize(ROLE_WIDTH, ROW_HEIGHT - 4)
        self.setAccessibleName("Background")
        self.setToolTip(f"{ROLE_TIP} (B)")

    def show_checked(self, filled: bool) -> None:
        """Fill the ring or not."""
        if filled != self._is_filled:
            self._is_filled = filled
            self.update()

    @property
    def is_filled(self) -> bool:
        return self._is_filled

    @override
    def paintEvent(self, event: QPaintEvent | None) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        color = text_color(self)
        color.setAlphaF(1.0 if self._is_filled else 0.7 if self.underMouse() else 0.35)
        painter.setPen(QPen(color, 1.3))
        center = QPointF(self.width() / 2, self.height() / 2)
        painter.drawEllipse(center, 6, 6)
        if self._is_filled:
            painter.setBrush(color)
            painter.drawEllipse(center, 2.8, 2.8)
        painter.end()


class _NameEdit(QLineEdit):
    """A line edit that tells once how it was left: the new text, or nothing after Escape."""

    finished = Signal(str)

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._is_over = False
        self.setMaxLength(80)
        self.setToolTip("Enter keeps the name, Escape the old one.")
        self.setAccessibleName("Class name")
        self.editingFinished.connect(lambda: self.finish(self.text()))

    @override
    def keyPressEvent(self, event: QKeyEvent | None) -> None:
        if event is not None and event.key() == Qt.Key.Key_Escape:
            self.finish("")
        elif event is not None and event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self.finish(self.text())  # kept from the list and from a dialog around it
        else:
            super().keyPressEvent(event)

    def finish(self, text: str) -> None:
        """Tell the text, once."""
        if not self._is_over:
            self._is_over = True
            self.finished.emit(text)
