"""Probe: how fast an engine is on a part of a real tile."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from math import prod
from statistics import median

import numpy as np
from numpy.typing import NDArray

from crista.inference.engine import Engine

PROBE_VOXELS = 2**18
"""The tile is cut to about so many voxels: enough to tell engines apart, and seconds less."""
GLANCE_VOXELS = 2**14
"""What PyTorch is timed on first, to see how long the job takes."""
ROUNDS = 3


def cut_sample(sample: NDArray[np.float32], multiple: Sequence[int], voxels: int) -> NDArray[np.float32]:
    """The middle of a tile (1, C, [Z,] Y, X): about `voxels` voxels, of sides that are multiples the network takes."""
    sides = list(sample.shape[2:])
    while prod(sides) > voxels:
        halves = [max(step, side // 2 // step * step) for side, step in zip(sides, multiple, strict=True)]
        gains = [side / half for side, half in zip(sides, halves, strict=True)]
        widest = max(range(len(sides)), key=lambda axis: (gains[axis] > 1, sides[axis]))
        if gains[widest] <= 1:
            break
        sides[widest] = halves[widest]
    inside = tuple(slice((n - side) // 2, (n - side) // 2 + side) for n, side in zip(sample.shape[2:], sides, strict=True))
    return np.ascontiguousarray(sample[(slice(None), slice(None), *inside)])


def seconds_of(call: Callable[[], object]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def seconds_per_voxel(engine: Engine, sample: NDArray[np.float32], multiple: Sequence[int]) -> float:
    """A first glance: the better of two runs on a small part of the tile."""
    part = cut_sample(sample, multiple, GLANCE_VOXELS)
    return min(seconds_of(lambda: engine.scores(part)) for _ in range(2)) / prod(part.shape[2:])


def measure_speeds(
    engines: Mapping[str, Engine], part: NDArray[np.float32], failed: Callable[[str, Exception], None]
) -> dict[str, float]:
    """Milliseconds per engine, all of which have run before: medians of rounds in which each runs once.

    So what else the machine does meets all of them. One that raises is told to `failed` and left out, unless that raises too.
    """
    taken: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(ROUNDS):
        for name in list(taken):
            try:
                taken[name].append(seconds_of(lambda name=name: engines[name].scores(part)))  # type: ignore[misc]
            except Exception as error:  # noqa: BLE001 - whatever a library raises
                failed(name, error)
                del taken[name]
    return {name: round(1000 * median(values), 3) for name, values in taken.items()}
