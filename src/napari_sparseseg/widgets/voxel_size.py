"""How large a voxel is, said by the user: napari's readers often do not, though the file may."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from qtpy.QtWidgets import QComboBox, QDialog, QDialogButtonBox, QFormLayout, QLabel, QLineEdit, QVBoxLayout, QWidget

from napari_sparseseg.storage._arrays import is_length
from napari_sparseseg.widgets.files import file_of
from napari_sparseseg.widgets.sources import spatial_shape

UNITS = {"µm": "micrometer", "nm": "nanometer", "mm": "millimeter"}
_TITLES = {"Z": "Distance of slices (z)", "Y": "Height of a pixel (y)", "X": "Width of a pixel (x)"}


@dataclass(frozen=True, slots=True)
class VoxelSize:
    """Lengths along the spatial axes, by letter in their order, as far as they are known, and their unit's name."""

    lengths: Mapping[str, float]
    unit: str
    is_of_file: bool = False


def known_size(layer: Any) -> VoxelSize | None:
    """What an Image layer says of its voxels, or else the file that it was opened from; None if neither tells it."""
    letters = _letters(layer)
    scale, unit = np.abs(layer.scale[-len(letters) :]), str(layer.units[-1])
    if unit in UNITS.values():
        return VoxelSize(dict(zip(letters, scale.tolist(), strict=True)), unit)
    return _size_in_file(layer)


def set_voxel_size(layers: Sequence[Any], size: VoxelSize) -> None:
    """Give layers of one image the scale and unit of their voxels; the first voxel stays where it is."""
    lengths = list(size.lengths.values())
    for layer in layers:
        scale, units = np.array(layer.scale, float), list(layer.units)
        scale[-len(lengths) :] = np.copysign(lengths, scale[-len(lengths) :])
        units[-len(lengths) :] = [size.unit] * len(lengths)
        layer.scale, layer.units = scale, units


class VoxelSizeDialog(QDialog):
    """Asks for the length of a voxel along each spatial axis of a layer; shows what is known of it."""

    def __init__(self, layer: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("Voxel size")
        known = known_size(layer)
        layout = QVBoxLayout(self)
        layout.addWidget(QLabel(f"How large is a voxel of “{layer.name}”?"))
        self._fields = {letter: QLineEdit() for letter in _letters(layer)}
        form = QFormLayout()
        for letter, field in self._fields.items():
            field.setPlaceholderText("not known")
            field.textChanged.connect(self._update)
            form.addRow(_TITLES[letter], field)
        self._unit = QComboBox()
        self._unit.addItems(list(UNITS))
        form.addRow("Unit", self._unit)
        layout.addLayout(form)
        self._note = QLabel()
        self._note.setWordWrap(True)
        layout.addWidget(self._note)
        self._buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Ok | QDialogButtonBox.StandardButton.Cancel)
        self._buttons.accepted.connect(self.accept)
        self._buttons.rejected.connect(self.reject)
        layout.addWidget(self._buttons)
        self._is_of_file = known is not None and known.is_of_file
        if known is not None:
            self._show(known)
        self._update()

    @property
    def size_typed(self) -> VoxelSize | None:
        """What the fields say; None unless all of them hold a length."""
        lengths = {letter: _length(field.text()) for letter, field in self._fields.items()}
        found = {letter: length for letter, length in lengths.items() if length is not None}
        return VoxelSize(found, UNITS[self._unit.currentText()]) if len(found) == len(lengths) else None

    def _show(self, size: VoxelSize) -> None:
        for letter, length in size.lengths.items():
            self._fields[letter].setText(f"{length:.6g}")
        self._unit.setCurrentText(next(symbol for symbol, name in UNITS.items() if name == size.unit))

    def _update(self) -> None:
        wrong = [field.text() for field in self._fields.values() if field.text() and _length(field.text()) is None]
        if wrong:
            self._note.setText(f"“{wrong[0]}” is no length; type a number above 0, such as 0.5.")
        elif self._is_of_file:
            self._note.setText("The file says so; napari's reader does not pass it on.")
        else:
            self._note.setText("Thick slices that are taken for cubes are learnt badly.")
        ok = self._buttons.button(QDialogButtonBox.StandardButton.Ok)
        assert ok is not None  # noqa: S101 - it was asked for
        ok.setEnabled(self.size_typed is not None)


def _letters(layer: Any) -> str:
    return "ZYX"[-len(spatial_shape(layer)) :]


def _length(text: str) -> float | None:
    """A length above 0, with a point or a comma; None for anything else."""
    try:
        length = float(text.strip().replace(",", "."))
    except ValueError:
        return None
    return length if is_length(length) else None


def _size_in_file(layer: Any) -> VoxelSize | None:
    """What the file says that a layer was opened from; some lengths may be missing."""
    file = file_of(layer)
    if file is None or file.unit is None or file.unit not in UNITS.values():
        return None
    return VoxelSize(file.known_spacing, file.unit, is_of_file=True) if file.known_spacing else None
