"""A state of the annotation, and the records that follow it, are the annotation: wherever it is cut."""

from __future__ import annotations

import numpy as np
import pytest
from paintkit import SHAPE, contents, do_something

from napari_sparseseg._types import Box, Region
from napari_sparseseg.errors import InputError
from napari_sparseseg.storage.journal import JournalRecord
from napari_sparseseg.storage.strokes import AnnotationStore, StrokeAuthor


class ListJournal:
    error = ""

    def __init__(self):
        self.records = []

    @property
    def ticket(self):
        return len(self.records)

    def append(self, record):
        self.records.append(record)
        return self.ticket


@pytest.mark.parametrize("seed", range(12))
def test_state_and_following_records_are_the_annotation(seed):
    rng = np.random.default_rng(seed)
    journal = ListJournal()
    store = AnnotationStore(SHAPE, journal=journal)
    states = []
    for _ in range(50):
        do_something(store, rng)
        states.append(store.state())
    for state in states[::7]:
        again = AnnotationStore(SHAPE)
        again.restore(state)
        for record in journal.records[state.ticket :]:
            assert again.replay(record)
        assert contents(again) == contents(store)


def test_what_is_older_than_a_state_can_be_undone_and_redone_after_it():
    journal = ListJournal()
    store = AnnotationStore(SHAPE, journal=journal)
    for class_id in (1, 2, 3):
        store.annotate(Region(0, Box((0, 0, class_id), (2, 9, 9))), class_id)
    state = store.state()
    store.undo()
    store.undo()
    store.redo()
    again = AnnotationStore(SHAPE)
    again.restore(state)
    for record in journal.records[state.ticket :]:
        again.replay(record)
    assert again.redo() == store.redo() is not None
    assert contents(again) == contents(store)
    assert not again.can_redo


def test_strokes_say_by_whom_they_were_made():
    journal = ListJournal()
    store = AnnotationStore(SHAPE, journal=journal)
    store.annotate(Region(0, Box((0, 0, 0), (1, 9, 9))), 1)
    store.annotate(Region(0, Box((1, 0, 0), (2, 9, 9))), 2, by=StrokeAuthor.SUGGESTION)
    again = AnnotationStore(SHAPE)
    for record in journal.records:
        again.replay(record)
    assert [stroke.by for stroke in again.strokes] == ["human", "suggestion"]


def test_the_state_of_another_image_is_refused():
    state = AnnotationStore(SHAPE).state()
    with pytest.raises(InputError, match="shape"):
        AnnotationStore((1, 2, 3, 4)).restore(state)


def test_an_undo_of_what_was_never_painted_is_refused():
    journal = ListJournal()
    store = AnnotationStore(SHAPE, journal=journal)
    store.annotate(Region(0, Box((0, 0, 0), (1, 9, 9))), 1)
    store.undo()
    with pytest.raises(InputError, match="not made"):
        AnnotationStore(SHAPE).replay(journal.records[-1])


def test_an_undo_that_would_leave_voxels_of_a_stroke_that_is_gone_is_refused():
    journal = ListJournal()
    store = AnnotationStore(SHAPE, journal=journal)
    store.annotate(Region(0, Box((0, 0, 0), (1, 9, 9))), 1)
    state = store.state()
    store.undo()
    undo = journal.records[-1]
    bits, *others = undo.arrays
    fewer = bits.copy()
    fewer[0] &= 0x7F  # all but the first voxel
    again = AnnotationStore(SHAPE)
    again.restore(state)
    with pytest.raises(InputError, match="undo of less than its strokes"):
        again.replay(JournalRecord("undo", undo.values, (fewer, *others)))
    assert contents(again) != contents(store)
    assert again.replay(undo)
    assert contents(again) == contents(store)
