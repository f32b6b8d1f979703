"""The store of strokes against a model of plain dictionaries, and its rules one by one."""

from __future__ import annotations

import threading
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_sparseseg._types import Box, Plane, Region
from napari_sparseseg.errors import InputError
from napari_sparseseg.storage import strokes as strokes_module
from napari_sparseseg.storage._records import new_stroke_of, values_of
from napari_sparseseg.storage.annotation import drop_uninformative, read_annotation
from napari_sparseseg.storage.journal import JournalRecord
from napari_sparseseg.storage.palette import ClassSet, Palette, any_of, none_of
from napari_sparseseg.storage.strokes import AnnotationStore, Stroke, StrokeAuthor, StrokeKind
from napari_sparseseg.storage.volume import ArrayVolume

SHAPE = (2, 3, 5, 7)
CLASSES = (1, 2, 3)
BACKGROUND = 1


class ListJournal:
    """Keeps records in a list."""

    def __init__(self):
        self.records: list[JournalRecord] = []
        self.error = ""

    def append(self, record: JournalRecord) -> int:
        self.records.append(record)
        return len(self.records)

    def sync(self, ticket: int, timeout: float | None = None) -> bool:
        return True

    def close(self) -> None: ...


def state_of(store: AnnotationStore):
    """All that must survive undo and redo, and a journal."""
    return (
        store.codes.tobytes(),
        store._voxels.ids.tobytes(),
        store.strokes,
        store.painted_slices(),
        store.sets,
        [store.n_painted(frame) for frame in range(store.shape[0])],
        store.painted_classes(),
        store.frames_with_paint(),
    )


def box(*ranges):
    return Box(tuple(a for a, _ in ranges), tuple(b for _, b in ranges))


def whole_slice(frame=0, z=0, mask=None):
    return Region(frame, Plane(frame, 0, z).box(SHAPE[1:]), mask)


def one_voxel(frame, z, y, x):
    return Region(frame, box((z, z + 1), (y, y + 1), (x, x + 1)))


@pytest.fixture
def store():
    return AnnotationStore(SHAPE, clock=lambda: 1000.0)


class TestAnnotate:
    def test_new_store_is_empty(self, store):
        assert store.codes.shape == SHAPE
        assert not store.codes.any()
        assert store.painted_slices() == ()
        assert store.strokes == ()
        assert store.frames_with_paint() == ()
        assert (store.revision, store.can_undo, store.can_redo) == (0, False, False)

    def test_paints_only_the_mask_and_tells_the_tight_box(self, store):
        mask = np.zeros((1, 5, 7), bool)
        mask[0, 1:3, 4] = True
        edit = store.annotate(whole_slice(1, 2, mask), 3, Plane(1, 0, 2))
        assert edit == (1, box((2, 3), (1, 3), (4, 5)))
        assert store.codes[1, 2].sum() == 6
        assert (store.codes[1, 2] == 3).sum() == 2
        assert store.n_painted(1) == 2
        assert store.strokes[0].n_voxels == 2
        assert store.strokes[0].time == 1000.0

    def test_nothing_new_is_no_edit(self, store):
        store.annotate(whole_slice(), 2)
        assert store.annotate(whole_slice(), 2) is None
        assert store.annotate(whole_slice(1), 0) is None
        assert store.annotate(whole_slice(0, 1, np.zeros((1, 5, 7), bool)), 1) is None
        assert (store.revision, len(store.strokes)) == (1, 1)

    def test_an_array_of_codes_paints_and_erases_voxel_by_voxel(self, store):
        store.annotate(whole_slice(), 2)
        wanted = np.arange(35).reshape(1, 5, 7) % 4
        store.annotate(whole_slice(), wanted)
        np.testing.assert_array_equal(store.codes[0, :1], wanted)
        assert [s.kind for s in store.strokes] == [StrokeKind.PAINT, StrokeKind.PAINT, StrokeKind.ERASURE]
        assert (store._voxels.ids[0, 0] == 0).tolist() == (wanted[0] == 0).tolist()

    def test_the_codes_cannot_be_written_from_outside(self, store):
        with pytest.raises(ValueError, match="read-only"):
            store.codes[0] = 1

    def test_numpy_integers_are_welcome(self, store):
        journal = store.journal = ListJournal()
        i = np.int64(1)
        store.annotate(Region(i, Box((i, i, i), (i + 1, i + 2, i + 2))), np.uint8(2), Plane(i, np.int64(0), i))
        store.set_complete(Plane(i, i, i), np.bool_(True))
        assert store.is_complete(Plane(1, 1, 1))
        assert len(journal.records) == 2

    @pytest.mark.parametrize(
        ("region", "codes", "plane", "message"),
        [
            (Region(2, box((0, 1), (0, 1), (0, 1))), 1, None, "frame 2 is out of range"),
            (Region(-1, box((0, 1), (0, 1), (0, 1))), 1, None, "frame -1 is out of range"),
            (Region(0, box((0, 1), (0, 1), (0, 8))), 1, None, "reaches out of the image"),
            (Region(0, box((-1, 1), (0, 1), (0, 1))), 1, None, "reaches out of the image"),
            (Region(0, box((1, 1), (0, 1), (0, 1))), 1, None, "is empty"),
            (Region(0, box((0, 1), (0, 1), (0, 1)), np.ones((1, 1, 2), bool)), 1, None, "the mask has shape"),
            (Region(0, box((0, 1), (0, 1), (0, 1))), 128, None, "code 128 stands for nothing"),
            (Region(0, box((0, 1), (0, 1), (0, 1))), 255, None, "codes are 0 to 254"),
            (Region(0, box((0, 1), (0, 1), (0, 1))), -1, None, "codes are 0 to 254"),
            (Region(0, box((0, 1), (0, 1), (0, 1))), np.ones((1, 2)), None, "codes must be integers"),
            (Region(0, box((0, 1), (0, 1), (0, 1))), np.ones((1, 1, 1)), None, "codes must be integers"),
            (Region(0, box((0, 1), (0, 1), (0, 1))), 1, Plane(0, 0, 3), "is not a slice"),
            (Region(0, box((0, 1), (0, 1), (0, 1))), 1, Plane(0, 3, 0), "is not a slice"),
            (Region(0, box((0, 1), (0, 1), (0, 1))), 1, Plane(5, 0, 0), "frame 5 is out of range"),
        ],
    )
    def test_what_cannot_be_is_refused_and_changes_nothing(self, store, region, codes, plane, message):
        before = state_of(store)
        with pytest.raises(InputError, match=message):
            store.annotate(region, codes, plane)
        assert state_of(store) == before
        assert store.revision == 0

    def test_an_image_without_voxels_is_refused(self):
        with pytest.raises(InputError, match="no voxels"):
            AnnotationStore((1, 0, 5, 5))


class TestCorrect:
    def correct(self, store, class_id, shown, before=0, class_ids=CLASSES, background=BACKGROUND):
        """The code of a voxel with this code that showed this label, after a stroke."""
        region = one_voxel(0, 1, 2, 3)
        if before:
            store.annotate(region, before)
        shown = np.full((1, 1, 1), shown, np.uint8)
        edit = store.correct(region, class_id, shown, Plane(0, 0, 1), class_ids=class_ids, background=background)
        return edit, int(store.codes[0, 1, 2, 3])

    @pytest.mark.parametrize(
        ("shown", "before", "kind"),
        [
            (3, 0, StrokeKind.CORRECTION),
            (0, 0, StrokeKind.CORRECTION),
            (2, 0, StrokeKind.CONFIRMATION),
            (3, 3, StrokeKind.CORRECTION),
            (2, 3, StrokeKind.CORRECTION),
        ],
    )
    def test_a_class_pins(self, store, shown, before, kind):
        edit, code = self.correct(store, 2, shown, before)
        assert edit is not None
        assert code == 2
        assert store.strokes[-1].kind is kind

    def test_a_class_pins_a_narrowed_voxel(self, store):
        _, code = self.correct(store, 2, 2, store.code_for(none_of=[3]))
        assert (code, store.strokes[-1].kind) == (2, StrokeKind.CONFIRMATION)

    def test_what_is_pinned_already_stays_as_it_was(self, store):
        edit, code = self.correct(store, 2, 2, before=2)
        assert (edit, code) == (None, 2)

    def test_one_stroke_corrects_and_confirms_and_one_undo_takes_both_back(self, store):
        before = state_of(store)
        shown = np.full((1, 5, 7), 2, np.uint8)
        shown[0, :2] = 3
        store.correct(whole_slice(), 2, shown, Plane(0, 0, 0), class_ids=CLASSES, background=BACKGROUND)
        assert [(s.kind, s.n_voxels) for s in store.strokes] == [
            (StrokeKind.CONFIRMATION, 21),
            (StrokeKind.CORRECTION, 14),
        ]
        np.testing.assert_array_equal(store._voxels.ids[0, 0], np.where(shown[0] == 2, 1, 2))
        store.undo()
        assert state_of(store) == before

    @pytest.mark.parametrize("class_id", [3, BACKGROUND])
    def test_erasing_releases_a_pinned_voxel(self, store, class_id):
        _, code = self.correct(store, 0, class_id, before=class_id)
        assert (code, store.strokes[-1].kind) == (0, StrokeKind.ERASURE)

    @pytest.mark.parametrize("shown", [0, BACKGROUND])
    def test_erasing_what_shows_nothing_says_nothing(self, store, shown):
        assert self.correct(store, 0, shown) == (None, 0)

    def test_erasing_narrows(self, store):
        _, code = self.correct(store, 0, 2)
        assert store.allowed(code, CLASSES) == {1, 3}
        assert store.allowed(code, (*CLASSES, 4)) == {1, 3, 4}
        assert store.strokes[-1].kind is StrokeKind.REJECTION

    def test_strokes_intersect_until_one_class_remains(self, store):
        _, code = self.correct(store, 0, 2)
        _, code = self.correct(store, 0, 3)
        assert code == 1

    def test_where_none_would_remain_the_last_stroke_wins(self, store):
        code = store.code_for(any_of=[2, 4])
        _, code = self.correct(store, 0, 2, before=code)
        assert store.sets[code] == none_of([2])

    def test_a_set_of_allowed_classes_is_narrowed_too(self, store):
        _, code = self.correct(store, 0, 2, before=store.code_for(any_of=[2, 3, 4]), class_ids=(1, 2, 3, 4))
        assert store.sets[code] == any_of([3, 4])

    def test_excluding_what_is_excluded_changes_nothing(self, store):
        before = store.code_for(none_of=[2])
        assert self.correct(store, 0, 2, before=before) == (None, before)

    def test_of_the_only_class_not_this_one_is_remembered(self, store):
        _, code = self.correct(store, 0, 2, class_ids=(2,), background=None)
        assert store.sets[code] == none_of([2])
        assert len(store.snapshot(0, classes=(2,))) == 0
        assert len(store.snapshot(0, classes=(2, 5, 6))) == 1

    def test_outside_the_mask_nothing_gets_a_code(self, store):
        mask = np.zeros((1, 5, 7), bool)
        mask[0, 0, 0] = True
        shown = np.full((1, 5, 7), 3, np.uint8)
        shown[0, 0, 0] = 2
        store.correct(whole_slice(mask=mask), 0, shown, class_ids=CLASSES, background=BACKGROUND)
        assert list(store.sets.values()) == [none_of([2])]
        assert store.n_painted(0) == 1

    @pytest.mark.parametrize("class_id", [-1, 128])
    def test_impossible_classes_are_refused(self, store, class_id):
        shown = np.zeros((1, 5, 7), np.uint8)
        with pytest.raises(InputError, match="out of range"):
            store.correct(whole_slice(), class_id, shown, class_ids=CLASSES, background=BACKGROUND)

    @pytest.mark.parametrize(
        ("shown", "message"),
        [
            (np.zeros((1, 5), np.uint8), "must be integers of shape"),
            (np.zeros((1, 5, 7)), "must be integers of shape"),
            (np.full((1, 5, 7), 200), "labels are 0 to 127"),
            (np.full((1, 5, 7), -1), "labels are 0 to 127"),
        ],
    )
    def test_impossible_labels_are_refused(self, store, shown, message):
        with pytest.raises(InputError, match=message):
            store.correct(whole_slice(), 2, shown, class_ids=CLASSES, background=BACKGROUND)


class TestUndo:
    def test_there_is_nothing_to_undo_at_first(self, store):
        assert store.undo() is None
        assert store.redo() is None
        assert store.revision == 0

    def test_undo_and_redo_restore_every_bit(self, store):
        states = [state_of(store)]
        rng = np.random.default_rng(0)
        for i in range(6):
            region = whole_slice(i % 2, i % 3, rng.random((1, 5, 7)) < 0.5)
            store.annotate(region, rng.integers(0, 4, (1, 5, 7)), Plane(i % 2, 0, i % 3))
            states.append(state_of(store))
        for expected in states[-2::-1]:
            assert isinstance(store.undo(), strokes_module.PaintEdit)
            assert state_of(store) == expected
        assert store.undo() is None
        for expected in states[1:]:
            assert store.redo() is not None
            assert state_of(store) == expected
        assert store.redo() is None
        assert store.revision == 18

    def test_a_new_stroke_ends_the_redo(self, store):
        store.annotate(whole_slice(), 1)
        store.undo()
        assert store.can_redo
        store.annotate(whole_slice(z=1), 2)
        assert not store.can_redo
        assert store.strokes[0].number == 1

    def test_the_history_is_bounded_by_number(self, store, monkeypatch):
        monkeypatch.setattr(strokes_module, "MAX_EDITS", 3)
        store = AnnotationStore(SHAPE)
        for i in range(5):
            store.annotate(one_voxel(0, 0, 0, i), 1)
        assert sum(store.undo() is not None for _ in range(5)) == 3
        assert store.n_painted(0) == 2

    def test_the_history_is_bounded_by_memory_but_keeps_the_newest(self, monkeypatch):
        monkeypatch.setattr(strokes_module, "MAX_HISTORY_BYTES", 20)
        store = AnnotationStore(SHAPE)
        for i in range(5):
            store.annotate(one_voxel(0, 0, 0, i), 1)
        assert sum(store.undo() is not None for _ in range(5)) == 3
        store.annotate(Region(0, Box.whole(SHAPE[1:])), np.arange(105).reshape(SHAPE[1:]) % 3)
        assert store.undo() is not None
        assert store.undo() is None

    def test_a_whole_volume_takes_a_bit_per_voxel(self):
        store = AnnotationStore((1, 32, 64, 64))
        store.annotate(Region(0, Box.whole((32, 64, 64))), 1)
        assert store._history.to_undo.n_bytes < 32 * 64 * 64 // 8 + 100


class TestComplete:
    def test_unpainted_voxels_become_background_in_the_snapshot_only(self, store):
        store.annotate(one_voxel(0, 1, 2, 3), 2, Plane(0, 0, 1))
        assert store.set_complete(Plane(0, 0, 1), True) == (0, Plane(0, 0, 1).box(SHAPE[1:]))
        assert store.n_painted(0) == 1
        snapshot = store.snapshot(0, classes=CLASSES, background=BACKGROUND)
        assert np.bincount(snapshot.codes).tolist() == [0, 34, 1]
        assert (snapshot.weights == 1).all()
        assert len(store.snapshot(0, classes=CLASSES)) == 1
        assert store.painted_classes(BACKGROUND) == (1, 2)
        assert store.painted_classes() == (2,)

    def test_planes_that_cross_are_taken_back_one_by_one(self, store):
        first, second, third = Plane(0, 0, 1), Plane(0, 2, 4), Plane(1, 1, 2)
        for plane in (first, second, third):
            store.set_complete(plane, True)
        store.set_complete(first, False)
        snapshot = store.snapshot(0, classes=CLASSES, background=BACKGROUND)
        assert len(snapshot) == 15
        assert (snapshot.coordinates[:, 2] == 4).all()
        store.set_complete(second, False)
        assert len(store.snapshot(0, classes=CLASSES, background=BACKGROUND)) == 0
        assert store.frames_with_paint() == (1,)

    def test_no_change_is_no_revision(self, store):
        assert store.set_complete(Plane(0, 0, 1), False) is None
        store.set_complete(Plane(0, 0, 1), True)
        assert store.set_complete(Plane(0, 0, 1), True) is None
        assert store.revision == 1
        assert not store.can_undo

    @pytest.mark.parametrize(
        "plane", [Plane(0, 0, 3), Plane(0, 1, 5), Plane(0, -1, 0), Plane(2, 0, 0), Plane(0, 0, -1)]
    )
    def test_a_slice_outside_the_image_is_refused(self, store, plane):
        with pytest.raises(InputError):
            store.set_complete(plane, True)

    def test_slices_are_listed_in_order_with_what_is_left_of_them(self, store):
        store.annotate(whole_slice(1, 2), 1, Plane(1, 0, 2))
        store.annotate(whole_slice(0, 2), 1, Plane(0, 0, 2))
        store.annotate(Region(0, Plane(0, 2, 0).box(SHAPE[1:])), 2, Plane(0, 2, 0))
        store.annotate(whole_slice(0, 1), 3)
        store.set_complete(Plane(0, 1, 3), True)
        store.set_complete(Plane(0, 0, 2), True)
        assert store.painted_slices() == (
            (Plane(0, 0, 2), 30, True),
            (Plane(0, 1, 3), 0, True),
            (Plane(0, 2, 0), 10, False),
            (Plane(1, 0, 2), 35, False),
        )
        store.annotate(whole_slice(1, 2), 0)
        assert Plane(1, 0, 2) not in [painted.plane for painted in store.painted_slices()]


class TestSets:
    def test_the_same_set_has_the_same_code(self, store):
        code = store.code_for(any_of=[1, 3])
        assert code == store.code_for(any_of=(3, 1)) >= 128
        assert store.code_for(none_of=[1, 3]) != code
        assert store.code_for(any_of=[2]) == 2
        assert store.allowed(code, CLASSES) == {1, 3}
        assert store.allowed(0, CLASSES) == {1, 2, 3}
        assert store.allowed(2, CLASSES) == {2}

    def test_a_code_that_lost_its_meaning_says_nothing(self, store):
        assert store.allowed(200, CLASSES) == {1, 2, 3}

    @pytest.mark.parametrize("wanted", [{}, {"any_of": [1], "none_of": [2]}, {"any_of": []}])
    def test_a_set_must_be_named_one_way(self, store, wanted):
        with pytest.raises(InputError, match="name the classes"):
            store.code_for(**wanted)

    @pytest.mark.parametrize("class_id", [0, 128])
    def test_impossible_classes_are_refused(self, store, class_id):
        with pytest.raises(InputError, match="out of range"):
            store.code_for(none_of=[class_id])
        with pytest.raises(InputError, match="out of range"):
            store.remove_class(class_id)

    def test_codes_of_sets_that_nobody_uses_are_given_away(self, store):
        used = store.code_for(none_of=[127])
        store.annotate(one_voxel(0, 0, 0, 0), used)
        undone = store.code_for(none_of=[126])
        store.annotate(one_voxel(0, 0, 0, 1), undone)
        store.undo()
        for class_id in range(1, 126):
            store.code_for(none_of=[class_id])
        assert len(store.sets) == 127
        new = store.code_for(any_of=[1, 2])
        assert set(store.sets) == {used, undone, new}
        store.redo()
        assert store.allowed(int(store.codes[0, 0, 0, 1]), (125, 126)) == {125}

    def test_the_set_that_a_brush_is_about_to_paint_is_not_given_away(self):
        store = AnnotationStore((1, 1, 1, 200))
        classes = {"class_ids": range(1, 128), "background": None}
        brush = store.code_for(any_of=[1, 2])
        all_but_one = np.arange(1, 127, dtype=np.uint8).reshape(1, 1, 126)
        store.correct(Region(0, Box((0, 0, 0), (1, 1, 126))), 0, all_but_one, **classes)
        assert len(store.sets) == 127
        before = state_of(store)
        with pytest.raises(InputError, match="more than 127 different sets"):
            store.correct(one_voxel(0, 0, 0, 130), 0, np.full((1, 1, 1), 127, np.uint8), **classes)
        assert state_of(store) == before
        assert store.allowed(brush, CLASSES) == {1, 2}
        other = store.code_for(any_of=[1, 3])  # the brush paints this instead
        assert store.allowed(other, CLASSES) == {1, 3}

    def test_more_sets_than_codes_are_refused_without_a_trace(self):
        store = AnnotationStore((1, 1, 1, 200))
        for i in range(127):
            store.annotate(one_voxel(0, 0, 0, i), store.code_for(any_of=[i + 1, (i + 1) % 127 + 1]))
        before = state_of(store)
        with pytest.raises(InputError, match="more than 127 different sets"):
            store.code_for(none_of=[5])
        with pytest.raises(InputError, match="more than 127 different sets"):
            store.correct(
                one_voxel(0, 0, 0, 150), 0, np.full((1, 1, 1), 2, np.uint8), class_ids=CLASSES, background=None
            )
        assert state_of(store) == before

    def test_a_palette_finds_room_for_several_at_once(self):
        palette = Palette().with_sets([none_of([i]) for i in range(1, 127)], set)
        wanted = [none_of([1]), any_of([1, 2]), any_of([1, 3])]
        assert set(palette.with_sets(wanted, set).sets.values()) == set(wanted)


class TestRemoveClass:
    def test_its_voxels_become_unpainted_and_it_leaves_the_sets(self, store):
        store.annotate(whole_slice(0, 0), 2, Plane(0, 0, 0))
        store.annotate(one_voxel(1, 0, 0, 0), store.code_for(any_of=[1, 2, 3]))
        store.annotate(one_voxel(1, 0, 0, 1), store.code_for(any_of=[1, 2]))
        store.annotate(one_voxel(1, 0, 0, 2), store.code_for(none_of=[2]))
        store.annotate(one_voxel(1, 0, 0, 3), store.code_for(none_of=[2, 3]))
        store.annotate(one_voxel(1, 0, 0, 4), store.code_for(none_of=[3]))
        changed = store.remove_class(2)
        assert changed == ((0, Plane(0, 0, 0).box(SHAPE[1:])), (1, box((0, 1), (0, 1), (1, 4))))
        codes = store.codes[1, 0, 0].tolist()
        assert store.sets[codes[0]] == any_of([1, 3])
        assert codes[1:3] == [1, 0]
        assert codes[3] == codes[4]
        assert store.sets[codes[3]] == none_of([3])
        assert not store.codes[0].any()
        assert not store.can_undo
        assert [painted.plane for painted in store.painted_slices()] == []

    def test_with_the_remaining_classes_sets_that_say_nothing_are_dropped(self, store):
        voxels = {0: {"none_of": [2, 3]}, 1: {"none_of": [1, 2, 4]}, 2: {"any_of": [1, 3, 4]}, 3: {"none_of": [1, 3]}}
        for x, wanted in voxels.items():
            store.annotate(one_voxel(0, 0, 0, x), store.code_for(**wanted))
        store.remove_class(2, class_ids=(1, 2, 3, 4))
        one_class, everything = int(store.codes[0, 0, 0, 1]), int(store.codes[0, 0, 0, 2])
        assert (one_class, everything) == (3, 0)
        assert store.sets[int(store.codes[0, 0, 0, 0])] == none_of([3])
        assert store.codes[0, 0, 0, 3] == 4

    def test_a_class_that_nobody_painted_can_go(self, store):
        assert store.remove_class(9) == ()
        assert store.revision == 1


class TestSnapshot:
    def test_equals_what_is_read_from_the_dense_array(self):
        rng = np.random.default_rng(1)
        shape = (4, 9, 35)
        store = AnnotationStore((3, *shape))
        sets = {store.code_for(any_of=[1, 3]): {1, 3}, store.code_for(none_of=[3]): {1, 2}}
        for frame in range(3):
            wanted = rng.choice([0, 0, 0, 1, 2, 3, *sets], shape)
            store.annotate(Region(frame, Box.whole(shape)), wanted)
        for frame in range(3):
            dense = store.codes[frame]
            expected = read_annotation(dense, ArrayVolume(np.zeros(shape)), allowed=sets)
            found = store.snapshot(frame, classes=CLASSES, background=BACKGROUND)
            for name in ("coordinates", "codes", "weights"):
                np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
                assert getattr(found, name).dtype == getattr(expected, name).dtype
            assert found.allowed == expected.allowed
            assert found.shape == expected.shape
            assert found.classes() == CLASSES

    def test_sets_that_say_nothing_and_unknown_classes_are_left_out(self, store):
        for x, code in enumerate((1, 9, store.code_for(none_of=[9]), store.code_for(any_of=[7, 8]))):
            store.annotate(one_voxel(0, 0, 0, x), code)
        snapshot = store.snapshot(0, classes=CLASSES)
        assert snapshot.codes.tolist() == [1]
        assert snapshot.allowed == {}
        assert drop_uninformative(snapshot, CLASSES) is snapshot

    def test_a_frame_without_paint_gives_an_empty_annotation(self, store):
        snapshot = store.snapshot(1, classes=CLASSES)
        assert len(snapshot) == 0
        assert snapshot.coordinates.shape == (0, 3)
        assert snapshot.coordinates.dtype == np.int32
        with pytest.raises(InputError):
            store.snapshot(2, classes=CLASSES)

    def test_corrections_weigh_more_and_fade(self, store):
        def weights():
            return store.snapshot(0, classes=CLASSES, correction_weight=3, halving=2).weights.tolist()

        shown = np.full((1, 1, 1), 3, np.uint8)
        store.correct(one_voxel(0, 0, 0, 0), 2, shown, class_ids=CLASSES, background=BACKGROUND)
        assert weights() == [3]
        store.correct(one_voxel(0, 0, 0, 1), 3, shown, class_ids=CLASSES, background=BACKGROUND)
        store.annotate(one_voxel(0, 0, 0, 2), 1)
        assert weights() == [2, 1, 1]
        for i in range(63):
            store.annotate(one_voxel(1, 0, 0, 0), 1 + i % 2)
        assert weights() == [1, 1, 1]

    def test_taken_while_another_thread_paints_is_never_torn(self):
        shape = (1, 2, 64, 64)
        store = AnnotationStore(shape)
        plane = Region(0, box((1, 2), (0, 64), (0, 64)))
        store.annotate(plane, 1)
        is_over = threading.Event()
        problems, n_taken = [], 0

        def paint():
            for i in range(300):
                store.annotate(plane, 2 - i % 2)
                if i % 7 == 0:
                    store.undo()
                    store.redo()
            is_over.set()

        writer = threading.Thread(target=paint)
        writer.start()
        while not is_over.is_set() or not n_taken:
            snapshot = store.snapshot(0, classes=CLASSES, background=BACKGROUND)
            n_taken += 1
            if len(snapshot) != 64 * 64 or len(np.unique(snapshot.codes)) != 1:
                problems.append(snapshot)
        writer.join()
        assert not problems


class TestManyStrokes:
    def test_old_strokes_are_merged_by_kind_and_slice(self, monkeypatch):
        monkeypatch.setattr(strokes_module, "MAX_STROKES", 12)
        store = AnnotationStore(SHAPE)
        for i in range(12):
            store.annotate(one_voxel(0, i % 3, i // 7, i % 7), 1 + i % 2, Plane(0, 0, i % 3))
        before = [(painted.plane, painted.n_voxels) for painted in store.painted_slices()]
        codes = store.codes.copy()
        store.annotate(one_voxel(1, 0, 0, 0), 1, Plane(1, 0, 0))
        assert [(p.plane, p.n_voxels) for p in store.painted_slices()] == [*before, (Plane(1, 0, 0), 1)]
        np.testing.assert_array_equal(store.codes[0], codes[0])
        numbers = [stroke.number for stroke in store.strokes]
        assert numbers == sorted(numbers)
        assert numbers[-5:] == [9, 10, 11, 12, 13]
        assert [stroke.n_voxels for stroke in store.strokes] == [2, 3, 3, 1, 1, 1, 1, 1]
        assert (np.bincount(store._voxels.ids.ravel()) == store._voxels.n_of_id[:9]).all()
        assert store.undo() is not None
        assert store.undo() is None

    def test_strokes_of_which_nothing_is_left_are_forgotten(self, monkeypatch):
        monkeypatch.setattr(strokes_module, "MAX_STROKES", 12)
        store = AnnotationStore(SHAPE)
        for i in range(100):
            store.annotate(whole_slice(), 1 + i % 3, Plane(0, 0, 0))
        assert len(store.strokes) <= 12
        assert store.strokes[-1].number == 100
        assert store.painted_slices() == ((Plane(0, 0, 0), 35, False),)

    def test_too_many_slices_are_merged_by_kind(self, monkeypatch):
        monkeypatch.setattr(strokes_module, "MAX_STROKES", 6)
        store = AnnotationStore((1, 40, 1, 1))
        for z in range(40):
            store.annotate(one_voxel(0, z, 0, 0), 1, Plane(0, 0, z))
        assert len(store.strokes) <= 6
        assert store.strokes[0].plane is None
        assert store.n_painted(0) == 40
        assert store._voxels.n_of_id[1:].sum() == 40


masks = st.binary(min_size=14, max_size=14).map(lambda b: np.unpackbits(np.frombuffer(b, np.uint8))[:105].astype(bool))


class TestObjects:
    def test_an_id_is_that_of_the_voxel_and_goes_with_undo(self, store):
        store.annotate(whole_slice(), 2, object_id=7)
        store.annotate(one_voxel(0, 0, 1, 1), 2, object_id=9)
        assert store.objects(0, box((0, 1), (1, 2), (0, 3))).ravel().tolist() == [7, 9, 7]
        assert (store.object_ids(0), store.object_ids(1), store.next_object_id) == ((7, 9), (), 10)
        store.undo()
        assert (store.object_ids(0), store.next_object_id) == ((7,), 8)
        store.redo()
        assert store.object_ids(0) == (7, 9)

    def test_paint_without_an_id_leaves_the_id_where_the_class_stays(self, store):
        store.annotate(whole_slice(), 2, object_id=7)
        assert store.annotate(whole_slice(), 2) is None
        assert store.annotate(whole_slice(), 2, object_id=7) is None
        assert store.annotate(one_voxel(0, 0, 0, 0), 3) is not None
        assert store.objects(0, box((0, 1), (0, 1), (0, 2))).ravel().tolist() == [0, 7]

    @pytest.mark.parametrize("erase", ["annotation", "prediction"])
    def test_what_is_erased_belongs_to_nothing(self, store, erase):
        store.annotate(whole_slice(), 2, object_id=7)
        if erase == "annotation":
            store.annotate(whole_slice(), 0, object_id=7)
        else:
            shown = np.full((1, 5, 7), 2, np.uint8)
            store.correct(whole_slice(), 0, shown, class_ids=CLASSES, background=BACKGROUND, object_id=7)
        assert store.object_ids(0) == ()
        assert [stroke.object_id for stroke in store.strokes] == [7, 0]

    def test_a_correction_can_name_the_object(self, store):
        shown = np.full((1, 5, 7), 2, np.uint8)
        for object_id in (4, 5):
            store.correct(whole_slice(), 2, shown, class_ids=CLASSES, background=BACKGROUND, object_id=object_id)
            assert store.object_ids(0) == (object_id,)
        assert {stroke.kind for stroke in store.strokes} == {StrokeKind.CONFIRMATION}

    def test_the_snapshot_has_ids_only_where_some_were_painted(self, store):
        store.annotate(whole_slice(1), 2)
        assert store.snapshot(1, classes=CLASSES).objects is None
        store.annotate(one_voxel(0, 0, 0, 0), 2, object_id=3)
        assert store.snapshot(1, classes=CLASSES).objects is None
        store.annotate(one_voxel(0, 1, 0, 0), 1)
        store.set_complete(Plane(0, 1, 0), True)
        found = store.snapshot(0, classes=CLASSES, background=BACKGROUND)
        assert found.objects.dtype == np.int32
        assert found.objects.tolist() == [3, *[0] * (len(found) - 1)]
        assert found.codes[found.objects > 0].tolist() == [2]

    @pytest.mark.parametrize(
        ("code", "object_id", "message"),
        [(2, -1, "object -1 is out of range"), (2, 2**31, "out of range"), (128, 4, "needs a class")],
    )
    def test_what_cannot_be_an_object_is_refused(self, store, code, object_id, message):
        assert store.code_for(any_of=(1, 2)) == 128
        with pytest.raises(InputError, match=message):
            store.annotate(whole_slice(), code, object_id=object_id)
        assert store.revision == 0

    def test_the_journal_brings_them_back(self):
        store = AnnotationStore(SHAPE, journal=ListJournal())
        store.annotate(whole_slice(), 2, object_id=7)
        store.annotate(one_voxel(0, 0, 1, 1), 2, object_id=9)
        store.annotate(whole_slice(1), 2, object_id=9)
        store.undo()
        other = AnnotationStore(SHAPE)
        for record in store.journal.records:
            assert other.replay(record)
        assert state_of(other) == state_of(store)
        assert other.object_ids(0) == (7, 9)

    def test_several_at_once_are_one_edit_with_a_stroke_for_each(self, store):
        store.annotate(whole_slice(), 3)
        ids = np.arange(35, dtype=np.int32).reshape(1, 5, 7) // 14
        codes = np.where(ids == 1, 3, 2)
        mask = np.ones((1, 5, 7), bool)
        mask[0, 0, 0] = False
        before = state_of(store)
        assert store.annotate_objects(whole_slice(mask=mask), codes, ids, Plane(0, 0, 0)) is not None
        found = store.objects(0, whole_slice().box)
        np.testing.assert_array_equal(found, ids)
        assert store.codes[0, 0, 0, 0] == 3
        np.testing.assert_array_equal(store.codes[0, 0][mask[0]], codes[mask])
        assert [(s.object_id, s.n_voxels) for s in store.strokes[1:]] == [(0, 13), (1, 14), (2, 7)]
        assert store.annotate_objects(whole_slice(mask=mask), codes, ids) is None
        after = state_of(store)
        store.undo()
        assert state_of(store) == before
        store.redo()
        assert state_of(store) == after

    def test_too_many_at_once_are_refused(self):
        store = AnnotationStore((1, 1, 16, 17))
        ids = np.arange(272, dtype=np.int32).reshape(1, 16, 17)
        with pytest.raises(InputError, match="272 objects were painted at once"):
            store.annotate_objects(Region(0, Box.whole(ids.shape)), np.full(ids.shape, 2), ids)
        assert store.revision == 0

    @given(st.integers(0, 2**31 - 1), st.sampled_from(StrokeAuthor), st.sampled_from(StrokeKind))
    def test_a_stroke_is_what_was_recorded(self, object_id, by, kind):
        stroke = Stroke(1, kind, 5.0, Plane(0, 1, 2), 3, by, object_id)
        assert Stroke(1, *new_stroke_of(values_of(stroke))) == stroke

    def test_strokes_of_older_versions_belong_to_no_object(self):
        for older in (["paint", 5.0, None, 3], ["paint", 5.0, None, 3, "suggestion"]):
            stroke = Stroke(1, *new_stroke_of(older))
            assert stroke.object_id == 0
            assert values_of(stroke) == older

    @pytest.mark.parametrize("object_id", [-1, 2**31, 1.5, "2", None, True])
    def test_a_recorded_id_that_cannot_be_is_refused(self, object_id):
        with pytest.raises(ValueError, match="is no object"):
            new_stroke_of(["paint", 5.0, None, 3, "human", object_id])


class TestManyObjects:
    def test_merging_keeps_objects_apart(self, monkeypatch):
        monkeypatch.setattr(strokes_module, "MAX_STROKES", 12)
        store = AnnotationStore((1, 1, 8, 8))
        for i in range(40):
            where = box((0, 1), (i // 8, i // 8 + 1), (i % 8, i % 8 + 1))
            store.annotate(Region(0, where), 2, Plane(0, 0, 0), object_id=i % 3)
        assert len(store.strokes) <= 12
        assert store.objects(0, box((0, 1), (0, 5), (0, 8))).ravel().tolist() == [i % 3 for i in range(40)]

    def test_one_object_too_many_is_refused_and_all_else_goes_on(self, monkeypatch):
        monkeypatch.setattr(strokes_module, "MAX_STROKES", 60)
        store = AnnotationStore((1, 1, 10, 10))
        places = [Region(0, box((0, 1), (i // 10, i // 10 + 1), (i % 10, i % 10 + 1))) for i in range(100)]
        for i in range(30):
            store.annotate(places[i], 2, object_id=i + 1)
        before = state_of(store)
        with pytest.raises(InputError, match="object 31 is one too many: 30 objects"):
            store.annotate(places[30], 2, object_id=31)
        assert state_of(store) == before
        for _ in range(5):
            for i in range(30):
                store.annotate(places[30 + i], 2 + i % 2, object_id=i + 1)
                store.annotate(places[30 + i], 0)
            for i in range(60, 100):
                store.annotate(places[i], 2)
                store.annotate(places[i], 0)
        assert store.object_ids(0) == tuple(range(1, 31))
        store.annotate(places[0], 0)
        assert store.annotate(places[30], 2, object_id=31) is not None


@st.composite
def regions(draw):
    start, stop = [], []
    for size in SHAPE[1:]:
        a = draw(st.integers(0, size - 1))
        start.append(a)
        stop.append(draw(st.integers(a + 1, size)))
    block = Box(tuple(start), tuple(stop))
    mask = draw(st.none() | masks)
    return Region(draw(st.integers(0, 1)), block, None if mask is None else mask[: block.n_voxels].reshape(block.shape))


planes = st.builds(
    lambda f, a, i: Plane(f, a, i % SHAPE[1 + a]), st.integers(0, 1), st.integers(0, 2), st.integers(0, 6)
)
actions = st.one_of(
    st.tuples(st.just("annotate"), regions(), st.integers(0, 3), planes),
    st.tuples(st.just("values"), regions(), st.integers(0, 2**32 - 1), planes),
    st.tuples(st.just("correct"), regions(), st.integers(0, 3), st.integers(0, 2**32 - 1), planes),
    st.tuples(st.just("correct"), regions(), st.just(0), st.integers(0, 2**32 - 1), planes),
    st.tuples(st.just("undo")),
    st.tuples(st.just("redo")),
    st.tuples(st.just("complete"), planes, st.booleans()),
    st.tuples(st.just("remove"), st.sampled_from(CLASSES)),
)


class Model:
    """The same rules, voxel by voxel: a voxel holds a class, or a frozen set of classes that are excluded."""

    def __init__(self):
        self.paint: dict[tuple[int, ...], int | frozenset[int]] = {}
        self.complete: set[Plane] = set()
        self.done: list[dict] = []
        self.undone: list[dict] = []

    def change(self, region: Region, value_of) -> None:
        before = dict(self.paint)
        for place in np.ndindex(region.box.shape):
            if region.mask is not None and not region.mask[place]:
                continue
            voxel = (region.frame, *(int(a + b) for a, b in zip(place, region.box.start, strict=True)))
            value = value_of(place, self.paint.get(voxel, 0))
            self.paint[voxel] = value
            if value == 0:
                del self.paint[voxel]
        if self.paint != before:
            self.done.append(before)
            self.undone.clear()

    def undo(self):
        if self.done:
            self.undone.append(self.paint)
            self.paint = self.done.pop()

    def redo(self):
        if self.undone:
            self.done.append(self.paint)
            self.paint = self.undone.pop()

    def remove(self, class_id):
        left = {voxel: value for voxel, value in self.paint.items() if value != class_id}
        forgot = {v: x - {class_id} if isinstance(x, frozenset) else x for v, x in left.items()}
        self.paint = {voxel: value for voxel, value in forgot.items() if value}
        self.done.clear()
        self.undone.clear()


def erased(shown, value):
    if isinstance(value, int) and value:
        return 0
    if shown in (0, BACKGROUND):
        return value
    excluded = (value or frozenset()) | {shown}
    left = set(CLASSES) - excluded
    if not left:
        return frozenset({shown})
    return left.pop() if len(left) == 1 else excluded


def act(store: AnnotationStore, action) -> None:
    name, *args = action
    if name == "annotate":
        store.annotate(*args)
    elif name == "values":
        region, seed, plane = args
        store.annotate(region, np.random.default_rng(seed).integers(0, 4, region.box.shape), plane)
    elif name == "correct":
        region, class_id, seed, plane = args
        shown = np.random.default_rng(seed).integers(0, 4, region.box.shape)
        store.correct(region, class_id, shown, plane, class_ids=CLASSES, background=BACKGROUND)
    elif name == "complete":
        store.set_complete(*args)
    elif name == "remove":
        store.remove_class(*args)
    else:
        getattr(store, name)()


def act_on_model(model: Model, action) -> None:
    name, *args = action
    if name == "annotate":
        model.change(args[0], lambda place, value: args[1])
    elif name == "values":
        codes = np.random.default_rng(args[1]).integers(0, 4, args[0].box.shape)
        model.change(args[0], lambda place, value: int(codes[place]))
    elif name == "correct":
        shown = np.random.default_rng(args[2]).integers(0, 4, args[0].box.shape)
        model.change(args[0], lambda place, value: args[1] or erased(int(shown[place]), value))
    elif name == "complete":
        (model.complete.add if args[1] else model.complete.discard)(args[0])
    elif name == "remove":
        model.remove(args[0])
    else:
        getattr(model, name)()


def meaning_of(store: AnnotationStore):
    sets = store.sets
    found = {}
    for voxel in zip(*(axis.tolist() for axis in np.nonzero(store.codes)), strict=True):
        code = int(store.codes[voxel])
        found[voxel] = sets[code].class_ids if code in sets else code
    return found


def dense_snapshot(store: AnnotationStore, frame: int):
    """The snapshot, from arrays of every voxel."""
    codes = store.codes[frame].copy()
    for painted in store.painted_slices():
        if painted.is_complete and painted.plane.frame == frame:
            plane = codes[painted.plane.box(SHAPE[1:]).slices]
            plane[plane == 0] = BACKGROUND
    allowed = {code: known.within(CLASSES) for code, known in store.sets.items()}
    codes[np.isin(codes, [c for c, ids in allowed.items() if len(ids) in (0, len(CLASSES))])] = 0
    allowed = {code: ids for code, ids in allowed.items() if (codes == code).any()}
    return read_annotation(codes, ArrayVolume(np.zeros(SHAPE[1:])), allowed=allowed)


@settings(max_examples=150, deadline=None)
@given(st.lists(actions, max_size=14))
def test_any_sequence_of_actions_agrees_with_the_model_and_its_journal(steps):
    journal = ListJournal()
    store, model = AnnotationStore(SHAPE, journal=journal), Model()
    revision = 0
    for step in steps:
        act(store, step)
        act_on_model(model, step)
        assert store.revision >= revision
        revision = store.revision
        assert meaning_of(store) == model.paint
        assert {painted.plane for painted in store.painted_slices() if painted.is_complete} == model.complete
        assert (store.can_undo, store.can_redo) == (bool(model.done), bool(model.undone))
        assert ((store._voxels.ids == 0) == (store.codes == 0)).all()
    for frame in range(2):
        found, expected = store.snapshot(frame, classes=CLASSES, background=BACKGROUND), dense_snapshot(store, frame)
        np.testing.assert_array_equal(found.coordinates, expected.coordinates)
        np.testing.assert_array_equal(found.codes, expected.codes)
        assert found.allowed == expected.allowed
        assert store.n_painted(frame) == np.count_nonzero(store.codes[frame])
    again = AnnotationStore(SHAPE)
    assert all(again.replay(record) for record in journal.records)
    assert state_of(again) == state_of(store)
    assert (again.can_undo, again.can_redo) == (store.can_undo, store.can_redo)


class TestReplay:
    def test_the_journal_is_told_first(self):
        seen = []

        class Watching(ListJournal):
            def append(self, record):
                seen.append((record.op, store.revision if record.op != "begin" else 0))
                return super().append(record)

        store = AnnotationStore(SHAPE)
        store.journal = Watching()
        store.annotate(whole_slice(), 2)
        store.undo()
        store.redo()
        store.set_complete(Plane(0, 0, 0), True)
        store.remove_class(2)
        assert seen == [("edit", 0), ("undo", 1), ("redo", 2), ("complete", 3), ("remove_class", 4)]

    def test_merging_strokes_happens_in_the_same_place(self, monkeypatch):
        monkeypatch.setattr(strokes_module, "MAX_STROKES", 12)
        journal = ListJournal()
        store, again = AnnotationStore(SHAPE, journal=journal), AnnotationStore(SHAPE)
        for i in range(50):
            store.annotate(one_voxel(0, i % 3, i % 5, i % 7), 1 + i % 2, Plane(0, 0, i % 3))
        for record in journal.records:
            again.replay(record)
        assert state_of(again) == state_of(store)

    def test_a_new_beginning_drops_what_was_before(self, store):
        store.annotate(whole_slice(), 1)
        assert store.replay(JournalRecord("begin", {"shape": list(SHAPE)}))
        assert not store.codes.any()
        assert not store.can_undo

    def test_records_of_others_are_left_to_them(self, store):
        assert not store.replay(JournalRecord("classes", {"names": ["a"]}))

    @pytest.mark.parametrize(
        ("record", "message"),
        [
            (JournalRecord("begin", {"shape": [1, 2, 3, 4]}), "belongs to an image of shape"),
            (JournalRecord("edit", {"frame": 0}), "makes no sense"),
            (JournalRecord("complete", {"plane": [0, 0], "is_complete": True}), "makes no sense"),
            (JournalRecord("complete", {"plane": [0, 0, 9], "is_complete": True}), "not a slice"),
            (JournalRecord("palette", {"sets": [3]}), "makes no sense"),
            (JournalRecord("undo"), "nothing to undo"),
            (JournalRecord("redo"), "nothing to redo"),
        ],
    )
    def test_a_record_that_does_not_fit_is_refused(self, store, record, message):
        store.journal = journal = ListJournal()
        with pytest.raises(InputError, match=message):
            store.replay(record)
        assert store.journal is journal
        assert journal.records == []

    @pytest.mark.parametrize(
        "change",
        [
            {"frame": 5},
            {"stop": [3, 5, 8]},
            {"strokes": []},
            {"strokes": [["scribble", 0.0, None, 1]]},
            {"arrays": (np.zeros(1, np.uint8), np.ones(1, np.uint8), np.ones(1, np.uint8))},
            {"arrays": (np.full(1, 128, np.uint8), np.ones(2, np.uint8), np.ones(1, np.uint8))},
            {"arrays": (np.full(1, 128, np.uint8), np.ones(1, np.uint8), np.full(1, 2, np.uint8))},
            {"arrays": (np.full(1, 128, np.uint8), np.ones(1, np.uint8), np.zeros(1, np.uint8))},
            {"arrays": (np.full(1, 128, np.uint8), np.full(1, 200, np.uint8), np.ones(1, np.uint8))},
        ],
    )
    def test_a_stroke_that_does_not_fit_is_refused_and_changes_nothing(self, store, change):
        store.journal = journal = ListJournal()
        store.annotate(one_voxel(0, 1, 2, 3), 2)
        (record,) = journal.records
        arrays = change.pop("arrays", record.arrays)
        bad = replace(record, values={**record.values, **change}, arrays=arrays)
        again = AnnotationStore(SHAPE)
        before = state_of(again)
        with pytest.raises(InputError):
            again.replay(bad)
        assert state_of(again) == before


def test_sets_forget_and_exclude():
    assert ClassSet(frozenset({1}), True).excluding(2) == none_of([1, 2])
    assert any_of([1, 2]).excluding(2) == any_of([1])
    assert none_of([1, 2]).forgetting(2) == none_of([1])
    assert 130 not in Palette()


# ---------------------------------------------------------------- suggestions that were accepted


def weights_in(store, frame=0, **options):
    """Weight of each voxel, (z, y, x), 0 where nothing is learnt."""
    annotation = store.snapshot(frame, classes=(1, 2, 3), background=1, **options)
    weights = np.zeros(store.shape[1:], np.float32)
    weights[tuple(annotation.coordinates.T)] = annotation.weights
    return weights


def test_a_suggestion_weighs_what_is_said_and_paint_over_it_weighs_one(store):
    where = box((0, 1), (2, 4), (2, 6))
    store.annotate(Region(0, where), 2, by=StrokeAuthor.SUGGESTION)
    assert (weights_in(store, suggestion_weight=0.25)[where.slices] == 0.25).all()
    assert (weights_in(store)[where.slices] == 1).all()
    half = box((0, 1), (2, 4), (2, 4))
    assert store.annotate(Region(0, half), 2) is not None
    weights = weights_in(store, suggestion_weight=0.25)
    assert (weights[half.slices] == 1).all()
    assert weights[0, 2, 5] == np.float32(0.25)
    assert store.annotate(Region(0, half), 2) is None
    store.undo()
    assert (weights_in(store, suggestion_weight=0.25)[where.slices] == 0.25).all()


def test_a_confirmation_on_the_prediction_makes_paint_of_a_suggestion(store):
    where = box((0, 1), (2, 4), (2, 6))
    store.annotate(Region(0, where), 2, by=StrokeAuthor.SUGGESTION)
    shown = np.full(where.shape, 2, np.uint8)
    assert store.correct(Region(0, where), 2, shown, class_ids=(1, 2), background=1) is not None
    assert (weights_in(store, suggestion_weight=0.25)[where.slices] == 1).all()


def test_suggestions_keep_their_weight_when_strokes_are_merged(store, monkeypatch):
    monkeypatch.setattr("napari_sparseseg.storage.strokes.MAX_STROKES", 12)
    for x in range(6):
        by = StrokeAuthor.SUGGESTION if x % 2 else StrokeAuthor.HUMAN
        store.annotate(Region(0, box((0, 1), (0, 1), (x, x + 1))), 2, by=by)
    for y in range(1, 20):
        store.annotate(Region(0, box((0, 1), (1, 2), (y % 6, y % 6 + 1))), 1 + y % 2)
    assert len(store.strokes) <= 12
    expected = [1, 0.5, 1, 0.5, 1, 0.5]
    np.testing.assert_array_equal(weights_in(store, suggestion_weight=0.5)[0, 0, :6], expected)


# ---------------------------------------------------------------- where paint lies


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 2), st.integers(1, 70), st.integers(1, 70), st.integers(1, 600)),
    st.integers(0, 2**32 - 1),
    st.sampled_from([16, 64]),
)
def test_all_that_is_painted_lies_in_the_boxes_and_no_box_is_empty(shape, seed, edge):
    rng = np.random.default_rng(seed)
    store = AnnotationStore(shape)
    for _ in range(3):
        stop = [int(rng.choice([size, rng.integers(1, size + 1)])) for size in shape[1:]]  # edges are where it is hard
        dab = Box(tuple(max(0, n - 5) for n in stop), tuple(stop))
        store.annotate(Region(int(rng.integers(shape[0])), dab), 2)
    for frame in range(shape[0]):
        within = np.zeros(shape[1:], np.bool_)
        for cube in store.painted_boxes(frame, edge):
            assert store.codes[frame][cube.slices].any()
            within[cube.slices] = True
        assert within[store.codes[frame] != 0].all()


def test_complete_slices_lie_in_the_boxes():
    store = AnnotationStore((1, 3, 5, 130))
    store.set_complete(Plane(0, 0, 1), complete=True)
    assert store.painted_boxes(0) == [box((0, 3), (0, 5), (x, min(x + 64, 130))) for x in (0, 64, 128)]


# ---------------------------------------------------------------- memory


def peak_of(action) -> int:
    """Bytes that an action needs at most."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("action", "most"),
    [
        (lambda store, region, _: store.annotate(region, 1), 17),
        (lambda store, region, other: store.correct(region, 2, shown=other, class_ids=(1, 2), background=1), 21),
    ],
)
def test_a_whole_volume_is_painted_in_few_bytes_for_each_voxel(action, most):
    whole = box((0, 16), (0, 256), (0, 256))
    other = np.random.default_rng(0).integers(1, 4, whole.shape, np.uint8)
    store = AnnotationStore((1, *whole.shape))
    assert peak_of(lambda: action(store, Region(0, whole), other)) < most * whole.n_voxels
