"""Cutting: pixels of a source, kept in memory within a limit, and patches of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from crista.geometry.axes import Array, Region
from crista.images.image import Image, ImagePair
from crista.images.labels import LabelCoding, read_label
from crista.patches.normalization import ImageStatistics, normalize
from crista.patches.split import Source


@dataclass(frozen=True)
class Placement:
    """Where a patch lies in its source; it may reach beyond it, where pixels are reflected."""

    start: tuple[int, ...]
    """(Z)YX, relative to the source's region; negative with padding."""
    size: tuple[int, ...]
    centre: tuple[int, ...] | None = None
    """The voxel that was drawn, where one was: not the middle of a patch that was moved inside at a border."""


def read_reflected(image: Image, region: Region, limits: Region, *, label: LabelCoding | None = None) -> Array:
    """Pixels of `region`, which may reach beyond `limits`; outside, the pixels inside are reflected.

    Returns C(Z)YX of the image, or (Z)YX classes with `label`.
    """
    inside = tuple(
        slice(min(max(axis.start, limit.start), limit.stop - 1), max(min(axis.stop, limit.stop), limit.start + 1))
        for axis, limit in zip(region, limits, strict=True)
    )
    pixels: Array = read_label(image, label, inside) if label is not None else image.read(inside)
    widths = [
        (max(0, limit.start - axis.start), max(0, axis.stop - limit.stop)) for axis, limit in zip(region, limits, strict=True)
    ]
    return reflect(pixels, widths)


def reflect(pixels: Array, widths: Sequence[tuple[int, int]]) -> Array:
    """Pad the last axes by reflection (an axis of length 1 repeats); leading axes stay."""
    if not any(before or after for before, after in widths):
        return pixels
    leading = [(0, 0)] * (pixels.ndim - len(widths))
    return np.pad(pixels, [*leading, *widths], mode="reflect")


Kept = tuple[Array, NDArray[np.uint8] | None]
"""Image C(Z)YX and classes (Z)YX."""


class PixelCache:
    """Reads image and label regions, keeping whole images in RAM until `limit_bytes` are used.

    Images are kept in their stored dtype; normalisation happens on each patch, by statistics of the whole image, so that a
    patch has the same values however it was read.
    """

    def __init__(self, coding: LabelCoding, *, limit_bytes: int) -> None:
        self._coding = coding
        self._free = limit_bytes
        self._kept: dict[int, Kept | None] = {}
        self._lock = Lock()
        self._being_read: dict[int, Lock] = {}

    def read(self, source: Source, region: Region) -> tuple[Array, NDArray[np.uint8]]:
        """Raw image C(Z)YX and classes (Z)YX of `region` (image coordinates); beyond the source's region it is reflected."""
        kept = self._whole(source)
        label = self.read_label(source, region)
        if kept is None:
            return read_reflected(source.pair.image, region, source.region), label
        return _cut(kept[0], region, source.region), label

    def read_label(self, source: Source, region: Region) -> NDArray[np.uint8]:
        """Classes (Z)YX of `region`, as `read` gives them."""
        kept = self._whole(source)
        if source.pair.label is None:
            raise ValueError(f"{source.pair.name} has no label image")
        if kept is None:
            return read_reflected(source.pair.label, region, source.region, label=self._coding)
        assert kept[1] is not None
        return _cut(kept[1], region, source.region)

    def _whole(self, source: Source) -> Kept | None:
        """The whole image, read once however many threads ask for it at the same time; None where it is not kept."""
        key = id(source.pair)
        if key not in self._kept:
            with self._lock:
                being_read = self._being_read.setdefault(key, Lock())
            with being_read:
                if key not in self._kept:
                    self._kept[key] = self._load(source.pair)
        return self._kept[key]

    def bytes_to_come(self, sources: Sequence[Source]) -> int:
        """Bytes that it will still take for images of `sources` that nobody has asked for yet."""
        waiting = {id(source.pair): source.pair for source in sources if id(source.pair) not in self._kept}
        return min(self._free, sum(map(_bytes_of, waiting.values())))

    def _load(self, pair: ImagePair) -> Kept | None:
        size = _bytes_of(pair)
        with self._lock:
            if size > self._free:
                return None
            self._free -= size
        classes = read_label(pair.label, self._coding) if pair.label is not None else None
        return np.ascontiguousarray(pair.image.read()), classes


def _bytes_of(pair: ImagePair) -> int:
    return pair.image.nbytes + prod(pair.image.spatial_shape)


def _cut(pixels: Array, region: Region, limits: Region) -> Array:
    inside = tuple(
        slice(max(axis.start, limit.start), min(axis.stop, limit.stop)) for axis, limit in zip(region, limits, strict=True)
    )
    widths = [
        (max(0, limit.start - axis.start), max(0, axis.stop - limit.stop)) for axis, limit in zip(region, limits, strict=True)
    ]
    leading = (slice(None),) * (pixels.ndim - len(inside))
    return reflect(pixels[(*leading, *inside)], widths)


def placed(source: Source, placement: Placement) -> Region:
    """A placement in image coordinates."""
    return tuple(
        slice(box.start + start, box.start + start + size)
        for box, start, size in zip(source.region, placement.start, placement.size, strict=True)
    )


def normalized(pixels: Array, statistics: ImageStatistics, *, repeat_to_rgb: bool = False) -> NDArray[np.float32]:
    """Network input of raw pixels C(Z)YX; `repeat_to_rgb` turns a single channel into three (DATA.FORCE_RGB)."""
    image = normalize(pixels, statistics)
    if repeat_to_rgb and image.shape[0] == 1:
        return np.repeat(image, 3, axis=0)
    return image
