"""Call: what travels to a worker; the function of the tasks, and how its process has to be before the first."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from typing import Generic, TypeVar

from crista.errors import ClusterError, CristaError

T = TypeVar("T")
R = TypeVar("R")

THREADS_OF = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Libraries that read their number of threads when they are loaded."""
_ONE_AT_A_TIME = threading.Lock()
"""A worker gives a task all of its cores, so it does one at a time; the networks kept in its memory count on that too."""


@dataclass(frozen=True)
class Answer(Generic[R]):
    """What comes back of a task."""

    value: R | None = None
    seconds: float = 0.0
    error: CristaError | None = None
    """An error of the input or the configuration: trying again would not help."""


@dataclass(frozen=True)
class Call(Generic[T, R]):
    """A function that runs on a worker, in a process prepared for it."""

    function: Callable[[T], R]
    gpus: tuple[str, ...] = ()
    """GPUs of this machine that its workers share; workers elsewhere have their own."""
    crista_version: str = field(default_factory=lambda: version("crista"))
    """That of the process that asks."""

    def __call__(self, item: T) -> Answer[R]:
        """Do the task of `item`."""
        with _ONE_AT_A_TIME:
            try:
                prepare_process(self.crista_version, self.gpus)
                started = time.perf_counter()
                value = self.function(item)
            except CristaError as error:
                return Answer(error=error)
            return Answer(value, time.perf_counter() - started)


def gpu_of(worker: str, gpus: Sequence[str]) -> str:
    """The GPU of a worker of this machine, ``crista-2``: one each, round and round."""
    number = worker.rpartition("-")[2]
    return gpus[int(number) % len(gpus) if number.isdecimal() else 0]


@cache
def prepare_process(crista_version: str, gpus: tuple[str, ...]) -> None:
    """Threads and GPU of this worker, once, before a network is in it.

    Raises
    ------
    ClusterError
        If this is another crista than `crista_version`.
    """
    from distributed import get_worker

    worker = get_worker()
    here = version("crista")
    if crista_version != here:
        raise ClusterError(
            f"the worker {worker.address} has crista {here}, and this command is of crista {crista_version}: results could differ"
            f"\n    -> install crista {crista_version} where the worker runs, and start it again"
        )
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu_of(str(worker.name), gpus)
    _use_threads(max(1, worker.state.nthreads))


def _use_threads(count: int) -> None:
    """Cores of one task. PyTorch, which is slow to import, reads the environment if it comes later."""
    for name in THREADS_OF:
        os.environ[name] = str(count)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(count)
