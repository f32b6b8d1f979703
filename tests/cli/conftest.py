"""Files that the commands work on, made once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from command_line import SMALL, call, make_volume, one_thread, paint, run, write_tiff


@dataclass(frozen=True)
class Files:
    """An image, paint on it, its truth, and a model that learnt from them."""

    folder: Path
    image: Path
    annotation: Path
    truth: Path
    model: Path
    printed: str = ""  # when the model was trained


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
    return replace(found, printed=done.stdout)


@pytest.fixture
def invoke():
    """Run a command in this process, which has torch already."""
    with one_thread():
        yield call
