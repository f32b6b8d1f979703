"""The dock: it opens what there is, obeys, shows what is so, and ends with the viewer."""

from __future__ import annotations

import gc
import subprocess
import sys
import textwrap
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import npe2
import numpy as np
import pytest
import tifffile
import torch
from napari.utils.notifications import notification_manager
from projectkit import close_docks
from qtpy.QtCore import QEvent, QObject, QPoint, Qt, QTimer
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QAbstractButton, QAbstractSpinBox, QApplication, QComboBox, QMenu, QScrollArea, QSlider
from typing_extensions import override

from napari_sparseseg import samples
from napari_sparseseg._types import Box, Plane, Region
from napari_sparseseg.config import ModelConfig, TrainingConfig
from napari_sparseseg.errors import InputError
from napari_sparseseg.live.events import (
    CurvePoint,
    LiveState,
    LiveStatus,
    ObjectsChange,
    SuggestedSlice,
)
from napari_sparseseg.live.keeping import Keeping
from napari_sparseseg.storage.project.project import Project
from napari_sparseseg.widgets import actions, commands, home, image_panel, project_actions, settings_panel
from napari_sparseseg.widgets.actions import frame_paths, with_ending
from napari_sparseseg.widgets.dock import SparseSegDock
from napari_sparseseg.widgets.session import find_session
from napari_sparseseg.widgets.sources import source_of

SHAPE = (10, 48, 48)
LEFT, RIGHT = Box((4, 4, 4), (5, 20, 20)), Box((4, 28, 28), (5, 44, 44))


@pytest.fixture(autouse=True)
def projects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPARSESEG_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "projects"


@pytest.fixture(autouse=True)
def answer(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """What the user answers to questions; no dialog opens."""
    asked = Mock(return_value=True)
    monkeypatch.setattr(actions, "ask", asked)
    return asked


@pytest.fixture
def viewer(make_viewer: Callable[[], Any]) -> Any:
    return make_viewer()


@pytest.fixture
def open_dock() -> Iterator[Callable[[Any], SparseSegDock]]:
    """``open_dock(viewer)``: as napari opens it, given its proxy, if there is a window; everything has settled."""
    without_window: list[SparseSegDock] = []

    def open_it(viewer: Any) -> SparseSegDock:
        if hasattr(viewer, "window"):
            _, dock = viewer.window.add_plugin_dock_widget("napari-sparseseg", "Sparse Segmentation")
        else:
            dock = SparseSegDock(viewer)
            without_window.append(dock)
        QTest.qWait(20)
        return dock

    yield open_it
    close_docks(without_window)


@pytest.fixture
def stage_of(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    """``stage_of(viewer)``: hands to paint with on the layers of the dock, as `set_stage` has them."""
    shared = request.config.pluginmanager.get_plugin(str(Path(__file__).parent / "conftest.py"))

    def make(viewer: Any) -> Any:
        session = find_session(viewer)
        return shared.Stage(viewer, session.live, session.relay, session.bridge, session.source)

    return make


def add_image(viewer: Any, name: str = "cells", shape: tuple[int, ...] = SHAPE, **options: Any) -> Any:
    image = np.random.default_rng(0).integers(0, 100, shape).astype(np.uint8)
    return viewer.add_image(image, name=name, **options)


def paint(dock: SparseSegDock, *, box: Box = LEFT, class_id: int = 2) -> None:
    dock.session.live.annotate(Region(0, box), class_id, plane=Plane(0, 0, 4))
    dock.session.relay.flush()


def find_two_objects(dock: SparseSegDock) -> None:
    """As if two objects had been found, of 1280 and 360 voxels."""
    live = dock.session.live
    ids = np.zeros(SHAPE, np.uint32)
    ids[2:7, 4:20, 4:20], ids[1:6, 30:39, 33:41] = 1, 2
    live._opened().objects.take((1, *SHAPE), 0, Box.whole(SHAPE), ids)
    live.events.objects_changed.emit(ObjectsChange(0, Box.whole(SHAPE)))
    dock.session.relay.flush()


def messages() -> list[str]:
    return [record.message for record in notification_manager.records]


def shown_message(dock: SparseSegDock) -> tuple[str, bool]:
    """What the status line of the dock says, and whether it is an error."""
    ((text, is_error),) = [(label.text(), kind) for kind, label in dock._messages.items() if not label.isHidden()]
    return text, is_error


def live_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("sparseseg")]


class Damaged:
    """A lazy image of which one plane cannot be read."""

    shape, ndim, dtype = SHAPE, len(SHAPE), np.dtype(np.uint8)

    def __getitem__(self, where: Any) -> Any:
        z = where[0] if isinstance(where, tuple) else where
        if (np.arange(SHAPE[0])[z] == SHAPE[0] - 1).any():
            raise RuntimeError("error during blosc decompression")
        return np.ones(SHAPE, np.uint8)[where]


class TestUnreadableVoxels:
    @pytest.fixture
    def dock(self, viewer: Any, open_dock: Any) -> SparseSegDock:
        viewer.add_image(Damaged(), name="cells", contrast_limits=(0, 99))
        return open_dock(viewer)

    def test_they_are_told_and_leave_no_project(self, dock: SparseSegDock, projects: Path) -> None:
        text, is_error = shown_message(dock)
        assert is_error
        assert text.startswith("The voxels of “cells” cannot be read (error during blosc decompression)")
        assert dock.session.source is None
        assert list(projects.iterdir()) == []

    def test_another_image_can_be_used_and_its_project_opened(self, dock: SparseSegDock, viewer: Any) -> None:
        layer = add_image(viewer, "good")
        viewer.layers.selection.active = layer
        QTest.qWait(20)
        dock.image_panel._images_box.setCurrentText("good")
        dock.image_panel._use.click()
        assert dock.session.source.layer_names == ("good",)
        paint(dock)
        path, codes = dock.session.project.path, dock.session.live.codes.copy()
        other = add_image(viewer, "other", (4, 32, 32))
        dock._actions.open_image(source_of([other]))
        dock._project_actions.open(path)
        assert dock.session.project.path == path
        np.testing.assert_array_equal(dock.session.live.codes, codes)


class TestOpening:
    def test_the_only_image_needs_no_choice(self, viewer: Any, open_dock: Any) -> None:
        layer = add_image(viewer, scale=(2, 0.5, 0.5), translate=(1, 2, 3), units=("um",) * 3)
        dock = open_dock(viewer)
        assert dock.session.source.layer_names == ("cells",)
        assert dock.session.live.image_shape == SHAPE
        ours = [other for other in viewer.layers if other is not layer]
        assert len(ours) == 2
        for other in ours:
            assert (other.data.dtype, other.data.shape) == (np.uint8, SHAPE)
            np.testing.assert_allclose(other.scale, layer.scale)
            np.testing.assert_allclose(other.translate, layer.translate)
        assert [info.name for info in dock.class_panel._classes] == ["background", "object"]
        assert dock.class_panel.current_id == 2

    def test_an_image_that_comes_later_is_opened_too(self, viewer: Any, open_dock: Any) -> None:
        dock = open_dock(viewer)
        assert dock.session.source is None
        assert not dock.train_panel._train.isEnabled()
        add_image(viewer)
        QTest.qWait(20)
        assert dock.session.source.name == "cells"

    def test_of_several_images_the_selected_one_is_taken(self, viewer: Any, open_dock: Any) -> None:
        first = add_image(viewer, "first")
        add_image(viewer, "second")
        viewer.layers.selection.active = first
        assert open_dock(viewer).session.source.name == "first"

    def test_a_huge_image_waits_for_the_user(
        self, viewer: Any, open_dock: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(image_panel, "LARGEST_AT_ONCE", 1000)
        add_image(viewer)
        dock = open_dock(viewer)
        assert dock.session.source is None
        assert not dock.image_panel._use.isHidden()
        QTest.mouseClick(dock.image_panel._use, Qt.MouseButton.LeftButton)
        assert dock.session.source is not None

    def test_where_the_whole_has_no_room_a_region_is_asked_for_and_used(
        self, viewer: Any, open_dock: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def zeros(shape: tuple[int, ...], dtype: Any) -> Any:
            if shape == (1, *SHAPE):  # as on Windows
                raise InputError("too large to be worked on as a whole here; choose a working region")
            return np.zeros(shape, dtype)

        monkeypatch.setattr("napari_sparseseg.live.live_segmenter.zeros", zeros)
        layer = add_image(viewer)
        dock = open_dock(viewer)
        assert dock.session.source is None
        assert "choose a working region" in shown_message(dock)[0]
        dock.image_panel.source_chosen.emit(source_of([layer], region=Box((2, 8, 8), (8, 40, 40))))
        assert dock.session.live.image_shape == (6, 32, 32)
        paint(dock)
        assert dock.session.has_paint

    def test_an_image_that_cannot_be_used_is_explained(self, viewer: Any, open_dock: Any) -> None:
        add_image(viewer, rotate=20)
        dock = open_dock(viewer)
        assert dock.session.source is None
        assert "rotated" in dock.image_panel._problem.text()

    def test_works_with_the_viewer_itself_and_with_its_proxy(self, make_napari_viewer_proxy: Any) -> None:
        viewer = make_napari_viewer_proxy()
        add_image(viewer)
        dock = SparseSegDock(viewer)
        QTest.qWait(20)
        assert find_session(viewer) is dock.session
        assert find_session(viewer.__wrapped__) is dock.session
        dock.session.close()
        dock.close()

    def test_two_viewers_have_sessions_of_their_own(self, make_napari_viewer: Any, open_dock: Any) -> None:
        viewers = [make_napari_viewer(), make_napari_viewer()]
        for number, viewer in enumerate(viewers):
            add_image(viewer, f"image {number}")
        docks = [open_dock(viewer) for viewer in viewers]
        assert [dock.session.source.name for dock in docks] == ["image 0", "image 1"]
        paint(docks[0])
        assert not docks[1].session.has_paint

    def test_an_answer_about_the_image_before_is_not_shown_on_the_next(self, viewer: Any, open_dock: Any) -> None:
        add_image(viewer)
        dock = open_dock(viewer)
        session = dock.session
        paint(dock)
        told = len(messages())
        session.live.events.slice_suggested.emit(SuggestedSlice(Plane(0, 0, 9), (9, 5, 6), 0.3, "uncertainty"))
        session.open(source_of([add_image(viewer, "others", (3, 20, 20))]))
        session.relay.flush()
        assert session.bridge.spot.layer is None
        assert not any("Paint next" in text for text in messages()[told:])


class TestWishes:
    @pytest.mark.parametrize(
        ("panel", "signal", "values", "method", "arguments"),
        [
            ("train_panel", "start_requested", (), "start", ()),
            ("train_panel", "pause_requested", (), "pause", ()),
            ("train_panel", "update_requested", (), "update_once", ()),
            ("train_panel", "live_toggled", (False,), "set_live", (False,)),
            ("train_panel", "reset_requested", (), "reset_model", ()),
            ("class_panel", "class_renamed", (2, "nucleus"), "rename_class", (2, "nucleus")),
            ("class_panel", "class_recolored", (2, (1.0, 0.0, 0.0)), "recolor_class", (2, (1.0, 0.0, 0.0))),
            ("class_panel", "background_chosen", (2,), "set_background", (2,)),
            ("class_panel", "class_removed", (2,), "remove_class", (2,)),
            ("paint_panel", "undo_requested", (), "undo", ()),
            ("paint_panel", "redo_requested", (), "redo", ()),
            ("paint_panel", "complete_toggled", (True,), "set_complete", (Plane(0, 0, 4), True)),
        ],
    )
    def test_reach_the_segmenter(
        self,
        viewer: Any,
        open_dock: Any,
        monkeypatch: pytest.MonkeyPatch,
        panel: str,
        signal: str,
        values: tuple[Any, ...],
        method: str,
        arguments: tuple[Any, ...],
    ) -> None:
        add_image(viewer)
        dock = open_dock(viewer)
        dock.session.bridge.go_to(Plane(0, 0, 4))
        called = Mock(return_value=True)
        monkeypatch.setattr(dock.session.live, method, called)
        getattr(getattr(dock, panel), signal).emit(*values)
        called.assert_called_once_with(*arguments)

    @pytest.mark.parametrize(
        ("panel", "signal", "values", "method", "arguments"),
        [
            ("paint_panel", "mode_chosen", ("correct",), "set_mode", ("correct",)),
            ("class_panel", "class_chosen", (1,), "set_class", (1,)),
            ("paint_panel", "slice_chosen", (Plane(0, 1, 7),), "go_to", (Plane(0, 1, 7),)),
            ("result_panel", "prediction_toggled", (), "toggle_prediction", ()),
            ("result_panel", "outlines_toggled", (), "toggle_outlines", ()),
            ("result_panel", "probability_chosen", (2,), "show_probability", (2,)),
            ("result_panel", "uncertainty_toggled", (True,), "show_uncertainty", (True,)),
            ("result_panel", "freshness_toggled", (True,), "show_freshness", (True,)),
            ("result_panel", "ambiguity_toggled", (True,), "show_ambiguity", (True,)),
            ("result_panel", "novelty_toggled", (True,), "show_novelty", (True,)),
        ],
    )
    def test_reach_the_bridge(
        self,
        viewer: Any,
        monkeypatch: pytest.MonkeyPatch,
        open_dock: Any,
        panel: str,
        signal: str,
        values: tuple[Any, ...],
        method: str,
        arguments: tuple[Any, ...],
    ) -> None:
        called = Mock()
        monkeypatch.setattr(f"napari_sparseseg.widgets.bridge.LayerBridge.{method}", called)
        add_image(viewer)
        dock = open_dock(viewer)
        called.reset_mock()
        getattr(getattr(dock, panel), signal).emit(*values)
        called.assert_called_once_with(*arguments)

    def test_without_an_image_they_are_answered_with_a_sentence(self, viewer: Any, open_dock: Any) -> None:
        dock = open_dock(viewer)
        dock.train_panel.start_requested.emit()
        assert shown_message(dock) == ("There is no image yet; open one first.", True)
        assert messages()[-1] == "There is no image yet; open one first."
        dock.paint_panel.complete_toggled.emit(True)
        assert "open an image first" in shown_message(dock)[0]

    def test_a_new_class_is_painted_with_and_named(self, viewer: Any, open_dock: Any) -> None:
        add_image(viewer)
        dock = open_dock(viewer)
        QTest.mouseClick(dock.class_panel._add, Qt.MouseButton.LeftButton)
        assert dock.session.bridge.class_id == 3
        assert dock.class_panel.current_id == 3
        assert dock.class_panel._rows[2]._edit is not None

    def test_settings_are_handed_on_and_shown(self, viewer: Any, open_dock: Any) -> None:
        add_image(viewer)
        dock = open_dock(viewer)
        config = TrainingConfig(batch_size=3)
        dock.settings_panel.configured.emit("training", config)
        assert dock.session.live.settings.training == config
        assert dock.settings_panel.forms["training"].config == config
        dock.settings_panel.device_chosen.emit("cpu")
        assert dock.session.live.settings.device == "cpu"
        assert dock.settings_panel._device.currentText() == "CPU"

    def test_a_cluster_is_asked_for_by_its_address(
        self, viewer: Any, open_dock: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        dock = open_dock(viewer)
        panel, box = dock.settings_panel, dock.settings_panel._device
        width = panel.minimumSizeHint().width()
        address = "tcp://a-scheduler-with-a-long-name.example.org:8786"
        answers = iter([("no address", True), (f"{address} ", True), ("", False)])
        monkeypatch.setattr(settings_panel.QInputDialog, "getText", lambda *_, **__: next(answers))
        chosen = []
        for shown in ("Automatic", address, address):
            box.setCurrentIndex(box.count() - 1)
            box.activated.emit(box.count() - 1)
            chosen.append(dock.session.live.settings.device)
            assert box.currentText() == shown
        assert chosen == ["auto", address, address]
        assert panel.minimumSizeHint().width() == width

    def test_auto_start_can_be_switched_off(self, viewer: Any, open_dock: Any) -> None:
        dock = open_dock(viewer)
        dock.train_panel.auto_start_toggled.emit(False)
        assert not dock.session.live.auto_start
        assert not dock.train_panel._auto.isChecked()

    def test_brush_of_panel_and_layers_is_one(self, viewer: Any, open_dock: Any) -> None:
        add_image(viewer)
        dock = open_dock(viewer)
        dock.paint_panel.brush_resized.emit(17)
        ours = [layer for layer in viewer.layers if hasattr(layer, "brush_size")]
        assert [layer.brush_size for layer in ours] == [17, 17]
        ours[0].brush_size = 23
        assert dock.paint_panel._brush.value() == 23

    @pytest.mark.window
    def test_the_brush_stays_with_another_image_and_another_dock(self, viewer: Any, open_dock: Any) -> None:
        add_image(viewer)
        dock = open_dock(viewer)
        dock.paint_panel.brush_resized.emit(17)
        dock.image_panel.source_chosen.emit(dock.image_panel.wished_source())
        assert dock.session.bridge.annotation_layer.brush_size == 17
        assert dock.paint_panel._brush.value() == 17
        dock.parent().destroyOnClose()
        QTest.qWait(50)
        assert open_dock(viewer).paint_panel._brush.value() == 17


class TestQuestions:
    def test_reset_is_asked_for(self, viewer: Any, open_dock: Any, answer: Mock) -> None:
        add_image(viewer)
        dock = open_dock(viewer)
        dock.session.live.reset_model = Mock()
        answer.return_value = False
        dock.train_panel.reset_requested.emit()
        dock.session.live.reset_model.assert_not_called()
        assert "paint stays" in answer.call_args.args[2]

    def test_removing_a_class_is_asked_for_only_if_it_has_paint(
        self, viewer: Any, open_dock: Any, answer: Mock
    ) -> None:
        add_image(viewer)
        dock = open_dock(viewer)
        dock.session.live.add_class("wall")
        dock.session.live.add_class("gap")
        dock.class_panel.class_removed.emit(4)
        answer.assert_not_called()
        paint(dock, class_id=3)
        answer.return_value = False
        dock.class_panel.class_removed.emit(3)
        assert [info.class_id for info in dock.session.live.classes] == [1, 2, 3]
        answer.return_value = True
        dock.class_panel.class_removed.emit(3)
        assert [info.class_id for info in dock.session.live.classes] == [1, 2]

    def test_another_image_is_asked_for_if_a_script_has_painted(
        self, viewer: Any, open_dock: Any, answer: Mock
    ) -> None:
        add_image(viewer)
        dock = open_dock(viewer)
        dock.session.live.annotate(Region(0, LEFT), 2)
        dock.image_panel.source_chosen.emit(dock.image_panel.wished_source())
        answer.assert_called_once()

    def test_another_image_is_asked_for_only_if_there_is_paint(self, viewer: Any, open_dock: Any, answer: Mock) -> None:
        layers = {name: add_image(viewer, name, shape) for name, shape in (("a", SHAPE), ("b", (6, 40, 56)))}
        viewer.layers.selection.active = layers["a"]
        dock = open_dock(viewer)
        panel = dock.image_panel

        def use(name: str) -> None:
            index = panel._images_box.findText(name)
            panel._images_box.setCurrentIndex(index)
            panel._images_box.activated.emit(index)
            QTest.mouseClick(panel._use, Qt.MouseButton.LeftButton)

        use("b")
        answer.assert_not_called()
        assert dock.session.live.image_shape == (6, 40, 56)
        paint(dock)
        answer.return_value = False
        use("a")
        assert dock.session.source.name == "b"
        assert not panel._use.isHidden()
        answer.return_value = True
        QTest.mouseClick(panel._use, Qt.MouseButton.LeftButton)
        assert dock.session.source.name == "a"
        assert not dock.session.has_paint
        kept = [layer for layer in viewer.layers if layer.data.shape == (6, 40, 56) and layer is not layers["b"]]
        assert any((layer.data == 2).sum() == LEFT.n_voxels for layer in kept)


class TestShowing:
    def test_status_reaches_the_panels(self, viewer: Any, open_dock: Any) -> None:
        add_image(viewer)
        dock = open_dock(viewer)
        assert not dock.paint_panel._correct.isEnabled()
        dock.session.relay.status.emit(LiveStatus(state=LiveState.TRAINING, is_training=True, has_model=True))
        assert dock.train_panel._train.text() == "Pause"
        assert dock.paint_panel._correct.isEnabled()
        assert dock.result_panel._accept_slice.isEnabled()

    def test_paint_is_listed_and_completeness_shown(self, viewer: Any, open_dock: Any) -> None:
        add_image(viewer)
        dock = open_dock(viewer)
        paint(dock)
        assert [painted.plane for painted in dock.paint_panel._slices] == [Plane(0, 0, 4)]
        dock.session.bridge.go_to(Plane(0, 0, 4))
        dock.paint_panel.complete_toggled.emit(True)
        dock.session.relay.flush()
        assert dock.paint_panel._complete.isChecked()
        dock.session.bridge.go_to(Plane(0, 0, 2))
        QTest.qWait(60)
        assert not dock.paint_panel._complete.isChecked()

    def test_undo_and_redo_are_offered_where_there_is_something(self, viewer: Any, open_dock: Any) -> None:
        add_image(viewer)
        dock = open_dock(viewer)
        panel = dock.paint_panel

        def offered() -> tuple[bool, bool]:
            dock.session.relay.flush()
            return panel._undo.isEnabled(), panel._redo.isEnabled()

        assert offered() == (False, False)
        paint(dock)
        assert offered() == (True, False)
        QTest.mouseClick(panel._undo, Qt.MouseButton.LeftButton)
        assert offered() == (False, True)
        QTest.mouseClick(panel._redo, Qt.MouseButton.LeftButton)
        assert offered() == (True, False)
        dock.session.live.add_class("wall")
        dock.session.live.remove_class(3)
        assert offered() == (False, False)

    def test_what_a_layer_shows_is_learnt_from_when_it_is_asked_for(self, viewer: Any, open_dock: Any) -> None:
        add_image(viewer)
        dock = open_dock(viewer)
        dock.result_panel.ambiguity_toggled.emit(True)
        assert dock.session.live.settings.paint.candidates == 1.2
        assert "Candidate classes" in shown_message(dock)[0]
        dock.result_panel.novelty_toggled.emit(True)
        assert dock.session.live.settings.paint.novelty == "features"
        dock.result_panel.ambiguity_toggled.emit(False)
        assert dock.session.live.settings.paint.candidates == 1.2
        assert not dock.result_panel._ambiguity.isChecked()
        assert dock.result_panel._novelty.isChecked()

    def test_classes_that_overlap_are_not_ambiguous(self, viewer: Any, open_dock: Any) -> None:
        add_image(viewer)
        dock = open_dock(viewer)
        paint_config = dock.session.live.settings.paint.with_changes(overlapping=True)
        dock.session.configure(paint=paint_config)
        dock.result_panel.ambiguity_toggled.emit(True)
        assert shown_message(dock)[1]
        assert not dock.result_panel._ambiguity.isChecked()
        assert dock.session.live.settings.paint.candidates == 0

    def test_extra_layers_come_along_to_another_image(self, viewer: Any, open_dock: Any, qtbot: Any) -> None:
        add_image(viewer)
        dock = open_dock(viewer)
        dock.result_panel.uncertainty_toggled.emit(True)
        dock.result_panel.freshness_toggled.emit(True)
        other = add_image(viewer, "others", (6, 40, 56))
        dock.image_panel.source_chosen.emit(source_of([other]))
        qtbot.waitUntil(lambda: {"others uncertainty", "others freshness"} <= {layer.name for layer in viewer.layers})
        assert not {"cells uncertainty", "cells freshness"} & {layer.name for layer in viewer.layers}
        assert dock.result_panel._uncertainty.isChecked()
        assert dock.result_panel._freshness.isChecked()

    def test_a_slice_can_be_complete_only_if_there_is_a_background(self, viewer: Any, open_dock: Any) -> None:
        add_image(viewer)
        dock = open_dock(viewer)
        assert dock.paint_panel._complete.isEnabled()
        dock._show_classes(tuple(replace(info, is_background=False) for info in dock.session.live.classes))
        assert not dock.paint_panel._complete.isEnabled()
        assert "background" in dock.paint_panel._complete.toolTip()

    def test_failures_are_told_everywhere(self, viewer: Any, open_dock: Any) -> None:
        add_image(viewer)
        dock = open_dock(viewer)
        dock.session.live.events.failed.emit("memory ran out; choose a smaller tile")
        dock.session.relay.flush()
        assert shown_message(dock) == ("Memory ran out; choose a smaller tile.", True)
        assert messages()[-1] == "Memory ran out; choose a smaller tile."

    def test_extra_layers_are_no_images_to_learn_from(self, viewer: Any, open_dock: Any) -> None:
        add_image(viewer)
        dock = open_dock(viewer)
        before = set(viewer.layers)
        dock.result_panel.uncertainty_toggled.emit(True)
        (layer,) = set(viewer.layers) - before
        assert dock.image_panel._images_box.count() == 1
        assert dock.result_panel._uncertainty.isChecked()
        viewer.layers.remove(layer)
        QTest.qWait(20)
        assert not dock.result_panel._uncertainty.isChecked()

    def test_it_is_narrow_and_has_a_tooltip_on_each_control(self, viewer: Any, open_dock: Any) -> None:
        add_image(viewer)
        dock = open_dock(viewer)
        assert dock.sizeHint().width() == 350
        scroll = dock.findChild(QScrollArea)
        assert scroll.widget().minimumSizeHint().width() <= 350
        kinds = (QAbstractButton, QComboBox, QAbstractSpinBox, QSlider)
        controls = [child for kind in kinds for child in dock.findChildren(kind)]
        assert len(controls) > 50
        assert [type(control).__name__ for control in controls if not control.toolTip()] == []


class TestLayers:
    def test_a_removed_image_pauses_the_training_and_keeps_the_paint(self, viewer: Any, open_dock: Any) -> None:
        layer = add_image(viewer)
        dock = open_dock(viewer)
        paint(dock)
        dock.session.live.start()
        viewer.layers.remove(layer)
        QTest.qWait(20)
        assert not dock.session.live.status.is_training
        assert dock.session.has_paint
        assert shown_message(dock) == (
            "The image “cells” was removed: training and prediction pause until it is back. Your paint is kept.",
            False,
        )
        assert not dock.session.live.status.is_live

    def test_the_image_that_was_removed_is_gone_on_with_when_it_is_back(
        self, viewer: Any, open_dock: Any, answer: Mock, qtbot: Any
    ) -> None:
        layer = add_image(viewer)
        dock = open_dock(viewer)
        paint(dock)
        use, project = dock.image_panel._use, dock.session.project
        viewer.layers.remove(layer)
        qtbot.waitUntil(lambda: not dock.session.live.status.is_live)
        add_image(viewer, "others", (6, 40, 56))
        QTest.qWait(20)
        assert not use.isHidden()
        viewer.add_image(layer.data.copy(), name="again", scale=(2, 1, 1))
        QTest.qWait(20)
        assert not dock.session.source.is_of(viewer.layers["again"])  # paint would not lie on it
        add_image(viewer, "back")
        qtbot.waitUntil(lambda: dock.session.source.is_of(viewer.layers["back"]))
        assert use.isHidden()
        assert dock.session.live.status.is_live
        assert dock.session.project is project
        assert dock.session.has_paint
        viewer.layers.remove("back")
        qtbot.waitUntil(lambda: not dock.session.live.status.is_live)
        dock.image_panel.source_chosen.emit(source_of([viewer.layers["others"]]))
        assert dock.session.live.status.is_live  # with another image as before
        answer.assert_called_once()

    def test_without_both_layers_no_slice_can_be_marked_and_the_reason_is_told(
        self, viewer: Any, open_dock: Any
    ) -> None:
        add_image(viewer)
        dock = open_dock(viewer)
        for what in ("annotation", "prediction"):
            viewer.layers.remove(f"cells {what}")
        with pytest.raises(InputError, match="Paint or Correct"):
            dock.session.set_complete(True)
        viewer.layers.clear()
        QTest.qWait(20)
        with pytest.raises(InputError, match="open an image first"):
            dock.session.set_complete(True)

    def test_one_that_arrives_while_another_is_being_opened_is_left_alone(
        self, viewer: Any, open_dock: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        dock, may_end, opened = open_dock(viewer), threading.Event(), []
        dock.session.source_changed.connect(lambda source: opened.append(source.name))

        def hold(_keeping: Keeping) -> str:
            assert may_end.wait(20)
            return ""

        def interfere() -> None:
            add_image(viewer, "second")
            dock._actions.open_image(source_of([viewer.layers["second"]]))
            QTimer.singleShot(20, may_end.set)  # after what that has started

        monkeypatch.setattr(Keeping, "hold", hold)
        QTimer.singleShot(300, interfere)
        add_image(viewer, "first")
        dock._open_by_itself()
        QTest.qWait(300)
        assert opened == ["first"]
        assert "Another image is being opened" in messages()[-1]

    def test_an_image_that_was_removed_unpainted_makes_room_for_the_next(self, viewer: Any, open_dock: Any) -> None:
        layer = add_image(viewer)
        dock = open_dock(viewer)
        viewer.layers.remove(layer)
        QTest.qWait(20)
        assert dock.session.source is None
        other = viewer.add_image(np.ones((4, 20, 30), np.uint8), name="other")
        QTest.qWait(50)
        assert dock.session.source.is_of(other)
        assert dock.session.live.image_shape == (4, 20, 30)

    @pytest.mark.parametrize(("shape", "is_only"), [((40, 48), True), ((1, 40, 48), True), ((6, 40, 48), False)])
    def test_a_single_slice_has_none_to_go_on_with(
        self, viewer: Any, open_dock: Any, shape: tuple[int, ...], is_only: bool
    ) -> None:
        viewer.add_image(np.zeros(shape, np.uint8) + np.arange(48, dtype=np.uint8))
        dock = open_dock(viewer)
        for thing in (dock.paint_panel._next, dock.suggestion_panel.menu.actions()[1]):
            assert thing.isEnabled() is not is_only
            assert ("single slice" in thing.toolTip()) is is_only

    def test_in_3d_the_hint_says_that_painting_needs_2d(self, viewer: Any, open_dock: Any, qtbot: Any) -> None:
        add_image(viewer)
        hint = open_dock(viewer).paint_panel._hint
        before = hint.toolTip()
        viewer.dims.ndisplay = 3
        qtbot.waitUntil(lambda: "works in 2D" in hint.toolTip())
        viewer.dims.ndisplay = 2
        qtbot.waitUntil(lambda: hint.toolTip() == before)

    def test_messages_fade(self, viewer: Any, open_dock: Any) -> None:
        add_image(viewer)
        dock = open_dock(viewer)
        dock.session.tell("something happened", True)
        assert shown_message(dock) == ("Something happened.", True)
        dock._fading.start(0)
        QTest.qWait(20)
        assert all(message.isHidden() for message in dock._messages.values())

    def test_renamed_hidden_and_reordered_images_change_nothing(self, viewer: Any, open_dock: Any) -> None:
        layer = add_image(viewer)
        dock = open_dock(viewer)
        live = dock.session.live.image_shape
        layer.name = "nuclei"
        layer.visible = False
        viewer.layers.move(0, 2)
        QTest.qWait(20)
        assert dock.session.live.image_shape == live
        assert dock.image_panel._images_box.currentText() == "nuclei"
        assert dock.image_panel._use.isHidden()

    def test_a_replaced_image_can_be_used_instead(self, viewer: Any, open_dock: Any) -> None:
        layer = add_image(viewer)
        dock = open_dock(viewer)
        layer.data = layer.data[:5, :20, :20]
        QTest.qWait(20)
        assert dock.session.live.image_shape == SHAPE
        QTest.mouseClick(dock.image_panel._use, Qt.MouseButton.LeftButton)
        assert dock.session.live.image_shape == (5, 20, 20)


@pytest.mark.window
class TestClosing:
    def test_a_closed_dock_opens_again_with_the_same_session(self, viewer: Any, open_dock: Any) -> None:
        add_image(viewer)
        first = open_dock(viewer)
        session, live = first.session, first.session.live
        paint(first)
        live.events.curve_extended.emit(CurvePoint(1, 0.1, 0.5, None))
        session.relay.flush()
        gone: list[bool] = []
        first.destroyed.connect(lambda: gone.append(True))
        first.parent().destroyOnClose()
        QTest.qWait(50)
        QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
        assert gone == [True]
        second = open_dock(viewer)
        assert second is not first
        assert second.session is session
        assert second.session.live is live
        assert [painted.plane for painted in second.paint_panel._slices] == [Plane(0, 0, 4)]
        assert second.train_panel.curve.n_points == 1
        assert len([layer for layer in viewer.layers if layer.name.startswith("cells")]) == 3

    def test_a_renamed_image_is_still_in_use_in_another_dock(self, viewer: Any, open_dock: Any) -> None:
        layer = add_image(viewer)
        first = open_dock(viewer)
        layer.name = "nuclei"
        add_image(viewer, "cells")
        first.parent().destroyOnClose()
        QTest.qWait(50)
        panel = open_dock(viewer).image_panel
        assert panel._images_box.currentText() == "nuclei"
        assert panel._use.isHidden()

    def test_a_hidden_dock_goes_on(self, viewer: Any, open_dock: Any) -> None:
        add_image(viewer)
        dock = open_dock(viewer)
        dock.parent().close()
        paint(dock)
        dock.parent().show()
        assert len(dock.paint_panel._slices) == 1

    @pytest.mark.parametrize("show", [True, False])
    def test_closing_the_viewer_ends_everything(
        self, make_napari_viewer: Any, open_dock: Any, qtbot: Any, show: bool
    ) -> None:
        viewer = make_napari_viewer(show=show)
        add_image(viewer)
        dock = open_dock(viewer)
        paint(dock)
        paint(dock, box=RIGHT, class_id=1)
        QTest.qWait(1500)
        assert live_threads()
        live, n_messages = dock.session.live, len(messages())
        viewer.close()
        QTest.qWait(10)
        assert find_session(viewer) is None
        qtbot.wait_until(lambda: live_threads() == [], timeout=30_000)  # after the piece of work that is under way
        assert messages()[n_messages:] == []
        assert live.codes.any()

    @pytest.mark.parametrize("end", ["window.close()", "QApplication.quit()", "raise SystemExit"])
    def test_the_process_ends_cleanly_while_training(self, end: str) -> None:
        script = f"""
            import threading, sys, time
            import napari, numpy as np
            from qtpy.QtCore import QTimer
            from qtpy.QtWidgets import QApplication
            from napari_sparseseg._types import Box, Region
            from napari_sparseseg.config import ModelConfig, TrainingConfig

            viewer = napari.Viewer()
            viewer.add_image(np.random.default_rng(0).integers(0, 99, (10, 48, 48)).astype(np.uint8))
            _, dock = viewer.window.add_plugin_dock_widget("napari-sparseseg")
            live, window = dock.session.live, viewer.window._qt_window
            model = ModelConfig(width=4, depth=2, scales=(1.0, 2.0), head_width=32)
            training = TrainingConfig(warm_start_steps=20, patch_voxels=2048)
            dock.session.configure(model=model, training=training)
            for class_id, start in ((1, 4), (2, 28)):
                live.annotate(Region(0, Box((4, start, start), (5, start + 12, start + 12))), class_id)
            for _ in range(600):
                QApplication.processEvents()
                time.sleep(0.05)
                if live.status.has_model:
                    break
            assert live.status.is_training

            def end():
                {end}

            if "SystemExit" in {end!r}:
                end()
            QTimer.singleShot(0, end)
            napari.run()
            left = [t.name for t in threading.enumerate() if t.name.startswith("sparseseg")]
            sys.exit(f"left behind: {{left}}" if left else 0)
        """
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script)],
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr, done.stderr

    def test_a_refused_close_changes_nothing(self, make_napari_viewer: Any, open_dock: Any) -> None:
        class Refusal(QObject):
            @override
            def eventFilter(self, watched: Any, event: Any) -> bool:
                if event.type() == QEvent.Type.Close:
                    event.ignore()
                    return True
                return False

        viewer = make_napari_viewer(show=True)
        add_image(viewer)
        window = viewer.window._qt_window
        refusal = Refusal()
        window.installEventFilter(refusal)
        dock = open_dock(viewer)
        window.close()
        QTest.qWait(30)
        assert find_session(viewer) is dock.session
        window.removeEventFilter(refusal)
        paint(dock)
        assert dock.session.has_paint

    def test_a_closed_viewer_is_not_kept_alive(self, make_napari_viewer: Any, open_dock: Any) -> None:
        viewer = make_napari_viewer()
        add_image(viewer)
        session = weakref.ref(open_dock(viewer).session)
        viewer.close()
        QTest.qWait(10)
        QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
        gc.collect()
        assert session() is None


class TestProjects:
    def test_strokes_are_written_beside_the_users_data(self, viewer: Any, open_dock: Any, projects: Path) -> None:
        add_image(viewer, "my cells/2")
        dock = open_dock(viewer)
        paint(dock)
        dock.session.live.project.journal.sync()
        (path,) = projects.glob("my_cells_2-*.sparseseg")
        with Project.open(path, read_only=True) as project:
            assert project.images[0].annotation().any()

    def test_each_image_has_its_own(self, viewer: Any, open_dock: Any, projects: Path) -> None:
        add_image(viewer)
        dock = open_dock(viewer)
        paint(dock)
        first = dock.session.project
        dock.session.open(dock.session.source)
        paint(dock)
        assert dock.session.project.path != first.path
        assert len(list(projects.iterdir())) == 2

    def test_none_is_left_where_nothing_was_painted(self, viewer: Any, open_dock: Any, projects: Path) -> None:
        add_image(viewer)
        dock = open_dock(viewer)
        assert len(list(projects.iterdir())) == 1
        dock.session.close()
        assert list(projects.iterdir()) == []

    def test_a_folder_that_cannot_be_made_is_told_and_paint_goes_elsewhere(
        self, viewer: Any, open_dock: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").write_text("in the way")
        monkeypatch.setenv("SPARSESEG_HOME", str(tmp_path / "file" / "home"))
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        add_image(viewer)
        dock = open_dock(viewer)
        paint(dock)
        assert "there can be no project" in messages()[-1]
        assert dock.session.live.project.journal.sync(timeout=5)
        assert dock.session.project.path.is_relative_to(tmp_path)
        assert dock.session.has_paint

    def test_an_open_one_is_known_however_its_path_is_written(self, viewer: Any, open_dock: Any) -> None:
        add_image(viewer)
        dock = open_dock(viewer)
        paint(dock)
        path = dock.session.project.path
        other_way = path.parent / ".." / path.parent.name / path.name
        dock._project_actions.open(other_way)
        assert messages()[-1].endswith("is open here already.")
        assert not dock.session.bridge.is_read_only
        home.note_recent(other_way, "cells")
        assert len(home.recents()) == 1

    @pytest.fixture
    def with_file(self, viewer: Any, open_dock: Any, tmp_path: Path, npe2pm: Any) -> SparseSegDock:
        """A dock that works on an image "cells" from a file."""
        npe2pm.register(npe2.PluginManifest.from_distribution("napari"))
        tifffile.imwrite(tmp_path / "cells.tif", np.random.default_rng(0).integers(0, 100, SHAPE).astype(np.uint8))
        viewer.open(tmp_path / "cells.tif")
        return open_dock(viewer)  # type: ignore[no-any-return]

    @pytest.fixture
    def removed(self, viewer: Any, with_file: SparseSegDock, qtbot: Any) -> SparseSegDock:
        """The same, painted in; the image was removed."""
        dock = with_file
        paint(dock)
        dock._project_actions.open(dock.session.project.path)
        assert messages()[-1].startswith("“cells-")
        assert messages()[-1].endswith("is open here already.")
        viewer.layers.remove("cells")
        qtbot.waitUntil(lambda: not dock.session.live.status.is_live)
        return dock

    @pytest.mark.parametrize("is_stored", [False, True])
    def test_an_image_that_was_removed_comes_back_with_its_project(
        self, viewer: Any, removed: SparseSegDock, qtbot: Any, is_stored: bool
    ) -> None:
        session, path = removed.session, removed.session.project.path
        image = np.asarray(session.source.array)
        if is_stored:
            session.live.project.store_pixels(image)
        for _ in range(2):
            removed._project_actions.open(path)
            QTest.qWait(20)
            assert [layer.name for layer in viewer.layers] == ["cells", "cells prediction", "cells annotation"]
            assert viewer.layers.selection.active is session.bridge.annotation_layer
            assert session.source.is_of(viewer.layers["cells"])
            assert session.live.status.is_live
            assert session.live.can_undo
            viewer.layers.clear()
            qtbot.waitUntil(lambda: not session.live.status.is_live)
        stretched = viewer.add_image(image, name="stretched", scale=(2, 1, 1))
        removed._project_actions.open(path)
        QTest.qWait(20)
        assert session.source.is_of(stretched)
        assert tuple(session.bridge.annotation_layer.scale) == (2, 1, 1)
        assert session.live.status.is_live
        assert (session.live.codes == 2).sum() == LEFT.n_voxels
        assert session.project.path == path

    def test_an_image_that_was_removed_is_awaited_where_it_was_saved(
        self, viewer: Any, removed: SparseSegDock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, qtbot: Any
    ) -> None:
        session, target = removed.session, tmp_path / "mine.sparseseg"
        monkeypatch.setattr(project_actions, "ask_for_output", lambda *_: str(target))
        removed._project_actions.save_as()
        assert session.project.path == target
        assert not session.live.status.is_live
        paint(removed, box=RIGHT, class_id=1)
        assert not session.live.status.is_training
        viewer.open(tmp_path / "cells.tif")
        qtbot.waitUntil(lambda: session.source.is_of(viewer.layers["cells"]))
        assert session.live.status.is_live
        assert viewer.layers[0].name == "cells"  # beneath the paint, which it would hide

    def test_one_that_was_removed_unpainted_comes_back_with_its_project(
        self, viewer: Any, with_file: SparseSegDock, qtbot: Any
    ) -> None:
        session, path = with_file.session, with_file.session.project.path
        viewer.layers.remove("cells")
        qtbot.waitUntil(lambda: session.source is None)
        with_file._project_actions.open(path)
        QTest.qWait(20)
        assert session.source.is_of(viewer.layers["cells"])
        assert session.project.path == path


class TestFiles:
    @pytest.fixture
    def written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mock:
        """What is written to out.tif when labels are exported."""
        written = Mock()
        monkeypatch.setattr(actions, "write_labels", written)
        monkeypatch.setattr(actions, "ask_for_output", lambda *_: str(tmp_path / "out.tif"))
        return written

    def test_voxels_of_no_known_size_are_exported_without_and_those_of_a_scale_with_one(
        self, viewer: Any, open_dock: Any, written: Mock, qtbot: Any
    ) -> None:
        layer = add_image(viewer)
        dock = open_dock(viewer)
        for step, spacing in ((1, None), (2, (2.0, 2.0, 2.0))):
            dock.session.open(source_of([layer], step=(step,) * 3))
            dock._actions.export_labels()
            qtbot.wait_until(lambda n=step: sum("exported" in text for text in messages()) == n, timeout=5000)
            options = written.call_args[1]
            assert (options["spacing"], options["unit"]) == (spacing, None)

    def test_labels_are_exported_with_names_and_voxel_size(
        self, viewer: Any, open_dock: Any, tmp_path: Path, written: Mock, qtbot: Any
    ) -> None:
        add_image(viewer, scale=(2, 500, 500), translate=(10, 20_000, 30_000), units=("um", "nm", "nm"))
        dock = open_dock(viewer)
        paint(dock)
        dock._actions.export_labels()
        qtbot.wait_until(lambda: "exported" in (messages() or [""])[-1], timeout=5000)
        (path, labels), options = written.call_args
        assert path == tmp_path / "out.tif"
        assert (labels == 2).sum() == LEFT.n_voxels
        assert options["spacing"] == (2000, 500, 500)
        assert options["offset"] == (10_000, 20_000, 30_000)
        assert options["unit"] == "nanometer"
        assert options["class_names"] == {1: "background", 2: "object"}

    def test_what_cannot_be_exported_is_told(
        self, viewer: Any, open_dock: Any, monkeypatch: pytest.MonkeyPatch, qtbot: Any
    ) -> None:
        monkeypatch.setattr(actions, "ask_for_output", lambda *_: "/nowhere/out.tif")
        add_image(viewer)
        dock = open_dock(viewer)
        dock._actions.export_labels()
        qtbot.wait_until(lambda: "not exported" in (messages() or [""])[-1], timeout=5000)
        assert shown_message(dock)[1]

    def test_the_table_of_objects_is_opened_clicked_filtered_and_written(
        self, viewer: Any, open_dock: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, qtbot: Any
    ) -> None:
        monkeypatch.setattr(actions, "ask_for_output", lambda *_: str(tmp_path / "objects.csv"))
        add_image(viewer, scale=(2, 0.5, 0.5), units=("um",) * 3)
        dock = open_dock(viewer)
        panel, live, tool = dock.found_panel.table, dock.session.live, dock.session.bridge.found.table
        assert panel.isHidden()  # there is nothing to measure
        find_two_objects(dock)
        QTest.mouseClick(panel._section._button, Qt.MouseButton.LeftButton)
        qtbot.wait_until(lambda: tool.table is not None, timeout=60_000)
        assert panel._text.text() == "2 objects"
        assert panel._model.headerData(2, Qt.Orientation.Horizontal) == "volume\nµm³"
        center = panel._view.visualRect(panel._model.index(1, 2)).center()
        QTest.mouseClick(panel._view.viewport(), Qt.MouseButton.LeftButton, pos=center)
        assert viewer.dims.point[0] == 2 * 3
        assert viewer.scene.camera.center[-2:] == pytest.approx((0.5 * 34, 0.5 * 36), abs=0.5)
        assert dock.session.bridge.found.layer.selected_label == 2
        QTest.keyClicks(panel._smallest, "600")
        QTest.keyClick(panel._smallest, Qt.Key.Key_Return)
        assert panel._text.text() == "1 of 2 objects; the others are hidden"
        assert dock.findChild(QScrollArea).widget().minimumSizeHint().width() <= 350
        QTest.mouseClick(panel._csv, Qt.MouseButton.LeftButton)
        qtbot.wait_until(lambda: "was written" in (messages() or [""])[-1], timeout=20_000)
        written = (tmp_path / "objects.csv").read_text().splitlines()
        assert written[0].startswith("id,class,n_voxels,volume,surface,z,y,x,mean_0,touches_border,z_start")
        assert [line.split(",")[:4] for line in written[1:]] == [["1", "0", "1280", "640.0"]]
        QTest.mouseClick(panel._section._button, Qt.MouseButton.LeftButton)
        assert not live.found.keeps_table
        assert panel._text.text() == ""

    def test_cancelled_dialogs_do_nothing(self, viewer: Any, open_dock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(actions, "ask_for_output", lambda *_: "")
        monkeypatch.setattr(actions, "ask_for_input", lambda *_: "")
        dock = open_dock(viewer)
        dock.result_panel.export_requested.emit()
        dock.result_panel.save_model_requested.emit()
        dock.result_panel.load_model_requested.emit()
        assert all(label.isHidden() for label in dock._messages.values())

    def test_a_model_file_that_is_none_is_told(
        self, viewer: Any, open_dock: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "model.safetensors").write_bytes(b"no model")
        monkeypatch.setattr(actions, "ask_for_input", lambda *_: str(tmp_path / "model.safetensors"))
        add_image(viewer)
        dock = open_dock(viewer)
        dock.result_panel.load_model_requested.emit()
        assert shown_message(dock)[1]

    def test_a_model_whose_classes_overlap_changes_the_settings_that_are_shown(
        self, viewer: Any, open_dock: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from napari_sparseseg.engine.checkpoint import save_model
        from napari_sparseseg.engine.model import FittedModel, ModelSpec
        from napari_sparseseg.engine.normalise import IntensityRange
        from napari_sparseseg.live.learner import table_of

        path = tmp_path / "model.safetensors"
        spec = ModelSpec(ModelConfig(width=4, depth=2, head_width=32), (1.0, 1.0, 1.0), 1, (False,) * 3)
        fitted = FittedModel.fresh(spec, table_of((1, 2), 1, overlapping=True), torch.device("cpu"), 0)
        save_model(path, replace(fitted, intensity=(IntensityRange((0.0,), (100.0,)),)), settings={}, history=())
        monkeypatch.setattr(actions, "ask_for_input", lambda *_: str(path))
        add_image(viewer)
        dock = open_dock(viewer)
        dock.result_panel._load.click()
        assert dock.session.live.is_overlapping
        assert dock.settings_panel.forms["paint"].config.overlapping
        assert not dock.result_panel._class_layers.isHidden()

    @pytest.mark.parametrize(
        ("path", "n_frames", "names"),
        [("a.tif", 1, ["a.tif"]), ("a.ome.zarr", 2, ["a_t000.ome.zarr", "a_t001.ome.zarr"])],
    )
    def test_each_time_point_has_its_file(self, path: str, n_frames: int, names: list[str]) -> None:
        assert [p.name for p in frame_paths(Path(path), n_frames)] == names

    @pytest.mark.parametrize(
        ("path", "chosen", "name"),
        [("a", "TIFF (*.tif)", "a.tif"), ("a.nrrd", "TIFF (*.tif)", "a.nrrd"), ("a", "All files (*)", "a")],
    )
    def test_a_name_gets_the_ending_of_the_filter(self, path: str, chosen: str, name: str) -> None:
        assert with_ending(path, chosen) == name


class TestCommands:
    NAMES = (
        ("start_training", "start"),
        ("pause_training", "pause"),
        ("update_once", "update_once"),
    )

    @pytest.mark.parametrize(("command", "method"), NAMES)
    def test_act_on_the_current_viewer(
        self, viewer: Any, open_dock: Any, monkeypatch: pytest.MonkeyPatch, command: str, method: str
    ) -> None:
        add_image(viewer)
        dock = open_dock(viewer)
        monkeypatch.setattr("napari.current_viewer", lambda: viewer)
        called = Mock()
        monkeypatch.setattr(dock.session.live, method, called)
        getattr(commands, command)()
        called.assert_called_once_with()

    def test_mark_the_slice_on_screen_and_look_at_the_prediction(
        self, viewer: Any, open_dock: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        add_image(viewer)
        dock = open_dock(viewer)
        monkeypatch.setattr("napari.current_viewer", lambda: viewer)
        commands.mark_slice_complete()
        assert [painted.is_complete for painted in dock.session.live.painted_slices()] == [True]
        (prediction,) = [layer for layer in viewer.layers if "prediction" in layer.name]
        commands.toggle_prediction()
        assert not prediction.visible
        commands.toggle_outlines()
        assert prediction.contour == 1
        n_layers = len(viewer.layers)
        commands.accept_slice()
        commands.accept_all()
        assert len(viewer.layers) > n_layers

    def test_say_that_the_dock_must_be_opened(self, viewer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("napari.current_viewer", lambda: viewer)
        commands.start_training()
        assert messages()[-1] == "Open the dock first: Layers > Segment > Sparse Segmentation."

    def test_tell_what_cannot_be_done(self, viewer: Any, open_dock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        open_dock(viewer)
        monkeypatch.setattr("napari.current_viewer", lambda: viewer)
        commands.accept_slice()
        assert "nothing to accept" in messages()[-1]


class Clicker:
    """Opens menus with the mouse, counts the clicks and presses."""

    def __init__(self, viewer: Any) -> None:
        self.viewer, self.n_clicks = viewer, 0

    def menu(self, *titles: str) -> None:
        """Click on a menu of the menu bar, rest on its submenus, click on the last entry."""
        bar = self.viewer.window._qt_window.menuBar()
        action = _named(bar, titles[0])
        self._click(bar, bar.actionGeometry(action).center())
        menu = action.menu()
        for title in titles[1:-1]:
            action = _named(menu, title)
            QTest.mouseMove(menu, menu.actionGeometry(action).center())
            menu.setActiveAction(action)  # as resting on it does, after a while
            menu = action.menu()
            if not menu.isVisible():
                menu.popup(menu.parentWidget().mapToGlobal(QPoint(10, 10)) if menu.parentWidget() else QPoint(10, 10))
            QTest.qWait(50)
        self._click(menu, menu.actionGeometry(_named(menu, titles[-1])).center())
        QTest.qWait(50)

    def stroke(self, stage: Any, start: tuple[int, ...], stop: tuple[int, ...]) -> None:
        stage.drag(start, stop)
        self.n_clicks += 1

    def _click(self, widget: Any, position: QPoint) -> None:
        QTest.mouseClick(widget, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, position)
        self.n_clicks += 1


def _named(menu: Any, title: str) -> Any:
    if isinstance(menu, QMenu):
        menu.aboutToShow.emit()
    texts = [action.text().replace("&", "") for action in menu.actions()]
    matching = [i for i, text in enumerate(texts) if text.startswith(title)]
    assert matching, f"{title!r} is not among {texts}"
    return menu.actions()[matching[0]]


def widest_spot(truth: np.ndarray, class_id: int) -> tuple[int, int]:
    """The middle of the widest area of a class, away from the border."""
    from scipy import ndimage

    distance = ndimage.distance_transform_edt(truth == class_id)
    distance[:24], distance[-24:], distance[:, :24], distance[:, -24:] = 0, 0, 0, 0
    y, x = np.unravel_index(distance.argmax(), truth.shape)
    return int(y), int(x)


def test_six_clicks_lead_from_an_empty_napari_to_a_prediction(
    make_napari_viewer: Any, stage_of: Callable[[Any], Any], qtbot: Any
) -> None:
    viewer = make_napari_viewer(show=True)
    viewer.window._qt_window.resize(1400, 900)
    mouse = Clicker(viewer)
    mouse.menu("File", "Open Sample", "Sparse Segmentation", "Tissue")
    qtbot.wait_until(lambda: len(viewer.layers) == 1, timeout=10_000)
    mouse.menu("Layers", "Segment", "Sparse Segmentation")
    qtbot.wait_until(lambda: len(viewer.layers) == 3, timeout=10_000)
    session = find_session(viewer)
    stage = stage_of(viewer)

    truth = samples.tissue().truth
    z = session.bridge.current_plane().index
    y, x = widest_spot(truth[z], samples.NUCLEUS)
    mouse.stroke(stage, (z, y - 3, x - 3), (z, y + 3, x + 3))
    stage.key("1")
    y, x = widest_spot(truth[z], samples.BACKGROUND)
    mouse.stroke(stage, (z, y - 3, x - 3), (z, y + 3, x + 3))
    assert mouse.n_clicks <= 6

    def agreement() -> float:
        shown = session.bridge.prediction_layer.data[z]
        bright = truth[z] != samples.BACKGROUND
        known = shown > 0
        return float(((shown == 2) == bright)[known].mean()) if known.mean() > 0.9 else 0.0

    qtbot.wait_until(lambda: agreement() > 0.65, timeout=60_000)
    assert session.live.status.is_training
    QTest.qWait(300)
    stage.screenshot("six-clicks")


class TestOverlappingClasses:
    def test_the_setting_offers_a_layer_for_each_class_which_goes_with_another_image(
        self, viewer: Any, open_dock: Callable[[Any], SparseSegDock]
    ) -> None:
        add_image(viewer)
        dock = open_dock(viewer)
        box = dock.result_panel._class_layers
        assert box.isHidden()
        dock.settings_panel.forms["paint"].field("overlapping").click()
        assert dock.session.live.is_overlapping
        assert not box.isHidden()
        box.click()
        layer = viewer.layers["cells object"]
        paint(dock)
        QTest.qWait(100)
        assert (layer.data[LEFT.slices] == 2).all()
        assert dock.session.owns(layer)
        viewer.layers.remove(layer)
        assert not box.isChecked()

    def test_the_layers_go_where_classes_overlap_no_longer(
        self, viewer: Any, open_dock: Callable[[Any], SparseSegDock]
    ) -> None:
        add_image(viewer)
        dock = open_dock(viewer)
        box, setting = dock.result_panel._class_layers, dock.settings_panel.forms["paint"].field("overlapping")
        with pytest.raises(InputError, match="do not overlap"):
            dock.session.show_maps(class_layers=True)
        setting.click()
        box.click()
        assert "cells object" in viewer.layers
        setting.click()
        assert "cells object" not in viewer.layers
        assert not box.isChecked()
        assert box.isHidden()


@pytest.mark.window
def test_where_next_is_asked_and_answered_on_the_slice(viewer: Any, open_dock: Any, stage_of: Any) -> None:
    add_image(viewer)
    dock = open_dock(viewer)
    paint(dock)
    QTest.mouseClick(dock.paint_panel._next, Qt.MouseButton.LeftButton)
    for _ in range(400):
        if dock.session.bridge.spot.layer is not None and dock.paint_panel._next.isEnabled():
            break
        QTest.qWait(50)
    assert dock.session.bridge.current_plane() == Plane(0, 0, 7)
    assert shown_message(dock) == ("Paint next: z 7, amid the largest unpainted gap; begin at the ring.", False)
    stage_of(viewer).screenshot("where-next-dock")
