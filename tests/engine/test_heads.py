"""Candidates and novelty beside the classes: training, growth, prediction, model files."""

from __future__ import annotations

import json
from itertools import islice

import numpy as np
import pytest
import torch
from synthetic import (
    CUBES,
    SMALL,
    make_annotation,
    make_blobs,
    make_features,
    make_network,
    make_noise,
    make_touching,
    make_trainer,
    paint_planes,
    standardise,
    whole,
)

from napari_sparseseg.config import PaintConfig
from napari_sparseseg.engine.checkpoint import describe_model, encode_model, load_model, save_model
from napari_sparseseg.engine.classes import ClassTable
from napari_sparseseg.engine.heads import Heads
from napari_sparseseg.engine.headstate import HeadState
from napari_sparseseg.engine.model import FittedModel, ModelSpec
from napari_sparseseg.engine.objects.offsets import default_offsets
from napari_sparseseg.engine.predictor import Predictor
from napari_sparseseg.errors import ModelFileError

SHAPE = (12, 30, 28)
IMAGE, TRUTH = make_blobs(SHAPE)
CODES = paint_planes(TRUTH, (0, 2), (0, 6), (0, 10))
OFF = PaintConfig()
CANDIDATES = PaintConfig(candidates=1.3)
FEATURES = PaintConfig(novelty="features")
EMBEDDING = PaintConfig(novelty="embedding")
BOTH = PaintConfig(candidates=1.3, novelty="embedding")
ALL = (CANDIDATES, FEATURES, EMBEDDING, BOTH)
SPEC = ModelSpec(SMALL, CUBES, 1, (False,) * 3)


def make(paint=OFF, **options):
    return make_trainer(IMAGE, CODES, paint=paint, **options)


def named(paint):
    return f"{paint.candidates}-{paint.novelty}"


def learn(trainer, codes=CODES, objects=None):
    trainer.learn_from([make_features(IMAGE)], [make_annotation(codes, objects=objects)])


def unet_steps(trainer, n):
    steps = list(islice((s for s in trainer.steps() if s.phase == "unet"), n))
    trainer.finish()
    return steps


def all_bits(trainer):
    plain, tensors = trainer.state()
    return json.dumps(plain), {**tensors, **trainer.averaged.state_dict()}, HeadState.of(trainer.averaged)


def assert_same_bits(first, second):
    (plain, tensors, heads), (other_plain, other_tensors, other_heads) = all_bits(first), all_bits(second)
    assert plain == other_plain
    assert heads == other_heads
    assert tensors.keys() == other_tensors.keys()
    assert all(torch.equal(tensors[name], other_tensors[name]) for name in tensors)


def model_of(trainer):
    return FittedModel(SPEC, trainer.classes, trainer.averaged)


def header_of(content):
    table = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return json.loads(table["__metadata__"]["header"])


class TestTraining:
    @pytest.mark.parametrize("paint", [OFF, *ALL], ids=named)
    def test_there_are_the_heads_that_are_asked_for(self, paint):
        heads = Heads(candidates=paint.candidates > 0, novelty=paint.novelty)
        for network in (make(paint).averaged, make(paint).network):
            assert network.heads == heads
            assert (network.unet.embedding is not None) == (paint.novelty == "embedding")

    def test_novelty_among_features_changes_no_bit_of_what_is_learnt(self):
        plain, novel = make(), make(FEATURES)
        unet_steps(plain, 6)
        unet_steps(novel, 6)
        for name, value in plain.averaged.state_dict().items():
            assert torch.equal(novel.averaged.state_dict()[name], value)
        assert plain.state()[0] == novel.state()[0]

    @pytest.mark.parametrize("paint", ALL, ids=named)
    def test_all_other_weights_start_the_same(self, paint):
        plain, more = make(), make(paint)
        for name, value in plain.network.state_dict().items():
            assert torch.equal(more.network.state_dict()[name], value)

    @pytest.mark.parametrize("paint", ALL, ids=named)
    def test_the_same_seed_gives_the_same_bits(self, paint):
        first, second = make(paint), make(paint)
        unet_steps(first, 6)
        unet_steps(second, 6)
        assert_same_bits(first, second)

    def test_both_heads_learn(self):
        trainer = make(BOTH)
        before = trainer.averaged.unet.embedding.weight.clone()
        unet_steps(trainer, 6)
        assert trainer.averaged.unet.candidates.weight.any()
        assert not torch.equal(trainer.averaged.unet.embedding.weight, before)

    @pytest.mark.parametrize("average", [1.0, 1.3, 5.0])
    def test_sets_have_the_average_size_around_the_paint(self, average):
        trainer = make(PaintConfig(candidates=average))
        unet_steps(trainer, 6)
        predictor = Predictor(trainer.averaged, make_features(IMAGE), tile_voxels=1 << 20)
        tile = predictor.tile_with({"candidates"}, whole(SHAPE))
        assert float(tile.candidates.float().sum(0).mean()) == pytest.approx(min(average, 2), abs=0.15)
        assert tile.candidates.gather(0, tile.probabilities.argmax(0)[None]).all()

    @pytest.mark.parametrize("space", ["features", "embedding"])
    def test_painted_voxels_are_less_new_than_noise(self, space):
        trainer = make(PaintConfig(novelty=space))
        unet_steps(trainer, 6)
        image = IMAGE.copy()
        image[:, :, 18:] = 40 * make_noise((*SHAPE[:2], 10), seed=9)
        found = Predictor(trainer.averaged, make_features(image), tile_voxels=1 << 20)
        novelty = found.tile_with({"novelty"}, whole(SHAPE)).novelty
        assert novelty.dtype == torch.float32
        assert 0 <= novelty.min() < novelty.max() <= 1
        assert novelty[:, :, 22:].mean() > novelty[:, :, :14].mean() + (0.2 if space == "features" else 0)

    @pytest.mark.parametrize("paint", ALL, ids=named)
    @pytest.mark.parametrize("shape", [(1, 30, 28), (12, 1, 28)])
    def test_flat_volumes_can_be_learnt(self, shape, paint):
        image, truth = (array[: shape[0], : shape[1]] for array in (IMAGE, TRUTH))
        assert len(unet_steps(make_trainer(image, truth, paint=paint), 3)) == 3

    @pytest.mark.parametrize("paint", ALL, ids=named)
    def test_paint_that_only_narrows_can_be_learnt(self, paint):
        codes = np.where(CODES == 2, 9, CODES)
        codes[2, :5, :5] = 2
        trainer = make_trainer(IMAGE, codes, allowed={9: {1, 2}}, paint=paint)
        assert len(unet_steps(trainer, 3)) == 3


class TestGrowth:
    @pytest.mark.parametrize("paint", ALL, ids=named)
    def test_heads_that_come_later_keep_everything_else(self, paint):
        trainer = make()
        unet_steps(trainer, 5)
        plain, before = trainer.state()
        trainer.paint = paint
        learn(trainer)
        now, after = trainer.state()
        assert now["optimiser_steps"] == plain["optimiser_steps"]
        assert all(torch.equal(after[name], value) for name, value in before.items())
        assert_same = trainer.averaged.state_dict()
        assert all(torch.equal(assert_same[f"unet.{n}"], v) for n, v in trainer.averaged.unet.state_dict().items())
        unet_steps(trainer, 2)

    @pytest.mark.parametrize("paint", ALL, ids=named)
    def test_heads_go_when_they_are_no_longer_asked_for(self, paint):
        trainer = make(paint)
        unet_steps(trainer, 5)
        trainer.paint = OFF
        learn(trainer)
        assert trainer.averaged.heads == trainer.network.heads == Heads()
        assert header_of(encode_model(model_of(trainer), settings={}))["version"] == 1
        unet_steps(trainer, 2)

    def test_a_new_class_is_a_candidate_like_the_others_and_starts_unlikely(self):
        trainer = make(BOTH)
        unet_steps(trainer, 5)
        before = trainer.averaged.unet.candidates.bias.clone()
        trainer.change_classes(ClassTable((1, 2, 9), 1))
        after = trainer.averaged.unet.candidates
        assert after.bias.tolist() == [*before.tolist(), -2.0]
        assert trainer.averaged.heads == Heads(candidates=True, novelty="embedding")
        codes = CODES.copy()
        codes[CODES > 0] = 9
        codes[:6] = CODES[:6]
        learn(trainer, codes)
        unet_steps(trainer, 2)

    def test_what_a_head_remembers_of_its_steps_does_not_depend_on_the_order_in_which_heads_came(self, tmp_path):
        image, truth, ids = make_touching(SHAPE)
        codes = paint_planes(truth, (0, 2), (0, 6), (0, 10))
        trainer = make_trainer(image, codes, paint=BOTH)
        learn_more = make_annotation(codes, objects=np.where(codes > 0, ids, 0))
        trainer.learn_from([make_features(image)], [learn_more])
        assert trainer.averaged.heads == Heads(
            default_offsets(CUBES, (False,) * 3), candidates=True, novelty="embedding"
        )
        unet_steps(trainer, 3)
        save_model(tmp_path / "model", model_of(trainer), settings={}, trainer=trainer)
        found, header, tensors = load_model(tmp_path / "model")
        resumed = type(trainer)(found.network, found.classes, trainer.config, seed=0, paint=BOTH)
        resumed.restore(header["training"], tensors)
        for each in (trainer, resumed):
            each.learn_from([make_features(image)], [learn_more])
            unet_steps(each, 3)
        assert_same_bits(trainer, resumed)


def make_predictor(shape, spacing, context, tile_voxels, heads):
    flat = tuple(n == 1 for n in shape)
    network = make_network(spacing, flat=flat, context=context, heads=heads)
    feature_map = make_features(make_noise(shape, sigma=1), spacing)
    standardise(network, feature_map.read(whole(shape)))
    if heads.candidates:
        torch.nn.init.normal_(network.unet.candidates.weight, generator=torch.Generator().manual_seed(1))
        network.unet.candidates.threshold = 0.4
    if network.familiar is not None:
        size = network.familiar.centres.shape[1]
        network.familiar.centres = torch.randn(9, size, generator=torch.Generator().manual_seed(1))
        network.familiar.reach = torch.linspace(1, 2, 9)
    return Predictor(network, feature_map, tile_voxels=tile_voxels)


class TestPrediction:
    @pytest.mark.parametrize("novelty", ["features", "embedding"])
    @pytest.mark.parametrize("context", [0.0, 0.5, 1.0])
    @pytest.mark.parametrize(
        ("shape", "spacing"), [((13, 37, 29), CUBES), ((9, 40, 41), (5.0, 1.0, 1.0)), ((1, 91, 80), CUBES)]
    )
    def test_tiled_equals_whole(self, shape, spacing, context, novelty):
        heads = Heads(candidates=True, novelty=novelty)
        tiled = make_predictor(shape, spacing, context, 6000, heads)
        at_once = make_predictor(shape, spacing, context, 1 << 24, heads)
        assert tiled.n_tiles > at_once.n_tiles == 1
        (expected,) = at_once.predict(extras=("candidates", "novelty"))
        assert expected.candidates.shape == expected.probabilities.shape
        assert expected.novelty.shape == shape
        assert 0 <= expected.novelty.min() < expected.novelty.max() <= 1
        for tile in tiled.predict(extras=("candidates", "novelty")):
            torch.testing.assert_close(tile.novelty, expected.novelty[tile.box.slices], rtol=0, atol=1e-4)
            same = tile.candidates == expected.candidates[(slice(None), *tile.box.slices)]
            assert same.float().mean() > 0.999  # scores next to the threshold may fall on either side of it

    @pytest.mark.parametrize("context", [0.0, 0.5])
    @pytest.mark.parametrize("extra", ["candidates", "novelty"])
    def test_the_classes_are_those_of_a_plain_prediction(self, context, extra):
        heads = Heads(candidates=True, novelty="features")
        predictor = make_predictor((12, 20, 20), CUBES, context, 1 << 20, heads)
        found = predictor.tile_with({extra}, whole((12, 20, 20)))
        torch.testing.assert_close(found.probabilities, predictor.tile(whole((12, 20, 20))))

    def test_what_there_is_no_head_for_is_not_said(self):
        predictor = make_predictor((12, 20, 20), CUBES, 0.5, 1 << 20, Heads(candidates=True))
        found = predictor.tile_with({"candidates", "novelty", "affinities"}, whole((12, 20, 20)))
        assert found.candidates is not None
        assert found.novelty is None
        assert found.affinities is None


class TestModelFiles:
    @pytest.mark.parametrize("paint", ALL, ids=named)
    def test_every_bit_comes_back(self, tmp_path, paint):
        trainer = make(paint)
        unet_steps(trainer, 4)
        save_model(tmp_path / "model", model_of(trainer), settings={}, trainer=trainer)
        found, header, tensors = load_model(tmp_path / "model")
        assert header["version"] == 3
        assert HeadState.of(found.network) == HeadState.of(trainer.averaged) == describe_model(tmp_path / "model").heads
        for name, value in trainer.averaged.state_dict().items():
            assert torch.equal(found.network.state_dict()[name], value)
        resumed = type(trainer)(found.network, found.classes, trainer.config, seed=0, paint=paint)
        resumed.restore(header["training"], tensors)
        for each in (trainer, resumed):
            learn(each)
            unet_steps(each, 3)
        assert_same_bits(trainer, resumed)

    @pytest.mark.parametrize("paint", ALL, ids=named)
    def test_a_model_that_has_learnt_nothing_can_be_saved(self, tmp_path, paint):
        trainer = make(paint)
        save_model(tmp_path / "model", model_of(trainer), settings={})
        assert load_model(tmp_path / "model")[0].network.heads == trainer.averaged.heads

    def test_a_model_of_classes_only_can_be_read_by_older_programs(self):
        header = header_of(encode_model(model_of(make()), settings={}))
        assert header["version"] == 1
        assert not {"candidates", "novelty", "affinities"} & set(header)

    @pytest.mark.parametrize(
        ("part", "changes"),
        [
            ("candidates", {"threshold": "0.5"}),
            ("candidates", {"threshold": -0.5}),
            ("candidates", {"threshold": 1.5}),
            ("candidates", {"threshold": True}),
            ("candidates", 3),
            ("novelty", {"space": "off"}),
            ("novelty", {"space": "features"}),
            ("novelty", {"space": ["embedding"]}),
            ("novelty", {"centres": [[0.0] * 4] * 2000, "reach": [1.0] * 2000}),
            ("novelty", {"centres": [[0.0] * 3], "reach": [1.0]}),
            ("novelty", {"centres": [[float("inf")] * 4], "reach": [1.0]}),
            ("novelty", {"centres": [["x"] * 4], "reach": [1.0]}),
            ("novelty", {"reach": [0.0]}),
            ("novelty", {"centres": [[0.0] * 4], "reach": [0.0]}),
            ("novelty", {"spread": [1.0]}),
            ("novelty", {"spread": [-1.0] * 4}),
        ],
        ids=str,
    )
    def test_absurd_numbers_in_the_header_are_refused(self, tmp_path, part, changes):
        content = encode_model(model_of(make(BOTH)), settings={})
        end = 8 + int.from_bytes(content[:8], "little")
        table = json.loads(content[8:end])
        header = json.loads(table["__metadata__"]["header"])
        header[part] = {**header[part], **changes} if isinstance(changes, dict) else changes
        table["__metadata__"]["header"] = json.dumps(header)
        raw = json.dumps(table, separators=(",", ":")).encode()
        (tmp_path / "model").write_bytes(len(raw).to_bytes(8, "little") + raw + content[end:])
        for read in (load_model, describe_model):
            with pytest.raises(ModelFileError, match="does not describe a model"):
                read(tmp_path / "model")
