"""What paint costs before it is learnt; the last line is a JSON object of seconds by the edge length of the slice.

    python benchmarks/paint_cost.py

One slice of a volume is painted all over with two classes, as *complete* does in the dock, and brought into the order
in which it is learnt (`prepare_paint`, after each stroke). `ratio` compares this with sorting the voxels once in the
same run: it does not grow with the slice unless something is quadratic. Times are CPU time of one thread.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np

from napari_sparseseg.config import TrainingConfig
from napari_sparseseg.engine.classes import ClassTable
from napari_sparseseg.engine.paint import prepare_paint
from napari_sparseseg.storage.annotation import read_annotation
from napari_sparseseg.storage.volume import ArrayVolume


def measure(edge: int) -> tuple[float, float]:
    """Seconds for a slice of edge x edge voxels, and for sorting its voxels."""
    rng = np.random.default_rng(0)
    codes = np.zeros((3, edge, edge), np.uint8)
    codes[1] = rng.integers(1, 3, (edge // 16 + 1, edge // 16 + 1)).repeat(16, 0).repeat(16, 1)[:edge, :edge]
    annotation = read_annotation(codes, ArrayVolume(codes))
    training = TrainingConfig()
    started = time.process_time()
    prepare_paint(annotation, ClassTable((1, 2), 1), share=training.held_out, balance=training.class_balance, seed=0)
    prepared = time.process_time()
    shuffled = rng.permutation(annotation.coordinates)
    shuffling = time.process_time()
    np.lexsort(shuffled.T)
    return prepared - started, time.process_time() - shuffling


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edges", nargs="+", type=int, default=[256, 512, 1024, 2048])
    measure(64)  # the first time libraries are loaded
    found = {}
    for edge in parser.parse_args().edges:
        seconds, sorting = measure(edge)
        found[edge] = round(seconds, 3)
        print(f"{edge:5d}: {seconds:7.3f} s, sorting {sorting:.3f} s, ratio {seconds / sorting:.1f}", flush=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
