"""The main job on real volumes, in little time: far above chance, below what a longer fit reaches."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest

from napari_sparseseg import ModelConfig, SparseSegmenter, TrainingConfig

pytestmark = pytest.mark.shared

MODEL = ModelConfig(width=8)
TRAINING = TrainingConfig(warm_start_steps=100, patch_voxels=8192)


def make(spacing, **options):
    return SparseSegmenter(spacing=spacing, random_state=0, model=MODEL, training=TRAINING, **options)


def foreground_dice(labels, truth, where):
    """Mean Dice over the classes but the first, at these voxels."""
    scores = []
    for class_id in np.unique(truth)[1:]:
        found, true = labels[where] == class_id, truth[where] == class_id
        scores.append(2 * np.count_nonzero(found & true) / (np.count_nonzero(found) + np.count_nonzero(true)))
    return float(np.mean(scores))


@pytest.fixture(scope="module")
def hippocampus(load_case):
    """A head scan with one painted slice in each orientation, and a segmenter that has learnt them."""
    case = load_case("hippocampus/ortho3")
    return case, make(case.spacing).fit(case.image, case.annotation, max_steps=30)


def test_shape_and_place_are_learnt_from_three_slices(hippocampus):
    case, segmenter = hippocampus
    assert foreground_dice(segmenter.predict(case.image), case.truth, case.scored) > 0.35


def test_pixels_alone_tell_less_but_something(load_case):
    case = load_case("hippocampus/ortho3")
    segmenter = make(case.spacing).fit(case.image, case.annotation, max_steps=0)
    assert foreground_dice(segmenter.predict(case.image), case.truth, case.scored) > 0.3


def test_a_second_volume_makes_it_better_on_that(hippocampus, load_case):
    case, fitted = hippocampus
    segmenter = deepcopy(fitted)  # other tests need it as it was
    volumes = {"second": ("msd_hippocampus_01", None)}
    other = load_case("second/ortho3", volumes)
    before = foreground_dice(segmenter.predict(other.image), other.truth, other.scored)
    segmenter.partial_fit([case.image, other.image], [case.annotation, other.annotation], max_steps=30)
    after = foreground_dice(segmenter.predict(other.image), other.truth, other.scored)
    assert before > 0.1
    assert after > max(0.35, before - 0.05)
    assert segmenter.n_steps_ == 60


@pytest.mark.parametrize("protocol", ["slices3", "scribbles"])
def test_nuclei_are_found_by_their_brightness(load_case, protocol):
    volumes = {"crop": ("arabidopsis_ovule_nuclei_00", "0:24,40:168,40:168")}
    case = load_case(f"crop/{protocol}", volumes)
    segmenter = make(case.spacing).fit(case.image, case.annotation, max_steps=20)
    assert foreground_dice(segmenter.predict(case.image), case.truth, case.scored) > 0.6


def test_nuclei_in_long_voxels_with_whatever_channels_there_are(load_case):
    volumes = {"crop": ("mouse_embryo_nuclei_00", "0:51,30:94,30:94")}
    case = load_case("crop/slices3", volumes)
    assert max(case.spacing) > 1.5 * min(case.spacing)
    segmenter = make(case.spacing, channel_axis=case.channel_axis)
    segmenter.fit(case.image, case.annotation, max_steps=20)
    assert foreground_dice(segmenter.predict(case.image), case.truth, case.scored) > 0.5
