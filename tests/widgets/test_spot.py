"""Where next? is asked by a click, answered on the slice with a ring, and gone with the first stroke there."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Points
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_sparseseg._types import Box, Plane, Region
from napari_sparseseg.live.events import SuggestedSlice
from napari_sparseseg.widgets.paint_panel import PaintPanel
from napari_sparseseg.widgets.spot import sentence_of

SHAPE = (12, 40, 48)
SUGGESTED = SuggestedSlice(Plane(0, 0, 9), (9, 30, 12), 0.3, "uncertainty")


@pytest.fixture
def stage(set_stage):
    stage = set_stage()
    stage.bridge.go_to(Plane(0, 0, 4))
    stage.settle()
    return stage


def suggest(stage, suggested=SUGGESTED):
    """Tell of a suggestion as the compute thread would."""
    stage.live.events.slice_suggested.emit(suggested)
    stage.settle()


def rings(stage):
    return [layer for layer in stage.viewer.layers if isinstance(layer, Points)]


def test_the_slice_comes_on_screen_with_a_ring_and_painting_goes_on(stage):
    suggest(stage)

    (ring,) = rings(stage)
    assert stage.bridge.current_plane() == SUGGESTED.plane
    assert ring.data.tolist() == [[9, 30, 12]]
    assert stage.viewer.layers.selection.active is stage.annotation
    stage.screenshot("where-next")


def test_another_orientation_is_turned_to(stage):
    suggest(stage, SuggestedSlice(Plane(0, 2, 33), (5, 20, 33), 0.3, "intervals"))

    assert stage.bridge.current_plane() == Plane(0, 2, 33)
    assert stage.viewer.dims.ndisplay == 2


@pytest.mark.window
def test_the_first_stroke_on_the_slice_takes_the_ring_away_and_others_do_not(stage):
    suggest(stage)
    stage.bridge.go_to(Plane(0, 0, 3))
    stage.settle()
    stage.tools("paint")
    stage.drag((3, 10, 10), (3, 10, 30))
    stage.settle()
    assert len(rings(stage)) == 1

    stage.bridge.go_to(SUGGESTED.plane)
    stage.settle()
    stage.drag((9, 30, 12), (9, 30, 30))
    stage.settle()

    assert (stage.annotation.data[9, 30, 12:30] == 2).all()
    assert rings(stage) == []


def test_a_later_suggestion_takes_the_place_of_the_one_before(stage):
    suggest(stage)
    suggest(stage, SuggestedSlice(Plane(0, 0, 1), (1, 4, 5), 0.3, "intervals"))

    (ring,) = rings(stage)
    assert ring.data.tolist() == [[1, 4, 5]]


def test_a_ring_that_was_removed_by_hand_is_no_trouble(stage):
    suggest(stage)
    stage.viewer.layers.remove(rings(stage)[0])
    stage.live.annotate(Region(0, Box((9, 2, 2), (10, 5, 5))), 2)
    stage.settle()
    suggest(stage)

    assert len(rings(stage)) == 1
    assert stage.problems == []


def test_a_spot_that_is_not_seen_is_brought_into_view_and_one_that_is_stays(stage):
    camera = stage.viewer.scene.camera
    before = camera.center
    suggest(stage)
    assert camera.center == before

    camera.zoom *= 8
    suggest(stage)

    assert camera.center[-2:] == pytest.approx((30, 12))


def test_of_a_series_the_time_point_comes_on_screen(set_stage):
    stage = set_stage(np.zeros((3, *SHAPE), np.uint8))
    suggest(stage, SuggestedSlice(Plane(2, 0, 9), (9, 30, 12), 0.3, "intervals"))

    (ring,) = rings(stage)
    assert stage.bridge.current_plane() == Plane(2, 0, 9)
    assert ring.data.tolist() == [[2, 9, 30, 12]]


def test_the_button_asks_once_until_there_is_an_answer(qtbot):
    panel, asked = PaintPanel(), []
    qtbot.addWidget(panel)
    panel.suggestion_requested.connect(lambda: asked.append(True))
    QTest.mouseClick(panel._next, Qt.MouseButton.LeftButton)
    panel.show_advising(True)
    QTest.mouseClick(panel._next, Qt.MouseButton.LeftButton)
    assert len(asked) == 1
    panel.show_advising(False)
    QTest.mouseClick(panel._next, Qt.MouseButton.LeftButton)
    assert len(asked) == 2
    assert panel._next.text() == "Where next?"


def test_the_sentence_says_where_and_why():
    assert sentence_of(SUGGESTED, "zyx") == "Paint next: z 9, where the network is least sure; begin at the ring"
    assert "largest unpainted gap" in sentence_of(SuggestedSlice(Plane(0, 1, 3), (0, 3, 0), 1.0, "intervals"), "zyx")
