"""OME-Zarr 0.4 and 0.5 (images, labels in them, converted series) and plain zarr arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import zarr
from ome_zarr_models.common.coordinate_transformations import VectorScale, VectorTranslation
from ome_zarr_models.v04.image import ImageAttrs as ImageAttrs04
from ome_zarr_models.v04.multiscales import Multiscale as Multiscale04
from ome_zarr_models.v05.image import ImageAttrs as ImageAttrs05
from ome_zarr_models.v05.multiscales import Multiscale as Multiscale05
from pydantic import ValidationError

from napari_sparseseg.errors import InputError
from napari_sparseseg.storage.atomic import ZARR_FILES
from napari_sparseseg.storage.chunks import guarded
from napari_sparseseg.storage.formats._axes import UNKNOWN
from napari_sparseseg.storage.formats._bounds import HEADER_LIMIT, leads_inside
from napari_sparseseg.storage.formats._errors import shown
from napari_sparseseg.storage.formats._image import Opened, ReadOptions
from napari_sparseseg.storage.formats._remote import open_remote
from napari_sparseseg.storage.units import Steps, in_one_unit, unit_name

_Multiscale = Multiscale04 | Multiscale05
_MODELS: dict[str, type[ImageAttrs04 | ImageAttrs05]] = {"0.4": ImageAttrs04, "0.5": ImageAttrs05}
_LETTERS = {"time": "T", "channel": "C"}


def open_zarr(path: Path | str, options: ReadOptions) -> Opened:
    """An OME-Zarr image or label image, or an array.

    Raises `InputError` for other groups, naming the arrays in them, and for metadata that are not valid.
    """
    node = _node(path)
    return _open_array(node, path) if isinstance(node, zarr.Array) else _open_group(node, path, options)


def open_zarr_labels(path: Path | str, options: ReadOptions) -> Opened:
    """Like `open_zarr`, but of an OME-Zarr image that holds one label image this one.

    Raises `InputError` if it holds several, naming them.
    """
    node = _node(path)
    names = _label_names(node) if isinstance(node, zarr.Group) else []
    if len(names) > 1:
        listed = ", ".join(names)
        raise InputError(f"{path} holds {len(names)} label images ({listed}); give the path of one: {path}/labels/NAME")
    if names and not leads_inside(names[0]):
        raise InputError(f"{path} names labels outside its folder ({names[0]!r:.80}); give the path of the labels")
    return open_zarr(f"{path}/labels/{names[0]}" if names else path, options)


def _node(path: Path | str) -> zarr.Group | zarr.Array[Any]:
    if isinstance(path, str):
        return open_remote(path)
    for name in ZARR_FILES:
        file = path / name
        if file.is_file() and file.stat().st_size > HEADER_LIMIT:
            raise InputError(
                f"{path} has metadata of {file.stat().st_size} bytes ({name}); copy it again from its source"
            )
    return zarr.open(path, mode="r")


def _label_names(group: zarr.Group) -> list[str]:
    labels = group.get("labels")
    if not isinstance(labels, zarr.Group):
        return []
    attributes = labels.attrs.asdict()
    listed = _mapping(attributes.get("ome", attributes)).get("labels", [])
    return [str(name) for name in listed] if isinstance(listed, list) else []


def _open_array(array: zarr.Array[Any], path: Path | str) -> Opened:
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    return Opened(guarded(array, path), _axes_of_names(names, array.ndim), "zarr")


def _axes_of_names(names: Any, n_axes: int) -> str:
    """Letters of an array's dimension names, if each is one (xarray and OME-Zarr write them so)."""
    letters = "".join(str(name).upper()[:1] for name in names) if isinstance(names, list | tuple) else ""
    usable = len(letters) == n_axes == len(set(letters)) and {"Y", "X"} <= set(letters) <= set("TCZYX")
    return letters if usable else UNKNOWN * n_axes


def _open_group(group: zarr.Group, path: Path | str, options: ReadOptions) -> Opened:
    attributes = group.attrs.asdict()
    ome = _mapping(attributes.get("ome", attributes))
    if "bioformats2raw.layout" in ome and "multiscales" not in ome:
        return _open_converted(group, path, options)
    _check_is_image(ome, group, path)
    version = _version(ome, is_nested="ome" in attributes)
    multiscale = _multiscale(ome, version, path)
    return _open_level(group, multiscale, ome, f"OME-Zarr {version}", path, options.level)


def _open_converted(group: zarr.Group, path: Path | str, options: ReadOptions) -> Opened:
    """One image of those that bioformats2raw writes into a group, named by their numbers."""
    name = str(options.series)
    if not isinstance(group.get(name), zarr.Group):
        numbers = _numbers(group, path)
        raise InputError(f"{path} has no series {name}; choose one of {', '.join(map(str, numbers)) or 'none'}")
    found = open_zarr(f"{path}/{name}", ReadOptions(options.axes, options.level))
    # on a server a listing takes time, and may not be allowed
    return replace(found, n_series=len(_numbers(group, path))) if isinstance(path, Path) else found


def _numbers(group: zarr.Group, path: Path | str) -> list[int]:
    return sorted(int(key) for key in _listed(group.group_keys, path) if key.isdecimal())


def _check_is_image(ome: Mapping[str, Any], group: zarr.Group, path: Path | str) -> None:
    if "multiscales" in ome:
        return
    if "plate" in ome or "well" in ome:
        raise InputError(
            f"{path} is a plate or a well of several images; give the path of one image in it: {path}/A/1/0"
        )
    arrays = _listed(group.array_keys, path)
    inside = f"give the path of one of its arrays: {path}/{arrays[0]}" if arrays else "give the path of an image in it"
    raise InputError(f"{path} is a zarr group without the metadata of an OME-Zarr image; {inside}")


def _listed(keys: Callable[[], Iterable[str]], path: Path | str) -> list[str]:
    """Names of what lies in a group, in order; none on a web server, which does not tell them."""
    return [] if str(path).lower().startswith(("http://", "https://")) else sorted(keys())


def _version(ome: Mapping[str, Any], *, is_nested: bool) -> str:
    if is_nested:
        return str(ome.get("version", "0.5"))
    first = next(iter(_sequence(ome["multiscales"])), None)
    return str(_mapping(first).get("version") or "0.4")


def _multiscale(ome: Mapping[str, Any], version: str, path: Path | str) -> _Multiscale:
    remedy = f"open the array of one level instead and say what its axes are: {path}/0"
    if version not in _MODELS:
        raise InputError(
            f"{path} is OME-Zarr {shown(version)}, of which only {' and '.join(_MODELS)} are read; {remedy}"
        )
    try:
        return _MODELS[version].model_validate(ome).multiscales[0]
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"{path} is not valid OME-Zarr {version} ({shown(where, 100)}: {first['msg'].rstrip('.')}); {remedy}"
        ) from error


def _open_level(
    group: zarr.Group, multiscale: _Multiscale, ome: Mapping[str, Any], kind: str, path: Path | str, level: int
) -> Opened:
    n_levels = len(multiscale.datasets)
    if not 0 <= level < n_levels:
        raise InputError(f"{path} has no level {level}; its {n_levels} levels are 0 (finest) to {n_levels - 1}")
    name = multiscale.datasets[level].path
    array = group.get(name) if leads_inside(name) else None
    if not isinstance(array, zarr.Array) or array.ndim != len(multiscale.axes):
        raise InputError(
            f"{path} names {name!r:.80} as level {level}, but there is no array of "
            f"{len(multiscale.axes)} axes; copy it again from its source"
        )
    units = [_unit(axis) for axis in multiscale.axes]
    scale, translation = _transform(multiscale, level)
    steps, unit = in_one_unit(scale, units)
    offset, _ = in_one_unit(translation, units)
    says_nothing = unit is None and set(_transform(multiscale, 0)[0]) == {1.0}
    return Opened(
        array=guarded(array, path),
        axes=_letters(multiscale.axes),
        format=kind,
        steps=None if says_nothing else steps,
        offset=offset,
        unit=unit,
        channel_names=_channel_names(ome),
        n_levels=n_levels,
        class_names=_class_names(ome),
    )


def _transform(multiscale: _Multiscale, level: int) -> tuple[Steps, Steps]:
    """Distance of neighbours, and position of the first voxel, along each axis: the level's, then that of all levels.

    None along all axes for what is kept in a file of its own, which nobody writes.
    """
    n_axes = len(multiscale.axes)
    scale: Steps = (1.0,) * n_axes
    offset: Steps = (0.0,) * n_axes
    for transforms in (multiscale.datasets[level].coordinateTransformations, multiscale.coordinateTransformations):
        for transform in transforms or ():
            if isinstance(transform, VectorScale):
                scale, offset = _times(scale, transform.scale), _times(offset, transform.scale)
            elif isinstance(transform, VectorTranslation):
                offset = tuple(None if a is None else a + b for a, b in zip(offset, transform.translation, strict=True))
            elif transform.type == "scale":
                scale, offset = (None,) * n_axes, (None,) * n_axes
            elif transform.type == "translation":
                offset = (None,) * n_axes
    return scale, offset


def _times(values: Steps, factors: Sequence[float]) -> Steps:
    return tuple(None if a is None else a * b for a, b in zip(values, factors, strict=True))


def _letters(axes: Sequence[Any]) -> str:
    space = [axis for axis in axes if axis.type == "space"]
    named = [str(axis.name).upper() for axis in space]
    # the names of axes are free, their types are not
    spatial = iter(named if set(named) <= set("ZYX") else "ZYX"[-len(space) :])
    letters = [next(spatial) if axis.type == "space" else _LETTERS.get(str(axis.type), UNKNOWN) for axis in axes]
    return "".join(letters)


def _unit(axis: Any) -> str | None:
    if axis.type != "space" or not isinstance(axis.unit, str) or not axis.unit:
        return None
    return unit_name(axis.unit) or axis.unit


def _channel_names(ome: Mapping[str, Any]) -> tuple[str, ...]:
    channels = _sequence(_mapping(ome.get("omero")).get("channels"))
    names = [_mapping(channel).get("label") for channel in channels]
    return tuple(map(str, names)) if names and all(names) else ()


def _class_names(ome: Mapping[str, Any]) -> dict[int, str]:
    properties = [_mapping(entry) for entry in _sequence(_mapping(ome.get("image-label")).get("properties"))]
    return {
        entry["label-value"]: str(entry["class"])
        for entry in properties
        if isinstance(entry.get("label-value"), int) and "class" in entry
    }


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _sequence(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()
