"""Help pages, completion, version, and how quick they are."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version

import pytest
from command_line import call, run

COMMANDS = ["demo", "train", "predict", "suggest", "objects", "evaluate", "info", "devices"]


def test_help_is_given_without_loading_what_is_slow():
    pages = [["--help"], ["-h"], *([name, "--help"] for name in COMMANDS)]
    code = (
        "import sys\n"
        "from napari_sparseseg.cli import app\n"
        "slow = {'torch', 'numpy', 'scipy', 'matplotlib', 'zarr', 'dask', 'tifffile', 'napari'}\n"
        f"for page in {pages!r}:\n"
        "    app(page, standalone_mode=False)\n"
        "    loaded = slow & set(sys.modules)\n"
        "    assert not loaded, (page, loaded)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    assert done.returncode == 0
    assert done.stdout.count("Usage:") == len(pages)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("width", ["80", "120"])
def test_each_command_has_examples_that_fit(name, width):
    done = call(name, "--help", env={"COLUMNS": width})
    lines = [line.strip() for line in done.stdout.splitlines()]
    examples = lines[lines.index("Examples") + 1 :]
    examples = [line for line in examples if line]
    assert examples
    assert all(line.startswith("napari-sparseseg ") for line in examples), examples
    assert any(line.startswith(f"napari-sparseseg {name}") for line in examples)


def test_the_overview_names_each_command_in_the_order_of_work():
    text = run("--help").stdout
    found = [text.index(f"│ {name} ") for name in COMMANDS]
    assert found == sorted(found)


def test_no_command_shows_the_help():
    done = run()
    assert done.returncode == 2
    assert "Usage: napari-sparseseg" in done.stdout + done.stderr


def test_version():
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"napari-sparseseg {version('napari-sparseseg')}\n")


def test_the_module_can_be_run():
    done = subprocess.run(
        [sys.executable, "-m", "napari_sparseseg.cli", "--version"], capture_output=True, text=True, check=False
    )
    assert done.stdout == f"napari-sparseseg {version('napari-sparseseg')}\n"


class TestCompletion:
    @pytest.mark.parametrize(
        ("typed", "found"),
        [
            ("napari-sparseseg ", set(COMMANDS)),
            ("napari-sparseseg tr", {"train"}),
            ("napari-sparseseg train --sp", {"--spacing"}),
            ("napari-sparseseg train --device c", {"cpu", "cuda"}),
            ("napari-sparseseg train --set training.dro", {"training.dropout="}),
        ],
    )
    def test_bash_is_told_what_may_follow(self, typed, found):
        n_words = len(typed.split(" ")) - 1
        environment = {"_NAPARI_SPARSESEG_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(n_words)}
        done = run(env=environment)
        assert set(done.stdout.split()) == found

    @pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
    def test_the_script_can_be_shown(self, shell):
        # else the shell that runs the tests is looked for
        done = run("--show-completion", shell, env={"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"})
        assert done.returncode == 0
        assert "_NAPARI_SPARSESEG_COMPLETE" in done.stdout

    @pytest.mark.skipif(os.name == "nt", reason="bash reads its files from HOME")
    def test_it_can_be_installed(self, tmp_path):
        environment = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1", "HOME": str(tmp_path)}
        done = run("--install-completion", "bash", env=environment)
        assert done.returncode == 0
        assert "napari-sparseseg" in (tmp_path / ".bashrc").read_text()
