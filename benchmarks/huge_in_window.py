"""A 100 GB image in napari's window: opened, painted with the mouse, predicted live; one JSON object at the end.

    xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/huge_in_window.py
    xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/huge_in_window.py --gigabytes 0.2

The image is an OME-Zarr 0.5 of 16 bits with levels of resolution. It has its nominal size and takes 130 MB of disk:
one shard holds texture, all others are links to the same file. Reading them costs as much as reading separate files.

Each place is visited as a user would: another slice, another part of it, another zoom. `longest_stall_s` is how late a
timer of 10 ms on the GUI thread was at worst, while strokes were made and predictions arrived; `opening_stall_s` is the
same while the image was opened. `peak_rss_mb` is the memory of the process, napari and torch included; `budget_mb` is
half of what was free at the start.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("QT_API", "pyside6")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))

import numpy as np
import psutil

LEVELS = 3
SPACING = (1.0, 0.5, 0.5)
BRUSH = 14
TICK_MS = 10
PATIENCE = 300.0
"""Seconds after which something counts as broken."""


def main() -> None:
    """Measure, and print what was measured."""
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        os.environ["SPARSESEG_HOME"] = str(Path(folder) / "home")
        image = Path(folder) / "huge.ome.zarr"
        shape = make_image(image, arguments.gigabytes)
        print(f"made {shape}, {used_mb(image):.0f} MB on disk", file=sys.stderr)
        figures = {"gigabytes": 2 * float(np.prod(shape)) / 1e9, "budget_mb": psutil.virtual_memory().available / 2e6}
        with peak_of_memory() as peak_mb:
            figures |= work(image, arguments.screenshot, arguments.tour)
        figures["peak_rss_mb"] = peak_mb()
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=100, help="nominal size of the image")
    parser.add_argument("--folder", help="where to put it for the time being")
    parser.add_argument("--tour", type=int, default=0, help="places to look at, each until all on screen is predicted")
    parser.add_argument("--screenshot", help="where to save a picture of the window")
    return parser.parse_args()


# ---------------------------------------------------------------- image


def make_image(path: Path, gigabytes: float) -> tuple[int, int, int]:
    """Write an image of this nominal size, of which all shards are one file; its shape."""
    import zarr

    edge = 512 if gigabytes > 4 else 128
    n_shards = gigabytes * 1e9 / (2 * edge**3)
    across = max(1, round((n_shards * 4 / 3) ** (1 / 3)))
    grid = (max(1, -int(-n_shards // across**2)), across, across)
    block = texture(edge)
    group = zarr.create_group(path, zarr_format=3, attributes={"ome": about()})
    for level in range(LEVELS):
        size = edge >> level
        array = group.create_array(
            str(level),
            shape=tuple(n * size for n in grid),
            shards=(size,) * 3,
            chunks=(min(size, edge // 4),) * 3,
            dtype=np.uint16,
        )
        array[:size, :size, :size] = block
        first = path / str(level) / "c" / "0" / "0" / "0"
        for index in np.ndindex(*grid):
            shard = path / str(level) / "c" / "/".join(map(str, index))
            shard.parent.mkdir(parents=True, exist_ok=True)
            if any(index):
                os.link(first, shard)
        half = size // 2
        block = block.reshape(half, 2, half, 2, half, 2).mean((1, 3, 5)).astype(np.uint16)
    z, y, x = (n * edge for n in grid)
    return z, y, x


def texture(edge: int) -> np.ndarray:
    """Blobs in noise, which go on where the next shard begins."""
    from scipy import ndimage

    rng = np.random.default_rng(0)
    field = ndimage.gaussian_filter(rng.random((128,) * 3, dtype=np.float32), 5, mode="wrap")
    blobs = field > np.percentile(field, 70)
    image = 800 + 1200 * blobs + rng.normal(0, 250, blobs.shape)
    coarse = (image.clip(0, 65535) // 64 * 64).astype(np.uint16)  # packs well
    return np.tile(coarse, (edge // 128,) * 3)


def about() -> dict[str, Any]:
    """What OME-Zarr says of the levels."""
    return {
        "version": "0.5",
        "multiscales": [
            {
                "axes": [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"],
                "datasets": [
                    {
                        "path": str(level),
                        "coordinateTransformations": [
                            {"type": "scale", "scale": [size * 2**level for size in SPACING]},
                            {"type": "translation", "translation": [size * (2**level - 1) / 2 for size in SPACING]},
                        ],
                    }
                    for level in range(LEVELS)
                ],
            }
        ],
    }


# ---------------------------------------------------------------- work


def work(image: Path, screenshot: str | None, n_places: int) -> dict[str, float]:
    """Open, paint, look around, correct, close and open again; what was measured."""
    import napari

    viewer = napari.Viewer(show=True)
    viewer.window.resize(1500, 950)
    wait(1)
    figures: dict[str, float] = {}
    with stalls() as longest:
        desk = Desk(viewer)
        figures["open_to_paint_s"] = desk.open(image)
        figures["opening_stall_s"] = longest()
    with stalls() as longest:
        depth, height, width = desk.shape
        desk.go(depth // 3, height // 3, width // 3)
        figures["first_prediction_s"] = desk.paint_two_classes()
        places = [(0.7, 0.2, 0.8, 1.0), (0.1, 0.8, 0.2, 2.0), (0.9, 0.9, 0.9, 1.0), (0.5, 0.5, 0.5, 0.5)]
        seconds = []
        for z, y, x, zoom in places:
            seconds.append(desk.visit(int(z * depth), int(y * height), int(x * width), zoom))
        figures["place_to_prediction_s"] = float(np.median(seconds))
        figures["place_to_prediction_worst_s"] = max(seconds)
        figures["slice_to_prediction_s"] = desk.step(1)
        figures["correction_to_prediction_s"] = desk.correct()
        figures["longest_stall_s"] = longest()
    if n_places:
        figures["tour_rss_mb"] = desk.tour(n_places)
    if screenshot:
        viewer.screenshot(screenshot, canvas_only=False, flash=False)
    figures["close_s"] = desk.close()
    return figures


class Desk:
    """A viewer with the dock, and a hand that works in it."""

    def __init__(self, viewer: Any) -> None:
        from hand import Hand

        from napari_sparseseg.widgets.dock import SparseSegDock
        from napari_sparseseg.widgets.session import session_of

        self.viewer = viewer
        self.dock = SparseSegDock(viewer)
        viewer.window.add_dock_widget(self.dock, name="Sparse Segmentation", area="right")
        self.session = session_of(viewer)
        self.session.message_shown.connect(lambda text, _is_error: print(f"told: {text}", file=sys.stderr))
        self._hand = Hand(viewer)
        self._eye = (0, 0, 0)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along z, y, x."""
        return self.session.live.shape[1:]

    def open(self, image: Path) -> float:
        """Open an image as a whole, at full resolution; seconds until it can be painted on."""
        started = time.perf_counter()
        self.viewer.open(image)
        wait(0.1)
        panel = self.dock.image_panel
        if self.session.source is None:  # it is large: the dock waits to be told
            panel._scale._scales.setCurrentIndex(0)
            panel._use.click()
        wait_until(lambda: self.session.bridge.annotation_layer is not None)
        wait(0.01)
        return time.perf_counter() - started

    def go(self, z: int, y: int, x: int, zoom: float = 1.0) -> None:
        """Show another place."""
        self._eye = (z, y, x)
        self.viewer.dims.set_point(0, z)
        self.viewer.scene.camera.center = (0, y, x)
        self.viewer.scene.camera.zoom = zoom

    def visit(self, z: int, y: int, x: int, zoom: float) -> float:
        """Show another place; seconds until something is predicted where one looks."""
        started = time.perf_counter()
        self.go(z, y, x, zoom)
        wait_until(self._is_predicted)
        print(f"place {z, y, x}: {time.perf_counter() - started:.2f} s, {rss_mb():.0f} MB", file=sys.stderr)
        return time.perf_counter() - started

    def step(self, n_slices: int) -> float:
        """Go to a slice nearby; seconds until something is predicted there."""
        z, y, x = self._eye
        return self.visit(z + 40 * n_slices, y, x, 1.0)

    def paint_two_classes(self) -> float:
        """Seconds from the end of the second stroke to something predicted."""
        _, y, x = self._eye
        self._stroke(1, (y - 60, x - 60))
        self._stroke(2, (y + 60, x + 60))
        started = time.perf_counter()
        wait_until(self._is_predicted)
        return time.perf_counter() - started

    def correct(self) -> float:
        """Seconds from the end of a stroke on the prediction to what was learnt from it."""
        _, y, x = self._eye
        self._stroke(1, (y, x), mode="correct")
        started = time.perf_counter()
        revision = self.session.live.status.revision
        with self._new_tiles() as has_come:
            wait_until(lambda: self._learnt() >= revision)
            wait_until(has_come)
        return time.perf_counter() - started

    def tour(self, n_places: int) -> float:
        """Look at many places, each until all that is on screen is predicted; memory at the end, in MB."""
        self.session.live.pause()
        depth, height, width = self.shape
        for number in range(n_places):
            share = (number + 0.5) / n_places
            self.visit(int(share * depth), int(0.1 * height + 0.8 * share * height), width // 2, 6.0)
            wait_until(lambda: self.session.live.status.activity == "What is on screen is predicted")
            print(f"all of it: {rss_mb():.0f} MB", file=sys.stderr)
        return rss_mb()

    def close(self) -> float:
        """Close the window; seconds until everything is saved."""
        started = time.perf_counter()
        self.viewer.close()
        wait_until(lambda: not any(thread.name.startswith("sparseseg") for thread in threading.enumerate()))
        return time.perf_counter() - started

    def _stroke(self, class_id: int, center: tuple[float, float], mode: str = "paint") -> None:
        self.session.bridge.set_mode(mode)
        self.session.bridge.set_class(class_id)
        self.viewer.layers.selection.active.brush_size = BRUSH
        angles = np.linspace(0, 5, 12)
        self._hand.stroke(*((center[0] + 25 * np.sin(a), center[1] + 25 * np.cos(a)) for a in angles), steps=1)

    def _learnt(self) -> int:
        loop = self.session.live._worker.loop
        generation = loop.predictor.generation if loop else None
        return generation.revision if generation else -1

    def _is_predicted(self) -> bool:
        """Whether the layer shows a class where one looks."""
        layer = self.session.bridge.prediction_layer
        return layer is not None and bool(np.asarray(layer.data[self._eye]))

    @contextmanager
    def _new_tiles(self) -> Iterator[Callable[[], bool]]:
        """Whether the place looked at was predicted again within the block, and has reached the window."""
        boxes: list[Any] = []
        self.session.relay.tiles.connect(lambda tiles: boxes.extend(tile.box for tile in tiles))
        yield lambda: any(
            all(a <= e < b for a, e, b in zip(box.start, self._eye, box.stop, strict=True)) for box in boxes
        )


# ---------------------------------------------------------------- measuring


@contextmanager
def stalls() -> Iterator[Callable[[], float]]:
    """The longest time that the GUI thread did not answer within the block, so far; seconds."""
    from qtpy.QtCore import Qt, QTimer

    longest, due = 0.0, time.perf_counter() + TICK_MS / 1000

    def tick() -> None:
        nonlocal longest, due
        now = time.perf_counter()
        longest = max(longest, now - due)
        due = now + TICK_MS / 1000

    timer = QTimer()
    timer.setTimerType(Qt.PreciseTimer)
    timer.timeout.connect(tick)
    timer.start(TICK_MS)
    yield lambda: longest
    timer.stop()


@contextmanager
def peak_of_memory() -> Iterator[Callable[[], float]]:
    """The most memory that this process had within the block, in MB."""
    peak, is_over = 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not is_over.wait(0.05):
            peak = max(peak, rss_mb())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield lambda: peak
    finally:
        is_over.set()
        thread.join()


def rss_mb() -> float:
    """Memory of this process now."""
    return psutil.Process().memory_info().rss / 1e6


def used_mb(folder: Path) -> float:
    """What a folder takes on disk; files that are linked count once."""
    sizes = {status.st_ino: 512 * status.st_blocks for path in folder.rglob("*") for status in [path.stat()]}
    return sum(sizes.values()) / 1e6


def wait(seconds: float) -> None:
    """Let the GUI run."""
    from hand import let_live

    let_live(seconds)


def wait_until(condition: Callable[[], bool]) -> None:
    """Let the GUI run until something is true."""
    end = time.perf_counter() + PATIENCE
    while not condition():
        if time.perf_counter() > end:
            raise TimeoutError("what was waited for did not happen")
        wait(0.002)


if __name__ == "__main__":
    main()
