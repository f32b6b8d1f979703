"""Our layers are labels layers like any other to napari, but for their history; and they are coloured by class."""

from __future__ import annotations

import copy
from unittest.mock import Mock

import numpy as np
import pytest
import tifffile
from napari.components import ViewerModel
from napari.layers import Labels, Layer

from napari_sparseseg._types import Box, Plane
from napari_sparseseg.live.events import ClassInfo, TileUpdate
from napari_sparseseg.live.shown import with_paint
from napari_sparseseg.widgets.axes import AxisMap
from napari_sparseseg.widgets.capture import BrushTrack, Stroke, joined, strokes_of, united
from napari_sparseseg.widgets.feed import PredictionFeed
from napari_sparseseg.widgets.layers import (
    AnnotationLayer,
    PredictionLayer,
    add_below_ours,
    annotation_colormap,
    prediction_colormap,
    set_colormap,
)
from napari_sparseseg.widgets.shadow import ShadowedArray

CLASSES = (
    ClassInfo(1, "background", (0.5, 0.5, 0.5), is_background=True),
    ClassInfo(2, "object", (1.0, 0.4, 0.0)),
    ClassInfo(5, "other", (0.0, 0.4, 1.0)),
)


@pytest.fixture(params=[AnnotationLayer, PredictionLayer])
def layer(request):
    data = np.zeros((5, 8, 8), np.uint8)
    data[1, 2:4, 2:4] = 2
    return request.param(data, name="mine", colormap=annotation_colormap(CLASSES), scale=(3, 1, 1))


class TestSubclass:
    def test_napari_takes_it_for_labels(self, layer):
        data, properties, kind = layer.as_layer_data_tuple()
        assert kind == "labels"
        assert data is layer.data
        assert properties["name"] == "mine"

    def test_copies_are_ordinary_layers(self, layer):
        layer.history = Mock()
        for twin in (copy.copy(layer), Layer.create(*layer.as_layer_data_tuple())):
            assert type(twin) is Labels
            assert twin.scale.tolist() == [3, 1, 1]
            np.testing.assert_array_equal(twin.data, layer.data)

    def test_it_is_saved_as_labels(self, layer, tmp_path, npe2pm):
        import npe2
        from napari.plugins.io import save_layers

        npe2pm.register(npe2.PluginManifest.from_distribution("napari"))
        [path] = save_layers(str(tmp_path / "mine.tif"), [layer])
        np.testing.assert_array_equal(tifffile.imread(path), layer.data)

    def test_duplicating_from_the_menu_makes_an_ordinary_layer(self, layer, make_napari_viewer):
        from napari.layers._layer_actions import _duplicate_layer

        viewer = make_napari_viewer()
        layer.history = Mock()
        viewer.add_layer(layer)
        _duplicate_layer(viewer.layers)
        twin = viewer.layers["mine copy"]
        assert type(twin) is Labels
        twin.paint((1, 6, 6), 5)
        twin.undo()
        assert not layer.history.undo.called
        assert twin.data[1, 6, 6] == 0
        assert not np.shares_memory(twin.data, layer.data)

    def test_history_is_elsewhere_while_there_is_one(self, layer):
        layer.history = Mock()
        layer.paint((1, 6, 6), 5)
        layer.undo()
        layer.redo()
        assert layer.history.undo.call_count == layer.history.redo.call_count == 1
        assert layer.data[1, 6, 6] == 5
        layer.history = None
        layer.undo()
        assert layer.data[1, 6, 6] == 0

    def test_it_is_painted_in_2d_whatever_is_chosen(self, layer, make_napari_viewer, qtbot):
        from qtpy.QtWidgets import QSpinBox

        viewer = make_napari_viewer()
        viewer.add_layer(layer)
        controls = viewer.window._qt_viewer.controls.widgets[layer]
        boxes = [box for box in controls.findChildren(QSpinBox) if box.value() == 2 and box.minimum() == 2]
        layer.n_edit_dimensions = 3
        assert layer.n_edit_dimensions == 2
        layer.brush_size = 3
        layer.paint((1, 6, 6), 5)
        assert not layer.data[[0, 2, 3, 4]].any()
        for box in boxes:
            box.setValue(3)
            assert box.value() == 2


class TestColors:
    def test_of_the_annotation(self):
        colors = annotation_colormap(CLASSES).map(np.array([0, 1, 2, 5, 130], np.uint8))
        assert colors[0, 3] == 0
        assert 0 < colors[1, 3] < 1
        np.testing.assert_allclose(colors[2], (1.0, 0.4, 0.0, 1.0))
        assert len(set(colors[4, :3].tolist())) == 1
        assert colors[4, 3] > 0

    def test_of_the_prediction(self):
        colors = prediction_colormap(CLASSES).map(np.array([0, 1, 2, 9], np.uint8))
        assert colors[[0, 1, 3], 3].tolist() == [0, 0, 0]
        np.testing.assert_allclose(colors[2], (1.0, 0.4, 0.0, 1.0))

    def test_changing_them_keeps_show_selected(self, layer):
        layer.selected_label = 2
        layer.show_selected_label = True
        set_colormap(layer, prediction_colormap(CLASSES))
        assert layer.colormap.use_selection
        assert layer.colormap.selection == 2


def test_layers_are_added_beneath_ours(layer):
    viewer = ViewerModel()
    viewer.add_labels(np.zeros((4, 8, 8), np.uint8), name="first")
    add_below_ours(viewer, Labels(np.zeros((4, 8, 8), np.uint8), name="second"))
    layer.history = Mock()
    viewer.add_layer(layer)
    add_below_ours(viewer, Labels(np.zeros((4, 8, 8), np.uint8), name="third"))
    assert [other.name for other in viewer.layers] == ["first", "second", "third", "mine"]
    assert viewer.layers.selection.active is layer


class TestAxisMap:
    @pytest.mark.parametrize(
        ("shape", "time_axis", "frames"),
        [
            ((40, 50), None, (1, 1, 40, 50)),
            ((30, 40, 50), None, (1, 30, 40, 50)),
            ((3, 40, 50), 0, (3, 1, 40, 50)),
            ((3, 30, 40, 50), 0, (3, 30, 40, 50)),
            ((30, 3, 40, 50), 1, (3, 30, 40, 50)),
            ((30, 40, 50, 3), 3, (3, 30, 40, 50)),
        ],
    )
    def test_places_are_the_same_both_ways(self, shape, time_axis, frames):
        axes = AxisMap(shape, time_axis)
        assert axes.frames_shape == frames
        array = np.arange(np.prod(shape)).reshape(shape)
        seen = axes.as_frames(array)
        assert seen.shape == frames
        assert np.shares_memory(seen, array)
        frame, box = frames[0] - 1, Box((0, 4, 7), (frames[1], 9, 11))
        index = axes.to_layer(frame, box)
        np.testing.assert_array_equal(axes.as_frames(array[index])[0], seen[frame][box.slices])
        assert axes.to_frames(index) == (slice(frame, frame + 1), *box.slices)

    def test_the_plane_lies_across_the_axis_furthest_from_the_screen(self):
        axes = AxisMap((3, 30, 40, 50), 0)
        assert axes.plane_across((0, 1, 2, 3), (2, 7, 8, 9)) == Plane(2, 0, 7)
        assert axes.plane_across((0, 2, 1, 3), (2, 7, 8, 9)) == Plane(2, 1, 8)
        assert axes.plane_across((3, 0, 1, 2), (2, 7, 8, 9)) == Plane(2, 2, 9)
        assert axes.plane_across((1, 2, 0, 3), (2, 7, 8, 9)) == Plane(2, 0, 7)
        assert AxisMap((3, 40, 50), 0).plane_across((0, 1, 2), (2, 8, 9)) == Plane(2, 0, 0)


class TestShadow:
    def test_the_program_leaves_alone_what_the_user_has_painted(self):
        array = ShadowedArray(AxisMap((4, 8, 8)))
        whole = Box.whole((4, 8, 8))
        array.write(0, whole, np.full((4, 8, 8), 1, np.uint8))
        array.data[1, 2, 3] = 7
        array.write(0, whole, np.full((4, 8, 8), 2, np.uint8))
        assert array.data[1, 2, 3] == 7
        assert (array.data == 2).sum() == array.data.size - 1
        assert array.shown(0, whole)[1, 2, 3] == 1
        assert np.argwhere(array.user_mask(0, whole)).tolist() == [[1, 2, 3]]
        array.release(0, whole, array.data == 7)
        array.write(0, whole, np.full((4, 8, 8), 3, np.uint8))
        assert (array.data == 3).all()

    def test_what_was_not_taken_in_can_be_taken_back(self):
        array = ShadowedArray(AxisMap((4, 8, 8)))
        array.put(np.ones((1, 4, 8, 8), np.uint8))
        array.revert()
        assert not array.data.any()


class TestPaintOverLabels:
    def test_classes_pin_and_sets_rule_out(self):
        labels = np.array([[[1, 2, 5, 2, 5]]], np.uint8)
        codes = np.array([[[0, 5, 2, 130, 131]]], np.uint8)
        sets = {130: frozenset({1, 5}), 131: frozenset({2})}
        assert with_paint(labels, codes, sets.__getitem__).tolist() == [[[1, 5, 2, 0, 2]]]

    def test_without_paint_nothing_is_copied(self):
        labels = np.ones((1, 2, 2), np.uint8)
        assert with_paint(labels, np.zeros_like(labels), {}.__getitem__) is labels


class TestStrokes:
    @pytest.mark.parametrize("n_edit", [2, 3])
    def test_of_all_that_napari_tells(self, n_edit):
        layer = Labels(np.zeros((6, 12, 14), np.uint8))
        layer.n_edit_dimensions = n_edit
        layer.brush_size = 5
        told = []
        layer.events.paint.connect(lambda event: told.extend(event.value))
        with layer.block_history():
            layer.paint((3, 5, 5), 2)
            layer.paint((3, 5, 7), 2)
        layer.data_setitem((np.array([1, 1, 2]), np.array([0, 1, 0]), np.array([0, 5, 0])), np.array([4, 5, 4]))
        found = np.zeros_like(layer.data)
        for stroke in strokes_of(told, AxisMap(layer.data.shape)):
            assert stroke.frame == 0
            found[stroke.box.slices][stroke.mask] = stroke.label
        np.testing.assert_array_equal(found, layer.data)

    def test_frames_are_apart(self):
        layer = Labels(np.zeros((3, 12, 14), np.uint8))
        told = []
        layer.events.paint.connect(lambda event: told.extend(event.value))
        layer.data_setitem((np.array([0, 2, 2]), np.array([0, 1, 5]), np.array([0, 5, 5])), 4)
        strokes = strokes_of(told, AxisMap(layer.data.shape, 0))
        assert [(s.frame, s.mask.sum()) for s in strokes] == [(0, 1), (2, 2)]

    def test_joined_with_the_track_of_the_brush(self):
        one = Stroke(0, Box((0, 0, 0), (1, 2, 2)), np.ones((1, 2, 2), bool), 2)
        other = Stroke(0, Box((0, 0, 0), (1, 2, 2)), np.ones((1, 2, 2), bool), 3)
        track = Stroke(0, Box((0, 1, 1), (1, 4, 3)), np.ones((1, 3, 2), bool), 2)
        kept, both = joined([one, other], track)
        assert kept is other
        assert both.box == Box((0, 0, 0), (1, 4, 3))
        assert both.mask.sum() == 4 + 6 - 1
        assert joined([one], None) == [one]
        assert united([one]) is one

    @pytest.mark.parametrize("scale", [(1, 1, 1), (4, 1, 1), (1, 0.3, 0.7)])
    @pytest.mark.parametrize("brush", [1, 2, 7, 10])
    @pytest.mark.parametrize("hidden", [0, 1, 2])
    def test_the_track_is_what_napari_paints(self, scale, brush, hidden):
        viewer = ViewerModel()
        layer = viewer.add_labels(np.zeros((20, 24, 28), np.uint8), scale=scale)
        painted = [axis for axis in range(3) if axis != hidden]
        viewer.dims.order = (hidden, *painted)
        layer.brush_size = brush
        start, end = np.array([8.0, 9.0, 10.0]), np.array([8.0, 9.0, 10.0])
        end[painted] = 3.2, 22.6
        track = BrushTrack(2, painted, brush, layer.scale)
        layer.mode = "paint"
        layer._draw(2, start, start)
        layer._draw(2, start, end)
        track.extend(start)
        track.extend(end)
        stroke = track.stroke(AxisMap(layer.data.shape))
        found = np.zeros_like(layer.data)
        found[stroke.box.slices][stroke.mask] = 2
        np.testing.assert_array_equal(found, layer.data)

    def test_a_track_outside_the_image_is_none(self):
        track = BrushTrack(2, (1, 2), 5, (1, 1, 1))
        track.extend((3, -20, 5))
        assert track.stroke(AxisMap((6, 12, 14))) is None


class TestFeed:
    def tile(self, frame, *start):
        box = Box(start, tuple(a + 4 for a in start))
        return TileUpdate(frame, box, np.zeros(box.shape, np.uint8), 0)

    def test_what_is_on_screen_comes_first_and_the_newest_counts(self, qapp):
        taken, drawn = [], []
        feed = PredictionFeed(taken.append, lambda: drawn.append(len(taken)), lambda: Plane(0, 1, 9))
        tiles = [self.tile(0, 0, 0, 0), self.tile(1, 0, 8, 0), self.tile(0, 0, 8, 0), self.tile(0, 0, 8, 4)]
        newer = self.tile(0, 0, 0, 0)
        feed.add([*tiles, newer])
        assert len(feed) == 4
        feed.tick(budget=60)
        assert [id(tile) for tile in taken] == [id(tile) for tile in (tiles[2], tiles[3], tiles[1], newer)]
        assert drawn == [4]

    def test_it_stops_when_its_time_is_up(self, qapp):
        taken, drained = [], []
        feed = PredictionFeed(taken.append, lambda: None, lambda: None)
        feed.drained.connect(lambda: drained.append(len(taken)))
        feed.add([self.tile(0, 4 * i, 0, 0) for i in range(3)])
        feed.tick(budget=0)
        assert len(taken) == 1
        feed.tick(budget=0)
        feed.tick(budget=0)
        assert drained == [3]
        feed.add([self.tile(0, 0, 0, 0)])
        feed.clear()
        assert len(feed) == 0
