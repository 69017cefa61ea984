"""Sink: where the scores of an image go as they become final; large ones lie on disk, not in memory."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crista.geometry.axes import Region
from crista.inference.engine import Scores, labels_of, probabilities_of

IN_MEMORY_BYTES = 256 * 2**20
"""Arrays above this lie in a temporary file beside the results."""


class Scratch:
    """Arrays in memory, or in temporary files of `folder` when they are large; removed on closing."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = TemporaryDirectory(dir=folder, prefix=".scratch-")
        self._count = 0

    def empty(self, shape: Sequence[int], dtype: Any) -> NDArray[Any]:
        """An array of `shape`, filled with zeros."""
        if prod(shape) * np.dtype(dtype).itemsize <= IN_MEMORY_BYTES:
            return np.zeros(tuple(shape), dtype)
        self._count += 1
        path = Path(self._folder.name) / f"{self._count}.npy"
        return np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=tuple(shape))

    def __enter__(self) -> Scratch:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()


class PredictionSink:
    """Labels of an image and, where wanted, its probabilities."""

    def __init__(
        self, shape: Sequence[int], num_classes: int, threshold: float, *, scratch: Scratch, keep_probabilities: bool
    ) -> None:
        self.labels: NDArray[np.uint8] = scratch.empty(shape, np.uint8)
        """(Z)YX classes."""
        self.probabilities: NDArray[np.float32] | None = (
            scratch.empty((num_classes, *shape), np.float32) if keep_probabilities else None
        )
        """K(Z)YX in [0, 1], or None."""
        self._threshold = threshold

    def write(self, region: Region, scores: Scores) -> None:
        """Keep the final scores (L, (Z)YX) of a region."""
        self.labels[region] = labels_of(scores, self._threshold)
        if self.probabilities is not None:
            self.probabilities[(slice(None), *region)] = probabilities_of(scores)
