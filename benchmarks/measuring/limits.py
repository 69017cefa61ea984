"""Hard limits of memory for a command: of its address space, or of what a control group may hold."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
LIMIT_FILES = {"v2": "memory.max", "v1": "memory.limit_in_bytes"}


def limit_address_space(command: Sequence[str | Path], limit: int) -> list[str]:
    """`command` with `ulimit -v`: every mapping counts, also libraries and files that are never touched."""
    return ["bash", "-c", f'ulimit -v {limit // 1024}; exec "$@"', "bash", *map(str, command)]


@contextmanager
def memory_group(limit: int) -> Iterator[Path | None]:
    """A new control group whose processes may hold `limit` bytes together, page cache included; None where that is not allowed.

    Version 2 where its memory controller is on, else version 1.
    """
    name = f"crista-benchmark-{os.getpid()}"
    places = {"v2": CGROUPS / name, "v1": CGROUPS / "memory" / name}
    version = "v1" if (CGROUPS / "memory").is_dir() else "v2"
    group = places[version]
    try:
        group.mkdir()
        (group / LIMIT_FILES[version]).write_text(str(limit))
    except OSError:
        group.rmdir() if group.is_dir() else None
        yield None
        return
    try:
        yield group
    finally:
        group.rmdir()


def join_group(command: Sequence[str | Path], group: Path) -> list[str]:
    """`command` as a member of the control group from its start."""
    return ["bash", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "bash", *map(str, command)]


def group_peak(group: Path) -> int | None:
    """The most bytes that the group ever held, page cache included; None if the kernel does not say."""
    for name in ("memory.peak", "memory.max_usage_in_bytes"):
        if (group / name).is_file():
            return int((group / name).read_text())
    return None
