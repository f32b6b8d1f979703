"""The documentation keeps its word: what is public is described, and the code on the pages runs."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
from collections.abc import Iterator
from functools import cached_property, partial
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from typer.testing import CliRunner

import napari_sparseseg
from napari_sparseseg import Project, SparseSegmenter, samples
from napari_sparseseg.cli import app
from napari_sparseseg.live.events import LiveEvents
from napari_sparseseg.storage.formats import open_annotation

REPOSITORY = Path(__file__).resolve().parent.parent
REFERENCE = REPOSITORY / "docs" / "api"


def python_blocks(page: Path) -> str:
    """The page as one program: its python blocks, each on the lines where it stands, and nothing on the others."""
    text = page.read_text(encoding="utf-8")
    program = [""] * (text.count("\n") + 1)
    for block in re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        first = text.count("\n", 0, block.start(1))
        lines = block[1].splitlines()
        program[first : first + len(lines)] = lines
    return "\n".join(program)


def run_page(page: Path, prelude: dict[str, Any] | None = None) -> dict[str, Any]:
    """Run the blocks of a page in one namespace, which is returned; a traceback shows the page's own lines."""
    namespace = {"__name__": "__main__", **(prelude or {})}
    exec(compile(python_blocks(page), page, "exec"), namespace)  # these are our own pages
    return namespace


def expanded(word: str) -> list[str]:
    """What a shell makes of a word with an asterisk."""
    return sorted(map(str, Path().glob(word))) if "*" in word else [word]


def commands_on(page: Path) -> list[list[str]]:
    """Arguments of each `napari-sparseseg` that stands on a line of its own in a block of the page."""
    lines = re.findall(r"^(?: {4})?napari-sparseseg (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    words = [shlex.split(line) for line in lines]
    return [[part for word in line for part in expanded(word)] for line in words]


@pytest.fixture
def in_a_hurry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Small volumes, two steps instead of a minute, and an empty folder to write into."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several wait for each other where other processes run
    learn = SparseSegmenter._learn
    config = SparseSegmenter._config

    def learn_little(self: SparseSegmenter, *data: Any, **options: Any) -> SparseSegmenter:
        return learn(self, *data, **options | {"max_seconds": None, "max_steps": 2})

    def config_little(self: SparseSegmenter, group: str) -> Any:
        little = {"warm_start_steps": 10, "patch_voxels": 4096} if group == "training" else {}
        return config(self, group).with_changes(**little)

    monkeypatch.setattr(SparseSegmenter, "_learn", learn_little)
    monkeypatch.setattr(SparseSegmenter, "_config", config_little)
    monkeypatch.setattr(samples, "tissue", partial(samples.tissue, (24, 32, 32)))
    monkeypatch.chdir(tmp_path)
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture
def painted_files(in_a_hurry: None) -> None:
    """The files that the pages speak of."""
    Path("images").mkdir()
    for seed, name in enumerate(("cells", "more", "tissue")):
        sample = samples.tissue(seed=seed)
        volumes = {"": sample.image, "-painted": samples.paint_slices(sample.truth), "-truth": sample.truth}
        for part, volume in volumes.items():
            calibration = {"axes": "ZYX", "spacing": sample.spacing[0], "unit": "um"}
            tifffile.imwrite(f"{name}{part}.tif", volume, imagej=True, resolution=(4, 4), metadata=calibration)
        tifffile.imwrite(f"images/{name}.tif", sample.image, imagej=True, metadata={"axes": "ZYX"})


@pytest.mark.usefixtures("in_a_hurry")
class TestCodeOnThePages:
    def test_python_page(self) -> None:
        result = run_page(REPOSITORY / "docs" / "python.md")
        assert result["labels"].shape == result["image"].shape
        assert set(np.unique(result["labels"])) <= {1, 2, 3}
        assert 0 <= result["dice"] <= 1

    def test_files_page(self, painted_files: None) -> None:
        result = run_page(REPOSITORY / "docs" / "files.md")
        written = open_annotation("labels.ome.zarr")
        np.testing.assert_array_equal(np.asarray(written.array), result["labels"])
        assert written.class_names[2] == "nucleus"

    @pytest.mark.parametrize("page", ["index", "install", "command-line", "objects"])
    def test_commands(self, page: str, painted_files: None, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("napari_sparseseg.demo.tissue", samples.tissue)
        commands = commands_on(REPOSITORY / "docs" / f"{page}.md")
        assert commands
        for arguments in commands:
            result = CliRunner().invoke(app, arguments)
            assert result.exit_code == 0, f"{arguments}: {result.output}"

    def test_objects_page(self) -> None:
        result = run_page(REPOSITORY / "docs" / "objects.md")
        assert result["objects"].shape == result["sample"].image.shape
        assert set(result["table"]["id"]) <= set(np.unique(result["objects"]).tolist())

    def test_project_page(self) -> None:
        result = run_page(REFERENCE / "project.md")
        assert result["annotation"].shape == (1, 16, 64, 64)
        assert len(result["strokes"]) == 1

    def test_readme(self) -> None:
        sample, other = samples.tissue(), samples.tissue(seed=1)
        annotation = samples.paint_slices(sample.truth)
        result = run_page(
            REPOSITORY / "README.md",
            {"image": sample.image, "annotation": annotation, "corrected": annotation, "another_image": other.image},
        )
        assert result["labels"].shape == other.image.shape
        assert result["probabilities"].shape == (3, *sample.image.shape)


def test_blocks_keep_their_lines(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\n\n```python\na = 1\n```\n\n```\nnot python\n```\n\n```python\nb = a\n```\n")
    lines = enumerate(python_blocks(page).splitlines(), start=1)
    assert [(number, line) for number, line in lines if line] == [(4, "a = 1"), (12, "b = a")]


# --- the reference ---


def documented() -> set[str]:
    """Every name that the reference describes by its docstring."""
    pages = [page.read_text(encoding="utf-8") for page in REFERENCE.glob("*.md")]
    return {name for page in pages for name in re.findall(r"^::: (\S+)$", page, re.MULTILINE)}


def resolve(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


@pytest.mark.parametrize("name", sorted({*napari_sparseseg.__all__} - {"__version__"}))
def test_every_public_name_is_in_the_reference(name: str) -> None:
    assert f"napari_sparseseg.{name}" in documented()


def members(value: type) -> dict[str, Any]:
    """Public methods and properties that a class itself defines."""
    found = {name: m.__func__ if isinstance(m, classmethod) else m for name, m in vars(value).items()}
    return {
        name: m
        for name, m in found.items()
        if not name.startswith("_") and (callable(m) or isinstance(m, property | cached_property))
    }


def unnamed_parameters(function: Any, text: str) -> set[str]:
    """Parameters that a docstring with a section on them leaves out."""
    _, heading, rest = text.partition("\nParameters\n----------\n")
    section = re.split(r"\n\w+\n---", rest)[0]
    named = {name for line in re.findall(r"^\w.*$", section, re.MULTILINE) for name in re.findall(r"\w+", line)}
    return set(inspect.signature(function).parameters) - {"self", "cls"} - named if heading else set()


@pytest.mark.parametrize("path", sorted(documented()))
def test_everything_in_the_reference_has_docstrings(path: str) -> None:
    value = resolve(path)
    assert inspect.getdoc(value)
    found = [c for c in vars(value).values() if inspect.isclass(c) and c.__module__ == path]
    for each in found if inspect.ismodule(value) else [value] if inspect.isclass(value) else []:
        assert [name for name, member in members(each).items() if not inspect.getdoc(member)] == []


@pytest.mark.parametrize("path", sorted(path for path in documented() if inspect.isclass(resolve(path))))
def test_every_parameter_of_a_class_is_described(path: str) -> None:
    value = resolve(path)
    assert unnamed_parameters(value.__init__, inspect.getdoc(value) or "") == set()


@pytest.mark.parametrize("method", [Project.create, Project.open, Project.add_image])
def test_every_parameter_of_a_method_is_described(method: Any) -> None:
    text = inspect.getdoc(method) or ""
    assert "Parameters" in text
    assert unnamed_parameters(method, text) == set()


def test_every_signal_is_described() -> None:
    (body,) = (
        node.body for node in ast.walk(ast.parse(inspect.getsource(LiveEvents))) if isinstance(node, ast.ClassDef)
    )
    for statement, after in pairwise([*body, None]):
        if isinstance(statement, ast.Assign):
            assert isinstance(after, ast.Expr), ast.unparse(statement)


@pytest.mark.parametrize("name", ["ModelConfig", "TrainingConfig", "PaintConfig", "PredictionConfig", "ObjectConfig"])
def test_every_setting_is_described(name: str) -> None:
    for setting, field in getattr(napari_sparseseg, name).model_fields.items():
        assert field.title, setting
        assert field.description, setting
        assert field.description.endswith("."), setting
