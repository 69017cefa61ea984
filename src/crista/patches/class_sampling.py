"""Class sampling: a share of the random patches lies around a pixel of a class, whatever its size, so that rare classes are seen.

nnU-Net (doi:10.1038/s41592-020-01008-z) forces a third of each batch to hold foreground. Here too a class is drawn first, each
as likely, then one of its pixels; the other patches lie anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from crista.geometry.axes import Array
from crista.patches.cutting import Placement
from crista.patches.probability_map import patch_around
from crista.patches.split import Source

MAX_PIXELS = 10_000
"""Pixels that are remembered of a class and source, spread evenly over all of them."""


class ClassPixels:
    """Some pixels of each class of one source, as flat indices."""

    def __init__(self, label: Array, num_classes: int, ignore_index: int | None) -> None:
        flat = label.ravel()
        self.shape = tuple(label.shape)
        self.annotated = self._some(flat != ignore_index) if ignore_index is not None and (flat == ignore_index).any() else None
        """Some annotated pixels; None where all are."""
        self.of_class = tuple(self._some(flat == value) for value in range(num_classes))

    @staticmethod
    def _some(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
        found = np.flatnonzero(mask)
        if len(found) <= MAX_PIXELS:
            return found
        return found[np.linspace(0, len(found) - 1, MAX_PIXELS).astype(np.int64)]


class ClassPlacer:
    """Random patches: `share` of them around a pixel of a class, the others anywhere (around annotated pixels, if not all are).

    Parameters
    ----------
    pixels : what `ClassPixels` found in each source
    share : in [0, 1]
    per_epoch : samples of an epoch
    """

    def __init__(
        self, sources: Sequence[Source], patch: Sequence[int], pixels: Sequence[ClassPixels], *, share: float, per_epoch: int
    ) -> None:
        self._patch = tuple(patch)
        self._shapes = [source.shape for source in sources]
        self._pixels = pixels
        self._share = share
        self._per_epoch = per_epoch
        usable = [found.annotated is None or len(found.annotated) > 0 for found in pixels]
        sizes = np.array([float(np.prod(shape)) * ok for shape, ok in zip(self._shapes, usable, strict=True)])
        self._cumulative = np.cumsum(sizes) / sizes.sum()
        num_classes = len(pixels[0].of_class)
        holders = [[n for n, found in enumerate(pixels) if len(found.of_class[value])] for value in range(num_classes)]
        first = 0 if any(found.annotated is not None for found in pixels) else 1
        self._holders = [(value, numbers) for value, numbers in enumerate(holders) if value >= first and numbers]

    def __len__(self) -> int:
        return self._per_epoch

    def place(self, index: int, rng: np.random.Generator) -> tuple[int, Placement]:  # noqa: ARG002 - all is random
        """A random patch of a random source."""
        if self._holders and rng.random() < self._share:
            value, numbers = self._holders[int(rng.integers(len(self._holders)))]
            number = numbers[int(rng.integers(len(numbers)))]
            return number, self._around(number, self._pixels[number].of_class[value], rng)
        number = min(int(np.searchsorted(self._cumulative, rng.random(), side="right")), len(self._shapes) - 1)
        annotated = self._pixels[number].annotated
        if annotated is not None:
            return number, self._around(number, annotated, rng)
        starts = [int(rng.integers(max(1, n - p + 1))) for n, p in zip(self._shapes[number], self._patch, strict=True)]
        return number, Placement(tuple(starts), self._patch)

    def _around(self, number: int, indices: NDArray[np.int64], rng: np.random.Generator) -> Placement:
        """A patch whose middle half holds one of the pixels."""
        shape = self._shapes[number]
        pixel = np.unravel_index(int(indices[int(rng.integers(len(indices)))]), shape)
        shifts = [int(rng.integers(-(side // 4), side // 4 + 1)) for side in self._patch]
        centre = [int(middle) + shift for middle, shift in zip(pixel, shifts, strict=True)]
        return Placement(patch_around(centre, self._patch, shape), self._patch)
