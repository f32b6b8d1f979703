"""Suggestions: paint that the program proposes, which the user accepts or refuses."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np

from napari_sparseseg._types import UNPAINTED, Annotation, Box, Plane, Region
from napari_sparseseg.config import PaintConfig
from napari_sparseseg.errors import InputError, SparseSegError
from napari_sparseseg.live.classes import ClassList
from napari_sparseseg.live.events import Suggestion, SuggestionState
from napari_sparseseg.live.failures import explain
from napari_sparseseg.live.opened import Opened
from napari_sparseseg.storage.strokes import PaintEdit, StrokeAuthor

_log = logging.getLogger(__name__)
_NAMES = "zyx"


class Suggestions:
    """Proposes paint. Called from one thread, that of the GUI, like `LiveSegmenter`; computes on the compute thread.

    There is one suggestion at a time. Accepted, it is paint of less weight (`PaintConfig.suggestion_weight`), one
    stroke that can be undone; what was painted stays as it is.
    """

    def __init__(
        self,
        work: Callable[[], Opened | None],
        classes: ClassList,
        painting: Callable[[], PaintConfig],
        take: Callable[[PaintEdit | None], bool],
        compute: Callable[[Callable[[], Any]], Future[Any]],
    ) -> None:
        self._work = work
        self._classes = classes
        self._painting = painting
        self._take = take
        self._compute = compute
        # with the image that it is of: an answer may come while another image is opened
        self._shown: tuple[Opened | None, SuggestionState] = (None, SuggestionState())
        self._asked: Future[Suggestion] | None = None

    @property
    def state(self) -> SuggestionState:
        """What is suggested at the moment, for the image that is open."""
        opened, state = self._shown
        return state if opened is self._work() else SuggestionState()

    def grow(self, plane: Plane) -> None:
        """Suggest what the strokes on a slice belong to: they grow to the outlines of what they lie in.

        Returns at once; `LiveEvents.suggestion_changed` tells of the end. Raises `InputError` without image.
        """
        opened, painting = self._opened(), self._painting()
        self._ask(opened, lambda: self._grown(opened, plane, painting))

    def fill(self, plane: Plane) -> None:
        """Suggest what lies between the two painted slices on either side of this one, of its orientation; as `grow`.

        On a painted slice, the gaps on both sides of it are filled.
        """
        opened = self._opened()
        self._ask(opened, lambda: self._filled(opened, plane))

    def accept(self) -> bool:
        """Make paint of what is suggested, but not over other paint; False if nothing is left of it."""
        opened, suggestion = self._opened(), self.state.suggestion
        self._show(opened, SuggestionState())
        if suggestion is None:
            return False
        box, wanted = suggestion.box, suggestion.codes
        is_free = opened.store.codes[suggestion.frame][box.slices] == UNPAINTED
        region = Region(suggestion.frame, box, is_free & np.isin(wanted, self._classes.ids))
        if not region.mask.any():  # type: ignore[union-attr]  # it was given
            return False
        edit = opened.store.annotate(region, wanted, suggestion.plane, by=StrokeAuthor.SUGGESTION)
        return self._take(edit)

    def refuse(self) -> None:
        """Suggest this no longer; nor what is being computed."""
        self._asked = None
        opened = self._work()
        if opened is not None:
            self._show(opened, SuggestionState())

    # --- compute thread ---

    def _grown(self, opened: Opened, plane: Plane, painting: PaintConfig) -> Suggestion:
        from napari_sparseseg.engine.weak.hints import grow

        annotation, image = self._paint(opened, plane.frame), opened.image
        found = grow(
            image.volume(plane.frame),
            annotation,
            plane.axis,
            plane.index,
            spacing=image.spacing,
            method=painting.growth,
            reach=painting.growth_reach,
            certainty=painting.growth_certainty,
        )
        painted = np.unique(annotation.codes[annotation.coordinates[:, plane.axis] == plane.index])
        if not len(found):
            name = f"{_NAMES[plane.axis]} {plane.index}"
            raise InputError(
                f"nothing is likely enough around the strokes on {name}; paint a little more"
                if len(painted) > 1
                else f"two classes must be painted on {name}, so that strokes know where to stop; paint another one"
            )
        return _suggestion_of(found, plane.frame, plane)

    def _filled(self, opened: Opened, plane: Plane) -> Suggestion:
        from napari_sparseseg.engine.weak.hints import between, painted_slices

        annotation, axis = self._paint(opened, plane.frame), plane.axis
        found = between(annotation, axis, spacing=opened.image.spacing, around=plane.index)
        if not len(found):
            n_slices = len(painted_slices(annotation, axis))
            raise InputError(
                f"two slices across {_NAMES[axis]} must be painted with a gap between them; paint another one"
                if n_slices < 2
                else "the painted slices around this one have no class at the same place; paint one between them"
            )
        return _suggestion_of(found, plane.frame, None)

    def _paint(self, opened: Opened, frame: int) -> Annotation:
        classes, store = self._classes, opened.store
        return store.snapshot(frame, classes=classes.ids, background=classes.background)

    # --- between ---

    def _opened(self) -> Opened:
        opened = self._work()
        if opened is None:
            raise InputError("there is no image yet; open one first")
        return opened

    def _ask(self, opened: Opened, function: Callable[[], Suggestion]) -> None:
        asked = self._asked = self._compute(function)
        self._show(opened, SuggestionState(is_busy=True))
        asked.add_done_callback(lambda future: self._answer(opened, future))

    def _answer(self, opened: Opened, future: Future[Suggestion]) -> None:
        """Take in what was computed, on the compute thread, unless something else was asked for since."""
        if future is not self._asked or future.cancelled():
            return
        self._asked = None
        error = future.exception()
        if isinstance(error, Exception):
            if not isinstance(error, SparseSegError):
                _log.error("nothing could be suggested", exc_info=error)
            self._show(opened, SuggestionState(reason=explain(error)))
        else:
            self._show(opened, SuggestionState(future.result()))

    def _show(self, opened: Opened, state: SuggestionState) -> None:
        is_new = state != self._shown[1]
        self._shown = opened, state
        if is_new:
            opened.switch.tell(opened.switch.events.suggestion_changed, state)


def _suggestion_of(found: Annotation, frame: int, plane: Plane | None) -> Suggestion:
    start, stop = found.coordinates.min(0).tolist(), (found.coordinates.max(0) + 1).tolist()
    box = Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))
    codes = np.zeros(box.shape, np.uint8)
    codes[tuple((found.coordinates - box.start).T)] = found.codes
    return Suggestion(frame, box, codes, plane)
