"""Optimizers: from the plan's optimizer section to a torch optimizer."""

from __future__ import annotations

import torch
from torch import nn

from crista.config.train import SGD, Adam, AdamW
from crista.registry import Registry

OPTIMIZERS: Registry[torch.optim.Optimizer] = Registry("optimizer")

ParameterGroups = list[dict[str, object]]


def parameter_groups(model: nn.Module, weight_decay: float) -> ParameterGroups:
    """Weights with decay, biases and normalisation parameters (one axis or none) without."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


@OPTIMIZERS.register(SGD)
def build_sgd(config: SGD, *, model: nn.Module) -> torch.optim.Optimizer:
    """Nesterov momentum."""
    groups = parameter_groups(model, config.weight_decay)
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.momentum > 0)


@OPTIMIZERS.register(Adam)
def build_adam(config: Adam, *, model: nn.Module) -> torch.optim.Optimizer:
    """Weight decay is an L2 penalty, as in torch."""
    return torch.optim.Adam(parameter_groups(model, config.weight_decay), lr=config.lr, betas=config.betas)


@OPTIMIZERS.register(AdamW)
def build_adamw(config: AdamW, *, model: nn.Module) -> torch.optim.Optimizer:
    """Weight decay apart from the gradient."""
    return torch.optim.AdamW(parameter_groups(model, config.weight_decay), lr=config.lr, betas=config.betas)
