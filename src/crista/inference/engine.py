"""Engine: network input to class scores or classes, on a device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from crista.plan.plan import Plan

Scores = NDArray[np.float32]
"""Probabilities as the network gives them: (N, L, [Z,] Y, X), L = 1 for two classes (of class 1), else one per class."""
Labels = NDArray[np.uint8]
"""Classes of a batch, (N, [Z,] Y, X)."""


class Engine(Protocol):
    """Turns batches of normalised images into scores or into classes.

    Images are (N, C, [Z,] Y, X), their sizes multiples of the network's stride. One thread at a time may call an engine; what it
    returns belongs to the caller.
    """

    @property
    def name(self) -> str:
        """What computes: ``torch``, ``openvino``, ``onnxruntime``, ``openvino-int8``."""
        ...

    def scores(self, images: NDArray[np.float32]) -> torch.Tensor:
        """Scores (N, L, [Z,] Y, X), float32, where they were computed: those of a CUDA GPU stay there."""
        ...

    def __call__(self, images: NDArray[np.float32]) -> Scores:
        """The same as an array."""
        ...

    def labels(self, images: NDArray[np.float32], threshold: float) -> Labels:
        """Classes (N, [Z,] Y, X), made of the scores where those are: one byte per pixel comes back from a GPU."""
        ...


def build_engine(plan: Plan, weights: Mapping[str, torch.Tensor], device: torch.device) -> Engine:
    """The network of `plan` with `weights` in PyTorch, ready to predict. Other engines: `crista.inference.engines`."""
    from crista.inference.engines.torch_engine import TorchEngine, build_network  # which are built on this module

    return TorchEngine(build_network(plan, weights), plan, device)
