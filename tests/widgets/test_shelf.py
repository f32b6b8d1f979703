"""The shelf of models in the dock: kept, listed, started from and removed by the mouse, with an image open."""

from __future__ import annotations

import os
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_sparseseg import SparseSegmenter
from napari_sparseseg._types import Box, Plane, Region
from napari_sparseseg.config import ModelConfig, TrainingConfig
from napari_sparseseg.live.events import LiveState, LiveStatus
from napari_sparseseg.live.shelf import ShelfModel
from napari_sparseseg.widgets import actions
from napari_sparseseg.widgets.dock import WIDTH
from napari_sparseseg.widgets.home import shelf
from napari_sparseseg.widgets.shelf_panel import ShelfPanel

LEFT = Qt.MouseButton.LeftButton
SHAPE = (8, 32, 32)
SMALL = ModelConfig(width=4, depth=2, scales=(1.0, 2.0, 4.0), head_width=32)
QUICK = TrainingConfig(warm_start_steps=40, patch_voxels=2048)
MODELS = (
    ShelfModel(
        Path("nuclei of the mouse embryo, eight cells, second try.safetensors"), ("background", "nucleus"), 0.91, 1e9
    ),
    ShelfModel(Path("walls.safetensors"), ("1", "2", "3"), None, 1.1e9),
)


@pytest.fixture
def panel(qtbot):
    panel = ShelfPanel()
    qtbot.addWidget(panel)
    panel.setFixedWidth(334)
    panel.set_unfolded(True)
    panel.show()
    return panel


def choose(panel, number):
    rect = panel._list.visualItemRect(panel._list.item(number))
    QTest.mouseClick(panel._list.viewport(), LEFT, Qt.KeyboardModifier.NoModifier, rect.center())


class TestPanel:
    def test_each_model_tells_name_dice_and_classes(self, panel):
        panel.show_models(MODELS)
        first, second = (panel._list.item(n).text() for n in range(2))
        assert first.startswith("nuclei of the mouse")
        assert "Dice ~0.91" in first
        assert "background, nucleus" in first
        assert "Dice not known" in second

    def test_it_starts_from_the_chosen_one_only_where_there_is_an_image(self, panel, qtbot):
        wished = Mock()
        panel.start_requested.connect(wished)
        panel.show_models(MODELS)
        assert not panel._start.isEnabled()
        choose(panel, 1)
        assert not panel._start.isEnabled()
        assert panel._start.toolTip() == "Open an image first."
        panel.show_status(LiveStatus(LiveState.WAITING))
        qtbot.mouseClick(panel._start, LEFT)
        wished.assert_called_once_with(MODELS[1])

    def test_it_keeps_under_a_name_what_was_learnt(self, panel, qtbot):
        wished = Mock()
        panel.keep_requested.connect(wished)
        qtbot.mouseClick(panel._keep, LEFT)
        wished.assert_not_called()
        panel.show_status(LiveStatus(LiveState.TRAINING, has_model=True))
        qtbot.keyClicks(panel._name, " my cells ")
        qtbot.mouseClick(panel._keep, LEFT)
        wished.assert_called_once_with("my cells")

    def test_a_new_list_keeps_the_choice(self, panel):
        panel.show_models(MODELS)
        choose(panel, 1)
        panel.show_models((MODELS[1],))
        assert panel._chosen == MODELS[1]
        panel.show_models(())
        assert panel._chosen is None
        assert not panel._remove.isEnabled()

    def test_a_long_name_makes_it_no_wider(self, panel):
        before = panel.minimumSizeHint().width()
        panel.show_models(MODELS)
        assert panel.minimumSizeHint().width() == before <= 260
        for widget in (panel._list, panel._start, panel._remove, panel._name, panel._keep):
            assert panel.rect().contains(widget.geometry().translated(widget.parentWidget().pos()))


def test_from_the_shelf_to_the_shelf_with_an_image_open(make_napari_viewer, qtbot, monkeypatch):
    asked = Mock(return_value=True)
    monkeypatch.setattr(actions, "ask", asked)
    image = np.random.default_rng(0).normal(100, 10, SHAPE).astype(np.float32)
    image[:, 8:24, 8:24] += 60
    codes = np.zeros(SHAPE, np.uint8)
    codes[4], codes[4, 8:24, 8:24] = 5, 6
    shelf().mkdir(parents=True)
    start = SparseSegmenter(model=SMALL, training=QUICK, random_state=0, device="cpu", progress=False)
    start.fit(image, codes, max_steps=3).save(shelf() / "from elsewhere.safetensors")

    viewer = make_napari_viewer(show=True)
    viewer.window._qt_window.resize(1500, 950)
    viewer.add_image(image, name="cells")
    _, dock = viewer.window.add_plugin_dock_widget("napari-sparseseg", "Sparse Segmentation")
    qtbot.waitUntil(lambda: dock.session.source is not None)
    live, panel = dock.session.live, dock.shelf_panel
    live.configure(training=QUICK)
    qtbot.waitUntil(lambda: dock.width() == WIDTH)
    qtbot.mouseClick(panel._button, LEFT)
    qtbot.waitUntil(lambda: panel._list.count() == 1, timeout=60_000)
    choose(panel, 0)
    qtbot.waitUntil(panel._start.isEnabled, timeout=60_000)
    qtbot.mouseClick(panel._start, LEFT)
    asked.assert_not_called()  # nothing was learnt here

    for class_id, box in ((1, Box((4, 1, 1), (5, 7, 31))), (2, Box((4, 10, 10), (5, 22, 22)))):
        live.annotate(Region(0, box), class_id, plane=Plane(0, 0, 4))
    qtbot.waitUntil(panel._keep.isEnabled, timeout=60_000)
    assert live._worker.loop.learner.fitted.spec.config == SMALL
    qtbot.keyClicks(panel._name, "mine")
    qtbot.mouseClick(panel._keep, LEFT)
    assert (shelf() / "mine.safetensors").is_file()
    qtbot.waitUntil(lambda: panel._list.count() == 2, timeout=60_000)
    assert "background, object" in panel._list.item(0).text()
    assert dock.width() == WIDTH
    if folder := os.environ.get("SPARSESEG_SCREENSHOTS"):
        QTest.qWait(1500)
        viewer.screenshot(str(Path(folder) / "shelf.png"), canvas_only=False, flash=False)

    choose(panel, 1)
    qtbot.mouseClick(panel._start, LEFT)
    asked.assert_called_once()
    choose(panel, 1)
    qtbot.mouseClick(panel._remove, LEFT)
    qtbot.waitUntil(lambda: panel._list.count() == 1, timeout=60_000)
    assert not (shelf() / "from elsewhere.safetensors").exists()
    live.pause()
