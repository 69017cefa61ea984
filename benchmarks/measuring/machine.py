"""What the machine can do now: matrix products and memory traffic, the two ceilings of a roofline."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

GEMM_SIDE = 2048
TRIAD_BYTES = 512 * 2**20
"""Of each of the three arrays: beyond any cache."""


def best_seconds(work: Callable[[], object], *, least: int = 5, seconds: float = 1.0) -> float:
    """The shortest of at least `least` calls, repeated for about `seconds`, after one that does not count."""
    work()
    best, calls, started = float("inf"), 0, time.perf_counter()
    while calls < least or time.perf_counter() - started < seconds:
        before = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - before)
        calls += 1
    return best


def gemm_gflops(*, seconds: float = 1.0) -> float:
    """GFLOP/s of a float32 product of two 2048 x 2048 matrices with all threads, the best of a second."""
    first, second = torch.rand(GEMM_SIDE, GEMM_SIDE), torch.rand(GEMM_SIDE, GEMM_SIDE)
    out = torch.empty(GEMM_SIDE, GEMM_SIDE)
    return 2 * GEMM_SIDE**3 / best_seconds(lambda: torch.mm(first, second, out=out), seconds=seconds) / 1e9


def triad_gigabytes(*, bytes_each: int = TRIAD_BYTES) -> float:
    """GB/s of a = b + 3 c over arrays of 512 MiB: two are read, one is written (the fetch before a write is not counted)."""
    count = bytes_each // 4
    b, c, a = torch.rand(count), torch.rand(count), torch.zeros(count)
    return 3 * bytes_each / best_seconds(lambda: torch.add(b, c, alpha=3, out=a), seconds=0.5) / 1e9
