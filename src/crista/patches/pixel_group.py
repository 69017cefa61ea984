"""Pixel groups: pixels of an image that are all as likely, gathered block by block and drawn in constant time on average."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from crista.geometry.axes import Region
from crista.geometry.tiles import whole

DENSE_SHARE = 0.25
"""From this share of all pixels on, a group is kept as one bit per pixel rather than as a list of indices."""
LARGE_SHARE = 1 / 64
"""The same for images of more than `LARGE` pixels, where a list of a quarter of them would be as large as the label itself; a
draw then takes up to 64 looks."""
LARGE = 2**28


@dataclass(frozen=True)
class PixelGroup:
    """Pixels that are all as likely."""

    size: int
    """Pixels of the image."""
    count: int
    """Those of them that are in the group."""
    width: int
    """Pixels of a row of the image."""
    indices: NDArray[np.integer] | None = None
    """Flat indices of a group of few pixels, increasing."""
    bits: NDArray[np.uint8] | None = None
    """For a group of many one bit for each pixel of the image, (rows, bytes), each row as `numpy.packbits` orders it."""

    @classmethod
    def of(cls, mask: NDArray[np.bool_]) -> PixelGroup:
        """The pixels where `mask` is True."""
        gathered = GatheredPixels(mask.shape)
        gathered.add(whole(mask.shape), mask)
        return gathered.group()

    def draw(self, rng: np.random.Generator) -> int:
        """Flat index of one pixel of the group, each as likely."""
        if self.indices is not None:
            return int(self.indices[int(rng.integers(self.count))])
        assert self.bits is not None
        while True:
            index = int(rng.integers(self.size))
            row, column = divmod(index, self.width)
            if self.bits[row, column >> 3] >> (7 - (column & 7)) & 1:
                return index


class GatheredPixels:
    """A group that grows block by block, in any order, to the same group."""

    def __init__(self, shape: Sequence[int]) -> None:
        self._shape = tuple(shape)
        self._size = prod(self._shape)
        self._count = 0
        self._parts: list[NDArray[np.integer]] = []
        self._bits: NDArray[np.uint8] | None = None

    def add(self, block: Region, mask: NDArray[np.bool_]) -> None:
        """Take in the pixels of the block that lies at `block`; no pixel comes twice."""
        self._count += int(np.count_nonzero(mask))
        if self._bits is None and self._count >= dense_count(self._size):
            self._bits = np.zeros((*self._shape[:-1], -(-self._shape[-1] // 8)), np.uint8)
            for part in self._parts:
                self._set_bits(part)
            self._parts.clear()
        if self._bits is not None and block[-1].start % 8 == 0:
            columns = slice(block[-1].start // 8, -(-block[-1].stop // 8))
            self._bits[(*block[:-1], columns)] |= np.packbits(mask, axis=-1)
            return
        places = [places + axis.start for places, axis in zip(np.nonzero(mask), block, strict=True)]
        found = np.ravel_multi_index(places, self._shape).astype(index_type(self._size))
        if self._bits is None:
            self._parts.append(found)
        else:
            self._set_bits(found)

    def group(self) -> PixelGroup:
        """The pixels so far."""
        width = self._shape[-1]
        if self._bits is not None:
            return PixelGroup(self._size, self._count, width, bits=self._bits.reshape(-1, self._bits.shape[-1]))
        indices = np.concatenate([np.empty(0, index_type(self._size)), *self._parts])
        return PixelGroup(self._size, self._count, width, indices=np.sort(indices))

    def _set_bits(self, indices: NDArray[np.integer]) -> None:
        assert self._bits is not None
        rows = self._bits.reshape(-1, self._bits.shape[-1])
        row, column = np.divmod(indices.astype(np.int64), self._shape[-1])
        for bit in range(8):  # of one bit no byte comes twice
            chosen = column % 8 == bit
            rows[row[chosen], column[chosen] // 8] |= np.uint8(128 >> bit)


def dense_count(size: int) -> float:
    """Pixels from which on a group in an image of `size` pixels is kept as bits."""
    return size * (DENSE_SHARE if size <= LARGE else LARGE_SHARE)


def index_type(size: int) -> type[np.uint32 | np.uint64]:
    """What holds the index of any of `size` pixels."""
    return np.uint32 if size < 2**32 else np.uint64
