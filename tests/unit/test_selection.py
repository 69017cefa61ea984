"""The best epoch, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from crista.training.selection import best_epoch, patience_is_over, scores, smoothed, validation_iou


def test_moving_average_by_hand() -> None:
    assert smoothed([1.0, 0.5, 0.5]) == pytest.approx([1.0, 0.85, 0.745])
    assert smoothed([]) == []


def test_one_lucky_epoch_is_not_the_best() -> None:
    losses = [1.0, 0.9, 0.3, 0.8, 0.7, 0.6, 0.55, 0.5]
    assert losses.index(min(losses)) + 1 == 3
    assert best_epoch(losses) == 8


def test_the_start_of_overfitting_is_found() -> None:
    falling = [1.0 - 0.05 * i for i in range(15)]
    rising = [0.3 + 0.1 * i for i in range(10)]
    assert 15 <= best_epoch(falling + rising) <= 17


def test_no_epoch() -> None:
    assert best_epoch([]) == 0


def test_patience() -> None:
    losses = [1.0, 0.5, 1.0, 1.0, 1.0]  # the moving average is lowest at epoch 2
    assert not patience_is_over(losses[:4], 3)
    assert patience_is_over(losses, 3)
    assert not patience_is_over(losses, None)


def rows(*pairs: tuple[float, float]) -> list[dict[str, float]]:
    return [{"val_loss": loss, "val_iou": iou} for loss, iou in pairs]


def test_epochs_are_selected_by_their_iou() -> None:
    """The loss of a network that has found nothing is the lowest; the one that has found most is kept."""
    log = rows((1.0, 0.0), (1.4, 0.04), (1.3, 0.26), (1.2, 0.47))
    assert best_epoch([row["val_loss"] for row in log]) == 1
    assert best_epoch(scores(log)) == 4
    assert scores(log) == pytest.approx([1.0, 0.96, 0.74, 0.53])


@pytest.mark.parametrize("iou", [0.0, float("nan")])
def test_without_foreground_the_loss_selects(iou: float) -> None:
    assert scores(rows((1.0, iou), (0.8, iou))) == [1.0, 0.8]


def test_a_validation_without_foreground_has_no_iou_to_select_by() -> None:
    """All background, predicted as such by a network that has learnt nothing, is no perfect score."""
    log = [
        {"val_loss": loss, "val_iou": validation_iou(np.array([[100 - found, found], [0, 0]]))}
        for loss, found in ((1.2, 0), (1.0, 3), (0.8, 0))
    ]
    assert best_epoch(scores(log)) == 3
    assert validation_iou(np.array([[90, 5], [5, 5]])) == pytest.approx(1 / 3)
    assert np.isnan(validation_iou(np.array([[5, 0, 0], [0, 0, 0], [0, 0, 0]])))


def test_an_epoch_that_was_kept_stays_the_best() -> None:
    """Whatever the log looks like: the last epoch that was the best of its time is the best of all."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        found = np.maximum(0, rng.normal(0.1, 0.3, 12)) * (np.arange(12) >= rng.integers(6))
        log = rows(*zip(rng.random(12), found, strict=True))
        kept = [epoch for epoch in range(1, 13) if best_epoch(scores(log[:epoch])) == epoch]
        if any(found > 0):
            assert kept[-1] == best_epoch(scores(log))
