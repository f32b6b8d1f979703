"""Models of segmenters as they are read from files and projects."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from napari_sparseseg import config
from napari_sparseseg.engine.checkpoint import ModelDescription, describe_model, load_model
from napari_sparseseg.engine.model import FittedModel
from napari_sparseseg.engine.trainer import TrainingStep
from napari_sparseseg.errors import ModelFileError
from napari_sparseseg.storage.project.project import Project, is_project

T = TypeVar("T")


def read_model(path: str | os.PathLike[str]) -> tuple[FittedModel, dict[str, Any], dict[str, Tensor]]:
    """A model file, or the newest model of a project that can be read, as `load_model` returns it.

    Raises `ModelFileError` for a file that cannot be trusted or understood, and a project without a model.
    """
    return _of_newest(path, load_model) if is_project(path) else load_model(path)


def read_description(path: str | os.PathLike[str]) -> tuple[Path, ModelDescription]:
    """What a model file, or the newest model of a project that can be read, is said to hold, and that file.

    Raises what `read_model` raises.
    """
    return _of_newest(path, _described) if is_project(path) else _described(Path(path))


def arguments_in(
    header: Mapping[str, Any], fitted: FittedModel, path: str | os.PathLike[str]
) -> tuple[dict[str, Any], list[TrainingStep]]:
    """Constructor arguments and history of the segmenter that saved a model.

    Raises `ModelFileError`, which names the path, if they cannot be understood.
    """
    try:
        settings = header["settings"]
        arguments = {name: settings[name] for name in ("spacing", "channel_axis", "random_state")}
        arguments["background"] = settings["background"] or None  # the window wrote 0 where no class is it
        # absent from models of older programs: paint and objects
        paint = settings.get("paint", {}) | {"overlapping": fitted.classes.overlapping}
        groups = {
            "model": fitted.spec.config,
            "training": config.TrainingConfig.of(settings["training"]),
            "paint": config.PaintConfig.of(paint),
            "prediction": config.PredictionConfig.of(settings["prediction"]),
            "objects": config.ObjectConfig.of(settings.get("objects", {})),
        }
        return arguments | groups, [TrainingStep(**step) for step in header["history"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFileError(f"{path} does not hold the settings of a model ({error!s:.400}); save it again") from error


def _described(path: Path) -> tuple[Path, ModelDescription]:
    return path, describe_model(path)


def _of_newest(project: str | os.PathLike[str], read: Callable[[Path], T]) -> T:
    """What is read from the newest model of a project that can be read."""
    with Project.open(project, read_only=True) as opened:
        files = [path for _, path in opened.checkpoints()]
    if not files:
        raise ModelFileError(f"there is no model in {os.fspath(project)} yet; train one in it first")
    for path in files[:-1]:
        with suppress(ModelFileError):  # the one before is kept for that
            return read(path)
    return read(files[-1])
