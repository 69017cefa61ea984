"""A loss or gradient that is not finite never reaches the weights, looked at now or some steps later."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from torch import nn

from crista.errors import TrainingError
from crista.patches.loader import Batch
from crista.training import finite
from crista.training.finite import MOST_SKIPPED, STEPS_BEHIND, FiniteWatch, SkippedSteps, updates_to_watch
from crista.training.precision import Precision


def batch(name: str) -> Batch:
    return Batch(torch.zeros(1, 1, 2, 2), torch.zeros(1, 2, 2, dtype=torch.uint8), (name,))


class Trainer:
    """One weight that each step moves by its gradient."""

    def __init__(self, *, behind: int, skipped: SkippedSteps | None = None) -> None:
        self.weight = nn.Parameter(torch.ones(1))
        self.optimizer = torch.optim.SGD([self.weight], lr=0.1, fused=True)
        self.watch = FiniteWatch(self.optimizer, behind=behind, skipped=skipped)

    def step(self, gradient: float, name: str, *, loss: float = 1.0) -> None:
        self.weight.grad = torch.full((1,), gradient)
        self.watch.look([torch.tensor(loss)], torch.tensor(abs(gradient)), [batch(name)])
        self.optimizer.step()


@pytest.mark.parametrize("gradient", [math.nan, math.inf])
def test_looked_at_at_once_it_stops_before_the_update(gradient: float) -> None:
    trainer = Trainer(behind=0)
    trainer.step(1.0, "a")
    with pytest.raises(
        TrainingError, match=r"norm of the gradient became (nan|inf); training stopped before the update.*of: b\."
    ):
        trainer.step(gradient, "b")
    assert trainer.weight.item() == pytest.approx(0.9)


@pytest.mark.parametrize(("loss", "gradient"), [(1.0, math.nan), (math.nan, 1.0), (math.inf, math.inf)])
def test_looked_at_later_the_optimizer_has_made_no_update_since(loss: float, gradient: float) -> None:
    """As on a GPU: the bad step is b, c and d follow before its figures arrive."""
    trainer = Trainer(behind=2)
    trainer.step(1.0, "a")
    trainer.step(gradient, "b", loss=loss)
    trainer.step(1.0, "c")
    with pytest.raises(TrainingError, match=r"the (loss|norm of the gradient) became (nan|inf).*of: b\."):
        trainer.step(1.0, "d")
    assert trainer.weight.item() == pytest.approx(0.9)


def test_at_the_end_nothing_is_left_unseen() -> None:
    trainer = Trainer(behind=2)
    trainer.step(1.0, "a")
    trainer.step(1.0, "b", loss=math.nan)
    with pytest.raises(TrainingError, match=r"the loss became nan.*of: b\."):
        trainer.watch.finish()
    assert trainer.weight.item() == pytest.approx(0.9)


def test_good_steps_are_made_and_say_nothing() -> None:
    trainer = Trainer(behind=2)
    for number in range(5):
        trainer.step(1.0, str(number))
    trainer.watch.finish()
    assert trainer.weight.item() == pytest.approx(0.5)


def test_loss_scaling_may_overflow_gradients_but_not_losses() -> None:
    trainer = Trainer(behind=0, skipped=SkippedSteps())
    trainer.step(1.0, "a")
    trainer.watch.look([torch.tensor(1.0)], torch.tensor(math.inf), [batch("b")])
    with pytest.raises(TrainingError, match="the loss became inf"):
        trainer.watch.look([torch.tensor(math.inf)], torch.tensor(1.0), [batch("c")])


@pytest.fixture
def half(monkeypatch: pytest.MonkeyPatch) -> Precision:
    """float16 with loss scaling, on the processor: the real scaler, which GPUs without bfloat16 train with."""
    monkeypatch.setattr("crista.training.precision.training_half_precision", lambda _: torch.float16)
    return Precision(None, torch.device("cpu"))


class ScaledTrainer:
    """A layer whose gradient is multiplied by `factor`; weights and updates are float32."""

    def __init__(self, precision: Precision) -> None:
        self.precision = precision
        self.model = nn.Linear(3, 1)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, fused=True)
        self.factor = 1.0
        self.model.weight.register_hook(lambda gradient: gradient * self.factor)

    def epochs(self, count: int, steps: int, behind: int) -> None:
        for _ in range(count):
            self.epoch(steps, behind)

    def epoch(self, steps: int, behind: int = 0) -> None:
        watch = FiniteWatch(self.optimizer, behind=behind, skipped=self.precision.skipped)
        for _ in range(steps):
            self.optimizer.zero_grad()
            loss = self.model(torch.ones(4, 3)).square().mean()
            self.precision.backward(loss)
            norm = self.precision.gradient_norm(self.optimizer, self.model, 0.0)
            watch.look([loss], norm, [batch("a")])
            self.precision.step(self.optimizer)
        watch.finish()


@pytest.mark.parametrize("behind", [0, 2])
@pytest.mark.parametrize("length", [4, 2 * MOST_SKIPPED], ids=["short epochs", "long epochs"])
def test_a_gradient_that_stays_nan_is_not_skipped_for_ever(half: Precision, length: int, behind: int) -> None:
    trainer = ScaledTrainer(half)
    trainer.epoch(3)
    before = trainer.model.weight.detach().clone()
    trainer.factor = math.nan
    with pytest.raises(TrainingError, match=r"norm of the gradient, 20 steps in a row, became nan.*of: a\..*TRAIN\.AMP: False"):
        trainer.epochs(2 * MOST_SKIPPED // length, length, behind)
    assert torch.equal(trainer.model.weight, before)


def test_steps_that_are_skipped_now_and_then_are_usual(half: Precision) -> None:
    trainer = ScaledTrainer(half)
    before = trainer.model.weight.detach().clone()
    for _ in range(3):
        trainer.factor = math.inf
        trainer.epoch(MOST_SKIPPED - 1)
        assert half.skipped is not None
        assert half.skipped.count == MOST_SKIPPED - 1
        trainer.factor = 1.0
        trainer.epoch(1)
        assert half.skipped.count == 0
    assert not torch.equal(trainer.model.weight, before)


def test_after_a_stop_within_a_step_an_earlier_state_can_be_taken_up(half: Precision) -> None:
    """The gradient was unscaled, and no update followed: the scaler itself would refuse the next step."""
    trainer = ScaledTrainer(half)
    trainer.epoch(1)
    before = half.state()
    trainer.factor = math.nan
    with pytest.raises(TrainingError):
        trainer.epoch(MOST_SKIPPED)
    half.load(before)
    trainer.factor = 1.0
    trainer.epoch(2)
    assert torch.isfinite(trainer.model.weight).all()


def test_the_batch_that_is_named_is_that_of_the_bad_loss() -> None:
    watch = Trainer(behind=0).watch
    losses = [torch.tensor(1.0), torch.tensor(math.nan)]
    with pytest.raises(TrainingError, match=r"of: second\."):
        watch.look(losses, torch.tensor(1.0), [batch("first"), batch("second")])


def test_only_a_gpu_is_left_ahead() -> None:
    assert updates_to_watch(torch.device("cpu")) == 0
    assert updates_to_watch(torch.device("mps")) == 0
    assert updates_to_watch(torch.device("cuda", 1)) == STEPS_BEHIND


def test_figures_are_waited_for_on_the_gpu_that_computes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for a second GPU, as a processor has none: its stream is recorded, not that of the first one."""
    recorded = []

    class Arrival:
        def record(self, stream: object = "of the first GPU") -> None:
            recorded.append(stream)

    second = SimpleNamespace(device=torch.device("cuda:1"), shape=(2,), dtype=torch.float32)
    monkeypatch.setattr(torch.cuda, "Event", Arrival)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"of {device}")
    monkeypatch.setattr(torch, "empty", lambda *_, **__: SimpleNamespace(copy_=lambda *_, **__: None))
    finite._sent(cast("torch.Tensor", second), [batch("a")])
    assert recorded == ["of cuda:1"]
