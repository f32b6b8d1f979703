"""The bridge on the real LiveSegmenter, which learns in its own thread meanwhile."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from napari_sparseseg._types import Plane
from napari_sparseseg.live.live_segmenter import LiveSegmenter

BACKGROUND, OBJECT = 1, 2


@pytest.fixture
def stage(set_stage):
    rng = np.random.default_rng(0)
    image = rng.normal(40, 4, (16, 64, 64)).astype(np.float32)
    image[:, :, 32:] += 60
    live = LiveSegmenter(device="cpu")
    stage = set_stage(image, live=live, scale=(2, 1, 1))
    yield stage
    assert live.close()
    assert not any("sparseseg" in thread.name.lower() for thread in threading.enumerate())


@pytest.mark.window
def test_paint_is_learnt_shown_corrected_and_undone(stage, qtbot):
    stage.bridge.go_to(Plane(0, 0, 8))
    stage.tools("paint", BACKGROUND, brush=5)
    stage.drag((8, 10, 26), (8, 50, 26))
    stage.tools("paint", OBJECT, brush=5)
    stage.drag((8, 10, 38), (8, 50, 38))
    qtbot.waitUntil(lambda: (stage.prediction.data[8, 12:48, 42:50] == OBJECT).mean() > 0.8, timeout=60_000)
    qtbot.waitUntil(lambda: (stage.prediction.data[8, 12:48, 14:22] == BACKGROUND).mean() > 0.8, timeout=60_000)
    stage.screenshot("learnt")
    painted = stage.live.codes.copy()
    stage.tools("correct", OBJECT, brush=5)
    stage.drag((8, 30, 16), (8, 30, 24))
    stage.live.pause()
    corrected = stage.live.codes[0][8, 30, 16:25].copy()
    assert (corrected == OBJECT).all()
    assert (stage.prediction.data[8, 30, 16:25] == OBJECT).all()
    stage.drag((8, 40, 44), (8, 40, 50))
    assert (stage.live.codes[0][8, 40, 44:51] == OBJECT).all()
    stage.prediction.mode = "erase"
    stage.drag((8, 20, 44), (8, 20, 50))
    assert (stage.live.codes[0][8, 20, 44:51] == BACKGROUND).all()  # not the object, of two classes
    for _ in range(3):
        stage.key("Z", "Control")
    np.testing.assert_array_equal(stage.live.codes, painted)
    np.testing.assert_array_equal(stage.annotation.data, stage.live.codes[0])
    stage.live.reset_model()
    stage.settle()


def test_views_are_told_and_classes_come_and_go(stage, qtbot):
    info = stage.live.add_class()
    stage.settle()
    stage.bridge.set_class(info.class_id)
    stage.bridge.go_to(Plane(0, 2, 30))
    stage.viewer.reset_view()
    stage.drag((4, 10, 30), (4, 50, 30))
    assert (stage.live.codes == info.class_id).any()
    stage.live.remove_class(info.class_id)
    stage.settle()
    assert stage.bridge.class_id == OBJECT
    assert not stage.annotation.data.any()
    stage.live.set_complete(Plane(0, 0, 3), True)
    stage.bridge.show_freshness(True)
    stage.bridge.show_probability(OBJECT)
    stage.bridge.show_uncertainty(True)
    stage.bridge.accept(everything=False)
    stage.settle()
    assert not stage.problems
