"""ProjectImage: an image of a project, with its annotation, journal and prediction."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import zarr

from napari_sparseseg._types import ArrayLike, Box
from napari_sparseseg.errors import InputError, ProjectError
from napari_sparseseg.storage._arrays import to_numpy
from napari_sparseseg.storage._edits import box_around
from napari_sparseseg.storage._records import moment_of
from napari_sparseseg.storage.durable import PARTIAL
from napari_sparseseg.storage.formats._axes import UNKNOWN
from napari_sparseseg.storage.formats._image import Opened
from napari_sparseseg.storage.formats._lazy import LazyArray, Source
from napari_sparseseg.storage.journal import JournalRecord
from napari_sparseseg.storage.object_ids import ObjectIds
from napari_sparseseg.storage.project.folds import write_fold
from napari_sparseseg.storage.project.loading import (
    FOLDS,
    JOURNAL,
    OBJECTS,
    LoadedAnnotation,
    fold_folder,
    is_base_of,
    load_annotation,
    objects_folder,
)
from napari_sparseseg.storage.project.manifest import (
    MAX_FOLDS,
    Fold,
    ImageEntry,
    LayerPlace,
    Manifest,
    Position,
    ProjectClass,
)
from napari_sparseseg.storage.project.objects import write_objects
from napari_sparseseg.storage.project.predictions import read_prediction, stored_parts, write_prediction
from napari_sparseseg.storage.project.reference import (
    ImageCheck,
    ImageOrigin,
    ImageReference,
    ImageState,
    compare,
    find,
    origin_of,
)
from napari_sparseseg.storage.project.segments import SegmentJournal, lacks_segments, read_segments, segment_numbers
from napari_sparseseg.storage.project.whole import WholeFolder
from napari_sparseseg.storage.project.zarrs import (
    GroupWriter,
    all_corners,
    attributes_of,
    corners_of,
    open_array,
    shard_slices,
)
from napari_sparseseg.storage.strokes import AnnotationStore, PaintEdit, StoreState, largest_record

if TYPE_CHECKING:
    from napari_sparseseg.storage.project.project import Project

PREDICTIONS, PIXELS, WHOLE = "prediction", "pixels", "whole"
_N_FOLDS = 2
_PATIENCE = 30.0  # seconds to wait for the journal before a fold
_VOXELS_AT_ONCE = 2**23  # of a box that one edit brings back, which needs about sixty bytes for each


@dataclass(frozen=True, slots=True)
class SavedState:
    """A state of the annotation that can be restored: when it was saved (seconds since 1970), its number of strokes."""

    time: float
    n_strokes: int
    position: Position


class ProjectImage:
    """An image of a project. One thread paints and one saves; the methods say which."""

    def __init__(self, project: Project, number: int) -> None:
        self.project = project
        self.number = number
        self.journal: SegmentJournal | None = None
        self.opened_with: Manifest | None = None  # what the project held when the image was opened
        self._storing = threading.Lock()
        self.n_unfolded = 0  # records that had to be replayed when the image was opened
        self._objects: ObjectIds | None = None  # those that were loaded then
        # how often they had changed when they were last written, and under which number
        self._folded_objects: tuple[int, int | None] = (0, None)

    @property
    def folder(self) -> Path:
        """The image's folder within that of the project."""
        return self.project.path / "images" / str(self.number)

    @property
    def entry(self) -> ImageEntry:
        """Title, shape, axes and voxel size of the image, and where it lies."""
        return self.project.manifest.images[self.number]

    # --- the image itself ---

    @property
    def origin(self) -> ImageOrigin:
        """Where the image lies, so that the user can be asked before a stranger's project opens far files or URLs."""
        if self.entry.is_stored:
            return ImageOrigin.PROJECT
        found = find(self.entry.reference, self.project.path)
        return origin_of(found.path or self.entry.reference.path, self.project.path)

    def check(self, array: ArrayLike | None = None, *, may_connect: bool = False) -> ImageCheck:
        """Say whether the image is where it was; with its `array`, whether it is the same (reads a few voxels).

        An image on the network has no path, and the state `UNASKED`, unless `may_connect` says that the user agreed.
        """
        entry = self.entry
        if entry.is_stored:
            return ImageCheck(ImageState.STORED, str(self.folder / PIXELS))
        found = find(entry.reference, self.project.path, may_connect=may_connect)
        return found if array is None else compare(entry.reference, array, found)

    def refer(self, reference: ImageReference, place: LayerPlace | None) -> None:
        """Say where the image lies from now on, and how it is shown. Raises OSError."""
        with self.project.writing():
            changed = self.project.manifest.with_image(self.number, reference=reference, place=place, is_stored=False)
            self.project.commit(changed)

    def read(self, *, may_connect: bool = False) -> ArrayLike:
        """Open the image, from the project or from where it lies; voxels stay on disk until they are sliced.

        A URL or a network share is opened only with `may_connect`, since whoever made the project chose it.

        Raises `ProjectError` if the image is no longer there, was only in memory, or is on the network without
        `may_connect`, and `InputError` if it cannot be read; slicing does so, too.
        """
        entry = self.entry
        if entry.is_stored:
            return self._stored_pixels()
        found = self.check(may_connect=may_connect)
        if found.path is None:
            raise ProjectError(found.message)
        from napari_sparseseg.storage.formats import open_image

        reference = entry.reference
        return open_image(found.path, axes=reference.axes, level=reference.level, series=reference.series).array

    def _stored_pixels(self) -> ArrayLike:
        known = self.entry.reference.fingerprint
        if known is None:
            raise ProjectError(f"{self.project.path} does not say what image it stores; use a backup")
        options = known.shape, np.dtype(known.dtype)
        source = Source(self.folder / PIXELS, _opened_pixels, options, "it is damaged: use a backup")
        opened = _opened_pixels(self.folder / PIXELS, options)
        return LazyArray(opened.array, source, tuple(range(len(known.shape))), {})

    def store_pixels(self, array: ArrayLike) -> None:
        """Copy the image's voxels into the project, piece by piece.

        `read` opens the copy from then on. All else may be saved meanwhile. Raises `ProjectError` if they are stored
        already or just now, OSError if they cannot be written, and whatever reading raises; nothing changes then.
        """
        if not self._storing.acquire(blocking=False):
            raise ProjectError(f"the image's voxels are being stored in {self.project.path.name} already")
        # named by itself: one that has let the project go may still write elsewhere, and must not touch ours
        folder, partial = self.folder / PIXELS, self.folder / f"{PIXELS}.{uuid.uuid4().hex[:8]}{PARTIAL}"
        try:
            with self.project.writing():
                if self.entry.is_stored:
                    raise ProjectError(f"{self.project.path.name} holds the image's voxels already")
            self._write_pixels(partial, array)
            with self.project.writing():
                self.project.disk.remove(folder)
                self.project.disk.rename(partial, folder)
                self.project.disk.sync_folder(self.folder)
                self.project.commit(self.project.manifest.with_image(self.number, is_stored=True))
        finally:
            with suppress(OSError):
                self.project.disk.remove(partial)
            self._storing.release()

    def _write_pixels(self, folder: Path, array: ArrayLike) -> None:
        writer = GroupWriter(self.project.disk, folder)
        shape = tuple(int(size) for size in array.shape)
        pixels = writer.array("0", shape, array.dtype)
        for corner in all_corners(shape):
            voxels = to_numpy(array[shard_slices(corner, shape)], "image")
            with self.project.writing():  # not once it was let go: whoever has it now removes what is half copied
                pass
            writer.write(pixels, corner, voxels)
        writer.finish({})

    # --- the annotation ---

    def annotation(self) -> npt.NDArray[np.uint8]:
        """The annotation's codes, (frames, z, y, x) uint8, read from disk."""
        return self.load().store.codes.copy()

    def load(self) -> LoadedAnnotation:
        """Read the annotation from disk, to look at it."""
        return self._loaded()

    def open(self, on_error: Callable[[str], object] | None = None) -> LoadedAnnotation:
        """Read annotation and objects from disk, and continue the journal, in which both are noted from now on.

        Classes that are newer in the journal than in the manifest are taken into the project. `on_error` is called
        with one sentence when strokes cannot be written, and with "" when they can be again, on the journal's thread.
        If the project is read-only, the store has no journal.

        Raises `ProjectError` if there is not enough memory, or if strokes made since it was last opened cannot be
        written; then everything stays as it is.
        """
        if self.journal is not None and not self.journal.sync(timeout=_PATIENCE):
            reason = self.journal.error or "writing takes too long; try again later"
            raise ProjectError(f"{self.folder} cannot be opened again: {reason}")
        loaded = self._loaded(with_objects=True)
        self.close()
        self._objects, self._folded_objects = loaded.objects, (0, None)
        self.n_unfolded = loaded.n_replayed
        self.project.take_classes(loaded.classes, loaded.classes_number, loaded.highest_class)
        self.opened_with = self.project.manifest
        if not self.project.is_read_only:
            # no fold may point into a file that starts now
            after = max((fold.position.segment for fold in self.entry.folds), default=0)
            self.journal = SegmentJournal(self.folder / JOURNAL, self.project.disk, on_error, after=after)
            loaded.store.journal = self.journal
            if loaded.objects is not None:
                loaded.objects.journal = self.journal
        return loaded

    def _loaded(self, until: Position | None = None, *, with_objects: bool = False) -> LoadedAnnotation:
        self.project.refresh()
        loaded = load_annotation(self.folder, self.entry, until, with_objects=with_objects)
        if loaded.problems and self.project.refresh():  # another window has just replaced what was to be read
            loaded = load_annotation(self.folder, self.entry, until, with_objects=with_objects)
        return loaded

    def note_classes(self, classes: Sequence[ProjectClass], number: int) -> None:
        """Note the classes in the journal, before what is painted with them."""
        self._note("classes", number=number, classes=[info.model_dump(mode="json") for info in classes])

    def note_save(self, n_strokes: int) -> None:
        """Mark the present state of the annotation as one that can be restored."""
        self._note("save", time=time.time(), n_strokes=n_strokes)

    def note(self, op: str, **values: Any) -> None:
        """Note something for the provenance."""
        self._note(op, time=time.time(), **values)

    def fold(self, store: AnnotationStore, *, patience: float = _PATIENCE) -> bool:
        """Write annotation and objects as they are now; False if the journal cannot be written. On the saving thread.

        Raises OSError if that fails; what was there stays.
        """
        journal = self.journal
        if journal is None or journal.error:
            return False
        state = store.state()
        if not journal.sync_file(state.ticket, patience):
            return False
        self._write_fold(state, journal.position_of(state.ticket), is_base=journal.needs_fold)
        journal.note_fold()
        return True

    def put(self, state: StoreState, objects: ObjectIds) -> None:
        """Make these annotation and objects, whatever the journal tells: as a fold behind all that it holds.

        Not while the image is open. Raises OSError; then nothing changes.
        """
        self._objects, self._folded_objects = objects, (0, None)
        positions = [fold.position.segment for fold in self.entry.folds]
        last = max((*segment_numbers(self.folder / JOURNAL), *positions), default=0)
        self._write_fold(state, Position(segment=last + 1), is_base=True)

    def _write_fold(self, state: StoreState, position: Position, *, is_base: bool) -> None:
        number = self._free_number(FOLDS)
        with self._cleaning():
            write_fold(self.project.disk, fold_folder(self.folder, number), state)
            fold = Fold(
                number=number,
                position=position,
                time=time.time(),
                n_strokes=len(state.strokes),
                objects=self._write_objects(anew=is_base),
                is_base=is_base,
            )
            with self.project.writing():
                changed = self.project.manifest.with_image(self.number, folds=self._kept_with(fold))
                self.project.commit(changed)
                if is_base:  # no journal tells what the commit point before would lack, so that one names it, too
                    self.project.commit(changed)

    def _kept_with(self, fold: Fold) -> tuple[Fold, ...]:
        """What is kept: a new fold, the one before, and all that hold what no journal does, of very many the newest."""
        older, newest = self.entry.folds[: 1 - _N_FOLDS], (*self.entry.folds[1 - _N_FOLDS :], fold)
        segments = segment_numbers(self.folder / JOURNAL)
        bases = [known for known in older if is_base_of(known, segments)]
        return (*bases[len(newest) - MAX_FOLDS :], *newest)

    def _write_objects(self, *, anew: bool) -> int | None:
        """Write the objects that were found; their number, that of before if they are the same, None without.

        With `anew` they are written even then. What is done to them meanwhile is in the journal behind the annotation
        that was taken before, and replayed.
        """
        objects = self._objects
        if objects is None or objects.is_empty:
            return None
        n_writes, number = objects.n_writes, self._folded_objects[1]
        is_kept = not anew and any(fold.objects == number for fold in self.entry.folds)
        if number is None or not is_kept or n_writes != self._folded_objects[0]:
            number = self._free_number(OBJECTS)
            write_objects(self.project.disk, objects_folder(self.folder, number), self.entry.shape, objects)
            self._folded_objects = n_writes, number
        return number

    def rescue(self, store: AnnotationStore) -> None:
        """Write the whole annotation again after the project's folder was removed, or after that failed before.

        On the saving thread; raises OSError.
        """
        if self.journal is None:
            return
        self.project.make_folders()
        if not self.journal.needs_fold or self.journal.is_gone():
            self.journal.begin_anew()
        self.fold(store)

    @property
    def needs_rescue(self) -> bool:
        """Whether the journal was removed and has not been replaced yet."""
        return self.journal is not None and (self.journal.needs_fold or self.journal.is_gone())

    def close(self) -> None:
        """Write the rest of the journal, and close it."""
        if self.journal is not None:
            self.journal.close()
            self.journal = None

    # --- history ---

    def history(self, *, since: float = 0.0) -> tuple[SavedState, ...]:
        """States that can be restored, oldest first, from a time on (seconds since 1970)."""
        return tuple(self._saved_states(since))

    def load_at(self, saved: SavedState) -> LoadedAnnotation:
        """Read the annotation as it was then; `restore_annotation` makes it the current one.

        Raises `ProjectError` if a part of it is nowhere any more.
        """
        loaded = self._loaded(saved.position)
        # an older version of the program has dropped folds that held what no file of the journal does
        lacks_strokes = len(loaded.store.strokes) < saved.n_strokes and lacks_segments(
            self.folder / JOURNAL, saved.position
        )
        if loaded.lacks_base or lacks_strokes:
            raise ProjectError(
                f"a state of {self.folder} cannot be brought back, since a part of its paint is missing from the "
                "project; choose another state, or use a backup"
            )
        return loaded

    def _saved_states(self, since: float) -> Iterator[SavedState]:
        for record, position in read_segments(self.folder / JOURNAL, Position(), largest_record(self.entry.shape)):
            if record.op == "save":
                with suppress(KeyError, TypeError, ValueError):  # a record that says nothing is no state
                    found = SavedState(moment_of(record.values["time"]), int(record.values["n_strokes"]), position)
                    if found.time >= since:
                        yield found

    # --- the prediction ---

    def write_prediction(self, labels: npt.NDArray[np.uint8], parts: Iterable[tuple[int, Box]] | None = None) -> None:
        """Write the labels, (frames, z, y, x), in place of older ones. On the saving thread; raises OSError.

        `parts` are frames and boxes outside of which there are no labels; None if that is not known.
        """
        number = self._free_number(PREDICTIONS)
        folder = self.folder / PREDICTIONS / f"{number:06}"
        with self._cleaning():
            corners = None if parts is None else corners_of(parts)
            about = self.entry.spacing, self.project.manifest.classes
            write_prediction(self.project.disk, folder, labels, *about, corners)
            with self.project.writing():
                self.project.commit(self.project.manifest.with_image(self.number, prediction=number))

    def drop_prediction(self) -> None:
        """Forget the written labels, because the user started again. On the saving thread; raises OSError."""
        with self._cleaning(), self.project.writing():
            if self.entry.prediction is not None:
                self.project.commit(self.project.manifest.with_image(self.number, prediction=None))

    def prediction(self) -> zarr.Array[Any] | None:
        """The labels that were written last, (frames, z, y, x), as an array that reads piece by piece; None if none.

        Raises `ProjectError` if they are damaged; so does reading them within `damage`.
        """
        number = self.entry.prediction
        if number is None:
            return None
        return read_prediction(self.folder / PREDICTIONS / f"{number:06}", self.entry.shape)

    def predicted_parts(self) -> list[tuple[int, Box]]:
        """Frames and boxes outside of which the labels that were written last are all 0."""
        number = self.entry.prediction
        return [] if number is None else stored_parts(self.folder / PREDICTIONS / f"{number:06}", self.entry.shape)

    @property
    def whole(self) -> WholeFolder:
        """Predictions of the whole image, however large it is."""
        return WholeFolder(self.folder / WHOLE, self.entry.shape[0], self.project.disk)

    # --- folders ---

    def clean(self) -> None:
        """Remove what is no longer needed. What cannot be removed now is removed another time."""
        if self.project.is_read_only:  # somebody else may have written by now what is not known here
            return
        entry = self.entry
        kept = {
            FOLDS: {f"{fold.number:06}" for fold in entry.folds},
            OBJECTS: {f"{fold.objects:06}" for fold in entry.folds if fold.objects is not None},
            PREDICTIONS: {f"{entry.prediction or 0:06}"},
        }
        for part, names in kept.items():
            for folder in (self.folder / part).glob("[0-9]*"):
                if folder.name not in names:
                    with suppress(OSError):
                        self.project.disk.remove(folder)

    def clean_pixels(self) -> None:
        """Remove voxels that were only partly copied; not to be called while `store_pixels` may be running here.

        Elsewhere it may: what is copied there can no longer be put in its place, since the project is held here.
        """
        if self.project.is_read_only:
            return
        for partial in self.folder.glob(f"{PIXELS}*{PARTIAL}"):
            with suppress(OSError):
                self.project.disk.remove(partial)

    @contextmanager
    def _cleaning(self) -> Iterator[None]:
        """Afterwards remove what is no longer needed: older versions, and what could not be finished."""
        try:
            yield
        finally:
            self.clean()

    def _note(self, op: str, **values: Any) -> None:
        if self.journal is not None:
            self.journal.append(JournalRecord(op, values))

    def _free_number(self, part: str) -> int:
        """A number that no folder of a part has, not even a leftover one; makes the folder of the part."""
        folder = self.folder / part
        self.project.disk.make_folder(folder)
        numbers = [int(path.name) for path in folder.glob("[0-9]*") if path.name.isdigit()]
        return max(numbers, default=0) + 1


def _opened_pixels(folder: Path | str, options: tuple[tuple[int, ...], np.dtype[Any]]) -> Opened:
    """Open what `store_pixels` wrote. Raises `ProjectError` if it is something else, or leads out of its folder."""
    attributes_of(Path(folder))
    return Opened(open_array(Path(folder), "0", *options), UNKNOWN * len(options[0]), "project")


def restore_annotation(store: AnnotationStore, old: AnnotationStore) -> list[tuple[int, Box]]:
    """Make an annotation like `old`, by edits that are journalled and can be undone; returns the boxes that changed.

    Each comes with its frame. Raises `InputError` if the annotations are of different images, or hold more sets of
    classes than there are codes.
    """
    if store.shape != old.shape:
        raise InputError(f"the annotations are of other images: shapes {old.shape} and {store.shape}")
    table, sets = np.arange(256, dtype=np.uint8), old.painted_sets()
    table[list(sets)] = store.codes_for_sets(list(sets.values()))
    changed: list[PaintEdit] = []
    for frame in sorted({*store.frames_with_paint(), *old.frames_with_paint()}):
        for box in _joined({*store.painted_boxes(frame), *old.painted_boxes(frame)}):
            changed += store.bring_back(frame, box, table[old.codes[frame][box.slices]], old)
    for plane in dict.fromkeys(found.plane for found in (*store.painted_slices(), *old.painted_slices())):
        edit = store.set_complete(plane, old.is_complete(plane))
        changed += [] if edit is None else [edit]
    return [(edit.frame, edit.box) for edit in changed]


def _joined(boxes: Iterable[Box]) -> list[Box]:
    """Boxes that hold all of these: few, since each makes an edit, but none too large for memory."""
    joined: list[Box] = []
    for box in sorted(boxes, key=lambda box: box.start):
        around = box_around(joined[-1], box) if joined else box
        if joined and around.n_voxels <= _VOXELS_AT_ONCE:
            joined[-1] = around
        else:
            joined.append(box)
    return joined
