"""Uncertainty: the mean entropy of the scores in small cells of an image, gathered while it is predicted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

import numpy as np
import torch
from numpy.typing import NDArray

from crista.geometry.axes import Region

CELLS = {"z": 32, "y": 96, "x": 96}
"""Most cells along each axis."""

LEAST_CELL = {"z": 1, "y": 4, "x": 4}
"""Pixels of the smallest cells."""

Map = NDArray[np.float32]
"""(Z)YX cells; mean entropy in [0, 1], NaN where nothing was predicted."""


@dataclass(frozen=True)
class CellGrid:
    """How an image is divided into cells; of each only every `step`-th pixel along each axis is looked at."""

    shape: tuple[int, ...]
    """Of the image, (Z)YX."""
    cell: tuple[int, ...]
    """Pixels of a cell."""
    step: tuple[int, ...]

    def cells_of(self, region: Region) -> Region:
        """The cells that a region of the image touches."""
        return tuple(slice(r.start // c, -(-r.stop // c)) for r, c in zip(region, self.cell, strict=True))


def choose_cells(shape: Sequence[int]) -> CellGrid:
    """Cells for an image of `shape`: at most CELLS of them, and at most one pixel in four is looked at."""
    letters = "zyx"[-len(shape) :]
    cell = tuple(max(LEAST_CELL[letter], -(-n // CELLS[letter])) for letter, n in zip(letters, shape, strict=True))
    step = tuple(-(-c // 2) for c in cell)
    return CellGrid(tuple(shape), cell, step)


def entropy_of(scores: torch.Tensor) -> torch.Tensor:
    """Entropy ((Z)YX) of scores (L, (Z)YX), divided by its largest value: 0 where one class is sure, 1 where all are alike."""
    if scores.shape[0] == 1:
        entropy = torch.special.entr(scores[0]) + torch.special.entr(1 - scores[0])
        share = entropy / log(2)
    else:
        share = torch.special.entr(scores).sum(dim=0) / log(scores.shape[0])
    clamped: torch.Tensor = share.clamp(0, 1)
    return clamped


class EntropyCells:
    """Sums of the entropy in the cells that one block of an image touches."""

    def __init__(self, grid: CellGrid, block: Region) -> None:
        self.grid = grid
        self.cells = grid.cells_of(block)
        shape = [cell.stop - cell.start for cell in self.cells]
        self.sums = np.zeros((2, *shape))
        """Sum of the entropy, and number of pixels looked at."""

    def add(self, region: Region, scores: torch.Tensor) -> None:
        """Take in the final scores (L, (Z)YX) of a region of the block."""
        grid = self.grid
        firsts = [-(-r.start // s) * s for r, s in zip(region, grid.step, strict=True)]
        if any(first >= r.stop for first, r in zip(firsts, region, strict=True)):
            return
        picked = tuple(slice(f - r.start, None, s) for f, r, s in zip(firsts, region, grid.step, strict=True))
        values = entropy_of(scores[(slice(None), *picked)]).cpu().numpy().astype(np.float64)
        numbers = np.ones((1,) * values.ndim)
        own: list[slice] = []
        for axis, (first, r, s, c) in enumerate(zip(firsts, region, grid.step, grid.cell, strict=True)):
            cells = np.arange(first, r.stop, s) // c
            starts = np.flatnonzero(np.diff(cells, prepend=-1))
            values = np.add.reduceat(values, starts, axis=axis)
            counts = np.diff(starts, append=len(cells))
            numbers = numbers * counts.reshape([-1 if a == axis else 1 for a in range(values.ndim)])
            origin = int(cells[0]) - self.cells[axis].start
            own.append(slice(origin, origin + len(starts)))
        self.sums[0][tuple(own)] += values
        self.sums[1][tuple(own)] += numbers


def join_cells(grid: CellGrid, parts: Sequence[tuple[Region, NDArray[np.float64]]]) -> tuple[Map, float]:
    """The map of an image and its mean, of the sums of its blocks (see `EntropyCells.sums`); NaN if nothing was looked at."""
    whole = tuple(slice(0, n) for n in grid.shape)
    total = np.zeros((2, *(cell.stop for cell in grid.cells_of(whole))))
    for block, sums in parts:
        total[(slice(None), *grid.cells_of(block))] += sums
    mean = np.divide(total[0], total[1], out=np.full(total.shape[1:], np.nan), where=total[1] > 0)
    number = float(total[1].sum())
    return mean.astype(np.float32), float(total[0].sum()) / number if number else float("nan")
