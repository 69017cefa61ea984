"""Log: what a run said, line by line with the time, in log.txt."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from functools import singledispatch
from pathlib import Path

from crista.errors import CristaError
from crista.metrics import show_score
from crista.plan.events import (
    EpochFinished,
    Event,
    FileWritten,
    ImageFinished,
    Measured,
    Said,
    StageStarted,
    TrainingFinished,
    Warned,
)
from crista.results.train_log import format_number

TIME = re.compile(r"\d\d:\d\d:\d\d ")
"""How the lines of events begin."""


def record_log(events: Iterable[Event], path: Path) -> Iterator[Event]:
    """Pass the events on and append a line for each that people would want to read, and for the error that ends them, if one
    does; runs are separated by a rule."""
    path.parent.mkdir(parents=True, exist_ok=True)
    start = "\n" if _is_cut_short(path) else ""
    with path.open("a", encoding="utf-8", errors="backslashreplace") as file:  # names of files need not be text
        file.write(f"{start}---- {datetime.now().astimezone():%Y-%m-%d %H:%M:%S %Z}\n")
        try:
            for event in events:
                text = describe(event)
                if text:
                    file.write(f"{datetime.now().astimezone():%H:%M:%S} {text}\n")
                    file.flush()
                yield event
        except Exception as error:
            name = "error" if isinstance(error, CristaError) else type(error).__name__
            file.write(f"{datetime.now().astimezone():%H:%M:%S} {name}: {error}\n")
            raise


def _is_cut_short(path: Path) -> bool:
    """Whether a full disk or a kill has cut the last line short."""
    with suppress(OSError), path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() != b"\n"
    return False


WARNING = "warning: "


def read_warnings(path: Path) -> list[str]:
    """What the last run in a log warned of, each once; empty without a log."""
    if not path.is_file():
        return []
    warnings: list[str] = []
    is_open = False
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():  # shards write it too, at the same time
        if line.startswith("---- "):
            warnings, is_open = [], False
        elif TIME.match(line):
            text = line[9:]
            is_open = text.startswith(WARNING)
            warnings += [text.removeprefix(WARNING)] if is_open else []
        elif is_open:  # a warning of several lines
            warnings[-1] += f" {line.strip()}"
    return list(dict.fromkeys(warnings))


@singledispatch
def describe(event: Event) -> str:  # noqa: ARG001 - the general case has no text
    """One line about an event; empty for those that are not logged."""
    return ""


@describe.register
def _(event: Said) -> str:
    return event.text


@describe.register
def _(event: Warned) -> str:
    return f"{WARNING}{event.text}"


@describe.register
def _(event: StageStarted) -> str:
    return f"== {event.stage}"


@describe.register
def _(event: EpochFinished) -> str:
    shown = "  ".join(f"{key} {format_number(value)}" for key, value in event.metrics.items() if key != "epoch")
    announced = event.is_best and event.metrics.get("val_iou") != 0
    return f"epoch {event.epoch}/{event.num_epochs}  {shown}{'  best so far' if announced else ''}"


@describe.register
def _(event: TrainingFinished) -> str:
    return f"training finished: {event.reason}; best network: {event.best_checkpoint}"


@describe.register
def _(event: ImageFinished) -> str:
    shown = "  ".join(f"{key} IoU {show_score(value)}" for key, value in event.metrics.items())
    return f"image {event.index}/{event.num_images} {event.name}  {shown}".rstrip()


@describe.register
def _(event: FileWritten) -> str:
    return f"{event.what}: {event.path}" if event.what != "prediction" else ""


@describe.register
def _(event: Measured) -> str:
    return "\n".join(f"{key}: {show_score(value)}" for key, value in event.metrics.items())
