"""Machine: how much memory this process could still get. PyTorch is not needed to know it."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

STATUS = Path("/proc/self/status")
MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")


def resident_bytes() -> int:
    """Bytes of memory that this process holds now; 0 where the system does not say."""
    return status_bytes("VmRSS")


def free_bytes() -> int:
    """Bytes that this process could still get: the least of what machine, control group and address space leave."""
    free = [_available_bytes()]
    free += [limit - used for limit, used in _cgroup_limits()]
    limit = address_limit()
    if limit is not None:
        free.append(limit - status_bytes("VmSize"))
    return max(0, min(free))


def physical_bytes() -> int:
    """Bytes of memory that the machine has."""
    if hasattr(os, "sysconf"):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    import psutil  # installed on Windows

    return int(psutil.virtual_memory().total)


def _available_bytes() -> int:
    """Bytes that the machine has to give without swapping; without limit where nobody says."""
    if MEMINFO.is_file():
        return _kilobytes(MEMINFO.read_text(), "MemAvailable")
    with suppress(ImportError):
        import psutil  # installed on Windows and macOS

        return int(psutil.virtual_memory().available)
    return sys.maxsize


def address_limit() -> int | None:
    """Bytes of addresses that this process may have (``ulimit -v``), reserved ones included; None where there is no limit."""
    with suppress(ImportError):
        import resource  # not on Windows

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        return limit if limit != resource.RLIM_INFINITY else None
    return None


def _cgroup_limits() -> list[tuple[int, int]]:
    """(limit, used) of this process's control groups, version 2 and 1."""
    found = []
    own = Path("/proc/self/cgroup")
    names = [line.split(":", 2)[2].strip("/") for line in own.read_text().splitlines()] if own.is_file() else []
    folders = {CGROUP, *(CGROUP / name for name in names), CGROUP / "memory"}
    for folder in folders:
        for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            with suppress(OSError, ValueError):
                held = int((folder / used).read_text()) - _file_cache(folder / "memory.stat")
                found.append((int((folder / limit).read_text()), held))
    return found


def _file_cache(stat: Path) -> int:
    """Bytes of files that a control group holds and gives back when memory is asked for: all that it has read counts as used."""
    lines = dict(line.split() for line in stat.read_text().splitlines()) if stat.is_file() else {}
    return int(lines.get("total_inactive_file", lines.get("inactive_file", 0)))


def status_bytes(key: str) -> int:
    """A line of this process's status, in bytes; 0 where the system has no such file."""
    return _kilobytes(STATUS.read_text(), key) if STATUS.is_file() else 0


def _kilobytes(text: str, key: str) -> int:
    """The value of a line ``key:  123 kB``, in bytes."""
    line = next((line for line in text.splitlines() if line.startswith(f"{key}:")), f"{key}: 0 kB")
    return int(line.split()[1]) * 1024
