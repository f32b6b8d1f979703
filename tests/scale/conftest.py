"""A small model, and plans with small shards."""

from __future__ import annotations

import pytest
from volumes import make_image, paint

from napari_sparseseg import ModelConfig, SparseSegmenter, TrainingConfig
from napari_sparseseg.distributed import plan as plan_module


@pytest.fixture(scope="session")
def model_file(tmp_path_factory):
    """A model that was fitted on the image of `make_image`."""
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    segmenter = SparseSegmenter(
        random_state=0,
        model=ModelConfig(width=4, depth=2, scales=(1.0, 4.0), head_width=16),
        training=TrainingConfig(warm_start_steps=200, patch_voxels=2048),
    )
    segmenter.fit(make_image(), paint(make_image()), max_steps=5).save(path)
    return path


@pytest.fixture
def segmenter(model_file):
    return SparseSegmenter.load(model_file)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    """The smallest shards there are."""
    monkeypatch.setattr(plan_module, "_SHARD_VOXELS", (1, 1, 1))


@pytest.fixture(scope="session")
def whole(model_file, tmp_path_factory):
    """Labels and probabilities of `make_image`, predicted without an interruption by one process."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan_module, "_SHARD_VOXELS", (1, 1, 1))
        segmenter = SparseSegmenter.load(model_file)
        return segmenter.predict_to(make_image(), folder / "labels.ome.zarr", probabilities=True)
