"""The coarse lattice: the same numbers for a whole volume, for cells of a large one, and for a region."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import CUBES, Recorder, make_features, make_noise, whole

from napari_sparseseg._types import Box
from napari_sparseseg.engine import lattice as module

SCALES = (1.0, 4.0, 8.0)
CELLS = (16, 32, 48)
SPACINGS = [CUBES, (2.0, 1.0, 1.0), (10.0, 1.0, 1.0), (1.0, 1.0, 3.0)]


@pytest.fixture
def large(monkeypatch):
    """Let every volume be cut into small cells."""
    monkeypatch.setattr(module, "_KEPT_BYTES", 0)
    monkeypatch.setattr(module, "_CELL_SHAPE", CELLS)


def boxes(shape):
    """Boxes with voxels within a volume."""

    def box(draw):
        start = [draw(st.integers(0, n - 1)) for n in shape]
        stop = [draw(st.integers(a + 1, n)) for a, n in zip(start, shape, strict=True)]
        return Box(tuple(start), tuple(stop))

    return st.composite(box)()


@given(data=st.data(), spacing=st.sampled_from(SPACINGS))
@settings(max_examples=25, deadline=None)
def test_cells_and_regions_give_what_the_whole_gives(data, spacing):
    shape = data.draw(st.tuples(st.integers(1, 50), st.integers(1, 70), st.integers(1, 60)))
    image = make_noise(shape, sigma=1)
    box = data.draw(boxes(shape))
    expected = make_features(image, spacing, SCALES).read(whole(shape))[box.slices]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_KEPT_BYTES", 0)
        patch.setattr(module, "_CELL_SHAPE", CELLS)
        cells = make_features(image, spacing, SCALES)
        cells.prepare()
        np.testing.assert_allclose(cells.read(box), expected, atol=2e-5)
        cells.prepare(box)
        np.testing.assert_allclose(cells.glance(box), expected, atol=2e-5)


def test_what_was_prepared_or_asked_for_before_changes_no_byte(large):
    image = make_noise((40, 60, 70), sigma=1)
    box, region = Box((20, 10, 30), (40, 50, 60)), Box((8, 0, 16), (40, 60, 70))
    fresh, used = make_features(image, scales=SCALES), make_features(image, scales=SCALES)
    for features in (fresh, used):
        features.cache_bytes = 0
    used.read(whole(image.shape))
    used.prepare(Box((0, 0, 0), (8, 8, 8)))
    for features in (fresh, used):
        features.prepare(region)
    np.testing.assert_array_equal(used.read(box), fresh.read(box))


def test_far_from_a_region_nothing_is_read(large):
    volume = Recorder(make_noise((300, 40, 40)))
    features = make_features(volume, scales=SCALES)
    features.prepare()
    assert not volume.boxes
    features.prepare(Box((100, 0, 0), (120, 40, 40)))
    features.read(Box((100, 0, 0), (120, 40, 40)))
    assert min(box.start[0] for box in volume.boxes) > 20
    assert max(box.stop[0] for box in volume.boxes) < 200


def test_only_some_cells_are_kept(large):
    features = make_features(make_noise((64, 40, 40)), scales=SCALES)
    features.read(whole((64, 40, 40)))
    assert len(features._lattice._kept) == 1


@pytest.mark.parametrize("spacing", SPACINGS)
def test_nothing_beyond_its_reach_changes_a_region(large, spacing):
    image = make_noise((150, 160, 170))
    features = make_features(image, spacing, SCALES)
    region = Box((70, 72, 75), (80, 83, 85))
    near = region.grown(features.bank.reach).clipped(whole(image.shape))
    other = np.full_like(image, 7)
    other[near.slices] = image[near.slices]
    changed = make_features(other, spacing, SCALES)
    for either in (features, changed):
        either.prepare(region)
    np.testing.assert_array_equal(features.read(region), changed.read(region))
