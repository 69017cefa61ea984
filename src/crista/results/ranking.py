"""Ranking: where the network is least sure, and a label would teach it most."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from crista.geometry.axes import Region
from crista.inference.uncertainty import CellGrid, choose_cells

Labelled = Literal["yes", "partly", "no"]
"""Whether most of a region is annotated, some pixels of it, or none."""

MOST_PER_IMAGE = 3
"""Regions of one image in the list, where there are several images."""


@dataclass(frozen=True)
class UncertainRegion:
    """A part of an image, and how unsure the network is there."""

    name: str
    """Of the image."""
    region: Region
    """Of the image, (Z)YX pixels."""
    is_whole: bool
    """Whether that is all of the image, and of its file."""
    uncertainty: float
    """Mean entropy, 0 to 1."""
    cut_at: tuple[int, ...] | None = None
    """Where the image begins in its file, if it is a part of it."""

    @property
    def where(self) -> str:
        """The region in words: ``z 4–11, y 0–127, x 64–191`` (first and last pixel in the file, from 0)."""
        if self.is_whole:
            return "whole image"
        letters, starts = "zyx"[-len(self.region) :], self.cut_at or (0,) * len(self.region)
        named = zip(letters, starts, self.region, strict=True)
        return ", ".join(f"{letter} {start + r.start}–{start + r.stop - 1}" for letter, start, r in named)


@dataclass(frozen=True)
class UncertaintyMap:
    """The entropy cells of an image."""

    name: str
    shape: tuple[int, ...]
    """Of the image, (Z)YX."""
    cells: NDArray[np.float32]
    cut_at: tuple[int, ...] | None = None
    """Where the image begins in its file, if it is a part of it."""


def rank_regions(maps: Sequence[UncertaintyMap], window: Sequence[int], count: int) -> list[UncertainRegion]:
    """The `count` regions with the highest mean entropy, the highest first; no two of one image overlap.

    Regions have about the size of `window` ((Z)YX pixels, whole cells), or are the image where that is smaller.
    """
    most = MOST_PER_IMAGE if len(maps) > 1 else count
    found = [region for image in maps for region in _best_of(image, window, most)]
    return sorted(found, key=lambda region: (-region.uncertainty, region.name))[:count]


def _best_of(image: UncertaintyMap, window: Sequence[int], count: int) -> list[UncertainRegion]:
    grid = choose_cells(image.shape)
    chosen: list[tuple[float, Region]] = []
    for value, box in sorted(_windows(image, grid, window), key=lambda entry: -entry[0]):
        if len(chosen) < count and not any(_overlap(box, other) for _, other in chosen):
            chosen.append((value, box))
    regions = [(value, _pixels_of(box, grid)) for value, box in chosen]
    whole = tuple(slice(0, n) for n in image.shape)
    at = image.cut_at
    return [UncertainRegion(image.name, region, at is None and region == whole, value, at) for value, region in regions]


def _windows(image: UncertaintyMap, grid: CellGrid, window: Sequence[int]) -> Iterator[tuple[float, Region]]:
    """(mean entropy, cells) of windows half of which their neighbours share; those that were not predicted are left out."""
    sizes = [min(n, max(1, round(w / c))) for n, w, c in zip(image.cells.shape, window, grid.cell, strict=True)]
    starts = [sorted({*range(0, n - s, max(1, s // 2)), n - s}) for n, s in zip(image.cells.shape, sizes, strict=True)]
    for corner in product(*starts):
        box = tuple(slice(start, start + size) for start, size in zip(corner, sizes, strict=True))
        values = image.cells[box]
        known = values[np.isfinite(values)]
        if known.size:
            yield float(known.mean()), box


def _overlap(one: Region, other: Region) -> bool:
    return all(a.start < b.stop and b.start < a.stop for a, b in zip(one, other, strict=True))


def _pixels_of(box: Region, grid: CellGrid) -> Region:
    return tuple(slice(b.start * c, min(b.stop * c, n)) for b, c, n in zip(box, grid.cell, grid.shape, strict=True))


def label_next_rows(regions: Sequence[UncertainRegion], labelled: Sequence[Labelled]) -> list[dict[str, str | float | int]]:
    """Rows of label_next.csv: rank, file, region, uncertainty, and whether the region has a label already."""
    return [
        {
            "rank": rank,
            "file": region.name,
            "region": region.where,
            "uncertainty": region.uncertainty,
            "labelled": word,
        }
        for rank, (region, word) in enumerate(zip(regions, labelled, strict=True), 1)
    ]
