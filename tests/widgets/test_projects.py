"""Projects in a real viewer: what is painted by mouse comes back, whatever became of viewer and image."""

from __future__ import annotations

import gc
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import tifffile
from napari.components import ViewerModel
from napari.layers._source import layer_source
from projectkit import LEFT, PLUGIN, QUICK, RIGHT, SHAPE, SMALL, cells, close_docks, messages, wait_until
from qtpy.QtCore import QMimeData, QPointF, Qt, QTimer, QUrl
from qtpy.QtGui import QDropEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QLabel, QMenu, QProgressDialog, QPushButton

from napari_sparseseg._types import Box, Region
from napari_sparseseg.config import PaintConfig, TrainingConfig
from napari_sparseseg.live.events import LiveState, LiveStatus, ObjectsChange, SavingStatus
from napari_sparseseg.live.loop import PAUSED_WITH_NEWS
from napari_sparseseg.storage.project.project import Project
from napari_sparseseg.storage.strokes import AnnotationStore
from napari_sparseseg.widgets import extras, history, home, opening, project_actions
from napari_sparseseg.widgets.dock import SparseSegDock
from napari_sparseseg.widgets.layers import FoundLayer
from napari_sparseseg.widgets.session import find_session, session_of
from napari_sparseseg.widgets.sources import source_of


@pytest.fixture
def image() -> Any:
    return cells()


@pytest.fixture
def image_file(tmp_path: Path, image: Any) -> Path:
    path = tmp_path / "cells.tif"
    tifffile.imwrite(path, image)
    return path


@pytest.fixture
def open_viewer(make_napari_viewer: Any) -> Iterator[Callable[[], Any]]:
    yield lambda: make_napari_viewer(show=True)
    gc.collect()


@pytest.fixture
def make_dock(
    make_viewer: Callable[[], Any], image: Any, image_file: Path
) -> Iterator[Callable[[], tuple[Any, SparseSegDock]]]:
    """``make_dock()``: a viewer without a window that shows the image of the file, and its dock."""
    without_window: list[SparseSegDock] = []

    def make() -> tuple[Any, SparseSegDock]:
        viewer = make_viewer()
        with layer_source(path=str(image_file)):
            viewer.add_image(image, name="cells")
        if hasattr(viewer, "window"):
            return viewer, open_dock(viewer)
        dock = SparseSegDock(viewer)
        without_window.append(dock)
        QTest.qWait(20)
        return viewer, dock

    yield make
    close_docks(without_window)


@pytest.fixture
def hands(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    shared = request.config.pluginmanager.get_plugin(str(Path(__file__).parent / "conftest.py"))

    def make(viewer: Any) -> Any:
        session = find_session(viewer)
        return shared.Stage(viewer, session.live, session.relay, session.bridge, session.source)

    return make


def open_dock(viewer: Any) -> SparseSegDock:
    _, dock = viewer.window.add_plugin_dock_widget(*PLUGIN)
    QTest.qWait(20)
    return dock


def dock_of(viewer: Any) -> SparseSegDock:
    """The dock that came with the project; waits for it."""
    for _ in range(200):
        QTest.qWait(10)
        session = find_session(viewer)
        if session is not None and session.source is not None:
            QTest.qWait(80)
            return open_dock(viewer)
    pytest.fail(f"no project was opened; {messages()}")


def drop(viewer: Any, path: Path) -> None:
    """Drop a file on the viewer, as a file manager does."""
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(path))])
    event = QDropEvent(
        QPointF(50, 50), Qt.DropAction.CopyAction, data, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    )
    viewer.window._qt_viewer.dropEvent(event)


def paint_by_mouse(stage: Any) -> None:
    """Two strokes on the annotation and one on the prediction."""
    stage.live.auto_start = False
    stage.viewer.dims.set_point(0, 3)
    stage.tools("paint", 1)
    stage.drag((3, 10, 8), (3, 10, 18))
    stage.tools("paint", 2)
    stage.drag((3, 34, 30), (3, 34, 42))
    stage.tools("correct", 2)
    stage.drag((3, 20, 30), (3, 20, 40))
    stage.settle()


def state_text(dock: SparseSegDock) -> str:
    return dock.project_panel._state.text()


def picture(viewer: Any, name: str) -> None:
    folder = os.environ.get("SPARSESEG_SCREENSHOTS")
    if folder:
        QTest.qWait(100)
        viewer.window.screenshot(str(Path(folder) / f"{name}.png"), canvas_only=False, flash=False)


def paint_project(session: Any, stage: Any) -> tuple[Path, Any]:
    """Paint in the project of a session, and name and colour a class: its folder, and the annotation."""
    session.live.rename_class(2, "nucleus")
    session.live.recolor_class(2, (0.0, 1.0, 0.5))
    paint_by_mouse(stage)
    codes, path = session.live.codes.copy(), session.project.path
    assert (codes == 2).sum() > 30
    return path, codes


@pytest.fixture
def left_in_window(open_viewer: Any, hands: Any, image_file: Path) -> tuple[Path, Any]:
    """A project that was painted in and closed with its window: its folder, and the annotation."""
    viewer = open_viewer()
    viewer.open(image_file)
    dock = open_dock(viewer)
    left = paint_project(dock.session, hands(viewer))
    viewer.close()
    QTest.qWait(20)
    return left


@pytest.fixture
def left(own_napari: None, qapp: Any, hands: Any, image: Any, image_file: Path) -> tuple[Path, Any]:
    """The same, but its viewer never had a window, which takes seconds."""
    viewer = ViewerModel()
    with layer_source(path=str(image_file)):
        layer = viewer.add_image(image, name="cells")
    session = session_of(viewer)
    session.open(source_of([layer]))
    left = paint_project(session, hands(viewer))
    session.close()
    return left


class TestComingBack:
    def test_a_dropped_project_brings_strokes_pins_classes_and_image(
        self, open_viewer: Any, left_in_window: Any, image_file: Path, own_home: Path
    ) -> None:
        path, codes = left_in_window
        assert path.is_relative_to(own_home)
        viewer = open_viewer()
        drop(viewer, path)
        dock = dock_of(viewer)
        session = dock.session
        np.testing.assert_array_equal(session.live.codes, codes)
        np.testing.assert_array_equal(session.bridge.annotation_layer.data, codes[0])
        pinned = session.bridge.prediction_layer.data
        np.testing.assert_array_equal(pinned[codes[0] > 0], codes[0][codes[0] > 0])
        assert session.live.classes[1].name == "nucleus"
        assert session.live.classes[1].color == (0.0, 1.0, 0.5)
        assert session.source.layer_names == ("cells",)
        assert viewer.layers["cells"].source.path == str(image_file)
        assert state_text(dock) == f"Saved · {path.stem}"
        assert viewer.dims.current_step[0] == 3  # what was painted is on screen
        picture(viewer, "reopened")

    def test_objects_come_back_and_go_on(self, open_viewer: Any, hands: Any, image_file: Path) -> None:
        viewer = open_viewer()
        open_dock(viewer).object_panel._switch.click()
        assert not find_session(viewer).bridge.objects.object_id  # there is no image yet
        viewer.open(image_file)
        wait_until(lambda: find_session(viewer).bridge.is_open)
        dock, stage = open_dock(viewer), hands(viewer)
        stage.live.auto_start = False
        stage.viewer.dims.set_point(0, 3)
        dock.object_panel._switch.click()
        stage.tools("paint", 2)
        stage.drag((3, 10, 8), (3, 10, 18))
        dock.object_panel._button.click()
        stage.drag((3, 34, 30), (3, 34, 42))
        stage.move((3, 10, 10), "")
        assert dock.object_panel._text.text() == "number 2 · here: 1"
        picture(viewer, "objects-in-the-dock")
        path, whole = dock.session.project.path, Box.whole(SHAPE)
        ids = dock.session.live.objects(0, whole)
        assert np.unique(ids).tolist() == [0, 1, 2]
        viewer.close()
        QTest.qWait(20)
        viewer = open_viewer()
        drop(viewer, path)
        dock = dock_of(viewer)
        np.testing.assert_array_equal(dock.session.live.objects(0, whole), ids)
        dock.object_panel._switch.click()
        assert dock.object_panel._text.text().startswith("number 3")

    def test_found_objects_come_back_corrected_with_the_ids_of_the_table(
        self, open_viewer: Any, hands: Any, image_file: Path
    ) -> None:
        viewer = open_viewer()
        viewer.open(image_file)
        dock, stage = open_dock(viewer), hands(viewer)
        live = stage.live
        live.auto_start = False
        whole, ids = Box.whole(SHAPE), np.zeros(SHAPE, np.uint32)
        for number, x in enumerate((4, 16, 28), 1):
            ids[1:5, 6:40, x : x + 12] = number
        live._opened().objects.take(live.shape, 0, whole, ids)
        live.events.objects_changed.emit(ObjectsChange(0, whole))
        stage.viewer.dims.set_point(0, 3)
        stage.settle()
        stage.bridge.found.choose("merge")
        stage.drag((3, 20, 10), (3, 20, 22))
        stage.bridge.found.choose("delete")
        stage.click((3, 20, 34))
        ids[ids == 2], ids[ids == 3] = 1, 0
        np.testing.assert_array_equal(live.found.ids(0, whole), ids)
        path = dock.session.project.path
        viewer.close()
        QTest.qWait(20)
        viewer = open_viewer()
        drop(viewer, path)
        dock = dock_of(viewer)
        live, panel = dock.session.live, dock.found_panel
        np.testing.assert_array_equal(live.found.ids(0, whole), ids)
        (layer,) = [layer for layer in viewer.layers if isinstance(layer, FoundLayer)]
        np.testing.assert_array_equal(np.asarray(layer.data), ids)
        assert panel._text.text() == "1 object"
        panel.table._section.set_unfolded(True)
        wait_until(lambda: dock.session.bridge.found.table.table is not None, 60)
        assert dock.session.bridge.found.table.table.rows["id"].tolist() == [1]
        picture(viewer, "found-objects-reopened")
        assert live.undo()
        assert live.undo()
        assert [live.found.id_at(0, (3, 20, x)) for x in (10, 22, 34)] == [1, 2, 3]
        assert not live.codes.any()

    def test_training_goes_on_with_model_curve_and_prediction(
        self, open_viewer: Any, hands: Any, image_file: Path
    ) -> None:
        viewer = open_viewer()
        viewer.open(image_file)
        dock = open_dock(viewer)
        dock.session.configure(model=SMALL, training=QUICK)
        live = dock.session.live
        paint_by_mouse(hands(viewer))
        QTest.mouseClick(dock.train_panel._train, Qt.MouseButton.LeftButton)
        wait_until(lambda: live.status.step >= 3 and bool(live.labels(0)[3].all()), 60)
        QTest.mouseClick(dock.train_panel._train, Qt.MouseButton.LeftButton)
        wait_until(lambda: not dock.session.live.status.activity.startswith("Training"), 30)
        path = dock.session.project.path
        viewer.close()
        QTest.qWait(20)
        with Project.open(path, read_only=True) as project:
            (entry, _), *_ = project.checkpoints()
            assert project.images[0].prediction() is not None
        again = open_viewer()
        drop(again, path)
        dock = dock_of(again)
        live = dock.session.live
        wait_until(lambda: live.status.has_model and len(dock.session.curve) >= entry.step > 0, 60)
        assert live.labels(0)[3].all()
        step = live.status.step
        assert step >= entry.step
        QTest.mouseClick(dock.train_panel._train, Qt.MouseButton.LeftButton)
        wait_until(lambda: live.status.step > step, 60)

    def test_all_of_it_is_predicted_into_the_project(self, open_viewer: Any, hands: Any, image_file: Path) -> None:
        viewer = open_viewer()
        viewer.open(image_file)
        dock = open_dock(viewer)
        dock.session.configure(model=SMALL, training=QUICK)
        live, panel = dock.session.live, dock.result_panel
        assert not panel._whole.isEnabled()
        paint_by_mouse(hands(viewer))
        QTest.mouseClick(dock.train_panel._train, Qt.MouseButton.LeftButton)
        wait_until(lambda: live.status.step >= 3, 60)
        QTest.mouseClick(dock.train_panel._train, Qt.MouseButton.LeftButton)
        wait_until(panel._whole.isEnabled, 30)
        QTest.mouseClick(panel._whole, Qt.MouseButton.LeftButton)
        wait_until(lambda: "cells all" in viewer.layers, 60)
        layer = viewer.layers["cells all"]
        assert not layer.editable
        assert layer.data.shape == SHAPE
        (path,) = live.whole.status.paths
        assert Path(path).is_relative_to(dock.session.project.path)
        assert set(np.unique(np.asarray(layer.data))) <= {1, 2}
        assert any("was predicted into the project" in text for text in messages())
        picture(viewer, "predicted-all")
        path = dock.session.project.path
        viewer.close()
        QTest.qWait(20)
        viewer = open_viewer()
        drop(viewer, path)
        panel = dock_of(viewer).result_panel
        assert panel._show_whole.isVisibleTo(panel)
        QTest.mouseClick(panel._show_whole, Qt.MouseButton.LeftButton)
        QTest.mouseClick(panel._show_whole, Qt.MouseButton.LeftButton)
        assert [other.name for other in viewer.layers].count("cells all") == 1

    def test_its_settings_are_shown_and_kept_when_another_is_changed(
        self, open_viewer: Any, left: Any, image_file: Path
    ) -> None:
        path, _ = left
        with Project.open(path) as project:
            training, paint = TrainingConfig(batch_size=5), PaintConfig(overlapping=True)
            project.update(settings=project.settings.model_copy(update={"training": training, "paint": paint}))
        viewer = open_viewer()
        viewer.open(image_file)
        dock = open_dock(viewer)
        forms = dock.settings_panel.forms
        assert dock.result_panel._class_layers.isHidden()
        drop(viewer, path)
        wait_until(lambda: dock.session.project.path == path)
        QTest.qWait(80)
        assert forms["training"].config == training
        assert forms["paint"].config == paint
        assert not dock.result_panel._class_layers.isHidden()
        QTest.keyClick(forms["training"].field("flips"), Qt.Key.Key_Space)
        settings = dock.session.live.settings
        assert settings.training == training.with_changes(flips=False)
        assert settings.paint == paint

    def test_a_second_viewer_may_only_look(self, open_viewer: Any, hands: Any, image_file: Path) -> None:
        first = open_viewer()
        first.open(image_file)
        dock = open_dock(first)
        paint_by_mouse(hands(first))
        codes = dock.session.live.codes.copy()
        dock.session.live.project.journal.sync(timeout=5)
        second = open_viewer()
        drop(second, dock.session.project.path)
        other = dock_of(second)
        np.testing.assert_array_equal(other.session.live.codes, codes)
        assert state_text(other).startswith("Read-only")
        (told,) = [text for text in messages() if "open in another window" in text]
        assert told.startswith(dock.session.project.path.name)  # as it is written
        assert state_text(dock).startswith("Saved")
        picture(second, "read-only")

    def test_a_project_that_cannot_be_written_to_takes_no_paint_until_it_is_saved_elsewhere(
        self, open_viewer: Any, hands: Any, left: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path, codes = left
        viewer = open_viewer()
        with Project.open(path):
            drop(viewer, path)
            dock = dock_of(viewer)
            panel = dock.paint_panel
            assert panel._hint.text().startswith("Read-only")
            assert not panel._complete.isEnabled()
            stage = hands(viewer)
            for mode in ("correct", "paint"):
                stage.tools(mode, 2)
                stage.drag((3, 40, 30), (3, 40, 42))
                stage.settle()
                np.testing.assert_array_equal(dock.session.live.codes, codes)
                np.testing.assert_array_equal(stage.annotation.data, codes[0])
            viewer.layers.remove(stage.annotation)
            stage.bridge.restore_layers()
            assert not stage.annotation.editable
            picture(viewer, "read-only-locked")
            monkeypatch.setattr(project_actions, "ask_for_output", lambda *_: str(tmp_path / "mine.sparseseg"))
            dock.project_panel._save_as.trigger()
            QTest.qWait(50)
        assert not panel._hint.text().startswith("Read-only")
        assert panel._complete.isEnabled()
        stage = hands(viewer)
        stage.tools("paint", 2)
        stage.drag((3, 40, 30), (3, 40, 42))
        stage.settle()
        assert (dock.session.live.codes != codes).any()

    def test_recent_projects_are_in_the_menu(self, open_viewer: Any, left: Any) -> None:
        path, codes = left
        viewer = open_viewer()
        dock = open_dock(viewer)
        menu = dock.project_panel._recents
        menu.aboutToShow.emit()
        (action,) = menu.actions()
        assert action.text().startswith("cells · ")
        action.trigger()
        QTest.qWait(50)
        np.testing.assert_array_equal(dock.session.live.codes, codes)
        assert dock.session.project.path == path


def test_hints_and_state_are_read_at_the_width_at_which_the_dock_opens(open_viewer: Any, image: Any) -> None:
    viewer = open_viewer()
    viewer.window._qt_window.resize(1280, 860)
    viewer.add_image(image)
    dock = open_dock(viewer)
    dock.session.live.auto_start = False
    QTest.qWait(50)
    hint, state = dock.paint_panel._hint, dock.train_panel._state._text
    for mode, is_read_only in (("paint", False), ("correct", False), ("paint", True)):
        dock.paint_panel.show_read_only(is_read_only)
        dock.paint_panel.show_mode(mode)
        assert hint.sizeHint().width() <= hint.width(), hint.text()
    dock.train_panel.show_status(LiveStatus(LiveState.PAUSED, PAUSED_WITH_NEWS))
    assert state.sizeHint().width() <= state.width(), state.text()
    picture(viewer, "hints")


class TestLayersThatAreSwitchedOn:
    """They are there with the next image, too."""

    def test_they_come_once_the_image_is_on_screen(self, make_dock: Any, image: Any, image_file: Path) -> None:
        viewer, dock = make_dock()
        for box in (dock.result_panel._uncertainty, dock.result_panel._novelty, dock.result_panel._freshness):
            box.click()
        sources = [source_of([viewer.add_image(image[:n], name=f"other{n}")]) for n in (3, 4, 5)]

        def shown() -> list[str]:
            names = [layer.name for layer in viewer.layers]
            return sorted(name for name in names if name.endswith(("uncertainty", "novelty", "freshness")))

        told = len(messages())
        assert len(shown()) == 3
        dock.session.open(sources[0])
        assert not shown()
        dock.session.open(sources[1])  # before they are there
        wait_until(lambda: len(shown()) == 3)
        QTest.qWait(50)
        assert shown() == ["other4 freshness", "other4 novelty", "other4 uncertainty"]
        assert not any("from now on" in text for text in messages()[told:])
        dock.session.open(sources[2])
        dock.result_panel._freshness.click()  # while they are awaited
        wait_until(lambda: len(shown()) == 2)
        QTest.qWait(50)
        assert shown() == ["other5 novelty", "other5 uncertainty"]

    def test_a_project_that_does_not_learn_what_they_show_is_not_made_to(
        self, open_viewer: Any, left: Any, image: Any
    ) -> None:
        path, _ = left
        viewer = open_viewer()
        viewer.add_image(image[::-1], name="another")
        dock = open_dock(viewer)
        boxes = dock.result_panel._uncertainty, dock.result_panel._ambiguity, dock.result_panel._novelty
        for box in boxes:
            box.click()
        told = len(messages())
        drop(viewer, path)
        wait_until(lambda: dock.session.project.path == path)
        wait_until(lambda: "cells uncertainty" in viewer.layers)
        wait_until(lambda: [box.isChecked() for box in boxes] == [True, False, False])
        assert not any("from now on" in text for text in messages()[told:])
        paint = dock.session.live.settings.paint
        assert (paint.candidates, paint.novelty) == (PaintConfig().candidates, "off")


class TestLayersThatCannotBeShown:
    """A layer that was switched on for the image before; the project that is opened is worked on and saved anyway."""

    def test_a_project_whose_classes_overlap_is_opened_without_ambiguity(
        self, open_viewer: Any, hands: Any, left: Any, image_file: Path
    ) -> None:
        path, _ = left
        with Project.open(path) as project:
            project.update(settings=project.settings.model_copy(update={"paint": PaintConfig(overlapping=True)}))
        viewer = open_viewer()
        viewer.open(image_file)
        dock = open_dock(viewer)
        ambiguity = dock.result_panel._ambiguity
        ambiguity.click()
        assert "cells ambiguity" in viewer.layers
        drop(viewer, path)
        wait_until(lambda: dock.session.project.path == path)
        QTest.qWait(80)
        assert any("ambiguity tells nothing there" in text for text in messages())
        assert not ambiguity.isChecked()
        assert "cells ambiguity" not in viewer.layers
        assert not dock.project_panel._offer.isVisible()
        self.check_saved(dock, hands(viewer), path)

    def test_a_project_whose_classes_do_not_overlap_is_opened_without_their_layers(
        self, open_viewer: Any, hands: Any, left: Any, image: Any
    ) -> None:
        viewer = open_viewer()
        viewer.add_image(image[::-1], name="another")
        dock = open_dock(viewer)
        dock.settings_panel.forms["paint"].field("overlapping").click()
        dock.result_panel._class_layers.click()
        assert "another object" in viewer.layers
        drop(viewer, left[0])
        wait_until(lambda: dock.session.project.path == left[0])
        QTest.qWait(80)
        assert not dock.session.live.is_overlapping
        assert "cells nucleus" not in viewer.layers
        assert dock.result_panel._class_layers.isHidden()
        self.check_saved(dock, hands(viewer), left[0])

    def test_work_goes_on_where_it_was_saved_though_classes_overlap_by_now(
        self, make_dock: Any, hands: Any, image_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        viewer, dock = make_dock()
        paint_by_mouse(hands(viewer))
        dock.result_panel._ambiguity.click()
        dock.settings_panel.forms["paint"].field("overlapping").click()
        target = tmp_path / "mine.sparseseg"
        monkeypatch.setattr(project_actions, "ask_for_output", lambda *_: str(target))
        dock.project_panel._save_as.trigger()
        wait_until(lambda: dock.session.project.path == target)
        QTest.qWait(50)
        assert not dock.result_panel._ambiguity.isChecked()
        self.check_saved(dock, hands(viewer), target)

    def test_a_layer_for_which_there_is_no_memory_is_switched_off(
        self, open_viewer: Any, hands: Any, left: Any, image_file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        viewer = open_viewer()
        viewer.open(image_file)
        dock = open_dock(viewer)
        dock.result_panel._uncertainty.click()
        monkeypatch.setattr(extras, "IntensityOverlay", Mock(side_effect=MemoryError))
        drop(viewer, left[0])
        wait_until(lambda: dock.session.project.path == left[0])
        QTest.qWait(80)
        assert any("not enough memory for the layer of uncertainty" in text for text in messages())
        assert not dock.result_panel._uncertainty.isChecked()
        assert not dock.session.live._switch.wishes.wants_uncertainty
        self.check_saved(dock, hands(viewer), left[0])

    def check_saved(self, dock: SparseSegDock, stage: Any, path: Path) -> None:
        before = dock.session.live.codes.copy()
        stage.live.auto_start = False
        stage.viewer.dims.set_point(0, 4)
        stage.tools("paint", 2)
        stage.drag((4, 40, 30), (4, 40, 42))
        stage.settle()
        after = dock.session.live.codes.copy()
        assert (after != before).any()
        assert dock.session.live.project.journal.sync(timeout=5)
        assert state_text(dock).endswith(path.stem)
        with Project.open(path, read_only=True) as project:
            np.testing.assert_array_equal(project.images[0].annotation(), after)


class TestOffer:
    def test_the_same_image_offers_its_earlier_paint(
        self, open_viewer: Any, left: Any, image_file: Path, own_home: Path
    ) -> None:
        path, codes = left
        viewer = open_viewer()
        viewer.open(image_file)
        dock = open_dock(viewer)
        panel = dock.project_panel
        assert panel._offer.isVisible()
        picture(viewer, "offer")
        (go_on,) = panel._offer.findChildren(QPushButton)
        QTest.mouseClick(go_on, Qt.MouseButton.LeftButton)
        QTest.qWait(50)
        np.testing.assert_array_equal(dock.session.live.codes, codes)
        assert not panel._offer.isVisible()
        assert list((own_home / "projects").iterdir()) == [path]  # the one that was made meanwhile is gone

    def test_another_image_offers_nothing(self, open_viewer: Any, left: Any, image: Any) -> None:
        viewer = open_viewer()
        viewer.add_image(image[::-1].copy(), name="cells")
        assert not open_dock(viewer).project_panel._offer.isVisible()

    def test_painting_declines(self, open_viewer: Any, hands: Any, left: Any, image_file: Path) -> None:
        viewer = open_viewer()
        viewer.open(image_file)
        dock = open_dock(viewer)
        paint_by_mouse(hands(viewer))
        assert not dock.project_panel._offer.isVisible()
        assert dock.session.project.path != left[0]


class TestImage:
    @pytest.fixture
    def ask(self, monkeypatch: pytest.MonkeyPatch) -> Mock:
        asked = Mock(return_value="cancel")
        monkeypatch.setattr(opening, "ask_for_image", asked)
        return asked

    def test_a_moved_image_is_asked_for_and_remembered(
        self, open_viewer: Any, left: Any, image_file: Path, ask: Mock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path, codes = left
        moved = image_file.rename(image_file.with_name("moved.tif"))
        ask.return_value = "choose"
        monkeypatch.setattr(opening, "choose_file", lambda: str(moved))
        viewer = open_viewer()
        drop(viewer, path)
        dock = dock_of(viewer)
        np.testing.assert_array_equal(dock.session.live.codes, codes)
        assert "no image at" in ask.call_args.args[0]
        assert dock.session.live.project.entry.reference.path == str(moved)

    @pytest.mark.window
    def test_an_image_that_has_a_file_by_now_need_not_be_stored(
        self, make_dock: Any, image: Any, image_file: Path, tmp_path: Path, ask: Mock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with Project.create(tmp_path / "made.sparseseg") as project:
            project.add_image(image[::-1], shape=(1, *SHAPE))
        tifffile.imwrite(image_file, image[::-1])
        ask.side_effect = ["choose", "cancel"]
        monkeypatch.setattr(opening, "choose_file", lambda: str(image_file))
        _, dock = make_dock()
        dock._project_actions.open(project.path)
        assert dock.session.project.path == project.path
        assert dock.session.live.project.entry.reference.path == str(image_file)
        assert not dock.project_panel._store.isEnabled()

    def test_a_changed_image_may_be_used_anyway(
        self, open_viewer: Any, left: Any, image_file: Path, image: Any, ask: Mock
    ) -> None:
        path, codes = left
        tifffile.imwrite(image_file, image + 1)
        ask.return_value = "use"
        viewer = open_viewer()
        drop(viewer, path)
        dock = dock_of(viewer)
        assert ask.call_args.kwargs == {"can_use": True}
        np.testing.assert_array_equal(dock.session.live.codes, codes)
        np.testing.assert_array_equal(dock.session.source.array, image + 1)

    def test_one_of_another_shape_is_refused(
        self, open_viewer: Any, left: Any, image_file: Path, image: Any, ask: Mock
    ) -> None:
        tifffile.imwrite(image_file, image[:5])
        ask.side_effect = ["use", "cancel"]
        viewer = open_viewer()
        drop(viewer, left[0])
        wait_until(lambda: ask.call_count == 2)
        assert "choose another file" in ask.call_args.args[0]
        assert find_session(viewer).source is None

    def test_the_paint_can_be_seen_alone(self, open_viewer: Any, left: Any, image_file: Path, ask: Mock) -> None:
        path, codes = left
        image_file.unlink()
        ask.return_value = "paint"
        viewer = open_viewer()
        drop(viewer, path)
        wait_until(lambda: "cells.tif paint" in viewer.layers or "cells paint" in viewer.layers)
        np.testing.assert_array_equal(viewer.layers[0].data, codes[0])

    def test_an_image_in_memory_is_stored_and_comes_back(
        self, open_viewer: Any, hands: Any, image: Any, ask: Mock
    ) -> None:
        viewer = open_viewer()
        viewer.add_image(image, name="made", scale=(2, 0.5, 0.5))
        dock = open_dock(viewer)
        paint_by_mouse(hands(viewer))
        codes, path = dock.session.live.codes.copy(), dock.session.project.path
        assert dock.project_panel._store.isEnabled()
        wait_until(lambda: state_text(dock).startswith("Saved without the image"))
        dock.project_panel._store.trigger()
        wait_until(lambda: not dock.project_panel._store.isEnabled())
        wait_until(lambda: state_text(dock).startswith("Saved ·"))
        viewer.close()
        again = open_viewer()
        drop(again, path)
        dock = dock_of(again)
        ask.assert_not_called()
        np.testing.assert_array_equal(dock.session.source.array, image)
        np.testing.assert_allclose(again.layers["made"].scale, (2, 0.5, 0.5))
        np.testing.assert_array_equal(dock.session.live.codes, codes)

    @pytest.mark.parametrize(
        ("error", "reason"), [(RuntimeError("codec lz4 is not there"), "codec lz4"), (MemoryError(), "MemoryError")]
    )
    def test_an_image_that_cannot_be_read_is_not_stored_and_that_is_told(self, error: Exception, reason: str) -> None:
        store = project_actions._store.__wrapped__  # without its thread
        text, is_error = store(Mock(store_pixels=Mock(side_effect=error)), None)
        assert is_error
        assert reason in text


class TestMenu:
    def test_save_as_moves_and_goes_on_there(
        self, make_dock: Any, hands: Any, image_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        viewer, dock = make_dock()
        stage = hands(viewer)
        paint_by_mouse(stage)
        before, codes = dock.session.project.path, dock.session.live.codes.copy()
        target = tmp_path / "mine.sparseseg"
        monkeypatch.setattr(project_actions, "ask_for_output", lambda *_: str(target))
        dock.project_panel._save_as.trigger()
        QTest.qWait(50)
        assert not before.exists()
        assert dock.session.project.path == target
        np.testing.assert_array_equal(dock.session.live.codes, codes)
        stage = hands(viewer)
        stage.tools("paint", 2)
        stage.drag((3, 40, 30), (3, 40, 42))
        stage.settle()
        after = dock.session.live.codes.copy()
        assert (after != codes).any()
        assert dock.session.live.project.journal.sync(timeout=5)
        with Project.open(target, read_only=True) as project:
            np.testing.assert_array_equal(project.images[0].annotation(), after)
        assert [recent.path for recent in home.recents()] == [target]

    def test_a_place_that_is_taken_changes_nothing(
        self, make_dock: Any, hands: Any, image_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        viewer, dock = make_dock()
        paint_by_mouse(hands(viewer))
        before, codes = dock.session.project.path, dock.session.live.codes.copy()
        (tmp_path / "taken.sparseseg").mkdir()
        monkeypatch.setattr(project_actions, "ask_for_output", lambda *_: str(tmp_path / "taken.sparseseg"))
        dock.project_panel._save_as.trigger()
        QTest.qWait(50)
        assert "exists" in messages()[-1]
        assert dock.session.project.path == before
        np.testing.assert_array_equal(dock.session.live.codes, codes)
        dock.session.live.annotate(Region(0, LEFT), 1)
        assert dock.session.live.project.journal.sync(timeout=5)

    def test_training_goes_on_if_the_project_cannot_be_copied(
        self, make_dock: Any, hands: Any, image_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        viewer, dock = make_dock()
        paint_by_mouse(hands(viewer))
        QTest.mouseClick(dock.train_panel._train, Qt.MouseButton.LeftButton)
        (tmp_path / "taken.sparseseg").mkdir()
        monkeypatch.setattr(project_actions, "ask_for_output", lambda *_: str(tmp_path / "taken.sparseseg"))
        dock.project_panel._save_as.trigger()
        assert "exists" in messages()[-1]
        assert dock.session.live.status.is_training

    def test_a_long_copy_is_told_while_the_window_lives(
        self, open_viewer: Any, hands: Any, image_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        viewer = open_viewer()
        viewer.open(image_file)
        dock = open_dock(viewer)
        paint_by_mouse(hands(viewer))
        codes, target = dock.session.live.codes.copy(), tmp_path / "mine.sparseseg"
        copy_to, may_end, texts = Project.copy_to, threading.Event(), []

        def copy_slowly(project: Project, path: Path) -> None:
            assert threading.current_thread() is not threading.main_thread()
            assert may_end.wait(20)
            copy_to(project, path)

        def look() -> None:
            dialog = QApplication.activeModalWidget()
            assert isinstance(dialog, QProgressDialog)
            texts.append(dialog.labelText())
            QTest.keyClick(dialog, Qt.Key.Key_Escape)
            if len(texts) < 2:
                QTimer.singleShot(200, look)
            else:
                may_end.set()

        monkeypatch.setattr(Project, "copy_to", copy_slowly)
        monkeypatch.setattr(project_actions, "ask_for_output", lambda *_: str(target))
        QTimer.singleShot(400, look)
        dock.project_panel._save_as.trigger()
        assert texts == [f"The project is copied to {target} …"] * 2
        assert dock.session.project.path == target
        np.testing.assert_array_equal(dock.session.live.codes, codes)

    def test_an_earlier_state_is_restored(
        self, make_dock: Any, hands: Any, image_file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        viewer, dock = make_dock()
        live = dock.session.live
        paint_by_mouse(hands(viewer))
        codes = live.codes.copy()
        live.keeping.save()
        wait_until(lambda: len(live.keeping.history()) == 1)
        live.annotate(Region(0, RIGHT), 1)
        live.add_class("membrane")
        live.remove_class(2)
        dock.session.relay.flush()
        seen: list[Any] = []

        def choose(self: Any) -> int:
            self.show()
            QTest.qWait(50)
            seen.append([self._list.item(i).text() for i in range(self._list.count())])
            assert "What there is now joins this list" in self.findChild(QLabel).text()
            folder = os.environ.get("SPARSESEG_SCREENSHOTS")
            if folder:
                self.grab().save(str(Path(folder) / "history.png"))
            self.accept()
            return 1

        monkeypatch.setattr(history.HistoryDialog, "exec", choose)
        dock.project_panel._history.trigger()
        wait_until(lambda: bool((live.codes == codes).all()))
        assert seen[0][0].endswith("3 strokes")
        hands(viewer).settle()
        assert [info.name for info in dock.class_panel._classes] == ["background", "object", "membrane"]
        np.testing.assert_array_equal(dock.session.bridge.annotation_layer.data, codes[0])
        wait_until(lambda: len(live.keeping.history()) > 1)
        dock.project_panel._history.trigger()
        assert len(seen[1]) > 1
        assert (live.codes != codes).any()  # as it was before, chosen as the newest

    def test_provenance_and_methods(
        self, make_dock: Any, hands: Any, image_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        viewer, dock = make_dock()
        paint_by_mouse(hands(viewer))
        monkeypatch.setattr(project_actions, "ask_for_output", lambda *_: str(tmp_path / "record.json"))
        dock.project_panel._provenance.trigger()
        record = json.loads((tmp_path / "record.json").read_text())
        assert len(record["images"][0]["strokes"]) == 3
        dock.project_panel._methods.trigger()
        assert "3 strokes were painted" in QApplication.clipboard().text()


class TestFaults:
    def test_a_fault_is_told_once_and_shown_until_it_is_over(
        self, make_dock: Any, hands: Any, image_file: Path
    ) -> None:
        viewer, dock = make_dock()
        fault = SavingStatus(str(dock.session.project.path), error="the disk is full; everything is kept in memory")
        for _ in range(3):
            dock.session.live.events.saving_changed.emit(fault)
            dock.session.relay.flush()
        assert sum("disk is full" in text for text in messages()) == 1
        assert state_text(dock).startswith("Not saved: the disk is full")
        picture(viewer, "fault")
        dock.session.live.events.saving_changed.emit(SavingStatus(fault.path))
        dock.session.relay.flush()
        assert messages()[-1] == "Everything is saved again."
        assert state_text(dock).startswith("Saved")

    def test_a_notice_is_told_once(self, make_dock: Any, image_file: Path) -> None:
        _, dock = make_dock()
        for _ in range(2):
            dock.session.live.events.noticed.emit("The loss exploded; the last good model is back")
            dock.session.relay.flush()
        assert sum("The loss exploded" in text for text in messages()) == 1

    def test_a_folder_that_is_no_project_is_told(self, open_viewer: Any, tmp_path: Path) -> None:
        (tmp_path / "empty.sparseseg").mkdir()
        viewer = open_viewer()
        open_dock(viewer)  # without it, napari asks which plugin reads folders
        drop(viewer, tmp_path / "empty.sparseseg")
        wait_until(lambda: any("project.json" in text for text in messages()))


def test_a_journal_of_an_older_version_becomes_a_project(open_viewer: Any, own_home: Path, image: Any) -> None:
    from napari_sparseseg.storage.journal import FileJournal

    (own_home / "journals").mkdir(parents=True)
    journal = FileJournal(own_home / "journals" / "cells-20250101-120000.journal")
    store = AnnotationStore((1, *SHAPE), journal=journal)
    store.annotate(Region(0, LEFT), 2)
    journal.close()
    viewer = open_viewer()
    viewer.add_image(image, name="cells")
    dock = open_dock(viewer)
    assert dock.project_panel._offer.isVisible()
    (go_on,) = dock.project_panel._offer.findChildren(QPushButton)
    assert [path.suffix for path in (own_home / "journals").iterdir()] == [".imported"]
    assert isinstance(dock.project_panel._button.menu(), QMenu)
    QTest.mouseClick(go_on, Qt.MouseButton.LeftButton)
    QTest.qWait(50)
    assert (dock.session.live.codes == 2).sum() == LEFT.n_voxels
