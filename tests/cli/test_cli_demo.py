"""`demo`: what is passed on, and what is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from napari_sparseseg import demo
from napari_sparseseg.demo import DemoResult


def result_in(output: Path) -> DemoResult:
    names = {1: "background", 2: "nucleus"}
    paths = (output / name for name in ("labels.ome.zarr", "model.safetensors", "summary.png"))
    return DemoResult({1: 0.9876, 2: float("nan")}, names, 12.34, 0.56, *paths)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    noted: list[dict[str, Any]] = []

    def note(output: Path, **options: Any) -> DemoResult:
        noted.append({"output": output, **options})
        return result_in(output)

    monkeypatch.setattr(demo, "run_demo", note)
    return noted


def test_defaults(invoke, calls):
    assert invoke("demo").exit_code == 0
    assert calls == [{"output": Path("demo-output"), "seconds": 60, "sample": "tissue", "seed": 0, "progress": False}]


def test_options(invoke, calls):
    options = ["--seconds", "2.5", "--output", "here", "--sample", "cells3d", "--seed", "4"]
    assert invoke("demo", *options).exit_code == 0
    assert calls == [{"output": Path("here"), "seconds": 2.5, "sample": "cells3d", "seed": 4, "progress": False}]


@pytest.mark.usefixtures("calls")
def test_report_goes_to_stdout_as_a_plain_table(invoke):
    result = invoke("demo", "--output", "here")
    assert result.stdout.splitlines() == [
        "Class       Dice over the planes without paint",
        "background  0.988",
        "nucleus     nan",
        "",
        "Learning    12.3 s",
        "Predicting  0.6 s",
        f"Labels      {Path('here/labels.ome.zarr')}",
        f"Model       {Path('here/model.safetensors')}",
        f"Picture     {Path('here/summary.png')}",
    ]
    assert result.stderr == ""


@pytest.mark.parametrize(
    "options", [["--seconds", "0"], ["--seconds", "soon"], ["--sample", "liver"], ["--seed", "-1"], ["--nonsense"]]
)
def test_bad_option_exits_2(invoke, calls, options):
    result = invoke("demo", *options)
    assert result.exit_code == 2
    assert options[0] in result.stderr
    assert not calls
