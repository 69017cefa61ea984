"""An image in pieces of bounded size, for passes over all its pixels: whole chunks, the next piece read ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from math import prod

from crista.geometry.axes import Array, Region
from crista.geometry.tiles import grid_blocks, round_up
from crista.images.image import Image

BLOCK_VALUES = 2**23
"""Values (voxels of all channels) in one block: 8 MB of bytes, 32 MB of float32."""

ROW_UNIT = 8
"""Blocks are cut along x on multiples of this, where it can be: rows then begin at whole machine words."""


def iter_blocks(image: Image, max_values: int = BLOCK_VALUES, row_unit: int = ROW_UNIT) -> Iterator[Region]:
    """Regions of at most about `max_values` values (all channels counted) that partition the image, in scan order.

    Each consists of whole chunks as far as the limit allows, so that nothing is decoded twice; where there are none,
    of whole rows and planes as they lie in the file. Rows are cut on multiples of `row_unit`, if at all.
    """
    budget = max(1, max_values // image.num_channels)
    yield from grid_blocks(image.spatial_shape, choose_block(image.spatial_shape, image.chunks, budget, row_unit))


def choose_block(shape: Sequence[int], chunks: Sequence[int] | None, budget: int, row_unit: int = ROW_UNIT) -> tuple[int, ...]:
    """The shape of a block of at most `budget` voxels (at least `row_unit` of one row): whole chunks, x filled first."""
    unit = list(chunks) if chunks is not None else [1] * len(shape)
    unit[-1] = round_up(unit[-1], row_unit)
    unit = [min(step, n) for step, n in zip(unit, shape, strict=True)]
    while prod(unit) > budget and max(unit[:-1]) > 1:
        longest = unit.index(max(unit[:-1]))
        unit[longest] = -(-unit[longest] // 2)
    if prod(unit) > budget:
        unit[-1] = min(unit[-1], max(1, budget // row_unit) * row_unit)
    size = list(unit)
    for axis in reversed(range(len(shape))):
        fits = budget * size[axis] // prod(size)
        size[axis] = shape[axis] if fits >= shape[axis] else max(size[axis], fits // unit[axis] * unit[axis])
    return tuple(size)


def iter_pixels(image: Image, regions: Iterable[Region]) -> Iterator[tuple[Region, Array]]:
    """Each region with its pixels C(Z)YX. The next one is read while the caller works: two are in memory at a time."""
    with ThreadPoolExecutor(1) as pool:
        waiting: deque[tuple[Region, Future[Array]]] = deque()
        for region in regions:
            waiting.append((region, pool.submit(image.read, region)))
            if len(waiting) == 2:
                yield _take_first(waiting)
        while waiting:
            yield _take_first(waiting)


def _take_first(waiting: deque[tuple[Region, Future[Array]]]) -> tuple[Region, Array]:
    # A function of its own, so that no variable keeps the pixels in memory once the caller is done with them.
    region, pixels = waiting.popleft()
    return region, pixels.result()
