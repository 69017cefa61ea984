"""Events are frozen values, and each that people want to read has its line in the log."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest

from crista.errors import DataError, Problem
from crista.plan import events
from crista.plan.events import (
    EpochFinished,
    Event,
    FileWritten,
    ImageFinished,
    Measured,
    Said,
    StageStarted,
    StepFinished,
    TileFinished,
    TrainingFinished,
    Warned,
)
from crista.results.log import describe, record_log
from crista.workflow.api import listen

KINDS = [kind for kind in vars(events).values() if isinstance(kind, type) and issubclass(kind, Event)]


@pytest.mark.parametrize("kind", KINDS)
def test_events_are_frozen(kind: type[Event]) -> None:
    event = kind(**{f.name: None for f in fields(kind)})
    for field in fields(kind):
        with pytest.raises(FrozenInstanceError):
            setattr(event, field.name, 1)


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (Said("a line"), ["a line"]),
        (Warned("look out"), ["warning: look out"]),
        (StageStarted("train", 3), ["== train"]),
        (EpochFinished(2, 9, {"loss": 0.25, "val_loss": 0.5}, True), ["epoch 2/9", "loss 0.25", "val_loss 0.5", "best so far"]),
        (TrainingFinished("all epochs are done", Path("b.pth")), ["training finished: all epochs are done", "b.pth"]),
        (ImageFinished("cell", 1, 4, {"per_image": 0.5}), ["image 1/4 cell", "per_image IoU 0.5000"]),
        (FileWritten(Path("x/report.html"), "report"), ["report: ", "report.html"]),
        (Measured({"Foreground IoU": 0.75}), ["Foreground IoU: 0.7500"]),
        (StepFinished(1, 1, 10), []),
        (TileFinished("cell", 1, 10), []),
    ],
)
def test_lines_of_the_log(event: Event, words: list[str], tmp_path: Path) -> None:
    line = describe(event)
    assert bool(line) == bool(words)
    assert all(word in line for word in words)
    assert list(record_log([event], tmp_path / "log.txt")) == [event]
    assert all(word in (tmp_path / "log.txt").read_text() for word in words)


def test_runs_are_appended_and_errors_are_kept(tmp_path: Path) -> None:
    def broken() -> Generator[Event, None, None]:
        yield Said("first")
        raise DataError("with the data", [Problem("a.tif", "is broken")])

    path = tmp_path / "log.txt"
    list(record_log([Said("earlier")], path))
    with pytest.raises(DataError):
        list(record_log(broken(), path))
    text = path.read_text()
    assert text.count("----") == 2
    assert text.index("earlier") < text.index("first") < text.index("a.tif: is broken")


def test_listening_returns_the_result_and_closes_the_events() -> None:
    closed = []

    def work() -> Generator[Event, None, int]:
        try:
            yield Said("one")
            yield Said("two")
        finally:
            closed.append(True)
        return 5

    heard: list[Event] = []
    assert listen(work(), heard.append) == 5
    assert heard == [Said("one"), Said("two")]

    def refuse(_event: Event) -> None:
        raise RuntimeError("the window was closed")

    with pytest.raises(RuntimeError, match="window"):
        listen(work(), refuse)
    assert closed == [True, True]
