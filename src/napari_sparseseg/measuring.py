"""measure_objects: a table of objects from arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from napari_sparseseg._types import ArrayLike
from napari_sparseseg.engine.objects.measure import measure, passes
from napari_sparseseg.errors import InputError, InputTypeError
from napari_sparseseg.storage._arrays import checked_spacing
from napari_sparseseg.storage.volume import ArrayVolume, ImageVolume

if TYPE_CHECKING:
    import pandas as pd


def measure_objects(
    objects: ArrayLike,
    image: ArrayLike | None = None,
    labels: ArrayLike | None = None,
    spacing: Sequence[float] | None = None,
    *,
    channel_axis: int | None = None,
    min_size: float | None = None,
    max_size: float | None = None,
    without_border: bool = False,
) -> pd.DataFrame:
    """Measure objects: one row for each id but 0, ascending.

    Arrays of any kind are read a few planes at a time.

    Parameters
    ----------
    objects
        Ids (Z, Y, X) or (Y, X), of `SparseSegmenter.predict_objects` or any other program.
    image
        Of the same shape, with one more axis at `channel_axis` if that is set: adds mean intensities.
    labels
        Classes of the same shape: adds the class that most of an object's voxels have.
    spacing
        Voxel size along z, y, x (y, x) in any unit, that of the result; None takes voxels for cubes of size 1.
    min_size, max_size
        Smallest and largest volume (area) of the objects in the table.
    without_border
        Leave out what touches the edge of the image: it may go on beyond.

    Returns
    -------
    DataFrame
        `id`, `class`, `n_voxels`, `volume`, `surface`; the centre `z`, `y`, `x`, where the centre of the first voxel is
        0; `mean_0`, `mean_1`, ... for each channel; `touches_border`; the bounding box `z_start`, `z_stop` (excluded),
        ... in voxels. Single planes have `n_pixels`, `area` and `perimeter`, and nothing along z. Surface and perimeter
        are estimates that are right in the mean over all directions (Cauchy-Crofton); what the edge of the image cuts
        off adds nothing to them.

    Raises
    ------
    InputError, InputTypeError
        For arrays that do not fit together, or are no whole numbers, for ids that are negative, and for a smallest size
        above the largest.

    """
    if min_size is not None and max_size is not None and min_size > max_size:
        raise InputError(f"min_size={min_size} is above max_size={max_size}, so no object would be left; swap them")
    volume = _whole_numbers(objects, "objects")
    others = [
        None if image is None else ImageVolume(image, channel_axis),
        None if labels is None else _whole_numbers(labels, "labels"),
    ]
    for other in others:
        if other is not None and other.shape != volume.shape:
            raise InputError(
                f"{other.name} has spatial shape {other.spatial_shape}, but objects has {volume.spatial_shape}; both "
                "must be of the same voxels"
            )
    table = measure(volume, checked_spacing(spacing, n_axes=len(volume.spatial_shape)), *others)
    if (lowest := table["id"].min()) < 0:
        raise InputError(
            f"objects holds {lowest}; ids of objects cannot be negative: 0 is no object and ids start at 1, so replace "
            "it"
        )
    keep = passes(table, min_size, max_size, without_border=without_border)
    return table[keep].reset_index(drop=True)


def _whole_numbers(array: ArrayLike, name: str) -> ArrayVolume:
    volume = ArrayVolume(array, name=name)
    if volume.dtype.kind not in "ui":
        raise InputTypeError(f"{name} holds {volume.dtype}, but whole numbers are needed; convert it with astype(int)")
    return volume
