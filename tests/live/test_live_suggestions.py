"""Suggested paint of the live segmenter: computed on its thread, accepted as one light stroke, or refused."""

from __future__ import annotations

import threading
from concurrent.futures import Future

import numpy as np
import pytest
from livekit import BACKGROUND_BOX, OBJECT_BOX, SHAPE, make_image, make_truth

from napari_sparseseg import Box, InputError, LiveSegmenter, PaintConfig, Plane, Region
from napari_sparseseg.live.events import SuggestionState
from napari_sparseseg.storage.strokes import StrokeAuthor

Z = 6
PLANE = Plane(0, 0, Z)


@pytest.fixture
def live():
    live = LiveSegmenter(paint=PaintConfig(suggestion_weight=0.25))
    live.auto_start = False
    live.told, live.changed = [], threading.Condition()

    def hear(state):
        with live.changed:
            live.told.append((state, threading.current_thread().name))
            live.changed.notify_all()

    live.events.suggestion_changed.connect(hear)
    yield live
    live.close()


def open_it(live):
    live.open(make_image(make_truth(), contrast=8.0))


def paint(live, *boxes_and_classes):
    for box, class_id in boxes_and_classes:
        live.annotate(Region(0, box), class_id, plane=PLANE)


def wait(live):
    """The state once nothing is being computed."""
    with live.changed:
        assert live.changed.wait_for(lambda: not live.suggestions.state.is_busy, 120)
    return live.suggestions.state


STROKE = Box((Z, 19, 15), (Z + 1, 21, 25))


def test_what_grew_is_accepted_as_one_light_stroke(live):
    open_it(live)
    paint(live, (BACKGROUND_BOX, 1), (STROKE, 2))
    live.suggestions.grow(PLANE)
    state = wait(live)
    assert live.told[-1][1] == "sparseseg compute"
    suggestion, truth = state.suggestion, make_truth()
    right = truth[suggestion.box.slices] == suggestion.codes
    assert suggestion.plane == PLANE
    assert (suggestion.codes == 2).sum() > 40
    assert right[suggestion.codes > 0].mean() > 0.9
    before = live.codes.copy()
    assert live.suggestions.accept()
    assert live.suggestions.state.suggestion is None
    np.testing.assert_array_equal(live.codes[before > 0], before[before > 0])
    assert (live.codes > 0).sum() == (before > 0).sum() + (suggestion.codes > 0).sum()
    store = live._store
    assert store.strokes[-1].by is StrokeAuthor.SUGGESTION
    weights = store.snapshot(0, classes=(1, 2), suggestion_weight=0.25).weights
    assert (weights == 0.25).sum() == (suggestion.codes > 0).sum()
    assert live.undo()
    np.testing.assert_array_equal(live.codes, before)
    assert not live.suggestions.accept()


def test_refused_or_of_another_image_it_is_gone(live):
    open_it(live)
    paint(live, (BACKGROUND_BOX, 1), (STROKE, 2))
    live.suggestions.grow(PLANE)
    assert wait(live).suggestion is not None
    live.suggestions.refuse()
    assert live.suggestions.state.suggestion is None
    live.suggestions.grow(PLANE)
    assert wait(live).suggestion is not None
    before = live.codes.copy()
    open_it(live)
    assert live.suggestions.state.suggestion is None
    assert not live.suggestions.accept()
    assert before.any()
    assert not live.codes.any()


class Overtaken(Future):
    """An answer that is taken in while something else happens."""

    def __init__(self, function, happen):
        super().__init__()
        self._happen = happen
        self.set_result(function())

    def exception(self, timeout=None):
        self._happen()
        return super().exception(timeout)


def test_an_answer_that_another_image_overtakes_is_not_accepted_there(live, monkeypatch):
    open_it(live)
    paint(live, (BACKGROUND_BOX, 1), (STROKE, 2))
    monkeypatch.setattr(live.suggestions, "_compute", lambda function: Overtaken(function, lambda: open_it(live)))
    live.suggestions.grow(PLANE)
    assert live.suggestions.state == SuggestionState()
    assert not live.suggestions.accept()
    assert not live.codes.any()


def test_gaps_around_the_slice_are_filled_and_no_others(live):
    open_it(live)
    for z in (1, 4, 9):
        live.annotate_values(
            Region(0, Box((z, 0, 0), (z + 1, *SHAPE[1:]))), make_truth()[z : z + 1], plane=Plane(0, 0, z)
        )
    live.suggestions.fill(PLANE)
    suggestion = wait(live).suggestion
    assert (suggestion.box.start[0], suggestion.box.stop[0]) == (5, 9)
    assert suggestion.plane is None
    assert live.suggestions.accept()
    assert live.codes[0, 2:4].sum() == 0


def test_why_there_is_none_is_said_and_errors_are_raised_at_once(live):
    with pytest.raises(InputError, match="no image"):
        live.suggestions.grow(PLANE)
    open_it(live)
    paint(live, (OBJECT_BOX, 2))
    live.suggestions.grow(PLANE)
    assert "two classes must be painted on z 6" in wait(live).reason
    live.suggestions.fill(PLANE)
    assert "two slices across z" in wait(live).reason


def test_a_class_that_was_removed_is_not_accepted(live):
    open_it(live)
    live.add_class()
    paint(live, (BACKGROUND_BOX, 1), (STROKE, 3))
    live.suggestions.grow(PLANE)
    assert (wait(live).suggestion.codes == 3).any()
    live.remove_class(3)
    live.suggestions.accept()
    assert not (live.codes == 3).any()
