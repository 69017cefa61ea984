"""Queues: the jobs that are submitted to SLURM, PBS, LSF or SGE, each a worker that reports to this machine."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from crista.config.cluster import Cluster
from crista.errors import ConfigError, Problem
from crista.inference.distribution.imports import import_dask


@dataclass(frozen=True)
class Queue:
    """A queueing system."""

    cluster: str
    """Its class in dask-jobqueue."""
    account: str
    """What that class calls an account."""
    list_command: str
    """How a user sees the own jobs."""


QUEUES = {
    "slurm": Queue("SLURMCluster", "account", "squeue --me"),
    "pbs": Queue("PBSCluster", "account", "qstat -u $USER"),
    "lsf": Queue("LSFCluster", "project", "bjobs"),
    "sge": Queue("SGECluster", "project", "qstat"),
}
"""By SYSTEM.CLUSTER.QUEUE."""
MEMORY_EXPORTS = tuple(f"export DASK_DISTRIBUTED__WORKER__MEMORY__{name}=False" for name in ("TARGET", "SPILL", "PAUSE"))
"""A worker whose memory is nearly full goes on: a task holds what it needs, and standing still would free nothing."""
LEAST_LIFETIME = 30
"""Seconds; a walltime below this is used to its end."""


def job_script(cluster: Cluster, scheduler: str = "tcp://<this machine>:<port>") -> str:
    """The script of each job, exactly as submitted but for the address of the scheduler and the name of the worker.

    Raises
    ------
    ConfigError
        If QUEUE is empty, or dask-jobqueue is not installed.
    """
    if not cluster.queue:
        step = f"choose one of {', '.join(QUEUES)}, e.g. --queue slurm"
        raise ConfigError("with the queue", [Problem("SYSTEM.CLUSTER.QUEUE", "is empty: there are no jobs", step)])
    kind = getattr(import_dask("dask_jobqueue"), QUEUES[cluster.queue].cluster).job_cls
    script: str = kind(scheduler, name="<worker>", **job_settings(cluster)).job_script()
    return script


def job_settings(cluster: Cluster) -> dict[str, Any]:
    """Arguments of dask-jobqueue: one worker per job, with all of its cores."""
    queue = QUEUES[cluster.queue]
    optional = {
        "queue": cluster.partition,
        queue.account: cluster.account,
        "python": cluster.python,
        "interface": cluster.interface,
    }
    return {
        "job_name": "crista",
        "cores": cluster.cores,
        "processes": 1,
        "memory": cluster.memory,
        "walltime": cluster.walltime,
        "job_extra_directives": list(cluster.directives),
        "job_script_prologue": [*MEMORY_EXPORTS, *cluster.prologue],
        "worker_extra_args": _lifetime_arguments(cluster.walltime),
        **{name: value for name, value in optional.items() if value},
    }


def recording(kind: type[Any], refusals: list[str]) -> type[Any]:
    """The class `kind` of jobs, which leaves in `refusals` what the queueing system says when it does not take a job.

    (Dask would raise the error in a thread of its own, where nobody hears it.)
    """
    started = import_dask("distributed.deploy.spec").ProcessInterface.start

    class RecordedJob(kind):  # type: ignore[misc]
        async def start(self) -> None:
            try:
                await super().start()
            except (RuntimeError, OSError, ValueError) as error:
                said = str(error).partition("stderr:")[2].strip() or str(error)
                refusals.append(f"{kind.submit_command} does not take the job: {said}")
                await started(self)

    return RecordedJob


def check_command(command: str) -> None:
    """Raise a `ConfigError` unless jobs can be submitted from this machine."""
    if shutil.which(command) is None:
        what = f"jobs are submitted with {command}, which this machine does not have"
        step = "run crista where you submit jobs by hand (a login node); for a plain job array, --shard needs no such command"
        raise ConfigError("with the queue", [Problem("SYSTEM.CLUSTER.QUEUE", what, step)])


def refusal_in_words(cluster: Cluster, refusals: Sequence[str]) -> str:
    """The first refusal, with what to do; empty if there is none."""
    if not refusals:
        return ""
    step = (
        f"`crista jobscript --queue {cluster.queue} …` shows the job; change SYSTEM.CLUSTER.PARTITION, ACCOUNT, CORES, MEMORY, "
    )
    return f"{refusals[0]}\n    -> {step}WALLTIME or DIRECTIVES to what the system takes"


def num_jobs(cluster: Cluster) -> tuple[int, int]:
    """The least and the largest number of jobs."""
    return cluster.workers if cluster.min_jobs < 0 else cluster.min_jobs, cluster.workers


def seconds_of(walltime: str) -> int:
    """``1-02:00:00`` (days), ``02:00:00`` or ``02:00`` (hours and minutes) in seconds."""
    days, hours, minutes, seconds = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d+)(?::(\d+))?", walltime.strip()).groups("0")  # type: ignore[union-attr]
    return ((int(days) * 24 + int(hours)) * 60 + int(minutes)) * 60 + int(seconds)


def _lifetime_arguments(walltime: str) -> list[str]:
    """A worker says goodbye before its job is killed, the workers not all at once; what they had under way goes elsewhere."""
    seconds = seconds_of(walltime)
    lifetime, stagger = seconds * 9 // 10, seconds // 20
    return ["--lifetime", f"{lifetime}s", "--lifetime-stagger", f"{stagger}s"] if lifetime >= LEAST_LIFETIME else []
