"""Switchboard: what is wanted of the compute thread, and what it is at. Shared between threads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from threading import RLock
from typing import Any, Literal

from psygnal import SignalInstance

from napari_sparseseg._types import Box, Extra, Shape3D
from napari_sparseseg.live.events import LiveEvents, LiveStatus, View, tell


@dataclass(frozen=True, slots=True, eq=False)
class Find:
    """A wish for the objects in a box of a frame; each is another one."""

    frame: int
    box: Box


@dataclass(frozen=True, slots=True, eq=False)
class Tabulate:
    """A wish for the table of the objects of a frame, kept up to date; each is another one."""

    frame: int


@dataclass(frozen=True, slots=True, eq=False)
class Advise:
    """A wish for a slice to paint next across an axis of a frame, `painted` the indices there are; each is another."""

    frame: int
    axis: int
    painted: tuple[int, ...]
    method: Literal["intervals", "uncertainty"]


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is wanted of one image.

    `once` is the number of the "update once" that is asked for, 0 if none. `hot` is where the latest stroke was made:
    frame, voxel. `find` is where objects are looked for, `table` which objects are measured, `advise` for what a
    slice is looked for. `presence_of` are classes of which it is kept where they are, beside the likeliest one.
    `is_halted` after a failure.
    """

    is_training: bool = False
    is_live: bool = True
    once: int = 0
    is_halted: bool = False
    view: View | None = None
    hot: tuple[int, Shape3D] | None = None
    find: Find | None = None
    table: Tabulate | None = None
    advise: Advise | None = None
    probability_of: int | None = None
    wants_uncertainty: bool = False
    extras: frozenset[Extra] = frozenset()
    presence_of: frozenset[int] = frozenset()


class Switchboard:
    """Wishes and status of one image; each is a frozen record that is replaced as a whole, from any thread.

    One lock is held while a change is told, so that nothing is overtaken by what is older. Once retired, because the
    image was closed or replaced, it is silent and nothing changes any more.
    """

    def __init__(self, events: LiveEvents, wishes: Wishes | None = None, status: LiveStatus | None = None) -> None:
        self.events = events
        self.wishes = wishes or Wishes()
        self.status = status or LiveStatus()
        self._is_retired = False
        self._lock = RLock()

    @property
    def is_retired(self) -> bool:
        return self._is_retired

    @property
    def frame(self) -> int:
        """The frame on screen."""
        view = self.wishes.view
        return view.plane.frame if view else 0

    def wish(self, **changes: Any) -> None:
        """Change what is wanted."""
        with self._lock:
            if not self._is_retired:
                self.wishes = replace(self.wishes, **changes)
                wishes = self.wishes
                self.publish(
                    is_training=wishes.is_training,
                    is_live=wishes.is_live,
                    is_finding=wishes.find is not None,
                    is_advising=wishes.advise is not None,
                )

    def finish_once(self, number: int) -> None:
        """Take back the wish to update once, unless it has been made anew."""
        with self._lock:
            if self.wishes.once == number:
                self.wish(once=0)

    def finish_find(self, find: Find) -> None:
        """Take back the wish for objects, unless it has been made anew."""
        with self._lock:
            if self.wishes.find is find:
                self.wish(find=None)

    def finish_advice(self, advise: Advise) -> None:
        """Take back the wish for a slice, unless it has been made anew."""
        with self._lock:
            if self.wishes.advise is advise:
                self.wish(advise=None)

    def publish(self, **changes: Any) -> None:
        """Change the status, and tell it if it is another one now."""
        with self._lock:
            status = replace(self.status, **changes)
            if status != self.status and not self._is_retired:
                self.status = status
                self.tell(self.events.status_changed, status)

    def tell(self, signal: SignalInstance, *values: Any) -> None:
        """Emit a signal about this image."""
        with self._lock:
            if not self._is_retired:
                tell(signal, *values)

    def retire(self) -> None:
        """Be silent from now on; waits until what is being told has been told."""
        with self._lock:
            self._is_retired = True
