"""The examples run from start to end, in a few seconds instead of minutes."""

from __future__ import annotations

import csv
import runpy
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
import numpy as np
import pytest
import tifffile
import torch
from nbclient import NotebookClient

from napari_sparseseg import SparseSegmenter
from napari_sparseseg.storage.formats import open_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Compute on one thread, here and in the notebook: several wait for each other where other processes run."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture
def run_script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """``run_script(name, *arguments)`` runs an example as from a shell, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(name: str, *arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")

    return run


def is_png(path: Path) -> bool:
    return path.read_bytes().startswith(b"\x89PNG")


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_train_and_predict_on_real_files(
    run_script: Callable[..., None], load_case: Callable[..., Any], tmp_path: Path
) -> None:
    case = load_case("crop/slices3", {"crop": ("arabidopsis_ovule_nuclei_00", "0:24,40:104,40:104")})
    z, y, x = case.spacing
    calibration = {"axes": "ZYX", "spacing": z, "unit": "um"}
    tifffile.imwrite("image.tif", case.image, imagej=True, resolution=(1 / x, 1 / y), metadata=calibration)
    tifffile.imwrite("annotation.tif", case.annotation, imagej=True, metadata={"axes": "ZYX"})

    run_script("train_and_predict.py", "--image", "image.tif", "--annotation", "annotation.tif", "--seconds", 4)

    written = open_image(tmp_path / "example-output" / "labels.tif")
    assert written.spacing == pytest.approx(case.spacing)
    assert written.unit == "micrometer"
    labels = np.asarray(written.array)
    assert (labels == case.truth)[case.scored].mean() > 0.8
    assert is_png(tmp_path / "example-output" / "slices.png")
    again = SparseSegmenter.load(tmp_path / "example-output" / "model.safetensors")
    np.testing.assert_array_equal(again.predict(case.image), labels)


def test_train_and_predict_without_files(run_script: Callable[..., None], tmp_path: Path) -> None:
    run_script("train_and_predict.py", "--seconds", 1)
    assert open_image(tmp_path / "example-output" / "labels.tif").array.shape == (48, 128, 128)


def test_image_without_annotation_is_refused(run_script: Callable[..., None]) -> None:
    with pytest.raises(SystemExit, match="2"):
        run_script("train_and_predict.py", "--image", "image.tif")


def test_sweep_over_a_real_volume(run_script: Callable[..., None], shared_data: Path, tmp_path: Path) -> None:
    volume = shared_data / "msd_hippocampus_00.npz"
    run_script("sweep_painted_slices.py", "--volume", volume, "--slices", 1, 3, "--seeds", 2, "--seconds", 0.5)
    rows = rows_of(tmp_path / "sweep-output" / "sweep.csv")
    assert [(row["painted_slices"], row["seed"]) for row in rows] == [("1", "0"), ("1", "1"), ("3", "0"), ("3", "1")]
    assert all(0 <= float(row["mean_dice"]) <= 1 for row in rows)
    assert is_png(tmp_path / "sweep-output" / "sweep.png")


def test_sweep_over_the_generated_tissue(run_script: Callable[..., None], tmp_path: Path) -> None:
    run_script("sweep_painted_slices.py", "--slices", 2, "--seeds", 1, "--seconds", 2)
    (row,) = rows_of(tmp_path / "sweep-output" / "sweep.csv")
    assert float(row["mean_dice"]) > 0.4


def test_quickstart_notebook(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("QUICKSTART_SECONDS", "1")
    notebook = nbformat.read(EXAMPLES / "quickstart.ipynb", as_version=4)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.output_type == "stream" and output.name == "stderr"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 4
    assert (tmp_path / "tissue.safetensors").is_file()


def test_the_notebook_is_stored_without_its_outputs() -> None:
    notebook = nbformat.read(EXAMPLES / "quickstart.ipynb", as_version=4)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)
