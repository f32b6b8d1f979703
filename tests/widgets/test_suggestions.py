"""Suggested paint: asked for by the menu, looked at, accepted and refused by clicks and keys."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QPushButton

from napari_sparseseg._types import Box, Plane, Region
from napari_sparseseg.live.events import Suggestion, SuggestionState
from napari_sparseseg.storage.strokes import StrokeAuthor
from napari_sparseseg.widgets.layers import SuggestionLayer
from napari_sparseseg.widgets.suggestion_panel import SuggestionPanel
from napari_sparseseg.widgets.wiring import connect_suggestions

SHAPE = (7, 40, 48)
Z = 3
GROW, FILL = 0, 1


def halves():
    """Dark class 1 on the left of bright class 2."""
    truth = np.ones(SHAPE, np.uint8)
    truth[:, :, 24:] = 2
    noise = np.random.default_rng(0).standard_normal(SHAPE)
    return truth, (60 * truth + 8 * noise).astype(np.uint8)


@pytest.fixture
def stage(set_stage, qtbot):
    stage = set_stage(halves()[1])
    stage.bridge.go_to(Plane(0, 0, Z))
    stage.panel = SuggestionPanel()
    connect_suggestions(stage.panel, stage.bridge.suggestion)
    stage.bridge.suggestion.changed.connect(lambda: stage.panel.show_state(stage.live.suggestions.state))
    if stage.has_window:
        stage.viewer.window.add_dock_widget(stage.panel, name="suggest")
    else:
        qtbot.addWidget(stage.panel)
        stage.panel.show()
    stage.settle()
    return stage


def choose(stage, entry, *, by_keys=False):
    """Open the menu by a click, and choose one of its entries."""
    QTest.mouseClick(stage.panel._suggest, Qt.MouseButton.LeftButton)
    menu = stage.panel.menu
    assert menu.isVisible()
    if by_keys:
        for _ in range(entry + 1):
            QTest.keyClick(menu, Qt.Key.Key_Down)
        QTest.keyClick(menu, Qt.Key.Key_Return)
    else:
        action = menu.actions()[entry]
        QTest.mouseClick(menu, Qt.MouseButton.LeftButton, pos=menu.actionGeometry(action).center())
    stage.settle()


def click(stage, button):
    assert button.isEnabled()
    QTest.mouseClick(button, Qt.MouseButton.LeftButton)
    stage.settle()


def paint_strokes(stage):
    stage.tools("paint", 1, 3)
    stage.drag((Z, 20, 5), (Z, 20, 14))
    stage.tools("paint", 2, 3)
    stage.drag((Z, 20, 34), (Z, 20, 43))


def layers(stage):
    return [layer for layer in stage.viewer.layers if isinstance(layer, SuggestionLayer)]


@pytest.mark.window
def test_grown_strokes_are_looked_at_accepted_and_taken_back(stage):
    truth, _ = halves()
    paint_strokes(stage)
    painted = stage.annotation.data.copy()
    choose(stage, GROW)
    (layer,) = layers(stage)
    suggested = np.asarray(layer.data)
    assert not layer.editable
    assert layer.opacity < 1
    assert stage.viewer.layers.selection.active is stage.annotation
    assert (suggested[Z] > 0).sum() > 200
    assert not suggested[painted > 0].any()
    assert (suggested == truth)[suggested > 0].mean() > 0.95
    np.testing.assert_array_equal(stage.annotation.data, painted)
    stage.screenshot("suggestion-grown")
    click(stage, stage.panel._accept)
    assert not layers(stage)
    np.testing.assert_array_equal(stage.annotation.data, np.where(painted > 0, painted, suggested))
    assert [stroke.by for stroke in stage.live.store.strokes] == ["human", "human", "suggestion"]
    stage.screenshot("suggestion-accepted")
    stage.key("Z", "Control")
    np.testing.assert_array_equal(stage.annotation.data, painted)
    stage.key("Z", "Control", "Shift")
    assert (stage.annotation.data > 0).sum() == (painted > 0).sum() + (suggested > 0).sum()
    assert not stage.problems


def test_a_refused_suggestion_leaves_nothing(stage):
    paint_strokes(stage)
    painted = stage.annotation.data.copy()
    choose(stage, GROW, by_keys=True)
    assert len(layers(stage)) == 1
    QTest.keyClick(stage.panel._refuse, Qt.Key.Key_Space)
    stage.settle()
    assert not layers(stage)
    np.testing.assert_array_equal(stage.annotation.data, painted)
    assert len(stage.live.store.strokes) == 2
    assert not stage.panel._accept.isEnabled()
    stage.screenshot("suggestion-refused")


def test_gaps_between_slices_are_filled(stage):
    truth, _ = halves()
    for z in (1, 5):
        stage.live.annotate_values(Region(0, Box((z, 0, 0), (z + 1, 40, 48))), truth[z : z + 1], plane=Plane(0, 0, z))
    choose(stage, FILL)
    (layer,) = layers(stage)
    np.testing.assert_array_equal(np.asarray(layer.data)[2:5], truth[2:5])
    assert not np.asarray(layer.data)[[0, 1, 5, 6]].any()
    stage.screenshot("suggestion-between")
    click(stage, stage.panel._accept)
    np.testing.assert_array_equal(stage.annotation.data[1:6], truth[1:6])


def test_paint_made_meanwhile_stays(stage):
    paint_strokes(stage)
    choose(stage, GROW)
    stage.tools("paint", 2, 3)
    stage.drag((Z, 25, 5), (Z, 25, 14))
    newer = stage.annotation.data == 2
    click(stage, stage.panel._accept)
    assert (stage.annotation.data[newer] == 2).all()
    assert (stage.annotation.data[Z] == 1).sum() > 100


def test_paint_over_an_accepted_suggestion_weighs_in_full(stage):
    paint_strokes(stage)
    choose(stage, GROW)
    click(stage, stage.panel._accept)
    assert stage.annotation.data[Z, 25, 38] == 2
    stage.tools("paint", 2, 3)
    stage.drag((Z, 25, 36), (Z, 25, 40))
    assert stage.live.store.strokes[-1].by is StrokeAuthor.HUMAN
    assert stage.live.store.strokes[-1].n_voxels >= 15


def test_why_there_is_none_is_said(stage):
    stage.tools("paint", 2, 3)
    stage.drag((Z, 20, 34), (Z, 20, 43))
    choose(stage, GROW)
    assert not layers(stage)
    assert "two classes" in stage.panel._text.text().lower()
    choose(stage, FILL)
    assert "two slices" in stage.panel._text.text().lower()
    assert not stage.problems


def test_a_removed_layer_is_a_refusal(stage):
    paint_strokes(stage)
    choose(stage, GROW)
    stage.viewer.layers.remove(layers(stage)[0])
    stage.settle()
    assert stage.live.suggestions.state.suggestion is None
    assert not stage.panel._refuse.isEnabled()


def test_the_window_goes_on_while_it_is_computed(stage):
    """The computation waits for the window here, which could not be if the window waited for it."""
    go_on = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        stage.live.compute = lambda function: pool.submit(lambda: go_on.wait(30) and function())
        paint_strokes(stage)
        choose(stage, GROW)
        assert stage.live.suggestions.state.is_busy
        assert not stage.panel._suggest.isEnabled()
        stage.drag((Z, 30, 34), (Z, 30, 43))
        assert stage.annotation.data[Z, 30, 40] == 2
        go_on.set()
    stage.settle()
    assert len(layers(stage)) == 1


def test_a_suggestion_that_is_not_waited_for_does_not_come(stage):
    go_on = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        stage.live.compute = lambda function: pool.submit(lambda: go_on.wait(30) and function())
        paint_strokes(stage)
        choose(stage, GROW)
        click(stage, stage.panel._refuse)
        go_on.set()
    stage.settle()
    assert not layers(stage)
    assert stage.live.suggestions.state.suggestion is None


def test_another_image_takes_the_suggestion_away(stage):
    paint_strokes(stage)
    choose(stage, GROW)
    stage.live.open(np.zeros(SHAPE, np.uint8))
    stage.bridge.open(stage.source)
    assert not layers(stage)


def test_the_panel_fits_the_dock_and_every_control_has_a_tooltip(qtbot):
    panel = SuggestionPanel()
    qtbot.addWidget(panel)
    found = Suggestion(0, Box((0, 0, 0), (1, 2, 2)), np.array([[[1, 0], [2, 2]]], np.uint8))
    for state, text in (
        (SuggestionState(), ""),
        (SuggestionState(is_busy=True), "Looking for what to suggest"),
        (SuggestionState(found), "3 voxels suggested"),
        (SuggestionState(reason="paint more"), "Paint more"),
    ):
        panel.show_state(state)
        assert panel._text.text() == text
        assert panel._accept.isEnabled() == (state.suggestion is not None)
        assert panel._refuse.isEnabled() == (state.suggestion is not None or state.is_busy)
        assert panel.minimumSizeHint().width() <= 330
        assert all(button.toolTip() for button in panel.findChildren(QPushButton))
    assert all(action.toolTip() != action.text() for action in panel.menu.actions())
