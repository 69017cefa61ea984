"""Arithmetic of a network, counted layer by layer while it runs on tensors without data."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import nn

CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose2d, nn.ConvTranspose3d)


def count_flops(network: nn.Module, shape: Sequence[int]) -> int:
    """Floating point operations of the convolutions for an input of `shape` (N, C, [Z,] Y, X).

    A multiplication and its addition count as two. Each output of a convolution takes (kernel volume) x (input channels per
    group) of these pairs; in a transposed one each input takes (kernel volume) x (output channels per group). Biases, norms
    and activations, under 1 % here, are left out.
    """
    network = copy.deepcopy(network).to("meta").eval()
    total = 0

    def add(module: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal total
        if isinstance(module, TRANSPOSED):
            total += 2 * inputs[0].numel() * prod(module.kernel_size) * module.out_channels // module.groups
        else:
            total += 2 * output.numel() * prod(module.kernel_size) * module.in_channels // module.groups

    hooks = [module.register_forward_hook(add) for module in network.modules() if isinstance(module, CONVOLUTIONS + TRANSPOSED)]
    with torch.no_grad():
        network(torch.empty(tuple(shape), device="meta"))
    for hook in hooks:
        hook.remove()
    return total
