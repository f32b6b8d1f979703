"""PredictionFeed: predicted tiles into the prediction layer, a few milliseconds at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from time import perf_counter

from qtpy.QtCore import QObject, QTimer, Signal

from napari_sparseseg._types import Box, Plane
from napari_sparseseg.live.events import TileUpdate

INTERVAL_MS = 15
BUDGET_SECONDS = 0.004


class PredictionFeed(QObject):
    """Hands tiles out on the GUI thread, those on screen first, and pauses when its share of the time is used up."""

    drained = Signal()
    """All tiles that were there have been handed out."""

    def __init__(
        self,
        apply: Callable[[TileUpdate], None],
        draw: Callable[[], None],
        plane: Callable[[], Plane | None],
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._apply = apply
        self._draw = draw
        self._plane = plane
        self._waiting: dict[tuple[int, Box], TileUpdate] = {}
        self._timer = QTimer(self)
        self._timer.setInterval(INTERVAL_MS)
        self._timer.timeout.connect(self.tick)

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, tiles: Iterable[TileUpdate]) -> None:
        """Take tiles, in the order of their age; of the same box the newest counts."""
        for tile in tiles:
            if tile.is_forgotten:
                self._keep_labels_alone(tile)
            self._waiting.pop((tile.frame, tile.box), None)
            self._waiting[tile.frame, tile.box] = tile
        if self._waiting and not self._timer.isActive():
            self._timer.start()

    def _keep_labels_alone(self, forgotten: TileUpdate) -> None:
        """Labels are read when they are written; what else a waiting tile tells would outlive what is forgotten."""
        for key, tile in self._waiting.items():
            if tile.frame == forgotten.frame and tile.box.clipped(forgotten.box).n_voxels:
                self._waiting[key] = replace(tile, probability=None, uncertainty=None, novelty=None, second=None)

    def clear(self) -> None:
        """Drop what was not handed out."""
        self._waiting.clear()
        self._timer.stop()

    def tick(self, budget: float = BUDGET_SECONDS) -> None:
        """Hand out tiles for `budget` seconds, at least one."""
        end = perf_counter() + budget
        for key in self._by_urgency():
            self._apply(self._waiting.pop(key))
            if perf_counter() > end:
                break
        self._draw()
        if not self._waiting:
            self._timer.stop()
            self.drained.emit()

    def _by_urgency(self) -> list[tuple[int, Box]]:
        plane = self._plane()
        return sorted(self._waiting, key=lambda key: plane is None or not _meets(plane, *key))


def _meets(plane: Plane, frame: int, box: Box) -> bool:
    return frame == plane.frame and box.start[plane.axis] <= plane.index < box.stop[plane.axis]
