"""Files as the segmenter takes them: models, and images and labels as one volume per time point, channels first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_sparseseg._types import MAX_CLASSES, UNPAINTED, Box
from napari_sparseseg.cli._console import lengths, on_terminal, warn
from napari_sparseseg.cli._planes import with_planes_of
from napari_sparseseg.errors import InputError
from napari_sparseseg.storage import overlapping
from napari_sparseseg.storage.annotation import read_annotation
from napari_sparseseg.storage.atomic import is_safetensors
from napari_sparseseg.storage.formats import image_suffixes, open_annotation, open_image
from napari_sparseseg.storage.levels import ReducedPaint, matching_level, reduction, suggested_level
from napari_sparseseg.storage.series import time_points
from napari_sparseseg.storage.units import factor
from napari_sparseseg.storage.volume import ArrayVolume

if TYPE_CHECKING:
    from napari_sparseseg._types import ArrayLike
    from napari_sparseseg.segmenter import SparseSegmenter
    from napari_sparseseg.storage.formats import Geometry, ImageFile

_UNIT = "micrometer"
_SPACING = "--spacing"
_ALIKE = 1.1  # ratio of voxel sizes up to which nobody is warned
_SAME = 1e-4  # part of a voxel size by which the rounded one that users type may differ


@dataclass(frozen=True, slots=True)
class Image:
    """A level of resolution of an open image, and the finest one, which is the same if there is no other.

    `spacing`, and `offset` of the first voxel, are along its spatial axes in `unit`, micrometres wherever the unit is
    known.
    """

    file: ImageFile
    finest: ImageFile
    spacing: tuple[float, ...] | None
    offset: tuple[float, ...]
    unit: str | None

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        axes: str | None = None,
        spacing: Sequence[float] | None = None,
        level: int = 0,
        series: int | None = None,
    ) -> Image:
        """Open a level of resolution of an image, or of one of several in a file: the first if `series` is None.

        `axes` and `spacing` (micrometres, of the finest level) replace what the file says.
        """
        file = open_image(path, axes=axes, level=level, series=series or 0)
        return cls.of(file, open_image(path, axes=axes, series=series or 0) if level else file, spacing)

    @classmethod
    def of(cls, file: ImageFile, finest: ImageFile, spacing: Sequence[float] | None = None) -> Image:
        """As `open`, of a level that is open, and of the finest one."""
        if spacing is None:
            return cls(file, finest, *_in_micrometres(file))
        n_axes = len(file.spatial_axes)
        if len(spacing) < n_axes:
            raise InputError(
                f"--spacing {','.join(f'{s:g}' for s in spacing)} has two numbers, but {file.path} has three spatial "
                "axes; give the size along z as well"
            )
        steps = reduction(finest.spatial_shape, file.spatial_shape)
        sizes = tuple(size * step for size, step in zip(spacing[-n_axes:], steps, strict=True))
        begins = (0.0,) * n_axes if file.spacing is None else file.offset
        moved = zip(sizes, begins, file.spacing or sizes, strict=True)
        return cls(file, finest, sizes, tuple(size * a / old for size, a, old in moved), _UNIT)

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
        """Size along T, Z, Y, X, whichever of them there are, in this order."""
        return _without_channels(self.file)

    @property
    def times(self) -> range:
        """Numbers of its time points; one if it has no time axis."""
        return range(self.file.n_frames)

    def volume(self, time: int) -> ArrayLike:
        """One time point, channels first, unread."""
        frame = self.file.frame(time)
        return frame.array if frame.channel_axis in (None, 0) else time_points(frame.array, frame.axes)[0]

    def place(self) -> dict[str, Any]:
        """Where labels of it lie, as writers take it; in voxels of the finest level where their size is not known."""
        spacing = self.spacing
        if spacing is None and self.file is not self.finest:
            spacing = tuple(map(float, reduction(self.finest.spatial_shape, self.file.spatial_shape)))
        return {"spacing": spacing, "offset": self.offset, "unit": self.unit}

    @property
    def geometry(self) -> Geometry | None:
        """Orientation and position for labels in the image's format; None if its header has another voxel size."""
        sizes, _, unit = _in_micrometres(self.file)
        if unit != self.unit or (sizes is None) != (self.spacing is None):
            return None
        is_same = np.allclose(sizes or (), self.spacing or (), rtol=_SAME, atol=0)
        return self.file.geometry if is_same else None

    def check_paint(self, annotation: ImageFile) -> None:
        """Raise `InputError` unless the shape of an annotation is that of this level, or of the finest."""
        shape = _without_channels(annotation)
        if shape != _without_channels(self.finest):
            check_shape(annotation.path, shape, self.path, self.shape)

    def paint(self, annotation: ImageFile, time: int) -> ArrayLike:
        """One time point of an annotation, unread, at this level even if it was painted on the finest.

        An axis of classes comes first; such paint raises `InputError` at another level.
        """
        frame = annotation.frame(time)
        shape = self.file.spatial_shape
        if frame.spatial_shape == shape:
            return frame.array if frame.channel_axis in (None, 0) else time_points(frame.array, frame.axes)[0]
        if frame.channel_axis is not None:
            raise InputError(
                f"{annotation.path} has an axis of classes, which is learnt at the level that it was painted on: give "
                f"the level whose shape is {frame.spatial_shape}, or an annotation of shape {shape}"
            )
        return ReducedPaint(frame.array, shape)


def _without_channels(file: ImageFile) -> tuple[int, ...]:
    """Size along T, Z, Y, X, whichever of them there are, in this order."""
    sizes = dict(zip(file.axes, file.array.shape, strict=True))
    return tuple(sizes[letter] for letter in "TZYX" if letter in sizes)


def suggest_level(path: Path | str, annotation: ImageFile | None, *, axes: str | None, series: int | None) -> int:
    """The level of resolution to learn at: see `storage.levels.suggested_level`.

    The paint counts if it lies on the finest level. Of a time series, its first painted time point does.
    """
    files = [file for _, file in _levels_of(path, axes, series)]
    shapes = [file.spatial_shape for file in files]
    if annotation is None or annotation.spatial_shape != shapes[0]:
        return suggested_level(shapes)
    number = next(painted_times(annotation), 0)
    volume = ArrayVolume(files[0].frame(0).array, files[0].frame(0).channel_axis)
    return suggested_level(shapes, read_annotation(annotation.frame(number).array, volume))


def _levels_of(path: Path | str, axes: str | None, series: int | None) -> list[tuple[ImageFile, ImageFile]]:
    """The finest level with each of them."""
    finest = open_image(path, axes=axes, series=series or 0)
    coarser = (open_image(path, axes=axes, level=level, series=series or 0) for level in range(1, finest.n_levels))
    return [(finest, level) for level in (finest, *coarser)]


def matching_level_of(
    path: Path | str,
    segmenter: SparseSegmenter,
    *,
    axes: str | None,
    spacing: Sequence[float] | None,
    series: int | None,
) -> int:
    """The level of an image whose voxels are most nearly as large as those that a model learnt from; 0 if unknown.

    `spacing` (micrometres, of the finest level) replaces what the file says.
    """
    if segmenter.spacing is None:
        return 0
    levels = [Image.of(file, finest, spacing).spacing for finest, file in _levels_of(path, axes, series)]
    return matching_level(levels, segmenter.spacing)


def open_matching(
    path: Path | str,
    segmenter: SparseSegmenter,
    *,
    axes: str | None,
    spacing: Sequence[float] | None,
    level: int | None,
    series: int | None,
) -> Image:
    """An image at a level of resolution, or at the one that matches the model if that is None; see `Image.open`."""
    if level is None:
        level = matching_level_of(path, segmenter, axes=axes, spacing=spacing, series=series)
    return Image.open(path, axes=axes, spacing=spacing, level=level, series=series)


def open_model(path: Path, *, device: str) -> SparseSegmenter:
    """A model that was saved.

    Raises `InputError` if `path` is an image instead: then the arguments were mixed up.
    """
    from napari_sparseseg.segmenter import SparseSegmenter

    if path.exists() and path.name.lower().endswith(image_suffixes()) and not is_safetensors(path):
        raise InputError(f"{path} is an image, but a model is needed at its place; the model comes first, then images")
    return SparseSegmenter.load(path, device=device, progress=on_terminal())


def open_labels(path: Path | str, image: Image | None = None, *, has_classes: bool = False) -> ImageFile:
    """Painted or finished labels, with the axes of the image that they belong to; channels may be overlapping classes.

    Raises `InputError` if they have no time axis and the image has one, or the other way round.
    """
    if image is None:
        return open_annotation(path)
    labels = _opened_like(path, image, has_classes=has_classes)
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


def _opened_like(path: Path | str, image: Image, *, has_classes: bool) -> ImageFile:
    """Labels with the axes that their file names, or with those of the image where only these make them fit it.

    Programs that write what they were given without a word on its axes, as napari does, leave them to be guessed.
    Raises what opening them raises if they cannot be opened with the image's axes either.
    """
    opened: list[ImageFile] = []
    refusals: list[InputError] = []
    for axes in (None, *_likely_axes(image, has_classes=has_classes)):
        try:
            labels = with_planes_of(image.file, open_annotation(path, axes=axes, has_classes=has_classes))
        except InputError as error:
            refusals.append(error)
            continue
        has_its_axes = set(labels.axes) - {"C"} == set(image.file.axes) - {"C"}
        if has_its_axes and _without_channels(labels) in (image.shape, _without_channels(image.finest)):
            return labels
        if has_its_axes or axes is None:
            opened.append(labels)
    if not opened:
        raise refusals[0]
    return opened[-1]


def _likely_axes(image: Image, *, has_classes: bool) -> list[str]:
    """What the axes of labels may be, by the image; classes come first, and an axis of one plane may be left out."""
    wanted = [image.file.axes.replace("C", "")]
    if "Z" not in wanted[0]:
        wanted.append(wanted[0].replace("Y", "ZY"))
    elif image.file.spatial_shape[0] == 1:
        wanted.append(wanted[0].replace("Z", ""))
    return [*wanted, *(f"C{axes}" for axes in wanted)] if has_classes else wanted


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
    return _whole(labels.frame(time).array)


def _whole(array: ArrayLike) -> npt.NDArray[Any]:
    return np.asarray(array[(slice(None),) * len(array.shape)])


def read_states(labels: ImageFile, time: int, image: Image) -> npt.NDArray[np.uint8]:
    """Truth of overlapping classes, which come first: 0 unknown, 1 absent, 2 present; at the level of an image.

    Raises `InputError` for other values.
    """
    paint = ArrayVolume(image.paint(labels, time), 0, name=str(labels.path))
    is_known, states = overlapping.read_states(paint, Box.whole(paint.shape))
    found = np.zeros((*is_known.shape, states.shape[1]), np.uint8)
    found[is_known] = states
    return np.moveaxis(found, -1, 0).reshape(-1, *paint.spatial_shape)


def read_classes(labels: ImageFile, time: int, image: Image | None = None) -> npt.NDArray[Any]:
    """As `read_all`, of truth or labels that are scored, whose values stand for classes; at the level of an image.

    Raises `InputError` for what rather is an image: fractions, and more values than there can be classes.
    """
    values = read_all(labels, time) if image is None else _whole(image.paint(labels, time))
    if values.dtype.kind == "f" and not (values == np.trunc(values)).all():
        raise InputError(f"{labels.path} holds fractions, but labels are whole numbers; is it the image?")
    n_values = len(np.unique(values))
    if n_values > MAX_CLASSES + 1:
        raise InputError(
            f"{labels.path} holds {n_values:,} different values, but there are at most {MAX_CLASSES} classes; is it "
            "the image, or are objects numbered instead of classes?"
        )
    return values


def unsized(file: ImageFile) -> str:
    """What a file without a voxel size says of it, as warnings begin."""
    if not file.known_spacing:
        return f"{file.path} does not say how large its voxels are"
    known = f"{', '.join(file.known_spacing).lower()} ({lengths(tuple(file.known_spacing.values()), file.unit)})"
    return f"{file.path} says how large its voxels are along {known}, but not along {unknown_axes(file)}"


def unknown_axes(file: ImageFile) -> str:
    """Axes along which a file does not tell how large its voxels are: `z`."""
    return ", ".join(letter for letter in file.spatial_axes if letter not in file.known_spacing).lower()


def spacing_option(file: ImageFile) -> str:
    """The option that gives what a file does not tell, with what it tells: `--spacing Z,0.3,0.2`."""
    scale = factor(file.unit, _UNIT) if file.unit else None
    if not file.known_spacing or scale is None:
        return _SPACING
    known = {letter: f"{size * scale:.6g}" for letter, size in file.known_spacing.items()}
    return f"{_SPACING} {','.join(known.get(letter, letter) for letter in file.spatial_axes)}"


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
    """Warn if the voxels are known not to be as large as those that the model learnt from."""
    if segmenter.spacing is None:
        return
    other = difference(image.spacing, segmenter.spacing, image.unit)
    if other:
        warn(
            f"{image.path} has voxels of {other} when the model learnt, more than 10 % off: the same objects look "
            "larger or smaller to it. Resample the image, or train on images like it."
        )


class Doubts:
    """Warns of images that may not be to a model what they are to users, before the work.

    Of many images it says only once what they leave open: they mostly come from one place. `segmenter` is None where
    no model is asked; `series` is what users chose of several images in a file.
    """

    def __init__(self, segmenter: SparseSegmenter | None, *, n_images: int = 1, series: int | None = None) -> None:
        self._segmenter, self._series = segmenter, series
        self._end = " Of further images this is not said again." if n_images > 1 else ""
        self._said: set[str] = set()

    def warn(self, image: Image) -> None:
        """Warn if it is one of several in its file, or its voxels are not as large as those that the model learnt."""
        if image.file.n_series > 1 and self._series is None:
            held = f"{image.path} holds {image.file.n_series} images, of which the first is used"
            self._warn_once("series", f"{held}; choose one with --series, counted from 0.")
        if self._segmenter is None:
            return
        learnt = self._segmenter.spacing
        if image.spacing is None and learnt is not None:
            self._warn_once("size", self._unsized(image, learnt))
        warn_of_other_voxels(image, self._segmenter)

    def _unsized(self, image: Image, learnt: Sequence[float]) -> str:
        own, option = learnt[-len(image.file.spatial_axes) :], spacing_option(image.finest)
        if option == _SPACING and image.file is image.finest:
            option += f", which is {','.join(f'{size:.6g}' for size in own)} if they are alike"
        return (
            f"{unsized(image.finest)}, so they may be others than the voxels of {lengths(own, None)} that the model "
            f"learnt from, and what is measured is told in voxels; give {option}."
        )

    def _warn_once(self, what: str, text: str) -> None:
        if what not in self._said:
            self._said.add(what)
            warn(text + self._end)


def _in_micrometres(file: ImageFile) -> tuple[tuple[float, ...] | None, tuple[float, ...], str | None]:
    """Spacing, offset and unit."""
    scale = factor(file.unit, _UNIT) if file.unit else None
    if file.spacing is None or scale is None:
        return file.spacing, file.offset, None  # a unit that we do not know, formats for the output may not know either
    return _scaled(file.spacing, scale), _scaled(file.offset, scale), _UNIT


def _scaled(lengths: Sequence[float], scale: float) -> tuple[float, ...]:
    return tuple(float(f"{length * scale:.12g}") for length in lengths)
