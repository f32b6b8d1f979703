"""Switchboard: what is wanted of the compute thread, and what it is at. Shared between threads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

from napari_sparseseg._types import Shape3D
from napari_sparseseg.live.events import LiveEvents, LiveStatus, View


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is wanted. `hot` is where the latest stroke was made: frame, voxel. `is_halted` after a failure."""

    is_training: bool = False
    is_live: bool = True
    is_once: bool = False
    is_halted: bool = False
    view: View | None = None
    hot: tuple[int, Shape3D] | None = None
    probability_of: int | None = None
    wants_uncertainty: bool = False


class Switchboard:
    """Wishes and status; each is a frozen record that is replaced as a whole, from any thread."""

    def __init__(self, events: LiveEvents) -> None:
        self.wishes = Wishes()
        self.status = LiveStatus()
        self._events = events
        self._lock = Lock()

    def wish(self, **changes: Any) -> None:
        """Change what is wanted."""
        with self._lock:
            self.wishes = replace(self.wishes, **changes)
        self.publish(is_training=self.wishes.is_training, is_live=self.wishes.is_live)

    def publish(self, **changes: Any) -> None:
        """Change the status, and tell it if it is another one now."""
        with self._lock:
            status = replace(self.status, **changes)
            if status == self.status:
                return
            self.status = status
        self._events.status_changed.emit(status)
