"""A person who corrects objects by merging and splitting, simulated: how many clicks until most of them are right.

The person is greedy: the largest true object that nothing matches comes first, then parts that are left over. If the
object found there is mostly something else, it is split between the two true objects that it covers most of, by two
clicks inside them, with the cut that the window makes. If it is a part of the true one, it is merged with the next
largest part, also by two clicks. What neither can mend (missing, or fused with the background) is left.
"""

from __future__ import annotations

from dataclasses import dataclass

import edt
import numpy as np
from scipy.ndimage import find_objects

from napari_sparseseg.engine.objects.editing import cut

CLICKS = 2  # of a merge or a split
GOAL = 0.9
MOST_CLICKS = 400
PART = 0.05  # of the true object: smaller parts are not worth a merge


@dataclass(frozen=True)
class Result:
    """Clicks that were made, and the average precision at overlap 0.5 by then, 0..1."""

    clicks: int
    ap50: float

    @property
    def is_reached(self) -> bool:
        return self.ap50 >= GOAL


class Corrector:
    """Objects that were found (z, y, x), and what they should be: ids of `truth`, of which those in `counts` count.

    Only `scored` voxels count in the end. Objects smaller than `smallest` voxels, and those that are mostly a true
    object that does not count, are not held against it.
    """

    def __init__(
        self,
        found: np.ndarray,
        truth: np.ndarray,
        counts: np.ndarray,
        scored: np.ndarray,
        spacing: tuple[float, float, float],
        smallest: int,
    ) -> None:
        self.found = _numbered(found)[1]
        ids, self._truth = _numbered(truth)
        self._counts = np.isin(ids, counts) & (ids > 0)
        self._scored, self._spacing, self._smallest = scored, spacing, smallest
        self._common = self._table(self.found, self._truth)
        self._common_scored = self._table(self.found[scored], self._truth[scored])
        self._left: set[int] = set()

    def correct(self) -> Result:
        """Merge and split until enough is right, nothing can be mended, or it takes too long."""
        clicks = 0
        while self.ap50() < GOAL and clicks < MOST_CLICKS and self._mend_worst():
            clicks += CLICKS
        return Result(clicks, round(self.ap50(), 4))

    def ap50(self) -> float:
        """Matched objects among all, TP / (TP + FP + FN)."""
        matches = self._matches()
        kept, true = self._kept(), self._true()
        n = min(int(matches.any(0).sum()), int(matches.any(1).sum()))
        total = int(kept.sum()) + int(true.sum()) - n
        return n / total if total else 1.0

    def _true(self) -> np.ndarray:
        return self._counts & (self._common_scored.sum(0) > 0)

    def _kept(self) -> np.ndarray:
        """Which found objects are held against it."""
        of_objects = self._common.copy()
        of_objects[:, 0] = 0
        is_other = (of_objects.max(1) > 0) & ~self._counts[of_objects.argmax(1)]
        kept = (self._common.sum(1) >= self._smallest) & ~is_other & (self._common_scored.sum(1) > 0)
        kept[0] = False
        return kept

    def _matches(self) -> np.ndarray:
        """Which found (row) and true objects overlap by half."""
        common = self._common_scored
        union = common.sum(1)[:, None] + common.sum(0)[None] - common
        return (2 * common >= union) & (common > 0) & self._kept()[:, None] & self._true()[None]

    def _mend_worst(self) -> bool:
        """One correction; False if there is none to make."""
        matches = self._matches()
        wrong = self._true() & ~matches.any(0)
        order = np.argsort(-self._common_scored.sum(0), kind="stable")
        if any(self._mend(int(number)) for number in order[wrong[order]] if int(number) not in self._left):
            return True
        spare = self._kept() & ~self._matches().any(1)  # anew: a split that was in vain has added a row
        order = np.argsort(-self._common_scored.sum(1), kind="stable")
        return any(self._join(int(number)) for number in order[spare[order]])

    def _join(self, spare: int) -> bool:
        """Merge what matches nothing with what matches the object that it is mostly part of."""
        true = int(self._common[spare].argmax())
        matching = np.flatnonzero(self._matches()[:, true])
        if not true or not len(matching):
            return False
        self._merge(int(matching[0]), spare)
        return True

    def _mend(self, true: int) -> bool:
        overlaps = self._common[:, true].copy()
        overlaps[0] = 0
        found = int(overlaps.argmax())
        others = self._common[found].copy()
        others[[0, true]] = 0
        other = int(others.argmax())
        size = int(self._common[found].sum())
        if overlaps[found] and 2 * others[other] > overlaps[found] and self._split(found, true, other):
            return True
        overlaps = np.append(overlaps, np.zeros(len(self._common) - len(overlaps), overlaps.dtype))
        parts = overlaps * (self._common[:, 1:].argmax(1) + 1 == true)
        parts[found] = 0
        part = int(parts.argmax())
        if 2 * overlaps[found] > size and parts[part] > PART * self._common[:, true].sum():
            self._merge(found, part)
            return True
        self._left.add(true)
        return False

    def _merge(self, one: int, other: int) -> None:
        self.found[self.found == other] = one
        for table in (self._common, self._common_scored):
            table[one] += table[other]
            table[other] = 0

    def _split(self, number: int, true: int, other: int) -> bool:
        """Cut a found object between two true ones; False if that leaves all as it was."""
        box = find_objects((self.found == number).astype(np.int8))[0]
        mask, truth, scored = self.found[box] == number, self._truth[box], self._scored[box]
        points = [_middle(mask & (truth == name), self._spacing) for name in (true, other)]
        second = cut(mask, points[0], points[1], self._spacing) == 2
        for name in ("_common", "_common_scored"):
            table = getattr(self, name)
            part = second if name == "_common" else second & scored
            row = np.bincount(truth[part], minlength=table.shape[1])
            table[number] -= row
            setattr(self, name, np.concatenate([table, row[None]]))
        new = len(self._common) - 1
        self.found[box][second] = new
        if self._common[new, other] > self._common[number, other]:
            return True
        self._merge(number, new)
        return False

    def _table(self, found: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """Common voxels of each found (row) and true object."""
        shape = (int(self.found.max()) + 1, int(self._truth.max()) + 1)
        keys = found.ravel().astype(np.int64) * shape[1] + truth.ravel()
        return np.bincount(keys, minlength=shape[0] * shape[1]).reshape(shape)


def _numbered(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ids that occur, 0 first, and the number of each voxel's in that order."""
    values, numbers = np.unique(np.append(0, ids.ravel()), return_inverse=True)
    return values, numbers[1:].reshape(ids.shape).astype(np.int32)


def _middle(mask: np.ndarray, spacing: tuple[float, float, float]) -> tuple[int, int, int]:
    """The voxel deepest inside."""
    depth = edt.edt(np.pad(mask, 1), anisotropy=spacing, parallel=1)[1:-1, 1:-1, 1:-1]
    z, y, x = np.unravel_index(int(depth.argmax()), mask.shape)
    return int(z), int(y), int(x)
