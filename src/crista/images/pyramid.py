"""How a pyramid of resolutions is laid out on disk: levels, chunks and shards, decided from shape, dtype and voxel size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod, sqrt

import numpy as np

from crista.geometry.axes import Region
from crista.geometry.spacing import Spacing
from crista.geometry.tiles import grid_blocks

PYRAMID_AXES = ("YX", "ZYX", "CYX", "CZYX")

SMALL_AXIS = 256
"""Levels are added until no axis is longer than this: a viewer shows the coarsest level at once."""

MIN_HALVED = 64
"""Axes of at most so many voxels are not halved: a thin stack keeps its slices."""

ISOTROPIC = sqrt(2)
"""Axes are halved together while their voxel sizes differ by less than this; else the finer ones alone."""

CHUNK_VOXELS = {2: 2**20, 3: 2**21}
"""1024² and 128³: measured, smaller chunks cost more in calls than they save in voxels read in vain."""

CHUNK_BYTES = 4 * 2**20
"""No chunk is larger, whatever its dtype."""

SHARD_BYTES = 32 * 2**20
"""Pixels in one shard, all channels together: what a writer holds in memory at a time."""

MAX_FILES = 1024
"""Levels of more chunks than this are gathered in shards, because file systems dislike many small files."""


@dataclass(frozen=True)
class PyramidLevel:
    """One resolution."""

    shape: tuple[int, ...]
    factors: tuple[int, ...]
    """Voxels of level 0 per voxel of this level, along each axis; powers of two."""
    chunks: tuple[int, ...]
    """What is compressed as one: the unit of reading."""
    shards: tuple[int, ...] | None
    """Chunks that share a file; None where each has its own."""

    @property
    def block_shape(self) -> tuple[int, ...]:
        """The unit of writing: one file, or the files of one chunk of every channel."""
        return self.shards if self.shards is not None else self.chunks

    def iter_blocks(self) -> Iterator[Region]:
        """Regions that partition the level, each one unit of writing (shorter at the far border)."""
        yield from grid_blocks(self.shape, self.block_shape)

    def is_aligned(self, region: Region) -> bool:
        """Whether `region` lies inside the level and consists of whole units of writing."""
        return all(
            0 <= part.start < part.stop <= n and part.start % step == 0 and (part.stop % step == 0 or part.stop == n)
            for part, n, step in zip(region, self.shape, self.block_shape, strict=True)
        )


@dataclass(frozen=True)
class Pyramid:
    """All resolutions of one image, finest first."""

    axes: str
    """One of `PYRAMID_AXES`."""
    dtype: np.dtype
    spacing: Spacing | None
    """Voxel size of level 0 along (Z)YX; None where it is not known."""
    levels: tuple[PyramidLevel, ...]


def choose_pyramid(
    axes: str, shape: Sequence[int], dtype: np.dtype, spacing: Spacing | None, *, shard_bytes: int = SHARD_BYTES
) -> Pyramid:
    """Decide levels, chunks and shards.

    Each level halves the axes that are finest, together with those up to √2 coarser, rounding lengths up, until no
    axis is longer than 256 voxels; axes of up to 64 voxels stay. Chunks are cubes in micrometres as near as powers
    of two come. Levels of more than 1024 chunks are gathered in shards.

    Parameters
    ----------
    axes : ``YX``, ``ZYX``, ``CYX`` or ``CZYX``
    shape : voxels of level 0, one per axis
    spacing : micrometres along (Z)YX; None counts as equal along all axes
    shard_bytes : upper limit of a shard, all channels together; 0 for a file per chunk

    Raises
    ------
    ValueError
        For other axes, or a shape that does not fit them.
    """
    if axes not in PYRAMID_AXES:
        raise ValueError(f"axes {axes!r} cannot be written as OME-Zarr here; allowed are {', '.join(PYRAMID_AXES)}")
    if len(shape) != len(axes) or not all(n > 0 for n in shape):
        raise ValueError(f"axes {axes!r} name {len(axes)} axes of at least one voxel, the shape is {tuple(shape)}")
    ndim = len(axes.removeprefix("C"))
    channels = tuple(int(n) for n in shape[:-ndim])
    size = spacing.values if spacing is not None else (1.0,) * ndim
    if len(size) != ndim:
        raise ValueError(f"spacing {spacing} has {len(size)} values, axes {axes!r} have {ndim} in space")
    levels = [
        _lay_out(channels, spatial, factors, size, (np.dtype(dtype).itemsize, shard_bytes))
        for spatial, factors in _iter_resolutions(tuple(int(n) for n in shape[-ndim:]), size)
    ]
    return Pyramid(axes, np.dtype(dtype), spacing, tuple(levels))


def _iter_resolutions(shape: tuple[int, ...], size: tuple[float, ...]) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Spatial shape and factors of each level."""
    factors = (1,) * len(shape)
    yield shape, factors
    while max(shape) > SMALL_AXIS:
        now = [a * b for a, b in zip(size, factors, strict=True)]
        finest = min(voxel for voxel, n in zip(now, shape, strict=True) if n > SMALL_AXIS)
        halved = [n > MIN_HALVED and voxel <= finest * ISOTROPIC for voxel, n in zip(now, shape, strict=True)]
        factors = tuple(f * 2 if half else f for f, half in zip(factors, halved, strict=True))
        shape = tuple(-(-n // 2) if half else n for n, half in zip(shape, halved, strict=True))
        yield shape, factors


def _lay_out(
    channels: tuple[int, ...],
    shape: tuple[int, ...],
    factors: tuple[int, ...],
    size: tuple[float, ...],
    budget: tuple[int, int],
) -> PyramidLevel:
    """Chunks and shards of one level; `budget` is (bytes per voxel, bytes per shard)."""
    itemsize, shard_bytes = budget
    now = tuple(a * b for a, b in zip(size, factors, strict=True))
    voxels = min(CHUNK_VOXELS[len(shape)], CHUNK_BYTES // itemsize)
    chunks = _grow((1,) * len(shape), shape, now, voxels)
    shards = None
    count = prod(channels) * prod(-(-n // step) for n, step in zip(shape, chunks, strict=True))
    if count > MAX_FILES and shard_bytes:
        shards = _grow(chunks, shape, now, shard_bytes // (itemsize * prod(channels)))
    ones = (1,) * len(channels)
    return PyramidLevel(
        shape=channels + shape,
        factors=ones + factors,
        chunks=ones + tuple(min(step, n) for step, n in zip(chunks, shape, strict=True)),
        shards=None if shards is None else channels + _whole_chunks(shards, chunks, shape),
    )


def _grow(edges: tuple[int, ...], shape: tuple[int, ...], size: tuple[float, ...], voxels: int) -> tuple[int, ...]:
    """Double the edge that is shortest in micrometres (the last of equals) up to so many voxels."""
    edges = tuple(edges)
    while True:
        short = [axis for axis, (edge, n) in enumerate(zip(edges, shape, strict=True)) if edge < n]
        if not short or prod(edges) * 2 > voxels:
            return edges
        axis = min(reversed(short), key=lambda axis: edges[axis] * size[axis])
        edges = tuple(edge * 2 if place == axis else edge for place, edge in enumerate(edges))


def _whole_chunks(shards: tuple[int, ...], chunks: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shard in whole chunks; a chunk that is cut to a short axis fills it alone."""
    return tuple(n if chunk >= n else shard for shard, chunk, n in zip(shards, chunks, shape, strict=True))
