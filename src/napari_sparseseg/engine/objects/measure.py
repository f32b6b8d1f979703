"""Measures objects: how large they are, where they lie, how bright they are. A part of the volume at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.ndimage import find_objects
from scipy.spatial import SphericalVoronoi

from napari_sparseseg._types import Box, Shape3D, Spacing, Volume
from napari_sparseseg.engine.objects.fragments import shifted

_VOXELS_AT_ONCE = 1 << 22
_AXES = ("z", "y", "x")

Step = tuple[int, int, int]


def measure(
    objects: Volume, spacing: Spacing, image: Volume | None = None, labels: Volume | None = None
) -> pd.DataFrame:
    """The table of `Measurement`, all at once."""
    measurement = Measurement(objects, spacing, image, labels)
    for _ in measurement.work():
        pass
    return measurement.table()


class Measurement:
    """Measures the objects of a volume in short pieces; all volumes have one shape.

    Its table has one row for each id but 0, ascending. `class` is the most frequent of the labels. `volume`, `surface`
    and the centre `z`, `y`, `x` are in the unit of `spacing`, and the centre of the first voxel is 0; the bounding box
    from `z_start` up to, not including, `z_stop` is in voxels; `mean_0`, `mean_1`, ... are the mean intensities of the
    channels. Of a single plane there are `area` and `perimeter` instead, and nothing along z.

    Surface and perimeter are estimated from how often lines cross them in 13 or 4 directions (Cauchy-Crofton; Legland
    et al. 2007, doi:10.5566/ias.v26.p83-92). What the edge of the volume cuts off adds nothing to them.

    Parameters
    ----------
    only, box
        Ids to be measured, none of which has voxels outside of the box; None for all.
    voxels_at_once
        How large a piece is, in whole planes of the box.

    """

    def __init__(
        self,
        objects: Volume,
        spacing: Spacing,
        image: Volume | None = None,
        labels: Volume | None = None,
        *,
        only: npt.NDArray[np.integer] | None = None,
        box: Box | None = None,
        voxels_at_once: int | None = None,
    ) -> None:
        self._objects, self._image, self._labels = objects, image, labels
        self._spacing, self._only = spacing, only
        whole = Box.whole(objects.shape)
        # with the voxels around, from which those of the objects are told apart
        self._box = whole if box is None else box.grown((1, 1, 1)).clipped(whole)
        self._voxels_at_once = voxels_at_once or _VOXELS_AT_ONCE
        self._is_plane = objects.shape[0] == 1
        self._weights = plane_weights(spacing) if self._is_plane else direction_weights(spacing)
        self._parts: list[pd.DataFrame] = []
        self._classes: list[pd.Series] = []

    def work(self) -> Iterator[float]:
        """The share that is done, after each piece."""
        for slab in _slabs(self._box, self._voxels_at_once):
            self._add(slab)
            yield (slab.stop[0] - self._box.start[0]) / self._box.shape[0]

    def table(self) -> pd.DataFrame:
        """What was measured; complete after `work`."""
        shape, spacing = self._objects.shape, self._spacing
        table = _summed(pd.concat(self._parts))
        edge = [table[f"{a}_stop"] == n for a, n in zip(_AXES, shape, strict=True) if n > 1]
        edge += [table[f"{a}_start"] == 0 for a, n in zip(_AXES, shape, strict=True) if n > 1]
        table["volume"] = table["n_voxels"] * float(np.prod(spacing[1:] if self._is_plane else spacing))
        for axis, size in zip(_AXES, spacing, strict=True):
            table[axis] = table[axis] / table["n_voxels"] * size
        table["touches_border"] = np.logical_or.reduce(edge) if edge else True
        if self._labels is not None:
            table["class"] = _most_frequent(pd.concat(self._classes))
        table = table.reset_index()[[name for name in _order(self._image) if name in table or name == "id"]]
        return _of_plane(table) if self._is_plane else table

    def _add(self, slab: Box) -> None:
        """Measure what lies in some planes of the box."""
        start, stop = slab.start, self._box.stop
        ids = self._objects.read(Box(start, (min(slab.stop[0] + 1, stop[0]), *stop[1:])))[0]
        numbers, names = _numbered(ids, self._only)
        places = np.nonzero(numbers[: slab.shape[0]])
        own = numbers[places]
        channels = () if self._image is None else self._image.read(slab)
        extent = _extent(own, places, start, channels, len(names))
        extent |= _bounds(numbers[: slab.shape[0]], start, len(names))
        found = pd.DataFrame(extent, index=pd.Index(names, name="id"))
        self._parts.append(found[found["n_voxels"] > 0])
        surface = _crossings(numbers, slab.shape[0], self._weights, len(names))
        self._parts.append(pd.DataFrame({"surface": surface[1:]}, index=pd.Index(names[1:], name="id")))
        if self._labels is not None:
            self._classes.append(_votes(names[own], self._labels.read(slab)[0][places]))


def passes(
    table: pd.DataFrame, min_size: float | None = None, max_size: float | None = None, *, without_border: bool = False
) -> pd.Series:
    """Which objects of a table have a volume (area) within these bounds, and lie within the image if that is asked."""
    size = table["area" if "area" in table else "volume"]
    keep: pd.Series = size >= (0 if min_size is None else min_size)
    if max_size is not None:
        keep &= size <= max_size
    if without_border:
        keep &= ~table["touches_border"]
    return keep


def _slabs(box: Box, voxels_at_once: int) -> Iterator[Box]:
    """Planes of a box, as many at once as memory should hold."""
    (first, y, x), (last, y_stop, x_stop) = box.start, box.stop
    step = max(1, voxels_at_once // max(1, box.shape[1] * box.shape[2]))
    for z in range(first, last, step):
        yield Box((z, y, x), (min(z + step, last), y_stop, x_stop))


def _numbered(
    ids: npt.NDArray[np.integer], only: npt.NDArray[np.integer] | None
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.integer]]:
    """Numbers 0, 1, ... in the place of ids, and the id of each; 0 is that of no object and of what is not measured."""
    numbers, names = pd.factorize(np.concatenate([np.zeros(1, ids.dtype), ids.ravel()]))
    numbers = numbers[1:].astype(np.int32).reshape(ids.shape)
    if only is None:
        return numbers, names
    kept = np.isin(names, only)
    kept[0] = True
    renamed = np.where(kept, np.cumsum(kept) - 1, 0).astype(np.int32)
    return renamed[numbers], names[kept]


def _extent(
    own: npt.NDArray[np.int32],
    places: Sequence[npt.NDArray[np.intp]],
    start: Shape3D,
    channels: Iterable[npt.NDArray[Any]],
    n: int,
) -> dict[str, npt.NDArray[Any]]:
    """Sums over the voxels of each object in a slab: `own` numbers at `places` of it; nothing of number 0."""
    counts = np.bincount(own, minlength=n)
    columns: dict[str, npt.NDArray[Any]] = {"n_voxels": counts}
    for axis, first, place in zip(_AXES, start, places, strict=True):
        columns[axis] = np.bincount(own, weights=place, minlength=n) + counts * first
    for number, channel in enumerate(channels):
        values = channel[tuple(places)]
        if values.dtype.kind == "f" and (missing := np.isnan(values)).any():
            columns[f"missing_{number}"] = np.bincount(own, weights=missing, minlength=n)
            values = np.where(missing, 0, values)
        columns[f"mean_{number}"] = np.bincount(own, weights=values, minlength=n)
    return columns


def _bounds(numbers: npt.NDArray[np.int32], start: Shape3D, n: int) -> dict[str, npt.NDArray[Any]]:
    """First voxel and the one after the last of each object along each axis; 0 for what is not there."""
    found = [None, *find_objects(numbers, n - 1)] if n > 1 else [None]
    ends = np.array([[(p.start, p.stop) for p in parts] if parts else [(0, 0)] * 3 for parts in found])
    ends += np.asarray(start)[None, :, None]
    return {f"{axis}_{end}": ends[:, a, e] for a, axis in enumerate(_AXES) for e, end in enumerate(("start", "stop"))}


def _crossings(
    numbers: npt.NDArray[np.int32], n_planes: int, weights: Mapping[Step, float], n: int
) -> npt.NDArray[np.float64]:
    """The surface of each object by the pairs of voxels that begin in the first planes, and that it separates."""
    surface = np.zeros(n)
    for step, weight in weights.items():
        here, there = (numbers[index] for index in shifted(step))
        crosses = here != there
        if step[0] == 0:
            crosses[n_planes:] = False
        for side in (here, there):
            surface += weight * np.bincount(side[crosses], minlength=n)
    return surface


def _votes(ids: npt.NDArray[np.integer], labels: npt.NDArray[np.integer]) -> pd.Series:
    """How many voxels each pair of id and label has."""
    kinds, of_kinds = pd.factorize(labels)
    rows, of_rows = pd.factorize(ids)
    pairs = pd.Series(rows.astype(np.int64) * max(1, len(of_kinds)) + kinds).value_counts(sort=False)
    row, kind = np.divmod(pairs.index.to_numpy(np.int64), max(1, len(of_kinds)))
    index = pd.MultiIndex.from_arrays([of_rows[row], of_kinds[kind]], names=["id", "class"])
    return pd.Series(pairs.to_numpy(), index)


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
            table[name] /= table["n_voxels"] - table.get(name.replace("mean", "missing"), 0)
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
