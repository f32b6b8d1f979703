"""The result panel wishes; it shows what is so."""

from __future__ import annotations

from typing import Any

import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QAbstractButton, QComboBox

from napari_sparseseg.live.events import ClassInfo, LiveStatus, WholeState, WholeStatus
from napari_sparseseg.widgets.result_panel import ResultPanel

CLASSES = (
    ClassInfo(1, "background", (0.5, 0.5, 0.5), is_background=True),
    ClassInfo(2, "nucleus", (1, 0, 0)),
    ClassInfo(5, "wall", (0, 0, 1)),
)


@pytest.fixture
def panel(qtbot: Any) -> ResultPanel:
    panel = ResultPanel()
    qtbot.addWidget(panel)
    panel.show_classes(CLASSES)
    panel.show_status(LiveStatus(has_model=True))
    panel.show()
    return panel


def click(qtbot: Any, button: QAbstractButton) -> None:
    if isinstance(button, QAbstractButton) and button.isCheckable():
        button.click()
    else:
        qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


@pytest.mark.parametrize(
    ("button", "signal"),
    [
        ("_accept_slice", "accept_slice_requested"),
        ("_accept_all", "accept_all_requested"),
        ("_hide", "prediction_toggled"),
        ("_outlines", "outlines_toggled"),
        ("_export", "export_requested"),
        ("_save", "save_model_requested"),
        ("_load", "load_model_requested"),
        ("_whole", "whole_requested"),
    ],
)
def test_each_button_is_a_wish(panel: ResultPanel, qtbot: Any, button: str, signal: str) -> None:
    with qtbot.waitSignal(getattr(panel, signal), timeout=1000):
        click(qtbot, getattr(panel, button))


def test_without_a_model_nothing_can_be_accepted_saved_or_exported(panel: ResultPanel) -> None:
    panel.show_status(LiveStatus())
    for button in (panel._accept_slice, panel._accept_all, panel._export, panel._save):
        assert not button.isEnabled()
        assert button.toolTip().endswith("There is no prediction yet.")
    assert panel._load.isEnabled()
    panel.show_status(LiveStatus(has_model=True))
    assert panel._accept_slice.isEnabled()
    assert "no prediction" not in panel._accept_slice.toolTip()


def test_all_of_the_image_is_predicted_stopped_gone_on_with_and_shown(panel: ResultPanel, qtbot: Any) -> None:
    wished: list[str] = []
    for name in ("whole_requested", "stop_requested", "go_on_requested", "whole_shown"):
        getattr(panel, name).connect(lambda name=name: wished.append(name))
    assert not panel._go_on.isVisible()
    assert not panel._show_whole.isVisible()
    click(qtbot, panel._whole)
    panel.show_whole(WholeStatus(WholeState.RUNNING, 0.25, "0.4 Mvoxel/s, 3:05 min left"))
    assert panel._whole.text() == "Stop"
    assert panel._whole_text.text() == "Predicting all: 25%, 0.4 Mvoxel/s, 3:05 min left"
    click(qtbot, panel._whole)
    panel.show_whole(WholeStatus(WholeState.STOPPING, 0.25))
    assert not panel._whole.isEnabled()
    panel.show_whole(WholeStatus(WholeState.UNFINISHED, 0.25))
    assert panel._whole.text() == "Predict all"
    assert panel._go_on.text() == "Go on (25%)"
    assert not panel._whole_text.isVisible()
    click(qtbot, panel._go_on)
    panel.show_whole(WholeStatus(WholeState.DONE, 1.0, paths=("0000.ome.zarr",)))
    assert not panel._go_on.isVisible()
    click(qtbot, panel._show_whole)
    assert wished == ["whole_requested", "stop_requested", "go_on_requested", "whole_shown"]
    panel.show_whole(WholeStatus(text="the disk is full; make room"))
    assert panel._whole_text.text() == "the disk is full; make room"
    panel.show_status(LiveStatus())
    assert not panel._whole.isEnabled()
    assert panel._whole.toolTip().endswith("There is no prediction yet.")


def test_probability_is_of_an_object_at_first(panel: ResultPanel, qtbot: Any) -> None:
    wished: list[Any] = []
    panel.probability_chosen.connect(wished.append)
    assert not panel._class.isEnabled()
    click(qtbot, panel._probability)
    panel._class.setCurrentIndex(2)
    panel._class.activated.emit(2)
    click(qtbot, panel._probability)
    assert wished == [2, 5, None]


def test_probability_of_a_class_that_was_removed_moves_to_another(panel: ResultPanel, qtbot: Any) -> None:
    wished: list[Any] = []
    panel.show_maps(
        probability=5, uncertainty=False, freshness=False, ambiguity=False, novelty=False, class_layers=False
    )
    panel.probability_chosen.connect(wished.append)
    panel.show_classes(CLASSES[:2])
    assert wished == [2]


def test_renaming_a_class_keeps_the_choice(panel: ResultPanel, qtbot: Any) -> None:
    panel.show_maps(
        probability=5, uncertainty=False, freshness=False, ambiguity=False, novelty=False, class_layers=False
    )
    with qtbot.assertNotEmitted(panel.probability_chosen):
        panel.show_classes((*CLASSES[:2], ClassInfo(5, "membrane", (0, 0, 1))))
    assert panel._class.currentText() == "membrane"


@pytest.mark.parametrize(
    ("box", "signal"),
    [
        ("_uncertainty", "uncertainty_toggled"),
        ("_freshness", "freshness_toggled"),
        ("_ambiguity", "ambiguity_toggled"),
        ("_novelty", "novelty_toggled"),
    ],
)
def test_maps_are_wishes(panel: ResultPanel, qtbot: Any, box: str, signal: str) -> None:
    with qtbot.waitSignal(getattr(panel, signal), timeout=1000) as caught:
        click(qtbot, getattr(panel, box))
    assert caught.args == [True]


def test_shows_which_maps_there_are_and_emits_nothing(panel: ResultPanel, qtbot: Any) -> None:
    with (
        qtbot.assertNotEmitted(panel.uncertainty_toggled),
        qtbot.assertNotEmitted(panel.freshness_toggled),
        qtbot.assertNotEmitted(panel.probability_chosen),
    ):
        panel.show_maps(
            probability=None, uncertainty=True, freshness=True, ambiguity=True, novelty=True, class_layers=True
        )
    assert (panel._probability.isChecked(), panel._uncertainty.isChecked(), panel._freshness.isChecked()) == (
        False,
        True,
        True,
    )


def test_each_control_has_a_tooltip(panel: ResultPanel) -> None:
    controls = [*panel.findChildren(QAbstractButton), *panel.findChildren(QComboBox)]
    assert len(controls) > 10
    assert [control for control in controls if not control.toolTip()] == []


def test_fits_into_a_narrow_dock(panel: ResultPanel) -> None:
    assert panel.minimumSizeHint().width() <= 330


def test_a_layer_for_each_class_is_offered_where_they_overlap(panel: ResultPanel, qtbot: Any) -> None:
    panel.show_overlapping(False)
    assert panel._class_layers.isHidden()
    panel.show_overlapping(True)
    assert not panel._class_layers.isHidden()
    with qtbot.waitSignal(panel.class_layers_toggled) as told:
        panel._class_layers.click()
    assert told.args == [True]
    panel.show_overlapping(False)
    assert not panel._class_layers.isHidden(), "what is switched on can be switched off"
