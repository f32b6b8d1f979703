"""Class ids of the user against channels of the network: converted here and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from napari_sparseseg._types import MAX_CODE, Annotation


@dataclass(frozen=True, slots=True)
class ClassTable:
    """The painted class ids in ascending order; a class's channel is its index. `background` is one of them.

    `objects` are those whose voxels carried ids of objects, ascending; empty where no ids were painted. Where classes
    are `overlapping`, a voxel may belong to any number of them; then there need be no background (0), and if there is
    one, it means that no other class is there.
    """

    ids: tuple[int, ...]
    background: int
    objects: tuple[int, ...] = ()
    overlapping: bool = False

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def foreground_channels(self) -> tuple[int, ...]:
        return tuple(channel for channel, class_id in enumerate(self.ids) if class_id != self.background)

    @property
    def object_channels(self) -> tuple[int, ...]:
        """Channels of the classes that objects are made of: where no ids were painted, all but the background."""
        if not self.objects:
            return self.foreground_channels
        return tuple(channel for channel, class_id in enumerate(self.ids) if class_id in self.objects)

    def labels_of(self, channels: npt.NDArray[np.integer]) -> npt.NDArray[np.unsignedinteger]:
        """Class ids for channel numbers, in the smallest unsigned dtype that holds them."""
        lookup = np.asarray(self.ids, dtype=np.min_scalar_type(max(self.ids)))
        found: npt.NDArray[np.unsignedinteger] = lookup[channels]
        return found

    def allowed_by(self, annotation: Annotation) -> npt.NDArray[np.bool_]:
        """Which classes each painted voxel leaves possible, shape (n, classes)."""
        lookup = np.zeros((MAX_CODE + 1, len(self)), bool)
        for code in np.unique(annotation.codes).tolist():
            for class_id in annotation.allowed.get(code, (code,)):
                lookup[code, self.ids.index(class_id)] = True
        rows: npt.NDArray[np.bool_] = lookup[annotation.codes]
        return rows

    def stated_by(self, annotation: Annotation) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Which of overlapping classes are said to be present, and which to be absent, each (n, classes)."""
        n_codes = int(annotation.codes.max(initial=0)) + 1
        present, absent = (np.zeros((n_codes, len(self)), bool) for _ in range(2))
        for code in np.unique(annotation.codes).tolist():
            said = annotation.statement(code, self.ids, self.background)
            present[code], absent[code] = np.isin(self.ids, list(said.present)), np.isin(self.ids, list(said.absent))
        return present[annotation.codes], absent[annotation.codes]

    def grown_by(self, ids: Iterable[int]) -> ClassTable:
        """The table with further class ids."""
        return replace(self, ids=tuple(sorted({*self.ids, *ids})))

    def with_objects_of(self, annotations: Iterable[Annotation]) -> ClassTable:
        """The table whose `objects` are the classes that carry ids in this paint.

        Where several are there at once, as nuclei in cells, it is not known of which of them an id is: voxels of one
        class tell. If there are none, it is the classes that all voxels with ids have in common.
        """
        carrying = [_classes_at(a, code) for a in annotations for code in a.object_codes()]
        found = frozenset[int]().union(*(each for each in carrying if len(each) == 1))
        if not found:
            several = [each for each in carrying if each]
            found = frozenset.intersection(*several) if several else found
        return replace(self, objects=tuple(sorted(found)))


def _classes_at(annotation: Annotation, code: int) -> frozenset[int]:
    """The classes that a code says are there."""
    if code in annotation.stated:
        return annotation.stated[code].present
    return frozenset() if code in annotation.allowed else frozenset((code,))
