"""Alone: of two runs that predict into one folder, the one that began last goes on."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from typing import TypeVar

from crista.errors import PredictionError, TrainingError
from crista.plan.events import Event, ImageFinished
from crista.results.run_folder import RunFolder
from crista.training.claim import Claim

Result = TypeVar("Result")


def predict_alone(events: Generator[Event, None, Result], folder: RunFolder) -> Generator[Event, None, Result]:
    """The events of a prediction as long as no other one writes to its folder: of two, the one that began last goes on.

    Two networks would leave a mixture of their label images, and tables that describe half of it.
    """
    claim = Claim(folder.state / "prediction")
    with claim.held(), closing(events):
        while True:
            try:
                event = next(events)
            except StopIteration as stop:
                _check_alone(claim, folder)
                result: Result = stop.value
                return result
            except OSError:  # the other one clears away what looks left over
                _check_alone(claim, folder)
                raise
            if isinstance(event, ImageFinished):
                _check_alone(claim, folder)
            yield event


def _check_alone(claim: Claim, folder: RunFolder) -> None:
    try:
        claim.check()
    except TrainingError:
        raise PredictionError(
            f"{folder.results}: another run has begun to predict into this folder, so this one ends. If network, settings and "
            "images are the same, that one goes on from what this one had finished\n    -> give each of several runs at once its "
            "own --name or --run_id; for several processes of one prediction there are --workers and --shard"
        ) from None
