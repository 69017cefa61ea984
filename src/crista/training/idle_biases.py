"""Biases that a norm takes away again: their gradient is 0, and computing that takes a pass over the memory per layer."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from crista.models.blocks import ConvUnit, Up


def freeze_idle_biases(model: nn.Module) -> nn.Module:
    """`model`, in which biases in front of a norm that subtracts the mean of each channel stay as they are.

    They would do so anyway, but for rounding: in training the norm subtracts them with the mean. They are kept, so that names and
    meaning of the weights do not depend on it. Group norms subtract means over several channels; theirs are trained.
    """
    for module in model.modules():
        if isinstance(module, ConvUnit | Up) and isinstance(module.norm, _BatchNorm | _InstanceNorm):
            bias = module.conv.bias
            if isinstance(bias, nn.Parameter):
                bias.requires_grad_(False)
    return model
