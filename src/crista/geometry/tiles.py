"""One tile algebra for training patches, inference, and metrics on volumes larger than memory.

A `Tile` reads a region of the image, crops the prediction made of it, and writes the crop to the output. The write
regions of a cover partition the image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil

from crista.geometry.axes import Region


@dataclass(frozen=True)
class Tile:
    """One step of a cover of an image, in voxels along (Z)YX."""

    read: Region
    """What to read from the image. May reach beyond its end: those voxels are padded by reflection."""

    crop: Region
    """Which part of the prediction to keep, relative to the start of `read`."""

    write: Region
    """Where the kept part goes in the output; the write regions of all tiles partition it."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the read region."""
        return tuple(axis.stop - axis.start for axis in self.read)


def tile_axis(length: int, size: int, halo: int, multiple: int = 1) -> list[tuple[slice, slice, slice]]:
    """Cover one axis of `length` voxels by windows of `size` whose outer `halo` voxels are not written.

    Every window starts on a multiple of `multiple` (the stride of the network), so that a strided network sees the same
    grid as it would on the whole axis. The first window starts at 0 and writes from there: the border of the image is the
    border of the prediction. The last window ends at `length` rounded up to `multiple`, just as the whole axis would be
    padded; it overlaps its neighbour rather than being padded further. An axis that fits one window gets one no longer
    than that.

    Returns (read, crop, write) triples in order.
    """
    if length < 1:
        raise ValueError(f"an axis of length {length} cannot be tiled")
    padded = ceil(length / multiple) * multiple
    if padded <= size:
        return [(slice(0, padded), slice(0, length), slice(0, length))]
    step = (size - 2 * halo) // multiple * multiple
    if step < 1:
        raise ValueError(f"a tile of {size} with a halo of {halo} leaves no multiple of {multiple} to write")
    cover = []
    start = written = 0
    while written < length:
        last = start + size >= padded
        start = padded - size if last else start
        stop = length if last else start + size - halo
        cover.append((slice(start, start + size), slice(written - start, stop - start), slice(written, stop)))
        written = stop
        start = (stop - halo) // multiple * multiple
    return cover


def iter_tiles(
    shape: Sequence[int], size: Sequence[int], halo: Sequence[int], multiple: Sequence[int] | None = None
) -> Iterator[Tile]:
    """Cover an image of `shape` by tiles of `size`, row after row along the first axis.

    Parameters
    ----------
    shape, size, halo, multiple : voxels along (Z)YX
        `halo` is the least distance of a written voxel from the border of what was read, except at the image border.
        `multiple` aligns tile starts; `size` should be a multiple of it too.
    """
    multiples = multiple if multiple is not None else [1] * len(shape)
    axes = [tile_axis(n, t, h, m) for n, t, h, m in zip(shape, size, halo, multiples, strict=True)]
    for parts in product(*axes):
        read, crop, write = zip(*parts, strict=True)
        yield Tile(read, crop, write)


def grid_starts(length: int, size: int, overlap: float = 0.0) -> list[int]:
    """Starts of windows of `size` that cover an axis, neighbours sharing at least `overlap` of a window.

    The windows are spread evenly and the last one ends at the border: with n = ceil((length - size) / step) + 1 windows and
    step = size·(1 - overlap), start i is round(i·(length - size)/(n - 1)). An axis shorter than a window has one start, 0.
    """
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap must be in [0, 1), got {overlap}")
    if length <= size:
        return [0]
    step = max(1, int(size * (1 - overlap)))
    count = ceil((length - size) / step) + 1
    return [round(i * (length - size) / (count - 1)) for i in range(count)]


def shape_of(region: Region) -> tuple[int, ...]:
    """Number of voxels of a region along each axis."""
    return tuple(axis.stop - axis.start for axis in region)


def whole(shape: Sequence[int]) -> Region:
    """The region that is all of an image of `shape`."""
    return tuple(slice(0, n) for n in shape)
