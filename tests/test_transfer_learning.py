"""Settings and starts for little paint, as users of SparseSegmenter meet them."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sparseseg import SparseSegmenter
from napari_sparseseg.errors import InputError, InputTypeError, ModelFileError, NotFittedError
from test_segmenter import IMAGE, MODEL, PAINT, TRAINING, fitted, make, make_image, paint

OTHER_IMAGE, OTHER_TRUTH = make_image(seed=1)
OTHER_PAINT = paint(OTHER_TRUTH + 4)  # classes 5 and 6


@pytest.fixture(scope="module")
def start():
    """A model of classes 1 and 2, which tests must not change."""
    return fitted(max_steps=10)


def started(start, max_steps=3, **options):
    return make(**options).fit(OTHER_IMAGE, OTHER_PAINT, max_steps=max_steps, start=start)


class TestStart:
    def test_other_classes_are_learnt(self, start):
        segmenter = started(start, max_steps=10)
        assert segmenter.classes_.tolist() == [5, 6]
        assert segmenter.n_steps_ == 10
        assert (segmenter.predict(OTHER_IMAGE) == OTHER_TRUTH + 4).mean() > 0.9

    def test_a_file_starts_with_the_same_bits_as_the_model_itself(self, start, tmp_path):
        start.save(tmp_path / "m")
        first, second = started(start), started(str(tmp_path / "m"))
        assert first.predict_proba(OTHER_IMAGE).tobytes() == second.predict_proba(OTHER_IMAGE).tobytes()

    def test_it_matters_and_the_start_stays_as_it_was(self, start):
        before = start.predict_proba(IMAGE).tobytes()
        trunk = started(start)._fitted.network.unet.stem.weight
        assert not np.array_equal(trunk.detach(), started(None)._fitted.network.unet.stem.weight.detach())
        assert start.predict_proba(IMAGE).tobytes() == before

    def test_the_shape_of_the_network_comes_from_it(self, start):
        segmenter = started(start, model=None)
        assert segmenter._fitted.spec.config == MODEL

    def test_saved_and_loaded_it_goes_on_with_the_same_bits(self, start, tmp_path):
        segmenter = started(start)
        segmenter.save(tmp_path / "m", training_state=True)
        loaded = SparseSegmenter.load(tmp_path / "m")
        results = [s.partial_fit(OTHER_IMAGE, OTHER_PAINT, max_steps=4) for s in (segmenter, loaded)]
        first, second = (s.predict_proba(OTHER_IMAGE).tobytes() for s in results)
        assert first == second

    @pytest.mark.parametrize(
        ("begin", "kind", "said"),
        [
            (3, InputTypeError, "must be a SparseSegmenter or the path"),
            ("nowhere", ModelFileError, "no model file"),
            (make(), NotFittedError, "not learnt anything"),
        ],
    )
    def test_what_is_no_model_is_refused(self, begin, kind, said):
        with pytest.raises(kind, match=said):
            started(begin)

    def test_a_model_of_other_voxels_is_refused_and_nothing_is_fitted(self, start):
        segmenter = make(spacing=(3, 1, 1))
        with pytest.raises(InputError, match="3 : 1 : 1"):
            segmenter.fit(OTHER_IMAGE, OTHER_PAINT, max_steps=1, start=start)
        with pytest.raises(NotFittedError):
            segmenter.predict(OTHER_IMAGE)


SETTINGS = [{"warm_up_steps": 4}, {"consistency": 1.0}]


@pytest.mark.parametrize("setting", SETTINGS)
class TestSettings:
    def test_the_same_seed_gives_the_same_bits_and_the_setting_matters(self, setting):
        training = TRAINING.with_changes(**setting)
        steps = 24 if "consistency" in setting else 3  # the first steps have no consistency
        results = [fitted(max_steps=steps, training=t)._fitted.network for t in (training, training, TRAINING)]
        first, second, without = (n.unet.stem.weight.detach().numpy().tobytes() for n in results)
        assert first == second
        assert first != without

    @pytest.mark.parametrize("first_steps", [3, 24])
    def test_resumed_equals_unbroken(self, setting, first_steps, tmp_path):
        segmenter = fitted(max_steps=first_steps, training=TRAINING.with_changes(**setting))
        segmenter.save(tmp_path / "m", training_state=True)
        loaded = SparseSegmenter.load(tmp_path / "m")
        for each in (segmenter, loaded):
            each.partial_fit(IMAGE, PAINT, max_steps=4)
        assert segmenter.predict_proba(IMAGE).tobytes() == loaded.predict_proba(IMAGE).tobytes()


def test_warm_up_does_not_count_as_steps_and_comes_once():
    segmenter = fitted(max_steps=3, training=TRAINING.with_changes(warm_up_steps=4))
    assert [step.phase for step in segmenter.history_].count("warm-up") == 4
    assert segmenter.n_steps_ == 3
    segmenter.partial_fit(IMAGE, PAINT, max_steps=2)
    assert [step.phase for step in segmenter.history_].count("warm-up") == 4


def test_what_starts_from_a_model_needs_no_warm_up(start):
    segmenter = started(start, training=TRAINING.with_changes(warm_up_steps=4))
    assert "warm-up" not in {step.phase for step in segmenter.history_}
