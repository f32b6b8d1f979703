"""SparseSegmenter and the command line with one painted class, where unpainted voxels may be either."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_sparseseg import PaintConfig, SparseSegmenter
from napari_sparseseg.errors import InputError, InputTypeError
from test_segmenter import IMAGE, LONGER, TRAINING, TRUTH, make

SHAPE = IMAGE.shape
RISK = PaintConfig(unlabelled="risk", prior=0.3)


def objects(class_id=2, planes=(5,)):
    """The objects on some planes, but for a third of the rows."""
    is_painted = (TRUTH == 2) & (np.indices(SHAPE)[1] // 3 % 3 > 0)
    is_painted[[z for z in range(len(TRUTH)) if z not in planes]] = False
    return np.where(is_painted, class_id, 0).astype(np.uint8)


def fitted(annotation, paint=RISK, **options):
    return make(paint=paint, **options).fit(IMAGE, annotation, max_steps=3)


def dice(labels, class_id=2):
    found, true = labels == class_id, TRUTH == 2
    return 2 * (found & true).sum() / (found.sum() + true.sum())


@pytest.mark.parametrize(
    "paint", [RISK, PaintConfig(unlabelled="risk"), PaintConfig(unlabelled="background")], ids=repr
)
def test_one_class_is_learnt_against_the_rest(paint):
    segmenter = fitted(objects(), paint, training=LONGER)
    assert segmenter.classes_.tolist() == [1, 2]
    assert dice(segmenter.predict(IMAGE)) > 0.8


@pytest.mark.parametrize(("painted", "background", "classes"), [(1, None, [1, 2]), (5, None, [1, 5]), (5, 9, [5, 9])])
def test_the_background_has_the_lowest_free_id_or_the_one_that_is_named(painted, background, classes):
    segmenter = fitted(objects(painted), background=background, training=LONGER)
    assert segmenter.classes_.tolist() == classes
    assert dice(segmenter.predict(IMAGE), painted) > 0.8
    assert segmenter.object_classes_.tolist() == [painted]


def test_several_classes_need_a_background_that_is_named():
    both = np.maximum(objects(2), objects(3, planes=(7,)))
    with pytest.raises(InputError, match=r"classes \(2, 3\) are painted .* pass background="):
        fitted(both)
    assert fitted(both, background=1).classes_.tolist() == [1, 2, 3]


def test_the_background_alone_tells_of_no_objects():
    with pytest.raises(InputError, match="only class 2 is painted, which is the background"):
        fitted(objects(2), background=2)


@pytest.mark.parametrize("background", [0, 255, 300, -1])
def test_a_background_that_no_class_can_be_is_refused(background):
    with pytest.raises(InputError, match=f"background={background} is not a class id; pass a whole number from 1"):
        fitted(objects(), background=background)


@pytest.mark.parametrize("background", [2.5, "3", True])
def test_a_background_that_is_no_whole_number_is_refused(background):
    with pytest.raises(InputTypeError, match="background must be an integer, not"):
        fitted(objects(), background=background)


def test_a_label_that_stands_for_several_classes_is_no_background():
    codes = np.where(np.indices(SHAPE)[2] % 7, objects(), objects(130))
    with pytest.raises(InputError, match="background=130 is a key of allowed"):
        make(paint=RISK, background=130).fit(IMAGE, codes, allowed={130: {2, 3}}, max_steps=1)


@pytest.mark.parametrize("background", [254, np.int64(9)])
def test_with_any_background_that_is_taken_the_model_can_be_saved(tmp_path, background):
    fitted(objects(), background=background).save(tmp_path / "model")
    assert SparseSegmenter.load(tmp_path / "model").classes_.tolist() == [2, background]


def test_nothing_painted_is_refused():
    with pytest.raises(InputError, match="nothing is painted"):
        fitted(np.zeros_like(TRUTH))


def test_where_unpainted_voxels_say_nothing_one_class_is_refused():
    with pytest.raises(InputError, match="only class 2 is painted"):
        fitted(objects(), PaintConfig())


def test_saved_loaded_and_continued_it_is_as_if_it_had_not_been(tmp_path):
    segmenter = fitted(objects(), PaintConfig(unlabelled="risk"))
    segmenter.save(tmp_path / "model", training_state=True)
    more = objects(planes=(3, 5))
    unbroken = segmenter.partial_fit(IMAGE, more, max_steps=3)
    resumed = SparseSegmenter.load(tmp_path / "model").partial_fit(IMAGE, more, max_steps=3)
    assert resumed.get_params()["paint__unlabelled"] == "risk"
    for name, value in unbroken._fitted.network.state_dict().items():
        assert torch.equal(value, resumed._fitted.network.state_dict()[name]), name


def test_a_model_of_two_classes_can_go_on_with_one():
    segmenter = make(training=TRAINING).fit(IMAGE, np.where(np.indices(SHAPE)[0] == 5, TRUTH, 0), max_steps=2)
    segmenter.set_params(paint__unlabelled="background")
    segmenter.partial_fit(IMAGE, objects(planes=(3, 5)), max_steps=2)
    assert segmenter.classes_.tolist() == [1, 2]
    assert dice(segmenter.predict(IMAGE)) > 0.8


def test_the_same_seed_gives_the_same_bits():
    first, again = (fitted(objects(), PaintConfig(unlabelled="risk")).predict_proba(IMAGE) for _ in range(2))
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("unlabelled", ["background", "risk"])
def test_a_single_plane_will_do(unlabelled):
    segmenter = make(paint=PaintConfig(unlabelled=unlabelled)).fit(IMAGE[5], objects()[5], max_steps=2)
    assert segmenter.predict(IMAGE[5]).shape == SHAPE[1:]


def test_a_volume_without_paint_may_be_among_them():
    segmenter = make(paint=PaintConfig(unlabelled="risk"))
    segmenter.fit([IMAGE, IMAGE[:, ::-1]], [objects(), np.zeros_like(TRUTH)], max_steps=2)
    assert segmenter.classes_.tolist() == [1, 2]


def test_where_nothing_is_left_unpainted_it_still_answers():
    everywhere = np.full_like(TRUTH, 2)
    segmenter = fitted(everywhere, PaintConfig(unlabelled="risk"))
    assert np.isfinite(segmenter.predict_proba(IMAGE)).all()
