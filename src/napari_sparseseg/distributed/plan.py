"""How a volume is cut so that memory stays under a budget: shards, tiles, and what is cached."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from napari_sparseseg._types import Box, Shape3D
from napari_sparseseg.engine.filters import PER_SCALE
from napari_sparseseg.errors import InputError
from napari_sparseseg.storage._arrays import plain_int
from napari_sparseseg.storage.ome import chunk_shape
from napari_sparseseg.storage.sharded import shard_for

if TYPE_CHECKING:
    from napari_sparseseg.engine.model import FittedModel
    from napari_sparseseg.storage.volume import ArrayVolume

PROCESS_BYTES = 450 << 20
"""Memory of Python, torch and zarr before the first voxel is read."""

_SHARE = 0.5  # of what is free
_SLACK = 0.85  # of the budget; allocators keep the rest
_SHARD_VOXELS = (1 << 21, 1 << 24, 1 << 30)  # at least, usually, at most
_MOST_SHARDS = 1 << 17
_SHARDS_PER_WORKER = 8
_MOST_TILE_VOXELS = 1 << 23
_SLAB_BYTES = 200 << 20  # of what is read and normalised at a time
_ACTIVATIONS = 10.0  # bytes per voxel and channel of the network, measured with benchmarks/scale.py
_LATTICE_COPIES = 14
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


class _ControlGroups(NamedTuple):
    """Where a version of Linux control groups is mounted, and what its files are called."""

    mount: str
    limit: str
    used: str
    inactive: str


_CGROUP_1 = _ControlGroups(
    "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
)
_CGROUP_2 = _ControlGroups("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file")


@dataclass(frozen=True, slots=True)
class Demand:
    """What the memory of a prediction depends on: the volume's shape, bytes per voxel, and the model.

    `halo` is that of the network, `reach` that of the features around it; `activations` counts the channels of all
    levels of the network per voxel, `nodes` features of the coarse lattice per voxel.
    """

    shape: Shape3D
    voxel_bytes: int
    n_classes: int
    n_features: int
    activations: float
    nodes: float
    halo: Shape3D
    reach: Shape3D
    probabilities: bool

    @classmethod
    def of(cls, fitted: FittedModel, volume: ArrayVolume, *, probabilities: bool) -> Demand:
        """The demand of a fitted model for a volume."""
        unet, bank = fitted.network.unet, fitted.spec.bank
        activations, pooled = 0.0, 1
        for number, plan in enumerate(unet.levels):
            pooled *= math.prod(plan.pool)
            activations += fitted.spec.config.width * min(2**number, 4) / pooled
        n_coarse = PER_SCALE * len(bank.coarse_scales) * bank.n_channels + _LATTICE_COPIES
        return cls(
            shape=volume.shape,
            voxel_bytes=volume.n_channels * volume.dtype.itemsize,
            n_classes=len(fitted.classes),
            n_features=bank.n_features,
            activations=activations,
            nodes=n_coarse / math.prod(bank.coarse_stride) if bank.coarse_scales else 0.0,
            halo=unet.halo,
            reach=bank.reach,
            probabilities=probabilities,
        )

    def shard_bytes(self, shard: Shape3D) -> float:
        """What a shard takes besides its tiles: what is read for it, the coarse lattice, and its voxels."""
        lattice = self._around(shard, self.halo)
        source = self._around(shard, _sum(self.halo, self.reach))
        written = 3 + (2 * self.n_classes if self.probabilities else 0)
        nodes = 4 * self.nodes * (lattice + source) / 2
        return source * self.voxel_bytes + nodes + written * math.prod(shard) + _SLAB_BYTES

    def tile_bytes(self, tile: Shape3D) -> float:
        """What one tile takes while it is computed."""
        inner = 12 * self.n_classes * math.prod(tile)
        return self._around(tile, self.halo) * _ACTIVATIONS * self.activations + inner

    def n_computed(self, tile: Shape3D) -> int:
        """Voxels that are computed for a tile, its halo included."""
        return self._around(tile, self.halo)

    def _around(self, box: Shape3D, margin: Shape3D) -> int:
        """Voxels of a box with a margin, which ends with the volume (rounded up, as the network needs it)."""
        sizes = zip(box, margin, self.shape, strict=True)
        return math.prod(min(edge + 2 * m, -(-size // 8) * 8) for edge, m, size in sizes)


@dataclass(frozen=True, slots=True)
class Plan:
    """One shard is what one worker writes at a time, tile by tile; `cache_bytes` are for features."""

    shard: Shape3D
    tile: Shape3D
    cache_bytes: int


def make_plan(demand: Demand, worker_bytes: int, n_workers: int, tile_voxels: int | None = None) -> Plan:
    """Cut a volume so that each worker stays under its budget, which includes the process itself.

    Raises `InputError` if the budget is too small for the smallest shard, and says how much would do.
    """
    free = _SLACK * worker_bytes - PROCESS_BYTES
    smallest, usual, largest = _SHARD_VOXELS
    n_voxels = math.prod(demand.shape)
    wanted = min(max(smallest, n_voxels // (_SHARDS_PER_WORKER * n_workers)), usual)
    wanted = min(max(wanted, n_voxels // _MOST_SHARDS), largest)
    shard = shard_for(demand.shape, wanted)
    while shard != chunk_shape(demand.shape) and demand.shard_bytes(shard) > free / 2:
        wanted //= 2
        shard = shard_for(demand.shape, wanted)
    tile = shard
    most = min(tile_voxels or _MOST_TILE_VOXELS, _MOST_TILE_VOXELS)
    left = free - demand.shard_bytes(shard)
    while max(tile) > 16 and (demand.tile_bytes(tile) > 0.7 * left or demand.n_computed(tile) > most):
        tile = _halved(tile)
    plan = Plan(shard, tile, int(max(0, min(left - demand.tile_bytes(tile), 1 << 30))))
    check_plan(demand, plan.shard, plan.tile, worker_bytes)
    return plan


def check_plan(demand: Demand, shard: Shape3D, tile: Shape3D, worker_bytes: int) -> int:
    """Bytes that are left for the cache of features.

    Raises `InputError` if a worker's budget is too small for these shards and tiles.
    """
    needed = demand.shard_bytes(shard) + demand.tile_bytes(tile)
    left = _SLACK * worker_bytes - PROCESS_BYTES - needed
    if left < 0:
        least = math.ceil((needed + PROCESS_BYTES) / _SLACK / 1e6)
        raise InputError(
            f"{worker_bytes / 1e6:.0f} MB of memory for each worker are too little for this image and model; give "
            f"{least} MB or more to each, or use fewer workers"
        )
    return int(min(left, 1 << 30))


def parse_memory(memory: int | str | None) -> int | None:
    """Bytes from a number or text such as "4GB" or "512 MiB".

    Raises `InputError` or `InputTypeError` for what is no amount of memory.
    """
    if memory is None:
        return None
    if isinstance(memory, str):
        found = re.fullmatch(r"([0-9]+(?:\.[0-9]*)?)([kmgt]?i?)b?", memory.lower().replace(" ", ""))
        if not found or found[2] not in _UNITS:
            raise InputError(f"memory={memory!r} is not an amount of memory; write for example '4GB' or '512MiB'")
        n_bytes = int(float(found[1]) * _UNITS[found[2]])
    else:
        n_bytes = plain_int(memory, "memory")
    if n_bytes < 1:
        raise InputError(f"memory={memory!r} is not an amount of memory; give a positive number of bytes, or '4GB'")
    return n_bytes


def free_memory() -> int:
    """Bytes that this process may take: half of what the machine, or the control group it is in, has left."""
    import psutil

    free = psutil.virtual_memory().available
    return int(_SHARE * min(free, _left_in_group()))


def _left_in_group(root: Path = Path("/")) -> float:
    """Bytes that the Linux control groups of this process leave, as in a container or a batch job.

    Groups above count as well. In a container the paths may be those of the host, with its own group at the top.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return math.inf
    left = math.inf
    for _, controllers, path in (line.split(":", 2) for line in lines if line.count(":") >= 2):
        if controllers and "memory" not in controllers.split(","):
            continue
        version = _CGROUP_1 if controllers else _CGROUP_2
        folder = PurePosixPath(path.lstrip("/"))
        for group in {folder, *folder.parents, PurePosixPath()}:
            left = min(left, _left_in(root / version.mount / group, version))
    return left


def _left_in(group: Path, version: _ControlGroups) -> float:
    """What one group leaves; what it holds of files that can be read again counts as free."""
    try:
        limit, used = (int((group / name).read_text()) for name in (version.limit, version.used))
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return limit - used + int(stat.get(version.inactive, 0))
    except (OSError, ValueError):  # there is none, or it has no limit
        return math.inf


def _halved(tile: Shape3D) -> Shape3D:
    """Halve the longest edge; edges of shards are chunks times powers of two, so tiles fill them."""
    axis = max(range(3), key=lambda a: tile[a])
    z, y, x = (-(-edge // 2) if a == axis else edge for a, edge in enumerate(tile))
    return z, y, x


def _sum(a: Shape3D, b: Shape3D) -> Shape3D:
    grown = Box(a, a).shifted(b)
    return grown.start
