"""Workers: where they come from; processes of this machine, a running scheduler, or jobs in a queue."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Any

from crista.config.cluster import Cluster
from crista.errors import ClusterError
from crista.inference.distribution.dask_executor import Workers
from crista.inference.distribution.imports import import_dask
from crista.inference.distribution.processes import worker_processes
from crista.inference.distribution.queues import (
    QUEUES,
    check_command,
    job_script,
    job_settings,
    num_jobs,
    recording,
    refusal_in_words,
)

if TYPE_CHECKING:
    from distributed import Client

CONNECT_SECONDS = 30.0


@contextmanager
def local_workers(cluster: Cluster, num_cores: int, device: str | None = None) -> Iterator[Workers]:
    """Processes of this machine, among which cores and GPUs are shared out; one that dies is started again.

    `device` is SYSTEM.DEVICE.
    """
    distributed = import_dask("distributed")
    threads = max(1, num_cores // cluster.workers)
    gpus = gpus_for(device)
    with ExitStack() as last, quiet(), settings(cluster):
        scheduler = distributed.LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0", silence_logs=logging.CRITICAL)
        with closing(scheduler), connected(scheduler) as client:
            processes = last.enter_context(worker_processes(scheduler.scheduler_address, cluster.workers, threads))
            processes.wait_for(lambda: len(client.nthreads()) >= cluster.workers)
            on = f"{threads} core{'s' if threads != 1 else ''}" + (f", GPUs {', '.join(gpus)}" if gpus else "")
            yield Workers(
                client,
                where="this machine",
                advice="look whether the memory was full (`dmesg` tells of killed processes), and use fewer workers",
                gpus=gpus,
                notices=(f"{cluster.workers} workers on this machine, each with {on}",),
                trouble=processes.trouble,
            )


@contextmanager
def workers_of_scheduler(cluster: Cluster) -> Iterator[Workers]:
    """The workers of a scheduler that runs already, here or elsewhere."""
    import_dask("distributed")
    address = cluster.scheduler
    with quiet(), connected(address) as client:
        yield Workers(
            client,
            where=address,
            advice=f"look at the log of the workers, and start some: dask worker {address}",
            notices=(
                f"{len(client.nthreads())} workers at {address}; they need crista, and the same folders at the same places",
            ),
        )


@contextmanager
def workers_of_queue(cluster: Cluster) -> Iterator[Workers]:
    """Jobs submitted to a queueing system; those that end before the work does are replaced."""
    queue = QUEUES[cluster.queue]
    kind: type[Any] = getattr(import_dask("dask_jobqueue"), queue.cluster)
    refusals: list[str] = []
    check_command(kind.job_cls.submit_command)
    with quiet(), settings(cluster):
        jobs = kind(
            n_workers=0,
            job_cls=recording(kind.job_cls, refusals),
            scheduler_options={"dashboard_address": ":0"},
            silence_logs=logging.CRITICAL,
            **job_settings(cluster),
        )
        with closing(jobs), connected(jobs) as client:
            least, most = num_jobs(cluster)
            jobs.adapt(minimum_jobs=least, maximum_jobs=most)
            yield Workers(
                client,
                where=cluster.queue,
                advice=f"look at the jobs (`{queue.list_command}`) and their logs",
                expected=most,
                notices=(f"{most} jobs submitted to {cluster.queue}, each runs:", *job_script(cluster).splitlines()),
                trouble=lambda: refusal_in_words(cluster, refusals),
            )


@contextmanager
def connected(to: Any) -> Iterator[Client]:
    """A client of a cluster or an address; it is none of the globals of Dask."""
    distributed = import_dask("distributed")
    try:
        client = distributed.Client(to, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise ClusterError(
            f"the scheduler {to} does not answer: {error}\n    -> is it running (dask scheduler), is the address right, and can "
            "this machine reach it?"
        ) from error
    with closing(client):
        yield client


@contextmanager
def settings(cluster: Cluster) -> Iterator[None]:
    """How Dask behaves for the schedulers that this process makes."""
    with import_dask("dask").config.set({"distributed.scheduler.allowed-failures": cluster.allowed_failures}):
        yield


@contextmanager
def quiet() -> Iterator[None]:
    """Dask's own lines about workers that die, and about connections that close, are left out: crista says it, once."""
    names = [name for name in logging.root.manager.loggerDict if name == "distributed" or name.startswith("distributed.")]
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def gpus_for(device: str | None) -> tuple[str, ...]:
    """The GPUs that workers share: all that this process may use, but for a SYSTEM.DEVICE that names another than the first.

    (The first is what --gpu makes the device, whichever and however many it names.)
    """
    if device is not None and not device.startswith("cuda"):
        return ()
    gpus, number = visible_gpus(), (device or "").partition(":")[2]
    return gpus[int(number) : int(number) + 1] if number.isdecimal() and int(number) else gpus


def visible_gpus() -> tuple[str, ...]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return tuple(name.strip() for name in given.split(",") if name.strip())
    import torch

    return tuple(map(str, range(torch.cuda.device_count())))
