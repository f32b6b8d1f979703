"""Annotation of classes that may overlap: an axis of classes in front, and what of it can be learnt from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_sparseseg._types import MAX_CLASSES, Annotation, Box, Statement
from napari_sparseseg.errors import InputError
from napari_sparseseg.storage._arrays import check_array_like, index_text, shape_of
from napari_sparseseg.storage.volume import ArrayVolume

UNKNOWN, ABSENT, PRESENT = 0, 1, 2
_STATES = "with an axis of classes in front, 0 is unknown, 1 absent and 2 present"
_MOST_CODES = 2**16 - 1


def open_class_axis(array: Any, volume: ArrayVolume, name: str) -> ArrayVolume:
    """Wrap an annotation of shape (classes, *spatial shape of the image).

    Raises `InputError` for another shape, more than 127 classes, and booleans, which cannot say what is unknown.
    """
    check_array_like(array, name)
    n_classes, *spatial = shape_of(array, name)
    if tuple(spatial) != volume.spatial_shape:
        raise InputError(
            f"{name} has shape {(n_classes, *spatial)}, but the {volume.name} has spatial shape "
            f"{volume.spatial_shape}; where classes overlap, pass that shape with an axis of classes in front, or "
            "without one"
        )
    if n_classes > MAX_CLASSES:
        raise InputError(
            f"{name} has {n_classes} classes along its first axis, but at most {MAX_CLASSES} can be told apart; is its "
            "first axis one of the image's?"
        )
    if np.dtype(array.dtype).kind == "b":
        raise InputError(
            f"{name} is of booleans, which cannot say where nothing is known: {_STATES}; pass mask + 1 if all is known"
        )
    return ArrayVolume(array, 0, name=name)


def read_states(paint: ArrayVolume, box: Box) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.uint8]]:
    """Which voxels of a box are painted, and the states of all classes there, (n, classes).

    Raises `InputError` for other values than those of a state.
    """
    block = paint.read(box)
    wrong = (block != UNKNOWN) & (block != ABSENT) & (block != PRESENT)
    if wrong.any():
        channel, *position = (int(i) for i in np.argwhere(wrong)[0])
        place = tuple(a + b for a, b in zip(position, box.start, strict=True))[-len(paint.spatial_shape) :]
        value = block[(channel, *position)].item()
        raise InputError(f"{paint.name} holds {value} for class {channel + 1} at {index_text(place)}; {_STATES}")
    is_painted: npt.NDArray[np.bool_] = (block != UNKNOWN).any(0)
    return is_painted, block[:, is_painted].T.astype(np.uint8)


def coded(states: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint16], dict[int, Statement]]:
    """A code from 1 for each combination of states (n, classes), and what it says of classes 1, 2, ...

    Raises `InputError` for more than 65,535 combinations.
    """
    numbers = np.zeros(len(states), np.int64)
    for column in states.T:
        numbers = np.unique(3 * numbers + column, return_inverse=True)[1]
    codes, first = np.unique(numbers, return_index=True)
    if len(codes) > _MOST_CODES:
        raise InputError(
            f"the classes overlap in {len(codes)} ways, but at most {_MOST_CODES} can be told apart; leave classes out"
        )
    stated = {
        code: Statement(frozenset(_ids(row == PRESENT)), frozenset(_ids(row == ABSENT)))
        for code, row in enumerate(states[first], 1)
    }
    return (numbers + 1).astype(np.uint16), stated


def _ids(chosen: npt.NDArray[np.bool_]) -> list[int]:
    found: list[int] = (np.flatnonzero(chosen) + 1).tolist()
    return found


def check_overlapping(
    annotations: Sequence[Annotation], background: int, *, is_missing_absent: bool
) -> tuple[int, ...]:
    """Class ids over all volumes, ascending: those painted, and those named in sets and statements.

    `is_missing_absent` tells that a class which is not mentioned counts as absent where another one is present. Raises
    `InputError` if nothing is painted, for more than 127 classes, and for one that is never said to be absent: it would
    be found everywhere.
    """
    classes = tuple(sorted({class_id for annotation in annotations for class_id in annotation.classes()}))
    if not classes:
        raise InputError(
            "nothing is painted: the annotation is 0 everywhere; paint where a class is, and where it is not"
        )
    if len(classes) > MAX_CLASSES:
        raise InputError(f"{len(classes)} classes are painted, but at most {MAX_CLASSES} can be told apart; merge some")
    said = [a.statement(code, classes, background) for a in annotations for code in np.unique(a.codes).tolist()]
    for class_id in absent_nowhere(said, is_missing_absent=is_missing_absent):
        raise InputError(
            f"class {class_id} is painted, but nothing says where it is not, so it would be found everywhere; say so "
            "with an axis of classes (1 is absent) or a background class, or set missing_weight above 0 and paint "
            "another class"
        )
    return classes


def absent_nowhere(said: Sequence[Statement], *, is_missing_absent: bool) -> list[int]:
    """Classes that are said to be somewhere, but nowhere said to be absent, ascending; else as `check_overlapping`."""
    return [
        class_id
        for class_id in sorted(frozenset[int]().union(*(each.present for each in said)))
        if not any(
            class_id in each.absent or (is_missing_absent and each.present and class_id not in each.present)
            for each in said
        )
    ]
