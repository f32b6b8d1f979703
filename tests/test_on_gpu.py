"""What must hold on a GPU that is really there: it learns, answers as the CPU does, and its models go anywhere.

Skipped where torch sees no GPU. All other tests that leave the device open run on it, too.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_sparseseg import PaintConfig, SparseSegmenter, TrainingConfig
from napari_sparseseg._types import Box
from napari_sparseseg.config import ModelConfig
from napari_sparseseg.engine.device import choose_device, report_devices
from napari_sparseseg.engine.predictor import Predictor

SHAPE = (24, 48, 56)
STEPS = 30


def _gpu() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else ""


pytestmark = pytest.mark.skipif(not _gpu(), reason="torch sees no GPU")


def make_case(shape=SHAPE):
    """Balls that touch: an image with classes 1 (outside) and 2, ids, and three painted planes."""
    cell = np.indices(shape) // 12
    ids = 1 + np.ravel_multi_index(tuple(cell), tuple(-(-n // 12) for n in shape))
    away = np.sqrt((((np.indices(shape) % 12) - 5.5) ** 2).sum(0))
    truth = np.where(away < 5.5, 2, 1).astype(np.uint8)
    noise = np.random.default_rng(0).standard_normal(shape)
    image = (100 + 40 * truth + 15 * noise).clip(0, 255).astype(np.uint8)
    painted = np.zeros(shape, bool)
    painted[[5, 12, 17]] = True
    return image, np.where(painted, truth, 0).astype(np.uint8), truth, np.where(painted & (truth == 2), ids, 0)


IMAGE, PAINT, TRUTH, IDS = make_case()


def make_segmenter(device, **options):
    return SparseSegmenter(
        device=device, model=ModelConfig(width=8), random_state=0, progress=False, **{"training": quick(), **options}
    )


def quick(**options):
    return TrainingConfig(patch_voxels=8192, warm_start_steps=100, check_every=10, **options)


@pytest.fixture(scope="module")
def fitted():
    return make_segmenter(_gpu()).fit(IMAGE, PAINT, max_steps=STEPS)


def test_it_is_taken_without_being_asked_for_and_reported():
    assert choose_device().device.type == _gpu()
    report = report_devices()
    assert report.devices[0][0].startswith(_gpu())
    assert not report.advice


def test_it_learns(fitted):
    assert fitted._fitted.network.mean.device.type == _gpu()
    assert fitted.score(IMAGE, TRUTH) > 0.9


def test_it_answers_as_the_cpu_does(fitted, tmp_path):
    fitted.save(tmp_path / "model")
    on_cpu = SparseSegmenter.load(tmp_path / "model", device="cpu")
    # bfloat16 has eight bits: the convolutions of the U-Net are that exact
    assert np.abs(fitted.predict_proba(IMAGE) - on_cpu.predict_proba(IMAGE)).max() < 0.15
    assert (fitted.predict(IMAGE) == on_cpu.predict(IMAGE)).mean() > 0.995


def test_features_are_those_of_the_cpu(fitted, tmp_path):
    fitted.save(tmp_path / "model")
    on_cpu = SparseSegmenter.load(tmp_path / "model", device="cpu").fit(IMAGE, PAINT, max_steps=0)
    box = Box((3, 0, 8), (19, 40, 56))
    there, here = (s._trainer._maps[0].read(box).cpu() for s in (fitted, on_cpu))
    torch.testing.assert_close(there, here, rtol=1e-3, atol=1e-3)


def test_models_go_from_device_to_device_and_learn_on(fitted, tmp_path):
    fitted.save(tmp_path / "model")
    there = SparseSegmenter.load(tmp_path / "model", device="cpu").partial_fit(IMAGE, PAINT, max_steps=3)
    there.save(tmp_path / "model")
    back = SparseSegmenter.load(tmp_path / "model", device=_gpu()).partial_fit(IMAGE, PAINT, max_steps=3)
    assert back.n_steps_ == STEPS + 6
    assert back.score(IMAGE, TRUTH) > 0.9


def test_the_same_prediction_gives_the_same_bytes(fitted):
    assert fitted.predict_proba(IMAGE).tobytes() == fitted.predict_proba(IMAGE).tobytes()


def test_tiles_change_next_to_nothing(fitted):
    feature_map, network = fitted._trainer._maps[0], fitted._fitted.network
    whole, tiled = (Predictor(network, feature_map, tile_voxels=n) for n in (1 << 20, 4096))
    assert whole.n_tiles == 1 < tiled.n_tiles
    (expected,) = whole.predict()
    for tile in tiled.predict():
        wanted = expected.probabilities[(slice(None), *tile.box.slices)]
        assert (tile.probabilities - wanted).abs().max() < 0.05  # bfloat16, added up in another order


@pytest.mark.skipif(not torch.cuda.is_available(), reason="only CUDA lets its memory be limited")
def test_memory_that_runs_out_makes_tiles_smaller(fitted):
    image = np.random.default_rng(0).integers(0, 255, (64, 256, 256), np.uint8)
    predictor = fitted._prediction(image).predictor(tile_voxels=1 << 23)
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_allocated() + (600 << 20)) / total)
    try:
        tiles = list(predictor.predict())
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert len(tiles) > predictor.n_tiles
    assert sum(tile.box.n_voxels for tile in tiles) == image.size


@pytest.mark.parametrize(
    ("training", "paint"),
    [
        ({"consistency": 1.0}, {}),
        ({"warm_up_steps": 3}, {}),
        ({"held_out": 0.0, "averaging": 0.0}, {"label_smoothing": 0.1}),
        ({}, {"class_weights": (1.0, 3.0)}),
        ({}, {"candidates": 1.3, "novelty": "features"}),
        ({}, {"novelty": "embedding"}),
    ],
    ids=["consistency", "warm-up", "smoothing", "class weights", "candidates", "novelty"],
)
def test_every_way_to_learn_works_there(training, paint):
    segmenter = make_segmenter(_gpu(), training=quick(**training), paint=PaintConfig(**paint))
    assert segmenter.fit(IMAGE, PAINT, max_steps=12).score(IMAGE, TRUTH) > 0.8
    if "candidates" in paint:
        assert segmenter.predict_candidates(IMAGE).any()
    if "novelty" in paint:
        assert np.isfinite(segmenter.predict_novelty(IMAGE)).all()


def test_objects_are_found_there():
    segmenter = make_segmenter(_gpu()).fit(IMAGE, PAINT, objects=IDS, max_steps=STEPS)
    objects = segmenter.predict_objects(IMAGE)
    assert objects.max() > 20
    assert ((objects > 0) == (segmenter.predict(IMAGE) == 2)).mean() > 0.9
