"""ResultPanel: what is done with the prediction: look at it, accept it, save it."""

from __future__ import annotations

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QGridLayout,
    QHBoxLayout,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_sparseseg.live.events import ClassInfo, LiveStatus, WholeState, WholeStatus
from napari_sparseseg.widgets.controls import SPACING, ElidedLabel, Section, equal_row
from napari_sparseseg.widgets.keys import OUTLINES_KEY, PREDICTION_KEY

_NOTHING_YET = "There is no prediction yet."
_ACCEPT_SLICE_TIP = "Copy the prediction of this slice into an ordinary Labels layer."
_ACCEPT_ALL_TIP = "Copy the whole prediction into an ordinary Labels layer."
_EXPORT_TIP = "Write the prediction to a file: OME-Zarr, TIFF, NIfTI, NRRD or NPY, by the end of its name."
_WHOLE_TIP = (
    "Predict all of the image into the project, however large it is, in the background, with the model as it is now. "
    "It can be stopped and goes on another day."
)
_GO_ON_TIP = "Go on where it was interrupted, with the model of then."
_SHOW_WHOLE_TIP = "Add a layer with all of the image as it was predicted into the project."
_SAVE_TIP = "Write what was learnt to a file, for other images or for tomorrow."
_LOAD_TIP = "Go on from a model that was saved before; its classes are added."


class ResultPanel(QWidget):
    """Says what the user wishes to do with the prediction; it changes only by its `show_` methods."""

    accept_slice_requested = Signal()
    accept_all_requested = Signal()
    prediction_toggled = Signal()
    """Show or hide the prediction."""
    outlines_toggled = Signal()
    probability_chosen = Signal(object)
    """Class id, or None for no probability."""
    uncertainty_toggled = Signal(bool)
    freshness_toggled = Signal(bool)
    class_layers_toggled = Signal(bool)
    ambiguity_toggled = Signal(bool)
    novelty_toggled = Signal(bool)
    save_model_requested = Signal()
    load_model_requested = Signal()
    export_requested = Signal()
    whole_requested = Signal()
    """Predict all of the image into the project."""
    go_on_requested = Signal()
    stop_requested = Signal()
    whole_shown = Signal()
    """Show what was predicted into the project."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._classes: tuple[ClassInfo, ...] = ()
        self._whole_state, self._has_model = WholeState.NONE, False
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(6)
        layout.addLayout(self._build_accept())
        layout.addLayout(self._build_whole())
        layout.addLayout(self._build_look())
        layout.addWidget(self._build_maps())
        layout.addLayout(self._build_files())
        self._connect()
        self.show_status(LiveStatus())
        self.show_whole(WholeStatus())

    # --- what it shows ---

    def show_status(self, status: LiveStatus) -> None:
        """Enable what can be done with what there is."""
        tips = (
            (self._accept_slice, _ACCEPT_SLICE_TIP),
            (self._accept_all, _ACCEPT_ALL_TIP),
            (self._export, _EXPORT_TIP),
            (self._save, _SAVE_TIP),
        )
        for button, tip in tips:
            if button.isEnabled() != status.has_model or not button.toolTip():
                button.setEnabled(status.has_model)
                button.setToolTip(tip if status.has_model else f"{tip} {_NOTHING_YET}")
        if status.has_model != self._has_model:
            self._has_model = status.has_model
            self._enable_whole()

    def show_whole(self, status: WholeStatus) -> None:
        """Show how far the prediction of all of the image has come, and offer what can be done with it."""
        self._whole_state = status.state
        is_running = status.state in (WholeState.RUNNING, WholeState.STOPPING)
        self._whole.setText("Stop" if is_running else "Predict all")
        self._go_on.setText(f"Go on ({status.share:.0%})")
        self._go_on.setVisible(status.state is WholeState.UNFINISHED)
        self._show_whole.setVisible(bool(status.paths))
        self._show_whole.setEnabled(not is_running)
        self._whole_text.setVisible(is_running or bool(status.text))
        self._whole_text.set_role("muted" if is_running else "error")
        self._whole_text.show_text(_progress_of(status) if is_running else status.text)
        self._enable_whole()

    def _enable_whole(self) -> None:
        is_running = self._whole_state is WholeState.RUNNING
        self._whole.setEnabled(is_running or (self._has_model and self._whole_state is not WholeState.STOPPING))
        tip = _WHOLE_TIP if self._has_model else f"{_WHOLE_TIP} {_NOTHING_YET}"
        self._whole.setToolTip("Stop; what is finished is kept." if is_running else tip)

    def show_classes(self, classes: tuple[ClassInfo, ...]) -> None:
        """Offer the probabilities of these classes; the one that is shown stays chosen."""
        if classes == self._classes:
            return
        self._classes = classes
        chosen = self._class.currentData()
        blocked = self._class.blockSignals(True)
        self._class.clear()
        for info in classes:
            self._class.addItem(info.name, info.class_id)
        self._class.setCurrentIndex(max(self._default_index(), self._class.findData(chosen)))
        self._class.blockSignals(blocked)
        if self._probability.isChecked() and self._class.currentData() != chosen:
            self._emit_probability()

    def show_overlapping(self, overlapping: bool) -> None:
        """Offer a layer for each class where they may overlap."""
        self._class_layers.setVisible(overlapping or self._class_layers.isChecked())

    def show_maps(
        self,
        *,
        probability: int | None,
        uncertainty: bool,
        ambiguity: bool,
        novelty: bool,
        freshness: bool,
        class_layers: bool,
    ) -> None:
        """Show which of the extra layers there are; emits nothing."""
        self._probability.setChecked(probability is not None)
        if probability is not None:
            self._class.setCurrentIndex(self._class.findData(probability))
        self._class.setEnabled(probability is not None)
        self._uncertainty.setChecked(uncertainty)
        self._freshness.setChecked(freshness)
        self._class_layers.setChecked(class_layers)
        self._ambiguity.setChecked(ambiguity)
        self._novelty.setChecked(novelty)

    # --- building ---

    def _build_accept(self) -> QHBoxLayout:
        self._accept_slice, self._accept_all = QPushButton("Accept slice"), QPushButton("Accept all")
        return equal_row(self._accept_slice, self._accept_all)

    def _build_whole(self) -> QVBoxLayout:
        self._whole, self._go_on = QPushButton("Predict all"), QPushButton("Go on")
        self._show_whole = QPushButton("Show all")
        self._go_on.setToolTip(_GO_ON_TIP)
        self._show_whole.setToolTip(_SHOW_WHOLE_TIP)
        self._whole_text = ElidedLabel(role="muted")
        column = QVBoxLayout()
        column.setSpacing(SPACING)
        column.addLayout(equal_row(self._whole, self._go_on, self._show_whole))
        column.addWidget(self._whole_text)
        return column

    def _build_look(self) -> QHBoxLayout:
        self._hide, self._outlines = QPushButton("Show / hide"), QPushButton("Outlines")
        self._hide.setToolTip(f"Hide the prediction, or show it again ({PREDICTION_KEY} on the canvas).")
        self._outlines.setToolTip(f"Draw outlines instead of areas, and back ({OUTLINES_KEY} on the canvas).")
        return equal_row(self._hide, self._outlines)

    def _build_maps(self) -> QWidget:
        section = Section(
            "More to see", "Extra layers: probability, uncertainty, what else it may be, what is new, what is fresh."
        )
        self._probability, self._uncertainty = QCheckBox("Probability of"), QCheckBox("Uncertainty")
        self._freshness = QCheckBox("Fresh and stale tiles")
        self._ambiguity, self._novelty = QCheckBox("Ambiguity"), QCheckBox("Novelty")
        self._class = QComboBox()
        self._class.setEnabled(False)
        self._class.setAccessibleName("Class of the probability")
        self._class.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        for widget in (self._probability, self._class):
            widget.setToolTip("An image layer with the predicted probability of a class.")
        self._uncertainty.setToolTip("An image layer that is bright where the network cannot decide: paint there.")
        self._freshness.setToolTip("A layer that tells which tiles show your latest paint and which are older.")
        self._class_layers = QCheckBox("A layer for each class")
        self._class_layers.setToolTip(
            "Classes may overlap: shows where each of them is. Paint there to say that it is there, erase to say that "
            "it is not."
        )
        self._class_layers.hide()
        self._ambiguity.setToolTip(
            "A layer with the colour of what else a voxel may be, where two classes come into question. Both are named "
            "at the bottom of the window, under the cursor."
        )
        self._novelty.setToolTip(
            "An image layer that is bright where nothing like it was painted: debris, other tissue."
        )
        grid = QGridLayout()
        grid.setColumnStretch(1, 1)
        grid.addWidget(self._probability, 0, 0)
        grid.addWidget(self._class, 0, 1)
        grid.addWidget(self._uncertainty, 1, 0, 1, 2)
        grid.addWidget(self._ambiguity, 2, 0, 1, 2)
        grid.addWidget(self._novelty, 3, 0, 1, 2)
        grid.addWidget(self._freshness, 4, 0, 1, 2)
        grid.addWidget(self._class_layers, 5, 0, 1, 2)
        section.body.addLayout(grid)
        return section

    def _build_files(self) -> QHBoxLayout:
        self._export = QPushButton("Export…")
        self._save, self._load = QPushButton("Save model…"), QPushButton("Load model…")
        self._load.setToolTip(_LOAD_TIP)
        self._export.setAccessibleName("Export labels")
        return equal_row(self._export, self._save, self._load)

    def _connect(self) -> None:
        for button, signal in (
            (self._accept_slice, self.accept_slice_requested),
            (self._accept_all, self.accept_all_requested),
            (self._hide, self.prediction_toggled),
            (self._outlines, self.outlines_toggled),
            (self._export, self.export_requested),
            (self._save, self.save_model_requested),
            (self._load, self.load_model_requested),
            (self._go_on, self.go_on_requested),
            (self._show_whole, self.whole_shown),
        ):
            button.clicked.connect(lambda _=False, signal=signal: signal.emit())
        self._whole.clicked.connect(self._on_whole_clicked)
        self._probability.clicked.connect(self._on_probability_clicked)
        self._class.activated.connect(lambda _: self._emit_probability())
        self._uncertainty.clicked.connect(lambda wished: self.uncertainty_toggled.emit(wished))
        self._freshness.clicked.connect(lambda wished: self.freshness_toggled.emit(wished))
        self._class_layers.clicked.connect(lambda wished: self.class_layers_toggled.emit(wished))
        self._ambiguity.clicked.connect(lambda wished: self.ambiguity_toggled.emit(wished))
        self._novelty.clicked.connect(lambda wished: self.novelty_toggled.emit(wished))

    # --- wishes ---

    def _on_whole_clicked(self) -> None:
        (self.stop_requested if self._whole_state is WholeState.RUNNING else self.whole_requested).emit()

    def _on_probability_clicked(self, wished: bool) -> None:
        self._class.setEnabled(wished)
        self._emit_probability()

    def _emit_probability(self) -> None:
        self.probability_chosen.emit(self._class.currentData() if self._probability.isChecked() else None)

    def _default_index(self) -> int:
        """The first class that is not the background: what people look for."""
        return next((i for i, info in enumerate(self._classes) if not info.is_background), 0)


def _progress_of(status: WholeStatus) -> str:
    if status.state is WholeState.STOPPING:
        return "Stopping"
    return (
        f"Predicting all: {status.share:.0%}, {status.text}" if status.text else f"Predicting all: {status.share:.0%}"
    )
