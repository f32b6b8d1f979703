"""`suggest`: slices to paint next, as a table."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from command_line import write_tiff

from napari_sparseseg import SparseSegmenter


def suggested(stdout):
    """Rows below the header: (orientation, index), score, spot."""
    lines = [line.split() for line in stdout.splitlines()[1:]]
    return [((line[0], int(line[1])), float(line[2]), tuple(int(n.rstrip(",")) for n in line[3:])) for line in lines]


@pytest.mark.parametrize("method", ["intervals", "uncertainty"])
def test_the_table_is_what_python_suggests(invoke, files, method):
    done = invoke("suggest", files.model, files.image, "--paint", files.annotation, "--method", method, "--across", "z")

    assert done.exit_code == 0, done.output
    segmenter = SparseSegmenter.load(files.model, device="cpu")
    image, paint = tifffile.imread(files.image), tifffile.imread(files.annotation)
    wanted = segmenter.suggest_slices(image, paint, method=method, axes=[0])
    assert suggested(done.stdout) == [
        (("z", advice.index), pytest.approx(advice.score, abs=6e-4), advice.spot) for advice in wanted
    ]


def test_the_voxel_size_says_on_which_orientations_one_can_paint(invoke, files):
    command = ["suggest", files.model, files.image, "--paint", files.annotation, "-n", 9]
    thick, cubes = (invoke(*command, *options) for options in ([], ["--spacing", "0.5,0.5,0.5"]))
    assert {axis for (axis, _), _, _ in suggested(thick.stdout)} == {"z"}
    assert {axis for (axis, _), _, _ in suggested(cubes.stdout)} == {"z", "y", "x"}


def test_of_a_series_each_painted_time_point_is_told(invoke, files, tmp_path):
    image, paint = tifffile.imread(files.image), tifffile.imread(files.annotation)
    write_tiff(tmp_path / "image.tif", np.stack([image] * 3), axes="TZYX")
    write_tiff(tmp_path / "paint.tif", np.stack([paint, 0 * paint, paint]), axes="TZYX")

    done = invoke("suggest", files.model, tmp_path / "image.tif", "--paint", tmp_path / "paint.tif", "-n", 2)

    assert done.exit_code == 0, done.output
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["Time", "0", "0", "2", "2"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--method", "chance"], "choose intervals or uncertainty"),
        (["--across", "t"], "letters of z, y, x"),
        (["-n", "0"], "greater than or equal to 1"),
    ],
)
def test_what_cannot_be_suggested_is_one_sentence(invoke, files, arguments, text):
    done = invoke("suggest", files.model, files.image, "--paint", files.annotation, *arguments)

    assert done.exit_code != 0
    assert text in " ".join(done.output.replace("│", " ").split())
