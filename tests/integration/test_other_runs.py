"""Prediction shared by processes, where others write too: late, with another network, or the same image once more."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests.integration.test_biapy_weaknesses import Oracle, finish, oracle_job
from tests.integration.test_one_task_images import contents, interrupted
from tests.integration.test_stacks import TRUTH as SLICES
from tests.integration.test_stacks import expected, filtered, small_blocks, stack_job
from tests.jobs import labels

from crista.errors import ClusterError
from crista.images.downsampling import build_pyramid
from crista.inference import statistics
from crista.inference import task as task_module
from crista.inference.distribution import SerialExecutor
from crista.inference.record import ImageRecord
from crista.inference.stage import PredictionJob, predict_images, predict_shard
from crista.inference.task import TaskReport, plan_tasks
from crista.plan.events import Said, Warned
from crista.workflow import remote

TRUTH = [np.random.default_rng(seed).integers(0, 4, (37, 45)).astype(np.uint8) for seed in range(3)]
PROBABILITIES = "DATA.TEST.ARGMAX_TO_OUTPUT=False"
ZARR = "TEST.BY_CHUNKS.ENABLE=True"
FILTER = tuple(f"TEST.POST_PROCESSING.MEDIAN_FILTER{rest}" for rest in ("=True", "_AXIS=[xy]", "_SIZE=[3]"))
KINDS = {"labels": (), "probabilities": (PROBABILITIES,), "zarr": (ZARR, PROBABILITIES), "filtered": FILTER}


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], PredictionJob]:
    """A job of three images, in a folder of its own."""
    return lambda name: oracle_job(tmp_path / name, TRUTH, *KINDS[request.param], num_classes=4)


def with_another_network(job: PredictionJob) -> PredictionJob:
    """The same, with a network that takes every class for the next one."""

    def wrong(scores: np.ndarray) -> None:
        scores[:] = np.roll(scores, 1, axis=1)

    return replace(job, digest="another", predictor=replace(job.predictor, engine=Oracle(4, wrong)))


def do_shards(job: PredictionJob, count: int = 2) -> None:
    for index in range(count):
        list(predict_shard(job, index, count))


def setup_of(job: PredictionJob) -> remote.WorkerSetup:
    return remote.WorkerSetup(job.plan, Path("best.pth"), job.digest, job.folders, "cpu", str(Path.cwd()))


@pytest.fixture
def by_worker(monkeypatch: pytest.MonkeyPatch) -> Callable[[PredictionJob], PredictionJob]:
    """The job with its tasks done as a worker does them."""

    def elsewhere(job: PredictionJob) -> PredictionJob:
        monkeypatch.setattr(remote, "_predictor", lambda _: job.predictor)
        return replace(job, elsewhere=remote.elsewhere(SerialExecutor(), setup_of(job)))

    return elsewhere


def test_workers_and_shards_leave_what_one_process_leaves(
    make: Callable[[str], PredictionJob], by_worker: Callable[[PredictionJob], PredictionJob]
) -> None:
    alone, workers, shards = make("alone"), make("workers"), make("shards")
    finish(alone)
    finish(by_worker(workers))
    do_shards(shards)
    assert not shards.folders.per_image_binarized.exists(), "what nobody has put together has no final name"
    finish(shards)
    left = contents(alone.folders.state.parent)
    assert len(left) > 3
    for job in (workers, shards):
        assert contents(job.folders.state.parent) == left
        assert not list(job.folders.state.glob("work/*"))
        assert not list(job.folders.state.glob(".scratch-*"))


def test_shards_of_another_network_do_not_get_into_the_images_of_this_one(make: Callable[[str], PredictionJob]) -> None:
    """Shards of a network, then shards of another one; the first is the one that is put together."""
    alone, job = make("alone"), make("shards")
    finish(alone)
    do_shards(job)
    do_shards(with_another_network(job), 3)
    said = " ".join(event.text for event in predict_images(job) if isinstance(event, Said))
    assert "other settings, files or tiles had predicted of 3 images is of no use here: removed" in said
    records = finish(job)
    assert contents(job.folders.state.parent) == contents(alone.folders.state.parent)
    assert all(np.trace(record.confusions["per_image"]) == TRUTH[0].size for record in records)


def test_shards_of_another_network_leave_the_records_of_this_one(make: Callable[[str], PredictionJob]) -> None:
    """What they predict has no final name yet, so that what lies there is still vouched for."""
    job = make("shards")
    finish(job)
    records = {path.name: path.read_bytes() for path in job.folders.state.glob("*.json")}
    do_shards(with_another_network(job))
    assert len(records) == len(TRUTH)
    assert {path.name: path.read_bytes() for path in job.folders.state.glob("*.json")} == records


def test_reports_of_images_under_final_names_do_not_outlive_those_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tasks by this process, killed before the record; another network's shards, put together and killed; this one again."""
    monkeypatch.setattr("crista.inference.task.is_exact", lambda *_: False)
    job = replace(oracle_job(tmp_path, TRUTH[:1], num_classes=4), full_image=True)
    other = with_another_network(job)
    for killed in (job, other):
        if killed is other:
            do_shards(other)
        with monkeypatch.context() as patch:
            patch.setattr(ImageRecord, "save", interrupted)
            with pytest.raises(KeyboardInterrupt):
                finish(killed)
    finish(job)
    for folder in (job.folders.per_image_binarized, job.folders.full_image_binarized):
        np.testing.assert_array_equal(labels(folder / "0.tif", 2), TRUTH[0])


def test_a_worker_of_an_earlier_run_that_comes_late_does_not_get_into_the_images_of_this_one(
    make: Callable[[str], PredictionJob], by_worker: Callable[[PredictionJob], PredictionJob]
) -> None:
    """Its run was ended, with a task under way on a scheduler that lives on."""
    alone, job = make("alone"), make("workers")
    finish(alone)
    finish(by_worker(job))
    before = with_another_network(job)
    by_worker(before)
    [late] = plan_tasks(before.plan, before.pairs[1], "1", before.keys[1], full_image=False)
    remote.perform_task(setup_of(before), late)
    work = str(job.folders.work("1", late.key).relative_to(job.folders.state.parent))
    left = {name: content for name, content in contents(job.folders.state.parent).items() if not name.startswith(work)}
    assert left == contents(alone.folders.state.parent)
    finish(by_worker(job))
    assert contents(job.folders.state.parent) == contents(alone.folders.state.parent)


def test_a_stack_is_filtered_by_the_probabilities_of_its_own_network(tmp_path: Path) -> None:
    job = stack_job(tmp_path)
    do_shards(job)
    do_shards(with_another_network(job))
    finish(job)
    np.testing.assert_array_equal(filtered(job), expected(SLICES))
    assert not (job.folders.state / "stack").exists()


def test_a_worker_without_the_engine_that_was_chosen_is_told_of_once(
    tmp_path: Path, by_worker: Callable[[PredictionJob], PredictionJob]
) -> None:
    """The log of the worker may lie on another machine."""
    for chosen, count in (("openvino", 1), ("oracle", 0)):
        job = oracle_job(tmp_path / chosen, TRUTH, num_classes=4)
        inference = job.plan.inference.model_copy(update={"engine": chosen})
        plan = job.plan.model_copy(update={"inference": inference})
        job = by_worker(replace(job, predictor=replace(job.predictor, plan=plan)))
        told = [event.text for event in predict_images(job) if isinstance(event, Warned)]
        assert len(told) == count
        assert all(text.startswith("a worker predicts with oracle, where openvino was chosen") for text in told)


class AsSent(SerialExecutor):
    """Tasks come to a worker as copies, each anew."""

    def run(self, function: Callable[[Any], Any], items: Any) -> Any:
        for item in items:
            yield item, function(pickle.loads(pickle.dumps(item)))


def test_a_worker_looks_at_the_files_of_an_image_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Zarr folder of a large volume has tens of thousands; looking at them for each block is slower than predicting it."""
    small_blocks(monkeypatch)
    monkeypatch.setattr(statistics, "KEPT_BYTES", 0)
    looked: list[Path] = []
    monkeypatch.setattr(statistics, "state_of_image", lambda image: looked.append(image.path) or [str(image.path)])
    job = oracle_job(tmp_path, TRUTH[:2], num_classes=4)
    monkeypatch.setattr(remote, "_predictor", lambda _: job.predictor)
    finish(replace(job, elsewhere=remote.elsewhere(AsSent(), setup_of(job))))
    assert looked == [pair.image.path for pair in job.pairs]
    for index, truth in enumerate(TRUTH[:2]):
        np.testing.assert_array_equal(labels(job.folders.per_image_binarized / f"{index}.tif", 2), truth)


def test_two_workers_write_the_same_image_at_the_same_time(
    tmp_path: Path, by_worker: Callable[[PredictionJob], PredictionJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One was slow, so another began as well: each fills a Zarr folder of its own."""
    job = oracle_job(tmp_path, TRUTH[:1], ZARR, num_classes=4)
    by_worker(job)
    [task] = plan_tasks(job.plan, job.pairs[0], "0", job.keys[0], full_image=False)
    done: list[TaskReport] = []

    def overtaken(part: Path) -> None:
        if not done:
            done.append(TaskReport(""))
            done.append(remote.perform_task(setup_of(job), task))
        build_pyramid(part)

    monkeypatch.setattr("crista.inference.outputs.build_pyramid", overtaken)
    done.append(remote.perform_task(setup_of(job), task))
    assert len({report.files for report in done}) == 3
    finish(job)
    np.testing.assert_array_equal(labels(job.folders.per_image_binarized / "0.zarr", 2), TRUTH[0])


def unsupported(*_: object) -> None:
    raise OSError(95, "not supported")


@pytest.mark.parametrize("links", [True, False], ids=["hard links", "none"])
def test_killed_while_images_get_their_names_all_is_the_same_in_the_end(
    make: Callable[[str], PredictionJob], monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    alone, job = make("alone"), make("shards")
    finish(alone)
    do_shards(job)
    if not links:
        monkeypatch.setattr(task_module, "os", SimpleNamespace(link=unsupported))
    for place in ("crista.inference.task._publish", "crista.inference.record.ImageRecord.save"):
        with monkeypatch.context() as patch:
            patch.setattr(place, interrupted)
            with pytest.raises(KeyboardInterrupt):
                finish(job)
    assert ImageRecord.save is not interrupted
    finish(job)
    assert contents(job.folders.state.parent) == contents(alone.folders.state.parent)
    assert not list(job.folders.state.glob("work/*"))


def test_a_report_that_a_network_file_system_shows_late_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = oracle_job(tmp_path, TRUTH[:1], num_classes=4)
    [task] = plan_tasks(job.plan, job.pairs[0], "0", job.keys[0], full_image=False)
    slept: list[float] = []

    def show(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            TaskReport(task.key).save(task.report_path(job.folders))

    monkeypatch.setattr(remote.time, "sleep", show)
    remote.await_report(task, job.folders)
    assert len(slept) == 3


def test_a_worker_that_writes_to_a_disk_of_its_own_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job: Any = oracle_job(tmp_path, TRUTH[:1], num_classes=4)
    monkeypatch.setattr(remote, "_predictor", lambda _: job.predictor)
    monkeypatch.setattr(remote, "LATEST_SIGHT", 0.0)
    its_own = oracle_job(tmp_path / "other machine", TRUTH[:1], num_classes=4).folders
    away = replace(setup_of(job), folders=its_own)

    def do(tasks: Any) -> Any:
        for task in tasks:
            remote.perform_task(away, task)
            remote.await_report(task, job.folders)
            yield task

    with pytest.raises(
        ClusterError, match=r"has predicted 0, and this machine does not see(?s:.*)-> workers need the same folders"
    ):
        finish(replace(job, elsewhere=do))
