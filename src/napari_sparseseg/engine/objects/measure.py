"""Measures objects: how large they are, where they lie, how bright they are. A part of the volume at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.spatial import SphericalVoronoi

from napari_sparseseg._types import Box, Spacing, Volume
from napari_sparseseg.engine.objects.fragments import shifted

_VOXELS_AT_ONCE = 1 << 22
_AXES = ("z", "y", "x")

Step = tuple[int, int, int]


def measure(
    objects: Volume, spacing: Spacing, image: Volume | None = None, labels: Volume | None = None
) -> pd.DataFrame:
    """One row for each id but 0, ascending; all volumes have one shape.

    `class` is the most frequent of the labels. `volume`, `surface` and the centre `z`, `y`, `x` are in the unit of
    `spacing`, and the centre of the first voxel is 0; the bounding box from `z_start` up to, not including, `z_stop` is
    in voxels; `mean_0`, `mean_1`, ... are the mean intensities of the channels. Of a single plane there are `area` and
    `perimeter` instead, and nothing along z.

    Surface and perimeter are estimated from how often lines cross them in 13 or 4 directions (Cauchy-Crofton; Legland
    et al. 2007, doi:10.5566/ias.v26.p83-92). What the edge of the volume cuts off adds nothing to them.
    """
    is_plane = objects.shape[0] == 1
    weights = plane_weights(spacing) if is_plane else direction_weights(spacing)
    parts, classes = [], []
    for box in _slabs(objects):
        ids = objects.read(box.grown((1, 0, 0)).clipped(Box((box.start[0], 0, 0), objects.shape)))[0]
        own = ids[: box.shape[0]]
        parts.append(_extent(own, box, image))
        parts.append(_crossings(ids, len(own), weights))
        if labels is not None:
            inside = own > 0
            classes.append(pd.DataFrame({"id": own[inside], "class": labels.read(box)[0][inside]}).value_counts())
    table = _summed(pd.concat(parts))
    edge = [table[f"{a}_stop"] == n for a, n in zip(_AXES, objects.shape, strict=True) if n > 1]
    edge += [table[f"{a}_start"] == 0 for a, n in zip(_AXES, objects.shape, strict=True) if n > 1]
    sizes = spacing[1:] if is_plane else spacing
    table["volume"] = table["n_voxels"] * float(np.prod(sizes))
    for axis, size in zip(_AXES, spacing, strict=True):
        table[axis] = table[axis] / table["n_voxels"] * size
    table["touches_border"] = np.logical_or.reduce(edge) if edge else True
    if labels is not None:
        table["class"] = _most_frequent(pd.concat(classes))
    table = table.reset_index()[[name for name in _order(image) if name in table or name == "id"]]
    return _of_plane(table) if is_plane else table


def _slabs(volume: Volume) -> Iterator[Box]:
    """Planes, as many at once as memory should hold."""
    n_planes, height, width = volume.shape
    step = max(1, _VOXELS_AT_ONCE // (height * width))
    for z in range(0, n_planes, step):
        yield Box((z, 0, 0), (min(z + step, n_planes), height, width))


def _extent(ids: npt.NDArray[np.integer], box: Box, image: Volume | None) -> pd.DataFrame:
    """Sums over the voxels of each object in a slab, and its bounding box."""
    places = np.nonzero(ids > 0)
    found = ids[places]
    order = np.argsort(found, kind="stable")
    first = np.flatnonzero(np.r_[True, np.diff(found[order]) > 0][: len(found)])
    columns: dict[str, npt.NDArray[np.generic]] = {"n_voxels": np.diff(np.r_[first, len(found)])}
    for axis, start, place in zip(_AXES, box.start, places, strict=True):
        along = place[order] + start
        columns[axis] = np.add.reduceat(along, first)
        columns[f"{axis}_start"] = np.minimum.reduceat(along, first)
        columns[f"{axis}_stop"] = np.maximum.reduceat(along, first) + 1
    if image is not None:
        for number, channel in enumerate(image.read(box)):
            columns[f"mean_{number}"] = np.add.reduceat(channel[places][order].astype(np.float64), first)
    return pd.DataFrame(columns, index=pd.Index(found[order][first], name="id"))


def _crossings(ids: npt.NDArray[np.integer], n_planes: int, weights: Mapping[Step, float]) -> pd.DataFrame:
    """The surface of each object by the pairs of voxels that begin in the first planes, and that it separates."""
    ends, areas = [ids[:0, 0, 0]], [np.zeros(0)]
    for step, weight in weights.items():
        here, there = (ids[index] for index in shifted(step))
        crosses = here != there
        if step[0] == 0:
            crosses[n_planes:] = False
        for side in (here[crosses], there[crosses]):
            ends.append(side)
            areas.append(np.full(len(side), weight))
    found = pd.DataFrame({"surface": np.concatenate(areas)}, pd.Index(np.concatenate(ends), name="id"))
    return found[found.index > 0].groupby(level="id").sum()


def direction_weights(spacing: Spacing) -> dict[Step, float]:
    """What each crossing between a voxel and the one a step away adds to a surface, for 13 steps.

    Lines along a step lie as close as voxels allow, and a surface crosses them half as often, in the mean over all
    directions, as its area says: so each direction counts by its share of the sphere.
    """
    steps: list[Step] = [(z, y, x) for z, y, x in product((0, 1, -1), repeat=3) if (z, y, x) > (0, 0, 0)]
    vectors = np.asarray(steps) * spacing
    lengths = np.linalg.norm(vectors, axis=1)
    directions = vectors / lengths[:, None]
    shares = SphericalVoronoi(np.concatenate([directions, -directions])).calculate_areas()[: len(steps)] / (2 * np.pi)
    return dict(zip(steps, (2 * shares * np.prod(spacing) / lengths).tolist(), strict=True))


def plane_weights(spacing: Spacing) -> dict[Step, float]:
    """The same for the perimeter of what lies in a plane across z, for 4 steps."""
    steps: list[Step] = [(0, 0, 1), (0, 1, 1), (0, 1, 0), (0, 1, -1)]
    vectors = np.asarray(steps)[:, 1:] * spacing[1:]
    angles = np.arctan2(vectors[:, 0], vectors[:, 1])
    gaps = np.diff(np.r_[angles, np.pi])
    shares = (gaps + np.roll(gaps, 1)) / (2 * np.pi)
    lengths = np.linalg.norm(vectors, axis=1)
    return dict(zip(steps, (np.pi / 2 * shares * spacing[1] * spacing[2] / lengths).tolist(), strict=True))


def _summed(parts: pd.DataFrame) -> pd.DataFrame:
    """What is known of each object of all slabs together."""
    ways = {name: "min" if name.endswith("_start") else "max" if name.endswith("_stop") else "sum" for name in parts}
    table = parts.groupby(level="id").agg(ways)
    for name in table:
        if name.startswith("mean_"):
            table[name] /= table["n_voxels"]
    whole = [name for name in table if name == "n_voxels" or name.endswith(("_start", "_stop"))]
    return table.astype(dict.fromkeys(whole, np.int64))


def _most_frequent(counts: pd.Series) -> pd.Series:
    """Of each id the class with most voxels, the lower one of two."""
    return counts.groupby(level=["id", "class"]).sum().unstack("class").idxmax(axis=1)


def _order(image: Volume | None) -> list[str]:
    """Columns, in the order in which people read them."""
    box = [f"{axis}_{end}" for axis in _AXES for end in ("start", "stop")]
    means = [f"mean_{number}" for number in range(0 if image is None else image.n_channels)]
    return ["id", "class", "n_voxels", "volume", "surface", *_AXES, *means, "touches_border", *box]


def _of_plane(table: pd.DataFrame) -> pd.DataFrame:
    names = {"volume": "area", "surface": "perimeter", "n_voxels": "n_pixels"}
    return table.drop(columns=["z", "z_start", "z_stop"]).rename(columns=names)
