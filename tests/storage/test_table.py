"""The table of how much of each class there is."""

from __future__ import annotations

import csv
import os

import pytest

from napari_sparseseg.errors import InputError
from napari_sparseseg.storage.table import class_amounts, write_amounts

COUNTS = {2: 30, 1: 70}


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_amounts_are_volumes_in_the_unit_of_the_voxels(tmp_path):
    rows = class_amounts("a.tif", COUNTS, spacing=(2, 0.5, 0.5), unit="micrometer", class_names={2: "nucleus"})
    write_amounts(tmp_path / "t.csv", rows)
    first, second = read(tmp_path / "t.csv")
    assert first == {
        "file": "a.tif",
        "time": "",
        "class_id": "1",
        "class_name": "",
        "voxels": "70",
        "share": "0.7",
        "amount": "35",
        "unit": "micrometer^3",
    }
    assert (second["class_name"], second["amount"]) == ("nucleus", "15")


def test_images_without_depth_have_areas():
    rows = class_amounts("a.tif", COUNTS, time=3, spacing=(0.5, 0.5), unit="nanometer")
    assert [(row.time, row.amount, row.unit) for row in rows] == [(3, 17.5, "nanometer^2"), (3, 7.5, "nanometer^2")]


def test_without_voxel_size_there_are_voxels_only():
    assert [(row.amount, row.unit) for row in class_amounts("a.tif", COUNTS)] == [(None, "")] * 2


def test_large_counts_are_written_in_full(tmp_path):
    write_amounts(tmp_path / "t.csv", class_amounts("a", {1: 10**14}))
    assert read(tmp_path / "t.csv")[0]["voxels"] == "100000000000000"


@pytest.mark.parametrize("name", ["=cmd()", "@sum", "+1", "-1"])
def test_no_name_becomes_a_formula(tmp_path, name):
    write_amounts(tmp_path / "t.csv", class_amounts(name, {1: 1}))
    assert read(tmp_path / "t.csv")[0]["file"] == f"'{name}"


def test_a_name_that_is_no_utf_8_is_written_so_that_it_can_be_found_again(tmp_path):
    name = os.fsdecode(b"bad\xff.tif")
    write_amounts(tmp_path / "t.csv", class_amounts(name, {1: 1}))
    assert read(tmp_path / "t.csv")[0]["file"].encode("ascii").decode("unicode_escape") == name


def test_nothing_is_overwritten_unasked(tmp_path):
    write_amounts(tmp_path / "t.csv", [])
    with pytest.raises(InputError, match="exists"):
        write_amounts(tmp_path / "t.csv", [])
    write_amounts(tmp_path / "t.csv", class_amounts("a", {1: 1}), overwrite=True)
    assert len(read(tmp_path / "t.csv")) == 1
