"""The benchmark of weak labels: what it prints, what it keeps, and the paint that it simulates."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

import sparsebench
import weak_labels
from weak import allowed_sets, common, orientations, uncertain, weights


@pytest.fixture
def case():
    """Two balls in noise, three slices of which are painted."""
    z, y, x = np.indices((24, 40, 40))
    truth = np.ones(z.shape, np.uint8)
    for center in ((9, 12, 12), (14, 26, 28)):
        truth[(z - center[0]) ** 2 + (y - center[1]) ** 2 + (x - center[2]) ** 2 < 64] = 2
    rng = np.random.default_rng(0)
    image = (truth * 60 + rng.normal(0, 10, truth.shape)).astype(np.uint8)
    annotation, planes = sparsebench.paint(truth, "slices3", rng)
    scored = np.ones(truth.shape, bool)
    for axis, index in planes:
        scored[sparsebench.on_plane(axis, index)] = False
    return sparsebench.Case("balls/slices3", image, annotation, truth, scored, (1.0, 1.0, 1.0), None, 0)


@pytest.fixture
def a_method(monkeypatch):
    """A method whose gain is 0.1 for seed 0 and -0.1 for seed 1; returns the list of what was asked for."""
    asked = []

    class Fake(weak_labels.Method):
        @property
        def compare(self):
            def compare(volumes, seeds, quick):
                asked.append((*volumes, *seeds))
                return common.result_of([common.row_of(volumes[0], seeds[0], 0.5, 0.6 - 0.2 * seeds[0], extra=1)])

            return compare

    monkeypatch.setattr(weak_labels, "METHODS", {"fake": Fake("common", "not so / so")})
    return asked


def test_last_line_is_json_and_a_second_run_measures_nothing(a_method, tmp_path, monkeypatch, capsys):
    out = tmp_path / "rows.jsonl"
    arguments = ["--quick", "--volumes", "hippocampus", "walls", "--seeds", "0", "1", "--only", "fake"]
    monkeypatch.setattr(sys, "argv", ["weak_labels.py", *arguments, "--out", str(out)])
    weak_labels.main()
    printed = capsys.readouterr().out
    assert json.loads(printed.splitlines()[-1]) == {"fake": {"without": 0.5, "with": 0.5}, "reference_tests": 1}
    assert "| fake | walls | 2 | 0.500 ± 0.000 | 0.500 ± 0.100 | +0.000 ± 0.100 |" in printed
    assert [json.loads(line)["extra"] for line in out.read_text().splitlines()] == [1] * 4
    assert len(a_method) == 4
    weak_labels.main()
    assert len(a_method) == 4
    assert capsys.readouterr().out.splitlines()[-1] == printed.splitlines()[-1]


def test_fills_the_tables_of_a_page_and_leaves_those_without_rows():
    page = "a\n<!-- table: one -->\nold\n<!-- end -->\nb\n<!-- table: two -->\nold\n<!-- end -->\n"
    rows = [{"method": "one", "seed": seed, "volume": "v", "without": 0.5, "with": 0.6} for seed in (0, 1)]
    filled = weak_labels.fill(page, rows)
    assert "| v | 2 | 0.500 ± 0.000 | 0.600 ± 0.000 | +0.100 ± 0.000 |" in filled
    assert filled.count("old") == 1
    assert weak_labels.fill(filled, rows) == filled


def test_only_corrections_weigh_more_and_the_newest_most(case):
    corrected, weight = weights.hurried_then_corrected(case)
    newest = max(np.flatnonzero(corrected.annotation.any((1, 2)) & ~case.annotation.any((1, 2))))
    assert weight.min() == 1
    assert (weight[case.annotation > 0] == 1).mean() > 0.5
    assert weight.max() == 2
    assert weight[newest].max() == 2
    assert not corrected.scored[newest].any()
    right = corrected.annotation == case.truth
    assert right[weight > 1].all(), "a correction is right"
    assert not right[(corrected.annotation > 0) & (weight == 1)].all(), "the paint before was not"


def test_half_known_strokes_name_their_class_and_one_other(case):
    three = allowed_sets.of_three_classes(case)
    assert three.n_classes == 3
    annotation, allowed = allowed_sets.half_known(three)
    assert {1, 2, 3} <= set(np.unique(annotation).tolist())
    assert allowed
    for code, classes in allowed.items():
        assert len(classes) == 2
        assert set(np.unique(three.truth[annotation == code]).tolist()) <= classes
    np.testing.assert_array_equal(annotation > 0, three.annotation > 0)


def test_doubt_lies_along_outlines_and_never_excludes_the_truth(case):
    guessed, marked, allowed = uncertain.doubtful(case)
    band = marked >= 128
    assert 0 < band.sum() < (case.annotation > 0).sum()
    assert (guessed != case.truth)[band].any()
    np.testing.assert_array_equal(guessed[~band], marked[~band])
    assert all(set(np.unique(case.truth[marked == code]).tolist()) <= classes for code, classes in allowed.items())


def test_one_orientation_and_three_have_as_much_paint(case):
    one, mixed, whole = orientations.paintings(case)
    assert (one.annotation > 0).sum() > 0
    assert abs((one.annotation > 0).sum() - (mixed.annotation > 0).sum()) <= 0.02 * (one.annotation > 0).sum()
    assert (whole.annotation > 0).sum() > (mixed.annotation > 0).sum()
    for painted in (one, mixed, whole):
        np.testing.assert_array_equal(painted.scored, one.scored)
        assert not painted.annotation[painted.scored].any()
