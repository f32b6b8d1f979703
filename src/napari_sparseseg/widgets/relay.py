"""GuiRelay: brings events of the live loop from any thread to the GUI thread, and no more of them than needed."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QTimer, Signal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from psygnal import SignalInstance

    from napari_sparseseg._types import Box
    from napari_sparseseg.live.events import (
        ClassInfo,
        CurvePoint,
        LiveEvents,
        LiveStatus,
        ObjectsChange,
        ObjectTable,
        PaintChange,
        SavingStatus,
        SuggestedSlice,
        SuggestionState,
        TileUpdate,
        WholeStatus,
    )

INTERVAL_MS = 50


@dataclass
class _Mail:
    """What has arrived since the last delivery."""

    status: LiveStatus | None = None
    classes: tuple[ClassInfo, ...] | None = None
    predictions_cleared: bool = False
    curve_cleared: bool = False
    tiles: dict[tuple[int, Box], TileUpdate] = field(default_factory=dict)
    paint: list[PaintChange] = field(default_factory=list)
    curve: list[CurvePoint] = field(default_factory=list)
    frames: dict[int, None] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    saving: SavingStatus | None = None
    objects: list[ObjectsChange] = field(default_factory=list)
    suggested: SuggestedSlice | None = None
    suggestion: SuggestionState | None = None
    table: ObjectTable | None = None
    whole: WholeStatus | None = None


class GuiRelay(QObject):
    """Collects events of a `LiveSegmenter` on whatever thread they happen; delivers them on the GUI thread.

    Twenty times a second, and coalesced: only the latest status, classes and table, only the newest tile of each box.
    A clearing is delivered before whatever came after it; what came before it is dropped.
    """

    status = Signal(object)
    """LiveStatus."""
    classes = Signal(tuple)
    """All ClassInfo."""
    paint = Signal(list)
    """PaintChange, in order."""
    predictions_cleared = Signal()
    tiles = Signal(list)
    """TileUpdate, in order."""
    freshness = Signal(int)
    """Frame."""
    curve_cleared = Signal()
    curve = Signal(list)
    """CurvePoint, in order."""
    failed = Signal(str)
    noticed = Signal(str)
    saving = Signal(object)
    """SavingStatus."""
    objects = Signal(list)
    """ObjectsChange, in order."""
    suggested = Signal(object)
    """SuggestedSlice."""
    suggestion = Signal(object)
    """SuggestionState."""
    table = Signal(object)
    """ObjectTable."""
    whole = Signal(object)
    """WholeStatus."""

    def __init__(self, events: LiveEvents, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._events: LiveEvents | None = events
        self._lock = threading.Lock()
        self._mail = _Mail()
        self._connect(events)
        # It runs all the time, which takes 0.2 % of a core: a timer cannot be started from other threads.
        self._timer = QTimer(self)
        self._timer.setInterval(INTERVAL_MS)
        self._timer.timeout.connect(self.flush)
        self._timer.start()

    def flush(self) -> None:
        """Deliver now what has arrived; GUI thread."""
        with self._lock:
            mail, self._mail = self._mail, _Mail()
        for signal, *values in self._deliveries(mail):
            if self._events is not None:  # what was delivered may have closed the relay
                signal.emit(*values)

    def drop_answers(self) -> None:
        """Drop what was found out about the image before, now that another one is open; GUI thread.

        The clearing of predictions does not tell that: a reset clears them too, and the objects stay.
        """
        with self._lock:
            self._mail.objects.clear()
            self._mail.suggested = self._mail.table = None

    def close(self) -> None:
        """Listen no longer, deliver nothing more; may be called twice. GUI thread."""
        events, self._events = self._events, None
        if events is None:
            return
        for signal, collect in self._pairs(events):
            signal.disconnect(collect, missing_ok=True)
        with self._lock:
            self._mail = _Mail()
        with suppress(RuntimeError):  # Qt may have deleted the timer with the window
            self._timer.stop()

    def _connect(self, events: LiveEvents) -> None:
        # psygnal holds bound methods weakly, so that the live loop does not keep the window alive
        for signal, collect in self._pairs(events):
            signal.connect(collect)

    def _pairs(self, events: LiveEvents) -> list[tuple[SignalInstance, Callable[..., None]]]:
        return [
            (events.status_changed, self._collect_status),
            (events.classes_changed, self._collect_classes),
            (events.predictions_cleared, self._collect_predictions_cleared),
            (events.tile_predicted, self._collect_tile),
            (events.freshness_changed, self._collect_freshness),
            (events.paint_changed, self._collect_paint),
            (events.curve_cleared, self._collect_curve_cleared),
            (events.curve_extended, self._collect_point),
            (events.failed, self._collect_failure),
            (events.noticed, self._collect_notice),
            (events.saving_changed, self._collect_saving),
            (events.objects_changed, self._collect_objects),
            (events.slice_suggested, self._collect_suggested),
            (events.suggestion_changed, self._collect_suggestion),
            (events.objects_measured, self._collect_table),
            (events.whole_changed, self._collect_whole),
        ]

    # --- any thread; touches nothing of Qt, which may be gone ---

    def _collect_status(self, status: LiveStatus) -> None:
        with self._lock:
            self._mail.status = status

    def _collect_classes(self, classes: tuple[ClassInfo, ...]) -> None:
        with self._lock:
            self._mail.classes = classes

    def _collect_predictions_cleared(self) -> None:
        with self._lock:
            self._mail.predictions_cleared = True
            self._mail.tiles.clear()

    def _collect_tile(self, tile: TileUpdate) -> None:
        key = tile.frame, tile.box
        with self._lock:
            self._mail.tiles.pop(key, None)  # the newer one goes to the end: boxes may overlap
            self._mail.tiles[key] = tile

    def _collect_freshness(self, frame: int) -> None:
        with self._lock:
            self._mail.frames[frame] = None

    def _collect_paint(self, change: PaintChange) -> None:
        with self._lock:
            self._mail.paint.append(change)

    def _collect_curve_cleared(self) -> None:
        with self._lock:
            self._mail.curve_cleared = True
            self._mail.curve.clear()

    def _collect_point(self, point: CurvePoint) -> None:
        with self._lock:
            self._mail.curve.append(point)

    def _collect_failure(self, reason: str) -> None:
        with self._lock:
            self._mail.failures.append(reason)

    def _collect_notice(self, sentence: str) -> None:
        with self._lock:
            self._mail.notices.append(sentence)

    def _collect_saving(self, status: SavingStatus) -> None:
        with self._lock:
            self._mail.saving = status

    def _collect_objects(self, change: ObjectsChange) -> None:
        with self._lock:
            self._mail.objects.append(change)

    def _collect_suggested(self, suggested: SuggestedSlice) -> None:
        with self._lock:
            self._mail.suggested = suggested

    def _collect_suggestion(self, state: SuggestionState) -> None:
        with self._lock:
            self._mail.suggestion = state

    def _collect_table(self, table: ObjectTable) -> None:
        with self._lock:
            self._mail.table = table

    def _collect_whole(self, status: WholeStatus) -> None:
        with self._lock:
            self._mail.whole = status

    # --- GUI thread ---

    def _deliveries(self, mail: _Mail) -> Iterator[tuple[Any, ...]]:
        if mail.classes is not None:
            yield self.classes, mail.classes
        if mail.predictions_cleared:
            yield (self.predictions_cleared,)
        if mail.paint:
            yield self.paint, mail.paint
        if mail.tiles:
            yield self.tiles, list(mail.tiles.values())
        yield from ((self.freshness, frame) for frame in mail.frames)
        if mail.objects:
            yield self.objects, mail.objects
        if mail.suggested is not None:
            yield self.suggested, mail.suggested
        if mail.suggestion is not None:
            yield self.suggestion, mail.suggestion
        if mail.table is not None:
            yield self.table, mail.table
        if mail.status is not None:
            yield self.status, mail.status
        if mail.curve_cleared:
            yield (self.curve_cleared,)
        if mail.curve:
            yield self.curve, mail.curve
        if mail.saving is not None:
            yield self.saving, mail.saving
        if mail.whole is not None:
            yield self.whole, mail.whole
        yield from ((self.noticed, sentence) for sentence in mail.notices)
        yield from ((self.failed, reason) for reason in mail.failures)
