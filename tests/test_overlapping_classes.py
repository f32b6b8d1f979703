"""Classes that may overlap, through `SparseSegmenter`: what is accepted, learnt, saved and predicted."""

from __future__ import annotations

import numpy as np
import pytest
import zarr

from napari_sparseseg import InputError, ModelConfig, PaintConfig, SparseSegmenter, TrainingConfig
from napari_sparseseg.engine.checkpoint import save_model

SHAPE = (8, 40, 40)
MODEL = ModelConfig(width=4, depth=2, scales=(1.0, 2.0, 4.0), head_width=32)
TRAINING = TrainingConfig(warm_start_steps=20, patch_voxels=2048, check_every=5)


def make_segmenter(overlapping=True, **options):
    paint = PaintConfig(overlapping=overlapping, **options.pop("paint", {}))
    return SparseSegmenter(paint=paint, model=MODEL, training=TRAINING, random_state=0, progress=False, **options)


@pytest.fixture(scope="module")
def nested():
    """An image, where its two nested structures are, and each of them outlined on a slice of its own."""
    y, x = np.indices(SHAPE)[1:]
    distance = np.hypot(y - 20, x - 20)
    truth = np.stack([distance < 15, distance < 7])
    image = (truth.sum(0) + 0.2 * np.random.default_rng(0).standard_normal(SHAPE)).astype(np.float32)
    annotation = np.zeros(truth.shape, np.uint8)
    annotation[0, 2], annotation[1, 5] = 1 + truth[0, 2], 1 + truth[1, 5]
    return image, truth, annotation


@pytest.fixture(scope="module")
def fitted(nested):
    image, _, annotation = nested
    return make_segmenter().fit(image, annotation, max_steps=20)


class TestPredicting:
    def test_both_structures_are_found_where_they_overlap(self, fitted, nested):
        image, truth, _ = nested
        present = fitted.predict_present(image)
        assert present.shape == truth.shape
        assert (present == truth).mean() > 0.95
        assert fitted.score(image, (1 + truth).astype(np.uint8)) > 0.9

    def test_probabilities_are_independent(self, fitted, nested):
        probabilities = fitted.predict_proba(nested[0])
        assert probabilities.sum(0).max() > 1.5
        np.testing.assert_array_equal(fitted.predict_present(nested[0]), probabilities > 0.5)

    def test_labels_are_the_likeliest_class_or_nothing(self, fitted, nested):
        probabilities, labels = fitted.predict_proba(nested[0]), fitted.predict(nested[0])
        expected = np.where(probabilities.max(0) > 0.5, 1 + probabilities.argmax(0), 0)
        np.testing.assert_array_equal(labels, expected)
        assert 0 in labels

    def test_a_large_image_gets_the_same(self, fitted, nested, tmp_path):
        done = fitted.predict_to(nested[0], tmp_path / "labels.ome.zarr", probabilities=True)
        np.testing.assert_array_equal(zarr.open(done.labels)["0"], fitted.predict(nested[0]))
        written = np.asarray(zarr.open(done.probabilities)["0"])
        np.testing.assert_allclose(written / 255, fitted.predict_proba(nested[0]), atol=0.51 / 255)

    def test_objects_are_made_of_the_likeliest_class(self, fitted, nested):
        objects = fitted.predict_objects(nested[0])
        assert ((objects > 0) <= fitted.predict_present(nested[0]).any(0)).all()
        assert objects.max() >= 1


class TestModel:
    def test_a_file_that_calls_no_class_the_background_0_is_gone_on_with(self, fitted, nested, tmp_path):
        settings = fitted._settings() | {"background": 0}
        save_model(tmp_path / "model", fitted._fitted, settings=settings, history=fitted.history_)
        loaded = SparseSegmenter.load(tmp_path / "model", progress=False)
        assert loaded.background is None
        assert loaded.partial_fit(nested[0], nested[2], max_steps=1).background_ == 0

    def test_loaded_predicts_and_learns_the_same(self, nested, tmp_path):
        image, _, annotation = nested
        unbroken = make_segmenter().fit(image, annotation, max_steps=8)
        unbroken.save(tmp_path / "model", training_state=True)
        loaded = SparseSegmenter.load(tmp_path / "model", progress=False)
        assert loaded.get_params()["paint__overlapping"]
        np.testing.assert_array_equal(loaded.predict_proba(image), unbroken.predict_proba(image))
        for segmenter in (unbroken, loaded):
            segmenter.partial_fit(image, annotation, max_steps=5)
        np.testing.assert_array_equal(loaded.predict_proba(image), unbroken.predict_proba(image))

    def test_a_class_may_come_later(self, nested):
        image, truth, annotation = nested
        segmenter = make_segmenter().fit(image, annotation[:1], max_steps=5)
        segmenter.partial_fit(image, annotation, max_steps=20)
        assert segmenter.classes_.tolist() == [1, 2]
        assert (segmenter.predict_present(image)[0] == truth[0]).mean() > 0.9

    def test_the_mode_is_part_of_the_model(self, fitted, nested, tmp_path):
        image, _, annotation = nested
        fitted.save(tmp_path / "model")
        segmenter = SparseSegmenter.load(tmp_path / "model", progress=False)
        segmenter.set_params(paint__overlapping=False)
        with pytest.raises(InputError, match="part of the model"):
            segmenter.partial_fit(image, annotation, max_steps=25)


class TestPaint:
    def test_one_class_is_enough(self, nested):
        image, truth, annotation = nested
        segmenter = make_segmenter().fit(image, annotation[:1], max_steps=15)
        assert segmenter.score(image, (1 + truth[:1]).astype(np.uint8)) > 0.9

    def test_codes_with_a_background_are_enough(self, nested):
        image, truth, _ = nested
        codes = np.zeros(SHAPE, np.uint8)
        codes[2, :, :20], codes[5] = 1 + 1 * truth[0, 2, :, :20], 1 + 2 * truth[1, 5]
        codes[5][truth[0, 5] & ~truth[1, 5]] = 2
        segmenter = make_segmenter(background=1).fit(image, codes, max_steps=15)
        assert segmenter.classes_.tolist() == [1, 2, 3]
        labels = segmenter.predict(image)
        assert (labels[~truth[0]] == 1).mean() > 0.9

    def test_a_class_that_is_absent_nowhere_is_refused(self, nested):
        with pytest.raises(InputError, match="class 1 is painted, but nothing says where it is not"):
            make_segmenter().fit(nested[0], (nested[1][0] * 1).astype(np.uint8), max_steps=1)

    def test_without_a_background_what_was_not_mentioned_may_count_as_absent(self, nested):
        image, truth, _ = nested
        codes = np.zeros(SHAPE, np.uint8)
        codes[2][~truth[0, 2]], codes[5][truth[1, 5]] = 1, 2
        with pytest.raises(InputError, match="missing_weight"):
            make_segmenter().fit(image, codes, max_steps=1)
        segmenter = make_segmenter(paint={"missing_weight": 0.1}).set_params(training__warm_start_steps=60)
        segmenter.fit(image, codes, max_steps=15)
        present = segmenter.predict_present(image)
        assert (present[1] == truth[1])[:, ~truth[0, 0] | truth[1, 0]].mean() > 0.9

    def test_nothing_painted_is_refused(self, nested):
        with pytest.raises(InputError, match="nothing is painted"):
            make_segmenter().fit(nested[0], np.zeros_like(nested[2]), max_steps=1)

    def test_other_states_are_refused_where_they_are(self, nested):
        wrong = nested[2].copy()
        wrong[1, 3, 4, 5] = 3
        with pytest.raises(InputError, match=r"holds 3 for class 2 at index \(3, 4, 5\)"):
            make_segmenter().fit(nested[0], wrong, max_steps=1)

    def test_booleans_are_refused(self, nested):
        with pytest.raises(InputError, match="booleans"):
            make_segmenter().fit(nested[0], nested[1], max_steps=1)

    def test_another_shape_is_refused(self, nested):
        with pytest.raises(InputError, match="axis of classes in front"):
            make_segmenter().fit(nested[0], nested[2][:, 1:], max_steps=1)

    def test_an_axis_of_classes_is_refused_where_they_exclude_each_other(self, nested):
        with pytest.raises(InputError, match=r"paint\.overlapping"):
            make_segmenter(overlapping=False).fit(nested[0], nested[2], max_steps=1)
