"""What the live loop tells on any thread arrives on the GUI thread, in order, and only as much as is needed."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import numpy as np
import pandas as pd
import pytest
from qtpy.QtCore import QCoreApplication, QEvent, QObject, QThread

from napari_sparseseg._types import Box, Plane
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
    TileUpdate,
)
from napari_sparseseg.widgets.relay import GuiRelay

SIGNALS = ("status", "classes", "paint", "predictions_cleared", "tiles", "freshness", "curve_cleared", "curve")


class Log(QObject):
    """Writes down what a relay delivers, and on which thread."""

    def __init__(self, relay: GuiRelay) -> None:
        super().__init__()
        self.entries: list[tuple[str, Any]] = []
        self.threads: set[QThread] = set()
        for name in (*SIGNALS, "failed"):
            getattr(relay, name).connect(self._writer(name))

    def _writer(self, name: str) -> Any:
        def write(*values: Any) -> None:
            self.entries.append((name, values[0] if values else None))
            self.threads.add(QThread.currentThread())

        return write

    def names(self) -> list[str]:
        return [name for name, _ in self.entries]


def tile(start: int, label: int = 1, frame: int = 0) -> TileUpdate:
    box = Box((start, 0, 0), (start + 1, 2, 2))
    return TileUpdate(frame, box, np.full(box.shape, label, np.uint8), generation=label)


@pytest.fixture
def events(qapp: Any) -> LiveEvents:
    return LiveEvents()


@pytest.fixture
def relay(events: LiveEvents) -> Any:
    relay = GuiRelay(events)
    yield relay
    relay.close()


def test_everything_is_delivered_by_the_timer_on_the_gui_thread(
    events: LiveEvents, relay: GuiRelay, qtbot: Any
) -> None:
    log = Log(relay)

    def work() -> None:
        events.status_changed.emit(LiveStatus(step=1))
        events.classes_changed.emit((ClassInfo(1, "object", (1, 0, 0)),))
        events.paint_changed.emit(PaintChange(0, Box.whole((1, 2, 2)), 1))
        events.predictions_cleared.emit()
        events.tile_predicted.emit(tile(0))
        events.freshness_changed.emit(0)
        events.curve_cleared.emit()
        events.curve_extended.emit(CurvePoint(1, 0.1, 0.5, None))
        events.failed.emit("out of memory")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not log.entries
    qtbot.wait_until(lambda: len(log.entries) == len(SIGNALS) + 1, timeout=2000)
    assert sorted(log.names()) == sorted((*SIGNALS, "failed"))
    assert log.threads == {QThread.currentThread()}


def test_of_status_and_classes_only_the_latest_arrives(events: LiveEvents, relay: GuiRelay) -> None:
    log = Log(relay)
    for step in range(5):
        events.status_changed.emit(LiveStatus(step=step))
        events.classes_changed.emit((ClassInfo(step + 1, "object", (1, 0, 0)),))
    relay.flush()
    relay.flush()
    assert [(name, value.step) for name, value in log.entries if name == "status"] == [("status", 4)]
    assert [value[0].class_id for name, value in log.entries if name == "classes"] == [5]


def test_a_newer_tile_of_the_same_box_replaces_the_older_and_goes_last(events: LiveEvents, relay: GuiRelay) -> None:
    log = Log(relay)
    for update in (tile(0, 1), tile(1, 2), tile(0, 3), tile(0, 4, frame=1)):
        events.tile_predicted.emit(update)
    relay.flush()
    ((_, tiles),) = log.entries
    assert [(t.frame, t.box.start[0], t.generation) for t in tiles] == [(0, 1, 2), (0, 0, 3), (1, 0, 4)]


def test_what_came_before_a_clearing_is_dropped(events: LiveEvents, relay: GuiRelay) -> None:
    log = Log(relay)
    events.tile_predicted.emit(tile(0, 1))
    events.predictions_cleared.emit()
    events.tile_predicted.emit(tile(0, 2))
    events.curve_extended.emit(CurvePoint(9, 1.0, 0.1, None))
    events.curve_cleared.emit()
    events.curve_extended.emit(CurvePoint(1, 0.1, 0.5, None))
    relay.flush()
    assert log.names() == ["predictions_cleared", "tiles", "curve_cleared", "curve"]
    values = dict(log.entries)
    assert [t.generation for t in values["tiles"]] == [2]
    assert [p.step for p in values["curve"]] == [1]


def test_answers_about_another_image_are_dropped_and_what_is_so_is_told(events: LiveEvents, relay: GuiRelay) -> None:
    told: list[str] = []
    for name in ("objects", "suggested", "table", "saving"):
        getattr(relay, name).connect(lambda _, name=name: told.append(name))
    events.objects_changed.emit(ObjectsChange(0, Box.whole((1, 2, 2))))
    events.slice_suggested.emit(SuggestedSlice(Plane(0, 0, 0), (0, 1, 1), 0.3, "uncertainty"))
    events.objects_measured.emit(ObjectTable(0, pd.DataFrame({"id": [1]})))
    events.saving_changed.emit(SavingStatus("cells"))
    relay.drop_answers()
    relay.flush()
    assert told == ["saving"]


def test_paint_and_points_keep_their_order_and_none_is_lost(events: LiveEvents, relay: GuiRelay) -> None:
    log = Log(relay)
    for number in range(20):
        events.paint_changed.emit(PaintChange(0, Box.whole((1, 2, 2)), number))
        events.curve_extended.emit(CurvePoint(number, 0.0, 0.0, None))
        events.failed.emit(str(number))
    relay.flush()
    assert [change.revision for change in dict(log.entries)["paint"]] == list(range(20))
    assert [point.step for point in dict(log.entries)["curve"]] == list(range(20))
    assert [value for name, value in log.entries if name == "failed"] == [str(n) for n in range(20)]


def test_events_of_many_threads_are_neither_lost_nor_doubled(events: LiveEvents, relay: GuiRelay) -> None:
    log = Log(relay)

    def work(first: int) -> None:
        for number in range(first, first + 200):
            events.curve_extended.emit(CurvePoint(number, 0.0, 0.0, None))

    threads = [threading.Thread(target=work, args=(n * 200,)) for n in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        relay.flush()
    relay.flush()
    assert sorted(p.step for name, points in log.entries if name == "curve" for p in points) == list(range(800))


def test_nothing_is_delivered_after_close(events: LiveEvents, relay: GuiRelay, qtbot: Any) -> None:
    log = Log(relay)
    events.status_changed.emit(LiveStatus(step=1))
    relay.close()
    relay.close()
    events.status_changed.emit(LiveStatus(step=2))
    relay.flush()
    qtbot.wait(120)
    assert not log.entries
    assert len(events.status_changed) == 0


def test_a_relay_closed_by_what_it_delivers_keeps_still(events: LiveEvents, relay: GuiRelay) -> None:
    log = Log(relay)
    relay.classes.connect(lambda _: relay.close())
    events.classes_changed.emit((ClassInfo(1, "object", (1, 0, 0)),))
    events.failed.emit("gone")
    relay.flush()
    assert log.names() == ["classes"]


def test_emitting_is_safe_when_the_qt_object_is_gone(events: LiveEvents, qapp: Any) -> None:
    parent = QObject()
    relay = GuiRelay(events, parent)
    parent.deleteLater()
    QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    for number in range(3):
        events.status_changed.emit(LiveStatus(step=number))
        events.tile_predicted.emit(tile(number))
    relay.close()


def test_the_live_loop_does_not_keep_the_relay_alive(events: LiveEvents, qapp: Any) -> None:
    relay = GuiRelay(events)
    gone = weakref.ref(relay)
    del relay
    gc.collect()
    assert gone() is None
    events.status_changed.emit(LiveStatus())
