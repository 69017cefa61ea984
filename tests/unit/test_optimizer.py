"""Optimizers as the plan describes them: kinds, rates, and what weight decay leaves alone."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from crista.config.train import SGD, Adam, AdamW, Optimizer
from crista.errors import CheckpointError
from crista.training.optimizer import OPTIMIZERS, can_fuse, load_optimizer_state, parameter_groups

MODEL = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Conv2d(2, 1, 1))


def test_biases_and_normalisation_do_not_decay() -> None:
    decaying, free = parameter_groups(MODEL, 0.1)
    assert [tuple(p.shape) for p in decaying["params"]] == [(2, 1, 3, 3), (1, 2, 1, 1)]  # type: ignore[attr-defined]
    assert [p.ndim for p in free["params"]] == [1, 1, 1, 1]  # type: ignore[attr-defined]
    assert (decaying["weight_decay"], free["weight_decay"]) == (0.1, 0.0)


def test_frozen_parameters_are_left_out() -> None:
    model = nn.Conv2d(1, 1, 1)
    model.weight.requires_grad_(False)
    assert [len(group["params"]) for group in parameter_groups(model, 0.1)] == [0, 1]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (SGD(lr=0.1, weight_decay=0.01), torch.optim.SGD),
        (Adam(lr=0.1, betas=(0.8, 0.9), weight_decay=0.01), torch.optim.Adam),
        (AdamW(lr=0.1, betas=(0.8, 0.9), weight_decay=0.01), torch.optim.AdamW),
    ],
)
def test_built_as_described(config: Optimizer, kind: type[torch.optim.Optimizer]) -> None:
    optimizer = OPTIMIZERS.build(config, model=MODEL)
    assert type(optimizer) is kind
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.1]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.01, 0.0]
    if "betas" in optimizer.defaults:
        assert optimizer.defaults["betas"] == (0.8, 0.9)
    else:
        assert (optimizer.defaults["momentum"], optimizer.defaults["nesterov"]) == (0.9, True)


def test_a_step_of_sgd_by_hand() -> None:
    """Weight 2, gradient 1, decay 0.5, rate 0.1, no momentum: 2 - 0.1 * (1 + 0.5 * 2) = 1.8; the bias has no decay: 1.9."""
    model = nn.Linear(1, 1)
    nn.init.constant_(model.weight, 2)
    nn.init.constant_(model.bias, 2)
    optimizer = OPTIMIZERS.build(SGD(lr=0.1, momentum=0, weight_decay=0.5), model=model)
    model(torch.ones(1, 1)).sum().backward()
    optimizer.step()
    assert model.weight.item() == pytest.approx(1.8)
    assert model.bias.item() == pytest.approx(1.9)


def test_adam_decays_through_the_gradient_and_adamw_apart_from_it() -> None:
    """First step, gradient 1, weight 2, decay 0.5, rate 0.1.

    Adam: a step of 0.1 along the sign of 1 + 0.5 * 2, so 1.9; AdamW: 2 * (1 - 0.05) - 0.1 = 1.8.
    """
    for config, expected in ((Adam(lr=0.1, weight_decay=0.5), 1.9), (AdamW(lr=0.1, weight_decay=0.5), 1.8)):
        model = nn.Linear(1, 1, bias=False)
        nn.init.constant_(model.weight, 2)
        optimizer = OPTIMIZERS.build(config, model=model)
        model(torch.ones(1, 1)).sum().backward()
        optimizer.step()
        assert model.weight.item() == pytest.approx(expected, abs=1e-5)


CONFIGS = [
    SGD(lr=0.1, weight_decay=0.01),
    Adam(lr=0.1, betas=(0.8, 0.9), weight_decay=0.01),
    AdamW(lr=0.1, betas=(0.8, 0.9), weight_decay=0.01),
]


def take_steps(optimizer: torch.optim.Optimizer, model: nn.Module, *, first: int, last: int) -> None:
    """Steps whose gradients depend on their number only."""
    for step in range(first, last):
        for number, parameter in enumerate(model.parameters()):
            parameter.grad = torch.cos(torch.arange(parameter.numel()) * 0.7 + step + number).view(parameter.shape)
        optimizer.step()


def unfused(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    for group in optimizer.param_groups:
        group["fused"] = False
    return optimizer


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_fused_updates_are_those_of_one_operation_after_the_other(config: Optimizer) -> None:
    torch.manual_seed(0)
    models = [copy.deepcopy(MODEL) for _ in range(2)]
    fused, plain = (OPTIMIZERS.build(config, model=model) for model in models)
    assert [group["fused"] for group in fused.param_groups] == [True, True]
    for optimizer, model in ((fused, models[0]), (unfused(plain), models[1])):
        take_steps(optimizer, model, first=0, last=5)
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_a_state_that_was_not_fused_goes_on_fused(config: Optimizer) -> None:
    """As that of a checkpoint of an earlier version, or of another device."""
    models = [copy.deepcopy(MODEL) for _ in range(2)]
    plain, whole = unfused(OPTIMIZERS.build(config, model=models[0])), unfused(OPTIMIZERS.build(config, model=models[1]))
    take_steps(plain, models[0], first=0, last=3)
    resumed = OPTIMIZERS.build(config, model=models[0])
    load_optimizer_state(resumed, plain.state_dict())
    assert [group["fused"] for group in resumed.param_groups] == [True, True]
    take_steps(resumed, models[0], first=3, last=6)
    take_steps(whole, models[1], first=0, last=6)
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_no_fused_update_on_devices_that_have_none() -> None:
    assert can_fuse(MODEL)
    assert not can_fuse(nn.Conv2d(1, 1, 1, device="meta"))


def test_a_state_of_other_weights_is_refused() -> None:
    optimizer = OPTIMIZERS.build(CONFIGS[0], model=MODEL)
    other = OPTIMIZERS.build(CONFIGS[0], model=nn.Conv2d(1, 1, 1))
    with pytest.raises(CheckpointError, match=r"\[1, 1\] weights, this network trains \[2, 4\].*another --name"):
        load_optimizer_state(optimizer, other.state_dict())
