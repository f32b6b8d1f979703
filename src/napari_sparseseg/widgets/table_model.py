"""ObjectTableModel: rows of measured objects for Qt, sorted and picked out as whole columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import QAbstractTableModel, QModelIndex, Qt
from typing_extensions import override

from napari_sparseseg._types import NO_OBJECT
from napari_sparseseg.live.events import ObjectTable

_RIGHT = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
_LEFT = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
_LARGE = 10_000
_POWERS = {"volume": "³", "area": "²", "surface": "²", "perimeter": "", "z": "", "y": "", "x": ""}
_TIPS = {
    "id": "Number of the object in the layer.",
    "class": "The class of most of its voxels.",
    "volume": "Its volume.",
    "area": "Its area.",
    "surface": "Its surface, estimated; the edge of the image is none.",
    "perimeter": "Its perimeter, estimated; the edge of the image is none.",
    "z": "Its centre along z; the centre of the first voxel is 0.",
    "y": "Its centre along y; the centre of the first voxel is 0.",
    "x": "Its centre along x; the centre of the first voxel is 0.",
}


@dataclass(frozen=True, slots=True)
class Column:
    """One measure: its name, heading, tooltip and values; `names` has texts for values that are numbers of classes."""

    name: str
    heading: str
    tip: str
    values: npt.NDArray[Any]
    names: Mapping[int, str] | None = None

    def text(self, row: int) -> str:
        """What stands in a cell."""
        value = self.values[row]
        return cell_text(value) if self.names is None else self.names.get(int(value), "?")

    def order(self, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        """These rows, ascending; equal ones as they were."""
        values = self.values[rows]
        if self.names is not None:
            values = np.array([self.names.get(int(value), "") for value in values.tolist()], dtype=np.str_)
        return rows[np.argsort(values, kind="stable")]


def cell_text(value: float) -> str:
    """A number as people read it: four digits, or all before the point."""
    if isinstance(value, int | np.integer):
        return str(value)
    return f"{value:.0f}" if abs(value) >= _LARGE else f"{value:.4g}"


def columns_of(table: ObjectTable, unit: str, class_names: Mapping[int, str]) -> list[Column]:
    """What is shown of a table; `unit` is the symbol of the unit of length, "" for voxels."""
    means = [name for name in table.rows if name.startswith("mean_")]
    columns = []
    for name in ("id", "class", *(name for name in _POWERS if name in table.rows), *means):
        values = table.rows[name].to_numpy()
        heading, tip = name, _TIPS.get(name, "")
        if unit and name in _POWERS:
            heading, tip = f"{name}\n{unit}{_POWERS[name]}", f"{tip[:-1]}, in {unit}{_POWERS[name]}."
        elif name in means:
            heading = "mean" if len(means) == 1 else name.replace("_", " ")
            tip = "Its mean intensity." if len(means) == 1 else f"Its mean intensity in channel {name[5:]}."
        columns.append(Column(name, heading, tip, values, class_names if name == "class" else None))
    return columns


class ObjectTableModel(QAbstractTableModel):
    """Objects of a table, those that pass only; a sort is a sort of numpy's, so thousands are no matter."""

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self.columns: list[Column] = []
        self._rows = np.zeros(0, np.intp)
        self._sorted_by, self._order = 0, Qt.SortOrder.AscendingOrder

    def show(self, columns: list[Column], passing: npt.NDArray[np.bool_]) -> None:
        """Show other values, sorted as before."""
        self.beginResetModel()
        self.columns = columns
        self._rows = np.flatnonzero(passing)
        self._sort()
        self.endResetModel()

    def object_at(self, row: int) -> int:
        """The id of the object in a row."""
        return int(self.columns[0].values[self._rows[row]])

    def row_of(self, object_id: int) -> int | None:
        """The row of an object; None if there is none."""
        if object_id == NO_OBJECT or not self.columns:
            return None
        found = np.flatnonzero(self.columns[0].values[self._rows] == object_id)
        return int(found[0]) if len(found) else None

    @override
    def rowCount(self, parent: Any = QModelIndex()) -> int:  # noqa: B008 - Qt's own signature
        return 0 if parent.isValid() else len(self._rows)

    @override
    def columnCount(self, parent: Any = QModelIndex()) -> int:  # noqa: B008
        return 0 if parent.isValid() else len(self.columns)

    @override
    def data(self, index: Any, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        column = self.columns[index.column()]
        if role == Qt.ItemDataRole.DisplayRole:
            return column.text(int(self._rows[index.row()]))
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return _RIGHT if column.names is None else _LEFT
        return None

    @override
    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if orientation != Qt.Orientation.Horizontal or section >= len(self.columns):
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            return self.columns[section].heading
        if role == Qt.ItemDataRole.ToolTipRole:
            return f"{self.columns[section].tip} Click to sort."
        return None

    @override
    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        self._sorted_by, self._order = column, order
        self.layoutAboutToBeChanged.emit()
        self._sort()
        self.layoutChanged.emit()

    def _sort(self) -> None:
        rows = np.sort(self._rows)
        if 0 <= self._sorted_by < len(self.columns):
            rows = self.columns[self._sorted_by].order(rows)
        self._rows = rows if self._order == Qt.SortOrder.AscendingOrder else rows[::-1].copy()
