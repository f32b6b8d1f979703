"""The list of classes, by mouse and by keyboard."""

from __future__ import annotations

import pytest
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QCursor, QEnterEvent
from qtpy.QtWidgets import QApplication, QColorDialog, QLineEdit, QMenu

from napari_sparseseg.live.events import ClassInfo
from napari_sparseseg.widgets.class_panel import MAX_ROWS, ClassPanel
from napari_sparseseg.widgets.class_row import ROW_HEIGHT

TWO = (ClassInfo(1, "background", (0.3, 0.5, 0.9), is_background=True), ClassInfo(5, "object", (0.9, 0.6, 0.2)))
LEFT = Qt.MouseButton.LeftButton


def many(n):
    return tuple(ClassInfo(i, f"class {i}", (i / 200, 0.5, 0.5), is_background=i == 1) for i in range(1, n + 1))


class Spy:
    """Everything that the panel emits, in order."""

    def __init__(self, panel):
        self.seen = []
        for name in (
            "class_chosen",
            "class_added",
            "class_renamed",
            "class_recolored",
            "class_removed",
            "background_chosen",
        ):
            getattr(panel, name).connect(lambda *a, name=name: self.seen.append((name, *a)))


@pytest.fixture
def panel(qtbot):
    QCursor.setPos(QApplication.primaryScreen().geometry().bottomRight())  # not over a line
    panel = ClassPanel()
    panel.setFixedWidth(330)
    qtbot.addWidget(panel)
    panel.show_classes(TWO, 5)
    panel.show()
    qtbot.waitExposed(panel)
    return panel


@pytest.fixture
def spy(panel):
    return Spy(panel)


class TestChoosing:
    def test_a_click_on_a_line_chooses_its_class(self, panel, spy, qtbot):
        qtbot.mouseClick(panel._rows[0]._name, LEFT)
        assert spy.seen == [("class_chosen", 1)]
        assert panel.current_id == 1

    def test_arrow_keys_choose(self, panel, spy, qtbot):
        panel._list.setFocus()
        qtbot.keyClick(panel._list, Qt.Key.Key_Up)
        qtbot.keyClick(panel._list, Qt.Key.Key_Down)
        assert spy.seen == [("class_chosen", 1), ("class_chosen", 5)]

    def test_numbers_choose_by_line_and_not_by_id(self, panel, spy, qtbot):
        qtbot.keyClick(panel._list, Qt.Key.Key_1)
        qtbot.keyClick(panel._list, Qt.Key.Key_2)
        qtbot.keyClick(panel._list, Qt.Key.Key_3)
        assert spy.seen == [("class_chosen", 1), ("class_chosen", 5)]

    def test_the_class_in_hand_can_be_chosen_again(self, panel, spy, qtbot):
        qtbot.mouseClick(panel._rows[1]._name, LEFT)
        qtbot.keyClick(panel._list, Qt.Key.Key_2)
        assert spy.seen == [("class_chosen", 5)] * 2, "which ends erasing, and painting several classes"

    def test_only_the_chosen_class_and_the_one_under_the_mouse_offer_to_be_removed(self, panel):
        assert [line._remove.isVisible() for line in panel._rows] == [False, True]
        QApplication.sendEvent(panel._rows[0], QEnterEvent(QPointF(5, 5), QPointF(5, 5), QPointF(5, 5)))
        assert [line._remove.isVisible() for line in panel._rows] == [True, True]
        QApplication.sendEvent(panel._rows[0], QEvent(QEvent.Type.Leave))
        assert [line._remove.isVisible() for line in panel._rows] == [False, True]


class TestChanging:
    def test_add(self, panel, spy, qtbot):
        qtbot.mouseClick(panel._add, LEFT)
        assert spy.seen == [("class_added",)]

    def test_the_add_button_can_be_reached_and_pressed_by_keys(self, panel, spy, qtbot):
        panel._add.setFocus(Qt.FocusReason.TabFocusReason)
        qtbot.keyClick(panel._add, Qt.Key.Key_Space)
        assert spy.seen == [("class_added",)]

    def test_remove_by_the_button_and_by_a_key(self, panel, spy, qtbot):
        qtbot.mouseClick(panel._rows[1]._remove, LEFT)
        qtbot.keyClick(panel._list, Qt.Key.Key_Delete)
        assert spy.seen == [("class_removed", 5), ("class_removed", 5)]
        assert len(panel._rows) == 2  # until it is told so

    def test_the_background_changes_when_the_classes_have(self, panel, spy, qtbot):
        qtbot.mouseClick(panel._rows[1]._role, LEFT)
        assert spy.seen == [("background_chosen", 5)]
        assert [line._role.is_filled for line in panel._rows] == [True, False]
        panel.show_classes(
            (TWO[0].__class__(1, "background", TWO[0].color), ClassInfo(5, "object", (0, 0, 0), True)), 5
        )
        assert [line._role.is_filled for line in panel._rows] == [False, True]

    def test_a_click_on_the_background_says_nothing_new(self, panel, spy, qtbot):
        qtbot.mouseClick(panel._rows[0]._role, LEFT)
        assert spy.seen == []

    def test_the_background_by_a_key(self, panel, spy, qtbot):
        qtbot.keyClick(panel._list, Qt.Key.Key_B)
        assert spy.seen == [("background_chosen", 5)]

    def test_a_colour_is_told_as_numbers_from_0_to_1(self, panel, spy, qtbot):
        qtbot.keyClick(panel._list, Qt.Key.Key_C)
        dialog = panel.findChild(QColorDialog)
        dialog.setCurrentColor(Qt.GlobalColor.red)
        dialog.accept()
        assert spy.seen == [("class_recolored", 5, (1.0, 0.0, 0.0))]

    def test_a_colour_dialog_that_is_dismissed_changes_nothing(self, panel, spy, qtbot):
        qtbot.mouseClick(panel._rows[0]._swatch, LEFT)
        panel.findChild(QColorDialog).reject()
        assert spy.seen == []

    def test_the_menu_offers_what_the_keys_do(self, panel, spy, qtbot):
        panel._list._show_menu(QPoint(20, ROW_HEIGHT + 5))
        menu = panel._list.findChild(QMenu)
        actions = {action.text(): action for action in menu.actions()}
        actions["Remove"].trigger()
        menu.close()
        assert spy.seen == [("class_removed", 5)]


class TestRenaming:
    def edit(self, panel):
        return next(e for e in panel.findChildren(QLineEdit) if e.isVisible())

    def test_f2_then_enter(self, panel, spy, qtbot):
        qtbot.keyClick(panel._list, Qt.Key.Key_F2)
        qtbot.keyClicks(self.edit(panel), "b1 cell")  # letters and digits are text here, not wishes
        qtbot.keyClick(self.edit(panel), Qt.Key.Key_Return)
        assert spy.seen == [("class_renamed", 5, "b1 cell")]
        assert panel._rows[1]._name.isVisible()

    def test_a_double_click_on_the_name_opens_it(self, panel, spy, qtbot):
        qtbot.mouseDClick(panel._rows[1], LEFT, pos=panel._rows[1]._name.geometry().center())
        assert self.edit(panel).text() == "object"

    def test_escape_keeps_the_old_name(self, panel, spy, qtbot):
        panel.rename(5)
        qtbot.keyClicks(self.edit(panel), "other")
        qtbot.keyClick(self.edit(panel), Qt.Key.Key_Escape)
        assert spy.seen == []

    @pytest.mark.parametrize("typed", ["", "   ", "object"])
    def test_nothing_new_is_not_told(self, panel, spy, qtbot, typed):
        panel.rename(5)
        self.edit(panel).setText(typed)
        qtbot.keyClick(self.edit(panel), Qt.Key.Key_Return)
        assert spy.seen == []

    def test_a_name_being_typed_is_taken_before_a_class_is_added(self, panel, spy, qtbot):
        panel.rename(5)
        qtbot.keyClicks(self.edit(panel), "cell")
        qtbot.mouseClick(panel._add, LEFT)
        assert spy.seen == [("class_renamed", 5, "cell"), ("class_added",)]

    def test_news_about_classes_leave_an_open_edit_alone(self, panel, spy, qtbot):
        panel.rename(5)
        qtbot.keyClicks(self.edit(panel), "cell")
        panel.show_classes((ClassInfo(1, "nothing", (0, 0, 0), True), TWO[1]), 5)
        assert self.edit(panel).text() == "cell"


class TestShowing:
    def test_showing_emits_nothing(self, panel, spy):
        panel.show_classes(many(4), 3)
        panel.show_classes(many(4), 1)
        panel.show_classes(TWO, 1)
        panel.show_classes((), None)
        assert spy.seen == []

    def test_showing_the_same_keeps_the_lines(self, panel):
        lines = list(panel._rows)
        panel.show_classes(TWO, 5)
        panel.show_classes((TWO[0], ClassInfo(5, "cell", (0, 1, 0))), 1)
        assert panel._rows == lines
        assert panel._rows[1]._name.text() == "cell"

    def test_adding_and_removing_keeps_the_lines_before_and_counts_the_keys_anew(self, panel):
        panel.show_classes(many(5), 5)
        first = panel._rows[:2]
        panel.show_classes(many(7), 5)
        panel.show_classes(tuple(c for c in many(7) if c.class_id != 3), 5)
        assert panel._rows[:2] == first
        assert [line.class_id for line in panel._rows] == [1, 2, 4, 5, 6, 7]
        assert [line._key.text() for line in panel._rows] == list("123456")
        assert panel._list.count() == 6
        assert panel._list.currentRow() == 3

    def test_it_grows_to_six_lines_and_then_scrolls(self, panel):
        heights = []
        for n in (2, 6, 12):
            panel.show_classes(many(n), 1)
            heights.append(panel._list.height())
        assert heights[0] < heights[1] == heights[2] <= MAX_ROWS * ROW_HEIGHT + 2

    def test_nine_classes_have_keys(self, panel):
        panel.show_classes(many(12), 1)
        assert [line._key.text() for line in panel._rows] == [*"123456789", "", "", ""]

    def test_the_chosen_class_scrolls_into_view(self, panel, qtbot):
        panel.show_classes(many(12), 12)
        qtbot.waitUntil(
            lambda: panel._list.viewport().rect().contains(panel._list.visualItemRect(panel._list.item(11)))
        )

    def test_a_long_name_is_elided_and_its_tooltip_has_all(self, panel):
        name = "membrane of the endoplasmic reticulum, outer side"
        panel.show_classes((TWO[0], ClassInfo(5, name, (0, 1, 0))), 5)
        assert panel._rows[1].width() <= 330
        assert name in panel._rows[1]._name.toolTip()

    def test_lines_are_as_wide_as_the_list_after_it_became_narrower(self, panel, qtbot):
        panel.setFixedWidth(600)
        panel.setFixedWidth(280)
        qtbot.waitUntil(lambda: panel._rows[0].width() == panel._list.viewport().width())

    def test_every_control_has_a_tooltip(self, panel):
        line = panel._rows[0]
        controls = (panel._add, panel._list, panel._role, line._key, line._swatch, line._name, line._role, line._remove)
        assert all(control.toolTip() for control in controls)
