"""Growing patches: when, how small, and that the first epochs are made of them and no others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.conftest import MakeData, tiny_config
from tests.unit.test_plan import facts, plan, reason, refusal
from tests.unit.test_probe import BIG, drain

from crista.config.load import config_from_dict
from crista.images.check import check_dataset
from crista.patches.loader import Batch
from crista.patches.prepare import make_split, prepare_samples
from crista.plan.growing import count_first_epochs, small_patch
from crista.plan.make import make_plan
from crista.training.checkpoint import load_checkpoint
from crista.training.loop import train
from crista.training.probe import adopt, choose_plan, fit_to_time
from crista.training.schedule import SCHEDULES, Progress
from crista.training.state import TrainingJob
from crista.training.step import Steps

KEY = "TRAIN.GROW_PATCHES"


def test_sides_that_leave_enough_are_halved() -> None:
    """256 to 128; 48 would leave 24 and 16 slices 8; 136 would leave 68, no multiple of 8; 64 would leave 2 at a fifth level."""
    assert small_patch((256, 256), (16, 16)) == (128, 128)
    assert small_patch((16, 128, 128), (1, 16, 16)) == (16, 64, 64)
    assert small_patch((64, 64, 64), (8, 8, 8)) == (32, 32, 32)
    assert small_patch((32, 48, 32), (4, 8, 8)) == (32, 48, 32)
    assert small_patch((136, 128), (8, 8)) == (136, 64)
    assert small_patch((64, 64), (16, 16)) == (64, 64)


@pytest.mark.parametrize(("epochs", "first"), [(25, 10), (5, 2), (2, 1), (1, 0)])
def test_two_fifths_of_the_epochs_are_the_first(epochs: int, first: int) -> None:
    assert count_first_epochs(epochs) == first


def test_a_training_by_the_clock_grows_its_patches() -> None:
    made = plan(TRAIN__MAX_MINUTES=5)
    assert (made.patch_size, made.first_patch) == ((256, 256), (128, 128))
    assert reason(made, KEY) == (
        "decided when the training starts: patches of 128 × 128 in the first 40% of the time if fewer than 650 steps of whole "
        "ones fit into it"
    )
    assert plan(TRAIN__MAX_MINUTES=5, TRAIN__GROW_PATCHES=True).first_patch == (128, 128)


@pytest.mark.parametrize(("seconds", "value", "small"), [(0.462, "True", (128, 128)), (0.461, "False", None)])
def test_only_where_few_steps_of_whole_patches_fit(
    seconds: float, value: str, small: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """649 steps of 300 s, or 650; a training that goes on with more time, or on another machine, keeps to what was decided."""
    config = config_from_dict({}, ["TRAIN.MAX_MINUTES=5"]).config
    monkeypatch.setattr("crista.training.probe._time_noise", lambda *_: seconds)
    _, made = drain(choose_plan(config, facts(BIG), torch.device("cpu"), 300.0, None))
    assert made.first_patch == small
    assert [item.value for item in made.decisions if item.key == KEY] == [value]
    assert f"about {int(300 / seconds)} " in reason(made, KEY)
    longer = config_from_dict({}, ["TRAIN.MAX_MINUTES=50"]).config
    monkeypatch.setattr("crista.training.probe._time_noise", lambda *_: pytest.fail("timed"))
    _, again = drain(choose_plan(longer, facts(BIG), torch.device("cpu"), 3000.0, made))
    assert again.first_patch == small
    assert [item.value for item in again.decisions if item.key == KEY] == [value]


@pytest.mark.parametrize(("asked", "small"), [(True, (128, 128)), (False, None)])
def test_what_is_asked_for_is_done_whatever_fits(
    asked: bool, small: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_from_dict({}, ["TRAIN.MAX_MINUTES=5", f"TRAIN.GROW_PATCHES={asked}"]).config
    for seconds in (0.01, 1.0):
        monkeypatch.setattr("crista.training.probe._time_noise", lambda *_, taken=seconds: taken)
        _, made = drain(choose_plan(config, facts(BIG), torch.device("cpu"), 300.0, None))
        assert made.first_patch == small


def test_patches_that_are_given_stay_unless_they_are_to_grow() -> None:
    given = plan(TRAIN__MAX_MINUTES=5, DATA__PATCH_SIZE="(128,128,1)")
    assert given.first_patch is None
    assert "as large as DATA.PATCH_SIZE says" in reason(given, KEY)
    assert plan(TRAIN__MAX_MINUTES=5, DATA__PATCH_SIZE="(128,128,1)", TRAIN__GROW_PATCHES=True).first_patch == (64, 64)
    assert plan(TRAIN__MAX_MINUTES=5, TRAIN__GROW_PATCHES=False).first_patch is None


@pytest.mark.parametrize(
    "keys", [{}, {"TRAIN__MAX_MINUTES": 5, "TRAIN__EPOCHS": 3}, {"TRAIN__MAX_MINUTES": 5, "DATA__TRAIN__CLASS_SHARE": 0}]
)
def test_other_trainings_do_not(keys: dict[str, float]) -> None:
    made = plan(**keys)
    assert made.first_patch is None
    assert KEY not in {decision.key for decision in made.decisions}
    said = refusal(TRAIN__GROW_PATCHES=True, **keys)
    assert KEY in said
    assert ("patches grow by the clock" in said) != ("those of a grid, of a map" in said)


def test_patches_too_small_to_be_halved_are_named() -> None:
    said = refusal(facts([(48, 48)] * 4), TRAIN__GROW_PATCHES=True, TRAIN__MAX_MINUTES=5)
    assert "no side of 48 × 48 can be halved" in said
    assert plan(facts([(48, 48)] * 4), TRAIN__MAX_MINUTES=5).first_patch is None


def growing_job(data: Path, folder: Path, *overrides: str, seconds: float | None = None) -> TrainingJob:
    by_clock = ("TRAIN.EPOCHS=None", "TRAIN.MAX_MINUTES=1", "DATA.PATCH_SIZE=(64,64,1)", "TRAIN.GROW_PATCHES=True")
    config = config_from_dict(tiny_config(data, test={"ENABLE": False}), [*by_clock, *overrides]).config
    report = check_dataset(config, need_train=True, need_test=False)
    assert report.fingerprint is not None
    made = make_plan(config, report.fingerprint)
    samples = prepare_samples(made, make_split(made, report.train, ()), map_folder=folder / "map", cache_bytes=2**20)
    where = {"best_path": folder / "best.pth", "last_path": folder / "last.pth", "device": torch.device("cpu")}
    return TrainingJob(made, samples.train, samples.validation, budget_seconds=seconds, first=samples.first, **where)


def test_small_patches_lie_around_classes_like_the_others(make_data: MakeData, tmp_path: Path) -> None:
    """The same sources, so many samples and so large a share around the foreground, of another size."""
    job = growing_job(make_data(test=0, shape=(96, 96)), tmp_path, "DATA.TRAIN.CLASS_SHARE=1")
    assert job.first is not None
    assert (len(job.first), job.first.sources, job.first.cache) == (len(job.train), job.train.sources, job.train.cache)
    for index in range(20):
        sample, _ = job.first.sample(index, epoch=1)
        assert sample.label.shape == (32, 32)
        assert sample.label.any()


def test_scribbles_grow_too(make_data: MakeData, tmp_path: Path) -> None:
    job = growing_job(make_data(test=0, shape=(96, 96)), tmp_path)
    sparse = job.plan.model_copy(update={"sparse_labels": True, "class_share": 0.0})
    report = check_dataset(job.plan.config, need_train=True, need_test=False)
    samples = prepare_samples(sparse, make_split(sparse, report.train, ()), map_folder=tmp_path / "map", cache_bytes=2**20)
    assert samples.first is not None
    assert samples.first.sample(0, epoch=1)[0].label.shape == (32, 32)


def test_the_time_is_divided_by_what_steps_of_each_size_take(
    make_data: MakeData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """60 s in 25 epochs of 2.4 s less 0.04 s of validation: 4 steps of 0.5 s or 20 of 0.1 s; a continued training too."""
    job = growing_job(make_data(test=0, shape=(96, 96)), tmp_path, seconds=60)
    validation = 0.04 * job.plan.batch_size / len(job.validation)
    monkeypatch.setattr("crista.training.probe._time_steps", lambda asked: (0.1 if asked.train is job.first else 0.5, validation))
    _, fitted = drain(fit_to_time(job))
    assert (fitted.epochs, fitted.steps_per_epoch, fitted.first_epochs, fitted.first_steps) == (25, 4, 10, 20)
    said = reason(fitted, "steps per epoch")
    assert "260 of them in 25 epochs" in said
    assert "the first 200 are of small patches and take 0.10 s each" in said
    adopted = adopt(job.plan, fitted)
    assert adopted is not None
    assert (adopted.first_epochs, adopted.first_steps) == (10, 20)


def small_training(job: TrainingJob, epochs: int) -> TrainingJob:
    """`epochs` epochs, not by the clock: two first ones of five steps, then some of two."""
    update = {"epochs": epochs, "steps_per_epoch": 2, "first_epochs": 2, "first_steps": 5, "batch_size": 2}
    return replace(job, plan=job.plan.model_copy(update=update), budget_seconds=None)


def shapes_of(job: TrainingJob, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shape of the images of each step."""
    seen: list[tuple[int, ...]] = []

    class Seen(Steps):
        def take(self, batches: Sequence[Batch], rate: float) -> None:
            seen.extend(tuple(batch.images.shape) for batch in batches)
            super().take(batches, rate)

    monkeypatch.setattr("crista.training.loop.Steps", Seen)
    drain(train(job))
    return seen


def test_the_first_epochs_have_small_patches_and_their_own_steps(
    make_data: MakeData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = small_training(growing_job(make_data(test=0, shape=(96, 96)), tmp_path), epochs=4)
    assert shapes_of(job, monkeypatch) == [(2, 1, 32, 32)] * 10 + [(2, 1, 64, 64)] * 4


def test_the_rate_follows_the_epochs_whatever_their_steps(make_data: MakeData, tmp_path: Path) -> None:
    """One cycle over four epochs, the first two of five steps: it rises in the first and ends low with the last."""
    job = small_training(growing_job(make_data(test=0, shape=(96, 96)), tmp_path), epochs=4)
    drain(train(job))
    rates = [row["lr"] for row in load_checkpoint(job.last_path).history]
    cycle, peak = SCHEDULES.build(job.plan.schedule), job.plan.optimizer.lr
    ends = [cycle(peak, Progress(step, length, 4)) for step, length in ((4, 5), (9, 5), (5, 2), (7, 2))]  # the last step of each
    assert rates == pytest.approx(ends)
    assert rates[3] < 1e-3 * max(rates)


def test_stopped_within_the_small_patches_and_resumed_equals_uninterrupted(make_data: MakeData, tmp_path: Path) -> None:
    data = make_data(test=0, shape=(96, 96))
    whole = small_training(growing_job(data, tmp_path / "whole"), epochs=4)
    drain(train(whole))
    parts = small_training(growing_job(data, tmp_path / "parts"), epochs=4)
    for _ in range(3):
        events = train(parts)
        for event in events:
            if type(event).__name__ == "EpochFinished":
                events.close()
                break
    drain(train(parts))
    first, second = (load_checkpoint(job.last_path).weights for job in (whole, parts))
    assert all(np.array_equal(first[name], second[name]) for name in first)
