"""Cover: how an image, or a block of it, is cut into tiles and how their scores are put together again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from crista.geometry.axes import Region
from crista.geometry.tiles import Tile, grid_starts, iter_tiles, round_up, whole
from crista.plan.plan import InferencePlan

Write = tuple[Region, torch.Tensor]
"""A region of the image, (Z)YX, and its final scores (L, (Z)YX)."""


class Assembler(Protocol):
    """Takes the scores of tiles in order and hands over final regions."""

    @property
    def tiles(self) -> Sequence[Tile]:
        """All tiles, in order."""
        ...

    def add(self, tile: Tile, scores: torch.Tensor) -> Iterator[Write]:
        """Add the scores (L, (Z)YX) of a tile's read region, on any device; yields the regions that are final now."""
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

    def add(self, tile: Tile, scores: torch.Tensor) -> Iterator[Write]:
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

    @property
    def stop(self) -> int:
        return self.start + len(self.weights)


class BlendedAssembler:
    """Overlapping tiles averaged with smooth weights that sum to 1 at every voxel.

    The weights are products of one ramp per axis, normalised per axis over the whole image beforehand, so no volume of weights
    is needed and a block gets the same numbers as the whole image; the sums are kept for one row of tiles along the first axis
    only, where the scores are (on a GPU: there), and handed over as soon as the next row starts.
    """

    def __init__(self, shape: Sequence[int], size: Sequence[int], overlap: Sequence[float], block: Region | None = None) -> None:
        self._block = block if block is not None else whole(shape)
        axes = [
            [window for window in _windows(n, t, o) if window.start < box.stop and window.stop > box.start]
            for n, t, o, box in zip(shape, size, overlap, self._block, strict=True)
        ]
        self._windows = list(product(*axes))
        self._tiles = [_tile(windows, self._block) for windows in self._windows]
        self._weights = {id(tile): windows for tile, windows in zip(self._tiles, self._windows, strict=True)}
        self._origin = self._block[0].start
        self._sums: torch.Tensor | None = None

    @property
    def tiles(self) -> Sequence[Tile]:
        """All tiles, in order."""
        return self._tiles

    def add(self, tile: Tile, scores: torch.Tensor) -> Iterator[Write]:
        """Add weighted scores; rows before this tile are final."""
        start = tile.write[0].start
        if start > self._origin:
            yield self._flush(start)
        weighted = scores[(slice(None), *tile.crop)].clone()
        for axis, (window, crop) in enumerate(zip(self._weights[id(tile)], tile.crop, strict=True), 1):
            ramp = torch.from_numpy(window.weights[crop]).to(weighted.device)
            weighted *= ramp.reshape([-1 if i == axis else 1 for i in range(weighted.ndim)])
        if self._sums is None:
            rows = min(tile.shape[0], self._block[0].stop - self._block[0].start)
            others = [box.stop - box.start for box in self._block[1:]]
            self._sums = weighted.new_zeros((scores.shape[0], rows, *others))
        first = slice(tile.write[0].start - self._origin, tile.write[0].stop - self._origin)
        rest = (slice(w.start - b.start, w.stop - b.start) for w, b in zip(tile.write[1:], self._block[1:], strict=True))
        self._sums[(slice(None), first, *rest)] += weighted

    def finish(self) -> Iterator[Write]:
        """The last row."""
        if self._sums is not None:
            yield self._flush(self._block[0].stop)

    def _flush(self, start: int) -> Write:
        assert self._sums is not None
        rows = start - self._origin
        done = self._sums[:, :rows].clone()
        kept = self._sums.shape[1] - rows
        self._sums[:, :kept] = self._sums[:, rows:].clone()
        self._sums[:, kept:] = 0
        region = (slice(self._origin, start), *self._block[1:])
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


def _tile(windows: Sequence[_Window], block: Region) -> Tile:
    read = tuple(slice(window.start, window.stop) for window in windows)
    write = tuple(slice(max(r.start, b.start), min(r.stop, b.stop)) for r, b in zip(read, block, strict=True))
    crop = tuple(slice(w.start - r.start, w.stop - r.start) for r, w in zip(read, write, strict=True))
    return Tile(read, crop, write)


def build_assembler(plan: InferencePlan, shape: Sequence[int], multiple: Sequence[int], block: Region | None = None) -> Assembler:
    """Tiles for an image of `shape`, or a `block` of it, as the plan says; an image that fits one tile is one tile."""
    size = tuple(min(t, round_up(n, m)) for t, n, m in zip(plan.tile_size, shape, multiple, strict=True))
    if plan.mode == "blended":
        return BlendedAssembler(shape, size, plan.overlap, block)
    return HaloAssembler(list(iter_tiles(shape, size, plan.halo, multiple, block=block)))


def whole_image_assembler(shape: Sequence[int], multiple: Sequence[int], wanted: Region | None = None) -> Assembler:
    """The whole image as one tile, of which only the region `wanted` is written (None: all of it)."""
    read = tuple(slice(0, round_up(n, m)) for n, m in zip(shape, multiple, strict=True))
    written = wanted if wanted is not None else whole(shape)
    return HaloAssembler([Tile(read, written, written)])
