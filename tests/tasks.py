"""Tasks that travel to worker processes: small functions of one item that leave traces in a folder."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np

from crista.errors import ConfigError, Problem
from crista.images.atomic import atomic_write


def block_of(index: int) -> bytes:
    """The content of block `index`: always the same, and no two alike."""
    return np.random.default_rng(index).integers(0, 256, 20_000, np.uint8).tobytes()


def write_block(folder: Path, seconds: float, index: int) -> tuple[int, int]:
    """Write one block aside and rename it, then its marker; returns the sum of the block and the process."""
    note_attempt(folder, index)
    content = block_of(index)
    time.sleep(seconds)
    atomic_write(folder / f"{index}.block", content)
    atomic_write(folder / f"{index}.done", "")
    return sum(content), os.getpid()


def note_attempt(folder: Path, index: int) -> int:
    """Leave a trace of one more attempt at `index`; returns how many there are."""
    attempts = folder / "attempts"
    attempts.mkdir(parents=True, exist_ok=True)
    (attempts / f"{index}.{os.getpid()}.{time.monotonic_ns()}").touch()
    return len(list(attempts.glob(f"{index}.*")))


def hang_once(folder: Path, index: int) -> int:
    """Item 3 goes on, where it is tried first, until there is a file `go`."""
    first = note_attempt(folder, index) == 1
    while first and index == 3 and not (folder / "go").exists():
        time.sleep(0.05)
    time.sleep(0.1)
    return index * index


def refuse(folder: Path, index: int) -> int:
    """Item 2 is a file that cannot be used."""
    note_attempt(folder, index)
    if index == 2:
        raise ConfigError("with the test", [Problem("file.tif", "is damaged", "look at it")])
    return index


def fail_twice(folder: Path, index: int) -> int:
    """A file system that answers at the third time."""
    if note_attempt(folder, index) < 3:
        raise OSError(5, "Input/output error")
    return index


def fail_always(folder: Path, index: int) -> int:
    """A bug."""
    note_attempt(folder, index)
    raise ZeroDivisionError(f"item {index}")


def kill_own_worker(folder: Path, index: int) -> int:
    """Item 1 ends its process as a full memory would."""
    note_attempt(folder, index)
    if index == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return index


def surroundings(index: int) -> tuple[int, str, str, int]:
    """What a task finds: process, GPU, threads by the environment, threads of PyTorch."""
    import torch

    time.sleep(0.5)
    return os.getpid(), os.environ["CUDA_VISIBLE_DEVICES"], os.environ["OMP_NUM_THREADS"], torch.get_num_threads()
