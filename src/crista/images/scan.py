"""One pass over the pixels of an image: what they hold, and a digest that finds copies."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from crista.geometry.axes import Array
from crista.images.blocks import iter_blocks
from crista.images.image import Image


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
        variance = sum((part.std**2 + (part.mean - mean) ** 2) * (part.count / count) for part in filled)
        return Intensity(min(part.min for part in filled), max(part.max for part in filled), mean, sqrt(variance), count)


@dataclass(frozen=True)
class ImageScan:
    """What one pass over an image found."""

    digest: str
    """Equal for images of equal shape, dtype and pixels (volumes of many blocks: among files of one
    format)."""
    num_nonfinite: int
    """NaN and infinite pixels, all channels together."""
    channels: tuple[Intensity, ...]

    @property
    def is_empty_of_values(self) -> bool:
        """Whether no pixel is finite."""
        return all(channel.count == 0 for channel in self.channels)

    @property
    def is_constant(self) -> bool:
        """Whether every channel has one single value."""
        return not self.is_empty_of_values and all(channel.min == channel.max for channel in self.channels)


@dataclass
class _Pass:
    digest: hashlib.blake2b = field(default_factory=lambda: hashlib.blake2b(digest_size=16))
    num_nonfinite: int = 0
    parts: list[list[Intensity]] = field(default_factory=list)


def scan_image(image: Image) -> ImageScan:
    """Read all pixels once, block by block."""
    state = _Pass(parts=[[] for _ in range(image.num_channels)])
    header = f"{image.num_channels} {image.spatial_shape} {image.dtype.newbyteorder('<').str}"
    state.digest.update(header.encode())
    for region in iter_blocks(image):
        block = image.read(region)
        for channel, parts in zip(block, state.parts, strict=True):
            pixels = np.ascontiguousarray(channel)
            state.digest.update(pixels.tobytes())
            part = _measure(pixels.ravel())
            state.num_nonfinite += pixels.size - part.count
            parts.append(part)
    return ImageScan(state.digest.hexdigest(), state.num_nonfinite, tuple(Intensity.merge(parts) for parts in state.parts))


def _measure(pixels: Array) -> Intensity:
    if pixels.dtype.kind in "bu" and pixels.dtype.itemsize <= 2:
        return _measure_histogram(np.bincount(pixels.view(np.uint8) if pixels.dtype == bool else pixels))
    values = pixels.astype(np.float64)
    if pixels.dtype.kind == "f":
        finite = np.isfinite(values)
        values = values if finite.all() else values[finite]
    if not values.size:
        return Intensity(0.0, 0.0, 0.0, 0.0, 0)
    low, high = float(values.min()), float(values.max())
    # Scaled first, so that the squares of huge float64 intensities do not overflow.
    scale = max(abs(low), abs(high)) or 1.0
    values /= scale
    return Intensity(low, high, float(values.mean()) * scale, float(values.std()) * scale, values.size)


def _measure_histogram(histogram: NDArray[np.int64]) -> Intensity:
    """The same numbers from the counts of each value, exact and several times faster."""
    values = np.flatnonzero(histogram)
    counts = histogram[values]
    total = int(counts.sum())
    mean = float(values @ counts) / total
    variance = float(((values - mean) ** 2) @ counts) / total
    return Intensity(float(values[0]), float(values[-1]), mean, sqrt(variance), total)
