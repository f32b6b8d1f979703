"""TableTool: the table of the objects on screen, which of them a filter hides, and which one is chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import QObject, Signal

from napari_sparseseg._types import NO_OBJECT
from napari_sparseseg.errors import SparseSegError
from napari_sparseseg.live.events import ObjectTable
from napari_sparseseg.live.object_table import ObjectFilter

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_sparseseg._types import Box
    from napari_sparseseg.live.found_objects import FoundObjects
    from napari_sparseseg.storage.object_ids import Ids


class VisibleIds:
    """Ids of objects, without those that are hidden."""

    def __init__(self, read: Callable[[int, Box], Ids]) -> None:
        self._read = read
        self._hidden: dict[int, npt.NDArray[np.bool_]] = {}

    def __call__(self, frame: int, box: Box) -> Ids:
        """Those in a box of a frame, of its shape."""
        ids = self._read(frame, box)
        ids[self.hides(frame, ids)] = NO_OBJECT
        return ids

    def hide(self, frame: int, object_ids: npt.NDArray[np.integer]) -> bool:
        """Hide these objects of a frame and no others; whether that changes anything."""
        hidden = np.zeros(int(object_ids.max(initial=0)) + 2, np.bool_)  # the last one stands for all that are higher
        hidden[object_ids] = True
        if np.array_equal(hidden, self._hidden.get(frame, np.zeros(2, np.bool_))):
            return False
        self._hidden[frame] = hidden
        return True

    def hides(self, frame: int, ids: Ids) -> npt.NDArray[np.bool_]:
        """Which of these ids are hidden."""
        hidden = self._hidden.get(frame)
        if hidden is None:
            return np.zeros(ids.shape, np.bool_)
        return hidden[np.minimum(ids, len(hidden) - 1)]


class Objects(Protocol):
    """What the table needs of the layer of objects."""

    @property
    def frame(self) -> int | None: ...

    def hide(self, frame: int, object_ids: npt.NDArray[np.integer]) -> None: ...

    def go_to(self, object_id: int) -> None: ...


class TableTool(QObject):
    """While it is on, the objects of the time point on screen are measured, and a filter hides some; GUI thread only.

    What is hidden is gone from the table and from the layer, and comes back when the table is switched off. Nothing
    is deleted, and the model learns nothing from it.
    """

    changed = Signal()
    """It was switched, another table has come, others are hidden, or another object is chosen."""
    problem = Signal(str)

    def __init__(self, objects: Objects, found: FoundObjects, parent: QObject) -> None:
        super().__init__(parent)
        self.is_on = False
        self.table: ObjectTable | None = None
        """The latest; None before the first one."""
        self.passing = np.zeros(0, np.bool_)
        """For each row of the table, whether the filter keeps it."""
        self.filter = ObjectFilter()
        self.chosen = NO_OBJECT
        self._objects = objects
        self._found = found
        self._frame: int | None = None

    def switch(self, wanted: bool) -> None:
        """Measure the objects from now on, or no longer."""
        self.is_on = wanted
        self._forget()
        if wanted:
            self.follow()
        else:
            self._found.keep_table(None)

    def follow(self) -> None:
        """See to it that the table is that of the time point on screen."""
        frame = self._objects.frame
        if self._frame is not None and frame != self._frame:
            self._forget()
        if self.is_on and frame is not None and (frame != self._frame or not self._found.keeps_table):
            self._frame = frame
            self._found.keep_table(frame)

    def take(self, table: ObjectTable) -> None:
        """Show what was measured."""
        if self.is_on and table.frame == self._frame:
            self.table = table
            self._sift()

    def filter_by(self, wanted: ObjectFilter) -> None:
        """Keep these objects, and hide the others."""
        self.filter = wanted
        self._sift()

    def choose(self, object_id: int) -> None:
        """Go to an object."""
        self.chosen = object_id
        try:
            self._objects.go_to(object_id)
        except SparseSegError as error:
            self.problem.emit(str(error))
        self.changed.emit()

    def pick(self, object_id: int) -> None:
        """Show which row is that of an object."""
        if object_id != self.chosen:
            self.chosen = object_id
            self.changed.emit()

    def kept_rows(self) -> Any:
        """Rows of the table that the filter keeps, as a DataFrame; None before there is a table."""
        return None if self.table is None else self.table.rows[self.passing].reset_index(drop=True)

    def _sift(self) -> None:
        if self.table is not None:
            self.passing = self.filter.passes(self.table)
            self._objects.hide(self.table.frame, self.table.rows["id"].to_numpy()[~self.passing])
        self.changed.emit()

    def _forget(self) -> None:
        """Hide nothing, and know nothing."""
        if self._frame is not None:
            self._objects.hide(self._frame, np.zeros(0, np.intp))
        self.table = self._frame = None
        self.passing = np.zeros(0, np.bool_)
        self.chosen = NO_OBJECT
        self.changed.emit()
