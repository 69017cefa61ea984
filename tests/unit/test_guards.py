"""Guards: back an epoch with half the rate, at most twice; collapse to one class is said, during training and at its end."""

from __future__ import annotations

from collections.abc import Generator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tests.unit.test_plan import facts, plan
from torch import nn

from crista.errors import UnstableTrainingError
from crista.plan.events import Event, StepFinished, Warned
from crista.training.average import WeightAverage
from crista.training.checkpoint import GuardRecord
from crista.training.finite import EXPLOSION, LEAST_LOSS, WorstBatch, refuse_explosion
from crista.training.guards import MOST_ROLLBACKS, PATIENT_EPOCHS, Guards, advice, single_class, warm_up

COLLAPSED, FOUND = np.array([[90, 0], [10, 0]]), np.array([[80, 10], [5, 5]])


class FakePrecision:
    def state(self) -> None:
        return None

    def load(self, state: object) -> None:
        assert state is None


def make_state() -> Any:
    """A network of a few weights with an optimizer that has a history."""
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    state = SimpleNamespace(model=model, optimizer=optimizer, precision=FakePrecision(), guards=GuardRecord(), history=[])
    state.average = WeightAverage(model)
    state.losses = lambda: [row["val_loss"] for row in state.history]
    return state


def step(state: Any) -> None:
    state.optimizer.zero_grad()
    state.model(torch.ones(4, 3)).square().sum().backward()
    state.optimizer.step()
    state.average.update(20, 3.0)


def failing(state: Any, failures: int) -> Any:
    """An epoch of two steps that breaks down after them `failures` times, then returns the rate factor."""
    left = [failures]

    def learn() -> Generator[Event, None, float]:
        step(state)
        step(state)
        yield StepFinished(1, 1, 1)
        if left[0]:
            left[0] -= 1
            raise UnstableTrainingError("long message", what="the loss became nan", images=("a", "b"))
        return float(state.guards.rate_factor)

    return learn


def drain(events: Generator[Event, None, Any]) -> tuple[list[str], Any]:
    said = []
    while True:
        try:
            event = next(events)
        except StopIteration as end:
            return said, end.value
        if isinstance(event, Warned):
            said.append(event.text)


def tensors(state: Any) -> list[torch.Tensor]:
    held = [value for values in state.optimizer.state.values() for value in values.values()]
    return [value.clone() for value in (*state.model.parameters(), *held, *state.average.state().values())]


@pytest.mark.parametrize("failures", [0, 1, 2])
def test_it_goes_on_from_exactly_the_state_before_the_epoch(failures: int) -> None:
    """Weights and moments after the last attempt are those of an epoch that never failed."""
    state, plain = make_state(), make_state()
    for one in (state, plain):
        step(one)
    said, factor = drain(Guards(plan(), state).attempt(3, failing(state, failures)))
    step(plain)
    step(plain)
    assert factor == 0.5**failures
    assert state.guards.rollbacks == (3,) * failures
    for one, other in zip(tensors(state), tensors(plain), strict=True):
        assert torch.equal(one, other)
    assert len(said) == failures
    for number, text in enumerate(said, 1):
        assert text == (
            "the loss became nan in epoch 3 in a batch of a, b: back to the end of epoch 2, and on with half the learning rate "
            f"({number} of at most 2 times)"
        )


def test_the_third_time_ends_the_training_wherever_the_first_two_were() -> None:
    state = make_state()
    drain(Guards(plan(), state).attempt(1, failing(state, 1)))
    drain(Guards(plan(), state).attempt(5, failing(state, 1)))
    assert state.guards.rollbacks == (1, 5)
    with pytest.raises(UnstableTrainingError, match=r"long message \(It went back 2 times to the last finished epoch") as caught:
        drain(Guards(plan(), state).attempt(6, failing(state, 1)))
    assert caught.value.images == ("a", "b")
    assert MOST_ROLLBACKS == 2


def test_other_errors_are_not_caught() -> None:
    def learn() -> Generator[Event, None, None]:
        yield StepFinished(1, 1, 1)
        raise KeyError("x")

    state = make_state()
    with pytest.raises(KeyError):
        drain(Guards(plan(), state).attempt(1, learn))
    assert state.guards.rollbacks == ()


def explodes(loss: float, earlier: list[float]) -> bool:
    try:
        refuse_explosion(loss, earlier, None)
    except UnstableTrainingError:
        return True
    return False


# --- exploding loss ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "earlier"),
    [(9.9, [1.0, 1.2]), (0.49, [0.001]), (1e9, []), (0.5, [0.05, 0.2]), (0.0, [0.0])],
)
def test_losses_that_are_no_explosion(loss: float, earlier: list[float]) -> None:
    """Less than ten times the best, little where the best is nearly 0, and whatever a first epoch has."""
    assert explodes(loss, earlier) is False
    assert explodes(1000 * loss + 1, [*earlier, 0.05]) is True


@pytest.mark.parametrize(("loss", "earlier"), [(10.1, [1.2, 1.0, 1.1]), (0.51, [0.001]), (0.51, [0.0]), (1e9, [3.0])])
def test_an_explosion_names_the_worst_batch(loss: float, earlier: list[float]) -> None:
    with pytest.raises(UnstableTrainingError) as caught:
        refuse_explosion(loss, earlier, WorstBatch(77.0, ("x.tif", "y.tif")))
    assert f"the training loss exploded: {loss:.3g}, after {min(earlier):.3g} in an earlier epoch" in str(caught.value)
    assert "The highest loss was 77, in a batch with patches of: x.tif, y.tif." in str(caught.value)
    assert caught.value.images == ("x.tif", "y.tif")
    assert pytest.approx(0.5) == EXPLOSION * LEAST_LOSS


# --- collapse ----------------------------------------------------------------------------------------------------------


def test_a_single_predicted_class() -> None:
    assert single_class(COLLAPSED) == 0
    assert single_class(FOUND) == -1
    assert single_class(np.array([[0, 0, 9], [0, 0, 3], [0, 0, 1]])) == 2
    assert single_class(np.array([[90, 0], [0, 0]])) == -1  # there was nothing else to find
    assert single_class(np.zeros((2, 2), int)) == -1


def watched(*confusions: np.ndarray, epochs: int = 20, steps_per_epoch: int | None = None) -> tuple[list[str], Any]:
    state = make_state()
    guards = Guards(plan(facts(), TRAIN__EPOCHS=epochs).model_copy(update={"steps_per_epoch": steps_per_epoch}), state)
    said = []
    for epoch, confusion in enumerate(confusions, 1):
        state.history.append({"val_loss": 1.0 / epoch})
        said.extend(f"{epoch}: {text}" for text in drain(guards.watch(epoch, confusion))[0])
    said.extend(f"end: {text}" for text in drain(guards.close())[0])
    return said, state


def test_collapse_is_said_once_per_spell_after_the_warm_up_and_at_the_end() -> None:
    assert warm_up(20) == 2
    said, state = watched(*[COLLAPSED] * 8)
    assert [text.split(":")[0] for text in said] == ["5", "end"]
    assert "every validation pixel is predicted as background in epochs 3 to 5" in said[0]
    assert "TRAIN.LR: 0.0002 (it is 0.001)" in said[0]
    assert "LOSS.CLASS_REBALANCE: auto" in said[0]
    assert said[1].startswith("end: the best network (epoch 8) predicts only background")
    assert state.guards.only_class == (0,) * 8
    assert PATIENT_EPOCHS == 3


@pytest.mark.parametrize(("steps", "said_in"), [(1, ["end"]), (12, ["end"]), (13, ["11", "end"]), (25, ["7", "end"])])
def test_a_network_of_few_steps_has_not_collapsed_but_not_begun_to_learn(steps: int, said_in: list[str]) -> None:
    """A short time is divided into epochs of a few steps, of which a hundred are needed to find anything."""
    said, _ = watched(*[COLLAPSED] * (11 if steps == 13 else 8), steps_per_epoch=steps)
    assert [text.split(":")[0] for text in said] == said_in
    few = steps * 8 < 100 and steps < 13
    assert (f"After about {8 * steps} steps that is not odd: give it more minutes" in said[-1]) == few
    assert ("TRAIN.LR" in said[-1]) != few


def test_a_network_that_recovers_is_not_called_collapsed() -> None:
    assert watched(*[COLLAPSED] * 4, FOUND, *[COLLAPSED] * 2, FOUND)[0] == []
    assert watched(COLLAPSED, COLLAPSED, FOUND)[0] == []
    assert len(watched(*[COLLAPSED] * 5, FOUND, *[COLLAPSED] * 3, FOUND)[0]) == 2


def test_advice_leaves_out_what_is_done_already() -> None:
    made = plan(
        LOSS__TYPE="[CE]", LOSS__CLASS_REBALANCE="auto", DATA__TRAIN__EXTRACT_RANDOM_PATCH=True, DATA__TRAIN__PROBABILITY_MAP=True
    )
    text = advice(made, 0.5)
    assert "LOSS.TYPE: [DICE, CE]" in text
    assert "CLASS_REBALANCE" not in text
    assert "PROBABILITY_MAP" not in text
    assert "it is 0.0005" in text
    assert "LOSS.TYPE" not in advice(plan(), 1.0)


def test_advice_to_weight_classes_needs_a_term_that_does() -> None:
    assert "CLASS_REBALANCE: auto" in advice(plan(), 1.0)
    assert "CLASS_REBALANCE" not in advice(plan(LOSS__TYPE="[DICE]"), 1.0)
