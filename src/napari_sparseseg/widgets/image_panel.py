"""ImagePanel: which image is learnt from."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from napari.layers import Image
from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtWidgets import (
    QComboBox,
    QHBoxLayout,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_sparseseg.errors import InputError
from napari_sparseseg.widgets.controls import ElidedLabel, MessageLabel, Section, row
from napari_sparseseg.widgets.scale_section import ScaleSection, chosen_source, size_text
from napari_sparseseg.widgets.sources import ImageSource, unwrapped
from napari_sparseseg.widgets.voxel_size import VoxelSizeDialog, set_voxel_size

LARGEST_AT_ONCE = 1_000_000_000
"""Voxels of an image, all time points counted, beyond which it is not opened without being asked for."""

_ROW_HEIGHT = 22
_MAX_ROWS = 5
_UNKNOWN_TIP = (
    "The layer does not say how large a voxel is, so cubes are assumed. If they are not, press Voxel size… before you "
    "paint."
)
_LAYER_EVENTS = ("data", "scale", "translate", "affine", "rotate", "shear", "units")
_Key = tuple[Any, ...]


class ImagePanel(QWidget):
    """Offers the Image layers of a viewer, and shows which image is in use.

    `seconds_of` estimates the time to predict a number of voxels. `is_own` tells the layers that the plugin made.
    """

    source_chosen = Signal(object)
    """The `ImageSource` that the user wishes to work on."""
    image_appeared = Signal()
    """There are other image layers than before, and none is in use."""

    def __init__(
        self,
        viewer: Any,
        seconds_of: Callable[[int], float],
        *,
        is_own: Callable[[Any], bool] = lambda _: False,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._is_own = is_own
        self._source: ImageSource | None = None
        self._used: _Key | None = None
        self._is_users_choice = False
        self._watched: list[Any] = []
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(6)
        layout.addLayout(self._build_choice())
        layout.addWidget(self._build_facts())
        layout.addWidget(self._build_problem())
        layout.addWidget(self._build_channels())
        self._scale = ScaleSection(viewer, seconds_of)
        layout.addWidget(self._scale)
        layout.addWidget(self._build_use())
        self._connect()
        self.refresh()

    # --- what it shows ---

    def show_source(self, source: ImageSource | None) -> None:
        """Show the image that is in use, None for none."""
        self._source = source
        self._used = None
        if source is not None:
            layers = [layer for layer in self._images() if source.is_of(layer)]
            self._check([layer.name for layer in layers])
            if layers:
                self._images_box.setCurrentText(layers[0].name)
                self._scale.show_layer(layers[0])
                self._scale.show_choice(source)
                self._used = _key(layers, source)
        self._update()

    def refresh(self) -> None:
        """Offer the layers that there are now; the choice stays as far as its layers do."""
        chosen, checked = self._images_box.currentData(), self._checked_ids()
        layers = self._images()
        self._watch(layers)
        self._fill(layers)
        self._images_box.setCurrentIndex(self._preferred(layers, self._images_box.findData(chosen)))
        still_there = [layer.name for layer in layers if _identity(layer) in checked]
        if chosen is not None and self._images_box.currentData() == chosen:
            self._check(still_there)
            self._scale.show_regions()
        else:
            self._on_image_changed()
        self._update()
        if layers and self._source is None:
            self.image_appeared.emit()

    def wished_source(self) -> ImageSource:
        """The image that is chosen in the panel, in use or not; raises `InputError` if it cannot be used."""
        return chosen_source(self._chosen_layers(), self._scale)

    @property
    def is_large(self) -> bool:
        """Whether the chosen image is too large to be opened without being asked for."""
        layers = self._chosen_layers()
        return bool(layers) and _n_voxels(layers[0]) > LARGEST_AT_ONCE

    def close_events(self) -> None:
        """Listen to the viewer no longer."""
        for emitter in self._layer_list_events():
            emitter.disconnect(self._on_layers_changed)
        self._watch([])

    # --- building ---

    def _build_choice(self) -> QHBoxLayout:
        self._images_box = QComboBox()
        self._images_box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self._images_box.setToolTip("The image to learn from.")
        self._images_box.setAccessibleName("Image")
        label = QLabel("Image")
        label.setBuddy(self._images_box)
        label.setToolTip(self._images_box.toolTip())
        layout = row(label, self._images_box)
        layout.setStretch(1, 1)
        return layout

    def _build_facts(self) -> QWidget:
        self._facts = ElidedLabel(role="muted")
        self._voxel_size = QPushButton("Voxel size…")
        self._voxel_size.setAccessibleName("Voxel size")
        self._voxel_size.setSizePolicy(QSizePolicy.Policy.Maximum, QSizePolicy.Policy.Fixed)
        self._voxel_size.setToolTip(
            "Voxel size: how large a voxel is, in all directions. It decides what the network sees of thick slices, "
            "and how large objects are. Paint of before stays in a project of its own."
        )
        self._voxel_size.clicked.connect(self._on_voxel_size_clicked)
        facts = QWidget()
        facts.setLayout(row(self._facts, self._voxel_size))
        return facts

    def _build_problem(self) -> QWidget:
        self._problem = MessageLabel(role="error")
        self._problem.hide()
        return self._problem

    def _build_channels(self) -> QWidget:
        self._channels = Section(
            "Several layers as channels", "Tick all layers that show the same object, one dye each."
        )
        self._list = QListWidget()
        self._list.setToolTip("Ticked layers are the channels of one image; they need the same shape.")
        self._list.setAccessibleName("Channels")
        self._list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._channels.body.addWidget(self._list)
        return self._channels

    def _build_use(self) -> QWidget:
        self._use = QPushButton("Use")
        self._use.setFixedHeight(28)
        self._use.setToolTip("Work on the image as it is chosen above.")
        return self._use

    def _connect(self) -> None:
        self._images_box.activated.connect(lambda _: self._on_image_activated())
        self._list.itemChanged.connect(lambda _: self._update())
        self._scale.chosen.connect(self._update)
        self._scale.failed.connect(self._show_problem)
        self._use.clicked.connect(self._on_use_clicked)
        for emitter in self._layer_list_events():
            emitter.connect(self._on_layers_changed)

    def _layer_list_events(self) -> list[Any]:
        events = self._viewer.layers.events
        # a layer is selected after it has been inserted
        return [
            events.inserted,
            events.removed,
            events.renamed,
            events.reordered,
            self._viewer.layers.selection.events.active,
        ]

    # --- layers ---

    def _images(self) -> list[Any]:
        return [layer for layer in self._viewer.layers if isinstance(layer, Image) and not self._is_own(layer)]

    def _preferred(self, layers: list[Any], chosen: int) -> int:
        """What was chosen before, if that was the user's wish; else the selected image, else the topmost."""
        if chosen >= 0 and (self._source is not None or self._is_users_choice):
            return chosen
        active = _identity(self._viewer.layers.selection.active)
        ids = [_identity(layer) for layer in layers]
        if active in ids:
            return ids.index(active)
        return chosen if chosen >= 0 else len(layers) - 1

    def _fill(self, layers: list[Any]) -> None:
        for control in (self._images_box, self._list):
            control.blockSignals(True)
            control.clear()
        for layer in layers:
            self._images_box.addItem(layer.name, _identity(layer))
            item = QListWidgetItem(layer.name)
            item.setData(Qt.ItemDataRole.UserRole, _identity(layer))
            item.setCheckState(Qt.CheckState.Unchecked)
            item.setSizeHint(QSize(0, _ROW_HEIGHT))
            self._list.addItem(item)
        for control in (self._images_box, self._list):
            control.blockSignals(False)
        self._list.setFixedHeight(min(max(len(layers), 1), _MAX_ROWS) * _ROW_HEIGHT + 4)
        self._channels.setVisible(len(layers) > 1)
        self._images_box.setEnabled(bool(layers))

    def _watch(self, layers: list[Any]) -> None:
        for layer, name in ((layer, name) for layer in self._watched for name in _LAYER_EVENTS):
            getattr(layer.events, name).disconnect(self._on_layer_changed)
        self._watched = layers
        for layer, name in ((layer, name) for layer in layers for name in _LAYER_EVENTS):
            getattr(layer.events, name).connect(self._on_layer_changed)

    def _items(self) -> list[QListWidgetItem]:
        return [item for i in range(self._list.count()) if (item := self._list.item(i)) is not None]

    def _checked_ids(self) -> set[str]:
        return {
            item.data(Qt.ItemDataRole.UserRole) for item in self._items() if item.checkState() == Qt.CheckState.Checked
        }

    def _check(self, names: list[str]) -> None:
        self._list.blockSignals(True)
        for item in self._items():
            item.setCheckState(Qt.CheckState.Checked if item.text() in names else Qt.CheckState.Unchecked)
        self._list.blockSignals(False)

    def _chosen_layers(self) -> list[Any]:
        """The ticked layers if there are several, else the one in the box."""
        ticked, current = self._checked_ids(), self._images_box.currentData()
        wanted = ticked if len(ticked) > 1 else {current}
        return [layer for layer in self._images() if _identity(layer) in wanted]

    # --- what happens ---

    def _on_layers_changed(self, event: Any = None) -> None:
        is_selection = event is not None and event.type == "active"
        if not is_selection or (self._source is None and not self._is_users_choice):
            self.refresh()

    def _on_layer_changed(self, _event: object = None) -> None:
        self._update()

    def _on_image_activated(self) -> None:
        self._is_users_choice = True
        self._on_image_changed()
        self._update()

    def _on_image_changed(self) -> None:
        """Another layer is in the box: it alone, all of it."""
        self._check([self._images_box.currentText()])
        layers = self._chosen_layers()
        self._scale.show_layer(layers[0] if layers else None)
        if self.is_large:
            with suppress(InputError):  # which `_update` explains
                self._scale.suggest(self.wished_source())
            self._scale.set_unfolded(True)

    def _on_voxel_size_clicked(self) -> None:
        layers = self._chosen_layers()
        is_used = self._use.isHidden()
        dialog = VoxelSizeDialog(layers[0], self)
        if dialog.exec() and (size := dialog.size_typed) is not None:
            # at once: where units differ, napari ignores them, and warns as soon as it draws
            set_voxel_size([*layers, *self._lying_on(layers[0])], size)
            self._viewer.reset_view()
            if is_used and not self._use.isHidden():
                self._on_use_clicked()
        dialog.deleteLater()

    def _lying_on(self, image: Any) -> list[Any]:
        """Layers of other kinds, ours among them, that count in the voxels of an image."""
        return [
            layer
            for layer in self._viewer.layers
            if not isinstance(layer, Image) and layer.units == image.units and (layer.scale == image.scale).all()
        ]

    def _on_use_clicked(self) -> None:
        try:
            source = self.wished_source()
        except InputError as error:
            self._show_problem(str(error))
        else:
            self.source_chosen.emit(source)

    def _update(self) -> None:
        """Show what is chosen, what is wrong with it, and whether it differs from what is in use."""
        source: ImageSource | None = None
        problem = ""
        layers = self._chosen_layers()
        try:
            source = self.wished_source() if layers else None
        except InputError as error:
            problem = str(error)
        self._show_problem(problem)
        self._show_facts(source)
        self._scale.show_expected(source)
        self._voxel_size.setVisible(source is not None)
        self._voxel_size.setText("…" if source is None or source.has_voxel_size else "Voxel size…")
        n_ticked = len(self._checked_ids())
        self._channels.show_title(f"{n_ticked} layers as channels" if n_ticked > 1 else "Several layers as channels")
        differs = source is not None and _key(layers, source) != self._used
        self._use.setVisible(differs)
        self._use.setText("Use this image" if self._source is None else "Use instead (starts anew)")

    def _show_facts(self, source: ImageSource | None) -> None:
        if source is None:
            text = "" if self._images_box.count() else "Open an image: File > Open, or Open Sample."
            self._facts.show_text(text, text)
            return
        text = facts_text(source)
        if source.has_voxel_size:
            self._facts.show_text(text, text)
        else:
            self._facts.show_text(f"{text} · voxel size unknown", _UNKNOWN_TIP)

    def _show_problem(self, text: str) -> None:
        self._problem.show_text(text)
        self._problem.setVisible(bool(text))


def facts_text(source: ImageSource) -> str:
    """One line about an image: its size, its voxels' size, channels and time points."""
    n_spatial = len(source.spacing)
    parts = [size_text(source.shape[-n_spatial:])]
    if source.has_voxel_size:
        parts.append(f"{size_text(source.spacing)} {source.unit_symbol}".strip())
    if source.n_channels > 1:
        parts.append(f"{source.n_channels} channels")
    if source.time_axis is not None:
        parts.append(f"{source.shape[0]} time points")
    return " · ".join(parts)


def _identity(layer: Any) -> str:
    """Something that Qt can keep, and that stays when a layer is renamed."""
    return str(id(unwrapped(layer)))


def _key(layers: list[Any], source: ImageSource) -> _Key:
    """What makes an image another one: layers, their arrays, place and scale."""
    arrays = tuple(id(unwrapped(layer.data)) for layer in layers)
    transform = source.region, source.step, source.level, source.scale, source.translate, source.units
    return (frozenset(weakref.ref(unwrapped(layer)) for layer in layers), arrays, transform)


def _n_voxels(layer: Any) -> int:
    n_voxels = 1
    for size in layer.level_shapes[0][: layer.ndim]:
        n_voxels *= int(size)
    return n_voxels
