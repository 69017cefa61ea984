"""Resources: the cores and the memory of the machine that a run takes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from crista.config.root import System
from crista.inference.distribution.build import usable_cores
from crista.plan.machine import free_bytes, physical_bytes


@contextmanager
def limited_threads(system: System) -> Iterator[None]:
    """Inside, networks use SYSTEM.NUM_CPUS cores (-1 and 0: all), no more than there are."""
    before = torch.get_num_threads()
    if system.num_cpus > 0:  # a file from a larger machine: threads without a core of their own hold each other up
        torch.set_num_threads(min(system.num_cpus, usable_cores()))
    try:
        yield
    finally:
        torch.set_num_threads(before)  # the next run of this process asks for its own


def notes_on_cores(system: System) -> list[str]:
    """What to say where more cores are asked for than there are."""
    if system.num_cpus <= usable_cores():
        return []
    return [f"SYSTEM.NUM_CPUS: {system.num_cpus}, but there are {usable_cores()} cores: these are used"]


def loader_threads(system: System) -> int:
    """Threads that prepare patches: SYSTEM.NUM_WORKERS, else one per four cores, at least one."""
    if system.num_workers >= 0:
        return max(1, system.num_workers)
    return max(1, min(8, (os.cpu_count() or 1) // 4))


def cache_bytes() -> int:
    """Bytes of images to keep in memory: two fifths of what the machine has, and at most half of what is left for this
    process (in a container, say)."""
    return min(physical_bytes() * 2 // 5, free_bytes() // 2)
