"""What paint in arrays suggests about its surroundings: more paint, and slices to paint next."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from napari_sparseseg._types import UNPAINTED, Annotation, ArrayLike, Spacing
from napari_sparseseg.config import PaintConfig
from napari_sparseseg.engine.predictor import Predictor
from napari_sparseseg.engine.weak import advice
from napari_sparseseg.engine.weak.advice import Advisor, Method, SliceAdvice
from napari_sparseseg.engine.weak.hints import between, grow, painted_slices
from napari_sparseseg.errors import InputError, InputTypeError
from napari_sparseseg.progress import move_bar, open_bar
from napari_sparseseg.storage._arrays import checked_spacing
from napari_sparseseg.storage.annotation import read_annotation
from napari_sparseseg.storage.volume import ArrayVolume, ImageVolume


class Suggested(NamedTuple):
    """Suggested paint: `codes`, uint8, of the annotation's shape, 0 where nothing is suggested; `weight` of each."""

    codes: npt.NDArray[np.uint8]
    weight: float


def suggest_grown(
    image: ArrayLike,
    annotation: ArrayLike,
    *,
    spacing: Sequence[float] | None = None,
    channel_axis: int | None = None,
    allowed: Mapping[int, Collection[int]] | None = None,
    paint: PaintConfig | None = None,
) -> Suggested:
    """Grow the strokes of each painted slice to the outlines of what they lie in.

    For slices with a few strokes; on those that are painted completely there is nothing to suggest. Slices on which
    fewer than two classes are painted are left out. See `napari_sparseseg.engine.weak.hints.grow` for the method.

    Parameters
    ----------
    image
        (Z, Y, X) or (Y, X), with one more axis at `channel_axis` if that is set; only painted slices are read.
    annotation
        Codes of the same shape without channels: 0 is unpainted, 1 to 254 classes, or sets named by `allowed`.
    spacing
        Voxel size along z, y, x (y, x) in any unit; None takes voxels for cubes.
    channel_axis
        Position of the channel axis.
    allowed
        The classes that a code leaves possible, as for `SparseSegmenter.fit`. Such paint does not grow.
    paint
        `PaintConfig`: its `growth`, `growth_reach`, `growth_certainty` and `suggestion_weight` count.

    Returns
    -------
    Suggested
        Nothing where something is painted. `with_suggestions` combines it with the paint, for `fit`.

    Raises
    ------
    InputError, InputTypeError
        For arrays that do not fit together, like `SparseSegmenter.fit`.

    """
    painting = _checked(paint)
    volume = ImageVolume(image, channel_axis)
    voxel = checked_spacing(spacing, n_axes=len(volume.spatial_shape))
    given = read_annotation(annotation, volume, allowed=allowed)
    codes = np.zeros(volume.shape, np.uint8)
    for axis in range(3):
        for index in painted_slices(given, axis) if volume.shape[axis] > 1 or axis == 0 else ():
            found = grow(
                volume,
                given,
                axis,
                index,
                spacing=voxel,
                method=painting.growth,
                reach=painting.growth_reach,
                certainty=painting.growth_certainty,
            )
            _write(codes, found)
    return Suggested(codes.reshape(volume.spatial_shape), painting.suggestion_weight)


def suggest_between(
    annotation: ArrayLike,
    *,
    axis: int = 0,
    spacing: Sequence[float] | None = None,
    max_gap: float | None = None,
    allowed: Mapping[int, Collection[int]] | None = None,
    paint: PaintConfig | None = None,
) -> Suggested:
    """Fill the gaps between painted slices across an axis by interpolating the shapes on both sides of each gap.

    For slices that are closer together than the objects are thick. See
    `napari_sparseseg.engine.weak.hints.between` for the method.

    Parameters
    ----------
    annotation
        Codes (Z, Y, X): 0 is unpainted, 1 to 254 classes, or sets named by `allowed`, which are not continued.
    axis
        The axis along which the slices are stacked: 0 z, 1 y, 2 x.
    spacing
        Voxel size along z, y, x in any unit; None takes voxels for cubes.
    max_gap
        Nothing is suggested between slices that are further apart, in the unit of `spacing`; None fills all gaps.
    allowed
        The classes that a code leaves possible, as for `SparseSegmenter.fit`.
    paint
        `PaintConfig`: its `suggestion_weight` counts.

    Returns
    -------
    Suggested
        Nothing where something is painted. `with_suggestions` combines it with the paint, for `fit`.

    Raises
    ------
    InputError, InputTypeError
        For an annotation that `SparseSegmenter.fit` would refuse or that has one plane only, or an impossible axis.

    """
    painting = _checked(paint)
    volume = ArrayVolume(annotation, name="annotation")
    if len(volume.spatial_shape) != 3:
        raise InputError(f"the annotation has shape {volume.spatial_shape}; pass (Z, Y, X), which has slices")
    if axis not in (0, 1, 2):
        raise InputError(f"axis={axis!r} does not exist; pass 0 for slices across z, 1 across y, 2 across x")
    if max_gap is not None and not max_gap > 0:
        raise InputError(f"max_gap={max_gap!r} is no distance; pass a positive number, or None to fill every gap")
    voxel = checked_spacing(spacing, n_axes=3)
    given = read_annotation(annotation, volume, allowed=allowed)
    codes = np.zeros(volume.shape, np.uint8)
    _write(codes, between(given, axis, spacing=voxel, max_gap=max_gap))
    return Suggested(codes, painting.suggestion_weight)


def with_suggestions(
    annotation: ArrayLike, *suggested: Suggested, weight: ArrayLike | float | None = None
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Combine paint and suggestions into one annotation with weights: `fit(image, codes, weight=weights)`.

    `weight` is that of the paint, an array or a number; None is 1. Of several suggestions for a voxel the first counts;
    none replaces paint. Raises `InputError` for suggestions of another shape.
    """
    codes = np.array(annotation, np.uint8)
    weights = np.where(codes != UNPAINTED, 1.0 if weight is None else np.asarray(weight), 0).astype(np.float32)
    for number, suggestion in enumerate(suggested, 1):
        if suggestion.codes.shape != codes.shape:
            raise InputError(
                f"suggestion {number} has shape {suggestion.codes.shape}, but the annotation has {codes.shape}; make "
                "it from this annotation"
            )
        is_free = (codes == UNPAINTED) & (suggestion.codes != UNPAINTED)
        codes[is_free], weights[is_free] = suggestion.codes[is_free], suggestion.weight
    return codes, weights


def slices_to_paint(
    annotation: Annotation,
    spacing: Spacing,
    n: int,
    method: Method,
    axes: Collection[int] | None,
    predictor: Predictor | None,
    *,
    progress: bool | None,
) -> list[SliceAdvice]:
    """At most `n` slices to paint next, best first; see `SparseSegmenter.suggest_slices`.

    "uncertainty" needs the predictor of a model. With `axes` None, all orientations that can be painted well count.
    """
    shape = annotation.shape
    advisor = Advisor(
        shape,
        spacing,
        advice.painted_slices_by_axis(annotation),
        axes=advice.paintable_axes(shape, spacing) if axes is None else sorted(axes),
        method=method,
        predictor=predictor,
        n=n,
    )
    with open_bar("Looking", progress) as bar:
        for share in advisor.work():
            move_bar(bar, share, "")
    return advisor.found


def _checked(paint: Any) -> PaintConfig:
    if paint is not None and not isinstance(paint, PaintConfig):
        raise InputTypeError(f"paint must be a PaintConfig or None, not {type(paint).__name__}")
    return paint or PaintConfig()


def _write(codes: npt.NDArray[np.uint8], found: Annotation) -> None:
    """Write what was found, except where something is suggested already."""
    where = tuple(found.coordinates.T)
    codes[where] = np.where(codes[where] == UNPAINTED, found.codes, codes[where])
