"""From the settings to an executor."""

from __future__ import annotations

import os
from functools import partial

from crista.config.cluster import Cluster
from crista.config.root import System
from crista.errors import ConfigError, Problem
from crista.inference.distribution.dask_executor import DaskExecutor, Patience
from crista.inference.distribution.executor import Executor, SerialExecutor
from crista.inference.distribution.imports import import_dask
from crista.inference.distribution.ranks import RankExecutor
from crista.inference.distribution.workers import local_workers, workers_of_queue, workers_of_scheduler

LOCAL_TIMEOUT, SCHEDULER_TIMEOUT, QUEUE_TIMEOUT = 60.0, 300.0, 86_400.0
"""Seconds without any worker: those of this machine are started again at once, jobs may have to wait."""


def build_executor(system: System, *, rank: int = 0, world_size: int = 1) -> Executor:
    """The executor that SYSTEM.CLUSTER describes; without workers this process, or all that torchrun started.

    Raises
    ------
    ConfigError
        If workers are wanted and Dask is not installed, or torchrun has started several processes already.
    """
    cluster = system.cluster
    if world_size > 1:
        _refuse_others(cluster, world_size)
        return RankExecutor(rank, world_size)
    if not cluster.is_used:
        return SerialExecutor()
    import_dask("distributed")
    if cluster.scheduler:
        return DaskExecutor(partial(workers_of_scheduler, cluster), _patience(cluster, SCHEDULER_TIMEOUT))
    if cluster.queue:
        return DaskExecutor(partial(workers_of_queue, cluster), _patience(cluster, QUEUE_TIMEOUT))
    num_cores = system.num_cpus if system.num_cpus > 0 else usable_cores()
    return DaskExecutor(partial(local_workers, cluster, num_cores, system.device), _patience(cluster, LOCAL_TIMEOUT))


def usable_cores() -> int:
    """Processor cores that this process may use: a job of a cluster often has fewer than the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _patience(cluster: Cluster, timeout: float) -> Patience:
    return Patience(
        retries=cluster.retries,
        straggler_factor=cluster.straggler_factor,
        timeout=cluster.timeout if cluster.timeout is not None else timeout,
    )


def _refuse_others(cluster: Cluster, world_size: int) -> None:
    """Processes of torchrun share the work among themselves, and with nobody else."""
    asks = "asks for workers" if cluster.is_used else "SHARD asks for a part of the work" if cluster.own_shard[1] > 1 else ""
    if asks:
        what = f"{asks}, but torchrun has started {world_size} processes, which share all of it among themselves"
        step = "leave --workers, --scheduler, --queue and --shard out, or start crista without torchrun"
        raise ConfigError("with the workers", [Problem("SYSTEM.CLUSTER", what, step)])
