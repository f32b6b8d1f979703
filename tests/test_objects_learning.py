"""Ids of objects, given to SparseSegmenter."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_sparseseg import ModelConfig, SparseSegmenter, TrainingConfig
from napari_sparseseg.errors import InputError, InputTypeError

MODEL = ModelConfig(width=4, depth=2, scales=(1.0, 2.0, 4.0), head_width=32)
TRAINING = TrainingConfig(warm_start_steps=20, patch_voxels=2048, check_every=5)
SHAPE = (10, 26, 22)
CELLS = 1 + (np.indices(SHAPE)[1] // 9) * 3 + np.indices(SHAPE)[2] // 9
IS_CELL = np.indices(SHAPE)[2] < 18
IMAGE = 30.0 * IS_CELL + 10 * (np.indices(SHAPE)[1] % 9 > 0) + np.random.default_rng(0).standard_normal(SHAPE)
CODES, IDS = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.int64)
CODES[[2, 5, 8]] = (1 + IS_CELL)[[2, 5, 8]]
IDS[CODES == 2] = CELLS[CODES == 2]


def make():
    return SparseSegmenter(random_state=0, model=MODEL, training=TRAINING)


def fitted(objects=IDS, max_steps=4):
    return make().fit(IMAGE, CODES, objects=objects, max_steps=max_steps)


def weights_of(segmenter):
    return segmenter._fitted.network.state_dict()


def assert_same_bits(first, second):
    assert weights_of(first).keys() == weights_of(second).keys()
    assert all(torch.equal(weights_of(first)[name], value) for name, value in weights_of(second).items())


def test_classes_and_objects_are_learnt_together():
    segmenter = fitted()
    assert segmenter._fitted.classes.objects == (2,)
    assert "unet.affinity.weight" in weights_of(segmenter)
    assert (segmenter.predict(IMAGE) == 1 + IS_CELL).mean() > 0.9


@pytest.mark.parametrize("objects", [None, np.zeros(SHAPE, bool), [None], [np.zeros(SHAPE, np.uint64)]], ids=type)
def test_without_ids_the_model_is_that_of_classes_only_to_the_bit(objects):
    image, codes = ([IMAGE], [CODES]) if isinstance(objects, list) else (IMAGE, CODES)
    segmenter = make().fit(image, codes, objects=objects, max_steps=4)
    assert_same_bits(segmenter, make().fit(IMAGE, CODES, max_steps=4))


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint64", "float32"])
def test_any_integers_name_the_same_objects(dtype):
    assert_same_bits(fitted(IDS.astype(dtype)), fitted())


def test_ids_of_any_size_name_the_same_objects():
    assert_same_bits(fitted(np.where(IDS, IDS.astype(np.uint64) + 2**63, 0)), fitted())


def test_each_volume_has_its_own_ids():
    segmenter = make().fit([IMAGE, IMAGE], [CODES, CODES], objects=[IDS, None], max_steps=2)
    alone = fitted(max_steps=2)
    assert segmenter._fitted.network.affinity.taught == alone._fitted.network.affinity.taught


@pytest.mark.parametrize(
    ("objects", "error", "text"),
    [
        (np.ones(SHAPE, int), InputError, "need a class as well"),
        (-IDS, InputError, "cannot be negative"),
        (np.where(IDS, IDS + 0.5, 0), InputError, "whole numbers"),
        (IDS[:5], InputError, "objects has shape"),
        ([IDS, IDS], InputError, "2 arrays of objects were passed for 1 images"),
        ("ids", InputTypeError, "objects"),
    ],
    ids=["no class", "negative", "fractions", "shape", "too many", "text"],
)
def test_ids_that_cannot_be_used_are_refused(objects, error, text):
    with pytest.raises(error, match=text):
        make().fit(IMAGE, CODES, objects=objects, max_steps=1)


class TestGoingOn:
    def test_ids_that_are_painted_later_are_learnt(self):
        segmenter = fitted(objects=None)
        n_steps = segmenter.n_steps_
        segmenter.partial_fit(IMAGE, CODES, objects=IDS, max_steps=3)
        assert segmenter.n_steps_ == n_steps + 3
        assert segmenter._fitted.classes.objects == (2,)
        assert weights_of(segmenter)["unet.affinity.weight"].any()

    def test_undoing_all_ids_leaves_a_model_of_classes(self):
        segmenter = fitted().partial_fit(IMAGE, CODES, max_steps=2)
        assert segmenter._fitted.classes.objects == ()
        assert segmenter._fitted.network.affinity is None

    def test_a_new_class_of_objects_is_learnt_as_well(self):
        codes = np.where((CODES == 2) & (CELLS > 4), 7, CODES).astype(np.uint8)
        segmenter = fitted().partial_fit(IMAGE, codes, objects=IDS, max_steps=2)
        assert segmenter.classes_.tolist() == [1, 2, 7]
        assert segmenter._fitted.classes.objects == (2, 7)

    def test_saving_and_loading_changes_no_bit_of_what_follows(self, tmp_path):
        segmenter = fitted()
        segmenter.save(tmp_path / "model", training_state=True)
        loaded = SparseSegmenter.load(tmp_path / "model", device="cpu")
        assert_same_bits(loaded, segmenter)
        for each in (segmenter, loaded):
            each.partial_fit(IMAGE, CODES, objects=IDS, max_steps=3)
        assert_same_bits(loaded, segmenter)

    def test_a_model_without_training_state_goes_on_too(self, tmp_path):
        fitted().save(tmp_path / "model")
        loaded = SparseSegmenter.load(tmp_path / "model", device="cpu")
        loaded.partial_fit(IMAGE, CODES, objects=IDS, max_steps=2)
        assert loaded._fitted.network.affinity is not None
