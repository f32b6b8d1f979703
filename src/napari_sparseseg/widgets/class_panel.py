"""ClassPanel: the classes that can be painted, one line each."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtCore import QEvent, QPoint, QSize, Qt, Signal
from qtpy.QtGui import QKeyEvent, QMouseEvent, QResizeEvent
from qtpy.QtWidgets import QListWidget, QListWidgetItem, QMenu, QVBoxLayout, QWidget
from typing_extensions import override

from napari_sparseseg.live.events import ClassInfo
from napari_sparseseg.widgets.class_row import ROLE_TIP, ROLE_WIDTH, ROW_HEIGHT, ClassRow
from napari_sparseseg.widgets.controls import ElidedLabel, IconButton, caption, row
from napari_sparseseg.widgets.keys import CLASS_KEYS_TIP, N_CLASS_KEYS

MAX_ROWS = 6
_SCROLL_BAR = 14


class ClassPanel(QWidget):
    """Shows the classes and says what the user wishes to do with them; it changes only by `show_classes`."""

    class_chosen = Signal(int)
    """The class to paint with from now on."""
    class_added = Signal()
    class_renamed = Signal(int, str)
    class_recolored = Signal(int, tuple)
    """Class id; red, green, blue, 0..1."""
    class_removed = Signal(int)
    """The user wishes to remove it; whoever listens asks if there is paint."""
    background_chosen = Signal(int)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._classes: tuple[ClassInfo, ...] = ()
        self._current: int | None = None
        self._rows: list[ClassRow] = []
        self._title = caption("Classes")
        self._role = ElidedLabel("Background", role="muted", side="center", width=ROLE_WIDTH)
        self._role.setToolTip(ROLE_TIP)
        self._add = IconButton("add", "Add a class")
        self._list = _ClassList()
        self._list.setToolTip(f"<p>Choose the class to paint: click or arrow keys. {CLASS_KEYS_TIP}</p>")
        self._list.setAccessibleName("Classes")
        self._head = row(self._title, None, self._role, self._add, spacing=2)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addLayout(self._head)
        layout.addWidget(self._list)
        self._add.clicked.connect(self._on_add_clicked)
        self._list.currentRowChanged.connect(self._on_list_row_changed)
        self._list.wished.connect(self._on_list_wished)
        self._fit()

    @property
    def current_id(self) -> int | None:
        """The class that is marked."""
        return self._current

    def show_classes(self, classes: tuple[ClassInfo, ...], current_id: int | None = None) -> None:
        """Show these classes in this order, and which of them is painted with; emits nothing."""
        if [c.class_id for c in classes] != [c.class_id for c in self._classes]:
            self._rebuild(classes)
        elif classes != self._classes:
            for line, info in zip(self._rows, classes, strict=True):
                line.show_class(info)
        self._classes = classes
        self._mark(current_id)

    def rename(self, class_id: int) -> None:
        """Open the name of a class for editing, as after it was added."""
        for line in self._rows:
            if line.class_id == class_id:
                line.edit_name()

    def _rebuild(self, classes: tuple[ClassInfo, ...]) -> None:
        """Make the lines anew from the first class that differs."""
        ids = [c.class_id for c in classes]
        n_same = next((i for i, line in enumerate(self._rows) if ids[i : i + 1] != [line.class_id]), len(self._rows))
        blocked = self._list.blockSignals(True)
        while len(self._rows) > n_same:
            self._rows.pop().finish_edit(keep=False)
            self._list.takeItem(len(self._rows))
        for line, info in zip(self._rows, classes, strict=False):
            line.show_class(info)
        self._rows += [self._line(number, info) for number, info in enumerate(classes[n_same:], n_same + 1)]
        self._list.blockSignals(blocked)
        self._fit()

    def _line(self, number: int, info: ClassInfo) -> ClassRow:
        line = ClassRow(number, info)
        line.renamed.connect(self.class_renamed)
        line.recolored.connect(self.class_recolored)
        line.removed.connect(self._on_line_removed)
        line.background_chosen.connect(self.background_chosen)
        item = QListWidgetItem()
        item.setSizeHint(QSize(0, ROW_HEIGHT))
        self._list.addItem(item)
        self._list.setItemWidget(item, line)
        return line

    def _mark(self, class_id: int | None) -> None:
        self._current = class_id
        ids = [c.class_id for c in self._classes]
        index = ids.index(class_id) if class_id in ids else -1
        if index != self._list.currentRow():
            blocked = self._list.blockSignals(True)
            self._list.setCurrentRow(index)
            self._list.blockSignals(blocked)
        self._show_current()

    def _show_current(self) -> None:
        for line in self._rows:
            line.set_current(line.class_id == self._current)

    def _fit(self) -> None:
        """As high as the classes need, up to six rows; the heading stands over its column."""
        shown = min(max(len(self._rows), 1), MAX_ROWS)
        self._list.setFixedHeight(shown * ROW_HEIGHT + 2)
        scrolls = len(self._rows) > MAX_ROWS
        self._head.setContentsMargins(0, 0, 4 + (_SCROLL_BAR if scrolls else 0), 0)

    def _on_add_clicked(self) -> None:
        self._finish_edits()
        self.class_added.emit()

    def _on_line_removed(self, class_id: int) -> None:
        self._finish_edits()
        self.class_removed.emit(class_id)

    def _finish_edits(self) -> None:
        """Take a name that is being typed, before its line may be made anew."""
        for line in self._rows:
            line.finish_edit()

    def _on_list_row_changed(self, index: int) -> None:
        if 0 <= index < len(self._rows):
            self._current = self._rows[index].class_id
            self._show_current()
            self.class_chosen.emit(self._current)

    def _on_list_wished(self, wish: str, index: int) -> None:
        if 0 <= index < len(self._rows):
            line = self._rows[index]
            actions: dict[str, Callable[[], None]] = {
                "rename": line.edit_name,
                "color": line.ask_color,
                "background": lambda: self.background_chosen.emit(line.class_id),
                "remove": lambda: self._on_line_removed(line.class_id),
            }
            actions[wish]()


_WISHES = (
    ("rename", "Rename", Qt.Key.Key_F2),
    ("color", "Change colour…", Qt.Key.Key_C),
    ("background", "Make background", Qt.Key.Key_B),
    ("remove", "Remove", Qt.Key.Key_Delete),
)


class _ClassList(QListWidget):
    """A list whose lines also obey the keyboard: 1 to 9, F2, C, B, Delete, and the menu key."""

    wished = Signal(str, int)
    """What to do (rename, color, background, remove), and with which row."""

    def __init__(self) -> None:
        super().__init__()
        self.setVerticalScrollMode(QListWidget.ScrollMode.ScrollPerPixel)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self.customContextMenuRequested.connect(self._show_menu)

    @override
    def resizeEvent(self, event: QResizeEvent | None) -> None:
        super().resizeEvent(event)
        self.scheduleDelayedItemsLayout()  # else the lines stay as wide as they were when the dock becomes narrower
        self.executeDelayedItemsLayout()

    @override
    def event(self, event: QEvent | None) -> bool:
        # Our keys come before shortcuts of the window that use the same.
        if isinstance(event, QKeyEvent) and event.type() == QEvent.Type.ShortcutOverride and self._meaning(event):
            event.accept()
            return True
        return super().event(event)

    @override
    def mousePressEvent(self, event: QMouseEvent | None) -> None:
        before = self.currentRow()
        super().mousePressEvent(event)
        if event is not None and event.button() == Qt.MouseButton.LeftButton:
            index = self.indexAt(event.position().toPoint()).row()
            if index == before >= 0:
                self.currentRowChanged.emit(index)  # chosen again: no longer the eraser, nor several classes

    @override
    def keyPressEvent(self, event: QKeyEvent | None) -> None:
        meaning = "" if event is None else self._meaning(event)
        if not meaning:
            super().keyPressEvent(event)
        elif meaning.isdigit():
            if int(meaning) == self.currentRow() + 1:
                self.currentRowChanged.emit(self.currentRow())
            elif int(meaning) <= self.count():
                self.setCurrentRow(int(meaning) - 1)
        else:
            self.wished.emit(meaning, self.currentRow())

    def _meaning(self, event: QKeyEvent) -> str:
        """What a key says: a wish, the number of a class, or nothing."""
        if event.modifiers() & ~Qt.KeyboardModifier.KeypadModifier:
            return ""
        number = event.key() - Qt.Key.Key_0
        if 1 <= number <= N_CLASS_KEYS:
            return str(number)
        if event.key() == Qt.Key.Key_Backspace:
            return "remove"
        return next((wish for wish, _, key in _WISHES if key == event.key()), "")

    def _show_menu(self, position: QPoint) -> None:
        index = self.indexAt(position).row()
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        for wish, title, key in _WISHES:
            action = menu.addAction(title)
            if action is not None:
                action.setShortcut(key)
                action.triggered.connect(lambda _=False, wish=wish: self.wished.emit(wish, index))
        menu.popup(self.mapToGlobal(position))
