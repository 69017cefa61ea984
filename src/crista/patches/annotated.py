"""Annotated: patches that have something to learn from, where labels leave pixels open (scribbles, ignored regions)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from crista.geometry.axes import Array
from crista.patches.cutting import PixelCache, Placement, placed
from crista.patches.placing import Placer
from crista.patches.probability_map import PixelGroup
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


class BalancedPlacer:
    """Patches around annotated pixels: each class as often as the others, each of its pixels in all sources as likely.

    Parameters
    ----------
    labels : (Z)YX classes of each source
    classes : around which patches lie; pixels of other values are not drawn
    count : samples per epoch
    """

    def __init__(
        self, sources: Sequence[Source], patch: Sequence[int], labels: Sequence[Array], *, classes: Sequence[int], count: int
    ) -> None:
        self._shapes = [source.shape for source in sources]
        self._patch = tuple(patch)
        self._count = count
        groups = [[(number, PixelGroup(label == k)) for number, label in enumerate(labels)] for k in classes]
        present = [[(number, group) for number, group in of_class if group.count] for of_class in groups]
        self._classes = [of_class for of_class in present if of_class]
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
