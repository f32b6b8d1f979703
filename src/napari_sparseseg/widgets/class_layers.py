"""ClassLayers: one layer for each class that may overlap others, painted on to say where it is and where it is not."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.colormaps import DirectLabelColormap
from qtpy.QtCore import QObject, Signal

from napari_sparseseg._types import UNPAINTED, Box, Region
from napari_sparseseg.errors import SparseSegError
from napari_sparseseg.live.events import ClassInfo
from napari_sparseseg.widgets.layers import CLEAR, ClassLayer
from napari_sparseseg.widgets.paint_layer import PaintLayer
from napari_sparseseg.widgets.shadow import Values

if TYPE_CHECKING:
    from napari_sparseseg.live.live_segmenter import LiveSegmenter
    from napari_sparseseg.widgets.capture import Stroke
    from napari_sparseseg.widgets.layers import History
    from napari_sparseseg.widgets.pair import LayerPair

_OPACITY = 0.5


class ClassLayers(QObject):
    """The layers of the classes but the background: the brush says that a class is there, the eraser that it is not."""

    problem = Signal(str)

    def __init__(self, viewer: Any, live: LiveSegmenter, pair: LayerPair, history: History) -> None:
        super().__init__()
        self._viewer = weakref.ref(viewer)
        self._live, self._pair, self._history = live, pair, history
        self._layers: dict[int, PaintLayer] = {}
        self.show_classes(live.classes)

    def show_classes(self, classes: tuple[ClassInfo, ...]) -> None:
        """Have a layer for each of these classes but the background, in its colour."""
        wanted = {info.class_id: info for info in classes if not info.is_background}
        gone = self._layers.keys() - wanted.keys()
        new = [info for class_id, info in wanted.items() if class_id not in self._layers]
        if new:
            self._live.keep_presence_of(wanted)
        for info in new:
            self._add(info)
        for class_id in gone:  # only now: the viewer may not be empty when a layer is added
            self._remove(self._layers.pop(class_id))
        for class_id, painted in self._layers.items():
            painted.set_colormap(_colormap(wanted[class_id]))

    def layer_of(self, class_id: int) -> Any:
        """The layer of a class; None without."""
        return self._layers[class_id].layer if class_id in self._layers else None

    # --- live -> layers ---

    def write(self, frame: int, box: Box) -> None:
        """Write where the classes are within a box; drawn by the next `redraw`."""
        for class_id, painted in self._layers.items():
            painted.take_unheard(frame, box)
            painted.write(frame, box, self._values(class_id, frame, box))

    def sync(self, frame: int, box: Box) -> None:
        """The same, drawn at once."""
        self.write(frame, box)
        self.redraw()

    def sync_all(self) -> None:
        """Write everything anew."""
        for painted in self._layers.values():
            if painted.array.is_large:
                painted.clear()
        for frame, box in self._known_boxes():
            self.write(frame, box)
        self.redraw()

    def redraw(self) -> None:
        """Draw what was written."""
        for painted in self._layers.values():
            painted.redraw()

    def update_thumbnails(self) -> None:
        """Draw the small pictures in the list of layers."""
        for painted in self._layers.values():
            painted.update_thumbnail()

    # --- layers -> live ---

    def _on_painted(self, class_id: int, strokes: list[Stroke]) -> None:
        for stroke in strokes:
            self._take(class_id, stroke)

    def _take(self, class_id: int, stroke: Stroke) -> None:
        """Hand a stroke to `live`; then all layers show what it holds there, whatever became of the stroke."""
        painted = self._layers[class_id]
        painted.release(stroke)
        region, plane = Region(stroke.frame, stroke.box, stroke.mask), self._pair.plane_of(painted, stroke)
        try:
            if self._live.is_overlapping:
                self._live.say(region, class_id, is_present=stroke.label != 0, plane=plane)
            else:  # a script has set that; there is no saying that a class is not there
                self._live.annotate(region, class_id if stroke.label else UNPAINTED, plane=plane)
        except SparseSegError as error:
            self.problem.emit(str(error))
        self.sync(stroke.frame, stroke.box)
        self._pair.painted_at.emit(stroke.center)

    def _on_replaced(self, class_id: int, _array: Any) -> None:
        name = self._layers[class_id].name
        self.problem.emit(f"The layer '{name}' keeps its voxels: paint on it, or assign to the annotation layer")

    # --- the layers come and go ---

    def on_layer_removed(self, layer: Any) -> bool:
        """Let go of a layer that the user has removed; whether it was one of these."""
        for class_id, painted in list(self._layers.items()):
            if painted.layer is layer:
                painted.forget()
                del self._layers[class_id]
                self._live.keep_presence_of(self._layers)
                return True
        return False

    def __len__(self) -> int:
        return len(self._layers)

    def close(self) -> None:
        """Take the layers out of the viewer."""
        layers, self._layers = self._layers, {}
        for painted in layers.values():
            self._remove(painted)
        self._live.keep_presence_of(())

    def _add(self, info: ClassInfo) -> None:
        viewer = self._viewer()
        if viewer is None:
            return
        painted = PaintLayer(viewer, self._pair.axes, ClassLayer, f"{self._pair.source.name} {info.name}")
        painted.is_locked = self._pair.is_read_only
        self._layers[info.class_id] = painted
        for frame, box in self._known_boxes():
            painted.write(frame, box, self._values(info.class_id, frame, box))
        active = viewer.layers.selection.active
        painted.show(self._history, colormap=_colormap(info), opacity=_OPACITY, **self._pair.placement)
        painted.layer.selected_label = info.class_id  # type: ignore[union-attr]  # it has just been shown
        viewer.layers.selection.active = active
        painted.painted.connect(partial(self._on_painted, info.class_id))
        painted.replaced.connect(partial(self._on_replaced, info.class_id))
        painted.settled.connect(self.sync)

    def _remove(self, painted: PaintLayer) -> None:
        viewer, layer = self._viewer(), painted.layer
        painted.forget()
        if viewer is not None and layer in viewer.layers:
            viewer.layers.remove(layer)

    def _known_boxes(self) -> Iterator[tuple[int, Box]]:
        for frame in range(self._pair.axes.frames_shape[0]):
            yield from ((frame, box) for box in self._live.known_boxes(frame))

    def _values(self, class_id: int, frame: int, box: Box) -> Values:
        return self._live.presence(class_id, frame, box) * np.uint8(class_id)


def _colormap(info: ClassInfo) -> DirectLabelColormap:
    return DirectLabelColormap(color_dict={None: CLEAR, 0: CLEAR, info.class_id: (*info.color, 1.0)})
