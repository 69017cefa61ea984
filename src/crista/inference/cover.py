"""Cover: how an image is cut into tiles and how their scores are put together again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from crista.geometry.axes import Region
from crista.geometry.tiles import Tile, grid_starts, iter_tiles
from crista.inference.engine import Scores
from crista.plan.plan import InferencePlan

Write = tuple[Region, Scores]
"""A region of the output, (Z)YX, and its final scores (L, (Z)YX)."""


class Assembler(Protocol):
    """Takes the scores of tiles in order and hands over final regions."""

    @property
    def tiles(self) -> Sequence[Tile]:
        """All tiles, in order."""
        ...

    def add(self, tile: Tile, scores: Scores) -> Iterator[Write]:
        """Add the scores (L, (Z)YX) of a tile's read region; yields the regions that are final now."""
        ...

    def finish(self) -> Iterator[Write]:
        """Regions that were not final before the last tile."""
        ...


class HaloAssembler:
    """Each tile writes its inside; the halo is thrown away. Nothing is kept."""

    def __init__(self, tiles: Sequence[Tile]) -> None:
        self._tiles = tiles

    @property
    def tiles(self) -> Sequence[Tile]:
        """All tiles, in order."""
        return self._tiles

    def add(self, tile: Tile, scores: Scores) -> Iterator[Write]:
        """The inside of the tile is final at once."""
        yield tile.write, scores[(slice(None), *tile.crop)]

    def finish(self) -> Iterator[Write]:
        """Nothing is left."""
        yield from ()


@dataclass(frozen=True)
class _Window:
    """One tile along one axis with its weights."""

    start: int
    weights: NDArray[np.float32]


class BlendedAssembler:
    """Overlapping tiles averaged with smooth weights that sum to 1 at every voxel.

    The weights are products of one ramp per axis, normalised per axis beforehand, so no volume of weights is needed; the sums
    are kept for one row of tiles along the first axis only and handed over as soon as the next row starts.
    """

    def __init__(self, shape: Sequence[int], size: Sequence[int], overlap: Sequence[float]) -> None:
        self._shape = tuple(shape)
        self._axes = [_windows(n, t, o) for n, t, o in zip(shape, size, overlap, strict=True)]
        self._windows = list(product(*self._axes))
        self._tiles = [_tile(windows, shape) for windows in self._windows]
        self._weights = {id(tile): windows for tile, windows in zip(self._tiles, self._windows, strict=True)}
        self._origin = 0
        self._sums: Scores | None = None

    @property
    def tiles(self) -> Sequence[Tile]:
        """All tiles, in order."""
        return self._tiles

    def add(self, tile: Tile, scores: Scores) -> Iterator[Write]:
        """Add weighted scores; rows before this tile are final."""
        start = tile.read[0].start
        if start > self._origin:
            yield self._flush(start)
        windows = self._weights[id(tile)]
        inside = tuple(slice(0, min(w.stop, n) - w.start) for w, n in zip(tile.read, self._shape, strict=True))
        weighted = scores[(slice(None), *inside)]
        for axis, (window, box) in enumerate(zip(windows, inside, strict=True), 1):
            ramp = window.weights[box].reshape([-1 if i == axis else 1 for i in range(weighted.ndim)])
            weighted = weighted * ramp
        if self._sums is None:
            rows = min(tile.shape[0], self._shape[0])
            self._sums = np.zeros((scores.shape[0], rows, *self._shape[1:]), np.float32)
        target = tuple(slice(w.start, w.start + box.stop) for w, box in zip(tile.read, inside, strict=True))
        first = slice(target[0].start - self._origin, target[0].stop - self._origin)
        self._sums[(slice(None), first, *target[1:])] += weighted

    def finish(self) -> Iterator[Write]:
        """The last row."""
        if self._sums is not None:
            yield self._flush(self._shape[0])

    def _flush(self, start: int) -> Write:
        assert self._sums is not None
        rows = start - self._origin
        done = self._sums[:, :rows].copy()
        self._sums[:, : self._sums.shape[1] - rows] = self._sums[:, rows:].copy()
        self._sums[:, self._sums.shape[1] - rows :] = 0
        region = (slice(self._origin, start), *(slice(0, n) for n in self._shape[1:]))
        self._origin = start
        return region, done


def _windows(length: int, size: int, overlap: float) -> list[_Window]:
    """Windows along one axis; their weights, ramps of width overlap at inner ends, sum to 1 at every voxel."""
    starts = grid_starts(length, size, overlap)
    ramps = []
    for start in starts:
        ramp = np.ones(size)
        width = max(1, ceil(size * overlap))
        rise = np.arange(1, width + 1) / (width + 1)
        if start > 0:
            ramp[:width] = np.minimum(ramp[:width], rise)
        if start + size < length:
            ramp[-width:] = np.minimum(ramp[-width:], rise[::-1])
        ramps.append(ramp)
    total = np.zeros(max(length, size))
    for start, ramp in zip(starts, ramps, strict=True):
        total[start : start + size] += ramp
    return [
        _Window(start, (ramp / total[start : start + size]).astype(np.float32)) for start, ramp in zip(starts, ramps, strict=True)
    ]


def _tile(windows: Sequence[_Window], shape: Sequence[int]) -> Tile:
    read = tuple(slice(window.start, window.start + len(window.weights)) for window in windows)
    write = tuple(slice(r.start, min(r.stop, n)) for r, n in zip(read, shape, strict=True))
    return Tile(read, tuple(slice(0, w.stop - w.start) for w in write), write)


def build_assembler(plan: InferencePlan, shape: Sequence[int], multiple: Sequence[int]) -> Assembler:
    """Tiles for an image of `shape` as the plan says; an image that fits one tile is one tile."""
    padded = tuple(ceil(n / m) * m for n, m in zip(shape, multiple, strict=True))
    size = tuple(min(t, p) for t, p in zip(plan.tile_size, padded, strict=True))
    if plan.mode == "blended":
        return BlendedAssembler(shape, size, plan.overlap)
    return HaloAssembler(list(iter_tiles(shape, size, plan.halo, multiple)))


def whole_image_assembler(shape: Sequence[int], multiple: Sequence[int]) -> Assembler:
    """The whole image as one tile."""
    padded = [ceil(n / m) * m for n, m in zip(shape, multiple, strict=True)]
    return HaloAssembler(list(iter_tiles(shape, padded, [0] * len(padded), multiple)))
