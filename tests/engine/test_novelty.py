"""What is like nothing that was painted: the embedding, points that stand for the paint, and distances from them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_sparseseg.engine.heads import MOST_CENTRES, EmbeddingHead, Familiar
from napari_sparseseg.engine.lessons import Targets
from napari_sparseseg.engine.losses import contrastive_loss
from napari_sparseseg.engine.weak.novelty import anchors, clustered, evenly, settle


def blob(*centre, n=300, spread=0.1, seed=0):
    noise = np.random.default_rng(seed).normal(scale=spread, size=(n, len(centre)))
    return torch.from_numpy((np.asarray(centre) + noise).astype(np.float32))


class TestLoss:
    def test_gradient_is_exactly_zero_where_nothing_is_said(self):
        points = torch.nn.functional.normalize(torch.randn(20, 4), dim=1).requires_grad_()
        weight = torch.tensor([1.0, 0.0] * 10)
        contrastive_loss(points, torch.arange(20) % 3, weight, temperature=0.1).backward()
        assert not points.grad[weight == 0].any()
        assert points.grad[weight > 0].any(1).all()

    @pytest.mark.parametrize("n", [0, 1])
    def test_without_a_pair_there_is_no_loss(self, n):
        points = torch.randn(n, 4, requires_grad=True)
        loss = contrastive_loss(points, torch.zeros(n), torch.ones(n), temperature=0.1)
        loss.backward()
        assert loss.item() == 0
        assert not points.grad.any()

    def test_agrees_with_pytorch_metric_learning(self):
        from pytorch_metric_learning.losses import SupConLoss

        points = torch.nn.functional.normalize(torch.randn(40, 8, dtype=torch.float64), dim=1)
        channels = torch.arange(40) % 4
        found = contrastive_loss(points, channels, torch.ones(40, dtype=torch.float64), temperature=0.2)
        torch.testing.assert_close(found, SupConLoss(temperature=0.2)(points, channels))


class TestAnchors:
    def test_classes_are_as_frequent_and_sets_and_weightless_voxels_are_left_out(self):
        allowed = torch.zeros(1000, 3, dtype=torch.bool)
        allowed[:800, 0] = allowed[800:900, 1] = allowed[900:, 2] = True
        allowed[950:, 1] = True  # "1 or 2"
        weights = torch.ones(1000)
        weights[:400] = 0
        rows = anchors(Targets(allowed, weights), 120)
        assert torch.bincount(allowed[rows].int().argmax(1)).tolist() == [40, 40, 40]
        assert (weights[rows] > 0).all()
        assert (allowed[rows].sum(1) == 1).all()

    def test_nothing_definite_gives_no_anchors(self):
        assert len(anchors(Targets(torch.ones(5, 2, dtype=torch.bool), torch.ones(5)), 100)) == 0

    def test_evenly_keeps_first_and_last(self):
        assert evenly(torch.arange(100), 3).tolist() == [0, 50, 99]
        assert evenly(torch.arange(3), 100).tolist() == [0, 1, 2]


class TestCentres:
    def test_every_cluster_gets_its_centre(self):
        places = [(0.0, 0.0), (5.0, 0.0), (0.0, 5.0)]
        centres = clustered(torch.cat([blob(*place) for place in places]), 3)
        assert torch.cdist(torch.tensor(places), centres).amin(1).max() < 0.1

    def test_there_are_no_more_centres_than_points(self):
        assert len(clustered(blob(0.0, 0.0, n=5), 32)) == 5


class TestNovelty:
    def settled(self, *, held_out=()):
        familiar = Familiar(2)
        settle(familiar, [blob(0.0, 0.0), blob(5.0, 0.0), torch.zeros(0, 2)], [*held_out, *[torch.zeros(0, 2)] * 3][:3])
        return familiar

    def test_one_in_a_hundred_painted_voxels_lies_beyond_one_half(self):
        found = self.settled().novelty(torch.cat([blob(0.0, 0.0), blob(5.0, 0.0)]))
        assert float((found > 0.5).float().mean()) == pytest.approx(0.01, abs=0.005)
        assert 0 <= found.min() < found.max() < 1

    def test_it_grows_with_the_distance_from_all_that_was_painted(self):
        found = self.settled().novelty(torch.tensor([[0.0, 0.0], [0.0, 1.0], [0.0, 1.5], [0.0, 2.5], [5.0, 0.0]]))
        assert found[0] < 0.5 < found[1] < found[2] < found[3] <= 1
        assert found[4] < 0.5

    def test_held_out_paint_is_the_yardstick_where_there_is_enough(self):
        wide = blob(0.0, 0.0, spread=1.0, seed=1)
        point = torch.tensor([[0.0, 1.0]])
        assert self.settled(held_out=[wide]).novelty(point) < 0.5 < self.settled(held_out=[wide[:50]]).novelty(point)

    def test_nothing_is_new_before_anything_is_known(self):
        assert Familiar(2).novelty(torch.randn(5, 2)).tolist() == [0] * 5

    def test_many_classes_share_the_centres(self):
        familiar = Familiar(2)
        points = [blob(float(number), 0.0, n=40) for number in range(100)]
        settle(familiar, points, [torch.zeros(0, 2)] * 100)
        assert len(familiar.centres) == len(familiar.reach) <= MOST_CENTRES

    def test_paint_that_is_all_alike_has_a_reach_above_zero(self):
        familiar = Familiar(2)
        settle(familiar, [torch.ones(10, 2)], [torch.zeros(0, 2)])
        assert torch.isfinite(familiar.novelty(torch.tensor([[1.0, 1.0], [1.0, 1.1]]))).all()

    def test_of_features_the_direction_counts_more_than_the_length(self):
        points = Familiar(3).points(torch.tensor([[1.0, 0.0, 0.0], [16.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]))
        torch.testing.assert_close(points[:2, 0], torch.tensor([1.0, 2.0]))
        assert not points[3].any()


def test_the_embedding_starts_as_the_features_and_has_unit_length():
    decoded = torch.randn(7, 16)
    torch.testing.assert_close(EmbeddingHead(16).points(decoded), torch.nn.functional.normalize(decoded, dim=1))
    assert EmbeddingHead(40).points(torch.randn(7, 40)).shape == (7, 16)
    assert EmbeddingHead(4).points(torch.randn(7, 4)).shape == (7, 4)
