"""Start, pause and status."""

from __future__ import annotations

from dataclasses import replace

import pytest
from qtpy.QtCore import Qt

from napari_sparseseg.live.events import CurvePoint, LiveState, LiveStatus
from napari_sparseseg.widgets.train_panel import TrainPanel

LEFT = Qt.MouseButton.LeftButton
IDLE = LiveStatus(LiveState.WAITING, "Paint a second class", device="CPU", device_reason="No GPU was found.")
BUSY = LiveStatus(
    LiveState.TRAINING,
    "learning from 3 slices",
    device="CPU",
    is_training=True,
    step=1240,
    steps_per_second=2.34,
    dice=0.857,
    dice_source="Scored on the last strokes.",
    n_tiles=1200,
    n_fresh=300,
    seconds_left=185.0,
    has_model=True,
)
FAILED = LiveStatus(LiveState.FAILED, "Train starts again", error="The GPU ran out of memory. " * 8, has_model=True)
SIGNALS = (
    "start_requested",
    "pause_requested",
    "update_requested",
    "live_toggled",
    "auto_start_toggled",
    "reset_requested",
)


@pytest.fixture
def panel(qtbot):
    panel = TrainPanel()
    panel.setFixedWidth(330)
    qtbot.addWidget(panel)
    panel.show()
    qtbot.waitExposed(panel)
    return panel


@pytest.fixture
def seen(panel):
    seen = []
    for name in SIGNALS:
        getattr(panel, name).connect(lambda *a, name=name: seen.append((name, *a)))
    return seen


class TestWishes:
    def test_the_button_shows_what_a_click_does(self, panel, seen, qtbot):
        panel.show_status(IDLE)
        assert panel._train.text() == "Train"
        qtbot.mouseClick(panel._train, LEFT)
        panel.show_status(BUSY)
        assert panel._train.text() == "Pause"
        qtbot.mouseClick(panel._train, LEFT)
        assert seen == [("start_requested",), ("pause_requested",)]

    def test_the_buttons_obey_keys(self, panel, seen, qtbot):
        panel.show_status(BUSY)
        panel._more.set_unfolded(True)
        for button in (panel._train, panel._once, panel._reset):
            button.setFocus()
            qtbot.keyClick(button, Qt.Key.Key_Space)
        assert seen == [("pause_requested",), ("update_requested",), ("reset_requested",)]

    def test_without_image_nothing_can_be_started_and_the_tooltip_says_why(self, panel, seen, qtbot):
        qtbot.mouseClick(panel._train, LEFT)
        qtbot.mouseClick(panel._once, LEFT)
        assert seen == []
        assert panel._train.toolTip() == panel._once.toolTip() == "Open an image first."

    def test_live_changes_with_the_status(self, panel, seen, qtbot):
        panel.show_status(IDLE)
        qtbot.keyClick(panel._live, Qt.Key.Key_Space)
        assert seen == [("live_toggled", False)]
        assert panel._live.isChecked()
        panel.show_status(replace(IDLE, is_live=False))
        assert not panel._live.isChecked()
        qtbot.keyClick(panel._live, Qt.Key.Key_Space)
        assert seen[-1] == ("live_toggled", True)

    def test_start_by_itself_changes_when_it_is_told(self, panel, seen, qtbot):
        qtbot.keyClick(panel._auto, Qt.Key.Key_Space)
        assert seen == [("auto_start_toggled", False)]
        assert panel._auto.isChecked()
        panel.show_auto_start(False)
        assert not panel._auto.isChecked()

    def test_reset_needs_a_model(self, panel, seen, qtbot):
        panel._more.set_unfolded(True)
        panel.show_status(IDLE)
        qtbot.mouseClick(panel._reset, LEFT)
        panel.show_status(BUSY)
        qtbot.mouseClick(panel._reset, LEFT)
        assert seen == [("reset_requested",)]


class TestStatus:
    def test_showing_emits_nothing(self, panel, seen):
        for status in (IDLE, BUSY, replace(BUSY, is_live=False), FAILED, LiveStatus()):
            panel.show_status(status)
        panel.show_auto_start(False)
        panel.add_points([CurvePoint(1, 0.1, 0.5, None)])
        panel.clear_curve()
        assert seen == []

    def test_what_it_says(self, panel):
        panel.show_status(BUSY)
        figures = panel._figures
        assert panel._state._text.text() == "Training · learning from 3 slices"
        assert figures._quality.text() == "Dice ~0.86 · 2.3 steps/s"
        assert figures._quality.toolTip().startswith("Scored on the last strokes.")
        assert figures._tiles.text() == "300 of 1\u202f200 tiles fresh"
        assert figures._left.text() == "3:05 min left"

    def test_the_dice_of_strokes_is_not_called_as_that_of_the_curve(self, panel):
        panel.show_status(replace(BUSY, is_dice_of_strokes=True))
        figures = panel._figures
        assert figures._quality.text() == "Stroke Dice ~0.86 · 2.3 steps/s"
        assert figures._quality.width() >= figures._quality.sizeHint().width()

    def test_the_reason_for_the_device_is_its_tooltip(self, panel):
        panel.show_status(IDLE)
        assert (panel._figures._device.text(), panel._figures._device.toolTip()) == ("CPU", "CPU\nNo GPU was found.")

    def test_the_state_is_not_said_twice(self, panel):
        panel.show_status(replace(BUSY, activity="Training, step 7"))
        assert panel._state._text.text() == "Training, step 7"

    def test_one_tile_is_no_tiles(self, panel):
        panel.show_status(replace(BUSY, n_tiles=1, n_fresh=1))
        assert panel._figures._tiles.text() == "1 of 1 tile fresh"

    def test_when_all_is_fresh_no_time_is_left(self, panel):
        panel.show_status(replace(BUSY, n_fresh=1200, seconds_left=0.0))
        assert panel._figures._tiles.text() == "All 1\u202f200 tiles fresh"
        assert panel._figures._left.text() == ""

    @pytest.mark.parametrize(
        ("device", "shown"), [("cpu", "CPU"), ("cuda:0", "CUDA:0"), ("NVIDIA H100", "NVIDIA H100")]
    )
    def test_devices_are_written_as_people_know_them(self, panel, device, shown):
        panel.show_status(replace(BUSY, device=device))
        assert panel._figures._device.text() == shown

    def test_an_error_takes_the_place_of_the_figures_until_the_next_start(self, panel):
        panel.show_status(FAILED)
        assert panel._error.isVisible()
        assert panel._error.toolTip() == FAILED.error
        assert panel._train.text() == "Train"
        assert panel._train.isEnabled()
        panel.show_status(BUSY)
        assert panel._figures.isVisible()
        assert not panel._error.isVisible()

    def test_nothing_moves_whatever_the_status(self, panel, qtbot):
        long = replace(BUSY, activity="predicting " * 30, device="NVIDIA GeForce RTX 4090 Laptop GPU " * 3)
        places = set()
        for status in (LiveStatus(), IDLE, BUSY, FAILED, long):
            panel.show_status(status)
            qtbot.wait(1)
            places.add((panel.curve.geometry().getRect(), panel._train.geometry().getRect(), panel.sizeHint().height()))
        assert len(places) == 1

    def test_the_same_status_again_touches_no_text(self, panel, monkeypatch):
        panel.show_status(BUSY)
        touched = []
        for label in (panel._state._text, panel._figures._quality, panel._figures._tiles):
            monkeypatch.setattr(label, "setText", touched.append)
        panel.show_status(replace(BUSY))
        panel.show_status(replace(BUSY, revision=9))
        assert touched == []

    def test_every_control_has_a_tooltip(self, panel):
        panel.show_status(BUSY)
        controls = (panel._train, panel._once, panel._live, panel._auto, panel._reset, panel.curve, panel._more._button)
        assert all(control.toolTip() for control in controls)
