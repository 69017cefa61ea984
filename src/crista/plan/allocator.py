"""Allocator: what the C library does with memory that was freed. Only glibc is told; elsewhere nothing happens."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from crista.plan.machine import address_limit

# Parameters of mallopt, from glibc's malloc.h.
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -3, -4, -8
NEVER = -1
DEFAULT_MMAP_MAX = 65536
LARGEST_MMAP_THRESHOLD = 32 << 20
"""Where glibc's own threshold ends that grows with what is freed."""
ARRAY_BYTES = 1 << 20
"""Smaller than any array of a tile, a chunk or a block of a large image."""


def glibc() -> ctypes.CDLL | None:
    """The C library of this process, if it is glibc."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if all(hasattr(libc, name) for name in ("mallopt", "malloc_trim", "gnu_get_libc_version")) else None


def give_back_free_memory() -> None:
    """Hand memory that was freed, in training say, back to the system; else it would be counted as held."""
    libc = glibc()
    if libc is not None:
        libc.malloc_trim(0)


@contextmanager
def freed_memory_stays() -> Iterator[None]:
    """While the context lasts, freed memory stays with the process, for what allocates the same sizes again and again.

    Otherwise every large array is new memory, which the kernel first fills with zeros, page by page. Afterwards the memory goes
    back to the system.
    """
    libc = glibc()
    if libc is None:
        yield
        return
    libc.mallopt(MMAP_MAX, 0)
    libc.mallopt(TRIM_THRESHOLD, NEVER)
    try:
        yield
    finally:
        libc.mallopt(MMAP_MAX, DEFAULT_MMAP_MAX)
        libc.mallopt(MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)
        libc.mallopt(TRIM_THRESHOLD, 2 * LARGEST_MMAP_THRESHOLD)
        libc.malloc_trim(0)


def let_freed_arrays_go_back() -> None:
    """From now on every array of 1 MB or more goes back to the system when it is freed, for runs of fixed memory.

    By itself glibc raises the size from which it does so to 32 MB. Arrays of several threads then come to lie scattered in its
    heaps: 250 MB in the prediction of a large volume, and more the longer it is. New memory costs about 15 ns of processor time
    per voxel. A training that follows in the same process has its own rule (`freed_memory_stays`).
    """
    libc = glibc()
    if libc is not None:
        libc.mallopt(MMAP_THRESHOLD, ARRAY_BYTES)
        libc.malloc_trim(0)


def spare_addresses() -> None:
    """Under a limit of addresses (``ulimit -v``), let all threads share one heap.

    glibc reserves 64 MB and more of addresses for nearly every thread that allocates: 700 MB before anything is read, and what is
    reserved counts. Best called before other libraries start their threads.
    """
    libc = glibc() if address_limit() is not None else None
    if libc is not None:
        libc.mallopt(ARENA_MAX, 1)
