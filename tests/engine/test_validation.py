"""The Dice estimate on held-out paint, and the mix that it chooses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from synthetic import make_annotation, make_features, make_network, make_noise

from napari_sparseseg.engine.classes import ClassTable
from napari_sparseseg.engine.paint import prepare_paint
from napari_sparseseg.engine.validation import HeldOutSet

SHAPE = (12, 60, 64)
PATCHES = ((4, 16, 16), (8, 8, 16), (8, 16, 8))
CLASSES = ClassTable((1, 2), 1)


def make_set(codes, classes=CLASSES, share=0.2):
    annotation = make_annotation(codes)
    paint = prepare_paint(annotation, classes, share=share, balance=0.0, seed=0)
    return HeldOutSet([paint], PATCHES, [codes.shape]), paint


def halves():
    codes = np.zeros(SHAPE, np.uint8)
    codes[[2, 6, 10]] = 1
    codes[[2, 6, 10], :, 32:] = 2
    return codes


class FixedHeads:
    """A network whose two heads answer with the truth, or with the contrary."""

    def __init__(self, pixel_is_right, unet_is_right):
        self._network = make_network(n_classes=2)
        self.pixel = self._head(pixel_is_right)
        self.unet = self._head(unet_is_right, axis=1)
        self.mixed = self._network.mixed

    def standardised(self, features):
        return features

    @staticmethod
    def _head(is_right, axis=-1):
        def answer(features):
            intensity = features.select(axis, 0)  # class 2 is bright
            likely = 4 * intensity if is_right else -4 * intensity
            return torch.stack([-likely, likely], dim=axis)

        return answer


def image_of(codes):
    x = np.indices(codes.shape)[2]
    return np.where(x >= 32, 1.0, -1.0).astype(np.float32)


@pytest.mark.parametrize(
    ("pixel", "unet", "context", "dice"),
    [(True, False, 0.0, 1.0), (False, True, 0.75, 1.0), (False, False, None, 0.0)],
)
def test_the_head_that_is_right_answers(pixel, unet, context, dice):
    codes = halves()
    held_out, _ = make_set(codes)
    maps = [make_features(image_of(codes), scales=(1.0,))]
    score = held_out.score(FixedHeads(pixel, unet), maps, CLASSES, has_context=True)
    assert score.dice == dice
    assert context is None or score.context == context


def test_before_its_first_step_the_unet_is_not_asked():
    codes = halves()
    held_out, _ = make_set(codes)
    maps = [make_features(image_of(codes), scales=(1.0,))]
    score = held_out.score(FixedHeads(pixel_is_right=False, unet_is_right=True), maps, CLASSES, has_context=False)
    assert score.context == 0
    assert score.dice == 0


def test_before_its_first_step_no_patch_is_read_only_the_held_out_voxels(monkeypatch):
    codes = halves()
    held_out, _ = make_set(codes)
    feature_map = make_features(image_of(codes), scales=(1.0,))
    network = FixedHeads(pixel_is_right=True, unet_is_right=True)
    expected = held_out.score(network, [feature_map], CLASSES, has_context=True)
    monkeypatch.setattr(feature_map, "read", None)
    score = held_out.score(network, [feature_map], CLASSES, has_context=False)
    assert score.loss == pytest.approx(expected.loss, abs=1e-5)


def test_a_class_that_is_not_held_out_leaves_the_mix_open():
    codes = halves()
    codes[codes == 2] = 0
    codes[2, 30, 40:60] = 2  # too little
    held_out, paint = make_set(codes)
    assert not paint.held_out[paint.allowed[:, 1]].any()
    maps = [make_features(image_of(codes), scales=(1.0,))]
    score = held_out.score(FixedHeads(pixel_is_right=True, unet_is_right=True), maps, CLASSES, has_context=True)
    assert score.context is None
    assert score.dice is None


def test_paint_of_little_weight_hardly_counts():
    codes = halves()
    lies = codes.copy()
    wrong = np.zeros(SHAPE, bool)
    wrong[:, ::3] = wrong[:, 1::3] = True  # two thirds of the paint
    lies[wrong & (codes > 0)] = 3 - lies[wrong & (codes > 0)]
    annotation = make_annotation(lies, weight=np.where(wrong, 1e-3, 1.0))
    paint = prepare_paint(annotation, CLASSES, share=0.2, balance=0.0, seed=0)
    maps = [make_features(image_of(codes), scales=(1.0,))]
    for pixel, unet, context in ((True, False, 0.0), (False, True, 0.75)):
        held_out = HeldOutSet([paint], PATCHES, [SHAPE])
        assert held_out.score(FixedHeads(pixel, unet), maps, CLASSES, has_context=True).context == context


@pytest.mark.parametrize("spoilt", [0, 1, 2])
def test_every_painted_slice_has_a_say(spoilt):
    codes = np.zeros((12, 160, 160), np.uint8)
    slices = [2, 6, 10]
    codes[slices] = 1
    codes[slices, :, 32:] = 2
    held_out, paint = make_set(codes)
    assert len(np.unique(paint.slice_id[paint.held_out])) == 3
    image = image_of(codes)
    image[slices[spoilt]] *= -1
    maps = [make_features(image, scales=(1.0,))]
    score = held_out.score(FixedHeads(pixel_is_right=True, unet_is_right=True), maps, CLASSES, has_context=True)
    assert 0.2 < score.dice < 0.95


def test_nothing_held_out_is_an_empty_set():
    held_out, _ = make_set(halves(), share=0.0)
    assert not held_out
    assert make_set(halves())[0]


def test_the_score_is_that_of_the_held_out_voxels_only():
    codes = halves()
    held_out, paint = make_set(codes)
    image = image_of(codes)
    elsewhere = np.ones(codes.shape, bool)
    elsewhere[tuple(paint.coordinates[paint.held_out].T)] = False
    image[elsewhere] *= -1  # only there would the answer be wrong
    maps = [make_features(image, scales=(1.0,))]
    score = held_out.score(FixedHeads(pixel_is_right=True, unet_is_right=True), maps, CLASSES, has_context=True)
    assert score.dice == 1


def test_a_real_network_is_scored_the_same_twice():
    codes = halves()
    held_out, _ = make_set(codes)
    network = make_network(n_classes=2)
    maps = [make_features(make_noise(SHAPE))]
    first, second = (held_out.score(network, maps, CLASSES, has_context=True) for _ in range(2))
    assert first == second
    assert 0 <= first.dice <= 1
    assert first.loss > 0


@pytest.mark.parametrize("shape", [(1, 64, 60), (3, 70, 2), (40, 2, 40)])
def test_volumes_smaller_than_a_patch_are_scored(shape):
    codes = (1 + (np.indices(shape)[int(np.argmax(shape))] % 20 > 9)).astype(np.uint8)
    held_out, paint = make_set(codes)
    assert held_out or not paint.held_out.any()
    score = held_out.score(make_network(n_classes=2), [make_features(make_noise(shape))], CLASSES, has_context=True)
    assert np.isfinite(score.loss)


class TestManyVolumes:
    def paints(self, n):
        return [prepare_paint(make_annotation(halves()), CLASSES, share=0.2, balance=0.0, seed=k) for k in range(n)]

    def patches(self, paints):
        return HeldOutSet(paints, PATCHES, [SHAPE] * len(paints))._patches

    @pytest.mark.parametrize("n", [4, 10, 60])
    def test_the_patches_of_a_long_time_series_are_few_and_spread_over_its_frames(self, n):
        frames = [patch.volume for patch in self.patches(self.paints(n))]
        assert len(frames) == 24
        counts = np.bincount(frames, minlength=n)
        assert counts.max() - counts.min() <= 1
        assert frames[0] == 0
        assert frames[-1] == n - 1

    def test_frames_with_few_patches_leave_their_turn_to_others(self):
        few = prepare_paint(make_annotation(halves()), CLASSES, share=0.01, balance=0.0, seed=0)
        counts = np.bincount([patch.volume for patch in self.patches([few, *self.paints(5)])])
        assert 0 < counts[0] < 4
        assert counts.sum() == 24

    @pytest.mark.parametrize("n", [1, 2, 3])
    def test_those_of_few_volumes_are_all_scored(self, n):
        frames = [patch.volume for patch in self.patches(self.paints(n))]
        assert np.bincount(frames).tolist() == [8] * n

    def test_every_frame_of_a_short_time_series_has_a_say(self):
        paints = self.paints(10)
        held_out = HeldOutSet(paints, PATCHES, [SHAPE] * 10)
        right, wrong = (
            make_features(image_of(halves()), scales=(1.0,)),
            make_features(-image_of(halves()), scales=(1.0,)),
        )
        network = FixedHeads(pixel_is_right=True, unet_is_right=True)
        for frame in range(10):
            maps = [wrong if number == frame else right for number in range(10)]
            assert held_out.score(network, maps, CLASSES, has_context=True).dice < 1
