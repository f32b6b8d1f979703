"""Strokes, and the table that the ids of painted voxels refer to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from napari_sparseseg._types import NO_OBJECT, Plane
from napari_sparseseg.errors import InputError

Ids = npt.NDArray[np.uint16]
Objects = npt.NDArray[np.int32]

_FADED = 30  # after so many halvings a correction weighs as much as any paint


class StrokeKind(StrEnum):
    """What a stroke said."""

    PAINT = "paint"
    CORRECTION = "correction"  # of a prediction that showed something else
    CONFIRMATION = "confirmation"  # of a prediction that showed this class
    REJECTION = "rejection"  # not the class that was shown
    ERASURE = "erasure"


class StrokeAuthor(StrEnum):
    """Who made a stroke."""

    HUMAN = "human"
    SUGGESTION = "suggestion"  # the program proposed it, and somebody accepted it


NewStroke = tuple[StrokeKind, float, Plane | None, int, StrokeAuthor, int]
"""A stroke without its number."""


class StrokeHead(NamedTuple):
    """What is known of a stroke before it is made; erasures and rejections belong to no object."""

    kind: StrokeKind
    plane: Plane | None = None
    by: StrokeAuthor = StrokeAuthor.HUMAN
    object_id: int = NO_OBJECT


@dataclass(frozen=True, slots=True)
class Stroke:
    """One stroke: its number (1, 2, ... as they were made), when (seconds since 1970), where, how many voxels.

    `object_id` says to which object its voxels belong, 0 if nothing was said.
    """

    number: int
    kind: StrokeKind
    time: float
    plane: Plane | None
    n_voxels: int
    by: StrokeAuthor = StrokeAuthor.HUMAN
    object_id: int = NO_OBJECT


class StrokeTable:
    """Strokes that have not been undone, oldest first; the id of a stroke is its position, counted from 1."""

    def __init__(self, strokes: Iterable[Stroke] = ()) -> None:
        self._strokes: list[Stroke] = list(strokes)
        self._next_number = self._strokes[-1].number + 1 if self._strokes else 1
        self._objects = _objects_of(self._strokes)
        self._is_suggested = _suggested_of(self._strokes)

    def __len__(self) -> int:
        return len(self._strokes)

    @property
    def strokes(self) -> tuple[Stroke, ...]:
        return tuple(self._strokes)

    @property
    def objects(self) -> Objects:
        """The object that each stroke id belongs to, (65536,)."""
        return self._objects

    @property
    def is_suggested(self) -> npt.NDArray[np.bool_]:
        """Whether the program proposed the stroke of each id, (65536,)."""
        return self._is_suggested

    def numbered(self, strokes: Iterable[NewStroke]) -> tuple[Stroke, ...]:
        """Strokes of these kinds, times, slices, sizes, authors and objects, with the next numbers."""
        return tuple(Stroke(self._next_number + i, *stroke) for i, stroke in enumerate(strokes))

    def add(self, strokes: tuple[Stroke, ...]) -> None:
        first = len(self._strokes) + 1
        self._objects[first : first + len(strokes)] = [stroke.object_id for stroke in strokes]
        self._is_suggested[first : first + len(strokes)] = [_is_suggested(stroke) for stroke in strokes]
        self._strokes.extend(strokes)
        self._next_number = strokes[-1].number + 1

    def take_back(self, strokes: tuple[Stroke, ...]) -> None:
        """Drop the latest strokes, which must be these."""
        del self._strokes[-len(strokes) :]
        self._objects[len(self._strokes) + 1 :][: len(strokes)] = NO_OBJECT
        self._is_suggested[len(self._strokes) + 1 :][: len(strokes)] = False
        self._next_number = strokes[0].number

    def weights(
        self, correction_weight: float, halving: float, suggestion_weight: float = 1.0
    ) -> npt.NDArray[np.float32]:
        """Weight of each id. What a correction weighs above 1 is halved by every `halving` strokes made since.

        Accepted suggestions weigh `suggestion_weight`.
        """
        weights = np.where(self._is_suggested[: len(self._strokes) + 1], suggestion_weight, 1).astype(np.float32)
        for stroke_id in range(len(self._strokes), 0, -1):
            stroke = self._strokes[stroke_id - 1]
            age = self._next_number - 1 - stroke.number
            if age > _FADED * halving:
                break
            if stroke.kind is StrokeKind.CORRECTION and not _is_suggested(stroke):
                weights[stroke_id] = 1 + (correction_weight - 1) * 0.5 ** (age / halving)
        return weights

    def n_voxels_of_planes(self, n_of_id: npt.NDArray[np.int64]) -> dict[Plane, int]:
        """How many voxels still carry strokes made on a slice, for each slice that has any."""
        counts: dict[Plane, int] = {}
        for stroke, n_voxels in zip(self._strokes, n_of_id[1 : len(self._strokes) + 1].tolist(), strict=True):
            if stroke.plane is not None and n_voxels:
                counts[stroke.plane] = counts.get(stroke.plane, 0) + n_voxels
        return counts

    def merge(self, n_of_id: npt.NDArray[np.int64], limit: int, n_new: int) -> Ids:
        """Forget strokes without voxels, keep the newest `limit` / 3, and merge older ones by kind, slice and object.

        If more than `limit` / 3 merged strokes are left, they are merged across slices, and if need be those of an
        object across kinds. Different objects are never merged, nor are suggestions and what somebody painted, unless
        both belong to the same object.
        Returns the new id of each old one. Raises `InputError`, changing nothing, if that leaves no room for `n_new`.
        """
        n_kept = limit // 3
        alive = [stroke_id for stroke_id in range(1, len(self._strokes) + 1) if n_of_id[stroke_id]]
        n_old = max(0, len(alive) - n_kept)
        groups = self._grouped(alive[:n_old], lambda stroke: (*_sort_of(stroke), stroke.plane, stroke.object_id))
        if len(groups) > n_kept:
            groups = self._grouped(alive[:n_old], lambda stroke: (*_sort_of(stroke), stroke.object_id))
        if len(groups) > n_kept:
            groups = self._grouped(alive[:n_old], lambda stroke: stroke.object_id or _sort_of(stroke))
        table = np.zeros(2**16, np.uint16)
        kept = []
        for members in [*groups, *([stroke_id] for stroke_id in alive[n_old:])]:
            kept.append(self._merged(members, n_of_id))
            table[members] = len(kept)
        if len(kept) + n_new > limit:
            raise InputError(
                f"the annotation holds more strokes than {limit} that cannot be merged; use an intact copy"
            )
        self._strokes, self._objects, self._is_suggested = kept, _objects_of(kept), _suggested_of(kept)
        return table

    def _grouped(self, ids: list[int], key: Callable[[Stroke], object]) -> list[list[int]]:
        groups: dict[object, list[int]] = {}
        for stroke_id in ids:
            groups.setdefault(key(self._strokes[stroke_id - 1]), []).append(stroke_id)
        return sorted(groups.values(), key=lambda members: members[-1])

    def check_room_for(self, object_id: int, n_of_id: npt.NDArray[np.int64], limit: int) -> None:
        """Refuse a new object if there are more than `limit` / 2, so that strokes can always be merged."""
        if object_id in self._objects:
            return
        alive = np.unique(self._objects[np.flatnonzero(n_of_id)])
        if len(alive) > limit // 2:
            raise InputError(
                f"object {object_id} is one too many: {limit // 2} objects can be painted in an image; "
                "erase some, or paint without an object"
            )

    def _merged(self, ids: list[int], n_of_id: npt.NDArray[np.int64]) -> Stroke:
        """The latest of these strokes, to stand for all of them; without a slice if they are of several."""
        members = [self._strokes[stroke_id - 1] for stroke_id in ids]
        if len(members) == 1:
            return members[0]
        planes = {member.plane for member in members}
        return replace(
            members[-1], plane=members[-1].plane if len(planes) == 1 else None, n_voxels=int(n_of_id[ids].sum())
        )


def _objects_of(strokes: list[Stroke]) -> Objects:
    objects = np.zeros(2**16, np.int32)
    objects[1 : len(strokes) + 1] = [stroke.object_id for stroke in strokes]
    return objects


def _suggested_of(strokes: list[Stroke]) -> npt.NDArray[np.bool_]:
    suggested = np.zeros(2**16, np.bool_)
    suggested[1 : len(strokes) + 1] = [_is_suggested(stroke) for stroke in strokes]
    return suggested


def _is_suggested(stroke: Stroke) -> bool:
    return stroke.by is StrokeAuthor.SUGGESTION


def _sort_of(stroke: Stroke) -> tuple[StrokeKind, bool]:
    """What strokes must have in common to be merged, so that they have the same weight."""
    return stroke.kind, _is_suggested(stroke)
