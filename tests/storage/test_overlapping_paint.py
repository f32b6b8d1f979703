"""Paint that says of each class whether it is there: codes for combinations, undone, journalled, kept and learnt."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_strokes import ListJournal, state_of

from napari_sparseseg._types import Box, Plane, Region, Statement
from napari_sparseseg.errors import InputError
from napari_sparseseg.storage._records import sets_of, values_of_sets
from napari_sparseseg.storage.durable import RealDisk
from napari_sparseseg.storage.palette import ClassSet
from napari_sparseseg.storage.project.folds import read_fold, write_fold
from napari_sparseseg.storage.strokes import AnnotationStore, StrokeKind

SHAPE = (1, 2, 4, 6)
IDS = (1, 2, 3, 4)
BACKGROUND = 1

statements = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 4), st.integers(1, 4), st.integers(2, 4), st.booleans()),
    max_size=12,
)


def paint(store, y, x, size, class_id, is_present):
    box = Box((0, y, x), (2, min(4, y + size), min(6, x + size)))
    store.say(Region(0, box), class_id, is_present=is_present, class_ids=IDS, background=BACKGROUND)
    return box


def said_at(store, z, y, x):
    code = int(store.codes[0, z, y, x])
    return store.meanings([code], IDS, BACKGROUND)[code] if code else Statement()


class TestSaying:
    @settings(deadline=None, max_examples=60)
    @given(statements)
    def test_each_voxel_remembers_the_latest_word_on_each_class(self, drawn):
        store, expected = AnnotationStore(SHAPE), np.zeros((5, *SHAPE[1:]), np.int8)
        for y, x, size, class_id, is_present in drawn:
            box = paint(store, y, x, size, class_id, is_present)
            expected[(class_id, *box.slices)] = 1 if is_present else -1
        for z, y, x in np.ndindex(SHAPE[1:]):
            said, known = said_at(store, z, y, x), expected[:, z, y, x]
            assert said.present == frozenset(np.flatnonzero(known == 1).tolist())
            implied = {BACKGROUND} if said.present else set()
            assert said.absent == frozenset(np.flatnonzero(known == -1).tolist()) | implied

    def test_the_background_takes_the_place_of_all_and_gives_way_to_each(self):
        store = AnnotationStore(SHAPE)
        paint(store, 0, 0, 2, 2, True)
        paint(store, 0, 0, 2, BACKGROUND, True)
        assert said_at(store, 0, 0, 0) == Statement(frozenset({1}), frozenset({2, 3, 4}))
        paint(store, 0, 0, 2, 3, False)
        assert said_at(store, 0, 0, 0) == Statement(frozenset({1}), frozenset({2, 3, 4}))
        paint(store, 0, 0, 2, 3, True)
        assert said_at(store, 0, 0, 0) == Statement(frozenset({3}), frozenset({1}))

    def test_single_classes_keep_their_codes(self):
        store = AnnotationStore(SHAPE)
        paint(store, 0, 0, 2, 2, True)
        assert store.codes[0, 0, 0, 0] == 2
        assert not store.sets

    def test_labels_that_were_shown_are_ruled_out_one_by_one(self):
        store, shown = AnnotationStore(SHAPE), np.array([[[2, 3, 0, 2]]], np.uint8)
        region = Region(0, Box((0, 0, 0), (1, 1, 4)))
        store.say(region, shown, is_present=False, class_ids=IDS, background=BACKGROUND, shown=shown)
        assert [said_at(store, 0, 0, x).absent for x in range(4)] == [{2}, {3}, set(), {2}]
        assert store.strokes[-1].kind is StrokeKind.REJECTION

    def test_corrections_are_told_from_confirmations(self):
        store, shown = AnnotationStore(SHAPE), np.array([[[2, 3]]], np.uint8)
        region = Region(0, Box((0, 0, 0), (1, 1, 2)))
        store.say(region, 2, is_present=True, class_ids=IDS, background=BACKGROUND, shown=shown)
        assert [stroke.kind for stroke in store.strokes] == [StrokeKind.CONFIRMATION, StrokeKind.CORRECTION]

    def test_several_objects_are_said_at_once_and_what_was_said_of_others_stays(self):
        journal = ListJournal()
        store, ids = AnnotationStore(SHAPE, journal=journal, clock=lambda: 7.0), np.array([[[5, 5, 6]]], np.int32)
        paint(store, 0, 0, 2, 2, True)
        before = state_of(store)
        region = Region(0, Box((0, 0, 0), (1, 1, 3)))
        assert store.say_objects(region, 3, ids, class_ids=IDS, background=BACKGROUND) is not None
        assert [said_at(store, 0, 0, x).present for x in range(3)] == [{2, 3}, {2, 3}, {3}]
        np.testing.assert_array_equal(store.objects(0, region.box), ids)
        assert [(each.object_id, each.n_voxels) for each in store.strokes[1:]] == [(5, 2), (6, 1)]
        assert store.classes_of_objects(IDS) == {3}
        assert store.say_objects(region, 3, ids, class_ids=IDS, background=BACKGROUND) is None
        after, other = state_of(store), AnnotationStore(SHAPE, clock=lambda: 7.0)
        for record in journal.records:
            assert other.replay(record)
        assert state_of(other) == after
        store.undo()
        assert state_of(store)[:4] == before[:4]
        assert store.classes_of_objects(IDS) == set()
        store.redo()
        assert state_of(store) == after

    @pytest.mark.parametrize("class_id", [128, -1, 1.5])
    def test_impossible_classes_are_refused(self, class_id):
        store = AnnotationStore(SHAPE)
        with pytest.raises(InputError):
            store.say(
                Region(0, Box((0, 0, 0), (1, 1, 1))), class_id, is_present=True, class_ids=IDS, background=BACKGROUND
            )


class TestKeeping:
    def make(self, journal=None):
        store = AnnotationStore(SHAPE, journal=journal, clock=lambda: 7.0)
        for place, class_id, is_present in ((0, 2, True), (1, 3, True), (1, 4, False), (2, BACKGROUND, True)):
            paint(store, place, place, 3, class_id, is_present)
        return store

    def test_undo_and_redo(self):
        store = self.make()
        after = state_of(store)
        for _ in range(4):
            store.undo()
        assert not store.codes.any()
        for _ in range(4):
            store.redo()
        assert state_of(store) == after

    def test_a_journal_tells_it_again(self):
        journal = ListJournal()
        store = self.make(journal)
        other = AnnotationStore(SHAPE, clock=lambda: 7.0)
        for record in journal.records:
            assert other.replay(record)
        assert state_of(other) == state_of(store)

    def test_a_fold_keeps_it(self, tmp_path):
        store = self.make()
        write_fold(RealDisk(), tmp_path / "fold", store.state())
        assert read_fold(tmp_path / "fold", SHAPE).sets == store.sets

    def test_sets_of_the_exclusive_kind_are_written_as_they_were(self):
        sets = {
            128: ClassSet(frozenset({1, 3}), is_forbidding=False),
            130: ClassSet(frozenset({2}), is_forbidding=True),
        }
        assert values_of_sets(sets) == [[128, False, [1, 3]], [130, True, [2]]]
        assert sets_of(values_of_sets(sets)) == sets

    @pytest.mark.parametrize("values", [[128, True, [1], [1]], [128, True, [1], [0]], [128, True, [1], [2], [3]]])
    def test_impossible_sets_are_refused(self, values):
        with pytest.raises(ValueError, match="cannot be"):
            sets_of([values])

    def test_a_class_that_is_removed_is_forgotten_and_the_others_are_not(self):
        store = AnnotationStore(SHAPE)
        paint(store, 0, 0, 2, 2, True)
        paint(store, 0, 0, 2, 3, True)
        paint(store, 0, 0, 2, 4, False)
        store.remove_class(3)
        said = store.meanings([int(store.codes[0, 0, 0, 0])], (1, 2, 4), BACKGROUND)
        assert next(iter(said.values())) == Statement(frozenset({2}), frozenset({1, 4}))


class TestLearning:
    def test_a_snapshot_says_it_of_each_class(self):
        store = AnnotationStore(SHAPE)
        paint(store, 0, 0, 1, 2, True)
        paint(store, 0, 0, 1, 3, True)
        paint(store, 1, 0, 1, 4, False)
        paint(store, 2, 0, 1, BACKGROUND, True)
        taken = store.snapshot(0, classes=IDS, background=BACKGROUND, overlapping=True)
        said = [taken.statement(int(code), IDS, BACKGROUND) for code in taken.codes[:3]]
        assert said[0] == Statement(frozenset({2, 3}), frozenset({1}))
        assert said[1] == Statement(frozenset(), frozenset({4}))
        assert said[2] == Statement(frozenset({1}), frozenset({2, 3, 4}))

    def test_complete_slices_are_background(self):
        store = AnnotationStore(SHAPE)
        paint(store, 0, 0, 1, 2, True)
        store.set_complete(Plane(0, 0, 0), complete=True)
        assert Statement(frozenset({1}), frozenset({2, 3, 4})) in store.statements(IDS, BACKGROUND)
        taken = store.snapshot(0, classes=IDS, background=BACKGROUND, overlapping=True)
        assert len(taken) == 24 + 1
