"""Tiles of the live predictor, previews, and what is painted over them."""

from __future__ import annotations

from mmap import PAGESIZE

import numpy as np
import pytest
import torch
from livekit import SMALL, make_image, make_truth, view_of

from napari_sparseseg._types import Box, Region
from napari_sparseseg.engine.classes import ClassTable
from napari_sparseseg.engine.features import FeatureMap
from napari_sparseseg.engine.heads import Heads
from napari_sparseseg.engine.model import ModelSpec
from napari_sparseseg.engine.normalise import IntensityRange
from napari_sparseseg.engine.predictor import Predictor
from napari_sparseseg.live import predictor as module
from napari_sparseseg.live.board import FRESH, NEVER, STALE, Generation
from napari_sparseseg.live.events import View
from napari_sparseseg.live.predictor import LivePredictor, glance_parts
from napari_sparseseg.storage import sparse
from napari_sparseseg.storage.strokes import AnnotationStore
from napari_sparseseg.storage.volume import ArrayVolume

THREE = ClassTable((1, 2, 7), 1)
CASES = {
    "cubes": ((20, 70, 90), None, (1.0, 1.0, 1.0)),
    "long voxels": ((9, 70, 75), None, (5.0, 1.0, 1.0)),
    "one plane": ((1, 140, 130), None, (1.0, 1.0, 1.0)),
    "channels": ((5, 40, 70), 0, (1.0, 1.0, 1.0)),
}
FIRST = Generation(1, 1, 10)


def make(shape, channel_axis=None, spacing=(1.0, 1.0, 1.0), context=0.5, heads=None):
    """A predictor with random weights, and the features of its only frame."""
    image = make_image(make_truth(shape))
    if channel_axis is not None:
        image = np.stack([image, make_image(make_truth(shape), 1)], channel_axis)
    volume = ArrayVolume(image, channel_axis)
    flat = tuple(n == 1 for n in shape)
    spec = ModelSpec(SMALL, spacing, volume.n_channels, flat)
    features = FeatureMap(volume, spec.bank, IntensityRange.of(volume))
    network = spec.build(3, seed=1, heads=heads)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.5)
    part = Box((0, 0, 0), tuple(min(n, 90) for n in shape))  # of a large image: its features take long
    flat_features = features.read(part).reshape(-1, spec.bank.n_features)
    network.standardise_by(flat_features, spec.bank.emphasis(0.5))
    network.context = context
    store = AnnotationStore((1, *shape))
    predictor = LivePredictor(sparse.zeros((1, *shape), np.uint8), store)
    predictor.use(network, THREE, FIRST)
    return predictor, features, network, store


def predict_all(predictor, features):
    return [predictor.tile(0, index, features) for index in np.ndindex(predictor.board(0).grid)]


def whole_probabilities(network, features):
    found = np.zeros((3, *features.shape), np.float32)
    for tile in Predictor(network, features, tile_voxels=1 << 24).predict():
        found[(slice(None), *tile.box.slices)] = tile.probabilities.numpy()
    return found


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_tiles_equal_the_prediction_of_the_whole(case):
    predictor, features, network, _ = make(*case)
    predictor.probability_of = 7
    updates = predict_all(predictor, features)
    probabilities = whole_probabilities(network, features)
    ordered = np.sort(probabilities, axis=0)
    is_clear = ordered[-1] - ordered[-2] > 1e-4
    assert is_clear.mean() > 0.95
    expected = np.array(THREE.ids)[probabilities.argmax(0)]
    np.testing.assert_array_equal(predictor.labels[0][is_clear], expected[is_clear])
    for update in updates:
        np.testing.assert_array_equal(update.labels, predictor.labels[0][update.box.slices])
        wanted = probabilities[2][update.box.slices] * 255
        assert np.abs(update.probability - wanted).max() < 0.5 + 255e-4


def test_uncertainty_is_the_entropy_as_a_share_of_the_largest_possible():
    predictor, features, network, _ = make((9, 30, 30))
    predictor.wants_uncertainty = True
    (update,) = predict_all(predictor, features)
    p = whole_probabilities(network, features)
    entropy = -(p * np.log(np.maximum(p, 1e-30))).sum(0) / np.log(3)
    assert update.uncertainty.dtype == np.uint8
    assert np.abs(update.uncertainty - 255 * entropy).max() < 1
    assert np.ptp(update.uncertainty) > 10


def test_the_second_of_the_candidates_is_handed_out_where_there_is_one():
    predictor, features, network, _ = make((9, 30, 30), heads=Heads(candidates=True))
    network.unet.candidates.threshold = 0.42
    predictor.extras = frozenset({"candidates"})
    (update,) = predict_all(predictor, features)
    whole = Box.whole((9, 30, 30))
    tile = Predictor(network, features, tile_voxels=1 << 24).tile_with({"candidates"}, whole)
    ordered = np.array(THREE.ids)[(-tile.probabilities.numpy()).argsort(0)]
    n_candidates = tile.candidates.sum(0).numpy()
    assert set(np.unique(n_candidates)) >= {1, 2}
    assert not update.second[n_candidates == 1].any()
    found = update.second[n_candidates > 1]
    assert np.isin(found, THREE.ids).all()
    assert (found != ordered[0][n_candidates > 1]).all()
    assert (found == ordered[1][n_candidates > 1]).mean() > 0.9  # the scores are not the probabilities
    assert update.novelty is None


def test_novelty_is_handed_out_as_a_share():
    predictor, features, network, _ = make((9, 30, 30), heads=Heads(novelty="features"))
    network.familiar.centres = torch.zeros(1, network.familiar.centres.shape[1])
    network.familiar.reach = torch.tensor([2.0])
    predictor.extras = frozenset({"novelty", "candidates"})
    (update,) = predict_all(predictor, features)
    whole = Box.whole((9, 30, 30))
    wanted = Predictor(network, features, tile_voxels=1 << 24).tile_with({"novelty"}, whole).novelty.numpy()
    assert update.novelty.dtype == np.uint8
    assert np.abs(update.novelty - 255 * wanted).max() < 1
    assert np.ptp(update.novelty) > 10
    assert update.second is None


def test_of_an_image_larger_than_memory_what_is_off_screen_makes_room(monkeypatch):
    monkeypatch.setattr(sparse, "LARGEST_RESERVED", 1000)
    row = 16 * 2 * PAGESIZE * 2 * 3  # bytes of labels and of where a class is, here and twice in the viewer
    monkeypatch.setattr(module, "free_memory", lambda: 4 * 6 * row)
    monkeypatch.setattr(module, "_LEAST_KEPT", 0)
    predictor, features, *_ = make((48, 130, 70))
    predictor.keep_presence_of(frozenset({7}))
    view, told = view_of((48, 130, 70), index=0), []
    for index in np.ndindex(predictor.board(0).grid):
        predictor.tile(0, index, features)
        told += predictor.make_room(view)
    kept = predictor.known_boxes(0)
    on_screen = {(z, y) for z in (0, 16) for y in (0, 64, 128)}  # and next to it
    assert {box.start[:2] for box in kept} == on_screen
    assert len(told) == 6
    is_known = np.zeros((48, 130, 70), bool)
    for box in kept:
        is_known[box.slices] = True
    for update in told:
        assert update.is_forgotten
        assert not update.labels.any()
        assert not is_known[update.box.slices].any()
    assert (predictor.labels[0] > 0).tolist() == is_known.tolist()
    assert not predictor.presence[7][0][~is_known].any()
    assert predictor.presence[7].any()
    assert predictor.board(0).next_elsewhere(None, FIRST) is not None, "it is predicted again when it is looked at"


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_what_is_on_screen_is_not_forgotten_to_be_previewed_again(monkeypatch, axis):
    shape = (160, 200, 150)
    monkeypatch.setattr(sparse, "LARGEST_RESERVED", 1000)
    monkeypatch.setattr(module, "free_memory", lambda: 0)
    monkeypatch.setattr(module, "_LEAST_KEPT", 16 * 3 * PAGESIZE * 3)  # a row of tiles
    monkeypatch.setattr(module, "_WHEN_FULL", 1000)
    predictor, features, *_ = make(shape)
    view = view_of(shape, axis, index=3)
    n_parts = len(list(module.glance_parts(view, shape)))
    for _ in range(n_parts):
        assert predictor.glance(view, features) is not None
        assert not list(predictor.make_room(view))
    assert predictor.glance(view, features) is None
    assert (predictor.labels[0][view.box.slices] > 0).all()


def test_more_on_screen_than_there_is_memory_for_is_left_alone(monkeypatch):
    shape = (160, 200, 150)
    monkeypatch.setattr(sparse, "LARGEST_RESERVED", 1000)
    monkeypatch.setattr(module, "free_memory", lambda: 0)
    monkeypatch.setattr(module, "_LEAST_KEPT", 16 * 3 * PAGESIZE * 3)
    predictor, features, *_ = make(shape)
    view = view_of(shape, 2, index=3)
    assert not predictor.is_full
    assert predictor.glance(view, features) is not None
    assert predictor.is_full
    assert predictor.glance(view, features) is None
    assert not list(predictor.make_room(view))
    assert list(predictor.make_room(view_of(shape, 0, index=159))), "somewhere else there is room again"
    assert not predictor.is_full


def test_of_what_was_saved_only_what_holds_something_takes_memory(monkeypatch):
    monkeypatch.setattr(sparse, "LARGEST_RESERVED", 1000)
    predictor, *_ = make((48, 130, 70))
    labels = np.zeros((48, 130, 70), np.uint8)
    labels[20:30, 70:80, 5:60] = 7
    updates = list(predictor.restore(0, Box.whole(labels.shape), labels))
    assert [update.box for update in updates] == [Box((16, 64, 0), (32, 128, 64))]
    np.testing.assert_array_equal(predictor.labels[0], labels)
    assert predictor.board(0).n_rows() == 1


def test_an_image_of_usual_size_is_kept_whole(monkeypatch):
    monkeypatch.setattr(module, "free_memory", lambda: 0)
    predictor, features, *_ = make((48, 130, 70))
    predict_all(predictor, features)
    assert not list(predictor.make_room(None))
    assert (predictor.labels > 0).all()


def test_neither_is_handed_out_unasked():
    predictor, features, *_ = make((9, 30, 30))
    (update,) = predict_all(predictor, features)
    assert update.probability is None
    assert update.uncertainty is None
    assert update.novelty is None
    assert update.second is None


def test_a_class_that_the_model_does_not_know_has_no_probability():
    predictor, features, *_ = make((9, 30, 30))
    predictor.probability_of = 99
    (update,) = predict_all(predictor, features)
    assert not update.probability.any()


def test_updates_do_not_share_memory_with_what_is_kept():
    predictor, features, *_ = make((9, 30, 30))
    (update,) = predict_all(predictor, features)
    before = predictor.labels.copy()
    update.labels.fill(99)
    np.testing.assert_array_equal(predictor.labels, before)


class TestFreshness:
    def test_what_was_predicted_is_fresh_until_weights_or_paint_move_on(self):
        predictor, features, network, _ = make((20, 30, 30))
        assert predictor.states(0) is None
        predictor.tile(0, (0, 0, 0), features)
        assert predictor.states(0).ravel().tolist() == [FRESH, NEVER]
        predictor.use(network, THREE, Generation(2, 2, 10))
        assert predictor.states(0).ravel().tolist() == [STALE, NEVER]

    def test_another_model_makes_all_stale_and_keeps_the_labels(self):
        predictor, features, *_ = make((9, 30, 30))
        predict_all(predictor, features)
        predictor.expire()
        assert (predictor.states(0) == STALE).all()
        assert predictor.labels.any()

    def test_clearing_forgets_everything(self):
        predictor, features, *_ = make((9, 30, 30))
        predict_all(predictor, features)
        predictor.clear()
        assert predictor.generation is None
        assert predictor.states(0) is None
        assert not predictor.labels.any()


class TestGlance:
    SHAPE = (18, 70, 66)

    @pytest.fixture(autouse=True)
    def small_parts(self, monkeypatch):
        monkeypatch.setattr("napari_sparseseg.live.predictor._GLANCE", 32)

    def glance_all(self, predictor, features, view):
        found = []
        while (update := predictor.glance(view, features)) is not None:
            found.append(update)
            assert len(found) < 50
        return found

    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_the_plane_on_screen_is_previewed_by_the_pixel_head(self, axis):
        predictor, features, network, _ = make(self.SHAPE)
        view = view_of(self.SHAPE, axis, 10)
        updates = self.glance_all(predictor, features, view)
        count = np.zeros(self.SHAPE, int)
        for update in updates:
            count[update.box.slices] += 1
        expected = np.zeros(self.SHAPE, int)
        expected[view.box.slices] = 1
        np.testing.assert_array_equal(count, expected)
        with torch.no_grad():
            logits = network.at_a_glance(features.read(view.box)).numpy()
        ordered = np.sort(logits, axis=-1)
        is_clear = ordered[..., -1] - ordered[..., -2] > 0.02  # rounding grows in the features of eigenvalues
        labels = np.array(THREE.ids)[logits.argmax(-1)]
        np.testing.assert_array_equal(predictor.labels[0][view.box.slices][is_clear], labels[is_clear])

    def test_the_part_at_the_eye_comes_first(self):
        predictor, features, *_ = make(self.SHAPE)
        view = view_of(self.SHAPE, 0, 10)
        first = predictor.glance(View(view.plane, view.box, (10, 69, 65)), features)
        assert first.box == Box((10, 64, 64), (11, 70, 66))

    def test_moving_the_view_a_little_previews_nothing_again(self):
        predictor, features, *_ = make(self.SHAPE)
        plane = view_of(self.SHAPE, 0, 10).plane
        self.glance_all(predictor, features, View(plane, Box((10, 3, 3), (11, 60, 60)), (10, 30, 30)))
        assert predictor.glance(View(plane, Box((10, 4, 5), (11, 61, 62)), (10, 31, 31)), features) is None

    def test_tiles_are_not_overwritten_by_previews(self):
        predictor, features, *_ = make(self.SHAPE, context=1.0)
        predictor.tile(0, (0, 0, 0), features)
        before = predictor.labels.copy()
        view = view_of(self.SHAPE, 1, 10)
        updates = self.glance_all(predictor, features, view)
        np.testing.assert_array_equal(predictor.labels[0, :16, 10, :64], before[0, :16, 10, :64])
        assert predictor.labels[0, 16:, 10].all()
        for update in updates:
            np.testing.assert_array_equal(update.labels, predictor.labels[0][update.box.slices])

    def test_nothing_is_previewed_where_all_tiles_are_there(self):
        predictor, features, *_ = make((9, 30, 30))
        predict_all(predictor, features)
        assert predictor.glance(view_of((9, 30, 30)), features) is None

    def test_other_weights_preview_anew_what_is_not_predicted_yet(self):
        predictor, features, network, _ = make((9, 30, 30))
        view = view_of((9, 30, 30))
        self.glance_all(predictor, features, view)
        predictor.use(network, THREE, Generation(2, 1, 20))
        assert predictor.glance(view, features).generation == 2

    def test_a_view_beside_the_image_shows_nothing(self):
        view = view_of(self.SHAPE, 0, 10)
        beside = View(view.plane, Box((10, 70, 0), (11, 70, 0)), view.center)
        assert list(glance_parts(beside, self.SHAPE)) == []


class TestSets:
    BOX = Box((4, 5, 5), (6, 25, 25))

    def test_the_best_class_of_the_set_is_taken(self):
        predictor, features, network, store = make((9, 30, 30))
        store.annotate(Region(0, self.BOX), store.code_for(any_of=[2, 7]))
        predict_all(predictor, features)
        p = whole_probabilities(network, features)
        free, narrowed = np.array(THREE.ids)[p.argmax(0)], np.array([2, 7])[p[1:].argmax(0)]
        inside = np.zeros(free.shape, bool)
        inside[self.BOX.slices] = True
        assert (free[inside] == 1).any()
        np.testing.assert_array_equal(predictor.labels[0][inside], narrowed[inside])
        np.testing.assert_array_equal(predictor.labels[0][~inside], free[~inside])

    def test_previews_are_narrowed_as_well(self):
        predictor, features, _, store = make((9, 30, 30))
        store.annotate(Region(0, self.BOX), store.code_for(none_of=[1]))
        predictor.glance(view_of((9, 30, 30), index=4), features)
        assert set(np.unique(predictor.labels[0, 4, 5:25, 5:25])) <= {2, 7}

    def test_a_set_of_classes_that_the_model_does_not_know_narrows_nothing(self):
        predictor, features, _, store = make((9, 30, 30))
        predict_all(predictor, features)
        before = predictor.labels.copy()
        store.annotate(Region(0, self.BOX), store.code_for(any_of=[3, 4]))
        predict_all(predictor, features)
        np.testing.assert_array_equal(predictor.labels, before)

    def test_a_code_that_was_given_up_meanwhile_narrows_nothing(self, monkeypatch):
        predictor, features, _, store = make((9, 30, 30))
        predict_all(predictor, features)
        before = predictor.labels.copy()
        store.annotate(Region(0, self.BOX), store.code_for(any_of=[2, 7]))
        monkeypatch.setattr(type(store), "sets", {})
        predict_all(predictor, features)
        np.testing.assert_array_equal(predictor.labels, before)

    def test_paint_of_single_classes_does_not_show_in_predictions(self):
        predictor, features, _, store = make((9, 30, 30))
        predict_all(predictor, features)
        before = predictor.labels.copy()
        store.annotate(Region(0, self.BOX), 7)
        predict_all(predictor, features)
        np.testing.assert_array_equal(predictor.labels, before)


def test_a_dropped_class_is_unknown_where_it_was_predicted():
    predictor, features, *_ = make((20, 30, 30))
    predict_all(predictor, features)
    was_two = predictor.labels == 2
    before = predictor.labels.copy()
    updates = list(predictor.drop_class(2))
    assert was_two.any()
    np.testing.assert_array_equal(predictor.labels, np.where(was_two, 0, before))
    shown = before.copy()
    for update in updates:
        shown[(update.frame, *update.box.slices)] = update.labels
    np.testing.assert_array_equal(shown, predictor.labels)
    assert list(predictor.drop_class(2)) == []
