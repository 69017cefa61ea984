"""Freed memory is kept in a training and given back after it; in the prediction of large images arrays go back at once."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest
import torch

from crista.plan import allocator
from crista.training.memory import reused_memory

PROGRAM = """
import resource, torch
from crista.training.memory import reused_memory

def faults_of_steps():
    step(); before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def step():
    return [torch.ones(3_000_000) for _ in range(4)]

def resident():
    return int(open('/proc/self/statm').read().split()[1]) * resource.getpagesize()

outside = faults_of_steps()
with reused_memory(torch.device('cpu')):
    inside, kept = faults_of_steps(), resident()
print(outside, inside, kept - resident())
"""


@pytest.mark.skipif(allocator.glibc() is None, reason="the C library is not glibc")
def test_steps_touch_no_new_pages() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    outside, inside, given_back = map(int, done.stdout.split())
    pages = 5 * 4 * 12_000_000 // resource.getpagesize()
    assert outside > pages / 4  # otherwise the allocator has learned to do it by itself, and the module can go
    assert inside < pages / 20
    assert given_back > 40_000_000


SCATTERED = """
import sys
import numpy as np
from crista.plan.allocator import let_freed_arrays_go_back
from crista.plan.machine import resident_bytes

if sys.argv[1] == "goes back":
    let_freed_arrays_go_back()
np.ones(4_000_000, np.float32)  # freed at once, which raises the threshold of glibc
before = resident_bytes()
held = [(np.ones(1_000_000, np.float32), np.ones(10_000)) for _ in range(40)]
small = [between for _, between in held]
del held
print(resident_bytes() - before)
"""


@pytest.mark.skipif(allocator.glibc() is None, reason="the C library is not glibc")
def test_arrays_of_a_large_image_go_back_at_once() -> None:
    scattered, left = (
        int(subprocess.run([sys.executable, "-c", SCATTERED, what], capture_output=True, text=True, check=True).stdout)
        for what in ("stays", "goes back")
    )
    assert scattered > 100_000_000  # otherwise the allocator does it by itself, and the function can go
    assert left < 20_000_000


RESERVED = """
import resource, sys, threading
from crista.plan.allocator import spare_addresses
from crista.plan.machine import status_bytes

if sys.argv[1] == "limited":
    resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))
spare_addresses()
threading.stack_size(1 << 20)
ready, done = threading.Barrier(9), threading.Event()

def work():
    held = [bytearray(5000) for _ in range(100)]
    ready.wait()
    done.wait()

before = status_bytes("VmSize")
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads:
    thread.start()
ready.wait()
print(status_bytes("VmSize") - before)
done.set()
"""


@pytest.mark.skipif(allocator.glibc() is None, reason="the C library is not glibc")
def test_threads_reserve_no_heaps_of_their_own_under_a_limit_of_addresses() -> None:
    free, limited = (
        int(subprocess.run([sys.executable, "-c", RESERVED, what], capture_output=True, text=True, check=True).stdout)
        for what in ("free", "limited")
    )
    assert free > 8 * 64e6  # otherwise the allocator does it by itself, and the function can go
    assert limited < 8 * 5e6


def test_nothing_is_touched_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator, "glibc", lambda: pytest.fail("asked for the C library"))
    with reused_memory(torch.device("cuda")):
        pass


def test_other_systems_go_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert allocator.glibc() is None
    with reused_memory(torch.device("cpu")):
        assert torch.ones(3).sum() == 3
