"""Flags: decorators that give a command more flags than it knows of; they reach it as changes of keys."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from crista.cli import options

Command = Callable[..., None]


class Quality(StrEnum):
    """How long a training may take where no time is given."""

    FAST = "fast"
    STANDARD = "standard"
    BEST = "best"


Minutes = Annotated[
    float | None,
    typer.Option(
        "--minutes", min=0.1, metavar="N", help="Time until the network is trained, reading included. The report follows."
    ),
]
QualityOption = Annotated[
    Quality | None,
    typer.Option(
        "--quality", help="Instead of --minutes. fast: 5 minutes, standard: 20 (the default on two folders), best: 120."
    ),
]

StartFrom = Annotated[
    Path | None,
    typer.Option(
        "--from",
        metavar="MODEL",
        help=f"Start from a trained network (fine-tuning): {options.MODEL}. Its classes and channels may be others.",
    ),
]


def with_start(command: Command) -> Command:
    """`command`, which takes `override`, with the flag of a network to start from."""

    def with_flags(*, start_from: StartFrom = None, override: options.Overrides = None, **arguments: Any) -> None:
        changes: list[str] = []
        if start_from is not None:
            from crista.config.document import Override
            from crista.workflow.request import find_checkpoint, start_changes

            changes = [Override(change, "--from") for change in start_changes(find_checkpoint(start_from))]
        command(override=[*changes, *(override or ())] or None, **arguments)

    return add_flags(command, with_flags)


def with_budget(command: Command) -> Command:
    """`command`, which takes `override`, with the flags of a time budget beside its own."""

    def with_flags(
        *, minutes: Minutes = None, quality: QualityOption = None, override: options.Overrides = None, **arguments: Any
    ) -> None:
        changes = options.change_of("--minutes", "TRAIN.MAX_MINUTES", None if minutes is None else f"{minutes:g}")
        if quality is not None:
            if minutes is not None:
                text = f"{quality} stands for a time, and --minutes is given too: give one of them"
                raise typer.BadParameter(text, param_hint="'--quality'")
            from crista.plan.budget import MINUTES  # slow to import

            changes = options.change_of("--quality", "TRAIN.MAX_MINUTES", f"{MINUTES[quality]:g}")
        command(override=[*changes, *(override or ())] or None, **arguments)

    return add_flags(command, with_flags)


def add_flags(command: Command, with_flags: Command) -> Command:
    """`with_flags` under the name of `command`, with the flags of both."""
    own = inspect.signature(command, eval_str=True).parameters
    flags = inspect.signature(with_flags, eval_str=True).parameters
    added = [flag for name, flag in flags.items() if name not in own and flag.kind is flag.KEYWORD_ONLY]
    parameters = [*(one.replace(kind=one.KEYWORD_ONLY) for one in own.values()), *added]
    setattr(with_flags, "__signature__", inspect.Signature(parameters))  # noqa: B010 - mypy knows no such attribute
    with_flags.__annotations__ = {one.name: one.annotation for one in parameters}
    with_flags.__name__, with_flags.__doc__ = command.__name__, command.__doc__
    return with_flags
