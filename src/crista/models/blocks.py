"""Blocks of the U-Net family, for 2D and 3D alike: convolution units, plain and residual blocks, upsampling,
skips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor, nn

from crista.models import layers


@dataclass(frozen=True)
class Style:
    """What all blocks of a network share."""

    ndim: int
    norm: str
    activation: str

    def build_norm(self, channels: int) -> nn.Module:
        """The network's normalisation over `channels`."""
        return layers.build_norm(self.norm, channels, self.ndim)

    def build_activation(self, *, overwrite: bool = True) -> nn.Module:
        """The network's activation; `overwrite`: its input is needed by nobody else."""
        return layers.ACTIVATIONS[self.activation](overwrite)


class ConvUnit(nn.Module):
    """Convolution -> normalisation -> activation -> dropout; `norm` and `activation` may be identities."""

    def __init__(
        self, conv: nn.Module, norm: nn.Module | None = None, activation: nn.Module | None = None, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.conv = conv
        self.norm = norm or nn.Identity()
        self.activation = activation or nn.Identity()
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, [Z,] Y, X) -> (N, C_out, [Z,] Y, X)."""
        out: Tensor = self.dropout(self.activation(self.norm(self.conv(x))))
        return out


class PreActivation(nn.Module):
    """Normalisation -> activation in front of the first convolution of a pre-activated block."""

    def __init__(self, channels: int, style: Style) -> None:
        super().__init__()
        self.norm = style.build_norm(channels)
        # Without a norm the activation gets the input of the block itself, which the shortcut needs too.
        self.activation = style.build_activation(overwrite=style.norm != "none")

    def forward(self, x: Tensor) -> Tensor:
        """Shape is kept."""
        out: Tensor = self.activation(self.norm(x))
        return out


@dataclass(frozen=True)
class BlockShape:
    """What one block is made of."""

    in_channels: int
    out_channels: int
    kernel: tuple[int, ...]
    num_convs: int
    dropout: float
    is_first: bool = False
    """Whether it is the first of the network, with nothing before it that a norm or an activation could be owed
    to."""


def build_unit(in_channels: int, out_channels: int, kernel: Sequence[int], style: Style, dropout: float = 0.0) -> ConvUnit:
    """Convolution of `kernel` with the network's norm and activation."""
    conv = layers.build_conv(in_channels, out_channels, kernel)
    return ConvUnit(conv, style.build_norm(out_channels), style.build_activation(), dropout)


def build_units(shape: BlockShape, style: Style) -> nn.Sequential:
    """Units one after the other, each conv -> norm -> activation."""
    channels = (shape.in_channels, *([shape.out_channels] * shape.num_convs))
    pairs = pairwise(channels)
    return nn.Sequential(*(build_unit(a, b, shape.kernel, style, shape.dropout) for a, b in pairs))


def build_preactivated_units(shape: BlockShape, style: Style) -> nn.Sequential:
    """Norm -> activation in front of each convolution.

    The first block of a network starts with its convolution: an activation on the image itself would throw pixels
    away.
    """
    last_in = shape.out_channels if shape.num_convs > 1 else shape.in_channels
    last = ConvUnit(layers.build_conv(last_in, shape.out_channels, shape.kernel))
    start = [] if shape.is_first else [PreActivation(shape.in_channels, style)]
    return nn.Sequential(*start, *build_units(replace(shape, num_convs=shape.num_convs - 1), style), last)


class ConvBlock(nn.Module):
    """The convolutions of one level, one after the other."""

    kind = "convolutions"

    def __init__(self, units: nn.Sequential) -> None:
        super().__init__()
        self.units = units

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, [Z,] Y, X) -> (N, C_out, [Z,] Y, X)."""
        out: Tensor = self.units(x)
        return out


class ResidualBlock(nn.Module):
    """Pre-activated convolutions plus a 1×1 convolution of the input (He et al. 2016, arXiv:1603.05027)."""

    kind = "residual convolutions"

    def __init__(self, units: nn.Sequential, shortcut: nn.Module) -> None:
        super().__init__()
        self.units = units
        self.shortcut = shortcut

    @property
    def last_conv(self) -> nn.Module:
        """The convolution whose output is added to the shortcut's."""
        unit = self.units[-1]
        assert isinstance(unit, ConvUnit)
        return unit.conv

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, [Z,] Y, X) -> (N, C_out, [Z,] Y, X)."""
        out: Tensor = self.units(x) + self.shortcut(x)
        return out


def build_plain_block(shape: BlockShape, style: Style) -> nn.Module:
    """Block of conv -> norm -> activation."""
    return ConvBlock(build_units(shape, style))


def build_preactivated_block(shape: BlockShape, style: Style) -> nn.Module:
    """Block of norm -> activation -> conv."""
    return ConvBlock(build_preactivated_units(shape, style))


def build_residual_block(shape: BlockShape, style: Style) -> nn.Module:
    """Pre-activated block with a shortcut."""
    shortcut = layers.build_conv(shape.in_channels, shape.out_channels, (1,) * style.ndim)
    return ResidualBlock(build_preactivated_units(shape, style), shortcut)


class Up(nn.Module):
    """From a level to the finer one above: convolution -> interpolation -> norm -> activation.

    With a transposed convolution the interpolation is an identity; norm and activation are identities until set. The
    1×1 convolution of the other kind runs before the interpolation: the two commute (the weights of linear
    interpolation sum to one), and there are fewer voxels before.
    """

    def __init__(self, conv: nn.Module, out_channels: int, interpolation: nn.Module | None = None) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.conv = conv
        self.interpolation = interpolation or nn.Identity()
        self.norm: nn.Module = nn.Identity()
        self.activation: nn.Module = nn.Identity()

    @property
    def is_plain(self) -> bool:
        """Whether it is linear: as in networks of pre-activated blocks, whose levels are linear in turn."""
        return isinstance(self.norm, nn.Identity) and isinstance(self.activation, nn.Identity)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, [Z,] Y, X) -> (N, C_out, [Z·f,] Y·f, X·f)."""
        out: Tensor = self.activation(self.norm(self.interpolation(self.conv(x))))
        return out


class PlainSkip(nn.Module):
    """The skip connection of the U-Net: encoder features as they are."""

    kind = "skip connection"

    def forward(self, skip: Tensor, gate: Tensor) -> Tensor:  # noqa: ARG002
        """`skip` unchanged."""
        return skip


class AttentionGate(nn.Module):
    """Scales the encoder features by an attention map in (0, 1) (Oktay et al. 2018, arXiv:1804.03999, eq. 1).

    Departs from the paper in that `gate` has already been upsampled to the resolution of `skip`.
    """

    kind = "attention gate"

    def __init__(self, skip_channels: int, gate_channels: int, style: Style) -> None:
        super().__init__()
        inner = max(1, skip_channels // 2)
        point = (1,) * style.ndim
        # One shift is enough for the sum: that of the norms, or without norms the bias of the gate's side.
        bias = style.norm == "none"
        self.w_gate = ConvUnit(layers.build_conv(gate_channels, inner, point, bias=bias), style.build_norm(inner))
        self.w_skip = ConvUnit(layers.build_conv(skip_channels, inner, point, bias=False), style.build_norm(inner))
        self.psi = ConvUnit(layers.build_conv(inner, 1, point), style.build_norm(1), nn.Sigmoid())

    def forward(self, skip: Tensor, gate: Tensor) -> Tensor:
        """`skip` (N, C, [Z,] Y, X) times the map (N, 1, [Z,] Y, X)."""
        attention: Tensor = self.psi(torch.relu(self.w_gate(gate) + self.w_skip(skip)))
        return skip * attention


class EncoderStage(nn.Module):
    """One level of the encoder: convolve, then pool."""

    def __init__(self, block: nn.Module, pool: nn.Module) -> None:
        super().__init__()
        self.block = block
        self.pool = pool

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features of this level for the skip connection, and pooled for the next level."""
        features: Tensor = self.block(x)
        return features, self.pool(features)


class DecoderStage(nn.Module):
    """One level of the decoder: upsample, join with the skip connection, convolve."""

    def __init__(self, up: nn.Module, skip: nn.Module, block: nn.Module) -> None:
        super().__init__()
        self.up = up
        self.skip = skip
        self.block = block

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """`x` of the level below and `skip` of the encoder at this level -> features of this level."""
        up: Tensor = self.up(x)
        out: Tensor = self.block(torch.cat([up, self.skip(skip, up)], dim=1))
        return out
