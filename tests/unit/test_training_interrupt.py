"""What the first Ctrl-C does: ends the training in order while there is one, and the program else."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from crista.cli.jobs import TrainingInterrupt
from crista.plan.events import StageStarted, TrainingFinished


class Lines:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str, style: str = "") -> None:
        del style
        self.lines.append(text)


@pytest.fixture
def followed() -> Iterator[Any]:
    """An interrupt, its request's `stop`, and what it said, with Python's own Ctrl-C around it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request, lines = SimpleNamespace(stop=threading.Event()), Lines()
    yield SimpleNamespace(interrupt=TrainingInterrupt(request, lines), stop=request.stop, said=lines.lines)  # type: ignore[arg-type]
    signal.signal(signal.SIGINT, before)


def press() -> None:
    """Call what Ctrl-C would call; a real signal, in a process of its own, is sent in tests/integration/test_cli_train.py."""
    handler = signal.getsignal(signal.SIGINT)
    assert callable(handler)
    handler(signal.SIGINT, None)


def test_in_the_training_the_first_one_ends_it_and_the_second_one_the_program(followed: Any) -> None:
    followed.interrupt.follow(StageStarted("train", 9))
    assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    press()
    assert followed.stop.is_set()
    assert "the training ends now" in followed.said[0]
    with pytest.raises(KeyboardInterrupt):
        press()


@pytest.mark.parametrize("stages", [["check"], ["check", "plan"], ["predict"]])
def test_outside_the_training_the_first_one_ends_the_program(followed: Any, stages: list[str]) -> None:
    for stage in stages:
        followed.interrupt.follow(StageStarted(stage))
    with pytest.raises(KeyboardInterrupt):
        press()
    assert not followed.stop.is_set()
    assert followed.said == []


def test_after_the_training_the_first_one_ends_the_program(followed: Any) -> None:
    followed.interrupt.follow(StageStarted("train", 9))
    followed.interrupt.follow(TrainingFinished("all epochs are done", Path("best.pth")))
    with pytest.raises(KeyboardInterrupt):
        press()
    assert not followed.stop.is_set()


def test_a_training_that_fails_gives_ctrl_c_back(followed: Any) -> None:
    def fail() -> None:
        with followed.interrupt.released():
            followed.interrupt.follow(StageStarted("train", 9))
            raise MemoryError

    with pytest.raises(MemoryError):
        fail()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_in_another_thread_ctrl_c_is_left_alone(followed: Any) -> None:
    thread = threading.Thread(target=followed.interrupt.follow, args=[StageStarted("train", 9)])
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
