"""In the live loop one painted class is enough where unpainted voxels say something."""

from __future__ import annotations

import numpy as np
import pytest
from livekit import paint_object, rest, view_of

from napari_sparseseg._types import Box, Plane, Region
from napari_sparseseg.config import PaintConfig
from napari_sparseseg.live.classes import ClassList
from napari_sparseseg.live.events import LiveState


def paint_most_of_the_object(live):
    mask = np.indices((1, 20, 20))[1] // 2 % 3 > 0
    live.annotate(Region(0, Box((6, 10, 10), (7, 30, 30)), mask), 2, plane=Plane(0, 0, 6))


@pytest.mark.parametrize("mode", ["background", "risk"])
def test_it_starts_with_one_class_and_finds_it(make_live, image, truth, mode):
    live = make_live(paint=PaintConfig(unlabelled=mode))
    live.open(image)
    live.look_at(view_of())
    paint_most_of_the_object(live)
    live.heard.wait_for_step(3)
    rest(live)
    found = live.labels(0)[6]
    assert set(np.unique(found)) == {1, 2}
    dice = 2 * ((found == 2) & (truth[6] == 2)).sum() / ((found == 2).sum() + (truth[6] == 2).sum())
    assert dice > 0.7


def test_without_a_background_it_asks_for_one(make_live, image):
    live = make_live(paint=PaintConfig(unlabelled="risk"))
    live.add_class("third")
    live.open(image)
    live.remove_class(1)
    paint_object(live)
    live.start()
    live.heard.wait_until(lambda: live.status.activity == "Say which class is the background")
    assert live.status.state == LiveState.WAITING
    live.set_background(3)
    live.heard.wait_for_step(1)


class TestLearnable:
    RISK = PaintConfig(unlabelled="risk")

    def test_two_classes_are_needed_where_unpainted_voxels_say_nothing(self):
        classes = ClassList()
        assert classes.learnable((2,), PaintConfig()) == ()
        assert classes.learnable((1, 2), PaintConfig()) == (1, 2)

    def test_one_is_enough_beside_the_background(self):
        assert ClassList().learnable((2,), self.RISK) == (1, 2)

    @pytest.mark.parametrize("painted", [(), (1,), (9,)])
    def test_the_background_alone_is_not(self, painted):
        assert ClassList().learnable(painted, self.RISK) == ()
