from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.image import imread

from napari_sparseseg.figure import COLOURS, _cut, _Layout, class_colours, draw_summary

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Point:
    seconds: float
    loss: float
    dice: float | None
    phase: str = "unet"


HISTORY = [
    Point(0.1 * i, 1 / (i + 1), None if i % 5 else 0.5 + i / 200, "pixel" if i < 20 else "unet") for i in range(60)
]


def summary_of(shape: tuple[int, int, int], **changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    truth = rng.integers(1, 4, shape).astype(np.uint8)
    annotation = np.zeros_like(truth)
    annotation[shape[0] // 3] = truth[shape[0] // 3]
    arguments = {
        "image": rng.integers(0, 4000, shape).astype(np.uint16),
        "annotation": annotation,
        "labels": truth,
        "truth": truth,
        "spacing": (0.5, 0.25, 0.25),
        "history": HISTORY,
        "class_names": {1: "background", 2: "nucleus", 3: "membrane"},
        "title": "a title",
        "dice": {1: 0.9, 2: 0.8, 3: float("nan")},
    }
    return arguments | changes


class TestDrawSummary:
    def test_writes_a_png_of_a_sane_size(self, tmp_path: Path) -> None:
        draw_summary(tmp_path / "s.png", **summary_of((12, 40, 40)))
        assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        height, width, _ = imread(tmp_path / "s.png").shape
        assert 600 < height < 3000
        assert 600 < width < 3000

    @pytest.mark.parametrize(
        "changes",
        [
            {"history": []},
            {"history": [Point(0.0, 0.7, None)]},
            {"annotation": np.zeros((12, 40, 40), np.uint8)},
            {"image": np.zeros((12, 40, 40), np.float32)},
            {"image": np.ones((12, 2, 40, 40), np.uint8), "channel_axis": 1},
            {"image": np.ones((12, 40, 40, 3), np.uint8), "channel_axis": -1},
            {"spacing": (10.0, 0.1, 0.2)},
            {"class_names": {i: f"class {i}" for i in range(1, 12)}},
            {"class_names": {2: "only"}, "dice": {}},
        ],
    )
    def test_copes_with_what_learning_can_give(self, tmp_path: Path, changes: dict[str, Any]) -> None:
        draw_summary(tmp_path / "s.png", **summary_of((12, 40, 40), **changes))
        assert (tmp_path / "s.png").stat().st_size > 5000

    def test_replaces_an_older_one_and_leaves_nothing_beside_it(self, tmp_path: Path) -> None:
        (tmp_path / "s.png").write_text("old")
        draw_summary(tmp_path / "s.png", **summary_of((12, 40, 40)))
        assert [path.name for path in tmp_path.iterdir()] == ["s.png"]
        assert (tmp_path / "s.png").stat().st_size > 5000

    def test_failure_keeps_the_older_one(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(figure: Any, path: Path) -> None:
            path.write_text("half")
            raise OSError("disk full")

        (tmp_path / "s.png").write_text("old")
        monkeypatch.setattr("matplotlib.figure.Figure.savefig", fail)
        with pytest.raises(OSError, match="disk full"):
            draw_summary(tmp_path / "s.png", **summary_of((12, 40, 40)))
        assert [path.name for path in tmp_path.iterdir()] == ["s.png"]
        assert (tmp_path / "s.png").read_text() == "old"

    def test_leaves_matplotlib_as_it_was(self, tmp_path: Path) -> None:
        before = dict(mpl.rcParams)
        draw_summary(tmp_path / "s.png", **summary_of((12, 40, 40)))
        assert dict(mpl.rcParams) == before

    def test_prediction_appears_in_its_colours(self, tmp_path: Path) -> None:
        labels = np.full((12, 40, 40), 2, np.uint8)
        arguments = summary_of((12, 40, 40), labels=labels, truth=labels, image=np.zeros((12, 40, 40), np.uint8))
        draw_summary(tmp_path / "s.png", **arguments)
        picture = np.rint(imread(tmp_path / "s.png")[..., :3] * 255)
        orange = 0.75 * np.array(tuple(bytes.fromhex(COLOURS[1].removeprefix("#"))))
        is_orange = (np.abs(picture - orange) <= 1).all(axis=-1)
        assert is_orange.mean() > 0.1


class TestLayout:
    @pytest.mark.parametrize(
        ("shape", "spacing"),
        [((48, 128, 128), (0.5, 0.25, 0.25)), ((4, 500, 100), (1, 1, 1)), ((900, 20, 20), (1, 1, 1))],
    )
    def test_planes_lie_apart_and_within_the_figure(self, shape: tuple[int, int, int], spacing: Any) -> None:
        from matplotlib.figure import Figure

        layout = _Layout.of(shape, spacing)
        figure = Figure(figsize=(layout.width, layout.height))
        boxes = [layout.plane_axes(figure, row, column).get_position() for row in range(4) for column in range(3)]
        boxes.append(layout.side_axes(figure, 0, 1).get_position())
        assert all(0 <= b.x0 < b.x1 <= 1 and 0 <= b.y0 < b.y1 <= 1 for b in boxes)
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
        assert layout.width < 14
        assert layout.height < 12


def test_planes_are_cut_through_the_centre() -> None:
    volume = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    np.testing.assert_array_equal(_cut(volume, "xy", (1, 2, 3)), volume[1])
    np.testing.assert_array_equal(_cut(volume, "xz", (1, 2, 3)), volume[:, 2].T)
    np.testing.assert_array_equal(_cut(volume, "yz", (1, 2, 3)), volume[:, :, 3].T)


def test_classes_keep_their_colours_in_ascending_order() -> None:
    assert class_colours({7: "b", 2: "a"}) == {2: COLOURS[0], 7: COLOURS[1]}
    assert len(set(COLOURS)) == len(COLOURS)
