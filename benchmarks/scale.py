"""Volumes larger than memory: speed of one and two workers, peak memory, growth; one JSON object at the end.

    python benchmarks/scale.py
    python benchmarks/scale.py --quick

A volume of 20 GB, whose voxels (float32) are computed when they are read, is predicted for some minutes by one worker
and by two, of one thread each. Then one of 0.25 GB and one of 4 GB are predicted as a whole by two. Memory is that of
all processes together, sampled ten times a second; budget_mb is what they were allowed. The efficiency of two workers
is their speed-up over one, divided by that of two processes that do nothing but convolutions over one such process,
measured before and after. Growth is the time per voxel at 4 GB divided by that at 0.25 GB. Nothing else should run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import psutil

GB = 10**9
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
EDGE = 96


class Tissue:
    """Blobs in noise without end, float32: a small block that repeats, mirrored by nothing, held by nobody."""

    dtype = np.dtype(np.float32)

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.shape = shape
        self._block = make_case()[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        found = np.empty([part.stop - part.start for part in index], self.dtype)
        for pieces in product(*map(_periods, index)):
            target, source = zip(*pieces, strict=True)
            found[target] = self._block[source]
        return found


def _periods(part: slice) -> list[tuple[slice, slice]]:
    """Where a range lies in what is read, and in the block, for each repetition that it touches."""
    edges = [part.start, *range((part.start // EDGE + 1) * EDGE, part.stop, EDGE), part.stop]
    return [
        (slice(a - part.start, b - part.start), slice(a % EDGE, a % EDGE + b - a)) for a, b in pairwise(edges) if a < b
    ]


@dataclass
class Run:
    """One prediction: its peak of memory, and at which second how many voxels were finished."""

    peak_mb: float
    seconds: float
    voxels: int

    @property
    def speed(self) -> float:
        """Megavoxels a second."""
        return self.voxels / 1e6 / self.seconds


def main() -> None:
    """Measure, and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--memory", type=float, help="budget in MB, in place of half of what is free")
    parser.add_argument("--seconds", type=float, default=240, help="how long the large volume is predicted")
    parser.add_argument("--gigabytes", type=float, nargs=3, default=(20.0, 4.0, 0.25), help="of the three volumes")
    parser.add_argument("--quick", action="store_true", help="small volumes, to see that it works")
    parser.add_argument("--predict", nargs=5, help=argparse.SUPPRESS)
    parser.add_argument("--convolve", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.predict:
        return predict(*arguments.predict)
    if arguments.convolve:
        return convolve(arguments.convolve)
    seconds, sizes = (15.0, (0.03, 0.006, 0.004)) if arguments.quick else (arguments.seconds, arguments.gigabytes)
    budget = (arguments.memory or psutil.virtual_memory().available / 2e6) * 1e6
    bare_seconds = 3.0 if arguments.quick else 20.0
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), int(budget))
        before = bare_speed_up(bare_seconds)
        one, two = (bench.run(sizes[0], workers, seconds) for workers in (1, 2))
        bare = (before + bare_speed_up(bare_seconds)) / 2
        small, whole = (bench.run(size, 2) for size in (sizes[2], sizes[1]))
    figures = {
        "peak_rss_mb": max(run.peak_mb for run in (one, two, small, whole)),
        "budget_mb": budget / 1e6,
        "mvox_s_1_worker": one.speed,
        "mvox_s_2_workers": two.speed,
        "efficiency_2_workers": two.speed / one.speed / bare,
        "growth": small.speed / whole.speed,
        "bare_speed_up": bare,
        "hours_for_the_large_volume": sizes[0] * GB / Tissue.dtype.itemsize / 1e6 / two.speed / 3600,
    }
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))
    return None


class Bench:
    """Predictions in processes of their own, watched from here."""

    def __init__(self, folder: Path, budget: int) -> None:
        self._folder, self._budget, self._n_runs = folder, budget, 0
        self._model = folder / "model.safetensors"
        subprocess.run([sys.executable, __file__, "--predict", "0", "0", "0", str(self._model), ""], check=True)

    def run(self, gigabytes: float, workers: int, seconds: float | None = None) -> Run:
        """Predict a volume of a size, all of it or for so many seconds after the first shard was finished."""
        self._n_runs += 1
        edge = round((gigabytes * GB / Tissue.dtype.itemsize) ** (1 / 3))
        target = self._folder / f"{self._n_runs}.zarr"
        numbers = [str(edge), str(workers), str(self._budget)]
        command = [sys.executable, __file__, "--predict", *numbers, str(self._model), str(target)]
        process = psutil.Popen(command, env=os.environ | ONE_THREAD)
        started, peak, times = time.perf_counter(), 0.0, []
        while process.poll() is None:
            peak = max(peak, memory_of(process))
            n_finished = count(target)
            times += [time.perf_counter()] * (n_finished - len(times))
            if seconds and times and time.perf_counter() - times[0] > seconds and len(times) > 2 * workers:
                stop(process)
            time.sleep(0.1)
        if target.exists():
            run = Run(peak, time.perf_counter() - started, edge**3)
        elif seconds is None or len(times) < 2:
            raise SystemExit(f"the prediction of {gigabytes} GB failed")
        else:
            shard = json.loads((target.with_name(f"{target.name}.unfinished") / "manifest.json").read_text())["shard"]
            run = Run(peak, times[-1] - times[0], int(np.prod(shard)) * (len(times) - 1))
        print(f"{gigabytes} GB, {workers} worker(s): {run.speed:.3f} Mvoxel/s, {run.peak_mb:.0f} MB", file=sys.stderr)
        return run


def count(target: Path) -> int:
    """Shards of the finest level that are finished."""
    listed = target.with_name(f"{target.name}.unfinished") / "finished.jsonl"
    try:
        return listed.read_text().count("[[0, ")
    except FileNotFoundError:
        return 0


def stop(process: psutil.Popen) -> None:
    """End a prediction and its workers."""
    for each in [*process.children(recursive=True), process]:
        each.kill()
    process.wait()


def memory_of(process: psutil.Popen) -> float:
    """Resident memory of a process and all that it has started, in MB."""
    total = 0
    try:
        for each in [process, *process.children(recursive=True)]:
            total += each.memory_info().rss
    except psutil.NoSuchProcess:  # one that has just ended
        return 0.0
    return total / 1e6


def make_case() -> tuple[np.ndarray, np.ndarray]:
    """Blobs in noise, one slice of which is painted."""
    from scipy import ndimage

    rng = np.random.default_rng(0)
    field = ndimage.gaussian_filter(rng.random((EDGE,) * 3, dtype=np.float32), 4, mode="wrap")
    truth = 1 + (field > np.percentile(field, 65)).astype(np.uint8)
    image = (60 * truth + rng.normal(0, 25, truth.shape)).astype(np.float32)
    annotation = np.zeros_like(truth)
    annotation[EDGE // 2] = truth[EDGE // 2]
    return image, annotation


def predict(edge: str, workers: str, memory: str, model: str, target: str) -> None:
    """What a process of its own does: fit the model if there is no target, else predict."""
    from napari_sparseseg import SparseSegmenter

    if not target:
        segmenter = SparseSegmenter(random_state=0, progress=False).fit(*make_case(), max_steps=5)
        segmenter._fitted.network.context = 0.5  # both heads answer, whatever held-out paint says
        segmenter.save(model)
        return
    image = Tissue((int(edge),) * 3)
    SparseSegmenter.load(model, progress=False).predict_to(image, target, workers=int(workers), memory=int(memory))


def convolve(seconds: float) -> None:
    """Convolve for some seconds on one thread, and print how often."""
    import torch

    image = torch.randn(2, 16, 32, 96, 96).contiguous(memory_format=torch.channels_last_3d)
    convolution = torch.nn.Conv3d(16, 16, 3, padding=1).to(memory_format=torch.channels_last_3d)
    n_times, started = 0, time.perf_counter()
    with torch.no_grad():
        while time.perf_counter() - started < seconds:
            convolution(image)
            n_times += 1
    print(n_times / (time.perf_counter() - started))


def bare_speed_up(seconds: float) -> float:
    """How much more two processes convolve than one."""

    def rates(n: int) -> float:
        command = [sys.executable, __file__, "--convolve", str(seconds)]
        running = [
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | ONE_THREAD) for _ in range(n)
        ]
        return sum(float(process.communicate()[0]) for process in running)

    return rates(2) / rates(1)


if __name__ == "__main__":
    main()
