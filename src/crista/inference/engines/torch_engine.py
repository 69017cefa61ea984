"""PyTorch: channels-last, batch normalisation folded into the convolutions; on a GPU in half precision."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from crista.config.engine import Torch
from crista.inference.engine import Engine
from crista.inference.engines.base import ENGINES, EngineSource, ScoringEngine, as_input
from crista.inference.scores import scores_of
from crista.models import build_model, fold_batch_norm, to_layout
from crista.models.placement import half_precision, memory_layout
from crista.plan.plan import Plan


def build_network(plan: Plan, weights: Mapping[str, torch.Tensor]) -> nn.Module:
    """The network of `plan` with `weights`: images to logits."""
    model = build_model(plan.model, num_channels=plan.num_channels, num_logits=plan.classes.num_logits, ndim=plan.ndim)
    model.load_state_dict(dict(weights))
    return model


class TorchEngine(ScoringEngine):
    """PyTorch on any device.

    Images go to a GPU through page-locked memory. `half`: what convolutions compute in; left out: half precision on a GPU,
    unless TRAIN.AMP is False.
    """

    name = "torch"

    def __init__(self, model: nn.Module, plan: Plan, device: torch.device, *, half: torch.dtype | None = None) -> None:
        self._layout = memory_layout(plan.ndim, device)
        self._model = to_layout(fold_batch_norm(model), device, plan.ndim)
        self._device = device
        self._half = half or (half_precision(device) if plan.amp is not False else None)
        self._staging = _Staging(device) if device.type == "cuda" and plan.config.system.pin_mem else None

    @torch.no_grad()
    def scores(self, images: NDArray[np.float32]) -> torch.Tensor:
        """Scores of one batch, on the device; from an Apple GPU they are fetched, as it serves one thread at a time, and another
        one puts the scores together."""
        tensor = torch.from_numpy(as_input(images))
        sent = self._staging.send(tensor) if self._staging is not None else tensor.to(self._device)
        placed = sent.contiguous(memory_format=self._layout)
        with self._precision():
            logits = self._model(placed)
        scores = scores_of(logits.float())
        return scores.cpu() if self._device.type == "mps" else scores

    def _precision(self) -> AbstractContextManager[Any]:
        return torch.autocast(self._device.type, dtype=self._half) if self._half is not None else nullcontext()


class _Staging:
    """Page-locked memory, kept from batch to batch: a GPU fetches from it at full speed while the processor goes on."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._memory = torch.empty(0)
        self._fetched: torch.cuda.Event | None = None

    def send(self, tensor: torch.Tensor) -> torch.Tensor:
        """`tensor` on the GPU, or on its way there."""
        if self._fetched is not None:
            self._fetched.synchronize()  # the batch before lies in the same memory
        if self._memory.numel() < tensor.numel():
            self._memory = torch.empty(tensor.numel(), pin_memory=True)
        sent = self._memory[: tensor.numel()].view(tensor.shape).copy_(tensor).to(self._device, non_blocking=True)
        self._fetched = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._fetched.record(torch.cuda.current_stream(self._device))
        return sent


@ENGINES.register(Torch)
def build_torch(config: Torch, *, source: EngineSource) -> Engine:  # noqa: ARG001
    """PyTorch on the device of `source`."""
    return TorchEngine(build_network(source.plan, source.weights), source.plan, source.device)
