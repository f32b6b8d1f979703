"""The model of the image on screen."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from livekit import QUICK, SMALL, make_image, make_truth

from napari_sparseseg import SparseSegmenter
from napari_sparseseg._types import Box
from napari_sparseseg.config import PredictionConfig
from napari_sparseseg.engine.checkpoint import load_model
from napari_sparseseg.engine.classes import ClassTable
from napari_sparseseg.engine.sharpness import lengths_of
from napari_sparseseg.engine.trainer import Trainer, TrainingStep
from napari_sparseseg.errors import InputError, NotFittedError, TrainingError
from napari_sparseseg.live import learner as module
from napari_sparseseg.live.image import AbandonedError, LiveImage
from napari_sparseseg.live.learner import Learner
from napari_sparseseg.live.settings import Settings
from napari_sparseseg.storage.annotation import read_annotation
from napari_sparseseg.storage.volume import ArrayVolume

SETTINGS = Settings(SMALL, QUICK, PredictionConfig(), "cpu")
TWO = ClassTable((1, 2), 1)
TRUTH = make_truth()


def annotation_of(truth=TRUTH, *planes):
    codes = np.zeros_like(truth)
    for z in planes or (6,):
        codes[z] = truth[z]
    return read_annotation(codes, ArrayVolume(np.zeros(codes.shape)))


def make(image=None, settings=SETTINGS, **axes):
    image = make_image(TRUTH) if image is None else image
    options = {"channel_axis": None, "time_axis": None, "spacing": None, **axes}
    return Learner(LiveImage.of(image, **options), settings)


def one_step(learner):
    (step,) = learner.train(0)
    return step


def trained(n_steps=3, **options):
    learner = make(**options)
    list(learner.learn({0: annotation_of()}, TWO))
    while learner.step < n_steps:
        one_step(learner)
    return learner


def are_equal(first, second):
    return all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def test_a_burst_fits_the_pixel_head_then_training_goes_on():
    learner = make()
    steps = list(learner.learn({0: annotation_of()}, TWO))
    assert {step.phase for step in steps} == {"pixel"}
    phases = [one_step(learner).phase for _ in range(8)]
    assert phases == sorted(phases)
    assert phases[-1] == "unet"


def test_how_long_voxels_count_is_measured_with_the_first_image_that_is_read():
    image = make_image(TRUTH)
    learner = make(image, spacing=(3.0, 1.0, 1.0))
    assert learner.spec.lengths is None
    learner.map(0)
    lengths = learner.spec.lengths
    assert lengths == lengths_of([ArrayVolume(image)], (3.0, 1.0, 1.0))
    list(learner.learn({0: annotation_of()}, TWO))
    assert learner.fitted.spec.lengths == lengths
    before = learner.map(0)
    learner.forget()
    assert learner.map(0) is before


def test_how_thick_a_single_plane_is_does_not_matter():
    thin = make(make_image(TRUTH)[:1], spacing=(0.5, 4.0, 4.0))
    thin.map(0)
    assert (thin.spec.spacing, thin.spec.lengths) == ((4.0, 4.0, 4.0), None)


def test_later_bursts_leave_out_the_long_fit():
    learner = trained()
    list(learner.learn({0: annotation_of(TRUTH, 5, 6)}, TWO))
    assert one_step(learner).phase == "unet"


def test_without_paint_there_is_nothing_to_train_or_to_predict_with():
    learner = make()
    with pytest.raises(InputError, match="paint two classes first"):
        one_step(learner)
    with pytest.raises(InputError, match="paint two classes"):
        learner.weights()
    with pytest.raises(NotFittedError, match="paint two classes"):
        learner.save("nowhere")


def test_weights_are_a_copy_that_training_does_not_change():
    learner = trained()
    weights, again = learner.weights(), learner.weights()
    one_step(learner)
    assert are_equal(weights, again)
    assert not are_equal(weights, learner.weights())


def test_a_new_class_grows_the_head_and_keeps_the_steps():
    learner = trained()
    truth = TRUTH.copy()
    truth[:, :4] = 5
    list(learner.learn({0: annotation_of(truth)}, ClassTable((1, 2, 5), 1)))
    assert learner.weights().n_classes == 3
    assert learner.fitted.classes.ids == (1, 2, 5)
    assert one_step(learner).step == 4


class TestDroppingAClass:
    def test_its_output_goes_and_the_others_stay(self):
        learner = make()
        truth = TRUTH.copy()
        truth[:, :4] = 5
        list(learner.learn({0: annotation_of(truth)}, ClassTable((1, 2, 5), 1)))
        before = learner.weights().pixel.classify.weight
        learner.drop_class(2, background=1)
        assert learner.fitted.classes == ClassTable((1, 5), 1)
        assert torch.equal(learner.weights().pixel.classify.weight, before[[0, 2]])

    def test_the_mix_is_not_chosen_by_paint_of_classes_that_are_gone(self):
        learner = make()
        truth = TRUTH.copy()
        truth[:, :4] = 5
        list(learner.learn({0: annotation_of(truth)}, ClassTable((1, 2, 5), 1)))
        while learner.step < 3:
            one_step(learner)
        learner.drop_class(5, background=1)
        assert not learner.settle()

    def test_a_model_of_one_class_is_none(self):
        learner = trained()
        learner.drop_class(2, background=1)
        assert learner.fitted is None
        assert learner.step == 0
        list(learner.learn({0: annotation_of()}, TWO))

    def test_a_class_that_it_does_not_know_changes_nothing(self):
        learner = trained()
        learner.drop_class(9, background=1)
        assert learner.fitted.classes == TWO

    def test_where_the_background_goes_the_lowest_class_stands_in(self):
        learner = make()
        truth = TRUTH.copy()
        truth[:, :4] = 5
        list(learner.learn({0: annotation_of(truth)}, ClassTable((1, 2, 5), 1)))
        learner.drop_class(1, background=None)
        assert learner.fitted.classes == ClassTable((2, 5), 2)


class TestSettling:
    def test_it_costs_something_only_after_new_steps(self, monkeypatch):
        learner = trained()
        finished = []
        finish = Trainer.finish
        monkeypatch.setattr(Trainer, "finish", lambda trainer: finished.append(trainer.step) or finish(trainer))
        for _ in range(3):
            learner.settle()
        assert finished == [3]
        one_step(learner)
        learner.settle()
        assert finished == [3, 4]

    def test_it_tells_whether_the_mix_is_another_one(self, monkeypatch):
        learner = trained()
        monkeypatch.setattr(Trainer, "finish", lambda trainer: setattr(trainer.averaged, "context", 0.123))
        assert learner.settle()
        assert not learner.settle()

    def test_without_a_model_there_is_nothing_to_settle(self):
        assert not make().settle()


class TestFailures:
    def test_a_loss_that_is_no_number_says_what_to_do(self, monkeypatch):
        learner = trained()
        monkeypatch.setattr(Trainer, "_unet_step", lambda *_: math.nan)
        with pytest.raises(TrainingError, match="Press Train to try again"):
            one_step(learner)

    def test_going_back_gives_the_weights_that_were_kept(self):
        learner = trained()
        assert not learner.roll_back()
        assert learner.keep()
        kept, step = learner.weights(), learner.step
        for _ in range(3):
            one_step(learner)
        assert learner.roll_back()
        assert learner.step == step
        for name, value in learner.weights().state_dict().items():
            assert torch.equal(value, kept.state_dict()[name])
        list(learner.learn({0: annotation_of()}, TWO))
        one_step(learner)
        assert learner.step == step + 1

    def test_a_loss_far_above_guessing_is_an_explosion(self, monkeypatch):
        learner = trained()
        monkeypatch.setattr(Trainer, "_unet_step", lambda *_: 50.0)
        with pytest.raises(TrainingError, match="became 50"):  # noqa: PT012 - it takes some steps to be sure
            for _ in range(30):
                one_step(learner)

    def test_after_forgetting_it_begins_anew(self):
        learner = trained()
        learner.forget()
        assert learner.fitted is None
        list(learner.learn({0: annotation_of()}, TWO))
        assert learner.step == 0

    def test_an_image_that_is_not_wanted_any_more_is_given_up(self):
        learner = Learner(LiveImage.of(make_image(TRUTH), None, None, None), SETTINGS, is_wanted=lambda: False)
        with pytest.raises(AbandonedError):
            learner.map(0)


class TestSettings:
    def test_the_model_s_take_hold_with_the_next_image_only(self):
        learner = make()
        feature_map = learner.map(0)
        learner.configure(Settings(SMALL.with_changes(scales=(1.0,)), QUICK, PredictionConfig(), "cpu"))
        list(learner.learn({0: annotation_of()}, TWO))
        assert learner.map(0) is feature_map
        assert learner.fitted.spec.config == SMALL

    def test_the_training_s_take_hold_at_once(self):
        learner = trained()
        learner.configure(Settings(SMALL, QUICK.with_changes(batch_size=1), PredictionConfig(), "cpu"))
        assert learner._trainer.config.batch_size == 1


class TestFrames:
    SERIES = np.stack([make_image(TRUTH, seed) for seed in range(9)])

    def test_features_of_frames_with_paint_are_kept_and_of_few_others(self):
        learner = make(self.SERIES, time_axis=0)
        painted = {frame: annotation_of() for frame in range(6)}
        list(learner.learn(painted, TWO))
        maps = {frame: learner.map(frame) for frame in painted}
        for frame in range(9):
            learner.map(frame)
        assert {frame: learner.map(frame) for frame in painted} == maps

    def test_all_maps_share_the_cache(self):
        learner = make(self.SERIES, time_axis=0)
        maps = [learner.map(frame) for frame in range(9)]
        kept = list(learner._maps.values())
        assert kept == maps[-len(kept) :]
        assert sum(m.cache_bytes for m in kept) <= QUICK.cache_mb << 20

    def test_frames_are_learnt_together(self):
        learner = make(self.SERIES, time_axis=0)
        steps = list(learner.learn({2: annotation_of(), 5: annotation_of(TRUTH, 5)}, TWO))
        assert steps
        assert len(learner.fitted.intensity) == 2


class TestModelFiles:
    def test_a_segmenter_reads_what_is_saved_and_predicts_alike(self, tmp_path):
        learner = trained()
        learner.save(tmp_path / "model")
        segmenter = SparseSegmenter.load(tmp_path / "model", device="cpu")
        assert segmenter.n_steps_ == 3
        assert segmenter.predict(make_image(TRUTH)).shape == TRUTH.shape

    def test_the_channel_axis_is_that_of_one_frame(self, tmp_path):
        series = np.stack([make_image(TRUTH), make_image(TRUTH, 1)])[:, None]
        learner = trained(image=series, time_axis=0, channel_axis=np.int64(1))
        learner.save(tmp_path / "model")
        segmenter = SparseSegmenter.load(tmp_path / "model", device="cpu")
        assert segmenter.channel_axis == 0
        assert segmenter.predict(series[0]).shape == TRUTH.shape

    def test_going_on_from_a_file_keeps_steps_and_mix(self, tmp_path):
        saved = trained(n_steps=10)
        saved.fitted.network.context = 0.5
        saved.save(tmp_path / "model")
        fitted, header, _ = load_model(tmp_path / "model")
        learner = make()
        learner.adopt(fitted, TrainingStep(**header["history"][-1]))
        assert (learner.step, learner.weights().context) == (10, 0.5)
        list(learner.learn({0: annotation_of()}, TWO))
        assert learner.weights().context == 0.5
        assert one_step(learner).step == 11

    def test_another_filter_bank_takes_other_features(self):
        learner = make()
        learner.map(0)
        other = trained(settings=Settings(SMALL.with_changes(scales=(1.0, 2.0)), QUICK, PredictionConfig(), "cpu"))
        learner.adopt(other.fitted)
        assert learner.map(0).bank.n_features == 11
        learner.forget()
        assert learner.map(0).bank.n_features == 16

    @pytest.mark.parametrize(
        ("image", "axes", "text"),
        [
            (np.zeros((2, *TRUTH.shape)), {"channel_axis": 0}, "trained on 1 channels, but the image has 2"),
            (np.zeros((30, 30)), {}, None),
        ],
    )
    def test_a_model_that_does_not_fit_is_refused(self, image, axes, text):
        learner = make(image, **axes)
        if text is None:
            learner.adopt(trained().fitted)
            return
        with pytest.raises(InputError, match=text):
            learner.adopt(trained().fitted)

    def test_a_model_of_planes_does_not_fit_a_volume(self):
        plane = make_truth((1, 40, 40))
        flat = make(make_image(plane)[0])
        codes = read_annotation(plane[0], ArrayVolume(np.zeros(plane[0].shape)))
        list(flat.learn({0: codes}, TWO))
        with pytest.raises(InputError, match="single planes"):
            make().adopt(flat.fitted)


def test_one_core_is_left_to_the_rest_of_the_program(monkeypatch):
    asked = []
    monkeypatch.setattr(module.torch, "set_num_threads", asked.append)
    monkeypatch.setattr(module.os, "cpu_count", lambda: 8)
    make()
    monkeypatch.setattr(module.os, "cpu_count", lambda: None)
    make()
    assert asked == [7, 1]


def test_the_same_paint_gives_the_same_steps():
    first, second = ([s.loss for s in islice(make().learn({0: annotation_of()}, TWO), 5)] for _ in range(2))
    assert first == second


def test_a_whole_frame_can_be_read():
    assert make().map(0).read(Box.whole(TRUTH.shape)).shape[:3] == TRUTH.shape


class TestObjects:
    def annotation(self, with_ids):
        annotation = annotation_of()
        ids = np.where(annotation.codes == 2, 1 + annotation.coordinates[:, 1] // 8, 0).astype(np.int32)
        return replace(annotation, objects=ids if with_ids else None)

    def test_ids_come_and_go_while_training_goes_on(self):
        learner = trained()
        for with_ids in (True, False, True):
            list(learner.learn({0: self.annotation(with_ids)}, TWO))
            before = learner.step
            one_step(learner)
            assert learner.step == before + 1
            assert learner.fitted.classes.objects == ((2,) if with_ids else ())
            assert (learner.weights().affinity is not None) == with_ids
            assert learner.keep()
            assert learner.roll_back()

    def test_a_model_of_objects_is_saved_and_adopted(self, tmp_path):
        learner = make()
        list(learner.learn({0: self.annotation(with_ids=True)}, TWO))
        one_step(learner)
        (tmp_path / "model").write_bytes(learner.encoded(()))
        fitted, header, tensors = load_model(tmp_path / "model")
        other = make()
        other.adopt(fitted, training=(header["training"], tensors))
        assert are_equal(other.weights(), learner.weights())
        for each in (learner, other):
            list(each.learn({0: self.annotation(with_ids=True)}, TWO))
            one_step(each)
        assert are_equal(other.weights(), learner.weights())
