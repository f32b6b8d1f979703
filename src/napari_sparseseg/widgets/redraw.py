"""Draw again what has changed in a layer, and no more."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from napari.layers import Image, Labels

from napari_sparseseg.widgets.axes import Index
from napari_sparseseg.widgets.view import shown


def redraw(viewer: Any, layer: Labels | Image, changed: Iterable[Index]) -> None:
    """Draw the changed parts (a slice for each of the layer's axes) of what is on screen; GUI thread.

    Labels of one or two bytes in a numpy array lie in the texture as they are, and napari's event of its own painting
    uploads a part of them in under a millisecond. It is meant for napari's own use: whatever it may not fit is drawn by
    a refresh, which always works.
    """
    if not layer.visible:
        return  # napari slices a layer anew when it is shown
    state = shown(viewer, layer)
    visible = [part for part in (_visible_part(index, state.hidden, state.point) for index in changed) if part]
    if not visible:
        return
    if not _allows_parts(layer) or state.n_displayed != viewer.dims.ndisplay:
        layer.refresh(extent=False, thumbnail=False, highlight=False)
        return
    rising = sorted(state.displayed)
    for index in visible:
        data = layer.data[index].transpose([rising.index(axis) for axis in state.displayed])
        starts = [part.start for part in (index[axis] for axis in state.displayed) if isinstance(part, slice)]
        layer.events.labels_update(data=data, offset=starts)


def _visible_part(index: Index, hidden: Iterable[int], point: tuple[int, ...]) -> tuple[slice | int, ...] | None:
    """The part on screen: whole along the displayed axes, one position along the hidden ones; None if off screen."""
    part: list[slice | int] = list(index)
    for axis in hidden:
        if not index[axis].start <= point[axis] < index[axis].stop:
            return None
        part[axis] = point[axis]
    return tuple(part)


def _allows_parts(layer: Labels | Image) -> bool:
    return (
        isinstance(layer, Labels)
        and layer.contour == 0
        and isinstance(layer.data, np.ndarray)
        and layer.data.dtype.itemsize <= 2
    )
