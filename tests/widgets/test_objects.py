"""Objects are painted with mouse and keys: each has an id of its own, which the store holds and a layer shows."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_sparseseg._types import Box, Plane
from napari_sparseseg.widgets.object_panel import ObjectPanel

BACKGROUND, OBJECT, OTHER = 1, 2, 3


@pytest.fixture
def stage(set_stage):
    stage = set_stage()
    stage.bridge.go_to(Plane(0, 0, 4))
    stage.tools("paint", OBJECT, brush=5)
    stage.bridge.objects.switch(True)
    return stage


def ids_at(stage, *points):
    return [int(stage.live.objects(0, Box(p, tuple(c + 1 for c in p))).item()) for p in points]


def id_layer(stage):
    return next(layer for layer in stage.viewer.layers if layer.name.endswith("painted objects"))


@pytest.mark.window
def test_each_object_has_its_id_and_the_class_stays(stage):
    for row in (8, 20, 32):
        stage.drag((4, row, 10), (4, row, 20))
        stage.key("N")
    assert ids_at(stage, (4, 8, 12), (4, 20, 12), (4, 32, 12), (4, 14, 12)) == [1, 2, 3, 0]
    assert stage.bridge.objects.object_id == 4
    assert set(np.unique(stage.live.codes)) == {0, OBJECT}
    whole = stage.live.objects(0, Box.whole(stage.live.shape[1:]))
    np.testing.assert_array_equal(np.asarray(id_layer(stage).data), whole)
    np.testing.assert_array_equal(id_layer(stage).data[4, 5:9, ::2], whole[4, 5:9, ::2])
    assert stage.viewer.layers.selection.active is stage.annotation
    stage.screenshot("objects")


def test_switched_on_with_the_eraser_in_hand_it_paints(stage):
    stage.bridge.objects.switch(False)
    stage.key("E")
    stage.bridge.objects.switch(True)
    assert stage.annotation.mode == "paint"
    stage.key("E")
    stage.key("N")
    assert stage.annotation.mode == "erase", "an object in hand may be erased"


def test_next_is_the_same_until_something_is_painted(stage):
    stage.key("N")
    stage.key("N")
    assert stage.bridge.objects.object_id == 1


@pytest.mark.parametrize("mode", ["paint", "correct"])
def test_painting_the_same_class_over_an_object_takes_voxels_of_it(stage, mode):
    stage.tools(mode, OBJECT, brush=5)
    stage.drag((4, 20, 10), (4, 20, 30))
    stage.key("N")
    stage.drag((4, 20, 20), (4, 20, 30))
    assert ids_at(stage, (4, 20, 12), (4, 20, 26)) == [1, 2]
    stage.key("Z", "Control")
    assert ids_at(stage, (4, 20, 12), (4, 20, 26)) == [1, 1]
    stage.key("Z", "Control", "Shift")
    assert ids_at(stage, (4, 20, 12), (4, 20, 26)) == [1, 2]


def test_erasing_takes_the_id_away_and_the_background_has_none(stage):
    stage.drag((4, 20, 10), (4, 20, 30))
    stage.key("E")
    stage.drag((4, 20, 20), (4, 20, 22))
    assert ids_at(stage, (4, 20, 12), (4, 20, 21)) == [1, 0]
    stage.key("P")
    stage.tools("paint", BACKGROUND)
    stage.drag((4, 20, 10), (4, 20, 12))
    assert ids_at(stage, (4, 20, 11), (4, 20, 28)) == [0, 1]


def test_the_object_under_the_brush_is_told_and_picked(stage):
    stage.drag((4, 8, 10), (4, 8, 20))
    stage.key("N")
    stage.move((4, 8, 14), "")
    assert (stage.bridge.objects.object_id, stage.bridge.objects.hovered) == (2, 1)
    stage.key("J")
    assert stage.bridge.objects.object_id == 1
    stage.move((4, 30, 30), "")
    assert stage.bridge.objects.hovered == 0
    stage.key("J")
    assert stage.bridge.objects.object_id == 1
    assert stage.problems == ["There is no painted object under the brush"]


def test_switched_off_paint_has_no_ids_and_the_layer_is_gone(stage):
    stage.drag((4, 8, 10), (4, 8, 20))
    stage.bridge.objects.switch(False)
    stage.drag((4, 30, 10), (4, 30, 20))
    assert ids_at(stage, (4, 8, 12), (4, 30, 12)) == [1, 0]
    assert len(stage.viewer.layers) == 3
    stage.key("N")
    assert stage.bridge.objects.object_id == 0
    stage.bridge.objects.switch(True)
    assert stage.bridge.objects.object_id == 2


def test_removing_the_layer_of_ids_switches_off(stage):
    changes = []
    stage.bridge.objects.changed.connect(lambda: changes.append(stage.bridge.objects.object_id))
    stage.viewer.layers.remove(id_layer(stage))
    assert changes == [0]
    stage.drag((4, 8, 10), (4, 8, 20))
    assert ids_at(stage, (4, 8, 12)) == [0]


@pytest.mark.parametrize(("shape", "time"), [((30, 40), False), ((3, 12, 30, 40), True)])
def test_planes_and_time_series_have_objects(set_stage, shape, time):
    stage = set_stage(np.zeros(shape, np.uint8), **({"axis_labels": ("t", "z", "y", "x")} if time else {}))
    stage.tools("paint", OBJECT, brush=5)
    stage.bridge.objects.switch(True)
    at = tuple(stage.viewer.dims.current_step[: len(shape) - 2])
    stage.drag((*at, 10, 10), (*at, 10, 20))
    expected = stage.bridge._pair.axes.as_frames(stage.annotation.data) == OBJECT
    shown = stage.bridge._pair.axes.as_frames(np.asarray(id_layer(stage).data))
    np.testing.assert_array_equal(shown, expected)
    assert expected.any()


def test_the_panel_tells_wishes_and_shows_what_is_so(qtbot):
    panel, wishes = ObjectPanel(), []
    qtbot.addWidget(panel)
    panel.toggled.connect(wishes.append)
    panel.next_requested.connect(lambda: wishes.append("next"))
    panel.show()
    panel._switch.click()
    assert not panel._switch.isChecked()
    panel.show_objects(3, 0)
    assert panel._switch.isChecked()
    assert panel._text.text() == "number 3"
    panel.show_objects(3, 12)
    assert panel._text.text() == "number 3 · here: 12"
    QTest.mouseClick(panel._button, Qt.MouseButton.LeftButton)
    panel._switch.click()
    assert wishes == [True, "next", False]
