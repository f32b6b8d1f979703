"""PaintPanel: the switch between painting and correcting, the brush, and the slices that were painted."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtWidgets import (
    QButtonGroup,
    QCheckBox,
    QHBoxLayout,
    QListWidget,
    QListWidgetItem,
    QPushButton,
    QSizePolicy,
    QSlider,
    QVBoxLayout,
    QWidget,
)

from napari_sparseseg._types import Plane
from napari_sparseseg.live.events import PaintedSlice
from napari_sparseseg.widgets.controls import SPACING, ElidedLabel, IconButton, Section, caption, count_text, row

MAX_BRUSH = 60
"""The slider's end; a larger brush chosen in napari moves it."""
_ROW_HEIGHT = 20
_MAX_ROWS = 6
_HINTS = {
    "paint": "Paint a little of every class (keys 1 to 9).",
    "correct": "Paint over mistakes; erase for “not this”.",
}
_HINT_IN_3D = "Painting works in 2D; leave the 3D view first."
_HINT_READ_ONLY = "Read-only; to paint: Project > Save as…"
_READ_ONLY_TIP = (
    "Nothing that is painted could be kept: the project cannot be written to. Project > Save as… makes a copy of it, "
    "and goes on there."
)
_CORRECT_TIP = "Paint over mistakes of the prediction: each stroke is kept, and learnt."
_NEXT_TIP = (
    "Go to the slice that is worth painting next, in the orientation on screen; a ring shows where the network is "
    "least sure. Settings > Prediction says how it is chosen."
)
_ONLY_SLICE_TIP = "This is a single slice, so there is no other one to paint next."
_COMPLETE_TIP = "Everything on this slice that you left unpainted is background. Can be taken back."
_COMPLETE_TIP_IN_3D = "No slice is on screen in 3D; leave the 3D view first."


class PaintPanel(QWidget):
    """Says what the user wishes to paint with; it changes only by its `show_` methods."""

    mode_chosen = Signal(str)
    """Either "paint" (on the annotation) or "correct" (on the prediction)."""
    brush_resized = Signal(int)
    complete_toggled = Signal(bool)
    slice_chosen = Signal(object)
    """The `Plane` to go to."""
    suggestion_requested = Signal()
    """Where to paint next is asked for."""
    undo_requested = Signal()
    redo_requested = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._slices: tuple[PaintedSlice, ...] = ()
        self._axes: tuple[str, ...] = ("z", "y", "x")
        self._is_time_series = False
        self._plane: Plane | None = None
        self._mode = "paint"
        self._is_complete, self._can_complete, self._complete_reason = False, True, ""
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(SPACING)
        layout.addLayout(self._build_switch())
        layout.addWidget(self._build_hint())
        layout.addLayout(self._build_brush())
        layout.addLayout(self._build_complete())
        layout.addWidget(self._build_slices())
        self._connect()
        self._is_in_3d = self._is_read_only = self._is_only_slice = False
        self.show_mode("paint")
        self.show_brush(10)
        self.show_advising(False)

    # --- what it shows ---

    def show_mode(self, mode: str) -> None:
        """Show "paint" or "correct"."""
        self._mode = mode
        button = self._correct if mode == "correct" else self._paint
        if not button.isChecked():
            button.setChecked(True)
        if self._is_read_only:
            self._hint.show_text(_HINT_READ_ONLY, _READ_ONLY_TIP)
        else:
            self._hint.show_text(_HINT_IN_3D if self._is_in_3d else _HINTS[mode])

    def show_in_3d(self, is_in_3d: bool) -> None:
        """Whether the view is in 3D, where nothing can be painted."""
        self._is_in_3d = is_in_3d
        self.show_mode(self._mode)
        self._show_complete_enabled()

    def show_read_only(self, is_read_only: bool) -> None:
        """Whether the project can be looked at only, so that nothing can be painted."""
        self._is_read_only = is_read_only
        self.show_mode(self._mode)

    def show_correct_enabled(self, enabled: bool, reason: str = "") -> None:
        """Whether there is a prediction to correct, and if not, why."""
        self._correct.setEnabled(enabled)
        self._correct.setToolTip(_CORRECT_TIP if enabled else reason)

    def show_brush(self, size: int) -> None:
        """Show the brush size of napari's layer."""
        blocked = self._brush.blockSignals(True)
        self._brush.setMaximum(max(MAX_BRUSH, size))
        self._brush.setValue(size)
        self._brush.blockSignals(blocked)
        self._size.setText(str(size))

    def show_complete(self, complete: bool, enabled: bool = True, reason: str = "") -> None:
        """Show whether the slice on screen is complete, or why that cannot be said."""
        self._is_complete, self._can_complete, self._complete_reason = complete, enabled, reason
        self._complete.setChecked(complete)
        self._show_complete_enabled()

    def _show_complete_enabled(self) -> None:
        self._complete.setEnabled(self._can_complete and not self._is_in_3d)
        self._complete.setToolTip(self._complete_reason or (_COMPLETE_TIP_IN_3D if self._is_in_3d else _COMPLETE_TIP))

    def show_undo(self, can_undo: bool, can_redo: bool) -> None:
        """Enable the two buttons."""
        self._undo.setEnabled(can_undo)
        self._redo.setEnabled(can_redo)

    def show_advising(self, is_advising: bool) -> None:
        """Whether the slice to paint next is being looked for."""
        self._is_advising = is_advising
        self._show_next_enabled()

    def show_only_slice(self, is_only: bool) -> None:
        """Whether the image has no other slice of the orientation on screen."""
        self._is_only_slice = is_only
        self._show_next_enabled()

    def _show_next_enabled(self) -> None:
        self._next.setEnabled(not (self._is_advising or self._is_only_slice))
        self._next.setToolTip(_ONLY_SLICE_TIP if self._is_only_slice else _NEXT_TIP)

    def show_slices(
        self,
        slices: tuple[PaintedSlice, ...],
        *,
        is_time_series: bool = False,
        axis_labels: Sequence[str] = ("z", "y", "x"),
    ) -> None:
        """List the painted slices; `axis_labels` name z, y, x; the time point shows in a time series only."""
        wanted = (slices, is_time_series, tuple(axis_labels))
        if wanted == (self._slices, self._is_time_series, self._axes):
            return
        same_planes = [s.plane for s in slices] == [s.plane for s in self._slices]
        self._slices, self._is_time_series, self._axes = wanted
        self._section.show_title(f"Painted slices ({len(slices)})" if slices else "Painted slices")
        if same_planes:
            for index, painted in enumerate(slices):
                self._fill_item(self._list.item(index), painted)
        else:
            self._rebuild_list()

    def show_plane(self, plane: Plane | None) -> None:
        """Mark the slice on screen in the list."""
        if plane != self._plane:
            self._plane = plane
            self._mark_plane()

    # --- building ---

    def _build_switch(self) -> QHBoxLayout:
        self._paint, self._correct = QPushButton("Paint"), QPushButton("Correct")
        self._paint.setToolTip("Paint examples of the classes on the image.")
        self._correct.setToolTip(_CORRECT_TIP)
        self._modes = QButtonGroup(self)
        for button, shape in ((self._paint, "left"), (self._correct, "right")):
            button.setCheckable(True)
            button.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
            button.setFixedHeight(28)
            other = "right" if shape == "left" else "left"
            button.setStyleSheet(f"border-top-{other}-radius: 0px; border-bottom-{other}-radius: 0px;")
            self._modes.addButton(button)
        return row(self._paint, self._correct, spacing=1)

    def _build_hint(self) -> QWidget:
        self._hint = ElidedLabel(role="muted")
        return self._hint

    def _build_brush(self) -> QHBoxLayout:
        tip = "Diameter of the brush; [ and ] change it on the canvas."
        self._brush = QSlider(Qt.Orientation.Horizontal)
        self._brush.setRange(1, MAX_BRUSH)
        self._brush.setToolTip(tip)
        self._brush.setAccessibleName("Brush size")
        self._size = caption("", tip)
        self._size.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self._size.setFixedWidth(28)
        label = caption("Brush", tip)
        label.setBuddy(self._brush)
        return row(label, self._brush, self._size)

    def _build_complete(self) -> QHBoxLayout:
        self._complete = QCheckBox("This slice is complete")
        self._complete.setToolTip(_COMPLETE_TIP)
        self._undo = IconButton("undo", "Undo the last stroke, on whichever layer it was made (Ctrl+Z)")
        self._redo = IconButton("redo", "Redo (Ctrl+Shift+Z)")
        return row(self._complete, None, self._undo, self._redo, spacing=2)

    def _build_slices(self) -> QWidget:
        self._next = QPushButton("Where next?")
        self._next.setToolTip(_NEXT_TIP)
        self._next.setFixedHeight(22)
        tip = "Where you have painted; a click goes there."
        self._section = Section("Painted slices", tip, beside=self._next)
        self._list = QListWidget()
        self._list.setToolTip("Click or press Enter to go to the slice.")
        self._list.setAccessibleName("Painted slices")
        self._list.setUniformItemSizes(True)
        self._list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._section.body.addWidget(self._list)
        self._rebuild_list()
        return self._section

    def _connect(self) -> None:
        self._modes.buttonClicked.connect(self._on_mode_clicked)
        self._brush.valueChanged.connect(self._on_brush_changed)
        self._complete.clicked.connect(self._on_complete_clicked)
        self._next.clicked.connect(lambda: self.suggestion_requested.emit())
        self._undo.clicked.connect(lambda: self.undo_requested.emit())
        self._redo.clicked.connect(lambda: self.redo_requested.emit())
        self._list.itemClicked.connect(self._on_slice_chosen)
        self._list.itemActivated.connect(self._on_slice_chosen)

    # --- the list ---

    def _rebuild_list(self) -> None:
        self._list.clear()
        for painted in self._slices:
            item = QListWidgetItem()
            item.setSizeHint(QSize(0, _ROW_HEIGHT))
            self._fill_item(item, painted)
            self._list.addItem(item)
        self._list.setFixedHeight(min(max(len(self._slices), 1), _MAX_ROWS) * _ROW_HEIGHT + 4)
        self._mark_plane()

    def _fill_item(self, item: QListWidgetItem | None, painted: PaintedSlice) -> None:
        if item is None:
            return
        item.setText(slice_text(painted, self._axes, with_frame=self._is_time_series))

    def _mark_plane(self) -> None:
        planes = [s.plane for s in self._slices]
        index = planes.index(self._plane) if self._plane in planes else -1
        if index != self._list.currentRow():
            blocked = self._list.blockSignals(True)
            self._list.setCurrentRow(index)
            self._list.blockSignals(blocked)

    # --- wishes ---

    def _on_mode_clicked(self) -> None:
        wished = "correct" if self._correct.isChecked() else "paint"
        self.show_mode(self._mode)  # it changes when the layer has
        self.mode_chosen.emit(wished)

    def _on_brush_changed(self, size: int) -> None:
        self._size.setText(str(size))
        self.brush_resized.emit(size)

    def _on_complete_clicked(self, wished: bool) -> None:
        self._complete.setChecked(self._is_complete)  # it changes when the slice has
        self.complete_toggled.emit(wished)

    def _on_slice_chosen(self, item: QListWidgetItem) -> None:
        self.slice_chosen.emit(self._slices[self._list.row(item)].plane)


def slice_text(painted: PaintedSlice, axis_labels: Sequence[str] = ("z", "y", "x"), *, with_frame: bool = False) -> str:
    """One line about a painted slice: z 24 · 1 532 voxels · ✓ complete."""
    plane = painted.plane
    parts = [f"t {plane.frame}"] if with_frame else []
    noun = "voxel" if painted.n_voxels == 1 else "voxels"
    parts += [f"{axis_labels[plane.axis]} {plane.index}", f"{count_text(painted.n_voxels)} {noun}"]
    return " · ".join([*parts, "✓ complete"] if painted.is_complete else parts)
