"""What a training is given, and what it changes: the network, its optimizer, and the rows of the log."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from threading import Event

import torch
from torch import nn

from crista.errors import ConfigError, Problem
from crista.losses import all_reduce_sum, build_loss
from crista.models import build_model
from crista.models.initialization import expect_frequencies
from crista.models.placement import to_layout
from crista.patches.dataset import PatchSamples
from crista.patches.loader import Prepare, as_it_is, pinned
from crista.plan.plan import Plan
from crista.training.average import WeightAverage
from crista.training.checkpoint import Checkpoint, GuardRecord, load_weights
from crista.training.cpu_layers import quicken
from crista.training.distributed import Processes
from crista.training.fine_tuning import start_from
from crista.training.idle_biases import freeze_idle_biases
from crista.training.optimizer import OPTIMIZERS, load_optimizer_state
from crista.training.precision import Precision

SEEDS = 2**64
"""As many as torch has; SYSTEM.SEED may be larger."""


@dataclass(frozen=True)
class TrainingJob:
    """What to train on, where, and where to keep it."""

    plan: Plan
    train: PatchSamples
    validation: PatchSamples
    best_path: Path
    """Checkpoint of the best epoch (`crista.training.selection`)."""
    last_path: Path
    """Checkpoint to resume from."""
    device: torch.device
    processes: Processes = field(default_factory=Processes)
    num_threads: int = 1
    """Threads that prepare patches."""
    data_key: str = ""
    """Identifies the training data; a training is only continued on the same."""
    budget_seconds: float | None = None
    """Seconds for all epochs together; None: the epochs of the plan."""
    stop: Event = field(default_factory=Event)
    """Once it is set, the training ends with the last finished epoch (the first one is ended early)."""
    start: Checkpoint | None = None
    """Trained network to start from (fine-tuning)."""
    first: PatchSamples | None = None
    """The smaller patches of the first epochs, if the plan has such."""

    def samples_of(self, epoch: int) -> tuple[PatchSamples, int | None]:
        """What an epoch (from 1) trains on, and the steps of it; None: as many as show each sample once."""
        if self.first is not None and epoch <= self.plan.first_epochs:
            return self.first, self.plan.first_steps
        return self.train, self.plan.steps_per_epoch

    @property
    def steps_of_a_pass(self) -> int:
        """Optimizer steps that show each sample once."""
        batches = ceil(len(self.train) / (self.plan.batch_size * self.processes.world_size))
        return ceil(batches / self.plan.config.train.accum_iter)


def preparation(job: TrainingJob) -> Prepare:
    """What the loader does with a finished batch."""
    return pinned if job.device.type == "cuda" and job.plan.config.system.pin_mem else as_it_is


class State:
    """The network, its optimizer, and the rows of the log so far."""

    def __init__(self, job: TrainingJob) -> None:
        plan = job.plan
        torch.manual_seed(plan.config.system.seed % SEEDS)
        model = build_model(plan.model, num_channels=plan.num_channels, num_logits=plan.classes.num_logits, ndim=plan.ndim)
        self.start_notice = ""
        if plan.class_frequencies is not None:
            expect_frequencies(model.get_submodule("head"), plan.class_frequencies)
        if job.start is not None:
            self.start_notice = start_from(model, plan, job.start)
        self.model = freeze_idle_biases(to_layout(model, job.device, plan.ndim))
        if job.device.type == "cpu":
            self.model = quicken(self.model)
        self.optimizer = OPTIMIZERS.build(plan.optimizer, model=self.model)
        self.average = WeightAverage(self.model) if plan.average_share is not None else None
        self.precision = Precision(plan.amp, job.device)
        self.history: list[Mapping[str, float]] = []
        self.guards = GuardRecord()
        self.network = _wrapped(self.model, job)
        parallel = job.processes.world_size > 1
        weights = plan.class_weights
        self.loss = build_loss(
            plan.loss, classes=plan.classes, class_weights=weights, **({"reduce_sum": all_reduce_sum} if parallel else {})
        ).to(job.device)
        self.validation_loss = build_loss(plan.loss, classes=plan.classes, class_weights=weights).to(job.device)

    def resume(self, checkpoint: Checkpoint, where: Path) -> None:
        """Continue from `checkpoint`."""
        load_weights(self.model, checkpoint.weights, skip_unmatched=False, where=str(where))
        if checkpoint.optimizer is not None:
            load_optimizer_state(self.optimizer, checkpoint.optimizer)
        self.precision.load(checkpoint.scaler)
        if self.average is not None and checkpoint.average is not None:
            self.average.load(checkpoint.average)
        self.history = list(checkpoint.history)
        self.guards = checkpoint.guards

    def losses(self) -> list[float]:
        """Validation loss of each finished epoch."""
        return [row["val_loss"] for row in self.history]

    def validated(self) -> AbstractContextManager[None]:
        """While it lasts the model holds the weights that are validated and kept: the average, if there is one."""
        return self.average.in_place() if self.average is not None else nullcontext()

    def checkpoint(self, job: TrainingJob, *, resumable: bool, finished: bool) -> Checkpoint:
        """The present state; `resumable` adds what only a continued training needs."""
        return Checkpoint(
            plan=job.plan,
            weights=self.model.state_dict(),
            epoch=len(self.history),
            history=tuple(self.history),
            optimizer=self.optimizer.state_dict() if resumable else None,
            scaler=self.precision.state() if resumable else None,
            average=self.average.state() if resumable and self.average is not None else None,
            finished=finished,
            data_key=job.data_key,
            guards=self.guards,
        )


def _wrapped(model: nn.Module, job: TrainingJob) -> nn.Module:
    if job.processes.world_size == 1:
        return model
    if job.plan.model.normalization == "sync_bn" and job.device.type != "cuda":
        what = "sync_bn puts the batches of several processes together on GPUs only, and these train on processors"
        raise ConfigError("with the device", [Problem("MODEL.NORMALIZATION", what, "use bn, or processes with GPUs")])
    if job.device.type == "cuda":
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        return nn.parallel.DistributedDataParallel(model, device_ids=[job.device.index])
    return nn.parallel.DistributedDataParallel(model)
