"""Exact sums and order statistics of the intensities of an image, read block by block.

Nothing here depends on the size of the blocks: counts and sums of integers are exact, sums of floats are made row
by row and added without rounding (`math.fsum`), and percentiles are true order statistics, not read off coarse
bins. Intensities are those of `as_float32`; what is not finite there is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from math import floor, fsum, sqrt
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from crista.geometry.axes import Array, Region
from crista.images.image import Image

ROWS_PIXELS = 2**20
"""Pixels handled at a time, so that temporary copies stay small beside the block."""

CHUNK_DEPTH = 16
"""Slices that a block is a multiple of, where it is deeper: few storage chunks are then read twice."""

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

    def percentiles(self, percentage: float) -> list[float]:
        """For each channel the value below which `percentage` (0-100) of the pixels lie, linearly interpolated."""
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
    """Pixels of any dtype as float32; what float32 cannot hold becomes infinite."""
    with np.errstate(over="ignore"):
        return pixels.astype(np.float32, order="C")


def iter_regions(shape: Sequence[int], bytes_per_pixel: int, block_bytes: int) -> Iterator[Region]:
    """Whole rows of an image of `shape`, (Z)YX, in scan order: full planes where they fit, else parts of planes."""
    *outer, height, width = shape
    rows = max(1, block_bytes // (bytes_per_pixel * width))
    if not outer or rows < 2 * height:
        for *before, start in product(*map(range, outer), range(0, height, rows)):
            ends = (*(slice(z, z + 1) for z in before), slice(start, min(start + rows, height)))
            yield (*ends, slice(0, width))
        return
    depth = rows // height
    depth -= depth % CHUNK_DEPTH if depth > CHUNK_DEPTH else 0
    for start in range(0, outer[0], depth):
        yield slice(start, min(start + depth, outer[0])), slice(0, height), slice(0, width)


class Blocks:
    """The blocks of an image, as often as they are asked for."""

    def __init__(self, image: Image, block_bytes: int) -> None:
        self.image = image
        self.block_bytes = block_bytes
        self._whole: Array | None = None

    def __iter__(self) -> Iterator[Array]:
        """Blocks C(Z)YX in scan order."""
        if self.image.nbytes <= self.block_bytes:
            if self._whole is None:
                self._whole = self.image.read()
            yield self._whole
            return
        bytes_per_pixel = self.image.num_channels * self.image.dtype.itemsize
        for region in iter_regions(self.image.spatial_shape, bytes_per_pixel, self.block_bytes):
            yield self.image.read(region)

    def iter_rows(self) -> Iterator[tuple[int, Array]]:
        """Channel and some of its rows, (rows, X), a moderate number at a time."""
        for block in self:
            for channel, pixels in enumerate(block):
                rows = pixels.reshape(-1, pixels.shape[-1])
                step = max(1, ROWS_PIXELS // rows.shape[1])
                for start in range(0, len(rows), step):
                    yield channel, rows[start : start + step]


class CountedIntensities:
    """Integers of up to 16 bits: one histogram per channel says all, after one reading."""

    def __init__(self, image: Image, block_bytes: int) -> None:
        signed = image.dtype.kind == "i"
        self.origin = -(2 ** (8 * image.dtype.itemsize - 1)) if signed else 0
        self.counts = np.zeros((image.num_channels, 2 ** (8 * image.dtype.itemsize)), np.int64)
        for channel, rows in Blocks(image, block_bytes).iter_rows():
            shifted = rows.ravel().astype(np.intp) - self.origin
            self.counts[channel] += np.bincount(shifted, minlength=self.counts.shape[1])

    def percentiles(self, percentage: float) -> list[float]:
        """See `Intensities`; exact."""
        return [self._percentile(percentage, cumulative) for cumulative in self.counts.cumsum(axis=1)]

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
    """Any other dtype: read once for sums, and twice for each pair of percentile searches."""

    def __init__(self, image: Image, block_bytes: int) -> None:
        self.blocks = Blocks(image, block_bytes)
        self.num_channels = image.num_channels
        self._high: NDArray[np.int64] | None = None

    def percentiles(self, percentage: float) -> list[float]:
        """See `Intensities`; exact order statistics of the float32 values, found by their bits, 16 at a time."""
        if self._high is None:
            self._high = np.zeros((self.num_channels, 2**16), np.int64)
            for channel, keys in self._iter_keys():
                self._high[channel] += np.bincount(keys >> 16, minlength=2**16)
        cumulative = self._high.cumsum(axis=1)
        totals = cumulative[:, -1].tolist()
        wanted = [ranks_around(percentage, total) for total in totals]
        heads = [np.searchsorted(c, ranks, side="right") for c, ranks in zip(cumulative, wanted, strict=True)]
        low = self._count_low_bits([set(head.tolist()) for head in heads])
        found = [
            {rank: self._value(low[c, int(head)], cumulative[c], int(head), rank) for rank, head in zip(r, h, strict=True)}
            for c, (r, h) in enumerate(zip(wanted, heads, strict=True))
        ]
        return [compute_percentile(percentage, n, f.__getitem__) for n, f in zip(totals, found, strict=True)]

    def _iter_keys(self) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Channel and sort keys of some of its finite intensities."""
        for channel, rows in self.blocks.iter_rows():
            values = as_float32(rows)
            yield channel, sort_keys(values[np.isfinite(values)])

    def _count_low_bits(self, heads: Sequence[set[int]]) -> dict[tuple[int, int], NDArray[np.int64]]:
        """For each channel and each of its `heads` (high halves of keys): how often each low half occurs."""
        counts = {(c, head): np.zeros(2**16, np.int64) for c, some in enumerate(heads) for head in some}
        if not counts:
            return counts
        for channel, keys in self._iter_keys():
            high = keys >> 16
            for head in heads[channel]:
                counts[channel, head] += np.bincount(keys[high == head] & 0xFFFF, minlength=2**16)
        return counts

    @staticmethod
    def _value(low: NDArray[np.int64], cumulative: NDArray[np.int64], head: int, rank: int) -> float:
        before = int(cumulative[head - 1]) if head else 0
        tail = int(np.searchsorted(low.cumsum(), rank - before, side="right"))
        return value_of_key(head << 16 | tail)

    def summarise(self, limits: Sequence[Limits]) -> list[Summary]:
        """See `Intensities`; float64 within a row, no rounding between rows."""
        sums = [RowSums(*limit) for limit in limits]
        for channel, rows in self.blocks.iter_rows():
            sums[channel].add(as_float32(rows))
        return [channel.finish() for channel in sums]


class RowSums:
    """Sums of one channel, kept for each row so that they do not depend on how rows are grouped."""

    def __init__(self, lower: float, upper: float) -> None:
        self.lower, self.upper = lower, upper
        self.count = 0
        self.pivot: float | None = None
        self.minimum, self.maximum = np.inf, -np.inf
        self.first: list[NDArray[np.float64]] = []
        self.second: list[NDArray[np.float64]] = []

    def add(self, rows: NDArray[np.float32]) -> None:
        """Take in some rows, (rows, X)."""
        finite = np.isfinite(rows)
        number = int(finite.sum())
        if not number:
            return
        values = np.clip(rows.astype(np.float64), self.lower, self.upper)
        # Deviations from a pixel of the image: squares of large, nearly equal intensities would lose digits.
        if self.pivot is None:
            self.pivot = float(values.flat[int(finite.argmax())])
        self.minimum = min(self.minimum, float(values.min(where=finite, initial=np.inf)))
        self.maximum = max(self.maximum, float(values.max(where=finite, initial=-np.inf)))
        deviations = np.where(finite, values, self.pivot) - self.pivot
        self.count += number
        self.first.append(deviations.sum(axis=1))
        self.second.append(np.square(deviations).sum(axis=1))

    def finish(self) -> Summary:
        """The summary of all rows."""
        if self.pivot is None:
            return Summary(0, 0.0, 0.0, 0.0, 0.0)
        first, second = add_exactly(self.first), add_exactly(self.second)
        mean, std = compute_moments(self.count, Fraction(first), Fraction(second), Fraction(self.pivot))
        return Summary(self.count, self.minimum, self.maximum, mean, std)


def add_exactly(parts: Iterable[NDArray[np.float64]]) -> float:
    """The sum of all numbers, rounded once."""
    return fsum(value for part in parts for value in part.tolist())


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


def sort_keys(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Integers in [0, 2³²) in the order of finite float32 values: the bits, with negative numbers turned round."""
    bits = np.ascontiguousarray(values).view(np.uint32).astype(np.int64)
    return np.where(bits >> 31, 0xFFFFFFFF - bits, bits + 0x80000000)


def value_of_key(key: int) -> float:
    """The inverse of `sort_keys` for one key."""
    bits = key - 0x80000000 if key >= 0x80000000 else 0xFFFFFFFF - key
    return float(np.array(bits, np.uint32).view(np.float32))
