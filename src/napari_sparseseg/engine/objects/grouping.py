"""From class probabilities and affinities to objects, block by block: the same as on the whole volume at once.

Each block is cut into fragments (`fragments`); how they touch is noted across blocks too (`graph`), and only this
graph decides what is one object.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from napari_sparseseg._types import Box, Shape3D, Spacing
from napari_sparseseg.config import ObjectConfig
from napari_sparseseg.engine.objects.fragments import Landscape, blocks_of, climb, follow, margin_for, shifted
from napari_sparseseg.engine.objects.graph import STEPS, Edges, Fragments
from napari_sparseseg.engine.objects.offsets import Offset, is_short
from napari_sparseseg.engine.objects.sizes import unknown_smallest
from napari_sparseseg.errors import InputError

Probabilities = npt.NDArray[np.float32]
Read = Callable[[Box], tuple[Probabilities, "npt.NDArray[np.float32] | None"]]
"""Probabilities (classes, z, y, x) and affinities (offsets, z, y, x) of a box within the volume."""

_FACES: tuple[Offset, ...] = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
_WIDE = 0.8  # necks that are no necks: whatever the affinities say, what is on both sides is one
_CUT = 0.25  # of the size of the smallest painted objects: how much must be left of one that the edge cuts
_MAX_ID = np.iinfo(np.uint32).max


class Writable(Protocol):
    """What ids are written to and read back from: a numpy, memory-mapped or zarr array of uint32, (z, y, x)."""

    def __getitem__(self, index: Any, /) -> Any: ...

    def __setitem__(self, index: Any, value: Any, /) -> None: ...


def group_objects(
    probabilities: Probabilities,
    affinities: npt.NDArray[np.float32] | None = None,
    offsets: Sequence[Offset] = (),
    *,
    object_channels: Sequence[int],
    spacing: Spacing = (1.0, 1.0, 1.0),
    config: ObjectConfig | None = None,
    painted_smallest: int = 0,
    block: Shape3D | None = None,
) -> npt.NDArray[np.uint32]:
    """Ids of objects (z, y, x), 0 where there is none, from probabilities (classes, z, y, x) that are in memory.

    `affinities` (offsets, z, y, x), 0..1, are those of the pairs (v, v + offset), or None. `object_channels` are the
    channels of the classes that objects are made of. See `Grouping` for the rest. With `block` it is done in blocks of
    this shape.
    """
    if affinities is not None and len(affinities) != len(offsets):
        raise InputError(f"{len(affinities)} affinities were passed for {len(offsets)} offsets; pass one for each")
    z, y, x = probabilities.shape[1:]
    found = np.zeros((z, y, x), np.uint32)

    def read(box: Box) -> tuple[Probabilities, npt.NDArray[np.float32] | None]:
        where = (slice(None), *box.slices)
        return probabilities[where], None if affinities is None else affinities[where]

    grouping = Grouping(
        read,
        (z, y, x),
        found,
        object_channels,
        spacing,
        offsets if affinities is not None else (),
        config,
        painted_smallest,
    )
    for box in blocks_of((z, y, x), block or (z, y, x)):
        grouping.add(box)
    grouping.finish()
    return found


class Grouping:
    """Groups one volume block by block into `ids`, which holds zeros at first.

    `add` each block once, the last axis fastest, then `finish`. `painted_smallest` is the size of the smallest painted
    objects in voxels, 0 if it is not known; it counts where the settings name no size.
    """

    def __init__(
        self,
        read: Read,
        shape: Shape3D,
        ids: Writable,
        object_channels: Sequence[int],
        spacing: Spacing,
        offsets: Sequence[Offset] = (),
        config: ObjectConfig | None = None,
        painted_smallest: int = 0,
    ) -> None:
        self._read, self._ids = read, ids
        self._channels, self._spacing = object_channels, spacing
        self._config, self._painted_smallest = config or ObjectConfig(), painted_smallest
        self._whole = Box.whole(shape)
        self._offsets = tuple(offsets) if _counts(self._config, offsets, shape) else ()
        self._margin = margin_for(spacing, self._config.reach, self._offsets)
        z, y, x = (max([1, *(abs(o[axis]) for o in self._offsets)]) for axis in range(3))
        self._pair_margin = (z, y, x)
        self._blocks: list[Box] = []
        self._sizes = [np.zeros(1, np.int64)]
        self._peaks = [np.zeros(1, np.float32)]
        self._summits = [np.full(1, -1)]
        self._certainties = [np.zeros(1, np.int64)]
        self._at_edge = [np.zeros(1, bool)]
        self._unions: list[npt.NDArray[np.int64]] = []
        self._edges: list[Edges] = []
        self._n_ids = 0

    def add(self, block: Box) -> None:
        """Cut a block into fragments, and note how they touch each other and those of the blocks before."""
        source = block.grown(self._margin).clipped(self._whole)
        probabilities, affinities = self._read(source)
        affinities = affinities if self._offsets else None
        landscape = Landscape.of(
            probabilities, self._channels, self._spacing, self._config.reach, affinities, self._offsets
        )
        target = climb(landscape)
        inner = block.relative_to(source.start)
        is_inside = np.zeros(landscape.kind.shape, bool)
        is_inside[inner.slices] = True
        ends = follow(target, ~is_inside)
        near = block.grown(self._pair_margin).clipped(self._whole)
        ids = np.zeros(landscape.kind.shape, np.int64)
        ids[near.relative_to(source.start).slices] = self._ids[near.slices]
        ids[inner.slices] = self._number(ends[inner.slices], landscape, source, block)
        self._ids[block.slices] = ids[inner.slices].astype(np.uint32)
        self._blocks.append(block)
        self._note_ways(target, ids, is_inside)
        self._note_faces(landscape, ids, is_inside)
        if affinities is not None:
            self._note_affinities(affinities, landscape, ids, is_inside)

    def finish(self) -> int:
        """Decide which fragments are one object, write the ids 1..n of objects, and return n."""
        fragments = Fragments(
            np.concatenate(self._sizes),
            np.concatenate(self._peaks),
            np.concatenate(self._summits),
            np.concatenate(self._certainties),
            np.concatenate(self._at_edge),
            Edges.joined(self._edges),
        )
        pairs = np.concatenate([np.zeros((0, 2), np.int64), *self._unions])
        fragments, names = fragments.united(pairs)
        voxel_volume = float(np.prod(self._spacing)) / min(self._spacing) ** 3
        if self._offsets:
            fragments, wide = fragments.by_necks(_WIDE, voxel_volume)
            fragments, further = fragments.by_affinities(self._config.threshold)
            further = further[wide]
        else:
            fragments, further = fragments.by_necks(self._config.neck, voxel_volume)
        names = fragments.without_slivers(*self._smallest())[further[names]]
        found, numbers = np.unique(names, return_inverse=True)
        numbers = (numbers if found[0] == 0 else numbers + 1).astype(np.uint32)
        for block in self._blocks:
            self._ids[block.slices] = numbers[self._ids[block.slices]]
        return len(found) - int(found[0] == 0)

    def _smallest(self) -> tuple[int, int | None]:
        """Voxels of an object, and of one that is cut by the edge, if that makes a difference."""
        if self._config.smallest or not self._painted_smallest:
            return self._config.smallest or unknown_smallest(self._whole.shape), None
        return self._painted_smallest, int(_CUT * self._painted_smallest)

    def _number(
        self, ends: npt.NDArray[np.intp], landscape: Landscape, source: Box, block: Box
    ) -> npt.NDArray[np.int64]:
        """New ids of a block's voxels, by where in the source their ways end."""
        roots, numbers = np.unique(ends, return_inverse=True)
        numbers = numbers.reshape(ends.shape)
        if roots[0] >= 0:  # there is nothing outside of objects
            numbers = numbers + 1
        else:
            roots = roots[1:]
        n = len(roots) + 1
        self._sizes.append(np.bincount(numbers.ravel(), minlength=n)[1:])
        certainty = np.rint(landscape.certainty[block.relative_to(source.start).slices] * STEPS)
        self._certainties.append(np.bincount(numbers.ravel(), certainty.ravel(), n)[1:].astype(np.int64))
        self._at_edge.append(self._cut_by_edge(numbers, block, n)[1:])
        self._peaks.append(landscape.height.ravel()[roots])
        places = np.unravel_index(roots, landscape.kind.shape)
        in_volume = tuple(p + start for p, start in zip(places, source.start, strict=True))
        self._summits.append(np.ravel_multi_index(in_volume, self._whole.shape))
        found = np.where(numbers > 0, numbers + self._n_ids, 0)
        self._n_ids += len(roots)
        if self._n_ids > _MAX_ID:
            raise InputError(
                f"there are more than {_MAX_ID:,} fragments of objects, which 32 bits cannot number; group parts of "
                "the image one by one"
            )
        return found

    def _cut_by_edge(self, numbers: npt.NDArray[np.int64], block: Box, n: int) -> npt.NDArray[np.bool_]:
        """Which of the `n` numbers of a block have a voxel at a face of the volume; planes have none before them."""
        found = np.zeros(n, bool)
        for axis, size in enumerate(self._whole.shape):
            for place, is_last in ((0, block.start[axis] == 0), (-1, block.stop[axis] == size)):
                if is_last and size > 1:
                    found[np.take(numbers, place, axis)] = True
        return found

    def _note_ways(
        self, target: npt.NDArray[np.intp], ids: npt.NDArray[np.int64], is_inside: npt.NDArray[np.bool_]
    ) -> None:
        """Where a way crosses a face between blocks, the fragments on either side are one."""
        flat, inside = ids.ravel(), is_inside.ravel()
        here = np.flatnonzero(flat > 0)
        there = target.ravel()[here]
        crosses = (inside[here] != inside[there]) & (flat[there] > 0)
        self._unions.append(np.stack([flat[here[crosses]], flat[there[crosses]]], 1))

    def _note_faces(self, landscape: Landscape, ids: npt.NDArray[np.int64], is_inside: npt.NDArray[np.bool_]) -> None:
        for offset in _FACES:
            here, there = shifted(offset)
            touches = _pairs(landscape, ids, is_inside, here, there)
            saddle = np.minimum(landscape.height[here][touches], landscape.height[there][touches])
            pairs = np.stack([ids[here][touches], ids[there][touches]], 1)
            near = None
            if self._offsets and offset not in self._offsets:  # paint has not taught it: what is known at both ends
                least = np.minimum(landscape.cohesion[here][touches], landscape.cohesion[there][touches])
                near = _sums(least)
            self._edges.append(Edges.of(pairs, saddle=saddle, contact=np.ones(len(pairs), np.int64), near=near))

    def _note_affinities(
        self,
        affinities: npt.NDArray[np.float32],
        landscape: Landscape,
        ids: npt.NDArray[np.int64],
        is_inside: npt.NDArray[np.bool_],
    ) -> None:
        for offset, affinity in zip(self._offsets, affinities, strict=True):
            here, there = shifted(offset)
            differ = _pairs(landscape, ids, is_inside, here, there)
            pairs = np.stack([ids[here][differ], ids[there][differ]], 1)
            sums = _sums(affinity[here][differ])
            self._edges.append(Edges.of(pairs, near=sums) if is_short(offset) else Edges.of(pairs, far=sums))


def _counts(config: ObjectConfig, offsets: Sequence[Offset], shape: Shape3D) -> bool:
    """Whether affinities decide: by themselves only if no axis lacks them, for else they cut nothing along it."""
    if config.method != "auto":
        return config.method == "affinities"
    return all(n == 1 or face in offsets for face, n in zip(_FACES, shape, strict=True))


def _pairs(
    landscape: Landscape,
    ids: npt.NDArray[np.int64],
    is_inside: npt.NDArray[np.bool_],
    here: tuple[slice, ...],
    there: tuple[slice, ...],
) -> npt.NDArray[np.bool_]:
    """Which pairs belong to two fragments of one kind, at least one of them in the block."""
    found: npt.NDArray[np.bool_] = (
        (ids[here] != ids[there])
        & (ids[here] > 0)
        & (ids[there] > 0)
        & (landscape.kind[here] == landscape.kind[there])
        & (is_inside[here] | is_inside[there])
    )
    return found


def _sums(affinity: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    steps = np.rint(affinity * STEPS).astype(np.int64)
    return np.stack([steps, np.ones_like(steps)], 1)
