"""SYSTEM.CLUSTER: the processes and machines that predict together."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, model_validator

from crista.config.base import Section

SHARD_FORM = "i/n, counted from 0: 0/8 is the first of 8, 7/8 the last"
MEMORY_FORM = re.compile(r"\d+(\.\d+)? ?[kKMGT](i?B)?")
WALLTIME_FORM = re.compile(r"(\d+-)?\d+:[0-5]\d(:[0-5]\d)?")


class Cluster(Section):
    """SYSTEM.CLUSTER: the processes and machines that predict together. They change the speed, never the result."""

    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that predict beside each other on this machine, which share its cores and GPUs; with QUEUE the number of
    jobs. 0: this process alone."""

    scheduler: str = ""
    """Address of a running Dask scheduler, `tcp://host:8786`, whose workers predict. They need crista and the same files."""

    queue: Literal["", "slurm", "pbs", "lsf", "sge"] = ""
    """Queueing system to which WORKERS jobs are submitted. `crista jobscript` shows what would be submitted."""

    partition: str = ""
    """With QUEUE: the partition (SLURM) or queue of the jobs. Empty: the default of the system."""

    account: str = ""
    """With QUEUE: the account or project that the jobs are charged to."""

    cores: Annotated[int, Field(ge=1)] = 4
    """With QUEUE: processor cores of each job; a job predicts one task at a time with all of them."""

    memory: str = "16 GB"
    """With QUEUE: memory of each job, `16 GB`."""

    walltime: str = "02:00:00"
    """With QUEUE: time after which a job ends, `hours:minutes:seconds` (LSF: `hours:minutes`); it is replaced while there is
    work left."""

    directives: tuple[str, ...] = ()
    """With QUEUE: further directives of the jobs, `--gres=gpu:1`, one line each."""

    prologue: tuple[str, ...] = ()
    """With QUEUE: commands that run in each job before crista, `module load cuda`, one line each."""

    python: str = ""
    """With QUEUE: the Python that has crista on the nodes. Empty: the one of this process."""

    interface: str = ""
    """With QUEUE: the network interface, `ib0`, over which the nodes reach this machine. Empty: the default one."""

    min_jobs: Annotated[int, Field(ge=-1)] = -1
    """With QUEUE: as few jobs as this are kept when there is little to do. -1: WORKERS jobs all the time."""

    retries: Annotated[int, Field(ge=0)] = 2
    """Times that a task is tried again after an error that is not of its input, e.g. a file system that does not answer."""

    allowed_failures: Annotated[int, Field(ge=0)] = 5
    """Workers that may die over one task before it is given up: it may need more memory than they have."""

    straggler_factor: Annotated[float, Field(ge=0)] = 4.0
    """A task that takes so many times the median is started on an idle worker as well; the first result counts. 0: never."""

    timeout: Annotated[float, Field(gt=0)] | None = None
    """Seconds without any worker after which the run ends; what is done is kept. Left out: 60 for workers on this machine,
    300 for SCHEDULER, and a day for QUEUE, where jobs may have to wait."""

    shard: str = ""
    """The part of the tasks that this process does, i/n: `0/8` is the first of 8, `7/8` the last. For job arrays, without
    any scheduler. Empty: all."""

    @model_validator(mode="after")
    def _check_sources(self) -> Cluster:
        if self.queue and self.scheduler:
            raise ValueError("QUEUE submits jobs to a scheduler of its own, SCHEDULER names a running one: give one of them")
        if self.queue and not self.workers:
            raise ValueError("QUEUE needs WORKERS, the number of jobs, e.g. 8")
        if self.shard and (self.workers or self.scheduler):
            raise ValueError(
                "SHARD is the part of this one process; WORKERS and SCHEDULER divide the work themselves: give one of them"
            )
        if self.min_jobs > self.workers:
            raise ValueError(f"MIN_JOBS {self.min_jobs} is more than WORKERS {self.workers}, the largest number of jobs")
        return self

    @model_validator(mode="after")
    def _check_forms(self) -> Cluster:
        if not MEMORY_FORM.fullmatch(self.memory.strip()):
            raise ValueError(f"MEMORY {self.memory!r} is no amount of memory; write e.g. 16 GB or 16000 MB")
        if not WALLTIME_FORM.fullmatch(self.walltime.strip()):
            raise ValueError(f"WALLTIME {self.walltime!r} is no time; write hours:minutes:seconds, e.g. 02:00:00")
        if self.scheduler and not re.fullmatch(r"\w+://[^\s/]+", self.scheduler):
            raise ValueError(f"SCHEDULER {self.scheduler!r} is no address; write e.g. tcp://host:8786")
        if self.shard:
            parse_shard(self.shard)
        return self

    @property
    def is_used(self) -> bool:
        """Whether other processes predict."""
        return bool(self.workers or self.scheduler)

    @property
    def own_shard(self) -> tuple[int, int]:
        """(index, count) of the tasks of this process: all are (0, 1)."""
        return parse_shard(self.shard) if self.shard else (0, 1)


def parse_shard(text: str) -> tuple[int, int]:
    """``2/8`` as (2, 8); raises a `ValueError` that says what is allowed."""
    match = re.fullmatch(r"\s*(-?\d+)\s*/\s*(-?\d+)\s*", text)
    if match is None:
        raise ValueError(f"SHARD {text!r} must be {SHARD_FORM}")
    index, count = int(match[1]), int(match[2])
    if count < 1:
        raise ValueError(f"SHARD {text!r} must be {SHARD_FORM}; there is no part of {count}")
    if index == count:
        counted = f"an array that counts from 1 has to subtract 1, or count 0-{count - 1} itself"
        raise ValueError(f"SHARD {text!r} is beyond the last shard {count - 1}/{count}, as they count from 0; {counted}")
    if not 0 <= index < count:
        raise ValueError(f"SHARD {text!r} is not among 0/{count} … {count - 1}/{count}")
    return index, count
