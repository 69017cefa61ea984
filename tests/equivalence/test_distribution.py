"""The same tasks by one process, by workers, and by workers that die, dawdle or disagree: the same results, each once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("distributed", reason="the extra `cluster` is not installed")

import dask
import distributed
import psutil
from tests import tasks
from tests.conftest import MakeData, tiny_config

from crista.config.cluster import Cluster
from crista.config.root import System
from crista.errors import ClusterError, ConfigError
from crista.inference.distribution import SerialExecutor, build_executor
from crista.inference.distribution.call import Call
from crista.inference.distribution.dask_executor import DaskExecutor, Patience
from crista.inference.distribution.workers import local_workers, workers_of_scheduler
from crista.plan.events import Warned
from crista.workflow.api import predict, run

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "CUDA_VISIBLE_DEVICES": ""}
QUICK = Patience(straggler_factor=4, straggler_seconds=1.0, timeout=30, tick=0.1)


@pytest.fixture(scope="module")
def local() -> Iterator[DaskExecutor]:
    """Two workers on this machine, as four cores and two GPUs would be shared among them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
        with DaskExecutor(partial(local_workers, Cluster(workers=2), 4), QUICK) as executor:
            patch.undo()
            yield executor


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def attempts_at(folder: Path, index: int) -> int:
    return len(list((folder / "attempts").glob(f"{index}.*")))


def wait_for(condition: Callable[[], Any], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "what was waited for did not happen"
        time.sleep(0.02)


def test_workers_write_what_one_process_writes(local: DaskExecutor, tmp_path: Path) -> None:
    alone = dict(SerialExecutor().run(partial(tasks.write_block, tmp_path / "serial", 0), range(40)))
    shared = list(local.run(partial(tasks.write_block, tmp_path / "shared", 0.01), range(40)))
    assert sorted(item for item, _ in shared) == list(range(40))
    assert {item: value for item, (value, _) in shared} == {item: value for item, (value, _) in alone.items()}
    assert len({process for _, (_, process) in shared}) == 2
    assert os.getpid() not in {process for _, (_, process) in shared}
    assert contents(tmp_path / "serial") == contents(tmp_path / "shared")
    assert len(contents(tmp_path / "shared")) == 80


def test_a_long_list_is_never_in_the_scheduler(local: DaskExecutor) -> None:
    most, seen = 0, []
    for item, result in local.run(abs, range(-60, 0)):
        assert local._workers is not None
        most = max(most, len(local._workers.client.futures))
        seen.append((item, result))
    assert sorted(seen) == [(item, -item) for item in range(-60, 0)]
    assert most <= 2


def test_closing_drops_what_has_not_begun(local: DaskExecutor, tmp_path: Path) -> None:
    results = local.run(partial(tasks.write_block, tmp_path, 0.05), range(1000))
    for _ in range(3):
        next(results)
    results.close()  # type: ignore[attr-defined]
    time.sleep(0.5)
    written = len(list(tmp_path.glob("*.done")))
    assert 3 <= written <= 5
    assert list(local.run(abs, [-1])) == [(-1, 1)]
    assert len(list(tmp_path.glob("*.done"))) == written


def test_a_killed_worker_loses_nothing(local: DaskExecutor, tmp_path: Path) -> None:
    local.notices()
    done: list[int] = []
    killed: set[int] = set()
    for item, (_, process) in local.run(partial(tasks.write_block, tmp_path, 0.1), range(40)):
        done.append(item)
        if len(done) in (5, 20):
            os.kill(process, signal.SIGKILL)
            killed.add(process)
    assert sorted(done) == list(range(40))
    assert len(killed) == 2
    expected = {f"{index}.block": tasks.block_of(index) for index in range(40)} | {f"{index}.done": b"" for index in range(40)}
    assert contents(tmp_path) == expected
    assert any("died or left" in event.text for event in local.notices() if isinstance(event, Warned))


def test_a_straggler_is_overtaken_and_reported_once(local: DaskExecutor, tmp_path: Path) -> None:
    local.notices()
    started = time.monotonic()
    results = list(local.run(partial(tasks.hang_once, tmp_path), range(12)))
    assert time.monotonic() - started < 30
    assert sorted(results) == [(index, index * index) for index in range(12)]
    assert attempts_at(tmp_path, 3) == 2
    (tmp_path / "go").touch()  # the worker is free again
    assert "another worker does it as well" in " ".join(str(event) for event in local.notices())


def test_an_unusable_input_is_reported_once_and_not_tried_again(local: DaskExecutor, tmp_path: Path) -> None:
    seen = []
    with pytest.raises(ConfigError, match=r"^1 problem with the test\n  file.tif: is damaged\n      -> look at it$") as caught:
        seen.extend(local.run(partial(tasks.refuse, tmp_path), range(6)))
    assert caught.value.problems[0].where == "file.tif"
    assert attempts_at(tmp_path, 2) == 1
    with pytest.raises(ConfigError, match="is damaged"):
        list(SerialExecutor().run(partial(tasks.refuse, tmp_path / "serial"), range(6)))


def test_other_errors_are_tried_again(local: DaskExecutor, tmp_path: Path) -> None:
    assert sorted(local.run(partial(tasks.fail_twice, tmp_path), range(4))) == [(index, index) for index in range(4)]
    assert [attempts_at(tmp_path, index) for index in range(4)] == [3] * 4
    with pytest.raises(ZeroDivisionError, match="item 7"):
        list(local.run(partial(tasks.fail_always, tmp_path), [7]))
    assert attempts_at(tmp_path, 7) == 1 + QUICK.retries


def test_cores_and_gpus_are_shared_out(local: DaskExecutor) -> None:
    found = {result for _, result in local.run(tasks.surroundings, range(4))}
    assert len({process for process, *_ in found}) == 2
    assert sorted({gpu for _, gpu, *_ in found}) == ["3", "5"]
    assert {(of_environment, of_torch) for *_, of_environment, of_torch in found} == {("2", 2)}


def test_another_version_on_a_worker_is_refused(local: DaskExecutor) -> None:
    assert local._workers is not None
    answer = local._workers.client.submit(Call(abs, crista_version="0.0.1"), -1).result()
    assert answer.value is None
    assert "this command is of crista 0.0.1: results could differ" in str(answer.error)
    assert isinstance(answer.error, ClusterError)


def test_a_result_out_of_reach_is_computed_again(local: DaskExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As from a machine that is cut off between finishing and being asked."""
    fetch, refused = distributed.Future.result, []

    def fetch_late(future: Any, timeout: float | None = None) -> Any:
        if future.key[1] == 2 and not refused:
            refused.append(future.key)
            raise TimeoutError
        return fetch(future, timeout)

    monkeypatch.setattr(distributed.Future, "result", fetch_late)
    results = sorted(local.run(partial(tasks.write_block, tmp_path, 0), range(6)))
    assert [item for item, _ in results] == list(range(6))
    assert [attempts_at(tmp_path, index) for index in range(6)] == [1, 1, 2, 1, 1, 1]
    assert len(refused) == 1


NOISELESS = """
import os, signal
from crista.config.cluster import Cluster
from crista.config.root import System
from crista.inference.distribution import build_executor
from tests import tasks
from functools import partial
from pathlib import Path

with build_executor(System(cluster=Cluster(workers=2))) as executor:
    results = executor.run(partial(tasks.write_block, Path("out"), 0.05), range(100))
    for number, (_, (_, process)) in enumerate(results):
        if number == 5:
            os.kill(process, signal.SIGKILL)
        if number == 10:
            break
print("the end")
"""


def test_deaths_and_goodbyes_make_no_noise(tmp_path: Path) -> None:
    """A worker is killed, and the others leave in the middle of their work: not a line of Dask's.

    The script has no guard (``if __name__ == "__main__"``), as worker processes do not import it.
    """
    (tmp_path / "script.py").write_text(NOISELESS)
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=100
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "the end\n", "")


def test_an_interrupt_ends_the_workers_in_order(tmp_path: Path) -> None:
    """Ctrl-C reaches every process of the terminal; only the first one has to say something."""
    listening = "import os, signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)"  # a background shell ignores it
    text = NOISELESS.replace("import os, signal", listening)
    text = text.replace("os.kill(process, signal.SIGKILL)", "os.killpg(0, signal.SIGINT)")
    (tmp_path / "script.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        start_new_session=True,
    )
    assert done.returncode == -signal.SIGINT
    assert done.stderr.count("Traceback") == 1
    assert done.stderr.rstrip().endswith("KeyboardInterrupt")
    assert "Dask" not in done.stderr


def test_workers_end_when_the_command_is_killed(tmp_path: Path) -> None:
    text = NOISELESS.replace("os.kill(process, signal.SIGKILL)", "os.kill(os.getpid(), signal.SIGKILL)")
    (tmp_path / "script.py").write_text(text)
    script = subprocess.Popen([sys.executable, "script.py"], cwd=tmp_path, env=ENVIRONMENT)
    wait_for((tmp_path / "out/1.done").is_file)
    workers = [child.pid for child in psutil.Process(script.pid).children(recursive=True)]
    assert script.wait() == -signal.SIGKILL
    assert len(workers) >= 3
    wait_for(lambda: not any(is_alive(worker) for worker in workers))


def test_workers_that_cannot_start_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ClusterError, match=r"the worker processes ended \(nothing was said\)\n    -> without --workers"):
        DaskExecutor(partial(local_workers, Cluster(workers=2), 2), QUICK).__enter__()


def test_a_task_that_kills_its_workers_is_given_up(tmp_path: Path) -> None:
    few = partial(local_workers, Cluster(workers=2, allowed_failures=1), 2)
    with DaskExecutor(few, QUICK) as executor, pytest.raises(ClusterError) as caught:
        list(executor.run(partial(tasks.kill_own_worker, tmp_path), range(3)))
    message = str(caught.value)
    assert message.startswith("2 workers died one after the other over the same task (1), which may need more memory")
    assert "of 3 tasks are done and kept\n    -> look whether the memory was full" in message
    assert 2 <= attempts_at(tmp_path, 1) <= 6  # where workers start slowly, others try it too, each once or twice


Result = tuple[int, tuple[int, int]]


def and_kill(processes: Iterable[subprocess.Popen[bytes]], after: int, results: Iterable[Result]) -> Iterator[int]:
    """The items of `results`; after so many of them the processes are killed."""
    for number, (item, _) in enumerate(results, 1):
        yield item
        if number == after:
            for process in processes:
                process.send_signal(signal.SIGKILL)


class Site:
    """A scheduler and workers as processes of their own, as they would run on several machines."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._stack = stack
        self._log = stack.enter_context((folder / "site.log").open("w"))
        self._file = folder / "scheduler.json"
        options = ("--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(self._file))
        self.scheduler = self._start("dask_scheduler", *options)
        wait_for(self._file.is_file)
        wait_for(self._file.read_text)
        self.address: str = json.loads(self._file.read_text())["address"]

    def add_worker(self) -> subprocess.Popen[bytes]:
        return self._start("dask_worker", self.address, "--no-nanny", "--nthreads", "1", "--no-dashboard")

    def _start(self, program: str, *options: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.{program}", *options]
        process = subprocess.Popen(command, env=ENVIRONMENT, stdout=self._log, stderr=self._log)
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return process


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        yield Site(tmp_path, stack)


def test_workers_of_a_scheduler_come_and_die(site: Site, tmp_path: Path) -> None:
    """All of them die: the run says so and keeps what is done; with a new worker the rest follows."""
    workers = [site.add_worker(), site.add_worker()]
    patience = Patience(timeout=2, tick=0.1)
    task = partial(tasks.write_block, tmp_path / "out", 0.05)
    done: list[int] = []
    with DaskExecutor(partial(workers_of_scheduler, Cluster(scheduler=site.address)), patience) as executor:
        wait_for(lambda: executor._workers is not None and len(executor._workers.client.nthreads()) == 2)
        with pytest.raises(ClusterError) as caught:
            done.extend(and_kill(workers, 10, executor.run(task, range(60))))
        assert f"no worker at {site.address} for 2 seconds; {len(done)} of 60 tasks are done and kept" in str(caught.value)
        assert f"start some: dask worker {site.address}" in str(caught.value)
        assert 10 <= len(done) <= 12
        site.add_worker()
        wait_for(lambda: executor._workers is not None and executor._workers.client.nthreads())
        done += [item for item, _ in executor.run(task, sorted(set(range(60)) - set(done)))]
    assert sorted(done) == list(range(60))
    expected = {f"{index}.block": tasks.block_of(index) for index in range(60)} | {f"{index}.done": b"" for index in range(60)}
    assert contents(tmp_path / "out") == expected


def test_a_scheduler_that_dies_ends_the_run(site: Site, tmp_path: Path) -> None:
    site.add_worker()
    message = r"no worker at tcp://127.0.0.1:\d+ for 2 seconds; \d+ of 500 tasks are done"
    workers = partial(workers_of_scheduler, Cluster(scheduler=site.address))
    quickly = dask.config.set({"distributed.comm.timeouts.connect": "2s"})
    with quickly, DaskExecutor(workers, Patience(timeout=2, tick=0.1)) as executor, pytest.raises(ClusterError, match=message):
        list(and_kill([site.scheduler], 5, executor.run(partial(tasks.write_block, tmp_path / "out", 0.02), range(500))))


def test_no_scheduler_there() -> None:
    system = System(cluster=Cluster(scheduler="tcp://127.0.0.1:9"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("crista.inference.distribution.workers.CONNECT_SECONDS", 1.0)
        with pytest.raises(ClusterError, match=r"the scheduler tcp://127.0.0.1:9 does not answer: (.|\n)*is it running"):
            build_executor(system).__enter__()


def test_without_dask_one_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ConfigError, match=r'SYSTEM.CLUSTER: (.|\n)*pip install "crista\[cluster\]"'):
        build_executor(System(cluster=Cluster(workers=2)))
    assert isinstance(build_executor(System()), SerialExecutor)


FAKE_SLURM = {
    "sbatch": """#!/bin/sh
        cp "$1" "{folder}/$$.script"
        setsid bash "{folder}/$$.script" > "{folder}/$$.out" 2>&1 &
        echo $! > "{folder}/$$.pid"
        echo "Submitted batch job $$"
    """,
    "scancel": """#!/bin/sh
        kill -9 -- -$(cat "{folder}/$1.pid")
        touch "{folder}/$1.cancelled"
    """,
}


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A queue that starts every job at once: the commands of SLURM as far as they are used; returns the folder of its jobs."""
    (tmp_path / "bin").mkdir()
    folder = tmp_path / "jobs"
    folder.mkdir()
    for name, text in FAKE_SLURM.items():
        program = tmp_path / "bin" / name
        program.write_text(text.replace("{folder}", str(folder)))
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", ENVIRONMENT["PYTHONPATH"])
    return folder


def test_jobs_of_a_queue_work_and_are_replaced(slurm: Path, tmp_path: Path) -> None:
    """Two jobs; one is killed as at the end of its walltime: another one is submitted, nothing is lost, none is left behind."""
    cluster = Cluster(queue="slurm", workers=2, cores=1, memory="1 GB", prologue=(f"touch {slurm}/prologue",))
    done = []
    with dask.config.set({"distributed.deploy.lost-worker-timeout": "1s"}), build_executor(System(cluster=cluster)) as executor:
        said = " ".join(str(event) for event in executor.notices())
        for item, _ in executor.run(partial(tasks.write_block, tmp_path / "out", 0.1), range(2000)):
            done.append(item)
            if len(done) == 10:
                os.killpg(int(next(slurm.glob("*.pid")).read_text()), signal.SIGKILL)
            said += " ".join(str(event) for event in executor.notices())
            if "died or left" in said and said.rindex("joined") > said.index("died or left"):
                break
    assert "2 jobs submitted to slurm" in said
    assert "#SBATCH --cpus-per-task=1" in said
    assert len(done) == len(set(done)) >= 10
    assert (slurm / "prologue").is_file()
    assert len(list(slurm.glob("*.script"))) >= 3
    wait_for(lambda: not any(is_alive(int(path.read_text())) for path in slurm.glob("*.pid")))


def test_a_job_that_the_queue_does_not_take(slurm: Path) -> None:
    program = slurm.parent / "bin/sbatch"
    program.write_text("#!/bin/sh\necho 'sbatch: error: invalid partition specified: nix' >&2\nexit 1\n")
    cluster = Cluster(queue="slurm", workers=2, partition="nix")
    with build_executor(System(cluster=cluster)) as executor, pytest.raises(ClusterError) as caught:
        list(executor.run(abs, [-1]))
    assert str(caught.value).startswith("sbatch does not take the job: sbatch: error: invalid partition specified: nix\n    -> ")
    assert "SYSTEM.CLUSTER.PARTITION" in str(caught.value)


def test_a_machine_without_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="jobs are submitted with bsub, which this machine does not have"):
        build_executor(System(cluster=Cluster(queue="lsf", workers=2))).__enter__()


def is_alive(process: int) -> bool:
    """Whether a process runs (and is not only waited for)."""
    status = Path(f"/proc/{process}/stat")
    return status.is_file() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def test_the_command_with_a_killed_worker_writes_what_one_process_writes(
    make_data: MakeData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real thing: a network, images, `--workers 2`, and SIGKILL for one of them."""
    monkeypatch.setattr("crista.results.recorder.draw_charts", lambda *_, **__: [])
    monkeypatch.setattr("crista.workflow.run.write_run_report", lambda *_: iter(()))
    monkeypatch.setattr("crista.workflow.run.draw_network", lambda folder, _: folder.model_plot)
    make_data(train=2, test=0)
    data = make_data(shape=(256, 256), train=0, test=16)
    config = tiny_config(data, train={"EPOCHS": 1}, test={"ENABLE": False, "ENGINE": "torch"})
    checkpoint = run(config, result_dir=tmp_path, name="job").folder.checkpoint_best
    alone = predict(checkpoint, data / "test/x", labels=data / "test/y", result_dir=tmp_path, name="alone").folder
    command = ["predict", str(checkpoint), str(data / "test/x"), "--labels", str(data / "test/y"), "--result_dir", str(tmp_path)]
    with (tmp_path / "said.txt").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "crista", *command, "--name", "shared", "--workers", "2"],
            env=ENVIRONMENT,
            stdout=output,
            stderr=output,
        )
    results = tmp_path / "shared/results/shared_1"
    wait_for(lambda: any((results / "per_image_binarized").glob("*.tif")) or process.poll() is not None, 100)
    workers = [child for child in psutil.Process(process.pid).children(recursive=True) if "spawn_main" in str(child.cmdline())]
    assert len(workers) == 2
    workers[0].kill()
    assert len(list((results / "per_image_binarized").glob("*.tif"))) < 16, "it died in the middle"
    assert process.wait(timeout=100) == 0, (tmp_path / "said.txt").read_text()
    files = sorted(path.name for path in alone.per_image_binarized.iterdir())
    assert len(files) == 16
    for name in files:
        assert (results / "per_image_binarized" / name).read_bytes() == (alone.per_image_binarized / name).read_bytes()
    assert (results / "test_results_metrics.csv").read_text() == alone.test_results_metrics.read_text()
