"""Budgets, voxel sizes, seeds and lists of volumes, as users pass them."""

from __future__ import annotations

import re

import numpy as np
import pytest

from napari_sparseseg._inputs import Overlapping, Unlabelled, check_budget, open_volumes, read_paint, seed_of
from napari_sparseseg.errors import InputError, InputTypeError, InputWarning
from napari_sparseseg.storage._arrays import checked_spacing

NAN, INF = float("nan"), float("inf")


class TestBudget:
    @pytest.mark.parametrize(
        ("seconds", "steps"),
        [(None, None), (0.1, None), (60, 5), (np.float32(2), np.int64(3)), (None, 0), (None, 7.0)],
    )
    def test_usable_numbers_pass(self, seconds, steps):
        check_budget(seconds, steps)

    @pytest.mark.parametrize("seconds", [0, -1, -0.5, NAN, INF])
    def test_seconds_that_are_no_time_are_refused(self, seconds):
        with pytest.raises(InputError, match=f"max_seconds={seconds} is not a time"):
            check_budget(seconds, None)

    @pytest.mark.parametrize("steps", [-1, 2.5, NAN, INF, -INF])
    def test_steps_that_are_no_count_are_refused(self, steps):
        with pytest.raises(InputError, match=f"max_steps={steps} is not a number of steps"):
            check_budget(None, steps)

    @pytest.mark.parametrize("value", ["60", True, [3], 1j])
    def test_what_is_no_number_is_refused(self, value):
        with pytest.raises(InputTypeError, match=r"max_seconds=.* is not a number"):
            check_budget(value, None)
        with pytest.raises(InputTypeError, match=r"max_steps=.* is not a number"):
            check_budget(None, value)


class TestSpacing:
    @pytest.mark.parametrize(
        ("spacing", "n_axes", "expected"),
        [
            (None, 3, (1, 1, 1)),
            (None, 2, (1, 1, 1)),
            ((2, 1, 0.5), 3, (2, 1, 0.5)),
            ([2, 1, 0.5], 3, (2, 1, 0.5)),
            (np.array([2, 1, 0.5], np.float32), 3, (2, 1, 0.5)),
            ((1, 0.5), 2, (1, 1, 0.5)),
            ((9, 1, 0.5), 2, (1, 1, 0.5)),
            ((1e-9, 1e9, 1), 3, (1e-9, 1e9, 1)),
        ],
    )
    def test_becomes_three_numbers(self, spacing, n_axes, expected):
        found = checked_spacing(spacing, n_axes=n_axes)
        assert found == expected
        assert all(type(size) is float for size in found)

    @pytest.mark.parametrize("wrong", [0, 0.0, -1, NAN, INF, -INF, 1e-320, 1e-31, 1e31])
    def test_a_size_that_is_not_positive_is_named(self, wrong):
        with pytest.raises(InputError, match=re.escape(f"contains {float(wrong)}; voxel sizes are positive numbers")):
            checked_spacing((1, wrong, 1), n_axes=3)

    @pytest.mark.parametrize(
        ("spacing", "n_axes"), [((1, 1), 3), ((1,), 2), ((1, 1, 1, 1), 3), ((), 3), ((1, 2, 3, 4), 2)]
    )
    def test_another_number_of_sizes_is_refused(self, spacing, n_axes):
        with pytest.raises(InputError, match=f"has {len(spacing)} numbers; {n_axes} are needed"):
            checked_spacing(spacing, n_axes=n_axes)

    @pytest.mark.parametrize("spacing", [1.0, "abc", "123", (1, "x", 1), (1, None, 1), (1, 1j, 1), b"123"])
    def test_what_is_no_sequence_of_numbers_is_refused(self, spacing):
        with pytest.raises(InputTypeError, match="is not a sequence of numbers; pass the voxel size along"):
            checked_spacing(spacing, n_axes=3)


class TestSeed:
    def test_a_whole_number_is_itself(self):
        assert seed_of(7) == 7
        assert type(seed_of(np.uint8(7))) is int

    def test_a_generator_is_drawn_from(self):
        first, second = (np.random.default_rng(3) for _ in range(2))
        assert seed_of(first) == seed_of(second)
        assert seed_of(first) != seed_of(np.random.default_rng(3))

    def test_none_is_unpredictable_and_leaves_numpy_s_global_state(self):
        np.random.seed(0)  # noqa: NPY002 - the user's
        expected = np.random.random()  # noqa: NPY002
        np.random.seed(0)  # noqa: NPY002
        assert seed_of(None) != seed_of(None)
        assert np.random.random() == expected  # noqa: NPY002

    def test_a_negative_one_is_refused(self):
        with pytest.raises(InputError, match="random_state=-1 is negative"):
            seed_of(-1)

    @pytest.mark.parametrize("value", [1.0, "1", True, [1], np.random])
    def test_other_kinds_are_refused(self, value):
        with pytest.raises(InputTypeError, match="random_state must be"):
            seed_of(value)


class TestVolumes:
    def test_one_array_is_one_volume_with_a_plain_name(self):
        (volume,) = open_volumes(np.zeros((3, 4, 5)), None)
        assert (volume.name, volume.shape) == ("image", (3, 4, 5))

    @pytest.mark.parametrize("kind", [list, tuple])
    def test_volumes_of_a_list_are_numbered(self, kind):
        volumes = open_volumes(kind([np.zeros((3, 4, 5)), np.zeros((2, 9, 9))]), None)
        assert [volume.name for volume in volumes] == ["image 0", "image 1"]

    @pytest.mark.parametrize("nothing", [[], ()])
    def test_an_empty_list_is_refused(self, nothing):
        with pytest.raises(InputError, match="list of images is empty"):
            open_volumes(nothing, None)

    def test_another_number_of_channels_is_refused(self):
        with pytest.raises(InputError, match="image 1 has 3 channels, but image 0 has 2"):
            open_volumes([np.zeros((2, 4, 5, 6)), np.zeros((3, 4, 5, 6))], 0)

    def test_a_mix_of_2d_and_3d_is_refused(self):
        with pytest.raises(InputError, match=r"image 1 has spatial shape \(4, 5\), but image 0 has \(3, 4, 5\)"):
            open_volumes([np.zeros((3, 4, 5)), np.zeros((4, 5))], None)


def painted(shape=(3, 4, 5), ids=(1, 2)):
    codes = np.zeros(shape, np.uint8)
    codes.flat[: len(ids)] = ids
    return codes


class TestPaint:
    def read(self, annotation, n=1, allowed=None, weight=None, **options):
        images = (
            np.zeros(np.shape(annotation)) if n == 1 and not isinstance(annotation, list) else [np.zeros((3, 4, 5))] * n
        )
        return read_paint(open_volumes(images, None), annotation, allowed, weight, **options)

    def test_classes_of_all_volumes_are_found(self):
        paint, classes = self.read([painted(ids=(1,)), painted(ids=(7, 3))], n=2)
        assert classes == (1, 3, 7)
        assert [len(p) for p in paint] == [1, 2]

    def test_classes_learnt_before_stay(self):
        assert self.read(painted(ids=(1, 2)), known_classes=(2, 9))[1] == (1, 2, 9)

    def test_one_weight_counts_for_all_a_list_for_each(self):
        two = [painted(), painted()]
        assert [p.weights[0] for p in self.read(two, n=2, weight=3.0)[0]] == [3, 3]
        assert [p.weights[0] for p in self.read(two, n=2, weight=[3.0, np.full((3, 4, 5), 5)])[0]] == [3, 5]

    def test_paint_that_allows_every_class_is_dropped(self):
        codes = painted(ids=(1, 2, 130))
        (paint,), _ = self.read(codes, allowed={130: {1, 2}})
        assert len(paint) == 2

    def test_sets_that_are_complete_no_more_count_again(self):
        codes = painted(ids=(1, 2, 130))
        (paint,), _ = self.read(codes, allowed={130: {1, 2}}, known_classes=(1, 2, 3))
        assert len(paint) == 3

    def test_paint_that_allows_some_classes_of_a_model_is_enough(self):
        codes = painted(ids=(200,))
        (paint,), classes = self.read(codes, allowed={200: {1, 2}}, known_classes=(1, 2, 3))
        assert (len(paint), classes) == (1, (1, 2, 3))
        with pytest.raises(InputError, match=r"allows every class \(1, 2\)"):
            self.read(codes, allowed={200: {1, 2}}, known_classes=(1, 2))

    def test_classes_of_a_model_count_among_those_that_can_be_told_apart(self):
        with pytest.raises(InputError, match="128 classes"):
            self.read(painted((3, 8, 8), range(1, 65)), known_classes=range(65, 129))

    def test_each_image_needs_its_annotation(self):
        with pytest.raises(InputError, match="2 images but 1 annotations"):
            self.read([painted()], n=2)

    def test_each_image_needs_its_weight(self):
        with pytest.raises(InputError, match="1 weights were passed for 2 images"):
            self.read([painted(), painted()], n=2, weight=[1.0])

    def test_sets_that_nothing_carries_are_warned_of(self):
        with pytest.warns(InputWarning, match="what 131 leaves possible, but no voxel that counts carries 131"):
            self.read([painted(ids=(1, 2)), painted(ids=(2, 130))], n=2, allowed={130: {1, 2}, 131: {1, 9}})

    def test_classes_of_sets_that_are_painted_nowhere_are_warned_of(self):
        codes, allowed = painted(ids=(1, 2, 130)), {130: {1, 9}}
        with pytest.warns(InputWarning, match="allowed names the class 9, which is painted nowhere alone"):
            self.read(codes, allowed=allowed)
        # nothing is said of what a model knows, what is painted in another volume, or unpainted voxels stand for
        self.read(codes, allowed=allowed, known_classes=(1, 9))
        self.read([codes, painted(ids=(9,))], n=2, allowed=allowed)
        self.read(codes, allowed=allowed, unlabelled=Unlabelled(9))
        self.read(codes, allowed=allowed, overlapping=Overlapping(2, is_missing_absent=True))

    @pytest.mark.parametrize("n", [1, 2])
    def test_weights_of_zero_are_named_where_nothing_else_is_painted(self, n):
        zeros = np.zeros((3, 4, 5))
        with pytest.raises(InputError, match="the weight is 0 wherever something is painted"):
            self.read([painted()] * n, n=n, weight=[zeros] * n)
        with pytest.raises(InputError, match="the annotation is 0 everywhere"):
            self.read([0 * painted()] * n, n=n, weight=[zeros] * n)
        with pytest.raises(InputError, match="the weight is 0 wherever something is painted"):
            self.read([painted()] * n, n=n, weight=[zeros] * n, overlapping=Overlapping(1, is_missing_absent=True))

    def test_the_annotation_that_is_wrong_is_named(self):
        with pytest.raises(InputError, match="annotation 1 has shape"):
            self.read([painted(), painted((4, 4, 5))], n=2)
