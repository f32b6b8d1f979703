"""What earlier states of an annotation were painted with: classes that may have been removed since."""

from __future__ import annotations

from pydantic import TypeAdapter, ValidationError

from napari_sparseseg.live.events import ClassInfo
from napari_sparseseg.live.kept import class_infos
from napari_sparseseg.storage.project.image import ProjectImage, SavedState
from napari_sparseseg.storage.project.loading import JOURNAL
from napari_sparseseg.storage.project.manifest import Position, ProjectClass
from napari_sparseseg.storage.project.segments import read_segments
from napari_sparseseg.storage.strokes import largest_record

_classes = TypeAdapter(tuple[ProjectClass, ...])


def classes_at(project: ProjectImage, saved: SavedState) -> dict[int, ClassInfo]:
    """Classes that the journal knows, by id: as they were in that state, or else as they were told of next to it."""
    known: dict[int, ClassInfo] = {}
    records = read_segments(project.folder / JOURNAL, Position(), largest_record(project.entry.shape))
    for record, position in records:
        if record.op != "classes":
            continue
        try:
            told = class_infos(_classes.validate_python(record.values.get("classes")))
        except ValidationError:
            continue  # whoever opens the project is told of it
        for info in told:
            if position <= saved.position or info.class_id not in known:
                known[info.class_id] = info
    return known
