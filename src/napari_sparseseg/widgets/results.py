"""Results in layers: accepted predictions, copied into ordinary ones, and what was predicted into the project."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels

from napari_sparseseg._types import Plane
from napari_sparseseg.storage.formats import open_image
from napari_sparseseg.storage.sparse import is_large, zeros
from napari_sparseseg.widgets.layers import add_below_ours, exchange, prediction_colormap

if TYPE_CHECKING:
    from napari_sparseseg.live.live_segmenter import LiveSegmenter
    from napari_sparseseg.widgets.pair import LayerPair


_SLICES_OF = "sparseseg_slices_of"  # in the metadata of the layer of accepted slices
_WHOLE_OF = "sparseseg_whole_of"  # in that of the layer of what was predicted into the project


def add_everything(viewer: Any, live: LiveSegmenter, pair: LayerPair) -> Labels:
    """A new layer with the labels of all frames."""
    layer = _new_layer(live, pair)
    frames = pair.axes.as_frames(layer.data)
    for frame in range(len(frames)):
        frames[frame] = live.labels(frame)
    add_below_ours(viewer, layer)
    return layer


def add_slice(viewer: Any, live: LiveSegmenter, pair: LayerPair, plane: Plane) -> Labels:
    """The layer of accepted slices with one more; a slice that is there is replaced, which the layer can undo."""
    box = plane.box(pair.axes.frames_shape[1:])
    labels = live.labels(plane.frame, box)
    layer = _slices_layer(viewer, pair)
    if layer is None:
        layer = _new_layer(live, pair)
        layer.metadata[_SLICES_OF] = pair.source.name
        pair.axes.as_frames(layer.data)[plane.frame][box.slices] = labels
        add_below_ours(viewer, layer)
        return layer
    index = pair.axes.to_layer(plane.frame, box)
    places = np.mgrid[index]
    values = np.empty(places.shape[1:], np.uint8)
    if is_large(layer.data):  # what was predicted elsewhere on the slice may have been forgotten since
        before = pair.axes.as_frames(layer.data)[plane.frame][box.slices]
        labels = np.where(labels == 0, before, labels)
    pair.axes.as_frames(values)[0][...] = labels
    layer.data_setitem(tuple(axis.ravel() for axis in places), values.ravel())
    return layer


def add_whole(viewer: Any, live: LiveSegmenter, pair: LayerPair, paths: Sequence[str]) -> Labels:
    """The layer of what was predicted into the project, an OME-Zarr for each frame; read as it is looked at.

    It takes the place of an older one, whose files are gone.
    """
    before = [each for each in viewer.layers if each.metadata.get(_WHOLE_OF) == paths[0]]
    levels = _levels(paths, pair.axes.time_axis)
    layer = Labels(
        levels if len(levels) > 1 else levels[0],
        multiscale=len(levels) > 1,
        name=f"{pair.source.name} all",
        colormap=prediction_colormap(live.classes),
        metadata={_WHOLE_OF: paths[0]},
        **pair.placement,
    )
    layer.editable = False
    exchange(viewer, before, layer, add_below_ours)
    return layer


def remove_gone(viewer: Any) -> None:
    """Remove layers of what was predicted into a project that is not there any more: they would show nothing."""
    for layer in list(viewer.layers):
        path = layer.metadata.get(_WHOLE_OF)
        if path is not None and not Path(path).exists():
            viewer.layers.remove(layer)


def _levels(paths: Sequence[str], time_axis: int | None) -> list[Any]:
    """Lazy arrays, of the layers' axes, of each level of resolution.

    Time points are stacked by dask, for want of another; alone, it would go through all chunks for each look. Without
    names of their own, napari would take what it keeps of older files of the same path.
    """
    import dask.array as da
    import zarr

    levels: list[Any] = []
    for level in range(open_image(paths[0]).n_levels):
        for path in paths:
            open_image(path, level=level)  # it may be a stranger's: refuses what is no plain array
        frames = [zarr.open_array(Path(path) / str(level), mode="r") for path in paths]
        if time_axis is None:
            levels.append(frames[0])
        else:
            levels.append(da.stack([da.from_array(frame, name=False) for frame in frames], axis=time_axis))  # type: ignore[no-untyped-call]
    return levels


def _slices_layer(viewer: Any, pair: LayerPair) -> Labels | None:
    """The layer that was made for accepted slices; another of its name may be the user's own."""
    for layer in viewer.layers:
        is_ours = isinstance(layer, Labels) and layer.metadata.get(_SLICES_OF) == pair.source.name
        if is_ours and layer.data.shape == pair.axes.shape:
            return layer
    return None


def _new_layer(live: LiveSegmenter, pair: LayerPair) -> Labels:
    return Labels(
        zeros(pair.axes.shape, np.uint8),
        name=f"{pair.source.name} labels",
        colormap=prediction_colormap(live.classes),
        **pair.placement,
    )
