"""What one worker does: predict a shard, or make a shard of a coarser level, and write it."""

from __future__ import annotations

import platform
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_sparseseg._types import ArrayLike, Box, Shape3D
from napari_sparseseg.errors import InputError
from napari_sparseseg.storage._arrays import chunk_depth
from napari_sparseseg.storage.atomic import writable
from napari_sparseseg.storage.sharded import ShardedImage
from napari_sparseseg.storage.unfinished import Manifest, Task
from napari_sparseseg.storage.volume import ImageVolume
from napari_sparseseg.storage.window import Window

if TYPE_CHECKING:
    from napari_sparseseg.engine.features import FeatureMap
    from napari_sparseseg.engine.model import FittedModel
    from napari_sparseseg.engine.predictor import Predictor


@dataclass(frozen=True)
class Job:
    """All that a worker needs for any shard of one prediction; small, since it is sent to each of them.

    The model and the arrays that are written lie at paths that all workers see. `device` is as `choose_device` takes
    it; where there are several GPUs, "auto" gives each worker its own.
    """

    manifest: Manifest
    image: ArrayLike
    channel_axis: int | None
    model: Path
    labels: Path
    probabilities: Path
    device: str
    cache_bytes: int
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        kept = ("manifest", "image", "channel_axis", "model", "labels", "probabilities", "device", "cache_bytes")
        return {name: getattr(self, name) for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def tasks(self, level: int) -> list[Task]:
        """The shards of a level of resolution."""
        return [(level, *box.start) for box in self.images[0].levels[level].shards()]

    def touching(self, boxes: Iterable[Box]) -> list[Task]:
        """The shards of the finest level in which some boxes of the volume lie."""
        shard = self.images[0].levels[0].shard
        corners: set[Shape3D] = set()
        for box in boxes:
            ranges = (range(a // n * n, b, n) for a, b, n in zip(box.start, box.stop, shard, strict=True))
            corners.update((z, y, x) for z, y, x in product(*ranges))
        return [(0, *corner) for corner in sorted(corners)]

    @property
    def n_levels(self) -> int:
        return len(self.images[0].levels)

    def box(self, task: Task) -> Box:
        """The voxels of a shard in its level."""
        level, *corner = task
        found = self.images[0].levels[level]
        return Box.whole(found.shard).shifted((corner[0], corner[1], corner[2])).clipped(Box.whole(found.shape))

    def run(self, task: Task, on_tile: Callable[[float], object] = lambda _: None) -> dict[int, int]:
        """Write a shard so that it lasts, one at a time in a process; of the finest level, return voxels of each class.

        `on_tile` is called after each tile with the share of the shard that is predicted, 0..1; if it raises, nothing
        is written.
        """
        with self._lock, _alone():
            if task[0]:
                with writable(self.labels):
                    for image in self.images:
                        image.coarsen(task[0], self.box(task))
                return {}
            return self._predict(self.box(task), on_tile)

    def _predict(self, box: Box, on_tile: Callable[[float], object]) -> dict[int, int]:
        from napari_sparseseg.engine.labelling import best_labels

        engine = self._engine
        engine.prepare(box)
        classes = engine.fitted.classes
        labels = np.empty(box.shape, np.min_scalar_type(max(classes.ids)))
        likely = np.empty((len(classes), *box.shape), np.uint8) if self.manifest.probabilities else None
        n_done = 0
        for tile in engine.predictor.predict(box):
            place = tile.box.relative_to(box.start).slices
            labels[place] = best_labels(tile.probabilities, classes)
            if likely is not None:
                likely[(slice(None), *place)] = tile.probabilities.mul(255).round_().cpu().numpy()
            n_done += tile.box.n_voxels
            on_tile(n_done / box.n_voxels)
        with writable(self.labels):
            self.images[0].write(0, box, labels[None])
            if likely is not None:
                self.images[1].write(0, box, likely)
        return _counts(labels)

    def amend(self, task: Task, change: Callable[[Box, npt.NDArray[Any]], npt.NDArray[Any]]) -> dict[int, int]:
        """Change the labels of a finished shard of the finest level by `change`; returns the voxels of each class."""
        box = self.box(task)
        labels = change(box, self.images[0].read(0, box)[0])
        with writable(self.labels):
            self.images[0].write(0, box, labels[None])
        return _counts(labels)

    @cached_property
    def images(self) -> list[ShardedImage]:
        """The labels, and the probabilities where they were asked for."""
        if not self.labels.is_dir():
            raise InputError(
                f"{platform.node()}, a worker of the cluster, sees no folder {self.labels}; write to a folder that all "
                "workers share"
            )
        found = [ShardedImage(self.labels, self.manifest.frame, "nearest")]
        if self.manifest.probabilities:
            found.append(ShardedImage(self.probabilities, self.manifest.frame, "mean"))
        return found

    @cached_property
    def _engine(self) -> _Engine:
        return _Engine.of(self)


@dataclass(frozen=True)
class _Engine:
    """A model on a device, and the volume that it predicts."""

    fitted: FittedModel
    window: Window
    features: FeatureMap
    predictor: Predictor

    @classmethod
    def of(cls, job: Job) -> _Engine:
        from napari_sparseseg.engine.checkpoint import load_model
        from napari_sparseseg.engine.device import choose_device
        from napari_sparseseg.engine.features import FeatureMap
        from napari_sparseseg.engine.normalise import IntensityRange
        from napari_sparseseg.engine.predictor import Predictor

        fitted, _, _ = load_model(job.model)
        device = choose_device(device_of_worker(job.device)).device
        fitted.network.to(device)
        window = Window(ImageVolume(job.image, job.channel_axis), depth=chunk_depth(job.image))
        intensity = IntensityRange(job.manifest.intensity_offset, job.manifest.intensity_scale)
        features = FeatureMap(window, fitted.spec.bank, intensity, device=device, cache_bytes=job.cache_bytes)
        predictor = Predictor(fitted.network, features, tile_voxels=1)
        predictor.tile_shape = job.manifest.tile
        return cls(fitted, window, features, predictor)

    def prepare(self, box: Box) -> None:
        """Read the voxels that a box depends on."""
        whole = Box.whole(self.window.shape)
        region = box.grown(self.fitted.network.unet.halo).clipped(whole)
        self.window.hold(region.grown(self.fitted.spec.bank.reach).clipped(whole))
        self.features.prepare(region)


def device_of_worker(wanted: str) -> str:
    """The device of this process: workers of one machine with several GPUs take one each, by their number."""
    import torch

    number = _worker_number()
    if wanted not in ("auto", "cuda") or number is None or torch.cuda.device_count() < 2:
        return wanted
    return f"cuda:{number % torch.cuda.device_count()}"


def _worker_number() -> int | None:
    """The number at the end of the name of the Dask worker that this runs on; None outside of one."""
    worker = _worker()
    digits = "" if worker is None else str(worker.name).rpartition("-")[2]
    return int(digits) if digits.isdecimal() else None


def _worker() -> Any:
    if "distributed" not in sys.modules:
        return None
    from distributed import get_worker

    try:
        return get_worker()
    except ValueError:
        return None


def _alone() -> Any:
    """Let lazy images be read here: on a Dask worker, dask would send the reading back to the cluster, and wait."""
    if _worker() is None:
        return nullcontext()
    import dask

    return dask.config.set(scheduler="synchronous")


def _counts(labels: npt.NDArray[np.integer]) -> dict[int, int]:
    return {class_id: int(n) for class_id, n in enumerate(np.bincount(labels.ravel())) if n}


def total(counts: Mapping[Task, Mapping[int, int]]) -> dict[int, int]:
    """Voxels of each class, by class id, in all shards."""
    found: dict[int, int] = {}
    for of_shard in counts.values():
        for class_id, n in of_shard.items():
            found[class_id] = found.get(class_id, 0) + n
    return dict(sorted(found.items()))
