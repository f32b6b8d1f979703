"""Paint that could be any of some classes, by mouse and keys: what the store holds, what is shown, how it ends."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_sparseseg._types import Plane
from napari_sparseseg.live.events import ClassInfo
from napari_sparseseg.widgets.unsure_panel import UnsurePanel

BACKGROUND, OBJECT, OTHER = 1, 2, 3


@pytest.fixture
def stage(set_stage):
    stage = set_stage()
    stage.bridge.go_to(Plane(0, 0, 4))
    stage.tools("paint", OBJECT, brush=5)
    return stage


def possible_at(stage, y, x, z=4):
    return set(stage.live.allowed(int(stage.live.codes[0, z, y, x])))


@pytest.mark.window
@pytest.mark.parametrize("mode", ["paint", "correct"])
def test_a_stroke_leaves_the_chosen_classes_possible(stage, mode):
    stage.live.predict(BACKGROUND)
    stage.settle()
    stage.bridge.unsure.allow(BACKGROUND, False)
    stage.tools(mode, OBJECT)
    stage.key("U")
    stage.drag((4, 20, 10), (4, 20, 30))
    assert possible_at(stage, 20, 20) == {OBJECT, OTHER}
    assert stage.live.codes[0, 4, 5, 20] == 0
    assert int(stage.annotation.data[4, 20, 20]) == stage.live.codes[0, 4, 20, 20] >= 128
    assert stage.prediction.data[4, 20, 20] == 0, "the background that was shown is ruled out"
    assert stage.bridge.mode == mode
    assert not stage.problems
    stage.key("Z", "Control")
    assert not stage.live.codes.any()


def test_the_same_key_or_a_class_ends_it(stage):
    changes = []
    stage.bridge.unsure.changed.connect(lambda: changes.append(stage.bridge.unsure.is_on))
    stage.key("U")
    stage.key("U")
    assert stage.annotation.selected_label == OBJECT
    stage.key("U")
    stage.key("3")
    assert stage.annotation.selected_label == stage.prediction.selected_label == OTHER
    stage.key("U")
    stage.key("3")  # the class that is in hand already
    assert stage.annotation.selected_label == OTHER
    assert not changes[-1]
    stage.drag((4, 20, 10), (4, 20, 30))
    assert stage.live.codes[0, 4, 20, 20] == OTHER


@pytest.mark.parametrize("mode", ["paint", "correct"])
def test_switched_on_with_the_eraser_in_hand_it_paints(stage, mode):
    stage.tools(mode, OBJECT)
    stage.key("E")
    stage.key("U")
    assert stage.viewer.layers.selection.active.mode == "paint"
    stage.drag((4, 20, 10), (4, 20, 30))
    assert possible_at(stage, 20, 20) == {BACKGROUND, OBJECT, OTHER}


def test_erasing_goes_on_to_erase(stage):
    stage.key("U")
    stage.drag((4, 20, 10), (4, 20, 30))
    stage.key("E")
    stage.drag((4, 20, 10), (4, 20, 30))
    assert not stage.live.codes[0, 4, 20, 12:28].any()
    stage.key("P")
    stage.drag((4, 20, 10), (4, 20, 30))
    assert possible_at(stage, 20, 20) == {BACKGROUND, OBJECT, OTHER}


def test_two_classes_remain_possible_at_least(stage):
    unsure = stage.bridge.unsure
    for class_id in (BACKGROUND, OBJECT):
        unsure.allow(class_id, False)
    assert unsure.class_ids == (OBJECT, OTHER)


def test_a_class_that_goes_is_not_possible_any_more(stage):
    stage.key("U")
    stage.live.classes = stage.live.classes[:2]
    stage.bridge.unsure.show_classes(stage.live.classes)
    stage.drag((4, 20, 10), (4, 20, 30))
    assert stage.live.store.sets[int(stage.live.codes[0, 4, 20, 20])].class_ids == {BACKGROUND, OBJECT}


def test_belongs_to_no_object(stage):
    stage.bridge.objects.switch(True)
    stage.key("U")
    stage.drag((4, 20, 10), (4, 20, 30))
    assert possible_at(stage, 20, 20) == {BACKGROUND, OBJECT, OTHER}
    assert not stage.problems


def test_another_image_begins_with_classes(stage):
    stage.key("U")
    assert stage.bridge.unsure.is_on
    stage.live.open(stage.source.array)
    stage.bridge.open(stage.source)
    assert not stage.bridge.unsure.is_on
    assert stage.annotation.selected_label == OBJECT


def test_panel_says_what_is_wished_and_changes_when_it_is_shown(qtbot):
    panel = UnsurePanel()
    qtbot.addWidget(panel)
    panel.show()
    classes = tuple(ClassInfo(i, name, (1.0, 0.0, 0.0)) for i, name in ((1, "fluid"), (2, "cell"), (5, "wall")))
    toggled, allowed = [], []
    panel.toggled.connect(toggled.append)
    panel.allowed.connect(lambda class_id, possible: allowed.append((class_id, possible)))
    QTest.mouseClick(panel._switch, Qt.MouseButton.LeftButton, pos=panel._switch.rect().center())
    assert toggled == [True]
    assert not panel._switch.isChecked()
    panel.show_unsure(True, classes, (1, 2, 5))
    assert panel._text.text() == "any class"
    panel._menu.popup(panel.mapToGlobal(panel.rect().center()))
    wall = panel._menu.actionGeometry(panel._menu.actions()[2]).center()
    QTest.mouseMove(panel._menu, wall)
    QTest.mouseClick(panel._menu, Qt.MouseButton.LeftButton, pos=wall)
    assert allowed == [(5, False)]
    assert panel._menu.isVisible(), "another class can be chosen at once"
    panel.show_unsure(True, classes, (1, 2))
    assert panel._text.text() == "fluid or cell"
    assert [action.isEnabled() for action in panel._menu.actions()] == [False, False, True]
    panel._menu.close()


def test_a_doubtful_stroke_is_grey(stage):
    stage.bridge.unsure.allow(BACKGROUND, False)
    stage.key("U")
    stage.drag((4, 12, 10), (4, 30, 40))
    color = stage.annotation.get_color(int(stage.live.codes[0].max()))
    np.testing.assert_allclose(color[0], color[1])


def test_from_the_dock_into_the_annotation(make_napari_viewer, request):
    viewer = make_napari_viewer(show=True)
    viewer.window.resize(1200, 900)
    rng = np.random.default_rng(0)
    viewer.add_image(rng.integers(0, 100, (10, 48, 48)).astype(np.uint8), name="cells")
    _, dock = viewer.window.add_plugin_dock_widget("napari-sparseseg", "Sparse Segmentation")
    QTest.qWait(50)
    session = dock.session
    shared = request.config.pluginmanager.get_plugin(str(Path(__file__).parent / "conftest.py"))
    stage = shared.Stage(viewer, session.live, session.relay, session.bridge, session.source)
    session.live.add_class("wall")
    stage.settle()
    stage.bridge.go_to(Plane(0, 0, 4))
    stage.tools("paint", OBJECT, brush=5)
    panel = dock.unsure_panel
    QTest.mouseClick(panel._switch, Qt.MouseButton.LeftButton, pos=panel._switch.rect().center())
    assert panel._switch.isChecked()
    panel._menu.actions()[0].trigger()
    assert panel._text.text() == "object or wall"
    stage.drag((4, 12, 10), (4, 30, 40))
    stage.settle()
    stage.screenshot("unsure")
    assert possible_at(stage, 12, 10) == {OBJECT, OTHER}
    dock.class_panel.class_chosen.emit(OTHER)
    assert not panel._switch.isChecked()
    stage.screenshot("unsure-ended")
