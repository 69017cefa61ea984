"""Validation: loss and confusion matrix over the validation patches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from crista.models.placement import to_device
from crista.patches.dataset import PatchSamples
from crista.patches.loader import Prepare, as_it_is, iter_batches, uniform_batches
from crista.plan.plan import Classes
from crista.training.distributed import Processes, sum_over_processes
from crista.training.tally import Tally


def validation_batches(samples: PatchSamples, batch_size: int) -> list[list[int]]:
    """Neighbouring validation patches of one shape together."""
    rng = np.random.default_rng(0)
    shapes = [samples.placer.place(index, rng)[1].size for index in range(len(samples))]
    return uniform_batches(shapes, batch_size)


def some_of(batches: list[list[int]], patches: int | None) -> list[list[int]]:
    """Batches of about `patches` patches, spread evenly over all of them, the same each time; None: all."""
    if patches is None or sum(map(len, batches)) <= patches:
        return batches
    count = max(1, round(len(batches) * patches / sum(map(len, batches))))
    return [batches[int((number + 0.5) * len(batches) / count)] for number in range(count)]


@dataclass(frozen=True)
class ValidationPatches:
    """What is validated on, and how it is prepared."""

    samples: PatchSamples
    batches: Sequence[Sequence[int]]
    num_threads: int
    prepare: Prepare = as_it_is


@torch.inference_mode()
def validate(
    model: nn.Module,
    loss: nn.Module,
    patches: ValidationPatches,
    *,
    classes: Classes,
    device: torch.device,
    processes: Processes,
) -> tuple[float, NDArray[np.int64]]:
    """Mean loss over the patches and pooled confusion matrix; the network is left in eval mode.

    Every process takes its share of the batches; all return the same values.
    """
    model.eval()
    tally = Tally(classes)
    share = patches.batches[processes.rank :: processes.world_size]
    threads, prepare = patches.num_threads, patches.prepare
    for batch in iter_batches(patches.samples, share, epoch=0, num_threads=threads, prepare=prepare):
        logits = model(to_device(batch.images, device)).float()
        targets = to_device(batch.targets, device)
        tally.add(loss(logits, targets), logits, targets, weight=len(batch.names))
    total, count, confusion = tally.read()
    values = sum_over_processes(np.concatenate([[total, count], confusion.ravel()]), processes, device)
    return float(values[0] / max(1.0, values[1])), values[2:].round().astype(np.int64).reshape(confusion.shape)
