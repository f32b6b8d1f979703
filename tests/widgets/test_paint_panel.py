"""The switch, the brush and the painted slices."""

from __future__ import annotations

import pytest
from qtpy.QtCore import QPoint, Qt

from napari_sparseseg._types import Plane
from napari_sparseseg.live.events import PaintedSlice
from napari_sparseseg.widgets.paint_panel import MAX_BRUSH, PaintPanel, slice_text

LEFT = Qt.MouseButton.LeftButton
SLICES = (
    PaintedSlice(Plane(0, 0, 24), 1532, is_complete=True),
    PaintedSlice(Plane(0, 1, 7), 90, is_complete=False),
    PaintedSlice(Plane(2, 2, 3), 1, is_complete=False),
)
SIGNALS = ("mode_chosen", "brush_resized", "complete_toggled", "slice_chosen", "undo_requested", "redo_requested")


@pytest.fixture
def panel(qtbot):
    panel = PaintPanel()
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


def texts(panel):
    return [panel._list.item(i).text() for i in range(panel._list.count())]


class TestWishes:
    def test_the_switch_tells_and_changes_when_the_layer_has(self, panel, seen, qtbot):
        qtbot.mouseClick(panel._correct, LEFT)
        assert seen == [("mode_chosen", "correct")]
        assert panel._paint.isChecked()
        panel.show_mode("correct")
        assert panel._correct.isChecked()
        assert not panel._paint.isChecked()
        qtbot.mouseClick(panel._paint, LEFT)
        assert seen[-1] == ("mode_chosen", "paint")

    def test_the_switch_obeys_keys(self, panel, seen, qtbot):
        panel._correct.setFocus()
        qtbot.keyClick(panel._correct, Qt.Key.Key_Space)
        assert seen == [("mode_chosen", "correct")]

    def test_the_tab_key_passes_what_can_be_seen_from_top_to_bottom(self, panel, qtbot):
        panel.show_slices(SLICES)
        panel._paint.setFocus()
        met = [panel._paint]
        while len(met) < 20:
            qtbot.keyClick(met[-1], Qt.Key.Key_Tab)
            widget = panel.window().focusWidget()
            if widget in met:
                break
            met.append(widget)
        lines = [widget.mapTo(panel, widget.rect().center()).y() // 10 for widget in met]
        assert lines == sorted(lines)
        assert panel._list not in met
        assert {panel._brush, panel._complete, panel._undo, panel._redo, panel._section._button} <= set(met)

    def test_correct_that_is_not_possible_says_why(self, panel, seen, qtbot):
        panel.show_correct_enabled(False, "There is no prediction yet.")
        qtbot.mouseClick(panel._correct, LEFT)
        assert seen == []
        assert panel._correct.toolTip() == "There is no prediction yet."

    def test_the_brush_by_keys(self, panel, seen, qtbot):
        panel.show_brush(10)
        qtbot.keyClick(panel._brush, Qt.Key.Key_Right)
        assert seen == [("brush_resized", 11)]
        assert panel._size.text() == "11"

    def test_complete_changes_when_the_slice_has(self, panel, seen, qtbot):
        qtbot.mouseClick(panel._complete, LEFT, pos=QPoint(8, panel._complete.height() // 2))
        assert seen == [("complete_toggled", True)]
        assert not panel._complete.isChecked()
        seen.clear()
        panel.show_complete(True)
        qtbot.keyClick(panel._complete, Qt.Key.Key_Space)
        assert seen == [("complete_toggled", False)]

    def test_undo_and_redo(self, panel, seen, qtbot):
        qtbot.mouseClick(panel._undo, LEFT)
        qtbot.mouseClick(panel._redo, LEFT)
        assert seen == [("undo_requested",), ("redo_requested",)]
        panel.show_undo(False, False)
        qtbot.mouseClick(panel._undo, LEFT)
        assert len(seen) == 2

    def test_a_click_on_a_line_goes_to_its_slice(self, panel, seen, qtbot):
        panel.show_slices(SLICES)
        panel._section.set_unfolded(True)
        center = panel._list.visualItemRect(panel._list.item(1)).center()
        qtbot.mouseClick(panel._list.viewport(), LEFT, pos=center)
        assert seen == [("slice_chosen", Plane(0, 1, 7))]

    def test_enter_on_a_line_goes_to_its_slice(self, panel, seen, qtbot):
        panel.show_slices(SLICES)
        panel._section.set_unfolded(True)
        panel._list.setCurrentRow(2)
        qtbot.keyClick(panel._list, Qt.Key.Key_Return)
        assert seen == [("slice_chosen", Plane(2, 2, 3))]


class TestShowing:
    def test_showing_emits_nothing(self, panel, seen):
        panel.show_mode("correct")
        panel.show_brush(17)
        panel.show_brush(200)
        panel.show_complete(True, False, "No class is the background.")
        panel.show_slices(SLICES)
        panel.show_plane(SLICES[1].plane)
        panel.show_slices(SLICES[:1])
        panel.show_undo(True, True)
        assert seen == []

    def test_a_brush_larger_than_the_slider_moves_its_end_there_and_back(self, panel):
        panel.show_brush(200)
        assert (panel._brush.value(), panel._brush.maximum(), panel._size.text()) == (200, 200, "200")
        panel.show_brush(5)
        assert (panel._brush.value(), panel._brush.maximum()) == (5, MAX_BRUSH)

    def test_in_3d_no_slice_can_be_complete(self, panel):
        panel.show_complete(False)
        panel.show_in_3d(True)
        panel.show_complete(True)
        assert not panel._complete.isEnabled()
        assert panel._complete.isChecked()
        assert "3D" in panel._complete.toolTip()
        panel.show_in_3d(False)
        assert panel._complete.isEnabled()
        assert "background" in panel._complete.toolTip()

    def test_why_a_slice_cannot_be_complete(self, panel):
        panel.show_complete(False, False, "No class is the background.")
        assert not panel._complete.isEnabled()
        assert panel._complete.toolTip() == "No class is the background."
        panel.show_complete(False)
        assert panel._complete.isEnabled()
        assert "background" in panel._complete.toolTip()

    def test_what_a_line_says(self):
        assert slice_text(SLICES[0]) == "z 24 · 1\u202f532 voxels · ✓ complete"
        assert slice_text(SLICES[1], ("Z", "Y", "X")) == "Y 7 · 90 voxels"
        assert slice_text(SLICES[2], with_frame=True) == "t 2 · x 3 · 1 voxel"

    def test_time_points_show_in_time_series_only(self, panel):
        panel.show_slices(SLICES)
        assert texts(panel)[2].startswith("x 3")
        panel.show_slices(SLICES, is_time_series=True)
        assert texts(panel)[2].startswith("t 2 · x 3")

    def test_showing_the_same_slices_keeps_the_lines(self, panel):
        panel.show_slices(SLICES)
        items = [panel._list.item(i) for i in range(3)]
        panel.show_slices(SLICES)
        panel.show_slices((PaintedSlice(Plane(0, 0, 24), 9, is_complete=False), *SLICES[1:]))
        assert [panel._list.item(i) is item for i, item in enumerate(items)] == [True] * 3
        assert texts(panel)[0] == "z 24 · 9 voxels"

    def test_the_slice_on_screen_is_marked_whenever_it_is_listed(self, panel):
        panel.show_plane(SLICES[1].plane)
        panel.show_slices(SLICES)
        assert panel._list.currentRow() == 1
        panel.show_plane(Plane(0, 0, 99))
        assert panel._list.currentRow() == -1

    def test_the_list_is_folded_and_its_heading_counts(self, panel):
        panel.show_slices(SLICES)
        assert not panel._list.isVisible()
        assert "(3)" in panel._section._button.text()

    def test_every_control_has_a_tooltip(self, panel):
        names = ("_paint", "_correct", "_brush", "_size", "_complete", "_undo", "_redo", "_list")
        assert all(getattr(panel, name).toolTip() for name in names)
        assert panel._section._button.toolTip()
