"""SYSTEM.CLUSTER: shards, checks of the keys, scripts of jobs, flags; and that none of it changes a result."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import MakeData, tiny_config
from tests.networks import drawn_weights, network_plan

from crista.cli import jobs
from crista.cli.main import main
from crista.config.cluster import Cluster, parse_shard
from crista.config.load import config_from_dict, parse_config
from crista.config.root import System
from crista.config.test import ByChunks
from crista.errors import ClusterError, ConfigError, ImageReadError, Problem
from crista.images.image import ImagePair
from crista.images.open import open_image
from crista.inference.distribution import SerialExecutor, build_executor, dask_executor, shard_of
from crista.inference.distribution.call import gpu_of
from crista.inference.distribution.queues import job_script, num_jobs, seconds_of
from crista.inference.distribution.ranks import RankExecutor
from crista.inference.distribution.workers import gpus_for, visible_gpus
from crista.inference.record import record_key, weights_digest
from crista.inference.task import OutputFolders
from crista.training.checkpoint import load_checkpoint
from crista.training.loop import training_key
from crista.workflow import remote
from crista.workflow.api import run
from crista.workflow.request import request_prediction


@given(st.integers(0, 300), st.integers(1, 40))
def test_shards_are_disjoint_and_complete(num_items: int, count: int) -> None:
    shards = [list(shard_of(range(num_items), index, count)) for index in range(count)]
    assert sorted(item for shard in shards for item in shard) == list(range(num_items))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1
    assert shards[0] == list(range(0, num_items, count))


def test_a_shard_beyond_the_last_is_refused() -> None:
    with pytest.raises(ValueError, match="shard 8 of 8 does not exist: shards count from 0 to 7"):
        shard_of("abc", 8, 8)


@pytest.mark.parametrize(("text", "shard"), [("0/8", (0, 8)), (" 7 / 8 ", (7, 8)), ("0/1", (0, 1))])
def test_shards_are_read(text: str, shard: tuple[int, int]) -> None:
    assert parse_shard(text) == shard
    assert Cluster(shard=text).own_shard == shard
    assert Cluster().own_shard == (0, 1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("3", "SHARD '3' must be i/n, counted from 0: 0/8 is the first of 8, 7/8 the last"),
        ("a/b", "SHARD 'a/b' must be i/n"),
        ("0.5/2", "must be i/n"),
        ("0/0", "there is no part of 0"),
        (
            "8/8",
            "is beyond the last shard 7/8, as they count from 0; an array that counts from 1 has to subtract 1, or count 0-7",
        ),
        ("9/8", "SHARD '9/8' is not among 0/8 … 7/8"),
        ("-1/8", "SHARD '-1/8' is not among 0/8 … 7/8"),
    ],
)
def test_what_is_no_shard_is_explained(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(f"SYSTEM:\n  CLUSTER:\n    SHARD: '{text}'\n", "job.yaml")
    assert words in str(caught.value)
    assert "job.yaml line 3, SYSTEM.CLUSTER.SHARD" in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ("{QUEUE: slurm}", "QUEUE needs WORKERS, the number of jobs, e.g. 8"),
        ("{SHARD: 0/2, WORKERS: 2}", "SHARD is the part of this one process; WORKERS and SCHEDULER divide the work themselves"),
        ("{QUEUE: slurm, WORKERS: 2, SCHEDULER: 'tcp://a:1'}", "SCHEDULER names a running one: give one of them"),
        ("{QUEUE: slurm, WORKERS: 2, MIN_JOBS: 3}", "MIN_JOBS 3 is more than WORKERS 2"),
        ("{QUEUE: slrm, WORKERS: 2}", "did you mean slurm?"),
        ("{QUEUE: pbs, WORKERS: 2, MEMORY: lots}", "MEMORY 'lots' is no amount of memory; write e.g. 16 GB"),
        ("{QUEUE: pbs, WORKERS: 2, WALLTIME: 2h}", "WALLTIME '2h' is no time; write hours:minutes:seconds"),
        ("{SCHEDULER: host}", "SCHEDULER 'host' is no address; write e.g. tcp://host:8786"),
        ("{WORKERS: -1}", "must be at least 0, but is -1"),
    ],
)
def test_keys_that_cannot_be_used_are_explained(keys: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(f"SYSTEM: {{CLUSTER: {keys}}}")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"memory": "8 GB"}, "SYSTEM.CLUSTER.MEMORY has no effect: SYSTEM.CLUSTER.QUEUE is empty"),
        ({"retries": 7, "timeout": 5}, "SYSTEM.CLUSTER.RETRIES, SYSTEM.CLUSTER.TIMEOUT have no effect"),
        ({"workers": 3, "scheduler": "tcp://a:1"}, "SYSTEM.CLUSTER.WORKERS has no effect: SYSTEM.CLUSTER.SCHEDULER has workers"),
        ({"allowed_failures": 1, "scheduler": "tcp://a:1"}, "SYSTEM.CLUSTER.ALLOWED_FAILURES has no effect"),
    ],
)
def test_keys_without_effect_are_said(keys: dict[str, object], words: str) -> None:
    notices = config_from_dict({"system": {"cluster": keys}}).notices
    assert len([notice for notice in notices if words in notice]) == 1
    assert config_from_dict({"system": {"cluster": {"workers": 2, "retries": 7}}}).notices == ()


def test_torchrun_and_workers_are_not_mixed() -> None:
    for cluster, asks in ((Cluster(workers=2), "asks for workers"), (Cluster(shard="0/2"), "SHARD asks for a part of the work")):
        with pytest.raises(ConfigError, match=f"{asks}, but torchrun has started 2 processes, which share all of it"):
            build_executor(System(cluster=cluster), rank=0, world_size=2)
    assert isinstance(build_executor(System(cluster=Cluster(shard="0/1")), rank=1, world_size=2), RankExecutor)


def test_alone_the_tasks_are_done_in_order_and_lazily() -> None:
    done: list[int] = []
    with build_executor(System()) as executor:
        assert isinstance(executor, SerialExecutor)
        results = executor.run(done.append, range(4))
        assert next(results) == (0, None)
        assert done == [0]
        assert [item for item, _ in results] == [1, 2, 3]
        assert executor.notices() == []


def test_errors_travel_between_processes() -> None:
    error = ConfigError("in the configuration", [Problem("A.B", "is wrong", "mend it")])
    for sent in (error, ImageReadError("a.tif: is damaged")):
        received = pickle.loads(pickle.dumps(sent))
        assert type(received) is type(sent)
        assert str(received) == str(sent)
    assert pickle.loads(pickle.dumps(error)).problems == error.problems


def test_a_worker_that_outlives_a_run_does_not_predict_the_next_one_as_the_last(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The same network, now turned: an engine that is kept must not be the one that does not turn images."""
    monkeypatch.setattr(remote, "_READY", {})
    monkeypatch.setattr(remote, "load_network", lambda *_, **__: SimpleNamespace(weights={}))
    monkeypatch.setattr(remote, "build_chosen_engine", lambda plan, *_, **__: plan.config.test.augmentation)
    folders = OutputFolders(*[tmp_path] * 7)
    plan = network_plan()

    def engine_of(**test: object) -> object:
        settings = plan.config.model_copy(update={"test": plan.config.test.model_copy(update=test)})
        setup = remote.WorkerSetup(
            plan.model_copy(update={"config": settings}), tmp_path / "best.pth", weights_digest({}), folders, "cpu", str(tmp_path)
        )
        return remote._predictor(setup).engine

    assert [engine_of(augmentation=turned) for turned in (False, True, False)] == [False, True, False]


def test_a_worker_that_comes_when_the_checkpoint_is_another_one_does_not_predict_with_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Hours may pass until a job of a queue begins; the images would be of two networks, and their records of one."""
    plan = network_plan()
    before, after = (drawn_weights(plan, seed=seed) for seed in (0, 1))
    monkeypatch.setattr(remote, "_READY", {})
    monkeypatch.setattr(remote, "load_network", lambda *_, **__: SimpleNamespace(weights=after))
    folders = OutputFolders(*[tmp_path] * 7)
    setup = remote.WorkerSetup(plan, tmp_path / "best.pth", weights_digest(before), folders, "cpu", str(tmp_path))
    with pytest.raises(ClusterError, match=r"finds other weights in .*best\.pth than(?s:.*)-> was the network trained on"):
        remote._predictor(setup)
    assert remote._predictor(replace(setup, digest=weights_digest(after))).engine.name == "torch"


@pytest.mark.parametrize("error", [TimeoutError("nobody answers"), OSError("the connection is closed")])
def test_a_result_that_cannot_be_fetched_is_computed_again(error: Exception) -> None:
    class Unfetchable:
        status = "finished"

        def result(self, timeout: float) -> None:  # noqa: ARG002 - Dask's
            raise error

    workers: Any = SimpleNamespace(client=SimpleNamespace(status="closed"), gpus=())
    future: Any = Unfetchable()
    watch: Any = None
    work = dask_executor._Round(workers, str, ["item"], dask_executor.Patience(), watch)
    task = dask_executor._Task(work._waiting.popleft(), 0.0, [future])
    work._tasks[0] = task
    assert work._answer(task, future) is None
    assert (list(work._waiting), work._tasks) == ([0], {})


def test_stragglers_of_a_scheduler_that_does_not_answer_are_left_alone() -> None:
    """The watch ends the run, in words, if nobody comes back; a closed connection must not end it before."""

    def gone() -> None:
        raise OSError("the connection is closed")

    workers: Any = SimpleNamespace(client=SimpleNamespace(status="closed", processing=gone), gpus=())
    watch: Any = SimpleNamespace(count=2)
    work = dask_executor._Round(workers, str, ["item"], dask_executor.Patience(straggler_seconds=0.0), watch)
    future: Any = SimpleNamespace(key=("name", 0, 0))
    task = dask_executor._Task(0, -1e6, [future])
    work._tasks[0] = task
    work._seconds.append(0.1)
    work._start_stragglers_again()
    assert task.futures == [future]


def test_a_task_that_failed_for_good_is_not_started_again_and_again() -> None:
    """It ends its workers, and that takes longer than tasks usually take: each new attempt would put off the end for ever."""
    submitted: list[str] = []
    client = SimpleNamespace(
        status="running", processing=lambda: {"a": [], "b": []}, submit=lambda *_, **__: submitted.append("again")
    )
    workers: Any = SimpleNamespace(client=client, gpus=())
    watch: Any = SimpleNamespace(count=2, say=lambda _: None)
    work = dask_executor._Round(workers, str, ["item"], dask_executor.Patience(straggler_seconds=0.0), watch)
    failed, going_on = (cast("Any", SimpleNamespace(key=("name", 0, number))) for number in range(2))
    task = dask_executor._Task(0, -1e6, [failed, going_on])
    work._tasks[0] = task
    work._seconds.append(0.1)
    work._failed(task, failed)
    work._start_stragglers_again()
    assert (task.futures, submitted) == ([going_on], [])


def test_nobody_is_asked_to_do_nothing(tmp_path: Path) -> None:
    """All is done already: no job is submitted, and no scheduler need answer."""

    class Unreachable(SerialExecutor):
        def __enter__(self) -> Self:
            pytest.fail("workers were started")

    setup = remote.WorkerSetup(network_plan(), tmp_path / "best.pth", "digest", OutputFolders(*[tmp_path] * 7), "cpu", ".")
    assert list(remote.elsewhere(Unreachable(), setup)([])) == []


def test_a_worker_that_does_not_reach_the_folder_of_the_command_says_so(tmp_path: Path) -> None:
    """It is on another machine, and the command was started in a folder of this one."""
    folders, nowhere = OutputFolders(*[tmp_path] * 7), str(tmp_path / "only here")
    setup = remote.WorkerSetup(network_plan(), tmp_path / "best.pth", "digest", folders, "cpu", nowhere)
    task: Any = None
    with pytest.raises(ClusterError, match=r"cannot go to .*only here, where this command was started(?s:.*)-> workers need"):
        remote.perform_task(setup, task)


def test_gpus_go_round(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [gpu_of(f"crista-{index}", ("3", "5")) for index in range(5)] == ["3", "5", "3", "5", "3"]
    assert gpu_of("crista", ("3",)) == "3"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, GPU-1a")
    assert visible_gpus() == ("2", "GPU-1a")
    assert gpus_for(None) == gpus_for("cuda") == gpus_for("cuda:0") == ("2", "GPU-1a")
    assert gpus_for("cuda:1") == ("GPU-1a",)
    assert gpus_for("cpu") == gpus_for("mps") == ()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == ()


@pytest.mark.parametrize(
    ("text", "seconds"), [("02:00:00", 7200), ("1-00:30:05", 88205), ("01:30", 5400), ("100:00:00", 360_000)]
)
def test_walltimes(text: str, seconds: int) -> None:
    assert seconds_of(text) == seconds


def settings(queue: str, **others: object) -> Cluster:
    """A job that asks for everything."""
    return Cluster.model_validate(
        {
            "queue": queue,
            "workers": 8,
            "partition": "long",
            "account": "lab",
            "cores": 12,
            "memory": "64 GiB",
            "walltime": "10:00:00",
            "directives": ["--gres=gpu:1"],
            "prologue": ["module load cuda"],
            "python": "/opt/env/bin/python",
            "interface": "lo",
            **others,
        }
    )


HEADERS = {
    "slurm": [
        "#SBATCH -J crista",
        "#SBATCH -p long",
        "#SBATCH -A lab",
        "#SBATCH -n 1",
        "#SBATCH --cpus-per-task=12",
        "#SBATCH --mem=64G",
        "#SBATCH -t 10:00:00",
        "#SBATCH --gres=gpu:1",
    ],
    "pbs": [
        "#PBS -N crista",
        "#PBS -q long",
        "#PBS -A lab",
        "#PBS -l select=1:ncpus=12:mem=64GB",
        "#PBS -l walltime=10:00:00",
        "#PBS --gres=gpu:1",
    ],
    "lsf": ["#BSUB -J crista", "#BSUB -q long", '#BSUB -P "lab"', "#BSUB -n 12", "#BSUB -W 10:00:00", "#BSUB --gres=gpu:1"],
    "sge": ["#$ -N crista", "#$ -q long", "#$ -P lab", "#$ -l h_rt=10:00:00", "#$ --gres=gpu:1"],
}


@pytest.mark.parametrize("queue", HEADERS)
def test_the_script_of_a_job(queue: str) -> None:
    pytest.importorskip("dask_jobqueue", reason="the extra `cluster` is not installed")
    lines = job_script(settings(queue), "tcp://login:4321").splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    assert [line for line in lines if line in HEADERS[queue]] == HEADERS[queue]
    assert lines[-2] == "module load cuda"
    assert lines[-1].startswith(
        "/opt/env/bin/python -m distributed.cli.dask_worker tcp://login:4321 --name <worker> --nthreads 12 "
    )
    assert "--memory-limit 64.00GiB" in lines[-1]
    assert "--lifetime 32400s --lifetime-stagger 1800s" in lines[-1], "nine tenths of the walltime"
    assert "--interface lo" in lines[-1]
    assert "export DASK_DISTRIBUTED__WORKER__MEMORY__PAUSE=False" in lines


def test_numbers_of_jobs() -> None:
    assert num_jobs(settings("slurm")) == (8, 8)
    assert num_jobs(settings("slurm", min_jobs=2)) == (2, 8)


def test_jobscript_shows_what_would_be_submitted(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pytest.importorskip("dask_jobqueue", reason="the extra `cluster` is not installed")
    (tmp_path / "job.yaml").write_text("SYSTEM: {CLUSTER: {CORES: 3, MEMORY: 5 GiB}}\n")
    assert main(["jobscript", str(tmp_path / "job.yaml"), "--queue", "slurm", "--workers", "2"]) == 0
    shown = capsys.readouterr().out
    assert "#SBATCH --cpus-per-task=3\n#SBATCH --mem=5G\n#SBATCH -t 02:00:00\n" in shown
    assert main(["jobscript"]) == 1
    error = capsys.readouterr().err
    assert "SYSTEM.CLUSTER.QUEUE: is empty: there are no jobs" in error
    assert "--queue slurm" in error


@pytest.mark.parametrize("words", [["run", "job.yaml"], ["--config", "job.yaml"], ["predict", "a.pth", "images"]])
def test_flags_are_changes_of_keys(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    monkeypatch.setattr(jobs, "start", lambda *given: seen.append(given[-1]))
    monkeypatch.setattr("crista.workflow.request.find_checkpoint", lambda path: path)
    flags = ["--workers", "4", "--queue", "pbs", "--scheduler", "tcp://h:1", "--shard", "1/3", "--set", "TRAIN.EPOCHS=2"]
    assert main([*words, *flags]) == 0
    assert main(words) == 0
    changes = {"WORKERS": "4", "SCHEDULER": "tcp://h:1", "QUEUE": "pbs", "SHARD": "1/3"}
    assert seen == [[*(f"SYSTEM.CLUSTER.{key}={value}" for key, value in changes.items()), "TRAIN.EPOCHS=2"], None]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--workers", "2"], "no configuration was given"),
        (["--workers", "-2", "--config", "a.yaml"], "Invalid value for '--workers'"),
        (["run", "a.yaml", "--queue", "slrm"], "'slurm', 'pbs', 'lsf', 'sge'"),
        (["--workers", "2", "check"], "give flags after the command: crista check"),
        (["train", "a.yaml", "--workers", "2"], "No such option: --workers"),
    ],
)
def test_wrong_flags(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert message in capsys.readouterr().err


def test_who_predicts_changes_no_key_of_a_result(make_data: MakeData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither is a training begun anew nor an image predicted again; a checkpoint remembers neither machines nor slices."""
    monkeypatch.setattr("crista.results.recorder.draw_charts", lambda *_, **__: [])
    monkeypatch.setattr("crista.workflow.run.draw_network", lambda folder, _: folder.model_plot)
    data = make_data(test=1)
    machines = {"CLUSTER": {"WORKERS": 4, "RETRIES": 1}, "DEVICE": "cpu", "NUM_WORKERS": 2, "SEED": 3}
    test = {"ENABLE": False, "BY_CHUNKS": {"ENABLE": True, "Z_START": 3, "Z_END": 5}}
    config = tiny_config(data, train={"EPOCHS": 1}, test=test, system=machines)
    checkpoint = run(config, result_dir=tmp_path, name="job").folder.checkpoint_best
    plan = load_checkpoint(checkpoint).plan
    assert plan.config.system.cluster == Cluster(workers=4, retries=1)
    system = plan.config.system.model_copy(update={"cluster": Cluster()})
    alone = plan.model_copy(update={"config": plan.config.model_copy(update={"system": system})})
    assert training_key(alone) == training_key(plan)
    pair = ImagePair(open_image(data / "test/x/00.tif", ndim=2), None)
    assert record_key("weights", alone, pair) == record_key("weights", plan, pair)
    assert request_prediction(checkpoint, data / "test/x", result_dir=tmp_path).config.system == System(seed=3)
    assert request_prediction(checkpoint, data / "test/x", result_dir=tmp_path).config.test.by_chunks == ByChunks(enable=True)
    elsewhere = request_prediction(checkpoint, data / "test/x", result_dir=tmp_path, overrides=["SYSTEM.DEVICE=cuda:1"])
    assert elsewhere.config.system.device == "cuda:1"
