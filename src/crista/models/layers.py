"""The smallest pieces of a network: convolution, pooling, normalisation and activation, picked by `ndim`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

from torch import nn

CONVOLUTIONS: dict[int, Callable[..., nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED: dict[int, Callable[..., nn.Module]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
POOLINGS = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
BATCH_NORMS = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
INSTANCE_NORMS = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
INTERPOLATIONS = {2: "bilinear", 3: "trilinear"}

MAX_GROUPS = 8
"""Groups of `gn` where the number of channels divides by it."""

ACTIVATIONS: dict[str, Callable[[bool], nn.Module]] = {
    # The argument allows to overwrite the input, where the backward pass needs the output only: less memory.
    "relu": nn.ReLU,
    "elu": lambda overwrite: nn.ELU(inplace=overwrite),
    "leaky_relu": lambda overwrite: nn.LeakyReLU(0.01, inplace=overwrite),
    "gelu": lambda _: nn.GELU(),
    "silu": lambda _: nn.SiLU(),
    "tanh": lambda _: nn.Tanh(),
    "sigmoid": lambda _: nn.Sigmoid(),
    "softmax": lambda _: nn.Softmax(dim=1),
    "linear": lambda _: nn.Identity(),
    "none": lambda _: nn.Identity(),
}

RECTIFIERS = frozenset({"relu", "elu", "leaky_relu", "gelu", "silu"})
"""Activations for which He's initialisation is meant."""


def build_conv(in_channels: int, out_channels: int, kernel: Sequence[int], *, bias: bool = True) -> nn.Module:
    """Convolution that keeps the spatial shape (zero padding); `kernel` is odd, one value per axis."""
    padding = tuple(side // 2 for side in kernel)
    return CONVOLUTIONS[len(kernel)](in_channels, out_channels, tuple(kernel), padding=padding, bias=bias)


def build_transposed_conv(in_channels: int, out_channels: int, factor: Sequence[int]) -> nn.Module:
    """Transposed convolution that multiplies the spatial shape by `factor`, without overlap of the kernels."""
    return TRANSPOSED[len(factor)](in_channels, out_channels, tuple(factor), stride=tuple(factor))


def build_pooling(factor: Sequence[int]) -> nn.Module:
    """Max pooling that divides the spatial shape by `factor`."""
    return POOLINGS[len(factor)](tuple(factor)) if prod(factor) > 1 else nn.Identity()


def build_interpolation(factor: Sequence[int]) -> nn.Module:
    """Linear interpolation that multiplies the spatial shape by `factor`."""
    if prod(factor) == 1:
        return nn.Identity()
    scale = tuple(float(side) for side in factor)
    return nn.Upsample(scale_factor=scale, mode=INTERPOLATIONS[len(factor)], align_corners=False)


def build_norm(kind: str, channels: int, ndim: int) -> nn.Module:
    """Normalisation layer.

    `bn` and `sync_bn` keep running statistics; `in` (instance), `gn` (groups: the largest divisor of the channels
    that is at most 8) and `ln` (one group) take theirs from each input alone. All have a learned scale and shift.
    """
    if kind == "none":
        return nn.Identity()
    if kind == "bn":
        return BATCH_NORMS[ndim](channels)
    if kind == "sync_bn":
        return nn.SyncBatchNorm(channels)
    if kind == "in":
        return INSTANCE_NORMS[ndim](channels, affine=True)
    return nn.GroupNorm(1 if kind == "ln" else count_groups(channels), channels)


def count_groups(channels: int) -> int:
    """The largest divisor of `channels` that is at most 8."""
    return next(groups for groups in range(min(MAX_GROUPS, channels), 0, -1) if channels % groups == 0)
