"""The installed command, and small volumes that it learns in a moment."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tifffile
import torch
from scipy import ndimage
from typer.testing import CliRunner

from napari_sparseseg.cli import app

# installed beside the interpreter, as `pip install` leaves it
COMMAND = str(Path(sys.executable).with_name("napari-sparseseg"))
SPACING = (2.0, 0.5, 0.25)
ONE_THREAD = {"OMP_NUM_THREADS": "1"}  # two threads on a busy machine wait for each other
# a network that learns in a moment
SMALL = [
    *(
        "--set",
        "model.width=4",
        "--set",
        "model.depth=2",
        "--set",
        "model.scales=1,2,4",
        "--set",
        "model.head_width=16",
    ),
    *("--set", "training.warm_start_steps=60", "--set", "training.patch_voxels=2048"),
    *("--steps", "3", "--seed", "0", "--device", "cpu"),
]


def run(
    *arguments: object, env: dict[str, str] | None = None, encoding: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the installed command without a terminal; `encoding` is that of what it prints."""
    command = [COMMAND, *map(str, arguments)]
    environment = os.environ | ONE_THREAD | (env or {}) | ({"PYTHONIOENCODING": encoding} if encoding else {})
    how = {"capture_output": True, "text": True, "encoding": encoding}
    return subprocess.run(command, **how, timeout=240, check=False, env=environment)


def call(*arguments, **options):
    """Run a command in this process, which spares loading torch anew."""
    return CliRunner().invoke(app, [str(a) for a in arguments], **options)


@contextmanager
def one_thread():
    """Compute on one thread: two on a busy machine wait for each other."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


def write_tiff(path, array, axes="ZYX", spacing=SPACING):
    """An ImageJ TIFF with voxel size."""
    metadata = {"axes": axes}
    options = {}
    if spacing is not None:
        metadata |= {"spacing": spacing[0], "unit": "um"}
        options = {"resolution": (1 / spacing[2], 1 / spacing[1])}
    tifffile.imwrite(path, array, imagej=True, metadata=metadata, **options)
    return path


def make_volume(shape=(6, 24, 32), seed=0):
    """An image that is easy to segment, and its truth: 1 outside of blobs, 2 inside."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.standard_normal(shape), (1, 3, 3))
    truth = (1 + (smooth > smooth.mean())).astype(np.uint8)
    image = (1000.0 * truth + rng.normal(0, 100, shape)).astype(np.uint16)
    return image, truth


def paint(truth):
    """One painted slice."""
    annotation = np.zeros_like(truth)
    annotation[len(truth) // 2] = truth[len(truth) // 2]
    return annotation
