"""What every engine is made from, and what it has in common with the others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, singledispatch
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from crista.config.engine import EngineConfig
from crista.errors import EngineError
from crista.inference.engine import Engine, Labels, Scores
from crista.inference.record import weights_digest
from crista.inference.scores import batch_labels
from crista.plan.plan import Plan
from crista.registry import Registry


@dataclass(frozen=True)
class EngineSource:
    """What engines are made from."""

    plan: Plan
    weights: Mapping[str, torch.Tensor]
    device: torch.device
    cache: Path
    """Folder of converted networks."""
    num_threads: int
    """Processor cores that an engine uses."""
    int8_model: Path | None = None
    """The `.int8.xml` beside the checkpoint, whether it is there or not."""

    @cached_property
    def digest(self) -> str:
        """Of the weights."""
        return weights_digest(self.weights)


ENGINES: Registry[Engine] = Registry("engine")
"""Builders of engines, called with the config (`crista.config.engine`) and `source`, an `EngineSource`.

They raise `EngineError` where the engine cannot be had, with what to do about it; what a library raises by itself is for the
caller to catch.
"""


def installed(package: str) -> str | None:
    """The version of a package, without importing it; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def check_installed(config: EngineConfig) -> None:
    """Raise `EngineError`, with what to install, if a package of an engine is missing."""
    missing = [package for package in config.packages if installed(package) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        install = f'pip install "crista[{config.extra}]"'  # as all shells understand it; cmd knows no single quotes
        raise EngineError(f"{config.title} needs {', '.join(missing)}, which {verb} not installed: {install}")


@singledispatch
def check_available(config: EngineConfig, source: EngineSource) -> None:  # noqa: ARG001
    """Raise `EngineError`, with what to do, if an engine cannot be had; without loading anything."""
    check_installed(config)


@dataclass(frozen=True)
class Tolerance:
    """How far the numbers of an engine may be from those of PyTorch on a tile."""

    difference: float
    """Of a probability."""
    unequal: float
    """Share of the pixels whose class differs; a single pixel always may."""


@singledispatch
def tolerance_of(config: EngineConfig, source: EngineSource) -> Tolerance:  # noqa: ARG001
    """That of float32, where only the order of additions differs."""
    return Tolerance(difference=1e-4, unequal=1e-4)


def as_input(images: NDArray[np.generic]) -> NDArray[np.float32]:
    """`images` as libraries take them over: float32, contiguous, writeable; copied only if they are not."""
    return np.require(images, np.float32, ("C_CONTIGUOUS", "WRITEABLE"))


class ScoringEngine(ABC):
    """An engine whose arrays and classes are made of its scores."""

    name: str

    @abstractmethod
    def scores(self, images: NDArray[np.float32]) -> torch.Tensor:
        """Scores (N, L, [Z,] Y, X) of images (N, C, [Z,] Y, X), where they were computed."""

    def __call__(self, images: NDArray[np.float32]) -> Scores:
        """Scores as an array."""
        scores: Scores = self.scores(images).contiguous().cpu().numpy()
        return scores

    def labels(self, images: NDArray[np.float32], threshold: float) -> Labels:
        """Classes (N, [Z,] Y, X)."""
        labels: Labels = batch_labels(self.scores(images), threshold).cpu().numpy()
        return labels
