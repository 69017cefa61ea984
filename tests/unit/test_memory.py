"""Freed memory is kept in a training and given back after it."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest
import torch

from crista.training import memory
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


@pytest.mark.skipif(memory._glibc() is None, reason="the C library is not glibc")
def test_steps_touch_no_new_pages() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    outside, inside, given_back = map(int, done.stdout.split())
    pages = 5 * 4 * 12_000_000 // resource.getpagesize()
    assert outside > pages / 4  # otherwise the allocator has learned to do it by itself, and the module can go
    assert inside < pages / 20
    assert given_back > 40_000_000


def test_nothing_is_touched_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_glibc", lambda: pytest.fail("asked for the C library"))
    with reused_memory(torch.device("cuda")):
        pass


def test_other_systems_go_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert memory._glibc() is None
    with reused_memory(torch.device("cpu")):
        assert torch.ones(3).sum() == 3
