"""How an annotation, and the objects found, are brought back: the newest fold that is whole, and the journal since."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from napari_sparseseg.errors import InputError, ProjectError
from napari_sparseseg.storage.journal import JournalRecord
from napari_sparseseg.storage.object_ids import ObjectIds
from napari_sparseseg.storage.project.folds import read_fold
from napari_sparseseg.storage.project.manifest import Fold, ImageEntry, Position, ProjectClass
from napari_sparseseg.storage.project.objects import read_objects
from napari_sparseseg.storage.project.segments import read_segments, segment_numbers
from napari_sparseseg.storage.sparse import NoRoomError
from napari_sparseseg.storage.strokes import AnnotationStore

JOURNAL, FOLDS, OBJECTS = "journal", "annotation", "objects"
_MOST_PROBLEMS = 20

_classes = TypeAdapter(tuple[ProjectClass, ...])


@dataclass(slots=True)
class LoadedAnnotation:
    """An annotation as it was found on disk.

    `objects` are those that were found in the image, None if they are not wanted. `classes` are the latest that the
    journal tells of, with their number (0: none), `highest_class` is the highest id of those that it tells to remove.
    `position` is where the journal ends, `n_replayed` how many records came after the fold. `problems` are sentences on
    what was damaged, `lacks_base` says that it was a fold that holds what no journal does.
    """

    store: AnnotationStore
    objects: ObjectIds | None = None
    classes: tuple[ProjectClass, ...] = ()
    classes_number: int = 0
    highest_class: int = 0
    position: Position = field(default_factory=Position)
    n_replayed: int = 0
    problems: list[str] = field(default_factory=list)
    lacks_base: bool = False

    def __post_init__(self) -> None:
        if self.objects is not None:
            self.store.on_edit = self.objects.forget_undone

    def note(self, problem: str) -> None:
        """Remember a problem; of very many only the first."""
        if len(self.problems) < _MOST_PROBLEMS:
            self.problems.append(problem)


def fold_folder(image: Path, number: int) -> Path:
    """Where a fold lies in the folder of its image."""
    return image / FOLDS / f"{number:06}"


def objects_folder(image: Path, number: int) -> Path:
    """Where the objects of a fold lie in the folder of its image."""
    return image / OBJECTS / f"{number:06}"


def is_base_of(fold: Fold, segments: Collection[int]) -> bool:
    """Whether a fold holds what no journal does, of which these files are there.

    Where an older version has not said so, a fold is one if it is where a file of the journal would begin, and that is
    the first one, or never was: others stand behind a file.
    """
    if fold.is_base is not None:
        return fold.is_base
    number = fold.position.segment
    return fold.position.offset == 0 and (number not in segments or number == min(segments))


def load_annotation(
    image: Path, entry: ImageEntry, until: Position | None = None, *, with_objects: bool = False
) -> LoadedAnnotation:
    """Bring an annotation back, as of now or as of a position of the journal, maybe with the objects that were found.

    What is damaged is left out and told of. Raises `ProjectError` where there is no memory for something that is whole:
    a fold of the rest would take its place.
    """
    with _needing_memory(image, entry):
        loaded = LoadedAnnotation(AnnotationStore(entry.shape), ObjectIds() if with_objects else None)
        usable = [fold for fold in entry.folds if until is None or fold.position <= until]
        loaded.position = _restore(loaded, image, entry, usable)
        records = read_segments(
            image / JOURNAL,
            loaded.position,
            loaded.store.largest_record,
            on_damage=lambda path: loaded.note(f"a stroke in {path} could not be read; the others are there"),
        )
        for record, position in records:
            if until is not None and until < position:
                break
            _replay(loaded, record, entry)
            loaded.position = position
    return loaded


@contextmanager
def _needing_memory(image: Path, entry: ImageEntry) -> Iterator[None]:
    try:
        yield
    except (MemoryError, NoRoomError):
        raise ProjectError(
            f"there is not enough memory for the annotation, of shape {entry.shape}, and the objects of {image}; close "
            "other programs, or open the project where there is more"
        ) from None


def _restore(loaded: LoadedAnnotation, image: Path, entry: ImageEntry, folds: Iterable[Fold]) -> Position:
    segments = segment_numbers(image / JOURNAL)
    for fold in sorted(folds, key=lambda fold: fold.position, reverse=True):
        try:
            state = read_fold(fold_folder(image, fold.number), entry.shape)
            wants_objects = loaded.objects is not None and fold.objects is not None
            found = read_objects(objects_folder(image, fold.objects or 0), entry.shape) if wants_objects else None
            loaded.store.restore(state)
            if loaded.objects is not None and found is not None:
                loaded.objects.restore(*found)
        except NoRoomError:
            raise
        except InputError as error:
            loaded.note(str(error))
            if is_base_of(fold, segments):
                loaded.lacks_base = True
                loaded.note(f"paint that only {fold_folder(image, fold.number)} held may be missing; use a backup")
        else:
            return fold.position
    return Position()


def _replay(loaded: LoadedAnnotation, record: JournalRecord, entry: ImageEntry) -> None:
    loaded.n_replayed += 1
    try:
        if record.op == "classes":
            _take_classes(loaded, record)
        elif not loaded.store.replay(record) and loaded.objects is not None:
            loaded.objects.replay(record, entry.shape)
        if record.op == "remove_class":
            loaded.highest_class = max(loaded.highest_class, record.values["class_id"])
    except NoRoomError:
        raise
    except InputError as error:
        loaded.note(f"a stroke could not be read ({error}); the others are there")


def _take_classes(loaded: LoadedAnnotation, record: JournalRecord) -> None:
    number = record.values.get("number")
    if not isinstance(number, int) or number < loaded.classes_number:
        return
    try:
        loaded.classes = _classes.validate_python(record.values.get("classes"))
    except ValidationError as error:
        raise InputError(f"the journal holds classes that cannot be: {error.errors()[0]['msg']}") from None
    loaded.classes_number = number
