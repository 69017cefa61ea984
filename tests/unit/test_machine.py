"""How much memory is free: the limits of control groups, and what they count as used."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from crista.plan import machine

GIB = 2**30


@pytest.mark.parametrize(
    ("limit", "used", "stat"),
    [
        ("memory.max", "memory.current", f"anon {GIB}\ninactive_file {5 * GIB}\nactive_file 0\n"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", f"inactive_file 3\ntotal_inactive_file {5 * GIB}\n"),
    ],
)
def test_files_that_were_read_do_not_count_as_used(
    limit: str, used: str, stat: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container of 8 GiB that has read images of 5 GiB and holds 1 GiB itself, 7 GiB are free."""
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    (tmp_path / limit).write_text(f"{8 * GIB}\n")
    (tmp_path / used).write_text(f"{6 * GIB}\n")
    assert {most - held for most, held in machine._cgroup_limits()} == {2 * GIB}
    (tmp_path / "memory.stat").write_text(stat)
    assert {most - held for most, held in machine._cgroup_limits()} == {7 * GIB}


def test_a_group_without_a_limit_limits_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("5\n")
    assert machine._cgroup_limits() == []


def test_windows_and_macos_are_asked_for_the_free_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They have no /proc; without a limit a batch or an image in one piece of any size would be taken for one that fits."""
    monkeypatch.setattr(machine, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=3 * GIB))
    assert machine.free_bytes() <= 3 * GIB
    assert machine._available_bytes() == 3 * GIB
