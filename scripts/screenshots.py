"""Takes the tutorial's pictures: a real napari window at each stage, driven by mouse and keys.

Run it as `xvfb-run -a -s "-screen 0 1600x1000x24" python scripts/screenshots.py [FOLDER]`.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("QT_API", "pyside6")
os.environ["SPARSESEG_HOME"] = tempfile.mkdtemp()

import napari
import numpy as np
from hand import Hand, let_live
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QWidget
from scipy import ndimage

from napari_sparseseg._types import Box
from napari_sparseseg.live.events import LiveState
from napari_sparseseg.samples import BACKGROUND, MEMBRANE, NUCLEUS, Sample, tissue
from napari_sparseseg.widgets.dock import SparseSegDock
from napari_sparseseg.widgets.session import Session, session_of

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "tutorial" / "images"
_STEPS_FOR_OBJECTS = 120
COLORS = {NUCLEUS: (0.9, 0.6, 0.0), MEMBRANE: (0.35, 0.7, 0.9)}


class Tutorial:
    """The steps of the tutorial, in order; each leaves a picture."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.sample: Sample = tissue()
        self.viewer = napari.Viewer(show=True)
        self.viewer.window.resize(1280, 860)
        self.viewer.theme = "dark"
        self.hand = Hand(self.viewer)

    def run(self) -> None:
        """All stages."""
        self.open()
        self.paint_two_classes()
        self.add_a_class()
        self.let_it_learn()
        self.correct()
        self.turn()
        self.see_in_3d()
        self.accept()
        self.come_back()
        self.paint_objects()
        self.find_objects()
        self.viewer.close()

    def open(self) -> None:
        """Sample and dock."""
        self.viewer.open_sample("napari-sparseseg", "tissue")
        self.viewer.window.add_plugin_dock_widget("napari-sparseseg", "Sparse Segmentation")
        self.session: Session = session_of(self.viewer)
        self.wait_for(lambda: self.session.live.status.state is LiveState.WAITING)
        self.go_to(0, 24)
        self.picture("1-open")

    def paint_two_classes(self) -> None:
        """A few strokes on one slice, and the first prediction."""
        self.session.live.rename_class(NUCLEUS, "nucleus")
        self.brush(5)
        self.hand.key(Qt.Key.Key_1)
        for place in self.places(BACKGROUND, 24, 3):
            self.dab(place)
        self.hand.key(Qt.Key.Key_2)
        for place in self.places(NUCLEUS, 24, 2):
            self.dab(place)
        self.wait_for(lambda: bool(self.session.live.labels(0)[24].all()))
        let_live(0.7)
        self.picture("2-first-prediction")

    def add_a_class(self) -> None:
        """Membranes as a third class."""
        self.session.live.add_class("membrane")
        self.hand.key(Qt.Key.Key_3)
        self.brush(2)
        for place in self.places(MEMBRANE, 24, 5):
            self.dab(place, reach=1)
        self.picture("3-third-class", seconds=4)

    def let_it_learn(self) -> None:
        """Half a minute later."""
        self.picture("4-half-a-minute", seconds=30)

    def correct(self) -> None:
        """Paint on the prediction where it is wrong, and erase."""
        self.session.bridge.set_mode("correct")
        self.brush(3)
        shown, truth = self.session.live.labels(0)[24], self.sample.truth[24]
        wrong = ndimage.binary_opening((shown != truth) & (shown > 0), iterations=1)
        for y, x in self.spread(wrong, 4):
            self.session.bridge.set_class(int(truth[y, x]))
            self.dab((y, x), reach=1)
        self.picture("5-correct", seconds=2)

    def turn(self) -> None:
        """Look along another axis, and paint there."""
        self.viewer.dims.order = (1, 0, 2)
        self.viewer.reset_view()
        self.go_to(1, 64)
        self.session.bridge.set_mode("paint")
        self.picture("6-other-orientation", seconds=6)

    def see_in_3d(self) -> None:
        """The prediction as a volume."""
        self.wait_for(lambda: self.is_mostly_fresh(), seconds=90)
        self.viewer.dims.order = (0, 1, 2)
        self.viewer.dims.ndisplay = 3
        self.viewer.layers["tissue"].visible = False
        self.viewer.layers["tissue annotation"].visible = False
        self.viewer.scene.camera.angles = (10, -30, 150)
        self.picture("7-volume", seconds=2)
        self.viewer.dims.ndisplay = 2
        for name in ("tissue", "tissue annotation"):
            self.viewer.layers[name].visible = True

    def accept(self) -> None:
        """Copy the prediction to a layer of one's own."""
        self.session.live.pause()
        self.go_to(0, 24)
        self.session.bridge.accept(True)
        self.picture("8-accept", seconds=2)

    def come_back(self) -> None:
        """Close the viewer, and open the project in a new one."""
        project = self.session.project.path if self.session.project else None
        self.viewer.close()
        let_live(0.5)
        self.viewer = napari.Viewer(show=True)
        self.viewer.window.resize(1280, 860)
        self.viewer.theme = "dark"
        self.hand = Hand(self.viewer)
        self.viewer.open(project, plugin="napari-sparseseg")
        let_live(0.1)
        self.session = session_of(self.viewer)
        self.wait_for(lambda: self.session.live.status.has_model)
        self.picture("9-come-back", seconds=2)

    def paint_objects(self) -> None:
        """Some nuclei, each with a number of its own."""
        self.go_to(0, 24)
        self.session.bridge.set_mode("paint")
        self.session.bridge.objects.switch(True)
        self.brush(7)
        self.hand.key(Qt.Key.Key_2)
        for place in self.places(NUCLEUS, 24, 4):
            self.dab(place)
            self.hand.key(Qt.Key.Key_N)
        self.picture("10-objects", seconds=1)

    def find_objects(self) -> None:
        """Find what is on screen; merge, split and delete by the mouse; and measure the rest."""
        bridge, found, panel = self.session.bridge, self.session.live.found, self.dock.found_panel
        bridge.objects.switch(False)
        self.session.live.start()
        first = self.session.live.status.step
        self.wait_for(lambda: self.session.live.status.step >= first + _STEPS_FOR_OBJECTS, seconds=240)
        self.session.live.pause()
        self.viewer.layers["tissue prediction"].visible = False
        self.click(panel._here)
        self.wait_for(lambda: not found.is_empty, seconds=120)
        self.click(panel.table._section._button)
        self.wait_for(lambda: bridge.found.table.table is not None, seconds=60)
        for tool, points in (("merge", self.neighbours), ("split", self.ends), ("delete", self.smallest)):
            self.click(panel._tools[tool])
            self.hand.stroke(*(self.world(place) for place in points()))
            let_live(0.3)
        self.click(panel._tools["delete"])
        count = found.count(0)
        self.wait_for(lambda: len(bridge.found.table.table.rows) == count, seconds=60)
        self.dock._scroll.ensureWidgetVisible(panel.table)
        let_live(0.3)
        view = panel.table._view
        header = view.horizontalHeader()
        volume = QPoint(header.sectionViewportPosition(2) + header.sectionSize(2) // 2, 8)
        for _ in range(2):  # the largest first
            self.click(header.viewport(), volume)
        self.click(view.viewport(), view.visualRect(panel.table._model.index(0, 2)).center())
        self.picture("11-find-objects", seconds=2)

    # --- objects on the slice on screen ---

    @property
    def ids(self) -> np.ndarray:
        """The objects that were found on slice 24."""
        _, height, width = self.sample.image.shape
        return self.session.live.found.ids(0, Box((24, 0, 0), (25, height, width)))[0]

    def neighbours(self) -> list[tuple[int, int]]:
        """A voxel each of the two objects that are closest to each other."""
        ids, places = self.ids, []
        for number in np.unique(ids[ids > 0]).tolist():
            away, nearest = ndimage.distance_transform_edt((ids == 0) | (ids == number), return_indices=True)
            away[ids != number] = np.inf
            place = np.unravel_index(int(away.argmin()), away.shape)
            places.append((float(away[place]), number, int(ids[tuple(nearest[(slice(None), *place)])])))
        _, *pair = min(places)
        return [self.middle(ids == number) for number in pair]

    def ends(self) -> list[tuple[int, int]]:
        """Two voxels far apart in the largest object."""
        ids = self.ids
        inside = np.argwhere(ndimage.binary_erosion(ids == np.bincount(ids[ids > 0]).argmax()))
        along = (inside - inside.mean(0)) @ np.linalg.svd(inside - inside.mean(0), full_matrices=False)[2][0]
        return [(int(y), int(x)) for y, x in (inside[along.argmin()], inside[along.argmax()])]

    def smallest(self) -> list[tuple[int, int]]:
        """A voxel of the smallest object, to be clicked."""
        ids = self.ids
        numbers, sizes = np.unique(ids[ids > 0], return_counts=True)
        return [self.middle(ids == numbers[sizes.argmin()])] * 2

    def middle(self, mask: np.ndarray) -> tuple[int, int]:
        """The voxel deepest inside."""
        y, x = np.unravel_index(int(ndimage.distance_transform_edt(mask).argmax()), mask.shape)
        return int(y), int(x)

    # --- small steps ---

    @property
    def dock(self) -> Any:
        """The dock of the plugin."""
        return next(dock for dock in self.viewer.window.dock_widgets.values() if isinstance(dock, SparseSegDock))

    def click(self, widget: QWidget, place: QPoint | None = None) -> None:
        """A click on a control of the dock."""
        where = widget.rect().center() if place is None else place
        QTest.mouseClick(widget, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, where)
        let_live(0.1)

    def world(self, place: tuple[int, int]) -> tuple[float, float]:
        """Where a voxel of the slice on screen lies."""
        y, x = (voxel * size for voxel, size in zip(place, self.sample.spacing[1:], strict=True))
        return y, x

    def brush(self, size: int) -> None:
        """Set the brush size of the layer that is painted on, in voxels."""
        self.viewer.layers.selection.active.brush_size = size

    def dab(self, place: tuple[int, int], reach: int = 4) -> None:
        """A short stroke around a voxel of the slice on screen."""
        y, x = (voxel * size for voxel, size in zip(place, self.sample.spacing[1:], strict=True))
        size = reach * self.sample.spacing[1]
        self.hand.stroke((y - size, x - size / 2), (y + size, x + size / 2))

    def places(self, class_id: int, z: int, n: int) -> list[tuple[int, int]]:
        """Voxels well inside a class."""
        inside = ndimage.distance_transform_edt(self.sample.truth[z] == class_id)
        return self.spread(inside >= np.percentile(inside[inside > 0], 80), n)

    def spread(self, mask: np.ndarray, n: int) -> list[tuple[int, int]]:
        """Some voxels of a mask, far from each other."""
        margin = 12
        mask = mask.copy()
        mask[:margin] = mask[-margin:] = mask[:, :margin] = mask[:, -margin:] = False
        found: list[tuple[int, int]] = []
        for y, x in np.random.default_rng(2).permutation(np.argwhere(mask)).tolist():
            if len(found) < n and all((y - v) ** 2 + (x - u) ** 2 > 400 for v, u in found):
                found.append((y, x))
        return found

    def go_to(self, axis: int, index: int) -> None:
        """Move the slider."""
        self.viewer.dims.set_point(axis, index * self.sample.spacing[axis])
        let_live(0.1)

    def is_mostly_fresh(self) -> bool:
        """Whether nearly the whole volume is predicted."""
        status = self.session.live.status
        return bool((self.session.live.freshness(0) > 0).all()) or status.state is LiveState.UP_TO_DATE

    def wait_for(self, condition: Callable[[], bool], seconds: float = 30) -> None:
        """Let the window live until something is true."""
        end = time.perf_counter() + seconds
        while not condition() and time.perf_counter() < end:
            let_live(0.02)

    def picture(self, name: str, seconds: float = 0.5) -> None:
        """Wait a little, and take a picture of the window."""
        let_live(seconds)
        self.viewer.window.screenshot(str(self.folder / f"{name}.png"), canvas_only=False, flash=False)


if __name__ == "__main__":
    Tutorial(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER).run()
