"""Paints through a `LiveSegmenter` on a project, and tells of each stroke before it is made and when it is on disk."""

from __future__ import annotations

import json
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from napari_sparseseg import LiveSegmenter, Project
from napari_sparseseg._types import Box, Plane, Region
from napari_sparseseg.config import ModelConfig, TrainingConfig
from napari_sparseseg.errors import SparseSegError
from napari_sparseseg.live import saving
from napari_sparseseg.live.events import View
from napari_sparseseg.storage.durable import Disk
from napari_sparseseg.storage.project import migrations
from napari_sparseseg.storage.project.image import ProjectImage
from napari_sparseseg.storage.project.manifest import FORMAT, MANIFEST
from napari_sparseseg.storage.strokes import AnnotationStore

SHAPE = (12, 48, 48)
CLASSES = (1, 2, 3)
SMALL = ModelConfig(width=4, depth=2, scales=(1.0, 2.0), head_width=8)
QUICK = TrainingConfig(warm_start_steps=10, patch_voxels=1024, check_every=5, cache_mb=64)

Tell = Callable[..., None]


def make_image() -> np.ndarray:
    """A brighter cuboid in noise."""
    image = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    image[3:9, 12:36, 12:36] += 3
    return image


def checksum(store: AnnotationStore) -> int:
    """Of codes, the sets of classes that they stand for, and complete slices; a set that no voxel has says nothing."""
    painted = set(np.unique(store.codes).tolist())
    complete = sorted(str(found.plane) for found in store.painted_slices() if found.is_complete)
    sets = sorted(
        (code, known.is_forbidding, sorted(known.class_ids)) for code, known in store.sets.items() if code in painted
    )
    return zlib.crc32(store.codes.tobytes() + json.dumps([complete, sets]).encode())


EMPTY = checksum(AnnotationStore((1, *SHAPE)))


def hurry() -> None:
    """Make everything that is saved be saved all the time."""
    saving.LOOK_SECONDS = 0.02
    saving.AUTOSAVE_SECONDS = 0.15
    saving.PREDICTION_SECONDS = 0.2
    saving.FOLD_RECORDS = 15


def paint(path: Path, seed: int, tell: Tell, *, disk: Disk | None = None, seconds: float = 1e9) -> None:
    """Open or make the project and paint; `tell` gets "start", "will", "ack" with checksums, and "begin" and "end"."""
    hurry()
    watch_saving(tell)
    rng = np.random.default_rng(seed)
    is_new = not path.exists()
    project = Project.create(path, disk=disk) if is_new else Project.open(path, disk=disk)
    if not project.images:
        project.add_image(make_image(), shape=(1, *SHAPE))
    image = project.images[0]
    live = LiveSegmenter(device="cpu", model=SMALL, training=QUICK)
    live.events.failed.connect(lambda message: tell("failed", message=message))
    live.open(make_image(), project=image)
    if len(live.classes) < len(CLASSES):
        live.add_class("membrane")
    twin = image.load().store
    tell("start", checksum=checksum(twin))
    plane = Plane(0, 0, SHAPE[0] // 2)
    live.look_at(View(plane, plane.box(SHAPE), (6.0, 24.0, 24.0)))
    live.start()
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        act = random_act(rng)
        act(twin, None)
        tell("will", checksum=checksum(twin))
        act(live._store, live)
        if rng.random() < 0.6:
            journal = image.journal
            if journal is not None and journal.sync(timeout=30):
                tell("ack")
        if rng.random() < 0.15:  # so that it also gets to train and predict
            time.sleep(float(rng.exponential(0.4)))
    live.close()
    project.close()


def random_act(rng: np.random.Generator) -> Callable[[AnnotationStore, LiveSegmenter | None], None]:
    """Something that a user may do, to be done to the twin of the annotation, then through the live segmenter."""
    start, stop = zip(*(sorted(rng.choice(n + 1, 2, replace=False)) for n in SHAPE), strict=True)
    box = Box(tuple(map(int, start)), tuple(map(int, stop)))
    region = Region(0, box, rng.random(box.shape) < 0.7)
    class_id, plane, kind = int(rng.choice(CLASSES)), Plane(0, 0, box.start[0]), rng.random()
    shown = rng.choice((0, *CLASSES), box.shape).astype(np.uint8)
    is_complete = bool(rng.random() < 0.5)

    def act(store: AnnotationStore, live: LiveSegmenter | None) -> None:
        if kind < 0.45:
            live.annotate(region, class_id, plane=plane) if live else store.annotate(region, class_id, plane)
        elif kind < 0.55:
            live.annotate(region, 0, plane=plane) if live else store.annotate(region, 0, plane)
        elif kind < 0.7:
            chosen = class_id if is_complete else 0
            if live:
                live.correct(region, chosen, shown=shown, plane=plane)
            else:
                store.correct(region, chosen, shown, plane, class_ids=CLASSES, background=1)
        elif kind < 0.85:
            live.undo() if live else store.undo()
        elif kind < 0.92:
            live.redo() if live else store.redo()
        else:
            live.set_complete(plane, is_complete) if live else store.set_complete(plane, is_complete)

    return act


def watch_saving(tell: Tell) -> None:
    """Tell when something longer is being written, so that it is known what was interrupted."""
    for owner, name in ((ProjectImage, "fold"), (ProjectImage, "write_prediction"), (Project, "add_checkpoint")):
        setattr(owner, name, told(getattr(owner, name), name, tell))


def told(function: Callable[..., Any], name: str, tell: Tell) -> Callable[..., Any]:
    if hasattr(function, "is_told"):
        return function

    def wrapped(*args: Any, **options: Any) -> Any:
        tell("begin", what=name)
        try:
            return function(*args, **options)
        finally:
            tell("end", what=name)

    wrapped.is_told = True  # type: ignore[attr-defined]
    return wrapped


def look(path: Path) -> dict[str, Any]:
    """Open the project as the next program would; what it holds, or why it cannot be opened."""
    if not path.exists():
        return {"checksum": None}
    try:
        with Project.open(path) as project:
            if project.is_read_only:
                return {"error": f"read-only: {project.reason}"}
            if not project.images:
                return {"checksum": None}
            loaded = project.images[0].load()
            problems = [*project.problems, *loaded.problems]
            if project.manifest.checkpoints and not models_load(project):
                problems.append("no model can be loaded")
            return {"checksum": checksum(loaded.store), "problems": problems}
    except SparseSegError as error:
        return {"error": str(error)}


def models_load(project: Project) -> bool:
    from napari_sparseseg.engine.checkpoint import load_model
    from napari_sparseseg.errors import ModelFileError

    for _, file in project.checkpoints():
        try:
            load_model(file)
        except ModelFileError:
            continue
        return True
    return False


def make_older(path: Path) -> None:
    """Turn a project into one of a made-up older version, which kept the classes under another name."""
    envelope = json.loads((path / MANIFEST).read_text())
    content = envelope["project"]
    content["labels"] = content.pop("classes")
    (path / MANIFEST).write_text(json.dumps({"format": FORMAT, "version": 0, "project": content}))


def know_older() -> None:
    """Know the way from the made-up version."""

    def rename_classes(content: dict[str, Any], _folder: Path, _disk: Disk) -> dict[str, Any]:
        return {**{k: v for k, v in content.items() if k != "labels"}, "classes": content["labels"]}

    migrations.MIGRATIONS[0] = rename_classes


def printer(write: Callable[[bytes], object]) -> Tell:
    """Tell in lines of JSON, from any thread."""
    lock = threading.Lock()

    def tell(event: str, /, **values: Any) -> None:
        with lock:
            write(json.dumps({"event": event, **values}).encode() + b"\n")

    return tell
