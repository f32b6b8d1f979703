"""SparseSegmenter, as users see it."""

from __future__ import annotations

import pickle
import random
from functools import cache
from types import SimpleNamespace

import dask.array as da
import numpy as np
import pytest
import torch
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from sklearn.base import clone

from napari_sparseseg import ModelConfig, ObjectConfig, PaintConfig, PredictionConfig, SparseSegmenter, TrainingConfig
from napari_sparseseg.engine.checkpoint import save_model
from napari_sparseseg.engine.trainer import Trainer
from napari_sparseseg.errors import InputError, InputTypeError, InputWarning, ModelFileError, NotFittedError

MODEL = ModelConfig(width=4, depth=2, scales=(1.0, 2.0, 4.0), head_width=32)
TRAINING = TrainingConfig(warm_start_steps=10, patch_voxels=2048, check_every=5)
LONGER = TRAINING.with_changes(warm_start_steps=60)  # where more than an easy volume is to be learnt
SHAPE = (10, 26, 22)
INTEGERS = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"]
FLOATS = ["float16", "float32", "float64", "longdouble"]


def make_image(shape=SHAPE, seed=0):
    """Grey values 0..100 that are easy to segment, and the truth: 1 dark, 2 bright."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.standard_normal(shape), 2.5)
    truth = (1 + (field > np.median(field))).astype(np.uint8)
    image = 30 * truth + 5 * rng.standard_normal(shape)
    return np.clip(image, 0, 100).round(), truth


def paint(truth, planes=None):
    """The truth on a few planes, 0 elsewhere."""
    annotation = np.zeros_like(truth)
    for plane in planes or {len(truth) // 4, len(truth) // 2, 3 * len(truth) // 4}:
        annotation[plane] = truth[plane]
    return annotation


IMAGE, TRUTH = make_image()
PAINT = paint(TRUTH)


def make(**options):
    options = {"random_state": 0, "model": MODEL, "training": TRAINING} | options
    return SparseSegmenter(**options)


def fitted(image=IMAGE, annotation=PAINT, max_steps=3, fit=None, **options):
    return make(**options).fit(image, annotation, max_steps=max_steps, **(fit or {}))


@cache
def _pickled(max_steps):
    return pickle.dumps(fitted(max_steps=max_steps))


def refitted(max_steps=3):
    """As `fitted`, without the time of learning after the first call; each is a copy that a test may change."""
    return pickle.loads(_pickled(max_steps))


@cache
def answer(max_steps=3):
    """The probabilities that `fitted` gives."""
    return refitted(max_steps).predict_proba(IMAGE)


@pytest.fixture(scope="module")
def segmenter():
    """A fitted segmenter that tests must not change."""
    return refitted(max_steps=10)


CHANNELS = np.stack([IMAGE, IMAGE[::-1]])


@cache
def answer_of_channels():
    return fitted(CHANNELS, channel_axis=0).predict_proba(CHANNELS)


class Lazy:
    """Has shape, dtype and slicing, nothing else."""

    def __init__(self, array):
        self.shape, self.dtype, self._array = array.shape, array.dtype, array

    def __getitem__(self, index):
        return self._array[index]


class TestAnswers:
    def test_labels_are_painted_ids_of_the_smallest_dtype(self, segmenter):
        labels = segmenter.predict(IMAGE)
        assert (labels.shape, labels.dtype) == (SHAPE, np.uint8)
        assert set(np.unique(labels)) == {1, 2}

    def test_an_easy_volume_is_segmented(self, segmenter):
        assert (segmenter.predict(IMAGE) == TRUTH).mean() > 0.9

    def test_ids_need_not_be_contiguous(self):
        segmenter = fitted(annotation=np.choose(PAINT, [0, 3, 7]).astype(np.uint8), max_steps=5)
        assert segmenter.classes_.tolist() == [3, 7]
        labels = segmenter.predict(IMAGE)
        assert set(np.unique(labels)) == {3, 7}
        assert (labels == np.choose(TRUTH, [0, 3, 7])).mean() > 0.9

    def test_what_an_id_is_called_makes_no_difference(self):
        found = fitted(annotation=np.choose(PAINT, [0, 11, 254]).astype(np.uint8)).predict_proba(IMAGE)
        assert found.tobytes() == answer().tobytes()

    def test_probabilities_come_class_first_and_sum_to_one(self, segmenter):
        probabilities = segmenter.predict_proba(IMAGE)
        assert (probabilities.shape, probabilities.dtype) == ((2, *SHAPE), np.float32)
        np.testing.assert_allclose(probabilities.sum(axis=0), 1, atol=1e-5)
        np.testing.assert_array_equal(segmenter.classes_[probabilities.argmax(axis=0)], segmenter.predict(IMAGE))

    def test_the_score_is_the_mean_dice_but_for_the_background(self, segmenter):
        labels = segmenter.predict(IMAGE)
        both = ((labels == 2) & (TRUTH == 2)).sum()
        expected = 2 * both / ((labels == 2).sum() + (TRUTH == 2).sum())
        assert segmenter.score(IMAGE, TRUTH) == pytest.approx(expected)

    def test_where_the_truth_is_unknown_nothing_is_scored(self, segmenter):
        labels = segmenter.predict(IMAGE)
        partly = np.where(labels == TRUTH, TRUTH, 0)
        assert segmenter.score(IMAGE, partly) == 1

    def test_the_background_can_be_named(self):
        first, second = fitted(background=1), fitted(background=2)
        assert (first.background_, second.background_) == (1, 2)
        labels = first.predict(IMAGE)
        for segmenter, foreground in ((first, 2), (second, 1)):
            both = ((labels == foreground) & np.equal(TRUTH, foreground)).sum()
            dice = 2 * both / ((labels == foreground).sum() + np.equal(TRUTH, foreground).sum())
            assert segmenter.score(IMAGE, TRUTH) == pytest.approx(dice)

    def test_another_volume_of_another_size_can_be_predicted(self, segmenter):
        image, truth = make_image((7, 33, 19), seed=3)
        assert segmenter.score(image, truth) > 0.8

    def test_no_steps_give_the_pixel_classifier(self):
        segmenter = fitted(max_steps=0)
        assert segmenter.n_steps_ == 0
        assert {step.phase for step in segmenter.history_} == {"pixel"}
        assert segmenter.score(IMAGE, TRUTH) > 0.8

    def test_tiles_do_not_show(self):
        image, truth = make_image((20, 40, 40))
        segmenter = fitted(image, paint(truth))
        probabilities = [
            segmenter.set_params(prediction=PredictionConfig(tile_voxels=n)).predict_proba(image) for n in (4096, 10**7)
        ]
        np.testing.assert_allclose(*probabilities, atol=1e-4)

    def test_the_training_range_of_intensities_can_be_kept(self):
        probabilities = {}
        for kind in ("image", "training"):
            segmenter = fitted(prediction=PredictionConfig(intensity=kind))
            probabilities[kind] = [segmenter.predict_proba(image) for image in (IMAGE, 2 * IMAGE)]
        np.testing.assert_allclose(*probabilities["image"], atol=1e-4)
        assert np.abs(np.subtract(*probabilities["training"])).max() > 0.1


class TestLayouts:
    def test_two_axes_in_two_axes_out(self):
        image, truth = make_image((30, 40))
        segmenter = fitted(image, paint(truth, [3, 10, 15, 25]))
        assert segmenter.predict(image).shape == (30, 40)
        assert segmenter.predict_proba(image).shape == (2, 30, 40)
        assert 0 <= segmenter.score(image, truth) <= 1

    def test_a_plane_gives_the_same_with_and_without_its_axis(self):
        image, truth = make_image((30, 40))
        annotation = paint(truth, [3, 10, 15, 25])
        flat = fitted(image, annotation).predict_proba(image)
        deep = fitted(image[None], annotation[None]).predict_proba(image[None])
        assert flat.tobytes() == deep.tobytes()

    def test_how_thick_a_single_plane_is_does_not_matter(self):
        image, truth = make_image((30, 40))
        annotation = paint(truth, [3, 10, 15, 25])
        flat = fitted(image, annotation, spacing=(4, 4)).predict_proba(image)
        for thickness in (0.5, 4):
            thin = fitted(image[None], annotation[None], spacing=(thickness, 4, 4))
            assert thin.predict_proba(image[None]).tobytes() == flat.tobytes()

    @pytest.mark.parametrize("axis", [0, 1, 2, 3, -1, -4])
    def test_channels_may_lie_along_any_axis(self, axis):
        image = np.moveaxis(CHANNELS, 0, axis)
        found = fitted(image, channel_axis=axis).predict_proba(image)
        assert found.tobytes() == answer_of_channels().tobytes()

    @pytest.mark.parametrize("axis", [0, 2, -1])
    def test_channels_of_2d_images(self, axis):
        image, truth = make_image((30, 40))
        channels = np.stack([image, 100 - image, image], axis=axis)
        segmenter = fitted(channels, paint(truth, [3, 10, 15, 25]), channel_axis=axis)
        assert segmenter.predict(channels).shape == (30, 40)

    @pytest.mark.parametrize(
        "shape", [(28, 46, 34), (3, 10, 5), (1, 256, 256), (2, 2, 2), (1, 1, 30), (31, 1, 7), (5, 6, 1)]
    )
    def test_any_size(self, shape):
        image, truth = make_image(shape)
        annotation = truth.copy()
        annotation.flat[::3] = 0
        segmenter = fitted(image, annotation, max_steps=6)
        probabilities = segmenter.predict_proba(image)
        assert probabilities.shape == (2, *shape)
        assert np.isfinite(probabilities).all()

    @settings(deadline=None, max_examples=15)
    @given(
        shape=st.lists(st.integers(1, 9), min_size=2, max_size=3).filter(lambda shape: np.prod(shape) > 1),
        spacing=st.sampled_from([None, 1.0, 3.0]),
        seed=st.integers(0, 3),
    )
    def test_any_small_size_and_paint(self, shape, spacing, seed):
        rng = np.random.default_rng(seed)
        annotation = rng.integers(0, 3, shape)
        annotation.flat[:2] = 1, 2
        image = rng.standard_normal(shape)
        sizes = None if spacing is None else (spacing, 1.0, 1.0)[-len(shape) :]
        labels = fitted(image, annotation, max_steps=3, spacing=sizes).predict(image)
        assert labels.shape == tuple(shape)
        assert set(np.unique(labels)) <= {1, 2}

    @pytest.mark.parametrize("dtype", [*INTEGERS, *FLOATS, ">u2", ">f8", ">i4"])
    def test_any_number_type(self, dtype):
        assert fitted(IMAGE.astype(dtype)).score(IMAGE.astype(dtype), TRUTH) > 0.8

    def test_bool_images(self):
        assert fitted(TRUTH == 2).score(TRUTH == 2, TRUTH) > 0.8

    @pytest.mark.parametrize("dtype", ["uint8", "int64", "float32", ">u4"])
    def test_any_annotation_type(self, dtype, segmenter):
        found = fitted(annotation=PAINT.astype(dtype), max_steps=10).predict_proba(IMAGE)
        assert found.tobytes() == segmenter.predict_proba(IMAGE).tobytes()

    def test_memory_layout_makes_no_difference(self, segmenter):
        expected = segmenter.predict_proba(IMAGE).tobytes()
        wide = np.zeros([2 * n for n in SHAPE])
        strided = wide[::2, ::-2, 1::2]
        strided[...] = IMAGE
        read_only = IMAGE.copy()
        read_only.flags.writeable = False
        fortran = np.asfortranarray(IMAGE)
        for image in (strided, read_only, fortran):
            assert segmenter.predict_proba(image).tobytes() == expected
            assert fitted(image, max_steps=10).predict_proba(image).tobytes() == expected

    @pytest.mark.parametrize(
        "kind",
        [
            lambda array: da.from_array(array, chunks=(3, 10, 22)),
            lambda array: zarr.create_array(store={}, data=array, chunks=(4, 8, 16)),
            Lazy,
        ],
        ids=["dask", "zarr", "anything"],
    )
    def test_lazy_arrays_equal_numpy(self, segmenter, kind):
        lazy = fitted(kind(IMAGE), kind(PAINT), max_steps=10)
        assert lazy.predict_proba(kind(IMAGE)).tobytes() == segmenter.predict_proba(IMAGE).tobytes()
        assert lazy.score(kind(IMAGE), kind(TRUTH)) == segmenter.score(IMAGE, TRUTH)

    @pytest.mark.parametrize(
        "spacing", [(1.0, 1.0, 1.0), (4.0, 1.0, 1.0), np.array([0.5, 0.1, 0.1]), (1.0, 1.95, 2.05)]
    )
    def test_any_voxel_size(self, spacing):
        assert fitted(spacing=spacing, max_steps=8).score(IMAGE, TRUTH) > 0.7

    @pytest.mark.parametrize("factor", [1e30, 1e-30])
    def test_the_size_of_the_values_makes_no_difference(self, segmenter, factor):
        image = IMAGE * factor
        np.testing.assert_allclose(
            fitted(image, max_steps=10).predict_proba(image), segmenter.predict_proba(IMAGE), atol=1e-2
        )

    @pytest.mark.parametrize("offset", [2**40, 2**63, 2**64 - 200])
    def test_large_uint64_work(self, offset):
        image = IMAGE.astype(np.uint64) + np.uint64(offset)
        assert fitted(image).score(image, TRUTH) > 0.8

    def test_a_constant_image_warns(self):
        with pytest.warns(InputWarning, match="constant"):
            segmenter = fitted(np.full(SHAPE, 7, np.uint8))
        with pytest.warns(InputWarning, match="constant"):
            assert segmenter.predict(np.full(SHAPE, 7, np.uint8)).shape == SHAPE

    def test_nothing_that_was_passed_is_modified(self):
        with_set = PAINT.copy()
        with_set[0, 0, 0] = 130
        image, annotation, weight = IMAGE.astype(np.float32), with_set.copy(), np.ones(SHAPE, np.float32)
        allowed = {130: {1, 2}}
        segmenter = fitted(image, annotation, fit={"weight": weight, "allowed": allowed})
        segmenter.predict(image)
        segmenter.score(image, TRUTH)
        np.testing.assert_array_equal(image, IMAGE)
        np.testing.assert_array_equal(annotation, with_set)
        assert (weight == 1).all()
        assert allowed == {130: {1, 2}}


class TestPaint:
    def test_sets_of_classes(self):
        truth = TRUTH.copy()
        truth[:, :8] = 3
        image = IMAGE.copy()
        image[:, :8] = 95
        annotation = paint(truth)
        plane = annotation[2]
        plane[plane > 1] = 130  # not background
        segmenter = fitted(image, annotation, max_steps=10, fit={"allowed": {130: {2, 3}}})
        assert segmenter.classes_.tolist() == [1, 2, 3]
        assert (segmenter.predict(image) == truth).mean() > 0.8

    def test_a_class_that_is_only_named_in_a_set_exists(self):
        annotation = PAINT.copy()
        annotation[annotation == 2] = 200
        with pytest.warns(InputWarning, match="the classes 5, 9, which are painted nowhere alone"):
            segmenter = fitted(annotation=annotation, fit={"allowed": {200: {5, 9}}})
        assert segmenter.classes_.tolist() == [1, 5, 9]

    def test_weight_decides_where_paint_disagrees(self):
        lies = PAINT.copy()
        half = np.zeros(SHAPE, bool)
        half[:, ::2] = True
        lies[half & (PAINT > 0)] = 3 - lies[half & (PAINT > 0)]
        for weight, liked in ((np.where(half, 0.01, 1), TRUTH), (np.where(half, 1, 0.01), 3 - TRUTH)):
            segmenter = fitted(annotation=lies, max_steps=10, fit={"weight": weight})
            assert (segmenter.predict(IMAGE) == liked).mean() > 0.75

    def test_voxels_of_weight_zero_are_as_good_as_unpainted(self):
        weight = np.ones(SHAPE)
        weight[2] = 0
        without = PAINT.copy()
        without[2] = 0
        first, second = fitted(fit={"weight": weight}), fitted(annotation=without)
        assert first.predict_proba(IMAGE).tobytes() == second.predict_proba(IMAGE).tobytes()

    @pytest.mark.parametrize("weight", [1e-30, 1e-6, 0.5, 2, 1e20, 1e38])
    def test_one_weight_for_all_makes_no_difference(self, weight):
        found = fitted(fit={"weight": weight}).predict_proba(IMAGE)
        np.testing.assert_allclose(found, answer(), atol=1e-2)

    def test_several_volumes(self):
        other, other_truth = make_image((6, 31, 17), seed=4)
        segmenter = fitted([IMAGE, other], [PAINT, paint(other_truth)], max_steps=8)
        assert segmenter.score(IMAGE, TRUTH) > 0.8
        assert segmenter.score(other, other_truth) > 0.8

    def test_classes_may_be_spread_over_volumes(self):
        other, other_truth = make_image((6, 31, 17), seed=4)
        segmenter = fitted((IMAGE, other), (np.where(PAINT == 1, 1, 0), np.where(paint(other_truth) == 2, 2, 0)))
        assert segmenter.classes_.tolist() == [1, 2]

    def test_two_voxels_are_enough(self):
        annotation = np.zeros(SHAPE, np.uint8)
        annotation[3, 3, 3], annotation[3, 9, 9] = 1, 2
        assert set(np.unique(fitted(annotation=annotation).predict(IMAGE))) <= {1, 2}

    def test_a_volume_painted_everywhere(self):
        assert fitted(annotation=TRUTH, max_steps=5).score(IMAGE, TRUTH) > 0.8

    @pytest.mark.parametrize("seed", range(4))
    def test_two_small_objects_through_many_slices(self, seed):
        image = np.full((16, 40, 40), 20.0) + np.random.default_rng(0).standard_normal((16, 40, 40))
        annotation = np.zeros(image.shape, np.uint8)
        annotation[3:13, 5:10, 5:10], annotation[3:13, 30:35, 30:35] = 1, 2  # 250 voxels each
        image[:, 20:] += 20
        segmenter = fitted(image, annotation, random_state=seed, training=LONGER)
        assert (segmenter.predict(image)[annotation > 0] == annotation[annotation > 0]).mean() > 0.9


class TestRepetition:
    def test_the_same_seed_and_steps_give_the_same_bits(self):
        first, second = (fitted(max_steps=6) for _ in range(2))
        assert first.predict_proba(IMAGE).tobytes() == second.predict_proba(IMAGE).tobytes()
        assert [step.loss for step in first.history_] == [step.loss for step in second.history_]

    def test_fitting_again_starts_anew(self):
        segmenter = fitted()
        assert segmenter.predict_proba(IMAGE).tobytes() == answer().tobytes()
        segmenter.fit(IMAGE, PAINT, max_steps=3)
        assert segmenter.predict_proba(IMAGE).tobytes() == answer().tobytes()
        assert segmenter.n_steps_ == 3

    def test_another_seed_gives_other_bits(self):
        assert fitted(random_state=1).predict_proba(IMAGE).tobytes() != answer().tobytes()

    def test_without_a_seed_no_two_fits_are_the_same(self):
        first, second = fitted(random_state=None), fitted(random_state=None)
        assert first.predict_proba(IMAGE).tobytes() != second.predict_proba(IMAGE).tobytes()

    def test_generators_in_the_same_state_give_the_same_bits(self):
        first, second = (fitted(random_state=np.random.default_rng(5)) for _ in range(2))
        assert first.predict_proba(IMAGE).tobytes() == second.predict_proba(IMAGE).tobytes()

    @pytest.mark.parametrize("seed", [2**31, 2**40, 2**64, 2**70])
    def test_large_seeds_work(self, seed):
        assert fitted(random_state=seed, max_steps=1).n_steps_ == 1

    def test_global_random_states_neither_matter_nor_change(self):
        expected = answer().tobytes()
        for seed in (1, 2):
            torch.manual_seed(seed)
            np.random.seed(seed)  # noqa: NPY002 - the user's
            random.seed(seed)
            before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
            assert fitted().predict_proba(IMAGE).tobytes() == expected
            assert torch.equal(torch.get_rng_state(), before[0])
            np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
            assert random.getstate() == before[2]

    def test_with_steps_given_the_clock_does_not_matter(self, monkeypatch):
        expected = fitted(max_steps=12)
        for seconds in (0.0, 1e5):
            clock = SimpleNamespace(now=0.0)

            def perf_counter(clock=clock, seconds=seconds):
                clock.now += seconds
                return clock.now

            for module in ("engine.budget", "segmenter"):
                monkeypatch.setattr(f"napari_sparseseg.{module}.time", SimpleNamespace(perf_counter=perf_counter))
            found = fitted(max_steps=12)
            assert [s.loss for s in found.history_] == [s.loss for s in expected.history_]
            assert found.predict_proba(IMAGE).tobytes() == expected.predict_proba(IMAGE).tobytes()

    def test_predicting_twice_gives_the_same_bits(self, segmenter):
        assert segmenter.predict_proba(IMAGE).tobytes() == segmenter.predict_proba(IMAGE).tobytes()


class TestBudget:
    def test_a_fit_in_seconds_ends_and_says_when(self):
        segmenter = make().fit(IMAGE, PAINT, max_seconds=1.0)
        seconds = [step.seconds for step in segmenter.history_]
        assert seconds == sorted(seconds)
        assert seconds[0] > 0
        assert segmenter.predict(IMAGE).shape == SHAPE

    def test_a_budget_too_short_for_anything_still_gives_a_model(self):
        segmenter = make().fit(IMAGE, PAINT, max_seconds=1e-6)
        assert len(segmenter.history_) == 1
        assert segmenter.predict(IMAGE).shape == SHAPE

    def test_without_a_budget_it_ends_at_a_plateau(self):
        image, truth = make_image((12, 60, 60))
        training = TRAINING.with_changes(check_every=1, patience=2)
        segmenter = make(training=training).fit(image, paint(truth))
        assert segmenter.n_steps_ >= 2
        assert segmenter.history_[-1].dice is not None

    def test_without_a_budget_it_ends_after_the_longest_time(self):
        segmenter = make(training=TRAINING.with_changes(default_seconds=0.5, patience=10**6)).fit(IMAGE, PAINT)
        assert segmenter.predict(IMAGE).shape == SHAPE

    def test_steps_are_counted_and_recorded(self):
        seen = []
        segmenter = fitted(max_steps=7, fit={"callback": seen.append})
        assert segmenter.n_steps_ == 7
        assert seen == segmenter.history_
        assert [step.step for step in seen if step.phase == "unet"] == list(range(1, 8))
        assert all(np.isfinite(step.loss) for step in seen)

    @pytest.mark.parametrize("last", ["pixel", "unet"])
    def test_the_callback_can_stop_it(self, last):
        def stop(step):
            return step.phase != last

        segmenter = fitted(max_steps=50, fit={"callback": stop})
        assert segmenter.history_[-1].phase == last
        assert segmenter.n_steps_ == (1 if last == "unet" else 0)
        assert segmenter.predict(IMAGE).shape == SHAPE

    @pytest.mark.parametrize("answer", [None, True, 0, ""])
    def test_only_false_stops_it(self, answer):
        assert fitted(max_steps=4, fit={"callback": lambda _: answer}).n_steps_ == 4

    def test_an_error_in_the_callback_reaches_the_caller(self):
        def fail(_):
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fitted(fit={"callback": fail})

    def test_all_paint_is_learnt_in_the_end(self):
        image, truth = make_image((12, 60, 60))
        assert fitted(image, paint(truth), max_steps=10)._trainer.is_released


class TestGoingOn:
    def test_a_changed_setting_takes_effect(self, tmp_path):
        unchanged, changed = refitted(max_steps=3), refitted(max_steps=3)
        changed.set_params(training__weight_decay=5.0)
        changed.save(tmp_path / "model", training_state=True)
        anew = SparseSegmenter.load(tmp_path / "model")  # with an optimiser that never had another setting
        first, second, third = (s.partial_fit(IMAGE, PAINT, max_steps=5) for s in (unchanged, changed, anew))
        before, after, wanted = (s._fitted.network.unet.state_dict() for s in (first, second, third))
        assert all(torch.equal(after[name], wanted[name]) for name in wanted)
        assert not all(torch.equal(after[name], before[name]) for name in before)

    def test_steps_and_history_go_on(self):
        segmenter = refitted()
        segmenter.partial_fit(IMAGE, PAINT, max_steps=4)
        assert segmenter.n_steps_ == 7
        assert [s.step for s in segmenter.history_ if s.phase == "unet"] == list(range(1, 8))

    def test_without_a_fit_before_it_is_a_fit(self):
        first = make().partial_fit(IMAGE, PAINT, max_steps=3).predict_proba(IMAGE)
        assert first.tobytes() == answer().tobytes()

    def test_it_is_repeatable(self):
        more = paint(TRUTH, [1, 4, 8])
        first, second = (refitted().partial_fit(IMAGE, more, max_steps=3) for _ in range(2))
        assert first.predict_proba(IMAGE).tobytes() == second.predict_proba(IMAGE).tobytes()

    def test_new_paint_is_learnt(self):
        lies = np.where(PAINT > 0, 3 - PAINT, 0)
        segmenter = fitted(annotation=lies, training=LONGER)
        assert (segmenter.predict(IMAGE) == TRUTH).mean() < 0.5
        segmenter.partial_fit(IMAGE, PAINT, max_steps=40)
        assert (segmenter.predict(IMAGE) == TRUTH).mean() > 0.8

    @pytest.mark.parametrize("new", [1, 5, 9])
    def test_a_new_class_may_appear(self, new):
        annotation = np.choose(PAINT, [0, 3, 7]).astype(np.uint8)
        segmenter = fitted(annotation=annotation).set_params(training__warm_start_steps=100)
        more, image = annotation.copy(), IMAGE.copy()
        image[:, :8] = 100
        more[2:8, :8][more[2:8, :8] > 0] = new
        segmenter.partial_fit(image, more, max_steps=5)
        assert segmenter.classes_.tolist() == sorted([3, 7, new])
        assert segmenter.predict_proba(image).shape[0] == 3
        assert (segmenter.predict(image)[:, :6] == new).mean() > 0.8

    def test_classes_that_are_painted_no_more_stay(self):
        annotation = PAINT.copy()
        annotation[5, :4] = 9
        segmenter = fitted(annotation=annotation)
        segmenter.partial_fit(IMAGE, PAINT, max_steps=2)
        assert segmenter.classes_.tolist() == [1, 2, 9]

    def test_one_new_class_alone_can_be_painted(self):
        segmenter = refitted()
        only = np.where(PAINT == 2, 2, 0)
        try:
            segmenter.partial_fit(IMAGE, only, max_steps=1)
        except InputError as error:
            assert "only class 2 is painted" in str(error)  # noqa: PT017 - either is fine, a crash is not
        assert segmenter.predict(IMAGE).shape == SHAPE

    def test_another_volume_can_follow(self):
        other, other_truth = make_image((6, 31, 17), seed=4)
        segmenter = refitted().partial_fit(other, paint(other_truth), max_steps=4)
        assert segmenter.score(other, other_truth) > 0.8

    def test_several_volumes_can_follow(self):
        other, other_truth = make_image((6, 31, 17), seed=4)
        segmenter = refitted().partial_fit([IMAGE, other], [PAINT, paint(other_truth)], max_steps=2)
        assert segmenter.n_steps_ == 5

    def test_zero_steps_refresh_the_pixel_head_only(self):
        segmenter = refitted()
        segmenter.partial_fit(IMAGE, PAINT, max_steps=0)
        assert segmenter.n_steps_ == 3
        assert segmenter.predict(IMAGE).shape == SHAPE


class TestSaving:
    def test_a_loaded_model_predicts_the_same_bits(self, segmenter, tmp_path):
        segmenter.save(tmp_path / "model")
        loaded = SparseSegmenter.load(tmp_path / "model")
        assert loaded.predict_proba(IMAGE).tobytes() == segmenter.predict_proba(IMAGE).tobytes()
        assert loaded.classes_.tolist() == [1, 2]
        assert loaded.history_ == segmenter.history_
        assert loaded.n_steps_ == segmenter.n_steps_

    def test_the_settings_come_back(self, tmp_path):
        prediction = PredictionConfig(tile_voxels=5000, intensity="training")
        channels = np.stack([IMAGE, IMAGE], axis=-1)
        options = {"spacing": (2.0, 1.0, 1.0), "channel_axis": -1, "background": 2, "prediction": prediction}
        segmenter = fitted(channels, **options, objects=ObjectConfig(neck=0.25), paint=PaintConfig(label_smoothing=0.1))
        segmenter.save(tmp_path / "model")
        loaded = SparseSegmenter.load(tmp_path / "model")
        for name, value in segmenter.get_params(deep=False).items():
            found = loaded.get_params(deep=False)[name]
            assert (tuple(found) if name == "spacing" else found) == value
        assert loaded.score(channels, TRUTH) == segmenter.score(channels, TRUTH)

    @pytest.mark.parametrize(
        "options",
        [
            {"spacing": np.array([2.0, 1.0, 1.0], np.float32)},
            {"channel_axis": np.int64(0)},
            {"background": np.uint8(2)},
            {"random_state": np.int32(3)},
            {"random_state": np.random.default_rng(3)},
            {"random_state": None},
        ],
        ids=lambda options: next(iter(options)),
    )
    def test_settings_of_numpy_s_types_can_be_saved(self, tmp_path, options):
        image = IMAGE[None] if "channel_axis" in options else IMAGE
        segmenter = fitted(image, max_steps=1, **options)
        segmenter.save(tmp_path / "model")
        loaded = SparseSegmenter.load(tmp_path / "model")
        assert loaded.predict_proba(image).tobytes() == segmenter.predict_proba(image).tobytes()

    @pytest.mark.parametrize("first_steps", [0, 2, 5, 13])
    @pytest.mark.parametrize("size", [SHAPE, (12, 60, 60)], ids=["little paint", "held-out paint"])
    def test_with_its_training_state_it_goes_on_with_the_same_bits(self, tmp_path, first_steps, size):
        image, truth = make_image(size)
        segmenter = fitted(image, paint(truth), max_steps=first_steps)
        segmenter.save(tmp_path / "model", training_state=True)
        loaded = SparseSegmenter.load(tmp_path / "model")
        assert loaded.predict_proba(image).tobytes() == segmenter.predict_proba(image).tobytes()
        more = paint(truth, [1, 4, 8])
        for each in (segmenter, loaded):
            each.partial_fit(image, more, max_steps=4)
        assert loaded.predict_proba(image).tobytes() == segmenter.predict_proba(image).tobytes()
        assert [s.loss for s in loaded.history_] == [s.loss for s in segmenter.history_]

    def test_it_goes_on_with_the_same_bits_when_little_paint_follows_much(self, tmp_path):
        image, truth = make_image((12, 60, 60))
        segmenter = fitted(image, paint(truth), max_steps=5)
        segmenter.save(tmp_path / "model", training_state=True)
        loaded = SparseSegmenter.load(tmp_path / "model")
        few = np.zeros_like(truth)
        few[5, 20:30, 20:30] = truth[5, 20:30, 20:30]
        for each in (segmenter, loaded):
            each.partial_fit(image, few, max_steps=4)
        assert loaded.predict_proba(image).tobytes() == segmenter.predict_proba(image).tobytes()

    def test_it_goes_on_with_the_same_bits_after_a_new_class_and_another_save(self, tmp_path):
        segmenter = refitted()
        more = PAINT.copy()
        more[5, :4] = 9
        pair = [segmenter]
        for number, annotation in enumerate((more, PAINT, more)):
            segmenter.save(tmp_path / str(number), training_state=True)
            pair = [segmenter, SparseSegmenter.load(tmp_path / str(number))]
            for each in pair:
                each.partial_fit(IMAGE, annotation, max_steps=3)
            assert pair[0].predict_proba(IMAGE).tobytes() == pair[1].predict_proba(IMAGE).tobytes()

    def test_without_its_training_state_it_goes_on_as_well(self, segmenter, tmp_path):
        segmenter.save(tmp_path / "model")
        loaded = SparseSegmenter.load(tmp_path / "model")
        loaded.partial_fit(IMAGE, PAINT, max_steps=2)
        assert loaded.n_steps_ == segmenter.n_steps_ + 2
        assert loaded.score(IMAGE, TRUTH) > 0.8

    def test_going_on_after_loading_does_not_change_how_features_are_standardised(self, segmenter, tmp_path):
        segmenter.save(tmp_path / "model")
        loaded = SparseSegmenter.load(tmp_path / "model")
        mean = loaded._fitted.network.mean.clone()
        few = np.zeros_like(TRUTH)
        few[5, 10:13, 10:13] = TRUTH[5, 10:13, 10:13]
        few[5, 0, :2] = 1, 2
        loaded.partial_fit(IMAGE, few, max_steps=1)
        assert torch.equal(loaded._fitted.network.mean, mean)

    def test_the_training_state_makes_the_file_larger(self, segmenter, tmp_path):
        segmenter.save(tmp_path / "small")
        segmenter.save(tmp_path / "large", training_state=True)
        assert (tmp_path / "large").stat().st_size > (tmp_path / "small").stat().st_size

    def test_saving_does_not_change_what_follows(self, tmp_path):
        one, other = refitted(), refitted()
        one.save(tmp_path / "model", training_state=True)
        one.partial_fit(IMAGE, PAINT, max_steps=2)
        other.partial_fit(IMAGE, PAINT, max_steps=2)
        assert one.predict_proba(IMAGE).tobytes() == other.predict_proba(IMAGE).tobytes()

    def test_2d_models_can_be_saved(self, tmp_path):
        image, truth = make_image((30, 40))
        segmenter = fitted(image, paint(truth, [3, 10, 15, 25]))
        segmenter.save(tmp_path / "model", training_state=True)
        loaded = SparseSegmenter.load(tmp_path / "model")
        assert loaded.predict_proba(image).tobytes() == segmenter.predict_proba(image).tobytes()

    def test_other_files_are_refused(self, tmp_path):
        (tmp_path / "text").write_text("no model")
        for path in (tmp_path / "text", tmp_path / "missing", tmp_path):
            with pytest.raises(ModelFileError):
                SparseSegmenter.load(path)

    @pytest.mark.parametrize("settings", [{}, {"spacing": None}, {"training": {"dropout": 7}}])
    def test_a_file_without_usable_settings_is_refused(self, segmenter, tmp_path, settings):
        save_model(tmp_path / "model", segmenter._fitted, settings=settings)
        with pytest.raises(ModelFileError, match="settings"):
            SparseSegmenter.load(tmp_path / "model")

    def test_an_unknown_device_is_refused(self, segmenter, tmp_path):
        segmenter.save(tmp_path / "model")
        with pytest.raises(InputError, match="'gpu' is not a device"):
            SparseSegmenter.load(tmp_path / "model", device="gpu")


@pytest.mark.parametrize("consistency", [0.0, 0.5])
def test_a_pickled_segmenter_predicts_and_learns_on_as_the_original(consistency):
    original = fitted(training=TRAINING.with_changes(consistency=consistency))
    copied = pickle.loads(pickle.dumps(original))
    np.testing.assert_array_equal(copied.predict(IMAGE), original.predict(IMAGE))
    for one in (original, copied):
        one.partial_fit(IMAGE, PAINT, max_steps=2)
    np.testing.assert_array_equal(copied.predict_proba(IMAGE), original.predict_proba(IMAGE))


class TestParameters:
    def test_all_arguments_are_parameters(self):
        params = make(spacing=(1, 2, 3)).get_params(deep=False)
        assert params == {
            "spacing": (1, 2, 3),
            "channel_axis": None,
            "device": "auto",
            "random_state": 0,
            "background": None,
            "model": MODEL,
            "training": TRAINING,
            "paint": None,
            "prediction": None,
            "objects": None,
            "progress": None,
        }

    def test_deep_ones_name_every_setting(self):
        params = make().get_params()
        assert params["training__patch_voxels"] == 2048
        assert params["model__width"] == 4
        assert params["prediction__intensity"] == "image"
        assert set(params) > {f"training__{name}" for name in TrainingConfig.model_fields}

    def test_single_settings_can_be_changed(self):
        segmenter = make()
        assert segmenter.set_params(spacing=(2, 1, 1), training__dropout=0.1, prediction__tile_voxels=9999) is segmenter
        assert segmenter.spacing == (2, 1, 1)
        assert segmenter.training == TRAINING.with_changes(dropout=0.1)
        assert segmenter.prediction == PredictionConfig(tile_voxels=9999)

    def test_what_was_got_can_be_set(self):
        first, second = make(spacing=(1, 2, 3)), SparseSegmenter()
        second.set_params(**first.get_params())
        assert {name: second.get_params()[name] for name in first.get_params() if "__" in name} == {
            name: value for name, value in first.get_params().items() if "__" in name
        }
        assert (second.spacing, second.random_state) == (first.spacing, first.random_state)

    @pytest.mark.parametrize("name", ["speed", "spacing__x", "data__width"])
    def test_unknown_parameters_are_named(self, name):
        with pytest.raises(InputError, match=name):
            make().set_params(**{name: 1})

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("training__dropout", 1.5),
            ("training__speed", 1),
            ("model__depth", 0),
            ("prediction__intensity", "x"),
            ("model__scales", (0.0, 1.0)),
            ("model__scales", (1.0, -1.0)),
            ("model__scales", (1.0, 5000.0)),
        ],
    )
    def test_settings_out_of_bounds_are_refused(self, name, value):
        with pytest.raises(InputError, match=name.partition("__")[2]):
            make().set_params(**{name: value})

    @pytest.mark.parametrize("name", ["model", "training", "prediction"])
    def test_a_config_of_another_kind_is_refused(self, name):
        with pytest.raises(InputTypeError, match=f"{name} must be a .*Config or None, not dict"):
            fitted(**{name: {"width": 8}}).predict(IMAGE)

    @pytest.mark.parametrize("random_state", [0, None, np.random.default_rng(0)])
    def test_sklearn_can_clone_it(self, segmenter, random_state):
        original = make(spacing=(2.0, 1.0, 1.0), random_state=random_state)
        copied = clone(original)
        assert copied is not original
        for name, value in original.get_params(deep=False).items():
            assert type(copied.get_params(deep=False)[name]) is type(value)
        with pytest.raises(NotFittedError):
            clone(segmenter).predict(IMAGE)

    def test_a_clone_fits_alike(self, segmenter):
        copied = clone(segmenter).fit(IMAGE, PAINT, max_steps=10)
        assert copied.predict_proba(IMAGE).tobytes() == segmenter.predict_proba(IMAGE).tobytes()


class TestRepr:
    def test_before_the_fit(self):
        assert repr(SparseSegmenter(spacing=(2, 1, 1))) == "SparseSegmenter(spacing=(2, 1, 1)): not fitted"

    def test_after_the_fit_it_tells_classes_and_steps(self):
        text = repr(fitted(annotation=np.choose(PAINT, [0, 3, 7])))
        assert "classes 3, 7" in text
        assert "3 steps" in text

    def test_it_tells_the_dice_estimate_where_there_is_one(self):
        image, truth = make_image((12, 60, 60))
        segmenter = fitted(image, paint(truth), max_steps=5)
        assert repr(segmenter).endswith(f", Dice estimate {segmenter.history_[-1].dice:.2f}")

    def test_the_pixel_classifier_alone_has_an_estimate_as_well(self):
        image, truth = make_image((12, 60, 60))
        alone, first = (fitted(image, paint(truth), max_steps=n) for n in (0, 1))
        assert alone.history_[-1].dice == first.history_[-1].dice is not None
        assert "0 steps, Dice estimate" in repr(alone)


class TestProgress:
    def test_bars_tell_step_loss_dice_and_time(self, capsys):
        image, truth = make_image((12, 60, 60))
        segmenter = make(progress=True, training=LONGER).fit(image, paint(truth), max_steps=12)
        text = capsys.readouterr().err
        for part in ("Learning", "100%", "pixel classifier", "step 12", "loss 0.", "Dice ~", " left"):
            assert part in text
        segmenter.predict(image)
        text = capsys.readouterr().err
        for part in ("Predicting", "100%", " left"):
            assert part in text

    def test_bars_of_a_fit_in_seconds_tell_the_time_left(self, capsys):
        make(progress=True).fit(IMAGE, PAINT, max_seconds=0.3)
        assert "0 s left" in capsys.readouterr().err

    @pytest.mark.parametrize("progress", [False, None])
    def test_nothing_is_printed_where_nobody_looks(self, capsys, progress):
        make(progress=progress).fit(IMAGE, PAINT, max_steps=1).predict(IMAGE)
        captured = capsys.readouterr()
        assert captured.out == captured.err == ""


class TornImage:
    """An image in a file of which one plane is damaged."""

    def __init__(self, image, plane):
        self.shape, self.dtype = image.shape, image.dtype
        self._image, self._plane = image, plane

    def __getitem__(self, index):
        if index[0].start <= self._plane < index[0].stop:
            raise InputError(f"plane {self._plane} cannot be read")
        return self._image[index]


@pytest.mark.filterwarnings("ignore:.* are not finite:napari_sparseseg.errors.InputWarning")
class TestMissingVoxels:
    """Where the image is NaN or infinite, as beside a volume that was rotated."""

    OUTSIDE = np.indices(SHAPE)[2] < 5

    def padded(self, value=np.nan):
        return np.where(self.OUTSIDE, value, IMAGE)

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_they_get_no_class_and_the_others_the_right_one(self, value):
        image = self.padded(value)
        segmenter = make().fit(image, PAINT * ~self.OUTSIDE, max_steps=20)
        labels, probabilities = segmenter.predict(image), segmenter.predict_proba(image)
        assert (labels[self.OUTSIDE] == 0).all()
        assert (probabilities[:, self.OUTSIDE] == 0).all()
        np.testing.assert_allclose(probabilities.sum(0)[~self.OUTSIDE], 1, atol=1e-5)
        assert np.mean(labels[~self.OUTSIDE] == TRUTH[~self.OUTSIDE]) > 0.9

    def test_tiles_say_the_same_as_the_whole(self):
        image = self.padded()
        segmenter = make().fit(image, PAINT * ~self.OUTSIDE, max_steps=2)
        whole = segmenter.predict(image)
        tiles = segmenter.set_params(prediction__tile_voxels=4096).predict(image)
        np.testing.assert_array_equal(tiles, whole)

    @pytest.mark.parametrize("foreground", [1, 2])
    def test_they_belong_to_no_object(self, foreground):
        image, background = self.padded(), 3 - foreground
        segmenter = make(background=background).fit(image, PAINT * ~self.OUTSIDE, max_steps=20)
        objects = segmenter.predict_objects(image)
        assert not objects[self.OUTSIDE].any()
        assert objects.any()

    def test_no_class_comes_into_question_there(self):
        segmenter = make(paint=PaintConfig(candidates=1.2)).fit(self.padded(), PAINT * ~self.OUTSIDE, max_steps=2)
        candidates = segmenter.predict_candidates(self.padded())
        assert not candidates[:, self.OUTSIDE].any()
        assert candidates.any(0)[~self.OUTSIDE].all()

    def test_they_change_nothing_far_away(self, segmenter):
        image = IMAGE.astype(np.float32)
        image[0, 0, 0] = np.nan
        with pytest.warns(InputWarning, match="than 0.1 % of the voxels of channel 0 of the image are not finite"):
            labels = segmenter.predict(image)
        assert labels[0, 0, 0] == 0
        assert np.mean(labels == segmenter.predict(IMAGE)) > 0.99

    def test_a_voxel_that_one_channel_shows_is_not_missing(self):
        image = np.stack([self.padded(), IMAGE])
        assert make(channel_axis=0).fit(image, PAINT, max_steps=2).predict(image).all()

    def test_an_image_of_nothing_else_warns_that_nothing_can_be_learnt(self):
        nothing = np.full(SHAPE, np.nan)
        with pytest.warns(InputWarning, match="is constant"):
            labels = make().fit(nothing, PAINT, max_steps=1).predict(nothing)
        assert not labels.any()


MANY = np.arange(np.prod(SHAPE)).reshape(SHAPE)


def spoilt(value, dtype=np.float64):
    annotation = PAINT.astype(dtype)
    annotation[2, 1, 1] = value
    return annotation


BAD_FITS = {
    "nothing painted": ((IMAGE, 0 * PAINT), {}, InputError, "nothing is painted"),
    "one class": ((IMAGE, np.where(PAINT == 2, 2, 0)), {}, InputError, "only class 2 is painted"),
    "other shape": (
        (IMAGE, PAINT[:-1]),
        {},
        InputError,
        r"shape \(9, 26, 22\), but the image has shape \(10, 26, 22\)",
    ),
    "turned": ((IMAGE, PAINT.T), {}, InputError, "axes are in another order"),
    "channel axis unsaid": (
        (np.stack([IMAGE] * 2), PAINT),
        {},
        InputError,
        "axis 0 holds channels, pass channel_axis=0",
    ),
    "channel in the annotation": (
        (IMAGE, PAINT[None]),
        {},
        InputError,
        "axis 0 of the annotation looks like a channel axis",
    ),
    "too many axes": ((IMAGE[None, None], PAINT), {}, InputError, "image has 5 axes"),
    "one axis": ((IMAGE.ravel(), PAINT.ravel()), {}, InputError, "image has 1 axis"),
    "negative": ((IMAGE, spoilt(-3)), {}, InputError, r"annotation holds -3.0 at index \(2, 1, 1\); codes cannot be"),
    "fractional": ((IMAGE, spoilt(1.5)), {}, InputError, r"annotation holds 1.5 at index \(2, 1, 1\); codes are whole"),
    "NaN painted": ((IMAGE, spoilt(np.nan)), {}, InputError, "annotation has 1 voxel that is not finite"),
    "255": ((IMAGE, spoilt(255)), {}, InputError, "annotation holds 255.0"),
    "too many labels": ((IMAGE, MANY), {}, InputError, "annotation holds 255"),
    "too many classes": ((IMAGE, MANY % 200), {}, InputError, "199 classes are painted, but at most 127"),
    "empty": (
        (np.zeros((0, 4, 5)), np.zeros((0, 4, 5))),
        {},
        InputError,
        r"image is empty: axis 0 of its shape \(0, 4, 5\)",
    ),
    "a path": (("cells.tif", PAINT), {}, InputTypeError, r"image is a path \('cells.tif'\)"),
    "None": ((None, PAINT), {}, InputTypeError, "image is of type NoneType"),
    "no annotation": ((IMAGE, None), {}, InputTypeError, "annotation is of type NoneType"),
    "objects": ((IMAGE.astype(object), PAINT), {}, InputTypeError, "image has dtype object"),
    "text": ((IMAGE.astype(str), PAINT), {}, InputTypeError, "image has dtype <U"),
    "complex": ((IMAGE.astype(complex), PAINT), {}, InputTypeError, "image has dtype complex128"),
    "complex paint": ((IMAGE, PAINT.astype(complex)), {}, InputTypeError, "annotation has dtype complex128"),
    "nested lists": ((IMAGE.tolist(), PAINT), {}, InputTypeError, "image 0 is of type list"),
    "masked": ((np.ma.masked_less(IMAGE, 40), PAINT), {}, InputTypeError, "image is a masked array"),
    "no images": (([], []), {}, InputError, "list of images is empty"),
    "annotation missing": (([IMAGE, IMAGE], [PAINT]), {}, InputError, "2 images but 1 annotations"),
    "spacing 0": ((IMAGE, PAINT), {"spacing": (0, 1, 1)}, InputError, r"spacing=\(0.0, 1.0, 1.0\) contains 0.0"),
    "spacing -1": ((IMAGE, PAINT), {"spacing": (1, -1, 1)}, InputError, "contains -1.0"),
    "spacing NaN": ((IMAGE, PAINT), {"spacing": (1, 1, np.nan)}, InputError, "contains nan"),
    "spacing short": ((IMAGE, PAINT), {"spacing": (1, 1)}, InputError, "has 2 numbers; 3 are needed"),
    "spacing a number": ((IMAGE, PAINT), {"spacing": 0.5}, InputTypeError, "spacing=0.5 is not a sequence"),
    "no such axis": ((IMAGE, PAINT), {"channel_axis": 5}, InputError, "channel_axis=5 does not exist"),
    "axis a float": ((IMAGE, PAINT), {"channel_axis": 0.5}, InputTypeError, "channel_axis must be an integer, not 0.5"),
    "no such device": ((IMAGE, PAINT), {"device": "gpu"}, InputError, "device 'gpu' is not a device"),
    "background unpainted": ((IMAGE, PAINT), {"background": 9}, InputError, "background=9 is not among the painted"),
    "background 0": ((IMAGE, PAINT), {"background": 0}, InputError, "background=0 is not a class id; pass a whole"),
    "seed": ((IMAGE, PAINT), {"random_state": "0"}, InputTypeError, "random_state must be .* not '0'"),
}
BAD_ARGUMENTS = {
    "weight 0": ({"weight": 0}, InputError, "weight is 0.0"),
    "weight -1": ({"weight": -np.ones(SHAPE)}, InputError, "weight holds -1.0"),
    "weight NaN": ({"weight": np.full(SHAPE, np.nan)}, InputError, "weight has .* not finite"),
    "weight shape": ({"weight": np.ones((2, 3, 4))}, InputError, r"weight has shape \(2, 3, 4\)"),
    "weight text": ({"weight": "heavy"}, InputTypeError, "weight"),
    "allowed a list": ({"allowed": [1, 2]}, InputTypeError, "allowed is of type list"),
    "allowed empty": ({"allowed": {130: set()}}, InputError, r"allowed\[130\] is empty"),
    "allowed 300": ({"allowed": {300: {1, 2}}}, InputError, "300, a key of allowed, is out of range"),
    "seconds 0": ({"max_seconds": 0}, InputError, "max_seconds=0 is not a time"),
    "seconds NaN": ({"max_seconds": float("nan")}, InputError, "max_seconds=nan is not a time"),
    "seconds text": ({"max_seconds": "60"}, InputTypeError, "max_seconds='60' is not a number"),
    "steps -1": ({"max_steps": -1}, InputError, "max_steps=-1 is not a number of steps"),
    "steps 1.5": ({"max_steps": 1.5}, InputError, "max_steps=1.5 is not a number of steps"),
    "steps infinite": ({"max_steps": float("inf")}, InputError, "max_steps=inf is not a number of steps"),
}


class TestBadInput:
    @pytest.mark.parametrize(("passed", "options", "kind", "said"), BAD_FITS.values(), ids=BAD_FITS)
    def test_fit_says_what_was_found(self, passed, options, kind, said):
        with pytest.raises(kind, match=said) as caught:
            make(**options).fit(*passed, max_steps=1)
        assert isinstance(caught.value, ValueError if kind is InputError else TypeError)

    @pytest.mark.parametrize(("arguments", "kind", "said"), BAD_ARGUMENTS.values(), ids=BAD_ARGUMENTS)
    def test_fit_says_which_argument_is_wrong(self, arguments, kind, said):
        with pytest.raises(kind, match=said):
            make().fit(IMAGE, PAINT, **{"max_steps": 1} | arguments)

    @pytest.mark.parametrize(
        "call", [lambda s: s.predict(IMAGE), lambda s: s.predict_proba(IMAGE), lambda s: s.n_steps_]
    )
    def test_nothing_can_be_asked_before_the_fit(self, call):
        with pytest.raises(NotFittedError, match=r"call fit\(image, annotation\) first"):
            call(make())

    def test_nothing_can_be_scored_or_saved_before_the_fit(self, tmp_path):
        with pytest.raises(NotFittedError):
            make().score(IMAGE, TRUTH)
        with pytest.raises(NotFittedError):
            make().save(tmp_path / "model")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("name", ["predict", "predict_proba"])
    @pytest.mark.parametrize(
        ("image", "kind", "said"),
        [
            (IMAGE.astype(complex), InputTypeError, "complex128"),
            (None, InputTypeError, "NoneType"),
            (IMAGE[None], InputError, "image has 4 axes"),
            (np.zeros((3, 0, 4)), InputError, "image is empty"),
        ],
        ids=["complex", "None", "axes", "empty"],
    )
    def test_predict_says_what_was_found(self, segmenter, name, image, kind, said):
        with pytest.raises(kind, match=said):
            getattr(segmenter, name)(image)

    def test_another_number_of_channels_is_named(self):
        channels = np.stack([IMAGE, IMAGE])
        segmenter = fitted(channels, channel_axis=0)
        for use in (segmenter.predict, lambda image: segmenter.partial_fit(image, PAINT, max_steps=1)):
            with pytest.raises(InputError, match=r"has 3 channels .* but the model was fitted with 2"):
                use(np.stack([IMAGE] * 3))

    def test_a_model_of_planes_refuses_volumes(self):
        image, truth = make_image((30, 40))
        segmenter = fitted(image, paint(truth, [3, 10, 15, 25]))
        with pytest.raises(InputError, match="10 planes, but the model was fitted on single planes"):
            segmenter.predict(IMAGE)
        with pytest.raises(InputError, match="single planes"):
            segmenter.partial_fit([IMAGE[:1], IMAGE], [TRUTH[:1], PAINT], max_steps=1)

    @pytest.mark.parametrize(
        ("truth", "said"),
        [(TRUTH[:-1], "truth has shape"), (TRUTH - 5.5, "truth holds"), (TRUTH.astype(float) + 0.5, "truth holds")],
    )
    def test_a_truth_that_cannot_be_is_refused(self, segmenter, truth, said):
        with pytest.raises(InputError, match=said):
            segmenter.score(IMAGE, truth)

    def test_a_truth_with_nothing_to_score_is_refused(self, segmenter):
        with pytest.raises(InputError, match="the truth is 0 everywhere, so there is nothing to score"):
            segmenter.score(IMAGE, 0 * TRUTH)
        with pytest.raises(
            InputError, match="the truth holds the classes 6, 7, none of which the model has learnt: 1, 2"
        ):
            segmenter.score(IMAGE, TRUTH + 5)

    def test_a_class_of_the_truth_that_was_not_learnt_counts(self, segmenter):
        truth = TRUTH.copy()
        truth[0, :2, :2] = 9
        assert 0.4 < segmenter.score(IMAGE, truth) < 0.5

    def test_after_a_fit_that_failed_nothing_is_fitted(self):
        image, truth = make_image((60, 12, 14))
        segmenter = make()
        with pytest.raises(InputError, match="cannot be read"):
            segmenter.fit(TornImage(image, 1), paint(truth, [30]), max_steps=1)  # beside the planes looked at first
        with pytest.raises(NotFittedError):
            segmenter.predict(IMAGE)

    @pytest.mark.parametrize(
        ("image", "annotation"),
        [
            (TornImage(IMAGE, 1), np.where(np.indices(SHAPE)[1] < 3, 9, PAINT)),
            (IMAGE, spoilt(-1)),
            (IMAGE, 0 * PAINT),
            (None, PAINT),
        ],
        ids=["unreadable, and a new class", "negative", "nothing painted", "None"],
    )
    def test_a_partial_fit_that_failed_leaves_the_model(self, tmp_path, image, annotation):
        segmenter = refitted()
        before = segmenter.predict_proba(IMAGE)
        with pytest.raises((InputError, InputTypeError)):
            segmenter.partial_fit(image, annotation, max_steps=1)
        assert segmenter.predict_proba(IMAGE).tobytes() == before.tobytes()
        assert segmenter.classes_.tolist() == [1, 2]
        segmenter.save(tmp_path / "model", training_state=True)
        assert SparseSegmenter.load(tmp_path / "model").predict_proba(IMAGE).tobytes() == before.tobytes()
        segmenter.partial_fit(IMAGE, PAINT, max_steps=1)
        assert segmenter.n_steps_ == 4


class TestWhatAnErrorLeaves:
    def test_a_fit_that_is_refused_keeps_the_model(self):
        segmenter = refitted()
        before = segmenter.predict_proba(IMAGE)
        with pytest.raises(InputError, match="nothing is painted"):
            segmenter.fit(IMAGE, np.zeros_like(PAINT))
        assert segmenter.predict_proba(IMAGE).tobytes() == before.tobytes()

    @pytest.mark.parametrize("classes", [2, 3])
    def test_a_fit_whose_paint_cannot_be_looked_at_keeps_the_model(self, monkeypatch, classes):
        segmenter = refitted()
        before = segmenter.predict_proba(IMAGE)

        def fail(*_, **__):
            raise OSError("the disk is gone")

        monkeypatch.setattr(Trainer, "learn_from", fail)
        with pytest.raises(OSError, match="gone"):
            segmenter.fit(IMAGE, np.where(PAINT == 2, classes, PAINT), max_steps=1)
        assert segmenter.predict_proba(IMAGE).tobytes() == before.tobytes()
        assert (segmenter.classes_.tolist(), segmenter.n_steps_) == ([1, 2], 3)

    def test_fitted_attributes_tell_whether_it_was_fitted(self):
        assert not hasattr(SparseSegmenter(), "n_steps_")
        assert hasattr(refitted(), "n_steps_")

    def test_a_setting_without_a_name_is_refused(self):
        with pytest.raises(InputError, match="has no setting ''"):
            SparseSegmenter().set_params(training__=0.1)


class TestWhereNext:
    def test_uncertainty_is_the_entropy_of_what_is_predicted(self, segmenter):
        p = segmenter.predict_proba(IMAGE).astype(np.float64)

        found = segmenter.predict_uncertainty(IMAGE)

        assert (found.dtype, found.shape) == (np.float32, SHAPE)
        expected = -(p * np.log(np.maximum(p, 1e-30))).sum(0) / np.log(len(p))
        np.testing.assert_allclose(found, expected, atol=1e-4)

    @pytest.mark.parametrize("method", ["intervals", "uncertainty", None])
    def test_slices_are_suggested_that_carry_no_paint(self, segmenter, method):
        found = segmenter.suggest_slices(IMAGE, PAINT, n=4, method=method, axes=[0])

        assert len({advice.index for advice in found} - set(np.flatnonzero(PAINT.any((1, 2))))) == 4
        for advice in found:
            assert advice.axis == 0
            assert advice.spot[0] == advice.index
            assert 0 < advice.score <= 1
            assert all(0 <= at < n for at, n in zip(advice.spot, SHAPE, strict=True))

    def test_the_setting_chooses_the_method(self, segmenter):
        of_setting = make().set_params(prediction__next_slice="uncertainty")

        with pytest.raises(NotFittedError):
            of_setting.suggest_slices(IMAGE, PAINT)
        assert segmenter.suggest_slices(IMAGE, PAINT) == segmenter.suggest_slices(IMAGE, PAINT, method="intervals")

    def test_intervals_need_no_model(self):
        (found,) = make().suggest_slices(IMAGE, np.zeros_like(PAINT), n=1, axes=[0])

        assert (found.axis, found.index, found.spot) == (0, 4, (4, 13, 11))

    def test_it_says_what_cannot_be_suggested(self, segmenter):
        for wrong in ({"n": 0}, {"n": 1.5}, {"method": "chance"}, {"axes": []}, {"axes": [3]}):
            with pytest.raises(InputError, match=next(iter(wrong))):
                segmenter.suggest_slices(IMAGE, PAINT, **wrong)
        with pytest.raises(InputError, match="single slice"):
            make().suggest_slices(IMAGE[0], PAINT[0])
