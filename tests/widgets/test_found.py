"""Objects that were found are shown, and corrected by clicks and drags."""

from __future__ import annotations

from concurrent.futures import Future
from threading import Thread

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_sparseseg._types import Box, Plane
from napari_sparseseg.live.events import LiveStatus
from napari_sparseseg.widgets.found_panel import FoundPanel
from napari_sparseseg.widgets.layers import FoundLayer

SHAPE = (12, 40, 48)
LEFT, RIGHT, OTHER = (4, 20, 12), (4, 20, 28), (4, 6, 42)


def two_that_touch():
    ids = np.zeros(SHAPE, np.uint32)
    ids[2:8, 12:28, 6:20], ids[2:8, 12:28, 20:34], ids[2:8, 3:9, 38:46] = 1, 2, 3
    return ids


@pytest.fixture
def stage(set_stage):
    stage = set_stage()
    stage.bridge.go_to(Plane(0, 0, 4))
    ids = two_that_touch()
    stage.live.predict(np.where(ids > 0, 2, 1))
    stage.live.find(ids)
    stage.settle()
    return stage


def ids_at(stage, *points):
    return [int(stage.live.found.ids(0, Box(p, tuple(c + 1 for c in p))).item()) for p in points]


def found_layers(stage):
    return [layer for layer in stage.viewer.layers if isinstance(layer, FoundLayer)]


def test_they_are_shown_above_and_the_selected_layer_stays(stage):
    (layer,) = found_layers(stage)
    assert layer is stage.viewer.layers[-1]
    assert stage.viewer.layers.selection.active is stage.annotation
    np.testing.assert_array_equal(np.asarray(layer.data), two_that_touch())
    np.testing.assert_array_equal(layer.data[4, ::3, 5:30], two_that_touch()[4, ::3, 5:30])
    assert stage.bridge.found.count == 3
    stage.screenshot("found")


@pytest.mark.window
def test_a_drag_across_merges_and_undo_takes_it_back(stage):
    stage.bridge.found.choose("merge")
    center = stage.viewer.scene.camera.center
    stage.drag(LEFT, RIGHT)
    assert ids_at(stage, LEFT, RIGHT, OTHER) == [1, 1, 3]
    assert stage.viewer.scene.camera.center == center
    assert (stage.annotation.data[4, 12:28, 6:34] == 2).all()
    assert np.unique(stage.live.objects(0, Box((4, 12, 6), (5, 28, 34)))).tolist() == [1]
    stage.settle()
    assert stage.bridge.found.count == 2
    stage.screenshot("found-merged")
    stage.key("Z", "Control")
    assert ids_at(stage, LEFT, RIGHT, OTHER) == [1, 2, 3]
    assert not stage.annotation.data.any()
    stage.key("Z", "Control", "Shift")
    assert ids_at(stage, LEFT, RIGHT, OTHER) == [1, 1, 3]
    assert not stage.problems


def test_two_clicks_split(stage):
    stage.bridge.found.choose("split")
    stage.click((4, 20, 8))
    assert stage.bridge.found.has_first
    stage.click((4, 20, 17))
    assert not stage.bridge.found.has_first
    one, other = ids_at(stage, (4, 20, 8), (4, 20, 17))
    assert {one, other} == {1, 4}
    assert (stage.annotation.data[4, 12:28, 6:20] == 2).all()
    assert np.unique(stage.live.objects(0, Box((4, 12, 6), (5, 28, 20)))).tolist() == [1, 2]


def test_the_window_does_not_wait_for_a_split_and_a_second_one_of_the_same_is_told(stage, monkeypatch):
    monkeypatch.setattr("napari_sparseseg.live.found_objects._AT_ONCE", 0)
    asked = []

    def later(function):
        future = Future()
        asked.append((future, function))
        return future

    stage.live.compute = later
    stage.bridge.found.choose("split")
    stage.drag((4, 20, 8), (4, 20, 17))
    stage.drag((4, 20, 9), (4, 20, 17))
    stage.drag((4, 20, 22), (4, 20, 32))
    assert stage.live.found.count(0) == 3
    threads = [Thread(target=lambda f=future, do=do: f.set_result(do())) for future, do in asked]
    for thread in threads:
        thread.start()
        thread.join()
    assert stage.live.found.count(0) == 3  # it is done by the window's thread
    QTest.qWait(20)
    assert stage.live.found.count(0) == 5
    assert [problem.split(";")[0] for problem in stage.problems] == ["object 1 has changed meanwhile"]
    assert ids_at(stage, (4, 20, 8), (4, 20, 17), (4, 20, 22), (4, 20, 32)) == [1, 4, 2, 5]
    stage.key("Z", "Control")
    assert ids_at(stage, (4, 20, 8), (4, 20, 17), (4, 20, 22), (4, 20, 32)) == [1, 4, 2, 2]
    stage.key("Z", "Control")
    assert ids_at(stage, LEFT, RIGHT, OTHER) == [1, 2, 3]
    assert not stage.annotation.data.any()


def test_a_click_deletes_and_another_fills(stage):
    stage.bridge.found.choose("delete")
    stage.click(OTHER)
    assert ids_at(stage, LEFT, RIGHT, OTHER) == [1, 2, 0]
    assert (stage.annotation.data[4, 3:9, 38:46] == 1).all()
    ids = two_that_touch()
    ids[4, 18:22, 10:14] = 0
    stage.live.find(ids)
    stage.settle()
    stage.bridge.found.choose("fill")
    stage.click((4, 14, 8))
    assert ids_at(stage, (4, 20, 12), (4, 14, 8)) == [1, 1]
    assert (stage.annotation.data[4, 18:22, 10:14] == 2).all()
    assert not stage.problems


def test_what_cannot_be_is_told(stage):
    stage.bridge.found.choose("merge")
    stage.drag((4, 20, 8), (4, 20, 17))
    stage.bridge.found.choose("delete")
    stage.click((4, 36, 4))
    assert [problem.split(";")[0] for problem in stage.problems] == [
        "both points lie in one object",
        "there is no object at this point",
    ]
    assert not stage.annotation.data.any()


def test_another_layer_lays_the_tool_down(stage):
    stage.bridge.found.choose("delete")
    (layer,) = found_layers(stage)
    assert stage.viewer.layers.selection.active is layer
    assert not layer.mouse_pan
    stage.tools("paint")
    assert stage.bridge.found.tool == ""
    assert layer.mouse_pan
    stage.drag((4, 20, 8), (4, 20, 12))
    assert ids_at(stage, LEFT) == [1]


def test_a_removed_layer_comes_back_with_the_next_search(stage):
    stage.bridge.found.choose("delete")
    stage.viewer.layers.remove(found_layers(stage)[0])
    assert (stage.bridge.found.tool, stage.bridge.found.count) == ("", None)
    stage.bridge.found.choose("delete")
    assert stage.problems == ["Find objects first; then they can be corrected"]
    stage.live.find(two_that_touch())
    stage.settle()
    assert len(found_layers(stage)) == 1


def test_left_behind_the_layer_shows_what_it_showed(stage):
    (layer,) = found_layers(stage)
    stage.live.open(np.zeros(SHAPE, np.uint8))
    stage.bridge.open(stage.source)
    assert layer in stage.viewer.layers
    np.testing.assert_array_equal(np.asarray(layer.data), two_that_touch())
    assert stage.bridge.found.count is None


@pytest.mark.window
def test_in_3d_nothing_is_corrected(stage):
    stage.bridge.found.choose("delete")
    stage.viewer.dims.ndisplay = 3
    QTest.qWait(50)
    QTest.mouseClick(stage.canvas, Qt.MouseButton.LeftButton, pos=stage.canvas.rect().center())
    assert stage.live.found.count(0) == 3
    assert stage.problems[0] == "Objects are corrected on slices; switch to 2D"


def test_time_series_are_corrected_at_the_time_on_screen(set_stage):
    stage = set_stage(np.zeros((3, *SHAPE), np.uint8), axis_labels=("t", "z", "y", "x"))
    stage.bridge.go_to(Plane(1, 0, 4))
    for frame in range(3):
        stage.live.predict(np.where(two_that_touch() > 0, 2, 1), frame=frame)
        stage.live.find(two_that_touch(), frame)
    stage.settle()
    stage.bridge.found.choose("delete")
    stage.click((1, *LEFT))
    assert [stage.live.found.count(frame) for frame in range(3)] == [3, 2, 3]
    assert stage.annotation.data[1].any()
    assert not stage.annotation.data[[0, 2]].any()


def test_the_panel_tells_wishes_and_shows_what_is_so(qtbot):
    panel, wishes = FoundPanel(), []
    qtbot.addWidget(panel)
    panel.find_here_requested.connect(lambda: wishes.append("here"))
    panel.find_all_requested.connect(lambda: wishes.append("all"))
    panel.cancel_requested.connect(lambda: wishes.append("cancel"))
    panel.tool_chosen.connect(wishes.append)
    panel.show()
    QTest.mouseClick(panel._here, Qt.MouseButton.LeftButton)
    assert not wishes  # there is no model
    panel.show_status(LiveStatus(has_model=True))
    QTest.mouseClick(panel._here, Qt.MouseButton.LeftButton)
    QTest.mouseClick(panel._all, Qt.MouseButton.LeftButton)
    panel.show_status(LiveStatus(has_model=True, is_finding=True))
    assert not panel._here.isEnabled()
    QTest.mouseClick(panel._all, Qt.MouseButton.LeftButton)
    panel.show_found("", 1532, False)
    assert panel._text.text() == "1,532 objects"
    QTest.mouseClick(panel._tools["merge"], Qt.MouseButton.LeftButton)
    assert not panel._tools["merge"].isChecked()
    panel.show_found("merge", 1, True)
    assert panel._tools["merge"].isChecked()
    assert panel._text.text() == "1 object · now the second point"
    QTest.mouseClick(panel._tools["merge"], Qt.MouseButton.LeftButton)
    assert wishes == ["here", "all", "cancel", "merge", ""]
