"""Placing: which patch of which source each sample of an epoch is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from crista.patches.cutting import Placement
from crista.patches.grid import fitted_patch, grid_placements
from crista.patches.probability_map import ProbabilityMap, patch_around
from crista.patches.split import Source


class Placer(Protocol):
    """Chooses a source and a placement for sample `index` of an epoch."""

    def __len__(self) -> int:
        """Number of samples in an epoch."""
        ...

    def place(self, index: int, rng: np.random.Generator) -> tuple[int, Placement]:
        """Source number and placement of sample `index`; only random placers use `rng`."""
        ...


class GridPlacer:
    """Every patch of a grid over every source (that is to be kept), once per epoch."""

    def __init__(
        self,
        sources: Sequence[Source],
        patch: Sequence[int],
        *,
        overlap: Sequence[float],
        padding: Sequence[int],
        multiple: Sequence[int] | None = None,
        keep: Callable[[int, Placement], bool] | None = None,
    ) -> None:
        self._places: list[tuple[int, Placement]] = []
        for number, source in enumerate(sources):
            fits = multiple is not None and not any(padding)  # a smaller patch might have no room for its context
            size = fitted_patch(source.shape, patch, multiple) if fits and multiple is not None else tuple(patch)
            grid = grid_placements(source.shape, size, overlap=overlap, padding=padding)
            self._places.extend((number, placement) for placement in grid if keep is None or keep(number, placement))

    def __len__(self) -> int:
        return len(self._places)

    def place(self, index: int, rng: np.random.Generator) -> tuple[int, Placement]:  # noqa: ARG002 - the protocol's
        """The patch number `index` of the grid."""
        return self._places[index]


class RandomPlacer:
    """One patch per source and epoch, anywhere with equal probability."""

    def __init__(self, sources: Sequence[Source], patch: Sequence[int]) -> None:
        self._shapes = [source.shape for source in sources]
        self._patch = tuple(patch)

    def __len__(self) -> int:
        return len(self._shapes)

    def place(self, index: int, rng: np.random.Generator) -> tuple[int, Placement]:
        """A patch of source `index` with a uniform start."""
        starts = [int(rng.integers(max(1, n - p + 1))) for n, p in zip(self._shapes[index], self._patch, strict=True)]
        return index, Placement(tuple(starts), self._patch)


class MappedPlacer:
    """One patch per source and epoch, its centre drawn from the probability map of the source."""

    def __init__(self, sources: Sequence[Source], patch: Sequence[int], maps: Sequence[ProbabilityMap]) -> None:
        self._shapes = [source.shape for source in sources]
        self._patch = tuple(patch)
        self._maps = maps

    def __len__(self) -> int:
        return len(self._shapes)

    def place(self, index: int, rng: np.random.Generator) -> tuple[int, Placement]:
        """A patch of source `index` around a drawn centre, moved inside where it would cross the border."""
        centre = self._maps[index].draw_centre(rng)
        return index, Placement(patch_around(centre, self._patch, self._shapes[index]), self._patch, tuple(centre))


class Replicated:
    """Another placer's samples, several times per epoch."""

    def __init__(self, placer: Placer, times: int) -> None:
        self._placer = placer
        self._times = times

    def __len__(self) -> int:
        return len(self._placer) * self._times

    def place(self, index: int, rng: np.random.Generator) -> tuple[int, Placement]:
        """The other placer's sample, modulo its length."""
        return self._placer.place(index % len(self._placer), rng)
