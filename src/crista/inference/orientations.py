"""Test-time augmentation: the average prediction over flips and quarter turns of the input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from itertools import product
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from crista.augmentations.base import Augment
from crista.geometry.orientation import Orientation
from crista.inference.engine import Engine
from crista.inference.engines.base import ScoringEngine

COMBINE: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "mean": lambda a, b: a + b,
    "min": lambda a, b: torch.minimum(a, b),
    "max": lambda a, b: torch.maximum(a, b),
}


def orientations(ndim: int, group: Literal["auto", "full", "flips", "none"]) -> list[Orientation]:
    """Every orientation of a group.

    Auto and full: 8 in 2D (4 turns, with and without a flip of x), 16 in 3D (those, with and without a flip of z; z is never
    exchanged with y or x). Flips: 4 in 2D, 8 in 3D.
    """
    if group == "none":
        return [Orientation()]
    if group == "flips":
        axes = range(-ndim, 0)
        return [
            Orientation(reverse=tuple(axis for axis, flip in zip(axes, flips, strict=True) if flip))
            for flips in product([False, True], repeat=ndim)
        ]
    depth: list[tuple[int, ...]] = [(), (-3,)] if ndim == 3 else [()]
    across: list[tuple[int, ...]] = [(), (-1,)]
    return [Orientation(reverse=(*z, *x), quarter_turns=turns) for z in depth for x in across for turns in range(4)]


def trained_orientations(augments: Sequence[Augment[Any]], patch_size: tuple[int, ...]) -> list[Orientation]:
    """The orientations of the full group in which a training with `augments` has shown its patches, (Z)YX.

    Whatever follows from the flips and turns that were drawn, one after the other; the image as it is first.
    """
    ndim = len(patch_size)
    drawn = [augment for augment in augments if augment.config.probability > 0]
    moves = [move for augment in drawn for move in augment.orientations(patch_size)]
    seen: set[bytes] = set()
    new = [_corner(ndim)]
    while new:
        seen |= {array.tobytes() for array in new}
        new = [turned for array in new for move in moves if (turned := move(array)).tobytes() not in seen]
    return [orientation for orientation in orientations(ndim, "full") if orientation(_corner(ndim)).tobytes() in seen]


def beyond(asked: Sequence[Orientation], known: Sequence[Orientation], ndim: int) -> list[Orientation]:
    """Those `asked` that turn an image otherwise than all that are `known`: reversing y and x is turning it by 180 degrees."""
    results = {orientation(_corner(ndim)).tobytes() for orientation in known}
    return [orientation for orientation in asked if orientation(_corner(ndim)).tobytes() not in results]


def _corner(ndim: int) -> NDArray[np.int64]:
    """The smallest image that looks otherwise in every orientation."""
    return np.arange(2**ndim).reshape((2,) * ndim)


class OrientedEngine(ScoringEngine):
    """Another engine's scores over several orientations of the input, brought back and combined."""

    def __init__(
        self,
        engine: Engine,
        *,
        orientations: Sequence[Orientation],
        mode: Literal["mean", "min", "max"],
    ) -> None:
        self._engine = engine
        self._orientations = orientations
        self._mode = mode

    @property
    def name(self) -> str:  # type: ignore[override]
        """That of the other engine."""
        return self._engine.name

    def scores(self, images: NDArray[np.float32]) -> torch.Tensor:
        """Combined scores; with several classes the minimum and the maximum are brought back to a sum of 1.

        Where for each class one of the orientations rules it out, all minima are 0: then all classes are equally likely.
        """
        turned = (self._oriented(images, orientation) for orientation in self._orientations)
        combined = reduce(COMBINE[self._mode], turned)
        if self._mode == "mean":
            return combined / len(self._orientations)
        num_scores = combined.shape[1]
        if num_scores == 1:
            return combined
        total = combined.sum(dim=1, keepdim=True)
        return (combined / total).masked_fill_(total == 0, 1 / num_scores)

    def _oriented(self, images: NDArray[np.float32], orientation: Orientation) -> torch.Tensor:
        # A copy always: an axis of one voxel that was turned counts as contiguous to NumPy, and PyTorch does not take it.
        scores = self._engine.scores(np.array(orientation(images), order="C"))
        return torch.flip(torch.rot90(scores, -orientation.quarter_turns, dims=(-2, -1)), orientation.reverse)
