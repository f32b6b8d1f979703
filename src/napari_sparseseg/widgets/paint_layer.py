"""PaintLayer: one of our two layers, while it is in the viewer and while it is not."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal

from napari_sparseseg._types import Box
from napari_sparseseg.widgets.axes import AxisMap, Index
from napari_sparseseg.widgets.capture import Stroke, StrokeRecorder, differences, is_written, joined, strokes_of
from napari_sparseseg.widgets.layers import (
    ClassLayer,
    History,
    PredictionLayer,
    SharedHistoryLabels,
    Words,
    set_colormap,
)
from napari_sparseseg.widgets.redraw import redraw
from napari_sparseseg.widgets.shadow import ShadowedArray, Values
from napari_sparseseg.widgets.view import current_plane, view_of


class PaintLayer(QObject):
    """The voxels of the annotation or the prediction and the layer that shows them: strokes come out, values go in.

    The layer may be removed and come back; the voxels stay. GUI thread only.
    """

    painted = Signal(list)
    """Strokes that the user has made, list[Stroke]; who takes them in calls `release` and writes what they lead to."""
    replaced = Signal(object)
    """Somebody has assigned this array to the layer's data; the layer has its own array again."""
    settled = Signal(int, object)
    """Frame and box in which napari wrote a stroke after it had been taken in: what is there must be written anew."""
    label_chosen = Signal(int)
    brush_resized = Signal(int)

    def __init__(self, viewer: Any, axes: AxisMap, kind: type[SharedHistoryLabels], name: str) -> None:
        super().__init__()
        self.axes = axes
        self.name = name
        self.array = ShadowedArray(axes)
        self.layer: SharedHistoryLabels | None = None
        self.tells_same = kind in (PredictionLayer, ClassLayer)
        """Whether painting what is there already says something: it confirms a prediction, or names an object."""
        self.tells_absence = kind is ClassLayer
        """Whether erasing where nothing is does, too."""
        self.is_locked = False
        """Whether the layer can be looked at only, from when it is shown on."""
        self.words: Words | None = None
        """What the layer says of the voxel under the cursor, from when it is shown on."""
        self._viewer = weakref.ref(viewer)
        self._kind = kind
        self._recorder: StrokeRecorder | None = None
        self._dirty: list[Index] = []
        self._unsettled: list[Stroke] = []

    # --- the layer comes and goes ---

    def show(self, history: History, **properties: Any) -> None:
        """Add the layer on top of the others, if it is not there."""
        viewer = self._viewer()
        if self.layer is not None or viewer is None:
            return
        self._dirty.clear()
        layer = self._kind(self.array.data, name=self.name, **properties)
        layer.history, layer.words = history, self.words
        self._recorder = StrokeRecorder(layer, self.axes, self._on_released)
        for emitter, callback in self._connections(layer):
            emitter.connect(callback)
        self.layer = layer
        viewer.add_layer(layer)
        layer.editable = not self.is_locked

    def forget(self) -> None:
        """Let go of the layer, which was removed or becomes one like any other."""
        layer, recorder = self.layer, self._recorder
        if layer is None or recorder is None:
            return
        self.layer = self._recorder = None
        for emitter, callback in self._connections(layer):
            emitter.disconnect(callback)
        recorder.close()
        layer.history = layer.words = None
        self.name = layer.name
        if recorder.is_open:
            self.array.revert()

    def set_colormap(self, colormap: Any) -> None:
        """Colour the layer differently."""
        if self.layer is not None:
            set_colormap(self.layer, colormap)

    def _connections(self, layer: SharedHistoryLabels) -> list[tuple[Any, Any]]:
        return [
            (layer.events.paint, self._on_paint),
            (layer.events.data, self._on_data),
            (layer.events.set_data, self._on_set_data),
            (layer.events.editable, self._on_editable),
            (layer.events.selected_label, self._on_selected_label),
            (layer.events.brush_size, self._on_brush_size),
        ]

    # --- values go in ---

    def write(self, frame: int, box: Box, values: Values) -> None:
        """Write values into a box, but not over paint that was not taken in; drawn by the next `redraw`."""
        self.array.write(frame, box, values)
        self._dirty.append(self.axes.to_layer(frame, box))

    def clear(self) -> None:
        """Make everything zero; drawn by the next `redraw`."""
        self.array.clear()
        self._dirty = [tuple(slice(0, size) for size in self.axes.shape)]

    def redraw(self) -> None:
        """Draw what was written since the last time."""
        changed, self._dirty = self._dirty, []
        viewer = self._viewer()
        if changed and viewer is not None and self.layer is not None:
            redraw(viewer, self.layer, changed)

    def update_thumbnail(self) -> None:
        """Draw the small picture in the list of layers, which `redraw` leaves alone; in 3D it costs much."""
        viewer = self._viewer()
        if self.layer is not None and viewer is not None and viewer.dims.ndisplay == 2:
            self.layer.refresh(data_displayed=False, extent=False, highlight=False)

    # --- strokes come out ---

    @property
    def is_being_painted(self) -> bool:
        """Whether the user is in the middle of a stroke."""
        return self._recorder is not None and self._recorder.is_open

    def take_unheard(self, frame: int, box: Box) -> None:
        """Emit what was painted in a box without any event, unless the user is just painting."""
        self._settle()
        if self.is_being_painted:
            return
        strokes = differences(self.array, frame, box)
        if strokes:
            self.painted.emit(strokes)

    def release(self, stroke: Stroke) -> None:
        """Let what comes of a stroke be written over it."""
        if is_written(stroke, self.array):
            self.array.release(stroke.frame, stroke.box, stroke.mask)
        else:  # a script's layer.paint(): napari writes when this event is over
            self._unsettled.append(stroke)
            QTimer.singleShot(0, self._settle)

    def _settle(self) -> None:
        strokes, self._unsettled = self._unsettled, []
        for stroke in strokes:
            self.array.release(stroke.frame, stroke.box, stroke.mask)
            self.settled.emit(stroke.frame, stroke.box)

    def _track(self) -> Stroke | None:
        """Where the brush painted what is there already, if that says something."""
        if self._recorder is None or not self.tells_same:
            return None
        track = self._recorder.track()
        if track is None or not (track.label or self.tells_absence):
            return None
        return track.where(self.array.current(track.frame, track.box) == track.label)

    def _on_paint(self, event: Any) -> None:
        strokes = joined(strokes_of(event.value, self.axes), self._track())
        if self._recorder is not None:
            self._recorder.finish()
        self.painted.emit(strokes)

    def _on_released(self) -> None:
        """The brush was lifted; where it has changed nothing napari will not say so."""
        track = self._track()
        if self._recorder is None or track is None or self.array.user_mask(track.frame, track.box).any():
            return
        self._recorder.finish()
        self.painted.emit([track])

    def _on_data(self) -> None:
        if self.layer is None or self.layer.data is self.array.data:
            return
        given = self.layer.data
        self.layer.data = self.array.data
        self.replaced.emit(np.asarray(given))

    def _on_editable(self) -> None:
        """With other data napari lets a layer be painted on again."""
        if self.is_locked and self.layer is not None:
            self.layer.editable = False

    def _on_set_data(self) -> None:
        """The layer was sliced anew, by the slider or a refresh: the moment to look for edits in place."""
        viewer = self._viewer()
        if viewer is None or self.layer is None or self.layer not in viewer.layers:
            return
        plane = current_plane(viewer, self.layer, self.axes)
        whole = plane.box(self.axes.frames_shape[1:])
        box = view_of(viewer, self.layer, self.axes).box if self.array.is_large else whole
        if self._recorder is not None and self._recorder.is_encircling:
            if not self.array.user_mask(plane.frame, box).any():
                self._recorder.finish()  # Escape has undone it
            return
        self.take_unheard(plane.frame, box)

    def _on_selected_label(self) -> None:
        if self.layer is not None:
            self.label_chosen.emit(int(self.layer.selected_label))

    def _on_brush_size(self) -> None:
        if self.layer is not None:
            self.brush_resized.emit(int(self.layer.brush_size))
