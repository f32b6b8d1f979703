"""A viewer, in a real window or without one, driven by mouse and keys; and a live segmenter that never learns."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hands import Hands, ModelHands, WindowHands
from napari.components import ViewerModel
from napari.settings import NapariSettings
from napari.utils.notifications import notification_manager
from npe2 import PluginManifest

from napari_sparseseg._types import Box, Plane, Region, Shape3D
from napari_sparseseg.config import PaintConfig
from napari_sparseseg.live.classes import ClassList
from napari_sparseseg.live.events import (
    ClassInfo,
    LiveEvents,
    ObjectsChange,
    PaintChange,
    PaintedSlice,
    TileUpdate,
    View,
)
from napari_sparseseg.live.found_objects import FoundObjects
from napari_sparseseg.live.image import LiveImage
from napari_sparseseg.live.object_table import ObjectTables
from napari_sparseseg.live.opened import Opened
from napari_sparseseg.live.shown import with_paint
from napari_sparseseg.live.suggestions import Suggestions
from napari_sparseseg.live.switchboard import Switchboard
from napari_sparseseg.storage.strokes import AnnotationStore, PaintEdit
from napari_sparseseg.widgets.sources import ImageSource, source_of

BACKGROUND, OBJECT, OTHER = 1, 2, 3
CLASSES = (
    ClassInfo(BACKGROUND, "background", (0.5, 0.5, 0.5), is_background=True),
    ClassInfo(OBJECT, "object", (1.0, 0.4, 0.0)),
    ClassInfo(OTHER, "other", (0.0, 0.4, 1.0)),
)


class FakeLive:
    """What the bridge sees of `LiveSegmenter`, with a real store of paint, and predictions that the test makes."""

    def __init__(self, tile_shape: Shape3D = (4, 16, 16)) -> None:
        self.events = LiveEvents()
        self.classes = CLASSES
        self.tile_shape = tile_shape
        self.views: list[View] = []
        self.probability_of: int | None = None
        self.wants_uncertainty = self.wants_candidates = self.wants_novelty = False
        self.store: AnnotationStore | None = None
        self.predicted = np.zeros((1, 1, 1, 1), np.uint8)
        self.image_shape: tuple[int, ...] | None = None
        self.project: Any = None
        self.states: dict[int, Any] = {}
        self.generation = 0
        self.opened: Opened | None = None
        self.tables: dict[Opened, ObjectTables] = {}
        self.switch = Switchboard(self.events)
        self.compute: Callable[[Callable[[], Any]], Future[Any]] = at_once
        self.found = FoundObjects(
            lambda: self.opened,
            ClassList(),
            PaintConfig,
            self.labels,
            self._tell,
            self.switch.wish,
            lambda function: self.compute(function),
        )
        self.suggestions = Suggestions(
            lambda: self.opened, ClassList(), PaintConfig, self._tell, lambda function: self.compute(function)
        )

    def open(self, image: Any, *, channel_axis: Any = None, time_axis: Any = None, spacing: Any = None) -> None:
        shape = list(image.shape)
        self.image_shape = tuple(n for axis, n in enumerate(shape) if axis != channel_axis)
        n_frames = 1 if time_axis is None else shape[time_axis]
        space = [n for axis, n in enumerate(shape) if axis not in (channel_axis, time_axis)]
        z, y, x = [1] * (3 - len(space)) + space
        self.store = AnnotationStore((n_frames, z, y, x))
        self.predicted = np.zeros(self.store.shape, np.uint8)
        taken = LiveImage.of(image, channel_axis, time_axis, spacing)
        self.opened = Opened(taken, self.store, self.predicted, self.switch)

    @property
    def shape(self) -> tuple[int, int, int, int] | None:
        return None if self.store is None else self.store.shape

    @property
    def codes(self) -> Any:
        return None if self.store is None else self.store.codes

    @property
    def class_ids(self) -> tuple[int, ...]:
        return tuple(info.class_id for info in self.classes)

    def allowed(self, code: int) -> frozenset[int]:
        return self.store.allowed(code, self.class_ids)

    def code_for_any_of(self, class_ids: Sequence[int]) -> int:
        return self.store.code_for(any_of=class_ids)

    def annotate(self, region: Region, class_id: int, *, plane: Plane | None = None, object_id: int = 0) -> None:
        self._tell(self.store.annotate(region, class_id, plane, object_id=object_id))

    def annotate_values(self, region: Region, codes: Any, *, plane: Plane | None = None) -> None:
        self._tell(self.store.annotate(region, codes, plane))

    def correct(
        self, region: Region, class_id: int, *, shown: Any, plane: Plane | None = None, object_id: int = 0
    ) -> None:
        classes = {"class_ids": self.class_ids, "background": BACKGROUND}
        self._tell(self.store.correct(region, class_id, shown, plane, object_id=object_id, **classes))

    @property
    def next_object_id(self) -> int:
        return self.store.next_object_id

    def objects(self, frame: int, box: Box) -> Any:
        return self.store.objects(frame, box)

    def find(self, ids: Any, frame: int = 0) -> None:
        """Find these objects, (z, y, x), and tell of it as the compute thread would."""
        box = Box.whole(self.store.shape[1:])
        self.opened.objects.take(self.store.shape, frame, box, np.asarray(ids, np.uint32))
        self.events.objects_changed.emit(ObjectsChange(frame, box))

    def measure(self) -> None:
        """Measure the objects whose table is wanted, as the compute thread would."""
        wish = self.switch.wishes.table
        if self.opened not in self.tables:
            self.tables = {self.opened: ObjectTables(self.opened, self.labels)}
        tables = self.tables[self.opened]
        while tables.work(wish.frame) is not None:
            pass
        self.events.objects_measured.emit(tables.table(wish.frame))

    def undo(self) -> bool:
        return self.found.undo()

    def redo(self) -> bool:
        return self.found.redo()

    def painted_slices(self) -> tuple[PaintedSlice, ...]:
        return tuple(PaintedSlice(*painted) for painted in self.store.painted_slices())

    def look_at(self, view: View) -> None:
        self.views.append(view)

    def show_probability(self, class_id: int | None) -> None:
        self.probability_of = class_id

    def show_uncertainty(self, wanted: bool) -> None:
        self.wants_uncertainty = wanted

    def show_candidates(self, wanted: bool) -> None:
        self.wants_candidates = wanted

    def show_novelty(self, wanted: bool) -> None:
        self.wants_novelty = wanted

    def freshness(self, frame: int) -> Any:
        counts = [-(-n // t) for n, t in zip(self.store.shape[1:], self.tile_shape, strict=True)]
        return self.states.get(frame, np.zeros(counts, np.uint8))

    def labels(self, frame: int, box: Box | None = None) -> Any:
        box = box or Box.whole(self.store.shape[1:])
        where = (frame, *box.slices)
        return with_paint(self.predicted[where].copy(), self.store.codes[where], self.allowed)

    def known_boxes(self, frame: int) -> list[Box]:
        return [Box.whole(self.store.shape[1:])]

    def predict(self, labels: Any, box: Box | None = None, *, frame: int = 0, **more: Any) -> TileUpdate:
        """Predict these labels in a box, and tell of it as the compute thread would."""
        box = box or Box.whole(self.store.shape[1:])
        labels = np.broadcast_to(np.asarray(labels, np.uint8), box.shape).copy()
        self.predicted[frame][box.slices] = labels
        self.generation += 1
        tile = TileUpdate(frame, box, labels, self.generation, **more)
        self.events.tile_predicted.emit(tile)
        return tile

    def _tell(self, edit: PaintEdit | None) -> bool:
        if edit is not None:
            self.events.paint_changed.emit(PaintChange(edit.frame, edit.box, self.store.revision))
        return edit is not None


def at_once(function: Callable[[], Any]) -> Future[Any]:
    """Call a function now, as the compute thread would later."""
    future: Future[Any] = Future()
    try:
        future.set_result(function())
    except Exception as error:  # noqa: BLE001 - whoever waits for the result gets it
        future.set_exception(error)
    return future


@dataclass
class Stage:
    """A viewer, with a window or without, with an image, our two layers on it, and hands to paint with."""

    viewer: Any
    live: Any
    relay: Any
    bridge: Any
    source: ImageSource
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.hands: Hands = WindowHands(self.viewer) if self.has_window else ModelHands(self.viewer)

    @property
    def has_window(self) -> bool:
        return hasattr(self.viewer, "window")

    @property
    def annotation(self) -> Any:
        return self.bridge.annotation_layer

    @property
    def prediction(self) -> Any:
        return self.bridge.prediction_layer

    @property
    def canvas(self) -> Any:
        return self.viewer.window._qt_viewer.canvas.native

    def press(self, point: Sequence[float], button: str = "LeftButton") -> None:
        self.hands.press(self._world(point), button)

    def move(self, point: Sequence[float], button: str = "LeftButton") -> None:
        self.hands.move(self._world(point), button)

    def release(self, point: Sequence[float], button: str = "LeftButton") -> None:
        self.hands.release(self._world(point), button)

    def drag(self, *points: Sequence[float], steps: int = 4) -> None:
        """A stroke from point to point."""
        self.press(points[0])
        for start, end in pairwise(points):
            for point in np.linspace(start, end, steps + 1)[1:]:
                self.move(point)
        self.move(points[-1])  # a move may be dropped, the one to the end must not
        self.release(points[-1])

    def click(self, point: Sequence[float], button: str = "LeftButton") -> None:
        self.press(point, button)
        self.release(point, button)

    def key(self, name: str, *modifiers: str) -> None:
        self.hands.key(name, *modifiers)

    def settle(self) -> None:
        """Deliver what was told, and let the timers of the bridge run out."""
        from qtpy.QtTest import QTest

        self.relay.flush()
        for _ in range(100):
            QTest.qWait(5)
            if not self.bridge.is_busy:
                return
        pytest.fail("the bridge is busy for ever")

    def tools(self, mode: str, class_id: int = OBJECT, brush: int = 5) -> None:
        self.bridge.set_mode(mode)
        self.bridge.set_class(class_id)
        self.annotation.brush_size = brush

    def screenshot(self, name: str) -> None:
        """Keep a picture of the window in the folder that SPARSESEG_SCREENSHOTS names, if it does."""
        folder = os.environ.get("SPARSESEG_SCREENSHOTS")
        if folder and self.has_window:
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.viewer.screenshot(str(Path(folder) / f"{name}.png"), canvas_only=False, flash=False)

    def _world(self, point: Sequence[float]) -> Sequence[float]:
        """Where a voxel (of the layer) lies."""
        return (self.annotation or self.prediction).data_to_world(point)  # type: ignore[no-any-return]


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's data folder, which is the test's own: none leaves a project in the real one."""
    monkeypatch.setenv("SPARSESEG_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@cache
def installed_plugins() -> tuple[Any, ...]:
    """What napari finds of the plugins that are installed."""
    return tuple(PluginManifest.discover())


@pytest.fixture
def own_napari(monkeypatch: pytest.MonkeyPatch) -> None:
    """Napari's settings as they come, which nobody saves, and its plugins, which are not read anew for each window."""
    monkeypatch.setattr("napari.settings._SETTINGS", NapariSettings(config_path=None))
    plugins = installed_plugins()
    monkeypatch.setattr(PluginManifest, "discover", lambda *_, **_options: iter(plugins))


@pytest.fixture
def make_napari_viewer(own_napari: None, make_napari_viewer: Any) -> Any:
    """Napari's own, which neither reads nor writes the user's settings."""
    return make_napari_viewer


@pytest.fixture
def make_live() -> type[FakeLive]:
    """A live segmenter whose predictions the test makes."""
    return FakeLive


@pytest.fixture
def needs_window(request: pytest.FixtureRequest) -> bool:
    """Whether the test wants a real window, which takes seconds: by its mark `window`, or because pictures are kept."""
    return request.node.get_closest_marker("window") is not None or bool(os.environ.get("SPARSESEG_SCREENSHOTS"))


@pytest.fixture
def make_viewer(request: pytest.FixtureRequest, needs_window: bool, qtbot: Any, own_napari: None) -> Callable[[], Any]:
    """``make_viewer()``: a viewer, with a window if the test needs one."""
    if needs_window:
        make_napari_viewer = request.getfixturevalue("make_napari_viewer")
        return lambda: make_napari_viewer(show=True)

    def make() -> ViewerModel:
        viewer = ViewerModel()
        viewer.canvas.size = (600, 800)
        return viewer

    # no messages of other tests, as napari's fixture for windows does
    notification_manager.records.clear()
    return make


@pytest.fixture
def set_stage(make_viewer: Callable[[], Any]) -> Iterator[Callable[..., Stage]]:
    """``set_stage(image, live=None, **properties of the image layer)``: a viewer with our layers on an image."""
    from napari_sparseseg.widgets.bridge import LayerBridge
    from napari_sparseseg.widgets.relay import GuiRelay

    stages: list[Stage] = []

    def build(image: Any = None, *, live: Any = None, **properties: Any) -> Stage:
        viewer = make_viewer()
        image = np.zeros((12, 40, 48), np.uint8) if image is None else image
        layer = viewer.add_image(image, name="cells", **properties)
        source = source_of([layer])
        live = live or FakeLive()
        live.open(source.array, channel_axis=source.channel_axis, time_axis=source.time_axis, spacing=source.spacing)
        relay = GuiRelay(live.events)
        bridge = LayerBridge(viewer, live, relay)
        stage = Stage(viewer, live, relay, bridge, source)
        stages.append(stage)
        bridge.problem.connect(stage.problems.append)
        bridge.open(source)
        return stage

    yield build
    for stage in stages:
        stage.bridge.close()
        stage.relay.close()
    stages.clear()
