from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr

from napari_sparseseg import SparseSegmenter, demo
from napari_sparseseg.errors import InputError
from napari_sparseseg.samples import Sample, tissue

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Step:
    step: int
    phase: str
    seconds: float
    loss: float
    dice: float | None


class FakeSegmenter:
    """Knows the truth but for one class, and notes how it was called."""

    made: FakeSegmenter

    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        self.history_ = [Step(i, "unet", i / 10, 1 / (i + 1), 0.5) for i in range(20)]
        FakeSegmenter.made = self

    def fit(self, image: np.ndarray, annotation: np.ndarray, *, max_seconds: float) -> None:
        self.annotation, self.max_seconds = annotation, max_seconds

    def predict(self, image: np.ndarray) -> np.ndarray:
        labels = small_tissue().truth.copy()
        labels[labels == 3] = 1
        return labels

    def save(self, path: Path) -> None:
        path.write_bytes(b"weights")


def small_tissue(seed: int = 0) -> Sample:
    return tissue((24, 48, 48), seed=seed)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "_make_sample", lambda name, seed: small_tissue())


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, small: None) -> None:
    monkeypatch.setattr(demo, "SparseSegmenter", FakeSegmenter)


@pytest.mark.usefixtures("fake")
class TestRunDemo:
    def test_hands_the_sample_to_the_segmenter(self, tmp_path: Path) -> None:
        demo.run_demo(tmp_path, seconds=7, seed=3, progress=True)
        made = FakeSegmenter.made
        assert made.settings == {
            "spacing": (0.5, 0.25, 0.25),
            "channel_axis": None,
            "random_state": 3,
            "progress": True,
        }
        assert made.max_seconds == 7
        assert len(np.flatnonzero(made.annotation.any(axis=(1, 2)))) == 3

    def test_scores_each_class(self, tmp_path: Path) -> None:
        dice = demo.run_demo(tmp_path, seconds=1).dice
        assert dice[2] == 1
        assert dice[3] == 0
        assert 0.5 < dice[1] < 1

    def test_writes_three_results_and_nothing_else(self, tmp_path: Path) -> None:
        output = tmp_path / "deep" / "folder"
        result = demo.run_demo(output, seconds=1)
        written = {result.labels_path, result.model_path, result.summary_path}
        assert set(output.iterdir()) == written
        assert result.model_path.read_bytes() == b"weights"
        assert result.summary_path.read_bytes().startswith(b"\x89PNG")

    def test_labels_can_be_read_again(self, tmp_path: Path) -> None:
        result = demo.run_demo(tmp_path, seconds=1)
        group = zarr.open_group(result.labels_path, mode="r")
        multiscale = group.attrs["ome"]["multiscales"][0]
        first = multiscale["datasets"][0]
        np.testing.assert_array_equal(group[first["path"]][:], FakeSegmenter.made.predict(np.empty(0)))
        assert first["coordinateTransformations"][0]["scale"] == [0.5, 0.25, 0.25]

    def test_second_run_replaces_the_first(self, tmp_path: Path) -> None:
        demo.run_demo(tmp_path, seconds=1)
        assert len(list(tmp_path.iterdir())) == 3
        demo.run_demo(tmp_path, seconds=1)
        assert len(list(tmp_path.iterdir())) == 3

    @pytest.mark.parametrize(
        ("place", "name", "written"),
        [
            (FakeSegmenter, "save", "model.safetensors"),
            (demo, "draw_summary", "summary.png"),
        ],
    )
    def test_a_full_disk_is_told(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Any, name: str, written: str
    ) -> None:
        def full(*arguments: Any, **options: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(place, name, full)
        with pytest.raises(InputError, match=rf"{written} could not be written \(No space left .*; check the room"):
            demo.run_demo(tmp_path, seconds=1)

    @pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
    def test_impossible_time_is_refused(self, tmp_path: Path, seconds: float) -> None:
        with pytest.raises(InputError, match="seconds is"):
            demo.run_demo(tmp_path, seconds=seconds)

    def test_file_in_place_of_the_folder_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "taken").write_text("")
        with pytest.raises(InputError, match="taken cannot be made"):
            demo.run_demo(tmp_path / "taken", seconds=1)


def test_unknown_sample_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'liver'; choose 'tissue' or 'cells3d'"):
        demo.run_demo(tmp_path, sample="liver")


def test_painted_planes_are_not_scored() -> None:
    truth = np.ones((4, 5, 5), np.uint8)
    truth[:, 2:] = 2
    annotation = np.zeros_like(truth)
    annotation[1, 0, 0] = 1
    labels = truth.copy()
    labels[1] = 7
    dice = demo._dice_off_paint(labels, truth, annotation, {1: "a", 2: "b", 3: "c"})
    assert dice[1] == dice[2] == 1
    assert np.isnan(dice[3])


@pytest.mark.usefixtures("small")
def test_the_engine_learns_the_small_tissue(tmp_path: Path) -> None:
    result = demo.run_demo(tmp_path, seconds=6)
    assert result.dice[1] > 0.5
    assert np.mean(list(result.dice.values())) > 0.4
    labels = SparseSegmenter.load(result.model_path).predict(small_tissue().image)
    stored = zarr.open_array(result.labels_path / "0", mode="r")[:]
    assert (np.asarray(labels) == stored).mean() > 0.999
