"""What napari reads: the manifest, and the functions that it names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import napari_sparseseg
from napari_sparseseg._sample_data import tissue

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


def test_each_sample_opens(manifest: PluginManifest) -> None:
    from npe2 import PluginManager

    manager = PluginManager()
    manager.register(manifest)
    manager.activate(manifest.name)
    for contribution in manifest.contributions.sample_data or ():
        layers = contribution.open(_registry=manager.commands)
        assert [kind for _, _, kind in layers] == ["image"]


def test_each_command_is_used_and_defined(manifest: PluginManifest) -> None:
    defined = {command.id for command in manifest.contributions.commands or ()}
    used = {sample.command for sample in manifest.contributions.sample_data or ()}
    assert defined == used


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
