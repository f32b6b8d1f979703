"""Candidate classes and novelty, as users of SparseSegmenter see them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from napari_sparseseg import ModelConfig, PaintConfig, SparseSegmenter, TrainingConfig
from napari_sparseseg.errors import InputError, NotFittedError

MODEL = ModelConfig(width=4, depth=2, scales=(1.0, 2.0, 4.0), head_width=32)
TRAINING = TrainingConfig(warm_start_steps=60, patch_voxels=2048, check_every=5)
SHAPE = (10, 26, 22)


def make_image():
    rng = np.random.default_rng(0)
    field = ndimage.gaussian_filter(rng.standard_normal(SHAPE), 2.5)
    truth = (1 + (field > np.median(field))).astype(np.uint8)
    return 30.0 * truth + 12 * rng.standard_normal(SHAPE), truth


IMAGE, TRUTH = make_image()
PAINT = np.where(np.isin(np.arange(SHAPE[0]), (2, 5, 7))[:, None, None], TRUTH, 0)


def fitted(**paint):
    segmenter = SparseSegmenter(random_state=0, model=MODEL, training=TRAINING, paint=PaintConfig(**paint))
    return segmenter.fit(IMAGE, PAINT, max_steps=8)


@pytest.fixture(scope="module")
def plain():
    return fitted()


@pytest.fixture(scope="module")
def both():
    return fitted(candidates=1.2, novelty="features")


def test_sets_of_candidates_hold_the_label_and_have_the_size_that_was_asked_for(both):
    found = both.predict_candidates(IMAGE)
    assert (found.shape, found.dtype) == ((2, *SHAPE), bool)
    labels = both.predict(IMAGE)
    assert all(found[channel][labels == class_id].all() for channel, class_id in enumerate(both.classes_))
    assert found.sum(0).mean() == pytest.approx(1.2, abs=0.15)


def test_sets_cover_the_truth_more_often_than_labels_do(both):
    found, labels = both.predict_candidates(IMAGE), both.predict(IMAGE)
    covered = np.take_along_axis(found, (TRUTH - 1)[None].astype(int), axis=0).mean()
    assert covered > (labels == TRUTH).mean()


def test_novelty_is_a_share_and_high_on_what_was_never_painted(both):
    image = IMAGE.copy()
    image[:, :, 14:] = np.where(np.indices(SHAPE)[2] % 2, 400, -400)[:, :, 14:]
    found = both.predict_novelty(image)
    assert (found.shape, found.dtype) == (SHAPE, np.float32)
    assert 0 <= found.min() <= found.max() <= 1
    assert found[:, :, 17:].mean() > found[:, :, :11].mean()


def test_planes_give_planes():
    segmenter = SparseSegmenter(
        random_state=0, model=MODEL, training=TRAINING, paint=PaintConfig(candidates=1.2, novelty="embedding")
    ).fit(IMAGE[2], PAINT[2], max_steps=2)
    assert segmenter.predict_candidates(IMAGE[2]).shape == (2, *SHAPE[1:])
    assert segmenter.predict_novelty(IMAGE[2]).shape == SHAPE[1:]


def test_a_saved_model_says_the_same(both, tmp_path):
    both.save(tmp_path / "model")
    again = SparseSegmenter.load(tmp_path / "model")
    np.testing.assert_array_equal(again.predict_candidates(IMAGE), both.predict_candidates(IMAGE))
    np.testing.assert_array_equal(again.predict_novelty(IMAGE), both.predict_novelty(IMAGE))
    assert again.paint == PaintConfig(candidates=1.2, novelty="features")


@pytest.mark.parametrize(
    ("method", "setting"), [("predict_candidates", "paint__candidates"), ("predict_novelty", "paint__novelty")]
)
def test_a_model_that_has_not_learnt_it_says_how_to(plain, method, setting):
    with pytest.raises(InputError, match=f"set_params\\({setting}"):
        getattr(plain, method)(IMAGE)
    with pytest.raises(NotFittedError):
        getattr(SparseSegmenter(), method)(IMAGE)


def test_the_labels_of_a_model_with_novelty_are_those_of_one_without(plain):
    np.testing.assert_array_equal(fitted(novelty="features").predict_proba(IMAGE), plain.predict_proba(IMAGE))


def test_it_can_be_learnt_later(plain, tmp_path):
    plain.save(tmp_path / "model", training_state=True)
    again = SparseSegmenter.load(tmp_path / "model").set_params(paint__candidates=1.5, paint__novelty="features")
    again.partial_fit(IMAGE, PAINT, max_steps=3)
    assert again.predict_candidates(IMAGE).sum(0).mean() > 1.2
    assert again.predict_novelty(IMAGE).any()


def test_classes_that_overlap_have_no_candidates():
    segmenter = SparseSegmenter(
        random_state=0,
        model=MODEL,
        training=TRAINING,
        paint=PaintConfig(candidates=1.2, overlapping=True, missing_weight=0.5),
    ).fit(IMAGE, PAINT, max_steps=2)
    with pytest.raises(InputError, match="has not learnt candidate classes"):
        segmenter.predict_candidates(IMAGE)
