"""Pixel head and U-Net in one network."""

from __future__ import annotations

import torch
from synthetic import make_network, standardise

SHAPE = (4, 12, 16)


def make(context):
    network = make_network(context=context)
    features = torch.randn((*SHAPE, network.mean.numel()), generator=torch.Generator().manual_seed(0))
    standardise(network, features)
    return network, features


def test_at_a_glance_the_pixel_head_answers_whatever_the_mix():
    network, features = make(context=0.7)
    expected = network.pixel(network.standardised(features)).log_softmax(-1)
    with torch.no_grad():
        torch.testing.assert_close(network.at_a_glance(features), expected)
        assert not torch.allclose(network(features), expected, atol=1e-2)
        network.context = 0.0
        assert torch.equal(network(features), network.at_a_glance(features))


def test_it_standardises_what_it_is_given():
    network, features = make(context=0.5)
    features = 3 + 0.01 * features
    standardise(network, features)
    known = network.standardised(features)
    with torch.no_grad():
        unet = network.unet(known.movedim(-1, 0)[None])[0].movedim(0, -1)
        expected = network.mixed(network.pixel(known), unet).log_softmax(-1)
        torch.testing.assert_close(network(features), expected, atol=1e-4, rtol=1e-4)


def test_a_glance_needs_no_surroundings():
    network, features = make(context=0.0)
    with torch.no_grad():
        torch.testing.assert_close(network.at_a_glance(features[1:2, 3:7]), network.at_a_glance(features)[1:2, 3:7])


def test_more_voxels_than_fit_the_cache_at_once_are_answered_alike(monkeypatch):
    network, features = make(context=0.0)
    with torch.no_grad():
        expected = network.at_a_glance(features)
        monkeypatch.setattr("napari_sparseseg.engine.network._PIXELS_AT_ONCE", 100)
        torch.testing.assert_close(network.at_a_glance(features), expected)
