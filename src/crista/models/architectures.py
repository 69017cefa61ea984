"""The networks that can be asked for: one registered builder per class of config.model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from crista.config.model import AttentionUNet, Model, ResidualUNet, UNet
from crista.models import layers
from crista.models.blocks import (
    AttentionGate,
    PlainSkip,
    Style,
    Up,
    build_plain_block,
    build_preactivated_block,
    build_residual_block,
)
from crista.models.unet import Parts, assemble
from crista.registry import Registry

MODELS: Registry[nn.Module] = Registry("network")
"""Builders of networks, called with the config, `num_channels`, `num_logits` and `ndim`."""


def build_model(config: Model, *, num_channels: int, num_logits: int, ndim: int) -> nn.Module:
    """The network that `config` describes, with freshly drawn weights (from torch's global generator).

    It maps images (N, num_channels, [Z,] Y, X) float to logits (N, num_logits, [Z,] Y, X). Every key of `config` must
    be filled in; a ValueError names one that is not. How weights are drawn: `crista.models.initialization`.
    """
    return MODELS.build(config, num_channels=num_channels, num_logits=num_logits, ndim=ndim)


@MODELS.register(UNet)
def build_unet(config: UNet, *, num_channels: int, num_logits: int, ndim: int) -> nn.Module:
    """U-Net; with `norm_act_conv` its blocks start with norm and activation, so that upsampling does without them."""
    style = _resolve_style(config, ndim)
    preactivated = config.conv_block_order == "norm_act_conv"
    block = build_preactivated_block if preactivated else build_plain_block
    parts = Parts(block, _narrowing_up(config, style, plain=preactivated), lambda _skip, _up: PlainSkip())
    return assemble(config, parts, style, num_channels=num_channels, num_logits=num_logits)


@MODELS.register(AttentionUNet)
def build_attention_unet(config: AttentionUNet, *, num_channels: int, num_logits: int, ndim: int) -> nn.Module:
    """U-Net with a gate on each skip connection."""
    style = _resolve_style(config, ndim)
    preactivated = config.conv_block_order == "norm_act_conv"
    block = build_preactivated_block if preactivated else build_plain_block
    up = _narrowing_up(config, style, plain=preactivated)
    parts = Parts(block, up, lambda skip, gate: AttentionGate(skip, gate, style))
    return assemble(config, parts, style, num_channels=num_channels, num_logits=num_logits)


@MODELS.register(ResidualUNet)
def build_residual_unet(config: ResidualUNet, *, num_channels: int, num_logits: int, ndim: int) -> nn.Module:
    """U-Net of residual blocks, pre-activated whatever CONV_BLOCK_ORDER says; upsampling keeps the channels."""
    style = _resolve_style(config, ndim)

    def build_up(below: int, _channels: int, factor: Sequence[int]) -> Up:
        return _build_up(config, style, below, below, factor)

    parts = Parts(build_residual_block, build_up, lambda _skip, _up: PlainSkip())
    return assemble(config, parts, style, num_channels=num_channels, num_logits=num_logits)


def _narrowing_up(config: Model, style: Style, *, plain: bool) -> Callable[[int, int, Sequence[int]], Up]:
    """Upsampling to the channels of the level above; `plain`: without norm and activation."""

    def build_up(below: int, channels: int, factor: Sequence[int]) -> Up:
        up = _build_up(config, style, below, channels, factor)
        if not plain:
            up.norm, up.activation = style.build_norm(channels), style.build_activation()
        return up

    return build_up


def _build_up(config: Model, style: Style, below: int, channels: int, factor: Sequence[int]) -> Up:
    """Upsampling without norm and activation."""
    if config.upsample_layer == "convtranspose":
        return Up(layers.build_transposed_conv(below, channels, factor), channels)
    return Up(layers.build_conv(below, channels, (1,) * style.ndim), channels, layers.build_interpolation(factor))


def _resolve_style(config: Model, ndim: int) -> Style:
    for key, value in (("NORMALIZATION", config.normalization), ("ACTIVATION", config.activation)):
        if value is None:
            raise ValueError(f"MODEL.{key} is not filled in; the plan decides it before a network is built")
    return Style(ndim, str(config.normalization), str(config.activation))
