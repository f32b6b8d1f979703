"""How large a voxel is can be said in the dock, and is offered as the file says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from napari.components import ViewerModel
from napari.layers._source import layer_source
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QApplication, QComboBox, QDialogButtonBox

from napari_sparseseg.widgets.image_panel import ImagePanel
from napari_sparseseg.widgets.sources import source_of
from napari_sparseseg.widgets.voxel_size import VoxelSize, VoxelSizeDialog, known_size, set_voxel_size

IMAGE = np.zeros((4, 8, 9), np.uint8)


@pytest.fixture
def viewer(qapp: Any) -> ViewerModel:
    return ViewerModel()


@pytest.fixture
def make_dialog(qtbot: Any) -> Any:
    def make(layer: Any) -> VoxelSizeDialog:
        dialog = VoxelSizeDialog(layer)
        qtbot.addWidget(dialog)
        return dialog

    return make


def open_file(viewer: ViewerModel, path: Path, **options: Any) -> Any:
    """As with napari's own reader, which takes no voxel size from it."""
    tifffile.imwrite(path, IMAGE, imagej=True, metadata={"axes": "ZYX", **options}, resolution=(5, 5))
    with layer_source(path=str(path)):
        return viewer.add_image(tifffile.imread(path))


def choose(box: QComboBox, text: str) -> None:
    box.setCurrentText(text)
    box.activated.emit(box.currentIndex())


def shown(dialog: VoxelSizeDialog) -> dict[str, str]:
    return {letter: field.text() for letter, field in dialog._fields.items()}


def is_ready(dialog: VoxelSizeDialog) -> bool:
    ok = dialog._buttons.button(QDialogButtonBox.StandardButton.Ok)
    return ok is not None and ok.isEnabled()


def test_what_the_file_says_is_offered(viewer: ViewerModel, make_dialog: Any, tmp_path: Path) -> None:
    layer = open_file(viewer, tmp_path / "cells.tif", spacing=0.5, unit="um")
    assert not source_of([layer]).has_voxel_size
    dialog = make_dialog(layer)
    assert shown(dialog) == {"Z": "0.5", "Y": "0.2", "X": "0.2"}
    assert "file says" in dialog._note.text()
    assert is_ready(dialog)
    set_voxel_size([layer], dialog.size_typed)
    source = source_of([layer])
    assert source.spacing == pytest.approx((0.5, 0.2, 0.2))
    assert source.unit_symbol == "µm"


def test_what_the_layer_says_comes_first(viewer: ViewerModel, make_dialog: Any, tmp_path: Path) -> None:
    layer = open_file(viewer, tmp_path / "cells.tif", spacing=0.5, unit="um")
    layer.scale, layer.units = (3, 2, 1), ["nm"] * 3
    dialog = make_dialog(layer)
    assert shown(dialog) == {"Z": "3", "Y": "2", "X": "1"}
    assert dialog.size_typed == VoxelSize({"Z": 3, "Y": 2, "X": 1}, "nanometer")


def test_where_nobody_says_it_it_is_typed(viewer: ViewerModel, make_dialog: Any) -> None:
    dialog = make_dialog(viewer.add_image(IMAGE))
    assert not is_ready(dialog)
    for letter, text in (("Z", "2,5"), ("Y", " 0.5"), ("X", "a lot")):
        dialog._fields[letter].setText(text)
    assert not is_ready(dialog)
    assert "“a lot” is no length" in dialog._note.text()
    dialog._fields["X"].setText("5e-1")
    assert is_ready(dialog)
    assert dialog.size_typed == VoxelSize({"Z": 2.5, "Y": 0.5, "X": 0.5}, "micrometer")


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", ""])
def test_no_length_is_taken_that_is_none(viewer: ViewerModel, make_dialog: Any, text: str) -> None:
    dialog = make_dialog(viewer.add_image(IMAGE))
    for field in dialog._fields.values():
        field.setText(text)
    assert not is_ready(dialog)


def test_a_file_of_another_image_says_nothing(viewer: ViewerModel, tmp_path: Path) -> None:
    layer = open_file(viewer, tmp_path / "cells.tif", spacing=0.5, unit="um")
    layer.data = IMAGE[:2]
    assert known_size(layer) is None
    (tmp_path / "cells.tif").write_bytes(b"torn")
    layer.data = IMAGE
    assert known_size(layer) is None


def test_time_and_flips_stay(viewer: ViewerModel) -> None:
    layer = viewer.add_image(np.zeros((2, 4, 8, 9)), scale=(60, 1, 1, -1), units=["s", "pixel", "pixel", "pixel"])
    set_voxel_size([layer], VoxelSize({"Z": 2, "Y": 0.5, "X": 0.5}, "micrometer"))
    assert layer.scale.tolist() == [60, 2, 0.5, -0.5]
    assert [str(unit) for unit in layer.units] == ["second", "micrometer", "micrometer", "micrometer"]


@pytest.mark.parametrize("is_used", [True, False])
def test_an_image_in_use_is_used_with_its_new_size_at_once(viewer: ViewerModel, qtbot: Any, is_used: bool) -> None:
    layer, own, elsewhere = viewer.add_image(IMAGE), viewer.add_labels(IMAGE), viewer.add_labels(IMAGE, scale=(3, 1, 1))
    other, plane = viewer.add_image(IMAGE), viewer.add_points(np.zeros((1, 2)))
    panel = ImagePanel(viewer, lambda _: 0.0)
    choose(panel._images_box, layer.name)
    qtbot.addWidget(panel)
    panel.show()
    if is_used:
        panel.show_source(source_of([layer]))
    chosen: list[Any] = []
    panel.source_chosen.connect(chosen.append)

    def answer() -> None:
        dialog = QApplication.activeModalWidget()
        assert isinstance(dialog, VoxelSizeDialog)
        for field, text in zip(dialog._fields.values(), ("2", "0.5", "0.5"), strict=True):
            qtbot.keyClicks(field, text)
        qtbot.mouseClick(dialog._buttons.button(QDialogButtonBox.StandardButton.Ok), Qt.MouseButton.LeftButton)

    QTimer.singleShot(0, answer)
    qtbot.mouseClick(panel._voxel_size, Qt.MouseButton.LeftButton)
    assert layer.scale.tolist() == own.scale.tolist() == [2, 0.5, 0.5]
    assert layer.units == own.units
    assert [each.scale[0] for each in (elsewhere, other, plane)] == [3, 1, 1]
    assert [source.spacing for source in chosen] == ([(2, 0.5, 0.5)] if is_used else [])
    assert panel._facts.text().endswith("0.5 µm")
