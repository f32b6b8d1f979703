"""Tiled prediction: the same as of the whole, in bounded memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from synthetic import CUBES, SMALL, make_features, make_network, make_noise, standardise, whole

from napari_sparseseg._types import Box
from napari_sparseseg.engine.predictor import Predictor

VOLUMES = {
    "cubes": ((16, 40, 36), CUBES),
    "no size fits": ((13, 37, 29), CUBES),
    "long voxels": ((9, 40, 41), (5.0, 1.0, 1.0)),
    "one plane": ((1, 61, 50), CUBES),
    "deep and thin": ((75, 3, 5), CUBES),
}
SMALL_TILES = 6000
SMALLEST = 4096
OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you tried to"),
    RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
    MemoryError("Unable to allocate 3 GiB for an array"),
]


@pytest.fixture(params=VOLUMES.values(), ids=VOLUMES)
def case(request):
    return request.param


def make_predictor(shape, spacing, context, tile_voxels=SMALL_TILES, config=SMALL):
    flat = tuple(n == 1 for n in shape)
    network = make_network(spacing, config=config, flat=flat, context=context)
    feature_map = make_features(make_noise(shape, sigma=1), spacing)
    standardise(network, feature_map.read(whole(shape)))
    return Predictor(network, feature_map, tile_voxels=tile_voxels)


def assemble(predictor, shape, n_classes=3):
    """The predicted volume, and how often each voxel was predicted."""
    found, times = np.full((n_classes, *shape), np.nan, np.float32), np.zeros(shape, int)
    for tile in predictor.predict():
        assert tile.probabilities.shape == (n_classes, *tile.box.shape)
        assert tile.probabilities.dtype == torch.float32
        found[(slice(None), *tile.box.slices)] = tile.probabilities
        times[tile.box.slices] += 1
    assert (times == 1).all()
    return found


@pytest.mark.parametrize("context", [0.0, 0.5, 1.0])
def test_tiled_equals_whole(case, context):
    tiled, at_once = make_predictor(*case, context), make_predictor(*case, context, tile_voxels=1 << 24)
    if np.prod(case[0]) > 2 * SMALL_TILES:
        assert tiled.n_tiles > 1
    assert at_once.n_tiles == 1
    found, expected = assemble(tiled, case[0]), assemble(at_once, case[0])
    np.testing.assert_allclose(np.log(found), np.log(expected), atol=1e-4)
    assert expected.std() > 0.01


def test_deeper_networks_are_tiled_as_well():
    config = SMALL.with_changes(depth=3)
    shape = (7, 12, 90)
    tiled = make_predictor(shape, CUBES, 1.0, tile_voxels=6000, config=config)
    at_once = make_predictor(shape, CUBES, 1.0, tile_voxels=1 << 24, config=config)
    assert tiled.n_tiles > 1
    np.testing.assert_allclose(np.log(assemble(tiled, shape)), np.log(assemble(at_once, shape)), atol=1e-4)


@pytest.mark.parametrize("context", [0.0, 0.5, 1.0])
def test_the_same_tiling_gives_the_same_bytes(case, context):
    first, second = (assemble(make_predictor(*case, context), case[0]) for _ in range(2))
    assert first.tobytes() == second.tobytes()


def test_any_box_can_be_asked_for():
    shape = (13, 37, 29)
    predictor = make_predictor(shape, CUBES, 0.5, tile_voxels=SMALLEST)
    expected = assemble(predictor, shape)
    for box in (Box((3, 5, 7), (4, 6, 8)), Box((0, 9, 0), (13, 10, 29)), Box((12, 36, 28), (13, 37, 29))):
        np.testing.assert_allclose(predictor.tile(box), expected[(slice(None), *box.slices)], atol=1e-4)


def test_probabilities_sum_to_one(case):
    np.testing.assert_allclose(assemble(make_predictor(*case, 0.5), case[0]).sum(0), 1, atol=1e-5)


def test_predicting_keeps_no_graph():
    predictor = make_predictor((4, 8, 8), CUBES, 0.5)
    assert not predictor.tile(Box((0, 0, 0), (4, 8, 8))).requires_grad


def limit_memory(monkeypatch, predictor, error, most_voxels):
    """Let whatever reads more voxels than this fail; return the sizes that were tried."""
    tried = []
    mapped = predictor._features.mapped

    def mapped_or_fail(box, function):
        tried.append(box.n_voxels)
        if box.n_voxels > most_voxels:
            raise error
        return mapped(box, function)

    monkeypatch.setattr(predictor._features, "mapped", mapped_or_fail)
    return tried


# each volume with one error, each error with one volume
@pytest.mark.parametrize(
    ("case", "error"),
    [
        *(pytest.param(case, OUT_OF_MEMORY[0], id=name) for name, case in VOLUMES.items()),
        *(pytest.param(VOLUMES["cubes"], error, id=str(error)[:12]) for error in OUT_OF_MEMORY[1:]),
    ],
)
def test_without_memory_tiles_are_halved_until_they_fit(monkeypatch, case, error):
    shape = case[0]
    expected = assemble(make_predictor(*case, 0.5), shape)
    predictor = make_predictor(*case, 0.5, tile_voxels=1 << 24)
    enough = int(1.5 * np.prod([s + 2 * h for s, h in zip(predictor._stride, predictor._halo, strict=True)]))
    tried = limit_memory(monkeypatch, predictor, error, most_voxels=enough)
    np.testing.assert_allclose(assemble(predictor, shape), expected, atol=1e-4)
    assert max(tried) > enough or np.prod(shape) <= enough


def test_memory_may_also_run_out_in_the_network(monkeypatch):
    shape = (13, 37, 29)
    expected = assemble(make_predictor(shape, CUBES, 0.5), shape)
    predictor = make_predictor(shape, CUBES, 0.5, tile_voxels=1 << 24)
    unet = predictor._network.unet
    forward = unet.forward

    def forward_or_fail(features, inner=None):
        if features[0, 0].numel() > 3000:
            raise torch.OutOfMemoryError("out of memory")
        return forward(features, inner)

    monkeypatch.setattr(unet, "forward", forward_or_fail)
    np.testing.assert_allclose(assemble(predictor, shape), expected, atol=1e-4)


def test_halving_ends_with_the_error_where_nothing_fits(monkeypatch):
    predictor = make_predictor((5, 9, 7), CUBES, 0.5)
    error = RuntimeError("can't allocate memory")
    tried = limit_memory(monkeypatch, predictor, error, most_voxels=0)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        list(predictor.predict())
    assert len(tried) < 20


@pytest.mark.parametrize("error", [RuntimeError("the sizes do not match"), ValueError("wrong"), KeyError("wrong")])
def test_other_errors_are_not_swallowed(monkeypatch, error):
    predictor = make_predictor((5, 9, 7), CUBES, 0.5)
    tried = limit_memory(monkeypatch, predictor, error, most_voxels=0)
    with pytest.raises(type(error)):
        list(predictor.predict())
    assert len(tried) == 1
