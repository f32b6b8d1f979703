"""How small an object may be, by the painted sections."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sparseseg._types import Annotation
from napari_sparseseg.engine.classes import ClassTable
from napari_sparseseg.engine.objects.sizes import smallest_of, unknown_smallest
from napari_sparseseg.engine.paint import prepare_paint

CUBES = (1.0, 1.0, 1.0)
SHAPE = (41, 41, 41)


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
    found = smallest_of([paint_of(sections([8] * 5, spacing))], spacing, SHAPE)
    assert found == pytest.approx(ball(8, spacing), rel=0.05)


def test_sections_across_another_axis_count_in_its_pixels():
    spacing = (2.0, 1.0, 1.0)
    found = smallest_of([paint_of(sections([8] * 5, spacing, axis=2))], spacing, SHAPE)
    assert found == pytest.approx(ball(8, spacing), rel=0.1)


def test_one_of_ten_may_be_smaller():
    radii = [3] + [9] * 19
    assert smallest_of([paint_of(sections(radii))], CUBES, SHAPE) == pytest.approx(ball(9, (1, 1, 1)), rel=0.05)


def test_objects_of_all_volumes_count():
    small, large = ([paint_of(sections([radius] * 5))] for radius in (5, 10))
    both = smallest_of([*small, *large], CUBES, SHAPE)
    assert smallest_of(small, CUBES, SHAPE) <= both < smallest_of(large, CUBES, SHAPE)


def test_the_largest_section_counts_whatever_else_was_painted_of_it():
    ids = sections([8])
    ids[0, 18:22, 18:22] = 1
    assert smallest_of([paint_of(ids)], CUBES, SHAPE) == smallest_of([paint_of(sections([8]))], CUBES, SHAPE)


@pytest.mark.parametrize("ids", [np.zeros((2, 3, 4), np.int32), sections([1])])
def test_it_is_never_less_than_without_ids(ids):
    assert smallest_of([paint_of(ids)], CUBES, ids.shape) == unknown_smallest(ids.shape) == 50


def test_in_a_single_plane_a_section_is_the_object():
    ids = sections([8] * 6)[2:3]
    assert smallest_of([paint_of(ids)], CUBES, ids.shape) == pytest.approx(np.pi * 8**2, rel=0.05)
    assert smallest_of([paint_of(0 * ids)], CUBES, ids.shape) == unknown_smallest(ids.shape) == 16


def test_few_objects_do_not_tell_that_all_others_are_as_large():
    few, many = (smallest_of([paint_of(ids)], CUBES, ids.shape) for ids in (sections([9]), sections([9] * 5)))
    assert few == pytest.approx(many / 5, rel=0.01)
