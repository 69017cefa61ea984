"""The weights a network starts from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from crista.models.blocks import ResidualBlock, Up
from crista.models.layers import RECTIFIERS

CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def initialize(network: nn.Module, activation: str, head: nn.Module) -> None:
    """Draw all convolutions anew, from torch's global generator; norms keep scale 1 and shift 0.

    Rectifiers (relu, elu, leaky_relu, gelu, silu): normal with variance 2 / fan-in (He et al. 2015, arXiv:1502.01852,
    eq. 10). Other activations, and the `head`, which feeds none: uniform with variance 2 / (fan-in + fan-out) (Glorot
    and Bengio 2010). Biases are 0.

    Residual blocks have no norm on their sum, so that each would double the variance and the logits would start in the tens.
    Both summands get half of it, and convolutions whose input has not been rectified get variance 1 / fan-in.
    """
    for module in network.modules():
        if isinstance(module, CONVOLUTIONS):
            _draw(module, is_rectified=activation in RECTIFIERS and module is not head)
    for module in network.modules():
        if isinstance(module, ResidualBlock):
            _halve_variance(module.shortcut)
            _halve_variance(module.last_conv)
        if activation in RECTIFIERS and isinstance(module, ResidualBlock):
            _halve_variance(module.shortcut)
        if activation in RECTIFIERS and isinstance(module, Up) and module.is_plain:
            _halve_variance(module.conv)


RAREST = 0.01
"""A class that is rarer than this is expected as often as this, so that its first probability is not lost in the sigmoid."""


@torch.no_grad()
def expect_frequencies(head: nn.Module, frequencies: Sequence[float]) -> None:
    """Set the bias of the last convolution so that an untrained network expects each class as often as it occurs.

    Otherwise the first steps go into learning these frequencies (Lin et al. 2017, arXiv:1708.02002, section 3.3).

    Parameters
    ----------
    head : convolution with one output for two classes, else one per class
    frequencies : share of each class among the pixels, background first
    """
    assert isinstance(head, CONVOLUTIONS)
    assert head.bias is not None
    shares = torch.tensor(frequencies).clamp(min=RAREST, max=1 - RAREST)
    head.bias.copy_((shares[1:] / (1 - shares[1:])).log() if len(frequencies) == 2 else (shares / shares.sum()).log())


def shift_logits(bias: torch.Tensor, shift: Sequence[float]) -> torch.Tensor:
    """The bias (L,) of the last convolution with `shift` (K,) added to the classes; of one logit their difference is added."""
    added = list(shift) if len(bias) == len(shift) else [shift[1] - shift[0]]
    return bias + torch.tensor(added, dtype=bias.dtype, device=bias.device)


def _draw(conv: nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d, *, is_rectified: bool) -> None:
    if is_rectified:
        nn.init.normal_(conv.weight, std=(2.0 / _fan_in(conv)) ** 0.5)
    else:
        nn.init.xavier_uniform_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


def _fan_in(conv: nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d) -> int:
    """Inputs that one output value is a sum of; without overlap a transposed convolution sums over channels alone."""
    if isinstance(conv, nn.ConvTranspose2d | nn.ConvTranspose3d):
        return conv.in_channels
    return conv.weight[0].numel()


def _halve_variance(conv: nn.Module) -> None:
    assert isinstance(conv, CONVOLUTIONS)
    with torch.no_grad():
        conv.weight.mul_(0.5**0.5)
