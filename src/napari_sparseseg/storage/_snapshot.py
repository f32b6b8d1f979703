"""What was painted in a frame, as the engine learns from it."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from napari_sparseseg._types import UNPAINTED, Annotation, Shape3D, Statement
from napari_sparseseg.storage._edits import Codes
from napari_sparseseg.storage._stroke_table import Objects
from napari_sparseseg.storage._voxels import SEGMENT, Painted
from napari_sparseseg.storage.palette import Palette

_SEGMENTS_AT_ONCE = 2**11


def annotation_of(
    painted: Painted,
    shape: Shape3D,
    palette: Palette,
    weights: npt.NDArray[np.float32],
    objects: Objects | None = None,
    *,
    classes: Collection[int],
    background: int | None,
    overlapping: bool = False,
) -> Annotation:
    """Turn copied segments into a list of voxels, in C order; `weights`, `objects` have one for each stroke id.

    What says nothing about `classes` is left out; unpainted voxels of complete slices are `background`.
    """
    sets = {} if overlapping else _informative(palette, classes)
    stated = _statements(palette, classes) if overlapping else {}
    usable_codes = _usable_codes(classes, [*sets, *stated])
    # piece by piece, because temporary arrays that fit the cache make this several times faster
    pieces = [slice(i, i + _SEGMENTS_AT_ONCE) for i in range(0, len(painted.start), _SEGMENTS_AT_ONCE)]
    found = [_voxels_of(painted.part(piece), shape, usable_codes, weights, objects, background) for piece in pieces]
    coordinates, codes, of_voxel, ids = (np.concatenate(parts) for parts in zip(_nothing(), *found, strict=True))
    present = np.flatnonzero(np.bincount(codes)).tolist()
    return Annotation(
        shape,
        coordinates,
        codes,
        of_voxel,
        {code: sets[code] for code in present if code in sets},
        ids if ids.any() else None,
        {code: stated[code] for code in present if code in stated},
    )


class _Voxels(NamedTuple):
    coordinates: npt.NDArray[np.int32]
    codes: Codes
    weights: npt.NDArray[np.float32]
    objects: Objects  # empty where no stroke belongs to one


def _nothing() -> _Voxels:
    return _Voxels(np.empty((0, 3), np.int32), np.empty(0, np.uint8), np.empty(0, np.float32), np.empty(0, np.int32))


def _voxels_of(
    painted: Painted,
    shape: Shape3D,
    usable_codes: npt.NDArray[np.bool_],
    weights: npt.NDArray[np.float32],
    objects: Objects | None,
    background: int | None,
) -> _Voxels:
    codes = _with_background(painted, background)
    places, index = _usable(codes, painted.start, usable_codes, int(np.prod(shape)))
    ids = painted.ids.reshape(-1).take(places)
    return _Voxels(
        _coordinates(index, shape),
        codes.reshape(-1).take(places),
        weights.take(ids),
        np.empty(0, np.int32) if objects is None else objects.take(ids),
    )


def _informative(palette: Palette, classes: Collection[int]) -> dict[int, frozenset[int]]:
    """Sets that leave some of the classes possible, but not all."""
    possible = {code: known.within(classes) for code, known in palette.sets.items()}
    return {code: ids for code, ids in possible.items() if 0 < len(ids) < len(set(classes))}


def _statements(palette: Palette, classes: Collection[int]) -> dict[int, Statement]:
    """What sets say of overlapping classes, if they say anything."""
    said = {code: known.statement(classes) for code, known in palette.sets.items()}
    return {code: each for code, each in said.items() if each.present or each.absent}


def _usable_codes(classes: Collection[int], sets: Collection[int]) -> npt.NDArray[np.bool_]:
    usable = np.zeros(256, np.bool_)
    usable[[*classes, *sets]] = True
    return usable


def _with_background(painted: Painted, background: int | None) -> Codes:
    if painted.is_complete is None or background is None:
        return painted.codes
    codes: Codes = np.where(painted.is_complete & (painted.codes == UNPAINTED), np.uint8(background), painted.codes)
    return codes


def _usable(
    codes: Codes, start: npt.NDArray[np.int64], usable_codes: npt.NDArray[np.bool_], n_voxels: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.int64]]:
    """Places of usable voxels in the copied segments, and their flat index in the frame."""
    places = np.flatnonzero(usable_codes.take(codes))
    shift = start - np.arange(0, len(start) * SEGMENT, SEGMENT)
    index = places + shift.take(places // SEGMENT)
    # the first and the last segment may reach into other frames
    first, last = np.searchsorted(index, [0, n_voxels]).tolist()
    return places[first:last], index[first:last]


def _coordinates(index: npt.NDArray[np.int64], shape: Shape3D) -> npt.NDArray[np.int32]:
    """Positions (n, 3) along z, y, x of flat indices."""
    _, height, width = shape
    # divisions of 32-bit numbers are several times faster
    flat = index.astype(np.uint32) if np.prod(shape) < 2**32 else index
    rows = flat // width
    z = rows // height
    coordinates = np.empty((len(index), 3), np.int32)
    coordinates[:, 0] = z
    coordinates[:, 1] = rows - z * height
    coordinates[:, 2] = flat - rows * width
    return coordinates
