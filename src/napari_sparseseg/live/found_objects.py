"""FoundObjects: finds objects with the model as it is, and lets them be corrected by hand."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from napari_sparseseg._types import MAX_CLASSES, NO_OBJECT, UNPAINTED, Box, Plane, Region, Shape3D
from napari_sparseseg.config import PaintConfig
from napari_sparseseg.errors import InputError, NotFittedError
from napari_sparseseg.live.classes import ClassList
from napari_sparseseg.live.events import ObjectsChange
from napari_sparseseg.live.opened import Opened
from napari_sparseseg.live.switchboard import Find, Tabulate
from napari_sparseseg.storage._edits import bounds_of, box_within
from napari_sparseseg.storage.object_ids import Change, Ids, box_across
from napari_sparseseg.storage.palette import FIRST_SET
from napari_sparseseg.storage.strokes import PaintEdit

Mask = npt.NDArray[np.bool_]

_MANY = 100_000  # voxels; of larger objects some are looked at
_AT_ONCE = 1 << 18  # voxels around an object; it is cut or filled within some ten milliseconds
_REACH = 12.0  # of what is on screen into the depth, in units of the finest voxel edge


class Move(NamedTuple):
    """Voxels of a box that go from one object to another one; 0 is none."""

    mask: Mask
    before: int
    after: int


@dataclass(frozen=True, slots=True, eq=False)
class Draft:
    """What is to be done to an object: the `mask` of it in its box, and what it loses to a new one, or gains."""

    opened: Opened
    plane: Plane
    object_id: int
    box: Box
    mask: Mask
    lost: Mask | None = None
    gained: Mask | None = None


class FoundObjects:
    """The objects that were found in the image; called from one thread, that of the GUI, like `LiveSegmenter`.

    A correction changes the objects and says so in the annotation, on the slice where it was made: the model learns
    from it. Where classes may overlap, it says so of the object's class, and nothing of the others.
    `LiveSegmenter.undo` takes both back. Voxels are (z, y, x).
    """

    def __init__(
        self,
        work: Callable[[], Opened | None],
        classes: ClassList,
        painting: Callable[[], PaintConfig],
        labels: Callable[[int, Box], npt.NDArray[np.uint8]],
        take: Callable[[PaintEdit | None], bool],
        wish: Callable[..., None],
        compute: Callable[[Callable[[], Draft]], Future[Draft]],
    ) -> None:
        self._work = work
        self._classes = classes
        self._painting = painting
        self._labels = labels
        self._take = take
        self._wish = wish
        self._compute = compute

    # --- finding ---

    def find_on_screen(self) -> None:
        """Look for the objects of what is on screen, some slices to either side included.

        What was found there before is replaced. Returns at once; `LiveEvents.objects_changed` tells of the end. Raises
        `NotFittedError` without a model.
        """
        opened = self._with_model()
        view = opened.switch.wishes.view
        if view is None:
            raise InputError("nothing is on screen yet; show the image first")
        spacing, axis = opened.image.spacing, view.plane.axis
        margin = [0, 0, 0]
        margin[axis] = int(np.ceil(_REACH * min(spacing) / spacing[axis]))
        box = view.box.grown((margin[0], margin[1], margin[2])).clipped(Box.whole(opened.image.shape[1:]))
        self._wish(find=Find(view.plane.frame, box), is_halted=False)

    def find_all(self) -> None:
        """Look for all objects of the time point on screen; otherwise as `find_on_screen`."""
        opened = self._with_model()
        self._wish(find=Find(opened.switch.frame, Box.whole(opened.image.shape[1:])), is_halted=False)

    def cancel(self) -> None:
        """Look for objects no longer; those that were known stay."""
        self._wish(find=None)

    def keep_table(self, frame: int | None) -> None:
        """Measure the objects of a time point, now and whenever they change; None: no longer.

        Returns at once; `LiveEvents.objects_measured` brings the table.
        """
        self._wish(table=None if frame is None else Tabulate(frame))

    @property
    def keeps_table(self) -> bool:
        """Whether objects are measured; no longer after another image was opened, or after a failure."""
        opened = self._work()
        return opened is not None and opened.switch.wishes.table is not None

    # --- reading ---

    @property
    def is_empty(self) -> bool:
        """Whether objects were never looked for in this image."""
        opened = self._work()
        return opened is None or opened.objects.is_empty

    @property
    def reader(self) -> Callable[[int, Box], Ids]:
        """What `ids` does, for the image that is open now; it stays that of this image when another one is opened."""
        return self._opened().objects.read

    def ids(self, frame: int, box: Box) -> Ids:
        """Ids of the objects in a box of a time point, of its shape, 0 where there is none; a copy."""
        opened = self._work()
        return np.zeros(box.shape, np.uint32) if opened is None else opened.objects.read(frame, box)

    def id_at(self, frame: int, voxel: Shape3D) -> int:
        """The object at a voxel, 0 if there is none."""
        z, y, x = voxel
        return int(self.ids(frame, Box(voxel, (z + 1, y + 1, x + 1))).item())

    def count(self, frame: int) -> int:
        """How many objects a time point has."""
        opened = self._work()
        return 0 if opened is None else opened.objects.count(frame)

    def place_of(self, frame: int, object_id: int) -> Shape3D:
        """The voxel of an object nearest to its centre. Raises `InputError` if there is no such object."""
        opened = self._opened()
        box, ids = self._of(opened, frame, object_id)
        voxels = np.argwhere(ids == object_id)
        voxels = voxels[:: 1 + len(voxels) // _MANY]
        away = (voxels - voxels.mean(0)) * opened.image.spacing
        z, y, x = (voxels[(away**2).sum(1).argmin()] + box.start).tolist()
        return z, y, x

    # --- correcting ---

    def merge(self, plane: Plane, first: Shape3D, second: Shape3D) -> None:
        """Make one object of those at two voxels. Raises `InputError` if these are not two."""
        opened = self._opened()
        one, other = (self._object_at(plane.frame, voxel) for voxel in (first, second))
        if one == other:
            raise InputError("both points lie in one object; to merge, choose points in two")
        box, ids = self._of(opened, plane.frame, one, other)
        moved = ids == other
        ids[moved] = one
        self._say(opened, plane, box, ids, (one,), Move(moved, other, one))

    def split(self, plane: Plane, first: Shape3D, second: Shape3D) -> None:
        """Make two objects of one, which two voxels belong to: cut at the narrowest place between them.

        Takes seconds for an object that fills a volume; `begin_split` and `finish` do the same without waiting.
        """
        self.finish(self._cut_of(plane, first, second)())

    def begin_split(self, plane: Plane, first: Shape3D, second: Shape3D) -> Future[Draft]:
        """Look for where to cut, at once or, if that may take long, on the compute thread; raises as `split`.

        `finish` takes what was found.
        """
        return self._begin(plane.frame, first, self._cut_of(plane, first, second))

    def fill(self, plane: Plane, voxel: Shape3D) -> None:
        """Close the holes of an object, in space and on the slice. Raises `InputError` if it has none.

        Takes seconds for an object that fills a volume; `begin_fill` and `finish` do the same without waiting.
        """
        self.finish(self._filling_of(plane, voxel)())

    def begin_fill(self, plane: Plane, voxel: Shape3D) -> Future[Draft]:
        """Look for the holes of an object, otherwise as `begin_split`."""
        return self._begin(plane.frame, voxel, self._filling_of(plane, voxel))

    def finish(self, draft: Draft) -> None:
        """Do what was looked for. Raises `InputError` if the object has changed since, or is of another image."""
        opened, plane, box, one = draft.opened, draft.plane, draft.box, draft.object_id
        if opened is not self._work() or opened.objects.box_of(plane.frame, [one]) != box:
            raise _changed(one)
        ids = opened.objects.read(plane.frame, box)
        if not np.array_equal(ids == one, draft.mask):
            raise _changed(one)
        if draft.lost is not None:
            new = opened.objects.next_id
            ids[draft.lost] = new
            self._say(opened, plane, box, ids, (one, new), Move(draft.lost, one, new))
        elif draft.gained is not None:
            if ids[draft.gained].any():
                raise _changed(one)
            class_id = self._class_of(opened, plane.frame, box, draft.mask)
            self._correct(opened, plane, box, class_id, Move(draft.gained, NO_OBJECT, one), is_present=True)

    def _begin(self, frame: int, voxel: Shape3D, find: Callable[[], Draft]) -> Future[Draft]:
        box = self._opened().objects.box_of(frame, [self._object_at(frame, voxel)])
        if box is None or box.n_voxels > _AT_ONCE:
            return self._compute(find)
        future: Future[Draft] = Future()
        future.set_result(find())
        return future

    def _filling_of(self, plane: Plane, voxel: Shape3D) -> Callable[[], Draft]:
        """What finds the holes, on any thread."""
        opened, object_id = self._opened(), self._object_at(plane.frame, voxel)

        def find() -> Draft:
            from napari_sparseseg.engine.objects.editing import holes

            box, ids = self._of(opened, plane.frame, object_id)
            mask, index = ids == object_id, plane.index - box.start[plane.axis]
            if not 0 <= index < box.shape[plane.axis]:
                raise InputError(f"object {object_id} does not reach this slice; choose one that it lies on")
            gained = holes(mask, plane.axis, index) & (ids == NO_OBJECT)
            if not gained.any():
                raise InputError(f"object {object_id} has no holes, in space or on this slice")
            return Draft(opened, plane, object_id, box, mask, gained=gained)

        return find

    def _cut_of(self, plane: Plane, first: Shape3D, second: Shape3D) -> Callable[[], Draft]:
        """What finds where to cut, on any thread."""
        opened = self._opened()
        one, other = (self._object_at(plane.frame, voxel) for voxel in (first, second))
        if one != other or first == second:
            raise InputError("the points lie in two objects; to split, choose two different points in one")

        def find() -> Draft:
            from napari_sparseseg.engine.objects.editing import cut

            box, ids = self._of(opened, plane.frame, one)
            points = [Box(voxel, voxel).relative_to(box.start).start for voxel in (first, second)]
            limits = list(zip(points[0], points[1], ids.shape, strict=True))
            if any(min(a, b) < 0 or max(a, b) >= n for a, b, n in limits) or {ids[point] for point in points} != {one}:
                raise _changed(one)
            mask = ids == one
            parts = cut(mask, points[0], points[1], opened.image.spacing)
            return Draft(opened, plane, one, box, mask, lost=parts == 2)

        return find

    def delete(self, plane: Plane, voxel: Shape3D) -> None:
        """Remove an object: what is predicted there is the background, or without one not what was predicted.

        Where classes may overlap, the object's class is not there, if it is known.
        """
        opened = self._opened()
        object_id = self._object_at(plane.frame, voxel)
        box, ids = self._of(opened, plane.frame, object_id)
        move = Move(ids == object_id, object_id, NO_OBJECT)
        class_id = self._likeliest_class(opened, plane.frame, box, move.mask) if self._painting().overlapping else None
        self._correct(opened, plane, box, class_id, move, is_present=False)

    # --- history ---

    @property
    def can_undo(self) -> bool:
        """Whether there is a stroke or a correction to take back."""
        opened = self._work()
        return opened is not None and (opened.store.can_undo or self._change_to_undo(opened) is not None)

    @property
    def can_redo(self) -> bool:
        """Whether there is a stroke or a correction to make again."""
        opened = self._work()
        return opened is not None and (opened.store.can_redo or self._loose_to_redo(opened) is not None)

    def undo(self) -> bool:
        """Take the latest stroke or correction back; False if there is none."""
        opened = self._opened()
        change = self._change_to_undo(opened)
        if change is None:
            return self._take(opened.store.undo())
        if change.is_painted and not self._take(opened.store.undo()):
            return False
        self._tell(opened, opened.objects.undo())
        return True

    def redo(self) -> bool:
        """Make the stroke or correction again that was taken back last; False if there is none."""
        opened = self._opened()
        if self._loose_to_redo(opened) is None:
            if not self._take(opened.store.redo()):
                return False
            change = opened.objects.to_redo()
            if change is None or not change.is_painted or change.stroke != opened.store.latest_stroke:
                return True
        self._tell(opened, opened.objects.redo())
        return True

    def _change_to_undo(self, opened: Opened) -> Change | None:
        """A correction that comes before all strokes, and whose own can still be taken back."""
        change = opened.objects.to_undo(opened.store.latest_stroke)
        return None if change is not None and change.is_painted and not opened.store.can_undo else change

    def _loose_to_redo(self, opened: Opened) -> Change | None:
        """A correction without paint that comes next."""
        change = opened.objects.to_redo()
        is_next = change is not None and not change.is_painted and change.stroke == opened.store.latest_stroke
        return change if is_next else None

    # --- between ---

    def _opened(self) -> Opened:
        opened = self._work()
        if opened is None:
            raise InputError("there is no image yet; open one first")
        return opened

    def _with_model(self) -> Opened:
        opened = self._opened()
        if not opened.switch.status.has_model:
            raise NotFittedError("there is no model to find objects with yet; paint two classes and train first")
        return opened

    def _object_at(self, frame: int, voxel: Shape3D) -> int:
        found = self.id_at(frame, voxel)
        if found == NO_OBJECT:
            raise InputError("there is no object at this point; find objects first, then point at one")
        return found

    def _of(self, opened: Opened, frame: int, *object_ids: int) -> tuple[Box, Ids]:
        """The box of some objects, and all ids in it."""
        box = opened.objects.box_of(frame, object_ids)
        if box is None:
            raise InputError(f"object {object_ids[0]} is not there any more; find objects again")
        return box, opened.objects.read(frame, box)

    def _class_of(self, opened: Opened, frame: int, box: Box, mask: Mask) -> int:
        """The class of an object. Raises `InputError` if nothing tells it."""
        found = self._likeliest_class(opened, frame, box, mask)
        if found is None:
            raise InputError("no class is predicted in this object any more; find objects again")
        return found

    def _likeliest_class(self, opened: Opened, frame: int, box: Box, mask: Mask) -> int | None:
        """The class that most voxels of an object have, but the background; None if none has any.

        Where classes may overlap, paint of another one does not tell that this one is not there.
        """
        possible = [class_id for class_id in self._classes.ids if class_id != self._classes.background]
        shown = self._labels(frame, box)[mask]
        votes = [shown]
        if self._painting().overlapping:
            of_objects = opened.objects.classes or opened.store.classes_of_objects(possible)
            possible = [class_id for class_id in possible if class_id in of_objects] or possible
            votes = [opened.labels[(frame, *box.slices)][mask], shown]
        for labels in votes:
            counts = np.bincount(labels, minlength=MAX_CLASSES + 1)[possible]
            if counts.any():
                return possible[int(counts.argmax())]
        # of a project that was opened just now nothing may be predicted yet
        return possible[0] if len(possible) == 1 else None

    def _say(self, opened: Opened, plane: Plane, box: Box, ids: Ids, parts: tuple[int, ...], move: Move) -> None:
        """Move voxels, so that `ids` are those of the box and each of `parts` is one object; paint that on the slice.

        What was painted as an object there, on any slice, belongs to these objects from now on; paint of another class
        stays. Where classes may overlap, that holds for what was painted as an object of this class, and paint that
        says that it is not there stays.
        """
        class_id = self._class_of(opened, plane.frame, box, np.isin(ids, parts))
        self._put(opened, plane.frame, box, move, self._paint(opened, plane, box, ids, parts, class_id))

    def _paint(
        self, opened: Opened, plane: Plane, box: Box, ids: Ids, parts: tuple[int, ...], class_id: int
    ) -> PaintEdit | None:
        """Paint each of `parts` as an object of its own, where `_say` says; None if nothing changed by it."""
        store, frame = opened.store, plane.frame
        is_meant = _on_slice(box, plane) | (store.objects(frame, box) != NO_OBJECT)
        if not is_meant.any():
            return None
        within = bounds_of(is_meant)  # mostly a slice, and the object may fill the volume
        box, ids = box_within(box, within), ids[within]
        names = np.zeros(box.shape, np.int32)
        for number, part in enumerate(parts):
            names[ids == part] = store.next_object_id + number
        if self._painting().overlapping:
            return self._say_objects(opened, plane, box, names, class_id)
        codes, painted = store.codes[(frame, *box.slices)].copy(), store.objects(frame, box)
        is_class = (codes != UNPAINTED) & (codes < FIRST_SET)
        can_be = (is_meant[within] & (~is_class | (codes == class_id))) | (painted != NO_OBJECT)
        region = Region(frame, box, (names != NO_OBJECT) & can_be)
        wanted = np.where(is_class, codes, class_id).astype(np.uint8)
        return store.annotate_objects(region, wanted, names, plane)

    def _say_objects(
        self, opened: Opened, plane: Plane, box: Box, names: npt.NDArray[np.int32], class_id: int
    ) -> PaintEdit | None:
        """Say that a class that may overlap others is there, in objects of these names (0: none), where `_say` says."""
        store, frame = opened.store, plane.frame
        class_ids, background = self._classes.ids, self._classes.background
        codes, painted = store.codes[(frame, *box.slices)].copy(), store.objects(frame, box)
        said = store.meanings(np.unique(codes).tolist(), class_ids, background)
        is_present = np.isin(codes, [code for code, each in said.items() if class_id in each.present])
        is_absent = np.isin(codes, [code for code, each in said.items() if class_id in each.absent])
        can_be = ~is_absent & (_on_slice(box, plane) | ((painted != NO_OBJECT) & is_present))
        region = Region(frame, box, (names != NO_OBJECT) & can_be)
        is_of_others = (painted != NO_OBJECT) & ~is_present  # such as the cell around a nucleus
        names = np.where(is_of_others, painted, names)
        return store.say_objects(region, class_id, names, plane, class_ids=class_ids, background=background)

    def _correct(
        self, opened: Opened, plane: Plane, box: Box, class_id: int | None, move: Move, *, is_present: bool
    ) -> None:
        """Move voxels, and paint where they meet the slice: that the class is there, or, over what is shown, that not.

        Where classes may overlap, it is said of this class only, and nothing where it is None.
        """
        edit = None
        if box.start[plane.axis] <= plane.index < box.stop[plane.axis]:
            part = box_across(box, plane.axis, plane.index)
            region = Region(plane.frame, part, move.mask[part.relative_to(box.start).slices])
            shown, ids, background = self._labels(plane.frame, part), self._classes.ids, self._classes.background
            if not self._painting().overlapping:
                wanted = (class_id if is_present else background) or UNPAINTED
                edit = opened.store.correct(region, wanted, shown, plane, class_ids=ids, background=background)
            elif class_id is not None:
                edit = opened.store.say(
                    region,
                    class_id,
                    is_present=is_present,
                    class_ids=ids,
                    background=background,
                    plane=plane,
                    shown=shown,
                )
        self._put(opened, plane.frame, box, move, edit)

    def _put(self, opened: Opened, frame: int, box: Box, move: Move, edit: PaintEdit | None) -> None:
        stroke, bits = opened.store.latest_stroke, np.packbits(move.mask)
        opened.objects.put(Change(frame, box, bits, move.before, move.after, stroke, is_painted=edit is not None))
        self._take(edit)
        opened.switch.tell(opened.switch.events.objects_changed, ObjectsChange(frame, box))
        self._wish()  # those that changed are to be measured

    def _tell(self, opened: Opened, change: Change) -> None:
        opened.switch.tell(opened.switch.events.objects_changed, ObjectsChange(change.frame, change.box))
        self._wish()


def _on_slice(box: Box, plane: Plane) -> Mask:
    """Which voxels of a box lie on a slice."""
    found = np.zeros(box.shape, np.bool_)
    if box.start[plane.axis] <= plane.index < box.stop[plane.axis]:
        found[box_across(box, plane.axis, plane.index).relative_to(box.start).slices] = True
    return found


def _changed(object_id: int) -> InputError:
    return InputError(f"object {object_id} has changed meanwhile; correct it again")
