"""Objects from probabilities and affinities: touching ones come apart, whatever the blocks and the voxel size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from napari_sparseseg.config import ObjectConfig
from napari_sparseseg.engine.objects.fragments import shifted
from napari_sparseseg.engine.objects.grouping import group_objects
from napari_sparseseg.engine.objects.offsets import default_offsets
from napari_sparseseg.errors import InputError

SMALL = ObjectConfig(reach=4, smallest=3)


def certain(mask):
    """Probabilities of two classes, the second where the mask is."""
    inside = np.where(mask, 0.95, 0.05).astype(np.float32)
    return np.stack([1 - inside, inside])


def balls(shape, centres, radius, spacing=(1.0, 1.0, 1.0)):
    grid = np.indices(shape).T * spacing
    return np.any([(((grid - np.multiply(c, spacing)) ** 2).sum(-1) < radius**2).T for c in centres], 0)


def random_probabilities(shape, seed, n_classes=3):
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=(n_classes, *shape)), (0, 1, 1, 1)) * 8
    shares = np.exp(noise)
    return (shares / shares.sum(0)).astype(np.float32)


def affinities_of(objects, offsets, noise=0.0):
    found = np.zeros((len(offsets), *objects.shape), np.float32)
    for number, offset in enumerate(offsets):
        here, there = shifted(offset)
        found[number][here] = (objects[here] == objects[there]) & (objects[here] > 0)
    rng = np.random.default_rng(0)
    return np.clip(0.05 + 0.9 * found + rng.normal(0, noise, found.shape), 0, 1).astype(np.float32)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 0.5, 0.5)])
def test_touching_balls_come_apart_and_a_single_one_stays_whole(spacing):
    shape = tuple(round(n / s) for n, s in zip((24, 24, 44), spacing, strict=True))
    ends = [tuple(v / s for v, s in zip((12, 12, x), spacing, strict=True)) for x in (12, 28)]
    probabilities = certain(balls(shape, ends, 9, spacing))
    objects = group_objects(probabilities, object_channels=(1,), spacing=spacing)
    assert objects.dtype == np.uint32
    assert objects.max() == 2
    assert len({int(objects[tuple(round(v) for v in end)]) for end in ends}) == 2
    assert ((objects > 0) == (probabilities[1] > 0.5)).all()
    whole = group_objects(probabilities, object_channels=(1,), spacing=spacing, config=ObjectConfig(neck=0.0))
    assert whole.max() == 1


@pytest.mark.parametrize(("length", "n_objects"), [(22, 2), (140, 1)])
def test_the_same_neck_cuts_compact_objects_but_no_long_one(length, n_objects):
    z, y, x = np.indices((14, 14, length))
    radius = np.where(np.abs(x - length // 2) < 2, 2.2, 5.2)
    tube = (z - 7) ** 2 + (y - 7) ** 2 < radius**2
    assert group_objects(certain(tube), object_channels=(1,)).max() == n_objects


def test_objects_do_not_extend_over_two_classes():
    probabilities = np.zeros((3, 4, 8, 8), np.float32)
    probabilities[1, ..., :4] = probabilities[2, ..., 4:] = 1
    objects = group_objects(probabilities, object_channels=(1, 2), config=SMALL)
    assert objects.max() == 2
    assert len(np.unique(objects[..., :4])) == 1


def test_slivers_join_what_they_touch_and_specks_go():
    mask = balls((16, 16, 40), [(8, 8, 10)], 6)
    mask[8, 8, 30:32] = True
    objects = group_objects(certain(mask), object_channels=(1,), config=ObjectConfig(smallest=20))
    assert objects.max() == 1
    assert not objects[..., 30:].any()


def rods(sureness=0.95):
    """Objects of 20 voxels: one within the volume, two that its edge cuts; and a speck of 4 there."""
    mask = np.zeros((12, 12, 60), bool)
    for plane, column in ((2, 10), (0, 20), (0, 40)):
        mask[plane : plane + 5, 5:7, column : column + 2] = True
    mask[0:2, 5:7, 50] = True
    return np.where(mask, np.float32(sureness), np.float32(0.05))


@pytest.mark.parametrize(
    ("sureness", "painted", "asked", "expected"),
    [
        (0.95, 60, 0, 2),  # the two at the edge
        (0.6, 60, 0, 0),  # they are not clear
        (0.95, 100, 0, 0),  # too little is left of them
        (0.95, 60, 60, 0),  # somebody said how large objects are
        (0.95, 0, 0, 0),  # nobody painted any
        (0.95, 20, 0, 3),
    ],
)
def test_what_the_edge_cuts_may_be_smaller(sureness, painted, asked, expected):
    inside = rods(sureness)
    config = ObjectConfig(reach=4, smallest=asked)
    arguments = {"object_channels": (1,), "config": config, "painted_smallest": painted}
    objects = group_objects(np.stack([1 - inside, inside]), **arguments)
    assert objects.max() == expected


def test_no_edge_lies_before_or_behind_a_plane():
    inside = rods()[2:3]
    config = ObjectConfig(reach=4)
    assert not group_objects(
        np.stack([1 - inside, inside]), object_channels=(1,), config=config, painted_smallest=8
    ).any()


def test_where_there_is_nothing_there_is_no_object():
    assert not group_objects(certain(np.zeros((3, 4, 5), bool)), object_channels=(1,)).any()


def test_a_volume_that_is_one_object_has_one():
    assert (group_objects(certain(np.ones((3, 9, 9), bool)), object_channels=(1,)) == 1).all()


@pytest.mark.parametrize("noise", [0.0, 0.03])
def test_affinities_part_what_no_outline_does(noise):
    truth = np.ones((12, 20, 20), np.int32)
    truth[..., 10:] = 2
    offsets = default_offsets((1, 1, 1), (False, False, False))
    objects = group_objects(certain(truth > 0), affinities_of(truth, offsets, noise), offsets, object_channels=(1,))
    assert objects.max() == 2
    assert all(len(np.unique(objects[truth == n])) == 1 for n in (1, 2))


def test_affinities_that_lack_an_axis_do_not_decide_unasked():
    truth = np.ones((12, 20, 20), np.int32)
    truth[..., 10:] = 2
    offsets = [o for o in default_offsets((1, 1, 1), (False, False, False)) if not o[0]]
    arguments = (certain(truth > 0), affinities_of(truth, offsets), offsets)
    assert group_objects(*arguments, object_channels=(1,)).max() == 1
    assert group_objects(*arguments, object_channels=(1,), config=ObjectConfig(method="affinities")).max() == 2


def test_an_affinity_without_offset_is_refused():
    with pytest.raises(InputError, match="3 affinities were passed for 1 offsets"):
        group_objects(
            certain(np.ones((2, 3, 3), bool)), np.ones((3, 2, 3, 3), np.float32), [(0, 0, 1)], object_channels=(1,)
        )


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 10), st.integers(1, 14), st.integers(1, 14)),
    block=st.tuples(st.integers(1, 12), st.integers(2, 12), st.integers(2, 12)),
    spacing=st.sampled_from([(1.0, 1.0, 1.0), (3.0, 1.0, 1.0), (1.0, 0.3, 0.7)]),
    seed=st.integers(0, 1000),
    with_affinities=st.booleans(),
    painted_smallest=st.sampled_from([0, 12]),
)
def test_blocks_give_what_the_whole_gives(shape, block, spacing, seed, with_affinities, painted_smallest):
    probabilities = random_probabilities(shape, seed)
    offsets = default_offsets(spacing, tuple(n == 1 for n in shape)) if with_affinities else ()
    rng = np.random.default_rng(seed)
    affinities = rng.random((len(offsets), *shape), np.float32) if offsets else None
    arguments = {"object_channels": (1, 2), "spacing": spacing, "painted_smallest": painted_smallest}
    arguments["config"] = SMALL.with_changes(smallest=0) if painted_smallest else SMALL
    whole = group_objects(probabilities, affinities, offsets, **arguments)
    blocks = group_objects(probabilities, affinities, offsets, block=block, **arguments)
    np.testing.assert_array_equal(blocks, whole)
    assert set(np.unique(whole)) <= set(range(int(whole.max()) + 1))
