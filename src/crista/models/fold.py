"""Batch norm folded into the convolutions in front of it: the same numbers, fewer passes over the pixels."""

from __future__ import annotations

import copy

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights

from crista.models.blocks import ConvUnit, Up

TRANSPOSED = (nn.ConvTranspose2d, nn.ConvTranspose3d)


def fold_batch_norm(model: nn.Module) -> nn.Module:
    """A copy of `model` in evaluation mode whose batch norms are part of the convolutions where that is possible.

    In evaluation batch norm is one scale and shift per channel, which the convolution before it can take over (also
    through a linear interpolation between them). Norms in front of an activation and a convolution (pre-activated
    blocks) stay, and so do norms that depend on the input. Outputs differ from those of `model.eval()` by rounding
    only.
    """
    folded = copy.deepcopy(model).eval()
    for module in list(folded.modules()):
        if isinstance(module, ConvUnit | Up) and isinstance(module.norm, _BatchNorm):
            _fold(module.conv, module.norm)
            module.norm = nn.Identity()
    return folded


def _fold(conv: nn.Module, norm: _BatchNorm) -> None:
    """Put the scale and shift of `norm` into the weights of `conv`, in place."""
    assert isinstance(conv, nn.Conv2d | nn.Conv3d | TRANSPOSED[0] | TRANSPOSED[1])
    assert norm.running_mean is not None
    assert norm.running_var is not None
    weight, bias = fuse_conv_bn_weights(
        conv.weight,
        conv.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
        transpose=isinstance(conv, TRANSPOSED),
    )
    conv.weight, conv.bias = weight, bias
