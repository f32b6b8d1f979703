"""Annotation arrays turned into lists of painted voxels, checked on the way."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import permutations
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from napari_sparseseg._types import MAX_CLASSES, MAX_CODE, NO_OBJECT, UNPAINTED, Annotation, ArrayLike, Box, Shape3D
from napari_sparseseg.errors import InputError, InputTypeError
from napari_sparseseg.storage._arrays import check_array_like, chunk_depth, index_text, plain_int, shape_of
from napari_sparseseg.storage.overlapping import coded, open_class_axis, read_states
from napari_sparseseg.storage.volume import FEW_CHANNELS, ArrayVolume

_SLAB_VOXELS = 2**22
_CHUNK_SLAB_VOXELS = 2**26
_MIN_WEIGHT, _MAX_WEIGHT = float(np.finfo(np.float32).smallest_subnormal), float(np.finfo(np.float32).max)


def read_annotation(
    annotation: ArrayLike,
    volume: ArrayVolume,
    *,
    allowed: Mapping[int, Collection[int]] | None = None,
    weight: ArrayLike | float | None = None,
    objects: ArrayLike | None = None,
    overlapping: bool = False,
    name: str = "annotation",
) -> Annotation:
    """Painted voxels of an annotation of the image's spatial shape; 0 is unpainted, 1 to 254 are codes.

    Where classes are `overlapping`, it may have an axis of classes 1, 2, ... in front: 0 is unknown, 1 absent, 2
    present.

    Any integer dtype or bool, and floats that hold whole numbers. `allowed` maps a code to the class ids that it
    leaves possible, other codes are classes. `weight` is a positive number or an array of the annotation's shape;
    voxels of weight 0 are dropped. `objects` is an array of that shape, too: ids of painted objects, 0 for none; ids
    that int32 cannot hold are numbered anew. Lazy arrays are read in slabs along z. An annotation without paint is
    fine here: `check_classes` looks at all volumes together.

    Raises `InputTypeError` for what is no array of real numbers, `InputError` for another shape than the image's,
    codes that are negative, fractional or above 254, more than 127 classes, unusable weights or sets, and ids of
    objects that are negative, fractional or lie where no class is painted.
    """
    sets = _checked_sets(allowed)
    weights = _open_weight(weight, volume)
    ids = None if objects is None else _open_like(objects, volume, "objects")
    has_class_axis = overlapping and len(getattr(annotation, "shape", ())) == len(volume.spatial_shape) + 1
    paint = open_class_axis(annotation, volume, name) if has_class_axis else _open_like(annotation, volume, name)
    read = read_states if has_class_axis else _read_codes
    depth = 1 if has_class_axis else chunk_depth(annotation)
    painted = [_read_slab(paint, read, weights, ids, slab) for slab in _slabs(paint.shape, depth)]
    said = np.concatenate([part.said for part in painted])
    codes, stated = coded(said) if has_class_axis else (said, {})
    result = Annotation(
        shape=volume.shape,
        coordinates=np.concatenate([part.coordinates for part in painted]),
        codes=codes,
        weights=np.concatenate([part.weights for part in painted]),
        allowed=sets,
        objects=_numbered([part.objects for part in painted]),
        stated=stated,
    )
    _check_n_classes(result.classes())
    return result


def painted_classes(annotations: Sequence[Annotation]) -> tuple[int, ...]:
    """Class ids over all volumes, ascending: those painted, and those named in sets that were painted."""
    return tuple(sorted({class_id for annotation in annotations for class_id in annotation.classes()}))


def background_beside(classes: Collection[int]) -> int:
    """The background where unpainted voxels stand for it and one class was painted: the lowest free id.

    Raises `InputError` for several classes, any of which may be meant for the background.
    """
    if len(classes) > 1:
        raise InputError(
            f"classes {tuple(classes)} are painted and unpainted voxels count as well, so it must be said which class "
            "is the background: pass background=..., one of these or an id that is not painted"
        )
    return 1 if 1 not in classes else 2


def check_classes(
    annotations: Sequence[Annotation], *, unpainted: int | None = None, known: Collection[int] = ()
) -> tuple[int, ...]:
    """Class ids over all volumes, ascending: those painted, those named in sets that were painted, and those `known`.

    `unpainted` is the class that need not be painted, since unpainted voxels stand for it. Raises `InputError` if
    nothing is painted, if one class only is, if there are more than 127, or if each painted voxel allows every class.
    """
    classes = painted_classes(annotations)
    if unpainted is not None and classes:
        if classes == (unpainted,):
            raise InputError(
                f"only class {unpainted} is painted, which is the background; paint some objects with another class"
            )
        classes = tuple(sorted({*classes, unpainted}))
    if not classes:
        raise InputError(
            "nothing is painted: the annotation is 0 everywhere; paint at least two classes, for example 1 on some "
            "background and 2 on some objects"
        )
    if len(classes) == 1:
        other = 1 if classes[0] != 1 else 2
        raise InputError(
            f"only class {classes[0]} is painted, and with one class there is nothing to tell apart; paint at least "
            f"one more, for example the background as class {other}"
        )
    classes = tuple(sorted({*classes, *known}))
    _check_n_classes(classes)
    if not any(len(drop_uninformative(annotation, classes)) for annotation in annotations):
        raise InputError(
            f"each painted voxel allows every class {classes}, so nothing can be learnt; paint single classes as well"
        )
    return classes


def drop_uninformative(annotation: Annotation, classes: Collection[int]) -> Annotation:
    """Leave out the voxels whose set names every class of `classes`, which say nothing.

    `classes` are those of all volumes (`check_classes`): a set that is complete in one volume may not be in all.
    """
    return _without(annotation, [code for code, names in annotation.allowed.items() if names.issuperset(classes)])


def drop_silent(annotation: Annotation, classes: Collection[int], background: int) -> Annotation:
    """The same for classes that may overlap, of which one may be the background."""
    said = {code: annotation.statement(code, classes, background) for code in (*annotation.allowed, *annotation.stated)}
    return _without(annotation, [code for code, each in said.items() if not (each.present or each.absent)])


def _without(annotation: Annotation, codes: Sequence[int]) -> Annotation:
    kept = ~np.isin(annotation.codes, codes)
    if kept.all():
        return annotation
    return replace(
        annotation,
        coordinates=annotation.coordinates[kept],
        codes=annotation.codes[kept],
        weights=annotation.weights[kept],
        objects=None if annotation.objects is None else annotation.objects[kept],
    )


class _Painted(NamedTuple):
    coordinates: npt.NDArray[np.int32]
    said: npt.NDArray[np.uint8]
    weights: npt.NDArray[np.float32]
    objects: npt.NDArray[np.uint64]


Read = Callable[[ArrayVolume, Box], tuple[npt.NDArray[np.bool_], npt.NDArray[np.uint8]]]
"""Which voxels of a box are painted, and what is said of those, one row each."""


def _read_slab(
    paint: ArrayVolume, read: Read, weight: ArrayVolume | float, objects: ArrayVolume | None, slab: Box
) -> _Painted:
    is_painted, said = read(paint, slab)
    coordinates = np.argwhere(is_painted)
    coordinates += slab.start
    if isinstance(weight, ArrayVolume):
        weights = _read_weights(weight, slab)[is_painted]
    else:
        weights = np.full(len(said), weight, np.float32)
    kept = weights > 0
    ids = np.zeros(len(said), np.uint64) if objects is None else _read_ids(objects, slab, is_painted)
    return _Painted(coordinates[kept].astype(np.int32), said[kept], weights[kept], ids[kept])


def _read_codes(paint: ArrayVolume, slab: Box) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.uint8]]:
    block = paint.read(slab)[0]
    is_painted = block != UNPAINTED
    coordinates = np.argwhere(is_painted)
    coordinates += slab.start
    codes = block[is_painted]
    _check_codes(codes, coordinates, paint)
    return is_painted, codes.astype(np.uint8)


def _read_ids(objects: ArrayVolume, slab: Box, is_painted: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint64]:
    block: npt.NDArray[Any] = objects.read(slab)[0]
    coordinates = np.argwhere(block != NO_OBJECT)
    coordinates += slab.start
    ids = block[block != NO_OBJECT]
    if ids.dtype.kind == "f":
        remedy = "ids of objects are whole numbers: round them, e.g. with numpy.rint (or is this the image?)"
        _refuse(ids != np.trunc(ids), ids, coordinates, objects, remedy)
    remedy = "ids of objects cannot be negative: 0 is no object and ids start at 1, so replace it"
    _refuse(ids < 0, ids, coordinates, objects, remedy)
    remedy = "an object's voxels need a class as well, but the annotation is 0 there: paint its class, or remove the id"
    _refuse(~is_painted[block != NO_OBJECT], ids, coordinates, objects, remedy)
    return block[is_painted].astype(np.uint64)


def _numbered(parts: Sequence[npt.NDArray[np.uint64]]) -> npt.NDArray[np.int32] | None:
    """Ids of objects as int32, numbered anew in their order where one is too large; None if there are none."""
    ids = np.concatenate(parts)
    if not ids.any():
        return None
    if ids.max() <= np.iinfo(np.int32).max:
        return ids.astype(np.int32)
    found, numbers = np.unique(ids, return_inverse=True)
    return (numbers + int(found[0] != NO_OBJECT)).astype(np.int32)


def _check_codes(codes: npt.NDArray[Any], coordinates: npt.NDArray[Any], paint: ArrayVolume) -> None:
    if codes.dtype.kind == "f":
        remedy = "codes are whole numbers: round them, e.g. with numpy.rint (or is this the image?)"
        _refuse(codes != np.trunc(codes), codes, coordinates, paint, remedy)
    remedy = (
        "codes cannot be negative: 0 is unpainted and classes start at 1; where -1 stands for unpainted, add 1 to all "
        "values, since replacing it by 0 would take class 0 for unpainted as well (or is this the image?)"
    )
    _refuse(codes < 0, codes, coordinates, paint, remedy)
    remedy = (
        f"255 is reserved and the largest usable label is {MAX_CODE}: relabel, e.g. with "
        "skimage.segmentation.relabel_sequential (one label for each class, not for each object; or is this the image?)"
    )
    _refuse(codes > MAX_CODE, codes, coordinates, paint, remedy)


def _read_weights(weight: ArrayVolume, slab: Box) -> npt.NDArray[np.float32]:
    block: npt.NDArray[Any] = weight.read(slab)[0]
    wrong = (block < 0) | (block > _MAX_WEIGHT)
    if wrong.any():
        coordinates = np.argwhere(wrong) + slab.start
        remedy = f"a weight is at least 0 (ignored) and at most {_MAX_WEIGHT:.3g}, usually 1: clip it"
        _refuse(np.ones(len(coordinates), bool), block[wrong], coordinates, weight, remedy)
    return block.astype(np.float32, copy=False)


def _refuse(
    wrong: npt.NDArray[np.bool_],
    values: npt.NDArray[Any],
    coordinates: npt.NDArray[Any],
    source: ArrayVolume,
    remedy: str,
) -> None:
    """Raise for the first value that is wrong, if there is one; positions in the user's own axes."""
    if not wrong.any():
        return
    first = int(np.argmax(wrong))
    position = tuple(coordinates[first].tolist()[-len(source.spatial_shape) :])
    raise InputError(f"{source.name} holds {values[first].item()} at {index_text(position)}; {remedy}")


def _slabs(shape: Shape3D, chunk_depth: int) -> Iterator[Box]:
    """Slabs that cover the volume, ordered along z, of whole chunks where these are not too large."""
    depth, height, width = shape
    plane = height * width
    step = max(1, _SLAB_VOXELS // plane)
    if chunk_depth * plane <= _CHUNK_SLAB_VOXELS:
        step = max(1, step // chunk_depth) * chunk_depth
    for z in range(0, depth, step):
        yield Box((z, 0, 0), (min(z + step, depth), height, width))


def _open_weight(weight: ArrayLike | float | None, volume: ArrayVolume) -> ArrayVolume | float:
    if weight is None:
        return 1.0
    if isinstance(weight, Real) and not isinstance(weight, bool):
        number = float(weight)
        # not 0 < number: what float32 rounds to 0 would drop every voxel
        if not _MIN_WEIGHT <= number <= _MAX_WEIGHT:
            raise InputError(f"weight is {number}, but must be positive and finite; leave it out for the usual 1")
        return number
    return _open_like(weight, volume, "weight")


def _open_like(array: Any, volume: ArrayVolume, name: str) -> ArrayVolume:
    """Wrap an array that must have one value for each voxel of the image."""
    check_array_like(array, name)
    shape = shape_of(array, name)
    if shape != volume.spatial_shape:
        channels = "" if volume.channel_axis is None else f" besides its channel axis {volume.channel_axis}"
        raise InputError(
            f"{name} has shape {shape}, but the {volume.name} has shape {volume.spatial_shape}{channels}; "
            f"{_shape_hint(shape, volume, name)}"
        )
    return ArrayVolume(array, name=name)


def _shape_hint(shape: tuple[int, ...], volume: ArrayVolume, name: str) -> str:
    target, image = volume.spatial_shape, volume.name
    order = _permutation(shape, target)
    if order is not None:
        return f"its axes are in another order: pass numpy.transpose({name}, {order})"
    channel_axes = _removable_axes(volume.array_shape, shape)
    if channel_axes:
        return _channel_hint(min(channel_axes, key=lambda axis: volume.array_shape[axis]), volume, name)
    extra_axes = _removable_axes(shape, target)
    if extra_axes:
        axis = min(extra_axes, key=lambda axis: shape[axis])
        of_classes = "" if axis else ", or set paint.overlapping if it is an axis of classes that overlap"
        return (
            f"axis {axis} of the {name} looks like a channel axis, which only the {image} may have (there say "
            f"channel_axis=...): pass {name}[{':, ' * axis}0]{of_classes}"
        )
    return f"one value is needed in the {name} for each voxel of the {image}: crop, resize or pad it"


def _channel_hint(axis: int, volume: ArrayVolume, name: str) -> str:
    size, image = volume.array_shape[axis], volume.name
    if size <= FEW_CHANNELS or volume.channel_axis is not None:
        return f"axis {axis} of the {image} (size {size}) looks like a channel axis: pass channel_axis={axis}"
    return (
        f"if axis {axis} of the {image} (size {size}) is a channel axis, pass channel_axis={axis}; if not, the {name} "
        f"needs all {size} slices, 0 where nothing is painted"
    )


def _removable_axes(longer: tuple[int, ...], shorter: tuple[int, ...]) -> list[int]:
    """Axes of `longer` without which it would equal `shorter`."""
    return [axis for axis in range(len(longer)) if longer[:axis] + longer[axis + 1 :] == shorter]


def _permutation(shape: tuple[int, ...], target: tuple[int, ...]) -> tuple[int, ...] | None:
    if sorted(shape) != sorted(target):
        return None
    orders = permutations(range(len(shape)))
    return next(order for order in orders if tuple(shape[axis] for axis in order) == target)


def _checked_sets(allowed: Mapping[int, Collection[int]] | None) -> dict[int, frozenset[int]]:
    if allowed is None:
        return {}
    if not isinstance(allowed, Mapping):
        raise InputTypeError(
            f"allowed is of type {type(allowed).__name__}, but must map codes to sets of classes, "
            "e.g. {130: {1, 3}}"
        )
    sets = {_checked_id(code, "a key of allowed"): _class_ids(code, ids) for code, ids in allowed.items()}
    for code, ids in sets.items():
        for class_id in sorted(ids & sets.keys()):
            raise InputError(
                f"allowed[{code}] names {class_id}, which is itself a key of allowed and so not a class; name classes "
                "only, or use another code for one of the two"
            )
    return sets


def _class_ids(code: object, ids: object) -> frozenset[int]:
    if isinstance(ids, str | bytes) or not isinstance(ids, Collection | np.ndarray):
        raise InputTypeError(
            f"allowed[{code!r}] is {ids!r} ({type(ids).__name__}), but must be a set of classes, e.g. {{1, 3}}"
        )
    if len(ids) == 0:
        raise InputError(f"allowed[{code!r}] is empty, so no class would be possible; name at least one class")
    return frozenset(_checked_id(class_id, f"a class of allowed[{code!r}]") for class_id in ids)


def _checked_id(value: object, what: str) -> int:
    number = plain_int(value, what)
    if not 1 <= number <= MAX_CODE:
        raise InputError(f"{number}, {what}, is out of range; use 1 to {MAX_CODE} (0 is unpainted, 255 is reserved)")
    return number


def _check_n_classes(classes: Collection[int]) -> None:
    if len(classes) > MAX_CLASSES:
        raise InputError(
            f"{len(classes)} classes are painted, but at most {MAX_CLASSES} can be told apart; merge some (one label "
            "for each class, not for each object; or is this the image?)"
        )
