"""The slice to paint next, answered on the compute thread."""

from __future__ import annotations

import numpy as np
import pytest
from livekit import SHAPE, make_image, make_truth, paint_both, rest, view_of

from napari_sparseseg.config import PredictionConfig
from napari_sparseseg.errors import InputError


@pytest.fixture
def suggested(live):
    """What was suggested so far."""
    found = []
    live.events.slice_suggested.connect(lambda suggestion: live.heard._hear("slice_suggested", found, suggestion))
    return found


def ask(live, suggested):
    """Ask for a slice, and wait for it."""
    n = len(suggested)
    live.suggest_slice()
    live.heard.wait_until(lambda: len(suggested) > n and not live.status.is_advising, "for a slice")
    return suggested[-1]


def test_before_anything_is_painted_it_is_the_middle(live, suggested):
    live.open(make_image(make_truth()))
    live.look_at(view_of(axis=1, index=3))

    found = ask(live, suggested)

    assert (found.plane.frame, found.plane.axis, found.plane.index) == (0, 1, 19)
    assert found.spot == (6, 19, 20)


@pytest.mark.parametrize("method", ["intervals", "uncertainty"])
def test_painted_slices_are_not_suggested_and_the_spot_lies_on_the_slice(live, suggested, method):
    live.configure(prediction=PredictionConfig(next_slice=method))
    live.open(make_image(make_truth()))
    live.look_at(view_of())
    paint_both(live)
    live.heard.wait_for_step()

    found = ask(live, suggested)

    assert found.method == method
    assert found.plane.axis == 0
    assert found.plane.index != 6
    assert found.spot[0] == found.plane.index
    assert all(0 <= at < n for at, n in zip(found.spot, SHAPE, strict=True))


def test_with_a_model_the_spot_is_where_it_is_unsure_as_in_python(live, suggested, tmp_path):
    from napari_sparseseg import SparseSegmenter

    image = make_image(make_truth())
    live.configure(prediction=PredictionConfig(next_slice="uncertainty"))
    live.open(image)
    live.look_at(view_of())
    paint_both(live)
    live.heard.wait_for_step()
    rest(live)

    found = ask(live, suggested)

    live.save_model(tmp_path / "model.safetensors")
    segmenter = SparseSegmenter.load(tmp_path / "model.safetensors", device="cpu")
    (wanted,) = segmenter.suggest_slices(image, np.asarray(live.codes[0]), n=1, method="uncertainty", axes=[0])
    assert (found.plane.index, found.spot) == (wanted.index, wanted.spot)
    assert found.score == pytest.approx(wanted.score, abs=1e-4)


def test_there_is_nothing_to_suggest_in_a_plane_or_without_image(live):
    with pytest.raises(InputError, match="no image"):
        live.suggest_slice()
    live.open(make_image(make_truth())[0])
    with pytest.raises(InputError, match="single slice"):
        live.suggest_slice()
