"""What is on screen is known in all orientations, and any plane can be brought there."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Labels

from napari_sparseseg._types import Box, Plane
from napari_sparseseg.widgets.axes import AxisMap
from napari_sparseseg.widgets.view import ViewWatcher, canvas_size, current_plane, show_plane, shown, view_of

SHAPE = (24, 32, 40)


def viewer_with(shape=SHAPE, time_axis=None, **properties):
    viewer = ViewerModel()
    layer = viewer.add_labels(np.zeros(shape, np.uint8), **properties)
    return viewer, layer, AxisMap(shape, time_axis)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_the_visible_part_follows_camera_and_transform(order):
    viewer, layer, axes = viewer_with(scale=(2, 1, 0.5), translate=(10, -20, 5))
    viewer.dims.order = order
    viewer.dims.point = layer.data_to_world((12, 16, 20))
    viewer.canvas.size = (60, 100)
    down, across = viewer.dims.displayed
    viewer.scene.camera.center = tuple(layer.data_to_world((10, 11, 12))[axis] for axis in (down, across))
    viewer.scene.camera.zoom = 10
    view = view_of(viewer, layer, axes)
    assert view.plane == Plane(0, order[0], (12, 16, 20)[order[0]])
    for axis in range(3):
        if axis == order[0]:
            assert view.box.shape[axis] == 1
            assert view.box.start[axis] == view.plane.index
            continue
        reach = (60 if axis == down else 100) / 10 / 2 / layer.scale[axis]
        center = (10, 11, 12)[axis]
        assert view.box.start[axis] == max(0, int(np.floor(center - reach + 0.5)))
        assert view.box.stop[axis] == min(SHAPE[axis], int(np.ceil(center + reach + 0.5)))
    eye = tuple(start for start in view.box.start)
    assert view_of(viewer, layer, axes, eye).center == eye
    assert view_of(viewer, layer, axes, (-5, -5, -5)).center == view.center


def test_without_a_canvas_or_off_the_image_the_whole_plane_counts():
    viewer, layer, axes = viewer_with()
    viewer.canvas.size = (60, 100)
    viewer.scene.camera.zoom = 10
    viewer.scene.camera.center = (500, 500)
    viewer.dims.set_current_step(0, 3)
    assert view_of(viewer, layer, axes).box == Box((3, 0, 0), (4, 32, 40))
    viewer.dims.ndisplay = 3
    assert view_of(viewer, layer, axes).box == Box((3, 0, 0), (4, 32, 40))
    assert canvas_size(object()) is None


@pytest.mark.parametrize(("shape", "time_axis"), [(SHAPE, None), ((3, *SHAPE), 0), ((24, 3, 32, 40), 1)])
def test_each_plane_can_be_brought_on_screen_from_each_order(shape, time_axis):
    viewer, layer, axes = viewer_with(shape, time_axis, scale=[2, 1, 0.5, 3][: len(shape)], translate=[7] * len(shape))
    frames = [0] if time_axis is None else [0, 2]
    for order, frame, axis in product(permutations(range(len(shape))), frames, range(3)):
        viewer.dims.order = order
        plane = Plane(frame, axis, 11)
        show_plane(viewer, layer, axes, plane)
        assert current_plane(viewer, layer, axes) == plane
        assert viewer.dims.ndisplay == 2
        assert len(set(viewer.dims.displayed) & set(axes.spatial)) == 2


def test_among_layers_with_more_axes_and_off_the_end():
    viewer, layer, axes = viewer_with()
    viewer.add_labels(np.zeros((2, 50, 32, 40), np.uint8))
    show_plane(viewer, layer, axes, Plane(0, 1, 5))
    assert current_plane(viewer, layer, axes) == Plane(0, 1, 5)
    show_plane(viewer, layer, axes, Plane(0, 0, 5))
    viewer.dims.set_current_step(1, 45)
    assert shown(viewer, layer).point[0] == 45
    assert current_plane(viewer, layer, axes) == Plane(0, 0, 23)


def test_a_2d_image_has_one_plane():
    viewer, layer, axes = viewer_with((32, 40))
    view = view_of(viewer, layer, axes)
    assert view.plane == Plane(0, 0, 0)
    assert view.box.shape == (1, 32, 40)
    show_plane(viewer, layer, axes, Plane(0, 0, 0))
    viewer, layer, axes = viewer_with((5, 32, 40), 0)
    show_plane(viewer, layer, axes, Plane(3, 0, 0))
    assert current_plane(viewer, layer, axes) == Plane(3, 0, 0)


def test_units_of_layers_that_differ():
    viewer = ViewerModel()
    layer = viewer.add_layer(Labels(np.zeros(SHAPE, np.uint8), scale=(2, 1, 1), units=("um", "um", "um")))
    viewer.add_layer(Labels(np.zeros(SHAPE, np.uint8), scale=(2000, 1000, 1000), units=("nm", "nm", "nm")))
    axes = AxisMap(SHAPE)
    for plane in (Plane(0, 0, 5), Plane(0, 2, 30)):
        show_plane(viewer, layer, axes, plane)
        assert current_plane(viewer, layer, axes) == plane


def test_changes_are_told_together_and_soon(qtbot):
    viewer, _, _ = viewer_with()
    watcher = ViewWatcher(viewer)
    told = []
    watcher.changed.connect(lambda: told.append(viewer.dims.point[0]))
    with qtbot.waitSignal(watcher.changed, timeout=2000):
        for step in range(5):
            viewer.dims.set_current_step(0, step)
            viewer.scene.camera.zoom = 2 + step
    assert told == [4]
    for change in (
        lambda: setattr(viewer.dims, "order", (1, 0, 2)),
        lambda: setattr(viewer.dims, "ndisplay", 3),
        lambda: setattr(viewer.scene.camera, "center", (3.0, 4.0, 5.0)),
        lambda: setattr(viewer.canvas, "size", (123, 234)),
    ):
        with qtbot.waitSignal(watcher.changed, timeout=2000):
            change()
    watcher.close()
    n_told = len(told)
    viewer.dims.set_current_step(0, 9)
    qtbot.wait(60)
    assert len(told) == n_told


@pytest.mark.window
def test_the_bridge_tells_live_where_the_user_looks(set_stage, qtbot):
    stage = set_stage(np.zeros(SHAPE, np.uint8))
    stage.bridge.go_to(Plane(0, 1, 7))
    qtbot.waitUntil(lambda: stage.live.views[-1].plane == Plane(0, 1, 7))
    assert stage.live.views[-1].box.shape == (24, 1, 40)
    stage.viewer.scene.camera.zoom *= 4
    qtbot.waitUntil(lambda: stage.live.views[-1].box.n_voxels < 24 * 40)
    stage.bridge.go_to(Plane(0, 0, 7))
    stage.viewer.reset_view()
    stage.tools("paint")
    stage.drag((7, 8, 8), (7, 8, 12))
    qtbot.waitUntil(lambda: stage.live.views[-1].center == (7.0, 8.0, 10.0))
