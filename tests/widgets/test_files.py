"""What the file of a layer tells is passed on, and no file is replaced unasked."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import Mock

import nibabel
import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers._source import layer_source
from qtpy.QtWidgets import QFileDialog, QWidget

from napari_sparseseg.storage.formats import write_labels
from napari_sparseseg.widgets import actions
from napari_sparseseg.widgets.files import geometry_of
from napari_sparseseg.widgets.sources import source_of

OBLIQUE = np.array([[-0.5, 0, 0.1, 3], [0, 0.5, 0, -4], [0, 0, 2, 5], [0, 0, 0, 1]])


@pytest.fixture
def viewer(qapp: Any) -> ViewerModel:
    return ViewerModel()


@pytest.fixture
def nifti(tmp_path: Path) -> Path:
    path = tmp_path / "brain.nii.gz"
    image = np.random.default_rng(0).integers(0, 255, (6, 5, 4), np.uint8)
    nibabel.save(nibabel.Nifti1Image(image, OBLIQUE), path)
    return path


def show(viewer: ViewerModel, path: Path, data: Any = None, **options: Any) -> Any:
    with layer_source(path=str(path)):
        voxels = np.asarray(nibabel.load(path).dataobj).T
        return viewer.add_image(voxels if data is None else data, **options)


def test_labels_lie_where_the_image_lies(viewer: ViewerModel, nifti: Path, tmp_path: Path) -> None:
    source = source_of([show(viewer, nifti)])
    write_labels(tmp_path / "labels.nii.gz", np.ones((4, 5, 6), np.uint8), geometry=geometry_of(source))
    labels = nibabel.load(tmp_path / "labels.nii.gz")
    np.testing.assert_allclose(labels.affine, OBLIQUE, atol=1e-6)
    assert int(labels.header["sform_code"]) == int(nibabel.load(nifti).header["sform_code"]) > 0


def test_nothing_is_told_of_what_is_not_the_image_of_the_file(viewer: ViewerModel, nifti: Path) -> None:
    as_it_is = show(viewer, nifti)
    data = np.asarray(as_it_is.data)
    assert geometry_of(source_of([as_it_is])) is not None
    assert geometry_of(source_of([as_it_is], step=(1, 2, 2))) is None
    for other in (data[:, ::-1], data[:3], np.stack([data, data])):
        assert geometry_of(source_of([show(viewer, nifti, other)])) is None
    assert geometry_of(source_of([show(viewer, nifti, scale=(3, 1, 1))])) is None
    assert geometry_of(source_of([as_it_is, show(viewer, nifti)])) is None
    nifti.unlink()
    assert geometry_of(source_of([as_it_is])) is None


@pytest.mark.parametrize("agrees", [True, False])
@pytest.mark.parametrize(("typed", "is_asked"), [("cells", True), ("cells.tif", False), ("new", False)])
def test_a_file_that_gets_its_ending_later_is_not_replaced_unasked(
    qtbot: Any, tmp_path: Path, monkeypatch: Any, typed: str, is_asked: bool, agrees: bool
) -> None:
    (tmp_path / "cells.tif").write_text("mine")
    widget, ask = QWidget(), Mock(return_value=agrees)
    qtbot.addWidget(widget)
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(tmp_path / typed), "TIFF (*.tif)"))
    monkeypatch.setattr(actions, "ask", ask)
    output = actions.ask_for_output(widget, "Export", "labels.tif", "TIFF (*.tif)")
    assert ask.called == is_asked
    expected = str(tmp_path / ("new.tif" if typed == "new" else "cells.tif"))
    assert output == ("" if is_asked and not agrees else expected)
