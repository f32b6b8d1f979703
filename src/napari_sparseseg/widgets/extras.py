"""Extras: the layers beside our two that the user may switch on."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from qtpy.QtCore import QObject, Signal

from napari_sparseseg._types import Box
from napari_sparseseg.live.events import ClassInfo, TileUpdate
from napari_sparseseg.widgets.class_layers import ClassLayers
from napari_sparseseg.widgets.overlays import (
    AmbiguityOverlay,
    FreshnessOverlay,
    IntensityOverlay,
    Overlay,
    TileMap,
    VoxelOverlay,
)

if TYPE_CHECKING:
    from napari_sparseseg.live.live_segmenter import LiveSegmenter
    from napari_sparseseg.widgets.layers import History
    from napari_sparseseg.widgets.pair import LayerPair

Extra = Literal["freshness", "probability", "uncertainty", "ambiguity", "novelty", "class_layers"]


class Extras(QObject):
    """Layers of which each is there only while it is wanted; what they show is told from the next tiles on."""

    removed = Signal(str)
    """The user has removed one of the layers, or the last one of a kind: its name in `Extra`."""
    problem = Signal(str)

    def __init__(self, viewer: Any, live: LiveSegmenter, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._viewer = weakref.ref(viewer)
        self._live = live
        self._shown: dict[Extra, Overlay] = {}
        self._pair: LayerPair | None = None  # of the ambiguity
        self.of_classes: ClassLayers | None = None

    def show_freshness(self, pair: LayerPair | None, wanted: bool) -> None:
        """Colour the tiles that are fresh and those that are not."""
        viewer, tile_shape = self._viewer(), self._live.tile_shape
        if not wanted:
            self._take_away("freshness")
        elif "freshness" not in self._shown and viewer is not None and pair is not None and tile_shape is not None:
            tiles = TileMap(pair.axes, tile_shape, self._live.freshness)
            self._shown["freshness"] = FreshnessOverlay(
                viewer, tiles, f"{pair.source.name} freshness", **pair.placement
            )

    def update_freshness(self) -> None:
        """Show which tiles have become fresh or stale."""
        overlay = self._shown.get("freshness")
        if isinstance(overlay, FreshnessOverlay):
            overlay.update()

    def show_probability(self, pair: LayerPair | None, class_id: int | None) -> None:
        """Show how probable a class is."""
        self._live.show_probability(class_id)
        self._show_intensity(pair, "probability", "magenta", wanted=class_id is not None)

    def show_uncertainty(self, pair: LayerPair | None, wanted: bool) -> None:
        """Show where the network is unsure."""
        self._live.show_uncertainty(wanted)
        self._show_intensity(pair, "uncertainty", "yellow", wanted=wanted)

    def show_novelty(self, pair: LayerPair | None, wanted: bool) -> None:
        """Show what is like nothing that was painted."""
        self._live.show_novelty(wanted)
        self._show_intensity(pair, "novelty", "cyan", wanted=wanted)

    def show_ambiguity(self, pair: LayerPair | None, wanted: bool) -> None:
        """Show what else voxels may be, in colours and in words under the cursor."""
        self._live.show_candidates(wanted)
        viewer, shown = self._viewer(), self._shown.get("ambiguity")
        if not wanted:
            self._take_away("ambiguity")
            if self._pair is not None:
                self._pair.second_at = None
            self._pair = None
        elif isinstance(shown, VoxelOverlay):
            shown.clear()
        elif viewer is not None and pair is not None:
            name, classes = f"{pair.source.name} ambiguity", self._live.classes
            overlay = AmbiguityOverlay(viewer, pair.axes, name, classes, **pair.placement)
            overlay.layer.words = pair.words_at
            pair.second_at = overlay.at
            self._shown["ambiguity"], self._pair = overlay, pair

    def show_class_layers(self, pair: LayerPair | None, history: History, wanted: bool) -> None:
        """Show where each class is, which may overlap others, in a layer of its own."""
        viewer = self._viewer()
        if not wanted:
            self._close_class_layers()
        elif self.of_classes is not None:
            self.of_classes.show_classes(self._live.classes)  # which brings back those that were removed
        elif viewer is not None and pair is not None:
            self.of_classes = ClassLayers(viewer, self._live, pair, history)
            self.of_classes.problem.connect(self.problem)

    def show_classes(self, classes: tuple[ClassInfo, ...]) -> None:
        """Show classes as they are now, and have layers of these, if they are shown."""
        overlay = self._shown.get("ambiguity")
        if isinstance(overlay, AmbiguityOverlay):
            overlay.show_classes(classes)
        if self.of_classes is not None:
            self.of_classes.show_classes(classes)

    def update_thumbnails(self) -> None:
        """Draw the small pictures of what is shown of classes."""
        if self.of_classes is not None:
            self.of_classes.update_thumbnails()

    def sync(self, frame: int, box: Box) -> None:
        """Show what was painted within a box."""
        if self.of_classes is not None:
            self.of_classes.sync(frame, box)

    def write(self, tile: TileUpdate) -> None:
        """Take what a tile tells beside its labels."""
        if self.of_classes is not None:
            self.of_classes.write(tile.frame, tile.box)
        if tile.is_forgotten:
            for voxels in self._voxels():
                voxels.forget(tile)
            return
        told = {
            "probability": tile.probability,
            "uncertainty": tile.uncertainty,
            "novelty": tile.novelty,
            "ambiguity": tile.second,
        }
        for name, overlay in self._shown.items():
            values = told.get(name)
            if isinstance(overlay, VoxelOverlay) and values is not None:
                overlay.write(tile, values)

    def redraw(self) -> None:
        """Draw what was written."""
        for overlay in self._voxels():
            overlay.redraw()
        if self.of_classes is not None:
            self.of_classes.redraw()

    def clear(self) -> None:
        """Forget what was predicted."""
        for overlay in self._voxels():
            overlay.clear()
        if self.of_classes is not None:
            self.of_classes.sync_all()
        self.update_freshness()

    def close(self) -> None:
        """Take all of them out of the viewer."""
        self._close_class_layers()
        for name in list(self._shown):
            self._give_up(name)

    def on_layer_removed(self, layer: Any) -> None:
        """Give up the layer, if it is one of these, and no longer ask for its values."""
        for name in [name for name, overlay in self._shown.items() if overlay.layer is layer]:
            self._give_up(name)
            self.removed.emit(name)
        if self.of_classes is not None and self.of_classes.on_layer_removed(layer) and not len(self.of_classes):
            self.of_classes = None
            self.removed.emit("class_layers")

    def _give_up(self, name: Extra) -> None:
        hide: dict[Extra, Callable[[], None]] = {
            "freshness": lambda: self.show_freshness(None, False),
            "probability": lambda: self.show_probability(None, None),
            "uncertainty": lambda: self.show_uncertainty(None, False),
            "novelty": lambda: self.show_novelty(None, False),
            "ambiguity": lambda: self.show_ambiguity(None, False),
        }
        hide[name]()

    def _close_class_layers(self) -> None:
        layers, self.of_classes = self.of_classes, None
        if layers is not None:
            layers.close()

    def _take_away(self, name: Extra) -> None:
        """Remove a layer, if it is there."""
        overlay = self._shown.pop(name, None)
        if overlay is not None:
            overlay.remove()

    def _show_intensity(self, pair: LayerPair | None, name: Extra, colormap: str, *, wanted: bool) -> None:
        viewer, shown = self._viewer(), self._shown.get(name)
        if not wanted:
            self._take_away(name)
        elif isinstance(shown, VoxelOverlay):
            shown.clear()  # not made anew: it may be the last layer, and napari may crash in a viewer without any
        elif viewer is not None and pair is not None:
            title = f"{pair.source.name} {name}"
            self._shown[name] = IntensityOverlay(viewer, pair.axes, title, colormap, **pair.placement)

    def _voxels(self) -> list[VoxelOverlay]:
        return [overlay for overlay in self._shown.values() if isinstance(overlay, VoxelOverlay)]
