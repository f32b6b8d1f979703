"""What was painted holds: objects that were found are joined and cut as the painted ones say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from scipy.ndimage import find_objects

from napari_sparseseg._types import Spacing
from napari_sparseseg.engine.objects.editing import at_necks

Found = npt.NDArray[np.uint32]
Numbers = npt.NDArray[np.int32]
Place = tuple[slice, ...]

_OF_PAINTED = 0.25  # of a painted object, so much lies in a found one that is meant and not just touched
_OF_FOUND = 0.5  # or so much of the found one, on the painted slices and not far from there


def agree_with_painted(found: Found, painted: npt.NDArray[np.integer], spacing: Spacing) -> None:
    """Change ids that were found, (z, y, x), until they agree with those of painted objects; 0 is none in both.

    What was found of one painted object becomes one. A found object that several were painted in is cut between them,
    where it is narrow. Painted voxels belong to their object. Outlines of found and painted objects differ by some
    voxels; a neighbour that is touched by these only stays what it is.
    """
    is_painted = painted > 0
    if not is_painted.any():
        return
    numbers = np.zeros(painted.shape, np.int32)
    numbers[is_painted] = np.unique(painted[is_painted], return_inverse=True)[1] + 1
    places = dict(enumerate(find_objects(numbers), 1))
    meant = {number: _meant_by(number, numbers, found, place) for number, place in places.items()}
    names = _names(meant, int(found.max()))
    members: dict[int, list[int]] = {}
    for number, object_ids in meant.items():
        for object_id in object_ids:
            members.setdefault(object_id, []).append(number)
    _cut({i: several for i, several in members.items() if len(several) > 1}, found, numbers, names, spacing)
    renamed = np.arange(int(found.max()) + 1, dtype=found.dtype)
    for object_id, several in members.items():
        if len(several) == 1:
            renamed[object_id] = names[several[0]]
    found[...] = renamed[found]
    for number, place in places.items():
        found[place][numbers[place] == number] = names[number]


def _meant_by(number: int, numbers: Numbers, found: Found, place: Place) -> list[int]:
    """Ids of the found objects that a painted one lies in, ascending."""
    is_painted = numbers[place] == number
    on_planes = [np.flatnonzero(is_painted.any(tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    axis = int(np.argmin([len(planes) for planes in on_planes]))
    around = [slice(max(0, 2 * part.start - part.stop), 2 * part.stop - part.start) for part in place]
    around[axis] = place[axis]
    nearby = np.take(found[tuple(around)], on_planes[axis], axis)
    sizes = dict(zip(*np.unique(nearby, return_counts=True), strict=True))
    inside = zip(*np.unique(found[place][is_painted], return_counts=True), strict=True)
    enough = _OF_PAINTED * np.count_nonzero(is_painted)
    return [int(i) for i, n in inside if i and (n >= enough or n >= _OF_FOUND * sizes[i])]


def _names(meant: Mapping[int, Sequence[int]], highest: int) -> dict[int, int]:
    """An id for each painted object: one of those that it lies in, and that no other has, or a new one."""
    names: dict[int, int] = {}
    taken: set[int] = set()
    for number, object_ids in meant.items():
        free = [object_id for object_id in object_ids if object_id not in taken]
        highest += not free
        names[number] = free[0] if free else highest
        taken.add(names[number])
    return names


def _cut(
    members: Mapping[int, Sequence[int]], found: Found, numbers: Numbers, names: Mapping[int, int], spacing: Spacing
) -> None:
    """Share the found objects out among the painted ones that lie in each."""
    if not members:
        return
    lookup = np.zeros(max(names) + 1, found.dtype)
    lookup[list(names)] = list(names.values())
    places = find_objects(found.view(np.int32), max(members))
    parts = []
    for object_id, several in members.items():
        place = places[object_id - 1]
        mask = found[place] == object_id
        seeds = np.where(mask & np.isin(numbers[place], several), numbers[place], 0)
        parts.append((place, at_necks(mask, seeds, spacing)))
    for place, part in parts:
        np.copyto(found[place], lookup[part], where=part > 0)
