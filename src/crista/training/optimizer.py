"""Optimizers: from the plan's optimizer section to a torch optimizer, fused into one pass over the weights where torch can."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from crista.config.train import SGD, Adam, AdamW
from crista.registry import Registry

OPTIMIZERS: Registry[torch.optim.Optimizer] = Registry("optimizer")

FUSED = ("cpu", "cuda")

ParameterGroups = list[dict[str, object]]


def parameter_groups(model: nn.Module, weight_decay: float) -> ParameterGroups:
    """Weights with decay, biases and normalisation parameters (one axis or none) without."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def can_fuse(model: nn.Module) -> bool:
    """Whether torch has fused optimizers for the device of `model`."""
    return all(parameter.device.type in FUSED and parameter.is_floating_point() for parameter in model.parameters())


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Put `state` (of `state_dict`) into `optimizer`, which stays fused or not, whatever the one that was saved."""
    fused = [group["fused"] for group in optimizer.param_groups]
    groups = [{**group, "fused": here} for group, here in zip(state["param_groups"], fused, strict=True)]
    optimizer.load_state_dict({**state, "param_groups": groups})


@OPTIMIZERS.register(SGD)
def build_sgd(config: SGD, *, model: nn.Module) -> torch.optim.Optimizer:
    """Nesterov momentum."""
    groups = parameter_groups(model, config.weight_decay)
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.momentum > 0, fused=can_fuse(model))


@OPTIMIZERS.register(Adam)
def build_adam(config: Adam, *, model: nn.Module) -> torch.optim.Optimizer:
    """Weight decay is an L2 penalty, as in torch."""
    return torch.optim.Adam(parameter_groups(model, config.weight_decay), lr=config.lr, betas=config.betas, fused=can_fuse(model))


@OPTIMIZERS.register(AdamW)
def build_adamw(config: AdamW, *, model: nn.Module) -> torch.optim.Optimizer:
    """Weight decay apart from the gradient."""
    return torch.optim.AdamW(
        parameter_groups(model, config.weight_decay), lr=config.lr, betas=config.betas, fused=can_fuse(model)
    )
