"""The probe: a batch that fits the memory, epochs that fit the time, and what a continued training takes over."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.conftest import MakeData, tiny_config
from tests.unit.test_plan import facts

from crista.config.load import config_from_dict
from crista.errors import ConfigError, PlanError
from crista.images.check import check_dataset
from crista.patches.loader import Batch
from crista.patches.prepare import make_split, prepare_samples
from crista.plan.alternatives import plans_by_effort
from crista.plan.budget import count_steps, divide_time
from crista.plan.effort import LIGHT
from crista.plan.events import Event, Said, Warned
from crista.plan.make import make_plan
from crista.plan.plan import Decision, Plan
from crista.training import probe
from crista.training.distributed import Processes
from crista.training.loop import training_key
from crista.training.probe import adopt, choose_plan, fit_to_memory, fit_to_time, warn_of_memory
from crista.training.state import State, TrainingJob


def job_of(data: Path, tmp_path: Path, *overrides: str, seconds: float | None = None) -> TrainingJob:
    config = config_from_dict(tiny_config(data, test={"ENABLE": False}), list(overrides)).config
    report = check_dataset(config, need_train=True, need_test=False)
    assert report.fingerprint is not None
    plan = make_plan(config, report.fingerprint)
    samples = prepare_samples(plan, make_split(plan, report.train, ()), map_folder=tmp_path / "map", cache_bytes=2**20)
    where = {"best_path": tmp_path / "best.pth", "last_path": tmp_path / "last.pth", "device": torch.device("cpu")}
    return TrainingJob(plan, samples.train, samples.validation, budget_seconds=seconds, **where)


def drain(events: Generator[Event, None, Any]) -> tuple[list[Event], Any]:
    seen = []
    while True:
        try:
            seen.append(next(events))
        except StopIteration as stop:
            return seen, stop.value


FREE = "TRAIN.BATCH_SIZE=None"


def test_activations_grow_with_the_batch(make_data: MakeData, tmp_path: Path) -> None:
    """Two patches keep twice what one keeps; at least the input of each of the 3 × 3 convolutions."""
    job = job_of(make_data(test=0), tmp_path)
    one, two = (probe._activation_bytes(job, size) for size in (1, 2))
    assert one > 32 * 32 * 4 * (1 + 4 + 4)
    assert two == pytest.approx(2 * one, rel=0.2)


def test_enough_memory_changes_nothing(make_data: MakeData, tmp_path: Path) -> None:
    job = job_of(make_data(test=0), tmp_path, FREE)
    assert drain(fit_to_memory(job)) == ([], job.plan)


def test_a_batch_that_does_not_fit_is_made_smaller(make_data: MakeData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = job_of(make_data(test=0), tmp_path, FREE)
    per_patch = probe._activation_bytes(job, 2) - probe._activation_bytes(job, 1)
    weights = 16 * sum(parameter.numel() for parameter in probe.State(job).model.parameters())
    monkeypatch.setattr(probe, "free_bytes", lambda: int((weights + 3.5 * 1.5 * per_patch) / 0.7))
    events, plan = drain(fit_to_memory(job))
    assert plan.batch_size == 3
    [said] = [event.text for event in events if isinstance(event, Said)]
    assert said.startswith("TRAIN.BATCH_SIZE = 3: 32 were planned;")
    assert said.endswith(f"of these an epoch has {replace(job, plan=plan).steps_of_a_pass} steps")
    assert [decision.value for decision in plan.decisions if decision.key == "TRAIN.BATCH_SIZE"] == ["3"]


@pytest.mark.parametrize(("fitting", "fits"), [(2, True), (1, False)])
def test_the_memory_of_a_patch_of_one_voxel_at_the_last_level_is_tried_with_two(
    make_data: MakeData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fitting: int, fits: bool
) -> None:
    """A single one has no variance to normalise by: neither a step on noise nor the training can be made with it."""
    job = job_of(make_data(test=0), tmp_path, FREE, "MODEL.FEATURE_MAPS=[2,2,2,2,2,2]")
    assert drain(fit_to_memory(job)) == ([], job.plan)
    monkeypatch.setattr(probe, "_fit_processor", lambda _: fitting)
    if fits:
        assert drain(fit_to_memory(job))[1].batch_size == 2
    else:
        with pytest.raises(PlanError, match="two patches of 32 × 32, the fewest, do not fit into the memory"):
            drain(fit_to_memory(job))


def test_images_that_will_be_kept_in_memory_leave_less_for_the_batch(
    make_data: MakeData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are read patch by patch in the first epoch, when the batch is fixed already."""
    job = job_of(make_data(test=0), tmp_path, FREE)
    images = 4 * 48 * 48 * 2  # and their labels
    assert job.train.cache.bytes_to_come((*job.train.sources, *job.validation.sources)) == images
    monkeypatch.setattr(probe, "_activation_bytes", lambda _, size: 100 * size)
    weights = 16 * sum(parameter.numel() for parameter in probe.State(job).model.parameters())
    monkeypatch.setattr(probe, "free_bytes", lambda: int((weights + 3.5 * 1.5 * 100) / 0.7) + images)
    assert probe._fit_processor(job) == 3
    for samples in (job.train, job.validation):
        for index in range(len(samples)):
            samples.sample(index, 1)
    assert job.train.cache.bytes_to_come(job.train.sources) == 0


@pytest.mark.parametrize(
    "change",
    [
        "PROBLEM.PRINT_OLD_KEY_CHANGES=False",
        "AUGMENTOR.AUG_SAMPLES=False",
        "AUGMENTOR.AUG_NUM_SAMPLES=3",
        "AUGMENTOR.DRAW_GRID=False",
        "DATA.CHECK_GENERATORS=True",
        "DATA.TRAIN.CHECK_DATA=False",
        "DATA.VAL.DIST_EVAL=False",
        "TRAIN.QUALITY=best",
        "TRAIN.METRICS=[jaccard_index]",
        "TRAIN.VERBOSE=True",
    ],
)
def test_what_is_only_shown_or_checked_throws_no_training_away(change: str) -> None:
    given = ["DATA.N_CLASSES=2", "TRAIN.EPOCHS=3"]
    one, other = (make_plan(config_from_dict({}, overrides).config, facts()) for overrides in (given, [*given, change]))
    assert one.config != other.config
    assert training_key(one) == training_key(other)


@pytest.mark.parametrize("change", ["TRAIN.LR=0.5", "AUGMENTOR.ENABLE=True", "DATA.VAL.SPLIT_TRAIN=0.3", "SYSTEM.SEED=1"])
def test_what_changes_the_weights_trains_anew(change: str) -> None:
    one, other = (make_plan(config_from_dict({}, overrides).config, facts()) for overrides in ([], [change]))
    assert training_key(one) != training_key(other)


def test_a_given_batch_is_kept_with_a_warning(make_data: MakeData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = job_of(make_data(test=0), tmp_path)
    monkeypatch.setattr(probe, "_fit_processor", lambda _: 2)
    events, plan = drain(fit_to_memory(job))
    assert plan == job.plan
    assert events == [Warned("TRAIN.BATCH_SIZE 4 may not fit into the memory; 2 would")]


@pytest.fixture
def fractions(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, int]]:
    """A GPU of 4 GB, 2.5 of which are free and 0.5 are held by PyTorch, and what a process may take of it."""
    given: list[tuple[float, int]] = []
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (2_500, 4_000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 500)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *what: given.append(what))
    return given


@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_what_a_gpu_borrows_from_the_machine_does_not_count_as_its_memory(
    device: str, fractions: list[tuple[float, int]]
) -> None:
    """On Windows the driver does so instead of refusing, and a step takes many times as long."""
    with probe._own_memory_of_gpu(torch.device(device)):
        assert fractions == [(0.75, 0)]
    assert fractions == [(0.75, 0), (1.0, 0)]


def test_a_gpu_that_bears_one_step_and_not_the_next_bears_a_smaller_batch(
    make_data: MakeData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fractions: list[tuple[float, int]]
) -> None:
    """The optimizer has a state from the first update on: 32 patches fit beside the network alone, 8 beside all of it."""
    job, seen = job_of(make_data(test=0), tmp_path, FREE), []

    def take(_: object, state: State, batches: list[Batch]) -> None:
        has_state = bool(seen) and seen[-1][1] is state
        seen.append((len(batches[0].names), state))
        assert fractions == [(0.75, 0)]
        if seen[-1][0] > (8 if has_state else 32):
            raise torch.OutOfMemoryError

    monkeypatch.setattr(probe, "_take", take)
    assert job.plan.batch_size == 32
    assert probe._fit_cuda(job) == 8
    assert [size for size, _ in seen] == [32, 32, 16, 16, 8, 8]
    assert fractions[1:] == [(1.0, 0)]


@pytest.mark.usefixtures("fractions")
@pytest.mark.parametrize("words", ["CUDA error: out of memory", "cuDNN error: CUDNN_STATUS_ALLOC_FAILED"])
def test_libraries_that_find_no_memory_make_the_batch_smaller_too(
    words: str, make_data: MakeData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def take(_: object, __: State, batches: list[Batch]) -> None:
        if len(batches[0].names) > 8:
            raise RuntimeError(words)

    job = job_of(make_data(test=0), tmp_path, FREE)
    monkeypatch.setattr(probe, "_take", take)
    assert probe._fit_cuda(job) == 8
    words = "another error"
    with pytest.raises(RuntimeError, match="another error"):
        probe._fit_cuda(job)


@pytest.mark.parametrize("batch", [FREE, "TRAIN.BATCH_SIZE=4"])
def test_a_training_that_goes_on_where_less_memory_is_says_so_and_keeps_its_batch(
    make_data: MakeData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: str
) -> None:
    """With another batch it would begin anew."""
    job = job_of(make_data(test=0), tmp_path, batch)
    size = job.plan.batch_size
    for fitting, told in ((size, 0), (size - 1, 1), (-3, 1)):
        monkeypatch.setattr(probe, "_fit_processor", lambda _, fitting=fitting: fitting)
        events = list(warn_of_memory(job))
        assert len(events) == told
        for event in events:
            assert isinstance(event, Warned)
            assert f"TRAIN.BATCH_SIZE {size}, and the memory that is free here may bear {max(0, fitting)}. " in event.text
            assert ("with a batch that fits" in event.text) == (batch == FREE)


def test_processes_take_the_batch_that_the_one_with_the_least_memory_bears(
    make_data: MakeData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two GPUs another program may use the second: the batch of the first would not fit there."""
    job = job_of(make_data(test=0), tmp_path, FREE)
    monkeypatch.setattr(probe, "least_of_processes", lambda value, *_: min(value, 5))
    _, plan = drain(fit_to_memory(replace(job, processes=Processes(rank=0, world_size=2))))
    assert plan.batch_size == 5


def test_no_memory_for_a_single_patch(make_data: MakeData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "free_bytes", lambda: 1000)
    job = job_of(make_data(test=0), tmp_path, FREE)
    with pytest.raises(PlanError, match=r"DATA\.PATCH_SIZE: a single patch of 32 × 32 does not fit"):
        drain(fit_to_memory(job))


def test_sync_bn_of_processes_without_gpus_is_refused(make_data: MakeData, tmp_path: Path) -> None:
    """torch would end the first step with a ValueError."""
    job = job_of(make_data(test=0), tmp_path, "MODEL.NORMALIZATION=sync_bn")
    with pytest.raises(ConfigError, match=r"MODEL\.NORMALIZATION: sync_bn puts the batches"):
        State(replace(job, processes=Processes(rank=0, world_size=2)))
    assert State(job).model  # alone it is bn


def test_each_process_tries_its_memory_alone(make_data: MakeData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are no peers here: a step that asked them for their gradients would fail."""
    monkeypatch.setattr(probe, "least_of_processes", lambda value, *_: value)
    job = job_of(make_data(test=0), tmp_path, FREE)
    assert drain(fit_to_memory(replace(job, processes=Processes(rank=0, world_size=2)))) == ([], job.plan)


def test_steps_fill_the_time(make_data: MakeData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """0.5 s a step and 0.1 s for four patches in 100 s: 25 epochs of 4 s, of which validation takes little."""
    job = job_of(make_data(test=0), tmp_path, "TRAIN.MAX_MINUTES=5", "TRAIN.EPOCHS=None", seconds=100)
    monkeypatch.setattr(probe, "_time_steps", lambda _: (0.5, 0.1))
    events, plan = drain(fit_to_time(job))
    assert (plan.epochs, plan.steps_per_epoch, plan.validation_patches) == (25, 7, None)
    assert "a step takes 0.50 s here" in events[0].text


@pytest.mark.parametrize(("epochs", "first"), [(3, "epochs"), (9, "epochs"), (10, "time"), (1000, "time")])
def test_given_epochs_or_the_time_whichever_comes_first(
    epochs: int, first: str, make_data: MakeData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An epoch is a pass over all samples: with its validation 10.5 s, so nine fit into 100 s."""
    job = job_of(make_data(test=0), tmp_path, "TRAIN.MAX_MINUTES=5", f"TRAIN.EPOCHS={epochs}", seconds=100)
    step, patch = 10.0 / job.steps_of_a_pass, 0.5 / len(job.validation)
    monkeypatch.setattr(probe, "_time_steps", lambda _: (step, patch * job.plan.batch_size))
    events, plan = drain(fit_to_time(job))
    if first == "epochs":
        assert plan == job.plan
        assert (plan.epochs, plan.steps_per_epoch) == (epochs, None)
        assert events[0].text.startswith(f"TRAIN.EPOCHS = {epochs}: they take about")
    else:
        parts = divide_time(100, step, patch, len(job.validation))
        assert (plan.epochs, plan.steps_per_epoch) == parts[:2]
        assert events[0].text.startswith(f"TRAIN.EPOCHS = {epochs}: they would take about")


@pytest.mark.parametrize(("of", "warmup", "expected"), [("TRAIN.EPOCHS=1000", 200, 5), ("TRAIN.EPOCHS=None", -1, 2)])
def test_a_warm_up_keeps_its_share_of_a_training_by_the_clock(
    of: str, warmup: int, expected: int, make_data: MakeData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fifth of 1000 epochs is a fifth of the 25 parts of the time; a continued training has it too."""
    keys = ("TRAIN.LR_SCHEDULER.NAME=warmupcosine", f"TRAIN.LR_SCHEDULER.WARMUP_COSINE_DECAY_EPOCHS={warmup}")
    job = job_of(make_data(test=0), tmp_path, "TRAIN.MAX_MINUTES=5", of, *keys, seconds=100)
    monkeypatch.setattr(probe, "_time_steps", lambda _: (0.5, 0.1))
    _, plan = drain(fit_to_time(job))
    assert (plan.epochs, plan.schedule.warmup_epochs) == (25, expected)
    adopted = adopt(job.plan, plan)
    assert adopted is not None
    assert adopted.model_copy(update={"decisions": plan.decisions}) == plan


@pytest.mark.parametrize(("patience", "idle"), [(5, ""), (40, ", so that it has no effect")])
def test_patience_by_the_clock_counts_parts_of_the_time_and_that_is_said(
    patience: int, idle: str, make_data: MakeData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forty epochs of 360 in a BiaPy file are never reached in 25 parts of the time."""
    keys = ("TRAIN.LR_SCHEDULER.NAME=reduceonplateau", f"TRAIN.PATIENCE={patience}", "TRAIN.EPOCHS=360")
    monkeypatch.setattr(probe, "_time_steps", lambda _: (0.5, 0.1))
    events, _ = drain(fit_to_time(job_of(make_data(test=0), tmp_path, "TRAIN.MAX_MINUTES=5", *keys, seconds=100)))
    said = [event.text for event in events if "counts these epochs" in event.text]
    assert said[0] == f"TRAIN.PATIENCE = {patience} counts these epochs, about 25 in all, not passes over the samples{idle}"
    assert said[1].startswith(f"TRAIN.LR_SCHEDULER.REDUCEONPLATEAU_PATIENCE = {patience // 3} counts these epochs")


def test_a_patience_that_given_epochs_leave_no_room_for_is_named(
    make_data: MakeData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The epochs end before the time, so that they are passes over the samples."""
    monkeypatch.setattr(probe, "_time_steps", lambda _: (0.001, 0.001))
    keys = ("TRAIN.PATIENCE=20", "TRAIN.EPOCHS=10")
    events, _ = drain(fit_to_time(job_of(make_data(test=0), tmp_path, "TRAIN.MAX_MINUTES=5", *keys, seconds=100)))
    said = [event.text for event in events if event.text.startswith("TRAIN.PATIENCE")]
    assert said == [
        "TRAIN.PATIENCE = 20: has no effect: of 10 epochs the last comes before 20 without improvement could end the training"
    ]


def test_steps_that_do_not_fit_are_not_said_to_fill_the_time(
    make_data: MakeData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "_time_steps", lambda _: (60.0, 0.1))
    job = job_of(make_data(test=0), tmp_path, "TRAIN.MAX_MINUTES=0.5", "TRAIN.EPOCHS=None", seconds=30)
    events, plan = drain(fit_to_time(job))
    assert (plan.epochs, plan.steps_per_epoch) == (1, 1)
    assert "1 of them in 1 epoch are the least that can be made, and take more than the 0.5 minutes" in events[0].text


def test_without_a_budget_nothing_is_timed(make_data: MakeData, tmp_path: Path) -> None:
    job = job_of(make_data(test=0), tmp_path)
    assert drain(fit_to_time(job)) == ([], job.plan)


def test_real_steps_are_timed(make_data: MakeData, tmp_path: Path) -> None:
    step, forward = probe._time_steps(job_of(make_data(test=0), tmp_path, seconds=100.0))
    assert forward > 0
    assert 0 < step < 5
    assert np.isfinite([step, forward]).all()


def test_a_continued_training_takes_over_what_was_measured(make_data: MakeData, tmp_path: Path) -> None:
    plan = job_of(make_data(test=0), tmp_path, FREE, "TRAIN.MAX_MINUTES=5", "TRAIN.EPOCHS=None").plan
    measured = {"batch_size": 3, "steps_per_epoch": 11, "validation_patches": 2, "epochs": 17}
    adopted = adopt(plan, plan.model_copy(update=measured))
    assert adopted is not None
    assert {name: getattr(adopted, name) for name in measured} == measured


@pytest.mark.parametrize("keys", [["TRAIN.MAX_MINUTES=5"], ["TRAIN.QUALITY=fast"]])
def test_the_plan_of_a_continued_training_says_what_was_measured(monkeypatch: pytest.MonkeyPatch, keys: list[str]) -> None:
    """A batch of 3 in use, and a plan that says 6 because of the voxels, would be two answers."""
    by_clock = keys[0].startswith("TRAIN.MAX_MINUTES")
    seconds = 300.0 if by_clock else None
    monkeypatch.setattr(probe, "_time_noise", lambda *_: 1.0)
    config = config_from_dict({}, keys).config
    _, first = drain(choose_plan(config, facts(BIG), torch.device("cpu"), seconds, None))
    done = probe._with(first, {"batch_size": 3}, Decision(key="TRAIN.BATCH_SIZE", value="3", reason="no more fit"))
    done = probe._with(done, {"steps_per_epoch": 11}, Decision(key="steps per epoch", value="11", reason="that fills the time"))
    done = done.model_copy(update={"batch_size": 3})
    for _ in range(2):  # what is said does not grow from run to run
        _, again = drain(choose_plan(config, facts(BIG), torch.device("cpu"), seconds, done))
        assert (again.batch_size, again.steps_per_epoch) == (3, 11)
        said = {item.key: (item.value, item.reason) for item in again.decisions}
        before = "as in what was done of this training before: "
        assert said["TRAIN.BATCH_SIZE"] == ("3", f"{before}no more fit")
        assert said["steps per epoch"] == ("11", f"{before}that fills the time")
        assert by_clock == ("effort" in said)
        if by_clock:
            assert said["effort"][0] == "full"
            assert said["effort"][1].startswith(f"{before}about 300 steps in the time that is left, 250 are wanted")
        assert len(said) == len(again.decisions)
        done = again


def test_another_training_takes_over_nothing(make_data: MakeData, tmp_path: Path) -> None:
    plan = job_of(make_data(test=0), tmp_path, FREE).plan
    assert adopt(plan, plan.model_copy(update={"patch_size": (16, 16)})) is None


BIG = ((512, 512),) * 8


@pytest.mark.parametrize(
    ("seconds_per_step", "effort", "features"),
    [
        ((1.0,), "full", (16, 32, 64, 128, 256)),
        ((4.0, 1.0), "light", (16, 32, 64, 128)),
        ((9.0, 5.0, 3.0), "least", (8, 16, 32, 64, 128)),
    ],
)
def test_a_short_training_takes_a_lighter_network(
    monkeypatch: pytest.MonkeyPatch, seconds_per_step: tuple[float, ...], effort: str, features: tuple[int, ...]
) -> None:
    """300 s: 300 steps of 1 s are enough; 75 of 4 s are not; the least is taken even if 100 steps are all."""
    costs = iter(seconds_per_step)
    monkeypatch.setattr(probe, "_time_noise", lambda *_: next(costs))
    config = config_from_dict({}, ["TRAIN.MAX_MINUTES=5"]).config
    events, plan = drain(choose_plan(config, facts(BIG), torch.device("cpu"), 300.0, None))
    assert plan.model.feature_maps == features
    assert len(events) == len(seconds_per_step) - 1
    [decision] = [item for item in plan.decisions if item.key == "effort"]
    assert decision.value == effort
    steps, _, rest = decision.reason.partition(" steps in the time that is left, 250 are wanted")
    assert steps == f"about {int(300 / seconds_per_step[-1])}"
    assert rest == (
        "; there is no lighter one with what is given"
        if effort == "least"
        else "; with fewer, network and patches are made smaller"
    )
    assert next(costs, None) is None


@pytest.mark.parametrize(("minutes", "told"), [(60, True), (1, False), (0.5, False)])
def test_a_longer_training_that_goes_on_with_a_lighter_network_says_so_and_what_to_do(
    monkeypatch: pytest.MonkeyPatch, minutes: float, told: bool
) -> None:
    """A try of a minute, then an hour: the same command goes on with what fitted into the minute."""
    monkeypatch.setattr(probe, "_time_noise", lambda *_: 1.0)

    def plan_of(minutes: float, previous: Plan | None) -> tuple[list[Event], Plan]:
        config = config_from_dict({}, [f"TRAIN.MAX_MINUTES={minutes}"]).config
        return drain(choose_plan(config, facts(BIG), torch.device("cpu"), 60 * minutes, previous))

    _, first = plan_of(1, None)
    assert first.model.feature_maps == (8, 16, 32, 64, 128)
    events, again = plan_of(minutes, first)
    assert (again.model, again.patch_size) == (first.model, first.patch_size)
    warnings = [event.text for event in events if isinstance(event, Warned)]
    assert len(warnings) == told
    if told:
        assert "begun with TRAIN.MAX_MINUTES 1, too little for the full network" in warnings[0]
        assert (
            "the least one (DATA.PATCH_SIZE (128, 128, 1), MODEL.FEATURE_MAPS (8, 16, 32, 64, 128), TRAIN.BATCH_SIZE"
            in warnings[0]
        )
        assert "60 may be enough for the full one: the same command with another --run_id or --name" in warnings[0]
    _, full = plan_of(5, None)
    assert plan_of(60, full)[0] == []


def test_a_network_that_a_gpu_has_no_room_for_is_not_said_to_be_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    costs = iter((float("inf"), 1.0))
    monkeypatch.setattr(probe, "_time_noise", lambda *_: next(costs, float("inf")))
    config = config_from_dict({}, ["TRAIN.MAX_MINUTES=5"]).config
    events, plan = drain(choose_plan(config, facts(BIG), torch.device("cpu"), 300.0, None))
    assert events[0].text.startswith("the full network does not fit into the memory of the GPU, with 6 patches in a step: ")
    assert plan.decisions[-1].reason.startswith("about 300 steps")
    _, plan = drain(choose_plan(config, facts(BIG), torch.device("cpu"), 300.0, None))
    assert plan.decisions[-1].reason.startswith("does not fit into the memory of the GPU")


@pytest.mark.parametrize(("epochs", "effort"), [(4, "full"), (40, "light")])
def test_few_given_epochs_need_few_steps(monkeypatch: pytest.MonkeyPatch, epochs: int, effort: str) -> None:
    """75 steps fit. Four passes over eight images of 512 × 512 are 24 steps of six patches of 256 × 256; forty are more."""
    costs = iter((4.0, 1.0))
    monkeypatch.setattr(probe, "_time_noise", lambda *_: next(costs))
    config = config_from_dict({}, ["TRAIN.MAX_MINUTES=5", f"TRAIN.EPOCHS={epochs}"]).config
    events, plan = drain(choose_plan(config, facts(BIG), torch.device("cpu"), 300.0, None))
    assert plan.decisions[-1].value == effort
    assert bool(events) == (effort == "light")


def test_what_is_given_is_not_made_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_time_noise", lambda *_: 100.0)
    given = ["DATA.PATCH_SIZE=(256,256,1)", "MODEL.FEATURE_MAPS=[32,64]", "TRAIN.BATCH_SIZE=4"]
    config = config_from_dict({}, ["TRAIN.MAX_MINUTES=5", *given]).config
    events, plan = drain(choose_plan(config, facts(BIG), torch.device("cpu"), 300.0, None))
    assert events == []
    assert (plan.patch_size, plan.model.feature_maps, plan.batch_size) == ((256, 256), (32, 64), 4)
    assert plan.decisions[-1].reason.endswith("250 are wanted; there is no lighter one with what is given")
    monkeypatch.setattr(probe, "_time_noise", lambda *_: 1.0)
    _, plan = drain(choose_plan(config, facts(BIG), torch.device("cpu"), 300.0, None))
    assert plan.decisions[-1].reason == "about 300 steps in the time that is left, 250 are wanted"


@pytest.mark.parametrize(("seconds", "flips"), [(1.2, True), (1.201, False)])
def test_few_volumes_are_reversed_in_z_where_many_steps_fit(monkeypatch: pytest.MonkeyPatch, seconds: float, flips: bool) -> None:
    """300 s are 250 steps of 1.2 s. A training that goes on, with more time, does as before."""
    config = config_from_dict({}, ["TRAIN.MAX_MINUTES=5", "AUGMENTOR.ENABLE=True", "AUGMENTOR.ZFLIP=auto"]).config
    volumes = facts([(32, 64, 64)] * 9)
    monkeypatch.setattr(probe, "_time_noise", lambda *_: seconds)
    _, plan = drain(choose_plan(config, volumes, torch.device("cpu"), 300.0, None))
    assert plan.flips_z == flips
    [decision] = [item for item in plan.decisions if item.key == "AUGMENTOR.ZFLIP"]
    assert decision.value == str(flips)
    assert decision.reason.startswith("about 250 steps see the same" if flips else "about 249 steps; of few")
    monkeypatch.setattr(probe, "_time_noise", lambda *_: 1 / seconds)
    longer = config_from_dict({}, ["TRAIN.MAX_MINUTES=9", "AUGMENTOR.ENABLE=True", "AUGMENTOR.ZFLIP=auto"]).config
    _, again = drain(choose_plan(longer, volumes, torch.device("cpu"), 540.0, plan))
    assert again.flips_z == flips
    assert adopt(again, plan) is not None
    [later] = [item for item in again.decisions if item.key == "AUGMENTOR.ZFLIP"]
    assert (later.value, later.reason) == (str(flips), f"as in what was done of this training before: {decision.reason}")


def test_few_given_epochs_are_no_many_steps_of_the_same_volumes(monkeypatch: pytest.MonkeyPatch) -> None:
    """3000 steps fit into the time, but two passes over nine volumes are few, and then the training ends."""
    keys = ["TRAIN.MAX_MINUTES=5", "AUGMENTOR.ENABLE=True", "AUGMENTOR.ZFLIP=auto", "TRAIN.EPOCHS=2"]
    monkeypatch.setattr(probe, "_time_noise", lambda *_: 0.1)
    volumes = facts([(32, 64, 64)] * 9)
    _, plan = drain(choose_plan(config_from_dict({}, keys).config, volumes, torch.device("cpu"), 300.0, None))
    steps = 2 * count_steps(plan.config, volumes, plan.patch_size, plan.batch_size)[1]
    [decision] = [item for item in plan.decisions if item.key == "AUGMENTOR.ZFLIP"]
    assert (plan.flips_z, decision.value) == (False, "False")
    assert decision.reason.startswith(f"about {steps} steps; of few volumes this was seen to pay from 250 on")


def test_many_volumes_and_what_is_given_are_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_time_noise", lambda *_: 0.1)
    for count, asked, flips in ((10, "auto", False), (1, "True", True), (1, "False", False)):
        given = ["TRAIN.MAX_MINUTES=5", "AUGMENTOR.ENABLE=True", f"AUGMENTOR.ZFLIP={asked}"]
        fingerprint = facts([(32, 64, 64)] * count)
        _, plan = drain(choose_plan(config_from_dict({}, given).config, fingerprint, torch.device("cpu"), 300.0, None))
        assert plan.flips_z == flips


def test_a_lighter_plan_that_given_keys_do_not_fit_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five values per level: the full network and the least have as many levels, the light one has four."""
    monkeypatch.setattr(probe, "_time_noise", lambda *_: 100.0)
    config = config_from_dict({}, ["TRAIN.MAX_MINUTES=5", "MODEL.CONV_LAYERS=[1,1,1,2,2]"]).config
    with pytest.raises(PlanError):
        make_plan(config, facts(BIG), LIGHT)
    events, plan = drain(choose_plan(config, facts(BIG), torch.device("cpu"), 300.0, None))
    assert (len(events), plan.patch_size) == (1, (128, 128))
    assert plan.decisions[-1].value == "least"
    assert plan.decisions[-1].reason.endswith("there is no lighter one with what is given")


def test_of_volumes_there_is_one_lighter_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Narrow, of five levels: of four wider ones too few steps fit."""
    monkeypatch.setattr(probe, "_time_noise", lambda *_: 4.0)
    config = config_from_dict({}, ["TRAIN.MAX_MINUTES=5"]).config
    events, plan = drain(choose_plan(config, facts([(20, 512, 512)]), torch.device("cpu"), 300.0, None))
    assert [event.text.split(" network")[0] for event in events] == ["the full"]
    assert (plan.patch_size, plan.model.feature_maps) == ((16, 64, 64), (8, 16, 32, 64, 128))


def test_equal_work_in_the_middle_does_not_end_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images as small as the patch of the light effort: the least one has a smaller patch."""
    monkeypatch.setattr(probe, "_time_noise", lambda *_: 100.0)
    given = ["TRAIN.MAX_MINUTES=5", "MODEL.FEATURE_MAPS=[8,16,32]", "TRAIN.BATCH_SIZE=4"]
    config = config_from_dict({}, given).config
    _, plan = drain(choose_plan(config, facts([(160, 160)] * 8), torch.device("cpu"), 300.0, None))
    assert plan.patch_size == (128, 128)


def test_a_time_that_is_over_leaves_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading took longer than the whole training was to take."""
    monkeypatch.setattr(probe, "_time_noise", lambda *_: 0.1)
    config = config_from_dict({}, ["TRAIN.MAX_MINUTES=0.1"]).config
    events, plan = drain(choose_plan(config, facts(BIG), torch.device("cpu"), -3.0, None))
    assert "would make 0 steps" in events[0].text
    assert plan.decisions[-1].reason.startswith("about 0 steps")


def test_when_the_time_is_over_no_whole_step_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    plan, seen = make_plan(config_from_dict({}, ["TRAIN.MAX_MINUTES=1"]).config, facts(BIG)), []
    monkeypatch.setattr(probe._Untrained, "step_seconds", lambda _, part: seen.append(part) or 0.01)
    assert probe._time_noise(plan, torch.device("cpu"), -3.0) > 0
    assert seen == [probe._parts_of_a_batch(plan)[0]] * 2


def test_without_a_time_or_with_an_earlier_run_nothing_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> float:
        raise AssertionError

    monkeypatch.setattr(probe, "_time_noise", refuse)
    config = config_from_dict({}, ["TRAIN.MAX_MINUTES=5"]).config
    _, plan = drain(choose_plan(config, facts(BIG), torch.device("cpu"), None, None))
    assert plan == make_plan(config, facts(BIG))
    previous = make_plan(config, facts(BIG), LIGHT)
    _, plan = drain(choose_plan(config, facts(BIG), torch.device("cpu"), 300.0, previous))
    assert plan == previous


@pytest.mark.parametrize("shape", [(512, 512), (64, 128, 128)])
def test_each_effort_is_less_work(shape: tuple[int, ...]) -> None:
    """By measuring steps, or parts of them, of the last two; of volumes there are no more."""
    config = config_from_dict({}, ["TRAIN.MAX_MINUTES=5"]).config
    plans = [plan for _, plan in plans_by_effort(config, facts((shape,) * 4))[-2:]]
    seconds = [min(probe._time_noise(plan, torch.device("cpu"), 60.0) for _ in range(2)) for plan in plans]
    assert seconds[0] > 1.2 * seconds[1] > 0


@pytest.mark.parametrize("step", [0.01, 0.3, 2.0, 8.0, 40.0], ids=lambda seconds: f"{seconds} s")
@pytest.mark.parametrize("shape", [(512, 512), (64, 128, 128)])
def test_timing_costs_little_of_a_short_time(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], step: float) -> None:
    """One minute, a step of the full network from 10 ms to 40 s, and 30 ms more however small it is, as beside other work."""
    config = config_from_dict({}, ["TRAIN.MAX_MINUTES=1"]).config
    full = make_plan(config, facts((shape,) * 8))
    rate, spent = step / probe._voxels_of_a_batch(full), []

    def timed(_: object, part: Plan) -> float:
        spent.append(0.03 + rate * probe._voxels_of_a_batch(part) * sum(part.model.feature_maps) / 496)
        return spent[-1]

    monkeypatch.setattr(probe._Untrained, "step_seconds", timed)
    events, plan = drain(choose_plan(config, facts((shape,) * 8), torch.device("cpu"), 60.0, None))
    assert sum(spent) < 0.1 * 60
    assert (plan.patch_size == full.patch_size) == (step < 60 / 250)
    assert bool(events) == (step > 60 / 250)


@pytest.mark.parametrize("step", [0.01, 0.2, 0.4, 3.0])
def test_a_step_is_foreseen_as_it_is(monkeypatch: pytest.MonkeyPatch, step: float) -> None:
    """Within a factor of two, though each part takes 100 ms more than its share."""
    plan = make_plan(config_from_dict({}, ["TRAIN.MAX_MINUTES=1"]).config, facts(((64, 128, 128),) * 8))
    rate = step / probe._voxels_of_a_batch(plan)
    monkeypatch.setattr(probe._Untrained, "step_seconds", lambda _, part: 0.1 + rate * probe._voxels_of_a_batch(part))
    found = probe._time_noise(plan, torch.device("cpu"), 60.0)
    assert step + 0.1 <= found <= 2 * (step + 0.1)


def test_a_step_that_other_work_held_up_does_not_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first part, of some milliseconds, takes a second."""
    plan = make_plan(config_from_dict({}, ["TRAIN.MAX_MINUTES=1"]).config, facts(BIG))
    held_up = iter([1.0])
    monkeypatch.setattr(probe._Untrained, "step_seconds", lambda *_: next(held_up, 0.0) + 0.01)
    assert probe._time_noise(plan, torch.device("cpu"), 60.0) == pytest.approx(0.01)


@pytest.mark.parametrize("sides", [(48, 96, 96), (32, 32, 32), (16, 64, 64)])
@pytest.mark.parametrize("batch", [1, 3, 4])
def test_parts_of_a_batch_can_be_trained_on(sides: tuple[int, ...], batch: int) -> None:
    given = [
        f"DATA.PATCH_SIZE={(*sides, 1)}",
        "MODEL.FEATURE_MAPS=[2,2,2,2,2]",
        "MODEL.Z_DOWN=[2,2,2,2]",
        f"TRAIN.BATCH_SIZE={batch}",
    ]
    plan = make_plan(config_from_dict({}, given).config, facts([(64, 128, 128)] * 3))
    parts = probe._parts_of_a_batch(plan)
    assert parts[-1] == plan
    assert probe._voxels_of_a_batch(parts[0]) <= max(2, parts[0].batch_size) * 2**12
    assert sorted(map(probe._voxels_of_a_batch, parts)) == list(map(probe._voxels_of_a_batch, parts))
    # One volume is computed by PyTorch in another way, several times slower: steps of two would be foreseen as too long.
    assert all((part.batch_size == 1) == (batch == 1) for part in parts)
    untrained = probe._Untrained.of(plan, torch.device("cpu"))
    assert all(untrained.step_seconds(part) > 0 for part in parts)


def test_a_patch_of_one_voxel_at_the_last_level_is_timed_with_its_batch() -> None:
    """A single one has no variance to normalise by."""
    given = ["DATA.PATCH_SIZE=(32,32,1)", "MODEL.FEATURE_MAPS=[2,2,2,2,2,2]", "TRAIN.BATCH_SIZE=4"]
    plan = make_plan(config_from_dict({}, given).config, facts())
    assert [(part.batch_size, part.patch_size) for part in probe._parts_of_a_batch(plan)] == [(2, (32, 32)), (4, (32, 32))]
    assert 0 < probe._time_noise(plan, torch.device("cpu"), 60.0) < 60
