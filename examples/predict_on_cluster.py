"""Segment an image that is larger than memory, on the workers of a Dask cluster.

    python predict_on_cluster.py cells.safetensors big.ome.zarr labels.ome.zarr --local 4
    python predict_on_cluster.py cells.safetensors big.ome.zarr labels.ome.zarr --slurm 16 --partition gpu
    python predict_on_cluster.py cells.safetensors big.ome.zarr labels.ome.zarr --kubernetes 16 --container NAME
    python predict_on_cluster.py cells.safetensors big.ome.zarr labels.ome.zarr --scheduler tcp://10.0.0.5:8786

Interrupted, or ended by the batch system, the same command goes on where it was. All workers must see the three paths.
SLURM needs `pip install dask-jobqueue`, Kubernetes `pip install dask-kubernetes` and an image with napari-sparseseg.
"""

from __future__ import annotations

import argparse
import uuid
from contextlib import ExitStack
from typing import Any

from distributed import Client, LocalCluster

from napari_sparseseg import SparseSegmenter
from napari_sparseseg.storage.formats import open_image


def start_slurm(n_jobs: int, partition: str | None, memory: str, n_gpus: int) -> Any:
    """One worker of one thread to each job, replaced when its time is over."""
    from dask_jobqueue import SLURMCluster

    cluster = SLURMCluster(
        queue=partition,
        cores=1,
        processes=1,
        memory=memory,
        walltime="04:00:00",
        job_extra_directives=[f"--gres=gpu:{n_gpus}"] if n_gpus else [],
        worker_extra_args=["--lifetime", "230m", "--lifetime-stagger", "4m"],
    )
    cluster.adapt(minimum_jobs=n_jobs, maximum_jobs=n_jobs)
    return cluster


def start_kubernetes(n_workers: int, container: str, memory: str, n_gpus: int) -> Any:
    """One worker of one thread to each pod. What the images lie on must be mounted: put it into the specification."""
    from dask_kubernetes.operator import KubeCluster, make_cluster_spec

    gpus = {"nvidia.com/gpu": str(n_gpus)} if n_gpus else {}
    resources = {"limits": {"memory": memory.removesuffix("B")} | gpus}
    command = ["dask", "worker", "--nthreads", "1"]
    name = f"sparseseg-{uuid.uuid4().hex[:8]}"  # one of that name that was left over would be used as it is
    spec = make_cluster_spec(name, container, n_workers, resources, worker_command=command)
    del spec["spec"]["scheduler"]["spec"]["containers"][0]["resources"]  # it needs neither a GPU nor much memory
    return KubeCluster(custom_cluster_spec=spec)


def connect(arguments: argparse.Namespace, stack: ExitStack) -> Client:
    """A client of the cluster that was asked for."""
    if arguments.scheduler:
        return stack.enter_context(Client(arguments.scheduler))
    if arguments.slurm:
        cluster = start_slurm(arguments.slurm, arguments.partition, arguments.memory, arguments.gpus)
    elif arguments.kubernetes:
        cluster = start_kubernetes(arguments.kubernetes, arguments.container, arguments.memory, arguments.gpus)
    else:
        cluster = LocalCluster(n_workers=arguments.local, threads_per_worker=1, dashboard_address="127.0.0.1:0")
    client = stack.enter_context(Client(stack.enter_context(cluster)))
    client.wait_for_workers(1)
    return client


def main() -> None:
    """Predict, and say what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("image")
    parser.add_argument("labels")
    parser.add_argument("--local", type=int, default=2, metavar="N", help="processes on this machine")
    parser.add_argument("--slurm", type=int, metavar="N", help="jobs of a SLURM cluster")
    parser.add_argument("--partition", help="of the SLURM cluster")
    parser.add_argument("--kubernetes", type=int, metavar="N", help="pods of a Kubernetes cluster")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="of a cluster that runs already")
    parser.add_argument("--container", metavar="NAME", help="image of the pods, with napari-sparseseg installed")
    parser.add_argument("--memory", default="16GB", help="of each job or pod")
    parser.add_argument("--gpus", type=int, default=1, metavar="N", help="of each job or pod, 0 for none")
    arguments = parser.parse_args()
    if arguments.kubernetes and not arguments.container:
        parser.error("--kubernetes needs --container NAME")

    image = open_image(arguments.image)
    segmenter = SparseSegmenter.load(arguments.model)
    with ExitStack() as stack:
        client = connect(arguments, stack)
        print(f"Dashboard: {client.dashboard_link}")
        done = segmenter.predict_to(
            image.array, arguments.labels, client=client, spacing=image.spacing, unit=image.unit or "micrometer"
        )
    total = sum(done.n_voxels.values())
    print(f"{done.labels}: {done.n_shards} shards, {done.n_resumed} of them from an earlier run, {done.seconds:.0f} s")
    for class_id, n_voxels in done.n_voxels.items():
        print(f"class {class_id}: {n_voxels / total:.1%}")


if __name__ == "__main__":
    main()
