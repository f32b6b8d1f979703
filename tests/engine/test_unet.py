"""Shape, reach and symmetry of the U-Net."""

from __future__ import annotations

import pytest
import torch
from synthetic import make_network, standardise

from napari_sparseseg._types import Box
from napari_sparseseg.config import ModelConfig
from napari_sparseseg.engine.unet import UNet3D, plan_levels

SOLID = (False, False, False)
PLANS = {
    "isotropic": ((1.0, 1.0, 1.0), SOLID),
    "nearly isotropic": ((1.3, 1.0, 1.1), SOLID),
    "twice": ((2.0, 1.0, 1.0), SOLID),
    "ten times": ((10.0, 1.0, 1.0), SOLID),
    "x coarse": ((1.0, 1.0, 5.0), SOLID),
    "all differ": ((4.0, 2.0, 1.0), SOLID),
    "2D": ((1.0, 1.0, 1.0), (True, False, False)),
    "2D, flat axis finest": ((0.1, 1.0, 1.0), (True, False, False)),
    "one line": ((1.0, 1.0, 1.0), (True, False, True)),
    "one voxel": ((1.0, 1.0, 1.0), (True, True, True)),
}


@pytest.fixture(params=[1, 2, 3, 4], ids="depth {}".format)
def depth(request):
    return request.param


@pytest.fixture(params=PLANS.values(), ids=PLANS.keys())
def levels(request, depth):
    spacing, flat = request.param
    return plan_levels(spacing, depth, flat)


def make_unet(levels):
    config = ModelConfig(width=4, scales=(1.0,))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet3D(n_features=3, n_classes=2, levels=levels, width=config.width)
        for parameter in unet.parameters():  # positive weights: no change is lost in a rectifier
            torch.nn.init.uniform_(parameter, 0.01, 0.5)
    return unet.double()


def plan(name, depth=3):
    return plan_levels(PLANS[name][0], depth, PLANS[name][1])


def test_cubes_are_pooled_and_convolved_along_all_axes():
    levels = plan("isotropic")
    assert [level.kernel for level in levels] == [(3, 3, 3)] * 3
    assert [level.pool for level in levels] == [(1, 1, 1), (2, 2, 2), (2, 2, 2)]


def test_long_voxels_are_pooled_in_plane_until_they_are_cubes():
    levels = plan("twice")
    assert levels[1].pool == (1, 2, 2)
    assert levels[2].pool == (2, 2, 2)


def test_very_long_voxels_are_treated_slice_by_slice_at_first():
    levels = plan("ten times")
    assert levels[0].kernel == (1, 3, 3)
    assert all(level.pool[0] == 1 for level in levels)


def test_the_axis_that_is_coarse_may_be_any():
    assert plan("x coarse")[0].kernel == (3, 3, 1)
    assert plan("x coarse")[1].pool == (2, 2, 1)


@pytest.mark.parametrize("name", ["2D", "2D, flat axis finest", "one line", "one voxel"])
def test_flat_axes_are_neither_pooled_nor_convolved(name):
    flat = PLANS[name][1]
    for level in plan(name):
        for axis in range(3):
            assert not flat[axis] or (level.kernel[axis], level.pool[axis]) == (1, 1)
            assert flat[axis] or level.kernel[axis] == 3


def test_stride_is_the_total_pooling(levels):
    for axis in range(3):
        total = 1
        for level in levels:
            total *= level.pool[axis]
        assert make_unet(levels).stride[axis] == total


def test_halo_is_a_multiple_of_the_stride(levels):
    unet = make_unet(levels)
    assert all(h % s == 0 for h, s in zip(unet.halo, unet.stride, strict=True))


def test_every_voxel_gets_a_logit_for_every_class(levels):
    unet = make_unet(levels)
    shape = tuple(2 * s for s in unet.stride)
    for n in (1, 2, 3):
        assert unet(torch.zeros(n, 3, *shape, dtype=torch.float64)).shape == (n, 2, *shape)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_nothing_beyond_the_halo_matters(levels, axis):
    unet = make_unet(levels)
    stride, halo = unet.stride[axis], unet.halo[axis]
    shape = list(unet.stride)
    shape[axis] = 2 * halo + 3 * stride
    features = torch.rand(2, 3, *shape, dtype=torch.float64)
    inside = slice(halo + stride, halo + 2 * stride)  # one cell of the grid, with its halo and a cell more around
    with torch.no_grad():
        expected = unet(features).movedim(2 + axis, 0)[inside]
        for outside in (slice(0, stride), slice(-stride, None)):
            changed = features.clone()
            changed.movedim(2 + axis, 0)[outside] += 100
            assert torch.equal(unet(changed).movedim(2 + axis, 0)[inside], expected)


@pytest.mark.parametrize("name", ["isotropic", "ten times", "2D"])
def test_the_network_sees_its_surroundings(name):
    unet = make_unet(plan(name))
    features = torch.rand(2, 3, *(4 * s for s in unet.stride), dtype=torch.float64)
    changed = features.clone()
    changed[..., 0] += 1  # one plane across x
    with torch.no_grad():
        difference = (unet(changed) - unet(features)).abs().amax(dim=(0, 1, 2, 3))
    assert (difference[: 1 + unet.stride[2]] > 0).all()


@pytest.mark.parametrize("name", ["isotropic", "ten times", "2D"])
@pytest.mark.parametrize("side", [1, 8])
def test_a_tile_alone_gets_what_it_gets_in_a_batch(name, side):
    unet = make_unet(plan(name)).float()
    shape = tuple(side * s for s in unet.stride)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        batch = torch.randn(3, 3, *shape)
    with torch.no_grad():
        alone = torch.cat([unet(item[None]) for item in batch])
        torch.testing.assert_close(alone, unet(batch), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("low", [(0.0, 0.0, 0.0), (0.3, 0.25, 0.4), (0.6, 0.7, 0.5)])
def test_the_inner_part_alone_equals_that_of_the_whole(levels, low):
    unet = make_unet(levels)
    shape = [min(n, 3) * s if s > 1 else n for n, s in zip((5, 4, 6), unet.stride, strict=True)]
    start = tuple(int(f * n) for f, n in zip(low, shape, strict=True))
    inner = Box(start, tuple(min(n, a + 3) for a, n in zip(start, shape, strict=True)))
    image = torch.rand(1, 3, *shape, dtype=torch.float64)
    with torch.no_grad():
        expected = unet(image)[(slice(None), slice(None), *inner.slices)]
        torch.testing.assert_close(unet(image, inner), expected)


def test_the_network_standardises_and_mixes():
    network = make_network(context=0.25)
    features = torch.rand(4, 8, 8, network.mean.numel()) * 5 + 3
    standardise(network, features)
    known = network.standardised(features).reshape(-1, features.shape[-1])
    torch.testing.assert_close(known.mean(0), torch.zeros_like(network.mean), atol=1e-4, rtol=0)
    torch.testing.assert_close(known.std(0, correction=0), torch.ones_like(network.mean), atol=1e-4, rtol=0)


@pytest.mark.parametrize("context", [0.0, 0.25, 1.0])
def test_the_mix_is_a_weighted_mean_of_log_probabilities(context):
    network = make_network(context=context)
    features = torch.rand(4, 8, 8, network.mean.numel())
    with torch.no_grad():
        pixel = network.pixel(features).log_softmax(-1)
        unet = network.unet(features.movedim(-1, 0)[None])[0].movedim(0, -1).log_softmax(-1)
        torch.testing.assert_close(network(features), ((1 - context) * pixel + context * unet).log_softmax(-1))


def test_a_feature_that_never_changes_does_no_harm():
    network = make_network()
    standardise(network, torch.full((10, network.mean.numel()), 3.0))
    known = network.standardised(torch.full((2, network.mean.numel()), 3.0))
    assert torch.isfinite(known).all()
    assert (known.abs() < 1e-3).all()
