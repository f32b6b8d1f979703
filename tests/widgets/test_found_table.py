"""The table of objects: measured, sorted, filtered, clicked, written; and what the layer shows meanwhile."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest

from napari_sparseseg._types import Box, Plane
from napari_sparseseg.live.events import ObjectTable
from napari_sparseseg.live.object_table import ObjectFilter
from napari_sparseseg.widgets.table_model import ObjectTableModel, cell_text, columns_of
from napari_sparseseg.widgets.table_panel import TablePanel

SHAPE = (12, 40, 48)
LEFT, RIGHT, OTHER = (4, 20, 12), (4, 20, 28), (4, 1, 42)


def three_objects():
    ids = np.zeros(SHAPE, np.uint32)
    ids[2:8, 12:28, 6:20], ids[2:8, 12:28, 20:34], ids[2:8, 0:3, 38:46] = 1, 2, 3
    return ids


@pytest.fixture
def stage(set_stage):
    stage = set_stage(np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE))
    stage.bridge.go_to(Plane(0, 0, 4))
    stage.live.predict(np.where(three_objects() > 0, 2, 1))
    stage.live.find(three_objects())
    stage.settle()
    return stage


def switch_on(stage):
    stage.bridge.found.table.switch(True)
    stage.live.measure()
    stage.settle()
    return stage.bridge.found.table


def listed(tool):
    return tool.kept_rows()["id"].tolist()


def shown_ids(stage):
    return [n for n in np.unique(np.asarray(stage.bridge.found.layer.data)).tolist() if n]


def test_off_nothing_is_measured_and_on_the_table_follows_corrections(stage):
    assert not stage.live.found.keeps_table
    tool = switch_on(stage)
    assert listed(tool) == [1, 2, 3]
    stage.bridge.found.choose("merge")
    stage.drag(LEFT, RIGHT)
    stage.live.measure()
    stage.settle()
    assert listed(tool) == [1, 3]
    assert tool.table.rows["n_voxels"].tolist() == [2 * 6 * 16 * 14, 6 * 3 * 8]
    tool.switch(False)
    assert not stage.live.found.keeps_table
    assert tool.table is None


def test_a_chosen_object_is_brought_into_the_middle_and_selected(stage):
    tool = switch_on(stage)
    stage.bridge.go_to(Plane(0, 0, 11))
    tool.choose(3)
    assert stage.bridge.current_plane().index in (4, 5)
    assert stage.viewer.scene.camera.center[-2:] == pytest.approx((1, 41.5), abs=1)
    assert stage.bridge.found.layer.selected_label == 3
    assert stage.viewer.layers.selection.active is stage.annotation  # painting goes on
    stage.viewer.dims.order = (2, 0, 1)
    tool.choose(1)
    assert stage.bridge.current_plane().axis == 2
    assert stage.bridge.current_plane().index in (12, 13)
    stage.viewer.dims.ndisplay = 3
    tool.choose(2)
    assert stage.viewer.dims.ndisplay == 3
    assert sorted(stage.viewer.scene.camera.center) == pytest.approx(sorted((4.5, 19.5, 26.5)), abs=1)
    assert not stage.problems


@pytest.mark.window
def test_a_click_on_an_object_chooses_its_row_and_a_drag_does_not(stage):
    tool = switch_on(stage)
    stage.viewer.layers.selection.active = stage.bridge.found.layer
    stage.click(RIGHT)
    assert tool.chosen == 2
    stage.click((4, 36, 4))  # nothing is there
    assert tool.chosen == 2
    stage.drag(LEFT, (4, 20, 16))
    assert tool.chosen == 2
    stage.bridge.found.layer.selected_label = 1  # as napari's own picker does
    assert tool.chosen == 1


def test_what_is_filtered_is_hidden_in_the_layer_and_cannot_be_corrected(stage):
    tool = switch_on(stage)
    tool.filter_by(ObjectFilter(min_size=200))
    assert listed(tool) == [1, 2]
    assert shown_ids(stage) == [1, 2]
    assert stage.live.found.count(0) == 3
    stage.bridge.found.choose("delete")
    stage.click(OTHER)
    assert "hidden" in stage.problems[0]
    assert stage.live.found.count(0) == 3
    stage.bridge.found.choose("split")
    stage.drag((4, 20, 8), (4, 20, 17))
    assert shown_ids(stage) == [1, 2, 4]  # what is new is seen before it is measured
    stage.live.measure()
    stage.settle()
    tool.filter_by(ObjectFilter(without_border=True, max_size=1000))
    assert shown_ids(stage) == listed(tool) == [1, 4]
    tool.switch(False)
    assert shown_ids(stage) == [1, 2, 3, 4]


def test_an_object_that_is_gone_is_told(stage):
    tool = switch_on(stage)
    stage.bridge.found.choose("delete")
    stage.click(LEFT)
    tool.choose(1)
    assert "not there any more" in stage.problems[0]


def test_another_time_point_has_a_table_of_its_own(set_stage):
    stage = set_stage(np.zeros((3, *SHAPE), np.uint8), axis_labels=("t", "z", "y", "x"))
    stage.bridge.go_to(Plane(1, 0, 4))
    for frame in (1, 2):
        stage.live.find(three_objects() * (np.arange(4) <= 4 - frame)[three_objects()], frame)
    stage.settle()
    tool = switch_on(stage)
    assert (tool.table.frame, listed(tool)) == (1, [1, 2, 3])
    tool.filter_by(ObjectFilter(min_size=1e9))
    stage.bridge.go_to(Plane(2, 0, 4))
    QTest.qWait(60)
    assert tool.table is None
    stage.live.measure()
    stage.settle()
    assert (tool.table.frame, len(tool.table.rows)) == (2, 2)
    assert not stage.bridge.found.layer.data[2].any()
    assert stage.bridge.found.layer.data[1].any()


def test_with_another_image_there_is_no_table_until_its_objects_are_found(stage):
    tool = switch_on(stage)
    (layer,) = [layer for layer in stage.viewer.layers if layer is stage.bridge.found.layer]
    stage.live.open(np.zeros(SHAPE, np.uint8))
    stage.bridge.open(stage.source)
    assert tool.is_on
    assert tool.table is None
    layer.selected_label = 2  # an ordinary layer by now
    assert tool.chosen == 0
    stage.live.find(three_objects())
    stage.settle()
    stage.live.measure()
    stage.settle()
    assert listed(tool) == [1, 2, 3]


# --- model and panel ---


def table_of(n=4, seed=0):
    rng = np.random.default_rng(seed)
    rows = pd.DataFrame(
        {
            "id": np.arange(1, n + 1),
            "class": rng.integers(2, 4, n),
            "n_voxels": rng.integers(1, 1000, n),
            "volume": rng.uniform(0, 1000, n),
            "surface": rng.uniform(0, 1000, n),
            **{axis: rng.uniform(0, 100, n) for axis in "zyx"},
            "mean_0": rng.uniform(0, 255, n),
            "touches_border": rng.random(n) < 0.3,
        }
    )
    return ObjectTable(0, rows)


def cells(model, column):
    return [model.data(model.index(row, column)) for row in range(model.rowCount())]


def test_columns_have_names_units_and_values_that_sort_as_numbers():
    table = table_of(30)
    model = ObjectTableModel()
    model.show(columns_of(table, "µm", {2: "nucleus", 3: "blob"}), np.ones(30, bool))
    headings = [model.headerData(n, Qt.Orientation.Horizontal) for n in range(model.columnCount())]
    assert headings == ["id", "class", "volume\nµm³", "surface\nµm²", "z\nµm", "y\nµm", "x\nµm", "mean"]
    model.sort(2, Qt.SortOrder.DescendingOrder)
    order = table.rows["volume"].to_numpy().argsort()[::-1]
    assert [model.object_at(row) for row in range(30)] == table.rows["id"].to_numpy()[order].tolist()
    assert cells(model, 2) == [cell_text(v) for v in np.sort(table.rows["volume"].to_numpy())[::-1]]
    model.sort(1)
    assert cells(model, 1) == sorted(cells(model, 1))
    assert set(cells(model, 1)) == {"nucleus", "blob"}
    model.show(columns_of(table, "", {}), table.rows["volume"].to_numpy() > 500)
    assert model.rowCount() == (table.rows["volume"] > 500).sum()
    assert model.headerData(2, Qt.Orientation.Horizontal) == "volume"


@pytest.mark.parametrize(
    ("value", "text"), [(np.int64(7), "7"), (0.123456, "0.1235"), (1234.5, "1234"), (123456.7, "123457"), (0.0, "0")]
)
def test_numbers_are_short(value, text):
    assert cell_text(value) == text


class Ear:
    def __init__(self, panel):
        self.toggles, self.chosen, self.filters, self.n_csv = [], [], [], 0
        panel.toggled.connect(self.toggles.append)
        panel.object_chosen.connect(self.chosen.append)
        panel.filtered.connect(self.filters.append)
        panel.csv_requested.connect(self.count)

    def count(self):
        self.n_csv += 1


@pytest.fixture
def panel(qtbot):
    panel = TablePanel()
    qtbot.addWidget(panel)
    panel.resize(330, 400)
    panel.show()
    return panel


def click_row(panel, row):
    view = panel._view
    place = view.visualRect(view.model().index(row, 0)).center()
    QTest.mouseClick(view.viewport(), Qt.MouseButton.LeftButton, pos=place)


def test_the_panel_tells_of_rows_by_mouse_and_keys(panel, qtbot):
    ear = Ear(panel)
    QTest.mouseClick(panel._section._button, Qt.MouseButton.LeftButton)
    assert ear.toggles == [True]
    panel.show_table(None, np.zeros(0, bool), 0)
    assert panel._text.text() == "Measuring…"
    table = table_of(5000)
    everything = np.ones(5000, bool)
    panel.show_names({2: "nucleus", 3: "blob"}, "µm")
    panel.show_table(table, everything, 0)
    assert panel._text.text() == "5,000 objects"
    assert not ear.chosen
    click_row(panel, 3)
    click_row(panel, 3)  # goes there once more
    assert ear.chosen == [4, 4]
    panel._view.setFocus()
    QTest.keyClick(panel._view, Qt.Key.Key_Down)
    assert ear.chosen == [4, 4, 5]
    header = panel._view.horizontalHeader()
    place = header.sectionViewportPosition(2) + header.sectionSize(2) // 2
    for _ in range(2):
        QTest.mouseClick(header.viewport(), Qt.MouseButton.LeftButton, pos=QPoint(place, 8))
    largest = int(table.rows["id"][table.rows["volume"].idxmax()])
    click_row(panel, 0)
    smallest = int(table.rows["id"][table.rows["volume"].idxmin()])
    assert ear.chosen[-1] in (largest, smallest)
    n = len(ear.chosen)
    panel.show_table(table, everything, 77)
    assert panel._model.object_at(panel._selection.currentIndex().row()) == 77
    panel.show_table(table, everything, 0)
    assert not panel._selection.hasSelection()
    assert len(ear.chosen) == n  # what is shown is no wish


def test_the_panel_tells_of_filters_and_says_how_many_are_left(panel):
    ear = Ear(panel)
    panel.show_on(True)
    assert not ear.toggles
    table = table_of(10)
    panel.show_table(table, np.arange(10) < 4, 0)
    assert panel._text.text() == "4 of 10 objects; the others are hidden"
    QTest.keyClicks(panel._smallest, "12.5")
    assert not ear.filters  # not before it is finished
    QTest.keyClick(panel._smallest, Qt.Key.Key_Return)
    QTest.mouseClick(panel._without_border, Qt.MouseButton.LeftButton)
    assert ear.filters[-1] == ObjectFilter(12.5, None, True)
    panel.show_filter(ObjectFilter(None, 3e6, False))
    assert (panel._smallest.text(), panel._largest.text()) == ("", "3000000")
    assert len(ear.filters) == 2
    QTest.mouseClick(panel._csv, Qt.MouseButton.LeftButton)
    panel.show_table(table, np.zeros(10, bool), 0)
    QTest.mouseClick(panel._csv, Qt.MouseButton.LeftButton)
    assert ear.n_csv == 1
    assert panel.minimumSizeHint().width() <= 330


def test_ids_without_the_hidden_ones(stage):
    tool = switch_on(stage)
    tool.filter_by(ObjectFilter(max_size=200))
    whole = Box.whole(SHAPE)
    assert np.unique(stage.bridge.found._ids(0, whole)).tolist() == [0, 3]
    assert np.unique(stage.live.found.ids(0, whole)).tolist() == [0, 1, 2, 3]
