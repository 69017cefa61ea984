"""Learning rates by hand, and that they depend on nothing but where the training stands."""

from __future__ import annotations

from math import cos, pi

import pytest

from crista.config.train import ConstantRate, OneCycle, ReduceOnPlateau, ScheduleShape, WarmupCosine
from crista.training.schedule import SCHEDULES, Progress


def rates(shape: ScheduleShape, *, steps: int = 10, epochs: int = 1, peak: float = 1.0) -> list[float]:
    """The rate of every step."""
    schedule = SCHEDULES.build(shape)
    return [schedule(peak, Progress(step, steps, epochs)) for step in range(steps * epochs)]


def test_constant() -> None:
    assert set(rates(ConstantRate(), peak=0.3)) == {0.3}


def test_onecycle_by_hand() -> None:
    """11 steps, rising over three tenths: 1/25 at the start, the peak at step 3, 1/250000 at the end."""
    found = rates(OneCycle(), steps=11)
    assert found[0] == pytest.approx(1 / 25)
    assert found[3] == pytest.approx(1)
    assert found[10] == pytest.approx(1 / 25e4)
    up = (1 + cos(pi / 3)) / 2  # a third of the way up
    assert found[1] == pytest.approx(1 + (1 / 25 - 1) * up)
    down = (1 + cos(pi * 4 / 7)) / 2
    assert found[7] == pytest.approx(1 / 25e4 + (1 - 1 / 25e4) * down)
    assert max(found) == found[3]


def test_onecycle_agrees_with_torch() -> None:
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1)
    reference = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.2, total_steps=50, pct_start=0.3)
    ours = rates(OneCycle(), steps=5, epochs=10, peak=0.2)
    for step, rate in enumerate(ours):
        # torch counts its warm-up to step 0.3 * 50 - 1, we to 0.3 * 49: half a step apart
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"], abs=0.02), step
        optimizer.step()
        if step < 49:
            reference.step()


def test_warmup_cosine_by_hand() -> None:
    """2 epochs of 4 steps up, then 2 epochs of half a cosine from 1 to 0.1."""
    found = rates(WarmupCosine(warmup_epochs=2, min_lr=0.1), steps=4, epochs=4)
    assert found[:8] == pytest.approx([i / 8 for i in range(1, 9)])
    assert found[8] == pytest.approx(1)
    assert found[15] == pytest.approx(0.1)
    assert found[11] == pytest.approx(0.1 + 0.9 * (1 + cos(pi * 3 / 7)) / 2)


def test_cosine_in_the_last_part_only() -> None:
    found = rates(WarmupCosine(warmup_epochs=0, decay_fraction=0.5), steps=10, epochs=2)
    assert found[:11] == [1.0] * 11
    assert found[-1] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("losses", "rate"),
    [
        ([], 1),
        ([3, 2, 1], 1),
        ([1, 2, 2], 1),  # two epochs without improvement are allowed
        ([1, 2, 2, 2], 0.5),
        ([1, 2, 2, 2, 2, 2], 0.5),
        ([1, 2, 2, 2, 2, 2, 2], 0.25),
        ([1, 2, 2, 0.5, 2, 2], 1),  # an improvement starts the count anew
        ([1] * 40, 0.2),  # never below the lowest rate
    ],
)
def test_reduce_on_plateau_by_hand(losses: list[float], rate: float) -> None:
    schedule = SCHEDULES.build(ReduceOnPlateau(factor=0.5, patience=2, min_lr=0.2))
    assert schedule(1.0, Progress(0, 10, 100, losses)) == rate


def test_warmup_longer_than_the_training_only_rises() -> None:
    assert rates(WarmupCosine(warmup_epochs=1), steps=4) == pytest.approx([0.25, 0.5, 0.75, 1])


def test_a_training_of_one_step() -> None:
    for shape in (ConstantRate(), OneCycle(), WarmupCosine(warmup_epochs=0), ReduceOnPlateau(patience=1)):
        [rate] = rates(shape, steps=1)
        assert 0 < rate <= 1


def test_a_resumed_training_has_the_same_rates() -> None:
    """They are functions of the step: a new schedule, asked from the middle on, continues the old one."""
    for shape in (OneCycle(), WarmupCosine(warmup_epochs=2, min_lr=0.01)):
        whole = rates(shape, steps=5, epochs=6)
        fresh = SCHEDULES.build(shape)
        assert [fresh(1.0, Progress(step, 5, 6)) for step in range(17, 30)] == whole[17:]
