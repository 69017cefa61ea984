"""What a command took: time, memory of one process and of a tree, failures, limits."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from measuring.limits import limit_address_space
from measuring.memory import Memory, parse_status
from measuring.process import CommandFailedError, measure, require

MEGABYTE = 2**20
HOLD = "import time; block = bytearray(b'x') * ({megabytes} * 2**20); time.sleep({seconds})"
PARENT = "import subprocess, sys; children = [subprocess.Popen([sys.executable, '-c', sys.argv[1]]) for _ in range(2)]"


def test_memory_of_a_status_file() -> None:
    """Fields are in kB; a process that has ended states none."""
    text = "Name:\tpython\nVmHWM:\t   3072 kB\nVmRSS:\t   2048 kB\nRssAnon:\t    1024 kB\n"
    assert parse_status(text) == Memory(2 * MEGABYTE, MEGABYTE, 3 * MEGABYTE)
    assert parse_status("State:\tZ (zombie)\n") == Memory()


def test_memory_of_processes_together() -> None:
    """Pages add up, the highest single process does not; a peak takes the larger of each."""
    first, second = Memory(5, 3, 7), Memory(2, 4, 6)
    assert first + second == Memory(7, 7, 7)
    assert first.largest(second) == Memory(5, 4, 7)


def test_one_process(tmp_path: Path) -> None:
    """60 MB are held for a while: the largest process, the tree and its anonymous pages have them."""
    usage = measure([sys.executable, "-c", HOLD.format(megabytes=60, seconds=0.5)], tmp_path / "log", interval=0.05)
    assert usage.code == 0
    assert 0.5 < usage.wall < 30
    assert 60 * MEGABYTE < usage.peak_anonymous <= usage.peak_tree < 160 * MEGABYTE
    assert 60 * MEGABYTE < usage.peak_process < 160 * MEGABYTE


def test_a_tree_is_more_than_its_largest_process(tmp_path: Path) -> None:
    """Two children hold 60 MB each: the sum has both, the largest single process one."""
    code = f"{PARENT}; [child.wait() for child in children]"
    held = HOLD.format(megabytes=60, seconds=1.5)
    usage = measure([sys.executable, "-c", code, held], tmp_path / "log", interval=0.05)
    assert usage.peak_anonymous > 120 * MEGABYTE
    assert 60 * MEGABYTE < usage.peak_process < 120 * MEGABYTE


def test_processor_seconds_of_children_count(tmp_path: Path) -> None:
    """A child that the command waited for."""
    code = f"{PARENT}; [child.wait() for child in children]"
    busy = "import time; end = time.process_time() + 0.4\nwhile time.process_time() < end: pass"
    assert measure([sys.executable, "-c", code, busy], tmp_path / "log").cpu > 0.8


def test_a_failure_shows_the_end_of_the_log(tmp_path: Path) -> None:
    """Code and last words."""
    usage = measure([sys.executable, "-c", "print('one'); raise SystemExit('the last words')"], tmp_path / "log")
    assert usage.code == 1
    with pytest.raises(CommandFailedError, match=r"(?s)^it ended with code 1.*the last words"):
        require(usage, tmp_path / "log", "it")


def test_a_command_that_takes_too_long_is_killed_with_its_children(tmp_path: Path) -> None:
    """The code is the signal, and the child does not write its file."""
    child = f"import time; time.sleep(2); open({str(tmp_path / 'alive')!r}, 'w')"
    usage = measure([sys.executable, "-c", f"{PARENT}; children[0].wait()", child], tmp_path / "log", timeout=0.7)
    assert usage.code == -9
    assert usage.wall < 2
    assert not (tmp_path / "alive").exists()


def test_a_limit_of_the_address_space_holds(tmp_path: Path) -> None:
    """400 MB cannot be had below a limit of 300 MB, and can without."""
    code = "block = bytearray(400 * 2**20)"
    limited = limit_address_space([sys.executable, "-c", code], 300 * MEGABYTE)
    assert measure(limited, tmp_path / "limited").code == 1
    assert "MemoryError" in (tmp_path / "limited").read_text()
    assert measure([sys.executable, "-c", code], tmp_path / "free").code == 0
