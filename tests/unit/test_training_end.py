"""The end of a training: when it counts as finished, and what a finished one says again."""

from __future__ import annotations

from dataclasses import replace
from itertools import takewhile
from pathlib import Path

import pytest
from tests.conftest import MakeData
from tests.unit.test_probe import drain, job_of

from crista.plan.events import EpochFinished, TrainingFinished, TrainingStarted, Warned
from crista.training.checkpoint import GuardRecord, load_checkpoint, save_checkpoint
from crista.training.loop import train


def test_started_again_when_its_time_is_used_up_a_training_is_finished(make_data: MakeData, tmp_path: Path) -> None:
    """It was stopped after an epoch, and none fits into what is left: nothing more will come, so shards may predict."""
    job = job_of(make_data(test=0), tmp_path, "TRAIN.EPOCHS=None", "TRAIN.MAX_MINUTES=1", seconds=3600)
    events = train(job)
    assert any(isinstance(event, EpochFinished) for event in events)
    events.close()
    assert not load_checkpoint(job.last_path).finished
    _, _ = drain(train(replace(job, budget_seconds=1e-3)))
    assert load_checkpoint(job.last_path).finished
    assert len(load_checkpoint(job.last_path).history) == 1


def test_a_finished_training_warns_again_of_a_network_that_is_of_no_use(make_data: MakeData, tmp_path: Path) -> None:
    """The report is made of the warnings of the run that writes it."""
    job = job_of(make_data(test=0), tmp_path)
    drain(train(job))
    last = load_checkpoint(job.last_path)
    collapsed = GuardRecord(only_class=(0,) * len(last.history))
    save_checkpoint(job.last_path, replace(last, guards=collapsed))
    events, _ = drain(train(job))
    assert [event.reason for event in events if isinstance(event, TrainingFinished)] == ["already trained"]
    assert ["predicts only background" in event.text for event in events if isinstance(event, Warned)] == [True]


@pytest.mark.parametrize(("minutes", "told"), [(20.0, True), (3.0, False)])
@pytest.mark.parametrize("few", [3, None])
def test_a_training_that_is_given_more_time_says_that_it_keeps_its_short_epochs(
    make_data: MakeData, tmp_path: Path, minutes: float, told: bool, few: int | None
) -> None:
    """One epoch of 2 s was made in a minute: 20 minutes are 600 of them, 3 are 90."""
    job = job_of(make_data(test=0), tmp_path, "TRAIN.EPOCHS=None", "TRAIN.MAX_MINUTES=1", seconds=3600)
    plan = job.plan.model_copy(update={"epochs": 1, "validation_patches": few})
    job = replace(job, plan=plan, budget_seconds=1e-3)
    drain(train(job))
    last = load_checkpoint(job.last_path)
    save_checkpoint(job.last_path, replace(last, history=({**last.history[0], "seconds": 2.0},)))
    longer = replace(job, plan=plan.model_copy(update={"minutes": minutes}), budget_seconds=60 * minutes)
    events = train(longer)
    said = [
        event.text
        for event in takewhile(lambda event: not isinstance(event, TrainingStarted), events)
        if isinstance(event, Warned)
    ]
    events.close()
    assert len(said) == told
    if told:
        patches = f"{few} of {len(job.validation)}" if few else f"all {len(job.validation)}"
        assert f"keeps its epochs, of 2.0 s: about 600 in all, after each of which {patches} validation patches" in said[0]
        assert "--run_id" in said[0]
