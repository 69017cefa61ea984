"""Validation: loss and confusion matrix over the validation patches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from crista.metrics.confusion import compute_confusion
from crista.patches.dataset import PatchSamples
from crista.patches.loader import Batch, iter_batches, uniform_batches
from crista.plan.plan import Classes
from crista.training.distributed import Processes, sum_over_processes


def predicted_classes(logits: torch.Tensor, *, threshold: float = 0.5) -> torch.Tensor:
    """Classes (N, [Z,] Y, X) of logits (N, K, [Z,] Y, X): a threshold on the sigmoid for K = 1, else the largest."""
    if logits.shape[1] == 1:
        return (logits[:, 0].float().sigmoid() > threshold).to(torch.uint8)
    return logits.argmax(dim=1).to(torch.uint8)


def confusion_of(logits: torch.Tensor, batch: Batch, classes: Classes, *, threshold: float = 0.5) -> NDArray[np.int64]:
    """(K, K) counts of a batch, rows truth, columns prediction."""
    predicted = predicted_classes(logits.detach(), threshold=threshold).cpu().numpy()
    return compute_confusion(batch.targets.numpy(), predicted, num_classes=classes.num_classes, ignore_index=classes.ignore_index)


def validation_batches(samples: PatchSamples, batch_size: int) -> list[list[int]]:
    """Neighbouring validation patches of one shape together."""
    rng = np.random.default_rng(0)
    shapes = [samples.placer.place(index, rng)[1].size for index in range(len(samples))]
    return uniform_batches(shapes, batch_size)


@torch.no_grad()
def validate(
    model: nn.Module,
    loss: nn.Module,
    samples: PatchSamples,
    batches: Sequence[Sequence[int]],
    *,
    classes: Classes,
    device: torch.device,
    processes: Processes,
    num_threads: int,
) -> tuple[float, NDArray[np.int64]]:
    """Mean loss over the patches and pooled confusion matrix; the network is left in eval mode.

    Every process takes its share of the batches; all return the same values.
    """
    model.eval()
    confusion = np.zeros((classes.num_classes, classes.num_classes), np.int64)
    total = np.zeros(2)
    share = batches[processes.rank :: processes.world_size]
    for batch in iter_batches(samples, share, epoch=0, num_threads=num_threads):
        logits = model(batch.images.to(device)).float()
        total += [float(loss(logits, batch.targets.to(device))) * len(batch.names), len(batch.names)]
        confusion += confusion_of(logits, batch, classes)
    values = sum_over_processes(np.concatenate([total, confusion.ravel()]), processes, device)
    return float(values[0] / max(1.0, values[1])), values[2:].round().astype(np.int64).reshape(confusion.shape)
