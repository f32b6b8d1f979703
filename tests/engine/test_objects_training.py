"""Learning to tell objects apart beside the classes: training, growth, prediction, model files."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from synthetic import (
    CUBES,
    QUICK,
    SMALL,
    make_annotation,
    make_features,
    make_network,
    make_noise,
    make_touching,
    make_trainer,
    paint_planes,
    standardise,
    whole,
)

from napari_sparseseg.engine.checkpoint import describe_model, encode_model, load_model, save_model
from napari_sparseseg.engine.classes import ClassTable
from napari_sparseseg.engine.model import FittedModel, ModelSpec
from napari_sparseseg.engine.objects.affinity import AffinityLesson
from napari_sparseseg.engine.objects.offsets import default_offsets
from napari_sparseseg.engine.predictor import Predictor
from napari_sparseseg.errors import ModelFileError

SHAPE = (12, 30, 28)
IMAGE, TRUTH, IDS = make_touching(SHAPE)
PLANES = ((0, 2), (0, 6), (0, 10))
CODES = paint_planes(TRUTH, *PLANES)
PAINTED_IDS = np.where(CODES > 0, IDS, 0)
OFFSETS = default_offsets(CUBES, (False,) * 3)
SPEC = ModelSpec(SMALL, CUBES, 1, (False,) * 3)


def make(ids=PAINTED_IDS, **options):
    return make_trainer(IMAGE, CODES, objects=ids, **options)


def unet_steps(trainer, n):
    return list(islice((s for s in trainer.steps() if s.phase == "unet"), n))


def all_bits(trainer):
    plain, tensors = trainer.state()
    return json.dumps(plain), {**tensors, **trainer.averaged.state_dict()}


def assert_same_bits(first, second):
    (plain, tensors), (other_plain, other_tensors) = all_bits(first), all_bits(second)
    assert plain == other_plain
    assert tensors.keys() == other_tensors.keys()
    assert all(torch.equal(tensors[name], other_tensors[name]) for name in tensors)


class TestTraining:
    def test_ids_bring_a_head_and_paint_without_ids_brings_none(self):
        assert make().averaged.affinity.offsets == OFFSETS
        assert make(ids=None).averaged.affinity is None

    def test_the_classes_that_carry_ids_are_those_of_objects(self):
        assert make().classes.objects == (2,)
        assert make().classes.object_channels == (1,)
        assert make(ids=None).classes.object_channels == (1,)

    def test_without_ids_classes_are_learnt_with_the_same_bits_as_if_there_were_no_objects(self):
        plain, zeros = make(ids=None), make(ids=np.zeros(SHAPE, np.int32))
        unet_steps(plain, 6)
        unet_steps(zeros, 6)
        assert_same_bits(plain, zeros)

    def test_the_same_seed_gives_the_same_bits(self):
        first, second = make(), make()
        unet_steps(first, 6)
        unet_steps(second, 6)
        assert_same_bits(first, second)

    def test_borders_are_recognised_on_planes_without_paint(self):
        trainer = make(config=QUICK.with_changes(averaging=0.9, learning_rate=0.02))
        unet_steps(trainer, 100)
        affinities = Predictor(trainer.averaged, make_features(IMAGE), tile_voxels=1 << 20)
        found = affinities.tile_with(("affinities",), whole(SHAPE)).affinities[OFFSETS.index((0, 0, 1))][4]
        is_same = (IDS[4, :, :-1] == IDS[4, :, 1:])[:-2]
        answers = found[:-2, :-1].numpy()
        assert answers[is_same].mean() > answers[~is_same].mean() + 0.1

    def test_slices_of_one_orientation_teach_every_axis_of_equal_voxels(self):
        taught = dict(zip(OFFSETS, make().averaged.affinity.taught, strict=True))
        assert taught[1, 0, 0] == taught[0, 1, 0] == taught[0, 0, 1] > 0

    def test_a_longer_axis_is_not_taught_by_slices_across_it(self):
        affinity = make(spacing=(3.0, 1.0, 1.0)).averaged.affinity
        for offset, count in zip(affinity.offsets, affinity.taught, strict=True):
            assert (count > 0) == (offset[0] == 0)

    def test_gradients_are_exactly_zero_at_voxels_that_belong_to_no_known_pair(self, monkeypatch):
        ids = np.where(np.indices(SHAPE)[2] < 9, PAINTED_IDS, 0)
        trainer = make(ids=ids)
        seen = {}

        def kept(decoded, of_voxels=trainer.network.affinity.of_voxels):
            seen["logits"] = of_voxels(decoded)
            seen["logits"].retain_grad()
            return seen["logits"]

        lesson = next(each for each in trainer._course.lessons if isinstance(each, AffinityLesson))

        def loss_of(logits, members, positions, loss_of=lesson.loss_of):
            seen["ids"] = np.concatenate([trainer._course.paints[0].object_ids[m] for _, m in members])
            return loss_of(logits, members, positions)

        monkeypatch.setattr(trainer.network.affinity, "of_voxels", kept)
        monkeypatch.setattr(lesson, "loss_of", loss_of)
        monkeypatch.setattr(trainer._optimiser, "step", lambda value, size: value.backward())
        for _ in range(20):  # patches are drawn at random
            unet_steps(trainer, 1)
            touched = seen["logits"].grad.numpy().any(1)
            if touched.any() and not touched.all():
                break
        paint = trainer._course.paints[0]
        is_inside = (paint.allowed[:, 1]) & (paint.object_ids == 0)
        assert touched.any()
        assert is_inside.any()
        assert not touched[seen["ids"] == 0].all()

    @pytest.mark.parametrize("shape", [(1, 30, 28), (12, 1, 28)])
    def test_flat_volumes_can_be_learnt(self, shape):
        image, truth, ids = (array[: shape[0], : shape[1]] for array in make_touching(SHAPE))
        trainer = make_trainer(image, truth, objects=ids)
        assert len(unet_steps(trainer, 3)) == 3
        assert all(offset[shape.index(1)] == 0 for offset in trainer.averaged.affinity.offsets)

    def test_a_batch_without_any_pair_teaches_classes_only(self):
        lonely = np.zeros_like(PAINTED_IDS)
        lonely[2, 3, 3] = 1
        assert len(unet_steps(make(ids=lonely), 5)) == 5


class TestGrowth:
    def test_ids_that_come_later_keep_everything_else(self):
        trainer = make(ids=None)
        unet_steps(trainer, 5)
        plain, before = trainer.state()
        weights = {name: value.clone() for name, value in trainer.averaged.state_dict().items()}
        trainer.learn_from([make_features(IMAGE)], [make_annotation(CODES, objects=PAINTED_IDS)])
        now, after = trainer.state()
        assert now["optimiser_steps"] == plain["optimiser_steps"] == 5
        assert all(torch.equal(after[name], value) for name, value in before.items())
        assert all(torch.equal(trainer.averaged.state_dict()[name], value) for name, value in weights.items())
        assert not any(value.any() for name, value in after.items() if name not in before)
        assert trainer.averaged.affinity.offsets == trainer.network.affinity.offsets == OFFSETS
        unet_steps(trainer, 2)
        assert trainer.averaged.affinity.weight.any()

    def test_without_ids_the_head_goes_and_nothing_else(self):
        trainer = make()
        unet_steps(trainer, 5)
        _, before = trainer.state()
        trainer.learn_from([make_features(IMAGE)], [make_annotation(CODES)])
        _, after = trainer.state()
        assert trainer.averaged.affinity is trainer.network.affinity is None
        assert trainer.classes.objects == ()
        assert all(torch.equal(before[name], value) for name, value in after.items())
        unet_steps(trainer, 2)

    def test_a_new_class_keeps_what_tells_objects_apart(self):
        trainer = make()
        unet_steps(trainer, 5)
        _, before = trainer.state()
        number = [name for name, _ in trainer.network.unet.named_parameters()].index("affinity.weight")
        trainer.change_classes(ClassTable((1, 2, 9), 1))
        _, after = trainer.state()
        assert trainer.classes.objects == (2,)
        for name in ("latest.affinity.weight", f"optimiser.means.{number}", f"optimiser.squares.{number}"):
            assert before[name].any()
            assert torch.equal(after[name], before[name])

    def test_the_head_goes_with_the_last_class_that_has_objects(self):
        trainer = make()
        trainer.change_classes(ClassTable((1, 9), 1))
        assert trainer.averaged.affinity is None


def make_predictor(shape, spacing, context, tile_voxels):
    flat = tuple(n == 1 for n in shape)
    offsets = default_offsets(spacing, flat)
    network = make_network(spacing, flat=flat, context=context, offsets=offsets)
    feature_map = make_features(make_noise(shape, sigma=1), spacing)
    standardise(network, feature_map.read(whole(shape)))
    return Predictor(network, feature_map, tile_voxels=tile_voxels), len(offsets)


class TestPrediction:
    @pytest.mark.parametrize("context", [0.0, 0.5, 1.0])
    @pytest.mark.parametrize(
        ("shape", "spacing"), [((13, 37, 29), CUBES), ((9, 40, 41), (5.0, 1.0, 1.0)), ((1, 91, 80), CUBES)]
    )
    def test_tiled_equals_whole(self, shape, spacing, context):
        tiled, n_offsets = make_predictor(shape, spacing, context, 6000)
        at_once, _ = make_predictor(shape, spacing, context, 1 << 24)
        assert tiled.n_tiles > at_once.n_tiles == 1
        (expected,) = at_once.predict(extras=("affinities",))
        assert expected.affinities.shape == (n_offsets, *shape)
        assert 0 <= expected.affinities.min() < expected.affinities.max() <= 1
        for tile in tiled.predict(extras=("affinities",)):
            for found, wanted in ((tile.affinities, expected.affinities), (tile.probabilities, expected.probabilities)):
                torch.testing.assert_close(found, wanted[(slice(None), *tile.box.slices)], rtol=0, atol=1e-4)

    @pytest.mark.parametrize("context", [0.0, 0.5])
    def test_the_classes_are_those_of_a_prediction_without_affinities(self, context):
        predictor, _ = make_predictor((12, 20, 20), CUBES, context, 1 << 20)
        with_affinities = predictor.tile_with(("affinities",), whole((12, 20, 20)))
        torch.testing.assert_close(with_affinities.probabilities, predictor.tile(whole((12, 20, 20))))

    def test_a_model_of_classes_only_has_no_affinities(self):
        trainer = make(ids=None)
        predictor = Predictor(trainer.averaged, make_features(IMAGE), tile_voxels=1 << 20)
        assert predictor.tile_with(("affinities",), whole(SHAPE)).affinities is None


@pytest.fixture(scope="module")
def content():
    """A file of a model that has learnt to tell objects apart."""
    trainer = make()
    unet_steps(trainer, 4)
    return encode_model(FittedModel(SPEC, trainer.classes, trainer.averaged), settings={})


class TestModelFiles:
    @pytest.fixture
    def trainer(self):
        trainer = make()
        unet_steps(trainer, 4)
        return trainer

    def model_of(self, trainer):
        return FittedModel(SPEC, trainer.classes, trainer.averaged)

    def test_every_bit_comes_back(self, tmp_path, trainer):
        save_model(tmp_path / "model", self.model_of(trainer), settings={}, trainer=trainer)
        found, header, tensors = load_model(tmp_path / "model")
        described = describe_model(tmp_path / "model")
        assert found.classes == described.classes == trainer.classes
        assert found.network.affinity.offsets == described.heads.heads.offsets == OFFSETS
        assert found.network.affinity.taught == described.heads.taught == trainer.averaged.affinity.taught
        assert found.network.affinity.smallest == described.heads.smallest == trainer.averaged.affinity.smallest > 0
        for name, value in trainer.averaged.state_dict().items():
            assert torch.equal(found.network.state_dict()[name], value)
        assert all(torch.equal(tensors[name], value) for name, value in trainer.state()[1].items())
        assert header["version"] == 2

    def test_learning_goes_on_from_it_with_the_same_bits(self, tmp_path, trainer):
        save_model(tmp_path / "model", self.model_of(trainer), settings={}, trainer=trainer)
        found, header, tensors = load_model(tmp_path / "model")
        again = make_trainer(IMAGE, CODES, objects=PAINTED_IDS)
        resumed = type(trainer)(found.network, found.classes, again.config, seed=0)
        resumed.restore(header["training"], tensors)
        for each in (trainer, resumed):
            each.learn_from([make_features(IMAGE)], [make_annotation(CODES, objects=PAINTED_IDS)])
            unet_steps(each, 3)
        assert_same_bits(trainer, resumed)

    def test_older_programs_can_read_a_model_of_classes_only(self):
        trainer = make(ids=None)
        content = encode_model(self.model_of(trainer), settings={})
        header = json.loads(
            json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]["header"]
        )
        assert header["version"] == 1
        assert header["classes"] == {"ids": [1, 2], "background": 1}
        assert "affinities" not in header

    @pytest.mark.parametrize(
        ("part", "changes"),
        [
            ("affinities", {"offsets": [[0, 0, 0]] * 9}),
            ("affinities", {"offsets": [[1, 0]] * 9}),
            ("affinities", {"offsets": [[10**9, 0, i] for i in range(9)]}),
            ("affinities", {"offsets": [[1, 0, 0]]}),
            ("affinities", {"offsets": [["1", 0, i] for i in range(9)]}),
            ("affinities", {"taught": [-1] * 9}),
            ("affinities", {"taught": [1.5] * 9}),
            ("affinities", {"taught": [1]}),
            ("affinities", {"offsets": [[0, 0, i + 1] for i in range(2000)], "taught": [1] * 2000}),
            ("classes", {"objects": []}),
            ("classes", {"objects": [7]}),
            ("classes", {"objects": [2, 2]}),
            ("classes", {"objects": 2}),
        ],
        ids=lambda value: str(value)[:60],
    )
    def test_absurd_numbers_in_the_header_are_refused(self, tmp_path, content, part, changes):
        end = 8 + int.from_bytes(content[:8], "little")
        table = json.loads(content[8:end])
        header = json.loads(table["__metadata__"]["header"])
        header[part] = {**header[part], **changes}
        table["__metadata__"]["header"] = json.dumps(header)
        raw = json.dumps(table, separators=(",", ":")).encode()
        (tmp_path / "model").write_bytes(len(raw).to_bytes(8, "little") + raw + content[end:])
        for read in (load_model, describe_model):
            with pytest.raises(ModelFileError, match="does not describe a model"):
                read(tmp_path / "model")

    def test_a_fresh_model_has_no_objects_yet(self):
        table = replace(make().classes)
        assert table.objects
        assert FittedModel.fresh(SPEC, table, torch.device("cpu"), 0).classes.objects == ()
