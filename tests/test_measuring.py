"""Tables of objects: what is counted is exact, what is estimated is right in the mean over directions."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_sparseseg import measure_objects
from napari_sparseseg._types import Box
from napari_sparseseg.engine.objects import measure
from napari_sparseseg.errors import InputError, InputTypeError
from napari_sparseseg.storage.volume import ArrayVolume

AXES = "zyx"


@st.composite
def pictures(draw):
    """Objects, an image of two channels and labels, 2D or 3D, and how many voxels are read at once."""
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=5))
    objects = draw(hnp.arrays(np.uint32, shape, elements=st.sampled_from([0, 1, 2, 4_000_000_000])))
    image = draw(hnp.arrays(np.int16, (2, *shape)))
    labels = draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, 3)))
    return objects, image, labels, draw(st.sampled_from([1, 30, 1 << 22]))


@pytest.mark.parametrize("at_once", [1, 1 << 22])
def test_voxels_that_are_missing_do_not_count_in_a_mean(at_once, monkeypatch):
    monkeypatch.setattr(measure, "_VOXELS_AT_ONCE", at_once)
    objects = np.repeat([[[1, 1, 2, 3]]], 2, axis=0)
    image = np.array([[[[5, np.nan, np.inf, 1]], [[7, 9, np.nan, 2]]], [[[1, 1, 1, 1]], [[3, 1, 1, 1]]]])
    table = measure_objects(objects, image, channel_axis=0)
    np.testing.assert_array_equal(table["mean_0"], [7, np.nan, 1.5])
    np.testing.assert_array_equal(table["mean_1"], [1.5, 1, 1])
    assert not [name for name in table if name.startswith("missing")]


@given(picture=pictures())
@settings(deadline=None, max_examples=50)
def test_counts_places_and_means_are_those_of_the_voxels(picture):
    objects, image, labels, at_once = picture
    spacing = (2.0, 0.5, 3.0)[-objects.ndim :]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "_VOXELS_AT_ONCE", at_once)
        table = measure_objects(objects, image, labels, spacing, channel_axis=0)
    assert table["id"].tolist() == [n for n in np.unique(objects).tolist() if n]
    is_plane = objects.ndim == 2 or len(objects) == 1
    for row in table.to_dict("records"):
        inside = objects == row["id"]
        size = row["area"] if is_plane else row["volume"]
        assert size == pytest.approx(inside.sum() * np.prod(spacing[1:] if is_plane and objects.ndim == 3 else spacing))
        counts = np.bincount(labels[inside])
        assert row["class"] == counts.argmax()
        at_edge = False
        for axis, places in enumerate(np.nonzero(inside), 3 - objects.ndim):
            n = objects.shape[axis - 3]
            at_edge |= n > 1 and (places.min() == 0 or places.max() == n - 1)
            if is_plane and axis == 0:
                continue
            assert (row[f"{AXES[axis]}_start"], row[f"{AXES[axis]}_stop"]) == (places.min(), places.max() + 1)
            assert row[AXES[axis]] == pytest.approx(places.mean() * spacing[axis - 3])
        assert row["touches_border"] == (at_edge or max(objects.shape) == 1)
        for channel in range(2):
            assert row[f"mean_{channel}"] == pytest.approx(image[channel][inside].mean())


@given(picture=pictures())
@settings(deadline=None, max_examples=50)
def test_how_much_is_read_at_once_changes_no_surface(picture):
    objects, *_, at_once = picture
    whole = measure_objects(objects)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "_VOXELS_AT_ONCE", at_once)
        parts = measure_objects(objects)
    name = "perimeter" if "perimeter" in whole else "surface"
    np.testing.assert_allclose(parts[name], whole[name])


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 1.0, 1.0), (0.5, 1.0, 2.0)])
def test_the_surface_of_balls(spacing):
    radius = 14
    shape = [int(2 * radius / size) + 6 for size in spacing]
    away = [(np.arange(n) - n / 2 + 0.3) * size for n, size in zip(shape, spacing, strict=True)]
    z, y, x = np.meshgrid(*away, indexing="ij")
    table = measure_objects((z**2 + y**2 + x**2 < radius**2).astype(np.uint8), spacing=spacing)
    assert table["surface"][0] == pytest.approx(4 * np.pi * radius**2, rel=0.01)


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (1.0, 2.5)])
def test_the_perimeter_of_discs(spacing):
    radius = 30
    y, x = np.indices((90, 90)).astype(float) - 44.7
    disc = (y * spacing[0]) ** 2 + (x * spacing[1]) ** 2 < radius**2
    table = measure_objects(disc.astype(np.int64), spacing=spacing)
    assert table["perimeter"][0] == pytest.approx(2 * np.pi * radius, rel=0.015)


def test_the_edge_of_the_image_is_no_surface():
    half = np.zeros((10, 12, 14), int)
    half[:5] = 1
    assert measure_objects(half)["surface"][0] < 12 * 14
    assert measure_objects(np.ones((4, 4, 4), int))["surface"][0] == 0


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (10.0, 1.0, 1.0), (0.3, 2.0, 1.0)])
def test_every_direction_counts_by_its_share_of_the_sphere(spacing):
    for weights, whole in (
        (measure.direction_weights(spacing), np.prod(spacing)),
        (measure.plane_weights(spacing), np.pi / 4 * spacing[1] * spacing[2]),
    ):
        shares = [w * np.linalg.norm(np.multiply(step, spacing)) / (2 * whole) for step, w in weights.items()]
        assert sum(shares) == pytest.approx(1)


class TestFilters:
    OBJECTS = np.zeros((6, 8, 8), np.uint32)
    OBJECTS[0:2, 1:3, 1:3] = 1
    OBJECTS[2:5, 2:5, 2:5] = 5
    OBJECTS[3, 6, 6] = 9

    @pytest.mark.parametrize(
        ("filters", "ids"),
        [
            ({}, [1, 5, 9]),
            ({"min_size": 16}, [1, 5]),
            ({"min_size": 17}, [5]),
            ({"max_size": 16}, [1, 9]),
            ({"without_border": True}, [5, 9]),
            ({"min_size": 10, "max_size": 30, "without_border": True}, []),
        ],
    )
    def test_sizes_are_physical_and_bounds_included(self, filters, ids):
        table = measure_objects(self.OBJECTS, spacing=(2.0, 1.0, 1.0), **filters)
        assert table["id"].tolist() == ids
        assert table.index.tolist() == list(range(len(ids)))


def test_arrays_may_be_lazy_and_empty():
    objects = da.zeros((5, 6, 7), dtype=np.uint16, chunks=3)
    table = measure_objects(objects, np.zeros((5, 6, 7)), np.ones((5, 6, 7), int))
    assert len(table) == 0
    assert {"id", "class", "volume", "mean_0", "x_stop"} <= set(table.columns)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ((np.zeros((3, 4, 5)),), InputTypeError, "whole numbers are needed"),
        ((np.zeros((3, 4), int), np.zeros((4, 3))), InputError, "image has spatial shape"),
        ((np.zeros((3, 4), int), None, np.zeros((3, 5), int)), InputError, "labels has spatial shape"),
        ((np.zeros((3, 4), int), None, None, (1, 2, 3, 4)), InputError, "4 numbers"),
        ((np.arange(12).reshape(3, 4) - 1,), InputError, "objects holds -1; ids of objects cannot be negative"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments, error, text):
    with pytest.raises(error, match=text):
        measure_objects(*arguments)


def test_bounds_between_which_no_size_lies_are_refused():
    with pytest.raises(InputError, match="min_size=5 is above max_size=2"):
        measure_objects(TestFilters.OBJECTS, min_size=5, max_size=2)
    assert len(measure_objects(TestFilters.OBJECTS, min_size=8, max_size=8)) == 1


@given(data=st.data())
@settings(deadline=None, max_examples=50)
def test_some_objects_are_measured_alone_as_among_all(data):
    shape = data.draw(hnp.array_shapes(min_dims=3, max_dims=3, min_side=2, max_side=6))
    ids = data.draw(hnp.arrays(np.uint32, shape, elements=st.sampled_from([0, 1, 2, 7])))
    some = np.array(data.draw(st.sets(st.sampled_from([1, 2, 7]), min_size=1).map(sorted)), np.uint32)
    places = np.argwhere(np.isin(ids, some))
    if not len(places):
        return
    box = Box(tuple(places.min(0).tolist()), tuple((places.max(0) + 1).tolist()))
    volumes = [ArrayVolume(values) for values in (ids, ids % 5, ids % 3)]
    alone = measure.Measurement(volumes[0], (2.0, 1.0, 0.5), *volumes[1:], only=some, box=box, voxels_at_once=7)
    shares = list(alone.work())
    assert shares == sorted(shares)
    assert shares[-1] == 1
    table = measure.measure(volumes[0], (2.0, 1.0, 0.5), *volumes[1:])
    expected = table[table["id"].isin(some)].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone.table(), expected)
