"""A command as a process of its own: seconds, processor seconds, memory; under a limit of memory where one is asked for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from measuring.memory import TreeSampler


@dataclass(frozen=True)
class Usage:
    """What a command took."""

    code: int
    """Exit code; negative: the signal that ended it."""
    wall: float
    """Seconds from start to end."""
    cpu: float
    """Processor seconds of the command and of what it waited for."""
    peak_process: int
    """Largest resident set of any single process of it, bytes (VmHWM)."""
    peak_tree: int
    """Largest sum of resident sets, bytes, of all its processes at one time, sampled."""
    peak_anonymous: int
    """The same of anonymous pages alone."""

    def as_row(self) -> dict[str, float]:
        """The figures by name."""
        return asdict(self)


class CommandFailedError(RuntimeError):
    """A command that had to succeed did not; the message ends with the last lines that it said."""


def measure(
    command: Sequence[str | Path],
    log: Path,
    *,
    env: Mapping[str, str] | None = None,
    timeout: float = 6 * 3600.0,
    interval: float = 0.1,
) -> Usage:
    """Run `command`, write what it says to `log`, and measure it; a failure is a `code` other than 0, not an exception.

    `env` is added to the environment. After `timeout` seconds the command and its descendants are killed.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        started = time.perf_counter()
        process = subprocess.Popen(
            [str(word) for word in command],
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
        watchdog = threading.Timer(timeout, kill_session, (process.pid,))
        watchdog.daemon = True
        watchdog.start()
        try:
            with TreeSampler(process.pid, interval=interval) as sampler:
                _, status, usage = os.wait4(process.pid, 0)
                wall = time.perf_counter() - started
        except BaseException:
            kill_session(process.pid)  # a benchmark that is stopped leaves nothing running
            raise
        finally:
            watchdog.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    return Usage(
        code=process.returncode,
        wall=wall,
        cpu=usage.ru_utime + usage.ru_stime,
        peak_process=sampler.peak.highest,
        peak_tree=sampler.peak.resident,
        peak_anonymous=sampler.peak.anonymous,
    )


def require(usage: Usage, log: Path, what: str) -> Usage:
    """`usage`, or a `CommandFailedError` with the end of the log if the command did not succeed."""
    if usage.code:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise CommandFailedError(f"{what} ended with code {usage.code}; the end of {log}:\n{tail}")
    return usage


def stop_in_order() -> None:
    """Let SIGTERM end a benchmark as an exception does, so that what it measures is stopped too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))


def kill_session(pid: int) -> None:
    """Kill a process that leads a session, and all that it started."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
