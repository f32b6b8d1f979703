"""The file that a layer was opened from, by our own readers: it tells what napari's do not pass on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sparseseg.errors import InputError
from napari_sparseseg.widgets.sources import spatial_shape, unwrapped

if TYPE_CHECKING:
    from napari_sparseseg.storage.formats import Geometry, ImageFile
    from napari_sparseseg.widgets.sources import ImageSource


def file_of(layer: Any) -> ImageFile | None:
    """The file of an Image layer, if it is on this machine and holds an image of the same shape."""
    from napari_sparseseg.storage.formats import open_image

    path = unwrapped(layer).source.path
    if path is None or not Path(path).exists():
        return None
    try:
        file = open_image(path)
    except (InputError, OSError):
        return None
    return file if file.spatial_shape == spatial_shape(layer) else None


def geometry_of(source: ImageSource) -> Geometry | None:
    """Orientation and position that the header of a NIfTI or NRRD file tells of the image that is worked on.

    None for a part of it, a coarser one, channels and time points, and where the layer does not show it as the file
    has it.
    """
    layers = [layer for reference in source.layers if (layer := reference()) is not None]
    is_part = source.region is not None or source.level > 0 or max(source.step) > 1
    if len(layers) != 1 or is_part or source.array.ndim != len(source.spacing):
        return None
    file = file_of(layers[0])
    if file is None or file.geometry is None or tuple(file.array.shape) != tuple(source.array.shape):
        return None
    middle = slice(file.array.shape[0] // 2, file.array.shape[0] // 2 + 1)
    is_same = np.array_equal(np.asarray(file.array[middle]), np.asarray(source.array[middle]), equal_nan=True)
    is_as_large = file.spacing is None or np.allclose(source.spacing, file.spacing) or not source.has_voxel_size
    return file.geometry if is_same and is_as_large else None
