"""Engine: network input to class scores, on a device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

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


def scores_of(logits: torch.Tensor) -> torch.Tensor:
    """Sigmoid of a single logit, softmax over several."""
    return logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(dim=1)


def build_engine(plan: Plan, weights: Mapping[str, torch.Tensor], device: torch.device) -> Engine:
    """The network of `plan` with `weights`, ready to predict."""
    model = build_model(plan.model, num_channels=plan.num_channels, num_logits=plan.classes.num_logits, ndim=plan.ndim)
    model.load_state_dict(dict(weights))
    return TorchEngine(model, plan, device)


def labels_of(scores: NDArray[Any], threshold: float) -> NDArray[np.uint8]:
    """Classes ([Z,] Y, X) of scores (L, [Z,] Y, X): above `threshold` for L = 1, else the largest (the first of equals)."""
    if scores.shape[0] == 1:
        return np.asarray(scores[0] > threshold, np.uint8)
    return np.asarray(scores.argmax(axis=0), np.uint8)


def probabilities_of(scores: NDArray[Any]) -> NDArray[Any]:
    """One channel per class (K, [Z,] Y, X): the background's probability is added for two classes."""
    return np.concatenate([1 - scores, scores]) if scores.shape[0] == 1 else scores
