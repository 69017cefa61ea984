"""Schedules: the learning rate as a function of the step and of the validation losses so far.

They keep no state, so a resumed training has the same rates as an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, pi
from typing import Protocol

from crista.config.train import ConstantRate, OneCycle, ReduceOnPlateau, WarmupCosine
from crista.registry import Registry


@dataclass(frozen=True)
class Progress:
    """Where the training stands."""

    step: int
    """Optimizer steps taken so far."""
    steps_per_epoch: int
    num_epochs: int
    validation_losses: Sequence[float] = ()
    """One per finished epoch."""

    @property
    def fraction(self) -> float:
        """Share of all steps that are done, in [0, 1]."""
        return min(1.0, self.step / max(1, self.steps_per_epoch * self.num_epochs - 1))


class Schedule(Protocol):
    """Learning rate over time."""

    def __call__(self, peak: float, progress: Progress) -> float:
        """The learning rate of the next step; `peak` is TRAIN.LR."""
        ...


SCHEDULES: Registry[Schedule] = Registry("schedule")


@SCHEDULES.register(ConstantRate)
def build_constant(config: ConstantRate) -> Schedule:  # noqa: ARG001 - it has no settings
    """The same rate always."""
    return lambda peak, progress: peak  # noqa: ARG005 - the protocol's


@SCHEDULES.register(OneCycle)
def build_onecycle(config: OneCycle) -> Schedule:
    """Cosine from peak/25 up to the peak, then cosine down to peak/250000 (Smith and Topin 2018, arXiv:1708.07120;
    the divisors are torch's)."""
    low, final = 1 / 25, 1 / 25e4

    def rate(peak: float, progress: Progress) -> float:
        if progress.fraction < config.warmup_fraction:
            return peak * _cosine(low, 1.0, progress.fraction / config.warmup_fraction)
        return peak * _cosine(1.0, final, (progress.fraction - config.warmup_fraction) / (1 - config.warmup_fraction))

    return rate


@SCHEDULES.register(ReduceOnPlateau)
def build_reduce_on_plateau(config: ReduceOnPlateau) -> Schedule:
    """The rate falls by `factor` each time the loss has not improved for more than `patience` epochs."""

    def rate(peak: float, progress: Progress) -> float:
        best, waited, reductions = float("inf"), 0, 0
        for loss in progress.validation_losses:
            best, waited = (loss, 0) if loss < best else (best, waited + 1)
            if waited > config.patience:
                reductions, waited = reductions + 1, 0
        return max(config.min_lr, peak * config.factor**reductions)

    return rate


@SCHEDULES.register(WarmupCosine)
def build_warmup_cosine(config: WarmupCosine) -> Schedule:
    """Linear from 0 to the peak, constant, then half a cosine to `min_lr` over the last `decay_fraction`."""

    def rate(peak: float, progress: Progress) -> float:
        warmup = config.warmup_epochs * progress.steps_per_epoch
        total = progress.num_epochs * progress.steps_per_epoch
        if progress.step < warmup:
            return peak * (progress.step + 1) / warmup
        decay_start = max(warmup, round(total * (1 - config.decay_fraction)))
        if progress.step < decay_start:
            return peak
        return _cosine(peak, config.min_lr, (progress.step - decay_start) / max(1, total - 1 - decay_start))

    return rate


def _cosine(start: float, end: float, fraction: float) -> float:
    return end + (start - end) * (1 + cos(pi * min(1.0, fraction))) / 2
