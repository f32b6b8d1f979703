"""The page on large images, and the example that it names, keep their word."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import sys
from pathlib import Path

import dask
import numpy as np
import pytest
from typer.testing import CliRunner
from volumes import digest, make_image

from napari_sparseseg.cli import app
from napari_sparseseg.config import ModelConfig
from napari_sparseseg.engine.model import ModelSpec
from napari_sparseseg.storage.formats import open_image
from napari_sparseseg.storage.ome import write_image

REPOSITORY = Path(__file__).resolve().parents[2]
# a stand-in for SLURM: sbatch runs the script of a job at once, scancel ends it
BATCH_SYSTEM = {
    "sbatch": """#!/bin/sh
cp "$1" "$0.$$.job"
setsid sh "$0.$$.job" > "$0.log" 2>&1 &
echo "Submitted batch job $!"
""",
    "scancel": '#!/bin/sh\nkill -- "-$1"\n',
}
PAGE = (REPOSITORY / "docs" / "scale.md").read_text(encoding="utf-8")


@pytest.fixture
def files(model_file, tmp_path, monkeypatch):
    """The files that the page speaks of, in the working directory."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(model_file, "cells.safetensors")
    write_image("big.ome.zarr", make_image(), spacing=(1, 1, 1))


@pytest.mark.usefixtures("files")
class TestPage:
    def test_python(self, whole):
        blocks = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
        namespace = {}
        exec(compile("\n".join(blocks), "scale.md", "exec"), namespace)
        assert namespace["done"].n_voxels == whole.n_voxels
        expected = open_image(whole.labels).array[:, :, :]
        np.testing.assert_array_equal(open_image("labels.tif").array[:, :, :], expected)

    def test_command(self, whole, tmp_path):
        (line,) = re.findall(r"^napari-sparseseg (.*)$", PAGE, re.MULTILINE)
        result = CliRunner().invoke(app, line.replace("--workers 8", "--workers 2").split())
        assert result.exit_code == 0, result.output
        assert digest(tmp_path / "labels.ome.zarr" / "0") == digest(whole.labels / "0")

    def test_example(self, whole, tmp_path, monkeypatch, capsys):
        arguments = ["cells.safetensors", "big.ome.zarr", "labels.ome.zarr", "--local", "1"]
        monkeypatch.setattr(sys, "argv", ["predict_on_cluster.py", *arguments])
        runpy.run_path(str(REPOSITORY / "examples" / "predict_on_cluster.py"), run_name="__main__")
        assert digest(tmp_path / "labels.ome.zarr" / "0") == digest(whole.labels / "0")
        assert "8 shards, 0 of them from an earlier run" in capsys.readouterr().out

    @pytest.mark.skipif(sys.platform != "linux", reason="the stand-in needs setsid")
    def test_example_on_a_batch_system(self, whole, tmp_path, monkeypatch, capsys):
        commands = tmp_path / "bin"
        commands.mkdir()
        for name, script in BATCH_SYSTEM.items():
            (commands / name).write_text(script)
            (commands / name).chmod(0o755)
        monkeypatch.setenv("PATH", str(commands), prepend=os.pathsep)
        arguments = ["cells.safetensors", "big.ome.zarr", "labels.ome.zarr", "--slurm", "1", "--partition", "long"]
        monkeypatch.setattr(sys, "argv", ["predict_on_cluster.py", *arguments, "--memory", "4GB"])
        local = {"interface": "lo", "scheduler-options": {"dashboard_address": "127.0.0.1:0"}}
        with dask.config.set({f"jobqueue.slurm.{name}": value for name, value in local.items()}):
            runpy.run_path(str(REPOSITORY / "examples" / "predict_on_cluster.py"), run_name="__main__")
        assert digest(tmp_path / "labels.ome.zarr" / "0") == digest(whole.labels / "0")
        assert "8 shards, 0 of them from an earlier run" in capsys.readouterr().out
        jobs = [path.read_text() for path in commands.glob("*.job")]
        assert len(jobs) >= 1
        for line in ("#SBATCH -p long", "#SBATCH --mem=4G", "#SBATCH --gres=gpu:1", "#SBATCH -t 04:00:00"):
            assert all(line in job for job in jobs), jobs


def test_the_arithmetic_of_the_page():
    spec = ModelSpec(ModelConfig(), (1.0, 1.0, 1.0), 1, (False, False, False))
    n_shards, reach = 1e14 / 2**30, spec.bank.reach[0] + spec.build(2).unet.halo[0]
    assert f"the shard and {reach} voxels around it" in PAGE
    for shard in (256, 512):
        assert re.search(
            rf"{((shard + 2 * reach) / shard) ** 3:.1f} times (the voxels of a shard|those of one) of\s{shard}³", PAGE
        )
    assert f"| {(1024 + 2 * reach) ** 3 / 1e9:.1f} GB read" in PAGE
    assert f"{round(n_shards):,} files" in PAGE
    assert f"{((1024 + 2 * reach) / 1024) ** 3:.2f} times 100 TB" in PAGE
    assert "| part of 20 GB, one worker of one thread | 0.394 Mvoxel/s" in PAGE
    assert f"{round(1e14 / 1e6 / 3600 / 0.394, -2):,.0f} core-hours" in PAGE
    assert f"{1e14 / 1e6 / 3600 / 25:,.0f} GPU-hours" in PAGE
    np.testing.assert_allclose([70_500 / 128 / 24, 1e14 / 25e6 / 3600 / 16], [23, 69], atol=0.5)
