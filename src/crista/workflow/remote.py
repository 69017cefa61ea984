"""Remote: tasks of a prediction in other processes: workers of Dask, or those that torchrun started."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from crista.errors import ClusterError
from crista.inference.distribution import Executor
from crista.inference.distribution.ranks import RankExecutor
from crista.inference.perform import perform
from crista.inference.predictor import Predictor
from crista.inference.record import weights_digest
from crista.inference.stage import Elsewhere
from crista.inference.statistics import StatisticsCache
from crista.inference.task import OutputFolders, Task, TaskReport, apart, keep_apart, load_report
from crista.plan.events import Event, Warned
from crista.plan.plan import Plan
from crista.training.checkpoint import load_network
from crista.training.distributed import choose_device
from crista.workflow.engine import build_chosen_engine


@dataclass(frozen=True)
class WorkerSetup:
    """All that a worker needs to know beside its task; small, for it travels with each."""

    plan: Plan
    checkpoint: Path
    digest: str
    """Of the weights."""
    folders: OutputFolders
    device: str | None
    """SYSTEM.DEVICE."""
    cwd: str
    """Where relative paths begin."""


LATEST_SIGHT = 60.0
"""Seconds until a network file system shows what another machine has written: as long NFS goes by what it knows of a folder."""

OTHER_ENGINE = (
    "a worker predicts with {}, where {} was chosen: it has a GPU, or that engine failed there or cannot be had (its log says "
    "why); its numbers are those of PyTorch within the tolerance of the engines"
)

_READY: dict[str, Predictor] = {}
"""The network that this process used last: loaded once, not for each task."""

_KNOWN: dict[str, StatisticsCache] = {}
"""What is known of the image of the last task, by its key: to look it up takes a look at every file of a Zarr folder."""


def perform_task(setup: WorkerSetup, task: Task) -> TaskReport:
    """Predict one block, write it and its report. Doing it twice is harmless."""
    try:
        os.chdir(setup.cwd)
    except OSError as error:
        raise ClusterError(
            f"a worker on {platform.node()} cannot go to {setup.cwd}, where this command was started ({error.strerror})\n    -> "
            "workers need the same folders at the same places: start the command in a folder that they reach"
        ) from error
    predictor = _predictor(setup)
    with apart(setup.folders) as own:
        conclude = partial(keep_apart, folders=setup.folders, own=own)
        steps = perform(predictor, own, [task], conclude, _statistics_for(setup, task))
        reports = [progress.result for _, progress in steps if progress.result is not None]
    return replace(reports[0], engine=predictor.engine.name)


def _statistics_for(setup: WorkerSetup, task: Task) -> StatisticsCache:
    if task.key not in _KNOWN:
        _KNOWN.clear()
        _KNOWN[task.key] = StatisticsCache(setup.folders.state, setup.plan)
    return _KNOWN[task.key]


def _predictor(setup: WorkerSetup) -> Predictor:
    key = _engine_key(setup)
    if key not in _READY:
        _READY.clear()
        wanted = None if setup.device and setup.device.startswith("cuda") else setup.device  # which GPU is the worker's own
        device, _ = choose_device(wanted)
        weights = load_network(setup.checkpoint, device=device).weights
        if weights_digest(weights) != setup.digest:
            raise ClusterError(
                f"a worker on {platform.node()} finds other weights in {setup.checkpoint} than this command has begun with\n"
                "    -> was the network trained on meanwhile? Run the command again: it predicts all images with the new one"
            )
        engine = build_chosen_engine(setup.plan, weights, device, state=setup.folders.state, checkpoint=setup.checkpoint)
        _READY[key] = Predictor(setup.plan, engine)
    return Predictor(setup.plan, _READY[key].engine)


def _engine_key(setup: WorkerSetup) -> str:
    """What the engine depends on: workers of a scheduler outlive the run, and the next one may turn the images (AUGMENTATION)."""
    plan = setup.plan
    parts = [setup.digest, setup.checkpoint, setup.device, plan.inference.model_dump_json(), plan.config.test.model_dump_json()]
    return " ".join(map(str, [*parts, plan.amp, plan.config.system.pin_mem]))


def elsewhere(executor: Executor, setup: WorkerSetup) -> Elsewhere:
    """Has tasks done by the workers of `executor`."""

    def do(tasks: Sequence[Task]) -> Iterator[Task | Event]:
        if not tasks and not isinstance(executor, RankExecutor):  # whose other processes wait to be told
            return
        with executor:
            if isinstance(executor, RankExecutor):
                executor.share((setup, tasks))
            yield from executor.notices()
            chosen, others = setup.plan.inference.engine, set[str]()
            for task, report in executor.run(partial(perform_task, setup), tasks):
                yield from executor.notices()
                if chosen and report.engine not in (chosen, *others):
                    others.add(report.engine)
                    yield Warned(OTHER_ENGINE.format(report.engine, chosen))
                await_report(task, setup.folders)
                yield task
            yield from executor.notices()

    return do


def await_report(task: Task, folders: OutputFolders) -> None:
    """Return once this machine sees the report of a task that another one has done.

    A network file system remembers for a while that a file was not there; listing its folder makes it look again.

    Raises
    ------
    ClusterError
        If it stays out of sight: the worker has written somewhere else.
    """
    path, end = task.report_path(folders), time.monotonic() + LATEST_SIGHT
    while load_report(path, task.key) is None:
        if time.monotonic() > end:
            raise ClusterError(
                f"a worker has predicted {task.name}, and this machine does not see what it has written ({path})\n    -> workers "
                "need the same folders at the same places: give a result_dir that all of them share"
            )
        for folder in (folders.state, path.parents[1], path.parent):
            with suppress(OSError):
                next(folder.iterdir(), None)
        time.sleep(0.1)


def help_predicting(executor: RankExecutor) -> None:
    """What the other processes of torchrun do while the first one predicts: their share of the tasks."""
    with executor:
        setup, tasks = executor.share(None)
        for _ in executor.run(partial(perform_task, setup), tasks):
            pass
