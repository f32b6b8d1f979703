"""ShelfPanel: models that were kept, to start from one of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtWidgets import QLineEdit, QListWidget, QListWidgetItem, QPushButton
from typing_extensions import override

from napari_sparseseg.live.events import LiveState, LiveStatus
from napari_sparseseg.live.shelf import ShelfModel
from napari_sparseseg.widgets.controls import IconButton, Section, row
from napari_sparseseg.widgets.project_panel import when

_TIP = "Models that you kept, of any image: begin with what one of them knows of images, whatever its classes."
_START_TIP = "Begin anew with what this model knows of images; the classes stay yours, your paint is learnt."
_KEEP_TIP = "Keep what was learnt on this shelf, for other images."
_CHOOSE = "Choose a model in the list first."
_NO_IMAGE = "Open an image first."
_NO_MODEL = "Nothing has been learnt yet."
_LINES = 6  # of text in the list


class ShelfPanel(Section):
    """Says what the user wishes to do with kept models; it changes only by its `show_` methods."""

    list_requested = Signal()
    """The list is about to be looked at."""
    keep_requested = Signal(str)
    """Under this name, empty for one of the program's."""
    start_requested = Signal(object)
    """ShelfModel."""
    remove_requested = Signal(object)
    """ShelfModel."""

    def __init__(self) -> None:
        super().__init__("Shelf of models", _TIP)
        self._status = LiveStatus()
        self._list = _List()
        self._list.setAccessibleName("Models on the shelf")
        self._start, self._remove = QPushButton("Start from this model"), IconButton("remove", "Remove this model.")
        self._name, self._keep = QLineEdit(), QPushButton("Keep this model")
        self._name.setPlaceholderText("Name")
        self._name.setAccessibleName("Name of the model")
        self._name.setMinimumWidth(40)
        for layout in (row(self._start, None, self._remove), row(self._name, self._keep)):
            self.body.addLayout(layout)
        self.body.insertWidget(0, self._list)
        self._connect()
        self.show_models(())

    # --- what it shows ---

    def show_models(self, models: Sequence[ShelfModel]) -> None:
        """List these models; the one that is chosen stays chosen if it is still there."""
        chosen = self._chosen
        self._list.clear()
        for model in models:
            item = QListWidgetItem(f"{model.name}\n{_described(model)}")
            item.setToolTip(f"{model.path}\nClasses: {', '.join(model.classes)}")
            item.setData(Qt.ItemDataRole.UserRole, model)
            self._list.addItem(item)
            if chosen is not None and model.path == chosen.path:
                self._list.setCurrentItem(item)
        self._show_buttons()

    def show_status(self, status: LiveStatus) -> None:
        """Enable what can be done with what there is."""
        if (status.state, status.has_model) != (self._status.state, self._status.has_model):
            self._status = status
            self._show_buttons()

    def show_kept(self, path: Path) -> None:
        """The model was kept there."""
        self._name.clear()
        self._name.setToolTip(str(path))

    def _show_buttons(self) -> None:
        has_image = self._status.state is not LiveState.NO_IMAGE
        has_model, is_chosen = self._status.has_model, self._chosen is not None
        self._keep.setEnabled(has_model)
        self._keep.setToolTip(_KEEP_TIP if has_model else _NO_MODEL)
        self._start.setEnabled(has_image and is_chosen)
        self._start.setToolTip(_NO_IMAGE if not has_image else _START_TIP if is_chosen else _CHOOSE)
        self._remove.setEnabled(is_chosen)

    # --- wishes ---

    @property
    def _chosen(self) -> ShelfModel | None:
        item = self._list.currentItem()
        return None if item is None else item.data(Qt.ItemDataRole.UserRole)

    def _connect(self) -> None:
        self.toggled.connect(lambda unfolded: self.list_requested.emit() if unfolded else None)
        self._list.itemSelectionChanged.connect(self._show_buttons)
        self._keep.clicked.connect(lambda: self.keep_requested.emit(self._name.text().strip()))
        self._start.clicked.connect(lambda: self.start_requested.emit(self._chosen))
        self._remove.clicked.connect(lambda: self.remove_requested.emit(self._chosen))


class _List(QListWidget):
    """As high as a few models, as narrow as the dock; what does not fit is elided."""

    def __init__(self) -> None:
        super().__init__()
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setTextElideMode(Qt.TextElideMode.ElideRight)
        self.setUniformItemSizes(True)
        self.setFixedHeight(_LINES * self.fontMetrics().height() + 12)

    @override
    def sizeHint(self) -> QSize:
        return QSize(120, self.height())

    @override
    def minimumSizeHint(self) -> QSize:
        return QSize(60, self.height())


def _described(model: ShelfModel) -> str:
    dice = f"Dice ~{model.dice:.2f}" if model.dice is not None else "Dice not known"
    return " · ".join((dice, when(model.time), ", ".join(model.classes)))
