"""Class sampling: a share of the random patches lies around a pixel of a class, whatever its size, so that rare classes are seen.

nnU-Net (doi:10.1038/s41592-020-01008-z) forces a third of each batch to hold foreground. Here too a class is drawn first, each
as likely, then one of its pixels (`BalancedPlacer`); the other patches lie anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from crista.patches.cutting import Placement
from crista.patches.placing import Placer
from crista.patches.split import Source


class AnywherePlacer:
    """Random patches, anywhere in all sources; a source as often as it is large.

    Parameters
    ----------
    count : samples per epoch
    """

    def __init__(self, sources: Sequence[Source], patch: Sequence[int], count: int) -> None:
        self._shapes = [source.shape for source in sources]
        self._patch = tuple(patch)
        self._count = count
        sizes = np.array([float(np.prod(shape)) for shape in self._shapes])
        self._cumulative = np.cumsum(sizes) / sizes.sum()

    def __len__(self) -> int:
        return self._count

    def place(self, index: int, rng: np.random.Generator) -> tuple[int, Placement]:  # noqa: ARG002 - the protocol's
        """A patch with a uniform start."""
        number = min(int(np.searchsorted(self._cumulative, rng.random(), side="right")), len(self._shapes) - 1)
        starts = [int(rng.integers(max(1, n - p + 1))) for n, p in zip(self._shapes[number], self._patch, strict=True)]
        return number, Placement(tuple(starts), self._patch)


class MixedPlacer:
    """A `share` in [0, 1] of the samples by one placer, the rest by another."""

    def __init__(self, first: Placer, second: Placer, share: float) -> None:
        self._first = first
        self._second = second
        self._share = share

    def __len__(self) -> int:
        return len(self._second)

    def place(self, index: int, rng: np.random.Generator) -> tuple[int, Placement]:
        """A sample of either."""
        return (self._first if rng.random() < self._share else self._second).place(index, rng)
