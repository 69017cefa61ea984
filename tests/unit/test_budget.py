"""A time budget: how many epochs fit, how a training is divided, and what a clock does to it."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil

import pytest
from tests.unit.test_plan import facts

from crista.config.load import config_from_dict
from crista.plan.budget import divide_time
from crista.plan.make import make_plan
from crista.plan.plan import Plan
from crista.training.budget import Budget


def plan_of(*overrides: str) -> Plan:
    return make_plan(config_from_dict({}, list(overrides)).config, facts())


def clock_at(*times: float) -> Iterator[float]:
    yield from times


def rows(*seconds: float) -> list[dict[str, float]]:
    return [{"seconds": value} for value in seconds]


def test_without_a_time_the_epochs_decide() -> None:
    running = Budget(7, clock=lambda: 1e9).start(rows(5.0))
    assert running.total_epochs(rows(5.0)) == running.total_epochs(rows(5.0, 1e6)) == 7


def test_before_the_first_epoch_the_foreseen_number_counts() -> None:
    assert Budget(25, seconds=100, clock=lambda: 0.0).start([]).total_epochs([]) == 25


def test_epochs_follow_the_clock() -> None:
    """100 s, 10 s each: ten; after an epoch of 40 s the median of the lengths still foresees 10 s each."""
    times = clock_at(0, 10, 60, 88, 97.4, 97.6)
    running = Budget(25, seconds=100, clock=lambda: next(times)).start([])
    assert running.total_epochs(rows(10)) == 1 + 9
    assert running.total_epochs(rows(10, 10, 40)) == 3 + 4
    assert running.total_epochs(rows(10, 10, 40, 10, 10)) == 5 + 1
    assert running.total_epochs(rows(10, 10, 40, 10, 10)) == 5 + 0  # 2.6 s of an epoch of 10: not a quarter
    assert running.total_epochs(rows(10, 10, 40, 10, 10)) == 5


def test_the_time_may_be_over_within_an_epoch() -> None:
    times = clock_at(0, 99, 101)
    running = Budget(25, seconds=100, clock=lambda: next(times)).start([])
    assert (running.is_over, running.is_over) == (False, True)
    assert not Budget(25, clock=lambda: 1e9).start([]).is_over


def test_time_of_earlier_processes_counts() -> None:
    times = clock_at(1000, 1000)
    assert Budget(25, seconds=100, clock=lambda: next(times)).start(rows(10, 10, 40)).total_epochs(rows(10, 10, 40)) == 3 + 4


def test_given_epochs_end_a_training_before_its_time() -> None:
    times = clock_at(0, 10)
    running = Budget(4, seconds=1000, most=4, clock=lambda: next(times)).start([])
    assert running.total_epochs(rows(10)) == 4
    assert Budget(25, seconds=1000, most=3).start([]).total_epochs([]) == 3


def test_division_with_a_cheap_validation() -> None:
    """600 s in 25 epochs of 24 s; 16 patches of 0.05 s validate; the rest are steps of 1 s."""
    assert divide_time(600, step=1.0, validation=0.05, patches=16) == (25, 23, 16)


def test_division_with_a_costly_validation() -> None:
    """40 s of validation would take all of an epoch of 24 s: fewest epochs, of 120 s, and a fifth of one for a part of it."""
    epochs, steps, validated = divide_time(600, step=2.0, validation=0.4, patches=100)
    assert (epochs, validated, steps) == (5, 60, 48)


def test_division_never_ends_without_a_step() -> None:
    assert divide_time(1.0, step=60.0, validation=1.0, patches=3) == (1, 1, 1)


def test_no_more_epochs_than_steps_that_fit() -> None:
    """25 epochs of a step of 5 s would be two minutes, not the 20 s that there are."""
    assert divide_time(20.0, step=5.0, validation=0.01, patches=4) == (3, 1, 4)
    assert divide_time(20.0, step=0.5, validation=0.01, patches=4) == (25, 1, 4)


def test_minutes_change_what_is_decided() -> None:
    timed, plain = plan_of("TRAIN.MAX_MINUTES=5"), plan_of()
    assert (timed.minutes, timed.average_share, timed.class_share) == (5.0, 0.05, pytest.approx(1 / 3))
    assert (plain.minutes, plain.average_share, plain.class_share) == (None, None, 0.0)
    assert {decision.key for decision in timed.decisions} >= {"TRAIN.MAX_MINUTES", "TRAIN.EMA", "DATA.TRAIN.CLASS_SHARE"}


def test_given_keys_win_over_the_budget() -> None:
    plan = plan_of("TRAIN.MAX_MINUTES=5", "TRAIN.EMA=False", "DATA.TRAIN.CLASS_SHARE=0")
    assert (plan.average_share, plan.class_share) == (None, 0.0)
    random = plan_of("TRAIN.MAX_MINUTES=5", "DATA.TRAIN.EXTRACT_RANDOM_PATCH=True")
    assert random.class_share == 0.0


def test_epochs_count_the_optimizer_steps_that_are_made() -> None:
    """8 images of 4 patches; overlap makes 9 of each, padding 16, and accumulation takes several for a step."""
    base = ("TRAIN.QUALITY=best", "TRAIN.BATCH_SIZE=1", "DATA.PATCH_SIZE=(128,128,1)")
    assert plan_of(*base).epochs == ceil(6000 / 32)
    assert plan_of(*base, "TRAIN.ACCUM_ITER=4").epochs == ceil(6000 / 8)
    assert plan_of(*base, "DATA.TRAIN.OVERLAP=(0.5,0.5)").epochs == ceil(6000 / (8 * 9))
    assert plan_of(*base, "DATA.TRAIN.PADDING=(32,32)").epochs == ceil(6000 / (8 * 16))
    assert plan_of(*base, "DATA.TRAIN.REPLICATE=2").epochs == ceil(6000 / 64)


def test_a_constant_rate_is_not_said_to_do_the_same_as_an_average() -> None:
    reasons = [
        next(decision.reason for decision in plan_of(*keys).decisions if decision.key == "TRAIN.EMA")
        for keys in ((), ("TRAIN.LR_SCHEDULER.NAME=''",))
    ]
    assert ["does the same" in reason for reason in reasons] == [True, False]


@pytest.mark.parametrize(("quality", "steps"), [("fast", 500), ("standard", 1500), ("best", 6000)])
def test_quality_decides_epochs(quality: str, steps: int) -> None:
    plan = plan_of(f"TRAIN.QUALITY={quality}", "TRAIN.BATCH_SIZE=1", "DATA.PATCH_SIZE=(256,256,1)")
    assert plan.epochs == ceil(steps / 8)  # of eight images, each one patch
    [decision] = [d for d in plan.decisions if d.key == "TRAIN.EPOCHS"]
    assert f"{steps} are aimed at (TRAIN.QUALITY: {quality})" in decision.reason


@pytest.mark.parametrize(("images", "epochs"), [(1, 100), (6, 84), (200, 10)])
def test_epochs_are_at_least_10_and_at_most_a_fifth_of_the_steps(images: int, epochs: int) -> None:
    overrides = ["TRAIN.QUALITY=fast", "TRAIN.BATCH_SIZE=1", "DATA.PATCH_SIZE=(256,256,1)"]
    plan = make_plan(config_from_dict({}, overrides).config, facts(((256, 256),) * images))
    assert plan.epochs == epochs
    [decision] = [d for d in plan.decisions if d.key == "TRAIN.EPOCHS"]
    assert decision.reason.endswith("in 10 to 100 epochs")


def test_few_steps_take_a_higher_rate() -> None:
    rates = {
        keys: plan_of(*keys).optimizer.lr for keys in ((), ("TRAIN.MAX_MINUTES=5",), ("TRAIN.MAX_MINUTES=5", "TRAIN.LR=0.002"))
    }
    assert list(rates.values()) == [1e-3, 5e-3, 2e-3]
    assert plan_of("TRAIN.MAX_MINUTES=5", "TRAIN.OPTIMIZER=SGD").optimizer.lr == 1e-2
