"""Project folders: journal, folds, prediction, stored pixels, a model, and the file that says what counts."""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from fuzzing.models import make_models
from fuzzing.mutators import (
    DECOY,
    Rng,
    bytes_of_some_file,
    files_of,
    json_of_some_file,
    lose_some_file,
    odd_json,
    pick,
    text_of_some_file,
)
from fuzzing.paint import SHAPE, mutate_records, paint, read_all
from fuzzing.target import Target
from napari_sparseseg import SparseSegmenter
from napari_sparseseg._types import Box, Region
from napari_sparseseg.errors import ModelFileError
from napari_sparseseg.storage.project.manifest import ProjectClass
from napari_sparseseg.storage.project.project import Project
from napari_sparseseg.storage.project.zarrs import damage

_MANIFESTS = ("project.json", "project.previous.json")


def make_projects(folder: Path) -> Sequence[Path]:
    """A project of two images that was painted in, saved, predicted, and painted in once more."""
    path = folder / "cells.sparseseg"
    classes = [ProjectClass(class_id=i, name=f"class {i}", color=(0.5, 0.0, 1.0)) for i in (1, 2, 3)]
    pixels = np.random.default_rng(0).integers(0, 255, SHAPE).astype(np.uint8)
    with Project.create(path, classes=classes) as project:
        image = project.add_image(pixels, shape=SHAPE, time_axis=0, title="stored")
        project.add_image(pixels, shape=SHAPE, path=folder / "elsewhere.npy", title="elsewhere")
        image.store_pixels(pixels)
        loaded = image.open()
        image.note_classes(classes, 1)
        paint(loaded.store)
        image.note_save(3)
        image.fold(loaded.store)
        loaded.store.annotate(Region(1, Box((1, 2, 2), (2, 9, 8))), 3)
        image.fold(loaded.store)
        loaded.store.annotate(Region(1, Box((1, 2, 2), (2, 5, 5))), 1)
        loaded.store.undo()
        image.write_prediction((pixels % 3).astype(np.uint8))
        models = folder / "models"
        models.mkdir()
        project.add_checkpoint(make_models(models)[0].read_bytes(), step=2, loss=0.5, dice=None)
        shutil.rmtree(models)
    return [path]


def use_project(path: Path) -> None:
    """Open it, read all that is in it, paint, save and open it again."""
    with Project.open(path) as project:
        project.provenance()
        project.methods()
        for _, file in project.checkpoints():
            with suppress(ModelFileError):  # the one before is tried then
                SparseSegmenter.load(file, device="cpu", progress=False)
        for image in project.images:
            image.check()
            _ = image.origin
            if image.entry.is_stored:
                image.read()[0, 0, 0, 0]
            prediction = image.prediction()
            if prediction is not None:
                with damage(path):  # as whoever reads it does
                    prediction[0, 0]
            for saved in image.history():
                image.load_at(saved)
            store = image.open().store
            read_all(store)
            store.annotate(Region(0, Box((0, 0, 0), (1, 1, 1))), 2)
            image.fold(store)
            image.close()
    with Project.open(path, read_only=True) as project:
        for image in project.images:
            image.load()


# --- somebody who knows the format ---


def mutate_manifest(path: Path, rng: Rng) -> None:
    """Change what the commit point says, and compute its checksum anew; the one before is gone."""
    content = json.loads((path / _MANIFESTS[0]).read_bytes())
    changed = odd_json(content["project"], rng)
    with suppress(ValueError, RecursionError):
        canonical = json.dumps(json.loads(changed), sort_keys=True, separators=(",", ":"))
        content["crc32"] = zlib.crc32(canonical.encode())
    content["project"] = "HERE"
    text = json.dumps(content).encode().replace(b'"HERE"', changed)
    for name in _MANIFESTS:
        (path / name).unlink(missing_ok=True)
    (path / pick(rng, _MANIFESTS)).write_bytes(text)


def mutate_some_journal(path: Path, rng: Rng) -> None:
    """Change, repeat, leave out or move records; without the folds, they are all read."""
    mutate_records(pick(rng, sorted(path.rglob("*.journal"))), rng)
    if rng.random() < 0.7:
        shutil.rmtree(path / "images" / "0" / "annotation")


def mutate_some_metadata(path: Path, rng: Rng) -> None:
    """Change the JSON of a fold, a prediction or the pixels."""
    json_of_some_file(path / "images" / "0", rng)


def link_out(path: Path, rng: Rng) -> None:
    """Put a link that leads out of the project in the place of something in it."""
    chosen = pick(rng, [*files_of(path), *sorted(folder for folder in path.rglob("*") if folder.is_dir())])
    if chosen.is_dir():
        shutil.rmtree(chosen)
        chosen.symlink_to(path.parent.parent)
    else:
        chosen.unlink()
        chosen.symlink_to(path.parent.parent / DECOY)


TARGETS = (
    Target(
        "project",
        make_projects,
        (
            *(bytes_of_some_file, text_of_some_file, lose_some_file, mutate_some_metadata, mutate_some_journal),
            *(mutate_manifest, mutate_manifest, mutate_manifest, link_out),
        ),
        use_project,
    ),
)
