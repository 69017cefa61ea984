"""Engine: network input to class scores or classes; and what scores mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from crista.plan.plan import Plan

Scores = NDArray[np.float32]
"""Probabilities as the network gives them: (N, L, [Z,] Y, X), L = 1 for two classes (of class 1), else one per class."""
Labels = NDArray[np.uint8]
"""Classes, (N, [Z,] Y, X) of a batch or ([Z,] Y, X) of an image."""


class Engine(Protocol):
    """Turns batches of normalised images into scores or into classes. One thread at a time may call it."""

    @property
    def name(self) -> str:
        """What computes: ``torch``, ``openvino``, ``onnxruntime``, ``openvino-int8``."""
        ...

    def __call__(self, images: NDArray[np.float32]) -> Scores:
        """Scores of images (N, C, [Z,] Y, X) whose sizes are multiples of the network's stride; the caller owns them."""
        ...

    def labels(self, images: NDArray[np.float32], threshold: float) -> Labels:
        """Classes (N, [Z,] Y, X) of images (N, C, [Z,] Y, X), as `labels_of` has them."""
        ...


def build_engine(plan: Plan, weights: Mapping[str, torch.Tensor], device: torch.device) -> Engine:
    """The network of `plan` with `weights` in PyTorch, ready to predict. Other engines: `crista.inference.engines`."""
    from crista.inference.engines.torch_engine import TorchEngine, build_network  # which are built on this module

    return TorchEngine(build_network(plan, weights), plan, device)


def scores_of(logits: torch.Tensor) -> torch.Tensor:
    """Sigmoid of a single logit, softmax over several."""
    return logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(dim=1)


def labels_of(scores: NDArray[Any], threshold: float) -> Labels:
    """Classes ([Z,] Y, X) of scores (L, [Z,] Y, X): above `threshold` for L = 1, else the largest (the first of equals)."""
    labels: Labels = batch_labels(scores[None], threshold)[0]
    return labels


def batch_labels(scores: NDArray[Any], threshold: float) -> Labels:
    """`labels_of` each of N images: (N, L, [Z,] Y, X) -> (N, [Z,] Y, X)."""
    if scores.shape[1] == 1:
        return np.asarray(scores[:, 0] > threshold, np.uint8)
    return np.asarray(scores.argmax(axis=1), np.uint8)


def probabilities_of(scores: NDArray[Any]) -> NDArray[Any]:
    """One channel per class (K, [Z,] Y, X): the background's probability is added for two classes."""
    return np.concatenate([1 - scores, scores]) if scores.shape[0] == 1 else scores
