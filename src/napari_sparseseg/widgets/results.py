"""Accepted predictions: copies in ordinary labels layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels

from napari_sparseseg._types import Plane
from napari_sparseseg.widgets.layers import SharedHistoryLabels, add_below_ours, prediction_colormap

if TYPE_CHECKING:
    from napari_sparseseg.live.live_segmenter import LiveSegmenter
    from napari_sparseseg.widgets.pair import LayerPair


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
        pair.axes.as_frames(layer.data)[plane.frame][box.slices] = labels
        add_below_ours(viewer, layer)
        return layer
    whole = np.zeros_like(layer.data)
    pair.axes.as_frames(whole)[plane.frame][box.slices] = 1
    places = np.nonzero(whole)
    pair.axes.as_frames(whole)[plane.frame][box.slices] = labels
    layer.data_setitem(places, whole[places])
    return layer


def _slices_layer(viewer: Any, pair: LayerPair) -> Labels | None:
    for layer in viewer.layers:
        is_plain = isinstance(layer, Labels) and not isinstance(layer, SharedHistoryLabels)
        if is_plain and layer.name == _name(pair) and layer.data.shape == pair.axes.shape:
            return layer
    return None


def _new_layer(live: LiveSegmenter, pair: LayerPair) -> Labels:
    return Labels(
        np.zeros(pair.axes.shape, np.uint8),
        name=_name(pair),
        colormap=prediction_colormap(live.classes),
        **pair.placement,
    )


def _name(pair: LayerPair) -> str:
    return f"{pair.source.name} labels"
