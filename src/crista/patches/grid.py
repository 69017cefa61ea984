"""Grid: placements of patches that cover a source."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import ceil

from crista.geometry.tiles import grid_starts
from crista.patches.cutting import Placement


def grid_placements(
    shape: Sequence[int], patch: Sequence[int], *, overlap: Sequence[float], padding: Sequence[int]
) -> list[Placement]:
    """Patches that cover a source of `shape`, evenly spread, the last one ending at the border.

    With `padding` the outer pixels of a patch are context: the inner parts cover the source, and the context reaches
    beyond the border by reflection.
    """
    axes = []
    for length, size, shared, context in zip(shape, patch, overlap, padding, strict=True):
        inner = size - 2 * context
        if inner < 1:
            raise ValueError(f"a patch of {size} with a padding of {context} on each side has no inside")
        axes.append([start - context for start in grid_starts(length, inner, shared)])
    return [Placement(tuple(starts), tuple(patch)) for starts in product(*axes)]


def fitted_patch(shape: Sequence[int], patch: Sequence[int], multiple: Sequence[int]) -> tuple[int, ...]:
    """`patch`, but no larger than the source rounded up to what the network can halve; saves reflecting small blocks."""
    return tuple(min(p, ceil(n / m) * m) for n, p, m in zip(shape, patch, multiple, strict=True))
