"""Memory of a process and of everything that it started, sampled from /proc."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True)
class Memory:
    """Resident bytes of one process or the sum over several."""

    resident: int = 0
    """All resident pages (VmRSS); pages of files count, and in a sum pages that processes share count for each."""
    anonymous: int = 0
    """Pages that no file backs (RssAnon): what a process asked for."""
    highest: int = 0
    """The largest resident set that any single process has had since its program started (VmHWM)."""

    def __add__(self, other: Memory) -> Memory:
        """Of several processes together."""
        return Memory(self.resident + other.resident, self.anonymous + other.anonymous, max(self.highest, other.highest))

    def largest(self, other: Memory) -> Memory:
        """The larger of each figure."""
        pairs = zip((self.resident, self.anonymous, self.highest), (other.resident, other.anonymous, other.highest), strict=True)
        return Memory(*(max(pair) for pair in pairs))


def parse_status(text: str) -> Memory:
    """Memory that a /proc/PID/status states; a process that has ended has none."""
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    return Memory(*(int(fields.get(key, "0 kB").split()[0]) * 1024 for key in ("VmRSS", "RssAnon", "VmHWM")))


def children_of(pid: int) -> list[int]:
    """Processes that a thread of `pid` started and that still run."""
    found: list[int] = []
    try:
        for task in (PROC / str(pid) / "task").iterdir():
            found += map(int, (task / "children").read_text().split())
    except OSError:
        return found  # it ended meanwhile
    return found


def tree_of(pid: int) -> list[int]:
    """`pid` and its descendants."""
    tree = [pid]
    for parent in tree:
        tree += children_of(parent)
    return tree


def tree_memory(pid: int) -> Memory:
    """Memory of `pid` and its descendants now."""
    total = Memory()
    for member in tree_of(pid):
        try:
            total += parse_status((PROC / str(member) / "status").read_text())
        except OSError:
            continue
    return total


class TreeSampler:
    """Watches the memory of a process tree until it is left; `peak` holds the largest figures that were seen.

    The largest single process is taken from VmHWM, which misses nothing between two samples. (ru_maxrss would not do: a child
    inherits that of the process which starts it, here of a benchmark that has loaded PyTorch.)
    """

    def __init__(self, pid: int, *, interval: float = 0.1, on_sample: Callable[[Memory], None] | None = None) -> None:
        self.peak = Memory()
        self._pid = pid
        self._interval = interval
        self._on_sample = on_sample
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> TreeSampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            now = tree_memory(self._pid)
            self.peak = self.peak.largest(now)
            if self._on_sample is not None:
                self._on_sample(now)
            if self._stop.wait(self._interval):
                return
