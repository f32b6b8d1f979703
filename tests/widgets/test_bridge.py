"""Strokes made with the mouse reach the store, and both layers show what the store holds."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sparseseg._types import Box, Plane
from tests.widgets.conftest import BACKGROUND, OBJECT, OTHER


def test_a_stroke_lands_in_the_store_where_it_is_drawn(set_stage):
    stage = set_stage()
    stage.tools("paint", OBJECT, brush=5)
    stage.bridge.go_to(Plane(0, 0, 4))
    stage.drag((4, 10, 10), (4, 10, 30))
    codes = stage.live.codes[0]
    np.testing.assert_array_equal(codes, stage.annotation.data)
    assert codes[4, 10, 10:31].all()
    assert set(np.unique(codes)) == {0, OBJECT}
    assert not np.delete(codes, 4, axis=0).any()
    assert [painted.plane for painted in stage.live.painted_slices()] == [Plane(0, 0, 4)]
    stage.screenshot("stroke")
