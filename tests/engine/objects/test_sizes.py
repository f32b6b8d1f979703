"""How small an object may be, by the painted sections."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sparseseg._types import Annotation
from napari_sparseseg.engine.classes import ClassTable
from napari_sparseseg.engine.objects.sizes import UNKNOWN_SMALLEST, smallest_of
from napari_sparseseg.engine.paint import prepare_paint


def paint_of(ids):
    """Paint of a volume of ids; 0 is unpainted."""
    coordinates = np.argwhere(ids).astype(np.int32)
    n = len(coordinates)
    annotation = Annotation(
        ids.shape, coordinates, np.full(n, 2, np.uint8), np.ones(n, np.float32), {}, ids[ids > 0].astype(np.int32)
    )
    return prepare_paint(annotation, ClassTable((1, 2), 1, (2,)), share=0, balance=0, seed=0)


def sections(radii, spacing=(1.0, 1.0, 1.0), axis=0):
    """A volume in which balls of these radii, in the unit of `spacing`, are painted on their central slice."""
    shape = [41, 41 * len(radii), 41]
    shape[axis] = 5
    ids = np.zeros(shape, np.int32)
    for number, radius in enumerate(radii):
        centre = np.array(shape) // 2
        centre[1] = 41 * number + 20
        offsets = (np.indices(shape) - centre[:, None, None, None]) * np.reshape(spacing, (3, 1, 1, 1))
        ids[((offsets**2).sum(0) <= radius**2) & (np.indices(shape)[axis] == centre[axis])] = number + 1
    return ids


def ball(radius, spacing):
    return 4 / 3 * np.pi * radius**3 / np.prod(spacing)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.5, 1.0, 1.0), (1.0, 0.5, 0.5)])
def test_a_painted_section_stands_for_its_ball(spacing):
    found = smallest_of([paint_of(sections([8], spacing))], spacing)
    assert found == pytest.approx(ball(8, spacing), rel=0.05)


def test_sections_across_another_axis_count_in_its_pixels():
    spacing = (2.0, 1.0, 1.0)
    assert smallest_of([paint_of(sections([8], spacing, axis=2))], spacing) == pytest.approx(ball(8, spacing), rel=0.1)


def test_one_of_ten_may_be_smaller():
    radii = [3] + [9] * 19
    assert smallest_of([paint_of(sections(radii))], (1, 1, 1)) == pytest.approx(ball(9, (1, 1, 1)), rel=0.05)


def test_objects_of_all_volumes_count():
    small, large = ([paint_of(sections([radius]))] for radius in (5, 10))
    assert smallest_of(small, (1, 1, 1)) < smallest_of([*small, *large], (1, 1, 1)) < smallest_of(large, (1, 1, 1))


def test_the_largest_section_counts_whatever_else_was_painted_of_it():
    ids = sections([8])
    ids[0, 18:22, 18:22] = 1
    assert smallest_of([paint_of(ids)], (1, 1, 1)) == smallest_of([paint_of(sections([8]))], (1, 1, 1))


@pytest.mark.parametrize("ids", [np.zeros((2, 3, 4), np.int32), sections([1])])
def test_it_is_never_less_than_without_ids(ids):
    assert smallest_of([paint_of(ids)], (1, 1, 1)) == UNKNOWN_SMALLEST
