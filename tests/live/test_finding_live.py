"""Objects are found, measured and corrected while a model lives."""

from __future__ import annotations

import numpy as np
from livekit import OBJECT_BOX, SHAPE, found_anew, paint_both, rest, view_of

from napari_sparseseg._types import Box, Plane, Region


def test_objects_are_found_and_measured_and_the_table_follows(live, image):
    tables, changes = [], []
    live.events.objects_measured.connect(lambda table: live.heard._hear("table", tables, table))
    live.events.objects_changed.connect(lambda change: live.heard._hear("objects", changes, change))
    live.open(image, spacing=(2.0, 1.0, 1.0))
    live.look_at(view_of())
    paint_both(live)
    live.heard.wait_for_step(5)
    rest(live)
    live.found.find_all()
    live.heard.wait_until(lambda: changes, "for objects")
    assert not live.found.is_empty
    assert not tables  # nobody has asked
    live.found.keep_table(0)
    live.heard.wait_until(lambda: tables, "for the table")
    rows = tables[-1].rows
    ids = live.found.ids(0, Box.whole(SHAPE))
    assert len(rows) == live.found.count(0) >= 1
    assert rows["n_voxels"].sum() == (ids > 0).sum()
    assert (rows["volume"] == 2 * rows["n_voxels"]).all()
    largest = int(rows["id"][rows["n_voxels"].idxmax()])
    assert rows["class"][rows["n_voxels"].idxmax()] == 2
    n_tables = len(tables)
    live.found.delete(Plane(0, 0, 6), live.found.place_of(0, largest))
    live.heard.wait_until(lambda: len(tables) > n_tables, "for another table")
    assert largest not in tables[-1].rows["id"].tolist()
    live.found.keep_table(None)
    assert not live.found.keeps_table
    assert live.found.undo()
    live.found.keep_table(0)
    live.heard.wait_until(lambda: largest in tables[-1].rows["id"].tolist(), "for the object that is back")
    assert not live.heard.failures


def test_no_object_is_found_where_it_was_said_that_its_class_is_not(live, image):
    live.open(image)
    live.add_class("third")
    live.look_at(view_of())
    paint_both(live)
    live.heard.wait_for_step(5)
    rest(live)
    assert found_anew(live, OBJECT_BOX).all()
    above, below = (OBJECT_BOX.shifted((step, 0, 0)) for step in (-2, 1))
    live.annotate(Region(0, above), 3)  # which the model has not learnt
    live.correct(Region(0, below), 0, shown=np.full(below.shape, 2, np.uint8))
    assert live.allowed(int(live.codes[(0, *below.start)])) == {1, 3}
    assert found_anew(live, OBJECT_BOX).all()
    assert not live.found.ids(0, above).any()
    assert not live.found.ids(0, below).any()


def test_what_was_split_and_merged_by_hand_is_found_so_again(live, image):
    live.open(image)
    live.look_at(view_of())
    paint_both(live)
    live.heard.wait_for_step(5)
    rest(live)
    plane, left, right = Plane(0, 0, 6), (6, 20, 16), (6, 20, 24)
    found = found_anew(live, OBJECT_BOX)
    assert found[0, 6, 2] == found[0, 6, 10] > 0
    live.found.split(plane, left, right)
    found = found_anew(live, OBJECT_BOX)
    assert found[0, 6, 2] != found[0, 6, 10]
    assert found.all()
    live.found.merge(plane, left, right)
    found = found_anew(live, OBJECT_BOX)
    assert found[0, 6, 2] == found[0, 6, 10] > 0
