"""Tables of the objects that were found: measured in short pieces, and filtered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_sparseseg._types import Box, Shape3D
from napari_sparseseg.live.events import ObjectTable
from napari_sparseseg.live.opened import Opened
from napari_sparseseg.storage.sparse import is_large

if TYPE_CHECKING:
    import pandas as pd

    from napari_sparseseg.engine.objects.measure import Measurement

_VOXELS_AT_ONCE = 1 << 20


@dataclass(frozen=True, slots=True)
class ObjectFilter:
    """Which objects are kept: by volume (area of a plane), bounds included, and by whether they lie at the edge.

    Sizes are in the unit of the voxel size; None does not bound.
    """

    min_size: float | None = None
    max_size: float | None = None
    without_border: bool = False

    def passes(self, table: ObjectTable) -> npt.NDArray[np.bool_]:
        """For each row of a table, whether it is kept."""
        from napari_sparseseg.engine.objects.measure import passes

        keep = passes(table.rows, self.min_size, self.max_size, without_border=self.without_border)
        return np.asarray(keep, np.bool_)


class ObjectTables:
    """The tables of all frames of an image, measured anew where objects have changed. Lives on the compute thread.

    `labels` tells the classes in a box of a frame, with the paint.
    """

    def __init__(self, opened: Opened, labels: Callable[[int, Box], npt.NDArray[np.uint8]]) -> None:
        self._opened = opened
        self._labels = labels
        self._tables: dict[int, pd.DataFrame] = {}
        self._job: _Job | None = None

    def work(self, frame: int) -> float | None:
        """Do one piece of measuring the objects of a frame: the share that is done by then, None if all is known.

        What fails, for want of memory or of a voxel that can be read, is measured anew the next time.
        """
        try:
            return self._work(frame)
        except BaseException:
            # what was touched has been claimed, so a table that is known would never learn of it
            self._job = None
            self._tables.pop(frame, None)
            raise

    def _work(self, frame: int) -> float | None:
        if self._job is None or self._job.frame != frame:
            self._job = self._begin(frame)
        if self._job is None:
            return None
        share = next(self._job.pieces)
        if share < 1:
            return share
        rows = self._job.measurement.table()
        if is_large(self._opened.labels) and frame in self._tables:
            _keep_classes(rows, self._tables[frame])
        if self._job.only is not None:
            rows = _with_rows(self._tables[frame], rows, self._job.only)
        self._tables[frame] = rows
        self._job = None
        return 1.0

    def table(self, frame: int) -> ObjectTable:
        """What is known of a frame; complete once `work` says so."""
        return ObjectTable(frame, self._tables[frame])

    def _begin(self, frame: int) -> _Job | None:
        from napari_sparseseg.engine.objects.measure import Measurement

        if self._job is not None:  # another frame's, given up
            self._tables.pop(self._job.frame, None)
        touched = self._opened.objects.claim_touched(frame)
        known = self._tables.get(frame)
        if touched is None and known is not None:
            return None
        image = self._opened.image
        is_part = known is not None and touched is not None and touched.ids is not None
        only, box = (touched.ids, touched.box) if is_part and touched is not None else (None, None)
        measurement = Measurement(
            _Reader(image.shape[1:], lambda box: self._opened.objects.read(frame, box)),
            image.spacing,
            image.volume(frame),
            _Reader(image.shape[1:], lambda box: self._labels(frame, box)),
            only=only,
            box=box,
            voxels_at_once=_VOXELS_AT_ONCE,
        )
        return _Job(frame, only, measurement, measurement.work())


@dataclass(frozen=True, slots=True)
class _Job:
    """A measurement that is going on; of all objects, or of `only` some."""

    frame: int
    only: npt.NDArray[np.uint32] | None
    measurement: Measurement
    pieces: Iterator[float]


class _Reader:
    """What a function tells of each box, as a volume."""

    n_channels = 1

    def __init__(self, shape: Shape3D, read: Callable[[Box], npt.NDArray[Any]]) -> None:
        self.shape = shape
        self._read = read

    def read(self, box: Box) -> npt.NDArray[Any]:
        """Values of a box, with an axis of one channel."""
        return self._read(box)[None]


def _keep_classes(rows: pd.DataFrame, before: pd.DataFrame) -> None:
    """Where nothing is predicted any more, since it was forgotten, an object is of the class that it was of."""
    known = before.set_index("id")["class"].reindex(rows["id"]).to_numpy(float)
    is_lost = (rows["class"] == 0) & ~np.isnan(known)
    rows.loc[is_lost, "class"] = known[is_lost].astype(int)


def _with_rows(table: pd.DataFrame, rows: pd.DataFrame, ids: npt.NDArray[np.uint32]) -> pd.DataFrame:
    """A table in which these rows have taken the place of those of some ids."""
    import pandas as pd

    kept = table[~table["id"].isin(ids)]
    return pd.concat([kept, rows]).sort_values("id", ignore_index=True)
