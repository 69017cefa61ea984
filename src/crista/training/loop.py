"""The training loop: plain PyTorch, as a generator of events.

Everything random is a function of the seed, the epoch and the sample, and the learning rate a function of the step and of the
losses so far; so the state to resume from is the weights, the optimizer and the rows of the log, and a resumed training ends in
the same weights, bit for bit on a CPU.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from glob import escape
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from crista.errors import UnstableTrainingError
from crista.metrics.overlap import foreground_iou
from crista.patches.loader import Batch, epoch_order, full_batches, iter_batches, rank_share
from crista.plan.budget import EPOCHS_OF_BUDGET
from crista.plan.events import (
    CheckpointSaved,
    EpochFinished,
    Event,
    Said,
    StepFinished,
    TrainingFinished,
    TrainingStarted,
    Warned,
)
from crista.plan.plan import Plan
from crista.training.budget import Budget, RunningBudget, usual_seconds
from crista.training.checkpoint import load_checkpoint, save_checkpoint
from crista.training.claim import Claim
from crista.training.distributed import share_buffers, sum_over_processes
from crista.training.guards import Guards
from crista.training.memory import reused_memory
from crista.training.schedule import SCHEDULES, Progress, Schedule
from crista.training.selection import best_epoch, patience_is_over, scores, validation_iou
from crista.training.state import SEEDS, State, TrainingJob, preparation
from crista.training.step import Steps
from crista.training.validation import ValidationPatches, some_of, validate, validation_batches

__all__ = ["TrainingJob", "previous_of", "train", "training_key"]


MOST_EPOCHS = 4 * EPOCHS_OF_BUDGET
"""Epochs in all beyond which a training that goes on with more time is told that it keeps the short ones of its beginning."""


@dataclass(frozen=True)
class Course:
    """Where an epoch stands in the training."""

    schedule: Schedule
    epoch: int
    """From 1."""
    total: int
    """Epochs in all, as far as that is known now."""
    budget: RunningBudget


@dataclass(frozen=True)
class Learnt:
    """What the optimizer steps of an epoch have come to."""

    row: Mapping[str, float]
    """Of the log, as far as it is known before validation."""
    counts: bool = True
    """False for a first epoch that was ended early, so that there is a network when somebody stops: nobody would make the steps
    that it lacks. By the clock the time is what counts."""


def train(job: TrainingJob) -> Generator[Event, None, None]:
    """Train, or go on with the training that `job.last_path` holds; yields an event per step and per epoch.

    Raises
    ------
    UnstableTrainingError
        If the loss or a gradient is not finite; no update has been made with it, and lower
        learning rates did not help.
    TrainingError
        If another training has begun to write the same checkpoints.
    """
    claim = Claim(job.last_path)
    with claim.held() if job.processes.is_main else nullcontext():
        yield from _train(job, State(job), claim)


def _train(job: TrainingJob, state: State, claim: Claim) -> Generator[Event, None, None]:
    plan = job.plan
    finished = yield from _resume(job, state)
    if state.start_notice and not state.history:
        yield Said(state.start_notice)
    if state.precision.notice and not finished:
        yield Said(state.precision.notice)
    yield TrainingStarted(tuple(state.history), plan.epochs)
    if finished:
        yield TrainingFinished("already trained", job.best_path)
        yield from Guards(plan, state).close()  # the report is of this run
        return
    with reused_memory(job.device):
        yield from _train_epochs(job, state, claim)
    yield from Guards(plan, state).close()


def _train_epochs(job: TrainingJob, state: State, claim: Claim) -> Generator[Event, None, None]:
    """The epochs that are left."""
    plan = job.plan
    schedule = SCHEDULES.build(plan.schedule)
    batches = some_of(validation_batches(job.validation, plan.batch_size), plan.validation_patches)
    guards = Guards(plan, state)
    budget = Budget(plan.epochs, job.budget_seconds, _most_epochs(job)).start(state.history)
    total = _agreed_total(job, state, budget)
    if len(state.history) >= total and job.processes.is_main:  # resumed when no epoch fits into the time that is left
        claim.check()
        yield from _save(job, state, is_best=False, finished=True, goes_on=True)
    while (epoch := len(state.history) + 1) <= total:
        started = time.perf_counter()
        course = Course(schedule, epoch, total, budget)
        done = yield from guards.attempt(epoch, partial(_epoch, job, state, batches, course))
        if done is None:
            yield TrainingFinished(_why_it_ended(job, epoch - 1, total), job.best_path)
            return
        learnt, validation_loss, confusion = done
        measured = {"val_loss": validation_loss, "val_iou": validation_iou(confusion)}
        row = {**learnt.row, **measured, "seconds": time.perf_counter() - started}
        state.history.append(row)
        is_best = best_epoch(scores(state.history)) == epoch
        yield from guards.watch(epoch, confusion)
        stop = patience_is_over(state.losses(), plan.patience)
        total = _agreed_total(job, state, budget)
        if job.processes.is_main:
            claim.check()
            yield from _save(job, state, is_best=is_best, finished=stop or epoch == total, goes_on=learnt.counts)
        yield EpochFinished(epoch, total, row, is_best)
        if not learnt.counts:
            yield TrainingFinished(f"stopped within epoch {epoch} of {total}; the same command begins anew", job.best_path)
            return
        if _agreed_stop(job):
            break
        if stop:
            yield TrainingFinished(f"no better validation loss for {plan.patience} epochs", job.best_path)
            return
    yield TrainingFinished(_why_it_ended(job, len(state.history), total), job.best_path)


def _why_it_ended(job: TrainingJob, done: int, total: int) -> str:
    if done < total:
        return f"stopped after epoch {done} of {total}; the same command goes on"
    most = _most_epochs(job)
    if job.budget_seconds is None or (most is not None and done >= most):
        return "all epochs are done"
    return f"the time is over, {done} epochs are done"


def _most_epochs(job: TrainingJob) -> int | None:
    """Epochs in which each sample is shown TRAIN.EPOCHS times; None where that is left out.

    With a time budget an epoch may be a part of the time, of another number of steps than a pass over the samples.
    """
    passes, steps = job.plan.config.train.epochs, job.plan.steps_per_epoch
    if passes is None or steps is None:
        return passes
    return ceil(passes * job.steps_of_a_pass / steps)


def _agreed_total(job: TrainingJob, state: State, budget: RunningBudget) -> int:
    """Epochs in all, by the clock of the first process."""
    total = budget.total_epochs(state.history)
    if job.processes.world_size == 1 or job.budget_seconds is None:
        return total
    own = np.array([total if job.processes.is_main else 0], np.float64)
    return int(sum_over_processes(own, job.processes, job.device)[0])


def _agreed_stop(job: TrainingJob) -> bool:
    """Whether any process was asked to stop; Ctrl-C reaches each at a moment of its own, and none may go on alone."""
    asked = np.array([job.stop.is_set()], np.float64)
    return bool(sum_over_processes(asked, job.processes, job.device)[0] > 0)


def _resume(job: TrainingJob, state: State) -> Generator[Event, None, bool]:
    """Load the checkpoint of an unfinished training of the same plan; True if that training is finished."""
    if not job.last_path.is_file():
        return False
    checkpoint = load_checkpoint(job.last_path, device=job.device)
    other = "settings" if training_key(checkpoint.plan) != training_key(job.plan) else None
    if checkpoint.data_key != job.data_key:  # by which the plan may have changed too
        other = "data" if job.start is None else "data, or the network to start from,"
    if other is not None:
        job.processes.barrier()  # every process has read the old checkpoint before it is moved
        kept = _set_aside(job) if job.processes.is_main else None
        network = f"; its network is kept as {kept}" if kept is not None else ""
        yield Warned(f"the {other} differ from those of the training found here: training starts anew{network}")
        return False
    if not job.best_path.is_file():
        yield Said(f"{job.best_path.name} is missing: training starts anew")
        return False
    state.resume(checkpoint, job.last_path)
    if checkpoint.finished and not _has_more_time(job.plan, checkpoint.plan):
        return True
    if checkpoint.finished:
        yield from warn_of_short_epochs(job, state)
    of = f" of {job.plan.epochs}" if job.plan.minutes is None else "; how many there are is up to the clock"
    yield Said(f"resuming after epoch {checkpoint.epoch}{of}")
    return False


def _has_more_time(plan: Plan, trained: Plan) -> bool:
    """Whether a training that is finished is given more minutes than it had."""
    return plan.minutes is not None and trained.minutes is not None and plan.minutes > trained.minutes


def warn_of_short_epochs(job: TrainingJob, state: State) -> Iterator[Event]:
    """A warning if a training that is given more time has so many epochs then that much of it goes into their ends."""
    budget = Budget(job.plan.epochs, job.budget_seconds, _most_epochs(job)).start(state.history)
    foreseen, length = budget.total_epochs(state.history), usual_seconds(state.history)
    if foreseen <= MOST_EPOCHS:
        return
    few = job.plan.validation_patches
    patches = f"{few} of {len(job.validation)}" if few is not None else f"all {len(job.validation)}"
    yield Warned(
        f"this training was begun with less time and keeps its epochs, of {length:.1f} s: about {foreseen} in all, after each of "
        f"which {patches} validation patches are predicted and the network is written. The same command with another --run_id or "
        f"--name trains anew, in at most {EPOCHS_OF_BUDGET} epochs that fit the time"
    )


def previous_of(best: Path) -> Path:
    """The best network of the training before, which is kept when a training starts anew; of several the newest."""
    kept = [path for path in best.parent.glob(f"{escape(best.stem)}.previous*.pth") if path.is_file()]
    return max(kept, key=lambda path: path.stat().st_mtime_ns, default=best.with_name(f"{best.stem}.previous.pth"))


def _set_aside(job: TrainingJob) -> Path | None:
    """Keep the best network of an earlier training, if it is there, under a name that no other one has."""
    best, number = job.best_path, 1
    place = best.with_name(f"{best.stem}.previous.pth")
    while place.exists():
        number += 1
        place = best.with_name(f"{best.stem}.previous-{number}.pth")
    kept = best.replace(place) if best.is_file() else None
    job.last_path.unlink(missing_ok=True)
    return kept


def training_key(plan: Plan) -> str:
    """What must be equal for a training to be continued: every setting that changes the weights.

    What is only shown or checked does not, and what settings decide is in the plan itself.
    """
    unrelated: Any = {
        "config": {
            "test": True,
            "paths": True,
            "system": True,
            "problem": {"print_old_key_changes"},
            "augmentor": {"aug_samples", "aug_num_samples", "draw_grid"},
            "train": {"max_minutes", "quality", "verbose", "metrics"},
            "data": {
                "test": True,
                "check_generators": True,
                "train": {"path", "gt_path", "in_memory", "check_data"},
                "val": {"path", "gt_path", "in_memory", "dist_eval"},
            },
        },
        "inference": True,
        "decisions": True,
        "class_frequencies": True,
        "object_diameter": True,
        "save_probabilities": True,
        "minutes": True,
        "steps_per_epoch": True,
        "first_epochs": True,
        "first_steps": True,
        "validation_patches": True,
    }
    if plan.minutes is not None:
        unrelated["epochs"] = True
    return f"{plan.config.system.seed} {plan.model_dump_json(exclude=unrelated)}"


def _epoch(
    job: TrainingJob, state: State, batches: Sequence[Sequence[int]], course: Course
) -> Generator[Event, None, tuple[Learnt, float, NDArray[np.int64]] | None]:
    """Training and validation: what was learnt, validation loss, confusion matrix; None if it was stopped."""
    learnt = yield from _train_epoch(job, state, course)
    if learnt is None:
        return None
    share_buffers(state.model, job.processes)  # what is validated, by all, is what the first process keeps
    with state.validated():
        share_buffers(state.model, job.processes)  # those of the average
        return learnt, *_validate(job, state, batches, course.epoch)


def _train_epoch(job: TrainingJob, state: State, course: Course) -> Generator[Event, None, Learnt | None]:
    """All optimizer steps of one epoch; None if it was stopped and another epoch was before it."""
    plan, processes, epoch = job.plan, job.processes, course.epoch
    seed = plan.config.system.seed
    torch.manual_seed(((seed * 1_000_003 + epoch) * 1_009 + processes.rank) % SEEDS)  # dropout only
    samples, length = job.samples_of(epoch)
    order = epoch_order(len(samples), _count_samples(job, length), epoch=epoch, seed=seed)
    groups = full_batches(order, plan.batch_size * processes.world_size)
    share = [rank_share(group, rank=processes.rank, world_size=processes.world_size) for group in groups]
    steps = -(-len(share) // plan.config.train.accum_iter)
    progress = {"steps_per_epoch": steps, "num_epochs": course.total, "validation_losses": tuple(state.losses())}
    horizon = (plan.average_share or 0.0) * steps * course.total
    state.model.train()
    done, waited, rate, started, counts = Steps(job, state), 0.0, 0.0, time.perf_counter(), True
    batches = _timed(iter_batches(samples, share, epoch=epoch, num_threads=job.num_threads, prepare=preparation(job)))
    for step, micro in enumerate(_grouped(batches, plan.config.train.accum_iter)):
        number = (epoch - 1) * steps + step
        scheduled = course.schedule(plan.optimizer.lr, Progress(step=number, **progress))  # type: ignore[arg-type]
        rate = state.guards.rate_factor * scheduled
        done.take([batch for batch, _ in micro], rate)
        if state.average is not None:
            state.average.update(number, horizon)
        waited += sum(seconds for _, seconds in micro)
        yield StepFinished(epoch, step + 1, steps)
        if processes.world_size > 1:
            continue  # the processes count their steps together
        if job.stop.is_set() and state.history:
            return None
        if course.budget.is_over:
            break
        if job.stop.is_set():
            counts = done.taken == steps or job.budget_seconds is not None
            break
    loss, own = done.finish()
    confusion = sum_over_processes(own.astype(np.float64), processes, job.device).astype(np.int64)
    seconds = max(time.perf_counter() - started, 1e-9)
    row = {
        "epoch": float(epoch),
        "loss": loss,
        "iou": foreground_iou(confusion),
        "lr": rate,
        "steps_per_second": done.taken / seconds,
        "data_wait_percent": 100 * waited / seconds,
    }
    return Learnt(row, counts)


def _count_samples(job: TrainingJob, steps: int | None) -> int | None:
    """Samples of all processes in an epoch of so many steps; None: each one once."""
    if steps is None:
        return None
    return steps * job.plan.config.train.accum_iter * job.plan.batch_size * job.processes.world_size


def _validate(job: TrainingJob, state: State, batches: Sequence[Sequence[int]], epoch: int) -> tuple[float, NDArray[np.int64]]:
    """Loss and confusion matrix of the validation samples; refuses a loss by which no network could be chosen."""
    loss, confusion = validate(
        state.model,
        state.validation_loss,
        ValidationPatches(job.validation, batches, job.num_threads, preparation(job)),
        classes=job.plan.classes,
        device=job.device,
        processes=job.processes,
    )
    if not np.isfinite(loss):
        raise UnstableTrainingError(
            f"the validation loss became {loss} in epoch {epoch}, so no network can be chosen by it; the last checkpoint is that "
            "of the epoch before. Look at the validation images (crista check), lower TRAIN.LR, or set "
            "TRAIN.GRADIENT_CLIP_NORM: 1.0",
            what=f"the validation loss became {loss}",
        )
    return loss, confusion


def _save(job: TrainingJob, state: State, *, is_best: bool, finished: bool, goes_on: bool) -> Iterator[Event]:
    """The network if it is the best, and what a later start goes on from: nothing without `goes_on`."""
    if is_best:
        with state.validated():
            save_checkpoint(job.best_path, state.checkpoint(job, resumable=False, finished=finished and goes_on))
        yield CheckpointSaved(job.best_path)
    if not goes_on:  # the steps that an epoch lacks would never be made
        job.last_path.unlink(missing_ok=True)
        return
    save_checkpoint(job.last_path, state.checkpoint(job, resumable=True, finished=finished))
    yield CheckpointSaved(job.last_path)


def _timed(batches: Iterator[Batch]) -> Iterator[tuple[Batch, float]]:
    """Each batch with the seconds that it was waited for."""
    while True:
        started = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            return
        yield batch, time.perf_counter() - started


def _grouped(batches: Iterator[tuple[Batch, float]], size: int) -> Iterator[list[tuple[Batch, float]]]:
    group: list[tuple[Batch, float]] = []
    for item in batches:
        group.append(item)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group
