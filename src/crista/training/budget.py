"""Budget: how many epochs a training has, by their number or by the clock."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

Rows = Sequence[Mapping[str, float]]

WINDOW = 5
"""Epochs by whose median length the next ones are foreseen."""
LATEST = 0.25
"""Share of an epoch by which the last one may end too late."""


def usual_seconds(rows: Rows) -> float:
    """How long the last epochs took, the median of `WINDOW`."""
    return median([row["seconds"] for row in rows[-WINDOW:]])


@dataclass(frozen=True)
class Budget:
    """How long to train."""

    epochs: int
    """Given, or what was foreseen before the first epoch."""
    seconds: float | None = None
    """Of all epochs together, those of earlier processes included; None: `epochs` decide."""
    most: int | None = None
    """There are never more epochs than this, even if time is left."""
    clock: Callable[[], float] = field(default=time.monotonic, compare=False)

    def start(self, rows: Rows) -> RunningBudget:
        """The budget from now on; `rows` are the epochs of earlier processes."""
        return RunningBudget(self, self.clock() - sum(row.get("seconds", 0.0) for row in rows))


@dataclass(frozen=True)
class RunningBudget:
    """A budget whose clock runs."""

    budget: Budget
    started: float
    """When the training would have begun, had it never been interrupted."""

    @property
    def is_over(self) -> bool:
        """Whether the time is over, also in the middle of an epoch that takes longer than was foreseen."""
        budget = self.budget
        return budget.seconds is not None and budget.clock() - self.started > budget.seconds

    def total_epochs(self, rows: Rows) -> int:
        """Epochs in all: those that are done and those that fit into what is left, by the length of the last ones."""
        budget = self.budget
        most = math.inf if budget.most is None else budget.most
        if budget.seconds is None or not rows:
            return int(min(budget.epochs, most))
        left = budget.seconds - (budget.clock() - self.started)
        total = len(rows) + max(0, math.floor(left / max(usual_seconds(rows), 1e-3) + LATEST))
        return int(min(total, most))
