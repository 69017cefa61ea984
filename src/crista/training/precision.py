"""Precision: float32 everywhere, or mixed precision where the device is quicker with it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from crista.models.placement import training_half_precision
from crista.training.finite import SkippedSteps


class Precision:
    """Autocast and loss scaling, or nothing.

    bfloat16 where the device has it (no scaling needed), else float16 with loss scaling on a GPU. Weights, gradients and updates
    are float32 in any case.
    """

    def __init__(self, wanted: bool | None, device: torch.device) -> None:
        self._device = device
        self._wanted = wanted
        self.half = training_half_precision(device) if wanted is not False else None
        """What convolutions compute in; None: float32."""
        self.scales = self.half == torch.float16
        """Whether the loss is scaled; a step with an infinite gradient is then skipped and the scale lowered."""
        self.skipped = SkippedSteps() if self.scales else None
        """Those steps; None without a scale."""
        self._scaler = torch.amp.GradScaler(device.type, enabled=self.scales)

    def autocast(self) -> AbstractContextManager[Any]:
        """Context of the forward pass."""
        if self.half is None:
            return nullcontext()
        return torch.autocast(self._device.type, dtype=self.half)

    @property
    def notice(self) -> str:
        """What is to be said of it; empty where all is float32, as it is expected to be."""
        if self.half is None and self._wanted:
            return "TRAIN.AMP: True has no effect: this device has no faster arithmetic of half precision, training is in float32"
        if self.half is None:
            return ""
        name = str(self.half).removeprefix("torch.")
        return f"training computes in {name} with float32 weights (TRAIN.AMP: False for float32 throughout)"

    def backward(self, loss: torch.Tensor) -> None:
        """Gradients of `loss`."""
        torch.autograd.backward(self._scaler.scale(loss) if self.scales else loss)

    def gradient_norm(self, optimizer: torch.optim.Optimizer, model: nn.Module, limit: float) -> torch.Tensor:
        """Norm of the whole gradient (a scalar on the device), which is clipped to `limit` if that is above 0."""
        if self.scales:
            self._scaler.unscale_(optimizer)
        if limit > 0:
            return nn.utils.clip_grad_norm_(model.parameters(), limit)
        return nn.utils.get_total_norm([parameter.grad for parameter in model.parameters() if parameter.grad is not None])

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """One update."""
        if self.scales:
            self._scaler.step(optimizer)
            self._scaler.update()
        else:
            optimizer.step()

    def state(self) -> Mapping[str, Any] | None:
        """For the checkpoint."""
        return self._scaler.state_dict() if self.scales else None

    def load(self, state: Mapping[str, Any] | None) -> None:
        """From the checkpoint, or from the end of the epoch before."""
        if self.scales and state:
            # A new one: a scaler that was left in the middle of a step takes no other.
            self._scaler = torch.amp.GradScaler(self._device.type)
            self._scaler.load_state_dict(dict(state))
