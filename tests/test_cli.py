from __future__ import annotations

import os
import signal
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from napari_sparseseg import demo
from napari_sparseseg.cli import app
from napari_sparseseg.demo import DemoResult
from napari_sparseseg.errors import InputError

COMMAND = [sys.executable, "-m", "napari_sparseseg.cli"]


def is_installed() -> bool:
    try:
        version("napari-sparseseg")
    except PackageNotFoundError:
        return False
    return True


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=120, check=False)


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


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(demo, "run_demo", fail)


class TestDemo:
    def test_defaults(self, calls: list[dict[str, Any]]) -> None:
        assert CliRunner().invoke(app, ["demo"]).exit_code == 0
        assert calls == [
            {"output": Path("demo-output"), "seconds": 60, "sample": "tissue", "seed": 0, "progress": False}
        ]

    def test_options(self, calls: list[dict[str, Any]]) -> None:
        options = ["--seconds", "2.5", "--output", "here", "--sample", "cells3d", "--seed", "4"]
        assert CliRunner().invoke(app, ["demo", *options]).exit_code == 0
        assert calls == [{"output": Path("here"), "seconds": 2.5, "sample": "cells3d", "seed": 4, "progress": False}]

    @pytest.mark.usefixtures("calls")
    def test_report_goes_to_stdout_as_a_plain_table(self) -> None:
        result = CliRunner().invoke(app, ["demo", "--output", "here"])
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
        assert result.stderr.splitlines() == ["Learning for 60 s from three painted slices of the sample 'tissue'."]

    @pytest.mark.parametrize(
        "options", [["--seconds", "0"], ["--seconds", "soon"], ["--sample", "liver"], ["--seed", "-1"], ["--nonsense"]]
    )
    def test_bad_option_exits_2(self, calls: list[dict[str, Any]], options: list[str]) -> None:
        result = CliRunner().invoke(app, ["demo", *options])
        assert result.exit_code == 2
        assert options[0] in result.stderr
        assert not calls


class TestErrors:
    def test_own_error_is_one_sentence(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fail_with(monkeypatch, InputError("The volume is too small; take a larger one."))
        result = CliRunner().invoke(app, ["demo"])
        assert result.exit_code == 1
        assert result.stderr.splitlines()[1:] == ["Error: The volume is too small; take a larger one."]
        assert result.stdout == ""

    def test_debug_shows_where(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fail_with(monkeypatch, error := InputError("too small"))
        result = CliRunner().invoke(app, ["--debug", "demo"])
        assert result.exit_code == 1
        assert result.exception is error

    def test_other_errors_are_not_hidden(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fail_with(monkeypatch, error := ZeroDivisionError("a bug"))
        result = CliRunner().invoke(app, ["demo"])
        assert result.exit_code == 1
        assert result.exception is error

    def test_interrupt_exits_130(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fail_with(monkeypatch, KeyboardInterrupt())
        result = CliRunner().invoke(app, ["demo"])
        assert result.exit_code == 130
        assert result.stderr.splitlines()[1:] == ["Interrupted."]

    def test_no_traceback_in_a_real_process(self, tmp_path: Path) -> None:
        (tmp_path / "taken").write_text("")
        done = run("demo", "--output", str(tmp_path / "taken"))
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith("Error: The folder ")
        assert "Traceback" not in done.stderr
        assert "Traceback" in run("--debug", "demo", "--output", str(tmp_path / "taken")).stderr

    @pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
    def test_interrupt_of_a_real_process_leaves_nothing(self, tmp_path: Path) -> None:
        with subprocess.Popen(
            [*COMMAND, "demo", "--output", str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stderr is not None
            assert process.stderr.readline().startswith("Learning for 60 s")
            process.send_signal(signal.SIGINT)
            stdout, stderr = process.communicate(timeout=60)
        assert process.returncode == 130
        assert stdout == ""
        assert stderr.splitlines()[-1] == "Interrupted."
        assert not list(tmp_path.iterdir())


class TestHelp:
    @pytest.mark.parametrize("arguments", [["--help"], ["demo", "--help"], ["-h"]])
    def test_help_is_given_without_loading_what_is_slow(self, arguments: list[str]) -> None:
        code = (
            "import sys\n"
            "from napari_sparseseg.cli import app\n"
            f"app({arguments!r}, standalone_mode=False)\n"
            "slow = {'torch', 'numpy', 'scipy', 'skimage', 'matplotlib', 'zarr', 'napari', 'qtpy'}\n"
            "sys.exit(', '.join(slow & set(sys.modules)) or None)\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
        assert done.stderr == ""
        assert done.returncode == 0
        assert "demo" in done.stdout

    def test_help_has_an_example_and_the_defaults(self) -> None:
        text = run("demo", "--help").stdout
        assert "Example: napari-sparseseg demo --seconds 30 --output demo-output" in " ".join(text.split())
        assert "[default: 60]" in text

    def test_no_command_shows_the_help(self) -> None:
        done = run()
        assert done.returncode == 2
        assert "Usage: napari-sparseseg" in done.stdout + done.stderr

    @pytest.mark.skipif(not is_installed(), reason="the version is that of the installed package")
    def test_version(self) -> None:
        done = run("--version")
        assert done.returncode == 0
        assert done.stdout == f"napari-sparseseg {version('napari-sparseseg')}\n"
