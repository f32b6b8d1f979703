"""What napari reads: the manifest, and the functions that it names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import napari_sparseseg
from napari_sparseseg._sample_data import cells3d, tissue
from napari_sparseseg.samples import Sample

if TYPE_CHECKING:
    from npe2 import PluginManifest

PACKAGE = Path(napari_sparseseg.__file__).parent
REPOSITORY = Path(__file__).resolve().parent.parent

# npe2 declares its fields in a way that pydantic is going to drop.
pytestmark = pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`:DeprecationWarning")


@pytest.fixture
def manifest() -> PluginManifest:
    from npe2 import PluginManifest

    return PluginManifest.from_file(PACKAGE / "napari.yaml")


def test_manifest_is_valid(manifest: PluginManifest) -> None:
    manifest.validate_imports()
    assert manifest.name == "napari-sparseseg"
    assert [str(category) for category in manifest.categories] == ["Segmentation", "Annotation"]


@pytest.fixture
def downloaded(monkeypatch: pytest.MonkeyPatch) -> Sample:
    """The download of cells3d, much smaller: (z, channel, y, x)."""
    image = np.arange(4 * 2 * 5 * 6, dtype=np.uint16).reshape(4, 2, 5, 6)
    sample = Sample("cells3d", image, np.ones((4, 5, 6), np.uint8), (0.29, 0.26, 0.26), {1: "background"}, 1)
    monkeypatch.setattr("napari_sparseseg.samples.cells3d", lambda: sample)
    return sample


def test_each_sample_opens(manifest: PluginManifest, downloaded: Sample) -> None:
    from npe2 import PluginManager

    manager = PluginManager()
    manager.register(manifest)
    manager.activate(manifest.name)
    kinds = {
        contribution.key: [kind for _, _, kind in contribution.open(_registry=manager.commands)]
        for contribution in manifest.contributions.sample_data or ()
    }
    assert kinds == {"tissue": ["image"], "cells3d": ["image", "image"]}


def test_cells_open_as_napari_opens_channels(downloaded: Sample) -> None:
    membranes, nuclei = cells3d()
    np.testing.assert_array_equal(membranes[0], downloaded.image[:, 0])
    np.testing.assert_array_equal(nuclei[0], downloaded.image[:, 1])
    for _, settings, _ in (membranes, nuclei):
        assert settings["scale"] == (0.29, 0.26, 0.26)
        assert settings["units"] == ("micrometer",) * 3
        assert settings["blending"] == "additive"


def test_each_command_is_defined_once(manifest: PluginManifest) -> None:
    ids = [command.id for command in manifest.contributions.commands or ()]
    assert len(ids) == len(set(ids))
    used = {sample.command for sample in manifest.contributions.sample_data or ()}
    used |= {widget.command for widget in manifest.contributions.widgets or ()}
    used |= {item.command for items in manifest.contributions.menus.values() for item in items}
    assert used <= set(ids)


def test_the_dock_is_in_the_menu_where_people_look_for_segmentation(manifest: PluginManifest) -> None:
    (widget,) = manifest.contributions.widgets or ()
    assert widget.display_name == "Sparse Segmentation"
    (item,) = manifest.contributions.menus["napari/layers/segment"]
    assert item.command == widget.command


def test_nothing_is_declared_that_older_npe2_rejects(manifest: PluginManifest) -> None:
    text = (PACKAGE / "napari.yaml").read_text()
    assert "default_dock_area" not in text
    assert "tabify" not in text
    assert "keybindings" not in text


def test_napari_finds_where_to_put_the_viewer() -> None:
    """Napari looks at the parameters of the widget's class, where postponed annotations are text."""
    import inspect

    from napari_sparseseg.widgets.dock import SparseSegDock

    assert list(inspect.signature(SparseSegDock.__init__).parameters) == ["self", "napari_viewer"]


def test_manifest_lies_at_the_top_too() -> None:
    assert (REPOSITORY / "napari.yaml").read_bytes() == (PACKAGE / "napari.yaml").read_bytes()


def test_sample_is_a_layer_that_knows_its_voxel_size() -> None:
    ((image, settings, kind),) = tissue()
    assert kind == "image"
    assert image.ndim == 3
    assert image.dtype == np.uint16
    assert settings == {"name": "tissue", "scale": (0.5, 0.25, 0.25), "units": ("micrometer",) * 3}


def test_sample_needs_no_napari() -> None:
    code = (
        "import sys\n"
        "from napari_sparseseg._sample_data import tissue\n"
        "tissue()\n"
        "sys.exit(', '.join({'napari', 'qtpy', 'torch', 'npe2'} & set(sys.modules)) or None)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
