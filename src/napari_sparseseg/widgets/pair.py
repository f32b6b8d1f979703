"""LayerPair: annotation and prediction of one image, written from what `LiveSegmenter` holds."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, Signal

from napari_sparseseg._types import NO_OBJECT, UNPAINTED, Box, Plane, Region
from napari_sparseseg.errors import SparseSegError
from napari_sparseseg.live.events import ClassInfo, TileUpdate
from napari_sparseseg.storage.sparse import is_large
from napari_sparseseg.widgets.axes import AxisMap
from napari_sparseseg.widgets.capture import Stroke, trimmed
from napari_sparseseg.widgets.layers import (
    AnnotationLayer,
    History,
    PredictionLayer,
    annotation_colormap,
    prediction_colormap,
)
from napari_sparseseg.widgets.paint_layer import PaintLayer
from napari_sparseseg.widgets.shadow import Values
from napari_sparseseg.widgets.view import current_plane

if TYPE_CHECKING:
    from napari_sparseseg.live.live_segmenter import LiveSegmenter
    from napari_sparseseg.widgets.sources import ImageSource

ANNOTATION_OPACITY = 0.7
PREDICTION_OPACITY = 0.5


class LayerPair(QObject):
    """Our two layers of an image: the user's strokes go to `live`, what comes of them is written into both."""

    problem = Signal(str)
    painted_at = Signal(tuple)
    """Middle of a stroke that was taken in, in voxels along z, y, x."""

    def __init__(self, viewer: Any, live: LiveSegmenter, source: ImageSource, *, is_read_only: bool = False) -> None:
        super().__init__()
        self.is_read_only = is_read_only
        """Whether the layers can be looked at only, since no paint would be kept."""
        self.axes = axis_map(source)
        self.source = source
        self.annotation = PaintLayer(viewer, self.axes, AnnotationLayer, f"{source.name} annotation")
        self.prediction = PaintLayer(viewer, self.axes, PredictionLayer, f"{source.name} prediction")
        self._viewer = weakref.ref(viewer)
        self._live = live
        self.set_code = UNPAINTED
        """The code of the set of classes that may be painted, 0 if only classes may."""
        self._object_id = NO_OBJECT
        self.second_at: Callable[[tuple[int, ...]], int] | None = None
        """Tells which other class a voxel of the layers may be, 0 for none; None if nobody knows."""
        self._names: dict[int, str] = {}
        self.prediction.words = self.words_at
        self._class_ids: set[int] = set()
        self._background: int | None = None
        self._is_taking = False
        self.annotation.painted.connect(self._on_annotation_painted)
        self.annotation.replaced.connect(self._on_annotation_replaced)
        self.prediction.painted.connect(self._on_prediction_painted)
        self.prediction.replaced.connect(self._on_prediction_replaced)
        for painted in self.both:
            painted.is_locked = is_read_only
            painted.settled.connect(self.sync)

    @property
    def both(self) -> tuple[PaintLayer, PaintLayer]:
        return self.annotation, self.prediction

    @property
    def placement(self) -> dict[str, Any]:
        """Where layers of the image lie in the world."""
        source = self.source
        return {
            "scale": source.scale,
            "translate": source.translate,
            "units": source.units,
            "axis_labels": source.axis_labels,
        }

    @property
    def object_id(self) -> int:
        """The object that strokes belong to, but those of the background; 0 if they belong to none."""
        return self._object_id

    @object_id.setter
    def object_id(self, object_id: int) -> None:
        self._object_id = object_id
        self.annotation.tells_same = object_id != NO_OBJECT

    # --- the layers come and go ---

    def show(self, history: History, classes: tuple[ClassInfo, ...]) -> None:
        """Add those of the layers that are not in the viewer, the annotation above the prediction."""
        viewer = self._viewer()
        if viewer is None:
            return
        goes_beneath = self.annotation.layer is not None and self.prediction.layer is None
        self.prediction.show(
            history, colormap=prediction_colormap(classes), opacity=PREDICTION_OPACITY, **self.placement
        )
        self.annotation.show(
            history, colormap=annotation_colormap(classes), opacity=ANNOTATION_OPACITY, **self.placement
        )
        if goes_beneath:
            viewer.layers.move(len(viewer.layers) - 1, viewer.layers.index(self.annotation.layer))

    def name_layers(self) -> None:
        """Give the layers their names, as far as these are free now."""
        for painted in self.both:
            if painted.layer is not None:
                painted.layer.name = painted.name

    def forget(self) -> None:
        """Leave the layers in the viewer as ordinary ones."""
        for painted in self.both:
            painted.forget()

    def show_classes(self, classes: tuple[ClassInfo, ...]) -> None:
        """Colour both layers; labels of a class that has gone are not shown."""
        self._class_ids = {info.class_id for info in classes}
        self._names = {info.class_id: info.name for info in classes}
        self._background = next((info.class_id for info in classes if info.is_background), None)
        self.annotation.set_colormap(annotation_colormap(classes))
        self.prediction.set_colormap(prediction_colormap(classes))

    def words_at(self, place: tuple[int, ...]) -> str:
        """Which class a voxel of the layers is predicted as, and which other one it may be; empty if unknown."""
        found = [int(self.prediction.array.data[place])]
        if self.second_at is not None:
            found.append(self.second_at(place))
        return " or ".join(self._names[class_id] for class_id in found if class_id in self._names)

    # --- live -> layers ---

    def sync(self, frame: int, box: Box) -> None:
        """Write what `live` holds into both layers within a box."""
        self.annotation.write(frame, box, self._codes(frame, box))
        self.prediction.write(frame, box, self._live.labels(frame, box))
        if not self._is_taking:
            self.redraw()

    def sync_all(self) -> None:
        """Write everything anew, frames of which nothing is known excepted."""
        whole = Box.whole(self.axes.frames_shape[1:])
        if self.annotation.array.is_large:
            self._sync_known()
            return
        for frame in range(self.axes.frames_shape[0]):
            held = [painted.array.shown(frame, whole).any() for painted in self.both]
            if any(held) or self._codes(frame, whole).any() or self._live.freshness(frame).any():
                self.sync(frame, whole)

    def _sync_known(self) -> None:
        """Write anew what is known of an image that is too large to be looked at as a whole."""
        for painted in self.both:
            painted.clear()
        for frame in range(self.axes.frames_shape[0]):
            for box in self._live.known_boxes(frame):
                self.annotation.write(frame, box, self._codes(frame, box))
                self.prediction.write(frame, box, self._live.labels(frame, box))
        self.redraw()

    def write_tile(self, tile: TileUpdate) -> None:
        """Write a predicted tile; drawn by the next `redraw`. Edits in place that nobody told of are taken in first.

        Not as it was predicted but as it is by now: tiles come out of order, and those of a preview overlap others.
        """
        self.prediction.take_unheard(tile.frame, tile.box)
        self.prediction.write(tile.frame, tile.box, self._live.labels(tile.frame, tile.box))

    def redraw(self) -> None:
        """Draw what was written."""
        for painted in self.both:
            painted.redraw()

    def _codes(self, frame: int, box: Box) -> Values:
        codes = self._live.codes
        return np.zeros(box.shape, np.uint8) if codes is None else codes[frame][box.slices]

    # --- layers -> live ---

    def take_unheard(self) -> None:
        """Take in what was painted in place, by a script, anywhere."""
        whole = Box.whole(self.axes.frames_shape[1:])
        for frame in range(self.axes.frames_shape[0]):
            for painted in self.both:
                painted.take_unheard(frame, whole)

    def _on_annotation_painted(self, strokes: list[Stroke]) -> None:
        for stroke in strokes:
            self._take(self.annotation, stroke)

    def _on_prediction_painted(self, strokes: list[Stroke]) -> None:
        for stroke in strokes:
            self._take(self.prediction, stroke)

    def _take(self, painted: PaintLayer, stroke: Stroke) -> None:
        """Hand a stroke to `live`; then both layers show what it holds there, whatever became of the stroke."""
        region, plane = Region(stroke.frame, stroke.box, stroke.mask), self.plane_of(painted, stroke)
        shown = painted.array.shown(stroke.frame, stroke.box)
        is_set = stroke.label == self.set_code != UNPAINTED
        object_id = NO_OBJECT if is_set or stroke.label in (0, self._background) else self._object_id
        painted.release(stroke)
        self._is_taking = True
        try:
            if stroke.label and not is_set and stroke.label not in self._class_ids:
                self.problem.emit(f"There is no class {stroke.label}; what was painted with it is dropped")
            elif is_set or painted is self.annotation:
                self._live.annotate(region, stroke.label, plane=plane, object_id=object_id)
            else:
                self._live.correct(region, stroke.label, shown=shown, plane=plane, object_id=object_id)
        except SparseSegError as error:
            self.problem.emit(str(error))
        finally:
            self._is_taking = False
        self.sync(stroke.frame, stroke.box)
        self.painted_at.emit(stroke.center)

    def plane_of(self, painted: PaintLayer, stroke: Stroke) -> Plane | None:
        """The slice that a stroke was made on: the one across the slider's axis, if it lies in one such."""
        viewer = self._viewer()
        if viewer is None or painted.layer is None:
            return None
        return stroke.plane_across(current_plane(viewer, painted.layer, self.axes).axis)

    def _on_annotation_replaced(self, array: Any) -> None:
        frames = self._checked(array)
        if frames is None:
            return
        whole = Box.whole(self.axes.frames_shape[1:])
        for frame, values in enumerate(frames):
            changed = values != self._codes(frame, whole)
            if changed.any() and self._are_classes(values[changed]):
                stroke = trimmed(Stroke(frame, whole, changed, 0))
                self._take_values(stroke, values[stroke.box.slices].astype(np.uint8))

    def _take_values(self, stroke: Stroke, codes: Values) -> None:
        try:
            self._live.annotate_values(Region(stroke.frame, stroke.box, stroke.mask), codes)
        except SparseSegError as error:
            self.problem.emit(str(error))
        self.sync(stroke.frame, stroke.box)

    def _are_classes(self, labels: Any) -> bool:
        unknown = sorted(set(np.unique(labels).tolist()) - self._class_ids - {0})
        if unknown:
            self.problem.emit(f"The layer keeps its voxels: there is no class {unknown[0]}")
        return not unknown

    def _on_prediction_replaced(self, array: Any) -> None:
        frames = self._checked(array)
        if frames is not None:
            self.prediction.array.put(frames.astype(np.uint8))
            self.take_unheard()

    def _checked(self, array: Any) -> Any:
        """An array that was assigned to a layer as (frames, z, y, x); None, and a problem told, if it does not fit."""
        if array.shape != self.axes.shape:
            self.problem.emit(f"The layer keeps its voxels: the image is {self.axes.shape}, not {array.shape}")
            return None
        if array.size and not 0 <= array.min() <= array.max() <= 254:
            self.problem.emit("The layer keeps its voxels: those that were assigned are no classes")
            return None
        return self.axes.as_frames(array)


def axis_map(source: ImageSource) -> AxisMap:
    """How the layers of an image, which have no channel axis, are read."""
    time, channel = source.time_axis, source.channel_axis
    if time is not None:
        n_axes = len(source.array.shape)
        time %= n_axes
        time -= channel is not None and channel % n_axes < time
    return AxisMap(tuple(source.shape), time)


def remove_left_over(viewer: Any, axes: AxisMap, codes: Values | None) -> None:
    """Remove layers of an image before that hold nothing, or nothing but what the new ones will show."""
    for layer in list(viewer.layers):
        if not isinstance(layer, AnnotationLayer | PredictionLayer) or layer.history is not None:
            continue
        is_prediction = isinstance(layer, PredictionLayer)
        if is_large(layer.data):
            if is_prediction and layer.data.shape == axes.shape:
                viewer.layers.remove(layer)
            continue
        is_same = layer.data.shape == axes.shape and (
            is_prediction or (codes is not None and np.array_equal(axes.as_frames(layer.data), codes))
        )
        if is_same or not layer.data.any():
            viewer.layers.remove(layer)
