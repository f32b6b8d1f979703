"""The fragments of a volume as a graph: how they touch, and which of them are one object."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from napari_sparseseg.engine.objects.linkage import average_linkage, root_of

STEPS = 1 << 12  # probabilities are added as whole multiples of this part, so that no order changes a sum
_COMPACT = 5.0  # times the ball at its summit: what is larger is long or branched
_SLENDER_NECK = 0.4  # by how much a neck of such an object must be narrower to be cut
_CLEAR = 0.8  # mean certainty of what counts as an object although the edge of the image cuts most of it off
_NEAR_WEIGHT = 16  # of neighbours against distant voxels, of which each contact has about so many more

_Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Edges:
    """Pairs of fragments that touch, each once: `pairs` (n, 2), the lower id first, ascending.

    `saddle` is the height of the highest way across, `contact` the number of faces in common, `near` and `far` (n, 2)
    the sum of the affinities of neighbours and of distant voxels across (in `STEPS`) and their number.
    """

    pairs: _Ids
    saddle: npt.NDArray[np.float32]
    contact: _Ids
    near: _Ids
    far: _Ids

    @classmethod
    def none(cls) -> Edges:
        """No edge."""
        zeros = np.zeros((0, 2), np.int64)
        return cls(zeros, np.zeros(0, np.float32), np.zeros(0, np.int64), zeros, zeros)

    @classmethod
    def of(
        cls,
        pairs: _Ids,
        *,
        saddle: npt.NDArray[np.float32] | None = None,
        contact: _Ids | None = None,
        near: _Ids | None = None,
        far: _Ids | None = None,
    ) -> Edges:
        """Edges of pairs in any order, which may occur more than once; what is not given is 0 (a saddle: -1)."""
        n = len(pairs)
        return cls(
            pairs,
            np.full(n, -1, np.float32) if saddle is None else saddle,
            np.zeros(n, np.int64) if contact is None else contact,
            np.zeros((n, 2), np.int64) if near is None else near,
            np.zeros((n, 2), np.int64) if far is None else far,
        ).gathered()

    @classmethod
    def joined(cls, parts: list[Edges]) -> Edges:
        """All edges of several parts."""
        if not parts:
            return cls.none()
        return cls(
            np.concatenate([p.pairs for p in parts]),
            np.concatenate([p.saddle for p in parts]),
            np.concatenate([p.contact for p in parts]),
            np.concatenate([p.near for p in parts]),
            np.concatenate([p.far for p in parts]),
        ).gathered()

    def renamed(self, names: _Ids) -> Edges:
        """The edges between what the fragments are part of; those within one part are left out."""
        pairs = names[self.pairs]
        keep = pairs[:, 0] != pairs[:, 1]
        return Edges(pairs[keep], self.saddle[keep], self.contact[keep], self.near[keep], self.far[keep]).gathered()

    def __len__(self) -> int:
        return len(self.pairs)

    def gathered(self) -> Edges:
        """Each pair once."""
        if not len(self.pairs):
            return self
        pairs = np.sort(self.pairs, 1)
        order = np.lexsort((pairs[:, 1], pairs[:, 0]))
        pairs = pairs[order]
        first = np.flatnonzero(np.r_[True, (pairs[1:] != pairs[:-1]).any(1)])
        return Edges(
            pairs[first],
            np.maximum.reduceat(self.saddle[order], first),
            np.add.reduceat(self.contact[order], first),
            np.add.reduceat(self.near[order], first, axis=0),
            np.add.reduceat(self.far[order], first, axis=0),
        )


@dataclass(frozen=True, slots=True)
class Fragments:
    """All fragments of a volume by id, or objects by the lowest id of their fragments; index 0 is no fragment.

    `sizes` in voxels, `peaks` the height of the summit, `summits` where it lies (flat index in the volume),
    `certainties` the sum of the probabilities of all voxels (in `STEPS`), `at_edge` whether the edge of the volume cuts
    it.
    """

    sizes: _Ids
    peaks: npt.NDArray[np.float32]
    summits: _Ids
    certainties: _Ids
    at_edge: npt.NDArray[np.bool_]
    edges: Edges

    def united(self, pairs: _Ids) -> tuple[Fragments, _Ids]:
        """What remains when these pairs (n, 2) are one, and the new id of each fragment.

        The new ids are in the order of the summits, whatever the order was: so nothing that follows depends on the
        blocks that the volume was cut into.
        """
        n = len(self.sizes)
        ones = np.ones(len(pairs), np.int8)
        n_parts, part = connected_components(
            coo_array((ones, (pairs[:, 0], pairs[:, 1])), shape=(n, n)), directed=False
        )
        order = np.lexsort((self.summits, self.peaks, part))
        highest = order[np.flatnonzero(np.r_[part[order][1:] != part[order][:-1], True])]
        rank = np.empty(n_parts, np.int64)
        rank[np.argsort(self.summits[highest])] = np.arange(n_parts)
        names = rank[part]
        return _renamed(self, names, np.sort(self.summits[highest])), names

    def by_necks(self, neck: float, voxel_volume: float = 1.0) -> tuple[Fragments, _Ids]:
        """Unite fragments whose connection is wide: its height at least `neck` times the lower summit.

        The widest connections come first, and a summit is the highest of all that were united: so a large object takes
        up what is on its flanks, and two large ones stay apart. Long or branched things are narrow here and there by
        nature: unless both sides are compact, only what is far narrower is cut. `voxel_volume` in the unit of heights.
        """
        parents = list(range(len(self.sizes)))
        peaks, volumes = self.peaks.tolist(), (self.sizes * voxel_volume).tolist()
        touching = np.flatnonzero(self.edges.contact > 0)
        order = touching[np.argsort(-self.edges.saddle[touching], kind="stable")]
        for (a, b), saddle in zip(self.edges.pairs[order].tolist(), self.edges.saddle[order].tolist(), strict=True):
            a, b = root_of(parents, a), root_of(parents, b)
            are_compact = all(volumes[part] <= _COMPACT * 4 / 3 * np.pi * peaks[part] ** 3 for part in (a, b))
            narrow = neck * min(peaks[a], peaks[b]) * (1 if are_compact else _SLENDER_NECK)
            if a != b and saddle >= narrow:
                low, high = min(a, b), max(a, b)
                parents[high] = low
                peaks[low] = max(peaks[low], peaks[high])
                volumes[low] += volumes[high]
        names = np.array([root_of(parents, n) for n in range(len(parents))])
        return _renamed(self, names, self.summits), names

    def by_affinities(self, threshold: float) -> tuple[Fragments, _Ids]:
        """Unite fragments whose affinity across is at least `threshold` on the mean, the highest first.

        The mean is that over all pairs of voxels across, so that a broad contact outweighs a small one.
        """
        sums, counts = (self.edges.near * _NEAR_WEIGHT + self.edges.far).T
        touches = self.edges.contact > 0
        names = average_linkage(len(self.sizes), self.edges.pairs, sums, counts, touches, threshold * STEPS)
        return _renamed(self, names, self.summits), names

    def without_slivers(self, smallest: int, smallest_cut: int | None = None) -> _Ids:
        """New ids: what is smaller than `smallest` voxels joins the neighbour with most contact, or goes (0).

        With `smallest_cut`, so many voxels are enough for what touches no other, is clear, and is cut by the edge of
        the volume: most of it lies beyond.
        """
        parents = self._joined_slivers(smallest)
        names = np.array([root_of(parents, n) for n in range(len(parents))])
        whole = _renamed(replace(self, edges=Edges.none()), names, self.summits)
        stays = whole.sizes >= smallest
        if smallest_cut is not None:
            is_clear = whole.certainties >= _CLEAR * STEPS * whole.sizes
            stays |= (whole.sizes >= smallest_cut) & whole.at_edge & is_clear
        stays[0] = False
        kept: _Ids = np.where(stays[names], names, 0)
        return kept

    def _joined_slivers(self, smallest: int) -> list[int]:
        """Parents of all fragments once what is smaller than `smallest` has joined its neighbours."""
        sizes = self.sizes.tolist()
        neighbours: dict[int, dict[int, int]] = {}
        for (a, b), contact in zip(self.edges.pairs.tolist(), self.edges.contact.tolist(), strict=True):
            if contact:
                neighbours.setdefault(a, {})[b] = contact
                neighbours.setdefault(b, {})[a] = contact
        parents = list(range(len(sizes)))
        small = np.flatnonzero(self.sizes < smallest)
        for number in small[np.argsort(self.sizes[small], kind="stable")].tolist():
            if number == 0 or parents[number] != number or sizes[number] >= smallest:
                continue
            around: dict[int, int] = {}
            for other, contact in neighbours.get(number, {}).items():
                if (root := root_of(parents, other)) != number:
                    around[root] = around.get(root, 0) + contact
            if around:
                into = max(around, key=lambda root: (around[root], -root))
                parents[number] = into
                sizes[into] += sizes[number]
                mine = neighbours.setdefault(into, {})
                for other, contact in around.items():
                    mine[other] = mine.get(other, 0) + contact
        return parents


def _renamed(fragments: Fragments, names: _Ids, summits: _Ids) -> Fragments:
    """What all fragments of one name are together; `summits` are those of the names."""
    n = len(summits)
    sizes, certainties = np.zeros(n, np.int64), np.zeros(n, np.int64)
    peaks, at_edge = np.zeros(n, np.float32), np.zeros(n, bool)
    np.add.at(sizes, names, fragments.sizes)
    np.add.at(certainties, names, fragments.certainties)
    np.maximum.at(peaks, names, fragments.peaks)
    np.logical_or.at(at_edge, names, fragments.at_edge)
    return Fragments(sizes, peaks, summits, certainties, at_edge, fragments.edges.renamed(names))
