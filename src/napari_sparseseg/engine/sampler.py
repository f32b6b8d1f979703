"""Which patches are learnt from: around painted voxels, balanced over slices and classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_sparseseg._types import Box, Shape3D, Spacing
from napari_sparseseg.engine.paint import Paint

_FLATNESS = 4  # a patch reaches this much further within the painted plane than across it


@dataclass(frozen=True, slots=True)
class PatchLocation:
    """A patch of one of the training volumes; the box may reach beyond the volume."""

    volume: int
    box: Box


@dataclass(frozen=True, slots=True)
class _Slice:
    """The learnt voxels of one painted slice, by class."""

    volume: int
    by_class: tuple[npt.NDArray[np.intp], ...]


class PatchSampler:
    """Draws batches of patch locations; all patches of a batch lie along slices of one orientation.

    Slices are drawn in proportion to the square root of their paint, so that a large one does not drown the
    others, and classes likewise within a slice. So are orientations; `balance` 0..1 moves these towards all alike.
    """

    def __init__(
        self,
        paints: Sequence[Paint],
        shapes: Sequence[Shape3D],
        patch_shapes: Sequence[Shape3D],
        *,
        balance: float = 0.0,
    ) -> None:
        self._paints = paints
        self._shapes = shapes
        self._patch_shapes = patch_shapes
        self._balance = balance
        self._slices: dict[int, list[_Slice]] = {}
        self._spans: dict[int, tuple[int, npt.NDArray[np.int32], npt.NDArray[np.int32]]] = {}
        for volume, paint in enumerate(paints):
            if len(paint):
                self._spans[volume] = int(paint.axis[0]), paint.coordinates.min(0), paint.coordinates.max(0)
            kinds = paint.kinds
            for slice_id in np.unique(paint.slice_id[paint.learnt]).tolist():
                members = np.flatnonzero((paint.slice_id == slice_id) & paint.learnt)
                by_class = tuple(members[kinds[members, k]] for k in range(kinds.shape[1]))
                axis = int(paint.axis[members[0]])
                self._slices.setdefault(axis, []).append(_Slice(volume, tuple(m for m in by_class if len(m))))

    def draw(self, batch_size: int, rng: np.random.Generator) -> tuple[int, list[PatchLocation]]:
        """The axis across which the slices lie, and the patches."""
        axes = sorted(self._slices)
        axis = axes[_choose([sum(map(_paint_of, self._slices[a])) for a in axes], rng, self._balance)]
        slices = self._slices[axis]
        return axis, [
            self._around(slices[_choose([_paint_of(s) for s in slices], rng)], axis, rng) for _ in range(batch_size)
        ]

    def survey(self, n_patches: int, rng: np.random.Generator) -> list[PatchLocation]:
        """Patches anywhere between and beside the painted voxels, whatever is painted there."""
        found = []
        for _ in range(n_patches):
            volume = int(rng.choice(list(self._spans)))
            axis, low, high = self._spans[volume]
            shape = np.asarray(self._patch_shapes[axis])
            start = rng.integers(low - shape // 2, high - shape // 2, endpoint=True)
            found.append(self._within(volume, start, shape))
        return found

    def anywhere(self, n_patches: int, rng: np.random.Generator, axis: int | None = None) -> list[PatchLocation]:
        """Patches of one shape, that for slices across an axis or a random one, anywhere in the painted volumes."""
        shape = np.asarray(self._patch_shapes[int(rng.choice(sorted(self._slices))) if axis is None else axis])
        found = []
        for volume in rng.choice(list(self._spans), n_patches).tolist():
            start = rng.integers(0, np.maximum(np.asarray(self._shapes[volume]) - shape, 0), endpoint=True)
            found.append(self._within(volume, start, shape))
        return found

    def _around(self, chosen: _Slice, axis: int, rng: np.random.Generator) -> PatchLocation:
        members = chosen.by_class[_choose([len(m) for m in chosen.by_class], rng)]
        voxel = self._paints[chosen.volume].coordinates[members[rng.integers(len(members))]]
        shape = np.asarray(self._patch_shapes[axis])
        # the voxel lies anywhere in the inner half, so that it is seen with context on all sides
        return self._within(chosen.volume, voxel - rng.integers(shape // 4, shape - shape // 4), shape)

    def _within(self, volume: int, start: npt.NDArray[np.integer], shape: npt.NDArray[np.integer]) -> PatchLocation:
        """The patch that starts there, moved into the volume as far as it fits."""
        limit = np.asarray(self._shapes[volume]) - shape
        z, y, x = np.where(limit > 0, np.clip(start, 0, np.maximum(limit, 0)), 0).tolist()
        return PatchLocation(volume, Box((z, y, x), (z + int(shape[0]), y + int(shape[1]), x + int(shape[2]))))


def patch_shapes(
    n_voxels: int, spacing: Spacing, stride: Shape3D, largest: Shape3D
) -> tuple[Shape3D, Shape3D, Shape3D]:
    """Patch shape for slices across each axis: about `n_voxels`, physically flat, in multiples of `stride`.

    No patch is larger than the volume `largest` rounded up to `stride`.
    """
    shapes = []
    for across in range(3):
        physical = np.array([1.0 / _FLATNESS if axis == across else 1.0 for axis in range(3)])
        proportion = physical / np.asarray(spacing)
        limit = -(-np.asarray(largest) // np.asarray(stride)) * np.asarray(stride)
        edges = _fill(proportion, limit, n_voxels)
        rounded = np.maximum(1, np.round(edges / stride)).astype(int) * stride
        z, y, x = np.minimum(rounded, limit).tolist()
        shapes.append((z, y, x))
    return shapes[0], shapes[1], shapes[2]


def _fill(
    proportion: npt.NDArray[np.float64], limit: npt.NDArray[np.integer], n_voxels: int
) -> npt.NDArray[np.float64]:
    """Edges in this proportion with `n_voxels` in all; what an axis cannot take goes to the others."""
    edges = np.zeros(3)
    free = np.ones(3, bool)
    for _ in range(3):
        rest = n_voxels / np.prod(edges[~free]) if not free.all() else float(n_voxels)
        edges[free] = proportion[free] * (rest / np.prod(proportion[free])) ** (1 / free.sum())
        over = free & (edges > limit)
        if not over.any():
            break
        edges[over] = limit[over]
        free &= ~over
        if not free.any():
            break
    return edges


def _paint_of(chosen: _Slice) -> int:
    return sum(len(m) for m in chosen.by_class)


def _choose(amounts: Sequence[int], rng: np.random.Generator, balance: float = 0.0) -> int:
    weight = np.sqrt(np.asarray(amounts, float)) ** (1 - balance)
    return int(rng.choice(len(amounts), p=weight / weight.sum()))
