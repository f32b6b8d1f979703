"""The commit point: one small file that says what of a project counts, written whole or not at all."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from napari_sparseseg._types import MAX_CLASSES
from napari_sparseseg.config import ModelConfig, PaintConfig, PredictionConfig, TrainingConfig
from napari_sparseseg.errors import ProjectError, ProjectVersionError
from napari_sparseseg.storage.formats._errors import shown
from napari_sparseseg.storage.project.reference import ImageReference
from napari_sparseseg.storage.units import in_last_unit

FORMAT = "napari-sparseseg project"
VERSION = 1
MANIFEST, PREVIOUS = "project.json", "project.previous.json"
MAX_FOLDS = 100  # of an image
_LARGEST = 2**24  # bytes
_MAX_VOXELS = 2**42
_N_TOLD = 8  # settings that a message names

Number = Annotated[int, Field(ge=0, lt=10**6)]
_Time = Annotated[float, Field(ge=0, le=1e11, allow_inf_nan=False)]
_Figure = Annotated[float | None, Field(default=None)]
_Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="constants")


class Position(_Entry):
    """A place in an image's journal: the number of a file, and an offset into it in bytes. Later ones are greater."""

    segment: Number = 0
    offset: int = Field(0, ge=0)

    def __lt__(self, other: Position) -> bool:
        return (self.segment, self.offset) < (other.segment, other.offset)

    def __le__(self, other: Position) -> bool:
        return not other < self


class Fold(_Entry):
    """The annotation as it was at a position of the journal; `objects` numbers those found by then, None without.

    `is_base` says that it holds what no journal does, so that it is never dropped; None where an older version of the
    program has not said so.
    """

    number: Number
    position: Position
    time: _Time
    n_strokes: int = Field(ge=0)
    objects: Number | None = None
    is_base: bool | None = None


class ProjectClass(_Entry):
    """A class that can be painted; `color` is red, green, blue, each 0..1."""

    class_id: int = Field(ge=1, le=MAX_CLASSES)
    name: str = Field(min_length=1, max_length=1000)
    color: tuple[_Share, _Share, _Share]
    is_background: bool = False


class ProjectSettings(_Entry):
    """Configurations and the device that is asked for."""

    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    paint: PaintConfig = PaintConfig()
    prediction: PredictionConfig = PredictionConfig()
    device: str = Field("auto", max_length=100)


class ProjectCheckpoint(_Entry):
    """A model that was saved: when, after how many steps and strokes, and how good it was."""

    number: Number
    time: _Time
    step: int = Field(ge=0)
    loss: _Figure
    dice: _Figure
    n_strokes: int = Field(0, ge=0)


_Name = Annotated[str, Field(max_length=1000)]
_Three = tuple[int, int, int]
_Finite = Annotated[float, Field(allow_inf_nan=False)]


class LayerPlace(_Entry):
    """How an image was shown in napari, so that it can be shown again as it was.

    `names` are those of its layers, one for each channel; `reader` the plugin that read them, `sample` plugin and key
    of sample data. `level`, `region` (start and stop, voxels at full resolution) and `step` say which part of the
    layers is worked on. The others have one entry for each axis of the image without channels.
    """

    names: tuple[_Name, ...] = Field((), max_length=1000)
    reader: _Name | None = None
    sample: tuple[_Name, _Name] | None = None
    level: int = Field(0, ge=0)
    region: tuple[_Three, _Three] | None = None
    step: _Three = (1, 1, 1)
    scale: tuple[_Finite, ...] = Field((), max_length=4)
    translate: tuple[_Finite, ...] = Field((), max_length=4)
    units: tuple[_Name, ...] = Field((), max_length=4)
    axis_labels: tuple[_Name, ...] = Field((), max_length=4)

    def offset(self, n_axes: int) -> tuple[float, ...] | None:
        """Position of the first voxel along the last axes, in the unit of x; None if it was not noted, or flipped."""
        translate, units = self.translate[-n_axes:], self.units[-n_axes:]
        if len(translate) < n_axes or any(size < 0 for size in self.scale[-n_axes:]):
            return None
        return in_last_unit(translate, units) if len(units) == n_axes else translate


class ImageEntry(_Entry):
    """An image of the project. `shape` is frames, z, y, x; axes count those of the image's array."""

    title: str = Field(max_length=1000)
    shape: tuple[int, int, int, int]
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    channel_axis: int | None = Field(None, ge=0, le=4)
    time_axis: int | None = Field(None, ge=0, le=4)
    reference: ImageReference = ImageReference()
    place: LayerPlace | None = None
    is_stored: bool = False
    folds: tuple[Fold, ...] = Field((), max_length=MAX_FOLDS)
    prediction: Number | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if min(self.shape) < 1 or math.prod(self.shape) > _MAX_VOXELS:
            raise ValueError(f"an image of shape {self.shape} (frames, z, y, x) cannot be annotated")
        if not all(math.isfinite(size) and size > 0 for size in self.spacing):
            raise ValueError(f"spacing {self.spacing} must be positive and finite")
        return self


class Manifest(_Entry):
    """All that a project's commit point holds.

    `classes_number` counts the changes of the classes; `highest_class` is the highest id that one ever had, since older
    paint and models know those that were removed. `refused` are those settings of the file, as it has them, that this
    version does not take: they are written back until the settings are changed.
    """

    id: str = Field(max_length=100)
    created: _Time
    program: str = Field(max_length=100)
    classes: tuple[ProjectClass, ...] = Field((), max_length=MAX_CLASSES)
    classes_number: int = Field(0, ge=0)
    highest_class: int = Field(0, ge=0, le=MAX_CLASSES)
    settings: ProjectSettings = ProjectSettings()
    refused: dict[str, Any] = Field(default_factory=dict, exclude=True)
    images: tuple[ImageEntry, ...] = Field((), max_length=10**5)
    checkpoints: tuple[ProjectCheckpoint, ...] = Field((), max_length=100)

    def changed(self, **changes: Any) -> Manifest:
        """A copy with some fields changed."""
        return self.model_copy(update=changes)

    def with_highest_class(self, *class_ids: int) -> Manifest:
        """A copy that knows of these ids; itself, if it does."""
        highest = max(self.highest_class, *class_ids)
        return self if highest == self.highest_class else self.changed(highest_class=highest)

    def with_image(self, number: int, **changes: Any) -> Manifest:
        """A copy with some fields of an image changed."""
        images = list(self.images)
        images[number] = images[number].model_copy(update=changes)
        return self.changed(images=tuple(images))

    def encoded(self) -> bytes:
        """The file's content."""
        project = self.model_dump(mode="json")
        for name, value in self.refused.items():
            known = project["settings"].get(name)
            project["settings"][name] = known | value if isinstance(known, dict) and isinstance(value, dict) else value
        envelope = {"format": FORMAT, "version": VERSION, "crc32": _checksum(project), "project": project}
        return json.dumps(envelope, indent=1).encode()


def read_manifest(path: Path) -> tuple[Manifest, list[str]]:
    """Read a commit point of the present version, and say what of its settings is not taken.

    Raises `ProjectError` if the file is missing, too large, damaged or of another kind, `ProjectVersionError` if it is
    of a newer version.
    """
    envelope = read_envelope(path)
    if envelope["version"] != VERSION:
        raise ProjectError(f"{path} has format version {envelope['version']}; it must be migrated first")
    project = envelope.get("project")
    if not isinstance(project, dict) or envelope.get("crc32") != _checksum(project):
        raise ProjectError(f"{path} was changed or damaged after it was written (its checksum differs); use a backup")
    try:
        found = project.get("settings", {})
        settings, refused = _settings_in(found if isinstance(found, dict) else {})
        manifest = Manifest.model_validate(project | {"settings": settings, "refused": refused})
    except (ValidationError, RecursionError, OverflowError) as error:
        raise ProjectError(f"{path} does not describe a project ({_first_problem(error)}); use a backup") from None
    if not isinstance(found, dict):
        return manifest, [f"{path.parent} has no settings that can be read, so that their defaults are used"]
    return manifest, [_told(path, refused)] if refused else []


def _settings_in(found: Mapping[str, Any]) -> tuple[ProjectSettings, dict[str, Any]]:
    """The settings of a file, by default where this version does not take them, and those that it does not take."""
    known = ProjectSettings.model_fields
    refused = {group: values for group, values in found.items() if group not in known}
    taken = {
        group: dict(values) if isinstance(values, dict) else values for group, values in found.items() if group in known
    }
    while True:  # each time fewer are left
        try:
            return ProjectSettings.model_validate(taken), refused
        except ValidationError as error:
            group, *names = error.errors()[0]["loc"]
        values = taken[str(group)]
        if names and isinstance(values, dict):
            refused.setdefault(str(group), {})[str(names[0])] = values.pop(names[0])
        else:
            refused[str(group)] = taken.pop(str(group))


def _told(path: Path, refused: Mapping[str, Any]) -> str:
    """A sentence on the settings that are not taken."""
    groups = [
        (group, list(values) if isinstance(values, dict) and values else [""]) for group, values in refused.items()
    ]
    names = [shown(f"{group}.{name}".rstrip("."), 60) for group, names in groups for name in names]
    listed = ", ".join(names[:_N_TOLD]) + (" and others" if len(names) > _N_TOLD else "")
    return (
        f"{path.parent} has settings that this version does not know or take ({listed}), so that their defaults are "
        "used; the project keeps them until you change a setting"
    )


def read_envelope(path: Path) -> dict[str, Any]:
    """Check size, format and version of a commit point; the rest of it is as the file has it. Raises as above."""
    envelope = read_json(path, _LARGEST)
    if not isinstance(envelope, dict) or envelope.get("format") != FORMAT:
        raise ProjectError(f"{path} does not belong to a project of napari-sparseseg; choose another folder")
    version = envelope.get("version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 0:
        raise ProjectError(f"{path} does not say which format version it has; use a backup")
    if version > VERSION:
        raise ProjectVersionError(
            f"{path.parent} has format version {version}, this program reads up to {VERSION}; update napari-sparseseg"
        )
    return envelope


def read_json(path: Path, largest: int) -> Any:
    """Parse a JSON file of at most `largest` bytes. Raises `ProjectError` for what cannot be read or is none."""
    if not path.is_file():  # a pipe would be waited for
        raise ProjectError(f"there is no file {path}; use a backup")
    try:
        with path.open("rb") as file:
            content = file.read(largest + 1)
    except OSError as error:
        raise ProjectError(f"{path} cannot be read ({error.strerror or error}); use a backup") from error
    if len(content) > largest:
        raise ProjectError(f"{path} is larger than {largest} bytes, which no such file is; use a backup")
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise ProjectError(f"{path} is damaged (it is no JSON); use a backup") from None


def _checksum(project: Any) -> int:
    return zlib.crc32(json.dumps(project, sort_keys=True, separators=(",", ":")).encode())


def _first_problem(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return type(error).__name__
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"[:200]
