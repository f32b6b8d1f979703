"""Classes that may overlap: which can be learnt from what was painted, and what is shown of each."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_sparseseg._types import UNPAINTED
from napari_sparseseg.live.classes import ClassList
from napari_sparseseg.storage.overlapping import absent_nowhere
from napari_sparseseg.storage.strokes import AnnotationStore

if TYPE_CHECKING:
    from napari_sparseseg.config import PaintConfig

Presence = npt.NDArray[np.bool_]


def learnable_classes(
    store: AnnotationStore, classes: ClassList, painting: PaintConfig, *, is_overlapping: bool
) -> tuple[int, ...]:
    """Ids of the painted classes that can be learnt, ascending; none if too little is known of them.

    Of overlapping classes it must be known of each where it is not. See `ClassList.learnable` for others.
    """
    if not is_overlapping:
        return classes.learnable(store.painted_classes(classes.background), painting)
    said = store.statements(classes.ids, classes.background)
    painted = sorted({class_id for each in said for class_id in each.present})
    return () if absent_nowhere(said, is_missing_absent=painting.missing_weight > 0) else tuple(painted)


def missing_paint(store: AnnotationStore, classes: ClassList, painting: PaintConfig) -> str:
    """What has to be painted before overlapping classes can be learnt."""
    said = store.statements(classes.ids, classes.background)
    everywhere = absent_nowhere(said, is_missing_absent=painting.missing_weight > 0)
    if not everywhere:
        return "Paint a little of a class"
    name = next(info.name for info in classes.all if info.class_id == everywhere[0])
    return f"Show where {name} is not: paint background there, or erase on the layer of {name}"


def shown_presence(
    store: AnnotationStore, class_id: int, predicted: Presence, codes: npt.NDArray[np.uint8], classes: ClassList
) -> Presence:
    """Where a class is, as predicted and as painted over it."""
    found = predicted.copy()
    for code, said in store.meanings(_painted(codes), classes.ids, classes.background).items():
        if class_id in said.present | said.absent:
            found[codes == code] = class_id in said.present
    return found


def labels_of_objects(
    labels: npt.NDArray[np.uint8], of_objects: Collection[int], classes: ClassList
) -> npt.NDArray[np.uint8]:
    """Labels in objects, in place: all of one class are of it also where another one is likelier, as cells in nuclei.

    `of_objects` are the classes that objects were looked for of; of several, the labels tell. Where no class is, or the
    background, that stays.
    """
    known = [class_id for class_id in of_objects if class_id in classes]
    if len(known) == 1:
        labels[~np.isin(labels, [UNPAINTED, classes.background or UNPAINTED])] = known[0]
    return labels


def _painted(codes: npt.NDArray[np.uint8]) -> Iterable[int]:
    found: list[int] = np.unique(codes[codes > 0]).tolist()
    return found
