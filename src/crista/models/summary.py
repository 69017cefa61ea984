"""A network block by block: what each one is, what it puts out, how many parameters it has."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from crista.config.model import Model
from crista.models.blocks import DecoderStage, EncoderStage
from crista.models.unet import EncoderDecoder
from crista.plan.topology import Level, compute_levels

Side = Literal["encoder", "bottleneck", "decoder", "head"]


@dataclass(frozen=True)
class LayerSummary:
    """One block of a network."""

    name: str
    """``input``, ``encoder 1``, ``bottleneck``, ``decoder 2``, ``output``, ``head``; numbers count levels from the
    top, from 1."""
    kind: str
    """What it does, e.g. ``2 convolutions 3×3``."""
    shape: tuple[int, ...]
    """Shape of its output, (C, [Z,] Y, X)."""
    parameters: int
    level: int
    """0 is the resolution of the image."""
    side: Side


def describe_model(model: nn.Module, config: Model, *, input_shape: Sequence[int]) -> tuple[LayerSummary, ...]:
    """One row per block of a network of the U-Net family, in the order of the data flow.

    `input_shape` is (C, [Z,] Y, X), each side a multiple of the network's stride. Nothing is computed: shapes come
    from a copy of the network on torch's meta device. The rows' parameters add up to those of the network.
    """
    network = copy.deepcopy(model).to("meta").eval()
    if not isinstance(network, EncoderDecoder):
        raise TypeError(f"only networks of the U-Net family can be described, got {type(model).__name__}")
    rows = list(_iter_rows(network, compute_levels(config, len(input_shape) - 1)))
    shapes: dict[str, tuple[int, ...]] = {}
    for name, module, *_ in rows:
        module.register_forward_hook(_recorder(name, shapes))
    with torch.no_grad():
        network(torch.zeros((1, *input_shape), device="meta"))
    return tuple(
        LayerSummary(name, kind, shapes[name], sum(p.numel() for p in module.parameters()), level, side)
        for name, module, kind, level, side in rows
    )


def _iter_rows(network: EncoderDecoder, levels: Sequence[Level]) -> Iterator[tuple[str, nn.Module, str, int, Side]]:
    if not isinstance(network.conv_in, nn.Identity):
        yield "input", network.conv_in, "wider convolution", 0, "encoder"
    for level, stage in enumerate(network.encoder):
        assert isinstance(stage, EncoderStage)
        pool = _pooling(levels[level])
        yield f"encoder {level + 1}", stage.block, _block_kind(stage.block, levels[level]) + pool, level, "encoder"
    bottom = len(levels) - 1
    yield "bottleneck", network.bottleneck, _block_kind(network.bottleneck, levels[bottom]), bottom, "bottleneck"
    for level, stage in zip(reversed(range(bottom)), network.decoder, strict=True):
        assert isinstance(stage, DecoderStage)
        yield f"decoder {level + 1}", stage, _stage_kind(stage, levels[level]), level, "decoder"
    if not isinstance(network.conv_out, nn.Identity):
        yield "output", network.conv_out, "wider convolution", 0, "decoder"
    yield "head", network.head, "convolution " + _sides((1,) * len(levels[0].kernel)), 0, "head"


def _block_kind(block: nn.Module, level: Level) -> str:
    return f"{level.num_convs} {block.kind} {_sides(level.kernel)}"


def _pooling(level: Level) -> str:
    return f", max pooling {_sides(level.factor)}" if max(level.factor) > 1 else ""


def _stage_kind(stage: DecoderStage, level: Level) -> str:
    return f"upsampling {_sides(level.factor)}, {stage.skip.kind}, {_block_kind(stage.block, level)}"


def _sides(sides: Sequence[int]) -> str:
    return "×".join(str(side) for side in sides)


def _recorder(name: str, shapes: dict[str, tuple[int, ...]]) -> Callable[[nn.Module, Any, Tensor], None]:
    def record(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        shapes[name] = tuple(output.shape[1:])

    return record
