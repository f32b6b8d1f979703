"""TablePanel: the objects as a table that can be sorted, filtered, clicked, and written to a file."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import QItemSelectionModel, QModelIndex, Qt, Signal
from qtpy.QtGui import QValidator, QWheelEvent
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractItemView,
    QApplication,
    QCheckBox,
    QDoubleSpinBox,
    QHeaderView,
    QPushButton,
    QSizePolicy,
    QTableView,
    QVBoxLayout,
    QWidget,
)
from typing_extensions import override

from napari_sparseseg.live.events import ObjectTable
from napari_sparseseg.live.object_table import ObjectFilter
from napari_sparseseg.widgets.controls import ElidedLabel, Section, caption, row
from napari_sparseseg.widgets.numbers import number_text
from napari_sparseseg.widgets.table_model import ObjectTableModel, columns_of

_TITLE = "Table of objects"
_TIP = "Measure the objects of the time point on screen; while the table is open, it follows corrections."
_FILTERED = "The others are hidden in the layer as well, as long as the table is open; nothing is deleted."
_LARGEST = 1e12
_HEIGHT = 190
_ROWS_FOR_WIDTH = 100


class TablePanel(QWidget):
    """Says what the user wishes of the table; it changes only by its `show_` methods."""

    toggled = Signal(bool)
    """The table was unfolded, or folded."""
    object_chosen = Signal(int)
    filtered = Signal(object)
    """`ObjectFilter`."""
    csv_requested = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._table: ObjectTable | None = None
        self._names: Mapping[int, str] = {}
        self._unit = ""
        self._is_showing = False
        self._passing = np.zeros(0, np.bool_)
        self._section = Section(_TITLE, _TIP)
        self._model = ObjectTableModel(self)
        self._selection = QItemSelectionModel(self._model)
        self._view = _view_of(self._model, self._selection)
        self._text = ElidedLabel(role="muted")
        self._build()
        self._section.toggled.connect(lambda unfolded: self.toggled.emit(unfolded))
        for bound in (self._smallest, self._largest):
            bound.valueChanged.connect(lambda _: self._emit_filter())
        self._without_border.clicked.connect(lambda _: self._emit_filter())
        self._csv.clicked.connect(lambda: self.csv_requested.emit())
        self._view.clicked.connect(self._on_clicked)
        self._selection.currentRowChanged.connect(self._on_row_changed)
        self.show_table(None, self._passing, 0)

    # --- what it shows ---

    def show_on(self, is_on: bool) -> None:
        """Unfold or fold the table."""
        if is_on != self._section.is_unfolded:
            blocked = self._section.blockSignals(True)
            self._section.set_unfolded(is_on)
            self._section.blockSignals(blocked)

    def show_filter(self, shown: ObjectFilter) -> None:
        """Show which objects are kept; emits nothing."""
        for bound, size in ((self._smallest, shown.min_size), (self._largest, shown.max_size)):
            blocked = bound.blockSignals(True)
            bound.setValue(size or 0)
            bound.blockSignals(blocked)
        self._without_border.setChecked(shown.without_border)

    def show_names(self, class_names: Mapping[int, str], unit: str) -> None:
        """Call classes so, and lengths; `unit` is a symbol, "" for voxels."""
        if (class_names, unit) != (self._names, self._unit):
            self._names, self._unit = dict(class_names), unit
            self._show_rows()

    def show_table(self, table: ObjectTable | None, passing: npt.NDArray[np.bool_], chosen: int) -> None:
        """Show the rows that pass, and which object is chosen (0: none); cheap if only that has changed."""
        if table is not self._table or passing is not self._passing:
            self._table, self._passing = table, passing
            self._show_rows()
        self._select(self._model.row_of(chosen))
        n, kept = len(passing), int(passing.sum())
        self._csv.setEnabled(kept > 0)
        if table is None:
            self._text.show_text("Measuring…" if self._section.is_unfolded else "")
        elif kept == n:
            self._text.show_text("1 object" if n == 1 else f"{n:,} objects")
        else:
            self._text.show_text(f"{kept:,} of {n:,} objects; the others are hidden", _FILTERED)

    def _show_rows(self) -> None:
        columns = [] if self._table is None else columns_of(self._table, self._unit, self._names)
        is_new = [c.heading for c in columns] != [c.heading for c in self._model.columns]
        self._model.show(columns, self._passing)
        if is_new:  # else they are as wide as the user has made them
            self._view.resizeColumnsToContents()

    def _select(self, number: int | None) -> None:
        selection = self._selection
        if number is None:
            selection.clear()
        elif selection.currentIndex().row() != number or not selection.hasSelection():
            index = self._model.index(number, 0)
            flags = QItemSelectionModel.SelectionFlag.ClearAndSelect | QItemSelectionModel.SelectionFlag.Rows
            self._is_showing = True  # what is shown is no wish
            selection.setCurrentIndex(index, flags)
            self._is_showing = False
            self._view.scrollTo(index)

    # --- building ---

    def _build(self) -> None:
        self._smallest, self._largest = SizeField("Smallest size"), SizeField("Largest size")
        self._smallest.setToolTip(f"Keep objects of at least this volume (area). {_FILTERED}")
        self._largest.setToolTip(f"Keep objects of at most this volume (area). {_FILTERED}")
        self._without_border = QCheckBox("Without the border")
        self._without_border.setToolTip(
            f"Keep objects that do not touch the edge of the image, beyond which they may go on. {_FILTERED}"
        )
        self._csv = QPushButton("CSV…")
        self._csv.setToolTip("Write the rows that are listed, with all that was measured, to a file.")
        body = self._section.body
        body.setContentsMargins(0, 2, 0, 4)  # every pixel of a narrow dock is needed here
        sizes = row(caption("Size"), self._smallest, caption("to"), self._largest)
        sizes.setStretch(1, 1)
        sizes.setStretch(3, 1)
        body.addLayout(sizes)
        body.addLayout(row(self._without_border, None, self._csv))
        body.addWidget(self._view)
        body.addWidget(self._text)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._section)

    # --- wishes ---

    def _emit_filter(self) -> None:
        wanted = ObjectFilter(
            self._smallest.value() or None, self._largest.value() or None, self._without_border.isChecked()
        )
        self.filtered.emit(wanted)

    def _on_clicked(self, index: QModelIndex) -> None:
        self.object_chosen.emit(self._model.object_at(index.row()))

    def _on_row_changed(self, index: QModelIndex, _before: QModelIndex) -> None:
        """By the keyboard; a click tells by itself, also on the row that is chosen already."""
        if index.isValid() and not self._is_showing and QApplication.mouseButtons() == Qt.MouseButton.NoButton:
            self.object_chosen.emit(self._model.object_at(index.row()))


def _view_of(model: ObjectTableModel, selection: QItemSelectionModel) -> QTableView:
    view = QTableView()
    rows, header = QHeaderView(Qt.Orientation.Vertical), QHeaderView(Qt.Orientation.Horizontal)
    view.setVerticalHeader(rows)
    view.setHorizontalHeader(header)
    view.setModel(model)
    view.setSelectionModel(selection)
    view.setAccessibleName(_TITLE)
    view.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
    view.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
    view.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
    view.setTabKeyNavigation(False)
    view.setShowGrid(
        False
    )  # and rows of one colour: napari's themes have none for every other row, which is white then
    view.setWordWrap(False)
    view.setFixedHeight(_HEIGHT)
    view.setMinimumWidth(0)
    rows.hide()
    rows.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
    rows.setDefaultSectionSize(view.fontMetrics().height() + 4)
    header.setResizeContentsPrecision(_ROWS_FOR_WIDTH)
    header.setSectionsClickable(True)
    header.setHighlightSections(False)
    view.setSortingEnabled(True)
    view.sortByColumn(0, Qt.SortOrder.AscendingOrder)
    for corner in view.findChildren(QAbstractButton):
        corner.setToolTip("Choose all.")
    return view


class SizeField(QDoubleSpinBox):
    """A size that bounds; 0, for which the field is empty, does not."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.setAccessibleName(name)
        self.setRange(0, _LARGEST)
        self.setDecimals(6)
        self.setStepType(QDoubleSpinBox.StepType.AdaptiveDecimalStepType)
        self.setButtonSymbols(QDoubleSpinBox.ButtonSymbols.NoButtons)
        self.setKeyboardTracking(False)
        line = self.lineEdit()
        if line is not None:
            line.setPlaceholderText("any")
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)  # the range would ask for much room

    @override
    def textFromValue(self, value: float) -> str:
        return number_text(value) if value else ""

    @override
    def valueFromText(self, text: str | None) -> float:
        return super().valueFromText(text) if text else 0.0

    @override
    def validate(self, text: str | None, position: int) -> tuple[QValidator.State, str, int]:
        if not text:
            return QValidator.State.Acceptable, "", position
        state, typed, position = super().validate(text, position)
        return state, typed, position

    @override
    def wheelEvent(self, event: QWheelEvent | None) -> None:
        if event is not None:
            event.ignore()  # scrolling the dock must not filter objects
