"""Guards: a training that becomes unstable goes back an epoch, and one that predicts a single class is told so."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from math import ceil
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from crista.config.loss import CrossEntropy, Dice
from crista.errors import UnstableTrainingError
from crista.images.wording import plural
from crista.plan.events import Event, Warned
from crista.plan.plan import Plan
from crista.training.optimizer import load_optimizer_state
from crista.training.selection import best_epoch, scores
from crista.training.state import State

MOST_ROLLBACKS = 2
"""Returns to the last finished epoch in one training; the next instability ends it."""
PATIENT_EPOCHS = 3
"""Epochs in a row with a single predicted class before a warning."""
FIRST_STEPS = 100
"""Steps in which a single class is nothing odd. After 48 a network had found foreground for a few epochs, after 110 others were
good (`crista.training.selection`, `crista.plan.learning`)."""

Result = TypeVar("Result")


class Guards:
    """Stands around the epochs of one training.

    What it has done is kept in `state.guards`, and with it in the checkpoint, so that a resumed training goes the same way.
    """

    def __init__(self, plan: Plan, state: State) -> None:
        self._plan = plan
        self._state = state

    def attempt(self, epoch: int, learn: Callable[[], Generator[Event, None, Result]]) -> Generator[Event, None, Result]:
        """What `learn` returns for `epoch`, from the state that the epoch before left.

        If it becomes unstable, the state is put back and the learning rate is halved from here on, at most
        `MOST_ROLLBACKS` times in a training.

        Raises
        ------
        UnstableTrainingError
            If that does not help.
        """
        before = _Snapshot.of(self._state)
        while True:
            try:
                return (yield from learn())
            except UnstableTrainingError as error:
                record = self._state.guards
                if len(record.rollbacks) >= MOST_ROLLBACKS:
                    raise error.after(len(record.rollbacks)) from error
                before.restore(self._state)
                self._state.guards = replace(record, rollbacks=(*record.rollbacks, epoch))
                yield Warned(_rollback_notice(error, epoch, len(record.rollbacks) + 1))

    def watch(self, epoch: int, confusion: NDArray[np.int64]) -> Generator[Event, None, None]:
        """Note what the validation of `epoch` predicted, and warn of a single class for `PATIENT_EPOCHS` epochs."""
        record = self._state.guards
        classes = (*record.only_class, single_class(confusion))
        self._state.guards = replace(record, only_class=classes)
        after_warm_up = classes[warm_up(self._plan.epochs, self._plan.steps_per_epoch) :]
        if _streak(after_warm_up) == PATIENT_EPOCHS:
            first, name = epoch - PATIENT_EPOCHS + 1, self._plan.classes.names[classes[-1]]
            yield Warned(
                f"every validation pixel is predicted as {name} in epochs {first} to {epoch}, though the labels hold other "
                f"classes: the network has collapsed. {advice(self._plan, self._state.guards.rate_factor)}"
            )

    def close(self) -> Generator[Event, None, None]:
        """Warn if the best network predicts a single class."""
        best, classes = best_epoch(scores(self._state.history)), self._state.guards.only_class
        if 0 < best <= len(classes) and classes[best - 1] >= 0:
            name, steps = self._plan.classes.names[classes[best - 1]], len(classes) * (self._plan.steps_per_epoch or FIRST_STEPS)
            what_to_do = advice(self._plan, self._state.guards.rate_factor) if steps >= FIRST_STEPS else more_steps(steps)
            yield Warned(
                f"the best network (epoch {best}) predicts only {name}: it found nothing else in the validation images, and its "
                f"predictions are of no use. {what_to_do}"
            )


def single_class(confusion: NDArray[np.int64]) -> int:
    """The class that every pixel is predicted as, though the truth has others; else -1. Rows are the truth."""
    predicted = np.flatnonzero(confusion.sum(axis=0))
    true = np.flatnonzero(confusion.sum(axis=1))
    return int(predicted[0]) if len(predicted) == 1 and len(true) > 1 else -1


def warm_up(epochs: int, steps_per_epoch: int | None = None) -> int:
    """First epochs of a training in which a single class is nothing odd: a tenth of them, at least 2.

    Parts of a time may be of few steps: at least as many as hold `FIRST_STEPS`.
    """
    return max(2, ceil(epochs / 10), ceil(FIRST_STEPS / steps_per_epoch) if steps_per_epoch is not None else 0)


def more_steps(steps: int) -> str:
    """What helps a network that predicts a single class after so few `steps`."""
    return (
        f"After about {plural(steps, 'step')} that is not odd: give it more minutes (TRAIN.MAX_MINUTES), the same command goes on"
    )


def advice(plan: Plan, rate_factor: float) -> str:
    """What may help a network that predicts a single class, among what is not done already."""
    keys = [f"TRAIN.LR: {plan.optimizer.lr * rate_factor / 5:g} (it is {plan.optimizer.lr * rate_factor:g})"]
    if not any(isinstance(term.term, Dice) for term in plan.loss):
        keys.append("LOSS.TYPE: [DICE, CE]")
    if plan.class_weights is None and any(isinstance(term.term, CrossEntropy) for term in plan.loss):
        keys.append("LOSS.CLASS_REBALANCE: auto")
    train = plan.config.data.train
    if not (train.probability_map or plan.sparse_labels or plan.class_share):
        keys.append("DATA.TRAIN.EXTRACT_RANDOM_PATCH: True with PROBABILITY_MAP: True (patches around foreground)")
    keys.append("more TRAIN.EPOCHS" if plan.minutes is None else "more minutes (TRAIN.MAX_MINUTES)")
    return f"Try {', '.join(keys)}; and see with crista check whether labels and images fit each other"


def _streak(classes: Sequence[int]) -> int:
    """How many of the last entries are the same class."""
    length = 0
    for value in reversed(classes):
        if value < 0 or value != classes[-1]:
            break
        length += 1
    return length


def _rollback_notice(error: UnstableTrainingError, epoch: int, count: int) -> str:
    to = f"the end of epoch {epoch - 1}" if epoch > 1 else "the start"
    images = f" in a batch of {error.listed}" if error.images else ""
    return (
        f"{error.what} in epoch {epoch}{images}: back to {to}, and on with half the learning rate "
        f"({count} of at most {MOST_ROLLBACKS} times)"
    )


@dataclass(frozen=True)
class _Snapshot:
    """What an epoch changes."""

    weights: Mapping[str, torch.Tensor]
    optimizer: Mapping[str, Any]
    scaler: Mapping[str, Any] | None
    average: Mapping[str, torch.Tensor] | None

    @classmethod
    def of(cls, state: State) -> _Snapshot:
        weights = {name: value.detach().clone() for name, value in state.model.state_dict().items()}
        average = deepcopy(state.average.state()) if state.average is not None else None
        return cls(weights, deepcopy(state.optimizer.state_dict()), deepcopy(state.precision.state()), average)

    def restore(self, state: State) -> None:
        state.model.load_state_dict(dict(self.weights))
        load_optimizer_state(state.optimizer, deepcopy(self.optimizer))  # it keeps the tensors that it is given
        state.precision.load(self.scaler)
        if state.average is not None and self.average is not None:
            state.average.load(self.average)
