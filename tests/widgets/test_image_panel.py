"""The image panel offers what the viewer has, and says what it is and what it costs."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QComboBox, QWidget

from napari_sparseseg._types import Box
from napari_sparseseg.errors import InputError
from napari_sparseseg.widgets import image_panel
from napari_sparseseg.widgets.image_panel import ImagePanel

SECONDS_PER_VOXEL = 1e-6


@pytest.fixture
def viewer(qapp: Any) -> ViewerModel:
    return ViewerModel()


@pytest.fixture
def make_panel(qtbot: Any, viewer: ViewerModel) -> Any:
    def make(**options: Any) -> ImagePanel:
        panel = ImagePanel(viewer, lambda n: n * SECONDS_PER_VOXEL, **options)
        qtbot.addWidget(panel)
        panel.show()
        return panel

    return make


def add(viewer: ViewerModel, name: str, shape: tuple[int, ...] = (4, 8, 8), **options: Any) -> Any:
    return viewer.add_image(np.zeros(shape, np.uint8), name=name, **options)


def offered(panel: ImagePanel) -> list[str]:
    return [panel._images_box.itemText(i) for i in range(panel._images_box.count())]


def choose(box: QComboBox, text: str) -> None:
    index = next(i for i in range(box.count()) if text in box.itemText(i))
    box.setCurrentIndex(index)
    box.activated.emit(index)


def tick(panel: ImagePanel, *names: str) -> None:
    for item in panel._items():
        if item.text() in names:
            item.setCheckState(Qt.CheckState.Checked)


def use(panel: ImagePanel, qtbot: Any) -> Any:
    with qtbot.waitSignal(panel.source_chosen, timeout=1000) as caught:
        qtbot.mouseClick(panel._use, Qt.MouseButton.LeftButton)
    return caught.args[0]


class TestOffer:
    def test_image_layers_only(self, viewer: ViewerModel, make_panel: Any) -> None:
        add(viewer, "cells")
        viewer.add_labels(np.zeros((4, 8, 8), np.uint8), name="labels")
        own = add(viewer, "cells probability")
        assert offered(make_panel(is_own=lambda layer: layer is own)) == ["cells"]

    def test_follows_the_layer_list(self, viewer: ViewerModel, make_panel: Any) -> None:
        panel = make_panel()
        assert offered(panel) == []
        assert "Open an image" in panel._facts.text()
        cells = add(viewer, "cells")
        add(viewer, "walls")
        assert offered(panel) == ["cells", "walls"]
        cells.name = "nuclei"
        assert offered(panel) == ["nuclei", "walls"]
        viewer.layers.move(0, 2)
        assert offered(panel) == ["walls", "nuclei"]
        viewer.layers.clear()
        assert offered(panel) == []

    def test_takes_the_selected_image_until_the_user_chooses(self, viewer: ViewerModel, make_panel: Any) -> None:
        first = add(viewer, "first")
        add(viewer, "second")
        viewer.layers.selection.active = first
        panel = make_panel()
        assert panel.wished_source().name == "first"
        add(viewer, "third")
        assert panel.wished_source().name == "third"
        choose(panel._images_box, "second")
        add(viewer, "fourth")
        assert panel.wished_source().name == "second"

    def test_a_renamed_image_in_use_stays_in_use(self, viewer: ViewerModel, make_panel: Any) -> None:
        layer = add(viewer, "cells")
        panel = make_panel()
        panel.show_source(panel.wished_source())
        layer.name = "nuclei"
        assert panel.wished_source().name == "nuclei"
        assert panel._use.isHidden()

    def test_tells_when_an_image_appears_while_none_is_in_use(
        self, viewer: ViewerModel, make_panel: Any, qtbot: Any
    ) -> None:
        panel = make_panel()
        with qtbot.waitSignal(panel.image_appeared, timeout=1000):
            add(viewer, "cells")
        panel.show_source(panel.wished_source())
        with qtbot.assertNotEmitted(panel.image_appeared):
            add(viewer, "walls")

    def test_lets_go_of_the_viewer(self, viewer: ViewerModel, make_panel: Any) -> None:
        layer = add(viewer, "cells")
        panel = make_panel()
        panel.close_events()
        add(viewer, "walls")
        layer.scale = (2, 1, 1)
        assert offered(panel) == ["cells"]

    def test_does_not_keep_removed_layers_alive(self, viewer: ViewerModel, make_panel: Any) -> None:
        panel = make_panel()
        gone = weakref.ref(add(viewer, "cells"))
        panel.show_source(panel.wished_source())
        viewer.layers.clear()
        panel.show_source(None)
        viewer.add_labels(np.zeros((4, 8, 8), np.uint8))  # napari holds the layer that was selected last
        gc.collect()
        assert gone() is None


class TestUse:
    def test_is_offered_only_when_something_differs(self, viewer: ViewerModel, make_panel: Any, qtbot: Any) -> None:
        add(viewer, "cells")
        add(viewer, "walls")
        panel = make_panel()
        source = use(panel, qtbot)
        assert source.layer_names == ("walls",)
        panel.show_source(source)
        assert panel._use.isHidden()
        choose(panel._images_box, "cells")
        assert panel._use.text() == "Use instead (starts anew)"
        choose(panel._images_box, "walls")
        assert panel._use.isHidden()

    @pytest.mark.parametrize("change", [{"scale": (3, 1, 1)}, {"translate": (1, 0, 0)}, {"data": np.ones((5, 6, 7))}])
    def test_is_offered_when_the_layer_in_use_changes(
        self, viewer: ViewerModel, make_panel: Any, change: dict[str, Any]
    ) -> None:
        layer = add(viewer, "cells")
        panel = make_panel()
        panel.show_source(panel.wished_source())
        for name, value in change.items():
            setattr(layer, name, value)
        assert not panel._use.isHidden()

    def test_an_image_that_cannot_be_used_is_explained(self, viewer: ViewerModel, make_panel: Any) -> None:
        add(viewer, "turned", rotate=30)
        panel = make_panel()
        assert "rotated" in panel._problem.text()
        assert panel._problem.isVisible()
        assert panel._use.isHidden()
        with pytest.raises(InputError):
            panel.wished_source()

    def test_ticked_layers_are_channels(self, viewer: ViewerModel, make_panel: Any, qtbot: Any) -> None:
        for name in ("a", "b", "c"):
            add(viewer, name)
        panel = make_panel()
        assert panel._channels.isVisible()
        tick(panel, "a", "c")
        source = use(panel, qtbot)
        assert (source.layer_names, source.n_channels) == (("a", "c"), 2)
        panel.show_source(source)
        assert panel._use.isHidden()
        assert "2 channels" in panel._facts.text()
        add(viewer, "d")
        assert panel.wished_source().layer_names == ("a", "c")
        viewer.layers.remove("c")
        assert panel.wished_source().layer_names == ("a",)
        assert not panel._use.isHidden()

    def test_one_layer_needs_no_channels(self, viewer: ViewerModel, make_panel: Any) -> None:
        add(viewer, "cells")
        assert make_panel()._channels.isHidden()


class TestFacts:
    def test_size_voxels_channels_and_time(self, viewer: ViewerModel, make_panel: Any) -> None:
        add(viewer, "movie", (3, 4, 1200, 8), scale=(1, 2, 0.325, 0.325), units=("s", "um", "um", "um"))
        panel = make_panel()
        assert panel._facts.text() == ("4 \u00d7 1\u202f200 \u00d7 8 · 2 \u00d7 0.325 \u00d7 0.325 µm · 3 time points")

    def test_unknown_voxel_size_comes_with_a_hint(self, viewer: ViewerModel, make_panel: Any) -> None:
        add(viewer, "cells")
        panel = make_panel()
        assert panel._facts.text().endswith("voxel size unknown")
        assert "press Voxel size" in panel._facts.toolTip()


class TestRegionAndScale:
    def test_coarser_resolution(self, viewer: ViewerModel, make_panel: Any, qtbot: Any) -> None:
        add(viewer, "cells", (8, 32, 32), scale=(4, 1, 1))
        panel = make_panel()
        choose(panel._scale._scales, "4 times")
        source = use(panel, qtbot)
        assert (source.step, source.shape) == ((1, 4, 4), (8, 8, 8))
        panel.show_source(source)
        assert panel._use.isHidden()
        assert panel._scale.factor == 4

    def test_rectangle_of_a_shapes_layer(self, viewer: ViewerModel, make_panel: Any, qtbot: Any) -> None:
        add(viewer, "cells", (8, 32, 32))
        panel = make_panel()
        viewer.add_shapes([np.array([[0, 4, 4], [0, 4, 20], [0, 12, 20], [0, 12, 4]])], name="part")
        choose(panel._scale._regions, "part")
        source = use(panel, qtbot)
        assert source.region == Box((0, 4, 4), (8, 13, 21))
        panel.show_source(source)
        assert panel._use.isHidden()
        choose(panel._scale._regions, "Whole")
        assert use(panel, qtbot).region is None

    def test_an_empty_shapes_layer_is_explained(self, viewer: ViewerModel, make_panel: Any) -> None:
        add(viewer, "cells", (8, 32, 32))
        panel = make_panel()
        viewer.add_shapes(ndim=3, name="part")
        choose(panel._scale._regions, "part")
        assert "draw a rectangle" in panel._problem.text()
        assert panel.wished_source().region is None

    def test_what_is_on_screen(self, viewer: ViewerModel, make_panel: Any, qtbot: Any) -> None:
        layer = add(viewer, "cells", (8, 32, 32))
        panel = make_panel()
        layer.corner_pixels = np.array([[0, 4, 6], [0, 10, 31]])
        choose(panel._scale._regions, "screen")
        assert use(panel, qtbot).region == Box((0, 4, 6), (8, 11, 32))

    def test_levels_of_a_multiscale_image(self, viewer: ViewerModel, make_panel: Any, qtbot: Any) -> None:
        levels = [np.zeros((4, n, n), np.uint8) for n in (64, 32, 16)]
        viewer.add_image(levels, multiscale=True, name="pyramid")
        panel = make_panel()
        assert panel._scale._levels.count() == 3
        choose(panel._scale._levels, "2:")
        source = use(panel, qtbot)
        assert (source.level, source.shape) == (2, (4, 16, 16))

    def test_levels_stay_offered_when_the_image_is_in_use(
        self, viewer: ViewerModel, make_panel: Any, qtbot: Any
    ) -> None:
        pyramid = viewer.add_image([np.zeros((4, n, n), np.uint8) for n in (64, 32)], multiscale=True, name="pyramid")
        add(viewer, "cells")
        viewer.layers.selection.active = pyramid
        panel = make_panel()
        source = panel.wished_source()
        viewer.add_labels(np.zeros((4, 64, 64), np.uint8), name="annotation")
        panel.show_source(source)
        assert panel.wished_source().name == "pyramid"
        assert panel._scale._levels.count() == 2
        assert not panel._scale._levels.isHidden()

    def test_a_coarser_image_knows_no_more_of_its_voxels(self, viewer: ViewerModel, make_panel: Any) -> None:
        add(viewer, "cells", (8, 32, 32))
        panel = make_panel()
        choose(panel._scale._scales, "2 times")
        assert panel._facts.text().endswith("voxel size unknown")

    def test_expected_time_and_a_remedy_for_big_images(self, viewer: ViewerModel, make_panel: Any) -> None:
        add(viewer, "big", (100, 2000, 2000))
        panel = make_panel()
        assert "about 6:40 min" in panel._scale._expected.text()
        assert "2 times coarser it takes 50 s" in panel._scale._expected.text()

    def test_a_large_image_that_cannot_be_used_is_explained(
        self, viewer: ViewerModel, make_panel: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(image_panel, "LARGEST_AT_ONCE", 1000)
        add(viewer, "cells", (2, 3, 4, 8, 8))
        panel = make_panel()
        assert "none of (y, x), (z, y, x)" in panel._problem.text()
        assert panel._use.isHidden()

    def test_an_image_that_is_too_large_is_not_for_opening_by_itself(
        self, viewer: ViewerModel, make_panel: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(image_panel, "LARGEST_AT_ONCE", 1000)
        add(viewer, "small", (2, 8, 8))
        panel = make_panel()
        assert not panel.is_large
        add(viewer, "big", (100, 2000, 2000))
        assert panel.is_large
        assert panel._scale.is_unfolded
        assert panel._scale.factor == 2
        assert panel.wished_source().shape == (50, 1000, 1000)


def test_each_control_has_a_tooltip(viewer: ViewerModel, make_panel: Any) -> None:
    add(viewer, "cells")
    panel = make_panel()
    controls = [panel._images_box, panel._use, panel._list, panel._scale._regions, panel._scale._levels]
    controls += [panel._scale._scales, panel._scale._button, panel._channels._button]
    assert [c for c in controls if isinstance(c, QWidget) and not c.toolTip()] == []
