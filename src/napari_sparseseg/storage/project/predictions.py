"""Predictions in a project: OME-Zarr 0.5 label images of one level."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from napari_sparseseg._types import Box, Spacing
from napari_sparseseg.storage.durable import Disk
from napari_sparseseg.storage.project.manifest import ProjectClass
from napari_sparseseg.storage.project.zarrs import (
    Corner,
    GroupWriter,
    all_corners,
    attributes_of,
    open_array,
    part_of,
    shard_slices,
    stored_corners,
)


def write_prediction(
    disk: Disk,
    folder: Path,
    labels: npt.NDArray[np.uint8],
    spacing: Spacing,
    classes: Sequence[ProjectClass],
    corners: Iterable[Corner] | None = None,
) -> None:
    """Write labels, (frames, z, y, x), into a new folder; once this returns they last. Raises OSError.

    Of all shards, or of those at some `corners`, if it is known that the others hold nothing.
    """
    writer = GroupWriter(disk, folder)
    array = writer.array("0", labels.shape, np.uint8)
    for corner in all_corners(labels.shape) if corners is None else corners:
        block = labels[shard_slices(corner, labels.shape)]
        if block.any():
            writer.write(array, corner, block)
    writer.finish({"ome": _ome(spacing, classes)})


def read_prediction(folder: Path, shape: tuple[int, int, int, int]) -> zarr.Array[Any]:
    """Open labels of an image of this shape, to be read piece by piece. Raises `ProjectError` if they are no such."""
    attributes_of(folder)
    return open_array(folder, "0", shape, np.uint8)


def stored_parts(folder: Path, shape: tuple[int, int, int, int]) -> list[tuple[int, Box]]:
    """Frames and boxes of labels that hold something: the shards that were written."""
    return [part_of(corner, shape) for corner in stored_corners(folder / "0", shape)]


def _ome(spacing: Spacing, classes: Sequence[ProjectClass]) -> dict[str, Any]:
    axes = [{"name": "t", "type": "time"}, *({"name": name, "type": "space"} for name in "zyx")]
    scale = {"type": "scale", "scale": [1.0, *spacing]}
    colors = [
        {"label-value": info.class_id, "rgba": [*(round(255 * part) for part in info.color), 255]} for info in classes
    ]
    properties = [{"label-value": info.class_id, "name": info.name} for info in classes]
    return {
        "version": "0.5",
        "multiscales": [
            {"name": "prediction", "axes": axes, "datasets": [{"path": "0", "coordinateTransformations": [scale]}]}
        ],
        "image-label": {"colors": colors, "properties": properties},
    }
