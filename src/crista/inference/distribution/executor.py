"""Executor: who carries out a list of tasks; this process alone, or many processes on one machine or several.

A task is a function of one item that can be pickled, and is idempotent: it writes exactly its own output, aside and renamed, so
that doing it twice, or on another machine, changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Protocol, Self, TypeVar

from crista.plan.events import Event

T = TypeVar("T")
R = TypeVar("R")


class Executor(Protocol):
    """Carries out tasks; a context manager, whose workers live from entering to leaving."""

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...

    def run(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[T, R]]:
        """Yield (item, `function` (item)) of every item exactly once, as they finish.

        The first error of a task is raised, and the tasks that have not begun are dropped; closing the iterator drops them too.

        Raises
        ------
        ClusterError
            If there is nobody left to work.
        """
        ...

    def notices(self) -> list[Event]:
        """What there is to say since the last call, e.g. that a worker died."""
        ...


class SerialExecutor:
    """This process, one task after the other."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass

    def run(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[T, R]]:
        """Yield (item, `function` (item)) in the order of the items."""
        for item in items:
            yield item, function(item)

    def notices(self) -> list[Event]:
        """Nothing."""
        return []
