"""Affinities learnt from sparse ids: which painted pairs say something, and the loss over just those.

The affinity of a voxel and an offset is the probability that the voxel and the one a step away are of one object. Two
painted voxels with the same id are, two with different ids are not, and neither are a voxel with an id and one that was
painted with a class that no object has. Nothing else counts. Source of affinities: Turaga et al. 2010,
doi:10.1162/neco.2009.10-08-881; of long steps: Wolf et al. 2018, arXiv:1904.12654.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from napari_sparseseg.engine.lessons import Patches
from napari_sparseseg.engine.network import SparseNet
from napari_sparseseg.engine.objects.offsets import Offset
from napari_sparseseg.engine.paint import Paint

_WEIGHT = 1.0  # of the loss beside that of the classes
_BALANCE = 0.5  # 0: each pair counts the same, 1: pairs that are cut count as much as those that are not

Order = tuple[int, int, int]
"""In which order the axes of a turned patch come."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """What is known of the pairs of n voxels and their offsets, each (n, offsets).

    `same` says whether a pair is of one object, `weight` how much that counts, 0 where nothing is known.
    """

    same: npt.NDArray[np.bool_]
    weight: npt.NDArray[np.float32]

    def counts(self) -> npt.NDArray[np.int64]:
        """Known pairs of each offset that are of two objects and of one, (2, offsets)."""
        known = self.weight > 0
        return np.stack([(known & ~self.same).sum(0), (known & self.same).sum(0)])


def known_pairs(
    positions: npt.NDArray[np.integer],
    objects: npt.NDArray[np.int32],
    is_between: npt.NDArray[np.bool_],
    weights: npt.NDArray[np.float32],
    offsets: Sequence[Offset],
) -> Pairs:
    """Pairs among voxels at distinct `positions` (n, 3), whose offset leads from the voxel of their row to another.

    `objects` (n,) are ids, 0 where there is none; `is_between` (n,) marks voxels without id whose class no object has;
    a pair weighs as much as the lesser of its voxels.
    """
    same = np.zeros((len(positions), len(offsets)), bool)
    weight = np.zeros((len(positions), len(offsets)), np.float32)
    for number, partner in enumerate(_partners(positions, offsets)):
        rows = np.flatnonzero((partner >= 0) & ((objects > 0) | is_between))
        partner = partner[rows]
        both = (objects[rows] > 0) & (objects[partner] > 0)
        says = both | ((objects[rows] > 0) & is_between[partner]) | (is_between[rows] & (objects[partner] > 0))
        same[rows, number] = both & (objects[rows] == objects[partner])
        weight[rows, number] = np.where(says, np.minimum(weights[rows], weights[partner]), 0)
    return Pairs(same, weight)


def affinity_loss(logits: Tensor, same: Tensor, weight: Tensor) -> Tensor:
    """Mean cross-entropy of the known pairs, weighted; all (n, offsets).

    A pair of weight 0 has exactly zero gradient, whatever its logit.
    """
    known = weight > 0
    loss = functional.binary_cross_entropy_with_logits(logits[known], same[known].to(logits.dtype), reduction="none")
    return (loss * weight[known]).sum() / weight.sum().clamp_min(1e-12)


class AffinityLesson:
    """What the painted ids of all volumes teach: pairs of each patch, and how often each kind was painted."""

    def __init__(
        self,
        paints: Sequence[Paint],
        object_channels: Sequence[int],
        offsets: Sequence[Offset],
        orders: Sequence[Order] = ((0, 1, 2),),
    ) -> None:
        self._paints = paints
        self._is_between = [
            (p.object_ids == 0) & ~p.allowed[:, np.asarray(object_channels, np.intp)].any(1) for p in paints
        ]
        self.offsets = tuple(offsets)
        counts = self._counts(orders)
        # where none is of two objects, a pair that is cut only tells what the classes say as well
        self.taught = tuple(counts.sum(0).tolist()) if self._tells_apart(orders) else (0,) * len(self.offsets)
        self._factors = balancing_factors(counts, _BALANCE)

    def loss(self, network: SparseNet, patches: Patches) -> Tensor:
        """Loss of the pairs of the learnt voxels; only networks with `affinity` can learn them."""
        assert network.affinity is not None  # noqa: S101 - the lesson is only given to networks that have it
        logits = network.affinity.of_voxels(patches.decoded)
        return _WEIGHT * self.loss_of(logits, patches.members, patches.positions)

    def loss_of(
        self,
        logits: Tensor,
        members: Sequence[tuple[int, npt.NDArray[np.intp]]],
        positions: Sequence[npt.NDArray[np.int64]],
    ) -> Tensor:
        """The same of logits (n, offsets), unweighted; `members` and `positions` as in `Patches`.

        The positions are those in the patch as it was turned: so it teaches the offsets along its own axes.
        """
        found = [
            self._pairs(volume, numbers, where, self.offsets)
            for (volume, numbers), where in zip(members, positions, strict=True)
        ]
        same = np.concatenate([pairs.same for pairs in found])
        weight = np.concatenate([pairs.weight for pairs in found])
        weight *= np.where(same, self._factors[1], self._factors[0])
        return affinity_loss(
            logits.float(), torch.from_numpy(same).to(logits.device), torch.from_numpy(weight).to(logits.device)
        )

    def _tells_apart(self, orders: Sequence[Order]) -> bool:
        """Whether any pair is of two painted objects."""
        offsets = sorted({_before(offset, order) for order in orders for offset in self.offsets})
        for paint in self._paints:
            rows = np.flatnonzero(paint.learnt & (paint.object_ids > 0))
            ids = paint.object_ids[rows]
            for partner in _partners(paint.coordinates[rows], offsets):
                if ((partner >= 0) & (ids[partner] != ids)).any():
                    return True
        return False

    def _counts(self, orders: Sequence[Order]) -> npt.NDArray[np.int64]:
        """Pairs that are cut and that are not, (2, offsets), over all turns of the learnt paint."""
        sources = [[_before(offset, order) for order in orders] for offset in self.offsets]
        distinct = sorted({source for each in sources for source in each})
        counts = np.zeros((2, len(distinct)), np.int64)
        for volume, paint in enumerate(self._paints):
            learnt = np.flatnonzero(paint.learnt)
            counts += self._pairs(volume, learnt, paint.coordinates[learnt], distinct).counts()
        return np.stack([counts[:, [distinct.index(s) for s in each]].sum(1) for each in sources], axis=1)

    def _pairs(
        self,
        volume: int,
        members: npt.NDArray[np.intp],
        positions: npt.NDArray[np.integer],
        offsets: Sequence[Offset],
    ) -> Pairs:
        paint = self._paints[volume]
        return known_pairs(
            positions,
            paint.object_ids[members],
            self._is_between[volume][members],
            paint.weights[members],
            offsets,
        )


def balancing_factors(counts: npt.NDArray[np.int64], balance: float) -> npt.NDArray[np.float32]:
    """Weights (2, offsets) of pairs that are cut and that are not; their rarity to the power of `balance`.

    `counts` (2, offsets) says how many there are of each; the mean weight of an offset's pairs is 1.
    """
    rarity = np.maximum(counts, 1.0) ** -balance
    mean = (rarity * counts).sum(0) / np.maximum(counts.sum(0), 1)
    factors: npt.NDArray[np.float32] = (rarity / np.where(mean > 0, mean, 1)).astype(np.float32)
    return factors


def _before(offset: Offset, order: Order) -> Offset:
    """The offset that becomes this one when the axes come in that order."""
    step = [0, 0, 0]
    for size, axis in zip(offset, order, strict=True):
        step[axis] = size
    return step[0], step[1], step[2]


def _partners(positions: npt.NDArray[np.integer], offsets: Sequence[Offset]) -> Iterable[npt.NDArray[np.intp]]:
    """For each offset the row of the voxel that lies that step away, (n,), -1 where there is none."""
    if not len(positions):
        yield from (np.zeros(0, np.intp) for _ in offsets)
        return
    room = np.abs(np.asarray(offsets, np.int64).reshape(-1, 3)).max(0, initial=0)
    low = positions.min(0) - room
    # every step from a voxel stays within this shape, so that no flat index means two places
    shape = positions.max(0) + room - low + 1
    steps = np.array([shape[1] * shape[2], shape[2], 1], np.int64)
    place = (positions - low) @ steps
    order = np.argsort(place, kind="stable")
    ordered = place[order]
    for offset in offsets:
        wanted = place + int(np.asarray(offset, np.int64) @ steps)
        at = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
        yield np.where(ordered[at] == wanted, order[at], -1)
