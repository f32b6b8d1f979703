"""Prediction into an OME-Zarr: planned, resumed, by this process or by a cluster, published when it is complete."""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from napari_sparseseg._types import ArrayLike, Box, Spacing
from napari_sparseseg.config import PredictionConfig
from napari_sparseseg.distributed.job import Job, total
from napari_sparseseg.distributed.plan import (
    PROCESS_BYTES,
    Demand,
    Plan,
    check_plan,
    free_memory,
    make_plan,
    parse_memory,
)
from napari_sparseseg.errors import InputError, InputWarning
from napari_sparseseg.progress import duration, move_bar, open_bar
from napari_sparseseg.storage._arrays import checked_spacing, plain_int, real_dtype_of, shape_of
from napari_sparseseg.storage.atomic import check_folder, check_free, checked_target, is_zarr, writable
from napari_sparseseg.storage.identity import Identity, identity_of
from napari_sparseseg.storage.ome import checked_offset
from napari_sparseseg.storage.sharded import ShardedImage
from napari_sparseseg.storage.unfinished import ATTRIBUTE, Manifest, Task, Unfinished, result_note
from napari_sparseseg.storage.volume import ArrayVolume, ImageVolume
from napari_sparseseg.storage.window import MappedArray, save_mapped

if TYPE_CHECKING:
    from distributed import Client

    from napari_sparseseg.engine.model import FittedModel
    from napari_sparseseg.engine.normalise import IntensityRange

_MOST_SENT = 1 << 22  # bytes of voxels that are sent to each worker
_PARTS = {"model": "the model", "image": "the image", "settings": "the settings"}

Report: TypeAlias = Callable[[float, str], object]
"""Called with the share that is done, 0..1, and speed and time left as text. What it raises ends the prediction."""


@dataclass(frozen=True, slots=True)
class Amendment:
    """What is known better than predicted: `change` takes a box and its labels (z, y, x), and returns others.

    All that it changes lies in `boxes`; both are called once everything is predicted.
    """

    boxes: Callable[[], Iterable[Box]]
    change: Callable[[Box, npt.NDArray[Any]], npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Prediction:
    """What was written: paths of the labels and, if asked for, of the probabilities, and voxels of each class id.

    `n_resumed` shards were there already; `seconds` is the time of this run.
    """

    labels: Path
    probabilities: Path | None
    n_voxels: Mapping[int, int]
    n_shards: int
    n_resumed: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be predicted, where to, and with how much of the machine; see `SparseSegmenter.predict_to`.

    `memory` is in bytes, None for a share of what is free. `spacing` and `offset` are along z, y, x.
    """

    image: ArrayLike
    channel_axis: int | None
    target: Path
    probabilities: Path | None
    spacing: Spacing
    offset: Spacing
    unit: str | None
    device: str
    tile_voxels: int | None
    workers: int
    memory: int | None
    resume: bool
    overwrite: bool
    progress: bool | None

    @property
    def outputs(self) -> list[Path]:
        """Paths of all that is written, the labels last."""
        return [self.target] if self.probabilities is None else [self.probabilities, self.target]


def make_request(
    volume: ArrayVolume,
    image: ArrayLike,
    store: str | os.PathLike[str],
    *,
    probabilities: bool | str | os.PathLike[str],
    spacing: Sequence[float] | None,
    offset: Sequence[float] | None,
    unit: str | None,
    workers: int,
    memory: int | str | None,
    device: str,
    tile_voxels: int,
    resume: bool,
    overwrite: bool,
    progress: bool | None,
) -> Request:
    """Check what users pass, and make a request of it.

    Raises `InputError` or `InputTypeError` for what cannot be used.
    """
    target = _place(store)
    if probabilities is True:
        probabilities = target.with_name(f"{_stem(target)}_probabilities.ome.zarr")
    n_workers = plain_int(workers, "workers")
    if n_workers < 1:
        raise InputError(f"workers={n_workers} cannot work; pass 1 or more")
    n_axes = len(volume.spatial_shape)
    request = Request(
        image=image,
        channel_axis=volume.channel_axis,
        target=target,
        probabilities=_place(probabilities) if probabilities else None,
        spacing=checked_spacing(spacing, n_axes),
        offset=checked_offset(offset, n_axes),
        unit=None if spacing is None else unit,
        device=device,
        # left at the default, tiles are made to suit the memory
        tile_voxels=None if tile_voxels == PredictionConfig().tile_voxels else tile_voxels,
        workers=n_workers,
        memory=parse_memory(memory),
        resume=resume,
        overwrite=overwrite,
        progress=progress,
    )
    if request.probabilities == target:
        raise InputError(f"labels and probabilities would both become {target}; give them different names")
    for output in request.outputs:
        if not output.name.lower().endswith(".zarr"):
            raise InputError(f"{output} is no OME-Zarr by its name; end it with .ome.zarr")
        check_folder(output)
    return request


def _place(path: Any) -> Path:
    """Where to write, with links resolved; what lies there is checked later."""
    return checked_target(path, overwrite=True, is_kind=lambda _: True, kind="zarr")


def _stem(path: Path) -> str:
    return path.name.removesuffix(".zarr").removesuffix(".ome")


def predict_volume(
    request: Request,
    fitted: FittedModel,
    intensity: IntensityRange,
    save_model: Callable[[Path], object],
    client: Client | str | None = None,
    report: Report | None = None,
    amendment: Amendment | None = None,
) -> Prediction:
    """Predict into an OME-Zarr label image, going on where an earlier run was interrupted.

    `save_model` writes the model for the workers. `report` is called after each shard and after each tile that is
    computed in this process. What the `amendment` says replaces what is predicted.

    Raises `InputError` for a target that is taken, a budget that is too small, and a disk that is full; warns with
    `InputWarning` where what another model or setting had begun is dropped.
    """
    started = time.perf_counter()
    volume = ImageVolume(request.image, request.channel_axis)
    identity = identity_of(request.image)
    fingerprint = _fingerprint(request, fitted, intensity, volume, identity)
    done = _finished_before(request, fingerprint) or _published_now(request, fingerprint)
    if done is not None:
        _remove_leftovers(request, fingerprint)
        _tell_if_unsure(request, identity)
        return done
    _check_outputs(request)
    with ExitStack() as stack:
        connected = _connect(request, client, stack)
        is_in_memory = connected is not None and _is_in_memory(request.image)
        worker_bytes, n_workers = _shares(request, connected)
        demand = Demand.of(fitted, volume, probabilities=request.probabilities is not None)
        plan = make_plan(demand, worker_bytes, n_workers, request.tile_voxels)
        unfinished = stack.enter_context(closing(Unfinished(request.target)))
        done = _finished_before(request, fingerprint)
        if done is not None:  # by another process, which had the folder until now
            return done
        _check_outputs(request)
        manifest = _resumed(unfinished, fingerprint) if request.resume else None
        if manifest is None:
            manifest = _manifest(request, volume, fingerprint, intensity, plan)
            _begin(unfinished, manifest, fitted, request, save_model)
        n_resumed = len(unfinished.finished())
        if n_resumed:
            _tell_if_unsure(request, identity)
        image = _in_file(request.image, unfinished) if is_in_memory else request.image
        cache_bytes = check_plan(demand, manifest.shard, manifest.tile, worker_bytes)
        job = _job_of(request, manifest, unfinished, image, cache_bytes)
        n_voxels = _run_all(job, unfinished, connected, request.progress, report, amendment)
        n_shards = len(unfinished.finished())
        _publish(request, job, unfinished, _note_of(fingerprint, n_voxels, n_shards))
    seconds = time.perf_counter() - started
    return Prediction(request.target, request.probabilities, n_voxels, n_shards, n_resumed, seconds)


def _check_outputs(request: Request) -> None:
    """Raise `InputError` for an output that is taken; one in a folder of unfinished ones belongs to nobody yet."""
    for output in request.outputs:
        overwrite = request.overwrite or Unfinished.holds(output)
        check_free(output, overwrite=overwrite, is_kind=is_zarr, kind="zarr")


def _publish(request: Request, job: Job, unfinished: Unfinished, note: Mapping[str, Any]) -> None:
    """Put what is complete in its place, unless something else has appeared there meanwhile."""
    try:
        _check_outputs(request)
    except InputError as error:
        raise InputError(
            f"{error}. What was predicted is kept in {unfinished.folder}; predicting again puts it in its place once "
            "that is free"
        ) from None
    with writable(request.target):
        for image in job.images:
            image.note({ATTRIBUTE: note})
        unfinished.publish(request.probabilities, request.target)


def _fingerprint(
    request: Request, fitted: FittedModel, intensity: IntensityRange, volume: ArrayVolume, identity: Identity
) -> dict[str, str]:
    """Hashes of all that the result depends on, but for where tiles are cut, which the manifest keeps."""
    weights = hashlib.sha256(repr((fitted.spec, fitted.classes, fitted.network.context)).encode())
    for name, tensor in sorted([*fitted.network.state_dict().items(), ("shift", fitted.network.shift)]):
        weights.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    settings = [list(request.spacing), list(request.offset), request.unit, request.probabilities is not None]
    return {
        "model": weights.hexdigest(),
        "image": _hash([identity.digest, volume.channel_axis]),
        "settings": _hash([settings, list(intensity.offset), list(intensity.scale)]),
    }


def _hash(values: Any) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def _finished_before(request: Request, fingerprint: Mapping[str, str]) -> Prediction | None:
    """What an earlier run completed; None if there is nothing, or something else."""
    if not request.resume:
        return None
    notes = [_note_in(output, fingerprint) for output in request.outputs]
    noted = notes[-1]
    if noted is None or notes[0] != noted:
        return None
    n_voxels = {int(class_id): int(n) for class_id, n in noted["n_voxels"].items()}
    return Prediction(request.target, request.probabilities, n_voxels, noted["n_shards"], noted["n_shards"], 0.0)


def _note_of(fingerprint: Mapping[str, str], n_voxels: Mapping[int, int], n_shards: int) -> dict[str, Any]:
    """What is noted in a result once it is complete."""
    counts = {str(class_id): n for class_id, n in n_voxels.items()}
    return {"fingerprint": dict(fingerprint), "n_voxels": counts, "n_shards": n_shards}


def _note_in(path: Path, fingerprint: Mapping[str, str]) -> dict[str, Any] | None:
    """What was noted in a result once it was complete; None if it is not, or that of something else."""
    noted = result_note(path)
    return noted if noted is not None and noted.get("fingerprint") == dict(fingerprint) else None


def _published_now(request: Request, fingerprint: Mapping[str, str]) -> Prediction | None:
    """Put the labels of a run in their place that was killed after the probabilities; None if there is no such run."""
    folder = Unfinished.folder_of(request.target)
    if not request.resume or request.probabilities is None or not folder.is_dir():
        return None
    with closing(Unfinished(request.target)) as unfinished:
        # the probabilities may be there as well: those on another disk are a copy
        noted = _note_in(unfinished.labels, fingerprint)
        if noted is None or _note_in(request.probabilities, fingerprint) != noted:
            return None
        overwrite = request.overwrite or Unfinished.holds(request.target)
        check_free(request.target, overwrite=overwrite, is_kind=is_zarr, kind="zarr")
        with writable(request.target):
            unfinished.publish(None, request.target)
    return _finished_before(request, fingerprint)


def _remove_leftovers(request: Request, fingerprint: Mapping[str, str]) -> None:
    """Remove what is left of a run that was killed after all was in its place."""
    if not (Unfinished.folder_of(request.target).is_dir() or Unfinished.left_of(request.outputs)):
        return
    try:
        with closing(Unfinished(request.target)) as unfinished, writable(request.target):
            manifest = unfinished.manifest()
            if manifest is None or manifest.fingerprint == fingerprint:  # else something else is under way
                unfinished.leave(request.outputs)
    except InputError:
        return  # another process has the folder, or nothing may be removed there: the result is complete anyway


def _tell_if_unsure(request: Request, identity: Identity) -> None:
    """Warn that the image might have changed unnoticed since what is kept was predicted."""
    if not identity.is_certain:
        warnings.warn(
            f"what was predicted before is kept in {request.target}: some voxels of the image were compared, and are "
            "the same; if others have changed since, begin again (resume=False, --restart)",
            InputWarning,
            stacklevel=4,
        )


def _connect(request: Request, client: Client | str | None, stack: ExitStack) -> Client | None:
    from napari_sparseseg.distributed.cluster import local_client, remote_client

    if isinstance(client, str):
        return stack.enter_context(remote_client(client))
    if client is None and request.workers > 1:
        return stack.enter_context(local_client(request.workers))
    return client


def _shares(request: Request, client: Client | None) -> tuple[int, int]:
    """Bytes for each worker, and how many workers there are."""
    from napari_sparseseg.distributed.cluster import size_of

    memory = request.memory
    if client is None:
        return memory or free_memory(), 1
    if request.workers > 1:  # this process, too, takes memory
        return max(0, (memory or free_memory()) - PROCESS_BYTES) // request.workers, request.workers
    n_workers, limit = size_of(client)
    # on a cluster the budget is for one worker: how many share a machine is not known
    return memory or (limit // 2 if limit else free_memory() // n_workers), n_workers


def _resumed(unfinished: Unfinished, fingerprint: Mapping[str, str]) -> Manifest | None:
    """The manifest of what is under way; None if that is something else, which is to be dropped."""
    found = unfinished.manifest()
    if found is None:
        return None
    changed = [text for part, text in _PARTS.items() if found.fingerprint.get(part) != fingerprint[part]]
    if not changed:
        return found if unfinished.holds_arrays_of(found) else None
    warnings.warn(
        f"{' and '.join(changed)} changed since {unfinished.folder.name} was begun: its "
        f"{len(unfinished.finished())} finished shards are dropped, and prediction starts again",
        InputWarning,
        stacklevel=4,
    )
    return None


def _manifest(
    request: Request, volume: ArrayVolume, fingerprint: Mapping[str, str], intensity: IntensityRange, plan: Plan
) -> Manifest:
    return Manifest(
        fingerprint=fingerprint,
        shape=volume.shape,
        axes="zyx" if len(volume.spatial_shape) == 3 else "yx",
        shard=plan.shard,
        tile=plan.tile,
        spacing=request.spacing,
        offset=request.offset,
        unit=request.unit,
        probabilities=request.probabilities is not None,
        intensity_offset=intensity.offset,
        intensity_scale=intensity.scale,
    )


def _begin(
    unfinished: Unfinished,
    manifest: Manifest,
    fitted: FittedModel,
    request: Request,
    save_model: Callable[[Path], object],
) -> None:
    """Make empty arrays in place of what was begun before, and note what is predicted."""
    ids = fitted.classes.ids
    dtype = np.min_scalar_type(max(ids))
    with writable(request.target):
        unfinished.clear()
        ShardedImage.create_labels(unfinished.labels, manifest.frame, dtype, name=_stem(request.target))
        if request.probabilities is not None:
            name = _stem(request.probabilities)
            ShardedImage.create_image(unfinished.probabilities, manifest.frame, np.uint8, len(ids), name=name)
        save_model(unfinished.model)
        unfinished.begin(manifest)


def _job_of(request: Request, manifest: Manifest, unfinished: Unfinished, image: ArrayLike, cache_bytes: int) -> Job:
    """What workers are sent."""
    return Job(
        manifest=manifest,
        image=image,
        channel_axis=request.channel_axis,
        model=unfinished.model,
        labels=unfinished.labels,
        probabilities=unfinished.probabilities,
        device=request.device,
        cache_bytes=cache_bytes,
    )


def _is_in_memory(image: ArrayLike) -> bool:
    """Whether the image is sent to workers voxel by voxel, and not as a path or a graph of many.

    Raises `InputError` for one that cannot be sent.
    """
    from napari_sparseseg.distributed.cluster import bytes_to_send

    n_bytes = real_dtype_of(image, "image").itemsize * math.prod(shape_of(image, "image"))
    return bytes_to_send(image) > max(_MOST_SENT, n_bytes // 2)


def _in_file(image: ArrayLike, unfinished: Unfinished) -> ArrayLike:
    """The image in a file that each worker opens, written once."""
    if not unfinished.image.exists():
        save_mapped(unfinished.image, image)
    return MappedArray(unfinished.image)


def _run_all(
    job: Job,
    unfinished: Unfinished,
    client: Client | None,
    progress: bool | None,
    report: Report | None,
    amendment: Amendment | None,
) -> dict[int, int]:
    """Predict what is left, level by level; returns the voxels of each class."""
    finished = unfinished.finished()
    with open_bar("Predicting", progress) as bar:
        if client is not None and not bar.disable:
            bar.write(f"Dashboard: {client.dashboard_link}", file=sys.stderr)
        for level in range(job.n_levels):
            tasks = job.tasks(level)
            left = [task for task in tasks if task not in finished]
            watch = _Watch(bar, report, job, len(tasks), len(left), level)
            for task, n_voxels in _results(job, left, client, watch.tile):
                unfinished.finish(task, n_voxels)
                finished[task] = n_voxels
                watch.shard()
            if amendment is not None and not any(coarse for coarse, *_ in finished):
                touched = job.touching(amendment.boxes())
                for task in touched:  # predicted again after an interruption: what is known may have changed
                    unfinished.reopen(task)
                finished |= {task: job.amend(task, amendment.change) for task in touched}
                for task in touched:
                    unfinished.finish(task, finished[task])
    return total(finished)


class _Watch:
    """Moves the bar and reports; the finest level, nearly all of the work, counts as all of it."""

    def __init__(self, bar: Any, report: Report | None, job: Job, n_tasks: int, n_left: int, level: int) -> None:
        self._bar, self._n_tasks, self._n_left, self._level = bar, n_tasks, n_left, level
        self._mega_voxels = math.prod(job.manifest.shape) / n_tasks / 1e6
        self._started, self._done = time.perf_counter(), 0
        self._report = report
        self._share, self._text = (1.0, "levels of resolution") if level else (1 - n_left / n_tasks, "")

    def tile(self, share: float) -> None:
        """Report that this share of the current shard is done."""
        if self._report is not None:
            self._report(self._share if self._level else self._share + share / self._n_tasks, self._text)

    def shard(self) -> None:
        """Report that one more shard is finished."""
        self._done += 1
        before = self._n_tasks - self._n_left
        passed = time.perf_counter() - self._started
        left = passed * (self._n_left - self._done) / self._done
        speed = self._mega_voxels * self._done / passed
        self._text = f"{speed:.2g} Mvoxel/s, {duration(left)} left"
        if self._level:
            move_bar(self._bar, 1.0, f"level {self._level}, {duration(left)} left")
        else:
            self._share = (before + self._done) / self._n_tasks
            move_bar(self._bar, self._share, f"shard {before + self._done} of {self._n_tasks}, {self._text}")
        self.tile(0.0)


def _results(
    job: Job, tasks: Sequence[Task], client: Client | None, on_tile: Callable[[float], object]
) -> Iterator[tuple[Task, dict[int, int]]]:
    from napari_sparseseg.distributed.cluster import run_on

    if client is not None:
        yield from run_on(client, job, tasks, lambda: on_tile(0.0))
        return
    for task in tasks:
        yield task, job.run(task, on_tile)
