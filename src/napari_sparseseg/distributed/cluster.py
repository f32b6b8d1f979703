"""Shards on the workers of a Dask cluster: who dies is replaced, and what it had is done again, by Dask."""

from __future__ import annotations

import logging
import multiprocessing
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from napari_sparseseg.distributed.memory import KEEP_FREED_MEMORY
from napari_sparseseg.errors import InputError

if TYPE_CHECKING:
    from distributed import Client

    from napari_sparseseg._types import ArrayLike
    from napari_sparseseg.distributed.job import Job
    from napari_sparseseg.storage.unfinished import Task

_IN_FLIGHT = 1000
_PATIENCE = 20  # seconds, for a scheduler that does not answer
_PAUSE = 0.05  # seconds
_DEATHS = 10  # of workers under the same shard, until Dask gives up on it
_GUARD = (
    'In a script, what uses several workers must stand below `if __name__ == "__main__":`, since each worker runs the '
    "script again; or use workers=1"
)
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


@contextmanager
def local_client(n_workers: int) -> Iterator[Client]:
    """A cluster of processes on this machine, of one thread each; GPUs are shared out between them.

    Raises `InputError` if they cannot be started: in a script without a guard, which each of them runs again.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):  # it runs the script to become a worker
        raise SystemExit(_GUARD)
    import dask
    from distributed import Client, LocalCluster

    settings = {
        "distributed.scheduler.allowed-failures": _DEATHS,
        "distributed.nanny.pre-spawn-environ": _ONE_THREAD | KEEP_FREED_MEMORY,
        "distributed.worker.memory.terminate": False,
    }
    with dask.config.set(settings):
        try:
            with _ctrl_c_ignored():  # which the processes inherit: this one ends them, without their tracebacks
                cluster = LocalCluster(
                    n_workers=n_workers,
                    threads_per_worker=1,
                    processes=True,
                    memory_limit=0,  # the plan keeps to the budget
                    dashboard_address="127.0.0.1:0",
                    host="127.0.0.1",
                    silence_logs=logging.ERROR,  # that a worker is stopped at work is no news
                )
        except RuntimeError as error:
            raise InputError(f"the workers cannot be started ({error.__cause__ or error}). {_GUARD}") from None
        with cluster, Client(cluster) as client:
            yield client


@contextmanager
def _ctrl_c_ignored() -> Iterator[None]:
    """Only the main thread can say so; from others, a worker that gets it prints what it was doing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def remote_client(address: str) -> Iterator[Client]:
    """A client of a scheduler that runs already. Raises as `connect`."""
    with connect(address) as client:
        yield client


def connect(address: str) -> Client:
    """A client of a scheduler that runs already, which is to be closed by whoever asked for it.

    Raises `InputError` if there is none at `address`.
    """
    from distributed import Client

    try:
        return Client(address, timeout=_PATIENCE, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(f"there is no Dask scheduler at {address} ({error}); check that it runs") from error


def size_of(client: Client) -> tuple[int, int | None]:
    """How many workers there are, and the smallest limit of their memory in bytes, None without limits.

    Raises `InputError` if there is none yet.
    """
    n_workers = len(client.nthreads())
    if not n_workers:
        raise InputError("the Dask cluster has no workers yet; start some, or scale it up")
    known = client.scheduler_info()["workers"].values()  # of large clusters it tells of some
    return n_workers, min((int(worker["memory_limit"]) for worker in known if worker.get("memory_limit")), default=None)


def bytes_to_send(image: ArrayLike) -> int:
    """How much it takes to send an image to a worker: little for one that is a path, all its voxels from memory.

    Raises `InputError` for one that cannot be sent.
    """
    from distributed.protocol import serialize

    if isinstance(image, np.ndarray):
        return image.nbytes
    try:
        _, parts = serialize(image, serializers=("pickle",), on_error="raise")
    except TypeError as error:
        if isinstance(error.__cause__, MemoryError):
            raise error.__cause__ from None
        raise InputError(
            f"the image, {type(image).__name__}, cannot be sent to workers; pass one that lies in files, such as zarr "
            "or dask, or workers=1"
        ) from error
    return sum(memoryview(part).nbytes for part in parts)


def run_on(
    client: Client, job: Job, tasks: Sequence[Task], while_waiting: Callable[[], object] = lambda: None
) -> Iterator[tuple[Task, dict[int, int]]]:
    """Tasks as they are finished, in any order; some are under way at a time, however many there are.

    `while_waiting` is called again and again; what it raises ends the wait.
    """
    from distributed import KilledWorker, as_completed

    waiting = iter(tasks)
    # the result of a task, not scattered data: it is made again where its worker has died
    shared = client.submit(_given, job, pure=False)
    running = {client.submit(_run, shared, task, pure=False): task for task in islice(waiting, _IN_FLIGHT)}
    completed = as_completed(list(running), loop=client.loop)  # without, it asks for the default client
    while running:
        while not completed.has_ready():
            while_waiting()
            time.sleep(_PAUSE)
        future = next(completed)
        task = running.pop(future)
        try:
            n_voxels = future.result()
        except KilledWorker as error:
            raise InputError(
                "workers died repeatedly at the same shard, most likely because memory ran out; give a smaller "
                "memory=... or fewer workers"
            ) from error
        except CancelledError as error:
            raise InputError(
                "the connection to the Dask scheduler was lost, or the work was cancelled there; see that it runs, and "
                "predict again: shards that are finished are kept"
            ) from error
        for following in islice(waiting, 1):
            submitted = client.submit(_run, shared, following, pure=False)
            running[submitted] = following
            completed.add(submitted)
        yield task, n_voxels


def _given(job: Job) -> Job:
    return job


def _run(job: Job, task: Task) -> dict[int, int]:
    return job.run(task)
