"""One tile algebra for training patches, inference, and metrics on volumes larger than memory.

A `Tile` reads a region of the image, crops the prediction made of it, and writes the crop to the output. The write
regions of a cover partition the image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil, prod

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


def tile_axis(
    length: int, size: int, halo: int, multiple: int = 1, *, part: tuple[int, int] | None = None
) -> list[tuple[slice, slice, slice]]:
    """Cover one axis of `length` voxels, or the `part` (start, stop) of it, by windows of at most `size` voxels.

    Written voxels are at least `halo` away from the ends of their window, except at the ends of the axis: the border of the
    image is the border of the prediction. Every window starts on a multiple of `multiple` (the stride of the network), so that
    a strided network sees the same grid as it would on the whole axis, and the last one ends at most at `length` rounded up to
    `multiple`, just as the whole axis would be padded. An axis that fits one window gets one no longer than that.

    Returns (read, crop, write) triples in order.
    """
    first, last = part if part is not None else (0, length)
    if length < 1 or not 0 <= first < last <= length:
        raise ValueError(f"an axis of length {length} cannot be tiled from {first} to {last}")
    padded = round_up(length, multiple)
    if padded > size and (size - 2 * halo) // multiple < 1:
        raise ValueError(f"a tile of {size} with a halo of {halo} leaves no multiple of {multiple} to write")
    cover = []
    written = first
    while written < last:
        end_needed = padded if last == length else min(padded, round_up(last + halo, multiple))
        start = max(0, (written - halo) // multiple * multiple)
        if end_needed == padded:
            start = max(0, min(start, padded - size))  # windows at the end are as large as the others
        end = min(start + size, end_needed)
        stop = last if end == end_needed else end - halo
        cover.append((slice(start, end), slice(written - start, stop - start), slice(written, stop)))
        written = stop
    return cover


def iter_tiles(
    shape: Sequence[int],
    size: Sequence[int],
    halo: Sequence[int],
    multiple: Sequence[int] | None = None,
    *,
    block: Region | None = None,
) -> Iterator[Tile]:
    """Cover an image of `shape`, or the `block` of it, by tiles of at most `size`, row after row along the first axis.

    Parameters
    ----------
    shape, size, halo, multiple : voxels along (Z)YX
        `halo` is the least distance of a written voxel from the border of what was read, except at the image border.
        `multiple` aligns tile starts; `size` should be a multiple of it too.
    block : region of the image
        Only this is written; None: all of the image.
    """
    multiples = multiple if multiple is not None else [1] * len(shape)
    parts = [(axis.start, axis.stop) for axis in block] if block is not None else [(0, n) for n in shape]
    axes = [tile_axis(n, t, h, m, part=p) for n, t, h, m, p in zip(shape, size, halo, multiples, parts, strict=True)]
    for combination in product(*axes):
        read, crop, write = zip(*combination, strict=True)
        yield Tile(read, crop, write)


def fit_tile(
    shape: Sequence[int], halo: Sequence[int], multiple: Sequence[int], max_voxels: int, *, inside: bool = False
) -> tuple[int, ...] | None:
    """The tile of at most `max_voxels` that covers a box of `shape` with the least work; None if no tile is that small.

    All windows along an axis get the same size, the smallest with which their number suffices. The work is the product over
    the axes of number times size. `inside`: the box is a block in the middle of an image, with a halo at its own ends too.
    """
    choices = [_window_sizes(n, h, m, inside=inside, most=max_voxels) for n, h, m in zip(shape, halo, multiple, strict=True)]
    best: tuple[int, int, tuple[int, ...]] | None = None
    for combination in product(*choices):
        size = tuple(window for _, window in combination)
        if prod(size) <= max_voxels:
            work = prod(count * window for count, window in combination)
            candidate = (work, prod(count for count, _ in combination), size)
            best = candidate if best is None or candidate[:2] < best[:2] else best
    return best[2] if best is not None else None


def _window_sizes(length: int, halo: int, multiple: int, *, inside: bool, most: int) -> list[tuple[int, int]]:
    """(number, size) of windows along one axis, from one window to the narrowest; each size once."""
    ends = 0 if inside else 2 * halo
    sizes: dict[int, int] = {}
    for count in range(1, 65):
        if count == 1:
            window = round_up(length + 2 * halo - ends, multiple)
        else:
            window = round_up(-(-(length - ends) // count) + 2 * halo, multiple)
            if halo % multiple:
                window += multiple  # starts are rounded down to the grid of the network
        if window <= most and window not in sizes:
            sizes[window] = count
        if window <= 2 * halo + multiple:
            break
    return [(count, window) for window, count in sizes.items()]


def work_factor(tiles: Sequence[Tile]) -> float:
    """Voxels that go through the network per voxel of the result."""
    return sum(prod(tile.shape) for tile in tiles) / sum(prod(shape_of(tile.write)) for tile in tiles)


def grid_blocks(shape: Sequence[int], size: Sequence[int]) -> Iterator[Region]:
    """Boxes of `size` from the origin that partition an image of `shape`, in order; those at the far ends are smaller."""
    for corner in product(*(range(0, n, step) for n, step in zip(shape, size, strict=True))):
        yield tuple(slice(start, min(start + step, n)) for start, step, n in zip(corner, size, shape, strict=True))


def round_up(value: int, multiple: int) -> int:
    """The least multiple that is not below `value`."""
    return -(-value // multiple) * multiple


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
