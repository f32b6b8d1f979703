"""Painted voxels as the trainer sees them: which slice each belongs to, and which are held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_sparseseg._types import Annotation, Box, Shape3D
from napari_sparseseg.engine.classes import ClassTable

CELL = 16  # edge, in voxels, of the squares of a slice that are held out together
_GAP = 3  # voxels around held-out paint that are neither learnt nor scored
_FEWEST = 200  # a class with less paint than this is never held out
_STROKE = 3  # voxels; half the width of what counts as a stroke
_LARGEST_SHARE = 0.2  # of a class's paint that may be held out
ENOUGH_PAINT = 500  # voxels of the rarest class, from which a U-Net can learn by itself
_LITTLE = 2000  # voxels that are little paint
_LARGEST_LOSS = 0.4  # of a class's paint that may be held out or lie in a gap


@dataclass(frozen=True, slots=True)
class Paint:
    """The painted voxels of one volume.

    `coordinates` (n, 3) ordered by z; `allowed` (n, classes); `weights` (n,); `axis` (n,) and `slice_id` (n,) say
    across which axis the slice lies that a voxel was painted on; `learnt` and `held_out` (n,) are disjoint;
    `object_ids` (n,) is 0 where no object was named. Where classes may overlap, `present` (n, classes) says which are
    there, and those that are not `allowed` are absent; else it is None. Unpainted voxels may have joined, for which all
    classes are allowed.
    """

    coordinates: npt.NDArray[np.int32]
    allowed: npt.NDArray[np.bool_]
    weights: npt.NDArray[np.float32]
    axis: npt.NDArray[np.int8]
    slice_id: npt.NDArray[np.int64]
    learnt: npt.NDArray[np.bool_]
    held_out: npt.NDArray[np.bool_]
    object_ids: npt.NDArray[np.int32]
    present: npt.NDArray[np.bool_] | None = None

    @property
    def kinds(self) -> npt.NDArray[np.bool_]:
        """What is balanced, (n, kinds): allowed classes; where they may overlap, first present and then absent ones.

        Unlabelled voxels are a kind of their own, the last one.
        """
        kinds, unlabelled = kinds_of(self.allowed, self.present), self.is_unlabelled[:, None]
        return np.hstack([kinds & ~unlabelled, unlabelled]) if unlabelled.any() else kinds

    @property
    def is_unlabelled(self) -> npt.NDArray[np.bool_]:
        """Which voxels were not painted and joined the paint, (n,)."""
        if self.present is not None:
            return np.zeros(len(self), bool)
        found: npt.NDArray[np.bool_] = self.allowed.sum(1) == self.allowed.shape[1]
        return found

    @property
    def is_definite(self) -> npt.NDArray[np.bool_]:
        """Which voxels have a right answer, (n,): one class; where they may overlap, all of which something is said."""
        return definite(self.allowed, self.present)

    def __len__(self) -> int:
        return len(self.coordinates)

    def within(self, box: Box) -> npt.NDArray[np.intp]:
        """Numbers of the painted voxels that lie in a box."""
        z = self.coordinates[:, 0]
        first, last = np.searchsorted(z, [box.start[0], box.stop[0]])
        y, x = self.coordinates[first:last, 1], self.coordinates[first:last, 2]
        inside = (y >= box.start[1]) & (y < box.stop[1]) & (x >= box.start[2]) & (x < box.stop[2])
        members: npt.NDArray[np.intp] = first + np.flatnonzero(inside)
        return members


def prepare_paint(
    annotation: Annotation,
    classes: ClassTable,
    *,
    share: float,
    balance: float,
    seed: int,
    class_weights: Sequence[float] = (),
) -> Paint:
    """Order the paint by slices and hold out about `share` of it, in squares with a gap around them.

    The choice depends on the paint, the share and the seed only. `balance` 0..1 raises the weight of rare classes
    to the power of their rarity. Where classes exclude each other, `class_weights` multiply it, one for each class, 1
    for those left out; a set takes the mean.
    """
    coordinates = annotation.coordinates
    present = None
    if classes.overlapping:
        present, absent = classes.stated_by(annotation)
        allowed = ~absent
    else:
        allowed = classes.allowed_by(annotation)
    kinds, is_definite = kinds_of(allowed, present), definite(allowed, present)
    axis = painted_axis(coordinates, annotation.shape)
    slice_id = slice_ids(coordinates, axis, annotation.shape)
    held_out, learnt = choose_held_out(coordinates, kinds, is_definite, axis, slice_id, share=share, seed=seed)
    weights = annotation.weights * balancing_weight(kinds, balance, is_definite)
    if class_weights and present is None:
        weights = weights * (allowed @ weight_of_classes(class_weights, len(classes)) / allowed.sum(1))
    return Paint(
        coordinates,
        allowed,
        weights.astype(np.float32, copy=False),
        axis,
        slice_id,
        learnt=learnt,
        held_out=held_out,
        object_ids=annotation.objects if annotation.objects is not None else np.zeros(len(annotation), np.int32),
        present=present,
    )


def kinds_of(allowed: npt.NDArray[np.bool_], present: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.bool_]:
    """See `Paint.kinds`."""
    return allowed if present is None else np.hstack([present, ~allowed])


def definite(allowed: npt.NDArray[np.bool_], present: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.bool_]:
    """See `Paint.is_definite`."""
    count: npt.NDArray[np.intp] = (kinds_of(allowed, present)).sum(1)
    return count == 1 if present is None else count > 0


def balancing_weight(
    kinds: npt.NDArray[np.bool_], balance: float, is_definite: npt.NDArray[np.bool_] | None = None
) -> npt.NDArray[np.float32]:
    """Weight of each voxel, mean 1: (painted voxels of its class) to the power of -balance; a set takes the mean.

    Voxels of one class are definite, if nothing else is said.
    """
    painted = kinds[kinds.sum(1) == 1 if is_definite is None else is_definite].sum(0)
    of_kind = np.maximum(painted, 1.0) ** -balance
    weight = kinds @ of_kind / np.maximum(kinds.sum(1), 1)
    if len(weight):
        weight = weight / weight.mean()
    balanced: npt.NDArray[np.float32] = weight.astype(np.float32)
    return balanced


def weight_of_classes(weights: Sequence[float], n_classes: int) -> npt.NDArray[np.float32]:
    """One weight for each class, in the order of their ids; 1 for those that have none, none for those that are not."""
    return np.asarray([*weights, *[1.0] * n_classes][:n_classes], np.float32)


def painted_axis(coordinates: npt.NDArray[np.int32], shape: tuple[int, int, int]) -> npt.NDArray[np.int8]:
    """The axis across which each voxel's slice lies: the one whose plane through it holds most paint."""
    fill = [
        np.bincount(coordinates[:, axis], minlength=size)[coordinates[:, axis]]
        if size > 1 or axis == 0
        else np.zeros(len(coordinates), np.int64)
        for axis, size in enumerate(shape)
    ]
    fullest: npt.NDArray[np.int8] = np.argmax(fill, axis=0).astype(np.int8)
    return fullest


def slice_ids(coordinates: npt.NDArray[np.int32], axis: npt.NDArray[np.int8], shape: Shape3D) -> npt.NDArray[np.int64]:
    """A number for the slice across its `axis` that each voxel lies on, (n,)."""
    along = np.take_along_axis(coordinates, axis[:, None].astype(np.int64), axis=1)[:, 0].astype(np.int64)
    return axis.astype(np.int64) * (max(shape) + 1) + along


def painted_area(slice_id: npt.NDArray[np.int64], axis: npt.NDArray[np.int8], shape: tuple[int, int, int]) -> int:
    """Voxels in all slices that carry paint, painted or not."""
    _, first = np.unique(slice_id, return_index=True)
    return sum(int(np.prod([n for a, n in enumerate(shape) if a != across])) for across in axis[first].tolist())


def scarcity(paints: Sequence[Paint], shapes: Sequence[Shape3D]) -> float:
    """How much overfitting must be held back: 1 for a few strokes, 0 for slices that are painted all over."""
    n_learnt = sum(int(np.count_nonzero(p.learnt)) for p in paints)
    area = sum(painted_area(p.slice_id, p.axis, shape) for p, shape in zip(paints, shapes, strict=True))
    density = min(1.0, sum(map(len, paints)) / max(1, area))
    return (1 - density) * min(1.0, float(np.sqrt(_LITTLE / max(1, n_learnt))))


def paint_of_rarest(paints: Sequence[Paint]) -> float:
    """Voxels that are surely of the class with the fewest; of those that are painted at all where the rest may be."""
    painted = np.concatenate([p.allowed[p.is_definite] if p.present is None else p.present for p in paints]).sum(0)
    if any(p.is_unlabelled.any() for p in paints):
        painted = painted[painted > 0]  # they stand for the background, which need not be painted
    return float(painted.min()) if len(painted) else 0.0


def share_of_rarest(paints: Sequence[Paint]) -> float:
    """How much of the paint is surely of the class with the fewest voxels, 0..1."""
    return paint_of_rarest(paints) / max(1, sum(map(len, paints)))


def sufficiency(paints: Sequence[Paint]) -> float:
    """Whether the class with the fewest voxels has enough of them to learn from, 0..1."""
    return min(1.0, paint_of_rarest(paints) / ENOUGH_PAINT)


def surrounded(paint: Paint, shape: Shape3D) -> npt.NDArray[np.bool_]:
    """Whether there is paint `_STROKE` voxels away on all four sides, (n,): false in strokes, true in filled areas."""
    found = np.ones(len(paint), bool)
    numbers = np.ravel_multi_index(tuple(paint.coordinates.T), shape)
    strides, known = (shape[1] * shape[2], shape[2], 1), np.sort(numbers)
    for across in range(3):
        rows = np.flatnonzero(paint.axis == across)
        for axis in (a for a in range(3) if a != across) if len(rows) else ():
            along = paint.coordinates[rows, axis]
            for step in (-_STROKE, _STROKE):
                is_inside = (along + step >= 0) & (along + step < shape[axis])
                found[rows] &= ~is_inside | _are_among(numbers[rows] + step * strides[axis], known)
    return found


def _are_among(numbers: npt.NDArray[np.intp], ordered: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
    """Which numbers occur in an ascending list of at least one; `numpy.isin` would sort all of it with each call."""
    found: npt.NDArray[np.bool_] = ordered.take(np.searchsorted(ordered, numbers), mode="clip") == numbers
    return found


def choose_held_out(
    coordinates: npt.NDArray[np.int32],
    kinds: npt.NDArray[np.bool_],
    is_definite: npt.NDArray[np.bool_],
    axis: npt.NDArray[np.int8],
    slice_id: npt.NDArray[np.int64],
    *,
    share: float,
    seed: int,
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Which voxels are held out, and which are learnt; those that are neither lie in a gap.

    Whole squares of slices, in random order, until `share` of the paint is held out; scarce classes are spared. Only
    definite voxels, those painted with one class, count as held out: a set of classes has no single right answer.
    """
    held_out, learnt = np.zeros(len(coordinates), bool), np.ones(len(coordinates), bool)
    painted = kinds[is_definite].sum(0)
    if not share or len(coordinates) == 0:
        return held_out, learnt
    room = np.where(painted >= _FEWEST, _LARGEST_SHARE * painted, 0)
    members = _squares(coordinates // CELL, axis, slice_id)
    wanted = share * is_definite.sum()
    to_lose = _LARGEST_LOSS * kinds.sum(0)
    places = _Places(coordinates)
    for number in np.random.default_rng(seed).permutation(len(members)):
        if wanted <= 0:
            break
        rows = members[number][is_definite[members[number]]]
        counts = kinds[rows].sum(0)
        if len(rows) and np.all((counts == 0) | (counts <= room)):
            lost = places.around(rows)
            lost = lost[learnt[lost]]
            loss = kinds[lost].sum(0)
            if np.all(loss <= to_lose):
                held_out[rows] = True
                learnt[lost] = False
                room, to_lose = room - counts, to_lose - loss
                wanted -= len(rows)
    beside = np.flatnonzero(~(learnt | held_out))  # in the box around a square, whose corners may be empty
    learnt[beside] = ~near_held_out(coordinates, held_out, beside)
    return held_out, learnt


def _squares(
    cells: npt.NDArray[np.int32], axis: npt.NDArray[np.int8], slice_id: npt.NDArray[np.int64]
) -> list[npt.NDArray[np.intp]]:
    """Numbers of the voxels of each square, ordered by slice and by the square's cell (n, 3) in it."""
    across, down = np.where(axis == 2, cells[:, 1], cells[:, 2]), np.where(axis == 0, cells[:, 1], cells[:, 0])
    n_cells = int(cells.max()) + 1
    square = (slice_id * n_cells + down) * n_cells + across
    order = np.argsort(square, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(square[order])) + 1)


class _Places:
    """Finds the voxels in a box row by row, whatever else is painted.

    To compare each voxel with each box would take minutes where slices are painted all over.
    """

    def __init__(self, coordinates: npt.NDArray[np.int32]) -> None:
        self._coordinates = coordinates
        self._size = coordinates.max(0).astype(np.int64) + 1
        numbers = np.ravel_multi_index(tuple(coordinates.T), tuple(self._size))
        self._order = np.argsort(numbers, kind="stable")  # soon done: they are in order as a rule
        self._ascending = numbers[self._order]

    def around(self, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        """Numbers of the voxels in the box around these and their gap."""
        square = self._coordinates[rows]
        low = np.maximum(square.min(0) - _GAP, 0)
        high = np.minimum(square.max(0) + _GAP, self._size - 1)
        z, y = np.arange(low[0], high[0] + 1)[:, None], np.arange(low[1], high[1] + 1)
        starts = ((z * self._size[1] + y) * self._size[2]).ravel()
        first = np.searchsorted(self._ascending, starts + low[2])
        length = np.searchsorted(self._ascending, starts + high[2], side="right") - first
        steps = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
        found: npt.NDArray[np.intp] = self._order[np.repeat(first, length) + steps]
        return found


def near_held_out(
    coordinates: npt.NDArray[np.int32], held_out: npt.NDArray[np.bool_], rows: npt.NDArray[np.intp] | None = None
) -> npt.NDArray[np.bool_]:
    """Voxels within the gap around held-out ones (in the largest coordinate difference); all, or these `rows`."""
    from scipy.spatial import cKDTree

    asked = coordinates if rows is None else coordinates[rows]
    if not held_out.any():
        return np.zeros(len(asked), bool)
    distance, _ = cKDTree(coordinates[held_out]).query(asked, p=np.inf, distance_upper_bound=_GAP + 0.5)
    near: npt.NDArray[np.bool_] = np.isfinite(distance)
    return near
