"""Strokes made with the mouse reach the store, and both layers show what the store holds."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from napari_sparseseg._types import Box, Plane
from napari_sparseseg.live.events import TileUpdate
from napari_sparseseg.storage import sparse

BACKGROUND, OBJECT, OTHER = 1, 2, 3


def assert_in_step(stage):
    """Both layers show what the store holds."""
    frames = stage.live.shape[0]
    annotation = stage.bridge._pair.axes.as_frames(stage.annotation.data)
    prediction = stage.bridge._pair.axes.as_frames(stage.prediction.data)
    for frame in range(frames):
        codes = stage.live.codes[frame]
        np.testing.assert_array_equal(annotation[frame], codes)
        pinned = (codes > 0) & (codes < 128)
        np.testing.assert_array_equal(prediction[frame][pinned], codes[pinned])
        free = codes == 0
        np.testing.assert_array_equal(prediction[frame][free], stage.live.predicted[frame][free])


def shown_on_canvas(stage, layer):
    """What the layer's texture holds, read back through a picture of it: labels cannot be read, colours can."""
    others = [other for other in stage.viewer.layers if other is not layer and other.visible]
    for other in others:
        other.visible = False
    picture = stage.viewer.screenshot(canvas_only=True, flash=False)
    layer.refresh()
    fresh = stage.viewer.screenshot(canvas_only=True, flash=False)
    for other in others:
        other.visible = True
    return picture, fresh


@pytest.mark.window
def test_strokes_land_in_the_store_where_they_are_drawn_in_each_orientation(set_stage):
    stage = set_stage(np.zeros((24, 32, 40), np.uint8))
    stage.tools("paint", OBJECT, brush=3)
    expected = np.zeros((24, 32, 40), np.uint8)
    for number, order in enumerate(permutations(range(3))):
        across, down, along = order
        stage.viewer.dims.order = order
        stage.viewer.reset_view()
        index = 4 + 3 * number
        stage.viewer.dims.set_current_step(across, index)
        start, end = np.zeros(3), np.zeros(3)
        start[across] = end[across] = index
        start[down] = end[down] = 6 + number
        start[along], end[along] = 8, 18
        stage.drag(start, end)
        painted = [slice(None)] * 3
        painted[across], painted[down], painted[along] = index, 6 + number, slice(8, 19)
        assert (stage.live.codes[0][tuple(painted)] == OBJECT).all(), order
        painted[down], painted[along] = slice(5 + number, 8 + number), slice(7, 20)
        expected[tuple(painted)] = OBJECT
        assert Plane(0, across, index) in [slice_.plane for slice_ in stage.live.painted_slices()]
    assert not np.argwhere((stage.live.codes[0] != 0) & (expected == 0)).tolist()
    assert_in_step(stage)


@pytest.mark.window
def test_eraser_fill_and_polygon_on_the_annotation(set_stage):
    stage = set_stage()
    stage.tools("paint", OBJECT, brush=5)
    stage.bridge.go_to(Plane(0, 0, 4))
    stage.drag((4, 20, 10), (4, 20, 30))
    stage.annotation.mode = "erase"
    stage.drag((4, 20, 20), (4, 20, 22))
    assert not stage.live.codes[0][4, 20, 19:23].any()
    assert stage.live.codes[0][4, 20, 12] == OBJECT
    stage.annotation.mode = "fill"
    stage.bridge.set_class(OTHER)
    stage.click((4, 20, 12))
    assert stage.live.codes[0][4, 20, 12] == OTHER
    assert stage.live.codes[0][4, 20, 28] == OBJECT
    stage.annotation.mode = "polygon"
    for corner in ((4, 30, 10), (4, 30, 20), (4, 36, 20)):
        stage.click(corner)
    stage.key("Return")
    assert stage.live.codes[0][4, 31, 18] == OTHER
    assert_in_step(stage)


@pytest.mark.window
def test_encircling_with_the_right_button_is_one_stroke(set_stage):
    stage = set_stage()
    stage.tools("paint", OBJECT, brush=3)
    stage.bridge.go_to(Plane(0, 0, 4))
    stage.click((4, 10, 10), "RightButton")
    for corner in ((4, 10, 30), (4, 30, 30), (4, 30, 10), (4, 20, 10), (4, 12, 10), (4, 10, 10)):
        stage.move(corner, "")
    assert stage.live.codes[0][4, 20, 20] == OBJECT
    stage.bridge.undo()
    assert not stage.live.codes[0].any()
    assert_in_step(stage)
    stage.click((4, 10, 10), "RightButton")
    stage.move((4, 10, 30), "")
    stage.key("Escape")
    assert not stage.live.codes[0].any()
    assert_in_step(stage)


@pytest.mark.window
def test_undo_and_redo_on_either_layer_restore_both(set_stage):
    stage = set_stage()
    stage.live.predict(OTHER)
    stage.settle()
    stage.bridge.go_to(Plane(0, 0, 4))
    stage.tools("paint", OBJECT, brush=5)
    stage.drag((4, 10, 10), (4, 10, 20))
    first = stage.live.codes.copy()
    stage.tools("correct", OBJECT, brush=5)
    stage.drag((4, 30, 10), (4, 30, 20))
    second = stage.live.codes.copy()
    assert (first != second).any()
    stage.key("Z", "Control")
    np.testing.assert_array_equal(stage.live.codes, first)
    assert_in_step(stage)
    stage.bridge.set_mode("paint")
    stage.key("Z", "Control")
    assert not stage.live.codes.any()
    assert_in_step(stage)
    assert (stage.prediction.data == OTHER).all()
    stage.key("Z", "Control", "Shift")
    stage.bridge.set_mode("correct")
    stage.key("Z", "Control", "Shift")
    np.testing.assert_array_equal(stage.live.codes, second)
    assert_in_step(stage)


def test_a_correction_is_pinned_and_survives_a_tile_that_says_otherwise(set_stage):
    stage = set_stage()
    stage.live.predict(BACKGROUND)
    stage.settle()
    stage.tools("correct", OBJECT, brush=5)
    stage.bridge.go_to(Plane(0, 0, 4))
    stage.drag((4, 10, 10), (4, 10, 20))
    assert stage.live.codes[0][4, 10, 15] == OBJECT
    assert stage.annotation.data[4, 10, 15] == OBJECT
    assert [stroke.kind.name for stroke in stage.live.store.strokes] == ["CORRECTION"]
    stage.live.predict(OTHER)
    stage.settle()
    assert stage.prediction.data[4, 10, 15] == OBJECT
    assert stage.prediction.data[4, 25, 15] == OTHER
    assert_in_step(stage)
    stage.screenshot("correction")


def test_erasing_on_the_prediction_rules_out_what_was_shown_there(set_stage):
    stage = set_stage()
    labels = np.full((12, 40, 48), BACKGROUND, np.uint8)
    labels[:, 15:, :] = OBJECT
    stage.live.predict(labels)
    stage.settle()
    stage.tools("correct", OBJECT, brush=5)
    stage.prediction.mode = "erase"
    stage.bridge.go_to(Plane(0, 0, 4))
    stage.drag((4, 10, 20), (4, 20, 20))
    codes = stage.live.codes[0]
    assert codes[4, 10, 20] == 0
    assert stage.live.allowed(int(codes[4, 18, 20])) == {BACKGROUND, OTHER}
    assert stage.prediction.data[4, 10, 20] == BACKGROUND  # nothing was said about it, so it is shown again
    assert stage.prediction.data[4, 18, 20] == 0  # until the next tile knows better
    stage.screenshot("narrowed")
    stage.live.predict(OTHER)
    stage.settle()
    assert stage.prediction.data[4, 18, 20] == OTHER
    stage.live.predict(OBJECT)
    stage.settle()
    assert stage.prediction.data[4, 18, 20] == 0
    assert stage.prediction.data[4, 30, 20] == OBJECT
    stage.key("Z", "Control")
    assert (stage.prediction.data == OBJECT).all()


def test_painting_over_a_prediction_that_is_right_confirms_it(set_stage):
    stage = set_stage()
    labels = np.full((12, 40, 48), OBJECT, np.uint8)
    labels[:, :, 24:] = BACKGROUND
    stage.live.predict(labels)
    stage.settle()
    stage.tools("correct", OBJECT, brush=5)
    stage.bridge.go_to(Plane(0, 0, 4))
    stage.drag((4, 10, 10), (4, 10, 20))
    assert [stroke.kind.name for stroke in stage.live.store.strokes] == ["CONFIRMATION"]
    confirmed = stage.live.codes[0].copy()
    stage.key("Z", "Control")
    stage.bridge.set_mode("paint")
    stage.drag((4, 10, 10), (4, 10, 20))
    np.testing.assert_array_equal(confirmed, stage.live.codes[0])  # the track is what the brush paints
    stage.key("Z", "Control")
    stage.bridge.set_mode("correct")
    stage.drag((4, 10, 18), (4, 10, 30))
    assert {stroke.kind.name for stroke in stage.live.store.strokes} == {"CONFIRMATION", "CORRECTION"}
    assert (stage.live.codes[0][4, 10, 18:31] == OBJECT).all()
    stage.key("Z", "Control")
    assert not stage.live.codes.any()
    assert_in_step(stage)


def test_tiles_that_come_out_of_order_show_what_is_known_last(set_stage):
    stage = set_stage()
    stage.bridge.go_to(Plane(0, 0, 5))
    stage.live.predict(OBJECT, Box((9, 0, 0), (10, 40, 48)))  # a preview, off the screen by the time it is drawn
    stage.live.predict(OTHER, Box((4, 0, 0), (12, 16, 16)))
    stage.settle()
    np.testing.assert_array_equal(stage.prediction.data, stage.live.predicted[0])
    assert (stage.prediction.data[9, :16, :16] == OTHER).all()


def test_what_is_forgotten_of_a_huge_image_is_not_shown_but_for_its_pins(set_stage, monkeypatch):
    monkeypatch.setattr(sparse, "LARGEST_RESERVED", 1000)
    stage = set_stage()
    stage.bridge.show_probability(OBJECT)
    stage.live.predict(OBJECT, probability=np.full((12, 40, 48), 9, np.uint8))
    stage.settle()
    stage.bridge.go_to(Plane(0, 0, 4))
    stage.tools("correct", OTHER, brush=3)
    stage.drag((4, 10, 10), (4, 10, 20))
    box = Box((0, 0, 0), (8, 40, 48))
    stage.live.predicted[0][box.slices] = 0
    nothing = np.broadcast_to(np.uint8(0), box.shape)
    stage.live.events.tile_predicted.emit(TileUpdate(0, box, nothing, 0, is_forgotten=True))
    stage.settle()
    assert_in_step(stage)
    assert set(np.unique(stage.prediction.data[:8])) == {0, OTHER}
    assert (stage.prediction.data[8:] == OBJECT).all()
    probability = stage.viewer.layers["cells probability"].data
    assert not probability[:8].any()
    assert (probability[8:] == 9).all()
    stage.drag((4, 30, 10), (4, 30, 20))
    stage.live.predict(OBJECT)
    stage.settle()
    assert_in_step(stage)
    assert stage.prediction.data[4, 30, 15] == OTHER


def test_a_stroke_in_progress_survives_tiles_that_arrive_meanwhile(set_stage):
    stage = set_stage()
    stage.live.predict(BACKGROUND)
    stage.settle()
    stage.tools("correct", OBJECT, brush=5)
    stage.bridge.go_to(Plane(0, 0, 4))
    stage.press((4, 10, 10))
    stage.move((4, 10, 15))
    for label in (OTHER, BACKGROUND, OTHER):
        stage.live.predict(label)
        stage.settle()
        assert stage.prediction.data[4, 10, 15] == OBJECT
        assert stage.prediction.data[4, 30, 15] == label
        assert not stage.live.codes.any()
    stage.move((4, 10, 20))
    stage.release((4, 10, 20))
    assert (stage.live.codes[0][4, 10, 10:21] == OBJECT).all()
    assert_in_step(stage)
    stage.key("Z", "Control")
    assert (stage.prediction.data == OTHER).all()


@pytest.mark.window
@pytest.mark.parametrize("ndisplay", [2, 3])
def test_tiles_are_drawn_as_a_full_refresh_would_draw_them(set_stage, ndisplay):
    rng = np.random.default_rng(0)
    stage = set_stage(np.zeros((12, 16, 20), np.uint8), scale=(2, 1, 1.5), translate=(5, -3, 7))
    stage.tools("correct")
    stage.viewer.dims.ndisplay = ndisplay
    orders = list(permutations(range(3)))
    for order in orders if ndisplay == 2 else orders[::3]:
        stage.viewer.dims.order = order
        stage.viewer.reset_view()
        for axis in range(3):
            stage.viewer.dims.set_current_step(axis, 6)
        stage.live.predict(rng.integers(0, 4, (12, 16, 20)))
        box = Box((4, 4, 4), (8, 12, 12))
        stage.live.predict(rng.integers(0, 4, box.shape), box)
        stage.settle()
        picture, fresh = shown_on_canvas(stage, stage.prediction)
        np.testing.assert_array_equal(picture, fresh, err_msg=str(order))
    stage.prediction.contour = 1 if ndisplay == 2 else 0
    stage.live.predict(OBJECT, Box((0, 3, 3), (12, 12, 12)))
    stage.settle()
    picture, fresh = shown_on_canvas(stage, stage.prediction)
    np.testing.assert_array_equal(picture, fresh)
    stage.screenshot(f"display{ndisplay}")


def test_scripts_may_paint_as_well(set_stage):
    stage = set_stage()
    stage.live.predict(OBJECT)
    stage.settle()
    stage.bridge.go_to(Plane(0, 0, 4))
    annotation, prediction = stage.annotation, stage.prediction
    annotation.brush_size = 3
    annotation.paint((4, 10, 10), OTHER)
    assert stage.live.codes[0][4, 10, 10] == OTHER
    annotation.data_setitem((np.array([4, 4]), np.array([20, 20]), np.array([3, 4])), np.array([OBJECT, OTHER]))
    assert stage.live.codes[0][4, 20, 3:5].tolist() == [OBJECT, OTHER]
    annotation.data[4, 30, 5:9] = OTHER
    annotation.refresh()
    assert (stage.live.codes[0][4, 30, 5:9] == OTHER).all()
    prediction.paint((4, 10, 30), 0)
    stage.settle()
    assert stage.live.allowed(int(stage.live.codes[0][4, 10, 30])) == {BACKGROUND, OTHER}
    assert stage.prediction.data[4, 10, 30] == 0
    prediction.data[8, 3, 3] = OTHER  # not on screen: found when the next tile comes
    stage.live.predict(BACKGROUND)
    stage.settle()
    assert stage.live.codes[0][8, 3, 3] == OTHER
    annotation.paint((4, 35, 35), 77)
    stage.settle()
    assert len(stage.problems) == 1
    assert stage.annotation.data[4, 35, 35] == 0
    assert_in_step(stage)


def test_data_that_is_replaced_is_taken_as_paint(set_stage):
    stage = set_stage()
    stage.live.predict(OTHER)
    stage.settle()
    mine = stage.annotation.data
    painted = np.zeros(mine.shape, np.int64)
    painted[3, 5:9, 5:9] = OBJECT
    painted[7, 5:9, 5:9] = OTHER
    stage.annotation.data = painted
    np.testing.assert_array_equal(stage.live.codes[0], painted)
    assert stage.annotation.data is mine
    stage.bridge.undo()
    assert not stage.live.codes.any()
    labels = np.full(mine.shape, OTHER, np.int32)
    labels[2, 2:5] = OBJECT
    stage.prediction.data = labels
    assert (stage.live.codes[0][2, 2:5] == OBJECT).all()
    assert stage.live.codes.astype(bool).sum() == labels[2, 2:5].size
    stage.annotation.data = np.zeros((3, 4, 5), np.uint8)
    stage.annotation.data = np.full(mine.shape, 999)
    stage.annotation.data = np.full(mine.shape, 99, np.uint8)
    assert len(stage.problems) == 3, stage.problems
    assert_in_step(stage)
