"""RankExecutor: the processes that torchrun started, each of which does its shard of the tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, Self, TypeVar

from crista.inference.distribution.shards import shard_of
from crista.plan.events import Event

T = TypeVar("T")
R = TypeVar("R")

LONGEST_WAIT = timedelta(days=7)
"""For the slowest process; torchrun sees by itself when one dies."""


class RankExecutor:
    """Process `rank` of `world_size`, which have joined one process group.

    All of them enter, run with equal items, and leave. Each yields its own results; the first then those of the others as well.
    """

    def __init__(self, rank: int, world_size: int) -> None:
        self._rank = rank
        self._world_size = world_size
        self._group: Any = None

    def __enter__(self) -> Self:
        import torch.distributed as dist

        self._group = dist.new_group(backend="gloo", timeout=LONGEST_WAIT)  # results are objects, not tensors on GPUs
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._group = None

    def run(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[T, R]]:
        """Yield (item, `function` (item)) of the items of this process; in the first one of all items.

        An error ends its process, and torchrun the others.
        """
        import torch.distributed as dist

        own: list[tuple[T, R]] = []
        for item in shard_of(items, self._rank, self._world_size):
            own.append((item, function(item)))
            yield own[-1]
        gathered: list[Any] | None = [None] * self._world_size if self._rank == 0 else None
        dist.gather_object(own, gathered, dst=0, group=self._group)
        for results in (gathered or [])[1:]:
            yield from results

    def share(self, value: Any) -> Any:
        """What the first process gives, in all of them."""
        import torch.distributed as dist

        shared = [value]
        dist.broadcast_object_list(shared, src=0, group=self._group)
        return shared[0]

    def notices(self) -> list[Event]:
        """Nothing."""
        return []
