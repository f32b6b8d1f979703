"""How a volume is cut so that memory stays under a budget."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_sparseseg import InputError, ModelConfig
from napari_sparseseg._types import Box
from napari_sparseseg.distributed import plan as module
from napari_sparseseg.distributed.plan import Demand, check_plan, make_plan, parse_memory
from napari_sparseseg.engine.classes import ClassTable
from napari_sparseseg.engine.model import FittedModel, ModelSpec
from napari_sparseseg.storage.ome import chunk_shape
from napari_sparseseg.storage.volume import ArrayVolume

GB = 10**9


@pytest.fixture(autouse=True)
def small_shards():
    """Plans as they are."""


class Nothing:
    """An array of any size that is never read."""

    def __init__(self, shape, dtype=np.uint8):
        self.shape, self.dtype = shape, np.dtype(dtype)

    def __getitem__(self, index):
        raise AssertionError("a plan reads no voxel")


def demand(shape, spacing=(1.0, 1.0, 1.0), n_classes=3, probabilities=False, dtype=np.uint8):
    spec = ModelSpec(ModelConfig(), spacing, 1, (False, False, False))
    fitted = FittedModel(spec, ClassTable(tuple(range(1, n_classes + 1)), 1), spec.build(n_classes))
    return Demand.of(fitted, ArrayVolume(Nothing(shape, dtype)), probabilities=probabilities)


@given(
    shape=st.tuples(st.integers(1, 50_000), st.integers(1, 50_000), st.integers(1, 50_000)),
    budget=st.integers(2, 64),
    n_workers=st.integers(1, 64),
    n_classes=st.integers(2, 20),
    probabilities=st.booleans(),
    spacing=st.sampled_from([(1.0, 1.0, 1.0), (10.0, 1.0, 1.0)]),
)
@settings(max_examples=40, deadline=None)
def test_what_is_planned_fits_and_fills_the_shards(shape, budget, n_workers, n_classes, probabilities, spacing):
    wanted = demand(shape, spacing, n_classes, probabilities)
    plan = make_plan(wanted, budget * GB, n_workers)
    assert wanted.shard_bytes(plan.shard) + wanted.tile_bytes(plan.tile) + plan.cache_bytes < budget * GB
    assert check_plan(wanted, plan.shard, plan.tile, budget * GB) >= 0
    assert all(edge % chunk == 0 for edge, chunk in zip(plan.shard, chunk_shape(shape), strict=True))
    assert all(edge <= whole for edge, whole in zip(plan.tile, plan.shard, strict=True))
    assert plan.cache_bytes >= 0


def test_a_budget_that_is_too_small_says_what_would_do():
    wanted = demand((1000, 1000, 1000))
    with pytest.raises(InputError, match="500 MB of memory for each worker are too little") as caught:
        make_plan(wanted, 500 * 10**6, 2)
    enough = int(str(caught.value).split("give ")[1].split(" MB")[0])
    make_plan(wanted, enough * 10**6, 2)


def test_files_stay_countable_however_large_the_volume():
    for edge in (1000, 5000, 46_000):
        shape = (edge, edge, edge)
        shard = make_plan(demand(shape), 64 * GB, 8).shard
        assert Box.whole(shape).n_voxels / math.prod(shard) < 2 * module._MOST_SHARDS


def test_each_worker_has_several_shards_where_there_are_voxels_enough():
    shape = (500, 500, 500)
    for n_workers in (1, 2, 8):
        shard = make_plan(demand(shape), 8 * GB, n_workers).shard
        assert math.prod(-(-n // s) for n, s in zip(shape, shard, strict=True)) >= 4 * n_workers


def test_more_memory_never_makes_tiles_smaller():
    tiles = [math.prod(make_plan(demand((2000,) * 3), gb * GB, 1).tile) for gb in (2, 4, 8, 16)]
    assert tiles == sorted(tiles)
    assert tiles[-1] > tiles[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [(None, None), (1024, 1024), ("4GB", 4 * 10**9), ("512 MiB", 512 * 2**20), ("1.5g", 1500 * 10**6), ("7", 7)],
)
def test_amounts_of_memory(text, expected):
    assert parse_memory(text) == expected


@pytest.mark.parametrize("text", ["", "GB", "4 apples", "-4GB", 0, -1, "4XB", "nan"])
def test_what_is_no_amount_of_memory(text):
    with pytest.raises(InputError, match="is not an amount of memory"):
        parse_memory(text)


def test_half_of_what_is_free(monkeypatch):
    monkeypatch.setattr(module, "_left_in_group", lambda: 3 * GB)
    assert 0 < module.free_memory() <= 3 * GB / 2


V2, V1 = "0::/job/step\n", "5:cpu,memory:/job/step\n0::/\n"  # what a process is told of its control groups
GROUP_FILES = {
    V2: ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    V1: ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


class TestControlGroups:
    """The files that Linux shows of them, in a folder."""

    def make(self, root, version, group, limit, used, inactive=0):
        mount, *names, cached = GROUP_FILES[version]
        (root / "proc/self").mkdir(parents=True, exist_ok=True)
        (root / "proc/self/cgroup").write_text(version)
        folder = root / mount / group
        folder.mkdir(parents=True, exist_ok=True)
        for name, value in zip(names, (limit, used), strict=True):
            (folder / name).write_text(f"{value}\n")
        (folder / "memory.stat").write_text(f"anon 5\n{cached} {inactive}\n")

    @pytest.mark.parametrize("version", [V2, V1])
    @pytest.mark.parametrize("group", ["", "job", "job/step"])
    def test_the_groups_above_count_too(self, tmp_path, version, group):
        self.make(tmp_path, version, group, 8 * GB, 5 * GB)
        assert module._left_in_group(tmp_path) == 3 * GB

    @pytest.mark.parametrize("version", [V2, V1])
    def test_files_that_can_be_read_again_take_nothing(self, tmp_path, version):
        self.make(tmp_path, version, "job/step", 8 * GB, 8 * GB, inactive=6 * GB)
        assert module._left_in_group(tmp_path) == 6 * GB

    def test_the_narrowest_counts(self, tmp_path):
        self.make(tmp_path, V2, "job", 4 * GB, 3 * GB)
        self.make(tmp_path, V2, "job/step", "max", 3 * GB)
        assert module._left_in_group(tmp_path) == GB

    def test_without_any_there_is_no_limit(self, tmp_path):
        assert module._left_in_group(tmp_path) == math.inf
        self.make(tmp_path, V2, "", "max", 0)
        assert module._left_in_group(tmp_path) == math.inf
