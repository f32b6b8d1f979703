"""What is painted on an image, to be read; `AnnotationStore` adds how it is painted."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from threading import RLock
from typing import NamedTuple

import numpy as np

from napari_sparseseg._types import NO_OBJECT, UNPAINTED, Annotation, Box, Plane, Statement
from napari_sparseseg.storage._checks import MAX_OBJECT, check_frame
from napari_sparseseg.storage._edits import Codes, Mask
from napari_sparseseg.storage._snapshot import annotation_of
from napari_sparseseg.storage._stroke_table import Objects, Stroke, StrokeTable
from napari_sparseseg.storage._voxels import Voxels
from napari_sparseseg.storage.palette import FIRST_SET, ClassSet, Palette


class PaintedPlane(NamedTuple):
    """A slice that was painted, how many of its voxels still carry strokes made on it, and whether it is complete."""

    plane: Plane
    n_voxels: int
    is_complete: bool


class ReadableAnnotation:
    """Codes, the strokes that they come from, sets of classes and complete slices, at first none.

    One thread may write while others read.
    """

    def __init__(self, shape: tuple[int, int, int, int]) -> None:
        self._shape = shape
        self._lock = RLock()
        self._revision = 0
        self._begin()

    def _begin(self) -> None:
        self._voxels = Voxels(self._shape)
        self._codes_view = self._voxels.codes.view()
        self._codes_view.flags.writeable = False
        self._palette = Palette()
        self._table = StrokeTable()
        self._complete: set[Plane] = set()

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return self._shape

    def painted_boxes(self, frame: int, edge: int = 64) -> list[Box]:
        """Cubes of a grid, clipped to the volume, that together hold all paint and all complete slices of a frame."""
        check_frame(frame, self._shape)
        with self._lock:
            painted = self._voxels.read_painted(frame)
        cube, whole = Box.whole((edge, edge, edge)), Box.whole(self._shape[1:])
        corners = painted.cubes(whole.shape, edge) * edge
        return [cube.shifted((z, y, x)).clipped(whole) for z, y, x in corners.tolist()]

    @property
    def codes(self) -> Codes:
        """All codes, (frames, z, y, x), as a read-only view: 0 unpainted, 1..127 classes, 128..254 sets."""
        return self._codes_view

    @property
    def revision(self) -> int:
        """The number of changes so far."""
        return self._revision

    @property
    def strokes(self) -> tuple[Stroke, ...]:
        """Strokes that have not been undone, oldest first."""
        with self._lock:
            return self._table.strokes

    @property
    def latest_stroke(self) -> Stroke | None:
        """The newest stroke that has not been undone."""
        strokes = self._table.strokes
        return strokes[-1] if strokes else None

    @property
    def sets(self) -> dict[int, ClassSet]:
        """The sets of classes that have a code."""
        return self._palette.sets

    def allowed(self, code: int, class_ids: Collection[int]) -> frozenset[int]:
        """Those of `class_ids` that a code leaves possible: all of them if it is 0, or stands for nothing."""
        return self._palette.allowed(code, class_ids)

    def n_painted(self, frame: int) -> int:
        """How many voxels of a frame are painted, not counting what complete slices add."""
        return int(self._voxels.n_of_code[frame, 1:].sum())

    def painted_classes(self, background: int | None = None) -> tuple[int, ...]:
        """Ids of the painted classes, ascending; the background too if a slice is complete. Sets do not count."""
        counts = self._voxels.n_of_code[:, :FIRST_SET].sum(axis=0)
        found = set(np.flatnonzero(counts).tolist()) - {UNPAINTED}
        if background is not None and self._complete:
            found.add(background)
        return tuple(sorted(found))

    def named_classes(self) -> tuple[int, ...]:
        """Ids of the painted classes, and of those that painted sets allow, forbid or say are present, ascending."""
        named = set(self.painted_classes())
        for known in self.painted_sets().values():
            named |= known.class_ids | known.present
        return tuple(sorted(named))

    def painted_sets(self) -> dict[int, ClassSet]:
        """The sets of classes that are painted, by their codes."""
        is_painted = np.asarray(self._voxels.n_of_code.any(axis=0))
        return {code: known for code, known in self.sets.items() if is_painted[code]}

    @property
    def next_object_id(self) -> int:
        """One more than the highest object id of all strokes that have not been undone."""
        return min(int(self._table.objects.max()), MAX_OBJECT - 1) + 1

    def objects(self, frame: int, box: Box) -> Objects:
        """Ids of the painted objects in a box, of its shape, 0 where nothing was said; any thread."""
        with self._lock:
            ids: Objects = self._table.objects.take(self._voxels.ids[frame][box.slices])
        return ids

    def object_ids(self, frame: int) -> tuple[int, ...]:
        """Ids of the objects that are painted in a frame, ascending."""
        with self._lock:
            objects = self._table.objects.take(self._voxels.read_painted(frame).ids)
        return tuple(np.unique(objects[objects != NO_OBJECT]).tolist())

    def classes_of_objects(self, class_ids: Collection[int]) -> frozenset[int]:
        """Those of `class_ids` that are painted as objects, where nothing else is; classes may overlap."""
        found: set[int] = set()
        with self._lock:
            if self._table.objects.any():
                for frame in self.frames_with_paint():
                    painted = self._voxels.read_painted(frame)
                    found |= set(np.unique(painted.codes[self._table.objects.take(painted.ids) != NO_OBJECT]).tolist())
            said = [self._palette.statement(code, class_ids).present for code in found - {UNPAINTED}]
        return frozenset(class_id for present in said if len(present) == 1 for class_id in present)

    def is_suggested(self, frame: int, box: Box) -> Mask:
        """Which voxels of a box the program suggested; a single False if it has suggested nothing anywhere."""
        if not self._table.is_suggested.any():
            return np.zeros((1, 1, 1), np.bool_)
        suggested: Mask = self._table.is_suggested.take(self._voxels.ids[frame][box.slices])
        return suggested

    def frames_with_paint(self) -> tuple[int, ...]:
        """Frames in which something is painted or a slice is complete, ascending."""
        with self._lock:
            painted = np.flatnonzero(self._voxels.n_of_code[:, 1:].any(axis=1)).tolist()
            return tuple(sorted({*painted, *(plane.frame for plane in self._complete)}))

    def painted_slices(self) -> tuple[PaintedPlane, ...]:
        """Slices that still carry their strokes, and complete ones, ordered by frame, axis and index."""
        with self._lock:
            counts = dict.fromkeys(self._complete, 0) | self._table.n_voxels_of_planes(self._voxels.n_of_id)
            ordered = sorted(counts, key=lambda plane: (plane.frame, plane.axis, plane.index))
            return tuple(PaintedPlane(plane, counts[plane], plane in self._complete) for plane in ordered)

    def is_complete(self, plane: Plane) -> bool:
        return plane in self._complete

    def snapshot(
        self,
        frame: int,
        *,
        classes: Sequence[int],
        background: int | None = None,
        correction_weight: float = 1.0,
        halving: float = 8.0,
        suggestion_weight: float = 1.0,
        overlapping: bool = False,
    ) -> Annotation:
        """What can be learnt from a frame, for the engine; any thread.

        Paint of other classes than `classes`, and sets that leave none or all of them possible, are left out. Unpainted
        voxels of complete slices are `background`. A correction weighs
        `1 + (correction_weight - 1) * 0.5 ** (age / halving)`, its age being the number of strokes made since; a
        suggestion that was accepted weighs `suggestion_weight`, all else 1. `objects` is None where no voxel belongs to
        one.
        """
        check_frame(frame, self._shape)
        with self._lock:
            painted = self._voxels.read_painted(frame)
            palette = self._palette
            weights = self._table.weights(correction_weight, halving, suggestion_weight)
            objects = self._table.objects.copy() if self._table.objects.any() else None
        return annotation_of(
            painted,
            self._shape[1:],
            palette,
            weights,
            objects,
            classes=classes,
            background=background,
            overlapping=overlapping,
        )

    def statements(self, class_ids: Collection[int], background: int | None) -> tuple[Statement, ...]:
        """Everything that paint anywhere says about overlapping classes, with what follows from it."""
        codes = set((np.flatnonzero(self._voxels.n_of_code[:, 1:].any(axis=0)) + 1).tolist())
        if self._complete and background is not None:
            codes.add(background)
        said = self.meanings(codes, class_ids, background).values()
        return tuple(each for each in said if each.present or each.absent)

    def meanings(
        self, codes: Iterable[int], class_ids: Collection[int], background: int | None
    ) -> dict[int, Statement]:
        """What each of these codes says about overlapping classes, with what follows from it."""
        palette = self._palette
        return {code: palette.statement(code, class_ids).completed(class_ids, background) for code in codes}
