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
    process = machine.popen([sys.executable, *command], log, GLOO_SOCKET_IFNAME=machine.interface)
    stack.callback(machine.end, process)
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


RANKS = """
import json, os, sys
from functools import partial
from pathlib import Path
import torch.distributed as dist
from tests import tasks
from crista.config.root import System
from crista.inference.distribution import build_executor

dist.init_process_group("gloo")
rank, folder = dist.get_rank(), Path(sys.argv[1])
with build_executor(System(), rank=rank, world_size=dist.get_world_size()) as executor:
    for items in (range(11), range(11, 12)):  # more than once, and with fewer items than processes
        results = list(executor.run(partial(tasks.write_block, folder, 0), items))
        (folder / f"{rank}.{len(items)}.json").write_text(json.dumps(results))
dist.destroy_process_group()
"""


def test_torchrun_on_two_machines_shares_the_tasks(stack: ExitStack, tmp_path: Path) -> None:
    """Each process does every second task; the first one has all results."""
    _, around = stack.enter_context(machines(2))
    script, out = tmp_path / "ranks.py", tmp_path / "out"
    script.write_text(RANKS)
    out.mkdir()
    command = ("--nnodes", "2", "--nproc-per-node", "1", "--master-addr", around[0].address, "--master-port", "29511")
    launcher = ("-m", "torch.distributed.run", *command)
    processes = [
        start(stack, machine, tmp_path / f"{rank}.log", *launcher, "--node-rank", str(rank), str(script), str(out))
        for rank, machine in enumerate(around)
    ]
    for rank, process in enumerate(processes):
        assert process.wait(timeout=100) == 0, (tmp_path / f"{rank}.log").read_text()
    all_results = [json.loads((out / f"0.{count}.json").read_text()) for count in (11, 1)]
    assert [item for item, _ in all_results[0]] == [0, 2, 4, 6, 8, 10, 1, 3, 5, 7, 9]
    assert {process for item, (_, process) in all_results[0] if item % 2} == {all_results[0][-1][1][1]}
    assert len({process for _, (_, process) in all_results[0]}) == 2
    assert [item for item, _ in all_results[1]] == [11]
    assert [item for item, _ in json.loads((out / "1.11.json").read_text())] == [1, 3, 5, 7, 9]
    assert json.loads((out / "1.1.json").read_text()) == []
    for item in range(12):
        assert (out / f"{item}.block").read_bytes() == tasks.block_of(item)
