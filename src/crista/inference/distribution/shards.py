"""Shards: the part of a list of tasks that one of several processes does, without asking the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def shard_of(items: Sequence[T], index: int, count: int) -> Sequence[T]:
    """Shard `index` (from 0) of `count`: every `count`-th item, so that neighbours, alike in cost, go to different shards.

    The shards of one list are disjoint, together complete, and differ in length by one at most.

    Raises
    ------
    ValueError
        If there is no such shard.
    """
    if not 0 <= index < count:
        raise ValueError(f"shard {index} of {count} does not exist: shards count from 0 to {count - 1}")
    return items[index::count]
