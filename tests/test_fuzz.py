"""The fuzzer: a short run with a fixed seed, and that it sees what it looks for."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
BENCHMARKS = REPOSITORY / "benchmarks"

forks = pytest.mark.skipif(sys.platform != "linux", reason="children are forked, with limits that Linux keeps")


def run(*command: str, cwd: Path) -> tuple[int, str]:
    """Run Python; its exit status and what it printed."""
    done = subprocess.run([sys.executable, *command], cwd=cwd, capture_output=True, text=True, timeout=280, check=False)
    return done.returncode, done.stdout + done.stderr


@forks
def test_a_short_run_finds_nothing(tmp_path):
    status, said = run(str(BENCHMARKS / "fuzz.py"), "--inputs", "90", "--seed", "6", "--keep", "kept", cwd=tmp_path)
    figures = json.loads(said.splitlines()[-1])
    assert (figures["crashes"], figures["hangs"], figures["unclear_errors"]) == (0, 0, 0), said
    assert figures["inputs"] == 90
    assert figures["refused"] > 20, "the inputs are hardly damaged"
    assert status == 0
    assert not (tmp_path / "kept").exists()


PLANTED = """
import ctypes, json, sys
from pathlib import Path
sys.path.insert(0, {benchmarks!r})
import fuzz
from fuzzing.mutators import DECOY, text_of_some_file
from fuzzing.target import Target
from napari_sparseseg.errors import InputError

fuzz.CPU_SECONDS = 2

def make(folder):
    (folder / "input").write_text("12 34 56")
    return [folder / "input"]

def crash(path): ctypes.string_at(0)
def hang(path):
    while True: pass
def take(path): return len(bytearray(600 << 20))
def claim(path): return bytearray(1 << 40)
def escape(path): (path.parent.parent / DECOY).read_bytes()
def unclear(path): raise InputError("no")
def other(path): raise KeyError(1)
def refuse(path): raise InputError(f"{{path}} is damaged; copy it anew")
def fine(path): path.read_bytes()

found = {{}}
for use in (crash, hang, take, claim, escape, unclear, other, refuse, fine):
    target = Target(use.__name__, make, (text_of_some_file,), use)
    folder = Path("work") / use.__name__
    folder.mkdir(parents=True)
    fuzzer = fuzz.Fuzzer([target], 0, folder.resolve(), Path("kept"))
    fuzzer.run(0, 2)
    found[use.__name__] = dict(fuzzer.figures)
print(json.dumps(found))
"""


@forks
def test_every_kind_of_failure_is_seen_and_kept(tmp_path):
    status, said = run("-c", PLANTED.format(benchmarks=str(BENCHMARKS)), cwd=tmp_path)
    assert status == 0, said
    found = json.loads(said.splitlines()[-1])
    expected = {
        **dict.fromkeys(("crash", "take", "claim", "escape"), "crashes"),
        "hang": "hangs",
        "unclear": "unclear_errors",
        "other": "unclear_errors",
        "refuse": "refused",
    }
    for name, figures in found.items():
        kinds = {kind for kind, count in figures.items() if count and kind != "inputs"}
        assert kinds == ({expected[name]} if name in expected else set()), (name, figures)
        assert figures["inputs"] == 2, "after a child that died comes another"
        assert all(figures[kind] == 2 for kind in kinds), (name, figures)
    kept = {path.name.partition("-")[2] for path in (tmp_path / "kept").iterdir()}
    assert kept == {name for name, kind in expected.items() if kind != "refused"}


@pytest.fixture
def fuzzing(monkeypatch):
    """The fuzzer's own modules."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from fuzzing import judge, mutators

    return mutators, judge


def test_the_same_seed_makes_the_same_input(fuzzing):
    mutators, _ = fuzzing
    content = bytes(range(256)) * 4
    first, again = ([mutators.mutate_bytes(content, np.random.default_rng(s)) for s in range(50)] for _ in range(2))
    assert first == again
    assert len(set(first)) > 40


def test_mutated_json_is_another_and_leaves_the_original(fuzzing):
    mutators, _ = fuzzing
    value = {"a": [1, {"b": "c"}], "d": 2.5}
    text = json.dumps(value)
    found = {mutators.odd_json(value, np.random.default_rng(seed)) for seed in range(200)}
    assert json.dumps(value) == text
    assert len(found) > 100


@pytest.mark.parametrize(
    ("message", "lacks"),
    [
        ("a.tif is damaged; copy it anew", ""),
        ("damaged; copy it anew", "does not name the file"),
        ("a.tif is damaged", "does not say what to do"),
        ("a.tif is\ndamaged; copy it anew", "2 lines"),
        ("a.tif is damaged; copy it anew" + "!" * 2000, "2030 characters"),
    ],
)
def test_a_clear_message_names_the_file_and_says_what_to_do(fuzzing, message, lacks):
    _, judge = fuzzing
    assert lacks in judge.unclear(message, Path("x/a.tif"))
    assert bool(lacks) == bool(judge.unclear(message, Path("x/a.tif")))


# --- nothing in a file is run ---

_RUNS_CODE = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml"}
_CALLS = {"eval", "exec", "torch.load", "torch.jit.load", "torch.hub.load", "pandas.read_pickle", "pd.read_pickle"}


def offences(source: str) -> list[str]:
    """What in a module could run code out of a file."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        found += [name for name in names if name.split(".")[0] in _RUNS_CODE]
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            keywords = {word.arg: ast.unparse(word.value) for word in node.keywords}
            is_numpy = name.endswith(("np.load", "numpy.load")) and keywords.get("allow_pickle") != "False"
            if name in _CALLS or is_numpy or keywords.get("allow_pickle") == "True":
                found.append(name)
    return found


def test_no_module_runs_what_a_file_says():
    modules = sorted((REPOSITORY / "src").rglob("*.py"))
    assert len(modules) > 50
    found = {str(path.relative_to(REPOSITORY)): offences(path.read_text(encoding="utf-8")) for path in modules}
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import torch\ntorch.load(path)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "numpy.load(path, mmap_mode='r')",
        "eval(text)",
        "import yaml",
    ],
)
def test_what_would_run_it_is_found(source):
    assert offences(source)


def test_what_would_not_is_not():
    assert not offences("np.load(path, allow_pickle=False)\nfrom safetensors.torch import load\nload(content)")
