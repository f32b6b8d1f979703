"""SparseSegDock: the panels, and what ties them to the session of their viewer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QEvent, QSize, Qt, QTimer
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import QFrame, QMainWindow, QScrollArea, QVBoxLayout, QWidget
from typing_extensions import override

from napari_sparseseg._types import Plane
from napari_sparseseg.errors import InputError
from napari_sparseseg.live.events import ClassInfo, LiveStatus, PaintedSlice, SavingStatus, SuggestedSlice
from napari_sparseseg.storage.project.reference import ImageState
from napari_sparseseg.widgets import wiring
from napari_sparseseg.widgets.actions import Actions
from napari_sparseseg.widgets.class_panel import ClassPanel
from napari_sparseseg.widgets.controls import MessageLabel
from napari_sparseseg.widgets.found_panel import FoundPanel
from napari_sparseseg.widgets.image_panel import ImagePanel
from napari_sparseseg.widgets.object_panel import ObjectPanel
from napari_sparseseg.widgets.paint_panel import PaintPanel
from napari_sparseseg.widgets.project_actions import ProjectActions
from napari_sparseseg.widgets.project_panel import ProjectPanel
from napari_sparseseg.widgets.result_panel import ResultPanel
from napari_sparseseg.widgets.session import MAPS, session_of
from napari_sparseseg.widgets.settings_panel import SettingsPanel
from napari_sparseseg.widgets.shelf_actions import ShelfActions
from napari_sparseseg.widgets.shelf_panel import ShelfPanel
from napari_sparseseg.widgets.sources import ImageSource
from napari_sparseseg.widgets.spot import sentence_of
from napari_sparseseg.widgets.suggestion_panel import SuggestionPanel
from napari_sparseseg.widgets.train_panel import TrainPanel
from napari_sparseseg.widgets.unsure_panel import UnsurePanel

WIDTH = 350
_MESSAGE_MS = 15_000
_SAVING_MS = 200
_OPENING_MS = 200
_LAYOUT_MS = 50
_READ_ONLY = "The project can be looked at only; Project > Save as… makes a copy, and goes on there."
_NO_BACKGROUND = "Say first which class is the background (the round button beside its name)."


class SparseSegDock(QWidget):
    """The dock widget of one viewer. Closing it changes nothing: opened again, it shows the same session."""

    # napari looks at the name of this parameter; annotations would be text here
    def __init__(self, napari_viewer: Any) -> None:
        super().__init__()
        self._viewer = napari_viewer
        self.session = session_of(napari_viewer)
        self._is_attached = True
        self._has_background = False
        self._slices: tuple[PaintedSlice, ...] = ()
        # by then napari has put the dock into its window, added all layers of a sample, or put the dock elsewhere
        self._docked, self._opening = _soon(self, self._on_docked), _soon(self, self._open_by_itself)
        self._retiring = _soon(self, self._retire)
        self._fading = _soon(self, self._hide_messages)
        self._revealing = _soon(self, lambda: self._scroll.ensureWidgetVisible(self.found_panel.table))
        self._saving = _soon(self, lambda: self._show_saving(self.session.live.keeping.status))
        self._build()
        self._actions = Actions(self.session, self)
        self._project_actions = ProjectActions(self.session, napari_viewer, self)
        self._shelf_actions = ShelfActions(self.session, self.shelf_panel)
        self._connect_session()
        self._connect_panels()
        self.session.take_dock(self)
        self._show_session()
        self._docked.start(0)

    @override
    def sizeHint(self) -> QSize:
        return QSize(WIDTH, 760)

    @override
    def minimumSizeHint(self) -> QSize:
        return QSize(280, 240)

    def detach(self) -> None:
        """Show the session no longer; it goes on."""
        if not self._is_attached:
            return
        self._is_attached = False
        for timer in (self._docked, self._opening, self._saving):
            timer.stop()
        self.image_panel.close_events()
        for signal, slot in self._session_slots():
            signal.disconnect(slot)

    # --- building ---

    def _build(self) -> None:
        session = self.session
        self.image_panel = ImagePanel(self._viewer, session.live.estimate_seconds, is_own=session.owns)
        self.project_panel = ProjectPanel()
        self.class_panel, self.paint_panel, self.object_panel = ClassPanel(), PaintPanel(), ObjectPanel()
        self.train_panel, self.result_panel = TrainPanel(), ResultPanel()
        self.found_panel, self.unsure_panel = FoundPanel(), UnsurePanel()
        self.suggestion_panel, self.settings_panel = SuggestionPanel(), SettingsPanel()
        self.shelf_panel = ShelfPanel()
        column = QWidget()
        layout = QVBoxLayout(column)
        layout.setContentsMargins(8, 6, 8, 6)
        layout.setSpacing(8)
        groups: tuple[tuple[QWidget, ...], ...] = (
            (self.image_panel, self.project_panel),
            (self.class_panel, self.paint_panel, self.suggestion_panel, self.unsure_panel, self.object_panel),
            (self.train_panel, self.shelf_panel),
            (self.result_panel, self.found_panel),
            (self.settings_panel,),
        )
        for number, group in enumerate(groups):
            if number:
                layout.addWidget(_line())
            for panel in group:
                layout.addWidget(panel)
        layout.addStretch(1)
        self._lay_out(column)

    def _lay_out(self, column: QWidget) -> None:
        scroll = self._scroll = QScrollArea()
        scroll.setWidget(column)
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self._messages = {is_error: MessageLabel(role="error" if is_error else "muted") for is_error in (False, True)}
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(scroll, 1)
        line = QVBoxLayout()
        line.setContentsMargins(8, 0, 8, 4)
        for message in self._messages.values():
            message.setAccessibleName("Latest message")
            message.hide()
            line.addWidget(message)
        layout.addLayout(line)

    # --- connecting ---

    def _connect_session(self) -> None:
        for signal, slot in self._session_slots():
            signal.connect(slot)

    def _session_slots(self) -> list[tuple[Any, Any]]:
        session = self.session
        return [
            (session.source_changed, self._on_source_changed),
            (session.source_returned, self.image_panel.show_source),
            (session.message_shown, self._show_message),
            (session.maps_changed, self._show_maps),
            (session.configured, self._show_settings),
            (session.configured, self._show_project),
            (session.offered, self.project_panel.show_offer),
            (session.relay.saving, self._show_saving),
            (session.relay.whole, self.result_panel.show_whole),
            (session.closed, self.detach),
            (session.relay.status, self._show_status),
            (session.relay.classes, self._show_classes),
            (session.relay.paint, self._on_paint),
            (session.relay.suggested, self._on_suggested),
            (session.relay.curve, self.train_panel.add_points),
            (session.relay.curve_cleared, self.train_panel.clear_curve),
            (session.bridge.mode_changed, self.paint_panel.show_mode),
            (session.bridge.class_changed, self._on_class_changed),
            (session.bridge.brush_resized, self.paint_panel.show_brush),
            (session.bridge.view_changed, self._show_plane),
            (session.bridge.objects.changed, self._show_objects),
            (session.bridge.unsure.changed, self._show_unsure),
            (session.bridge.found.changed, self._show_found),
            (session.bridge.found.changed, self._show_undo),
            (session.bridge.suggestion.changed, self._show_suggestion),
            (session.bridge.found.table.changed, self._show_table),
            (session.bridge.extra_removed, self._on_extra_removed),
        ]

    def _connect_panels(self) -> None:
        wiring.connect_image(self.image_panel, self.settings_panel, self._actions)
        wiring.connect_project(self.project_panel, self._project_actions, self.session)
        wiring.connect_classes(self.class_panel, self._actions, self.session.bridge)
        wiring.connect_paint(self.paint_panel, self.object_panel, self._actions, self.session)
        wiring.connect_unsure(self.unsure_panel, self.session.bridge)
        wiring.connect_training(self.train_panel, self._actions, self.session.live)
        wiring.connect_results(self.result_panel, self._actions, self.session)
        wiring.connect_found(self.found_panel, self._actions, self.session)
        wiring.connect_suggestions(self.suggestion_panel, self.session.bridge.suggestion)
        self.found_panel.table.toggled.connect(lambda: self._revealing.start(_LAYOUT_MS))
        self.image_panel.image_appeared.connect(lambda: self._opening.start(0))
        self.class_panel.class_added.connect(self._on_class_added)
        self.train_panel.auto_start_toggled.connect(self._on_auto_start_toggled)
        self.result_panel.probability_chosen.connect(lambda class_id: self._show_map(probability=class_id))
        self.result_panel.uncertainty_toggled.connect(lambda wished: self._show_map(uncertainty=wished))
        self.result_panel.freshness_toggled.connect(lambda wished: self._show_map(freshness=wished))
        self.result_panel.class_layers_toggled.connect(lambda wished: self._show_map(class_layers=wished))
        self.result_panel.ambiguity_toggled.connect(lambda wished: self._show_map(ambiguity=wished))
        self.result_panel.novelty_toggled.connect(lambda wished: self._show_map(novelty=wished))

    # --- showing ---

    def _show_session(self) -> None:
        """Show all that is so already; a new dock may show a session that has been at work for hours."""
        session = self.session
        self.image_panel.show_source(session.source)
        self._show_classes(session.live.classes)
        self.paint_panel.show_mode(session.bridge.mode)
        self.paint_panel.show_brush(session.bridge.brush_size)
        self._show_objects()
        self._show_unsure()
        self._show_found()
        self._show_suggestion()
        self._show_table()
        self.train_panel.show_auto_start(session.live.auto_start)
        self.train_panel.add_points(session.curve)
        self._show_status(session.live.status)
        self.result_panel.show_whole(session.live.whole.status)
        self._show_settings()
        self._show_maps()
        self._show_slices()
        self._show_project()
        self.project_panel.show_offer(session.offer)
        self._open_by_itself()

    def _show_status(self, status: LiveStatus) -> None:
        self.train_panel.show_status(status)
        self.shelf_panel.show_status(status)
        self.result_panel.show_status(status)
        self.found_panel.show_status(status)
        self.paint_panel.show_advising(status.is_advising)
        self.paint_panel.show_correct_enabled(status.has_model, "Nothing is predicted yet: paint two classes first.")

    def _show_classes(self, classes: tuple[ClassInfo, ...]) -> None:
        self.class_panel.show_classes(classes, self.session.bridge.class_id)
        self.result_panel.show_classes(classes)
        self._show_table()
        self._has_background = any(info.is_background for info in classes)
        self._show_plane()
        self._show_undo()  # with a class, what was done before goes too

    def _show_slices(self) -> None:
        source = self.session.source
        self._slices = self.session.live.painted_slices()
        self.paint_panel.show_slices(
            self._slices,
            is_time_series=source is not None and source.time_axis is not None,
            axis_labels=_axis_names(source),
        )
        self._show_plane()

    def _show_undo(self) -> None:
        live = self.session.live
        self.paint_panel.show_undo(live.can_undo, live.can_redo)

    def _show_objects(self) -> None:
        tool = self.session.bridge.objects
        self.object_panel.show_objects(tool.object_id, tool.hovered)

    def _show_unsure(self) -> None:
        tool = self.session.bridge.unsure
        self.unsure_panel.show_unsure(tool.is_on, tool.classes or self.session.live.classes, tool.class_ids)

    def _show_found(self) -> None:
        found = self.session.bridge.found
        self.found_panel.show_found(found.tool, found.count, found.has_first)

    def _show_suggestion(self) -> None:
        self.suggestion_panel.show_state(self.session.live.suggestions.state)

    def _show_table(self) -> None:
        tool, panel, source = self.session.bridge.found.table, self.found_panel.table, self.session.source
        panel.show_on(tool.is_on)
        panel.show_filter(tool.filter)
        names = {info.class_id: info.name for info in self.session.live.classes}
        panel.show_names(names, "" if source is None else source.unit_symbol)
        panel.show_table(tool.table, tool.passing, tool.chosen)

    def _show_plane(self) -> None:
        plane: Plane | None = self.session.bridge.current_plane()
        complete = any(s.plane == plane and s.is_complete for s in self._slices)
        reason = "" if self._has_background else _NO_BACKGROUND
        self.paint_panel.show_plane(plane)
        self.paint_panel.show_in_3d(self.session.bridge.is_in_3d)
        is_only = plane is not None and _n_slices(self.session.source, plane.axis) == 1
        self.paint_panel.show_only_slice(is_only)
        self.suggestion_panel.show_only_slice(is_only)
        is_read_only = self.session.bridge.is_read_only
        self.paint_panel.show_read_only(is_read_only)
        reason = _READ_ONLY if is_read_only else reason
        self.paint_panel.show_complete(complete, plane is not None and not reason, reason)

    def _show_settings(self) -> None:
        self.settings_panel.show_settings(self.session.live.settings)
        self.result_panel.show_overlapping(self.session.live.is_overlapping)

    def _show_project(self) -> None:
        image = self.session.live.project
        is_only_in_memory = image is not None and image.check().state is ImageState.IN_MEMORY
        is_writable = image is not None and not image.project.is_read_only
        self.project_panel.show_project(
            is_open=image is not None,
            is_only_in_memory=is_only_in_memory and is_writable,
            comes_back=image is not None and image.entry.place is not None and image.entry.place.sample is not None,
        )
        self._show_saving(self.session.live.keeping.status)

    def _show_saving(self, status: SavingStatus) -> None:
        """What is being written to the journal is looked at again soon: it takes some milliseconds."""
        image = self.session.live.project
        is_writing = image is not None and image.journal is not None and not image.journal.sync(timeout=0)
        self.project_panel.show_saving(status, is_writing=is_writing)
        if is_writing and not status.error:
            self._saving.start(_SAVING_MS)

    def _show_maps(self) -> None:
        self.result_panel.show_maps(**{name: getattr(self.session, name) for name in MAPS})

    def _show_message(self, text: str, is_error: bool) -> None:
        """For a while: what is true for longer stands in the status."""
        self._fading.start(_MESSAGE_MS)
        self._messages[is_error].show_text(text)
        for kind, message in self._messages.items():
            message.setVisible(kind == is_error)

    def _hide_messages(self) -> None:
        for message in self._messages.values():
            message.hide()

    # --- what happens ---

    def _open_by_itself(self) -> None:
        """With nothing in use, the chosen image is taken, unless it is so large that it is better to choose first."""
        if self.session.source is not None or self.image_panel.is_large:
            return
        if self.session.is_opening:  # another one, which may fail
            self._opening.start(_OPENING_MS)
            return
        try:
            source = self.image_panel.wished_source()
        except InputError:
            return  # the panel says why
        self._actions.open_image(source)

    def _on_source_changed(self, source: ImageSource | None) -> None:
        self._hide_messages()
        self.image_panel.show_source(source)
        self.train_panel.clear_curve()
        self._on_paint()
        self._show_settings()
        self._show_maps()
        self._show_project()

    def _on_paint(self) -> None:
        self._show_saving(self.session.live.keeping.status)
        self._show_slices()
        self._show_undo()

    def _on_suggested(self, suggested: SuggestedSlice) -> None:
        self.session.tell(sentence_of(suggested, _axis_names(self.session.source)))

    def _on_class_changed(self, class_id: int) -> None:
        self.class_panel.show_classes(self.session.live.classes, class_id)

    def _on_class_added(self) -> None:
        class_id = self._actions.add_class()
        if class_id is not None:
            self.class_panel.rename(class_id)

    def _on_auto_start_toggled(self, wished: bool) -> None:
        self.session.live.auto_start = wished
        self.train_panel.show_auto_start(wished)

    def _show_map(self, **wished: Any) -> None:
        with self.session.guarded():
            self.session.show_maps(**wished)
        self._show_maps()

    def _on_extra_removed(self, name: str) -> None:
        self.session.forget_map(name)
        self._show_maps()

    def _on_docked(self) -> None:
        window = self.window()
        if isinstance(window, QMainWindow):
            self.session.watch(window)

    @override
    def showEvent(self, event: QShowEvent | None) -> None:
        super().showEvent(event)
        self._on_docked()

    @override
    def event(self, event: QEvent | None) -> bool:
        # napari takes a closed dock out of its window and forgets it; without a parent nothing would delete it
        if event is not None and event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self._retiring.start(0)
        return super().event(event)

    def _retire(self) -> None:
        if self.parent() is None and not self.isVisible():
            self.detach()
            self.deleteLater()


def _soon(parent: QWidget, slot: Callable[[], None]) -> QTimer:
    """A timer that, started, calls the slot once the event loop has its turn."""
    timer = QTimer(parent)
    timer.setSingleShot(True)
    timer.timeout.connect(slot)
    return timer


def _line() -> QFrame:
    line = QFrame()
    line.setFrameShape(QFrame.Shape.HLine)
    line.setFixedHeight(1)
    line.setStyleSheet("background: rgba(128, 128, 128, 60); border: none;")
    return line


def _n_slices(source: ImageSource | None, axis: int) -> int:
    """Slices across z, y or x."""
    return 0 if source is None else (1, *source.shape[-len(source.spacing) :])[-3:][axis]


def _axis_names(source: ImageSource | None) -> tuple[str, str, str]:
    """How the user calls z, y, x."""
    if source is None:
        return "z", "y", "x"
    labels = source.axis_labels[-len(source.spacing) :]
    if any(label.lstrip("-").isdigit() for label in labels):
        return "z", "y", "x"
    z, y, x = ("z", *labels)[-3:]
    return z, y, x
