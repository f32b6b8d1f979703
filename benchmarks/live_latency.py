"""How fluid painting is while the network trains: real mouse strokes in a real viewer, one JSON object at the end.

    xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/live_latency.py

Lateness is that of a timer of 10 ms on the GUI thread, while a stroke is painted by mouse events every 50 ms: first
without, then with training and live prediction, in turns, so that both see the same machine. Medians over the turns are
reported. Nothing else should run on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("QT_API", "pyside6")
os.environ["SPARSESEG_HOME"] = tempfile.mkdtemp()
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))

import napari
import numpy as np
from hand import Hand, let_live
from qtpy.QtCore import Qt, QTimer
from scipy import ndimage

from napari_sparseseg.live.board import Generation
from napari_sparseseg.live.events import LiveState, PaintChange, TileUpdate
from napari_sparseseg.widgets.dock import SparseSegDock
from napari_sparseseg.widgets.session import Session, session_of

SHAPE = (64, 512, 512)
TICK_MS = 10
MOVE_MS = 50
MOVES_PER_STROKE = 30
BRUSH = 12


def main() -> None:
    """Measure, and print what was measured."""
    arguments = parse_arguments()
    image, _ = make_volume()
    viewer = napari.Viewer(show=True)
    viewer.window.resize(1500, 950)
    viewer.add_image(image, name="volume")
    viewer.window.add_dock_widget(SparseSegDock(viewer), name="Sparse Segmentation", area="right")
    session = session_of(viewer)
    session.live.auto_start = False
    wait_until(lambda: session.live.status.state is LiveState.WAITING)
    painter = Painter(viewer, session)
    viewer.dims.set_point(0, SHAPE[0] // 2)

    figures = {"first_prediction_s": first_prediction(painter, session)}
    figures |= lateness(painter, session, arguments.seconds, arguments.turns)
    figures["stroke_to_update_s"] = statistics.median(
        correction_to_update(painter, session, class_id) for class_id in (1, 2, 1, 2, 1)
    )
    figures["slice_change_to_prediction_s"] = statistics.median(
        slice_change_to_prediction(viewer, session, z) for z in (3, 60, 12, 50, 20)
    )
    figures["close_s"] = close(viewer, session)
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=8, help="length of each turn")
    parser.add_argument("--turns", type=int, default=3, help="turns with and without training")
    return parser.parse_args()


def make_volume() -> tuple[np.ndarray, np.ndarray]:
    """Blobs in noise, and where they are."""
    rng = np.random.default_rng(0)
    field = ndimage.gaussian_filter(rng.random(SHAPE, dtype=np.float32), (3, 6, 6))
    blobs = field > np.percentile(field[::4, ::4, ::4], 70)
    image = 70 + 60 * blobs + rng.normal(0, 25, SHAPE)
    return image.clip(0, 255).astype(np.uint8), blobs


class Painter:
    """Paints strokes along circles on the slice, with the mouse."""

    def __init__(self, viewer: napari.Viewer, session: Session) -> None:
        self._viewer = viewer
        self._session = session
        self._hand = Hand(viewer)
        self._timer = QTimer()
        self._timer.setInterval(MOVE_MS)
        self._timer.timeout.connect(self._move)
        self._n_moves = 0

    def stroke(self, class_id: int, center: tuple[float, float], n_moves: int = 12, mode: str = "paint") -> None:
        """Paint one stroke around a point of the slice."""
        self._session.bridge.set_mode(mode)
        self._session.bridge.set_class(class_id)
        self._viewer.layers.selection.active.brush_size = BRUSH
        self._hand.stroke(*(on_circle(number, center) for number in range(n_moves)), steps=1)

    @contextmanager
    def painting(self) -> Iterator[None]:
        """Go on painting, a new stroke every one and a half seconds, until the block ends."""
        self._timer.start()
        try:
            yield
        finally:
            self._timer.stop()
            if self._n_moves % MOVES_PER_STROKE:
                self._hand.release(on_circle(0, (100, 100)))
            self._n_moves = 0

    def _move(self) -> None:
        number, in_stroke = divmod(self._n_moves, MOVES_PER_STROKE)
        point = on_circle(in_stroke, (120 + 55 * (number % 5), 120 + 90 * (number % 3)))
        if in_stroke == 0:
            self._session.bridge.set_class(1 + number % 2)
            self._hand.press(point)
        elif in_stroke == MOVES_PER_STROKE - 1:
            self._hand.release(point)
        else:
            self._hand.move(point)
        self._n_moves += 1


def on_circle(number: int, center: tuple[float, float]) -> tuple[float, float]:
    """Points of a stroke, in voxels of the slice."""
    angle = 0.35 * number
    return center[0] + 30 * np.sin(angle), center[1] + 30 * np.cos(angle)


def lateness(painter: Painter, session: Session, seconds: float, n_turns: int) -> dict[str, float]:
    """Lateness of the GUI while painting, with and without training, and what painting costs the training."""
    alone, training, painted_rate, idle_rate = [], [], [], []
    session.bridge.set_mode("paint")
    for _ in range(n_turns):
        session.live.pause()
        session.live.set_live(False)
        let_live(1)
        with painter.painting():
            alone.append(measure_lateness(seconds))
        session.live.set_live(True)
        session.live.start()
        let_live(2)
        with painter.painting(), counted_steps(session) as n_steps:
            training.append(measure_lateness(seconds))
        painted_rate.append(n_steps() / seconds)
        let_live(1)
        with counted_steps(session) as n_steps:
            let_live(seconds)
        idle_rate.append(n_steps() / seconds)
    figures = {}
    for name, turns in (("painting", alone), ("training", training)):
        for share in (95, 99):
            figures[f"{name}_p{share}_ms"] = statistics.median(float(np.percentile(t, share)) for t in turns)
    figures["steps_ratio"] = statistics.median(painted_rate) / max(1e-9, statistics.median(idle_rate))
    figures["steps_per_second"] = statistics.median(idle_rate)
    return figures


def measure_lateness(seconds: float) -> list[float]:
    """How much later than asked for a timer fires, in ms, over some seconds."""
    late: list[float] = []
    due = time.perf_counter() + TICK_MS / 1000

    def tick() -> None:
        nonlocal due
        now = time.perf_counter()
        late.append(max(0.0, (now - due) * 1000))
        due = now + TICK_MS / 1000

    timer = QTimer()
    timer.setTimerType(Qt.PreciseTimer)
    timer.timeout.connect(tick)
    timer.start(TICK_MS)
    let_live(seconds)
    timer.stop()
    return late


@contextmanager
def counted_steps(session: Session) -> Iterator[Callable[[], int]]:
    """Steps of the U-Net within the block."""
    first = session.live.status.step
    yield lambda: session.live.status.step - first


def first_prediction(painter: Painter, session: Session) -> float:
    """From the end of the stroke that paints the second class to a prediction of the slice on the screen."""
    painter.stroke(1, (180, 200))
    session.live.auto_start = True
    with shown_tiles(session) as tiles:
        painter.stroke(2, (300, 300))
        started = time.perf_counter()
        wait_until(lambda: bool(tiles))
        return time.perf_counter() - started


def correction_to_update(painter: Painter, session: Session, class_id: int) -> float:
    """From the end of a stroke on the prediction to a tile on screen that has learnt it."""
    session.live.start()
    let_live(2)
    changes: list[PaintChange] = []
    session.live.events.paint_changed.connect(changes.append)
    with shown_tiles(session) as tiles:
        painter.stroke(class_id, (200 + 40 * class_id, 240), n_moves=6, mode="correct")
        started = time.perf_counter()
        wait_until(lambda: generation(session).revision >= changes[-1].revision)
        wanted = generation(session).number
        wait_until(lambda: any(tile.generation >= wanted for tile in tiles))
        seconds = time.perf_counter() - started
    session.live.events.paint_changed.disconnect(changes.append)
    session.live.undo()
    return seconds


def generation(session: Session) -> Generation:
    """The weights that predict now, and what they have learnt."""
    return session.live._worker.loop.predictor.generation


def slice_change_to_prediction(viewer: napari.Viewer, session: Session, z: int) -> float:
    """From the slider's move to a prediction of the slice that was moved to."""
    with shown_tiles(session) as tiles:
        viewer.dims.set_point(0, z)
        started = time.perf_counter()
        wait_until(lambda: any(t.box.start[0] <= z < t.box.stop[0] for t in tiles))
        return time.perf_counter() - started


def close(viewer: napari.Viewer, session: Session) -> float:
    """From closing the window while training to the end of the thread."""
    session.live.start()
    let_live(2)
    started = time.perf_counter()
    viewer.close()
    wait_until(lambda: all(thread.name != "sparseseg compute" for thread in threading.enumerate()))
    return time.perf_counter() - started


@contextmanager
def shown_tiles(session: Session) -> Iterator[list[TileUpdate]]:
    """Tiles that reach the GUI thread within the block."""
    tiles: list[TileUpdate] = []
    session.relay.tiles.connect(tiles.extend)
    try:
        yield tiles
    finally:
        session.relay.tiles.disconnect(tiles.extend)


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Let the GUI run until something is true."""
    end = time.perf_counter() + seconds
    while not condition():
        if time.perf_counter() > end:
            raise TimeoutError("what was waited for did not happen")
        let_live(0.002)


if __name__ == "__main__":
    main()
