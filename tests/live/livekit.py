"""Small images, paint and listeners that the tests of the live loop share."""

from __future__ import annotations

import threading

import numpy as np

from napari_sparseseg._types import Box, Plane, Region
from napari_sparseseg.config import ModelConfig, TrainingConfig
from napari_sparseseg.live.events import LiveState, View

SHAPE = (12, 40, 40)
SMALL = ModelConfig(width=4, depth=2, scales=(1.0, 2.0, 4.0), head_width=32)
QUICK = TrainingConfig(warm_start_steps=20, patch_voxels=2048, check_every=5)
PATIENCE = 60  # seconds; only a test that fails waits so long
BACKGROUND_BOX = Box((6, 2, 2), (7, 6, 38))
OBJECT_BOX = Box((6, 14, 14), (7, 26, 26))


def make_truth(shape=SHAPE):
    """A cuboid of class 2 in class 1."""
    truth = np.ones(shape, np.uint8)
    truth[tuple(slice(n // 4, n - n // 4) if n > 1 else slice(None) for n in shape)] = 2
    return truth


def make_image(truth, seed=0, contrast=3.0):
    noise = np.random.default_rng(seed).standard_normal(truth.shape)
    return (contrast * truth + noise).astype(np.float32)


def view_of(shape=SHAPE, axis=0, index=None, frame=0):
    plane = Plane(frame, axis, shape[axis] // 2 if index is None else index)
    box = plane.box(shape)
    return View(plane, box, tuple((a + b - 1) / 2 for a, b in zip(box.start, box.stop, strict=True)))


class Listener:
    """Remembers all that a `LiveSegmenter` tells, and waits for what it has not told yet."""

    def __init__(self, live):
        self.live = live
        self._changed = threading.Condition()
        self.statuses, self.tiles, self.points, self.failures, self.paint = [], [], [], [], []
        self.classes, self.frames, self.log = [], [], []
        events = live.events
        for signal, heard in (
            (events.status_changed, self.statuses),
            (events.tile_predicted, self.tiles),
            (events.curve_extended, self.points),
            (events.failed, self.failures),
            (events.paint_changed, self.paint),
            (events.classes_changed, self.classes),
            (events.freshness_changed, self.frames),
        ):
            signal.connect(self._collector(signal.name, heard))
        events.predictions_cleared.connect(lambda: self._hear("predictions_cleared", [], None))

    def _collector(self, name, heard):
        return lambda value: self._hear(name, heard, value)

    def _hear(self, name, heard, value):
        with self._changed:
            heard.append(value)
            self.log.append((name, value, threading.current_thread().name))
            self._changed.notify_all()

    def wait_until(self, condition, what=""):
        with self._changed:
            is_met = self._changed.wait_for(condition, PATIENCE)
        assert is_met, f"waited in vain {what}; the status is {self.live.status}"

    def wait_for_state(self, *states):
        self.wait_until(lambda: self.live.status.state in states, f"for {states}")

    def wait_for_step(self, n=1):
        first = self.live.status.step
        self.wait_until(lambda: self.live.status.step >= first + n, f"for {n} steps")

    def wait_for_tiles(self, n=1):
        first = len(self.tiles)
        self.wait_until(lambda: len(self.tiles) >= first + n, f"for {n} tiles")


def paint_background(live, frame=0):
    live.annotate(Region(frame, BACKGROUND_BOX), 1, plane=Plane(frame, 0, 6))


def paint_object(live, frame=0):
    live.annotate(Region(frame, OBJECT_BOX), 2, plane=Plane(frame, 0, 6))


def paint_both(live, frame=0):
    paint_background(live, frame)
    paint_object(live, frame)


def rest(live):
    """Pause and wait until nothing is left to do."""
    live.pause()
    live.heard.wait_for_state(LiveState.UP_TO_DATE)


def found_anew(live, box):
    """Ids of the objects in a box, after they were looked for again."""
    found = []
    live.events.objects_changed.connect(lambda change: live.heard._hear("objects", found, change))
    live.found.find_all()
    live.heard.wait_until(lambda: found, "for objects")
    return live.found.ids(0, box)
