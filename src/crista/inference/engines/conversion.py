"""The trained network as ONNX, from which other engines are made; converted once and kept on disk."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from typing import TypeVar

import torch
from torch import Tensor, nn

from crista.images.atomic import atomic_write
from crista.inference.engines.base import EngineSource, installed
from crista.inference.engines.torch_engine import build_network
from crista.inference.scores import scores_of
from crista.models import fold_batch_norm
from crista.plan.topology import input_multiple

Loaded = TypeVar("Loaded")

INPUT, OUTPUT = "images", "scores"
FORMAT = 1
"""Raised when the conversion below changes what it makes of a network."""


class ScoringNetwork(nn.Module):
    """A network with its batch norms folded, that ends in probabilities."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = fold_batch_norm(model)

    def forward(self, images: Tensor) -> Tensor:
        """Scores (N, L, [Z,] Y, X) of images (N, C, [Z,] Y, X)."""
        return scores_of(self.model(images))


def load_converted(source: EngineSource, load: Callable[[bytes], Loaded]) -> Loaded:
    """What `load` makes of the ONNX file of the network.

    The file is taken from the cache, or converted and put there under a name that weights, network and versions decide. One
    that cannot be loaded (a disk may have lost part of it) is converted anew. A folder that cannot be written is done without.
    """
    path = source.cache / f"{conversion_key(source)}.onnx"
    if path.is_file():
        try:
            return load(path.read_bytes())
        except Exception:  # noqa: BLE001 - whatever a library says about a damaged file
            with suppress(OSError):
                path.unlink(missing_ok=True)
    content = convert_to_onnx(source)
    with suppress(OSError):
        atomic_write(path, content)
    return load(content)


def is_converted(source: EngineSource) -> bool:
    """Whether the conversion is in the cache."""
    return (source.cache / f"{conversion_key(source)}.onnx").is_file()


def convert_to_onnx(source: EngineSource) -> bytes:
    """The network as ONNX with any batch size and any spatial shape.

    It is traced with the smallest input that fits it, and without tracing again to compare: 0.6 s here for a U-Net of 5
    levels, where a tile of 1024² takes 9 s. The engine is compared with PyTorch before it is used anyway.
    """
    plan = source.plan
    axes = {0: "n"} | {axis: f"axis{axis}" for axis in range(2, 2 + plan.ndim)}
    smallest = [2 * multiple for multiple in input_multiple(plan.model, plan.ndim)]
    network = ScoringNetwork(build_network(plan, source.weights)).eval()
    content = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        # Of the exporter without dynamo, which is deprecated; the other one takes twenty times as long.
        for category in (DeprecationWarning, UserWarning, torch.jit.TracerWarning):  # type: ignore[attr-defined]
            warnings.simplefilter("ignore", category)
        torch.onnx.export(
            network,
            (torch.zeros(1, plan.num_channels, *smallest),),
            content,  # type: ignore[arg-type]
            dynamo=False,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes={INPUT: axes, OUTPUT: axes},
        )
    return content.getvalue()


def conversion_key(source: EngineSource) -> str:
    """A digest of all that the converted network depends on."""
    plan = source.plan
    shape = [plan.ndim, plan.num_channels, plan.classes.num_logits]
    parts = [FORMAT, source.digest, plan.model.model_dump_json(), shape, torch.__version__, installed("onnx")]
    return sha256(json.dumps(parts).encode()).hexdigest()[:32]
