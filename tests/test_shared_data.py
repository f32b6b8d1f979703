"""Tests of real volumes: found where they lie, skipped where they are not, failed where that is forbidden."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ASKING = {
    "fixture": "def test_it(shared_data):\n    assert (shared_data / 'volume').read_text() == 'voxels'\n",
    "marker": "import pytest\n\n@pytest.mark.shared\ndef test_it():\n    pass\n",
}


def run_tests(checkout: Path, source: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `source` as the only test of a checkout that has this project's conftest.py."""
    tests = checkout / "tests"
    tests.mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("conftest.py"), tests)
    (tests / "test_asking.py").write_text(source)
    (checkout / "pytest.ini").write_text("[pytest]\nmarkers = shared: real volumes\naddopts = --strict-markers\n")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SPARSESEG_", "PYTEST_"))}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-rs", "-p", "no:cacheprovider", *arguments],
        cwd=checkout,
        env=inherited | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def put_volume(shared: Path) -> None:
    (shared / "data").mkdir(parents=True)
    (shared / "data" / "volume").write_text("voxels")


@pytest.mark.parametrize("source", ASKING.values(), ids=ASKING)
def test_volumes_beside_the_checkout_are_found(tmp_path: Path, source: str) -> None:
    put_volume(tmp_path / "shared")
    result = run_tests(tmp_path / "checkout", source, SPARSESEG_REQUIRE_SHARED="1")
    assert result.returncode == 0, result.stdout
    assert "1 passed" in result.stdout


def test_the_environment_says_where_they_lie(tmp_path: Path) -> None:
    put_volume(tmp_path / "elsewhere")
    named = str(tmp_path / "elsewhere")
    result = run_tests(tmp_path / "checkout", ASKING["fixture"], SPARSESEG_SHARED=named, SPARSESEG_REQUIRE_SHARED="1")
    assert result.returncode == 0, result.stdout
    assert "1 passed" in result.stdout


@pytest.mark.parametrize("source", ASKING.values(), ids=ASKING)
def test_without_them_the_test_is_skipped_with_a_reason(tmp_path: Path, source: str) -> None:
    result = run_tests(tmp_path / "checkout", source)
    assert result.returncode == 0, result.stdout
    assert "1 skipped" in result.stdout
    assert "needs the real volumes" in result.stdout
    assert "SPARSESEG_SHARED" in result.stdout


@pytest.mark.parametrize("source", ASKING.values(), ids=ASKING)
def test_where_they_are_required_the_test_fails(tmp_path: Path, source: str) -> None:
    result = run_tests(tmp_path / "checkout", source, SPARSESEG_REQUIRE_SHARED="1")
    assert result.returncode == 1, result.stdout
    assert "1 error" in result.stdout
    assert "needs the real volumes" in result.stdout


@pytest.mark.parametrize("source", ASKING.values(), ids=ASKING)
def test_they_can_be_left_out(tmp_path: Path, source: str) -> None:
    result = run_tests(tmp_path / "checkout", source, "-m", "not shared", SPARSESEG_REQUIRE_SHARED="1")
    assert "1 deselected" in result.stdout
    assert "error" not in result.stdout


def test_a_volume_comes_with_its_classes_and_spacing(load_shared) -> None:
    image, truth, spacing = load_shared("arabidopsis_ovule_cells", "0:8,0:16,16:48")
    assert image.shape == truth.shape == (8, 16, 32)
    assert truth.dtype == np.uint8
    assert truth.min() >= 1
    assert spacing == (0.235, 0.15, 0.15)


def test_a_case_is_painted_in_agreement_with_its_truth(load_case) -> None:
    case = load_case("walls/slices3")
    painted = case.annotation > 0
    assert painted.any()
    assert not (painted & case.scored).any()
    np.testing.assert_array_equal(case.annotation[painted], case.truth[painted])
