"""HistoryDialog: states of the annotation that can be brought back."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QDialog, QDialogButtonBox, QLabel, QListWidget, QListWidgetItem, QVBoxLayout, QWidget

from napari_sparseseg.storage.project.image import SavedState
from napari_sparseseg.widgets.project_panel import when


class HistoryDialog(QDialog):
    """Lists saved states, newest first; `chosen` is the one to be brought back.

    What there is now joins them, unless the project `is_read_only`.
    """

    def __init__(
        self, states: Sequence[SavedState], parent: QWidget | None = None, *, is_read_only: bool = False
    ) -> None:
        super().__init__(parent)
        self.setWindowTitle("History")
        self.setMinimumSize(360, 320)
        kept = "" if is_read_only else "What there is now joins this list, so that you can return to it. "
        text = QLabel(f"Bring the annotation back as it was. {kept}Model and prediction stay.")
        text.setWordWrap(True)
        self._list = QListWidget()
        self._list.setAccessibleName("Saved states")
        for state in sorted(states, key=lambda state: state.time, reverse=True):
            strokes = "1 stroke" if state.n_strokes == 1 else f"{state.n_strokes} strokes"
            item = QListWidgetItem(f"{when(state.time)} · {strokes}")
            item.setData(Qt.ItemDataRole.UserRole, state)
            self._list.addItem(item)
        self._list.setCurrentRow(0)
        self._list.itemDoubleClicked.connect(lambda _: self.accept())
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Cancel)
        restore = buttons.addButton("Restore", QDialogButtonBox.ButtonRole.AcceptRole)
        if restore is not None:
            restore.setEnabled(bool(states))
        buttons.accepted.connect(self.accept)
        buttons.rejected.connect(self.reject)
        layout = QVBoxLayout(self)
        layout.addWidget(text)
        layout.addWidget(self._list)
        layout.addWidget(buttons)

    @property
    def chosen(self) -> SavedState | None:
        """The state in the selected line."""
        item = self._list.currentItem()
        found: SavedState | None = item.data(Qt.ItemDataRole.UserRole) if item is not None else None
        return found


def ask_for_state(
    states: Sequence[SavedState], parent: QWidget | None, *, is_read_only: bool = False
) -> SavedState | None:
    """The state that the user wishes to have back, None if none."""
    dialog = HistoryDialog(states, parent, is_read_only=is_read_only)
    is_wished = dialog.exec() == QDialog.DialogCode.Accepted
    return dialog.chosen if is_wished else None
