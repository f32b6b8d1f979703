"""A shelf of models: a folder of model files, and what each says of itself."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from napari_sparseseg.errors import ModelFileError

SUFFIX = ".safetensors"


@dataclass(frozen=True, slots=True)
class ShelfModel:
    """A model on the shelf: `classes` are names, or ids where they have none; `time` is that of the file.

    `dice` is the estimate on held-out paint at the end of its training, None if there is none.
    """

    path: Path
    classes: tuple[str, ...]
    dice: float | None
    time: float

    @property
    def name(self) -> str:
        return self.path.stem


def read_shelf(folder: Path) -> tuple[ShelfModel, ...]:
    """Models in a folder, newest first; files that are none, or damaged, are left out. Takes a second, loads torch."""
    found = []
    for path in folder.glob(f"*{SUFFIX}") if folder.is_dir() else ():
        try:
            found.append(_read(path))
        except (ModelFileError, OSError):  # somebody else's file, or one that has just been removed
            continue
    return tuple(sorted(found, key=lambda model: model.time, reverse=True))


def place_on_shelf(folder: Path, name: str) -> Path:
    """Where a model of this name may be written: the name without what file names cannot have, and never one in use."""
    word = re.sub(r"[^\w .()-]+", "_", name).strip(" ._")[:60] or "model"
    path, number = folder / f"{word}{SUFFIX}", 1
    while path.exists():
        number += 1
        path = folder / f"{word} {number}{SUFFIX}"
    return path


def _read(path: Path) -> ShelfModel:
    from napari_sparseseg.engine.checkpoint import describe_model

    described = describe_model(path)
    settings, history = described.header.get("settings"), described.header["history"]
    names = settings.get("class_names") if isinstance(settings, dict) else None
    named = names if isinstance(names, dict) else {}
    classes = tuple(str(named.get(str(class_id), class_id)) for class_id in described.classes.ids)
    return ShelfModel(path, classes, history[-1]["dice"] if history else None, path.stat().st_mtime)
