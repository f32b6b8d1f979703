"""Features of painted voxels, kept where the paint stays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic import QUICK, make_annotation, make_blobs, make_features, make_trainer, paint_planes

from napari_sparseseg.engine import painted as module
from napari_sparseseg.engine.classes import ClassTable
from napari_sparseseg.engine.features import FeatureMap
from napari_sparseseg.engine.paint import prepare_paint
from napari_sparseseg.engine.painted import PaintedFeatures

SHAPE = (8, 24, 26)
IMAGES, TRUTHS = zip(*(make_blobs(SHAPE, seed=seed) for seed in range(3)), strict=True)
ANNOTATIONS = [make_annotation(paint_planes(truth, (0, 2), (0, 6))) for truth in TRUTHS]
OTHER = make_annotation(paint_planes(TRUTHS[1], (0, 2), (0, 5)))


@pytest.fixture
def asked(monkeypatch):
    """The maps that were asked for features of single voxels."""
    found = []
    at = FeatureMap.at

    def recorded(feature_map, coordinates):
        found.append(feature_map)
        return at(feature_map, coordinates)

    monkeypatch.setattr(FeatureMap, "at", recorded)
    return found


def make_maps():
    return [make_features(image) for image in IMAGES]


def fit(trainer, maps, annotations):
    trainer.learn_from(maps, annotations)
    return [step.loss for step in trainer.steps(with_context=False, burst=5)]


def after_a_stroke(asked):
    """Losses, and of which frames features were asked for, once the second of them was painted further."""
    config = QUICK.with_changes(held_out=0.0)
    maps, trainer = make_maps(), make_trainer(IMAGES[0], paint_planes(TRUTHS[0], (0, 2)), config)
    before = fit(trainer, maps, ANNOTATIONS)
    asked.clear()
    after = fit(trainer, maps, [ANNOTATIONS[0], OTHER, ANNOTATIONS[2]])
    return before + after, [maps.index(feature_map) for feature_map in asked]


def test_a_stroke_has_only_the_features_of_its_own_frame_computed_again(asked):
    _, frames = after_a_stroke(asked)
    assert frames == [1]


def test_what_is_learnt_is_the_same_without(asked, monkeypatch):
    losses, _ = after_a_stroke(asked)
    monkeypatch.setattr(module, "_MOST_VOXELS", 0)
    expected, frames = after_a_stroke(asked)
    assert frames == [0, 1, 2]
    assert losses == expected


def test_of_a_single_volume_nothing_is_kept():
    trainer = make_trainer(IMAGES[0], paint_planes(TRUTHS[0], (0, 2)))
    list(trainer.steps(with_context=False, burst=2))
    assert not trainer._painted_features._known


class TestPaintedFeatures:
    @pytest.fixture
    def paints(self):
        table = ClassTable((1, 2), 1)
        return [prepare_paint(a, table, share=0.1, balance=0.0, seed=0) for a in ANNOTATIONS]

    def test_they_are_those_of_the_map(self, paints):
        maps, features = make_maps(), PaintedFeatures()
        features.keep_only(maps)
        rows = np.arange(5, 200, 3)
        for _ in range(2):
            for feature_map, paint in zip(maps, paints, strict=True):
                expected = feature_map.at(paint.coordinates[rows])
                assert torch.equal(features.at(feature_map, paint, rows), expected)

    def test_no_more_are_kept_than_there_is_room_for(self, paints, monkeypatch, asked):
        monkeypatch.setattr(module, "_MOST_VOXELS", len(paints[0]) + len(paints[1]))
        maps, features = make_maps(), PaintedFeatures()
        features.keep_only(maps)
        for _ in range(2):
            for feature_map, paint in zip(maps, paints, strict=True):
                features.at(feature_map, paint, np.arange(10))
        assert [maps.index(feature_map) for feature_map in asked] == [0, 1, 2, 2]

    def test_those_of_volumes_that_are_gone_are_forgotten(self, paints, asked):
        maps, features = make_maps(), PaintedFeatures()
        features.keep_only(maps)
        features.at(maps[0], paints[0], np.arange(10))
        features.keep_only(maps[1:])
        features.keep_only(maps)
        features.at(maps[0], paints[0], np.arange(10))
        assert len(asked) == 2

    def test_unlabelled_voxels_are_not_kept(self, paints, asked):
        maps, features = make_maps(), PaintedFeatures()
        features.keep_only(maps)
        paint = replace(paints[0], allowed=np.ones_like(paints[0].allowed))
        for _ in range(2):
            features.at(maps[0], paint, np.arange(10))
        assert len(asked) == 2
