"""How frequent classes are, estimated from what a network says about pixels without annotation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.unit.test_plan import facts, plan

from crista.errors import PlanError
from crista.models.initialization import shift_logits
from crista.training.class_shares import (
    LEAST_SHARE,
    _describe,
    choose_strength,
    estimate_shares,
    fit_temperature,
    weighted_shares,
)

CENTRES = np.array([0.0, 2.0, 4.0])


def seen(shares: list[float], *, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits, right for equal shares, and classes of values of normal distributions about `CENTRES`, drawn with `shares`."""
    rng = np.random.default_rng(seed)
    classes = rng.choice(3, count, p=shares)
    values = rng.normal(CENTRES[classes], 1.0)
    return -0.5 * (values[:, None] - CENTRES) ** 2, classes


@pytest.mark.parametrize("shares", [[0.9, 0.08, 0.02], [1 / 3, 1 / 3, 1 / 3], [0.05, 0.15, 0.8]])
def test_shares_are_found_by_what_a_network_says(shares: list[float]) -> None:
    logits, _ = seen(shares, count=100_000, seed=1)
    found = estimate_shares(logits, np.full(3, 1 / 3), temperature=1.0)
    np.testing.assert_allclose(found, shares, atol=0.01)
    assert found.sum() == pytest.approx(1)


def test_shares_of_two_pixels_by_hand() -> None:
    """Posteriors 0.8 and 0.5 of class 1, equal shares: the first step gives 0.65, and the end solves the fixed point."""
    logits = np.log(np.array([[0.2, 0.8], [0.5, 0.5]]))
    found = estimate_shares(logits, np.array([0.5, 0.5]), temperature=1.0)
    share = found[1]
    posteriors = [0.8 * share / (0.8 * share + 0.2 * (1 - share)), share]
    assert share == pytest.approx(np.mean(posteriors), abs=1e-3)
    assert share > 0.95  # nothing speaks for class 0, so that its share sinks


def test_a_class_that_nothing_speaks_for_keeps_the_least_share() -> None:
    logits = np.array([[0.0, -50.0]] * 100)
    found = estimate_shares(logits, np.array([0.5, 0.5]), temperature=1.0)
    assert found[1] == pytest.approx(LEAST_SHARE, rel=1e-3)


def test_the_shift_makes_decisions_right_for_the_shares() -> None:
    """With the shift of true shares fewer pixels are wrong than without, and as few as the best rule for them has."""
    shares, equal = np.array([0.9, 0.08, 0.02]), np.full(3, 1 / 3)
    logits, classes = seen(shares.tolist(), count=100_000, seed=2)
    wrong = [np.mean((logits + shift).argmax(1) != classes) for shift in (np.zeros(3), np.log(shares / equal))]
    assert wrong[1] < 0.6 * wrong[0]


@pytest.mark.parametrize(("factor", "temperature"), [(1.0, 1.0), (1.5, 1.5), (4.0, 2.0)])
def test_a_network_that_is_too_sure_is_cooled_within_bounds(factor: float, temperature: float) -> None:
    logits, classes = seen([1 / 3] * 3, count=50_000, seed=3)
    assert fit_temperature(factor * logits, classes, np.full(3, 1 / 3)) == pytest.approx(temperature, abs=0.051)


def test_without_labelled_pixels_nothing_is_cooled() -> None:
    assert fit_temperature(np.zeros((0, 3)), np.zeros(0, np.intp), np.full(3, 1 / 3)) == 1.0


def test_no_class_loses_more_than_half_of_its_recall() -> None:
    """A shift of -4 would lose every pixel of class 1, whose logits lie 1.5 above the others; a quarter of it loses none."""
    classes = np.array([0] * 10 + [1] * 10)
    logits = np.where(np.arange(2) == classes[:, None], 1.5, 0.0)
    assert choose_strength(np.array([0.0, -4.0]), logits, classes) == 0.25
    assert choose_strength(np.array([0.0, -1.0]), logits, classes) == 1.0
    assert choose_strength(np.array([0.0, -40.0]), logits, classes) == 0.0
    assert choose_strength(np.array([0.0, -40.0]), logits[:0], classes[:0]) == 1.0


@pytest.mark.parametrize(
    ("strength", "said"), [(1.0, "from now on. Measured"), (0.5, "(by 50%: else"), (0.0, "left as it was trained")]
)
def test_what_is_done_is_said(strength: float, said: str) -> None:
    assert said in _describe(("background", "cell"), np.array([0.5, 0.5]), np.array([0.9, 0.1]), strength)


def test_a_class_that_weighs_more_in_the_loss_is_learnt_as_more_frequent() -> None:
    drawn = np.array([0.5, 0.3, 0.2])
    np.testing.assert_allclose(weighted_shares(drawn, (1.0, 2.0, 2.0)), np.array([0.5, 0.6, 0.4]) / 1.5)
    np.testing.assert_array_equal(weighted_shares(drawn, None), drawn)


def test_weights_that_no_term_of_the_loss_knows_are_none() -> None:
    """Dice has no use for them: a network that learnt by Dice alone has learnt nothing of them."""
    scribbled = facts(counts=(9000, 1000))
    for keys in ({"CLASS_REBALANCE": "auto"}, {"CLASS_REBALANCE": "manual", "CLASS_WEIGHTS": "[1,3]"}):
        given = {f"LOSS__{key}": value for key, value in keys.items()} | {"LOSS__IGNORE_INDEX": 255}
        made = plan(scribbled, LOSS__TYPE="[DICE]", **given)
        assert made.estimates_class_shares
        assert made.class_weights is None
        assert plan(scribbled, LOSS__TYPE="[DICE,CE]", **given).class_weights is not None


def test_one_logit_gets_the_difference_of_the_two_classes() -> None:
    assert shift_logits(torch.tensor([0.5]), (0.25, -1.0)).tolist() == [-0.75]
    assert shift_logits(torch.tensor([0.5, 1.0]), (0.25, -1.0)).tolist() == [0.75, 0.0]


def test_shares_are_estimated_where_labels_are_sparse_or_where_asked() -> None:
    scribbled = facts(counts=(9000, 1000))  # of 8 · 256² pixels
    made = plan(scribbled, LOSS__IGNORE_INDEX=255)
    assert made.estimates_class_shares
    assert any(decision.key == "LOSS.ESTIMATE_CLASS_SHARES" for decision in made.decisions)
    assert not plan(scribbled, LOSS__IGNORE_INDEX=255, LOSS__ESTIMATE_CLASS_SHARES=False).estimates_class_shares
    assert not plan(facts(counts=(8 * 256**2 - 9, 9)), LOSS__IGNORE_INDEX=255).estimates_class_shares
    assert plan(
        facts(counts=(8 * 256**2 - 9, 9)), LOSS__IGNORE_INDEX=255, LOSS__ESTIMATE_CLASS_SHARES=True
    ).estimates_class_shares
    with pytest.raises(PlanError, match=r"LOSS\.ESTIMATE_CLASS_SHARES.*all pixels count as annotated(?s:.)*LOSS\.IGNORE_INDEX"):
        plan(facts(), LOSS__ESTIMATE_CLASS_SHARES=True)
