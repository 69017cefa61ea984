"""Selection: which epoch's network is the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite, nan

from crista.metrics.overlap import Confusion, foreground_iou

SMOOTHING = 0.3
"""Weight of the newest epoch. Chosen on one volume with a small validation block, where the epoch of the lowest single loss,
half-way through the schedule, had a test IoU of 0.26, and the last one 0.44."""


def smoothed(losses: Sequence[float]) -> list[float]:
    """Exponential moving average of the validation losses, one value per epoch.

    A validation set of few patches makes the loss of a single epoch noisy, and its minimum lucky rather than good; nnU-Net
    (doi:10.1038/s41592-020-01008-z) selects by a moving average too.
    """
    averages: list[float] = []
    for loss in losses:
        averages.append(SMOOTHING * loss + (1 - SMOOTHING) * averages[-1] if averages else loss)
    return averages


def validation_iou(confusion: Confusion) -> float:
    """Foreground IoU of the validation, rows truth; NaN where its labels hold no foreground.

    There a network that has learnt nothing has the IoU of 1 that `foreground_iou` gives to all background, and would be kept.
    """
    return foreground_iou(confusion) if confusion[1:].any() else nan


def scores(rows: Sequence[Mapping[str, float]]) -> list[float]:
    """What selects among the epochs of a log, the lower the better: 1 - the validation's foreground IoU.

    While no epoch has found any foreground, and where the validation has none, it is the validation loss. In a short training
    with a high rate the loss of a network that has learnt nothing yet may be the lowest of all for long: on a volume, of 48
    steps, the lowest smoothed loss was that of the first epoch, with an IoU of 0, when the last had 0.47.
    """
    found = [row.get("val_iou", nan) for row in rows]
    if all(isfinite(value) for value in found) and any(value > 0 for value in found):
        return [1 - value for value in found]
    return [row["val_loss"] for row in rows]


def best_epoch(losses: Sequence[float]) -> int:
    """The epoch (from 1) whose smoothed loss (or score) is the lowest, the first of equals; 0 before the first epoch."""
    averages = smoothed(losses)
    return averages.index(min(averages)) + 1 if averages else 0


def patience_is_over(losses: Sequence[float], patience: int | None) -> bool:
    """Whether the best epoch is `patience` epochs ago."""
    return patience is not None and len(losses) - best_epoch(losses) >= patience
