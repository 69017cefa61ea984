"""Cluster: the flags of SYSTEM.CLUSTER that predicting commands share, and the command that shows the script of a job."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from crista.cli import options
from crista.cli.flags import Command, add_flags
from crista.cli.screen import Screen


class QueueName(StrEnum):
    """The queueing systems."""

    SLURM = "slurm"
    PBS = "pbs"
    LSF = "lsf"
    SGE = "sge"


Workers = Annotated[
    int | None, typer.Option("--workers", min=0, metavar="N", help="Predict with N processes; with --queue N jobs.")
]
Scheduler = Annotated[
    str | None,
    typer.Option("--scheduler", metavar="ADDRESS", help="Predict on the workers of a Dask scheduler, tcp://host:8786."),
]
QueueOption = Annotated[
    QueueName | None, typer.Option("--queue", help="Submit the workers as jobs. `crista jobscript` shows what is submitted.")
]
Shard = Annotated[
    str | None,
    typer.Option("--shard", metavar="I/N", help="Predict only part I of N, counted from 0: 0/8 to 7/8. For job arrays."),
]


def with_workers(command: Command) -> Command:
    """`command`, which takes `override`, with the flags of SYSTEM.CLUSTER beside its own; they reach it as overrides."""

    def with_flags(
        *,
        workers: Workers = None,
        scheduler: Scheduler = None,
        queue: QueueOption = None,
        shard: Shard = None,
        override: options.Overrides = None,
        **arguments: Any,
    ) -> None:
        chosen = {"WORKERS": workers, "SCHEDULER": scheduler, "QUEUE": queue, "SHARD": shard}
        changes = [
            change
            for key, value in chosen.items()
            for change in options.change_of(f"--{key.lower()}", f"SYSTEM.CLUSTER.{key}", value)
        ]
        command(override=[*changes, *(override or ())] or None, **arguments)

    return add_flags(command, with_flags)


@with_workers
def jobscript(
    job: options.ConfigArgument = None,
    config: options.ConfigOption = None,
    override: options.Overrides = None,
) -> None:
    """Show the script of the jobs that --queue submits; nothing is submitted."""
    from crista.inference.distribution import job_script
    from crista.workflow.request import load_any

    path: Path | None = options.one_config(job, config) if job or config else None
    loaded = load_any(path if path is not None else {}, override or ())
    Screen().line(job_script(loaded.config.system.cluster).rstrip())
