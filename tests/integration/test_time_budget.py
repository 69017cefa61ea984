"""Two folders and a time: a network that can be used, in time; stopped and continued; measured on images that did not train."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.conftest import MakeData, tiny_config
from tests.jobs import write_data

import crista
import crista.workflow.run  # PyTorch is imported before a clock runs
from crista.cli.main import main
from crista.images.open import open_image
from crista.patches.loader import Batch
from crista.plan.events import EpochFinished, Event, Said, StageStarted, StepFinished, TrainingFinished
from crista.training.checkpoint import Checkpoint, load_checkpoint
from crista.training.step import Steps
from crista.workflow.api import finish
from crista.workflow.request import Request, request_automatic

QUICK = ("MODEL.FEATURE_MAPS=[4,8]", "DATA.PATCH_SIZE=(32,32,1)", "TRAIN.BATCH_SIZE=4", "TEST.ENGINE=torch", "TRAIN.LR=0.01")


@pytest.fixture(autouse=True)
def no_drawings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Charts take longer than the trainings of these tests."""
    monkeypatch.setattr("crista.results.recorder.draw_charts", lambda *_, **__: [])
    monkeypatch.setattr("crista.workflow.run.draw_network", lambda folder, _: folder.model_plot)


def request_of(data: Path, folder: Path, seconds: float, *changes: str) -> Request:
    return request_automatic(
        data / "train/x", data / "train/y", minutes=seconds / 60, result_dir=folder, name="job", overrides=(*QUICK, *changes)
    )


def run_it(request: Request) -> tuple[crista.Outcome, list[Event]]:
    events: list[Event] = []
    return finish(request, events.append), events


def test_two_folders_and_a_time(make_data: MakeData, tmp_path: Path) -> None:
    """In time, better than nothing, measured on the images that were kept aside, and every decision written."""
    data = make_data(train=5, test=0)
    started = time.monotonic()
    outcome, events = run_it(request_of(data, tmp_path / "out", 8))
    finished = [event for event in events if isinstance(event, EpochFinished)]
    assert 5 < time.monotonic() - started < 60
    assert len(finished) >= 2  # on a machine that does other work too
    trained = load_checkpoint(outcome.folder.checkpoint_last)
    assert trained.finished
    assert sum(row["seconds"] for row in trained.history) < 8
    assert outcome.metrics["Foreground IoU, reconstructed image (all pixels pooled)"] > 0.3
    plan = json.loads(outcome.folder.plan_json.read_text())
    assert plan["MINUTES"] == pytest.approx(8 / 60, abs=1e-3)
    decided = {decision["KEY"] for decision in plan["DECISIONS"]}
    assert {"steps per epoch", "TRAIN.MAX_MINUTES", "TRAIN.EMA", "DATA.TRAIN.CLASS_SHARE"} <= decided
    assert "MAX_MINUTES" in outcome.folder.config_file.read_text()
    report = outcome.folder.report_html.read_text()
    assert "How good it is on the validation images" in report
    assert "they chose the epoch that is kept" in report
    assert "The training started from another network" not in report
    assert len(list(outcome.folder.per_image_binarized.iterdir())) == 1  # a fifth of five


def test_an_epoch_that_becomes_slow_is_ended(make_data: MakeData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of half a second where milliseconds were measured: the training ends with its time all the same."""

    class Slow(Steps):
        def take(self, batches: Sequence[Batch], rate: float) -> None:
            time.sleep(0.5)
            super().take(batches, rate)

    monkeypatch.setattr("crista.training.loop.Steps", Slow)  # the probe has its own name for it
    started = time.monotonic()
    request = request_of(make_data(train=4, test=0), tmp_path / "out", 6, "TEST.ENABLE=False")
    outcome, _ = run_it(request)
    assert time.monotonic() - started < 15
    history = load_checkpoint(outcome.folder.checkpoint_best).history
    assert history
    assert all(row["steps_per_second"] <= 2 for row in history)  # of the steps that were made, not of those foreseen


def test_given_epochs_end_before_the_time(make_data: MakeData, tmp_path: Path) -> None:
    """Passes over the samples, as without a time; the clock only watches."""
    changes = ("TEST.ENABLE=False", "TRAIN.EPOCHS=2")
    outcome, events = run_it(request_of(make_data(train=4, test=0), tmp_path / "out", 600, *changes))
    trained = load_checkpoint(outcome.folder.checkpoint_last)
    assert (len(trained.history), trained.plan.steps_per_epoch, trained.finished) == (2, None, True)
    assert [event.reason for event in events if isinstance(event, TrainingFinished)] == ["all epochs are done"]


def test_given_epochs_end_a_training_that_was_slow_only_when_it_was_measured(
    make_data: MakeData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten seconds per step were foreseen, so that the time would end first; made in milliseconds, each sample is shown twice.

    With more minutes nothing is left to do either.
    """
    monkeypatch.setattr("crista.training.probe._time_steps", lambda _: (10.0, 0.01))
    data = make_data(train=4, test=0)  # three train, of which each gives four patches
    changes = ("TEST.ENABLE=False", "TRAIN.EPOCHS=2", "TRAIN.BATCH_SIZE=1", "DATA.TRAIN.CLASS_SHARE=0")
    for seconds in (40, 400):
        outcome, events = run_it(request_of(data, tmp_path / "out", seconds, *changes))
        [ended] = [event.reason for event in events if isinstance(event, TrainingFinished)]
        assert ended == "all epochs are done"
        trained = load_checkpoint(outcome.folder.checkpoint_last)
        assert len(trained.history) * (trained.plan.steps_per_epoch or 0) == 2 * 3 * 4


def test_the_learning_rate_ends_low_when_the_time_ends(make_data: MakeData, tmp_path: Path) -> None:
    outcome, _ = run_it(request_of(make_data(train=4, test=0), tmp_path / "out", 6, "TEST.ENABLE=False"))
    rates = [row["lr"] for row in load_checkpoint(outcome.folder.checkpoint_last).history]
    assert max(rates) > 5e-4
    assert rates[-1] < 0.3 * max(rates)


def test_stopped_it_leaves_a_network_and_goes_on(make_data: MakeData, tmp_path: Path) -> None:
    """Ctrl-C sets `stop`: the last finished epoch counts; the same command takes up the time that is left."""
    data = make_data(train=4, test=0)
    request = request_of(data, tmp_path / "out", 12)
    events: list[Event] = []

    def stop_within_the_second_epoch(event: Event) -> None:
        events.append(event)
        if isinstance(event, StepFinished) and event.epoch == 2:
            request.stop.set()

    outcome = finish(request, stop_within_the_second_epoch)
    [ended] = [event for event in events if isinstance(event, TrainingFinished)]
    assert "the same command goes on" in ended.reason
    stopped = load_checkpoint(outcome.folder.checkpoint_last)
    assert not stopped.finished
    assert outcome.metrics  # predicted and measured all the same
    outcome, events = run_it(request_of(data, tmp_path / "out", 12))
    [said] = [event.text for event in events if isinstance(event, Said) and event.text.startswith("resuming after epoch")]
    assert said == f"resuming after epoch {len(stopped.history)}; how many there are is up to the clock"
    finished = load_checkpoint(outcome.folder.checkpoint_last)
    assert finished.finished
    assert finished.history[: len(stopped.history)] == stopped.history
    assert finished.plan.steps_per_epoch == stopped.plan.steps_per_epoch  # measured once


def test_stopped_in_the_first_epoch_there_is_a_network_too(make_data: MakeData, tmp_path: Path) -> None:
    request = request_of(make_data(train=4, test=0), tmp_path / "out", 5, "TEST.ENABLE=False")
    request.stop.set()
    outcome, _ = run_it(request)
    assert len(load_checkpoint(outcome.folder.checkpoint_best).history) == 1


def test_more_time_continues_a_finished_training(make_data: MakeData, tmp_path: Path) -> None:
    data = make_data(train=4, test=0)
    first, _ = run_it(request_of(data, tmp_path / "out", 5, "TEST.ENABLE=False"))
    epochs = len(load_checkpoint(first.folder.checkpoint_last).history)
    _, events = run_it(request_of(data, tmp_path / "out", 5, "TEST.ENABLE=False"))
    assert [event.reason for event in events if isinstance(event, TrainingFinished)] == ["already trained"]
    more, events = run_it(request_of(data, tmp_path / "out", 10, "TEST.ENABLE=False"))
    assert StageStarted("train") in events  # of how many epochs nobody knows
    assert len(load_checkpoint(more.folder.checkpoint_last).history) > epochs


def test_other_images_are_measured_anew(make_data: MakeData, tmp_path: Path) -> None:
    """Larger ones under the same names: steps and validation are those of them, not those of the run before."""

    def measured() -> bool:
        _, events = run_it(request_of(data, tmp_path / "out", 5, "TEST.ENABLE=False"))
        said = [event.text for event in events if isinstance(event, Said) and event.text.startswith("steps per epoch = ")]
        assert said
        return not any("as in what was done of this training before" in text for text in said)

    data = make_data(train=4, test=0)
    assert measured()
    assert not measured()
    make_data(shape=(80, 64), train=4, test=0)
    assert measured()


def test_a_network_is_tuned_to_other_classes_by_the_clock(
    make_data: MakeData, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the command line: its network and patch, the classes of the new labels, in time; and with more minutes it goes on."""
    monkeypatch.setenv("HOME", str(tmp_path))
    two, three = make_data(train=4, test=0), write_data(tmp_path / "three", train=4, test=0, num_classes=3)
    (three / "train" / "classes.txt").write_text("background\nouter\ninner\n")
    source = crista.train(tiny_config(two, train={"EPOCHS": 1}), result_dir=tmp_path, name="source").folder.checkpoint_best
    first = f"~/{source.relative_to(tmp_path)}"  # no shell expands it after --set

    def tune(minutes: float) -> tuple[str, Checkpoint]:
        words = ["train", three / "train/x", three / "train/y", "--minutes", minutes, "--result_dir", tmp_path, "--name", "tuned"]
        for change in ("MODEL.LOAD_CHECKPOINT=True", f"PATHS.CHECKPOINT_FILE={first}", "TEST.ENGINE=torch"):
            words += ["--set", change]
        assert main([str(word) for word in words]) == 0
        return capsys.readouterr().out, load_checkpoint(tmp_path / "tuned/checkpoints/tuned_1-checkpoint-last.pth")

    said, tuned = tune(0.1)
    assert "new: head (2 -> 3 classes; rows background copied)" in said
    assert f"that of {first}" in said
    plan = tuned.plan
    assert (plan.model.feature_maps, plan.patch_size, plan.minutes) == ((4, 8), (32, 32), pytest.approx(0.1))
    assert plan.classes.names == ("background", "outer", "inner")
    assert plan.steps_per_epoch is not None
    assert tuned.finished
    assert sum(row["seconds"] for row in tuned.history) < 6
    assert "The training started from another network" in (tmp_path / "tuned/results/tuned_1/report.html").read_text()
    [predicted] = (tmp_path / "tuned/results/tuned_1/per_image_binarized").iterdir()
    assert set(np.unique(open_image(predicted, ndim=2).read())) <= {0, 1, 2}
    said, again = tune(0.1)
    assert "already trained" in said
    assert again.history == tuned.history
    _, more = tune(0.2)
    assert more.history[: len(tuned.history)] == tuned.history
    assert len(more.history) > len(tuned.history)


def test_one_image_is_enough(make_data: MakeData, tmp_path: Path) -> None:
    """A block of it validates and is what is measured."""
    data = make_data(shape=(64, 160), train=1, test=0)
    outcome, events = run_it(request_of(data, tmp_path / "out", 6))
    assert any(isinstance(event, Said) and "of 00 " in event.text and "validates" in event.text for event in events)
    assert 0 <= outcome.metrics["Foreground IoU, reconstructed image (all pixels pooled)"] <= 1


def test_the_averaged_weights_are_resumed_bit_for_bit(make_data: MakeData, tmp_path: Path) -> None:
    """Epochs, not minutes: with the average on, stopped after the first epoch equals uninterrupted."""
    data = make_data(train=4, test=0)
    changes = ("TRAIN.EPOCHS=4", "TRAIN.EMA=True", "TEST.ENABLE=False", "DATA.TRAIN.CLASS_SHARE=0.5")

    def request(folder: str) -> Request:
        made: Any = request_of(data, tmp_path / folder, 6000, *changes, "TRAIN.MAX_MINUTES=None")
        return made  # type: ignore[no-any-return]

    whole, _ = run_it(request("whole"))
    stopping = request("parts")

    def stop_after_two(event: Event) -> None:
        if isinstance(event, EpochFinished) and event.epoch == 2:
            stopping.stop.set()

    finish(stopping, stop_after_two)
    parts, _ = run_it(request("parts"))
    first, second = (load_checkpoint(outcome.folder.checkpoint_best).weights for outcome in (whole, parts))
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert np.array_equal(value.numpy(), second[name].numpy()), name
