"""Tally: loss and confusion matrix of many batches, kept where they are computed and read once."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crista.metrics.confusion import compute_confusion
from crista.plan.plan import Classes


class Tally:
    """Collects batch by batch; nothing waits for a GPU before `read`."""

    def __init__(self, classes: Classes) -> None:
        self._classes = classes
        self._losses: list[Tensor] = []
        self._weights: list[int] = []
        self._counts = np.zeros((classes.num_classes,) * 2, np.int64)
        self._pairs: Tensor | None = None

    def add(self, loss: Tensor, logits: Tensor, targets: Tensor, *, weight: int = 1) -> None:
        """Add a batch: its `loss`, logits (N, K, [Z,] Y, X) and classes (N, [Z,] Y, X), all on one device."""
        self._losses.append(loss.detach())
        self._weights.append(weight)
        predicted = predicted_classes(logits.detach())
        if predicted.device.type == "cuda":
            pairs = count_pairs(targets, predicted, self._classes)
            self._pairs = pairs if self._pairs is None else self._pairs + pairs
        else:
            self._counts += compute_confusion(
                targets.cpu().numpy(),
                predicted.cpu().numpy(),
                num_classes=self._classes.num_classes,
                ignore_index=self._classes.ignore_index,
            )

    def read(self) -> tuple[float, int, NDArray[np.int64]]:
        """Weighted sum of the losses, sum of the weights, and the confusion matrix (K, K), rows truth, columns prediction."""
        losses = torch.stack(self._losses).cpu().double().numpy() if self._losses else np.zeros(0)  # Apple GPUs have no float64
        counts = self._counts if self._pairs is None else self._counts + self._pairs.cpu().numpy().astype(np.int64)
        return float(np.sum(losses * self._weights)), sum(self._weights), counts


def predicted_classes(logits: Tensor, *, threshold: float = 0.5) -> Tensor:
    """Classes (N, [Z,] Y, X) of logits (N, K, [Z,] Y, X): a threshold on the sigmoid for K = 1, else the largest."""
    if logits.shape[1] == 1:
        return (logits[:, 0].float().sigmoid() > threshold).to(torch.uint8)
    return logits.max(dim=1).indices.to(torch.uint8)  # argmax of contiguous logits takes ten times as long on a processor


def count_pairs(targets: Tensor, predicted: Tensor, classes: Classes) -> Tensor:
    """(K, K) counts of true and predicted classes as float64, computed on the device; equals `compute_confusion`."""
    number = classes.num_classes
    pairs = targets.long() * number + predicted
    if classes.ignore_index is not None:
        pairs = pairs.masked_fill(targets == classes.ignore_index, -1)  # outside of all bins
    counts = torch.histc(pairs.double(), bins=number * number, min=-0.5, max=number * number - 0.5)
    return counts.view(number, number)
