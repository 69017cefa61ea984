"""Reading chunked arrays by region: chunks that overlapping tiles share are decoded once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from itertools import product
from math import prod
from pathlib import Path
from uuid import uuid4

import numpy as np

from crista.geometry.axes import Array, Region
from crista.geometry.tiles import shape_of
from crista.images.open_files import DECODED
from crista.images.regions import overlap

CACHED_PART = 4
"""Chunks of at most this part of the cache are decoded together; a read that touches more goes past it: large blocks are not
read twice."""

SHARED_PART, SHARED_BY = 3 / 4, 4
"""But a read that wants a fourth or less of what it touches, if that is no more than this part of the cache: the tiles beside it
want the rest. A tile through flat chunks, a slice each, is such a one."""

MAX_COUNTED = 50_000
"""Chunks are counted, to tell of missing ones, in arrays of at most so many: in half a second."""


@dataclass(frozen=True)
class ChunkGrid:
    """How an array is cut into chunks."""

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype

    def chunks_of(self, region: Region) -> list[range]:
        """Along each axis the numbers of the chunks that `region` touches."""
        return [range(part.start // n, -(-part.stop // n)) for part, n in zip(region, self.chunks, strict=True)]

    def box_of(self, numbers: list[range]) -> Region:
        """The voxels of a box of chunks."""
        return tuple(
            slice(some.start * n, min(some.stop * n, length))
            for some, n, length in zip(numbers, self.chunks, self.shape, strict=True)
        )

    def chunk_at(self, place: tuple[int, ...]) -> Region:
        """The voxels of one chunk."""
        return self.box_of([range(number, number + 1) for number in place])


@dataclass(frozen=True)
class OpenedArray:
    """One array of a store; a reader's own class reads it."""

    path: Path
    name: str
    opened: str = field(default_factory=lambda: uuid4().hex)
    """Tells one opening from the next: chunks may be written anew in between, which the metadata do not show."""


def read_through_cache(key: Hashable, grid: ChunkGrid, region: Region, read: Callable[[Region], Array]) -> Array:
    """The pixels of `region`, by way of the chunks decoded last; whole chunks and large regions go past them.

    Parameters
    ----------
    key : says which array in which version of its file
    read : decodes a region of the array
    """
    touched = grid.chunks_of(region)
    box = grid.box_of(touched)
    item, limit = grid.dtype.itemsize, DECODED.budget // CACHED_PART
    num_bytes, wanted = prod(shape_of(box)) * item, prod(shape_of(region)) * item
    if box == region or not num_bytes:
        return read(region)
    first, *rest = touched
    layers = limit // (num_bytes // len(first))  # of chunks along the first axis that are decoded together
    is_shared = num_bytes <= DECODED.budget * SHARED_PART and SHARED_BY * wanted <= num_bytes
    if num_bytes > limit and not (is_shared and layers):
        return read(region)
    pixels = np.empty(shape_of(region), grid.dtype)
    for start in range(first.start, first.stop, layers):
        part = [range(start, min(start + layers, first.stop)), *rest]
        for place, chunk in _chunks_of(key, grid, part, read):
            source, target = overlap(grid.chunk_at(place), region)
            pixels[target] = chunk[source]
    return pixels


def _chunks_of(
    key: Hashable, grid: ChunkGrid, touched: list[range], read: Callable[[Region], Array]
) -> Iterable[tuple[tuple[int, ...], Array]]:
    """A box of chunks by their places; those that are not at hand are decoded together."""
    kept = {place: chunk for place in product(*touched) if (chunk := DECODED.find((key, place))) is not None}
    missing = [place for place in product(*touched) if place not in kept]
    decoded = _decode_box(grid, missing, read) if missing else {}
    for place, chunk in decoded.items():
        DECODED.keep((key, place), chunk)
    return (decoded | kept).items()


def _decode_box(grid: ChunkGrid, places: list[tuple[int, ...]], read: Callable[[Region], Array]) -> dict[tuple[int, ...], Array]:
    """The chunks of the smallest box around `places`, decoded in one go; each is a copy that keeps nothing else alive."""
    numbers = [range(min(along), max(along) + 1) for along in zip(*places, strict=True)]
    box = grid.box_of(numbers)
    pixels = read(box)
    return {place: pixels[overlap(box, grid.chunk_at(place))[0]].copy() for place in product(*numbers)}
