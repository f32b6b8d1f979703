"""What `import napari_sparseseg` gives, and what it leaves alone."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata

import pytest
from packaging.version import Version

import napari_sparseseg

HEAVY = {"torch", "napari", "magicgui", "superqt", "qtpy", "PyQt5", "PyQt6", "PySide2", "PySide6"}


def packages_loaded_by(statement: str) -> set[str]:
    """Run a statement in a fresh interpreter; return the top-level packages it has loaded."""
    program = f"{statement}\nimport sys\nprint(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return {name.partition(".")[0] for name in result.stdout.split()}


@pytest.mark.parametrize(
    "statement",
    [
        "import napari_sparseseg",
        "import napari_sparseseg; napari_sparseseg.__version__",
        "import napari_sparseseg; dir(napari_sparseseg)",
        "from napari_sparseseg import SparseSegmenter",
        "from napari_sparseseg import SparseSegmenter; SparseSegmenter()",
        "from napari_sparseseg import ModelConfig, PredictionConfig, TrainingConfig",
        "from napari_sparseseg import SparseSegError",
    ],
)
def test_neither_torch_nor_a_gui_is_loaded_before_it_is_used(statement: str) -> None:
    loaded = packages_loaded_by(statement)
    assert "napari_sparseseg" in loaded
    assert loaded.isdisjoint(HEAVY)


def test_the_whole_public_api_loads_no_gui() -> None:
    loaded = packages_loaded_by("from napari_sparseseg import *")
    assert loaded.isdisjoint(HEAVY - {"torch"})


def test_dir_lists_the_public_names() -> None:
    public = dir(napari_sparseseg)
    assert {"SparseSegmenter", "ModelConfig", "TrainingConfig", "PredictionConfig", "SparseSegError"} <= set(public)
    assert set(napari_sparseseg.__all__) <= set(public)


@pytest.mark.parametrize("name", napari_sparseseg.__all__)
def test_every_public_name_resolves(name: str) -> None:
    value = getattr(napari_sparseseg, name)
    assert name == "__version__" or value.__name__ == name


def test_an_unknown_attribute_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'napari_sparseseg' has no attribute 'SparseSegmentor'"):
        napari_sparseseg.SparseSegmentor  # noqa: B018 - the access is the test


def test_the_version_is_the_one_installed() -> None:
    assert napari_sparseseg.__version__ == metadata.version("napari-sparseseg")
    assert str(Version(napari_sparseseg.__version__)) == napari_sparseseg.__version__
