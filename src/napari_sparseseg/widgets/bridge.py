"""LayerBridge: napari's layers on one side, `LiveSegmenter` on the other."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from napari.layers import Labels
from qtpy.QtCore import QObject, Signal

from napari_sparseseg._types import Plane
from napari_sparseseg.errors import InputError
from napari_sparseseg.live.events import ClassInfo, PaintChange, TileUpdate
from napari_sparseseg.widgets.extras import Extras
from napari_sparseseg.widgets.feed import PredictionFeed
from napari_sparseseg.widgets.found import FoundTool
from napari_sparseseg.widgets.keys import bind_keys, unbind_keys
from napari_sparseseg.widgets.layers import SharedHistoryLabels
from napari_sparseseg.widgets.losses import ANNOTATION_LOST, PREDICTION_LOST, LossWatch
from napari_sparseseg.widgets.objects import ObjectTool
from napari_sparseseg.widgets.pair import LayerPair, axis_map, remove_left_over
from napari_sparseseg.widgets.results import add_everything, add_slice, add_whole, remove_gone
from napari_sparseseg.widgets.sources import unwrapped
from napari_sparseseg.widgets.spot import SpotMarker
from napari_sparseseg.widgets.suggestion import SuggestionTool
from napari_sparseseg.widgets.tools import Mode, ToolSync
from napari_sparseseg.widgets.unsure import UnsureTool
from napari_sparseseg.widgets.view import ViewWatcher, current_plane, show_plane, view_of

if TYPE_CHECKING:
    from napari_sparseseg.live.live_segmenter import LiveSegmenter
    from napari_sparseseg.widgets.relay import GuiRelay
    from napari_sparseseg.widgets.sources import ImageSource


class LayerBridge(QObject):
    """Makes the annotation and the prediction layer of an image, and keeps them and `live` in step.

    What the user paints goes to `live`; what `live` holds is what both layers show. GUI thread only; the viewer is
    held weakly.
    """

    mode_changed = Signal(str)
    """"paint" or "correct"."""
    class_changed = Signal(int)
    brush_resized = Signal(int)
    view_changed = Signal()
    """Another plane, or another part of it, is on screen."""
    layers_lost = Signal(str)
    """One of the two layers was removed; the sentence says what that means and how it comes back."""
    extra_removed = Signal(str)
    """The user has removed a layer that was switched on: its name in `Extra`."""
    problem = Signal(str)
    """Something that was painted or chosen cannot be taken in; a sentence for the user."""

    _paint_changed = Signal(object)  # brings changes from other threads to the GUI thread

    def __init__(self, viewer: Any, live: LiveSegmenter, relay: GuiRelay, parent: QObject | None = None) -> None:
        super().__init__(parent)
        # A plugin is given a proxy: whatever is compared or held weakly must be the viewer itself.
        viewer = unwrapped(viewer)
        self._viewer = weakref.ref(viewer)
        self._live = live
        self._pair: LayerPair | None = None
        self._tools: ToolSync | None = None
        self._mode: Mode = "paint"
        self._class_id, self._brush_size = 2, 10
        self._eye: tuple[float, float, float] | None = None
        self._watcher: ViewWatcher | None = None
        self._relay = relay
        self._is_open = False
        self._feed = PredictionFeed(self._write_tile, self._draw, self.current_plane, self)
        self._extras = Extras(viewer, live, self)
        self.objects = ObjectTool(viewer, live, self)
        self.found = FoundTool(viewer, live, self)
        self.spot = SpotMarker(viewer, self)
        self._losses = LossWatch(viewer, self._lose, self)
        self.unsure = UnsureTool(live, self)
        self.suggestion = SuggestionTool(viewer, live, self)
        self._extra_tools = (self.objects, self.found, self.unsure, self.suggestion)
        for tool in self._extra_tools:
            tool.problem.connect(self.problem)
        self._losses.told.connect(self.layers_lost)
        self._feed.drained.connect(self._on_feed_drained)
        self._extras.removed.connect(self.extra_removed)
        self._extras.problem.connect(self.problem)
        self._paint_changed.connect(self._on_paint_changed)

    # --- opening and closing ---

    def open(self, source: ImageSource) -> None:
        """Make the layers of the image that `live` has opened; those of another image stay, hidden and locked."""
        viewer = self._viewer()
        if self._live.image_shape != source.shape:
            raise InputError(
                f"this image has the shape {source.shape}, but {self._live.image_shape} is being learnt from"
            )
        before = self._own_layers()
        self._leave_pair()
        if viewer is None:
            self._close_extras()
            return
        _put_aside(before)
        self._connect(viewer)
        self._pair, self._tools = self._new_pair(viewer, source)
        self.unsure.open(self._pair, self._tools)
        self._tools.show_classes(self._live.classes)  # the extras are those of the image before still
        self._pair.show_classes(self._live.classes)
        self.unsure.show_classes(self._live.classes)
        self._pair.sync_all()
        self.restore_layers()
        # only now: napari may crash where a layer is added to a viewer from which the last one has just been removed
        self._close_extras()
        remove_left_over(viewer, axis_map(source), self._live.codes)
        remove_gone(viewer)
        self._pair.name_layers()
        self.objects.open(self._pair)
        self.found.open(self._pair, self)
        self.spot.open(self._pair)
        self.suggestion.open(self._pair, self)
        self.set_mode(self._mode)
        self._on_view_changed()

    def close(self) -> None:
        """Let go of everything; the layers stay in the viewer as ordinary ones. `open` begins anew."""
        self._leave_pair()
        self._close_extras()
        if not self._is_open:
            return
        self._is_open = False
        for signal, slot in self._relay_slots():
            signal.disconnect(slot)
        self._live.events.paint_changed.disconnect(self._on_live_paint_changed, missing_ok=True)
        if self._watcher is not None:
            self._watcher.close()
        self._losses.stop()

    @property
    def is_open(self) -> bool:
        """Whether layers of an image are kept in step."""
        return self._is_open

    @property
    def is_in_3d(self) -> bool:
        """Whether the viewer shows volumes, on which nothing can be painted."""
        viewer = self._viewer()
        return viewer is not None and viewer.dims.ndisplay == 3

    @property
    def is_read_only(self) -> bool:
        """Whether the project can be looked at only: nothing that is painted would be kept."""
        image = self._live.project
        return image is not None and image.project.is_read_only

    def _connect(self, viewer: Any) -> None:
        if self._is_open:
            return
        self._is_open = True
        for signal, slot in self._relay_slots():
            signal.connect(slot)
        self._live.events.paint_changed.connect(self._on_live_paint_changed)
        self._watcher = ViewWatcher(viewer, self)
        self._watcher.changed.connect(self._on_view_changed)
        self._losses.start()

    def _relay_slots(self) -> list[tuple[Any, Any]]:
        return [
            (self._relay.tiles, self._feed.add),
            (self._relay.classes, self._show_classes),
            (self._relay.predictions_cleared, self._on_predictions_cleared),
            (self._relay.freshness, self._on_freshness_changed),
            (self._relay.objects, self.found.update),
            (self._relay.suggested, self.spot.show),
            (self._relay.paint, self.spot.on_paint),
            (self._relay.suggestion, self.suggestion.update),
            (self._relay.table, self.found.table.take),
        ]

    def _new_pair(self, viewer: Any, source: ImageSource) -> tuple[LayerPair, ToolSync]:
        pair = LayerPair(viewer, self._live, source, is_read_only=self.is_read_only)
        pair.problem.connect(self.problem)
        pair.painted_at.connect(self._on_painted_at)
        tools = ToolSync(viewer, *pair.both, class_id=self._class_id, mode=self._mode, brush_size=self._brush_size)
        tools.mode_changed.connect(self._on_mode_changed)
        tools.class_changed.connect(self._on_class_changed)
        tools.brush_resized.connect(self._on_brush_resized)
        tools.problem.connect(self.problem)
        return pair, tools

    @property
    def is_busy(self) -> bool:
        """Whether predicted tiles wait to be shown."""
        return len(self._feed) > 0

    @property
    def annotation_layer(self) -> SharedHistoryLabels | None:
        """The layer that is painted on, None if it is not in the viewer."""
        return None if self._pair is None else self._pair.annotation.layer

    @property
    def prediction_layer(self) -> SharedHistoryLabels | None:
        """The layer that shows the prediction, None if it is not in the viewer."""
        return None if self._pair is None else self._pair.prediction.layer

    def restore_layers(self) -> None:
        """Add those of the two layers again that were removed; what was painted is still there."""
        if self._pair is None or self._tools is None:
            return
        self._pair.show(self, self._live.classes)
        for painted in self._pair.both:
            if painted.layer is not None:
                bind_keys(painted.layer, self)
        self._tools.refresh()

    def _close_extras(self) -> None:
        """Remove the layers that go with the image."""
        for part in (self._extras, self.spot, self.objects, self.suggestion):
            part.close()

    def _leave_pair(self) -> None:
        self._feed.clear()
        self.found.close()
        self.unsure.close()
        if self._pair is None or self._tools is None:
            return
        self._tools.close()
        for painted in self._pair.both:
            if painted.layer is not None:
                unbind_keys(painted.layer)
        self._pair.forget()
        self._pair = self._tools = None

    # --- mode, class and brush ---

    @property
    def mode(self) -> Mode:
        """Which layer is painted on: "paint" the annotation, "correct" the prediction."""
        return self._mode

    @property
    def class_id(self) -> int:
        """The class that is painted with."""
        return self._class_id

    def set_mode(self, mode: Mode) -> None:
        """Select the layer of a mode with the brush in hand; brings back a layer that was removed."""
        self.restore_layers()
        if self._tools is not None:
            self._tools.set_mode(mode)
        else:
            self._mode = mode

    def set_class(self, class_id: int) -> None:
        """Paint with this class from now on."""
        if self._tools is not None:
            self._tools.set_class(class_id)
        else:
            self._class_id = class_id

    @property
    def brush_size(self) -> int:
        """Diameter of the brush on both layers, in voxels."""
        return self._brush_size

    def set_brush(self, size: int) -> None:
        """Paint with a brush of this diameter from now on."""
        if self._tools is not None:
            self._tools.set_brush(size)
        else:
            self._on_brush_resized(size)

    def choose_class(self, number: int) -> None:
        """Paint with the class that stands at this place, from 1, in the list of classes."""
        classes = self._live.classes
        if 1 <= number <= len(classes):
            self.set_class(classes[number - 1].class_id)

    # --- history ---

    def undo(self) -> bool:
        """Take the last stroke back, on whichever layer it was made."""
        return self._live.undo()

    def redo(self) -> bool:
        """Make the stroke again that was taken back last."""
        return self._live.redo()

    # --- what is on screen ---

    def current_plane(self) -> Plane | None:
        """The slice on screen; in 3D display the one that the slider stands at. None without layers."""
        viewer, layer = self._viewer(), self._any_layer()
        if viewer is None or layer is None or self._pair is None:
            return None
        return current_plane(viewer, layer, self._pair.axes)

    def go_to(self, plane: Plane) -> None:
        """Bring a slice on screen, in 2D."""
        viewer, layer = self._viewer(), self._any_layer()
        if viewer is not None and layer is not None and self._pair is not None:
            show_plane(viewer, layer, self._pair.axes, plane)

    def _own_layers(self) -> list[Any]:
        """The layers that show what is painted, predicted and found, as far as they are in the viewer."""
        layers = (self.annotation_layer, self.prediction_layer, self.found.layer)
        return [layer for layer in layers if layer is not None]

    def _any_layer(self) -> Any:
        return self.prediction_layer if self.annotation_layer is None else self.annotation_layer

    def _on_view_changed(self) -> None:
        viewer, layer = self._viewer(), self._any_layer()
        if viewer is None or layer is None or self._pair is None:
            return
        self._live.look_at(view_of(viewer, layer, self._pair.axes, self._eye))
        self.found.follow()
        self.view_changed.emit()

    def toggle_prediction(self) -> None:
        """Hide the prediction, or show it."""
        if (layer := self.prediction_layer) is not None:
            layer.visible = not layer.visible

    def toggle_outlines(self) -> None:
        """Show the prediction as outlines, or filled."""
        if (layer := self.prediction_layer) is not None:
            layer.contour = 0 if layer.contour else 1

    # --- extras and results ---

    def show_freshness(self, wanted: bool) -> None:
        """Colour the tiles: green where the prediction shows the latest paint, orange where it lags behind."""
        self._extras.show_freshness(self._pair, wanted)

    def show_probability(self, class_id: int | None) -> None:
        """Show how probable a class is, as an image; None takes it away."""
        self._extras.show_probability(self._pair, class_id)

    def show_class_layers(self, wanted: bool) -> None:
        """Show where each class is that may overlap others, in a layer of its own that is painted on."""
        self._extras.show_class_layers(self._pair, self, wanted)

    def show_uncertainty(self, wanted: bool) -> None:
        """Show where the network is unsure, as an image."""
        self._extras.show_uncertainty(self._pair, wanted)

    def show_ambiguity(self, wanted: bool) -> None:
        """Show what else voxels may be, as labels."""
        self._extras.show_ambiguity(self._pair, wanted)

    def show_novelty(self, wanted: bool) -> None:
        """Show what is like nothing that was painted, as an image."""
        self._extras.show_novelty(self._pair, wanted)

    def accept(self, everything: bool) -> Labels | None:
        """Copy what the prediction shows into an ordinary layer: the slice on screen, or everything.

        Slices gather in one layer, where a slice that was accepted before is replaced; everything makes a new layer.
        """
        viewer, plane = self._viewer(), self.current_plane()
        if viewer is None or plane is None or self._pair is None:
            return None
        if everything:
            return add_everything(viewer, self._live, self._pair)
        return add_slice(viewer, self._live, self._pair, plane)

    def show_whole(self) -> Labels | None:
        """Add a layer of what was predicted into the project, read as it is looked at; None if there is nothing."""
        viewer, paths = self._viewer(), self._live.whole.status.paths
        if viewer is None or self._pair is None or not paths:
            return None
        return add_whole(viewer, self._live, self._pair, paths)

    # --- events of live ---

    def _on_live_paint_changed(self, change: PaintChange) -> None:
        self._paint_changed.emit(change)

    def _on_paint_changed(self, change: PaintChange) -> None:
        if self._pair is not None:
            self._pair.sync(change.frame, change.box)
            self._extras.sync(change.frame, change.box)
            self.objects.update()

    def _show_classes(self, classes: tuple[ClassInfo, ...]) -> None:
        if self._pair is None or self._tools is None:
            return
        self._tools.show_classes(classes)  # before the colours, with which napari announces the label again
        self._pair.show_classes(classes)
        self._extras.show_classes(classes)
        self.unsure.show_classes(classes)

    def _on_predictions_cleared(self) -> None:
        self._feed.clear()
        self._extras.clear()
        if self._pair is not None:
            self._pair.sync_all()

    def _on_feed_drained(self) -> None:
        if self._pair is not None:
            self._pair.prediction.update_thumbnail()
            self._extras.update_thumbnails()

    def _on_freshness_changed(self, _frame: int) -> None:
        self._extras.update_freshness()

    def _write_tile(self, tile: TileUpdate) -> None:
        if self._pair is not None:
            self._pair.write_tile(tile)
            self._extras.write(tile)

    def _draw(self) -> None:
        if self._pair is not None:
            self._pair.redraw()
            self._extras.redraw()

    # --- events of the layers ---

    def _on_painted_at(self, center: tuple[float, float, float]) -> None:
        self._eye = center
        if self._watcher is not None:
            self._watcher.touch()

    def _on_mode_changed(self, mode: Mode) -> None:
        self._mode = mode
        self.mode_changed.emit(mode)

    def _on_class_changed(self, class_id: int) -> None:
        self._class_id = class_id
        self.class_changed.emit(class_id)

    def _on_brush_resized(self, size: int) -> None:
        self._brush_size = size
        self.brush_resized.emit(size)

    def _lose(self, layer: Any) -> None:
        for part in (self._extras, self.objects, self.found, self.spot, self.suggestion):
            part.on_layer_removed(layer)
        if self._pair is None:
            return
        for painted, sentence in zip(self._pair.both, (ANNOTATION_LOST, PREDICTION_LOST), strict=True):
            if painted.layer is layer:
                unbind_keys(layer)
                painted.forget()
                self._losses.tell(sentence.format(name=painted.name))


def _put_aside(layers: list[Any]) -> None:
    """Hide layers of an image that is not worked on any more, and lock them: paint there would be in no project."""
    for layer in layers:
        layer.visible = layer.editable = False
