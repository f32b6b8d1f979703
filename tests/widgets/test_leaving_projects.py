"""A project is left, for another place or another image: nothing that is in memory only is lost without being asked."""

from __future__ import annotations

import errno
import gc
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import tifffile
from projectkit import LEFT, PLUGIN, QUICK, RIGHT, SHAPE, SMALL, cells, close_docks, messages, wait_until
from qtpy.QtCore import Qt, QTimer
from qtpy.QtGui import QCloseEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QProgressDialog, QWidget

from napari_sparseseg._types import Box, Plane, Region
from napari_sparseseg.errors import InputError
from napari_sparseseg.live import kept
from napari_sparseseg.live.keeping import Keeping
from napari_sparseseg.storage import durable
from napari_sparseseg.storage.project.image import ProjectImage
from napari_sparseseg.storage.project.project import Project
from napari_sparseseg.widgets import actions, opening, project_actions
from napari_sparseseg.widgets import session as session_module
from napari_sparseseg.widgets.dock import SparseSegDock
from napari_sparseseg.widgets.leaving import do_meanwhile
from napari_sparseseg.widgets.sources import source_of


@pytest.fixture
def image() -> Any:
    return cells()


@pytest.fixture
def make_dock(make_viewer: Callable[[], Any], image: Any) -> Iterator[Callable[[], SparseSegDock]]:
    """Docks of new viewers that show the image, in a window where the test is marked to need one."""
    without_window: list[tuple[Any, SparseSegDock]] = []

    def make() -> SparseSegDock:
        viewer = make_viewer()
        viewer.add_image(image, name="cells")
        if hasattr(viewer, "window"):
            _, dock = viewer.window.add_plugin_dock_widget(*PLUGIN)
        else:
            dock = SparseSegDock(viewer)
            without_window.append((viewer, dock))
        dock.session.configure(model=SMALL, training=QUICK)
        dock.session.live.auto_start = False
        QTest.qWait(20)
        return dock

    yield make
    close_docks([dock for _, dock in without_window])
    without_window.clear()
    gc.collect()


@pytest.fixture
def fill(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path | None], None]:
    """``fill(folder)``: from now on the disk takes nothing below a folder; None: it takes all again."""
    full: list[Path] = []

    def checked(real: Any, path_of: Callable[..., Path]) -> Any:
        def do(*args: Any) -> Any:
            if any(path_of(*args).is_relative_to(folder) for folder in full):
                raise OSError(errno.ENOSPC, "No space left on device", str(path_of(*args)))
            return real(*args)

        return do

    for name in ("write", "sync"):
        real = getattr(durable.RealDisk, name)
        monkeypatch.setattr(durable.RealDisk, name, checked(real, lambda _disk, path, *_: path))
    for name in ("write_at", "sync"):
        real = getattr(durable._RealFile, name)
        monkeypatch.setattr(durable._RealFile, name, checked(real, lambda file, *_: file._path))
    return lambda folder: full.__setitem__(slice(None), [] if folder is None else [folder])


@pytest.fixture
def save_as(monkeypatch: pytest.MonkeyPatch) -> Callable[[SparseSegDock, Path], None]:
    def do(dock: SparseSegDock, target: Path) -> None:
        monkeypatch.setattr(project_actions, "ask_for_output", lambda *_: str(target))
        dock.project_panel._save_as.trigger()
        QTest.qWait(20)

    return do


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Mock:
    asked = Mock(return_value=False)
    monkeypatch.setattr(actions, "ask", asked)
    return asked


def paint(dock: SparseSegDock, box: Box, class_id: int) -> Any:
    """A stroke; what all of the annotation is then."""
    live = dock.session.live
    live.annotate(Region(0, box), class_id, plane=Plane(0, 0, box.start[0]))
    return live.codes.copy()


def learn(dock: SparseSegDock) -> None:
    """Two strokes and some steps of training, all of which is saved."""
    live = dock.session.live
    paint(dock, LEFT, 1)
    paint(dock, RIGHT, 2)
    live.start()
    wait_until(lambda: live.status.step >= 3, 60)
    live.pause()
    wait_until(lambda: not live.status.activity.startswith("Training"))


def annotation_in(path: Path) -> Any:
    with Project.open(path, read_only=True) as project:
        return project.images[0].annotation()


def entry_in(path: Path) -> Any:
    """What the project says of its image."""
    with Project.open(path, read_only=True) as project:
        return project.images[0].entry


class TestSavingElsewhere:
    def test_what_a_full_disk_has_not_taken_goes_along(
        self, make_dock: Any, fill: Any, save_as: Any, tmp_path: Path
    ) -> None:
        dock = make_dock()
        live, old = dock.session.live, dock.session.project.path
        paint(dock, LEFT, 1)
        assert live.project.journal.sync(timeout=5)
        fill(old)
        codes = paint(dock, RIGHT, 2)
        wait_until(lambda: "No space left" in live.keeping.status.error)
        save_as(dock, tmp_path / "mine.sparseseg")
        assert dock.session.project.path == tmp_path / "mine.sparseseg"
        np.testing.assert_array_equal(live.codes, codes)
        assert not old.exists()
        assert live.keeping.status.error == ""
        assert live.project.journal.sync(timeout=5)
        np.testing.assert_array_equal(annotation_in(tmp_path / "mine.sparseseg"), codes)

    def test_what_is_in_memory_goes_along_though_the_folder_is_gone(
        self, make_dock: Any, save_as: Any, tmp_path: Path
    ) -> None:
        dock = make_dock()
        live, stick = dock.session.live, tmp_path / "stick"
        stick.mkdir()
        paint(dock, LEFT, 1)
        save_as(dock, stick / "cells.sparseseg")
        stick.rename(tmp_path / "pulled out")
        codes = paint(dock, RIGHT, 2)
        wait_until(lambda: bool(live.keeping.status.error))
        save_as(dock, tmp_path / "nowhere" / "mine.sparseseg")
        assert any("cannot be made" in text for text in messages())
        np.testing.assert_array_equal(live.codes, codes)
        assert live.keeping.status.error
        save_as(dock, tmp_path / "mine.sparseseg")
        assert any("All paint was saved" in text for text in messages())
        np.testing.assert_array_equal(live.codes, codes)
        codes = paint(dock, RIGHT, 1)
        assert live.project.journal.sync(timeout=5)
        np.testing.assert_array_equal(annotation_in(tmp_path / "mine.sparseseg"), codes)

    def test_what_could_not_be_written_anywhere_is_saved_once_the_folder_is_back(
        self, make_dock: Any, save_as: Any, tmp_path: Path
    ) -> None:
        dock = make_dock()
        live, stick = dock.session.live, tmp_path / "stick"
        stick.mkdir()
        save_as(dock, stick / "cells.sparseseg")
        paint(dock, LEFT, 1)
        assert live.project.journal.sync(timeout=5)
        stick.rename(tmp_path / "pulled out")
        codes = paint(dock, RIGHT, 2)
        save_as(dock, tmp_path / "nowhere" / "mine.sparseseg")
        (tmp_path / "pulled out").rename(stick)
        wait_until(lambda: not live.keeping.status.error and live.project.journal.sync(timeout=1))
        np.testing.assert_array_equal(live.codes, codes)
        np.testing.assert_array_equal(annotation_in(stick / "cells.sparseseg"), codes)

    def test_nothing_is_moved_without_its_model(
        self, make_dock: Any, save_as: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        dock = make_dock()
        live, old, may_end = dock.session.live, dock.session.project.path, threading.Event()
        learn(dock)
        live.keeping.note_model()
        live._worker.compute(lambda: may_end.wait(20))
        patience = kept._PATIENCE
        monkeypatch.setattr(kept, "_PATIENCE", 0.1)
        save_as(dock, tmp_path / "mine.sparseseg")
        monkeypatch.setattr(kept, "_PATIENCE", patience)
        may_end.set()
        assert any("try again in a minute" in text for text in messages())
        assert dock.session.project.path == old
        assert live.status.has_model
        save_as(dock, tmp_path / "mine.sparseseg")
        wait_until(lambda: live.status.has_model)
        assert not old.exists()

    @pytest.mark.parametrize("once", [False, True])
    def test_nothing_is_learnt_that_the_copy_does_not_hold(
        self, make_dock: Any, save_as: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, once: bool
    ) -> None:
        dock = make_dock()
        live, copy_to, steps = dock.session.live, Project.copy_to, []

        def copy_slowly(project: Project, path: Path) -> None:
            steps.append(live.status.step)
            time.sleep(0.5)
            copy_to(project, path)
            steps.append(live.status.step)

        monkeypatch.setattr(Project, "copy_to", copy_slowly)
        learn(dock)
        learnt = live.status.step
        (live.update_once if once else live.start)()
        wait_until(lambda: live.status.step > learnt + 2, 60)
        save_as(dock, tmp_path / "mine.sparseseg")
        assert steps[0] == steps[1]
        assert live.status.is_training is not once
        with Project.open(tmp_path / "mine.sparseseg", read_only=True) as project:
            assert project.manifest.checkpoints[-1].step >= steps[0]

    def test_training_that_was_paused_stays_so(self, make_dock: Any, save_as: Any, tmp_path: Path) -> None:
        dock = make_dock()
        learn(dock)
        live = dock.session.live
        live.auto_start = True
        live.pause()
        save_as(dock, tmp_path / "mine.sparseseg")
        paint(dock, Box((3, 4, 4), (4, 20, 10)), 2)
        assert not live.status.is_training

    def test_what_was_changed_for_reading_only_goes_along(self, make_dock: Any, save_as: Any, tmp_path: Path) -> None:
        dock = make_dock()
        paint(dock, LEFT, 1)
        path = dock.session.project.path
        other = make_dock()
        live = other.session.live
        other._project_actions.open(path)
        assert other.session.bridge.is_read_only
        live.rename_class(2, "nucleus")
        codes = paint(other, RIGHT, 2)  # as accepting a suggestion does
        save_as(other, tmp_path / "mine.sparseseg")
        assert not other.session.bridge.is_read_only
        assert live.classes[1].name == "nucleus"
        np.testing.assert_array_equal(live.codes, codes)
        assert path.exists()

    def test_an_image_that_is_read_from_the_project_is_there_still(
        self, make_dock: Any, save_as: Any, image: Any, tmp_path: Path, own_home: Path
    ) -> None:
        path = own_home / "projects" / "stored.sparseseg"
        path.parent.mkdir(parents=True, exist_ok=True)
        with Project.create(path) as project:
            project.add_image(image, shape=(1, *SHAPE)).store_pixels(image)
        dock = make_dock()
        dock._viewer.layers.clear()
        dock._project_actions.open(path)
        np.testing.assert_array_equal(dock.session.source.array, image)
        save_as(dock, tmp_path / "mine.sparseseg")
        assert dock.session.project.path == tmp_path / "mine.sparseseg"
        np.testing.assert_array_equal(dock.session.source.array, image)
        assert path.exists()  # whence the voxels of larger images are read

    def test_nothing_is_moved_while_the_image_is_being_stored(
        self, make_dock: Any, save_as: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        dock = make_dock()
        old, may_end, real = dock.session.project.path, threading.Event(), ProjectImage._write_pixels

        def write(*args: Any) -> None:
            assert may_end.wait(20)
            real(*args)

        monkeypatch.setattr(ProjectImage, "_write_pixels", write)
        dock.project_panel._store.trigger()
        save_as(dock, tmp_path / "mine.sparseseg")
        assert "being stored" in messages()[-1]
        assert dock.session.project.path == old
        may_end.set()
        wait_until(lambda: not dock.project_panel._store.isEnabled())
        save_as(dock, tmp_path / "mine.sparseseg")
        assert not old.exists()


@pytest.mark.window
class TestClosing:
    @pytest.fixture
    def asked(self, monkeypatch: pytest.MonkeyPatch) -> Mock:
        """The question before a window closes."""
        asked = Mock(return_value=False)
        monkeypatch.setattr(session_module, "ask_to_close", asked)
        return asked

    def test_the_window_stays_open_while_strokes_are_in_memory_only_unless_the_user_agrees(
        self, make_dock: Any, fill: Any, asked: Mock
    ) -> None:
        dock = make_dock()
        live, path, window = dock.session.live, dock.session.project.path, dock.window()
        fill(path)
        paint(dock, LEFT, 1)
        wait_until(lambda: "No space left" in live.keeping.status.error)
        assert not window.close()
        QTest.qWait(20)
        assert "No space left" in asked.call_args.args[0]
        assert window.isVisible()
        paint(dock, RIGHT, 2)
        fill(None)
        wait_until(lambda: not live.keeping.status.error and live.project.journal.sync(timeout=1))
        codes = live.codes.copy()
        np.testing.assert_array_equal(annotation_in(path), codes)
        asked.reset_mock()
        dock._viewer.close()  # nothing is asked where all is saved
        asked.assert_not_called()

    def test_exit_asks_for_strokes_of_other_windows_and_refused_leaves_all_windows_as_they_were(
        self, make_dock: Any, fill: Any, asked: Mock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        exit_asked = Mock(return_value=False)
        monkeypatch.setattr(session_module, "ask_to_exit", exit_asked)
        dock, other = make_dock(), make_dock()
        live, window, other_window = dock.session.live, dock.window(), other.window()
        fill(dock.session.project.path)
        paint(dock, LEFT, 1)
        wait_until(lambda: "No space left" in live.keeping.status.error)
        assert not other_window.close(quit_app=True)  # as File > Exit does
        QTest.qWait(20)
        assert "No space left" in exit_asked.call_args.args[0]
        assert window.isVisible()
        assert other_window.isVisible()
        assert len(dock._viewer.layers) > 1
        other._viewer.close()  # by now this window alone is meant
        QTest.qWait(20)
        assert window.isVisible()
        assert live.codes.any()
        exit_asked.assert_called_once()
        fill(None)

    def test_exit_asks_in_a_window_without_dock_as_well_which_closes_alone_without_a_question(
        self, make_dock: Any, make_viewer: Any, fill: Any, asked: Mock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        exit_asked = Mock(return_value=False)
        monkeypatch.setattr(session_module, "ask_to_exit", exit_asked)
        earlier, dock, later = make_viewer(), make_dock(), make_viewer()
        session, layers, window = dock.session, list(dock._viewer.layers), dock.window()
        fill(session.project.path)
        paint(dock, LEFT, 1)
        wait_until(lambda: "No space left" in session.live.keeping.status.error)
        for number, viewer in enumerate((earlier, later), 1):
            other = viewer.window._qt_window
            assert not other.close(quit_app=True)  # as File > Exit does
            QTest.qWait(20)
            assert exit_asked.call_count == number
            assert "No space left" in exit_asked.call_args.args[0]
            assert other.isVisible()
            assert window.isVisible()
            assert list(dock._viewer.layers) == layers
            closing = QCloseEvent()  # as by the button of the window, from now on
            QApplication.sendEvent(other, closing)
            assert closing.isAccepted()
        QTest.qWait(20)
        assert exit_asked.call_count == 2
        assert window.isVisible()
        exit_asked.return_value = True
        later.window._qt_window.close(quit_app=True)
        QTest.qWait(20)
        assert exit_asked.call_count == 3
        assert session.project is None
        assert not any(hasattr(viewer.window, "_qt_window") for viewer in (earlier, later))
        asked.assert_not_called()
        fill(None)

    def test_a_window_without_layers_asks_too_but_not_where_a_script_closes_it(
        self, make_dock: Any, asked: Mock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        dock = make_dock()
        viewer = dock._viewer
        paint(dock, LEFT, 1)
        monkeypatch.setattr(Keeping, "unsaved", "cannot be written (No space left on device)")
        viewer.layers.clear()
        QTest.qWait(20)
        assert not dock.window().close()
        asked.assert_called_once()
        viewer.close()
        asked.assert_called_once()


class TestAnotherImage:
    @pytest.fixture
    def full(self, make_dock: Any, fill: Any) -> SparseSegDock:
        """A dock on a project with a stroke that its disk does not take."""
        dock = make_dock()
        fill(dock.session.project.path)
        paint(dock, LEFT, 1)
        return dock

    def test_whoever_has_strokes_in_memory_only_is_told_that_they_would_be_lost(
        self, full: SparseSegDock, fill: Any, image: Any, ask: Mock
    ) -> None:
        session = full.session
        old, codes = session.project.path, session.live.codes.copy()
        wait_until(lambda: "No space left" in session.live.keeping.status.error)
        source = source_of([full._viewer.add_image(image[::-1], name="others")])
        full._actions.open_image(source)
        question = ask.call_args.args[2]
        assert "will be lost" in question
        assert "No space left" in question
        assert "brings" not in question
        assert session.project.path == old
        fill(None)  # and it is saved on
        wait_until(lambda: not session.live.keeping.status.error and session.live.project.journal.sync(timeout=1))
        np.testing.assert_array_equal(annotation_in(old), codes)
        ask.return_value = True
        full._actions.open_image(source)
        assert "will be lost" not in ask.call_args.args[2]
        assert ask.call_count == 2
        assert session.project.path != old
        np.testing.assert_array_equal(annotation_in(old), codes)

    def test_what_shows_only_when_all_is_to_be_saved_is_asked_for_by_itself(
        self, full: SparseSegDock, image: Any, ask: Mock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Keeping, "unsaved", "")
        old = full.session.project.path
        source = source_of([full._viewer.add_image(image[::-1], name="others")])
        ask.side_effect = [True, False]
        full._actions.open_image(source)
        first, second = (call.args[2] for call in ask.call_args_list)
        assert "brings paint, model and prediction back" in first
        assert "will be lost" in second
        assert full.session.project.path == old

    def test_what_is_learnt_while_the_user_thinks_about_it_is_kept(self, make_dock: Any, image: Any, ask: Mock) -> None:
        dock = make_dock()
        live, old, steps = dock.session.live, dock.session.project.path, []

        def answer(*_: Any) -> bool:
            steps.append(live.status.step)
            wait_until(lambda: live.status.step > steps[0] + 2, 60)
            steps.append(live.status.step)
            return True

        learn(dock)
        live.start()
        ask.side_effect = answer
        dock._actions.open_image(source_of([dock._viewer.add_image(image[::-1], name="others")]))
        assert dock.session.project.path != old
        with Project.open(old, read_only=True) as project:
            assert project.manifest.checkpoints[-1].step >= steps[1]

    @pytest.mark.parametrize("way", ["image", "project"])
    def test_nothing_is_learnt_that_is_not_saved(
        self, make_dock: Any, image: Any, ask: Mock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
    ) -> None:
        dock = make_dock()
        live, old, hold, stop, steps = dock.session.live, dock.session.project.path, Keeping.hold, Keeping.stop, []

        def hold_slowly(keeping: Keeping) -> str:
            problem = hold(keeping)
            time.sleep(0.5)
            return problem

        def note_and_stop(keeping: Keeping) -> None:
            steps.append(live.status.step)
            stop(keeping)

        learn(dock)
        live.start()
        monkeypatch.setattr(Keeping, "hold", hold_slowly)
        monkeypatch.setattr(Keeping, "stop", note_and_stop)
        ask.return_value = True
        if way == "image":
            dock._actions.open_image(source_of([dock._viewer.add_image(image[::-1], name="others")]))
        else:
            with Project.create(tmp_path / "other.sparseseg") as other:
                other.add_image(image[::-1], shape=(1, *SHAPE)).store_pixels(image[::-1])
            dock._project_actions.open(other.path)
        assert dock.session.project.path != old
        assert not live.status.is_training
        with Project.open(old, read_only=True) as project:
            assert project.manifest.checkpoints[-1].step == steps[0]

    @pytest.mark.parametrize("before", ["training", "paused", "not begun"])
    def test_an_image_that_is_not_left_is_learnt_from_as_before(
        self, make_dock: Any, image: Any, ask: Mock, monkeypatch: pytest.MonkeyPatch, before: str
    ) -> None:
        dock = make_dock()
        live, old = dock.session.live, dock.session.project.path
        paint(dock, LEFT, 1)
        if before != "not begun":
            (live.start if before == "training" else live.pause)()
        monkeypatch.setattr(Keeping, "hold", lambda _: "strokes are still being written")
        is_training = []
        ask.side_effect = lambda *_: is_training.append(live.status.is_training) or len(is_training) == 1
        dock._actions.open_image(source_of([dock._viewer.add_image(image[::-1], name="others")]))
        assert dock.session.project.path == old
        assert is_training == [before == "training", False]
        assert live.status.is_training is (before == "training")
        assert live.was_paused is (before == "paused")

    def test_opening_another_project_asks_too(
        self, full: SparseSegDock, fill: Any, image: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = Mock(return_value=False)
        monkeypatch.setattr(opening, "ask_to_leave", asked)
        live, old = full.session.live, full.session.project.path
        with Project.create(tmp_path / "other.sparseseg") as project:
            project.add_image(image, shape=(1, *SHAPE))
        full._project_actions.open(project.path)
        assert "No space left" in asked.call_args.args[0]
        assert full.session.project.path == old
        assert (live.codes > 0).any()
        asked.return_value = True
        full._project_actions.open(project.path)
        assert full.session.project.path == project.path
        fill(None)
        full._project_actions.open(old)
        assert full.session.project.path == old
        assert asked.call_count == 2  # the last time all was saved

    def test_a_project_that_is_not_opened_in_the_end_leaves_no_image_behind(
        self, full: SparseSegDock, image: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        session, layers = full.session, list(full._viewer.layers)
        old = session.project.path
        with Project.create(tmp_path / "other.sparseseg") as project:
            project.add_image(image[::-1], shape=(1, *SHAPE)).store_pixels(image[::-1])
        monkeypatch.setattr(opening, "ask_to_leave", Mock(return_value=False))
        full._project_actions.open(project.path)
        opening.ask_to_leave.assert_called_once()
        assert list(full._viewer.layers) == layers
        monkeypatch.setattr(Keeping, "hold", Mock(side_effect=InputError("try again in a minute")))
        full._project_actions.open(project.path)
        assert "Try again in a minute." in messages()
        assert list(full._viewer.layers) == layers
        assert session.project.path == old

    def test_a_project_that_is_not_opened_in_the_end_refers_to_its_own_image_still(
        self, full: SparseSegDock, image: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file, path = tmp_path / "other.tif", tmp_path / "other.sparseseg"
        tifffile.imwrite(file, image[::-1])
        with Project.create(path) as project:
            project.add_image(image[::-1], shape=(1, *SHAPE), path=str(file))
            before = project.images[0].entry
        tifffile.imwrite(file, image[::-1] + 1)
        asked, may_leave = Mock(return_value="use"), Mock(return_value=False)
        monkeypatch.setattr(opening, "ask_for_image", asked)
        monkeypatch.setattr(opening, "ask_to_leave", may_leave)
        full._project_actions.open(path)
        may_leave.assert_called_once()
        assert entry_in(path) == before
        may_leave.return_value = True
        with monkeypatch.context() as failing:
            failing.setattr(full.session, "open", Mock(side_effect=InputError("there is not enough memory")))
            full._project_actions.open(path)
        assert "There is not enough memory." in messages()
        assert entry_in(path) == before
        full._project_actions.open(path)
        assert full.session.project.path == path
        assert entry_in(path).reference != before.reference
        assert asked.call_count == 3

    def test_the_viewer_is_never_empty_while_paint_is_shown_in_the_place_of_its_image(
        self, make_dock: Any, image: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file, path, n_left = tmp_path / "other.tif", tmp_path / "other.sparseseg", []
        tifffile.imwrite(file, image[::-1])
        with Project.create(path) as project:
            project.add_image(image[::-1], shape=(1, *SHAPE), path=str(file))
        tifffile.imwrite(file, image[::-1] + 1)
        monkeypatch.setattr(opening, "ask_for_image", Mock(return_value="paint"))
        dock = make_dock()
        layers = dock._viewer.layers
        layers.clear()
        layers.events.removed.connect(lambda: n_left.append(len(layers)))
        dock._project_actions.open(path)
        assert n_left == [1]  # napari may crash where a layer is added to a viewer without any
        assert [layer.name for layer in layers] == ["other.tif paint"]

    def test_a_model_that_cannot_be_saved_yet_is_waited_for_in_a_dialog(
        self, make_dock: Any, image: Any, ask: Mock
    ) -> None:
        dock = make_dock()
        live, old, may_end = dock.session.live, dock.session.project.path, threading.Event()
        learn(dock)
        source = source_of([dock._viewer.add_image(image[::-1], name="others")])
        live.keeping.hold()
        live.keeping.go_on()
        live.keeping.note_model()
        with Project.open(old, read_only=True) as project:
            n_saved = project.manifest.checkpoints[-1].number
        live._worker.compute(lambda: may_end.wait(20))
        threading.Timer(0.5, may_end.set).start()
        ask.return_value = True
        dock._actions.open_image(source)
        assert may_end.is_set()
        assert "will be lost" not in ask.call_args.args[2]
        with Project.open(old, read_only=True) as project:
            assert project.manifest.checkpoints[-1].number == n_saved + 1


def test_waiting_goes_on_quietly_though_no_dialog_can_be_shown(qtbot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    may_end, shown = threading.Event(), Mock(side_effect=lambda: shown.call_count == 5 and may_end.set())
    monkeypatch.setattr(QProgressDialog, "exec", lambda _: shown())  # as where the application ends

    def function() -> str:
        assert may_end.wait(20)
        time.sleep(0.2)
        return "done"

    assert do_meanwhile(None, "It is done …", function) == "done"
    assert shown.call_count < 50


def test_a_dialog_that_is_over_does_nothing_any_more(qtbot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    may_end, dialogs, show_really = threading.Event(), [], QProgressDialog.exec

    def show(dialog: QProgressDialog) -> None:
        dialogs.append(dialog)
        may_end.set()
        show_really(dialog)

    monkeypatch.setattr(QProgressDialog, "exec", show)
    do_meanwhile(None, "It is done …", lambda: may_end.wait(20))
    assert not any(timer.isActive() for timer in dialogs[0].findChildren(QTimer))  # until it is deleted, some time


def test_waiting_goes_on_though_the_window_of_the_dialog_is_closed(qtbot: Any) -> None:
    window, may_end = QWidget(), threading.Event()
    window.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    window.show()
    QTimer.singleShot(0, window.close)
    window.destroyed.connect(lambda: threading.Timer(0.3, may_end.set).start())
    assert do_meanwhile(window, "It is done …", lambda: may_end.wait(20))
