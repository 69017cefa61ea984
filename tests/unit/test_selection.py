"""The best epoch, by hand."""

from __future__ import annotations

import pytest

from crista.training.selection import best_epoch, patience_is_over, smoothed


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
