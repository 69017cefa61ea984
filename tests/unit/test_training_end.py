"""The end of a training: when it counts as finished, and what a finished one says again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.conftest import MakeData
from tests.unit.test_probe import drain, job_of

from crista.plan.events import EpochFinished, TrainingFinished, Warned
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
