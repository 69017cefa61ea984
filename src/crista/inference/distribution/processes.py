"""Processes: the workers of this machine, started as a program of their own.

They import nothing of the script that runs crista, so it needs no guard (``if __name__ == "__main__"``), and they hear nothing of
a Ctrl-C in the terminal. When crista ends in whatever way, they do.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crista.errors import ClusterError
from crista.inference.distribution.call import THREADS_OF
from crista.inference.distribution.imports import import_dask

START_SECONDS = 120.0
NAME = "crista"
"""The workers are called crista-0, crista-1…"""


@dataclass(frozen=True)
class WorkerProcesses:
    """The program that keeps the workers running."""

    program: subprocess.Popen[bytes]
    log: Path
    """What the workers say."""

    def wait_for(self, are_there: Callable[[], bool]) -> None:
        """Return when the workers have come; raises a `ClusterError` if they do not."""
        end = time.monotonic() + START_SECONDS
        while not are_there():
            if self.trouble() or time.monotonic() > end:
                raise ClusterError(self.trouble() or f"the worker processes have not come within {START_SECONDS:g} seconds")
            time.sleep(0.05)

    def trouble(self) -> str:
        """Why there are no workers any more; empty as long as they are kept running."""
        if self.program.poll() is None:
            return ""
        said = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        last = said[-1].strip() if said else "nothing was said"
        return f"the worker processes ended ({last})\n    -> without --workers, this process does the work itself"

    def end(self) -> None:
        """End the program and all workers; what they have under way is done anew some other time."""
        psutil = import_dask("psutil")
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.program.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    child.kill()
        self.program.kill()
        self.program.wait()


@contextmanager
def worker_processes(scheduler: str, count: int, threads: int) -> Iterator[WorkerProcesses]:
    """Workers of the scheduler at this address, each with so many threads for its task; one that dies is started again."""
    options = {"nworkers": count, "nthreads": threads, "name": NAME, "memory-limit": 0, "death-timeout": 60, "host": "127.0.0.1"}
    with tempfile.TemporaryDirectory(prefix="crista-workers-", ignore_cleanup_errors=True) as folder:
        command = [sys.executable, "-P", "-m", "distributed.cli.dask_worker", scheduler, "--no-dashboard"]
        command += [f"--{name}={value}" for name, value in options.items()]
        log = Path(folder) / "log.txt"
        with log.open("wb") as output:
            program = subprocess.Popen(
                [*command, f"--local-directory={folder}"],
                env={**os.environ, **dict.fromkeys(THREADS_OF, str(threads)), "PYTHONPATH": _path()},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                **_deaf_to_ctrl_c(),
            )
        processes = WorkerProcesses(program, log)
        try:
            yield processes
        finally:
            processes.end()


def _deaf_to_ctrl_c() -> dict[str, Any]:
    """Settings of a program that a Ctrl-C in this terminal does not reach."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def _path() -> str:
    """Where this process finds its modules; not the working folder, unless it looks there too."""
    return os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
