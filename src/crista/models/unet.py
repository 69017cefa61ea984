"""One encoder and decoder with skip connections, of which the networks of the family differ only in their blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from crista.config.model import Model
from crista.models import layers
from crista.models.blocks import BlockShape, DecoderStage, EncoderStage, Style, Up, build_unit
from crista.models.initialization import initialize
from crista.plan.topology import Level, compute_levels, io_kernel, nearest_multiples, network_stride


def check_input_shape(shape: Sequence[int], stride: Sequence[int]) -> None:
    """Refuse an input (N, C, [Z,] Y, X) whose sides are no multiples of `stride`, with all axes in one ValueError."""
    ndim = len(stride)
    if len(shape) != ndim + 2:
        form = "(N, C, Z, Y, X)" if ndim == 3 else "(N, C, Y, X)"
        raise ValueError(f"a {ndim}D network takes {form}, got an input of {len(shape)} axes: {tuple(shape)}")
    wrong = []
    for axis, size, multiple in zip("ZYX"[-ndim:], shape[2:], stride, strict=True):
        if size % multiple:
            near = " or ".join(str(value) for value in nearest_multiples(size, multiple))
            wrong.append(f"axis {axis} has {size} voxels and must be a multiple of {multiple}; nearest: {near}")
    if wrong:
        raise ValueError("input does not fit the network's pooling: " + "; ".join(wrong))


# A leaf for torch.fx: the check has branches on the shape, which cannot be traced symbolically.
torch.fx.wrap("check_input_shape")


class EncoderDecoder(nn.Module):
    """U-shaped network: blocks and pooling down, upsampling and skip connections up, 1×1 convolution to logits.

    `decoder` is ordered as the data flow, from the bottleneck up. `conv_in` and `conv_out` are identities or the
    wider convolutions of LARGER_IO. `stride`: voxels of the input per voxel of the bottleneck, (Z)YX.
    """

    def __init__(
        self,
        encoder: Sequence[EncoderStage],
        bottleneck: nn.Module,
        decoder: Sequence[DecoderStage],
        head: nn.Module,
        stride: tuple[int, ...],
        *,
        conv_in: nn.Module | None = None,
        conv_out: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.stride = stride
        self.conv_in = conv_in or nn.Identity()
        self.encoder = nn.ModuleList(encoder)
        self.bottleneck = bottleneck
        self.decoder = nn.ModuleList(decoder)
        self.conv_out = conv_out or nn.Identity()
        self.head = head

    def forward(self, image: Tensor) -> Tensor:
        """Logits (N, K, [Z,] Y, X) of `image` (N, C, [Z,] Y, X).

        Raises ValueError, naming axis, size and the nearest sizes, where a side is no multiple of the network's
        stride.
        """
        if not torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
            check_input_shape(image.shape, self.stride)
        x = self.conv_in(image)
        skips: list[Tensor] = []
        for stage in self.encoder:
            skip, x = stage(x)
            skips.append(skip)
        x = self.bottleneck(x)
        for stage in self.decoder:
            x = stage(x, skips.pop())
        logits: Tensor = self.head(self.conv_out(x))
        return logits


@dataclass(frozen=True)
class Parts:
    """How the parts of one network of the family are made."""

    block: Callable[[BlockShape, Style], nn.Module]
    up: Callable[[int, int, Sequence[int]], Up]
    """Called with the channels below, those of this level, and the factor."""
    skip: Callable[[int, int], nn.Module]
    """Called with the channels of the skip connection and those that come up."""


def assemble(config: Model, parts: Parts, style: Style, *, num_channels: int, num_logits: int) -> EncoderDecoder:
    """Put a network together and draw its weights."""
    levels = compute_levels(config, style.ndim)
    above = levels[:-1]
    top = levels[0].channels
    first = top if config.larger_io else num_channels
    shapes = [
        _shape(level, incoming, is_first=index == 0)
        for index, (level, incoming) in enumerate(zip(levels, (first, *(level.channels for level in above)), strict=True))
    ]
    encoder = [
        EncoderStage(parts.block(shape, style), layers.build_pooling(level.factor))
        for shape, level in zip(shapes, above, strict=False)
    ]
    decoder = [_build_stage(parts, style, level, below.channels) for level, below in zip(above, levels[1:], strict=True)]
    head = layers.build_conv(top, num_logits, (1,) * style.ndim)
    wide = io_kernel(config, style.ndim)
    network = EncoderDecoder(
        encoder,
        parts.block(shapes[-1], style),
        decoder[::-1],
        head,
        network_stride(config, style.ndim),
        conv_in=build_unit(num_channels, top, wide, style) if config.larger_io else None,
        conv_out=build_unit(top, top, wide, style) if config.larger_io else None,
    )
    initialize(network, style.activation, head)
    return network


def _shape(level: Level, in_channels: int, *, is_first: bool = False) -> BlockShape:
    return BlockShape(in_channels, level.channels, level.kernel, level.num_convs, level.dropout, is_first)


def _build_stage(parts: Parts, style: Style, level: Level, below: int) -> DecoderStage:
    up = parts.up(below, level.channels, level.factor)
    block = parts.block(_shape(level, up.out_channels + level.channels), style)
    return DecoderStage(up, parts.skip(level.channels, up.out_channels), block)
