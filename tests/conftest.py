"""What all tests share: the real volumes that may lie beside the checkout, and the paintings of the benchmark."""

from __future__ import annotations

import gc
import importlib.util
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from coverage import Coverage

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from types import ModuleType

# qtpy and pytest-qt each choose a binding of their own accord, and not the same one, where several are installed.
os.environ.setdefault("QT_API", "pyside6")
os.environ["PYTEST_QT_API"] = os.environ["QT_API"]

REPOSITORY = Path(__file__).resolve().parent.parent
TRACED = [REPOSITORY / "tests" / n for n in ("engine", "storage", "test_measuring.py", "test_overlapping_classes.py")]


def find_shared_data() -> Path:
    """Return the folder of real volumes; skip the test where there is none, or fail where they are required.

    They are looked for in ``data`` below ``$SPARSESEG_SHARED`` or, without it, below ``../shared``.
    """
    shared = Path(os.environ.get("SPARSESEG_SHARED") or REPOSITORY.parent / "shared")
    data = shared / "data"
    if data.is_dir():
        return data
    reason = f"needs the real volumes, and there is no {data} (SPARSESEG_SHARED names the folder that holds data)"
    if os.environ.get("SPARSESEG_REQUIRE_SHARED") == "1":
        pytest.fail(f"{reason}; SPARSESEG_REQUIRE_SHARED=1 forbids to skip", pytrace=False)
    pytest.skip(reason)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what uses the real volumes, so that ``-m "not shared"`` leaves it out."""
    for item in items:
        if "shared_data" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.shared)


def pytest_collection_finish() -> None:
    """Spare every later garbage collection (each window ends with one) the objects that imports made."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Trace only the tests of what is held to a coverage: of the others, windows and all, tracing takes a quarter."""
    coverage = Coverage.current()
    if coverage is None or any(item.path.is_relative_to(traced) for traced in TRACED):
        return (yield)
    coverage.stop()
    try:
        return (yield)
    finally:
        coverage.start()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Look for the real volumes before a test marked ``shared``, whether it asks for them by a fixture or not."""
    if item.get_closest_marker("shared"):
        find_shared_data()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real volumes."""
    return find_shared_data()


@pytest.fixture(scope="session")
def sparsebench(shared_data: Path) -> ModuleType:
    """The benchmark script as a module, reading the real volumes."""
    specification = importlib.util.spec_from_file_location("sparsebench", REPOSITORY / "benchmarks" / "sparsebench.py")
    assert specification
    assert specification.loader
    module = importlib.util.module_from_spec(specification)
    sys.modules["sparsebench"] = module  # dataclasses look their module up there
    specification.loader.exec_module(module)
    module.DATA = shared_data
    return module


@pytest.fixture(scope="session")
def load_shared(sparsebench: ModuleType) -> Callable[..., Any]:
    """``load_shared(stem, crop=None)``: image, truth (uint8 classes 1..K) and spacing of one real volume.

    The crop is text, such as ``"0:32,0:64,0:64"``.
    """
    return sparsebench.load_volume


@pytest.fixture(scope="session")
def load_case(sparsebench: ModuleType) -> Callable[..., Any]:
    """``load_case("nuclei/slices3", seed=0)``: a real volume, painted as a person would, with its truth."""
    return sparsebench.load_case
