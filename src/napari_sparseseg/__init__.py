"""Paint a few slices of a volume, get the dense segmentation: a small 3D network that learns from sparse paint.

Importing this package is quick: torch is loaded when a model is fitted or read, Qt never.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_sparseseg._types import Box, Plane, Region
    from napari_sparseseg.config import ModelConfig, ObjectConfig, PaintConfig, PredictionConfig, TrainingConfig
    from napari_sparseseg.engine.weak.advice import SliceAdvice
    from napari_sparseseg.errors import (
        InputError,
        InputTypeError,
        InputWarning,
        ModelFileError,
        NotFittedError,
        ProjectError,
        ProjectReadOnlyError,
        ProjectVersionError,
        SparseSegError,
        TrainingError,
    )
    from napari_sparseseg.live.events import View
    from napari_sparseseg.live.live_segmenter import LiveSegmenter
    from napari_sparseseg.measuring import measure_objects
    from napari_sparseseg.segmenter import SparseSegmenter
    from napari_sparseseg.storage.project.project import Project
    from napari_sparseseg.storage.series import time_points
    from napari_sparseseg.suggesting import suggest_between, suggest_grown, with_suggestions

_HOMES = {
    "SparseSegmenter": "segmenter",
    "LiveSegmenter": "live.live_segmenter",
    "Project": "storage.project.project",
    "Box": "_types",
    "Plane": "_types",
    "Region": "_types",
    "View": "live.events",
    "ModelConfig": "config",
    "ObjectConfig": "config",
    "PaintConfig": "config",
    "PredictionConfig": "config",
    "TrainingConfig": "config",
    "SliceAdvice": "engine.weak.advice",
    "InputError": "errors",
    "InputTypeError": "errors",
    "InputWarning": "errors",
    "ModelFileError": "errors",
    "NotFittedError": "errors",
    "ProjectError": "errors",
    "ProjectReadOnlyError": "errors",
    "ProjectVersionError": "errors",
    "SparseSegError": "errors",
    "TrainingError": "errors",
    "measure_objects": "measuring",
    "suggest_between": "suggesting",
    "suggest_grown": "suggesting",
    "time_points": "storage.series",
    "with_suggestions": "suggesting",
}

__all__ = [
    "Box",
    "InputError",
    "InputTypeError",
    "InputWarning",
    "LiveSegmenter",
    "ModelConfig",
    "ModelFileError",
    "NotFittedError",
    "ObjectConfig",
    "PaintConfig",
    "Plane",
    "PredictionConfig",
    "Project",
    "ProjectError",
    "ProjectReadOnlyError",
    "ProjectVersionError",
    "Region",
    "SliceAdvice",
    "SparseSegError",
    "SparseSegmenter",
    "TrainingConfig",
    "TrainingError",
    "View",
    "__version__",
    "measure_objects",
    "suggest_between",
    "suggest_grown",
    "time_points",
    "with_suggestions",
]


def __getattr__(name: str) -> object:
    if name == "__version__":
        return version("napari-sparseseg")
    if name in _HOMES:
        return getattr(import_module(f"napari_sparseseg.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
