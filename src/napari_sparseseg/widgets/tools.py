"""ToolSync: one class, one brush and one mode for our two layers, whichever way the user changes them."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any, Literal

from qtpy.QtCore import QObject, Signal

from napari_sparseseg._types import UNPAINTED
from napari_sparseseg.live.events import ClassInfo
from napari_sparseseg.widgets.paint_layer import PaintLayer

Mode = Literal["paint", "correct"]


def take_brush(layers: Iterable[PaintLayer]) -> None:
    """Have the brush in hand where it was the eraser, which would remove what is to be painted."""
    for painted in layers:
        if painted.layer is not None and painted.layer.mode == "erase":
            painted.layer.mode = "paint"


class ToolSync(QObject):
    """Keeps class and brush equal on both layers; the mode is which of the two is selected."""

    mode_changed = Signal(str)
    class_changed = Signal(int)
    brush_resized = Signal(int)
    code_changed = Signal(int)
    """The code of a set of classes that is painted instead of the class, 0 for the class again."""
    problem = Signal(str)

    def __init__(
        self,
        viewer: Any,
        annotation: PaintLayer,
        prediction: PaintLayer,
        *,
        class_id: int,
        mode: Mode,
        brush_size: int,
    ) -> None:
        super().__init__()
        self.mode: Mode = mode
        self.class_id = class_id
        self.brush_size = brush_size
        self._code = UNPAINTED
        self._viewer = weakref.ref(viewer)
        self._layers: dict[Mode, PaintLayer] = {"paint": annotation, "correct": prediction}
        self._class_ids: tuple[int, ...] = ()
        self._is_syncing = False
        for painted in self._layers.values():
            painted.label_chosen.connect(self._on_label_chosen)
            painted.brush_resized.connect(self.set_brush)
        viewer.layers.selection.events.active.connect(self._on_active_layer)

    def close(self) -> None:
        """Follow the viewer no longer."""
        viewer = self._viewer()
        if viewer is not None:
            viewer.layers.selection.events.active.disconnect(self._on_active_layer)

    def show_classes(self, classes: tuple[ClassInfo, ...]) -> None:
        """Take the classes that can be painted; where the chosen one has gone, another is chosen."""
        self._class_ids = tuple(info.class_id for info in classes)
        if self.class_id not in self._class_ids:
            objects = [info.class_id for info in classes if not info.is_background]
            self._note_class((objects or list(self._class_ids) or [1])[0])

    def set_class(self, class_id: int) -> None:
        """Paint with this class from now on, on both layers; an eraser in hand becomes the brush."""
        self._note_class(class_id)
        take_brush(self._layers.values())

    def _note_class(self, class_id: int) -> None:
        is_new = class_id != self.class_id
        self.class_id = class_id
        self.set_code(UNPAINTED)
        if is_new:
            self.class_changed.emit(class_id)

    def set_code(self, code: int) -> None:
        """Paint with this set of classes from now on, on both layers; 0 paints with the class again."""
        is_new = code != self._code
        self._code = code
        self._set_labels()
        if is_new:
            self.code_changed.emit(code)

    def set_mode(self, mode: Mode) -> None:
        """Select the layer of this mode, with the brush in hand; both must be there."""
        viewer, layer = self._viewer(), self._layers[mode].layer
        if viewer is None or layer is None:
            return
        layer.visible = True
        viewer.layers.selection.active = layer
        layer.mode = "paint"
        self._set_labels()
        self._note_mode(mode)

    def set_brush(self, size: int) -> None:
        """Paint with a brush of this diameter from now on, on both layers."""
        is_new = size != self.brush_size
        self.brush_size = size
        self._set_brushes()
        if is_new:
            self.brush_resized.emit(size)

    def refresh(self) -> None:
        """Bring a layer that has just been added into line."""
        self._set_labels()
        self._set_brushes()

    def _note_mode(self, mode: Mode) -> None:
        if mode != self.mode:
            self.mode = mode
            self.mode_changed.emit(mode)

    def _set_labels(self) -> None:
        self._is_syncing = True
        try:
            for painted in self._layers.values():
                if painted.layer is not None:
                    painted.layer.selected_label = self._code or self.class_id
        finally:
            self._is_syncing = False

    def _set_brushes(self) -> None:
        for painted in self._layers.values():
            if painted.layer is not None and painted.layer.brush_size != self.brush_size:
                painted.layer.brush_size = self.brush_size

    def _on_active_layer(self, event: Any) -> None:
        for mode, painted in self._layers.items():
            if painted.layer is not None and event.value is painted.layer:
                self._note_mode(mode)

    def _on_label_chosen(self, label: int) -> None:
        if self._is_syncing or label in (UNPAINTED, self._code):
            return  # 0 erases (key X, or picking what is unpainted) until a class is chosen again
        if label in self._class_ids:
            self._note_class(label)
            return
        self._set_labels()
        self.problem.emit(
            "That marks what the voxel is not; choose a class to paint with"
            if label >= 128
            else f"There is no class {label}; add it in the list of classes first"
        )
