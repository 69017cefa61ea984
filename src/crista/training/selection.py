"""Selection: which epoch's network is the best."""

from __future__ import annotations

from collections.abc import Sequence

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


def best_epoch(losses: Sequence[float]) -> int:
    """The epoch (from 1) whose smoothed validation loss is the lowest, the first of equals; 0 before the first epoch."""
    averages = smoothed(losses)
    return averages.index(min(averages)) + 1 if averages else 0


def patience_is_over(losses: Sequence[float], patience: int | None) -> bool:
    """Whether the best epoch is `patience` epochs ago."""
    return patience is not None and len(losses) - best_epoch(losses) >= patience
