"""The lower resolutions of a pyramid: each block of a level is made from the level above it, and from nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise, product
from pathlib import Path

import numpy as np

from crista.geometry.axes import Array, Region
from crista.geometry.tiles import grid_blocks, shape_of
from crista.images.ome_zarr import is_label_store, open_level, read_pyramid, write_block

_EIGHT = "02 13 46 57 04 15 26 37 01 23 45 67 24 35 14 36 12 34 56"
SORTING_NETWORKS = {
    number: tuple((int(pair[0]), int(pair[1])) for pair in pairs.split())
    for number, pairs in {1: "", 2: "01", 4: "02 13 01 23 12", 8: _EIGHT}.items()
}
"""Pairs to compare, for 2, 4 and 8 numbers; 19 comparisons are the fewest for 8 (Knuth, TAOCP 3, 5.3.4)."""


def iter_blocks_of_level(path: Path, level: int) -> Iterator[Region]:
    """The regions of a level that are units of writing; together they are the level."""
    yield from read_pyramid(path).levels[level].iter_blocks()


def downsample_region(path: Path, level: int, region: Region) -> None:
    """Fill a region of `level` from the level above it, which must be complete there.

    Labels take the majority of the voxels that they stand for; of equally frequent classes the highest, so that thin
    objects do not vanish in background. Everything else takes the mean, rounded to nearest (halves up) for integers.
    At an odd border, fewer voxels vote. Repeating it gives the same.

    Parameters
    ----------
    level : 1 or more
    region : one slice per stored axis; whole units of writing, see `write_block`

    Notes
    -----
    Memory: the region, and eight chunks of the level above.
    """
    layout = read_pyramid(path)
    target = layout.levels[level]
    factors = tuple(a // b for a, b in zip(target.factors, layout.levels[level - 1].factors, strict=True))
    source, reduce = open_level(path, level - 1), take_majority if is_label_store(path) else take_mean
    block = np.empty(shape_of(region), layout.dtype)
    for inside in grid_blocks(block.shape, target.chunks):
        above = tuple(
            slice((part.start + piece.start) * factor, min((part.start + piece.stop) * factor, n))
            for part, piece, factor, n in zip(region, inside, factors, source.shape, strict=True)
        )
        block[inside] = reduce(np.asarray(source[above]), factors)
    write_block(path, level, region, block)


def build_pyramid(path: Path) -> None:
    """Fill every level but the first, in this process."""
    for level in range(1, len(read_pyramid(path).levels)):
        for region in iter_blocks_of_level(path, level):
            downsample_region(path, level, region)


def take_majority(voxels: Array, factors: tuple[int, ...]) -> Array:
    """The most frequent value of each box of `factors` (1 or 2) voxels; of equally frequent ones the highest.

    An odd last voxel stands for two, which changes no majority. Only values that occur are returned.
    """
    if voxels.size and voxels.min() == voxels.max():
        shape = tuple(-(-n // factor) for n, factor in zip(voxels.shape, factors, strict=True))
        return np.full(shape, voxels.flat[0], voxels.dtype)
    votes = _sort_votes(_corners(voxels, factors))
    winner = votes[0].copy()
    run = np.ones(winner.shape, np.uint8)
    best = run.copy()
    for previous, vote in pairwise(votes):
        # Runs of equal votes: a run that is at least as long as the best so far has the higher value.
        run *= vote == previous
        run += 1
        np.copyto(winner, vote, where=run >= best)
        np.maximum(best, run, out=best)
    return winner


def take_mean(voxels: Array, factors: tuple[int, ...]) -> Array:
    """The mean of each box of `factors` (1 or 2) voxels, in the dtype of `voxels`; halves of integers are rounded up.

    An odd last voxel stands for two, so that the mean is that of the voxels that are there.
    """
    corners = _corners(voxels, factors)
    is_real = voxels.dtype.kind == "f"
    total = np.zeros(corners[0].shape, np.result_type(voxels.dtype, np.float32) if is_real else np.int64)
    for corner in corners:
        total += corner
    mean = total / np.asarray(len(corners), total.dtype) if is_real else (total + len(corners) // 2) // len(corners)
    return mean.astype(voxels.dtype, copy=False)


def _corners(voxels: Array, factors: tuple[int, ...]) -> list[Array]:
    """For each voxel of a box, that voxel of all boxes; an odd last voxel is repeated."""
    odd = [(0, n % factor) for n, factor in zip(voxels.shape, factors, strict=True)]
    even = np.pad(voxels, odd, mode="edge") if any(after for _, after in odd) else voxels
    return [
        even[tuple(slice(start, None, factor) for start, factor in zip(starts, factors, strict=True))]
        for starts in product(*map(range, factors))
    ]


def _sort_votes(votes: list[Array]) -> list[Array]:
    """Votes in increasing order, voxel by voxel, in whole-array minima and maxima."""
    votes = list(votes)
    for low, high in SORTING_NETWORKS[len(votes)]:
        votes[low], votes[high] = np.minimum(votes[low], votes[high]), np.maximum(votes[low], votes[high])
    return votes
