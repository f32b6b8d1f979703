"""Layers, images and viewers come and go; nothing falls over, and no paint is lost."""

from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Labels
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_sparseseg._types import Box, Plane
from napari_sparseseg.errors import InputError
from napari_sparseseg.live.events import SuggestedSlice, Suggestion, SuggestionState
from napari_sparseseg.storage.formats import write_labels
from napari_sparseseg.widgets.bridge import LayerBridge
from napari_sparseseg.widgets.layers import SharedHistoryLabels
from napari_sparseseg.widgets.relay import GuiRelay
from napari_sparseseg.widgets.sources import source_of

BACKGROUND, OBJECT, OTHER = 1, 2, 3


def names(stage):
    return [layer.name for layer in stage.viewer.layers]


def test_the_layers_lie_on_the_image_the_annotation_on_top(set_stage):
    stage = set_stage(np.zeros((12, 40, 48), np.uint8), scale=(4, 1, 1), translate=(8, -5, 3), units="um")
    assert names(stage) == ["cells", "cells prediction", "cells annotation"]
    for layer in (stage.annotation, stage.prediction):
        assert layer.scale.tolist() == [4, 1, 1]
        assert layer.translate.tolist() == [8, -5, 3]
        assert layer.units == stage.viewer.layers["cells"].units
        assert layer.data.shape == (12, 40, 48)
        assert layer.data.dtype == np.uint8
    assert stage.viewer.layers.selection.active is stage.annotation
    assert stage.annotation.mode == "paint"
    assert stage.bridge.class_id == OBJECT


@pytest.mark.window
def test_a_removed_layer_comes_back_with_all_its_paint(set_stage, qtbot):
    stage = set_stage()
    stage.live.predict(OTHER)
    stage.settle()
    lost = []
    stage.bridge.layers_lost.connect(lost.append)
    stage.bridge.go_to(Plane(0, 0, 4))
    stage.tools("paint", OBJECT)
    stage.drag((4, 10, 10), (4, 10, 20))
    codes = stage.live.codes.copy()
    stage.viewer.layers.remove(stage.annotation)
    qtbot.waitUntil(lambda: len(lost) == 1)
    assert "annotation" in lost[0]
    assert stage.annotation is None
    stage.live.predict(BACKGROUND)
    stage.settle()
    np.testing.assert_array_equal(stage.live.codes, codes)
    stage.viewer.layers.remove(stage.prediction)
    qtbot.waitUntil(lambda: len(lost) == 2)
    stage.live.predict(OBJECT)
    stage.settle()
    assert stage.bridge.current_plane() is None
    stage.bridge.set_mode("correct")
    assert names(stage) == ["cells", "cells prediction", "cells annotation"]
    np.testing.assert_array_equal(stage.annotation.data, codes[0])
    assert (stage.prediction.data == OBJECT).all()
    assert stage.viewer.layers.selection.active is stage.prediction
    stage.drag((4, 30, 10), (4, 30, 20))
    assert (stage.live.codes != codes).any()
    stage.viewer.layers.remove(stage.prediction)
    stage.bridge.set_mode("paint")
    assert names(stage) == ["cells", "cells prediction", "cells annotation"]
    stage.key("Z", "Control")
    np.testing.assert_array_equal(stage.live.codes, codes)


def test_layers_may_be_renamed_hidden_reordered_and_lose_their_image(set_stage):
    stage = set_stage()
    stage.tools("correct", OBJECT)
    stage.bridge.go_to(Plane(0, 0, 4))
    stage.annotation.name = "mine"
    stage.viewer.layers.remove("cells")
    stage.viewer.layers.reverse()
    stage.prediction.visible = False
    stage.live.predict(OTHER)
    stage.settle()
    stage.prediction.visible = True
    stage.drag((4, 10, 10), (4, 10, 20))
    assert stage.live.codes[0][4, 10, 15] == OBJECT
    stage.viewer.layers.remove("mine")
    stage.bridge.restore_layers()
    assert "mine" in names(stage)
    assert stage.prediction.data[4, 30, 15] == OTHER


def test_what_lies_on_top_of_our_layers_stays_there(set_stage):
    stage = set_stage()
    stage.viewer.add_points(np.zeros((1, 3)), name="seeds")
    for mode in ("correct", "paint"):
        stage.bridge.set_mode(mode)
        assert names(stage) == ["cells", "cells prediction", "cells annotation", "seeds"]


def test_the_brush_stays_as_large_as_it_was(set_stage, qtbot):
    stage = set_stage()
    resized = []
    stage.bridge.brush_resized.connect(resized.append)
    stage.prediction.brush_size = 17
    assert resized == [17]
    stage.viewer.layers.remove(stage.annotation)
    stage.bridge.set_mode("paint")
    assert stage.annotation.brush_size == stage.prediction.brush_size == 17
    left = stage.annotation
    stage.live.open(np.zeros((12, 40, 48), np.uint8))
    stage.bridge.open(stage.source)
    assert stage.annotation.brush_size == stage.prediction.brush_size == stage.bridge.brush_size == 17
    left.brush_size = 3  # an ordinary layer by now
    assert stage.bridge.brush_size == 17
    stage.bridge.set_brush(4)
    assert stage.annotation.brush_size == stage.prediction.brush_size == 4
    assert resized == [17, 4]


def test_a_layer_that_another_one_takes_the_place_of_is_lost(make_live, qtbot):
    viewer = ViewerModel()  # napari's window cannot do that
    source = source_of([viewer.add_image(np.zeros((12, 40, 48), np.uint8), name="cells")])
    live = make_live()
    live.open(source.array)
    relay = GuiRelay(live.events)
    bridge = LayerBridge(viewer, live, relay)
    bridge.open(source)
    with qtbot.waitSignal(bridge.layers_lost):
        viewer.layers[1] = Labels(np.zeros((12, 40, 48), np.uint8), name="intruder")
    assert bridge.prediction_layer is None
    assert bridge.annotation_layer is not None
    live.predict(OTHER)
    relay.flush()
    qtbot.waitUntil(lambda: not bridge.is_busy)
    bridge.set_mode("correct")
    assert (bridge.prediction_layer.data == OTHER).all()
    bridge.close()
    relay.close()


def test_a_layer_that_is_removed_in_the_middle_of_a_stroke_leaves_nothing_half_painted(set_stage):
    stage = set_stage()
    stage.tools("correct", OBJECT)
    stage.bridge.go_to(Plane(0, 0, 4))
    stage.press((4, 10, 10))
    stage.move((4, 10, 20))
    stage.viewer.layers.remove(stage.prediction)
    stage.release((4, 10, 20))
    stage.bridge.set_mode("correct")
    assert not stage.prediction.data.any()
    assert not stage.live.codes.any()


def test_mode_and_class_follow_the_user(set_stage):
    stage = set_stage()
    modes, classes = [], []
    stage.bridge.mode_changed.connect(modes.append)
    stage.bridge.class_changed.connect(classes.append)
    stage.viewer.layers.selection.active = stage.prediction
    assert stage.bridge.mode == "correct"
    stage.viewer.layers.selection.active = stage.viewer.layers["cells"]
    assert stage.bridge.mode == "correct"
    stage.bridge.set_mode("paint")
    assert modes == ["correct", "paint"]
    stage.annotation.selected_label = OTHER
    assert stage.prediction.selected_label == OTHER
    stage.prediction.selected_label = 9
    assert stage.prediction.selected_label == stage.annotation.selected_label == OTHER
    assert classes == [OTHER]
    assert len(stage.problems) == 1
    stage.prediction.brush_size = 17
    assert stage.annotation.brush_size == 17
    stage.live.classes = stage.live.classes[:2]
    stage.live.events.classes_changed.emit(stage.live.classes)
    stage.settle()
    assert stage.bridge.class_id == OBJECT
    stage.annotation.selected_label = 0  # the eraser by key X
    stage.bridge.set_mode("correct")
    assert stage.prediction.selected_label == stage.annotation.selected_label == OBJECT


def test_time_series(set_stage):
    stage = set_stage(np.zeros((3, 6, 40, 48), np.uint8), axis_labels=("t", "z", "y", "x"), scale=(1, 2, 1, 1))
    stage.tools("paint", OBJECT, brush=3)
    stage.bridge.go_to(Plane(2, 0, 4))
    assert stage.bridge.current_plane() == Plane(2, 0, 4)
    stage.drag((2, 4, 10, 10), (2, 4, 10, 20))
    assert stage.live.codes[2][4, 10, 15] == OBJECT
    assert not stage.live.codes[:2].any()
    stage.live.predict(OTHER, frame=1)
    stage.settle()
    assert (stage.prediction.data[1] == OTHER).all()
    assert not stage.prediction.data[0].any()
    stage.bridge.set_mode("correct")
    stage.bridge.go_to(Plane(1, 1, 20))
    stage.viewer.reset_view()
    assert stage.bridge.current_plane() == Plane(1, 1, 20)
    stage.drag((1, 2, 20, 10), (1, 2, 20, 20))
    assert stage.live.codes[1][2, 20, 15] == OBJECT
    assert [painted.plane for painted in stage.live.painted_slices()] == [Plane(1, 1, 20), Plane(2, 0, 4)]
    stage.viewer.dims.order = (1, 2, 0, 3)  # time is on screen
    stage.viewer.reset_view()
    stage.tools("paint", OTHER, brush=3)
    stage.drag((0, 4, 20, 30), (2, 4, 20, 30))
    assert (stage.live.codes[:, 4, 20, 30] == OTHER).all()
    np.testing.assert_array_equal(stage.annotation.data, stage.live.codes)


def test_2d_image_and_channels(set_stage):
    stage = set_stage(np.zeros((40, 48), np.uint8))
    stage.tools("paint", OBJECT)
    stage.drag((10, 10), (10, 20))
    assert stage.live.codes[0][0, 10, 15] == OBJECT
    assert stage.bridge.current_plane() == Plane(0, 0, 0)
    stage.live.predict(OTHER)
    stage.settle()
    assert stage.prediction.data[30, 30] == OTHER
    assert stage.prediction.data[10, 15] == OBJECT
    stage.bridge.accept(everything=True)
    assert stage.viewer.layers["cells labels"].data.shape == (40, 48)


def test_brush_on_stretched_voxels_confirms_what_it_paints(set_stage):
    stage = set_stage(np.zeros((16, 40, 48), np.uint8), scale=(4, 1, 1))
    stage.live.predict(OBJECT)
    stage.settle()
    stage.tools("correct", OBJECT, brush=9)
    stage.bridge.go_to(Plane(0, 1, 20))
    stage.viewer.reset_view()
    stage.click((8, 20, 20))
    confirmed = stage.live.codes[0].copy()
    assert confirmed.any()
    stage.bridge.undo()
    stage.bridge.set_mode("paint")
    stage.click((8, 20, 20))
    np.testing.assert_array_equal(confirmed, stage.live.codes[0])


@pytest.mark.window
def test_a_view_in_3d_shows_tiles_and_takes_corrections(set_stage):
    stage = set_stage(np.zeros((12, 16, 20), np.uint8))
    stage.viewer.dims.ndisplay = 3
    labels = np.full((12, 16, 20), BACKGROUND, np.uint8)
    labels[3:9, 4:12, 5:15] = OBJECT
    stage.live.predict(labels)
    stage.settle()
    stage.tools("correct", OTHER, brush=5)
    stage.screenshot("volume")
    QTest.qWait(1)
    for action in (QTest.mousePress, QTest.mouseRelease):
        action(stage.canvas, Qt.MouseButton.LeftButton, pos=stage.canvas.rect().center())
    assert (stage.live.codes == OTHER).any()
    assert not stage.problems
    np.testing.assert_array_equal(stage.annotation.data, stage.live.codes[0])


@pytest.mark.window
def test_async_slicing(set_stage, qtbot):
    from napari.settings import get_settings

    settings = get_settings().experimental
    settings.async_ = True
    try:
        stage = set_stage()
        stage.tools("correct", OBJECT)
        stage.bridge.go_to(Plane(0, 0, 4))
        stage.live.predict(OTHER)
        stage.settle()
        qtbot.waitUntil(lambda: stage.prediction.loaded)
        stage.drag((4, 10, 10), (4, 10, 20))
        assert stage.live.codes[0][4, 10, 15] == OBJECT
        before = stage.viewer.screenshot(canvas_only=True, flash=False)
        stage.prediction.refresh()
        qtbot.waitUntil(lambda: stage.prediction.loaded)
        np.testing.assert_array_equal(before, stage.viewer.screenshot(canvas_only=True, flash=False))
    finally:
        settings.async_ = False


def test_accepting_copies_into_ordinary_layers(set_stage):
    stage = set_stage()
    stage.live.predict(OTHER)
    stage.settle()
    stage.bridge.go_to(Plane(0, 0, 4))
    layer = stage.bridge.accept(everything=False)
    assert type(layer) is Labels
    assert stage.viewer.layers.selection.active is stage.annotation
    assert (layer.data[4] == OTHER).all()
    assert not np.delete(layer.data, 4, axis=0).any()
    stage.bridge.go_to(Plane(0, 2, 7))
    assert stage.bridge.accept(everything=False) is layer
    assert (layer.data[:, :, 7] == OTHER).all()
    layer.undo()
    assert not layer.data[0, :, 7].any()
    everything = stage.bridge.accept(everything=True)
    assert everything is not layer
    assert (everything.data == OTHER).all()
    assert not stage.live.codes.any()
    everything.data[...] = 0
    assert (stage.prediction.data == OTHER).all()


def test_accepted_slices_gather_in_their_own_layer_whatever_it_is_called(set_stage):
    stage = set_stage()
    stage.live.predict(OTHER)
    stage.settle()
    stage.bridge.go_to(Plane(0, 0, 4))
    users = stage.viewer.add_labels(np.zeros((12, 40, 48), np.uint8), name="cells labels")
    layer = stage.bridge.accept(everything=False)
    everything = stage.bridge.accept(everything=True)
    layer.name = "mine"
    stage.bridge.go_to(Plane(0, 1, 7))
    assert stage.bridge.accept(everything=False) is layer
    assert not users.data.any()
    assert everything is not layer
    assert (layer.data[:, 7] == OTHER).all()
    assert (layer.data != 0).sum() == 40 * 48 + 12 * 48 - 48


def test_slices_of_a_time_series_are_accepted_at_their_time(set_stage):
    stage = set_stage(np.zeros((3, 6, 40, 48), np.uint8), axis_labels=("t", "z", "y", "x"))
    layer = None
    for frame in (0, 2):
        stage.live.predict(OTHER, frame=frame)
        stage.settle()
        stage.bridge.go_to(Plane(frame, 2, 7))
        layer = stage.bridge.accept(everything=False)
    assert (layer.data[[0, 2], :, :, 7] == OTHER).all()
    assert (layer.data != 0).sum() == 2 * 6 * 40


def test_extras_are_there_while_they_are_wanted(set_stage, qtbot):
    stage = set_stage(np.zeros((18, 40, 40), np.uint8))
    removed = []
    stage.bridge.extra_removed.connect(removed.append)
    extent = stage.viewer.dims.range
    stage.live.states[0] = np.zeros((5, 3, 3), np.uint8)
    stage.live.states[0][1] = 2
    stage.bridge.show_freshness(True)
    stage.bridge.show_probability(OBJECT)
    stage.bridge.show_uncertainty(True)
    assert stage.viewer.dims.range == extent
    assert stage.viewer.layers.selection.active is stage.annotation
    assert stage.live.probability_of == OBJECT
    fresh = stage.viewer.layers["cells freshness"]
    assert not fresh.editable
    whole = np.asarray(fresh.data)
    assert set(np.unique(whole[4:8])) == {2}
    assert not whole[:4].any()
    assert not whole[8:].any()
    box = Box((0, 0, 0), (4, 16, 16))
    values = np.full(box.shape, 200, np.uint8)
    stage.live.predict(OBJECT, box, probability=values, uncertainty=values // 2)
    stage.live.events.freshness_changed.emit(0)
    stage.settle()
    assert stage.viewer.layers["cells probability"].data[3, 15, 15] == 200
    assert stage.viewer.layers["cells uncertainty"].data[0, 0, 0] == 100
    stage.bridge.go_to(Plane(0, 0, 2))
    stage.screenshot("extras")
    stage.viewer.layers.remove("cells uncertainty")
    assert removed == ["uncertainty"]
    assert not stage.live.wants_uncertainty
    stage.live.events.predictions_cleared.emit()
    stage.settle()
    assert not stage.viewer.layers["cells probability"].data.any()
    stage.bridge.show_freshness(False)
    stage.bridge.show_probability(None)
    assert names(stage) == ["cells", "cells prediction", "cells annotation"]
    assert stage.live.probability_of is None


def test_ambiguity_and_novelty_are_there_while_they_are_wanted(set_stage):
    stage = set_stage(np.zeros((18, 40, 40), np.uint8))
    removed = []
    stage.bridge.extra_removed.connect(removed.append)
    stage.bridge.show_ambiguity(True)
    stage.bridge.show_novelty(True)
    assert stage.live.wants_candidates
    assert stage.live.wants_novelty
    assert names(stage)[-1] == "cells ambiguity"
    assert stage.viewer.layers.selection.active is stage.annotation
    layer = stage.viewer.layers["cells ambiguity"]
    assert not layer.editable
    box = Box((0, 0, 0), (4, 16, 16))
    second = np.zeros(box.shape, np.uint8)
    second[:, :8] = BACKGROUND
    stage.live.predict(OBJECT, box, second=second, novelty=second * 100)
    stage.settle()
    assert layer.data[0, 3, 3] == BACKGROUND
    assert stage.viewer.layers["cells novelty"].data[0, 3, 3] == 100
    np.testing.assert_allclose(layer.colormap.map(BACKGROUND)[:3], stage.live.classes[0].color, atol=0.01)
    stage.live.events.predictions_cleared.emit()
    stage.settle()
    assert not layer.data.any()
    stage.viewer.layers.remove("cells ambiguity")
    stage.viewer.layers.remove("cells novelty")
    assert removed == ["ambiguity", "novelty"]
    assert not stage.live.wants_candidates
    assert not stage.live.wants_novelty


def test_the_status_names_the_class_under_the_cursor_and_what_else_it_may_be(set_stage):
    stage = set_stage(np.zeros((18, 40, 40), np.uint8))
    viewer = stage.viewer
    box = Box((0, 0, 0), (4, 16, 16))
    second = np.zeros(box.shape, np.uint8)
    second[:, :8] = BACKGROUND
    viewer.layers.selection = {stage.prediction}
    viewer.mouse_over_canvas = True  # wherever the pointer of the screen is
    stage.bridge.go_to(Plane(0, 0, 2))

    def said(y, layer=stage.prediction):
        viewer.layers.selection = {layer}
        viewer.cursor.position = layer.data_to_world((2, y, 5))
        viewer.update_status_from_cursor()
        return viewer.status["coordinates"]

    stage.live.predict(OBJECT, box)
    stage.settle()
    assert said(3).endswith(f"{OBJECT} object")
    assert said(30).endswith("0")  # nothing is predicted there
    stage.bridge.show_ambiguity(True)
    stage.live.predict(OBJECT, box, second=second)
    stage.settle()
    assert said(3).endswith(" object or background")
    assert said(12).endswith(" object")
    assert said(3, viewer.layers["cells ambiguity"]).endswith(" object or background")
    assert not said(3, viewer.layers["cells"]).endswith("background")
    stage.bridge.show_ambiguity(False)
    assert said(3).endswith(" object")
    viewer.cursor.position = (99, 99, 99)
    viewer.update_status_from_cursor()
    viewer.dims.ndisplay = 3
    viewer.update_status_from_cursor()


def test_another_image_leaves_painted_layers_as_ordinary_ones(set_stage):
    stage = set_stage()
    stage.tools("paint", OBJECT)
    stage.bridge.go_to(Plane(0, 0, 4))
    stage.drag((4, 10, 10), (4, 10, 20))
    painted = stage.annotation
    other = stage.viewer.add_image(np.zeros((8, 30, 30), np.uint8), name="others")
    source = source_of([other])
    with pytest.raises(InputError, match="shape"):
        stage.bridge.open(source)
    stage.bridge.close()
    stage.bridge.close()
    stage.live.open(source.array)
    stage.bridge.open(source)
    assert stage.annotation.name == "others annotation"
    assert painted in stage.viewer.layers
    assert painted.data.any()
    assert painted.history is None
    painted.paint((4, 30, 30), OTHER)
    painted.undo()
    assert not stage.live.codes.any()
    stage.live.predict(OTHER)
    stage.settle()
    assert (stage.prediction.data == OTHER).all()


@pytest.mark.window
def test_the_layers_of_an_image_before_are_hidden_and_take_no_paint(set_stage):
    stage = set_stage(np.zeros((12, 40, 48), np.uint8))
    stage.tools("paint", OBJECT)
    stage.bridge.go_to(Plane(0, 0, 4))
    stage.drag((4, 10, 10), (4, 10, 20))
    ids = np.zeros((12, 40, 48), np.uint32)
    ids[4, 10:20, 10:20] = 1
    stage.live.find(ids)
    stage.live.predict(OTHER)
    stage.settle()
    before = [stage.annotation, stage.prediction, stage.viewer.layers["cells objects"]]
    source = source_of([stage.viewer.add_image(np.zeros((8, 30, 30), np.uint8), name="others")])
    stage.live.open(source.array)
    stage.bridge.open(source)
    shown = [layer.name for layer in stage.viewer.layers if layer.visible]
    assert shown == ["cells", "others", "others prediction", "others annotation"]
    painted = before[0].data.copy()
    for layer in before:
        layer.visible = True
        stage.viewer.layers.selection.active = layer
        stage.key("2")  # napari's key of the brush, on a layer like any other
        assert layer.mode == "pan_zoom"
    stage.viewer.layers.selection.active = before[0]
    stage.drag((4, 20, 10), (4, 20, 20))
    np.testing.assert_array_equal(before[0].data, painted)
    stage.screenshot("put-aside")
    assert stage.annotation.editable
    assert stage.prediction.editable


def test_what_can_be_looked_at_only_stays_locked_whatever_a_script_assigns(set_stage, make_live):
    live = make_live()
    live.project = SimpleNamespace(project=SimpleNamespace(is_read_only=True))
    stage = set_stage(live=live)
    for what in ("annotation", "prediction"):
        layer = getattr(stage, what)
        assert not layer.editable
        layer.data = np.ones_like(layer.data)
        assert not layer.editable
        stage.viewer.layers.remove(layer)
        stage.bridge.restore_layers()
        assert not getattr(stage, what).editable


def test_back_at_an_image_its_layers_are_there_once(set_stage):
    stage = set_stage()
    stage.tools("paint", OBJECT)
    stage.bridge.go_to(Plane(0, 0, 4))
    stage.drag((4, 10, 10), (4, 10, 20))
    stage.live.predict(OTHER)
    stage.settle()
    first, store, predicted = stage.source, stage.live.store, stage.live.predicted
    painted = stage.annotation
    source = source_of([stage.viewer.add_image(np.zeros((8, 30, 30), np.uint8), name="others")])
    stage.live.open(source.array)
    stage.bridge.open(source)
    painted.visible = True
    stage.viewer.layers.selection.active = painted
    painted.mode = "paint"
    stage.drag((4, 20, 10), (4, 20, 20))
    stage.live.open(first.array)
    stage.live.store, stage.live.predicted = store, predicted
    stage.bridge.open(first)
    assert names(stage) == ["cells", "others", "cells prediction", "cells annotation"]
    np.testing.assert_array_equal(stage.annotation.data, store.codes[0])


def test_the_viewer_is_never_empty_while_an_image_is_opened(set_stage):
    stage = set_stage()
    stage.live.predict(OBJECT)
    stage.settle()
    stage.viewer.layers.remove("cells")
    n_left = []
    stage.viewer.layers.events.removed.connect(lambda: n_left.append(len(stage.viewer.layers)))
    stage.bridge.open(stage.source)
    assert n_left  # napari may crash where a layer is added to a viewer from which the last one has just been removed
    assert min(n_left) > 0
    assert names(stage) == ["cells prediction", "cells annotation"]


def suggest_paint(stage):
    box = Box((3, 4, 4), (4, 9, 9))
    state = SuggestionState(suggestion=Suggestion(0, box, np.full(box.shape, OBJECT, np.uint8), "grow"))
    stage.live.suggestions = SimpleNamespace(state=state)
    stage.bridge.suggestion.update()


def suggest_slice(stage):
    stage.bridge.spot.show(SuggestedSlice(Plane(0, 0, 9), (9, 30, 12), 0.3, "uncertainty"))


SHOWS = {
    "freshness": lambda stage: stage.bridge.show_freshness(True),
    "probability": lambda stage: stage.bridge.show_probability(OBJECT),
    "uncertainty": lambda stage: stage.bridge.show_uncertainty(True),
    "ambiguity": lambda stage: stage.bridge.show_ambiguity(True),
    "novelty": lambda stage: stage.bridge.show_novelty(True),
    "painted objects": lambda stage: stage.bridge.objects.switch(True),
    "paint next": suggest_slice,
    "suggestion": suggest_paint,
}


@pytest.fixture
def leave_alone(set_stage):
    """``leave_alone(name)``: a stage with this layer alone, and how many layers were left after each removal since."""

    def leave(name, show):
        stage = set_stage()
        show(stage)
        for layer in [layer for layer in stage.viewer.layers if layer.name != f"cells {name}"]:
            stage.viewer.layers.remove(layer)
        assert names(stage) == [f"cells {name}"]
        n_left = []
        stage.viewer.layers.events.removed.connect(lambda: n_left.append(len(stage.viewer.layers)))
        return stage, n_left

    return leave


@pytest.mark.parametrize("name", SHOWS)
def test_nor_if_only_a_layer_that_goes_with_the_image_before_is_left(leave_alone, name):
    stage, n_left = leave_alone(name, SHOWS[name])
    stage.bridge.open(stage.source)
    assert min(n_left) > 0
    assert names(stage) == ["cells prediction", "cells annotation"]


@pytest.mark.parametrize("name", SHOWS)
def test_nor_while_a_layer_that_is_alone_is_shown_anew(leave_alone, name):
    stage, n_left = leave_alone(name, SHOWS[name])
    SHOWS[name](stage)
    assert min(n_left, default=1) > 0
    assert names(stage) == [f"cells {name}"]


def test_nor_while_the_prediction_of_all_is_shown_anew(leave_alone, tmp_path):
    path = tmp_path / "cells.ome.zarr"
    write_labels(path, np.ones((12, 40, 48), np.uint8))

    def show(stage):
        stage.live.whole = SimpleNamespace(status=SimpleNamespace(paths=(str(path),)))
        stage.bridge.show_whole()

    stage, n_left = leave_alone("all", show)
    first = stage.viewer.layers[0]
    stage.bridge.show_whole()
    assert min(n_left) > 0
    assert names(stage) == ["cells all"]
    assert stage.viewer.layers[0] is not first


def test_the_values_of_another_class_take_the_place_of_those_before(set_stage):
    stage = set_stage()
    stage.bridge.show_probability(OBJECT)
    stage.live.predict(OBJECT, probability=np.full((12, 40, 48), 9, np.uint8))
    stage.settle()
    stage.bridge.show_probability(OTHER)
    assert stage.live.probability_of == OTHER
    assert not stage.viewer.layers["cells probability"].data.any()


def test_what_was_shown_of_an_image_is_not_asked_of_one_of_another_shape(set_stage):
    stage = set_stage()
    for show in SHOWS.values():
        show(stage)
    others = stage.viewer.add_image(np.zeros((3, 2, 20, 90), np.uint8), axis_labels=("t", "z", "y", "x"), name="others")
    source = source_of([others])
    stage.viewer.layers.remove(others)
    stage.live.open(source.array, time_axis=0)
    stage.bridge.open(source)
    assert names(stage) == ["cells", "others prediction", "others annotation"]


def test_opening_the_same_image_again_goes_on(set_stage):
    stage = set_stage()
    stage.tools("paint", OTHER)
    stage.bridge.go_to(Plane(0, 0, 4))
    stage.drag((4, 10, 10), (4, 10, 20))
    stage.live.predict(OBJECT)
    stage.settle()
    codes = stage.live.codes.copy()
    stage.bridge.close()
    bridge = LayerBridge(stage.viewer, stage.live, stage.relay)
    bridge.set_class(OTHER)
    bridge.open(stage.source)
    stage.bridge = bridge
    assert names(stage) == ["cells", "cells prediction", "cells annotation"]
    np.testing.assert_array_equal(stage.annotation.data, codes[0])
    assert stage.prediction.data[4, 30, 30] == OBJECT
    stage.key("Z", "Control")
    assert not stage.live.codes.any()
    assert not stage.annotation.data.any()


def test_two_viewers_do_not_disturb_each_other(set_stage):
    one, two = set_stage(), set_stage()
    for stage, label in ((one, OBJECT), (two, OTHER)):
        stage.tools("paint", label)
        stage.bridge.go_to(Plane(0, 0, 4))
        stage.drag((4, 10, 10), (4, 10, 20))
        stage.live.predict(label)
    one.settle()
    two.settle()
    assert set(np.unique(one.live.codes)) == {0, OBJECT}
    assert set(np.unique(two.live.codes)) == {0, OTHER}
    assert (one.prediction.data == OBJECT).all()
    one.bridge.undo()
    assert two.live.codes.any()


def test_a_viewer_that_is_closed_while_tiles_arrive_is_let_go(make_napari_viewer, make_live, qtbot):
    viewer = make_napari_viewer()
    source = source_of([viewer.add_image(np.zeros((12, 40, 48), np.uint8), name="cells")])
    live = make_live()
    live.open(source.array)
    relay = GuiRelay(live.events)
    bridge = LayerBridge(viewer, live, relay)
    bridge.open(source)
    lost = []
    bridge.layers_lost.connect(lost.append)
    layer = weakref.ref(bridge.annotation_layer)
    live.predict(OTHER)
    viewer.close()
    live.predict(OBJECT)
    relay.flush()
    qtbot.wait(60)
    assert bridge.current_plane() is None
    bridge.close()
    relay.close()
    qtbot.wait(20)
    assert not lost
    alive = weakref.ref(bridge)
    del bridge, relay
    gc.collect()
    assert alive() is None
    del viewer, source
    gc.collect()
    assert layer() is None or layer().history is None


def test_layers_do_not_keep_the_bridge_alive(set_stage):
    stage = set_stage()
    layer = stage.annotation
    stage.bridge.close()
    alive = weakref.ref(stage.bridge)
    stage.bridge = LayerBridge(stage.viewer, stage.live, stage.relay)
    gc.collect()
    assert alive() is None
    assert isinstance(layer, SharedHistoryLabels)
