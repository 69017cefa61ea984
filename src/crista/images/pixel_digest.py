"""A digest of pixels that does not depend on the order in which they are read, for finding copies."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from crista.geometry.axes import Array, Region

_WORD = np.dtype(np.uint32)


class PixelDigest:
    """The sum over all 32-bit words of a C(Z)YX image, each times a number drawn for its place, modulo 2⁶⁴.

    Blocks may come in any order and of any size, as long as their rows begin and end on whole words. Two images that
    differ in one word never agree, others once in 2³² at worst and in 2⁶⁴ as a rule: enough to find copies, no seal.
    """

    def __init__(self, spatial_shape: tuple[int, ...]) -> None:
        self.shape = spatial_shape
        self._sum = np.zeros((), np.uint64)

    def add(self, channel: int, region: Region, pixels: Array) -> None:
        """Take in the pixels (Z)YX of one block of a channel."""
        words = _as_words(pixels.reshape(-1, pixels.shape[-1]))
        first = region[-1].start * pixels.dtype.itemsize // _WORD.itemsize
        along_x = draw_weights(np.arange(first, first + words.shape[1], dtype=np.uint64))
        rows = np.einsum("ij,j->i", words, along_x)
        self._sum += np.sum(rows * draw_weights(self._row_numbers(channel, region)), dtype=np.uint64)

    def _row_numbers(self, channel: int, region: Region) -> NDArray[np.uint64]:
        """The numbers of the block's rows among those of the whole image."""
        numbers = np.full(1, channel, np.uint64)
        for length, part in zip(self.shape[:-1], region[:-1], strict=True):
            along = np.arange(part.start, part.stop, dtype=np.uint64)
            numbers = (numbers[:, None] * np.uint64(length) + along).reshape(-1)
        # Not the numbers that places along x have.
        return np.asarray(numbers + np.uint64(2**48))

    def hexdigest(self) -> str:
        """The sum as 16 digits."""
        return f"{int(self._sum):016x}"


def _as_words(rows: Array) -> NDArray[np.uint32]:
    """Rows as native little words; a row that ends within a word is filled up with zeros."""
    row_bytes = rows.shape[1] * rows.dtype.itemsize
    missing = -row_bytes % _WORD.itemsize
    contiguous = np.ascontiguousarray(rows, rows.dtype.newbyteorder("<"))
    if not missing:
        return contiguous.view(np.uint8).view(_WORD)
    padded = np.zeros((len(rows), row_bytes + missing), np.uint8)
    padded[:, :row_bytes] = contiguous.view(np.uint8)
    return padded.view(_WORD)


def draw_weights(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """An odd 64-bit number for each number, as good as random (splitmix64: Steele, Lea, Flood 2014)."""
    mixed = numbers * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return np.asarray((mixed ^ (mixed >> np.uint64(31))) | np.uint64(1))
