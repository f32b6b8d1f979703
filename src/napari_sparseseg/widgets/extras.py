"""Extras: the layers beside our two that the user may switch on."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Literal

from qtpy.QtCore import QObject, Signal

from napari_sparseseg._types import Box
from napari_sparseseg.live.events import ClassInfo, TileUpdate
from napari_sparseseg.widgets.class_layers import ClassLayers
from napari_sparseseg.widgets.overlays import FreshnessOverlay, IntensityOverlay, TileMap

if TYPE_CHECKING:
    from napari_sparseseg.live.live_segmenter import LiveSegmenter
    from napari_sparseseg.widgets.layers import History
    from napari_sparseseg.widgets.pair import LayerPair

Extra = Literal["freshness", "probability", "uncertainty", "class_layers"]


class Extras(QObject):
    """Freshness, probability and uncertainty as layers, each there only while it is wanted."""

    removed = Signal(str)
    """The user has removed one of the layers, or the last one of a kind: its name in `Extra`."""
    problem = Signal(str)

    def __init__(self, viewer: Any, live: LiveSegmenter, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._viewer = weakref.ref(viewer)
        self._live = live
        self._freshness: FreshnessOverlay | None = None
        self._probability: IntensityOverlay | None = None
        self._uncertainty: IntensityOverlay | None = None
        self.of_classes: ClassLayers | None = None

    def show_freshness(self, pair: LayerPair | None, wanted: bool) -> None:
        """Colour the tiles that are fresh and those that are not."""
        viewer, tile_shape = self._viewer(), self._live.tile_shape
        if self._freshness is not None:
            overlay, self._freshness = self._freshness, None
            overlay.remove()
        if wanted and viewer is not None and pair is not None and tile_shape is not None:
            tiles = TileMap(pair.axes, tile_shape, self._live.freshness)
            self._freshness = FreshnessOverlay(viewer, tiles, f"{pair.source.name} freshness", **pair.placement)

    def update_freshness(self) -> None:
        """Show which tiles have become fresh or stale."""
        if self._freshness is not None:
            self._freshness.update()

    def show_probability(self, pair: LayerPair | None, class_id: int | None) -> None:
        """Show how probable a class is, from the tiles that are predicted from now on."""
        self._live.show_probability(class_id)
        overlay, self._probability = self._probability, None
        if overlay is not None:
            overlay.remove()
        if class_id is not None:
            self._probability = self._intensity(pair, "probability", "magenta")

    def show_uncertainty(self, pair: LayerPair | None, wanted: bool) -> None:
        """Show where the network is unsure, from the tiles that are predicted from now on."""
        self._live.show_uncertainty(wanted)
        overlay, self._uncertainty = self._uncertainty, None
        if overlay is not None:
            overlay.remove()
        if wanted:
            self._uncertainty = self._intensity(pair, "uncertainty", "yellow")

    def show_class_layers(self, pair: LayerPair | None, history: History, wanted: bool) -> None:
        """Show where each class is, which may overlap others, in a layer of its own."""
        viewer, layers = self._viewer(), self.of_classes
        self.of_classes = None
        if layers is not None:
            layers.close()
        if wanted and viewer is not None and pair is not None:
            self.of_classes = ClassLayers(viewer, self._live, pair, history)
            self.of_classes.problem.connect(self.problem)

    def show_classes(self, classes: tuple[ClassInfo, ...]) -> None:
        """Have layers of these classes, if they are shown."""
        if self.of_classes is not None:
            self.of_classes.show_classes(classes)

    def sync(self, frame: int, box: Box) -> None:
        """Show what was painted within a box."""
        if self.of_classes is not None:
            self.of_classes.sync(frame, box)

    def write(self, tile: TileUpdate) -> None:
        """Take what a tile tells beside its labels."""
        if self.of_classes is not None:
            self.of_classes.write(tile.frame, tile.box)
        if self._probability is not None and tile.probability is not None:
            self._probability.write(tile, tile.probability)
        if self._uncertainty is not None and tile.uncertainty is not None:
            self._uncertainty.write(tile, tile.uncertainty)

    def redraw(self) -> None:
        """Draw what was written."""
        for overlay in self._intensities():
            overlay.redraw()
        if self.of_classes is not None:
            self.of_classes.redraw()

    def clear(self) -> None:
        """Forget what was predicted."""
        for overlay in self._intensities():
            overlay.clear()
        if self.of_classes is not None:
            self.of_classes.sync_all()
        self.update_freshness()

    def close(self) -> None:
        """Take all of them out of the viewer."""
        if self.of_classes is not None:
            layers, self.of_classes = self.of_classes, None
            layers.close()
        self.show_freshness(None, False)
        self.show_probability(None, None)
        self.show_uncertainty(None, False)

    def on_layer_removed(self, layer: Any) -> None:
        """Give up the layer, if it is one of these, and no longer ask for its values."""
        if self._freshness is not None and layer is self._freshness.layer:
            self._freshness = None
            self.removed.emit("freshness")
        elif self._probability is not None and layer is self._probability.layer:
            self.show_probability(None, None)
            self.removed.emit("probability")
        elif self._uncertainty is not None and layer is self._uncertainty.layer:
            self.show_uncertainty(None, False)
            self.removed.emit("uncertainty")
        elif self.of_classes is not None and self.of_classes.on_layer_removed(layer) and not len(self.of_classes):
            self.of_classes = None
            self.removed.emit("class_layers")

    def _intensity(self, pair: LayerPair | None, name: Extra, colormap: str) -> IntensityOverlay | None:
        viewer = self._viewer()
        if viewer is None or pair is None:
            return None
        return IntensityOverlay(viewer, pair.axes, f"{pair.source.name} {name}", colormap, **pair.placement)

    def _intensities(self) -> list[IntensityOverlay]:
        return [overlay for overlay in (self._probability, self._uncertainty) if overlay is not None]
