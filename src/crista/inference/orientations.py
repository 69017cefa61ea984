"""Test-time augmentation: the average prediction over flips and quarter turns of the input."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from itertools import product
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from crista.inference.engine import Engine
from crista.inference.engines.base import ScoringEngine

COMBINE: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "mean": lambda a, b: a + b,
    "min": lambda a, b: torch.minimum(a, b),
    "max": lambda a, b: torch.maximum(a, b),
}


def orientations(ndim: int, group: Literal["auto", "full", "flips", "none"]) -> list[tuple[tuple[int, ...], int]]:
    """(axes to flip, quarter turns in y-x) of every orientation; axes count from the end (-1 is x).

    Full: 8 in 2D (4 turns, with and without a flip of x), 16 in 3D (those, with and without a flip of z; z is never exchanged
    with y or x). Flips: 4 in 2D, 8 in 3D.
    """
    if group == "none":
        return [((), 0)]
    if group == "flips":
        axes = range(-ndim, 0)
        return [
            (tuple(axis for axis, flip in zip(axes, flips, strict=True) if flip), 0)
            for flips in product([False, True], repeat=ndim)
        ]
    depth = [(), (-3,)] if ndim == 3 else [()]
    return [((*z, *x), turns) for z in depth for x in [(), (-1,)] for turns in range(4)]


class OrientedEngine(ScoringEngine):
    """Another engine's scores over several orientations of the input, brought back and combined."""

    def __init__(
        self,
        engine: Engine,
        *,
        ndim: int,
        group: Literal["auto", "full", "flips", "none"],
        mode: Literal["mean", "min", "max"],
    ) -> None:
        self._engine = engine
        self._orientations = orientations(ndim, group)
        self._mode = mode
        self.name = engine.name

    def scores(self, images: NDArray[np.float32]) -> torch.Tensor:
        """Combined scores; with several classes the minimum and the maximum are brought back to a sum of 1.

        Where for each class one of the orientations rules it out, all minima are 0: then all classes are equally likely.
        """
        turned = (self._oriented(images, flips, turns) for flips, turns in self._orientations)
        combined = reduce(COMBINE[self._mode], turned)
        if self._mode == "mean":
            return combined / len(self._orientations)
        num_scores = combined.shape[1]
        if num_scores == 1:
            return combined
        total = combined.sum(dim=1, keepdim=True)
        return (combined / total).masked_fill_(total == 0, 1 / num_scores)

    def _oriented(self, images: NDArray[np.float32], flips: tuple[int, ...], turns: int) -> torch.Tensor:
        turned = np.rot90(np.flip(images, flips), turns, axes=(-2, -1))
        # A copy always: an axis of one voxel that was turned counts as contiguous to NumPy, and PyTorch does not take it.
        scores = self._engine.scores(np.array(turned, order="C"))
        return torch.flip(torch.rot90(scores, -turns, dims=(-2, -1)), flips)
