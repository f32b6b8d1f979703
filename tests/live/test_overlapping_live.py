"""Classes that overlap, while they are painted: what is waited for, learnt, shown of each class, and kept."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest
from livekit import found_anew, rest, view_of

from napari_sparseseg import SparseSegmenter
from napari_sparseseg._types import Box, Plane, Region
from napari_sparseseg.config import PaintConfig
from napari_sparseseg.engine.checkpoint import load_model
from napari_sparseseg.live.events import LiveState
from napari_sparseseg.storage.project.project import Project

SHAPE = (10, 40, 40)
OUTER, INNER = 2, 3
OVERLAPPING = PaintConfig(overlapping=True)


def nested():
    """Where two nested structures are, and an image of them."""
    y, x = np.indices(SHAPE)[1:]
    distance = np.hypot(y - 20, x - 20)
    truth = np.stack([distance < 15, distance < 7])
    return truth, (3 * truth.sum(0) + 0.5 * np.random.default_rng(0).standard_normal(SHAPE)).astype(np.float32)


def on_slice(z, mask):
    return Region(0, Box((z, 0, 0), (z + 1, *SHAPE[1:])), mask[None])


@pytest.fixture
def live(make_live):
    made = make_live(paint=OVERLAPPING)
    made.add_class("inner")
    made.open(nested()[1])
    made.look_at(view_of(SHAPE, index=5))
    return made


def paint_both(live):
    """Outer and background on one slice, inner and where it is not on another."""
    truth, _ = nested()
    live.annotate(on_slice(2, ~truth[0, 2]), 1, plane=Plane(0, 0, 2))
    live.annotate(on_slice(2, truth[0, 2]), OUTER, plane=Plane(0, 0, 2))
    live.say(on_slice(7, ~truth[1, 7]), INNER, is_present=False, plane=Plane(0, 0, 7))
    live.annotate(on_slice(7, truth[1, 7]), INNER, plane=Plane(0, 0, 7))


def test_both_structures_are_learnt_and_shown_where_they_overlap(live):
    live.keep_presence_of([OUTER, INNER])
    paint_both(live)
    live.heard.wait_for_step(25)
    rest(live)
    truth, _ = nested()
    whole = Box.whole(SHAPE)
    for class_id, where in zip((OUTER, INNER), truth, strict=True):
        found = live.presence(class_id, 0, whole)
        assert (found == where).mean() > 0.9
    assert (live.presence(OUTER, 0, whole) & live.presence(INNER, 0, whole)).any()
    assert set(np.unique(live.labels(0)).tolist()) <= {1, OUTER, INNER}


def test_painting_a_class_leaves_what_was_said_of_others(live):
    box = Box((4, 10, 10), (5, 20, 20))
    live.annotate(Region(0, box), OUTER)
    live.annotate(Region(0, box), INNER)
    assert live.presence(OUTER, 0, box).all()
    assert live.presence(INNER, 0, box).all()
    live.say(Region(0, box), INNER, is_present=False)
    assert live.presence(OUTER, 0, box).all()
    assert not live.presence(INNER, 0, box).any()
    live.undo()
    assert live.presence(INNER, 0, box).all()


def test_erasing_on_the_prediction_rules_out_what_was_shown(live):
    box = Box((4, 10, 10), (5, 11, 13))
    live.correct(Region(0, box), 0, shown=np.array([[[OUTER, 1, 0]]], np.uint8))
    (code,) = set(np.unique(live.codes[0]).tolist()) - {0}
    assert (live.codes[0] == code).sum() == 1
    assert not live.labels(0, box).any()


def test_an_object_is_deleted_within_a_painted_one(live):
    live.auto_start = False
    live.heard.wait_for_state(LiveState.WAITING)  # then nothing is predicted or cleared any more
    ids, place = nested()[0][1].astype(np.uint32), Box((5, 18, 18), (6, 22, 22))
    live._work.objects.take((1, *SHAPE), 0, Box.whole(SHAPE), ids)
    live._work.labels[0][ids > 0] = INNER
    live.annotate(on_slice(5, nested()[0][0, 5]), OUTER)
    live.found.delete(Plane(0, 0, 5), (5, 20, 20))
    assert not live.found.ids(0, place).any()
    assert (live.labels(0, place) == OUTER).all()
    assert live.allowed(int(live.codes[0, 5, 20, 20])) == {OUTER}
    assert live.undo()
    assert live.found.ids(0, place).all()
    assert (live.codes[0, 5, 18:22, 18:22] == OUTER).all()


def test_what_was_said_of_a_class_is_certain_where_objects_are_looked_for(live):
    truth, inside = nested()[0], Box((0, 18, 18), (SHAPE[0], 22, 22))
    paint_both(live)
    live.annotate(on_slice(7, truth[1, 7]), INNER, plane=Plane(0, 0, 7), object_id=1)
    live.heard.wait_for_step(25)
    rest(live)
    assert found_anew(live, inside).all()
    assert live._work.objects.classes == (INNER,)
    live.annotate(on_slice(5, truth[0, 5]), OUTER)
    live.found.delete(Plane(0, 0, 5), (5, 20, 20))
    live.annotate(on_slice(4, truth[1, 4]), 1)
    corner = Box((0, 2, 2), (8, 9, 9))
    live.annotate(Region(0, corner), OUTER)
    live.annotate(Region(0, corner), INNER)
    ids = found_anew(live, inside)
    assert (ids > 0).all((1, 2)).tolist() == [z not in (4, 5) for z in range(SHAPE[0])]
    assert not ids[4:6].any()
    assert live.found.ids(0, corner).all(), "though it was painted over another class"


def test_it_waits_until_it_is_known_where_a_class_is_not(live):
    live.annotate(Region(0, Box((4, 10, 10), (5, 20, 20))), OUTER)
    live.start()
    live.heard.wait_until(lambda: "Show where object is not" in live.status.activity)
    live.annotate(Region(0, Box((4, 0, 0), (5, 8, 40))), 1)
    live.heard.wait_for_step(1)


def test_the_model_is_one_of_overlapping_classes(live, make_live, tmp_path):
    paint_both(live)
    live.heard.wait_for_step(2)
    rest(live)
    live.save_model(tmp_path / "model")
    loaded = SparseSegmenter.load(tmp_path / "model", progress=False)
    assert loaded.get_params()["paint__overlapping"]
    assert loaded.predict_present(nested()[1]).shape == (3, *SHAPE)
    other = make_live()
    other.open(nested()[1])
    other.load_model(tmp_path / "model")
    assert other.is_overlapping


def test_a_model_without_the_background_is_gone_on_with(live, tmp_path):
    truth, image = nested()
    for z, structure, class_id in ((2, truth[0], OUTER), (7, truth[1], INNER)):
        live.say(on_slice(z, ~structure[z]), class_id, is_present=False, plane=Plane(0, 0, z))
        live.annotate(on_slice(z, structure[z]), class_id, plane=Plane(0, 0, z))
    live.heard.wait_for_step(2)
    rest(live)
    live.save_model(tmp_path / "model")
    assert load_model(tmp_path / "model")[1]["settings"]["background"] is None
    loaded = SparseSegmenter.load(tmp_path / "model", progress=False)
    assert (loaded.background, loaded.background_) == (None, 0)
    annotation = np.zeros((3, *SHAPE), np.uint8)
    annotation[1, 2], annotation[2, 7] = 1 + truth[0, 2], 1 + truth[1, 7]
    assert loaded.partial_fit(image, annotation, max_steps=1).background_ == 0


def test_a_mode_that_was_changed_takes_hold_with_the_next_model(make_live):
    live = make_live()
    live.open(nested()[1])
    live.look_at(view_of(SHAPE, index=5))
    paint_both_exclusive(live)
    live.heard.wait_for_step(2)
    live.configure(paint=OVERLAPPING)
    assert not live._worker.loop.learner.is_overlapping
    live.reset_model()
    live.heard.wait_for_state(LiveState.TRAINING)
    live.heard.wait_until(lambda: (loop := live._worker.loop) is not None and loop.learner.is_overlapping)


def paint_both_exclusive(live):
    truth, _ = nested()
    live.annotate(on_slice(2, ~truth[0, 2]), 1, plane=Plane(0, 0, 2))
    live.annotate(on_slice(2, truth[0, 2]), OUTER, plane=Plane(0, 0, 2))


def test_a_project_keeps_the_mode_and_the_paint(make_live, tmp_path):
    box = Box((4, 10, 10), (5, 20, 20))
    with closing(Project.create(tmp_path / "p.sparseseg")) as project:
        project.add_image(nested()[1], shape=(1, *SHAPE))
        first = make_live()
        first.open(nested()[1], project=project.images[0])
        first.configure(paint=OVERLAPPING)
        first.add_class("inner")
        first.annotate(Region(0, box), OUTER)
        first.annotate(Region(0, box), INNER)
        first.close()
    with closing(Project.open(tmp_path / "p.sparseseg")) as project:
        again = make_live()
        again.open(nested()[1], project=project.images[0])
        assert again.is_overlapping
        assert again.presence(OUTER, 0, box).all()
        assert again.presence(INNER, 0, box).all()
        again.close()


def test_the_table_of_objects_counts_the_labels_that_are_shown(make_live):
    live, tables = make_live(paint=OVERLAPPING), []
    live.events.objects_measured.connect(lambda table: live.heard._hear("table", tables, table))
    truth, image = nested()
    live.open(image)
    live.look_at(view_of(SHAPE, index=5))
    live.annotate(on_slice(2, ~truth[0, 2]), 1, plane=Plane(0, 0, 2))
    live.annotate(on_slice(2, truth[0, 2]), OUTER, plane=Plane(0, 0, 2))
    live.heard.wait_for_step(5)
    live.pause()
    rest(live)
    live.found.find_all()
    live.heard.wait_until(lambda: not live.found.is_empty, "for objects")
    assert live._work.objects.classes == (OUTER,)
    live.say(Region(0, Box.whole(SHAPE)), OUTER, is_present=False)
    live.found.keep_table(0)
    live.heard.wait_until(lambda: tables, "for the table")
    ids, labels, rows = live.found.ids(0, Box.whole(SHAPE)), live.labels(0), tables[-1].rows
    assert len(rows)
    for object_id, class_id in zip(rows["id"], rows["class"], strict=True):
        assert class_id == np.bincount(labels[ids == object_id]).argmax() == 0


def test_objects_are_listed_as_of_their_class_though_another_one_is_likelier_there(live):
    live.auto_start = False
    live.heard.wait_for_state(LiveState.WAITING)  # then nothing is predicted or cleared any more
    tables, inner = [], nested()[0][1]
    live.events.objects_measured.connect(lambda table: live.heard._hear("table", tables, table))
    live._work.objects.take((1, *SHAPE), 0, Box.whole(SHAPE), inner.astype(np.uint32), (INNER,))
    live._work.labels[0] = OUTER
    live.found.keep_table(0)
    live.heard.wait_until(lambda: tables, "for the table")
    assert tables[-1].rows["class"].tolist() == [INNER]
    live._work.objects.take((1, *SHAPE), 0, Box.whole(SHAPE), inner.astype(np.uint32), (OUTER, INNER))
    live.found.keep_table(0)
    live.heard.wait_until(lambda: len(tables) > 1, "for another table")
    assert tables[-1].rows["class"].tolist() == [OUTER]
