"""Where a segmentation comes from: who painted what and when, which models there were; and a paragraph on it."""

from __future__ import annotations

import math
import time
from collections import Counter
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, NamedTuple

from napari_sparseseg.errors import InputError
from napari_sparseseg.storage._records import new_stroke_of
from napari_sparseseg.storage.journal import JournalRecord
from napari_sparseseg.storage.project.manifest import Position
from napari_sparseseg.storage.project.segments import read_segments
from napari_sparseseg.storage.strokes import Stroke, StrokeAuthor, StrokeKind, largest_record

if TYPE_CHECKING:
    from napari_sparseseg.storage.project.image import ProjectImage
    from napari_sparseseg.storage.project.project import Project

_PACKAGE = "napari-sparseseg"
_TOLD = ("session", "model", "settings", "save", "complete", "remove_class", "classes")
"""Records that are given as they are."""


def provenance_of(project: Project) -> dict[str, Any]:
    """All that is known, as JSON has it; times are seconds since 1970."""
    manifest = project.manifest
    return {
        "project": project.name,
        "id": manifest.id,
        "created": manifest.created,
        "program": {"created": manifest.program, "exported": version(_PACKAGE)},
        "exported": time.time(),
        "classes": [info.model_dump(mode="json") for info in manifest.classes],
        "settings": manifest.settings.model_dump(mode="json"),
        "models": [entry.model_dump(mode="json") for entry in manifest.checkpoints],
        "images": [_image(image) for image in project.images],
    }


def _image(image: ProjectImage) -> dict[str, Any]:
    entry = image.entry
    records = read_segments(image.folder / "journal", Position(), largest_record(entry.shape))
    return {
        "title": entry.title,
        "shape": entry.shape,
        "spacing": entry.spacing,
        "reference": entry.reference.model_dump(mode="json"),
        "strokes": [
            {
                "number": s.number,
                "kind": s.kind,
                "by": s.by,
                "time": s.time,
                "n_voxels": s.n_voxels,
                "object": s.object_id,
            }
            for s in image.load().store.strokes
        ],
        "events": [event for record, _ in records for event in _events(record)],
    }


def _events(record: JournalRecord) -> list[dict[str, Any]]:
    """What a record tells, without voxels: strokes that were undone since are there as well."""
    if record.op == "edit":
        try:
            strokes = [new_stroke_of(entry) for entry in record.values["strokes"]]
        except (KeyError, TypeError, ValueError, InputError):
            return [{"event": "damaged"}]
        return [
            {"event": "stroke", "kind": kind, "by": by, "time": moment, "n_voxels": n_voxels, "object": object_id}
            for kind, moment, _, n_voxels, by, object_id in strokes
        ]
    if record.op in ("undo", "redo"):
        return [{"event": record.op}]
    return [{"event": record.op, **record.values}] if record.op in _TOLD else []


class _Painted(NamedTuple):
    """What counts of the paint of an image: its strokes, painted voxels, and all voxels."""

    strokes: tuple[Stroke, ...]
    n_voxels: int
    n_all: int

    @classmethod
    def of(cls, image: ProjectImage) -> _Painted:
        """Load an annotation, which takes seconds, once, and let go of it."""
        store = image.load().store
        return cls(store.strokes, sum(map(store.n_painted, range(store.shape[0]))), math.prod(store.shape))


def methods_of(project: Project) -> str:
    """A paragraph for the methods section; figures are those of what counts now, not of what was undone."""
    manifest = project.manifest
    images = [known for image in project.images if (known := _Painted.of(image)).strokes]
    strokes = [stroke for known in images for stroke in known.strokes]
    if not strokes:
        return "Nothing has been painted in this project yet."
    names = ", ".join(f"“{info.name}”" for info in manifest.classes)
    kinds, authors = Counter(s.kind for s in strokes), Counter(s.by for s in strokes)
    first, last = (time.strftime("%Y-%m-%d", time.localtime(f(s.time for s in strokes))) for f in (min, max))
    n_voxels, n_all = sum(known.n_voxels for known in images), sum(known.n_all for known in images)
    corrections = kinds[StrokeKind.CORRECTION] + kinds[StrokeKind.REJECTION]
    painted = _count(len(strokes), "stroke was", "strokes were")
    paint = f"Between {first} and {last}, {painted} painted, of which {corrections} corrected a prediction"
    n_images = _count(len(images), "image was", "images were")
    sentences = [
        f"{n_images} segmented with napari-sparseseg {version(_PACKAGE)} into the classes {names}.",
        f"{paint}; they label {n_voxels} of {n_all} voxels ({100 * n_voxels / n_all:.3g} %).",
    ]
    if authors[StrokeAuthor.SUGGESTION]:
        sentences.append(f"{authors[StrokeAuthor.SUGGESTION]} of them were suggested by the program and accepted.")
    config, training = manifest.settings.model, manifest.settings.training
    scales = ", ".join(f"{scale:g}" for scale in config.scales)
    sentences.append(
        "From these voxels alone, a pixel classifier on Gaussian, gradient and Hessian features of "
        f"{len(config.scales)} scales ({scales} times the finest voxel edge) and a 3D U-Net on the same features "
        f"({config.width} channels, {config.depth} levels) were trained with AdamW and Muon (step size "
        f"{training.learning_rate:g}, weight decay {training.weight_decay:g}) and averaged weights."
    )
    if manifest.checkpoints:
        newest = manifest.checkpoints[-1]
        dice = "" if newest.dice is None else f"; the estimated Dice coefficient was {newest.dice:.3f}"
        sentences.append(f"The latest model had {newest.step} training steps{dice}.")
    return " ".join(sentences)


def _count(n: int, one: str, many: str) -> str:
    return f"{n} {one if n == 1 else many}"
