"""Engine: network input to class scores, on a device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from crista.inference.scores import scores_of
from crista.models import build_model, fold_batch_norm, to_layout
from crista.plan.plan import Plan

Scores = NDArray[np.float32]
"""Probabilities as the network gives them: (N, L, [Z,] Y, X), L = 1 for two classes (of class 1), else one per class."""


class Engine(Protocol):
    """Turns batches of normalised images into scores."""

    def __call__(self, images: NDArray[np.float32]) -> Scores:
        """Scores of images (N, C, [Z,] Y, X) whose sizes are multiples of the network's stride."""
        ...


class TorchEngine:
    """PyTorch: channels-last, batch normalisation folded into the convolutions; mixed precision on a GPU."""

    def __init__(self, model: nn.Module, plan: Plan, device: torch.device) -> None:
        self._layout = torch.channels_last if plan.ndim == 2 else torch.channels_last_3d
        self._model = to_layout(fold_batch_norm(model).eval(), device, plan.ndim)
        self._device = device
        self._mixed = device.type == "cuda" and plan.amp is not False

    @torch.inference_mode()
    def __call__(self, images: NDArray[np.float32]) -> Scores:
        """Scores of one batch."""
        tensor = torch.from_numpy(images).to(self._device, memory_format=self._layout)
        if self._mixed:
            with torch.autocast(self._device.type):
                logits = self._model(tensor)
        else:
            logits = self._model(tensor)
        scores: Scores = scores_of(logits.float()).cpu().numpy()
        return scores


def build_engine(plan: Plan, weights: Mapping[str, torch.Tensor], device: torch.device) -> Engine:
    """The network of `plan` with `weights`, ready to predict."""
    model = build_model(plan.model, num_channels=plan.num_channels, num_logits=plan.classes.num_logits, ndim=plan.ndim)
    model.load_state_dict(dict(weights))
    return TorchEngine(model, plan, device)
