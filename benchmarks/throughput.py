"""How close to the machine's limit it computes, and how it compares with a random forest; one JSON object at the end.

    python benchmarks/throughput.py

While a volume is predicted, and while a step is trained, every convolution and matrix product is recorded with the
shapes and strides of its inputs. Replaying just these, on memory that is already allocated, is the *bare* computation:
the least that the machine has to do. A ratio is the time of that over the time of everything; the best of five repeats
each, in turns. The forest has 100 trees on skimage's features of the same scales, as in sparsebench. Nothing else
should run.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from sklearn.ensemble import RandomForestClassifier
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from napari_sparseseg import SparseSegmenter

aten = torch.ops.aten
BARE = {
    aten.convolution.default,
    aten.convolution_backward.default,
    aten.mm.default,
    aten.bmm.default,
    aten.addmm.default,
}
SCALES = (1.0, 2.0, 4.0, 8.0, 16.0)
N_PAINTED = 20_000


def main() -> None:
    """Measure, and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--edge", type=int, default=128, help="edge of the volume in voxels")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()

    image, annotation = make_case(arguments.edge)
    segmenter = SparseSegmenter(random_state=0, progress=False).fit(image, annotation, max_steps=30)
    segmenter._fitted.network.context = 0.5  # both heads answer, whatever held-out paint says
    predict, step = lambda: segmenter.predict(image), one_step(segmenter)

    predict()  # what is recorded below takes memory of its own
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1 << 20)
    whole, bare = interleaved(arguments.repeats, predict, replay_of(predict))
    train, bare_train = interleaved(arguments.repeats, step, replay_of(step))
    forest = forest_seconds(image, annotation)
    figures = {
        "infer_ratio": bare / whole,
        "train_ratio": bare_train / train,
        "infer_mvox_s": image.size / 1e6 / whole,
        "train_step_ms": 1000 * train,
        "forest_ratio": whole / forest,
        "peak_mb": peak_mb,
    }
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))


def make_case(edge: int) -> tuple[np.ndarray, np.ndarray]:
    """Blobs in noise, three slices of which are painted."""
    rng = np.random.default_rng(0)
    field = ndimage.gaussian_filter(rng.random((edge,) * 3, dtype=np.float32), 5)
    truth = 1 + (field > np.percentile(field, 65)).astype(np.uint8)
    image = (60 * truth + rng.normal(0, 25, truth.shape)).clip(0, 255).astype(np.uint8)
    annotation = np.zeros_like(truth)
    planes = [edge // 5, edge // 2, 4 * edge // 5]
    annotation[planes] = truth[planes]
    return image, annotation


def one_step(segmenter: SparseSegmenter) -> Callable[[], object]:
    """A training step, features being there already."""
    trainer = segmenter._trainer
    for _ in range(20):
        trainer._unet_step(1e-3)
    return lambda: trainer._unet_step(1e-3)


class Recorder(TorchDispatchMode):
    """Notes the convolutions and products that are computed within the block."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []
        self._memory: dict[tuple[Any, ...], torch.Tensor] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute as usual."""
        if func in BARE:
            self.calls.append((func, tree_map(self._stand_in, args), kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _stand_in(self, value: Any) -> Any:
        """A tensor of the same shape and strides, shared by all calls that need one like it."""
        if not isinstance(value, torch.Tensor):
            return value
        key = (tuple(value.shape), value.stride(), value.dtype)
        if key not in self._memory:
            n_stored = 1 + sum((n - 1) * step for n, step in zip(value.shape, value.stride(), strict=True))
            self._memory[key] = torch.randn(n_stored).to(value.dtype).as_strided(value.shape, value.stride())
        return self._memory[key]


def replay_of(function: Callable[[], object]) -> Callable[[], object]:
    """The bare computation of a function."""
    with Recorder() as recorder:
        function()

    def replay() -> None:
        with torch.no_grad():
            for func, args, kwargs in recorder.calls:
                func(*args, **kwargs)

    return replay


def interleaved(n_repeats: int, *functions: Callable[[], object]) -> list[float]:
    """Best time of each function, in turns."""
    best = [np.inf] * len(functions)
    for _ in range(n_repeats):
        for number, function in enumerate(functions):
            started = time.perf_counter()
            function()
            best[number] = min(best[number], time.perf_counter() - started)
    return best


def forest_seconds(image: np.ndarray, annotation: np.ndarray) -> float:
    """Features and prediction of a random forest; its training is not counted."""
    started = time.perf_counter()
    features = filter_features(image)
    seconds = time.perf_counter() - started
    painted = np.flatnonzero(annotation.ravel())
    painted = np.random.default_rng(0).permutation(painted)[:N_PAINTED]
    forest = RandomForestClassifier(100, n_jobs=-1, max_features="sqrt", random_state=0)
    forest.fit(features[painted], annotation.ravel()[painted])
    started = time.perf_counter()
    forest.predict(features)
    return seconds + time.perf_counter() - started


def filter_features(image: np.ndarray) -> np.ndarray:
    """Gaussian, gradient magnitude and Hessian eigenvalues at the same scales, by scikit-image."""
    from skimage.feature import multiscale_basic_features

    columns = [
        multiscale_basic_features(
            image, intensity=True, edges=True, texture=True, sigma_min=sigma, sigma_max=sigma, num_sigma=1
        )
        for sigma in SCALES
    ]
    features = np.concatenate(columns, axis=-1)
    return features.reshape(-1, features.shape[-1])


if __name__ == "__main__":
    main()
