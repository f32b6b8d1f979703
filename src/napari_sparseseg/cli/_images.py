"""Files as the segmenter takes them: models, and images and labels as one volume per time point, channels first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_sparseseg._types import MAX_CLASSES, UNPAINTED
from napari_sparseseg.cli._console import lengths, on_terminal, warn
from napari_sparseseg.errors import InputError
from napari_sparseseg.storage.formats import image_suffixes, open_annotation, open_image
from napari_sparseseg.storage.units import factor
from napari_sparseseg.storage.whole import is_safetensors

if TYPE_CHECKING:
    from napari_sparseseg._types import ArrayLike
    from napari_sparseseg.segmenter import SparseSegmenter
    from napari_sparseseg.storage.formats import ImageFile

_UNIT = "micrometer"
_ALIKE = 1.1  # ratio of voxel sizes up to which nobody is warned


@dataclass(frozen=True, slots=True)
class Image:
    """An open image. `spacing` is along its spatial axes in `unit`, micrometres wherever the unit is known."""

    file: ImageFile
    spacing: tuple[float, ...] | None
    unit: str | None

    @classmethod
    def open(cls, path: Path | str, *, axes: str | None = None, spacing: Sequence[float] | None = None) -> Image:
        """Open an image; `axes` and `spacing` (micrometres) replace what the file says."""
        file = open_image(path, axes=axes)
        if spacing is None:
            return cls(file, *_in_micrometres(file))
        n_axes = len(file.spatial_axes)
        if len(spacing) < n_axes:
            raise InputError(
                f"--spacing {','.join(f'{s:g}' for s in spacing)} has two numbers, but {path} has three spatial axes; "
                "give the size along z as well"
            )
        return cls(file, tuple(spacing[-n_axes:]), _UNIT)

    @property
    def path(self) -> Path | str:
        """Where it lies."""
        return self.file.path

    @property
    def channel_axis(self) -> int | None:
        """Position of the channel axis in the volumes: first, or None."""
        return None if self.file.channel_axis is None else 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Size along each axis but the channels."""
        sizes = zip(self.file.axes, self.file.array.shape, strict=True)
        return tuple(size for letter, size in sizes if letter != "C")

    @property
    def times(self) -> range:
        """Numbers of its time points; one if it has no time axis."""
        return range(self.file.n_frames)

    def volume(self, time: int) -> ArrayLike:
        """One time point, channels first, unread."""
        frame = self.file.frame(time)
        axis = frame.channel_axis
        return frame.array if axis in (None, 0) else _ChannelsFirst(frame.array, axis)


class _ChannelsFirst:
    """An array whose channel axis comes first, still unread; sliced with one slice for each axis."""

    def __init__(self, array: ArrayLike, axis: int) -> None:
        self._array, self._axis = array, axis
        others = [size for i, size in enumerate(array.shape) if i != axis]
        self.shape = (array.shape[axis], *others)
        self.dtype = array.dtype
        self.source_name = getattr(array, "source_name", None)

    def __getitem__(self, index: Any, /) -> Any:
        channels, *others = index
        others.insert(self._axis, channels)
        return np.moveaxis(np.asarray(self._array[tuple(others)]), self._axis, 0)


def open_model(path: Path, *, device: str) -> SparseSegmenter:
    """A model that was saved.

    Raises `InputError` if `path` is an image instead: then the arguments were mixed up.
    """
    from napari_sparseseg.segmenter import SparseSegmenter

    if path.exists() and path.name.lower().endswith(image_suffixes()) and not is_safetensors(path):
        raise InputError(f"{path} is an image, but a model is needed at its place; the model comes first, then images")
    return SparseSegmenter.load(path, device=device, progress=on_terminal())


def open_labels(path: Path | str, image: Image | None = None) -> ImageFile:
    """Painted or finished labels, with the axes of the image that they belong to.

    Raises `InputError` if they have no time axis and the image has one, or the other way round.
    """
    labels = open_annotation(path)
    if image is None:
        return labels
    wanted = image.file.axes.replace("C", "")
    if labels.axes != wanted and len(labels.array.shape) == len(wanted):
        labels = open_annotation(path, axes=wanted)  # what their file says less well than the image's
    if (labels.time_axis is None) != (image.file.time_axis is None):
        series, single = (image.path, path) if labels.time_axis is None else (path, image.path)
        raise InputError(
            f"{series} is a time series and {single} is not; both need the same time points (unpainted ones are fine)"
        )
    if labels.n_frames != image.file.n_frames:
        raise InputError(
            f"{path} has {labels.n_frames} time points, but {image.path} has {image.file.n_frames}; both need the same"
        )
    return labels


def painted_times(annotation: ImageFile) -> Iterator[int]:
    """Time points that carry paint; all of them where there is no time axis."""
    for time in range(annotation.n_frames):
        if annotation.time_axis is None or (read_all(annotation, time) != UNPAINTED).any():
            yield time


def check_shape(path: Path | str, shape: Sequence[int], other: Path | str, wanted: Sequence[int]) -> None:
    """Raise `InputError` unless two files have one shape, channels left out."""
    if tuple(shape) == tuple(wanted):
        return
    is_turned = sorted(shape) == sorted(wanted)
    hint = "their axes are in another order, save one of them anew" if is_turned else "both must be alike"
    raise InputError(f"{path} has shape {tuple(shape)}, but {other} has {tuple(wanted)}; {hint}")


def read_all(labels: ImageFile, time: int) -> npt.NDArray[Any]:
    """All voxels of one time point."""
    array = labels.frame(time).array
    return np.asarray(array[(slice(None),) * len(array.shape)])


def read_classes(labels: ImageFile, time: int) -> npt.NDArray[Any]:
    """As `read_all`, of truth or labels that are scored, whose values stand for classes.

    Raises `InputError` for what rather is an image: fractions, and more values than there can be classes.
    """
    values = read_all(labels, time)
    if values.dtype.kind == "f" and not (values == np.trunc(values)).all():
        raise InputError(f"{labels.path} holds fractions, but labels are whole numbers; is it the image?")
    n_values = len(np.unique(values))
    if n_values > MAX_CLASSES + 1:
        raise InputError(
            f"{labels.path} holds {n_values:,} different values, but there are at most {MAX_CLASSES} classes; is it "
            "the image, or are objects numbered instead of classes?"
        )
    return values


def difference(
    spacing: Sequence[float] | None, other: Sequence[float], unit: str | None, other_unit: str | None = None
) -> str | None:
    """How two voxel sizes differ, if they do by more than a tenth along any axis; else None."""
    if spacing is None:
        return None
    n = min(len(spacing), len(other))
    ratios = [a / b for a, b in zip(spacing[-n:], other[-n:], strict=True)]
    if all(1 / _ALIKE <= ratio <= _ALIKE for ratio in ratios):
        return None
    return f"{lengths(spacing[-n:], unit)} instead of {lengths(other[-n:], other_unit or unit)}"


def warn_of_other_voxels(image: Image, segmenter: SparseSegmenter) -> None:
    """Warn if the voxels are not as large as those that the model learnt from."""
    if segmenter.spacing is None:
        return
    other = difference(image.spacing, segmenter.spacing, image.unit)
    if other:
        warn(
            f"{image.path} has voxels of {other} when the model learnt, more than 10 % off: the same objects look "
            "larger or smaller to it. Resample the image, or train on images like it."
        )


def _in_micrometres(file: ImageFile) -> tuple[tuple[float, ...] | None, str | None]:
    scale = factor(file.unit, _UNIT) if file.unit else None
    if file.spacing is None or scale is None:
        return file.spacing, None  # a unit that we do not know, formats for the output may not know either
    return tuple(float(f"{size * scale:.12g}") for size in file.spacing), _UNIT
