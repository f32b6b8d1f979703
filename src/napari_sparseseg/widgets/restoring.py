"""From an image of a project to layers of a viewer, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from napari.layers import Image

from napari_sparseseg._types import Box
from napari_sparseseg.errors import InputError
from napari_sparseseg.storage.project.image import ProjectImage
from napari_sparseseg.storage.project.manifest import LayerPlace
from napari_sparseseg.storage.project.project import Project
from napari_sparseseg.storage.project.reference import ImageCheck, ImageReference, ImageState, refer_to
from napari_sparseseg.widgets.sources import ImageSource, source_of, unwrapped

_RED_TO_ALPHA = 4  # values of a coloured voxel in projects of older versions


def place_of(source: ImageSource) -> LayerPlace:
    """How an image is shown, to be kept in a project."""
    first = _first_layer(source)
    origin = None if first is None else first.source
    region = None if source.region is None else (source.region.start, source.region.stop)
    return LayerPlace(
        names=source.layer_names,
        reader=origin.reader_plugin if origin else None,
        sample=origin.sample if origin else None,
        level=source.level,
        region=region,
        step=source.step,
        scale=source.scale,
        translate=source.translate,
        units=source.units,
        axis_labels=source.axis_labels,
    )


def path_of(source: ImageSource) -> str | None:
    """File, folder or URL that an image was opened from; None if it is only in memory."""
    first = _first_layer(source)
    return None if first is None or not first.source.path else str(first.source.path)


def reference_to(source: ImageSource, project: Project) -> ImageReference:
    """Where an image lies and what it is recognised by; reads a few voxels."""
    return refer_to(path_of(source), source.array, project.path)


def add_to(project: Project, source: ImageSource, shape: tuple[int, int, int, int]) -> ProjectImage:
    """Add an image to a project. Raises OSError."""
    return project.add_image(
        source.array,
        shape=shape,
        path=path_of(source),
        title=source.name,
        channel_axis=source.channel_axis,
        time_axis=source.time_axis,
        spacing=_three(source.spacing),
        place=place_of(source),
    )


def shape_of_source(source: ImageSource) -> tuple[int, int, int, int]:
    """Frames, z, y, x."""
    n_frames = 1 if source.time_axis is None else source.shape[0]
    z, y, x = [1, *source.shape[-len(source.spacing) :]][-3:]
    return n_frames, z, y, x


# ---------------------------------------------------------------- finding it again


def find_in_viewer(viewer: Any, image: ProjectImage) -> ImageSource | None:
    """The image among the layers of a viewer, recognised by its voxels."""
    return recognised(image, [layer for layer in viewer.layers if isinstance(unwrapped(layer), Image)])


def add_to_viewer(viewer: Any, image: ProjectImage) -> tuple[list[Any], ImageCheck]:
    """Open the image from where it lies, as layers; none if it lies nowhere. Raises `InputError`."""
    found, place = image.check(), image.entry.place
    if found.state is ImageState.STORED or (place is None and found.path is not None):
        return [_add_array(viewer, image)], found
    if found.path is None and (place is None or place.sample is None):
        return [], found
    return _open_layers(viewer, found.path, place), found


def open_file(viewer: Any, path: str) -> list[Any]:
    """Open a file that the user chose, as layers. Raises `InputError` if it holds no image."""
    return _open_layers(viewer, path, None)


def source_for(image: ProjectImage, layers: Sequence[Any]) -> ImageSource:
    """These layers, worked on as the project says. Raises `InputError` if they do not fit."""
    place = image.entry.place or LayerPlace()
    wanted = {layer.name: layer for layer in layers}
    chosen = [wanted[name] for name in place.names if name in wanted]
    if not chosen or len(chosen) != len(place.names):
        chosen = list(layers)[: max(1, len(place.names))]
    region = None if place.region is None else Box(*place.region)
    known = image.entry.reference.fingerprint
    keeps_alpha = known is not None and known.shape[-1] == _RED_TO_ALPHA
    return source_of(chosen, level=place.level, region=region, step=place.step, keeps_alpha=keeps_alpha)


def recognised(image: ProjectImage, layers: Sequence[Any]) -> ImageSource | None:
    """The source of layers whose voxels are those that were painted on: of all together, or of one of them."""
    for some in (layers, *([layer] for layer in layers)):
        try:
            source = source_of(some) if image.entry.is_stored else source_for(image, some)
        except InputError:
            continue  # other layers may fit
        if image.entry.shape == shape_of_source(source) and _is_same(image, source):
            return source
    return None


def _is_same(image: ProjectImage, source: ImageSource) -> bool:
    known = image.entry.reference.fingerprint
    if known is None:
        return False
    try:
        now = refer_to(None, source.array, image.project.path).fingerprint
    except Exception:  # noqa: BLE001 - lazy arrays raise what they like; what cannot be read is not recognised
        return False
    return now is not None and (now.shape, now.dtype, now.voxels) == (known.shape, known.dtype, known.voxels)


def _open_layers(viewer: Any, path: str | None, place: LayerPlace | None) -> list[Any]:
    """Open a file or sample data with napari's readers."""
    try:
        if path is None and place is not None and place.sample is not None:
            layers = viewer.open_sample(*place.sample)
        else:
            layers = viewer.open(path, plugin=place.reader if place and place.reader else None)
    except Exception as error:  # readers are other people's plugins, and raise what they like
        raise InputError(f"{path or 'the sample'} cannot be opened ({error}); open it by hand first") from error
    images = [layer for layer in layers if isinstance(unwrapped(layer), Image)]
    if not images:
        raise InputError(f"{path or 'the sample'} holds no image; choose another file")
    return images


def _add_array(viewer: Any, image: ProjectImage) -> Any:
    """Show the array that a project stores, or that it refers to without saying how it was shown."""
    entry, array = image.entry, image.read()
    n_axes = len(array.shape)
    place = entry.place or LayerPlace()
    kept = [axis for axis in range(n_axes) if axis != entry.channel_axis]
    scale = [1.0] * len(kept)
    n_spatial = len(kept) - (entry.time_axis is not None)
    scale[-n_spatial:] = entry.spacing[-n_spatial:]
    labels = ["t" if axis == entry.time_axis else "zyx"[axis - len(kept)] for axis in range(len(kept))]
    told: dict[str, list[Any]] = {"scale": scale, "translate": [0.0] * len(kept), "units": ["pixel"] * len(kept)}
    for name in told:
        values = list(getattr(place, name))
        if len(values) == len(kept):
            told[name] = values
    told["axis_labels"] = labels if entry.channel_axis is not None or entry.time_axis is not None else labels[-n_axes:]
    fillers = {"scale": 1.0, "translate": 0.0, "units": "pixel", "axis_labels": "c"}
    if entry.channel_axis is not None:
        for name, values in told.items():
            values.insert(entry.channel_axis, fillers[name])
    try:
        return viewer.add_image(array, name=entry.title or "image", **told)
    except (ValueError, TypeError) as error:
        raise InputError(f"{image.project.path} cannot be shown ({error}); use a backup") from error


def _first_layer(source: ImageSource) -> Any:
    return source.layers[0]() if source.layers else None


def _three(sizes: Sequence[float]) -> tuple[float, float, float]:
    y, x = sizes[-2:]
    return (sizes[0] if len(sizes) == 3 else y), y, x


def show_paint(viewer: Any, image: ProjectImage) -> None:
    """Show annotation and prediction as ordinary layers, without the image."""
    entry, place = image.entry, image.entry.place or LayerPlace()
    shown: dict[str, np.ndarray[Any, Any]] = {"paint": image.annotation()}
    prediction = image.prediction()
    if prediction is not None:
        shown["prediction"] = np.asarray(prediction[:])
    n_axes = len(place.scale) or (3 if entry.time_axis is None else 4)
    for what, codes in shown.items():
        data = codes.reshape(codes.shape[-n_axes:])
        scale = place.scale or (1.0, *entry.spacing)[-n_axes:]
        viewer.add_labels(data, name=f"{entry.title} {what}", scale=scale)
