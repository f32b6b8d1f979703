"""Files that the commands work on, made once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from command_line import SMALL, make_volume, paint, run, write_tiff


@dataclass(frozen=True)
class Files:
    """An image, paint on it, its truth, and a model that learnt from them."""

    folder: Path
    image: Path
    annotation: Path
    truth: Path
    model: Path


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """Made once, by the installed command; tests write elsewhere."""
    folder = tmp_path_factory.mktemp("cli")
    image, truth = make_volume()
    found = Files(
        folder, folder / "image.tif", folder / "paint.tif", folder / "truth.tif", folder / "model.safetensors"
    )
    write_tiff(found.image, image)
    write_tiff(found.annotation, paint(truth))
    write_tiff(found.truth, truth)
    done = run("train", found.image, found.annotation, "-o", found.model, *SMALL)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return found


@pytest.fixture
def invoke():
    """Run a command in this process, which has torch already."""
    import torch
    from typer.testing import CliRunner

    from napari_sparseseg.cli import app

    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two threads on a busy machine wait for each other

    def call(*arguments):
        return CliRunner().invoke(app, [str(a) for a in arguments])

    yield call
    torch.set_num_threads(n_threads)
