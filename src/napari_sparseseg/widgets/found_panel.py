"""FoundPanel: finds objects, says how many there are, offers the tools that correct them, and a table of them."""

from __future__ import annotations

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QPushButton, QVBoxLayout, QWidget

from napari_sparseseg.live.events import LiveStatus
from napari_sparseseg.widgets.controls import SPACING, ElidedLabel, equal_row
from napari_sparseseg.widgets.found import TWO_POINTS, Tool
from napari_sparseseg.widgets.table_panel import TablePanel

_HERE_TIP = (
    "Find the single objects of what is on screen, with some slices to either side, with the model as it is now. What "
    "was found there before is replaced."
)
_ALL_TIP = "Find all objects of the volume (of the time point on screen). Slow for large volumes; Cancel ends it."
_NO_MODEL = "There is no model yet: paint two classes first."
_NO_OBJECTS = "Find objects first."
_TOOLS: dict[Tool, tuple[str, str]] = {
    "merge": ("Merge", "Drag from one object to another, or click both: they become one."),
    "split": ("Split", "Drag between two points in one object, or click both: it is cut between them."),
    "delete": ("Delete", "Click an object: it becomes background."),
    "fill": ("Fill", "Click an object: its holes become part of it."),
}
_TEACHES = "The model learns from it on this slice, and undo takes it back."


class FoundPanel(QWidget):
    """Says what the user wishes to do with the objects; it changes only by its `show_` methods."""

    find_here_requested = Signal()
    find_all_requested = Signal()
    cancel_requested = Signal()
    tool_chosen = Signal(str)
    """One of the tools, or "" for none."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._is_finding = False
        self._tool: Tool = ""
        self.table = TablePanel()
        self._text = ElidedLabel(role="muted")
        self._here, self._all = QPushButton("Find objects"), QPushButton("Find all")
        self._tools = {tool: QPushButton(name) for tool, (name, _) in _TOOLS.items()}
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(SPACING)
        layout.addLayout(equal_row(self._here, self._all))
        layout.addLayout(equal_row(self._tools["merge"], self._tools["split"]))
        layout.addLayout(equal_row(self._tools["delete"], self._tools["fill"]))  # four side by side are too wide
        layout.addWidget(self._text)
        layout.addWidget(self.table)
        self._here.clicked.connect(lambda: self.find_here_requested.emit())
        self._all.clicked.connect(self._on_all_clicked)
        for tool, button in self._tools.items():
            button.setCheckable(True)
            button.clicked.connect(lambda wished, tool=tool: self._on_tool_clicked(tool, wished))
        self.show_status(LiveStatus())
        self.show_found("", None, False)

    def show_status(self, status: LiveStatus) -> None:
        """Enable what can be done; while objects are looked for, that is to cancel."""
        self._is_finding = status.is_finding
        self._here.setEnabled(status.has_model and not status.is_finding)
        self._all.setEnabled(status.has_model)
        self._all.setText("Cancel" if status.is_finding else "Find all")
        self._here.setToolTip(_HERE_TIP if status.has_model else f"{_HERE_TIP} {_NO_MODEL}")
        self._all.setToolTip("Look for objects no longer." if status.is_finding else _ALL_TIP)

    def show_found(self, tool: Tool, count: int | None, has_first: bool) -> None:
        """Show the tool in hand, how many objects there are (None: not looked for), and what is to be clicked next."""
        self._tool = tool
        for name, button in self._tools.items():
            button.setEnabled(count is not None)
            button.setChecked(name == tool)
            tip = _TOOLS[name][1]
            button.setToolTip(f"{tip} {_TEACHES}" if count is not None else f"{tip} {_NO_OBJECTS}")
        self.table.setVisible(count is not None)
        parts = [] if count is None else ["1 object" if count == 1 else f"{count:,} objects"]
        if tool:
            is_next = tool in TWO_POINTS and has_first
            parts.append("now the second point" if is_next else _TOOLS[tool][1])
        self._text.show_text(" · ".join(parts))

    def _on_all_clicked(self) -> None:
        (self.cancel_requested if self._is_finding else self.find_all_requested).emit()

    def _on_tool_clicked(self, tool: Tool, wished: bool) -> None:
        self._tools[tool].setChecked(tool == self._tool)  # it changes when the tool has
        self.tool_chosen.emit(tool if wished else "")
