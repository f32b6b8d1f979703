"""ConfigForm: a form made from the fields of a config, with their titles, bounds and descriptions."""

from __future__ import annotations

from html import escape
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo
from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QWheelEvent
from qtpy.QtWidgets import QCheckBox, QComboBox, QGridLayout, QLineEdit, QPushButton, QVBoxLayout, QWidget
from typing_extensions import override

from napari_sparseseg.config import ModelConfig, PaintConfig, PredictionConfig, TrainingConfig
from napari_sparseseg.errors import InputError
from napari_sparseseg.widgets.controls import MessageLabel, caption, row
from napari_sparseseg.widgets.numbers import Bounds, NumberField, number_text

Config = ModelConfig | TrainingConfig | PaintConfig | PredictionConfig
"""A config that a form can show."""

_FIELD_WIDTH = 130


class ConfigForm(QWidget):
    """One row for each setting. `config` is always valid; what cannot be is explained and not taken."""

    changed = Signal(object)
    """The new config, after the user changed a setting to something valid."""

    def __init__(self, config: Config, *, note: str = "", parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._config: Config = config
        self._explanation = MessageLabel(role="error")
        self._explanation.setAccessibleName("Why a value was not taken")
        self._explanation.hide()
        self._defaults = QPushButton("Restore defaults")
        self._defaults.setToolTip("Set every setting above to its default.")
        self._defaults.clicked.connect(self._on_defaults_clicked)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(6)
        layout.addLayout(self._build_rows())
        layout.addWidget(self._explanation)
        if note:
            layout.addWidget(MessageLabel(note, role="muted"))
        layout.addLayout(row(None, self._defaults))
        self._show()

    @property
    def config(self) -> Config:
        """What the form shows; frozen."""
        return self._config

    def field(self, name: str) -> QWidget:
        """The control of a setting."""
        return self._fields[name]

    @property
    def explanation(self) -> str:
        """Why the last value was not taken; empty if it was."""
        return self._explanation.text()

    def show_config(self, config: Config) -> None:
        """Show another config of the same class; emits nothing."""
        if type(config) is not type(self._config):
            raise TypeError(f"this form shows a {type(self._config).__name__}, not a {type(config).__name__}")
        self._config = config
        self._explain("")
        self._show()

    # --- building ---

    def _build_rows(self) -> QGridLayout:
        grid = QGridLayout()
        grid.setHorizontalSpacing(8)
        grid.setVerticalSpacing(4)
        grid.setColumnStretch(0, 1)
        self._fields: dict[str, _Field] = {}
        for line, (name, info) in enumerate(type(self._config).model_fields.items()):
            field = _field(info)
            label = caption(info.title or name)
            label.setBuddy(field)
            for widget in (label, field):
                widget.setToolTip(_tooltip(info))
            field.setAccessibleName(info.title or name)
            field.setFixedWidth(_FIELD_WIDTH)
            field.edited.connect(lambda name=name: self._on_field_edited(name))
            field.rejected.connect(self._explain)
            grid.addWidget(label, line, 0)
            grid.addWidget(field, line, 1)
            self._fields[name] = field
        return grid

    def _show(self) -> None:
        for name, field in self._fields.items():
            field.show_value(getattr(self._config, name))
        self._defaults.setEnabled(self._config != type(self._config)())

    def _explain(self, text: str) -> None:
        self._explanation.setText(text)
        self._explanation.setVisible(bool(text))

    # --- what the user does ---

    def _on_field_edited(self, name: str) -> None:
        field = self._fields[name]
        try:
            config = self._config.with_changes(**{name: field.read_value()})
        except InputError as error:
            field.show_value(getattr(self._config, name))
            self._explain(str(error))
            return
        self._explain("")
        self._take(config)

    def _on_defaults_clicked(self) -> None:
        self._explain("")
        self._take(type(self._config)())

    def _take(self, config: Config) -> None:
        is_new = config != self._config
        self._config = config
        self._show()
        if is_new:
            self.changed.emit(config)


class _CheckField(QCheckBox):
    """Yes or no."""

    edited = Signal()
    rejected = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.clicked.connect(lambda: self.edited.emit())

    def show_value(self, value: Any) -> None:
        self.setChecked(bool(value))

    def read_value(self) -> bool:
        return self.isChecked()


class _ChoiceField(QComboBox):
    """One of a few words."""

    edited = Signal()
    rejected = Signal(str)

    def __init__(self, choices: tuple[str, ...]) -> None:
        super().__init__()
        self.addItems(choices)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.activated.connect(lambda: self.edited.emit())

    def show_value(self, value: Any) -> None:
        self.setCurrentText(value)

    def read_value(self) -> str:
        return self.currentText()

    @override
    def wheelEvent(self, event: QWheelEvent | None) -> None:
        if event is not None:
            event.ignore()  # scrolling the dock must not change settings


class _NumbersField(QLineEdit):
    """Several numbers with commas between them."""

    edited = Signal()
    rejected = Signal(str)

    def __init__(self, title: str) -> None:
        super().__init__()
        self._title = title
        self._shown = ""
        self.editingFinished.connect(self._on_editing_finished)

    def show_value(self, value: Any) -> None:
        self._shown = ", ".join(number_text(number) for number in value)
        self.setText(self._shown)
        self.setCursorPosition(0)

    def read_value(self) -> tuple[float, ...]:
        return tuple(float(word) for word in self.text().replace(";", ",").split(",") if word.strip())

    def _on_editing_finished(self) -> None:
        if self.text() == self._shown:
            return
        typed = self.text()
        try:
            self.read_value()
        except ValueError:
            self.setText(self._shown)
            self.rejected.emit(f"{self._title} are numbers with commas between them; “{typed}” was not taken.")
        else:
            self.edited.emit()


_Field = _CheckField | _ChoiceField | _NumbersField | NumberField


def _field(info: FieldInfo) -> _Field:
    """The control that suits the type of a setting."""
    title = info.title or ""
    if info.annotation is bool:
        return _CheckField()
    if get_origin(info.annotation) is Literal:
        return _ChoiceField(get_args(info.annotation))
    if get_origin(info.annotation) is tuple:
        return _NumbersField(title)
    return NumberField(title, Bounds.of(info), float(info.default))


def _tooltip(info: FieldInfo) -> str:
    """Description, bounds and default; as rich text, which Qt wraps."""
    parts = [info.description or ""]
    if info.annotation in (int, float):
        parts.append(f"{Bounds.of(info).text.capitalize()}; default {number_text(info.default)}.")
    return f"<p>{'<br>'.join(escape(part) for part in parts)}</p>"
