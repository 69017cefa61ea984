"""The moving average of the weights: hand-computed, exchanged and put back, kept in a checkpoint."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from crista.training.average import WeightAverage


def model_of(value: float) -> nn.Module:
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(value)
    model[0].bias.requires_grad_(False)  # not trained: not averaged
    return model


def test_hand_computed() -> None:
    """Step 90 of a horizon of 4: a quarter of the new weights; step 0 takes nine tenths."""
    model = model_of(1.0)
    average = WeightAverage(model)
    with torch.no_grad():
        model[0].weight.fill_(2.0)
        model[1].running_mean.fill_(8.0)
    average.update(90, 4.0)
    assert average.state()["0.weight"].item() == pytest.approx(1.25)
    assert average.state()["1.running_mean"].item() == pytest.approx(2.0)
    average.update(0, 1000.0)
    assert average.state()["0.weight"].item() == pytest.approx(1.25 + 0.9 * 0.75)
    assert "0.bias" not in average.state()
    assert "1.num_batches_tracked" not in average.state()


def test_the_model_holds_it_for_a_while() -> None:
    model = model_of(1.0)
    average = WeightAverage(model)
    with torch.no_grad():
        model[0].weight.fill_(3.0)
    with average.in_place():
        assert model[0].weight.item() == 1.0
        assert average.state()["0.weight"].item() == 3.0
    assert model[0].weight.item() == 3.0
    assert average.state()["0.weight"].item() == 1.0


def test_a_failure_puts_the_weights_back() -> None:
    model = model_of(1.0)
    average = WeightAverage(model)
    with torch.no_grad():
        model[0].weight.fill_(3.0)
    with pytest.raises(RuntimeError), average.in_place():
        raise RuntimeError
    assert model[0].weight.item() == 3.0


def test_loaded_it_goes_on_alike() -> None:
    model = model_of(1.0)
    first, second = WeightAverage(model), WeightAverage(model_of(0.0))
    second.load(first.state())
    with torch.no_grad():
        model[0].weight.fill_(5.0)
    first.update(50, 10.0)
    assert first.state()["0.weight"].item() == pytest.approx(1 + 4 * 0.15)
    assert second.state()["0.weight"].item() == 1.0
