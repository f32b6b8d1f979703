"""Questions before something that cannot be taken back; the harmless answer is the default."""

from __future__ import annotations

from qtpy.QtWidgets import QMessageBox, QWidget


def agrees(window: QWidget | None, title: str, question: str, yes: str, *, is_warning: bool = False) -> bool:
    """Whether the user agrees, by a button with the text `yes`, and does not cancel."""
    icon = QMessageBox.Icon.Warning if is_warning else QMessageBox.Icon.Question
    box = QMessageBox(icon, title, question, QMessageBox.StandardButton.Cancel, window)
    agree = box.addButton(yes, QMessageBox.ButtonRole.AcceptRole)
    box.setDefaultButton(QMessageBox.StandardButton.Cancel)
    box.exec()
    return box.clickedButton() is agree
