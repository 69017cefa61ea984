"""An image in pieces of bounded size, for passes over all its pixels."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import prod

from crista.geometry.axes import Region
from crista.images.image import Image

BLOCK_VOXELS = 2**22
CHUNK_MULTIPLE = 64
"""Blocks of chunked files start on multiples of this, the usual chunk length: few chunks are decoded
twice."""
CHUNKED_EXTENSIONS = (".h5", ".hdf5", ".hdf", ".he5")


def iter_blocks(image: Image, max_voxels: int = BLOCK_VOXELS) -> Iterator[Region]:
    """Regions of at most about `max_voxels` values (all channels counted) that partition the image, in order.

    Chunked stores are cut into boxes, everything else into slabs of whole planes or rows, as the pixels lie
    in the file.
    """
    budget = max(1, max_voxels // image.num_channels)
    chunked = image.path.is_dir() or image.path.suffix.lower() in CHUNKED_EXTENSIONS
    size = _box(image.spatial_shape, budget) if chunked else _slab(image.spatial_shape, budget)
    axes = [
        [slice(start, min(start + step, length)) for start in range(0, length, step)]
        for length, step in zip(image.spatial_shape, size, strict=True)
    ]
    yield from product(*axes)


def _slab(shape: tuple[int, ...], budget: int) -> list[int]:
    """Whole along the last axes as far as the budget goes."""
    size = list(shape)
    for axis in range(len(shape)):
        rest = prod(shape[axis + 1 :])
        size[axis] = max(1, min(shape[axis], budget // max(1, rest)))
        if size[axis] > 1 or rest <= budget:
            break
    return size


def _box(shape: tuple[int, ...], budget: int) -> list[int]:
    """Halve the longest axis, on multiples of a chunk, until the budget is met."""
    size = list(shape)
    while prod(size) > budget and max(size) > CHUNK_MULTIPLE:
        axis = size.index(max(size))
        size[axis] = max(CHUNK_MULTIPLE, -(-size[axis] // 2 // CHUNK_MULTIPLE) * CHUNK_MULTIPLE)
    return size
