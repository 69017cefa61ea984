"""Several machines, as network namespaces: one dies, one is cut off, and the results are those of one process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

pytest.importorskip("distributed", reason="the extra `cluster` is not installed")

from tests import tasks
from tests.network import Machine, machines

CLIENT = """
import json, sys
from functools import partial
from pathlib import Path
from tests import tasks
from crista.config.cluster import Cluster
from crista.inference.distribution.dask_executor import DaskExecutor, Patience
from crista.inference.distribution.workers import workers_of_scheduler

address, folder = sys.argv[1], Path(sys.argv[2])
patience = Patience(straggler_factor=4, straggler_seconds=1.5, timeout=60, tick=0.2)
with DaskExecutor(partial(workers_of_scheduler, Cluster(scheduler=address)), patience) as executor:
    for item, (total, process) in executor.run(partial(tasks.write_block, folder, 0.2), range(60)):
        print(json.dumps([item, total, process]), flush=True)
    print(json.dumps([str(event) for event in executor.notices()]))
"""


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def start(stack: ExitStack, machine: Machine, log: Path, *command: str) -> subprocess.Popen[bytes]:
    process = machine.popen([sys.executable, *command], log)
    stack.callback(process.wait)
    stack.callback(process.kill)
    return process


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.is_file() else []


def wait_for_lines(path: Path, count: int, process: subprocess.Popen[bytes], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while len(lines_of(path)) < count:
        assert process.poll() is None, path.read_text()
        assert time.monotonic() < end, f"{path.name} has {len(lines_of(path))} lines"
        time.sleep(0.05)


def test_one_machine_dies_and_one_is_cut_off(stack: ExitStack, tmp_path: Path) -> None:
    hub, (first, second, third) = stack.enter_context(machines(3))
    scheduler = ("-m", "distributed.cli.dask_scheduler", "--host", "0.0.0.0", "--port", "8786", "--no-dashboard")
    start(stack, hub, tmp_path / "scheduler.log", *scheduler)
    options = ("--no-nanny", "--nthreads", "1", "--no-dashboard")
    workers = [
        start(stack, machine, tmp_path / "w.log", "-m", "distributed.cli.dask_worker", f"tcp://{machine.hub}:8786", *options)
        for machine in (first, second, third)
    ]
    result = tmp_path / "client.log"
    client = start(stack, hub, result, "-c", CLIENT, "tcp://127.0.0.1:8786", str(tmp_path / "out"))
    wait_for_lines(result, 15, client)
    workers[0].send_signal(signal.SIGKILL)
    wait_for_lines(result, 25, client)
    second.pull_the_plug()
    assert client.wait(timeout=100) == 0, result.read_text()
    *rows, notices = [json.loads(line) for line in lines_of(result)]
    assert sorted(item for item, *_ in rows) == list(range(60))
    assert {item: total for item, total, _ in rows} == {item: sum(tasks.block_of(item)) for item in range(60)}
    assert len({process for *_, process in rows}) == 3, "each of the machines did a part"
    assert "died or left" in str(notices)
    assert "another worker does it as well" in str(notices)
    for item in range(60):
        assert (tmp_path / "out" / f"{item}.block").read_bytes() == tasks.block_of(item)
