"""A layer for each of the classes that overlap, painted on by mouse while the network learns."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sparseseg._types import Box, Plane, Region
from napari_sparseseg.config import ModelConfig, PaintConfig, TrainingConfig
from napari_sparseseg.live.live_segmenter import LiveSegmenter

BACKGROUND, OUTER, INNER = 1, 2, 3
SHAPE = (8, 64, 64)


@pytest.fixture
def stage(set_stage):
    y, x = np.indices(SHAPE)[1:]
    distance = np.hypot(y - 32, x - 32)
    image = 60.0 * (distance < 24) + 60.0 * (distance < 11) + np.random.default_rng(0).normal(40, 8, SHAPE)
    live = LiveSegmenter(
        device="cpu",
        model=ModelConfig(width=4, depth=2, scales=(1.0, 2.0, 4.0), head_width=32),
        training=TrainingConfig(warm_start_steps=60, patch_voxels=4096, check_every=5),
        paint=PaintConfig(overlapping=True),
    )
    live.rename_class(OUTER, "cell")
    live.add_class("nucleus")
    stage = set_stage(image.astype(np.float32), live=live)
    stage.bridge.go_to(Plane(0, 0, 4))
    yield stage
    live.close()  # may take more than the second that it waits, on a busy machine


def layer_of(stage, class_id):
    return stage.bridge._extras.of_classes.layer_of(class_id)


def take(stage, class_id, mode):
    layer = layer_of(stage, class_id)
    stage.viewer.layers.selection.active = layer
    layer.mode, layer.brush_size = mode, 5


def voxel(stage, class_id, point):
    return int(layer_of(stage, class_id).data[point])


@pytest.mark.window
def test_brush_says_present_and_eraser_absent_and_the_other_class_stays(stage):
    stage.live.auto_start = False
    stage.bridge.show_class_layers(True)
    take(stage, OUTER, "paint")
    stage.drag((4, 20, 32), (4, 44, 32))
    take(stage, INNER, "paint")
    stage.drag((4, 28, 32), (4, 36, 32))
    assert voxel(stage, OUTER, (4, 32, 32)) == OUTER
    assert voxel(stage, INNER, (4, 32, 32)) == INNER
    take(stage, INNER, "erase")
    stage.drag((4, 36, 30), (4, 36, 34))
    stage.drag((4, 50, 50), (4, 50, 56))  # where nothing is shown it says the same
    for point in ((4, 36, 32), (4, 50, 52)):
        said = stage.live._store.meanings([int(stage.live.codes[0][point])], (1, 2, 3), BACKGROUND)
        assert INNER in next(iter(said.values())).absent
    assert voxel(stage, OUTER, (4, 36, 32)) == OUTER
    assert voxel(stage, INNER, (4, 36, 32)) == 0
    for _ in range(4):
        stage.key("Z", "Control")
    assert not stage.live.codes.any()
    assert voxel(stage, OUTER, (4, 32, 32)) == 0
    np.testing.assert_array_equal(stage.annotation.data, stage.live.codes[0])


def test_the_layers_show_where_the_network_finds_both(stage, qtbot):
    stage.bridge.show_class_layers(True)
    stage.bridge.set_mode("paint")
    stage.tools("paint", BACKGROUND, brush=5)
    stage.drag((4, 4, 4), (4, 4, 60))
    stage.tools("paint", OUTER, brush=5)
    stage.drag((4, 14, 32), (4, 50, 32))
    stage.drag((4, 32, 14), (4, 32, 50))
    stage.tools("paint", INNER, brush=5)
    stage.drag((4, 28, 32), (4, 36, 32))
    take(stage, INNER, "erase")
    stage.drag((4, 14, 28), (4, 14, 36))
    stage.drag((4, 32, 12), (4, 32, 18))
    qtbot.waitUntil(
        lambda: (
            (layer_of(stage, OUTER).data[4, 28:36, 22:42] == OUTER).mean() > 0.9
            and (layer_of(stage, INNER).data[4, 28:36, 28:36] == INNER).mean() > 0.9
            and (layer_of(stage, INNER).data[4, 12:16, 40:44] == 0).all()
        ),
        timeout=60_000,
    )
    stage.live.pause()
    stage.settle()
    assert set(np.unique(stage.prediction.data[4]).tolist()) <= {BACKGROUND, OUTER, INNER}
    stage.screenshot("overlapping")


def test_layers_follow_the_classes_and_go_when_they_are_switched_off(stage):
    stage.live.auto_start = False
    before = list(stage.viewer.layers)
    active = stage.viewer.layers.selection.active
    stage.bridge.show_class_layers(True)
    assert stage.viewer.layers.selection.active is active
    info = stage.live.add_class("nucleolus")
    stage.settle()
    assert layer_of(stage, info.class_id).name.endswith("nucleolus")
    assert layer_of(stage, BACKGROUND) is None
    stage.live.remove_class(info.class_id)
    stage.settle()
    assert layer_of(stage, info.class_id) is None
    stage.bridge.show_class_layers(False)
    assert list(stage.viewer.layers) == before
    assert not stage.live._switch.wishes.presence_of


def test_where_classes_overlap_no_longer_the_layers_take_classes(stage):
    stage.live.auto_start = False
    stage.bridge.show_class_layers(True)
    stage.live.configure(paint=PaintConfig(overlapping=False))
    for class_id in (OUTER, INNER):
        take(stage, class_id, "paint")
        stage.drag((4, 20, 32), (4, 44, 32))
        assert set(np.unique(stage.live.codes).tolist()) == {0, class_id}
    take(stage, INNER, "erase")
    stage.drag((4, 20, 32), (4, 44, 32))
    assert not stage.live.codes.any()


def test_what_the_user_removes_is_not_kept(stage):
    stage.live.auto_start = False
    removed = []
    stage.bridge.extra_removed.connect(removed.append)
    stage.bridge.show_class_layers(True)
    stage.viewer.layers.remove(layer_of(stage, OUTER))
    assert stage.live._switch.wishes.presence_of == {INNER}
    assert not removed
    stage.viewer.layers.remove(layer_of(stage, INNER))
    assert removed == ["class_layers"]
    stage.live.annotate(Region(0, Box((4, 0, 0), (5, 4, 4))), OUTER)
    stage.settle()


def test_an_array_that_is_assigned_is_refused(stage):
    stage.live.auto_start = False
    stage.bridge.show_class_layers(True)
    layer_of(stage, OUTER).data = np.full(SHAPE, OUTER, np.uint8)
    assert any("keeps its voxels" in problem for problem in stage.problems)
    assert not layer_of(stage, OUTER).data.any()


def test_the_viewer_is_not_empty_while_another_class_gets_the_layer_of_the_last_one(stage):
    stage.live.remove_class(INNER)
    stage.settle()
    stage.bridge.show_class_layers(True)
    for layer in [layer for layer in stage.viewer.layers if layer is not layer_of(stage, OUTER)]:
        stage.viewer.layers.remove(layer)
    n_left = []
    stage.viewer.layers.events.removed.connect(lambda: n_left.append(len(stage.viewer.layers)))
    stage.live.set_background(OUTER)
    stage.settle()
    assert n_left == [1]  # napari may crash where a layer is added to a viewer without any
    assert list(stage.viewer.layers) == [layer_of(stage, BACKGROUND)]
