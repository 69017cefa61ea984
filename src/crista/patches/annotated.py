"""Annotated: patches that have something to learn from, where labels leave pixels open (scribbles, ignored regions)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from crista.geometry.tiles import grid_blocks
from crista.images.blocks import BLOCK_VALUES, choose_block
from crista.patches.cutting import PixelCache, Placement, placed
from crista.patches.pixel_group import GatheredPixels, PixelGroup
from crista.patches.placing import Placer
from crista.patches.split import Source

MIDDLE = 0.5
"""The drawn pixel lies anywhere in this middle share of the patch, so that annotation does not always sit in its centre."""
TRIES = 100
"""Draws of a random patch before one without annotation is taken (it has no gradient)."""

Keep = Callable[[int, Placement], bool]
"""Whether the patch at a placement in a source, given by its number, is used."""


def annotated_only(sources: Sequence[Source], cache: PixelCache, ignore_index: int) -> Keep:
    """Keeps patches with at least one pixel that is not `ignore_index`."""

    def keep(number: int, placement: Placement) -> bool:
        source = sources[number]
        return bool((cache.read_label(source, placed(source, placement)) != ignore_index).any())

    return keep


class Redrawn:
    """Another placer's random samples, drawn again while they hold no annotation."""

    def __init__(self, placer: Placer, keep: Keep) -> None:
        self._placer = placer
        self._keep = keep

    def __len__(self) -> int:
        return len(self._placer)

    def place(self, index: int, rng: np.random.Generator) -> tuple[int, Placement]:
        """The first of up to `TRIES` placements that is kept."""
        number, placement = self._placer.place(index, rng)
        for _ in range(TRIES - 1):
            if self._keep(number, placement):
                break
            number, placement = self._placer.place(index, rng)
        return number, placement


ClassPixels = list[tuple[int, PixelGroup]]
"""The pixels of one class in each source, given by its number, that holds some."""


def group_pixels(sources: Sequence[Source], cache: PixelCache, classes: Sequence[int]) -> list[ClassPixels]:
    """The pixels of each of `classes` that occurs; labels are read block by block, so that they may be larger than memory."""
    found: list[ClassPixels] = [[] for _ in classes]
    for number, source in enumerate(sources):
        gathered = [GatheredPixels(source.shape) for _ in classes]
        chunks = source.pair.label.chunks if source.pair.label is not None else None
        for block in grid_blocks(source.shape, choose_block(source.shape, chunks, BLOCK_VALUES)):
            start, size = zip(*((axis.start, axis.stop - axis.start) for axis in block), strict=True)
            label = cache.read_label(source, placed(source, Placement(start, size)))
            for value, pixels in zip(classes, gathered, strict=True):
                pixels.add(block, label == value)
        for of_class, pixels in zip(found, gathered, strict=True):
            group = pixels.group()
            of_class.extend([(number, group)] if group.count else [])
    return [of_class for of_class in found if of_class]


class BalancedPlacer:
    """Patches around annotated pixels: each class as often as the others, each of its pixels in all sources as likely.

    Parameters
    ----------
    pixels : of the classes around which patches lie, at least one (`group_pixels`); others are not drawn
    count : samples per epoch
    """

    def __init__(self, sources: Sequence[Source], patch: Sequence[int], pixels: Sequence[ClassPixels], *, count: int) -> None:
        self._shapes = [source.shape for source in sources]
        self._patch = tuple(patch)
        self._count = count
        self._classes = pixels
        self._cumulative = [np.cumsum([group.count for _, group in of_class]) for of_class in self._classes]
        if not self._classes:
            raise ValueError("no pixel of these labels is annotated")

    def __len__(self) -> int:
        return self._count

    def place(self, index: int, rng: np.random.Generator) -> tuple[int, Placement]:  # noqa: ARG002 - the protocol's
        """A class, one of its pixels, and a patch that holds it."""
        chosen = int(rng.integers(len(self._classes)))
        cumulative = self._cumulative[chosen]
        which = int(np.searchsorted(cumulative, rng.integers(cumulative[-1]), side="right"))
        number, group = self._classes[chosen][which]
        shape = self._shapes[number]
        pixel = tuple(int(i) for i in np.unravel_index(group.draw(rng), shape))
        starts = []
        for position, size, length in zip(pixel, self._patch, shape, strict=True):
            low = int(size * (1 - MIDDLE) / 2)
            offset = int(rng.integers(low, max(low + 1, size - low)))
            starts.append(max(0, min(position - offset, length - size)))
        return number, Placement(tuple(starts), self._patch, pixel)
