"""Steps: one optimizer step after the other, and what those of an epoch add up to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from crista.models.placement import to_device
from crista.patches.loader import Batch
from crista.training.finite import FiniteWatch, refuse_explosion, updates_to_watch
from crista.training.state import State, TrainingJob
from crista.training.tally import Tally


class Steps:
    """The optimizer steps of one epoch."""

    def __init__(self, job: TrainingJob, state: State) -> None:
        self._job = job
        self._state = state
        self._tally = Tally(job.plan.classes)
        behind = updates_to_watch(job.device)
        self._watch = FiniteWatch(state.optimizer, behind=behind, skipped=state.precision.skipped)
        self.taken = 0
        """Steps so far."""

    def take(self, batches: Sequence[Batch], rate: float) -> None:
        """One optimizer step over `batches` (several when gradients are accumulated) at a learning rate.

        Raises
        ------
        UnstableTrainingError
            If a loss or the gradient is not finite; no update has been made with it.
        """
        state, clip = self._state, self._job.plan.config.train.gradient_clip_norm
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        state.optimizer.zero_grad(set_to_none=True)
        losses = [self._accumulate(batch, len(batches)) for batch in batches]
        norm = state.precision.gradient_norm(state.optimizer, state.model, clip)
        self._watch.look(losses, norm, batches)
        state.precision.step(state.optimizer)
        self.taken += 1

    def finish(self) -> tuple[float, NDArray[np.int64]]:
        """Mean loss and confusion matrix of the steps; raises as `take` does, and if the loss exploded."""
        self._watch.finish()
        total, _, confusion = self._tally.read()
        loss = total / max(1, self.taken)
        refuse_explosion(loss, [row["loss"] for row in self._state.history], self._watch.worst)
        return loss, confusion

    def _accumulate(self, batch: Batch, parts: int) -> torch.Tensor:
        """Add the gradient of one of `parts` batches of a step; returns its part of the loss."""
        images, targets = to_device(batch.images, self._job.device), to_device(batch.targets, self._job.device)
        with self._state.precision.autocast():
            logits = self._state.network(images)
        loss: torch.Tensor = self._state.loss(logits.float(), targets) / parts
        self._state.precision.backward(loss)
        self._tally.add(loss, logits, targets)
        return loss
