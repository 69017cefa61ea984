"""Exact sums and order statistics of the intensities of an image, read block by block in fixed memory.

Nothing here depends on the size of the blocks: counts and sums of integers are exact, sums of floats are made over
pieces of rows and added without rounding (`ExactSum`), and percentiles are true order statistics, not read off coarse
bins. Intensities are those of `as_float32`; what is not finite there is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import floor, inf, sqrt
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from crista.geometry.axes import Array, Region
from crista.geometry.tiles import whole
from crista.images.blocks import iter_blocks, iter_pixels
from crista.images.counting import count_integers, count_patterns
from crista.images.image import Image
from crista.patches.exact_sum import ExactSum

PIECE = 1024
"""Pixels of a row that are summed as float64; a longer row is summed in pieces, so that a block need not hold it all."""

SUMMED_PIXELS = 2**16
"""Pixels summed at a time: as float64 they stay in the processor's cache."""

COUNTED_PIXELS = 2**20
"""Pixels counted at a time: many more than there are counters."""

Limits = tuple[float, float]
"""Lowest and highest intensity kept by clipping; infinite where there is no limit."""


@dataclass(frozen=True)
class Summary:
    """The finite intensities of one channel, after clipping. All 0 where there are none."""

    count: int
    minimum: float
    maximum: float
    mean: float
    std: float
    """Of the population: divided by the count."""


class Intensities(Protocol):
    """Intensities of one image that can be asked for what normalisation needs."""

    def percentiles(self, percentages: Sequence[float]) -> list[list[float]]:
        """For each percentage (0-100), for each channel, the value below which so many of the pixels lie.

        Interpolated linearly between order statistics.
        """
        ...

    def summarise(self, limits: Sequence[Limits]) -> list[Summary]:
        """For each channel a summary of its intensities clipped to its limits."""
        ...


def open_intensities(image: Image, block_bytes: int) -> Intensities:
    """Intensities of `image`, read in blocks of at most `block_bytes` where rows allow; once if it is no larger."""
    if image.dtype.kind in "iub" and image.dtype.itemsize <= 2:
        return CountedIntensities(image, block_bytes)
    return StreamedIntensities(image, block_bytes)


def as_float32(pixels: Array) -> NDArray[np.float32]:
    """Pixels of any dtype as float32, a copy only where they are not yet; what float32 cannot hold becomes infinite."""
    with np.errstate(over="ignore"):
        return np.asarray(pixels, np.float32, order="C")


class Blocks:
    """The blocks of an image, as often as they are asked for."""

    def __init__(self, image: Image, block_bytes: int) -> None:
        self.image = image
        self._whole: Array | None = None
        self._is_small = image.nbytes <= block_bytes
        # Two blocks are in memory at a time.
        self._values = max(1, block_bytes // (2 * image.dtype.itemsize))

    def __iter__(self) -> Iterator[tuple[Region, Array]]:
        """Blocks C(Z)YX and where they lie; whole rows, or rows cut on multiples of `PIECE`."""
        if not self._is_small:
            yield from iter_pixels(self.image, iter_blocks(self.image, self._values, PIECE))
            return
        if self._whole is None:
            self._whole = self.image.read()
        yield whole(self.image.spatial_shape), self._whole

    def iter_rows(self, num_pixels: int) -> Iterator[tuple[int, Array]]:
        """Channel and some of its rows, (rows, X), about `num_pixels` at a time."""
        for _, block in self:
            for channel, pixels in enumerate(block):
                rows = pixels.reshape(-1, pixels.shape[-1])
                step = max(1, num_pixels // rows.shape[1])
                for start in range(0, len(rows), step):
                    yield channel, rows[start : start + step]


class CountedIntensities:
    """Integers of up to 16 bits: one histogram per channel says all, after one reading."""

    def __init__(self, image: Image, block_bytes: int) -> None:
        self.origin = 0
        self.counts = np.zeros((image.num_channels, 2 ** (8 * image.dtype.itemsize)), np.int64)
        for _, block in Blocks(image, block_bytes):
            for channel, pixels in enumerate(block):
                self.origin, counts = count_integers(pixels)
                self.counts[channel] += counts

    def percentiles(self, percentages: Sequence[float]) -> list[list[float]]:
        """See `Intensities`; exact."""
        cumulative = self.counts.cumsum(axis=1)
        return [[self._percentile(percentage, channel) for channel in cumulative] for percentage in percentages]

    def _percentile(self, percentage: float, cumulative: NDArray[np.int64]) -> float:
        return compute_percentile(percentage, int(cumulative[-1]), lambda rank: self._value(cumulative, rank))

    def _value(self, cumulative: NDArray[np.int64], rank: int) -> float:
        return float(np.searchsorted(cumulative, rank, side="right") + self.origin)

    def summarise(self, limits: Sequence[Limits]) -> list[Summary]:
        """See `Intensities`; exact up to one final rounding."""
        return [self._summarise(counts, *limit) for counts, limit in zip(self.counts, limits, strict=True)]

    def _summarise(self, counts: NDArray[np.int64], lower: float, upper: float) -> Summary:
        present = np.flatnonzero(counts)
        if not len(present):
            return Summary(0, 0.0, 0.0, 0.0, 0.0)
        values, weights = present + self.origin, counts[present]
        below, above = values < lower, values > upper
        between = ~(below | above)
        # Python integers: no overflow, no rounding.
        pairs = list(zip(values[between].tolist(), weights[between].tolist(), strict=True))
        sums = [Fraction(sum(v * n for v, n in pairs)), Fraction(sum(v * v * n for v, n in pairs))]
        for clipped, limit in ((below, lower), (above, upper)):
            number = int(weights[clipped].sum())
            if number:
                sums[0] += number * Fraction(limit)
                sums[1] += number * Fraction(limit) ** 2
        ends = np.clip(values[[0, -1]].astype(np.float64), lower, upper)
        mean, std = compute_moments(int(weights.sum()), sums[0], sums[1])
        return Summary(int(weights.sum()), float(ends[0]), float(ends[1]), mean, std)


class StreamedIntensities:
    """Any other dtype: read once for sums, and twice for percentiles."""

    def __init__(self, image: Image, block_bytes: int) -> None:
        self.blocks = Blocks(image, block_bytes)
        self.num_channels = image.num_channels
        self._pivots: list[float | None] | None = None

    def percentiles(self, percentages: Sequence[float]) -> list[list[float]]:
        """See `Intensities`; exact order statistics of the float32 values, found by their bits, 16 at a time."""
        cumulative = self._count_high_bits().cumsum(axis=1)
        totals = cumulative[:, -1].tolist()
        ranks = [sorted({rank for p in percentages for rank in ranks_around(p, total)}) for total in totals]
        heads = [np.searchsorted(c, some, side="right").tolist() for c, some in zip(cumulative, ranks, strict=True)]
        low = self._count_low_bits([set(some) for some in heads])
        values = [
            {rank: _find_value(low[c, head], cumulative[c], head, rank) for rank, head in zip(r, h, strict=True)}
            for c, (r, h) in enumerate(zip(ranks, heads, strict=True))
        ]
        return [
            [compute_percentile(p, n, found.__getitem__) for n, found in zip(totals, values, strict=True)] for p in percentages
        ]

    def _count_high_bits(self) -> NDArray[np.int64]:
        """For each channel how often each upper half of a sort key occurs."""
        counts = np.zeros((self.num_channels, 2**16), np.int64)
        for channel, rows in self.blocks.iter_rows(COUNTED_PIXELS):
            counts[channel] += count_patterns((bits_of(rows) >> 16).astype(np.uint16))
        # In the order of the numbers: negative ones come first, turned round; what is not finite does not count.
        infinite = np.arange(2**16) & 0x7F80 == 0x7F80
        counts[:, infinite] = 0
        return np.concatenate([counts[:, :0x7FFF:-1], counts[:, :0x8000]], axis=1)

    def _count_low_bits(self, heads: Sequence[set[int]]) -> dict[tuple[int, int], NDArray[np.int64]]:
        """For each channel and each of its `heads` (upper halves of keys): how often each lower half occurs."""
        counts = {(c, head): np.zeros(2**16, np.int64) for c, some in enumerate(heads) for head in some}
        if not counts:
            return counts
        for channel, rows in self.blocks.iter_rows(COUNTED_PIXELS):
            bits = bits_of(rows)
            high = (bits >> 16).astype(np.uint16)
            for head in heads[channel]:
                is_negative = head < 0x8000
                found = bits[high == (0xFFFF - head if is_negative else head - 0x8000)].astype(np.uint16)
                counts[channel, head] += count_patterns(~found if is_negative else found)
        return counts

    def summarise(self, limits: Sequence[Limits]) -> list[Summary]:
        """See `Intensities`; float64 within a piece of a row, no rounding between pieces."""
        if self._pivots is None:
            self._pivots = find_first_finite(self.blocks)
        sums = [PieceSums(*limit, pivot) for limit, pivot in zip(limits, self._pivots, strict=True)]
        for channel, rows in self.blocks.iter_rows(SUMMED_PIXELS):
            sums[channel].add(as_float32(rows))
        return [channel.finish() for channel in sums]


def find_first_finite(blocks: Blocks) -> list[float | None]:
    """For each channel its first finite intensity in scan order; None where there is none.

    Nearly always it lies in the first row; else blocks are searched, as far as one could begin before it.
    """
    image = blocks.image
    first_row = tuple(slice(0, 1) for _ in image.spatial_shape[:-1])
    row = (*first_row, slice(0, image.spatial_shape[-1]))
    found = [_first_finite(channel, row) for channel in image.read(row)]
    if all(found):
        return [first[1] for first in found if first is not None]
    for region, block in blocks:
        if all(first is not None and first[0][0] < region[0].start for first in found):
            break
        new = [_first_finite(channel, region) for channel in block]
        found = [min((one for one in pair if one is not None), default=None) for pair in zip(found, new, strict=True)]
    return [first[1] if first is not None else None for first in found]


def _first_finite(pixels: Array, region: Region) -> tuple[tuple[int, ...], float] | None:
    """Place in the image and value of the first finite intensity of a channel's block (Z)YX."""
    values = as_float32(pixels)
    finite = np.isfinite(values)
    if not finite.any():
        return None
    inside = np.unravel_index(int(finite.argmax()), finite.shape)
    return tuple(part.start + int(i) for part, i in zip(region, inside, strict=True)), float(values[inside])


def _find_value(low: NDArray[np.int64], cumulative: NDArray[np.int64], head: int, rank: int) -> float:
    before = int(cumulative[head - 1]) if head else 0
    tail = int(np.searchsorted(low.cumsum(), rank - before, side="right"))
    return value_of_key(head << 16 | tail)


class PieceSums:
    """Sums of one channel over pieces of rows, which do not depend on how rows are grouped."""

    def __init__(self, lower: float, upper: float, pivot: float | None) -> None:
        self.lower, self.upper = lower, upper
        # Deviations from a pixel of the image: squares of large, nearly equal intensities would lose digits.
        self.pivot = 0.0 if pivot is None else min(max(pivot, lower), upper)
        self.count = 0
        self.minimum, self.maximum = inf, -inf
        self.first, self.second = ExactSum(), ExactSum()

    def add(self, rows: NDArray[np.float32]) -> None:
        """Take in some rows, (rows, X), that begin on a multiple of `PIECE`."""
        lowest, highest = float(rows.min()), float(rows.max())
        finite = None
        if not (np.isfinite(lowest) and np.isfinite(highest)):
            finite = np.isfinite(rows)
            lowest = float(rows.min(where=finite, initial=inf))
            highest = float(rows.max(where=finite, initial=-inf))
        number = rows.size if finite is None else int(finite.sum())
        if not number:
            return
        self.count += number
        self.minimum = min(self.minimum, min(max(lowest, self.lower), self.upper))
        self.maximum = max(self.maximum, min(max(highest, self.lower), self.upper))
        deviations = rows.astype(np.float64)
        if lowest < self.lower or highest > self.upper:
            np.clip(deviations, self.lower, self.upper, out=deviations)
        deviations -= self.pivot
        if finite is not None:
            deviations[~finite] = 0
        self._add_deviations(deviations)

    def _add_deviations(self, deviations: NDArray[np.float64]) -> None:
        starts = range(0, deviations.shape[1], PIECE)
        for sums in (self.first, self.second):
            for start in starts:
                sums.add(deviations[:, start : start + PIECE].sum(axis=1))
            np.square(deviations, out=deviations)

    def finish(self) -> Summary:
        """The summary of all rows."""
        if not self.count:
            return Summary(0, 0.0, 0.0, 0.0, 0.0)
        # Rounded once each, to float64.
        first, second = Fraction(float(self.first)), Fraction(float(self.second))
        mean, std = compute_moments(self.count, first, second, Fraction(self.pivot))
        return Summary(self.count, self.minimum, self.maximum, mean, std)


def bits_of(pixels: Array) -> NDArray[np.uint32]:
    """The bits of each intensity as float32, flat."""
    return np.ascontiguousarray(as_float32(pixels)).reshape(-1).view(np.uint32)


def compute_moments(count: int, first: Fraction, second: Fraction, pivot: Fraction = Fraction(0)) -> tuple[float, float]:
    """Mean and standard deviation from the sums of deviations from `pivot` and of their squares, rounded once."""
    mean = first / count
    variance = max(Fraction(0), second / count - mean * mean)
    return float(pivot + mean), sqrt(float(variance))


def ranks_around(percentage: float, count: int) -> list[int]:
    """The one or two order statistics (from 0) that a percentile of `count` values lies between."""
    if not count:
        return []
    position = percentage / 100 * (count - 1)
    return sorted({floor(position), min(floor(position) + 1, count - 1)})


def compute_percentile(percentage: float, count: int, value_at: Callable[[int], float]) -> float:
    """The percentile of `count` values, interpolated linearly between order statistics; 0 if there are none."""
    ranks = ranks_around(percentage, count)
    if not ranks:
        return 0.0
    low, high = value_at(ranks[0]), value_at(ranks[-1])
    return low + (high - low) * (percentage / 100 * (count - 1) - ranks[0])


def value_of_key(key: int) -> float:
    """The float32 value of a key in [0, 2³²); keys count in the order of the values: their bits, negative ones turned round."""
    bits = key - 0x80000000 if key >= 0x80000000 else 0xFFFFFFFF - key
    return float(np.array(bits, np.uint32).view(np.float32))
