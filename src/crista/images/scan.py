"""One pass over the pixels of an image: what they hold, and a digest that finds copies."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from crista.geometry.axes import Array
from crista.images.blocks import iter_blocks, iter_pixels
from crista.images.counting import count_integers
from crista.images.image import Image
from crista.images.pixel_digest import PixelDigest
from crista.images.pixel_sample import PixelSample

PIECE = 2**16
"""Values measured at a time: as float64 they stay in the processor's cache."""


@dataclass(frozen=True)
class Intensity:
    """Finite intensities of one channel, in the stored unit."""

    min: float
    max: float
    mean: float
    std: float
    """Population standard deviation."""
    count: int
    """Finite pixels."""

    @staticmethod
    def merge(parts: list[Intensity]) -> Intensity:
        """Statistics of the union of several sets of pixels (Chan et al. 1979, parallel variance)."""
        count = sum(part.count for part in parts)
        if not count:
            return Intensity(0.0, 0.0, 0.0, 0.0, 0)
        filled = [part for part in parts if part.count]
        mean = sum(part.mean * (part.count / count) for part in filled)
        # Scaled, so that the squares of huge float64 intensities do not overflow.
        scale = max(max(part.std, abs(part.mean - mean)) for part in filled) or 1.0
        spread = [(part.std / scale) ** 2 + ((part.mean - mean) / scale) ** 2 for part in filled]
        variance = sum(square * (part.count / count) for square, part in zip(spread, filled, strict=True))
        std = sqrt(variance) * scale
        return Intensity(min(part.min for part in filled), max(part.max for part in filled), mean, std, count)


@dataclass(frozen=True)
class ImageScan:
    """What one pass over an image found."""

    digest: str
    """Equal for images of equal shape, dtype and pixels, whatever file they are in."""
    num_nonfinite: int
    """NaN and infinite pixels, all channels together."""
    channels: tuple[Intensity, ...]
    num_values: int | None = None
    """Distinct values over all channels, of 8- and 16-bit integers and booleans; None for others."""
    share_at_top: float = 0.0
    """Share of the pixels that have the largest value of the image, where `num_values` is known."""
    sample: str = ""
    """Pixels on a coarse grid, as `crista.images.copies` compares them."""

    @property
    def is_empty_of_values(self) -> bool:
        """Whether no pixel is finite."""
        return all(channel.count == 0 for channel in self.channels)

    @property
    def is_constant(self) -> bool:
        """Whether every channel has one single value."""
        return not self.is_empty_of_values and all(channel.min == channel.max for channel in self.channels)


def scan_image(image: Image) -> ImageScan:
    """Read all pixels once, block by block; the next block is read while one is looked at."""
    digest, sample = PixelDigest(image.spatial_shape), PixelSample(image.spatial_shape)
    found = [Intensity.merge([]) for _ in range(image.num_channels)]
    num_nonfinite = 0
    counts: NDArray[np.int64] | int = 0
    for region, block in iter_pixels(image, iter_blocks(image)):
        sample.add(region, block)
        for channel, pixels in enumerate(block):
            pixels = np.ascontiguousarray(pixels)
            digest.add(channel, region, pixels)
            if pixels.dtype.kind in "bui" and pixels.dtype.itemsize <= 2:
                origin, histogram = count_integers(pixels.reshape(-1))
                counts = counts + histogram
                part = _measure_counts(origin, histogram)
            else:
                part = _measure(pixels.reshape(-1))
            num_nonfinite += pixels.size - part.count
            found[channel] = Intensity.merge([found[channel], part])
    dtype = image.dtype.newbyteorder("<").str
    identity = f"{image.num_channels} {image.spatial_shape} {dtype} {digest.hexdigest()}"
    if isinstance(counts, int):
        return ImageScan(identity, num_nonfinite, tuple(found), sample=sample.as_text())
    present = counts[counts > 0]
    return ImageScan(identity, num_nonfinite, tuple(found), len(present), float(present[-1] / present.sum()), sample.as_text())


def _measure(pixels: Array) -> Intensity:
    return Intensity.merge([_measure_piece(pixels[start : start + PIECE]) for start in range(0, len(pixels), PIECE)])


def _measure_piece(pixels: Array) -> Intensity:
    """The same for any dtype; a piece small enough to stay in the processor's cache."""
    low, high = pixels.min(), pixels.max()
    if pixels.dtype.kind == "f" and not (np.isfinite(low) and np.isfinite(high)):
        pixels = pixels[np.isfinite(pixels)]
        if not pixels.size:
            return Intensity(0.0, 0.0, 0.0, 0.0, 0)
        low, high = pixels.min(), pixels.max()
    values = pixels.astype(np.float64)
    # Scaled first, so that the squares of huge float64 intensities do not overflow.
    scale = max(abs(float(low)), abs(float(high))) or 1.0
    values /= scale
    mean = float(values.mean())
    values -= mean
    # Not `values @ values`: BLAS would start threads, which wait for each other when the machine has other work.
    np.square(values, out=values)
    return Intensity(float(low), float(high), mean * scale, sqrt(float(values.mean())) * scale, values.size)


def _measure_counts(origin: int, histogram: NDArray[np.int64]) -> Intensity:
    """The same numbers from the counts of each value, exact and several times faster."""
    present = np.flatnonzero(histogram)
    values, counts = present + origin, histogram[present]
    total = int(counts.sum())
    mean = int((values * counts).sum()) / total
    variance = float((np.square(values - mean) * counts).sum()) / total
    return Intensity(float(values[0]), float(values[-1]), mean, sqrt(variance), total)
