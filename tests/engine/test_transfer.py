"""Starting from a model of other classes: what stays, what is new, and which models fit."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import pytest
import torch
from synthetic import CUBES, SMALL, make_annotation, make_blobs, make_features, make_trainer, paint_planes

from napari_sparseseg.engine.classes import ClassTable
from napari_sparseseg.engine.heads import Heads
from napari_sparseseg.engine.model import FittedModel, ModelSpec
from napari_sparseseg.engine.trainer import Trainer
from napari_sparseseg.engine.weak.transfer import check_start, started_from
from napari_sparseseg.errors import InputError

SHAPE = (10, 24, 20)
SPEC = ModelSpec(SMALL, CUBES, 1, (False,) * 3)
CPU = torch.device("cpu")


def make_start(n_steps=6):
    image, truth = make_blobs(SHAPE)
    trainer = make_trainer(image, paint_planes(truth, (0, 3), (0, 7)))
    for _ in islice((s for s in trainer.steps() if s.phase == "unet"), n_steps):
        pass
    return FittedModel(SPEC, trainer.classes, trainer.averaged)


def make_fresh(ids=(1, 2, 5), spec=SPEC):
    return FittedModel.fresh(spec, ClassTable(ids, ids[0]), CPU, seed=3)


START = make_start()


def is_trunk(name):
    return name.startswith("unet.") and name.split(".")[1] in START.network.unet.TRUNK


class TestWhatStays:
    def test_hidden_layers_and_what_their_features_are_measured_by_stay(self):
        started = started_from(START, make_fresh()).network.state_dict()
        kept = {name for name in started if is_trunk(name) or name.startswith("pixel.hidden")} | {"mean", "scale"}
        assert set(started) - kept == {
            f"{head}.classify.{what}" for head in ("pixel", "unet") for what in ("weight", "bias")
        }
        for name in kept:
            assert torch.equal(started[name], START.network.state_dict()[name])

    @pytest.mark.parametrize("ids", [(1, 2, 5), (1, 2)])
    def test_all_outputs_are_new_and_favour_no_class(self, ids):
        started = started_from(START, make_fresh(ids))
        assert started.classes.ids == ids
        features = torch.randn(1, SPEC.bank.n_features, 4, 8, 8)
        pixel = started.network.pixel(features.movedim(1, -1)).movedim(-1, 1)
        for logits in (started.network.unet(features), pixel):
            assert logits.shape[1] == len(ids)
            assert torch.equal(logits, logits[:, :1].expand_as(logits))

    def test_classes_may_overlap_here_and_not_there(self):
        fresh = FittedModel.fresh(SPEC, ClassTable((1, 2), 0, overlapping=True), CPU, seed=3)
        assert started_from(START, fresh).network.overlapping

    def test_the_other_model_does_not_change(self):
        before = {name: value.clone() for name, value in START.network.state_dict().items()}
        started = started_from(START, make_fresh())
        with torch.no_grad():
            for value in started.network.parameters():
                value.add_(1)
        assert all(torch.equal(value, before[name]) for name, value in START.network.state_dict().items())
        assert START.network.n_classes == 2

    def test_what_tells_objects_apart_goes(self):
        spec = ModelSpec(SMALL, CUBES, 1, (False,) * 3)
        other = FittedModel(spec, ClassTable((1, 2), 1, (2,)), spec.build(2, heads=Heads(offsets=((0, 0, 1),))))
        started = started_from(other, make_fresh())
        assert started.network.affinity is None
        assert started.classes.objects == ()


class TestTraining:
    def trainer(self, *, is_started, some=5):
        """Painted are `some` columns of one slice."""
        image, truth = make_blobs(SHAPE, seed=5)
        fitted = started_from(START, make_fresh(ids=(1, 2)))
        config = make_trainer(image, truth).config.with_changes(distillation=0.0)  # no trunk from elsewhere is taught
        trainer = Trainer(fitted.network, fitted.classes, config, seed=0, is_started=is_started)
        codes = paint_planes(truth, (0, 4))
        codes[:, :, some:] = 0
        trainer.learn_from([make_features(image)], [make_annotation(codes)])
        return trainer

    def moved(self, trainer):
        """How far trunk and outputs move in a few steps, at most."""
        before = {name: value.detach().clone() for name, value in trainer.network.unet.named_parameters()}
        for _ in islice((s for s in trainer.steps() if s.phase == "unet"), 4):
            pass
        now = {name: value.detach() for name, value in trainer.network.unet.named_parameters()}
        far = [(is_trunk(f"unet.{name}"), float((now[name] - before[name]).abs().max())) for name in now]
        return tuple(max(d for of_trunk, d in far if of_trunk == wanted) for wanted in (True, False))

    def test_a_trunk_that_was_learnt_elsewhere_moves_slowly_and_new_outputs_do_not(self):
        (slow, outputs), (fast, other) = (self.moved(self.trainer(is_started=wanted)) for wanted in (True, False))
        assert 0 < slow < 0.4 * fast
        assert outputs > 0.8 * other

    def test_where_a_slice_is_painted_all_over_it_moves_as_usual(self):
        (slow, _), (fast, _) = (self.moved(self.trainer(is_started=wanted, some=99)) for wanted in (True, False))
        assert slow == fast > 0

    def test_what_was_started_goes_on_as_such(self):
        first = self.trainer(is_started=True)
        list(islice(first.steps(), 6))
        second = self.trainer(is_started=False)
        second.restore(*first.state())
        assert second.is_started

    def test_states_of_older_programs_are_of_models_that_began_with_nothing(self):
        trainer = self.trainer(is_started=True)
        plain, tensors = trainer.state()
        del plain["is_started"]
        trainer.restore(plain, tensors)
        assert not trainer.is_started


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"n_channels": 2}, "1 channel, this one has 2 channels"),
        ({"config": SMALL.with_changes(width=8)}, "width=4, but 8 is asked for"),
        ({"config": SMALL.with_changes(scales=(1.0, 2.0))}, "scales=.*asked for"),
        ({"flat": (True, False, False)}, "knows volumes, but these are planes"),
        ({"spacing": (2.0, 0.5, 0.5)}, "voxels are 4 : 1 : 1 .* but 1 : 1 : 1"),
        ({"spacing": (1.0, 1.3, 1.0)}, "1 : 1.3 : 1"),
    ],
)
def test_what_does_not_fit_is_named(changes, said):
    with pytest.raises(InputError, match=said):
        check_start(SPEC, replace(SPEC, **changes))


@pytest.mark.parametrize("spacing", [(0.2, 0.2, 0.2), (500.0, 500.0, 500.0), (1.0, 1.1, 1.0)])
def test_the_size_of_voxels_does_not_matter_and_their_shape_only_roughly(spacing):
    check_start(SPEC, replace(SPEC, spacing=spacing))
    assert started_from(START, make_fresh(spec=replace(SPEC, spacing=spacing))).spec.spacing == spacing
