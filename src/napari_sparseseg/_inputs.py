"""What users pass to the segmenter, checked and brought into one form."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_sparseseg._types import MAX_CODE, Annotation
from napari_sparseseg.errors import InputError, InputTypeError, InputWarning
from napari_sparseseg.storage._arrays import plain_int
from napari_sparseseg.storage.annotation import (
    background_beside,
    check_classes,
    drop_silent,
    drop_uninformative,
    painted_classes,
    read_annotation,
)
from napari_sparseseg.storage.overlapping import check_overlapping
from napari_sparseseg.storage.volume import ArrayVolume, ImageVolume

if TYPE_CHECKING:
    from napari_sparseseg.config import PaintConfig
    from napari_sparseseg.engine.classes import ClassTable
    from napari_sparseseg.engine.model import ModelSpec


class Overlapping(NamedTuple):
    """What is said of classes that may overlap: which is the background (0: none), and whether missing ones count."""

    background: int
    is_missing_absent: bool


class Unlabelled(NamedTuple):
    """That unpainted voxels count, and for which class they stand; None: the lowest id beside the painted one."""

    background: int | None

    def class_id(self, annotations: Sequence[Annotation]) -> int:
        """That class. Raises `InputError` if several are painted and none is named."""
        return background_beside(painted_classes(annotations)) if self.background is None else self.background


def overlapping_of(painting: PaintConfig, known: ClassTable | None, background: int | None) -> Overlapping | None:
    """How classes may overlap; None if they exclude each other. `known` are those of a model that learns on.

    Raises `InputError` if the model was fitted otherwise.
    """
    if known is not None and known.overlapping != painting.overlapping:
        raise InputError(
            f"paint.overlapping is {painting.overlapping}, but the model was fitted with {known.overlapping}; it is "
            "part of the model: set it back, or call fit to start again"
        )
    if not painting.overlapping:
        return None
    return Overlapping(known.background if known else background or 0, painting.missing_weight > 0)


def unlabelled_of(painting: PaintConfig, known: ClassTable | None, background: int | None) -> Unlabelled | None:
    """Which class unpainted voxels stand for; None if they say nothing."""
    if not painting.learns_unlabelled:
        return None
    return Unlabelled(known.background if known else background)


def open_volumes(image: Any, channel_axis: int | None) -> list[ImageVolume]:
    """One volume, or a list or tuple of them, all with the same number of channels and of spatial axes."""
    volumes = [ImageVolume(array, channel_axis, name=name) for array, name in _named(image, "image")]
    if not volumes:
        raise InputError("the list of images is empty; pass at least one image with its annotation")
    first = volumes[0]
    for volume in volumes[1:]:
        if volume.n_channels != first.n_channels:
            raise InputError(
                f"{volume.name} has {volume.n_channels} channels, but {first.name} has {first.n_channels}; "
                "all images must have the same channels"
            )
        if len(volume.spatial_shape) != len(first.spatial_shape):
            raise InputError(
                f"{volume.name} has spatial shape {volume.spatial_shape}, but {first.name} has {first.spatial_shape}; "
                "images must be all 2D or all 3D"
            )
    return volumes


def read_paint(
    volumes: Sequence[ArrayVolume],
    annotation: Any,
    allowed: Mapping[int, Collection[int]] | None,
    weight: Any,
    objects: Any = None,
    *,
    known_classes: Collection[int] = (),
    overlapping: Overlapping | None = None,
    unlabelled: Unlabelled | None = None,
) -> tuple[list[Annotation], tuple[int, ...]]:
    """The paint of each volume and all class ids; `known_classes` are those that were learnt before.

    `objects` are ids of objects, as one array or, for lists of volumes, one for each; None stands for no ids. Classes
    exclude each other where `overlapping` is None, and unpainted voxels say nothing where `unlabelled` is.
    """
    annotations = list(_named(annotation, "annotation"))
    if len(annotations) != len(volumes):
        raise InputError(
            f"{len(volumes)} images but {len(annotations)} annotations were passed; each image needs its own, in the "
            "same order (an annotation without paint is fine)"
        )
    weights = list(weight) if isinstance(weight, list | tuple) else [weight] * len(volumes)
    if len(weights) != len(volumes):
        raise InputError(f"{len(weights)} weights were passed for {len(volumes)} images; pass one each, or one number")
    ids = [None] * len(volumes) if objects is None else [array for array, _ in _named(objects, "objects")]
    if len(ids) != len(volumes):
        raise InputError(
            f"{len(ids)} arrays of objects were passed for {len(volumes)} images; pass one each, in the same order "
            "(None where no objects were painted)"
        )
    paint = [
        read_annotation(
            array, volume, allowed=allowed, weight=w, objects=o, overlapping=overlapping is not None, name=name
        )
        for (array, name), volume, w, o in zip(annotations, volumes, weights, ids, strict=True)
    ]
    if weight is not None and not any(map(len, paint)):
        _refuse_weights_of_zero(volumes, annotations, allowed, overlapping=overlapping is not None)
    if overlapping is not None:
        painted = check_overlapping(paint, overlapping.background, is_missing_absent=overlapping.is_missing_absent)
        classes = tuple(sorted({*painted, *known_classes}))
        _warn_of_unused(paint)
        return [drop_silent(p, classes, overlapping.background) for p in paint], classes
    unpainted = unlabelled.class_id(paint) if unlabelled else None
    if unpainted is not None and unpainted in (allowed or {}):
        raise InputError(
            f"background={unpainted} is a key of allowed and so not a class; take another id for one of the two"
        )
    classes = check_classes(paint, unpainted=unpainted, known=known_classes)
    _warn_of_unused(paint)
    _warn_of_unpainted(paint, {unpainted, *known_classes})
    return [drop_uninformative(p, classes) for p in paint], classes


def _refuse_weights_of_zero(
    volumes: Sequence[ArrayVolume],
    annotations: Sequence[tuple[Any, str]],
    allowed: Mapping[int, Collection[int]] | None,
    *,
    overlapping: bool,
) -> None:
    """Say that it is the weights if something is painted, none of which counts."""
    for (array, name), volume in zip(annotations, volumes, strict=True):
        if len(read_annotation(array, volume, allowed=allowed, overlapping=overlapping, name=name)):
            raise InputError(
                "the weight is 0 wherever something is painted, so nothing can be learnt; give the paint that counts a "
                "weight above 0, usually 1"
            )


def _warn_of_unused(paint: Sequence[Annotation]) -> None:
    """Warn of sets of classes that nothing carries."""
    sets, codes = _sets_and_codes(paint)
    for code in sorted(sets.keys() - codes):
        text = (
            f"allowed says what {code} leaves possible, but no voxel that counts carries {code}; is it another label?"
        )
        warnings.warn(text, InputWarning, stacklevel=5)


def _warn_of_unpainted(paint: Sequence[Annotation], known: Collection[int | None]) -> None:
    """Warn of classes that only sets name, except `known` ones: learnt before, or meant by unpainted voxels."""
    sets, codes = _sets_and_codes(paint)
    named = {class_id for code in codes & sets.keys() for class_id in sets[code]}
    if alone := named - codes - set(known):
        are, them = ("is", "it") if len(alone) == 1 else ("are", "them")
        text = (
            f"allowed names the {_listed(alone)}, which {are} painted nowhere alone, so little can be learnt of {them}"
        )
        warnings.warn(text, InputWarning, stacklevel=5)


def _sets_and_codes(paint: Sequence[Annotation]) -> tuple[dict[int, frozenset[int]], set[int]]:
    """The sets of allowed classes by their code, and the codes that are painted, over all volumes."""
    sets = {code: names for annotation in paint for code, names in annotation.allowed.items()}
    return sets, {code for annotation in paint for code in np.unique(annotation.codes).tolist()}


def check_fits(volume: ArrayVolume, spec: ModelSpec) -> None:
    """Raise `InputError` unless a model of this kind can look at the volume."""
    if volume.n_channels != spec.n_channels:
        raise InputError(
            f"{volume.name} has {volume.n_channels} channels (shape {volume.array_shape}, channel_axis="
            f"{volume.channel_axis}), but the model was fitted with {spec.n_channels}; pass the same channels in the "
            "same order"
        )
    if spec.flat[0] and volume.shape[0] > 1:
        raise InputError(
            f"{volume.name} has {volume.shape[0]} planes, but the model was fitted on single planes; "
            "pass the planes one by one, or fit on a volume"
        )


def check_budget(max_seconds: float | None, max_steps: int | None) -> None:
    """Raise `InputError` unless both are None or usable numbers."""
    if max_seconds is not None:
        _check_number("max_seconds", max_seconds)
        if not 0 < max_seconds < np.inf:
            raise InputError(f"max_seconds={max_seconds} is not a time; pass a positive number of seconds, or None")
    if max_steps is not None:
        _check_number("max_steps", max_steps)
        if not 0 <= max_steps < np.inf or max_steps != int(max_steps):
            raise InputError(f"max_steps={max_steps} is not a number of steps; pass a whole number from 0, or None")


def check_suggestion(volume: ArrayVolume, n: Any, method: Any, axes: Any) -> None:
    """Raise `InputError` unless slices of this volume can be suggested in this way."""
    if min(volume.shape) == 1:
        raise InputError(
            f"{volume.name} has the shape {volume.spatial_shape}, a single slice, so there is no other one to suggest; "
            "predict_uncertainty shows where on it to paint"
        )
    _check_number("n", n)
    if n < 1 or n != int(n):
        raise InputError(f"n={n} is not a number of slices; pass a whole number from 1")
    if method not in ("intervals", "uncertainty"):
        raise InputError(f'method={method!r} is unknown; pass "intervals", "uncertainty" or None')
    if axes is not None and (not axes or not set(axes) <= {0, 1, 2}):
        raise InputError(f"axes={axes!r} are no orientations; pass some of 0 (z), 1 (y) and 2 (x), or None for all")


def check_truth(truth: Annotation, learnt: Collection[int]) -> None:
    """Raise `InputError` unless a truth names some class that a model has learnt."""
    found = set(truth.classes())
    if not found:
        raise InputError("the truth is 0 everywhere, so there is nothing to score; is it the right array?")
    if found.isdisjoint(learnt):
        raise InputError(
            f"the truth holds the {_listed(found)}, none of which the model has learnt: "
            f"{', '.join(map(str, sorted(learnt)))}; give it the same ids as the paint"
        )


def checked_background(background: Any) -> int | None:
    """A class id, or None: the lowest painted one, or a free one where unpainted voxels stand for the background."""
    if background is None:
        return None
    class_id = plain_int(background, "background")
    if not 1 <= class_id <= MAX_CODE:
        raise InputError(f"background={class_id} is not a class id; pass a whole number from 1 to {MAX_CODE}, or None")
    return class_id


def seed_of(random_state: Any) -> int:
    """A seed from an int, a `numpy.random.Generator` (drawn from, so it moves on) or None (unpredictable)."""
    if isinstance(random_state, bool) or not (
        random_state is None or isinstance(random_state, int | np.integer | np.random.Generator)
    ):
        raise InputTypeError(
            f"random_state must be a whole number, a numpy.random.Generator or None, not {random_state!r}"
        )
    if isinstance(random_state, int | np.integer):
        if random_state < 0:
            raise InputError(f"random_state={random_state} is negative; pass a whole number from 0")
        return int(random_state)
    return int(np.random.default_rng(random_state).integers(2**31))


def _named(given: Any, name: str) -> Iterator[tuple[Any, str]]:
    """Each array with what messages call it: the path of its file if it has one."""
    if not isinstance(given, list | tuple):
        yield given, getattr(given, "source_name", None) or name
        return
    for number, item in enumerate(given):
        yield item, getattr(item, "source_name", None) or f"{name} {number}"


def _listed(classes: Collection[int]) -> str:
    """`class 3`, `classes 3, 5`; empty without any."""
    return f"class{'es' if len(classes) > 1 else ''} {', '.join(map(str, sorted(classes)))}" if classes else ""


def _check_number(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise InputTypeError(f"{name}={value!r} is not a number")
